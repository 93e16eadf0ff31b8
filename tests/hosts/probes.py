"""What hosts are asked beside results: where their arrays were, and which threads worked."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def last_call(library: Path, inputs: int) -> list[int]:
    """Addresses of the inputs and the output of the latest call in a library that this process has loaded."""
    pointers = (ctypes.c_void_p * 3)()
    ctypes.CDLL(str(library)).edgekit_last_call(pointers)
    return [pointer or 0 for pointer in pointers[: inputs + 1]]


def workers(call: Callable[[], object], *, seconds: float = 1.5) -> int:
    """How many threads work on calls: those with at least a tenth of the busiest one's time."""
    call()
    before = _thread_times()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        call()
    spent = [t - before.get(thread, 0) for thread, t in _thread_times().items()]
    return sum(t > 0.1 * max(spent) for t in spent)


def _thread_times() -> dict[str, int]:
    """Nanoseconds that each thread of this process has run."""
    return {
        path.name: int((path / "schedstat").read_text().split()[0])
        for path in Path("/proc/self/task").iterdir()
    }


def warp_feeds(size: tuple[int, int, int]) -> tuple[Array, Array]:
    """An image and a displacement for a warp of some work."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 1, *size)).astype(np.float32)
    return image, (2 * rng.standard_normal((1, 3, *size))).astype(np.float32)
