"""``edgekit compile``: a model into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import args, output
from edgekit.cli.targets import complete_targets

if TYPE_CHECKING:
    from edgekit.pipeline import Plan

_MIB = 1 << 20
# As edgekit.compression has them; --help is too quick to import that (a test compares them).
_PRECISIONS = ("float32", "float16", "bfloat16", "int8", "auto")


@args.command("compile")
@click.argument("model")
@click.option(
    "-t",
    "--target",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Device.",
    shell_complete=complete_targets,
)
@args.jetpack_option
@args.shapes_option("Shape of an input, such as ct=1x1x[32:128:16]x96x96.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights for a factory: .safetensors or .pt.",
)
@click.option("--trust", is_flag=True, help="Take in .pt2 files, which can execute code when they are read.")
@click.option(
    "--before",
    multiple=True,
    metavar="STEP",
    help="What to do before the network, such as 'median image radius=2' or 'zoo.denoise2d image'; "
    "repeat it for more, in order.",
)
@click.option(
    "-b",
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto measures all and keeps the fastest.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="BACKEND.NAME=VALUE",
    help="Option of a backend, such as tvm.tune_s=60.",
)
@args.inputs_option("Image or array to verify and measure with; generated ones otherwise.", "NAME=FILE")
@click.option(
    "--max-abs-error",
    type=click.FloatRange(0),
    metavar="X",
    help="Largest difference allowed from the reference.",
)
@click.option("--min-snr-db", type=float, metavar="X", help="Smallest signal-to-noise ratio allowed.")
@click.option(
    "--precision",
    type=click.Choice(_PRECISIONS),
    default="float32",
    show_default=True,
    help="auto finds the fastest mix that keeps the limits.",
)
@click.option(
    *("-c", "--calibrate"),
    multiple=True,
    metavar="[NAME=]FOLDER",
    help="Images like those that the device will see: a folder, a file or a pattern.",
)
@click.option(
    "--patches",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Parts to take of each calibration image that is larger than the model's input.",
)
@args.task_options
@click.option(
    "--max-latency-ms", type=click.FloatRange(0, min_open=True), metavar="X", help="Largest median latency."
)
@click.option(
    "--max-size-mib", type=click.FloatRange(0, min_open=True), metavar="X", help="Largest compiled network."
)
@click.option(
    "--calibration-memory-mib",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    metavar="N",
    help="Memory that calibration may take, however many images there are.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="HTML page to write: every case and layer, the worst cases as images.",
)
@args.threads_option
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Bundle to write; NAME.ekb here otherwise.",
)
@args.force_option
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done; compile and write nothing.")
@click.option("--name", metavar="TEXT", help="Name of the bundle; the model's own otherwise.")
@click.option("--intended-use", default="", metavar="TEXT", help="What it is for, kept in the bundle.")
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
    target: str,
    jetpack: str | None,
    shapes: tuple[str, ...],
    weights: Path | None,
    trust: bool,
    before: tuple[str, ...],
    backend: str,
    options: tuple[str, ...],
    inputs: tuple[str, ...],
    max_abs_error: float | None,
    min_snr_db: float | None,
    precision: Any,
    calibrate: tuple[str, ...],
    patches: int,
    cases: Path | None,
    max_latency_ms: float | None,
    max_size_mib: float | None,
    calibration_memory_mib: int,
    report: Path | None,
    threads: int,
    file: Path | None,
    force: bool,
    only_plan: bool,
    name: str | None,
    intended_use: str,
    time_limit_s: float,
    memory_limit_mib: int,
    as_json: bool,
    **task: Any,
) -> None:
    """Compile a model for a device and prove what came out.

    MODEL is an .onnx file, a PyTorch factory `package.module:function`, or a .pt2 file with --trust. Every
    backend that the target lists is tried, compared with the reference and measured; the fastest one that
    keeps within the limits is written. Exit code 1, and no bundle, where none does.

    --precision int8 and auto want --calibrate, images of your own: nothing is ever calibrated on random data.
    --cases names a CSV file with labelled cases, on which --metric is kept within --max-drop and the other
    limits of the task: one case in which a structure is lost is enough to fail.

    A STEP is a name, the input whose place its result takes (where there are several) and options as
    NAME=VALUE. Steps are kept in the bundle and run before the network on every run; models of the zoo,
    `zoo.NAME`, come last and are compiled with it.
    """
    from edgekit import pipeline
    from edgekit.cli import feeds
    from edgekit.cli.progress import Progress
    from edgekit.compression import Compression
    from edgekit.gates import Budget
    from edgekit.reports import AccuracyLimits

    file = file or Path(f"{name or pipeline.name_of(model)}.ekb")
    shape_of = feeds.shapes(shapes)
    with Progress() as progress:
        common: dict[str, Any] = {
            "target": args.target(target, jetpack),
            "shapes": shape_of or None,
            "weights": weights,
            "trust": trust,
            "before": before,
            "backend": backend,
            "options": args.backend_options("--option", options),
            "inputs": feeds.for_compiling(inputs, shape_of) or None,
            "limits": AccuracyLimits(max_abs_error, min_snr_db),
            "compression": Compression(
                precision=precision,
                calibrate=calibrate,
                patches=patches,
                cases=cases,
                gates=args.gates(**task),
                budget=Budget(
                    max_latency_ms / 1e3 if max_latency_ms is not None else None,
                    int(max_size_mib * _MIB) if max_size_mib is not None else None,
                ),
                memory_bytes=calibration_memory_mib * _MIB,
            ),
            "output": file,
            "force": force,
            "time_limit_s": time_limit_s,
            "memory_limit_bytes": memory_limit_mib * _MIB,
            "on_event": progress,
        }
        if only_plan:
            plan = pipeline.plan(model, **common)
        else:
            bundle = pipeline.compile(
                model, **common, report=report, threads=threads, name=name, intended_use=intended_use
            )
    if only_plan:
        _show_plan(plan, as_json)
        return
    if as_json:
        output.document(
            "compile", {"bundle": str(file), "size_bytes": file.stat().st_size, "manifest": bundle.manifest}
        )
        return
    from edgekit.cli.inspect import show_evidence

    show_evidence(bundle.manifest)
    for note in bundle.manifest.notes:
        output.say(f"note: {note}")
    output.say(f"wrote {file}, {output.size(file.stat().st_size)}")


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        output.document("compile", {"plan": plan.as_dict()})
        return
    output.say(f"would compile {plan.model} for {plan.target} into {plan.output}")
    for title, lines in (
        ("inputs", plan.inputs),
        ("results", plan.results),
        ("prepared", plan.history),
        ("steps before the network", plan.before),
        ("steps after the network", plan.after),
        ("notes", plan.notes),
        ("compression", plan.compression),
    ):
        if lines:
            output.say(f"{title}:")
            for line in lines:
                output.say(f"  {line}")
    rows: output.Rows = [("backend", "verdict", "why")]
    for item in plan.backends:
        reason = f"{item.reason}{': ' + item.hint if item.hint else ''}"
        rows.append(
            (item.backend, "would be compiled" if item.verdict == "compile" else item.verdict, reason)
        )
    output.table(rows)
    limits = {"--max-abs-error": plan.limits.max_abs_error, "--min-snr-db": plan.limits.min_snr_db}
    demanded = ", ".join(f"{option} {value:g}" for option, value in limits.items() if value is not None)
    output.say(f"compared with {plan.reference}; limits: {demanded or 'none'}")
