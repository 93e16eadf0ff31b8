"""edgekit's operators against what else computes the same, one case after the other, everything taking turns.

    python benchmarks/bench_kernels.py [--kernel NAME ...] [--threads 1,2] [--repeats N] [--json FILE]

A ratio is the peer's time over edgekit's at the same number of threads: medians of wall time, and the least
CPU time of each, which a busy machine disturbs less. The bound is the CPU time to move the fewest bytes
(inputs once, outputs once) at the speed of a large copy with as many threads, measured in the same run.
Every peer's result is compared with edgekit's. A peer that is not installed is left out and named. Exit code
1 where results that should agree do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import kernel_memory
import numpy as np
from _harness import Samples, copy_bandwidth, interleave
from kernel_cases import CASES, Case
from kernel_goals import GOALS, reached
from peers import Peer, Run, Task, every_peer

from edgekit import atomic, machine
from edgekit.kernels import native_status
from edgekit.kernels.base import OPERATORS

# Results agree if nearly all values do: a sample within rounding of a voxel may fall to either side of it.
# Tolerances are shares of the largest value; whole numbers that are no labels may be rounded to either side.
TOLERANCES, ROUNDING_SHARE = {"float32": 1e-4, "float16": 1e-3}, 1e-3

Result = dict[str, Any]


class Settings(argparse.Namespace):
    """The command line."""

    kernel: list[str]
    case: str
    peer: str
    threads: str
    repeats: int
    limit_s: float
    shrink: int
    memory: bool
    json: Path | None


def edgekit_runs(task: Task) -> dict[str, Run]:
    """edgekit as users call it, then each variant that runs here."""
    operator = OPERATORS[task.kernel]
    outputs = operator.allocate(*task.inputs, **task.options)
    given = {**task.options, "threads": task.threads}

    def first(result: Any) -> np.ndarray:
        return result[0] if isinstance(result, tuple) else result

    runs = {
        "edgekit": Run(lambda: operator.function(*task.inputs, **given, out=outputs[0]), first),
        "edgekit, new array": Run(lambda: operator.function(*task.inputs, **given), first),
    }
    for variant in operator.variants:
        if not variant.missing():
            runs[f"edgekit {variant.name}"] = Run(
                lambda run=variant.run: run(*task.inputs, **given, outputs=outputs), lambda _: outputs[0]
            )
    return runs


def agreement(want: np.ndarray, got: np.ndarray, *, exact: bool, differs: str) -> dict[str, Any]:
    """Largest difference, and the share of values that differ by more than rounding."""
    if got.shape != want.shape:
        raise ValueError(f"want shape {want.shape}, got {got.shape}")
    scale = max(1.0, float(np.abs(want).max()))
    tolerance = 0.0 if exact else TOLERANCES.get(want.dtype.name, 1 / scale)
    difference = np.abs(got.astype(np.float32) - want.astype(np.float32))
    share = float(np.mean(~(difference <= tolerance * scale)))
    return {
        "largest": float(difference.max()),
        "share": share,
        "differs": differs,
        "agrees": bool(differs) or share <= ROUNDING_SHARE,
    }


def measure(
    case: Case, peers: Iterable[Peer], bandwidths: Mapping[int, float], settings: Settings
) -> list[Result]:
    """One case with every number of threads."""
    inputs, options = case.arguments(settings.shrink)
    outputs = OPERATORS[case.kernel].allocate(*inputs, **options)
    moved = sum(array.nbytes for array in (*inputs, *outputs))
    results: list[Result] = []
    for threads, bandwidth in bandwidths.items():
        task = Task(case.kernel, inputs, options, threads)
        runs, agreements = edgekit_runs(task), {}
        for run in runs.values():  # whatever compiles at its first call does so here
            run.call()
        want = runs["edgekit"].view(runs["edgekit"].call()).copy()
        for peer in peers:
            if run := peer.prepare(task):
                runs[peer.name] = run
                agreements[peer.name] = agreement(
                    want, run.view(run.call()), exact=case.kernel == "warp_labels", differs=run.differs
                )
        calls = {name: run.call for name, run in runs.items()}
        taken = interleave(calls, repeats=settings.repeats, limit_s=settings.limit_s)
        results.append(
            {
                "kernel": case.kernel,
                "case": case.label,
                "threads": threads,
                "bound_s": moved / bandwidth,
                "runs": {name: summary(samples) for name, samples in taken.items()},
                "agreement": agreements,
            }
        )
        if threads > 1:
            results[-1]["scaling"] = scaling(task, settings.repeats)
    return results


def scaling(task: Task, repeats: int) -> dict[str, Any]:
    """edgekit with one thread and with all of the task's, taking turns."""
    alone = dataclasses.replace(task, threads=1)
    calls = {name: edgekit_runs(each)["edgekit"].call for name, each in {"one": alone, "all": task}.items()}
    taken = interleave(calls, repeats=repeats)
    return {
        "speedup": taken["one"].wall_s / taken["all"].wall_s,
        **{name: summary(samples) for name, samples in taken.items()},
    }


def summary(samples: Samples) -> dict[str, Any]:
    return {
        "wall_s": samples.wall_s,
        "least_cpu_s": samples.least_cpu_s,
        "spread": samples.spread,
        "samples": dataclasses.asdict(samples),
    }


def shown(result: Result) -> Iterator[str]:
    """A result as a table."""
    base, bound_s = result["runs"]["edgekit"], result["bound_s"]
    title = f"{result['kernel']} {result['case']}, {result['threads']} thread(s)"
    yield f"{title}, bound {bound_s * 1e3:.1f} ms CPU"
    heads = ("median ms", "spread", "CPU ms", "ratio", "CPU ratio", "of bound", "differs by")
    yield f"  {'':26}" + "".join(f"{head:>11}" for head in heads)
    for name, run in result["runs"].items():
        figures = (
            f"{run['wall_s'] * 1e3:.2f}",
            f"{run['spread']:.0%}",
            f"{run['least_cpu_s'] * 1e3:.2f}",
            f"{run['wall_s'] / base['wall_s']:.2f}",
            f"{run['least_cpu_s'] / base['least_cpu_s']:.2f}",
            f"{bound_s / run['least_cpu_s']:.0%}",
        )
        line = f"  {name:26}" + "".join(f"{figure:>11}" for figure in figures)
        yield line + difference(result["agreement"].get(name))
    if scaled := result.get("scaling"):
        one, all_ = (scaled[name]["wall_s"] * 1e3 for name in ("one", "all"))
        times = f"{one:.2f} / {all_:.2f} ms = {scaled['speedup']:.2f}"
        yield f"  {result['threads']} threads against one, in turns: {times}"


def difference(agreement: dict[str, Any] | None) -> str:
    if agreement is None:
        return ""
    text = f"{agreement['largest']:11.1e}"
    if agreement["share"]:
        text += f" ({agreement['share']:.2%} of values"
        text += f": {agreement['differs']})" if agreement["differs"] else ")"
    return text if agreement["agrees"] else f"{text} DISAGREES"


def judged(results: list[Result]) -> Iterator[str]:
    """Every goal that was measured, and whether it is met."""
    yield f"{'goal':44}{'against':26}{'want':>8}{'got':>8}"
    for goal in GOALS:
        got = reached(goal, results)
        if got is not None:
            met = "met" if goal.met(got) else "NOT MET"
            yield f"{f'{goal.kernel} {goal.case}':44}{goal.against:26}{goal.limit:8.2f}{got:8.2f}  {met}"


def memories(cases: Iterable[Case], peers: list[Peer]) -> list[Result]:
    """Of the plain case of every volume: pages of 2 MiB blur what is smaller."""
    print("\nmemory that a call takes, results included, as multiples of the results", flush=True)
    found = []
    for case in cases:
        if not case.note and len(case.grid) == 3:
            found.append(kernel_memory.measured(case, peers))
            print(kernel_memory.shown(found[-1]), flush=True)
    return found


def parsed() -> Settings:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kernels = list(dict.fromkeys(case.kernel for case in CASES))
    parser.add_argument("--kernel", nargs="+", choices=kernels, default=kernels)
    parser.add_argument("--case", default="", help="cases whose label holds this text")
    parser.add_argument("--peer", default="", help="peers whose name holds this text")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--repeats", type=int, default=11, help="timed calls of each (default 11)")
    parser.add_argument(
        "--limit-s",
        type=float,
        default=5.0,
        help="fewer calls of what would take longer in all (default 5)",
    )
    parser.add_argument("--shrink", type=int, default=1, help="divide every axis, to try the benchmark out")
    parser.add_argument("--memory", action="store_true", help="measure the memory of calls as well")
    parser.add_argument("--json", type=Path, help="where to write every sample")
    return parser.parse_args(namespace=Settings())


def main() -> int:
    settings = parsed()
    peers = [peer for peer in every_peer() if settings.peer in peer.name]
    packages = {"numpy": None, **{name: None for peer in peers for name in peer.packages}}
    status, record = native_status(), machine.record(packages)
    print(
        f"{record.cpu}, {record.cores} cores, load {record.load:.1f}, native: {status.isa or status.missing}"
    )
    if not status.isas:
        sys.exit("error: nothing to measure without the compiled extension\nhint: pip install --editable .")
    left_out = {peer.name: missing for peer in peers if (missing := peer.missing())}
    for name, missing in left_out.items():
        print(f"left out: {name} ({missing})")
    if settings.shrink > 1:
        print(f"every axis is a {settings.shrink}th of what the labels say")
    bandwidths = {threads: copy_bandwidth(threads) for threads in map(int, settings.threads.split(","))}
    for threads, bandwidth in bandwidths.items():
        print(f"copy with {threads} thread(s): {bandwidth / 1e9:.1f} GB/s of CPU time")
    present = [peer for peer in peers if peer.name not in left_out]
    chosen = [case for case in CASES if case.kernel in settings.kernel and settings.case in case.label]
    report: Result = {
        "machine": dataclasses.asdict(record),
        "native": dataclasses.asdict(status),
        "left_out": left_out,
        "copy_bytes_per_s": bandwidths,
        "shrink": settings.shrink,
        "results": [],
        "memory": [],
    }
    results = report["results"]
    for case in chosen:
        results += measure(case, present, bandwidths, settings)
        for result in results[-len(bandwidths) :]:
            print("", *shown(result), sep="\n", flush=True)
        write(report, settings.json)
    if settings.memory:
        report["memory"] = memories(chosen, present)
        write(report, settings.json)
    print("", *judged(results), sep="\n")
    return 0 if all(each["agrees"] for result in results for each in result["agreement"].values()) else 1


def write(report: Result, path: Path | None) -> None:
    """As far as it is known: a long run that is ended leaves what it has measured."""
    if path:
        atomic.write(path, json.dumps(report, indent=1).encode(), force=True)


if __name__ == "__main__":
    sys.exit(main())
