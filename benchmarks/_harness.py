"""Timing shared by the benchmarks: everything that is compared takes turns in one process."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

COPY_BYTES = 256 * 2**20
LEAST_REPEATS = 3
# A turn of what is fast has several calls, as in use, where one follows the other. The first one, which finds
# the caches as the candidate before left them, is not counted.
TURN_S, TURN_CALLS = 0.02, 20


@dataclass
class Samples:
    """Every timed call of one function, in order.

    Wall time is what a user waits for. On a machine that others use as well, the process's own CPU time (of
    all its threads) is the steadier of the two, and the least of it the steadiest.
    """

    wall_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """Median."""
        return statistics.median(self.wall_ns) / 1e9

    @property
    def least_cpu_s(self) -> float:
        return min(self.cpu_ns) / 1e9

    @property
    def spread(self) -> float:
        """From the 10th to the 90th percentile of wall time, as a share of the median."""
        low, high = np.percentile(self.wall_ns, [10, 90])
        return float((high - low) / statistics.median(self.wall_ns))


def interleave(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    limit_s: float = math.inf,
    pause_s: float = 0.0,
) -> dict[str, Samples]:
    """Let the functions take turns, ``repeats`` each after one call that does not count.

    A function that would take longer than ``limit_s`` in all has fewer turns, evenly spaced among the others'
    and at least :data:`LEAST_REPEATS`. A turn of one call begins with a pause of ``pause_s``: a runtime's
    threads may spin for some milliseconds after the candidate before.
    """
    samples = {name: Samples() for name in functions}
    calls, turns = {}, {}
    for name, function in functions.items():
        once_s = timed(function)[0] / 1e9
        calls[name] = min(TURN_CALLS, 1 + int(TURN_S / once_s))
        affordable = int(limit_s / (calls[name] * once_s)) if limit_s < math.inf else repeats
        turns[name] = min(repeats, max(LEAST_REPEATS, affordable))
    for number in range(repeats):
        for name, function in functions.items():
            if (number + 1) * turns[name] // repeats == number * turns[name] // repeats:
                continue
            if calls[name] == 1:
                time.sleep(pause_s)
            taken = [timed(function) for _ in range(calls[name])]
            for wall_ns, cpu_ns in taken[1:] or taken:
                samples[name].wall_ns.append(wall_ns)
                samples[name].cpu_ns.append(cpu_ns)
    return samples


def timed(function: Callable[[], object]) -> tuple[int, int]:
    """Wall time and CPU time of one call, in nanoseconds."""
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


def copy_bandwidth(threads: int, *, repeats: int = 7) -> float:
    """Bytes read and written per second of CPU time, copying a large array with that many threads."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    parts = [np.array_split(array, threads) for array in (target, source)]

    def copy() -> None:
        workers = [threading.Thread(target=np.copyto, args=pair) for pair in zip(*parts, strict=True)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return 2 * COPY_BYTES / interleave({"copy": copy}, repeats=repeats)["copy"].least_cpu_s
