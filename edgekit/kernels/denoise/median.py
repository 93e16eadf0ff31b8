"""The median of what surrounds a voxel: takes away outliers and keeps edges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Operator
from edgekit.kernels.checks import check_choice, check_integer, check_threads
from edgekit.kernels.denoise.images import as_batch, check_image, check_result, images
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, OUTSIDE, extend
from edgekit.spec import Array

MAX_RADIUS = 3


def median(
    image: Array,
    *,
    radius: int = 1,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Replace each voxel by the median of the ``(2 radius + 1)^2`` or ``^3`` voxels around it.

    The result is exact, and one of the voxels (Tukey, 1977). It is found by networks of comparators that
    share the sorted columns of neighbouring windows (after Chaudhuri, 1990, and Adams, "Fast median filters
    using separable sorting networks", SIGGRAPH 2021; networks ours, of Batcher's odd-even merges). The result
    depends neither on the number of threads nor on the instruction set.

    Where a window holds a NaN the result is NaN. -0 counts as 0, which is what the result then is.

    Args:
        image: [H, W] or [D, H, W]; with ``spatial_ndim`` 2 [N, C, H, W], with 3 [N, C, D, H, W]. float32,
            float16, uint8 or int16, C-contiguous. Planes of a volume are filtered apart as channels:
            ``image[None]`` with ``spatial_ndim=2``.
        radius: 1, 2 or 3 voxels.
        boundary: How ``abcd`` goes on: ``"zero"`` 00|abcd|00, ``"edge"`` aa|abcd|dd, ``"mirror"``
            cb|abcd|cb, ``"reflect"`` ba|abcd|dc, ``"wrap"`` cd|abcd|ab.
        spatial_ndim: As above; None for a plain image.
        out: Where to write: shape and type of ``image``, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``, of its kind. Each thread needs up to 300 KiB meanwhile.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "median"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    check_integer(radius, "radius", 1, MAX_RADIUS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_result(out, source, where=where)
    count = check_threads(threads, where=where)
    batches = as_batch(source, spatial_ndim), as_batch(target, spatial_ndim)
    OPERATOR.execute(batches[:1], batches[1:], threads=count, radius=int(radius), boundary=boundary)
    return like(target, image) if out is None else out


def reference(
    image: Array, *, radius: int = 1, boundary: str = "mirror", spatial_ndim: int | None = None
) -> tuple[Array]:
    """The definition: sort the voxels of every window."""
    del spatial_ndim
    windows: list[Array] = [np.add(image, image.dtype.type(0))]
    for axis, size in enumerate(image.shape[2:], 2):
        shifts = range(-radius, radius + 1)
        windows = [_shifted(window, shift, axis, size, boundary) for window in windows for shift in shifts]
    values = np.stack(windows)
    middle = np.partition(values, len(values) // 2, axis=0)[len(values) // 2]
    if image.dtype.kind == "f":
        middle = np.where(np.isnan(values).any(axis=0), image.dtype.type(np.nan), middle)
    return (middle,)


def _shifted(image: Array, shift: int, axis: int, size: int, boundary: str) -> Array:
    index = extend(np.arange(size) + shift, size, boundary)
    voxels = np.take(image, np.maximum(index, 0), axis=axis)
    inside = (index != OUTSIDE).reshape(-1, *(1 for _ in range(image.ndim - axis - 1)))
    return np.where(inside, voxels, image.dtype.type(0))


def allocate(image: Array, **options: object) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (np.empty_like(image),)


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    radius: int = 1,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
) -> None:
    del spatial_ndim
    module.median(image, outputs[0], radius=radius, boundary=boundary, threads=threads, isa=isa)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image, radii and boundaries taking turns; the large ones with a small radius."""
    turns = itertools.cycle(itertools.product(range(1, MAX_RADIUS + 1), BOUNDARIES))
    for label, image in images(rng):
        for turn in range(3):
            radius, boundary = next(turns)
            if image.ndim == 5 and image.size * (2 * radius + 1) ** 3 > 2e6:
                radius = 1
            options = {"radius": radius, "boundary": boundary, "spatial_ndim": image.ndim - 2}
            yield Case(f"{label} radius {radius} {boundary} {turn}", (image,), options)
    # Wider than a task's columns, and taller than its rows.
    wide = rng.integers(0, 9, (1, 1, 35, 575)).astype(np.uint8)
    long = rng.standard_normal((1, 1, 70, 575)).astype(np.float32)
    deep = rng.standard_normal((1, 1, 4, 35, 290)).astype(np.float32)
    large: tuple[Array, ...] = (wide, long, deep)
    for image, radius in itertools.product(large, range(1, MAX_RADIUS + 1)):
        options = {"radius": radius, "boundary": "edge", "spatial_ndim": image.ndim - 2}
        yield Case(f"large {image.shape} radius {radius}", (image,), options)


OPERATOR = Operator(
    name="median",
    function=median,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=0.0,
    cases=cases,
    numba="edgekit.kernels.numba.median:run",
)
