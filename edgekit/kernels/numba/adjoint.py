"""The adjoint of a warp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.block import BLOCK, NO_HALVES, Block, Plan, displace, new_block, plan_of, row_of
from edgekit.kernels.numba.jit import compiled, each_row, memory_of, part
from edgekit.kernels.numba.mathematics import ZERO
from edgekit.kernels.numba.taps import taps
from edgekit.spec import Array


def run(
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


@compiled
def _reach_rows(begin: int, end: int, flow: Any, plan: Plan, axis: int, reach: Any) -> None:
    """The first and the last voxel along an axis that each row of values is added to."""
    width = plan.out.size[2]
    block = new_block()
    indices, weights = np.empty((3, 4), np.int64), np.empty((3, 4), np.float32)
    for row in range(begin, end):
        n, z, y = row_of(row, plan)
        low, high = plan.image.size[axis], -1
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, NO_HALVES, n, z, y, x, count, plan, block)
            for k in range(count):
                for tap in range(taps(k, axis, plan, block, indices, weights)):
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
            _, z, y = row_of(row, plan)
            for x in range(0, width, BLOCK):
                count = min(BLOCK, width - x)
                displace(flow, NO_HALVES, n, z, y, x, count, plan, block)
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
        zs = taps(k, 0, plan, block, indices, weights)
        ys = taps(k, 1, plan, block, indices, weights)
        xs = taps(k, 2, plan, block, indices, weights)
        known = weights[0, 0] + weights[1, 0] + weights[2, 0]
        if known != known:
            continue
        for i in range(zs):
            for j in range(ys):
                z, y = indices[0, i], indices[1, j]
                plane = z if axis == 0 else y
                if z < 0 or y < 0 or plane < low or plane >= high:
                    continue
                line = weights[0, i] * weights[1, j]
                for m in range(xs):
                    x, weight = indices[2, m], weights[2, m]
                    if x < 0:
                        continue
                    voxel = (z * height + y) * width + x
                    for c in range(channels):
                        value = values[np.uint64(at + c * voxels + k)]
                        pushed = value * line * weight if plan.order == 3 else value * (line * weight)
                        out[np.uint64((n * channels + c) * voxels + voxel)] += pushed
                    if len(counts) > 0:
                        counts[np.uint64(n * voxels + voxel)] += line * weight
