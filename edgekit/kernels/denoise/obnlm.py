"""Average what looks alike under speckle: non-local means for ultrasound."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Operator
from edgekit.kernels.checks import check_choice, check_number, check_output, check_threads
from edgekit.kernels.denoise import patches
from edgekit.kernels.denoise.images import as_batch, check_image, images
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.spec import Array

FLOORS = (1e-6, 1e6)


def obnlm(
    image: Array,
    *,
    sigma: float | Array | str,
    patch_radius: int = 1,
    search_radius: int = 5,
    strength: float = 1.0,
    floor: float = 1.0,
    mask: Array | None = None,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Reduce speckle in compressed ultrasound images: optimised Bayesian non-local means.

    The noise is ``u = v + sqrt(v) n`` with n of standard deviation ``sigma`` (Loupas, 1989), so that blocks
    are compared by Pearson's distance, the mean of ``(u(p) - u(q))^2 / u(q)``, which for blocks that differ
    in noise alone is about ``2 sigma^2``. The weight of a block is ``exp(-distance / h^2)`` with ``h =
    strength * sigma``, that of the block itself 1. Whole blocks the size of a patch, around every
    ``patch_radius + 1``-th voxel of each axis, are averaged with those weights, and then the results of the
    blocks that hold a voxel (Coupé, Hellier, Kervrann & Barillot, IEEE TIP 2009, with gamma = 0.5 and without
    their selection of blocks by means).

    Everything else is as in :func:`non_local_means`.

    Args:
        image: [H, W] or [D, H, W]; with ``spatial_ndim`` 2 [N, C, H, W], with 3 [N, C, D, H, W]. float32,
            float16, uint8 or int16, C-contiguous. Every channel is filtered by itself.
        sigma: Standard deviation of n, in units of the square root of the image: a number, a float32 map of
            the grid or of the shape of the image, whose value at the centre of a block counts, or
            ``"estimate"``: for every channel what :func:`estimate_noise` finds in ``2 sqrt(image)``, which is
            too little where speckle is correlated. 0 leaves what is as it was.
        patch_radius: 1 to 4 voxels: blocks of 3 to 9 voxels along each axis.
        search_radius: 1 to 16 voxels.
        strength: h / sigma, 0.01 to 100. Larger is smoother.
        floor: What the distance is divided by where the image is less, 1e-6 to 1e6: one grey level of an
            image of 0 to 255, or 1 / 255 of one of 0 to 1.
        mask: bool or uint8 of the grid or the shape of the image. Voxels where it is 0 are copied.
        boundary: How ``abcd`` goes on: ``"zero"`` 00|abcd|00, ``"edge"`` aa|abcd|dd, ``"mirror"``
            cb|abcd|cb, ``"reflect"`` ba|abcd|dc, ``"wrap"`` cd|abcd|ab.
        spatial_ndim: As above; None for a plain image.
        out: Where to write: shape and type of ``image``, apart from all inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``, of its kind. Each thread needs up to 11 MiB meanwhile.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "obnlm"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    batch = as_batch(source, spatial_ndim)
    patches.check_radii(patch_radius, search_radius, where=where)
    factor = patches.check_strength(strength, where=where)
    smallest = check_number(floor, "floor", FLOORS[0], where=where)
    if smallest > FLOORS[1]:
        raise KernelError(f"floor: want at most {FLOORS[1]:g}, got {smallest:g}", where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    chosen = patches.check_mask(mask, batch, where=where)
    count = check_threads(threads, where=where)
    if isinstance(sigma, str) and sigma == "estimate":
        sigma = _estimated(batch, count)
    sigmas = patches.check_sigma(sigma, batch, where=where)
    inputs = [source, sigmas, *(() if chosen is None else (chosen,))]
    target = check_output(out, source, inputs, where=where)
    OPERATOR.execute(
        (batch,),
        (as_batch(target, spatial_ndim),),
        threads=count,
        sigma=sigmas,
        mask=chosen,
        patch_radius=int(patch_radius),
        search_radius=int(search_radius),
        strength=factor,
        floor=smallest,
        boundary=boundary,
    )
    return like(target, image) if out is None else out


def _estimated(batch: Array, threads: int) -> Array:
    """The root makes the noise that of n everywhere, halved."""
    from edgekit.kernels.denoise.noise import estimate_noise

    roots = 2 * np.sqrt(np.maximum(batch, 0).astype(np.float32))
    return patches.per_channel(batch, estimate_noise(roots, spatial_ndim=batch.ndim - 2, threads=threads))


def reference(image: Array, **options: Any) -> tuple[Array]:
    """The definition in float64."""
    return (patches.reference(image, **patch_options(**options)),)


def allocate(image: Array, **options: Any) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (np.empty_like(image),)


def _native(module: ModuleType, image: Array, **options: Any) -> None:
    plain = {name: options.pop(name) for name in ("outputs", "threads", "isa")}
    patches.run_native(module, image, **plain, **patch_options(**options))


def patch_options(
    *,
    sigma: Any,
    patch_radius: int = 1,
    search_radius: int = 5,
    strength: float = 1.0,
    floor: float = 1.0,
    mask: Array | None = None,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
) -> dict[str, Any]:
    """The options as what compares patches has them."""
    del spatial_ndim
    return {
        "sigma": sigma,
        "patch_radius": patch_radius,
        "search_radius": search_radius,
        "strength": strength,
        "blockwise": True,
        "floor": floor,
        "mask": mask,
        "boundary": boundary,
    }


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image, with a map of sigma or a mask now and then."""
    boundaries = itertools.cycle(BOUNDARIES)
    radii = itertools.cycle(((1, 2), (2, 3), (3, 2), (4, 1), (1, 1), (2, 4), (1, 5)))
    for number, (label, image) in enumerate(images(rng)):
        if number % 2 and label[0] == "(":  # the others are enough beside the cases of non_local_means
            continue
        patch_radius, search_radius = next(radii)
        if image.ndim == 5:  # where a float64 brute force takes its time
            patch_radius, search_radius = (1, 2) if image.size > 2000 else (1 + (number % 6 == 0), 1)
        options: dict[str, Any] = {
            "sigma": 0.0 if label.startswith("constant") else (2.0, 0.7, 3.0)[number % 3],
            "patch_radius": patch_radius,
            "search_radius": search_radius,
            "strength": (1.0, 0.5, 1.7)[number % 3],
            "floor": (1.0, 1 / 255, 5.0)[number % 3],
            "boundary": next(boundaries),
            "spatial_ndim": image.ndim - 2,
        }
        if number % 5 == 2:
            options["sigma"] = rng.random(image.shape[2:]).astype(np.float32)
        if number % 7 == 3:
            options["mask"] = rng.random(image.shape) < 0.7
        yield Case(f"{number} {label} {patch_radius}/{search_radius}", (image,), options)
    for grid in ((70, 530), (18, 35, 67)):
        image = (40 + 20 * rng.standard_normal((1, 1, *grid))).clip(0, 255).astype(np.uint8)
        options = {"sigma": 2.0, "search_radius": 1, "spatial_ndim": len(grid)}
        yield Case(f"large {grid}", (image,), options)


OPERATOR = Operator(
    name="obnlm",
    function=obnlm,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-5,
    cases=cases,
    numba="edgekit.kernels.numba.non_local_means:run_obnlm",
)
