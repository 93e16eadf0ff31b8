"""Warps of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.block import BLOCK, NO_HALVES, Block, Plan, displace, new_block, plan_of, row_of
from edgekit.kernels.numba.fetch import nearest, offset
from edgekit.kernels.numba.jit import compiled, each_row, memory_of, part
from edgekit.kernels.numba.mathematics import ONE, ZERO
from edgekit.spec import Array


def run(
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


@compiled
def _labels_rows(begin: int, end: int, labels: Any, flow: Any, out: Any, flip: Any, plan: Plan) -> None:
    depth, height, width = plan.out.size
    voxels, channels = depth * height * width, plan.image.channels
    block = new_block()
    around, weights = np.empty(8, labels.dtype), np.empty(8, np.float32)
    for row in range(begin, end):
        n, z, y = row_of(row, plan)
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, NO_HALVES, n, z, y, x, count, plan, block)
            for k in range(count):
                to = (z * height + y) * width + x + k
                for c in range(n * channels, (n + 1) * channels):
                    if plan.order == 1:
                        label = _linear_label(labels, c * voxels, k, plan, block, around, weights, flip)
                    else:
                        at = nearest(k, plan, block)
                        label = labels[c * voxels + at] if at >= 0 else labels.dtype.type(0)
                    out[c * voxels + to] = label


@part
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
