"""``edgekit diff``: where a bundle's network leaves its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output
from edgekit.cli.targets import complete_targets
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.diff import DiffReport
    from edgekit.diff.run import Found

_DIVERGES = 1
_MIB = 1 << 20


@args.command("diff")
@click.argument("model")
@args.bundle_argument
@click.option(
    "-t",
    "--target",
    metavar="NAME",
    help="Target or target file that the bundle was compiled for; the name in the bundle otherwise.",
    shell_complete=complete_targets,
)
@args.inputs_option("Image or array to compare on; generated ones otherwise.")
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
    help="What the bundle was compiled with before the network, in order.",
)
@click.option(
    "--graph",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="ONNX file that was compiled, where neither the model gives it nor the bundle holds it.",
)
@click.option(
    "--min-snr-db",
    type=float,
    metavar="X",
    help="Values below it diverge; otherwise 60, 40 in float16, 20 where quantized.",
)
@click.option(
    "--marks",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    metavar="N",
    help="Inner values to ask for in one compilation; fewer leave more of the backend's fusions whole.",
)
@args.network_option
@args.threads_option
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the smallest part that diverges goes, with its inputs.",
)
@args.force_option
@click.option(
    "--time-limit-s",
    type=click.FloatRange(0, min_open=True),
    default=900.0,
    show_default=True,
    metavar="S",
    help="For each compilation.",
)
@click.option(
    "--memory-limit-mib",
    type=click.IntRange(1),
    default=16384,
    show_default=True,
    metavar="N",
    help="For each compilation.",
)
def command(
    model: str,
    bundle: Path,
    target: str | None,
    inputs: tuple[str, ...],
    weights: Path | None,
    trust: bool,
    before: tuple[str, ...],
    graph: Path | None,
    min_snr_db: float | None,
    marks: int,
    network: str,
    threads: int,
    folder: Path | None,
    force: bool,
    time_limit_s: float,
    memory_limit_mib: int,
    as_json: bool,
) -> int:
    """Find the first layer where a bundle leaves its model.

    The model is computed literally. The bundle's graph is compiled again with a few inner values as outputs,
    in bisection; the smallest part that diverges by itself can be saved. Exit code 1 where one diverges.
    """
    from edgekit import bundle as bundles
    from edgekit import diff, pipeline
    from edgekit import target as targets
    from edgekit.cli import feeds
    from edgekit.cli.progress import Progress
    from edgekit.isolation import Limits
    from edgekit.spec import format_dims

    if folder is not None:
        _require_empty(folder, force)
    with Progress(ticking=False) as progress:
        progress(f"open {bundle}")
        opened = bundles.read(bundle)
        manifest = opened.manifest
        device = targets.find(target or manifest.target)
        given = feeds.given_or_generated(manifest.inputs, inputs, ())
        progress(f"load {model}")
        reference = pipeline.prepare(
            model,
            target=device,
            shapes={spec.name: format_dims(spec.dims) for spec in manifest.inputs},
            weights=weights,
            trust=trust,
            before=before,
            time_limit_s=time_limit_s,
            memory_limit_bytes=memory_limit_mib * _MIB,
        )
        found = diff.diff(
            reference,
            opened,
            feeds=given.arrays,
            described=given.described,
            graph=graph,
            target=device,
            min_snr_db=min_snr_db,
            marks=marks,
            network=network,
            threads=threads,
            limits=Limits(time_limit_s, memory_limit_mib * _MIB),
            on_event=progress,
        )
    written = _write(found, folder, force)
    report = found.report
    if as_json:
        output.document("diff", {"bundle": str(bundle), "files": written, **report.as_dict()})
    else:
        _show(report, f"{bundle} against {model}", written)
    return _DIVERGES if report.diverges else 0


def _require_empty(folder: Path, force: bool) -> None:
    """Before the work: which files there will be is not known yet."""
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            "the folder exists already and is not empty",
            where=str(folder),
            hint="another name, or --force to replace files in it",
        )


def _write(found: Found, folder: Path | None, force: bool) -> list[str]:
    from edgekit import atomic

    if folder is None or not found.files:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in found.files.items():
        atomic.write(folder / name, content, force=force)
    return [str(folder / name) for name in found.files]


def _show(report: DiffReport, title: str, written: list[str]) -> None:
    output.say(f"{title}, {report.backend}, on inputs {report.inputs}")
    rows: output.Rows = [("output", "bundle", "compiled again")]
    rows += [
        (name, output.decibels(snr), output.decibels(report.outputs[name]))
        for name, snr in report.artifact.items()
    ]
    output.table(rows)
    if not report.diverges:
        output.say(f"no output is below {report.threshold_db:g} dB")
    for kind, found in (("first divergent", report.first), ("steepest", report.steepest)):
        if found is not None:
            made_of = ", ".join(f"{name} {output.decibels(snr)}" for name, snr in found.inputs.items())
            output.say(f"{kind} value: {found.value}, {output.decibels(found.snr_db)}, of {made_of}")
            output.say(f"  made by {', '.join(found.nodes)}")
    if report.part is not None:
        alone = "diverges alone as well" if report.part.reproduces else "is right when compiled alone"
        count = len(report.part.nodes)
        output.say(f"the part of {count} nodes {alone}: {output.decibels(report.part.snr_db)}")
    if report.probed:
        output.table(
            [("value", "node", ""), *((p.value, p.node, output.decibels(p.snr_db)) for p in report.probed)]
        )
    for path in written:
        output.say(f"wrote {path}")
    for note in report.notes:
        output.say(f"note: {note}")
