"""``edgekit distil``: compressed weights into better ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import args, output
from edgekit.cli.targets import complete_targets
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.distillation import Distilled, Labels
    from edgekit.recovery import Progress as Stand
    from edgekit.recovery import Recipe

_MIB = 1 << 20


@args.command("distil")
@click.argument("model")
@args.shapes_option("Shape of an input, such as ct=1x1x[32:128:16]x96x96.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Weights to make better: .safetensors or .pt.",
)
@click.option(
    "--teacher-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights of the original; with --precision int8 those of --weights otherwise.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="What the weights are for: int8 trains them to lose less by being rounded.",
)
@click.option(
    "-t",
    "--target",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Device, whose arithmetic decides how INT8 rounds.",
    shell_complete=complete_targets,
)
@click.option(
    "-c",
    "--calibrate",
    multiple=True,
    required=True,
    metavar="[NAME=]DATA",
    help="Images to learn from: a folder, a file or a pattern.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="OUTPUT=DATA",
    help="What an output should be, for the same images; not needed.",
)
@click.option(
    "--loss",
    "losses",
    multiple=True,
    metavar="OUTPUT=NAME",
    help="Loss for a label: dice_cross_entropy (where none is named), cross_entropy, l1 or mse.",
)
@click.option(
    "--before",
    multiple=True,
    metavar="STEP",
    help="What is done before the network, as for compile.",
)
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), metavar="X", help="Time to train.  [default: 5]"
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Steps to train, instead of minutes.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Largest step of the weights.",
)
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Samples a step.")
@click.option("--crop", type=click.IntRange(1), metavar="N", help="Side of the crops that are trained on.")
@click.option("--no-flips", is_flag=True, help="Never mirror an image.")
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="LAYER",
    help="Layer to compare besides the outputs, or 'none'; some are picked otherwise.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="OUTPUT=KIND",
    help="What an output is, where the guess is wrong: logits, probabilities, image, field or values.",
)
@click.option("--keep", multiple=True, metavar="LAYER", help="With int8, a layer that stays in float.")
@click.option(
    "--limit", type=click.IntRange(0), default=0, metavar="N", help="Most images of each input; 0 for all."
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
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@args.force_option
@click.option(
    "--memory-limit-mib",
    type=click.IntRange(1),
    default=16384,
    show_default=True,
    metavar="N",
    help="For the process that trains.",
)
def command(
    model: str,
    shapes: tuple[str, ...],
    weights: Path,
    teacher_weights: Path | None,
    precision: str,
    target: str,
    calibrate: tuple[str, ...],
    labels: tuple[str, ...],
    losses: tuple[str, ...],
    before: tuple[str, ...],
    minutes: float | None,
    steps: int | None,
    learning_rate: float | None,
    batch: int | None,
    crop: int | None,
    no_flips: bool,
    features: tuple[str, ...],
    kinds: tuple[str, ...],
    keep: tuple[str, ...],
    limit: int,
    patches: int,
    seed: int,
    threads: int,
    file: Path,
    resume: bool,
    force: bool,
    memory_limit_mib: int,
    as_json: bool,
) -> None:
    """Train compressed weights to do what the original ones do.

    MODEL is a PyTorch factory `package.module:function`. The images need no labels: the network learns to
    give what the original gives, in its outputs and on the way. A quarter of them is held out, and the
    weights that are best on it are written; they are never worse than those that were given. A run that is
    interrupted leaves its state beside the output, and --resume goes on with it.
    """
    from edgekit import distillation
    from edgekit import target as targets
    from edgekit.cli import feeds
    from edgekit.cli.progress import Progress

    quantization = None
    if precision == "int8":
        quantization = replace(distillation.quantization_for(targets.find(target)), keep=keep)
    elif keep:
        raise UsageError("only with --precision int8 are layers rounded", where="--keep")
    if minutes is None and steps is None:
        minutes = 5.0
    with Progress() as progress:
        try:
            made = distillation.distil(
                model,
                weights=weights,
                teacher_weights=teacher_weights,
                calibrate=calibrate,
                output=file,
                shapes=feeds.shapes(shapes),
                before=before,
                labels=_labels(labels, losses),
                minutes=minutes,
                steps=steps,
                recipe=_recipe(learning_rate, batch, crop, no_flips, features),
                quantization=quantization,
                kinds=_kinds(kinds),
                limit=limit,
                patches=patches,
                seed=seed,
                threads=threads,
                resume=resume,
                force=force,
                memory_limit_bytes=memory_limit_mib * _MIB,
                on_event=progress,
                on_progress=lambda stand: progress(_told(stand), stand.share),
            )
        except KeyboardInterrupt:
            if distillation.checkpoint_of(file).is_file():
                output.note(f"--resume goes on from {distillation.checkpoint_of(file)}")
            raise
    if as_json:
        output.document(
            "distil", {"weights": str(file), "size_bytes": file.stat().st_size, "distilled": made}
        )
        return
    _show(made, file)


def _recipe(
    learning_rate: float | None,
    batch: int | None,
    crop: int | None,
    no_flips: bool,
    features: tuple[str, ...],
) -> Recipe:
    from edgekit.recovery import Augmentation, Recipe

    chosen: dict[str, Any] = {"learning_rate": learning_rate, "batch": batch}
    if features:
        chosen["features"] = () if features == ("none",) else features
    augmentation = Augmentation(crop=crop or 0, flips=not no_flips)
    return Recipe(augmentation=augmentation, **{n: value for n, value in chosen.items() if value is not None})


def _labels(texts: tuple[str, ...], losses: tuple[str, ...]) -> dict[str, Labels]:
    from edgekit.distillation import Labels

    images = args.named_values("--label", texts, example="mask=masks/")
    named = args.named_values("--loss", losses, example="mask=dice_cross_entropy")
    for name in named:
        args.known_name("--loss", name, list(images), kind="labelled output")
    return {name: Labels(data, named.get(name, "dice_cross_entropy")) for name, data in images.items()}


def _kinds(texts: tuple[str, ...]) -> dict[str, Any]:
    from edgekit.recovery import KINDS

    kinds = args.named_values("--kind", texts, example="mask=logits")
    return {n: args.known_name("--kind", kind, KINDS, kind="kind of output") for n, kind in kinds.items()}


def _told(stand: Stand) -> str:
    return f"train: {stand.best:.4g} on held-out samples"


def _show(made: Distilled, file: Path) -> None:
    recovery = made.recovery
    why = "" if recovery.ended == "budget" else ", nothing became better any more"
    output.say(
        f"{made.samples} samples of {', '.join(made.sources)}; {recovery.steps} steps in "
        f"{output.seconds(recovery.seconds)}{why}"
    )
    gain = f"{recovery.before / recovery.after:.3g} times less" if recovery.after > 0 else "nothing left"
    output.say(
        f"difference on held-out samples: {recovery.before:.4g} before, {recovery.after:.4g} now ({gain})"
    )
    kinds = ", ".join(f"{name} ({kind})" for name, kind in recovery.kinds.items())
    output.say(f"compared: {kinds}; on the way: {', '.join(recovery.features) or 'nothing'}")
    for note in made.notes:
        output.say(f"note: {note}")
    output.say(f"wrote {file}, {output.size(file.stat().st_size)}")
