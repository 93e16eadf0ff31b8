"""Denoising by total variation: close to the image, with short contours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_flag, check_integer, check_number, check_threads
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

METHODS = ("chambolle", "primal_dual")
MAX_ITERATIONS = 10**6
# Iterations between two looks at the gap.
_GAP_INTERVAL = 10
_GAMMA = 0.7


def total_variation(
    image: Array,
    *,
    weight: float,
    iterations: int = 100,
    method: str = "chambolle",
    tolerance: float | None = None,
    return_gap: bool = False,
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """The image ``u`` that minimises ``weight * TV(u) + |u - image|**2 / 2``.

    This is the model of Rudin, Osher and Fatemi (1992). ``TV`` is isotropic: the sum over all voxels of the
    length of the gradient, whose components are differences to the next voxel along each axis, and 0 at the
    last one. Spacing plays no part. Each channel of each sample is denoised by itself.

    Two methods lead there, both computing a sequence of images that begins with ``image`` itself:

    - ``"chambolle"``: the projection of Chambolle (2004) with a step of ``1 / (2 * dims)``. The sequence is
      that of ``skimage.restoration.denoise_tv_chambolle``, and ``iterations`` its ``max_num_iter``.
    - ``"primal_dual"``: the accelerated algorithm 2 of Chambolle and Pock (2011), beginning with
      ``tau = 1`` and ``sigma = 1 / (4 * dims)``, with ``gamma = 0.7``. It is the faster one where the gap
      shall be small.

    The relative duality gap says how far ``u`` can be from the minimum: it is the difference between the
    energy above and its lower bound (the dual energy), over the energy. ``|u - minimiser|**2`` is at most
    twice that difference. Float32 reaches about 1e-6. Where an image is constant, the gap is 0.

    All types are computed in float32 and rounded once, at the end. Besides the result it takes, for a while,
    8 bytes per voxel of one channel and field, the fields being one per axis and one more, for
    ``"primal_dual"`` two more: 32 or 40 bytes per voxel of a volume, 24 or 32 of an image; and about 2 MiB
    per thread. The result depends neither on the number of threads nor on the instruction set. A voxel that
    is not finite spoils those that are within ``iterations`` of it.

    Args:
        image: [H, W] or [D, H, W]; or a batch, see ``spatial_ndim``. float32, float16, uint8 or int16.
        weight: In units of the image's values: larger is smoother. Positive.
        iterations: How many images are computed at most, the first being ``image``; from 1 to 10**6.
        method: See above.
        tolerance: Ends the iterations where the relative gap is not larger; looked at every 10 iterations. At
            least 0. By default all iterations are made.
        return_gap: Whether to return the relative gap that was reached.
        spatial_ndim: 2 where ``image`` is [N, C, H, W], 3 where it is [N, C, D, H, W].
        out: Where to write, like ``image``, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``. With ``return_gap`` a pair: that, and the relative gap of each
        channel, float32 [N, C], or [1, 1] for a plain image.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "total_variation"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    options = {
        "weight": check_weight(weight, "weight", where=where),
        "iterations": check_integer(iterations, "iterations", 1, MAX_ITERATIONS, where=where),
        "method": method,
        "tolerance": None if tolerance is None else check_number(tolerance, "tolerance", 0, where=where),
        "return_gap": check_flag(return_gap, "return_gap", where=where),
    }
    check_choice(method, "method", METHODS, where=where)
    workers = check_threads(threads, where=where)
    result = check_result(out, source, where=where)
    batch = as_batch(source, spatial_ndim)
    gap = np.empty(batch.shape[:2], np.float32)
    outputs = (as_batch(result, spatial_ndim), gap)[: 1 + bool(return_gap)]
    OPERATOR.execute((batch,), outputs, threads=workers, **options)
    given = like(result, image) if out is None else out
    return (given, like(gap, image)) if return_gap else given


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    weight: float,
    iterations: int = 100,
    method: str = "chambolle",
    tolerance: float | None = None,
    return_gap: bool = False,
    spatial_ndim: int | None = None,
) -> None:
    module.total_variation(
        image,
        outputs[0],
        outputs[1] if return_gap else None,
        weight=weight,
        iterations=iterations,
        method=method,
        tolerance=-1.0 if tolerance is None else tolerance,
        threads=threads,
        isa=isa,
    )


def reference(
    image: Array,
    *,
    weight: float,
    iterations: int = 100,
    method: str = "chambolle",
    tolerance: float | None = None,
    return_gap: bool = False,
    spatial_ndim: int | None = None,
) -> tuple[Array, ...]:
    """The definition in float64."""
    values = as_doubles(image)
    result, gaps = np.empty_like(values), np.empty(image.shape[:2])
    with np.errstate(invalid="ignore", over="ignore"):
        for channel in np.ndindex(image.shape[:2]):
            result[channel], gaps[channel] = _minimise(
                values[channel], weight, iterations, method, -1.0 if tolerance is None else tolerance
            )
    return (result, gaps)[: 1 + return_gap]


def _minimise(
    image: Doubles, weight: float, iterations: int, method: str, tolerance: float
) -> tuple[Doubles, float]:
    dual: Doubles = np.zeros((image.ndim, *image.shape))
    u = ahead = image
    tau, sigma = 1.0, 1 / (4 * image.ndim)
    for number in range(1, iterations):
        slope = gradient(ahead)
        if method == "chambolle":
            step = 1 / (2 * image.ndim)
            dual = (dual - step * slope) / (1 + step / weight * _length(slope))
            u = ahead = image - _divergence(dual)
        else:
            dual = dual - sigma * slope
            dual = dual / np.maximum(1, _length(dual) / weight)
            # (u + tau * (image - div)) / (1 + tau), so that a constant stays what it is.
            before, u = u, u + tau / (1 + tau) * (image - _divergence(dual) - u)
            theta = 1 / math.sqrt(1 + 2 * _GAMMA * tau)
            tau, sigma = tau * theta, sigma / theta
            ahead = u + theta * (u - before)
        if tolerance >= 0 and number % _GAP_INTERVAL == 0 and _gap(image, u, dual, weight) <= tolerance:
            break
    return u, _gap(image, u, dual, weight)


def gradient(u: Doubles) -> Doubles:
    """Differences to the next voxel along each axis, 0 at the last one."""
    return np.stack([np.diff(u, axis=i, append=np.take(u, [-1], axis=i)) for i in range(u.ndim)])


def _divergence(dual: Doubles) -> Doubles:
    return sum(np.diff(part, axis=i, prepend=0) for i, part in enumerate(dual))  # type: ignore[no-any-return]


def _length(vectors: Doubles) -> Doubles:
    return np.sqrt((vectors**2).sum(axis=0))  # type: ignore[no-any-return]


def energy(u: Doubles, image: Doubles, weight: float) -> float:
    """What :func:`total_variation` minimises."""
    return float(weight * _length(gradient(u)).sum() + ((u - image) ** 2).sum() / 2)


def _gap(image: Doubles, u: Doubles, dual: Doubles, weight: float) -> float:
    primal = energy(u, image, weight)
    lower = ((image**2).sum() - ((image - _divergence(dual)) ** 2).sum()) / 2
    return 0.0 if primal == 0 else float((primal - lower) / primal)


def allocate(image: Array, *, return_gap: bool = False, **options: Any) -> tuple[Array, ...]:
    """A new array for each result."""
    return (np.empty_like(image), np.empty(image.shape[:2], np.float32))[: 1 + return_gap]


_OPTIONS: tuple[dict[str, Any], ...] = (
    {"weight": 8.0, "iterations": 6, "method": "chambolle"},
    {"weight": 30.0, "iterations": 7, "method": "primal_dual"},
    {"weight": 0.5, "iterations": 1, "method": "chambolle", "return_gap": True},
    {"weight": 20.0, "iterations": 24, "method": "chambolle", "return_gap": True},
    {"weight": 5.0, "iterations": 19, "method": "primal_dual", "return_gap": True},
    {"weight": 2.0, "iterations": 60, "method": "primal_dual", "tolerance": 0.02, "return_gap": True},
    {"weight": 4.0, "iterations": 40, "method": "chambolle", "tolerance": 0.3},
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image with two of several options, the methods taking turns."""
    for number, (label, image) in enumerate(images(rng)):
        for turn in (0, 1):
            options = _OPTIONS[(2 * number + turn) % len(_OPTIONS)]
            if not np.isfinite(image.astype(np.float64)).all():
                options = _OPTIONS[turn]  # how many iterations there are is a matter of rounding
            yield Case(
                f"{label} {option_names(options)}", (image,), {**options, "spatial_ndim": image.ndim - 2}
            )


OPERATOR = Operator(
    name="total_variation",
    function=total_variation,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-5,
    cases=cases,
    numba="edgekit.kernels.numba.total_variation:total_variation",
)
