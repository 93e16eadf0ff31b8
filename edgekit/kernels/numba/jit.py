"""How functions are compiled, where the machine code is kept, and how rows are shared among threads.

Numba's own parallel loops are not used. Where they run on GNU OpenMP, a child that is forked after one (as
data loaders do) is killed by the next; where they run on Numba's work queue, two at once abort the process.
The compiled functions release the interpreter's lock instead, and threads of Python call them.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
from numba.misc.appdirs import user_cache_dir

from edgekit.spec import Array

P = ParamSpec("P")
R = TypeVar("R")

# Enough voxels that handing out a task costs little, few enough that threads finish together.
_VOXELS_PER_TASK = 1 << 16


_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A short function that becomes part of the machine code of those that call it."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)  # type: ignore[no-any-return]


def part(function: Callable[P, R]) -> Callable[P, R]:
    """A passage of one compiled function, put there before anything is compiled: that saves time."""
    return numba.njit(inline="always", **_OPTIONS)(function)  # type: ignore[no-any-return]


def called(function: Callable[P, R]) -> Callable[P, R]:
    """A function that compiled functions call: as part of them it would take long to compile."""
    return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """A function that Python calls. Its machine code is kept on disk, if there is a place for it."""
    folder = _cache_folder()
    if not folder:
        return called(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = folder
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
    finally:
        numba.config.CACHE_DIR = before


def _cache_folder() -> str:
    """A folder of the user's, named after the sources of all that is compiled; empty if it cannot be made.

    By itself Numba would write beside the source files, and notice a change in a function's own file only.
    """
    base = Path(numba.config.CACHE_DIR or user_cache_dir("edgekit", appauthor=False))
    folder = base / f"numba-{_sources()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK | os.X_OK) else ""


@functools.cache
def _sources() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def each_row(kernel: Callable[..., None], rows: int, width: int, threads: int, *arguments: Any) -> None:
    """Call ``kernel(begin, end, *arguments)`` for ranges that cover all rows of so many voxels, each once."""
    step = max(1, _VOXELS_PER_TASK // width)
    workers = min(threads, -(-rows // step))
    if workers <= 1:
        kernel(0, rows, *arguments)
        return
    with ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(kernel, at, min(at + step, rows), *arguments) for at in range(0, rows, step)]
    for task in tasks:
        task.result()


def memory_of(array: Array) -> Array:
    """All elements of a C-contiguous or channels-last array in the order of memory; float16 as uint16."""
    if not array.flags.c_contiguous:
        array = np.moveaxis(array, 1, -1)
    flat = array.reshape(-1)
    return flat.view(np.uint16) if array.dtype == np.float16 else flat
