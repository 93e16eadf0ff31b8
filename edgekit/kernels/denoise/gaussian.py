"""Smoothing by a Gaussian."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_number, check_threads
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

MAX_REACH = 4096


def gaussian(
    image: Array,
    *,
    sigma: float | Sequence[float],
    truncate: float = 4.0,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Convolve with a Gaussian, along one axis after the other.

    The weights of an axis are ``exp(-k^2 / 2 sigma^2)`` at whole distances ``|k| <= int(truncate * sigma +
    0.5)``, divided by their sum: those of ``scipy.ndimage.gaussian_filter``, with which results agree to 1e-5
    of the largest value. Its name for ``boundary="mirror"`` is the same, for ``"edge"`` it is ``"nearest"``,
    for ``"zero"`` ``"grid-constant"`` and for ``"wrap"`` ``"grid-wrap"``.

    All sums are float32; integers are rounded once, at the end. A constant is kept exactly under all
    boundaries but ``"zero"``. A NaN or an infinity reaches as far as the weights and spoils what it reaches.
    The result depends neither on the number of threads nor on the instruction set. The time is proportional
    to the standard deviations.

    Args:
        image: [H, W] or [D, H, W], or a batch as ``spatial_ndim`` says; float32, float16, uint8 or int16,
            C-contiguous.
        sigma: Standard deviation in voxels, one for all axes of the grid or one each, in the order (z, y, x)
            or (y, x). An axis of 0 is left as it is.
        truncate: After how many standard deviations the Gaussian is cut off, such that it ends at most 4096
            voxels away.
        boundary: How the image goes on outside: ``"zero"``, ``"edge"``, ``"mirror"``, ``"reflect"`` or
            ``"wrap"``.
        spatial_ndim: 2 for an image [N, C, H, W], 3 for [N, C, D, H, W]; None for a plain one.
        out: Where to write, with shape and type of ``image``, C-contiguous, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``. Meanwhile a float32 copy of the image is needed, for a volume
        that is not float32 two.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "gaussian"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    axes = source.ndim if spatial_ndim is None else spatial_ndim
    cut = check_number(truncate, "truncate", 0, where=where)
    sigmas = _check_sigma(sigma, axes, cut, where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_result(out, source, where=where)
    OPERATOR.execute(
        (as_batch(source, spatial_ndim),),
        (as_batch(target, spatial_ndim),),
        threads=check_threads(threads, where=where),
        sigma=sigmas,
        truncate=cut,
        boundary=boundary,
    )
    return like(target, image) if out is None else out


def _check_sigma(value: float | Sequence[float], axes: int, truncate: float, where: str) -> tuple[float, ...]:
    """One standard deviation for each axis."""
    values = [value] * axes if np.ndim(value) == 0 else list(value)  # type: ignore[arg-type]
    if len(values) != axes:
        raise KernelError(f"sigma: want a number or {axes} of them, got {value!r}", where=where)
    sigmas = tuple(check_number(sigma, "sigma", 0, where=where) for sigma in values)
    if max(sigmas) * truncate + 0.5 >= MAX_REACH + 1:
        raise KernelError(
            f"sigma: want sigma * truncate of at most {MAX_REACH} voxels, got {max(sigmas)} * {truncate}",
            where=where,
            hint="smooth a coarser image",
        )
    return sigmas


@functools.lru_cache(maxsize=32)
def weights_of(sigma: float, truncate: float) -> Doubles:
    """The weights at distances 1, 2 ... of an axis; that in the middle is what is missing to 1."""
    reach = int(truncate * sigma + 0.5) if sigma > 0 else 0
    weights = np.exp(-0.5 * np.square(np.arange(1, reach + 1) / max(sigma, 1e-150)))
    return np.asarray(weights / (1 + 2 * weights.sum()))


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    sigma: float | Sequence[float],
    truncate: float,
    boundary: str,
    spatial_ndim: int | None = None,
) -> None:
    del spatial_ndim
    sigmas = _check_sigma(sigma, image.ndim - 2, truncate, "gaussian")
    tables = [weights_of(s, truncate).astype(np.float32) for s in (0.0, *sigmas)[-3:]]
    module.gaussian(image, outputs[0], *tables, boundary=boundary, threads=threads, isa=isa)


def reference(
    image: Array,
    *,
    sigma: float | Sequence[float],
    truncate: float,
    boundary: str,
    spatial_ndim: int | None = None,
) -> tuple[Array]:
    """The definition in float64, one axis after the other.

    The middle one's weight is what is missing to 1. So written, an infinity gives infinities beside it, and
    NaN where it is itself.
    """
    del spatial_ndim
    axes = image.ndim - 2
    smooth = as_doubles(image)
    sigmas = _check_sigma(sigma, axes, truncate, "gaussian")
    with np.errstate(invalid="ignore"):
        for axis in reversed(range(axes)):
            weights = weights_of(sigmas[axis], truncate)
            reach = [len(weights) if other == axis else 0 for other in range(axes)]
            around, total = surrounded(smooth, reach, boundary), smooth.copy()
            for k, weight in enumerate(weights, 1):
                steps = ([sign * k if other == axis else 0 for other in range(axes)] for sign in (-1, 1))
                before, after = (shifted(around, reach, step) for step in steps)
                total += weight * ((before + after) - 2 * smooth)
            smooth = total
    return (smooth,)


def allocate(image: Array, **options: Any) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (np.empty_like(image),)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image; standard deviations, one for all or one each, and boundaries vary along."""
    for number, (label, image) in enumerate([*images(rng), *large_images(rng)]):
        axes = image.ndim - 2
        some = ((2.0, 0.0, 0.7), (0.3, 5.0, 1.0), (0.0, 0.0, 2.5), (0.0, 3.0, 0.0))[number % 4]
        options = {
            "sigma": (1.0, some[-axes:], 0.0, 2.6)[number % 4 if number % 3 else 1],
            "truncate": (4.0, 2.0, 3.3)[number % 3],
            "boundary": BOUNDARIES[number % 5],
            "spatial_ndim": axes,
        }
        yield Case(f"{label} {option_names(options)}", (image,), options)


OPERATOR = Operator(
    name="gaussian",
    function=gaussian,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=2e-6,
    cases=cases,
    numba="edgekit.kernels.numba.gaussian:run",
)
