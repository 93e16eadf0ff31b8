"""Voxels and weights along one axis, for operators that need them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.kernels.numba.block import Block, Plan
from edgekit.kernels.numba.jit import called
from edgekit.kernels.numba.mathematics import ONE, cubic_weights, extended


@called
def taps(k: int, axis: int, plan: Plan, block: Block, indices: Any, weights: Any) -> int:
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
