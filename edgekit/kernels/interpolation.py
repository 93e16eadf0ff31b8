"""The definition of interpolation in float64, for the references of all operators that sample an image.

An image is extended beyond its grid by a boundary rule, then interpolated. Along one axis a coordinate has
one, two or four *taps*: voxels with weights. A sample is the sum over all combinations of taps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.kernels.base import Doubles, as_doubles
from edgekit.spec import Array

Indices = npt.NDArray[np.intp]

ORDERS = (0, 1, 3)
BOUNDARIES = ("zero", "edge", "mirror", "reflect", "wrap")
# Under the periodic rules a displacement of more voxels counts as this many: beyond, float32 has no fraction.
FAR_VOX = 2.0**20
OUTSIDE = -1
_BLOCK = 1 << 14  # samples at once, so that what they take stays in the cache


@dataclass(frozen=True)
class Tap:
    """One voxel along one axis, for every sample.

    Attributes:
        index: Which voxel, :data:`OUTSIDE` if there is none and it counts as 0.
        weight: What it is weighted with.
        slope: The derivative of the weight by the coordinate.
    """

    index: Indices
    weight: Doubles
    slope: Doubles


@dataclass(frozen=True)
class Corner:
    """One voxel of the image, for every sample: a combination of taps.

    Attributes:
        flat: Its offset in the grid, 0 where it is outside.
        outside: Where it counts as 0.
        weight: The product of the taps' weights.
        slopes: The derivative of ``weight`` by each coordinate.
    """

    flat: Indices
    outside: npt.NDArray[np.bool_]
    weight: Doubles
    slopes: tuple[Doubles, ...]


def extend(index: Indices, size: int, boundary: str) -> Indices:
    """The voxel that stands for any whole coordinate, or :data:`OUTSIDE`.

    ``abcd`` is extended as ``aaa|abcd|ddd`` (edge), ``dcb|abcd|cba`` (mirror), ``cba|abcd|dcb`` (reflect) and
    ``bcd|abcd|abc`` (wrap).
    """
    if boundary == "zero":
        return np.where((index >= 0) & (index < size), index, OUTSIDE)
    if boundary == "edge":
        return np.clip(index, 0, size - 1)
    if boundary == "wrap":
        return index % size
    if boundary == "reflect":
        index = index % (2 * size)
        return np.where(index < size, index, 2 * size - 1 - index)
    index = index % max(2 * size - 2, 1)
    return np.where(index < size, index, 2 * size - 2 - index)


def taps(at: Doubles, size: int, order: int, boundary: str, *, cubic: float = -0.5) -> list[Tap]:
    """The taps of coordinates along an axis of ``size`` voxels; no coordinate may be NaN or infinite.

    Orders are 0 (nearest voxel, halves up), 1 (linear) and 3 (cubic convolution with the parameter ``cubic``,
    Keys, 1981). Linear interpolation under ``"edge"`` clamps the coordinate, and is flat outside.
    """
    if order == 0:
        nearest = np.floor(at + 0.5).astype(np.intp)
        return [Tap(extend(nearest, size, boundary), np.ones_like(at), np.zeros_like(at))]
    inside = np.ones_like(at)
    if order == 1 and boundary == "edge":
        inside = ((at >= 0) & (at <= size - 1)).astype(np.float64)
        at = np.clip(at, 0, size - 1)
        first = np.minimum(np.floor(at), max(size - 2, 0))
    else:
        first = np.floor(at)
    t = at - first
    weights: tuple[tuple[Doubles, Doubles], ...]
    if order == 1:
        weights = ((1 - t, -inside), (t, inside))
        start = 0
    else:
        weights = tuple(_keys(t - step, cubic) for step in (-1, 0, 1, 2))
        start = -1
    index = first.astype(np.intp)
    return [
        Tap(extend(index + start + step, size, boundary), weight, slope)
        for step, (weight, slope) in enumerate(weights)
    ]


def _keys(distance: Doubles, a: float) -> tuple[Doubles, Doubles]:
    """Weight at a distance of at most 2, and its derivative."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    near_slope = (3 * (a + 2) * x - 2 * (a + 3)) * x
    far_slope = ((3 * x - 10) * x + 8) * a
    weight = np.where(x <= 1, near, far)
    return weight, np.sign(distance) * np.where(x <= 1, near_slope, far_slope)


def corners(
    at: Doubles, grid: Sequence[int], order: int, boundary: str, *, cubic: float = -0.5
) -> Iterator[Corner]:
    """Every combination of taps of coordinates [N, dims, ...], each [N, ...]."""
    axes = [taps(at[:, axis], size, order, boundary, cubic=cubic) for axis, size in enumerate(grid)]
    for combination in itertools.product(*axes):
        outside = np.logical_or.reduce([tap.index == OUTSIDE for tap in combination])
        places = [np.where(outside, 0, tap.index) for tap in combination]
        weights = [tap.weight for tap in combination]
        slopes = tuple(
            np.prod([*weights[:axis], tap.slope, *weights[axis + 1 :]], axis=0)
            for axis, tap in enumerate(combination)
        )
        flat = np.ravel_multi_index(places, tuple(grid))
        yield Corner(flat, outside, np.prod(weights, axis=0), slopes)


def sample(image: Array, at: Doubles, order: int, boundary: str, *, cubic: float = -0.5) -> Doubles:
    """``image`` [N, C, ...] at coordinates [N, dims, ...] in voxels: [N, C, ...].

    A NaN in any coordinate makes the sample NaN. Voxels outside count as 0 even at an infinite weight.
    """
    flat = as_doubles(image).reshape(*image.shape[:2], -1)
    places = at.reshape(*at.shape[:2], -1)
    total = np.zeros((*image.shape[:2], places.shape[2]))
    for start in range(0, places.shape[2], _BLOCK):
        block = slice(start, start + _BLOCK)
        here, unknown = known(places[..., block])
        for corner in corners(here, image.shape[2:], order, boundary, cubic=cubic):
            total[..., block] += contribution(flat, corner, corner.weight)
        total[..., block][np.broadcast_to(unknown[:, None], total[..., block].shape)] = np.nan
    return total.reshape(*image.shape[:2], *at.shape[2:])


def contribution(flat: Doubles, corner: Corner, weight: Doubles) -> Doubles:
    """A corner's voxels of ``flat`` [N, C, voxels] times ``weight`` [N, ...], 0 where it is outside."""
    places = np.broadcast_to(corner.flat.reshape(len(flat), 1, -1), (*flat.shape[:2], corner.flat[0].size))
    values = np.take_along_axis(flat, places, axis=2).reshape(*flat.shape[:2], *corner.flat.shape[1:])
    return np.where(corner.outside[:, None], 0.0, weight[:, None] * values)


def known(at: Doubles) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Coordinates [N, dims, ...] with 0 for all of a sample where one is NaN; mask [N, ...] of these."""
    unknown = np.asarray(np.isnan(at).any(axis=1))
    return np.where(unknown[:, None], 0.0, at), unknown


def displaced(flow_vox: Array, boundary: str, *, scale: float = 1.0) -> Doubles:
    """The coordinates ``p + scale * flow_vox[p]`` of a displacement [N, dims, ...], all finite or NaN."""
    flow = as_doubles(flow_vox) * scale
    grid = flow.shape[2:]
    # Nothing changes beyond two voxels outside a grid that is extended by zeros or its edge.
    limit = FAR_VOX if boundary not in ("zero", "edge") else 4.0 * max(grid) + 4.0
    return np.indices(grid).astype(np.float64) + np.clip(flow, -limit, limit)
