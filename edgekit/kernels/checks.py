"""What all operators refuse, in one wording."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.exchange import as_numpy
from edgekit.machine import usable_cores
from edgekit.spec import Array

# What the native kernels count with: float32 coordinates and int32 offsets. The limits hold for every
# variant, so that no argument is accepted here and refused there.
MAX_AXIS = 2**24
MAX_ELEMENTS = 2**31 - 1

FLOAT32 = ("float32",)
FLOATS = ("float32", "float16")
IMAGES = ("float32", "float16", "uint8", "int16")
LABELS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def check_input(
    value: object,
    name: str,
    *,
    where: str,
    ranks: Sequence[int],
    dtypes: Sequence[str] = FLOAT32,
    channels_last: bool = False,
) -> Array:
    """A view of an array that is C-contiguous, of a given rank and type, without empty or oversized axes.

    Args:
        value: A NumPy array, or one that speaks DLPack.
        name: What the argument is called.
        where: The operator.
        ranks: How many axes it may have.
        dtypes: What it may hold, in this machine's byte order.
        channels_last: Whether the second axis may also be the innermost in memory.

    Raises:
        KernelError: It is something else.
    """
    array = as_numpy(value, name, where=where)
    if array.dtype not in _native_types(tuple(dtypes)):
        raise KernelError(
            f"{name}: want {' or '.join(dtypes)}, got {array.dtype}",
            where=where,
            hint=f"{name}.astype(np.{'float32' if 'float32' in dtypes else 'int32'})",
        )
    lacking = min(ranks) - array.ndim
    if array.ndim not in ranks:
        raise KernelError(
            f"{name}: want {' or '.join(map(str, ranks))} axes, got shape {array.shape}",
            where=where,
            hint=f"{name}[{', '.join(['None'] * lacking)}] adds axes of length 1 in front"
            if lacking > 0
            else None,
        )
    if array.size == 0:
        raise KernelError(f"{name}: want at least one element, got shape {array.shape}", where=where)
    if array.size > MAX_ELEMENTS or max(array.shape) > MAX_AXIS:
        raise KernelError(
            f"{name}: want at most 2^31 - 1 elements and 2^24 per axis, got shape {array.shape}",
            where=where,
            hint="work in tiles",
        )
    if not (array.flags.c_contiguous or (channels_last and is_channels_last(array))):
        layouts = "C-contiguous or channels-last" if channels_last else "C-contiguous"
        raise KernelError(
            f"{name}: want {layouts} memory, got strides {array.strides}",
            where=where,
            hint=f"np.ascontiguousarray({name})",
        )
    return array


@functools.cache
def _native_types(names: tuple[str, ...]) -> frozenset[Any]:
    """Types of these names in this machine's byte order; to look for a name takes microseconds."""
    return frozenset(map(np.dtype, names))


def is_channels_last(array: Array) -> bool:
    """Whether an array [N, C, ...] lies in memory as [N, ..., C], and in no other way."""
    return not array.flags.c_contiguous and np.moveaxis(array, 1, -1).flags.c_contiguous


def empty_image(image: Array, grid: Sequence[int]) -> Array:
    """A new array for samples of an image on a grid: its batch, channels, type and memory layout."""
    n, c = image.shape[:2]
    if is_channels_last(image):
        return np.moveaxis(np.empty((n, *grid, c), image.dtype), -1, 1)
    return np.empty((n, c, *grid), image.dtype)


def check_flow(
    value: object, name: str, *, where: str, dtypes: Sequence[str] = FLOAT32, image: Array | None = None
) -> Array:
    """A view of a displacement [N, 3, D, H, W] or [N, 2, H, W], checked as by :func:`check_input`.

    Raises:
        KernelError: It is something else, or has not batch and grid of ``image``.
    """
    flow = check_input(value, name, where=where, ranks=(4, 5), dtypes=dtypes)
    if flow.shape[1] != flow.ndim - 2:
        raise KernelError(
            f"{name}: want shape [N, 3, D, H, W] or [N, 2, H, W], got {flow.shape}", where=where
        )
    if image is not None and (flow.shape[0] != image.shape[0] or flow.shape[2:] != image.shape[2:]):
        raise KernelError(
            f"{name}: want batch and grid of image {image.shape}, got shape {flow.shape}", where=where
        )
    return flow


def check_choice(value: object, name: str, choices: Sequence[object], *, where: str) -> None:
    """Refuse a value that is none of the choices; ``True`` is not ``1``."""
    if isinstance(value, bool) or value not in choices:
        raise KernelError(f"{name}: want one of {', '.join(map(repr, choices))}, got {value!r}", where=where)


def check_flag(value: object, name: str, *, where: str) -> bool:
    """Refuse anything but ``True`` and ``False``."""
    if not isinstance(value, (bool, np.bool_)):
        raise KernelError(f"{name}: want True or False, got {value!r}", where=where)
    return bool(value)


def check_integer(value: object, name: str, low: int, high: int, *, where: str) -> int:
    """Refuse anything but an integer from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise KernelError(f"{name}: want an integer from {low} to {high}, got {value!r}", where=where)
    return int(value)


def check_number(value: object, name: str, low: float, *, where: str) -> float:
    """Refuse anything but a finite real number of at least ``low``."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not low <= float(value) < float("inf"):  # type: ignore[arg-type]
        raise KernelError(f"{name}: want a finite number of at least {low:g}, got {value!r}", where=where)
    return float(value)  # type: ignore[arg-type]


def check_output(
    out: object,
    fresh: Array | tuple[tuple[int, ...], Any],
    inputs: Sequence[Array],
    *,
    where: str,
    name: str = "out",
) -> Array:
    """The array to write to: ``out`` if given and fit for it, else a new one.

    Args:
        out: What the caller gave, or None.
        fresh: An array with the shape, type and memory layout to have, or (shape, type) for C order.
        inputs: What the output must not overlap.
        where: The operator.
        name: What the argument is called.

    Raises:
        KernelError: ``out`` has another shape, type or layout, is not writeable, or overlaps an input.
    """
    if isinstance(fresh, tuple):
        shape, dtype, like = fresh[0], np.dtype(fresh[1]), None
    else:
        shape, dtype, like = fresh.shape, fresh.dtype, fresh
    if out is None:
        return np.empty(shape, dtype) if like is None else np.empty_like(like)
    last = like is not None and is_channels_last(like)
    given = check_input(out, name, where=where, ranks=(len(shape),), dtypes=(dtype.name,), channels_last=last)
    if given.shape != shape:
        raise KernelError(f"{name}: want shape {shape}, got {given.shape}", where=where)
    if last and not is_channels_last(given) and not np.moveaxis(given, 1, -1).flags.c_contiguous:
        raise KernelError(
            f"{name}: want channels-last memory like the image, got strides {given.strides}",
            where=where,
            hint="np.empty_like(image)",
        )
    if not given.flags.writeable:
        raise KernelError(f"{name}: want a writeable array, got a read-only one", where=where)
    if any(np.may_share_memory(given, array) for array in inputs):  # exact, as all are contiguous
        raise KernelError(f"{name}: want memory of its own, got an array that overlaps an input", where=where)
    return given


def check_threads(threads: object, *, where: str) -> int:
    """The number of threads to use: as given, or as many as this process may run on.

    Raises:
        KernelError: It is not an integer of at least 1.
    """
    if threads is None:
        return _usable_cores()
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise KernelError(f"threads: want an integer of at least 1, got {threads!r}", where=where)
    return min(int(threads), 1024)


@functools.cache
def _usable_cores() -> int:
    return usable_cores()  # reads files: too slow for every call
