"""How much memory a call takes beyond its arguments, each measured in a process of its own.

    python benchmarks/kernel_memory.py KERNEL CASE NAME      # prints bytes

The figure is the growth of the largest resident memory during one call that allocates its result.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from kernel_cases import CASES, Case
from peers import Peer, Run, Task, every_peer

from edgekit import machine
from edgekit.kernels.base import OPERATORS

SHRINK = 8
# It compiles anew for every shape, in the very call that is measured.
LEFT_OUT = ("torch layer, compiled",)
OURS = "edgekit"


def extra_bytes(ready: Callable[[Task], Run | None], case: Case) -> int:
    """Of one call, after a small one that loads libraries and starts threads."""
    small, full = (ready(Task(case.kernel, *case.arguments(shrink), threads=1)) for shrink in (SHRINK, 1))
    assert small is not None and full is not None
    small.call()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Linux counts the largest resident memory anew after this.
    Path("/proc/self/clear_refs").write_text("5")
    before = machine.peak_memory_bytes()
    result: Any = full.call()
    after = machine.peak_memory_bytes()
    del result
    return after - before


def ours(task: Task) -> Run:
    function = OPERATORS[task.kernel].function
    return Run(lambda: function(*task.inputs, **task.options, threads=task.threads))


def in_fresh_process(case: Case, name: str) -> int:
    command = [sys.executable, __file__, case.kernel, case.label, name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(case: Case, peers: Iterable[Peer]) -> dict[str, Any]:
    """Bytes of edgekit and of every peer that can do the case, and those of the results themselves."""
    inputs, options = case.arguments()
    results = OPERATORS[case.kernel].allocate(*inputs, **options)
    task = Task(case.kernel, *case.arguments(SHRINK), threads=1)
    names = [OURS, *(peer.name for peer in peers if peer.name not in LEFT_OUT and peer.prepare(task))]
    return {
        "kernel": case.kernel,
        "case": case.label,
        "result_bytes": sum(array.nbytes for array in results),
        "extra_bytes": {name: in_fresh_process(case, name) for name in names},
    }


def shown(memory: dict[str, Any]) -> str:
    """A measurement in multiples of the results."""
    times = {name: taken / memory["result_bytes"] for name, taken in memory["extra_bytes"].items()}
    figures = ", ".join(f"{name} {each:.2f}" for name, each in times.items())
    return f"{memory['kernel']} {memory['case']}: {figures}"


def main() -> int:
    kernel, label, name = sys.argv[1:]
    (case,) = (case for case in CASES if (case.kernel, case.label) == (kernel, label))
    ready = ours if name == OURS else next(peer for peer in every_peer() if peer.name == name).prepare
    print(extra_bytes(ready, case))
    return 0


if __name__ == "__main__":
    sys.exit(main())
