"""Denoising by diffusion that stops at edges."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_integer, check_threads
from edgekit.kernels.denoise.images import (
    as_batch,
    check_image,
    check_result,
    check_weight,
    images,
    option_names,
)
from edgekit.kernels.exchange import like
from edgekit.spec import Array

FORMS = ("gradient", "curvature")
MAX_ITERATIONS = 10**6
_LEAST_NORM = 1e-10  # ITK's, of a squared gradient that is divided by


def anisotropic_diffusion(
    image: Array,
    *,
    iterations: int = 5,
    time_step: float | None = None,
    conductance: float = 1.0,
    form: str = "gradient",
    conductance_scaling_update_interval: int = 1,
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Diffusion that smooths within regions and hardly across their borders.

    It is that of Perona and Malik (1990) as ITK defines it, in voxels: spacing plays no part. What flows
    through the face between two voxels is their difference ``d`` times ``exp(-g / (2 * k))``. There ``g`` is
    ``d**2`` plus, for every other axis, the squared mean of the two voxels' central differences; and ``k`` is
    ``conductance**2`` times the mean, over the image, of the sum of squared central differences. Nothing
    flows across the border. Each channel of each sample is filtered by itself.

    - ``"gradient"`` is ``itk::GradientAnisotropicDiffusionImageFilter``: a step adds ``time_step`` times what
      flows into a voxel, which keeps the mean.
    - ``"curvature"`` is ``itk::CurvatureAnisotropicDiffusionImageFilter``: the modified curvature diffusion
      equation of Whitaker and Xue (2001), which keeps edges better. What flows is divided by
      ``sqrt(g + 1e-10)``, and a step adds ``time_step`` times the inflow times the length of the gradient
      taken upwind.

    All types are computed in float32 and rounded once, at the end; the mean is summed in float64, in one
    order. Besides the result it takes, for a while, 8 bytes per voxel of one channel and about 2 MiB per
    thread. The result depends neither on the number of threads nor on the instruction set. Where a voxel is
    not finite, the mean is not, and few voxels will be.

    Args:
        image: [H, W] or [D, H, W]; or a batch, see ``spatial_ndim``. float32, float16, uint8 or int16.
        iterations: Steps, from 1 to 10**6.
        time_step: Of each. Positive, and at most the limit of stability, ``1 / 2**(dims + 1)``: 0.125 for
            images, 0.0625 for volumes, which is also the default.
        conductance: Positive: the larger, the more flows across edges.
        form: See above.
        conductance_scaling_update_interval: Steps between two looks at the mean; at least 1.
        spatial_ndim: 2 where ``image`` is [N, C, H, W], 3 where it is [N, C, D, H, W].
        out: Where to write, like ``image``, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "anisotropic_diffusion"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    options = {
        "iterations": check_integer(iterations, "iterations", 1, MAX_ITERATIONS, where=where),
        "time_step": _time_step(time_step, spatial_ndim or source.ndim, where),
        "conductance": check_weight(conductance, "conductance", where=where),
        "form": form,
        "conductance_scaling_update_interval": check_integer(
            conductance_scaling_update_interval,
            "conductance_scaling_update_interval",
            1,
            MAX_ITERATIONS,
            where=where,
        ),
    }
    check_choice(form, "form", FORMS, where=where)
    workers = check_threads(threads, where=where)
    result = check_result(out, source, where=where)
    outputs = (as_batch(result, spatial_ndim),)
    OPERATOR.execute((as_batch(source, spatial_ndim),), outputs, threads=workers, **options)
    return like(result, image) if out is None else out


def _time_step(value: float | None, dims: int, where: str) -> float:
    limit = 0.5 ** (dims + 1)
    if value is None:
        return limit
    step = check_weight(value, "time_step", where=where)
    if step > limit:
        raise KernelError(
            f"time_step: want at most {limit:g}, where {dims}-D diffusion is stable, got {value!r}",
            where=where,
            hint=f"time_step={limit:g}, and more iterations",
        )
    return step


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    iterations: int,
    time_step: float,
    conductance: float,
    form: str,
    conductance_scaling_update_interval: int,
    spatial_ndim: int | None = None,
) -> None:
    module.anisotropic_diffusion(
        image,
        outputs[0],
        iterations=iterations,
        time_step=time_step,
        conductance=conductance,
        form=form,
        interval=conductance_scaling_update_interval,
        threads=threads,
        isa=isa,
    )


def reference(
    image: Array,
    *,
    iterations: int,
    time_step: float,
    conductance: float,
    form: str,
    conductance_scaling_update_interval: int,
    spatial_ndim: int | None = None,
) -> tuple[Array, ...]:
    """The definition in float64."""
    result = as_doubles(image)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for channel in np.ndindex(image.shape[:2]):
            for number in range(iterations):
                if number % conductance_scaling_update_interval == 0:
                    central = _central(result[channel])
                    k = -2 * conductance**2 * float((central**2).sum(axis=0).mean())
                change = np.zeros_like(result[channel]) if k == 0 else _change(result[channel], k, form)
                result[channel] += time_step * change
    return (result,)


def _central(u: Doubles) -> Doubles:
    """Central differences along each axis, the border being repeated."""
    around = np.pad(u, 1, mode="edge")
    inner = (slice(1, -1),) * u.ndim
    return np.stack(
        [(np.roll(around, -1, axis)[inner] - np.roll(around, 1, axis)[inner]) / 2 for axis in range(u.ndim)]
    )


def _change(u: Doubles, k: float, form: str) -> Doubles:
    """What a step changes per time."""
    central, change, rising, falling = _central(u), np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
    for axis in range(u.ndim):
        across = np.delete(central, axis, axis=0).swapaxes(0, axis + 1)  # the axis comes first
        across = ((across[1:] + across[:-1]) / 2).swapaxes(0, axis + 1)
        difference = np.diff(u, axis=axis)
        magnitude = difference**2 + (across**2).sum(axis=0)
        flow = difference * np.exp(magnitude / k)
        if form == "curvature":
            flow = flow / np.sqrt(magnitude + _LEAST_NORM)
        change += np.diff(flow, axis=axis, prepend=0, append=0)
        before = np.diff(u, axis=axis, prepend=np.take(u, [0], axis))
        after = np.diff(u, axis=axis, append=np.take(u, [-1], axis))
        rising += np.minimum(before, 0) ** 2 + np.maximum(after, 0) ** 2
        falling += np.maximum(before, 0) ** 2 + np.minimum(after, 0) ** 2
    if form == "curvature":
        change *= np.sqrt(np.where(change > 0, rising, falling))
    return change


def allocate(image: Array, **options: Any) -> tuple[Array, ...]:
    """A new array like the image."""
    return (np.empty_like(image),)


_OPTIONS: tuple[dict[str, Any], ...] = (
    {"iterations": 3, "conductance": 1.0, "form": "gradient", "conductance_scaling_update_interval": 1},
    {"iterations": 7, "conductance": 2.5, "form": "gradient", "conductance_scaling_update_interval": 5},
    {"iterations": 3, "conductance": 1.5, "form": "curvature", "conductance_scaling_update_interval": 1},
    {"iterations": 9, "conductance": 0.7, "form": "curvature", "conductance_scaling_update_interval": 20},
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image with two of several options, the forms taking turns."""
    for number, (label, image) in enumerate(images(rng)):
        dims = image.ndim - 2
        for turn in (0, 1):
            options = _OPTIONS[(2 * turn + number) % len(_OPTIONS)]
            step = 0.5 ** (dims + 1) * (1, 0.8)[number % 2]
            given = {**options, "time_step": step, "spatial_ndim": dims}
            yield Case(f"{label} {option_names(options)}", (image,), given)


OPERATOR = Operator(
    name="anisotropic_diffusion",
    function=anisotropic_diffusion,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-5,
    cases=cases,
    numba="edgekit.kernels.numba.diffusion:anisotropic_diffusion",
)
