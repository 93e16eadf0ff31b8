"""Find the displacement field behind a sampling grid.

A grid of GridSample is a displacement field in disguise where each of its components is one component of a
field, scaled, plus the coordinate of the voxel itself. Which field that is, and that nothing else happens on
the way, is proved by :mod:`edgekit.passes.nativize.affine` for the very shapes of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgekit.kernels.base import Doubles
from edgekit.passes.nativize.affine import Affine, NotAffine, Shape
from edgekit.passes.nativize.network import Network
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

# How far rounding may take a coordinate, in units of the type's precision: a few operations. In float16 that
# would be more than what the conventions differ by, so there are limits: of a factor, and in voxels.
_ROUNDINGS = 8
_FACTOR, _VOXELS = 2.0**-9, 2.0**-4
_AXES = "zyx"


@dataclass(frozen=True)
class Field:
    """A displacement field behind a grid.

    Its component ``a`` (z, y, x) in voxels is ``scales[a]`` times channel ``sources[a]`` of ``value``.

    Attributes:
        value: The tensor.
        channels_last: Whether it is [N, D, H, W, C] and not [N, C, D, H, W].
        channels: C.
        sources: See above.
        scales: See above.
    """

    value: ir.Value
    channels_last: bool
    channels: int
    sources: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def cost(self) -> int:
        """How many operators it takes to make a displacement in voxels of it."""
        reordered = (self.channels, self.sources) != (3, (0, 1, 2))
        return self.channels_last + reordered + (self.scales != (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Convention:
    """How a GridSample reads its grid."""

    align_corners: bool
    padding_mode: str

    def voxels(self, size: int) -> tuple[float, float]:
        """Factor and offset from a grid's value plus one to a coordinate in voxels."""
        return ((size - 1) / 2, 0.0) if self.align_corners else (size / 2, 0.5)


def find_field(network: Network, grid: ir.Value, convention: Convention, precision: float) -> Field | str:
    """The displacement field behind a grid, or why there is none.

    Args:
        network: Where.
        grid: [N, D, H, W, 3], of an image with the same D, H, W.
        convention: How the grid is read.
        precision: Of the type it is computed in: the distance from 1 to the next number.
    """
    wanted = network.shapes(grid)
    reasons: list[str] = []
    cuts = list(network.cuts(grid))
    fits = [value for value in cuts if value is not grid and _layouts(network.shapes(value), wanted)]
    for position, leaf in enumerate(fits):
        try:
            proved = network.prove(grid, leaf)
        except NotAffine as why:
            reasons.append(str(why))
            continue
        for channels_last in _layouts(network.shapes(leaf), wanted):
            found = _match(proved, leaf, channels_last, convention, precision)
            if isinstance(found, Field):
                return _cheapest(network, found, fits[position + 1 :], wanted, precision)
            reasons.append(found)
    if reasons:
        return reasons[0]
    if not cuts:
        return "the grid is a constant"
    return f"no field of the grid's shape lies behind it: it comes from {network.ends(grid)}"


def _layouts(found: Sequence[Shape], grid: Sequence[Shape]) -> list[bool]:
    """Whether a tensor can be a field for the grid: with channels first (False), last (True)."""
    if len(found) != len(grid) or any(len(shape) != 5 for shape in found):
        return []
    pairs = list(zip(found, grid, strict=True))
    first = all((f[0], *f[2:]) == g[:4] and f[1] == found[0][1] for f, g in pairs)
    last = all(f[:4] == g[:4] and f[4] == found[0][4] for f, g in pairs)
    return [layout for layout, fits in ((False, first), (True, last)) if fits]


def _match(
    proved: Sequence[Affine], leaf: ir.Value, channels_last: bool, convention: Convention, precision: float
) -> Field | str:
    """The field at all sizes, if it is the same at all."""
    found: list[list[tuple[int, float | None]]] = []
    for grid in proved:
        found.append([])
        for axis in range(3):
            one = _component(grid, axis, channels_last, convention, precision)
            if isinstance(one, str):
                return one
            found[-1].append(one)
    sources = tuple(source for source, _ in found[-1])
    if any(tuple(source for source, _ in components) != sources for components in found):
        return "the order of components depends on the size"
    scales = []
    for axis, name in enumerate(_AXES):
        # None fits any: nothing can move along an axis of one voxel that goes on as it is.
        given = [s for s in (components[axis][1] for components in found) if s is not None] or [1.0]
        if any(abs(s - given[0]) > _rounding(precision) * abs(given[0]) for s in given):
            return f"the scale of component {name} depends on the size: {_show(given)} voxels"
        scales.append(_snapped(given[0], precision))
    return Field(leaf, channels_last, 1 + max(sources), sources, tuple(scales))


def _show(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)


def _rounding(precision: float) -> float:
    return min(_ROUNDINGS * precision, _FACTOR)


def _snapped(scale: float, precision: float) -> float:
    return 1.0 if abs(scale - 1) <= _rounding(precision) else scale


def _component(
    grid: Affine, axis: int, channels_last: bool, convention: Convention, precision: float
) -> tuple[int, float | None] | str:
    """Which channel moves the voxels along an axis (z, y, x), and by how many voxels for each unit."""
    component = grid.at(4, 2 - axis)
    scale, offset, places = component.scale, component.offset, component.places
    size = grid.shape[1 + axis]
    factor, _ = convention.voxels(size)
    name = _AXES[axis]
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        return f"component {name} of the grid is not finite: it is divided by zero, along an axis of {size}"
    if not _is_identity(offset, axis, size, convention, precision):
        other = Convention(not convention.align_corners, convention.padding_mode)
        if size > 1 and _is_identity(offset, axis, size, other, precision):
            wrong, right = int(not convention.align_corners), int(convention.align_corners)
            return (
                f"the grid is normalised for align_corners={wrong}, and GridSample reads it with "
                f"align_corners={right}"
            )
        return f"component {name} of the grid is not the voxel's own coordinate plus a displacement"
    fixed = factor == 0  # all coordinates are 0, whatever the field
    if not fixed and not scale.all():
        return f"component {name} of the grid does not depend on the field everywhere"
    if scale.max() - scale.min() > _rounding(precision) * np.abs(scale).max():
        return f"component {name} of the field is scaled differently from voxel to voxel"
    channel = places[4] if channels_last else places[1]
    if not fixed and not _in_place(places, channels_last, grid.shape[:4]):
        return "the grid takes the displacement of other voxels than its own"
    if channel.min() != channel.max():
        return f"component {name} of the grid is another component of the field from voxel to voxel"
    in_voxels = float(scale.flat[0]) * factor
    anywhere = fixed and convention.padding_mode != "zeros"
    return int(channel.flat[0]), None if anywhere else in_voxels


def _is_one(array: Array) -> bool:
    return bool(array.min() == array.max())


def _in_place(places: Sequence[Array], channels_last: bool, lengths: Sequence[int]) -> bool:
    """Whether the elements of one channel, [N, D, H, W], are those of the same voxel of the leaf."""
    spatial = [places[0], *(places[1:4] if channels_last else places[2:5])]
    return all(
        np.all(place == np.arange(length).reshape([length if a == own else 1 for a in range(4)]))
        for own, (place, length) in enumerate(zip(spatial, lengths, strict=True))
    )


def _is_identity(offset: Doubles, axis: int, size: int, convention: Convention, precision: float) -> bool:
    factor, shift = convention.voxels(size)
    line = np.arange(size).reshape([size if own == axis + 1 else 1 for own in range(4)])
    error = np.abs((offset + 1) * factor - shift - line)
    return bool(error.max() <= min(_ROUNDINGS * precision * size, _VOXELS))


def _cheapest(
    network: Network, found: Field, others: Sequence[ir.Value], wanted: Sequence[Shape], precision: float
) -> Field:
    """The tensor between the field and the grid that takes least to make a displacement in voxels of."""
    best = _with_all_channels(network, found)
    for value in others:
        if best.cost == 0:
            break
        try:
            proved = network.prove(value, found.value)
        except NotAffine:
            continue
        for channels_last in _layouts(network.shapes(value), wanted):
            field, *rest = {_through(found, value, one, channels_last, precision) for one in proved}
            if field is not None and not rest and field.cost < best.cost:
                best = _with_all_channels(network, field)
    return best


def _with_all_channels(network: Network, field: Field) -> Field:
    return replace(field, channels=network.shapes(field.value)[0][4 if field.channels_last else 1])


def _through(
    found: Field, value: ir.Value, proved: Affine, channels_last: bool, precision: float
) -> Field | None:
    """The same displacement in terms of a tensor that is the field itself, reordered and scaled."""
    if proved.offset.any():
        return None
    axis = 4 if channels_last else 1
    channels: list[tuple[int, float]] = []
    for channel in range(proved.shape[axis]):
        part = proved.at(axis, channel)
        place = part.places[4 if found.channels_last else 1]
        plain = _is_one(part.scale) and _is_one(place)
        plain = plain and _in_place(part.places, found.channels_last, part.shape)
        channels.append((int(place.flat[0]), float(part.scale.flat[0])) if plain else (-1, 0.0))
    sources, scales = [], []
    for source, scale in zip(found.sources, found.scales, strict=True):
        known = next((n for n, (own, factor) in enumerate(channels) if own == source and factor), None)
        if known is None:
            return None
        sources.append(known)
        scales.append(_snapped(scale / channels[known][1], precision))
    return Field(value, channels_last, len(channels), tuple(sources), tuple(scales))
