"""Smoothing within edges: the bilateral filter."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_integer, check_number, check_threads
from edgekit.kernels.denoise import bilateral_grid
from edgekit.kernels.denoise.images import (
    as_batch,
    check_image,
    check_result,
    images,
    large_images,
    option_names,
    shifted,
    surrounded,
)
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.spec import Array

MAX_RADIUS = 100
# The least standard deviations: their squares, and the inverse of these, are far from the ends of float32.
LEAST_SIGMA = 1e-15


def bilateral(
    image: Array,
    *,
    sigma_space: float,
    sigma_range: float,
    radius: int | None = None,
    method: str = "exact",
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Mean over a window, weighted by nearness in space and in value (Tomasi and Manduchi, ICCV 1998).

    Voxel ``p`` becomes ``sum_o w(o) image[p + o] / sum_o w(o)`` over whole offsets ``|o| <= radius``, with
    ``w(o) = exp(-|o|^2 / 2 sigma_space^2 - (image[p + o] - image[p])^2 / 2 sigma_range^2)``. The window is a
    disc or a ball, as in OpenCV, whose ``bilateralFilter(image, 2 * radius + 1, sigma_range, sigma_space)``
    computes the same for images of two axes. SimpleITK's window is a box of ``ceil(2.5 sigma_space)`` voxels
    to each side, and its weights come from a table.

    A constant is kept exactly. A window that holds a NaN or an infinity gives NaN. The result depends neither
    on the number of threads nor on the instruction set, and is within 1e-5 of the definition as a share of
    the largest value. The time is proportional to the number of voxels in the window.

    For wide windows ``method="grid"`` approximates the filter whose weights in space are those of a whole
    Gaussian, on a coarse grid of space and values; see :mod:`edgekit.kernels.denoise.bilateral_grid`. Beside
    the exact filter with a radius of 3 ``sigma_space``, on images of discs or balls with noise and for
    ``sigma_space`` from 4 to 16, it is off by 0.003 to 0.006 ``sigma_range`` in the root of the mean square,
    and by 0.03 to 0.1 at most. Its time depends little on ``sigma_space``. It takes some 40 bytes for each
    voxel of the image extended by 3 ``sigma_space``, and 32 for each cell, of which ``2 (high - low) /
    sigma_range`` layers have 4 for every square of ``sigma_space``, or 8 for every cube. Cells are filled on
    one thread.

    Args:
        image: [H, W] or [D, H, W], or a batch as ``spatial_ndim`` says, whose channels are filtered each by
            itself; float32, float16, uint8 or int16, C-contiguous.
        sigma_space: Standard deviation of the weights in space, in voxels, at least 1e-15.
        sigma_range: That in values of the image, at least 1e-15.
        radius: Of the window, in voxels, 1 to 100; by default 1.5 ``sigma_space``, rounded, as in OpenCV. Not
            with the grid.
        method: ``"exact"`` or ``"grid"``, which wants finite voxels, a ``sigma_space`` of at least 1, and a
            ``sigma_range`` that is not tiny beside the range of the image.
        boundary: How the image goes on outside: ``"zero"``, ``"edge"``, ``"mirror"``, ``"reflect"`` or
            ``"wrap"``.
        spatial_ndim: 2 for an image [N, C, H, W], 3 for [N, C, D, H, W]; None for a plain one.
        out: Where to write, with shape and type of ``image``, C-contiguous, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``. Integers are rounded to nearest. Meanwhile every thread needs
        room for a block with what surrounds it: under 1 MiB for radii up to 8.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "bilateral"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    check_choice(method, "method", ("exact", "grid"), where=where)
    if method == "grid" and radius is not None:
        raise KernelError(
            f"radius: want None for method='grid', whose windows have no end, got {radius!r}",
            where=where,
            hint="leave radius out, or method='exact'",
        )
    options = check_window(where, sigma_space, sigma_range, radius, boundary)
    batch = as_batch(source, spatial_ndim)
    if method == "grid":
        for channel in batch.reshape(-1, *batch.shape[2:]):
            bilateral_grid.check_grid(channel, sigma_space, sigma_range, boundary, where=where)
        options["radius"] = None
    target = check_result(out, source, where=where)
    OPERATOR.execute(
        (batch,),
        (as_batch(target, spatial_ndim),),
        threads=check_threads(threads, where=where),
        method=method,
        **options,
    )
    return like(target, image) if out is None else out


def check_window(
    where: str, sigma_space: float, sigma_range: float, radius: int | None, boundary: str
) -> dict[str, Any]:
    """The options of a bilateral filter, checked, with the default of the radius."""
    space = check_number(sigma_space, "sigma_space", LEAST_SIGMA, where=where)
    values = check_number(sigma_range, "sigma_range", LEAST_SIGMA, where=where)
    if radius is None:
        radius = default_radius(space)
    reach = check_integer(radius, "radius", 1, MAX_RADIUS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    return {"sigma_space": space, "sigma_range": values, "radius": reach, "boundary": boundary}


def default_radius(sigma_space: float) -> int:
    """The radius that OpenCV takes for a standard deviation of the weights in space, within the limits."""
    return min(MAX_RADIUS, max(1, round(1.5 * min(sigma_space, float(MAX_RADIUS)))))


@functools.lru_cache(maxsize=16)
def window(axes: int, radius: int, sigma_space: float) -> tuple[Array, Array]:
    """One offset of each pair ``o, -o`` in a disc or ball, int32 [pairs, 3], and their weights, float32.

    The farthest rows come first, as the native kernel wants it.
    """
    grid = np.meshgrid(*[np.arange(-radius, radius + 1)] * axes, indexing="ij")
    offsets = np.zeros((grid[0].size, 3), np.int32)
    offsets[:, 3 - axes :] = np.stack(grid, -1).reshape(-1, axes)
    squared = np.square(offsets.astype(np.int64)).sum(axis=1)
    keep = squared <= radius**2
    keep[: len(keep) // 2 + 1] = False  # the middle, and what lies before it
    offsets, squared = offsets[keep], squared[keep]
    order = np.lexsort((offsets[:, 2], -offsets[:, 1], -offsets[:, 0]))
    weights = np.exp(-0.5 * (squared[order] / sigma_space) / sigma_space)
    tables = np.ascontiguousarray(offsets[order]), weights.astype(np.float32)
    for table in tables:
        table.flags.writeable = False
    return tables


def decay_of(sigma_range: float) -> float:
    """What the square of a difference is multiplied with to be the binary logarithm of a weight."""
    return -0.5 * math.log2(math.e) / sigma_range / sigma_range


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    sigma_space: float,
    sigma_range: float,
    radius: int | None,
    boundary: str,
    method: str = "exact",
    spatial_ndim: int | None = None,
) -> None:
    del spatial_ndim
    if method == "grid" or radius is None:
        bilateral_grid.native(
            module,
            image,
            outputs=outputs,
            threads=threads,
            isa=isa,
            boundary=boundary,
            sigma_space=sigma_space,
            sigma_range=sigma_range,
        )
        return
    offsets, weights = window(image.ndim - 2, radius, sigma_space)
    module.bilateral(
        image,
        outputs[0],
        offsets,
        weights,
        decay=decay_of(sigma_range),
        boundary=boundary,
        threads=threads,
        isa=isa,
    )


def reference(image: Array, *, method: str = "exact", **options: Any) -> tuple[Array]:
    """The definition in float64, of the filter or of its approximation."""
    if method == "grid":
        kept = {name: options[name] for name in ("sigma_space", "sigma_range", "boundary")}
        return bilateral_grid.reference(image, **kept)
    return weighted_mean(image, image, **options)


def weighted_mean(
    image: Array,
    guide: Array,
    *,
    sigma_space: float,
    sigma_range: float,
    radius: int,
    boundary: str,
    spatial_ndim: int | None = None,
) -> tuple[Array]:
    """The definition of the filter with a guide, one offset after the other."""
    del spatial_ndim
    reach = (radius,) * (image.ndim - 2)
    around, guide_around = surrounded(image, reach, boundary), surrounded(guide, reach, boundary)
    middle = as_doubles(guide)
    total, weights = np.zeros(image.shape), np.zeros(image.shape)
    finite = np.ones(image.shape, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        for offset in np.ndindex(*(2 * radius + 1 for _ in reach)):
            step = [o - radius for o in offset]
            squared = sum(s * s for s in step)
            if squared > radius**2:
                continue
            difference = shifted(guide_around, reach, step) - middle
            weight = np.exp(-0.5 * (squared / sigma_space**2 + (difference / sigma_range) ** 2))
            voxels = shifted(around, reach, step)
            total += weight * voxels
            weights += weight
            finite &= np.isfinite(voxels)
        return (np.where(finite, total / weights, np.nan),)


def allocate(image: Array, **options: Any) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (np.empty_like(image),)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image; windows, boundaries and the standard deviations vary along."""
    for number, (label, image) in enumerate([*images(rng), *large_images(rng)]):
        options = {
            "sigma_space": (1.5, 0.6, 30.0)[number % 3],
            "sigma_range": (25.0, 4.0, 1e4, 300.0, 1e-3)[number % 5],
            "radius": (2, 3, 1, 5)[number % 4] if image.ndim == 4 else (2, 1, 3)[number % 3],
            "boundary": BOUNDARIES[number % 5],
            "spatial_ndim": image.ndim - 2,
        }
        yield Case(f"{label} {option_names(options)}", (image,), options)
        if number % 9 == 0 and np.isfinite(image).all():
            coarse = {**options, "sigma_space": (1.0, 2.7)[number % 2], "sigma_range": 60.0, "radius": None}
            coarse["method"] = "grid"
            yield Case(f"{label} {option_names(coarse)}", (image,), coarse)


# Half of it is the polynomial of the weights.
OPERATOR = Operator(
    name="bilateral",
    function=bilateral,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=5e-6,
    cases=cases,
    numba="edgekit.kernels.numba.bilateral:run",
)
