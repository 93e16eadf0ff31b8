"""The bilateral filter, with a guide or without: straightforward sums, in an order of their own.

Narrow types are widened as a whole: every pair of types would be compiled by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.base import rounded
from edgekit.kernels.denoise.bilateral import decay_of, reference, window
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.numba.jit import compiled, each_row
from edgekit.kernels.numba.mathematics import OUTSIDE, ZERO, extended
from edgekit.spec import Array


def run(
    image: Array, *, outputs: Sequence[Array], threads: int, method: str = "exact", **options: Any
) -> None:
    """The variant of :func:`edgekit.kernels.bilateral`; the grid is that of the reference."""
    if method == "grid":
        (result,) = reference(image, method=method, **options)
        outputs[0][...] = rounded(result, image.dtype)
        return
    run_joint(image, image, outputs=outputs, threads=threads, **options)


def run_joint(
    image: Array,
    guide: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    sigma_space: float,
    sigma_range: float,
    radius: int,
    boundary: str,
    spatial_ndim: int | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.joint_bilateral`."""
    del spatial_ndim
    tables = window(image.ndim - 2, radius, sigma_space)
    exact = outputs[0] if image.dtype == np.float32 else np.empty(image.shape, np.float32)
    n, c = image.shape[:2]
    depth, height, width = grid = (1, *image.shape[2:])[-3:]
    # A row costs as much as one of all voxels in the windows.
    each_row(
        _rows,
        n * c * depth * height,
        width * (2 * len(tables[0]) + 1),
        threads,
        image.astype(np.float32, copy=False).reshape(-1),
        guide.astype(np.float32, copy=False).reshape(-1),
        c // guide.shape[1],
        grid,
        *tables,
        np.float32(decay_of(sigma_range)),
        BOUNDARIES.index(boundary),
        exact.reshape(-1),
    )
    if exact is not outputs[0]:
        outputs[0][...] = rounded(exact, outputs[0].dtype)


@compiled
def _rows(
    begin: int,
    end: int,
    image: Any,
    guide: Any,
    share: int,
    grid: tuple[int, int, int],
    offsets: Any,
    weights: Any,
    decay: Any,
    boundary: int,
    out: Any,
) -> None:
    """New voxels of rows; ``share`` channels have a guide in common."""
    depth, height, width = grid
    for row in range(begin, end):
        plane, y = row // height, row % height
        channel, z = plane // depth, plane % depth
        first, first_guide = channel * depth * height, channel // share * depth * height
        for x in range(width):
            centre = image[row * width + x]
            middle = guide[(first_guide + z * height + y) * width + x]
            total, mass = ZERO, np.float32(1) + (middle - middle)
            for k in range(2 * len(weights)):
                sign, pair = 1 - 2 * (k % 2), k // 2
                vz = extended(z + sign * offsets[pair, 0], depth, boundary)
                vy = extended(y + sign * offsets[pair, 1], height, boundary)
                vx = extended(x + sign * offsets[pair, 2], width, boundary)
                value, leader = ZERO, ZERO
                if vz != OUTSIDE and vy != OUTSIDE and vx != OUTSIDE:
                    at = (vz * height + vy) * width + vx
                    value = image[first * width + at]
                    leader = guide[first_guide * width + at]
                near = leader - middle
                weight = weights[pair] * np.float32(np.exp2(near * (near * decay)))
                mass += weight
                total += weight * (value - centre)
            out[row * width + x] = centre + (total / mass + (total - total))
