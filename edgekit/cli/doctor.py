"""``edgekit doctor``: what works here, what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.doctor import Diagnosis, Finding
    from edgekit.jetson import Clock, Jetson

_NOTHING_WORKS = 4


@args.command("doctor")
def command(as_json: bool) -> int:
    """Say what works here, what is missing and how to get it.

    Every backend is loaded once, in a process of its own. Exit code 4 where none of them works.
    """
    from edgekit.cli.progress import Progress
    from edgekit.doctor import examine

    with Progress() as progress:
        progress("load every backend")
        diagnosis = examine()
    if as_json:
        output.document("doctor", {"usable": diagnosis.usable, "diagnosis": diagnosis})
    else:
        _show(diagnosis)
    return 0 if diagnosis.usable else _NOTHING_WORKS


def _show(diagnosis: Diagnosis) -> None:
    here = diagnosis.machine
    output.say(f"edgekit {diagnosis.edgekit} on {here.system}")
    features = ", ".join(here.features) or "no extensions known"
    output.say(f"processor: {here.cpu} ({here.arch}), {here.cores} cores, {features}")
    free = f"{output.size(diagnosis.free_memory_bytes)} of {output.size(here.memory_bytes)}"
    output.say(f"memory: {free} free; disk: {output.size(diagnosis.free_disk_bytes)} free here")
    others = f" (also {', '.join(diagnosis.other_targets)})" if diagnosis.other_targets else ""
    if diagnosis.jetson:
        _jetson(diagnosis.jetson)
    output.say(f"target: {diagnosis.target or 'none describes this machine'}{others}")
    for mismatch in diagnosis.mismatches:
        output.say(f"note: {mismatch}")
    output.say()
    _findings("backends", diagnosis.backends)
    rest = (diagnosis.kernels, diagnosis.gpu, *diagnosis.operators, *diagnosis.packages)
    _findings("the rest", (diagnosis.python, *rest))


def _jetson(board: Jetson) -> None:
    """A line for the module, one for its software, one for what it is set to."""
    unknown = "unknown"
    output.say(f"module: {board.model or unknown} ({board.module or board.chip or unknown})")
    software = {"JetPack": board.jetpack, "Jetson Linux": board.l4t, "TensorRT": board.tensorrt}
    software |= {"CUDA": board.cuda, "cuDNN": board.cudnn}
    output.say(f"software: {', '.join(f'{name} {version or unknown}' for name, version in software.items())}")
    mode = f"{board.mode.name} (nvpmodel -m {board.mode.number})" if board.mode else unknown
    others = ", ".join(one.name for one in board.modes if one != board.mode)
    output.say(f"power mode: {mode}{f'; also {others}' if others else ''}")
    gpu = f"{board.multiprocessors or 'unknown number of'} multiprocessors, {_clock(board.gpu_clock)}"
    output.say(f"GPU: {gpu}; memory: {_clock(board.memory_clock)}")


def _clock(clock: Clock) -> str:
    """``306 MHz now, at most 1020``."""
    figures = {"{:.0f} MHz now": clock.now_hz, "at most {:.0f} MHz": clock.highest_hz}
    known = [text.format(hz / 1e6) for text, hz in figures.items() if hz is not None]
    return ", ".join(known) or "clock unknown"


def _findings(title: str, findings: Iterable[Finding]) -> None:
    rows: output.Rows = [(title, "", "version", "what for, or what to do")]
    for found in findings:
        versions = ", ".join(dict.fromkeys(found.versions.values()))
        advice = f"{found.purpose} ({found.reason})" if found.reason else found.purpose
        if found.state != "found":
            advice = f"{found.reason.splitlines()[0]}{': ' + found.hint if found.hint else ''}"
        rows.append(
            (found.name, "found but broken" if found.state == "broken" else found.state, versions, advice)
        )
    output.table(rows)
    output.say()
