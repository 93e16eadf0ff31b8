"""What the operators take that filter an image: plain, or a batch of them with channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Doubles, as_doubles
from edgekit.kernels.checks import IMAGES, check_choice, check_input, check_number, check_output
from edgekit.kernels.interpolation import OUTSIDE, extend
from edgekit.spec import Array

SPATIAL_NDIMS = (2, 3)


def check_image(
    value: object, name: str, *, where: str, spatial_ndim: int | None, dtypes: tuple[str, ...] = IMAGES
) -> Array:
    """A view of an image, shaped as it was given.

    Args:
        value: [H, W] or [D, H, W]; with ``spatial_ndim`` 2 [N, C, H, W], with 3 [N, C, D, H, W].
        name: What the argument is called.
        where: The operator.
        spatial_ndim: As above; None for a plain image.
        dtypes: What it may hold.

    Raises:
        KernelError: It is something else; see :func:`edgekit.kernels.checks.check_input`.
    """
    if spatial_ndim is None:
        try:
            return check_input(value, name, where=where, ranks=SPATIAL_NDIMS, dtypes=dtypes)
        except KernelError as error:
            batches = {4: "spatial_ndim=2 for [N, C, H, W]", 5: "spatial_ndim=3 for [N, C, D, H, W]"}
            hint = batches.get(getattr(value, "ndim", 0))
            if hint is None:
                raise
            raise KernelError(error.message, where=where, hint=hint) from error
    check_choice(spatial_ndim, "spatial_ndim", SPATIAL_NDIMS, where=where)
    return check_input(value, name, where=where, ranks=(spatial_ndim + 2,), dtypes=dtypes)


def check_weight(value: object, name: str, *, where: str) -> float:
    """Refuse anything but a positive number that float32 can hold."""
    number = check_number(value, name, 0, where=where)
    if number > float(np.finfo(np.float32).max) or np.float32(number) == 0:
        raise KernelError(f"{name}: want a positive number that fits float32, got {value!r}", where=where)
    return number


def as_batch(array: Array, spatial_ndim: int | None) -> Array:
    """The same memory as [N, C, H, W] or [N, C, D, H, W]."""
    return array[None, None] if spatial_ndim is None else array


def check_result(out: object, image: Array, *, where: str) -> Array:
    """The array to write to, shaped and typed like the image: ``out`` if it fits, else a new one."""
    return check_output(out, image, (image,), where=where)


def surrounded(image: Array, reach: Sequence[int], boundary: str) -> Doubles:
    """An image [N, C, ...] in float64 with ``reach`` more voxels on both sides of every axis of its grid."""
    around = as_doubles(image)
    for axis, more in enumerate(reach, 2):
        size = image.shape[axis]
        index = extend(np.arange(-more, size + more), size, boundary)
        around = np.take(around, np.maximum(index, 0), axis=axis)
        np.moveaxis(around, axis, 0)[index == OUTSIDE] = 0
    return around


def shifted(around: Doubles, reach: Sequence[int], offset: Sequence[int]) -> Doubles:
    """What :func:`surrounded` returns, seen from every voxel of the image at an offset."""
    window = [slice(None), slice(None)]
    for more, step, size in zip(reach, offset, around.shape[2:], strict=True):
        window.append(slice(more + step, size - more + step))
    return np.asarray(around[tuple(window)])


# Lengths around 4, 8 and 16 lanes, one-voxel axes and odd primes; the last of each rank takes several tasks.
GRIDS = (
    *((1, 1, w) for w in (1, 4, 9)),
    *((2, 3, w) for w in (1, 5, 16, 17)),
    *((7, 1, 33), (9, 11, 1), (13, 17, 37)),
    *((1, w) for w in (1, 3, 8)),
    *((5, 1), (7, 15), (11, 31), (61, 131)),
)


def images(rng: np.random.Generator, *, special: bool = True) -> Iterator[tuple[str, Array]]:
    """Images [N, C, ...] worth filtering, of all types and sizes, with a label.

    Args:
        rng: What draws them.
        special: Whether some hold a NaN, or an infinity.
    """
    for number, grid in enumerate(GRIDS):
        n, c = (1, 2, 1)[number % 3], (1, 1, 3)[number % 3]
        noise = 20 * rng.standard_normal((n, c, *grid))
        steps = 60 * (np.indices(grid).sum(0) // 5 % 3)
        for turn, dtype in enumerate(IMAGES):
            if turn in (0, 1 + number % 3):
                values = 40 + steps + noise
                yield f"{(n, c, *grid)} {dtype}", np.clip(values, 0, 255).astype(dtype)
        yield f"constant {grid}", np.full((1, 1, *grid), 7.5, np.float32)
    for label, value in (("NaN", np.nan), ("infinity", np.inf)) if special else ():
        for grid in ((6, 7, 19), (12, 21)):
            image = rng.standard_normal((1, 1, *grid)).astype(np.float32)
            image.reshape(-1)[image.size // 2] = value
            yield f"{label} {grid}", image


def large_images(rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Images that take several tasks along every axis, with a label."""
    for shape, dtype in (((1, 2, 70, 530), "float32"), ((1, 1, 18, 37, 140), "int16")):
        values = 60 * (np.indices(shape).sum(0) // 11 % 3) + 20 * rng.standard_normal(shape)
        yield f"large {shape} {dtype}", values.astype(dtype)


def option_names(options: dict[str, Any]) -> str:
    """Options as a case's label shows them."""
    return " ".join(f"{name}={value}" for name, value in options.items())
