"""Smoothing within the edges of another image: the joint bilateral filter."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Operator
from edgekit.kernels.checks import IMAGES, check_output, check_threads
from edgekit.kernels.denoise.bilateral import cases as bilateral_cases
from edgekit.kernels.denoise.bilateral import check_window, decay_of, weighted_mean, window
from edgekit.kernels.denoise.images import as_batch, check_image
from edgekit.kernels.exchange import like
from edgekit.spec import Array


def joint_bilateral(
    image: Array,
    guide: Array,
    *,
    sigma_space: float,
    sigma_range: float,
    radius: int | None = None,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Mean over a window, weighted by nearness in space and in a guide (Petschnigg et al., SIGGRAPH 2004).

    As :func:`bilateral`, but the differences that weights depend on are those of ``guide``: the edges that
    stay are the guide's, such as those of a CT beside a PET, or of an image beside a noisier one. With the
    image for its own guide the results are the same bits.

    A NaN or an infinity of the image spoils the windows that hold it. So does a NaN of the guide; an infinite
    voxel of the guide has no weight elsewhere, and is itself NaN.

    Args:
        image: As for :func:`bilateral`.
        guide: On the grid of ``image``, and in its batch; with its channels, or with one for all of them. Of
            any type an image may have.
        sigma_space: Standard deviation of the weights in space, in voxels.
        sigma_range: That in values of the guide.
        radius: As there.
        boundary: As there, for both images.
        spatial_ndim: As there, for both images.
        out: As there.
        threads: As there.

    Returns:
        ``out``, or a new array like ``image``.

    Raises:
        KernelError: An argument is not as described there.
    """
    where = "joint_bilateral"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    leader = check_guide(guide, source, where=where, spatial_ndim=spatial_ndim)
    options = check_window(where, sigma_space, sigma_range, radius, boundary)
    target = check_output(out, source, (source, leader), where=where)
    OPERATOR.execute(
        (as_batch(source, spatial_ndim), as_batch(leader, spatial_ndim)),
        (as_batch(target, spatial_ndim),),
        threads=check_threads(threads, where=where),
        **options,
    )
    return like(target, image) if out is None else out


def check_guide(value: object, image: Array, *, where: str, spatial_ndim: int | None) -> Array:
    """A view of a guide for an image: on its grid, with its channels or with one."""
    guide = check_image(value, "guide", where=where, spatial_ndim=spatial_ndim, dtypes=IMAGES)
    fits = guide.shape == image.shape
    if spatial_ndim is not None and not fits:
        fits = guide.shape == (image.shape[0], 1, *image.shape[2:])
    if not fits:
        channels = "" if spatial_ndim is None else " or the same with one channel"
        raise KernelError(f"guide: want shape {image.shape}{channels}, got {guide.shape}", where=where)
    return guide


def _native(
    module: ModuleType,
    image: Array,
    guide: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    sigma_space: float,
    sigma_range: float,
    radius: int,
    boundary: str,
    spatial_ndim: int | None = None,
) -> None:
    del spatial_ndim
    offsets, weights = window(image.ndim - 2, radius, sigma_space)
    module.bilateral(
        image,
        outputs[0],
        offsets,
        weights,
        guide,
        decay=decay_of(sigma_range),
        boundary=boundary,
        threads=threads,
        isa=isa,
    )


def reference(image: Array, guide: Array, **options: Any) -> tuple[Array]:
    """The definition in float64."""
    return weighted_mean(image, guide, **options)


def allocate(image: Array, guide: Array, **options: Any) -> tuple[Array]:
    """A new array for the result."""
    del guide, options
    return (np.empty_like(image),)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Those of the bilateral filter, with guides of other types and fewer channels."""
    exact = (case for case in bilateral_cases(rng) if "method" not in case.options)
    for number, case in enumerate(exact):
        (image,) = case.inputs
        shape = image.shape if number % 2 else (len(image), 1, *image.shape[2:])
        values = 40 + 60 * (np.indices(shape).sum(0) // 3 % 2) + 10 * rng.standard_normal(shape)
        guide = np.clip(values, 0, 255).astype(IMAGES[number % len(IMAGES)])
        if guide.dtype == np.float32 and number % 3 == 0:
            guide.reshape(-1)[guide.size // 3] = np.nan
        yield Case(case.label, (image, guide), case.options)


OPERATOR = Operator(
    name="joint_bilateral",
    function=joint_bilateral,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=5e-6,
    cases=cases,
    numba="edgekit.kernels.numba.bilateral:run_joint",
)
