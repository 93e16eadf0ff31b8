"""Smoothing as a linear function of a guide: the guided filter."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Operator, as_doubles
from edgekit.kernels.checks import (
    IMAGES,
    check_choice,
    check_integer,
    check_number,
    check_output,
    check_threads,
)
from edgekit.kernels.denoise.images import (
    as_batch,
    check_image,
    images,
    large_images,
    option_names,
    shifted,
    surrounded,
)
from edgekit.kernels.denoise.joint_bilateral import check_guide
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.spec import Array

MAX_RADIUS = 1000
LEAST_EPSILON = 1e-30


def guided_filter(
    image: Array,
    guide: Array | None = None,
    *,
    radius: int,
    epsilon: float,
    boundary: str = "mirror",
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Make an image locally a linear function of a guide (He, Sun and Tang, ECCV 2010).

    With all means over boxes of ``2 radius + 1`` voxels along every axis, ``a = cov(guide, image) /
    (var(guide) + epsilon)`` and ``b = mean(image) - a mean(guide)``, the result is ``mean(a) guide +
    mean(b)``. Where the guide varies by more than the square root of ``epsilon`` its edges stay; elsewhere
    the image is smoothed. Without a guide the image is its own. Every mean extends what it averages, ``a``
    and ``b`` too, by ``boundary``; the authors' code shortens the boxes instead.

    All sums are float32. Variances are put together from those of lines and of their means, and are of
    differences from the middle voxel: an offset that is large beside them, as in CT, costs no precision. The
    result is within 1e-5 of the definition as a share of the largest value. A constant is kept exactly under
    all boundaries but ``"zero"``. A NaN or an infinity makes all voxels NaN whose boxes' boxes hold it. The
    result depends neither on the number of threads nor on the instruction set. The time is proportional to
    the radius, not to its power.

    Args:
        image: [H, W] or [D, H, W], or a batch as ``spatial_ndim`` says; float32, float16, uint8 or int16,
            C-contiguous.
        guide: On the grid of ``image``, and in its batch; with its channels, or with one for all of them. Of
            any type an image may have.
        radius: Of the boxes, in voxels, 1 to 1000.
        epsilon: In squared values of the guide, at least 1e-30.
        boundary: How an image goes on outside: ``"zero"``, ``"edge"``, ``"mirror"``, ``"reflect"`` or
            ``"wrap"``.
        spatial_ndim: 2 for an image [N, C, H, W], 3 for [N, C, D, H, W]; None for a plain one.
        out: Where to write, with shape and type of ``image``, C-contiguous, apart from it and the guide.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``. Integers are rounded to nearest and saturate. Meanwhile four
        float32 copies of the image are needed, with a guide eight.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "guided_filter"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim, dtypes=IMAGES)
    inputs = [source]
    if guide is not None:
        inputs.append(check_guide(guide, source, where=where, spatial_ndim=spatial_ndim))
    reach = check_integer(radius, "radius", 1, MAX_RADIUS, where=where)
    least = check_number(epsilon, "epsilon", LEAST_EPSILON, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, source, inputs, where=where)
    OPERATOR.execute(
        tuple(as_batch(array, spatial_ndim) for array in inputs),
        (as_batch(target, spatial_ndim),),
        threads=check_threads(threads, where=where),
        radius=reach,
        epsilon=least,
        boundary=boundary,
    )
    return like(target, image) if out is None else out


def _native(
    module: ModuleType,
    image: Array,
    guide: Array | None = None,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    radius: int,
    epsilon: float,
    boundary: str,
    spatial_ndim: int | None = None,
) -> None:
    del spatial_ndim
    options = {"radius": radius, "epsilon": epsilon, "boundary": boundary}
    module.guided_filter(image, outputs[0], guide, **options, threads=threads, isa=isa)


def reference(
    image: Array,
    guide: Array | None = None,
    *,
    radius: int,
    epsilon: float,
    boundary: str,
    spatial_ndim: int | None = None,
) -> tuple[Array]:
    """The definition in float64."""
    del spatial_ndim
    values = as_doubles(image)
    leader = values if guide is None else np.broadcast_to(as_doubles(guide), image.shape)

    def mean(array: Doubles) -> Doubles:
        return _box_mean(array, radius, boundary)

    with np.errstate(invalid="ignore", over="ignore"):
        leader_mean, value_mean = mean(leader), mean(values)
        variance = mean(leader * leader) - leader_mean**2
        covariance = mean(leader * values) - leader_mean * value_mean
        a = covariance / (np.maximum(variance, 0) + epsilon)
        b = value_mean - a * leader_mean
        return (mean(a) * leader + mean(b),)


def _box_mean(array: Doubles, radius: int, boundary: str) -> Doubles:
    axes = array.ndim - 2
    for axis in range(axes):
        reach = [radius if other == axis else 0 for other in range(axes)]
        around = surrounded(array, reach, boundary)
        steps = (
            [step if other == axis else 0 for other in range(axes)] for step in range(-radius, radius + 1)
        )
        array = np.asarray(sum(shifted(around, reach, step) for step in steps) / (2 * radius + 1))
    return array


def allocate(image: Array, guide: Array | None = None, **options: Any) -> tuple[Array]:
    """A new array for the result."""
    del guide, options
    return (np.empty_like(image),)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image by itself and with guides; radii, epsilons, boundaries and the guides' types vary along."""
    for number, (label, image) in enumerate([*images(rng), *large_images(rng)]):
        options = {
            "radius": (1, 2, 4, 9)[number % 4],
            "epsilon": (400.0, 1.0, 1e-2)[number % 3],
            "boundary": BOUNDARIES[number % 5],
            "spatial_ndim": image.ndim - 2,
        }
        inputs = [image]
        if number % 2:
            shape = image.shape if number % 4 == 1 else (len(image), 1, *image.shape[2:])
            steps = 40 + 60 * (np.indices(shape).sum(0) // 3 % 2) + 10 * rng.standard_normal(shape)
            inputs.append(np.clip(steps, 0, 255).astype(IMAGES[number // 2 % len(IMAGES)]))
        yield Case(f"{label} {option_names(options)}", tuple(inputs), options)


OPERATOR = Operator(
    name="guided_filter",
    function=guided_filter,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=5e-6,
    cases=cases,
    numba="edgekit.kernels.numba.guided:run",
)
