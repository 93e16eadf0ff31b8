"""What happens to one voxel: ``csrc/sample/sample_math-inl.h`` and ``csrc/common/half.h`` for Numba.

All is float32 and is evaluated in the order of the C++, nothing contracted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype, typeof, types
from numba.extending import overload

from edgekit.kernels.interpolation import BOUNDARIES, FAR_VOX
from edgekit.kernels.numba.jit import inlined, part

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
EDGE, MIRROR, REFLECT, WRAP = (BOUNDARIES.index(b) for b in ("edge", "mirror", "reflect", "wrap"))
OUTSIDE, UNKNOWN = -1, -2

# Where a displacement from voxel p is clamped: between low - unit * p and high - unit * p; the offset of the
# first voxel that takes part is at most last - unit * p.
Span = tuple[float, float, float, float]


def span_of(size: int, order: int, boundary: str) -> Span:
    """``(low, high, last, unit)`` of an axis: nothing changes beyond."""
    if boundary not in ("zero", "edge"):
        return (-FAR_VOX, FAR_VOX, FAR_VOX, 0.0)
    if order == 1 and boundary == "edge":
        return (0.0, size - 1.0, max(size - 2.0, 0.0), 1.0)
    # Linear: at one voxel beyond, the second corner would be inside at weight 0, and 0 * inf is NaN.
    beyond = {0: 1.0, 1: 2.0, 3: 3.0}[order]
    return (-beyond, size - 1.0 + beyond, size - 1.0 + beyond, 1.0)


@part
def place(shift: Any, whole: Any, count: int, span: Any, first: Any, weight: Any) -> None:
    """Split coordinates ``whole + shift``: the first voxel that takes part, and the distance from it.

    A NaN passes the clamps and ends up in the weight.
    """
    low0, high0, last0 = np.float32(span[0]), np.float32(span[1]), np.float32(span[2])
    unit = np.float32(span[3])
    for k in range(count):
        p = unit * np.float32(whole[k])
        f, low, high, last = shift[k], low0 - p, high0 - p, last0 - p
        f = low if low > f else f
        f = high if high < f else f
        floor = np.floor(f)
        offset = floor if floor < last else last
        first[k] = np.int32(offset) + whole[k]
        weight[k] = f - offset


@inlined
def extended(index: int, size: int, boundary: int) -> int:
    """The voxel that stands for any whole coordinate, or :data:`OUTSIDE`."""
    if 0 <= index < size:
        return index
    if boundary == EDGE:
        return 0 if index < 0 else size - 1
    if boundary == WRAP:
        return index % size
    if boundary == REFLECT:
        index %= 2 * size
        return index if index < size else 2 * size - 1 - index
    if boundary == MIRROR:
        index %= max(2 * size - 2, 1)
        return index if index < size else 2 * size - 2 - index
    return OUTSIDE


@inlined
def blend(a: Any, b: Any, weight: Any) -> Any:
    """Exact at both ends."""
    return a * (ONE - weight) + b * weight


@inlined
def cubic_weights(t: Any, a: Any) -> Any:
    """Keys' weights of the voxels at -1, 0, 1 and 2, for a coordinate ``t`` in [0, 1] from voxel 0."""
    back = ONE - t
    return _cubic_far(t + ONE, a), _cubic_near(t, a), _cubic_near(back, a), _cubic_far(back + ONE, a)


@inlined
def _cubic_near(x: Any, a: Any) -> Any:
    return (((a + TWO) * x - (a + np.float32(3))) * x) * x + ONE


@inlined
def _cubic_far(x: Any, a: Any) -> Any:
    return ((a * x - np.float32(5) * a) * x + np.float32(8) * a) * x - np.float32(4) * a


@inlined
def from_half(half: Any) -> Any:
    """float32 of a float16, given by its bits."""
    bits = np.int64(half & 0x7FFF) << 13
    if bits >= 0x0F800000:  # infinite or not a number
        magnitude = np.uint32(bits + 0x70000000).view(np.float32)
    else:
        magnitude = np.uint32(bits).view(np.float32) * np.float32(2.0**112)
    return -magnitude if half & 0x8000 else magnitude


@inlined
def to_half(value: Any) -> Any:
    """The bits of the nearest float16, halves to even."""
    bits = np.int64(np.float32(value).view(np.uint32))
    sign, magnitude = bits >> 16 & 0x8000, bits & 0x7FFFFFFF
    if magnitude > 0x7F800000:
        return np.uint16(sign | 0x7E00)
    if magnitude >= 0x47800000:  # 2^16 and more
        return np.uint16(sign | 0x7C00)
    if magnitude < 0x38800000:  # subnormal: the last bit of what is near 1/2 is the unit of a float16
        units = np.uint32(magnitude).view(np.float32) + HALF
        return np.uint16(sign | np.int64(np.float32(units).view(np.uint32)) - 0x3F000000)
    rounded = magnitude + 0xFFF + (magnitude >> 13 & 1)
    return np.uint16(sign | (rounded - 0x38000000) >> 13)


def widen(value: Any) -> Any:
    """float32 of an element in memory; of uint16, which float16 is held as, that of the float16."""
    return _widen(typeof(value))(value)  # where nothing is compiled


def _widen(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: from_half(value)  # noqa: PLW0108 - Numba wants functions of its own
    return lambda value: np.float32(value)  # noqa: PLW0108


overload(widen, strict=False)(_widen)


def put(memory: Any, at: int, value: Any) -> None:
    """Store a float32 as the type of ``memory``: integers round to nearest, saturate and have 0 for NaN."""
    _storing(from_dtype(memory.dtype))(memory, at, value)  # where nothing is compiled


def _storing(dtype: Any) -> Any:
    if dtype == types.float32:

        def put_float(memory: Any, at: int, value: Any) -> None:
            memory[np.uint64(at)] = value

        return put_float
    if dtype == types.uint16:

        def put_half(memory: Any, at: int, value: Any) -> None:
            memory[np.uint64(at)] = to_half(value)

        return put_half
    low, high = np.float32(dtype.minval), np.float32(dtype.maxval)

    def put_integer(memory: Any, at: int, value: Any) -> None:
        if value != value:
            value = ZERO
        memory[np.uint64(at)] = np.int32(np.rint(min(high, max(low, value))))

    return put_integer


def _put(memory: Any, at: Any, value: Any) -> Any:
    return _storing(memory.dtype)


overload(put, strict=False)(_put)
