"""``edgekit prune``: a network with fewer channels, as much faster as wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import args, output
from edgekit.cli.targets import complete_targets
from edgekit.cuts import IMPORTANCES

if TYPE_CHECKING:
    from edgekit.distillation import Distilled
    from edgekit.slimming import Slimmed

_MIB = 1 << 20


@args.command("prune")
@click.argument("model")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Weights of the factory's network: .safetensors or .pt.",
)
@click.option(
    "-c",
    "--calibrate",
    multiple=True,
    required=True,
    metavar="[NAME=]DATA",
    help="Images that tell what is important: a folder, a file or a pattern.",
)
@click.option(
    "-t",
    "--target",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Device.",
    shell_complete=complete_targets,
)
@click.option(
    "--speedup",
    type=click.FloatRange(1, min_open=True),
    default=1.8,
    show_default=True,
    metavar="X",
    help="How many times faster it is to be, measured.",
)
@args.shapes_option("Shape of an input, such as ct=1x1x[32:128:16]x96x96.")
@click.option(
    "--before",
    multiple=True,
    metavar="STEP",
    help="What is done before the network, as for compile.",
)
@click.option(
    "--multiple",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    metavar="N",
    help="Layers keep a multiple of this many channels: 8, 16 or 32, as wide as the device's vectors.",
)
@click.option(
    "--importance",
    type=click.Choice(IMPORTANCES),
    default=IMPORTANCES[0],
    show_default=True,
    help="What tells how important a channel is: its effect on the outputs, or its weights.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="LAYER",
    help="Module whose layers keep their channels; * and ? stand for others.",
)
@click.option("-b", "--backend", default="auto", show_default=True, metavar="NAME", help="auto measures all.")
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    metavar="N",
    help="Most cuts to compile and measure.",
)
@click.option(
    "--recover-minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Then train what is left to do what the original does, on the same images, as distil does.",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    metavar="N",
    help="Most images of each input to rank channels on; 0 for all.",
)
@click.option(
    "--patches",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Samples to take of an image that is larger than the model's input.",
)
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Of all that is drawn.")
@args.threads_option
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Weights to write, .safetensors.",
)
@args.force_option
@click.option(
    "--time-limit-s",
    type=click.FloatRange(0, min_open=True),
    default=900.0,
    show_default=True,
    metavar="S",
    help="For each step that runs in a process of its own.",
)
@click.option(
    "--memory-limit-mib",
    type=click.IntRange(1),
    default=16384,
    show_default=True,
    metavar="N",
    help="For each step that runs in a process of its own.",
)
def command(
    model: str,
    weights: Path,
    calibrate: tuple[str, ...],
    target: str,
    speedup: float,
    shapes: tuple[str, ...],
    before: tuple[str, ...],
    multiple: int,
    importance: str,
    keep: tuple[str, ...],
    backend: str,
    attempts: int,
    recover_minutes: float | None,
    limit: int,
    patches: int,
    seed: int,
    threads: int,
    file: Path,
    force: bool,
    time_limit_s: float,
    memory_limit_mib: int,
    as_json: bool,
) -> None:
    """Cut channels until a network is as much faster as wanted.

    MODEL is a PyTorch factory `package.module:function`. Channels that belong together are found by running
    the network, the least important go first, and every cut is compiled with the target's backends and
    measured beside the original. What a network loses by it, --recover-minutes trains it to do again. The
    file holds what is left and a plan of it: `edgekit compile MODEL
    --weights FILE` makes the pruned network again. Exit code 1, and no file, where no cut is fast enough.
    """
    from edgekit import distillation, slimming
    from edgekit.cli import feeds
    from edgekit.cli.progress import Progress

    common: dict[str, Any] = {
        "shapes": feeds.shapes(shapes),
        "before": before,
        "patches": patches,
        "seed": seed,
        "threads": threads,
        "output": file,
        "memory_limit_bytes": memory_limit_mib * _MIB,
    }
    recovered = None
    with Progress() as progress:
        made = slimming.prune(
            model,
            calibrate,
            target=target,
            speedup=speedup,
            weights=weights,
            importance=importance,
            multiple=multiple,
            keep=keep,
            backend=backend,
            attempts=attempts,
            limit=limit,
            force=force,
            time_limit_s=time_limit_s,
            on_event=progress,
            **common,
        )
        if recover_minutes is not None:
            recovered = distillation.distil(
                model,
                weights=file,
                teacher_weights=weights,
                calibrate=calibrate,
                minutes=recover_minutes,
                force=True,
                on_event=progress,
                on_progress=lambda stand: progress("train what is left", stand.share),
                **common,
            )
    if as_json:
        names = ("wanted", "chosen", "trials", "original_s", "original_backend", "kept", "notes")
        found = {name: getattr(made, name) for name in names}
        found |= {"weights": str(file), "size_bytes": file.stat().st_size, "recovered": recovered}
        output.document("prune", found)
        return
    _show(made, recovered, file)


def _show(made: Slimmed, recovered: Distilled | None, file: Path) -> None:
    rows: output.Rows = [("work cut", "parameters", "faster", "latency", "backend", "")]
    for trial in made.trials:
        before, after = trial.sizes.parameters
        rows.append(
            (
                f"{trial.share:.0%}",
                f"{after / before:.0%}",
                f"{trial.speedup:.2f}x",
                output.seconds(trial.seconds),
                trial.backend,
                "chosen" if trial == made.chosen else "too slow" if trial.speedup < made.wanted else "",
            )
        )
    output.table(rows)
    output.say(
        f"{made.chosen.speedup:.2f} times faster than {output.seconds(made.original_s)} of the original "
        f"({made.original_backend}), with {made.chosen.sizes.parameters[1]} of "
        f"{made.chosen.sizes.parameters[0]} parameters"
    )
    if made.kept:
        output.say("layers that keep all their channels:")
        for path, why in made.kept.items():
            output.say(f"  {path}: {why}")
    if recovered is not None:
        recovery = recovered.recovery
        output.say(
            f"trained for {output.seconds(recovery.seconds)}: difference on held-out samples "
            f"{recovery.before:.4g} before, {recovery.after:.4g} now"
        )
    for note in dict.fromkeys((*made.notes, *(recovered.notes if recovered is not None else ()))):
        output.say(f"note: {note}")
    output.say(f"wrote {file}, {output.size(file.stat().st_size)}")
