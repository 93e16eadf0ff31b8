"""Sample inputs made from a seed, for where nobody gave any: export, the check after compiling, the profile.

They look like images (large smooth shapes, a little noise, every value in range) because agreement on white
noise or on a constant says little about agreement on scans: saturating layers hide errors there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.errors import SpecError, did_you_mean
from edgekit.spec import Array, TensorSpec

_WAVES = 5
_NOISE = 0.2
# The usual values of a quantity where the contract states no range.
_RANGES = {
    "hounsfield": (-1000.0, 1000.0),
    "flow_vox": (-2.0, 2.0),
    "velocity_vox": (-2.0, 2.0),
    "label": (0, 3),
}


def generate_inputs(
    specs: Iterable[TensorSpec], *, seed: int = 0, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Array]:
    """One array for each contract: the same seed and shapes give the same bytes, in any order of ``specs``.

    Along the axes ``D H W`` a tensor is a sum of a few random waves plus a little noise (none for labels and
    displacements), different for each batch item and channel; without such axes it is uniform noise. Values
    span ``value_range``, else the usual range of the quantity, else 0 … 1 (floating point) or as much of
    -1000 … 1000 as the integer type has.

    Args:
        specs: Contracts. A length with a range gets its smallest value, so equal ranges get equal lengths.
        seed: 0 or more.
        shapes: Shapes to use instead, by name.

    Raises:
        SpecError: A shape does not fit its contract, or names no contract.
    """
    shapes = dict(shapes or {})
    arrays = {}
    for spec in specs:
        shape = tuple(shapes.pop(spec.name, spec.smallest_shape))
        if not spec.fits(shape):
            raise SpecError(f"a sample of shape {shape} does not fit {spec}", where=f"tensor {spec.name!r}")
        # Seeded by name: a further input leaves the others as they are.
        rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        arrays[spec.name] = _generate(spec, shape, rng)
    if shapes:
        raise SpecError(f"shapes are given for {', '.join(shapes)}, which is no input")
    return arrays


def _generate(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    spatial = [axis for axis, letter in enumerate(spec.layout) if letter in "DHW"]
    field = rng.random(shape, dtype=np.float32)
    if spatial:
        is_smooth = spec.quantity in ("label", "flow_vox", "velocity_vox") or spec.dtype == "bool"
        field = _waves(shape, spatial, rng) + (0.0 if is_smooth else _NOISE) * field
        field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    if spec.dtype == "bool":
        return np.asarray(field > 0.5)
    low, high = _range_of(spec)
    values = low + field.astype(np.float64) * (high - low)
    if spec.quantity == "label" or np.dtype(spec.dtype).kind in "iu":
        values = np.rint(values)
    return np.clip(values, low, high).astype(spec.dtype)


def _range_of(spec: TensorSpec) -> tuple[float, float]:
    """Smallest and largest value to make: numbers of the tensor's type, inside every bound."""
    kind = np.dtype(spec.dtype)
    usual = (0.0, 1.0) if kind.kind == "f" else (-1000.0, 1000.0)
    low, high = spec.value_range or _RANGES.get(spec.quantity, usual)
    if kind.kind in "iu":
        low, high = max(np.ceil(low), np.iinfo(kind).min), min(np.floor(high), np.iinfo(kind).max)
    if low > high:
        raise SpecError(
            f"no {spec.dtype} lies in the range {spec.value_range}", where=f"tensor {spec.name!r}"
        )
    # A bound that is no number of the type would be rounded to one outside.
    first, last = kind.type(low), kind.type(high)
    if kind.kind == "f":
        first = np.nextafter(first, kind.type(np.inf)) if float(first) < low else first
        last = np.nextafter(last, kind.type(-np.inf)) if float(last) > high else last
    return float(first), float(last)


def _waves(shape: tuple[int, ...], spatial: list[int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A sum of products of cosines with up to three periods along each spatial axis; float32, ``shape``."""
    items = tuple(1 if axis in spatial else n for axis, n in enumerate(shape))
    total = np.zeros(shape, np.float32)
    for _ in range(_WAVES):
        wave = rng.standard_normal(items).astype(np.float32)
        for axis in spatial:
            position = np.arange(shape[axis], dtype=np.float32) / shape[axis]
            position = position.reshape([-1 if a == axis else 1 for a in range(len(shape))])
            phase = 2 * np.pi * (rng.uniform(0.25, 3.0, items) * position + rng.random(items))
            wave = wave * np.cos(phase).astype(np.float32)
        total += wave
    return total


def check_inputs(specs: Iterable[TensorSpec], given: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays that a user gave, checked against their contracts and in their order.

    Raises:
        SpecError: An input is missing, an array belongs to no input, or one does not fit its contract.
    """
    contracts = {spec.name: spec for spec in specs}
    for name in given:
        if name not in contracts:
            near = did_you_mean(name, contracts)
            raise SpecError(
                f"{name!r} is no input: want {', '.join(contracts)}",
                hint=f"did you mean {near!r}?" if near else None,
            )
    for name, spec in contracts.items():
        if name not in given:
            raise SpecError(f"no array is given for the input {spec}", where=f"tensor {name!r}")
    return {name: spec.check(given[name]) for name, spec in contracts.items()}
