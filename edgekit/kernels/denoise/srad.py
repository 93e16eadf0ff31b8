"""Speckle reduction by diffusion that knows how strong speckle is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Operator, as_doubles
from edgekit.kernels.checks import check_integer, check_number, check_threads
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

MAX_ITERATIONS = 10**6
Region = tuple[tuple[int, int], ...]


def srad(
    image: Array,
    *,
    iterations: int = 20,
    time_step: float = 0.5,
    q0: float | None = None,
    decay: float = 1 / 6,
    region: Sequence[Sequence[int]] | None = None,
    spatial_ndim: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Speckle-reducing anisotropic diffusion (Yu and Acton, 2002), for images of ultrasound or radar.

    Speckle is noise in proportion to the intensity. What diffuses into a voxel depends on the coefficient of
    variation ``q`` around it, compared with that of speckle alone, ``q0``: the coefficient of diffusion is
    ``1 / (1 + (q**2 - q0**2) / (q0**2 * (1 + q0**2)))``, and at most 1. With ``I`` a voxel, ``s`` and ``g``
    the sums of the differences to its 2 * dims neighbours and of their squares,
    ``q**2 = (g / dims - (s / (2 * dims))**2) / (I + s / (2 * dims))**2``; for images this is the paper's, and
    for volumes (ours) its means are over six neighbours in place of four. A step adds
    ``time_step / (2 * dims)`` times the sum of what flows through the faces: the difference across one, times
    the coefficient of the voxel behind it (the one with the larger index). Nothing flows across the border,
    so that the mean is kept. Each channel of each sample is filtered by itself.

    ``q0`` is, in this order:

    - with ``region``, the standard deviation over the mean of those voxels, in every iteration anew;
    - else ``q0 * exp(-decay * time_step * n)`` in iteration ``n = 0, 1, ...``;
    - where ``q0`` is None, it is estimated (ours): ``1.4826 / sqrt(2)`` times the median of
      ``2 * |b - a| / (a + b)`` over all neighbours a and b along the last axis that has more than one voxel.
      It is the standard deviation over the mean where voxels differ by speckle alone, which most do.

    All types are computed in float32 and rounded once, at the end. Besides the result it takes, for a while,
    8 bytes per voxel of one channel and about 2 MiB per thread, and for the estimate about 40 bytes per
    voxel. The result depends neither on the number of threads nor on the instruction set. A voxel that is not
    finite spoils those that are within twice ``iterations`` of it.

    Args:
        image: [H, W] or [D, H, W]; or a batch, see ``spatial_ndim``. float32, float16, uint8 or int16. Linear
            intensities, not compressed by a logarithm; negative ones are refused.
        iterations: Steps, from 1 to 10**6.
        time_step: Of each. Positive, and at most the limit of stability, 1.
        q0: The coefficient of variation of speckle at first. Positive.
        decay: At least 0; the paper has 1/6. Of no matter with ``region``.
        region: A box of speckle alone: (begin, end) for each axis, in voxels.
        spatial_ndim: 2 where ``image`` is [N, C, H, W], 3 where it is [N, C, D, H, W].
        out: Where to write, like ``image``, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "srad"
    source = check_image(image, "image", where=where, spatial_ndim=spatial_ndim)
    dims = spatial_ndim or source.ndim
    if source.dtype != np.uint8 and float(source.min()) < 0:
        raise KernelError("image: want intensities of at least 0, got negative ones", where=where)
    step = check_weight(time_step, "time_step", where=where)
    if step > 1:
        raise KernelError(
            f"time_step: want at most 1, where the diffusion is stable, got {time_step!r}",
            where=where,
            hint="time_step=1.0, and more iterations",
        )
    if q0 is not None and region is not None:
        raise KernelError("q0: want none beside a region, which it is taken from", where=where)
    options = {
        "iterations": check_integer(iterations, "iterations", 1, MAX_ITERATIONS, where=where),
        "time_step": step,
        "q0": None if q0 is None else check_weight(q0, "q0", where=where),
        "decay": check_number(decay, "decay", 0, where=where),
        "region": None if region is None else _region(region, source.shape[-dims:], where),
    }
    workers = check_threads(threads, where=where)
    result = check_result(out, source, where=where)
    outputs = (as_batch(result, spatial_ndim),)
    OPERATOR.execute((as_batch(source, spatial_ndim),), outputs, threads=workers, **options)
    return like(result, image) if out is None else out


def _region(region: Sequence[Sequence[int]], grid: tuple[int, ...], where: str) -> Region:
    message = f"region: want (begin, end) for each axis of {grid}, with 0 <= begin < end, got {region!r}"
    try:
        pairs = tuple((int(begin), int(end)) for begin, end in region)
    except (TypeError, ValueError) as error:
        raise KernelError(message, where=where) from error
    fits = len(pairs) == len(grid)
    if not fits or not all(0 <= b < e <= size for (b, e), size in zip(pairs, grid, strict=True)):
        raise KernelError(message, where=where)
    return pairs


def starts(image: Array, q0: float | None) -> Doubles:
    """The coefficient of variation to begin with, of each channel [N, C]."""
    if q0 is not None:
        return np.full(image.shape[:2], q0)
    result = np.zeros(image.shape[:2])
    axes = [axis for axis, size in enumerate(image.shape[2:]) if size > 1]
    for channel in np.ndindex(result.shape) if axes else ():
        lines = np.moveaxis(image[channel], axes[-1], -1).astype(np.float32)
        before, after = lines[..., :-1], lines[..., 1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            change = 2 * np.abs(after - before) / (after + before)
        known = change[np.isfinite(change)]
        result[channel] = 1.4826 / math.sqrt(2) * float(np.median(known)) if known.size else 0.0
    return result


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    iterations: int,
    time_step: float,
    q0: float | None,
    decay: float,
    region: Region | None,
    spatial_ndim: int | None = None,
) -> None:
    module.srad(
        image,
        outputs[0],
        None if region else starts(image, q0),
        np.array(region, np.int64) if region else None,
        iterations=iterations,
        time_step=time_step,
        decay=decay,
        threads=threads,
        isa=isa,
    )


def reference(
    image: Array,
    *,
    iterations: int,
    time_step: float,
    q0: float | None,
    decay: float,
    region: Region | None,
    spatial_ndim: int | None = None,
) -> tuple[Array, ...]:
    """The definition in float64."""
    result = as_doubles(image)
    first = starts(image, q0)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for channel in np.ndindex(image.shape[:2]):
            for number in range(iterations):
                q = first[channel] * math.exp(-decay * time_step * number)
                if region:
                    box = result[channel][tuple(slice(*pair) for pair in region)]
                    q = box.std() / box.mean() if box.mean() != 0 else 0.0
                result[channel] += time_step * _change(result[channel], q**2)
    return (result,)


def _change(u: Doubles, square: float) -> Doubles:
    """What a step changes per time."""
    before = [np.diff(u, axis=i, prepend=np.take(u, [0], i)) for i in range(u.ndim)]
    after = [np.diff(u, axis=i, append=np.take(u, [-1], i)) for i in range(u.ndim)]
    total = sum(a - b for a, b in zip(after, before, strict=True)) / (2 * u.ndim)
    squares = sum(a**2 + b**2 for a, b in zip(after, before, strict=True)) / u.ndim
    variation = (squares - total**2) / np.maximum((u + total) ** 2, 1e-30)
    inverse = min(1 / (square * (1 + square)), 1e38) if square * (1 + square) > 0 else 1e38
    coefficient = 1 / (1 + np.maximum(0, (variation - square) * inverse))
    inflow = np.zeros_like(u)
    for axis in range(u.ndim):
        behind = np.delete(coefficient.swapaxes(0, axis), 0, axis=0).swapaxes(0, axis)
        inflow += np.diff(behind * np.diff(u, axis=axis), axis=axis, prepend=0, append=0)
    return inflow / (2 * u.ndim)


def allocate(image: Array, **options: Any) -> tuple[Array, ...]:
    """A new array like the image."""
    return (np.empty_like(image),)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every image, the ways to know ``q0`` taking turns."""
    for number, (label, image) in enumerate(images(rng)):
        dims = image.ndim - 2
        region = tuple((size // 3, size // 3 + (size + 1) // 2) for size in image.shape[2:])
        options: dict[str, Any] = {
            "iterations": 3 + 4 * (number % 4),
            "time_step": (0.5, 1.0, 0.3)[number % 3],
            "q0": (None, 0.4, None, 0.15)[number % 4],
            "decay": 1 / 6,
            "region": region if number % 4 == 2 else None,
        }
        with np.errstate(invalid="ignore"):
            positive = np.abs(image)
        yield Case(f"{label} {option_names(options)}", (positive,), {**options, "spatial_ndim": dims})


OPERATOR = Operator(
    name="srad",
    function=srad,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-5,
    cases=cases,
    numba="edgekit.kernels.numba.srad:srad",
)
