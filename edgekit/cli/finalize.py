"""``edgekit finalize``: build a bundle's engine on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli import args, output


@args.command("finalize")
@args.bundle_argument
@click.option("--network", default="", metavar="NAME", help="Of the bundle's networks this one.")
@click.option(
    "--plugins",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Library of plug-ins that was built on this device; it is run as machine code.",
)
@click.option(
    "--reproduce",
    type=click.IntRange(1, 100),
    default=1,
    metavar="N",
    help="Build so often, and record how far the builds differ.",
)
@click.option(
    "--time-limit-s",
    type=click.FloatRange(1),
    default=3600.0,
    show_default=True,
    metavar="X",
    help="For each build.",
)
@click.option("-f", "--force", is_flag=True, help="Build also where an engine is there that fits.")
def command(
    bundle: Path,
    network: str,
    plugins: Path | None,
    reproduce: int,
    time_limit_s: float,
    force: bool,
    as_json: bool,
) -> None:
    """Build a bundle's engine on this device, prove it, and keep it.

    The engine is run on the bundle's golden case and has to keep its limits (exit code 1 where it does not).
    It is for this device, this TensorRT and this power mode; in any other state it is built anew.
    """
    from edgekit import finalization
    from edgekit.cli.progress import Progress

    with Progress() as progress:
        done = finalization.finalize(
            bundle,
            network=network,
            plugins=plugins,
            reproduce=reproduce,
            force=force,
            time_limit_s=time_limit_s,
            on_event=progress,
        )
    if as_json:
        output.document("finalize", _document(done))
        return
    record, key = done.record, done.record.key
    rows: output.Rows = [("network", "TensorRT", "device", "power mode", "built in", "engine")]
    rows.append(
        (
            done.network,
            key.tensorrt,
            f"{key.gpu}, {key.multiprocessors} multiprocessors",
            key.power_mode or "-",
            f"{record.build_s:.1f} s" if done.built else "earlier",
            str(done.engine),
        )
    )
    output.table(rows)
    if record.accuracy is not None:
        worst = max(tensor.max_abs_error for tensor in record.accuracy.tensors)
        output.say(f"golden case: within its limits; largest difference {worst:.3g}")
    if spread := record.spread:
        output.say(
            f"{spread.builds} builds: {spread.engines} different files, other tactics in up to "
            f"{max(spread.other_tactics)} of {spread.layers} layers, largest difference of a result "
            f"{spread.max_abs_difference:.3g}"
        )
    for note in done.notes:
        output.say(f"note: {note}")


def _document(done: Any) -> dict[str, Any]:
    return {
        "network": done.network,
        "engine": str(done.engine),
        "built": done.built,
        "record": done.record,
        "notes": done.notes,
    }
