"""What the operators share that compare patches: their arguments, and the definition."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Doubles, Floats, as_doubles
from edgekit.kernels.checks import check_input, check_integer, check_number
from edgekit.kernels.interpolation import OUTSIDE, extend
from edgekit.spec import Array

MAX_PATCH_RADIUS, MAX_SEARCH_RADIUS = 4, 16
STRENGTHS = (0.01, 100.0)
METHODS, NOISES = ("pointwise", "blockwise"), ("gaussian", "rician")


def check_radii(patch_radius: object, search_radius: object, *, where: str) -> None:
    """Refuse radii that kernels have no room for."""
    check_integer(patch_radius, "patch_radius", 1, MAX_PATCH_RADIUS, where=where)
    check_integer(search_radius, "search_radius", 1, MAX_SEARCH_RADIUS, where=where)


def check_strength(strength: object, *, where: str) -> float:
    """Refuse what is not a number that a square of it can be divided by."""
    low, high = STRENGTHS
    number = check_number(strength, "strength", low, where=where)
    if number > high:
        raise KernelError(f"strength: want at most {high:g}, got {number:g}", where=where)
    return number


def check_sigma(sigma: object, image: Array, *, where: str) -> Array:
    """Sigma as it is handed on: an array that a batch ``image`` can be divided by.

    Raises:
        KernelError: It is neither a number nor a map of the image, or is negative or not finite.
    """
    if isinstance(sigma, str):
        raise KernelError(
            f"sigma: want a number, a map or 'estimate', got {sigma!r}", where=where, hint="sigma='estimate'"
        )
    if not hasattr(sigma, "__dlpack__") or np.ndim(sigma) == 0:  # type: ignore[arg-type]
        return as_sigma(image, check_number(sigma, "sigma", 0.0, where=where))
    array = _check_like(sigma, "sigma", image, ("float32",), where=where)
    if not (np.isfinite(array).all() and array.min() >= 0):
        raise KernelError("sigma: want finite values of at least 0, got others", where=where)
    return array


def check_mask(mask: object, image: Array, *, where: str) -> Array | None:
    """A mask as it is handed on: uint8 with the axes of a batch ``image``; None for none.

    Raises:
        KernelError: It is not a mask of the image.
    """
    if mask is None:
        return None
    return as_mask(image, _check_like(mask, "mask", image, ("bool", "uint8"), where=where))


def _check_like(value: object, name: str, image: Array, dtypes: tuple[str, ...], *, where: str) -> Array:
    grid = image.shape[2:]
    ranks = (len(grid), image.ndim)
    array = check_input(value, name, where=where, ranks=ranks, dtypes=dtypes)
    whole = _with_batch(array, image)
    if name == "sigma" and whole.shape[2:] == (1,) * len(grid):
        grid = whole.shape[2:]  # a number per channel
    if whole.shape[2:] != grid or any(a not in (1, b) for a, b in zip(whole.shape, image.shape, strict=True)):
        raise KernelError(f"{name}: want shape {grid} or {image.shape}, got {array.shape}", where=where)
    return whole


def _with_batch(array: Array, image: Array) -> Array:
    return array.reshape((1,) * (image.ndim - array.ndim) + array.shape)


def as_sigma(image: Array, sigma: Any) -> Floats:
    """A number or a map as float32 with the axes of a batch."""
    array = np.asarray(sigma, np.float32)
    return array.reshape((1,) * (image.ndim - array.ndim) + array.shape)


def per_channel(image: Array, values: Any) -> Array:
    """One number for each channel of a batch, as sigma."""
    array = np.asarray(values, np.float32)
    return array.reshape(image.shape[:2] + (1,) * (image.ndim - 2))


def as_mask(image: Array, mask: Any) -> Array:
    """A mask as uint8 with the axes of a batch."""
    return _with_batch(np.asarray(mask), image).view(np.uint8)


def run_native(
    module: ModuleType,
    image: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    isa: str,
    sigma: Any,
    mask: Array | None = None,
    **options: Any,
) -> None:
    """Call the extension; options are those of its function."""
    chosen = None if mask is None else as_mask(image, mask)
    module.non_local_means(
        image, outputs[0], as_sigma(image, sigma), chosen, threads=threads, isa=isa, **options
    )


class _Surroundings:
    """An image [N, C, ...] and what is around it."""

    def __init__(self, values: Doubles, around: int, boundary: str) -> None:
        self.values, self.around = values, around
        for axis, size in enumerate(values.shape[2:], 2):
            index = extend(np.arange(-around, size + around), size, boundary)
            taken = np.take(self.values, np.maximum(index, 0), axis=axis)
            shape = [-1 if k == axis else 1 for k in range(values.ndim)]
            self.values = np.where((index != OUTSIDE).reshape(shape), taken, 0.0)

    def at(self, places: Sequence[range], shift: Sequence[int]) -> Doubles:
        """Voxels at places along each axis, all shifted; they may be outside."""
        index: list[Any] = [slice(None), slice(None)]
        for place, by in zip(places, shift, strict=True):
            index.append(slice(place.start + by + self.around, place.stop + by + self.around, place.step))
        found: Doubles = self.values[tuple(index)]
        return found


def reference(
    image: Array,
    *,
    sigma: Any,
    patch_radius: int,
    search_radius: int,
    strength: float,
    boundary: str,
    blockwise: bool = False,
    rician: bool = False,
    floor: float = 0.0,
    mask: Array | None = None,
) -> Doubles:
    """The definition in float64: see :func:`edgekit.kernels.non_local_means`, and ``floor`` in ``obnlm``."""
    u = as_doubles(image)
    sigmas = np.broadcast_to(as_doubles(as_sigma(image, sigma)), u.shape)
    reach = 2 * patch_radius + search_radius
    images = _Surroundings(u, reach, boundary)
    maps = _Surroundings(sigmas, reach, "edge" if boundary == "zero" else boundary)
    values = _Surroundings(u**2, reach, boundary) if rician else images
    step, dims = patch_radius + 1 if blockwise else 1, u.ndim - 2
    centres = [range(0, size + step - 1, step) for size in u.shape[2:]]
    around = [range(-patch_radius, c[-1] + patch_radius + 1) for c in centres]
    patch = list(itertools.product(range(-patch_radius, patch_radius + 1), repeat=dims))
    blocks = patch if blockwise else [(0,) * dims]
    total = [np.zeros(u.shape[:2] + tuple(map(len, centres))) for _ in blocks]
    weights, here = np.ones_like(total[0]), (0,) * dims
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for offset in itertools.product(range(-search_radius, search_radius + 1), repeat=dims):
            if not any(offset):
                continue
            there = images.at(around, offset)
            squared = (images.at(around, here) - there) ** 2
            distance = _box_sums(squared / np.maximum(floor, there) if floor else squared, step, patch_radius)
            bias = 0.0 if floor else 2.0
            weight = _weight(distance / len(patch), maps.at(centres, here), strength, bias)
            weights += weight
            for block, k in enumerate(blocks):
                shifted = [a + b for a, b in zip(k, offset, strict=True)]
                total[block] += weight * (values.at(centres, shifted) - values.at(centres, k))
        added = _averaged([sums / weights for sums in total], blocks, centres, u.shape)
        mean = (u**2 if rician else u) + added
        result = np.sqrt(np.maximum(0, mean - 2 * sigmas**2)) if rician else mean
    return result if mask is None else np.where(as_mask(image, mask) != 0, result, u)


def _box_sums(values: Doubles, step: int, radius: int) -> Doubles:
    """Over the patches around every ``step``-th voxel, the first of which is ``radius`` in."""
    for axis in range(2, values.ndim):
        lines = np.moveaxis(values, axis, -1)
        end = lines.shape[-1] - 2 * radius
        shifted = [lines[..., k : k + end : step] for k in range(2 * radius + 1)]
        values = np.moveaxis(functools.reduce(np.add, shifted), -1, axis)
    return values


def _weight(distance: Doubles, sigma: Doubles, strength: float, bias: float) -> Doubles:
    """Without noise, only what is the same has a weight."""
    squared = (strength * sigma) ** 2
    exact = np.where(distance == 0, 0.0, distance * np.inf)
    with_noise = np.maximum(0, distance - bias * sigma**2) / np.where(squared > 0, squared, 1.0)
    weight: Doubles = np.exp(-np.where(squared > 0, with_noise, exact))
    return weight


def _averaged(
    results: Sequence[Doubles],
    blocks: Sequence[Sequence[int]],
    centres: Sequence[range],
    shape: Sequence[int],
) -> Doubles:
    """The mean for each voxel of the results, which are those of one voxel each of all blocks."""
    sums, counts = np.zeros(shape), np.zeros(shape)
    for values, k in zip(results, blocks, strict=True):
        places = [np.array(c) + shift for c, shift in zip(centres, k, strict=True)]
        inside = [(p >= 0) & (p < size) for p, size in zip(places, shape[2:], strict=True)]
        batch = (np.arange(shape[0]), np.arange(shape[1]))
        to = np.ix_(*batch, *(p[i] for p, i in zip(places, inside, strict=True)))
        sums[to] += values[np.ix_(*batch, *(np.flatnonzero(i) for i in inside))]
        counts[to] += 1
    return sums / counts
