"""The derivative of a warp by its displacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.block import BLOCK, NO_HALVES, Block, Plan, displace, new_block, plan_of, row_of
from edgekit.kernels.numba.jit import called, compiled, each_row, inlined, memory_of, part
from edgekit.kernels.numba.mathematics import EDGE, ONE, ZERO
from edgekit.kernels.numba.taps import taps
from edgekit.spec import Array


def run(
    cotangent: Array,
    image: Array,
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    order: int,
    boundary: str,
) -> None:
    """The variant of :func:`edgekit.kernels.warp_gradient`."""
    (out,) = outputs
    if order == 0:
        out[...] = 0
        return
    plan = plan_of(image, out, order, boundary)
    depth, height, width = plan.out.size
    arrays = (memory_of(cotangent), memory_of(image), memory_of(flow), memory_of(out))
    each_row(_gradient_rows, len(out) * depth * height, width, threads, *arrays, plan)


@compiled
def _gradient_rows(begin: int, end: int, cotangent: Any, image: Any, flow: Any, out: Any, plan: Plan) -> None:
    depth, height, width = plan.out.size
    voxels, dims, channels = depth * height * width, plan.dims, plan.image.channels
    block = new_block()
    indices = np.empty((3, 4), np.int64)
    weights, slopes = np.empty((3, 4), np.float32), np.empty((3, 4), np.float32)
    slope, total = np.empty(3, np.float32), np.empty(3, np.float32)
    for row in range(begin, end):
        n, z, y = row_of(row, plan)
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, NO_HALVES, n, z, y, x, count, plan, block)
            for k in range(count):
                for axis in range(3):
                    taps(k, axis, plan, block, indices, weights)
                if plan.order == 3:
                    _cubic_slopes(k, plan, block, slopes)
                voxel = (z * height + y) * width + x + k
                total[:] = ZERO
                for c in range(n * channels, (n + 1) * channels):
                    if plan.order == 1:
                        _linear_slope(image, c * voxels, plan, indices, weights, slope)
                    else:
                        size = plan.image.size
                        _cubic_slope(image, c * voxels, size, dims, indices, weights, slopes, slope)
                    factor = cotangent[c * voxels + voxel]
                    for axis in range(3):
                        total[axis] += factor * slope[axis]
                _put_slopes(out, n * dims * voxels + voxel, k, plan, block, total)


@part
def _linear_slope(image: Any, base: int, plan: Plan, indices: Any, weights: Any, slope: Any) -> None:
    """The derivatives of one channel of a linear sample."""
    size, wy, wx = plan.image.size, weights[1, 1], weights[2, 1]
    near, near_y, near_x = _plane_slope(image, base, size, indices, 0, wy, wx)
    slope[1], slope[2] = near_y, near_x
    if plan.dims == 3:
        far, far_y, far_x = _plane_slope(image, base, size, indices, 1, wy, wx)
        wz = weights[0, 1]
        slope[0] = far - near
        slope[1] = near_y * (ONE - wz) + far_y * wz
        slope[2] = near_x * (ONE - wz) + far_x * wz


@inlined
def _plane_slope(image: Any, base: int, size: Any, indices: Any, i: int, wy: Any, wx: Any) -> Any:
    """A linear sample in a plane, and its derivatives along y and x."""
    a, b = _voxel(image, base, size, indices, i, 0, 0), _voxel(image, base, size, indices, i, 0, 1)
    c, d = _voxel(image, base, size, indices, i, 1, 0), _voxel(image, base, size, indices, i, 1, 1)
    near, far = a * (ONE - wx) + b * wx, c * (ONE - wx) + d * wx
    return near * (ONE - wy) + far * wy, far - near, (b - a) * (ONE - wy) + (d - c) * wy


@inlined
def _voxel(image: Any, base: int, size: Any, indices: Any, i: int, j: int, m: int) -> Any:
    """The voxel at a combination of taps, 0 outside."""
    z, y, x = indices[0, i], indices[1, j], indices[2, m]
    if z < 0 or y < 0 or x < 0:
        return ZERO
    _, height, width = size
    return image[np.uint64(base + (z * height + y) * width + x)]


@part
def _cubic_slopes(k: int, plan: Plan, block: Block, slopes: Any) -> None:
    """The derivatives of the cubic weights by the coordinate, along each axis."""
    a = np.float32(plan.cubic)
    for axis in range(3):
        t = block.weight[axis, k]
        back = ONE - t
        slopes[axis, 0], slopes[axis, 1] = _far_slope(t + ONE, a), _near_slope(t, a)
        slopes[axis, 2], slopes[axis, 3] = ZERO - _near_slope(back, a), ZERO - _far_slope(back + ONE, a)


@inlined
def _near_slope(x: Any, a: Any) -> Any:
    return (np.float32(3) * (a + np.float32(2)) * x - np.float32(2) * (a + np.float32(3))) * x


@inlined
def _far_slope(x: Any, a: Any) -> Any:
    return (np.float32(3) * a * x - np.float32(10) * a) * x + np.float32(8) * a


@called
def _cubic_slope(
    image: Any,
    base: int,
    size: Any,
    dims: int,
    indices: Any,
    weights: Any,
    slopes: Any,
    slope: Any,
) -> None:
    """The derivatives of one channel of a cubic sample."""
    slope[:] = ZERO
    for i in range(4 if dims == 3 else 1):
        plane, along_y, along_x = ZERO, ZERO, ZERO
        for j in range(4):
            line, along = ZERO, ZERO
            for m in range(4):
                value = _voxel(image, base, size, indices, i, j, m)
                line += value * weights[2, m]
                along += value * slopes[2, m]
            plane += line * weights[1, j]
            along_y += line * slopes[1, j]
            along_x += along * weights[1, j]
        slope[0] += plane * slopes[0, i]
        slope[1] += along_y * weights[0, i]
        slope[2] += along_x * weights[0, i]


@inlined
def _put_slopes(out: Any, at: int, k: int, plan: Plan, block: Block, total: Any) -> None:
    """Store derivatives: NaN if a coordinate is NaN, 0 along an axis where the coordinate was clamped."""
    unknown, margin = False, ZERO if plan.boundary == EDGE else ONE
    for axis in range(3 - plan.dims, 3):
        f = block.shift[axis, k]
        unknown |= f != f
    for axis in range(3 - plan.dims, 3):
        f, p = block.shift[axis, k], np.float32(block.whole[axis, k])
        last = np.float32(plan.image.size[axis] - 1)
        inside = -margin - p <= f <= last + margin - p or plan.order == 3 or plan.spans[axis][3] == 0
        value = total[axis] if inside else ZERO
        component = (axis - (3 - plan.dims)) * plan.out.channel
        out[at + component] = np.float32(np.nan) if unknown else value
