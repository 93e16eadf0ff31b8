"""Timing shared by the benchmarks: everything that is compared takes turns in one process."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

COPY_BYTES = 256 * 2**20


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
    functions: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1
) -> dict[str, Samples]:
    """Call the functions in turn, ``repeats`` times each after ``warmup`` rounds that do not count."""
    samples = {name: Samples() for name in functions}
    for number in range(-warmup, repeats):
        for name, function in functions.items():
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            function()
            wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
            if number >= 0:
                samples[name].wall_ns.append(wall)
                samples[name].cpu_ns.append(cpu)
    return samples


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
