"""``edgekit deploy``: a bundle onto a device, and its proof there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.deploy import Deployment, Device


@args.command("deploy")
@args.bundle_argument
@click.argument("device", metavar="ssh://[USER@]HOST[:PORT][/FOLDER]")
@click.option(
    "--python",
    default="python3",
    show_default=True,
    metavar="NAME",
    help="The device's Python, 3.10 or newer: a name or a path.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Take the device's wheels from here, and none from an index.",
)
@click.option("--no-test", is_flag=True, help="Copy, and do not run it there.")
@click.option(
    "--ssh-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="ssh's configuration, in place of your own.",
)
def command(
    bundle: Path,
    device: str,
    python: str,
    wheels: Path | None,
    no_test: bool,
    ssh_config: Path | None,
    as_json: bool,
) -> None:
    """Put a bundle on a device, and have it prove itself there.

    Copies the bundle and a runtime for the device's Python: edgekit, NumPy and the vendor's package, without
    PyTorch or onnx. Nothing is installed there and nothing comes from the network there. Then `edgekit
    finalize` runs on the device, where the bundle wants it, and `edgekit verify --run`.

    FOLDER is absolute, or in the home folder after /~/; by default it is ~/edgekit. Keys, passwords and hosts
    are ssh's business. A transfer that was cut off goes on where it ended.
    """
    from edgekit import deploy
    from edgekit.cli.progress import Progress

    with Progress() as progress:
        done = deploy.deploy(
            bundle,
            device,
            python=python,
            wheels=wheels,
            test=not no_test,
            ssh_config=ssh_config,
            on_step=progress,
            on_bytes=lambda name, there, size: progress(f"copy {name}", there / max(size, 1)),
        )
    if as_json:
        output.document("deploy", {"bundle": str(bundle), "deployment": done})
        return
    _show(done, device)


def _show(done: Deployment, address: str) -> None:
    output.say(f"device: {_described(done.device)}")
    for note in done.notes:
        output.say(f"note: {note}")
    output.say(f"copied {output.size(done.sent_bytes)}; runtime {done.runtime}")
    proof = done.proof.get("proof")
    if proof:
        for name, reason in proof.get("passed_over", {}).items():
            output.say(f"note: {name} does not run there: {reason}")
        accuracy = proof.get("accuracy")
        verdict = "keeps the golden case's limits" if accuracy else "runs; the bundle holds no golden case"
        output.say(
            f"tested there: {proof['network']} {verdict}, {output.seconds(proof['run_s'])} for the first run"
        )
    else:
        output.say("not tested there")
    output.say(f"on the device: {done.launcher} run {done.bundle}")


def _described(device: Device) -> str:
    board = device.jetson
    what = (
        f"{board.model or board.module or board.chip}, JetPack {board.jetpack or 'unknown'}, "
        if board
        else ""
    )
    return f"{what}Python {'.'.join(map(str, device.python))} on {device.platform}"
