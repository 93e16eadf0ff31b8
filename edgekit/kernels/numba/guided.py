"""The guided filter, with means in float64: variances lose nothing then, however they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.base import Doubles, rounded
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.numba.jit import compiled, each_row
from edgekit.kernels.numba.mathematics import OUTSIDE, extended
from edgekit.spec import Array


def run(
    image: Array,
    guide: Array | None = None,
    *,
    outputs: Sequence[Array],
    threads: int,
    radius: int,
    epsilon: float,
    boundary: str,
    spatial_ndim: int | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.guided_filter`."""
    del spatial_ndim
    rule = BOUNDARIES.index(boundary)

    def mean(array: Doubles) -> Doubles:
        for axis in range(2, array.ndim):
            size, inner = array.shape[axis], int(np.prod(array.shape[axis + 1 :]))
            target = np.empty_like(array)
            rows, cost = array.size // inner, inner * (2 * radius + 1)
            each_row(
                _rows, rows, cost, threads, array.reshape(-1), target.reshape(-1), size, inner, radius, rule
            )
            array = target
        return array

    values = image.astype(np.float64)
    leader = values if guide is None else guide.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        leader_mean, value_mean = mean(leader), mean(values)
        variance = mean(leader * leader) - leader_mean**2
        a = (mean(leader * values) - leader_mean * value_mean) / (np.maximum(variance, 0) + epsilon)
        result = mean(a) * leader + mean(value_mean - a * leader_mean)
        outputs[0][...] = rounded(result, outputs[0].dtype)


@compiled
def _rows(
    begin: int, end: int, image: Any, out: Any, size: int, inner: int, radius: int, boundary: int
) -> None:
    """Means along an axis, of lines that are neighbours in memory."""
    for row in range(begin, end):
        outer, p = row // size, row % size
        out[row * inner : (row + 1) * inner] = 0.0
        for step in range(-radius, radius + 1):
            at = extended(p + step, size, boundary)
            if at != OUTSIDE:
                for x in range(inner):
                    out[row * inner + x] += image[(outer * size + at) * inner + x]
        for x in range(inner):
            out[row * inner + x] /= 2 * radius + 1
