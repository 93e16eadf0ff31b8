"""Average what looks alike: non-local means."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Operator
from edgekit.kernels.checks import check_choice, check_output, check_threads
from edgekit.kernels.denoise import patches
from edgekit.kernels.denoise.images import as_batch, check_image, images
from edgekit.kernels.denoise.patches import METHODS, NOISES
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.spec import Array


def non_local_means(
    image: Array,
    *,
    sigma: float | Array | str,
    patch_radius: int = 1,
    search_radius: int = 5,
    strength: float = 1.0,
    method: str = "pointwise",
    noise: str = "gaussian",
    mask: Array | None = None,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Replace each voxel by a mean of voxels around it, weighted by how alike their surroundings are.

    With ``h = strength * sigma``, and D the mean of squared differences between two patches, the weight of
    voxel q for voxel p is ``exp(-max(0, D(p, q) - 2 sigma^2) / h^2)``, that of p itself 1 (Buades, Coll &
    Morel, CVPR 2005, with the weights of their "Non-local means denoising", IPOL 2011). The
    neighbours q are those at most ``search_radius`` away along each axis, including those beyond the ends of
    the image, which goes on as ``boundary`` says. ``skimage.restoration.denoise_nl_means(fast_mode=True)`` is
    the same but for weights below exp(-5), which it drops; OpenCV does not subtract ``2 sigma^2``.

    Blockwise (Coupé et al., IEEE TMI 2008), these weights are of blocks the size of a patch, around every
    ``patch_radius + 1``-th voxel of each axis: whole blocks are averaged, and then the results of the blocks
    that hold a voxel. Noise in magnitudes, as in MRI, is Rician: u^2 is averaged with the weights of u, 2
    sigma^2 is subtracted, and the result is the root of what is not negative (Wiest-Daesslé et al., MICCAI
    2008).

    The means are ``u(p) + sum(w (u(q) - u(p))) / sum(w)`` in float32, so that a constant is kept exactly. A
    NaN or an infinity spoils what is around it, as far as neighbours and their patches reach. The result
    depends neither on the number of threads nor on the instruction set.

    Args:
        image: [H, W] or [D, H, W]; with ``spatial_ndim`` 2 [N, C, H, W], with 3 [N, C, D, H, W]. float32,
            float16, uint8 or int16, C-contiguous. Every channel is filtered by itself.
        sigma: Standard deviation of the noise in units of the image: a number, a float32 map of the grid or
            of the shape of the image, whose value at p (or at the centre of a block) counts, or
            ``"estimate"``: for every channel what :func:`estimate_noise` finds. 0 leaves what is as it was.
        patch_radius: 1 to 4 voxels: patches of 3 to 9 voxels along each axis.
        search_radius: 1 to 16 voxels.
        strength: h / sigma, 0.01 to 100. Larger is smoother.
        method: ``"pointwise"`` or ``"blockwise"``.
        noise: ``"gaussian"`` or ``"rician"``.
        mask: bool or uint8 of the grid or the shape of the image. Voxels where it is 0 are copied, and are
            neighbours all the same; where whole regions are 0 no time is spent.
        boundary: How ``abcd`` goes on: ``"zero"`` 00|abcd|00, ``"edge"`` aa|abcd|dd, ``"mirror"``
            cb|abcd|cb, ``"reflect"`` ba|abcd|dc, ``"wrap"`` cd|abcd|ab.
        spatial_ndim: As above; None for a plain image.
        out: Where to write: shape and type of ``image``, apart from all inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``, of its kind. Each thread needs up to 5 MiB meanwhile, with
        large radii in volumes up to 13.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "non_local_means"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    batch = as_batch(source, spatial_ndim)
    patches.check_radii(patch_radius, search_radius, where=where)
    factor = patches.check_strength(strength, where=where)
    check_choice(method, "method", METHODS, where=where)
    check_choice(noise, "noise", NOISES, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    chosen = patches.check_mask(mask, batch, where=where)
    count = check_threads(threads, where=where)
    if isinstance(sigma, str) and sigma == "estimate":
        sigma = _estimated(source, noise, spatial_ndim, count)
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
        method=method,
        noise=noise,
        boundary=boundary,
    )
    return like(target, image) if out is None else out


def _estimated(image: Array, noise: str, spatial_ndim: int | None, threads: int) -> Any:
    from edgekit.kernels.denoise.noise import estimate_noise

    found = estimate_noise(image, noise=noise, spatial_ndim=spatial_ndim, threads=threads)
    if spatial_ndim is None:
        return float(found)
    return patches.per_channel(image, found)


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
    method: str = "pointwise",
    noise: str = "gaussian",
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
        "blockwise": method == "blockwise",
        "rician": noise == "rician",
        "mask": mask,
        "boundary": boundary,
    }


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image; methods, kinds of noise and boundaries take turns."""
    turns = itertools.cycle(itertools.product(BOUNDARIES, NOISES, METHODS))
    # The least common multiple with the above is large.
    radii = itertools.cycle(((1, 2), (2, 3), (1, 5), (3, 2), (4, 1), (1, 1), (2, 4)))
    for number, (label, image) in enumerate(images(rng)):
        boundary, noise, method = next(turns)
        patch_radius, search_radius = next(radii)
        if image.ndim == 5:  # where a float64 brute force takes its time
            patch_radius, search_radius = (1, 2) if image.size > 2000 else (1 + (number % 6 == 0), 1)
        sigma: Any = 0.0 if label.startswith("constant") else (20.0, 8.0, 35.0)[number % 3]
        if number % 5 == 2:
            sigma = (20 * rng.random(image.shape[2 * (number % 2) :])).astype(np.float32)
        options: dict[str, Any] = {
            "sigma": sigma,
            "patch_radius": patch_radius,
            "search_radius": search_radius,
            "strength": (1.0, 0.5, 1.7)[number % 3],
            "method": method,
            "noise": noise,
            "boundary": boundary,
            "spatial_ndim": image.ndim - 2,
        }
        named = f"{label} {patch_radius}/{search_radius} {method} {noise} {boundary} {np.shape(sigma)}"
        if number % 7 == 3:
            options["mask"] = rng.random(image.shape[2 * (number % 2) :]) < 0.7
            named += " masked"
        # A root of what is left of squares magnifies errors near 0.
        yield Case(named, (image,), options, 40.0 if noise == "rician" else 1.0)
    yield from _larger_cases(rng)


def _larger_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Several tiles along every axis."""
    for method, grid in itertools.product(METHODS, ((70, 530), (18, 35, 131))):
        image = (40 + 20 * rng.standard_normal((1, 1, *grid))).astype(np.float32)
        mask = np.zeros(grid, bool)
        mask[..., 20:, :150] = True
        for turn in range(2):
            options: dict[str, Any] = {"sigma": 15.0, "patch_radius": 1, "search_radius": 1, "method": method}
            options |= {"mask": mask} if turn else {}
            options["spatial_ndim"] = len(grid)
            yield Case(f"large {grid} {method} {turn}", (image,), options)


OPERATOR = Operator(
    name="non_local_means",
    function=non_local_means,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-5,
    cases=cases,
    numba="edgekit.kernels.numba.non_local_means:run",
)
