"""``edgekit profile``: how long a bundle takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.reports import LatencyReport

_PERCENTS = (50, 90, 99, 99.9)


@args.command("profile")
@args.bundle_argument
@args.inputs_option("Image or array to run on; generated ones otherwise.")
@args.shapes_option("Shape of a generated input; its smallest one otherwise.")
@args.network_option
@args.threads_option
@click.option(
    "--runs",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Runs to measure; 0 for as many as fit the time.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Time to measure for, where --runs is not given.",
)
def command(
    bundle: Path,
    inputs: tuple[str, ...],
    shapes: tuple[str, ...],
    network: str,
    threads: int,
    runs: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure how long a bundle takes, every sample kept.

    Times are those of a whole run: checks, network and steps. The first run stands apart; then comes a
    warm-up until the times settle.
    """
    from edgekit import profiling, runtime
    from edgekit.cli import feeds, results
    from edgekit.cli.progress import Progress

    with Progress(ticking=False) as progress:
        progress(f"open {bundle}")
        with runtime.open(bundle, network=network, threads=threads) as session:
            given = feeds.given_or_generated(session.inputs, inputs, shapes)
            report = profiling.measure(
                session,
                given.arrays,
                runs=runs,
                seconds=seconds,
                on_progress=lambda share: progress("measure", share),
            )
    for text in results.which(session):
        output.note(f"note: {text}")
    if as_json:
        figures = profiling.summary(report)
        output.document(
            "profile",
            {
                "bundle": str(bundle),
                "network": session.network_name,
                "inputs": given.described,
                "summary": figures,
                "report": report,
            },
        )
        return
    _show(report, str(bundle), given.described)


def _show(report: LatencyReport, bundle: str, inputs: str) -> None:
    from edgekit.reports import nearest_rank

    machine = report.machine
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in report.shapes.items())
    output.say(f"{bundle} on inputs {inputs} ({shapes})")
    percents = [f"p{percent:g}" for percent in _PERCENTS]
    rows: output.Rows = [("", *percents, "jitter", "runs")]
    times = [output.seconds(report.percentile_s(percent)) for percent in _PERCENTS]
    rows.append(("whole run", *times, output.seconds(report.jitter_s), str(len(report.samples_s))))
    for name, samples in report.stages_s.items():
        stage = [output.seconds(nearest_rank(samples, percent)) for percent in _PERCENTS]
        jitter = nearest_rank(samples, 75) - nearest_rank(samples, 25)
        rows.append((f"  {name}", *stage, output.seconds(jitter), str(len(samples))))
    output.table(rows)
    first, load = output.seconds(report.first_run_s), output.seconds(report.load_s)
    output.say(f"load {load}; first run {first}; then {len(report.warmup_s)} runs to warm up")
    output.say(f"peak memory {output.size(report.peak_memory_bytes)}; threads {report.threads or 'all'}")
    output.say(f"{machine.cpu}, {machine.cores} cores, {machine.system}, load {machine.load:.1f}")
    for note in report.notes:
        output.say(f"note: {note}")
