"""The bilateral filter on a coarse grid of space and values (Paris and Durand, 2006; Chen et al., 2007).

Voxels are dropped into cells half as wide as ``sigma_space`` and ``sigma_range``. There the filter is a
Gaussian, of values and of how many there are; their ratio is read off, linearly, at every voxel. Dropping
into the nearest cell and reading off linearly smooth by themselves: the Gaussian is narrower by that much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Doubles, rounded
from edgekit.kernels.denoise.gaussian import weights_of
from edgekit.kernels.denoise.images import shifted, surrounded
from edgekit.kernels.interpolation import OUTSIDE, extend
from edgekit.spec import Array

# Cells in a standard deviation, and standard deviations that an image is extended by.
CELLS, REACH = 2.0, 3.0
# Of the variance of the Gaussian, in squared cells: what is left of it besides dropping and reading off.
_VARIANCE = CELLS**2 - 1 / 12 - 1 / 6
_TRUNCATE = 4.0
MAX_LAYERS, MAX_CELLS = 1024, 2**28
_EXACT = "method='exact'"

# Smooths cells [2, layers, *space] along all axes but the first.
Blur = Callable[[Array, Array], Array]
# Reads cells [2, *space] of a width at every voxel of a grid, whose first one lies a margin inside.
Read = Callable[[Array, float, float, tuple[int, ...]], Array]


def check_grid(image: Array, sigma_space: float, sigma_range: float, boundary: str, *, where: str) -> None:
    """Refuse what has no place on a grid.

    Raises:
        KernelError: A voxel is not finite, or there are too many cells.
    """
    low, high = float(image.min()), float(image.max())
    if not math.isfinite(high - low):
        raise KernelError(
            "image: want finite voxels for method='grid', got a NaN or an infinity", where=where, hint=_EXACT
        )
    if sigma_space < 1:
        raise KernelError(
            f"sigma_space: want at least 1 for method='grid', got {sigma_space:g}", where=where, hint=_EXACT
        )
    if boundary == "zero":
        low, high = min(low, 0.0), max(high, 0.0)
    layers = CELLS * (high - low) / sigma_range + 2
    space = math.prod((size + 2 * REACH * sigma_space) * CELLS / sigma_space + 3 for size in image.shape)
    if layers > MAX_LAYERS or layers * space > MAX_CELLS:
        raise KernelError(
            f"sigma_range: want fewer than {MAX_LAYERS} layers and 2^28 cells for method='grid', got"
            f" {sigma_range:g} for an image from {low:g} to {high:g}",
            where=where,
            hint=_EXACT,
        )


def native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    boundary: str,
    sigma_space: float,
    sigma_range: float,
) -> None:
    """Fills the output by the extension's operators, channel by channel."""
    none, run = np.zeros(0, np.float32), {"threads": threads, "isa": isa}

    def blur(cells: Array, weights: Array) -> Array:
        layers, space = cells.shape[1], cells.shape[2:]
        planes = cells.astype(np.float32).reshape(1, 2 * layers, *space)
        smooth, result = np.empty_like(planes), np.empty(cells.shape, np.float32)
        along = [none, weights, weights] if len(space) == 2 else [weights] * 3
        module.gaussian(planes, smooth, *along, boundary="zero", **run)
        columns = (1, 2, layers, math.prod(space))
        module.gaussian(
            smooth.reshape(columns), result.reshape(columns), none, weights, none, boundary="zero", **run
        )
        return result

    def read(cells: Array, width: float, margin: float, grid: tuple[int, ...]) -> Array:
        matrix = np.hstack([np.eye(len(grid)) / width, np.full((len(grid), 1), margin / width)])
        fine = np.empty((1, 2, *grid), np.float32)
        module.sample_affine(np.ascontiguousarray(cells[None]), matrix, fine, order=1, boundary="edge", **run)
        return np.asarray(fine[0])

    for channel in np.ndindex(image.shape[:2]):
        result = _filtered(
            image[channel], blur, read, np.dtype(np.float32), boundary, sigma_space, sigma_range
        )
        outputs[0][channel] = rounded(result, image.dtype)


def reference(image: Array, *, boundary: str, sigma_space: float, sigma_range: float) -> tuple[Array]:
    """The same in float64."""

    def blur(cells: Array, weights: Array) -> Array:
        axes = cells.ndim - 1
        for axis in range(axes):
            reach = [len(weights) if other == axis else 0 for other in range(axes)]
            around, total = surrounded(cells[:, None], reach, "zero"), (1 - 2 * weights.sum()) * cells
            for step in range(1, len(weights) + 1):
                for sign in (-1, 1):
                    at = [sign * step if other == axis else 0 for other in range(axes)]
                    total += weights[step - 1] * shifted(around, reach, at)[:, 0]
            cells = total
        return cells

    def read(cells: Array, width: float, margin: float, grid: tuple[int, ...]) -> Array:
        for axis, size in enumerate(grid, 1):
            at = (np.arange(size) + margin) / width
            first = np.minimum(at.astype(np.intp), cells.shape[axis] - 2)
            share = (at - first).reshape([-1 if a == axis else 1 for a in range(cells.ndim)])
            cells = np.take(cells, first, axis) * (1 - share) + np.take(cells, first + 1, axis) * share
        return cells

    result = np.empty(image.shape)
    for channel in np.ndindex(image.shape[:2]):
        result[channel] = _filtered(
            image[channel], blur, read, np.dtype(np.float64), boundary, sigma_space, sigma_range
        )
    return (result,)


def _filtered(
    image: Array,
    blur: Blur,
    read: Read,
    dtype: np.dtype[Any],
    boundary: str,
    sigma_space: float,
    sigma_range: float,
) -> Array:
    """One channel, computed in a type."""
    width, height = sigma_space / CELLS, sigma_range / CELLS
    margin = math.ceil(REACH * sigma_space)
    middle, low = 0.5 * (float(image.max()) + float(image.min())), float(image.min())
    if boundary == "zero":
        low = min(low, 0.0)
    cells = _dropped(image, margin, boundary, width, height, low, middle)
    weights = weights_of(math.sqrt(_VARIANCE), _TRUNCATE)
    smooth = blur(cells, weights if dtype == np.float64 else weights.astype(np.float32))
    layer = ((image.astype(np.float64) - low) / height).astype(dtype)
    total, mass = np.zeros(image.shape, dtype), np.zeros(image.shape, dtype)
    for number in range(smooth.shape[1]):
        share = np.maximum(0, 1 - np.abs(layer - dtype.type(number)))
        if not share.any():
            continue
        values, count = read(smooth[:, number], width, margin, image.shape)
        total += share * values
        mass += share * count
    return np.asarray(total / mass + dtype.type(middle))


def _dropped(
    image: Array, margin: int, boundary: str, width: float, height: float, low: float, middle: float
) -> Doubles:
    """Sums of values, as what they differ from the middle one, and how many: [2, layers, *space]."""
    values = image.astype(np.float64)
    places = []
    for axis, size in enumerate(image.shape):
        index = extend(np.arange(-margin, size + margin), size, boundary)
        values = np.take(values, np.maximum(index, 0), axis=axis)
        np.moveaxis(values, axis, 0)[index == OUTSIDE] = 0
        places.append(np.rint(np.arange(size + 2 * margin) / width).astype(np.intp))
    shape = tuple(int(place[-1]) + 2 for place in places)
    layer = np.rint((values - low) / height).astype(np.intp)
    layers = int(layer.max()) + 2
    at = layer
    for axis, place in enumerate(places):
        at = at * shape[axis] + place.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    cells = layers * math.prod(shape)
    sums = np.bincount(at.reshape(-1), (values - middle).reshape(-1), cells)
    counts = np.bincount(at.reshape(-1), minlength=cells)
    return np.stack([sums, counts.astype(np.float64)]).reshape(2, layers, *shape)
