"""Voxels and weights along each axis, for operators that need them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.kernels.numba.block import Block, Plan
from edgekit.kernels.numba.jit import called, part
from edgekit.kernels.numba.mathematics import HALF, ONE, cubic_weights, extended


@part
def taps(k: int, axis: int, plan: Plan, block: Block, indices: Any, weights: Any) -> int:
    """Voxels (or -1) and weights of one coordinate along an axis; returns how many there are.

    Along z a plane has one, of weight 1, which changes nothing.
    """
    order = plan.order if axis > 0 or plan.dims == 3 else 0
    first, weight = np.int64(block.first[axis, k]), block.weight[axis, k]
    return _fill(first, weight, plan.image.size[axis], order, plan.boundary, indices[axis], weights[axis])


@called
def _fill(first: int, t: Any, size: int, order: int, boundary: int, indices: Any, weights: Any) -> int:
    if order == 1:
        indices[0], indices[1] = extended(first, size, boundary), extended(first + 1, size, boundary)
        weights[0], weights[1] = ONE - t, t
        return 2
    if order == 3:
        weights[0], weights[1], weights[2], weights[3] = cubic_weights(t, -HALF)
        for tap in range(4):
            indices[tap] = extended(first + tap - 1, size, boundary)
        return 4
    indices[0] = extended(first + np.int64(t >= HALF), size, boundary)
    weights[0] = ONE if t == t else t
    return 1
