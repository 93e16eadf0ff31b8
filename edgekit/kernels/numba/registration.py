"""Operators around the warp that visit one sample at a time: adjoint, gradient, inverse, labels, points.

Each sample is a sum over *taps*, voxels with weights along each axis: one, two or four. Along z a plane has
one, of weight 1, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.jit import called, compiled, each_row, inlined, memory_of, part
from edgekit.kernels.numba.mathematics import ONE, ZERO, cubic_weights, extended
from edgekit.kernels.numba.sample import (
    BLOCK,
    Block,
    Plan,
    cell,
    displace,
    locate,
    nearest,
    new_block,
    offset,
    plan_of,
)
from edgekit.spec import Array

_NO_HALVES = np.empty(0, np.uint16)


def adjoint(
    values: Array,
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    order: int,
    boundary: str,
    return_count: bool = False,
) -> None:
    """The variant of :func:`edgekit.kernels.warp_adjoint`.

    Every task fills a slab of the result alone, from the rows of values that reach it, in their order.
    """
    plan = plan_of(outputs[0], values, order, boundary)
    depth, height, width = plan.out.size
    axis = 0 if depth > 1 else 1
    flow, values = memory_of(flow), memory_of(values)
    reach = np.empty((len(outputs[0]) * depth * height, 2), np.int64)
    each_row(_reach_rows, len(reach), width, threads, flow, plan, axis, reach)
    planes = -(-plan.image.size[axis] // (1 if threads == 1 else 4 * threads))
    slabs = -(-plan.image.size[axis] // planes)
    counts = memory_of(outputs[1]) if return_count else np.empty(0, np.float32)
    each_row(
        _push_slabs,
        len(outputs[0]) * slabs,
        planes * depth * height * width // plan.image.size[axis],
        threads,
        *(values, flow, memory_of(outputs[0]), counts, plan, axis, planes, slabs, reach),
    )


def gradient(
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


def inverse(
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    iterations: int,
    tolerance_vox: float,
    boundary: str,
) -> None:
    """The variant of :func:`edgekit.kernels.invert`."""
    out, residual = outputs
    plan = plan_of(flow, out, 1, boundary)
    depth, height, width = plan.out.size
    largest = np.empty((len(flow), depth * height), np.float32)
    arrays = (memory_of(flow), memory_of(out), largest.reshape(-1))
    each_row(_inverse_rows, largest.size, width, threads, *arrays, iterations, tolerance_vox, plan)
    residual[...] = largest.max(axis=1)


def labels(
    source: Array, flow: Array, *, outputs: Sequence[Array], threads: int, method: str, boundary: str
) -> None:
    """The variant of :func:`edgekit.kernels.warp_labels`."""
    (out,) = outputs
    plan = plan_of(source, out, int(method == "linear"), boundary)
    depth, height, width = plan.out.size
    # One function per size of label: only their order depends on what they are.
    stored = np.dtype(f"u{source.dtype.itemsize}")
    flip = stored.type(1 << 8 * stored.itemsize - 1 if source.dtype.kind == "i" else 0)
    arrays = (memory_of(source).view(stored), memory_of(flow), memory_of(out).view(stored))
    each_row(_labels_rows, len(out) * depth * height, width, threads, *arrays, flip, plan)


def points(source: Array, flow: Array, *, outputs: Sequence[Array], threads: int, boundary: str) -> None:
    """The variant of :func:`edgekit.kernels.warp_points`."""
    (out,) = outputs
    plan = plan_of(flow, flow, 1, boundary)
    each_row(_move_points, len(out.reshape(-1, plan.dims)), 16, threads, source, memory_of(flow), out, plan)


@inlined
def _row_of(row: int, plan: Plan) -> tuple[int, int, int]:
    """Sample, z and y of a row of the result."""
    depth, height, _ = plan.out.size
    return row // (depth * height), row // height % depth, row % height


@called
def _taps(k: int, axis: int, plan: Plan, block: Block, indices: Any, weights: Any) -> int:
    """Voxels (or -1) and weights of one coordinate along an axis; returns how many there are."""
    if axis == 0 and plan.dims == 2:
        indices[0, 0], weights[0, 0] = 0, ONE
        return 1
    first, t = np.int64(block.first[axis, k]), block.weight[axis, k]
    size = plan.image.size[axis]
    if plan.order == 1:
        indices[axis, 0] = extended(first, size, plan.boundary)
        indices[axis, 1] = extended(first + 1, size, plan.boundary)
        weights[axis, 0], weights[axis, 1] = ONE - t, t
        return 2
    if plan.order == 3:
        cubic = cubic_weights(t, np.float32(plan.cubic))
        for tap in range(4):
            indices[axis, tap] = extended(first + tap - 1, size, plan.boundary)
            weights[axis, tap] = cubic[tap]
        return 4
    indices[axis, 0] = extended(first + (1 if t >= np.float32(0.5) else 0), size, plan.boundary)
    weights[axis, 0] = ONE if t == t else t
    return 1


@compiled
def _reach_rows(begin: int, end: int, flow: Any, plan: Plan, axis: int, reach: Any) -> None:
    """The first and the last voxel along an axis that each row of values is added to."""
    width = plan.out.size[2]
    block = new_block()
    indices, weights = np.empty((3, 4), np.int64), np.empty((3, 4), np.float32)
    for row in range(begin, end):
        n, z, y = _row_of(row, plan)
        low, high = plan.image.size[axis], -1
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, _NO_HALVES, n, z, y, x, count, plan, block)
            for k in range(count):
                for tap in range(_taps(k, axis, plan, block, indices, weights)):
                    index = indices[axis, tap]
                    low = index if 0 <= index < low else low
                    high = max(high, index)
        reach[row, 0], reach[row, 1] = low, high


@compiled
def _push_slabs(
    begin: int,
    end: int,
    values: Any,
    flow: Any,
    out: Any,
    counts: Any,
    plan: Plan,
    axis: int,
    planes: int,
    slabs: int,
    reach: Any,
) -> None:
    """Fill slabs of the result, and of the counts if they are not empty."""
    depth, height, width = plan.out.size
    voxels, channels = depth * height * width, plan.image.channels
    stride, counted = plan.image.step[axis], len(counts) > 0
    block = new_block()
    for task in range(begin, end):
        n, low = task // slabs, task % slabs * planes
        high = min(low + planes, plan.image.size[axis])
        for c in range(n * channels, (n + 1) * channels):
            out[c * voxels + low * stride : c * voxels + high * stride] = ZERO
        if counted:
            counts[n * voxels + low * stride : n * voxels + high * stride] = ZERO
        for row in range(n * depth * height, (n + 1) * depth * height):
            if reach[row, 1] < low or reach[row, 0] >= high:
                continue
            _, z, y = _row_of(row, plan)
            for x in range(0, width, BLOCK):
                count = min(BLOCK, width - x)
                displace(flow, _NO_HALVES, n, z, y, x, count, plan, block)
                at = n * channels * voxels + (z * height + y) * width + x
                _push(values, at, out, counts, n, count, plan, axis, low, high, block)


@part
def _push(
    values: Any,
    at: int,
    out: Any,
    counts: Any,
    n: int,
    count: int,
    plan: Plan,
    axis: int,
    low: int,
    high: int,
    block: Block,
) -> None:
    """Add the block of values that begins at ``at`` to voxels from ``low`` to ``high`` along an axis."""
    indices, weights = np.empty((3, 4), np.int64), np.empty((3, 4), np.float32)
    _, height, width = plan.image.size
    voxels, channels = plan.image.channel, plan.image.channels
    for k in range(count):
        zs = _taps(k, 0, plan, block, indices, weights)
        ys = _taps(k, 1, plan, block, indices, weights)
        xs = _taps(k, 2, plan, block, indices, weights)
        known = weights[0, 0] + weights[1, 0] + weights[2, 0]
        if known != known:
            continue
        for tap in range(zs * ys * xs):
            i, j, m = tap // (ys * xs), tap // xs % ys, tap % xs
            z, y, x = indices[0, i], indices[1, j], indices[2, m]
            plane = z if axis == 0 else y
            if z < 0 or y < 0 or x < 0 or plane < low or plane >= high:
                continue
            voxel = (z * height + y) * width + x
            line, weight = weights[0, i] * weights[1, j], weights[2, m]
            for c in range(channels):
                value = values[np.uint64(at + c * voxels + k)]
                pushed = value * line * weight if plan.order == 3 else value * (line * weight)
                out[np.uint64((n * channels + c) * voxels + voxel)] += pushed
            if len(counts) > 0:
                counts[np.uint64(n * voxels + voxel)] += line * weight


@compiled
def _gradient_rows(begin: int, end: int, cotangent: Any, image: Any, flow: Any, out: Any, plan: Plan) -> None:
    depth, height, width = plan.out.size
    voxels, dims, channels = depth * height * width, plan.dims, plan.image.channels
    block = new_block()
    indices = np.empty((3, 4), np.int64)
    weights, slopes = np.empty((3, 4), np.float32), np.empty((3, 4), np.float32)
    slope, total = np.empty(3, np.float32), np.empty(3, np.float32)
    for row in range(begin, end):
        n, z, y = _row_of(row, plan)
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, _NO_HALVES, n, z, y, x, count, plan, block)
            for k in range(count):
                for axis in range(3):
                    _taps(k, axis, plan, block, indices, weights)
                if plan.order == 3:
                    _cubic_slopes(k, plan, block, slopes)
                voxel = (z * height + y) * width + x + k
                total[:] = ZERO
                for c in range(n * channels, (n + 1) * channels):
                    if plan.order == 1:
                        _linear_slope(image, c * voxels, plan, indices, weights, slope)
                    else:
                        _cubic_slope(image, c * voxels, plan, indices, weights, slopes, slope)
                    total += cotangent[c * voxels + voxel] * slope
                _put_slopes(out, n * dims * voxels + voxel, k, plan, block, total)


@called
def _linear_slope(image: Any, base: int, plan: Plan, indices: Any, weights: Any, slope: Any) -> None:
    """The derivatives of one channel of a linear sample."""
    wy, wx = weights[1, 1], weights[2, 1]
    near, near_y, near_x = _plane_slope(image, base, plan, indices, 0, wy, wx)
    slope[1], slope[2] = near_y, near_x
    if plan.dims == 3:
        far, far_y, far_x = _plane_slope(image, base, plan, indices, 1, wy, wx)
        wz = weights[0, 1]
        slope[0] = far - near
        slope[1] = near_y * (ONE - wz) + far_y * wz
        slope[2] = near_x * (ONE - wz) + far_x * wz


@inlined
def _plane_slope(image: Any, base: int, plan: Plan, indices: Any, i: int, wy: Any, wx: Any) -> Any:
    """A linear sample in a plane, and its derivatives along y and x."""
    a, b = _voxel(image, base, plan, indices, i, 0, 0), _voxel(image, base, plan, indices, i, 0, 1)
    c, d = _voxel(image, base, plan, indices, i, 1, 0), _voxel(image, base, plan, indices, i, 1, 1)
    near, far = a * (ONE - wx) + b * wx, c * (ONE - wx) + d * wx
    return near * (ONE - wy) + far * wy, far - near, (b - a) * (ONE - wy) + (d - c) * wy


@inlined
def _voxel(image: Any, base: int, plan: Plan, indices: Any, i: int, j: int, m: int) -> Any:
    """The voxel at a combination of taps, 0 outside."""
    z, y, x = indices[0, i], indices[1, j], indices[2, m]
    if z < 0 or y < 0 or x < 0:
        return ZERO
    _, height, width = plan.image.size
    return image[np.uint64(base + (z * height + y) * width + x)]


@called
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
    image: Any, base: int, plan: Plan, indices: Any, weights: Any, slopes: Any, slope: Any
) -> None:
    """The derivatives of one channel of a cubic sample."""
    slope[:] = ZERO
    for i in range(4 if plan.dims == 3 else 1):
        plane, along_y, along_x = ZERO, ZERO, ZERO
        for j in range(4):
            line, along = ZERO, ZERO
            for m in range(4):
                value = _voxel(image, base, plan, indices, i, j, m)
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
    unknown = False
    for axis in range(3 - plan.dims, 3):
        f = block.shift[axis, k]
        unknown |= f != f
    for axis in range(3 - plan.dims, 3):
        f, p = block.shift[axis, k], np.float32(block.whole[axis, k])
        low, high, _, unit = plan.spans[axis]
        inside = np.float32(low) - p <= f <= np.float32(high) - p or plan.order == 3 or unit == 0
        value = total[axis] if inside else ZERO
        component = (axis - (3 - plan.dims)) * plan.out.channel
        out[at + component] = np.float32(np.nan) if unknown else value


@compiled
def _inverse_rows(
    begin: int, end: int, flow: Any, out: Any, largest: Any, iterations: int, tolerance: float, plan: Plan
) -> None:
    depth, height, width = plan.out.size
    voxels, dims = depth * height * width, plan.dims
    limit = np.float32(tolerance)
    block = new_block()
    there = np.empty(3, np.float32)
    for row in range(begin, end):
        n, z, y = _row_of(row, plan)
        base, most = n * dims * voxels, ZERO
        for x in range(width):
            at = base + (z * height + y) * width + x
            block.whole[0, 0], block.whole[1, 0], block.whole[2, 0] = z, y, x
            for c in range(dims):
                block.shift[3 - dims + c, 0] = ZERO - flow[at + c * voxels]
            residual = ZERO
            for iteration in range(iterations + 1):
                locate(1, plan, block)
                residual = ZERO
                for c in range(dims):
                    there[c] = cell(flow, base + c * voxels, 0, plan, block)
                    part_of = abs(block.shift[3 - dims + c, 0] + there[c])
                    residual = part_of if part_of > residual or part_of != part_of else residual
                if residual <= limit or iteration == iterations:
                    break
                for c in range(dims):
                    block.shift[3 - dims + c, 0] = ZERO - there[c]
            for c in range(dims):
                out[at + c * voxels] = block.shift[3 - dims + c, 0]
            most = residual if residual > most or residual != residual else most
        largest[row] = most


@compiled
def _labels_rows(begin: int, end: int, labels: Any, flow: Any, out: Any, flip: Any, plan: Plan) -> None:
    depth, height, width = plan.out.size
    voxels, channels = depth * height * width, plan.image.channels
    block = new_block()
    around, weights = np.empty(8, labels.dtype), np.empty(8, np.float32)
    for row in range(begin, end):
        n, z, y = _row_of(row, plan)
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, _NO_HALVES, n, z, y, x, count, plan, block)
            for k in range(count):
                to = (z * height + y) * width + x + k
                for c in range(n * channels, (n + 1) * channels):
                    if plan.order == 1:
                        label = _linear_label(labels, c * voxels, k, plan, block, around, weights, flip)
                    else:
                        at = nearest(k, plan, block)
                        label = labels[c * voxels + at] if at >= 0 else labels.dtype.type(0)
                    out[c * voxels + to] = label


@called
def _linear_label(
    labels: Any, base: int, k: int, plan: Plan, block: Block, around: Any, weights: Any, flip: Any
) -> Any:
    """The label with the largest sum of weights; of equal ones the smaller, signed if ``flip`` is not 0."""
    corners = 1 << plan.dims
    zero, same, known = labels.dtype.type(0), True, ZERO
    for corner in range(corners):
        at, weight, outside = base, ONE, False
        for axis in range(3 - plan.dims, 3):
            tap = corner >> 2 - axis & 1
            size, step = plan.image.size[axis], plan.image.step[axis]
            there = offset(np.int64(block.first[axis, k]) + tap, size, step, plan.boundary)
            t = block.weight[axis, k]
            weight = weight * (t if tap else ONE - t)
            outside |= there < 0
            at += there
        around[corner] = zero if outside else labels[at]
        weights[corner] = weight
        known += weight
        same &= around[corner] == around[0]
    if known != known:
        return zero
    if same:
        return around[0]
    best, most = around[0], -ONE
    for corner in range(corners):
        total = ZERO
        for other in range(corners):
            total += weights[other] if around[other] == around[corner] else ZERO
        smaller = around[corner] ^ flip < best ^ flip
        if total > most or (total == most and smaller):
            best, most = around[corner], total
    return best


@compiled
def _move_points(begin: int, end: int, points: Any, flow: Any, out: Any, plan: Plan) -> None:
    dims, count = plan.dims, points.shape[1]
    block = new_block()
    for row in range(begin, end):
        n, p = row // count, row % count
        for axis in range(dims):
            block.shift[3 - dims + axis, 0] = points[n, p, axis]
        locate(1, plan, block)
        for axis in range(dims):
            moved = cell(flow, n * plan.image.batch + axis * plan.image.channel, 0, plan, block)
            out[n, p, axis] = points[n, p, axis] + moved
