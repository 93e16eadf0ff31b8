"""The median filter: each window is selected from by itself, see ``edgekit/kernels/denoise/median.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.interpolation import extend
from edgekit.kernels.numba.jit import compiled, each_row, inlined
from edgekit.spec import Array


def run(
    image: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    radius: int = 1,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.median`."""
    del spatial_ndim
    grid = (1, *image.shape[2:])[-3:]
    depth = radius if image.ndim == 5 else 0
    # Where the voxels of every window are along each axis, -1 outside.
    at = [
        extend(np.arange(-reach, size + reach), size, boundary).astype(np.int64)
        for size, reach in zip(grid, (depth, radius, radius), strict=True)
    ]
    exact = image.astype(np.float32, copy=False).reshape(-1, *grid)
    result = outputs[0].reshape(-1, *grid)
    middles = result if result.dtype == np.float32 else np.empty(result.shape, np.float32)
    rows = exact.shape[0] * grid[0] * grid[1]
    each_row(_rows, rows, grid[2], threads, exact, middles, *at, depth, radius)
    if middles is not result:
        result[...] = middles.astype(result.dtype)


@compiled
def _rows(
    begin: int,
    end: int,
    image: Any,
    out: Any,
    at_z: Any,
    at_y: Any,
    at_x: Any,
    depth: int,
    radius: int,
) -> None:
    """Medians of rows, one voxel after the other."""
    side = 2 * radius + 1
    values = np.empty(side * side * (2 * depth + 1), np.float32)
    for row in range(begin, end):
        n, z, y = row // (out.shape[1] * out.shape[2]), row // out.shape[2] % out.shape[1], row % out.shape[2]
        for x in range(out.shape[3]):
            count, unknown = 0, False
            for i in range(z, z + 2 * depth + 1):
                for j in range(y, y + side):
                    for k in range(x, x + side):
                        value = np.float32(0)
                        if at_z[i] >= 0 and at_y[j] >= 0 and at_x[k] >= 0:
                            value = image[n, at_z[i], at_y[j], at_x[k]] + np.float32(0)
                        unknown = unknown or value != value
                        values[count] = value
                        count += 1
            out[n, z, y, x] = np.float32(np.nan) if unknown else _select(values, count // 2)


@inlined
def _select(values: Any, rank: int) -> Any:
    """The value of a rank, which moves the others (Hoare's selection, 1961)."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot, i, j = values[rank], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < rank:
            low = i
        if rank < i:
            high = j
    return values[rank]
