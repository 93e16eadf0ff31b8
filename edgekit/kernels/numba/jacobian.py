"""The determinant of the Jacobian; see ``csrc/jacobian/jacobian_math-inl.h``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.jit import compiled, each_row, inlined, memory_of
from edgekit.kernels.numba.mathematics import ONE, TWO, ZERO, widen
from edgekit.spec import Array


def determinant(
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    return_folding: bool = False,
    return_determinant: bool = True,
) -> None:
    """The variant of :func:`edgekit.kernels.jacobian_determinant`."""
    out = memory_of(outputs[0]) if return_determinant else np.empty(0, np.float32)
    n, dims = flow.shape[:2]
    depth, height, width = grid = (1, *flow.shape[2:])[-3:]
    positive = np.empty(n * depth * height, np.int64)
    each_row(_rows, len(positive), width, threads, memory_of(flow), dims, grid, out, positive)
    if return_folding:
        outputs[-1][:] = depth * height * width - positive.reshape(n, -1).sum(axis=1)


@compiled
def _rows(
    begin: int, end: int, flow: Any, dims: int, grid: tuple[int, int, int], out: Any, positive: Any
) -> None:
    """Determinants of rows, if ``out`` is not empty, and how many of each are positive."""
    depth, height, width = grid
    voxels = depth * height * width
    values = np.empty(width, np.float32)
    for row in range(begin, end):
        n, z, y = row // (depth * height), row // height % depth, row % height
        first = n * dims * voxels + (z * height + y) * width
        along_z, along_y = ends(z, depth, height * width), ends(y, height, width)
        for x in range(1, width - 1):
            values[x] = determinant_at(flow, first + x, voxels, dims, along_z, along_y, ((-1, 1), TWO))
        for x in (0, width - 1):
            values[x] = determinant_at(flow, first + x, voxels, dims, along_z, along_y, ends(x, width, 1))
        count = 0
        for x in range(width):
            count += 1 if values[x] > ZERO else 0
        positive[row] = count
        if len(out):
            out[row * width : (row + 1) * width] = values


@inlined
def ends(at: int, size: int, stride: int) -> Any:
    """Offsets of the two voxels whose difference is the derivative, and how many voxels are between."""
    low, high = -stride if at > 0 else 0, stride if at + 1 < size else 0
    return (low, high), TWO if high - low == 2 * stride else ONE


@inlined
def _difference(flow: Any, at: int, ends: Any) -> Any:
    """0 along an axis of one voxel, even of a NaN."""
    low, high = ends
    difference = widen(flow[np.uint64(at + high)]) - widen(flow[np.uint64(at + low)])
    return ZERO if low == high else difference


@inlined
def determinant_at(
    flow: Any, a: int, voxels: int, dims: int, along_z: Any, along_y: Any, along_x: Any
) -> Any:
    """At voxel ``a`` of component 0, given what :func:`ends` says of each axis."""
    (dz, z_step), (dy, y_step), (dx, x_step) = along_z, along_y, along_x
    b, c = a + voxels, a + 2 * voxels
    share = ONE / x_step * (ONE / (z_step * y_step))
    if dims == 2:
        ay, ax = _difference(flow, a, dy) + y_step, _difference(flow, a, dx)
        by, bx = _difference(flow, b, dy), _difference(flow, b, dx) + x_step
        return (ay * bx - ax * by) * share
    az, ay, ax = _difference(flow, a, dz) + z_step, _difference(flow, a, dy), _difference(flow, a, dx)
    bz, by, bx = _difference(flow, b, dz), _difference(flow, b, dy) + y_step, _difference(flow, b, dx)
    cz, cy, cx = _difference(flow, c, dz), _difference(flow, c, dy), _difference(flow, c, dx) + x_step
    return (az * (by * cx - bx * cy) + ay * (bx * cz - bz * cx) + ax * (bz * cy - by * cz)) * share
