"""Pull an image through a displacement field."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Floats, Operator
from edgekit.kernels.checks import (
    FLOATS,
    IMAGES,
    check_choice,
    check_flow,
    check_input,
    check_output,
    check_threads,
)
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS, displaced, sample
from edgekit.spec import Array


def warp(
    image: Array,
    flow_vox: Array,
    *,
    order: int = 1,
    boundary: str = "edge",
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Sample ``image`` at ``p + flow_vox[p]`` for every voxel ``p``.

    No grid of coordinates is ever in memory; nothing but the result is allocated. The result depends neither
    on the number of threads nor on the instruction set. The definition is that of spatial transformers
    (Jaderberg et al., 2015), in voxels.

    Args:
        image: float32, float16, uint8 or int16, [N, C, D, H, W] or [N, C, H, W]; C-contiguous, or
            channels-last in memory. Arithmetic is in float32. A NumPy array or any that speaks DLPack.
        flow_vox: Displacement in voxels, float32 or float16, [N, 3, D, H, W] with components (z, y, x) or
            [N, 2, H, W] with (y, x). A NaN in any component makes the output voxel NaN (0 if integers are
            asked for). Infinite and huge displacements lead outside the image, like any other that does.
        order: 0 takes the nearest voxel, and halfway between two the one of higher index. 1 interpolates
            linearly between the 2 x 2 (x 2) voxels around. 3 is cubic convolution of the 4 x 4 (x 4) voxels
            around (Keys, 1981, with a = -1/2; not a spline: it needs no second copy of the image). All of
            these take part, at weight 0 too: a NaN or an infinity in one of them is in the result.
        boundary: How ``abcd`` goes on: ``"zero"`` 00|abcd|00, ``"edge"`` aa|abcd|dd, ``"mirror"``
            cb|abcd|cb, ``"reflect"`` ba|abcd|dc, ``"wrap"`` cd|abcd|ab. Under the last three a displacement
            of more than 2^20 voxels counts as 2^20.
        out: Where to write: shape, type and layout of ``image``, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``image``, of its kind. Integers are rounded (halves to even) and
        saturate.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "warp"
    source = check_input(image, "image", where=where, ranks=(4, 5), dtypes=IMAGES, channels_last=True)
    flow = check_flow(flow_vox, "flow_vox", where=where, dtypes=FLOATS, image=source)
    check_choice(order, "order", ORDERS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, source, (source, flow), where=where)
    count = check_threads(threads, where=where)
    OPERATOR.execute((source, flow), (target,), threads=count, order=order, boundary=boundary)
    return like(target, image) if out is None else out


def _native(
    module: ModuleType,
    image: Array,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    order: int,
    boundary: str,
) -> None:
    module.warp(image, flow, outputs[0], order=order, boundary=boundary, threads=threads, isa=isa)


def reference(image: Array, flow_vox: Array, *, order: int = 1, boundary: str = "edge") -> tuple[Doubles]:
    """The definition in float64."""
    return (sample(image, displaced(flow_vox, boundary), order, boundary),)


def allocate(image: Array, flow_vox: Array, **options: object) -> tuple[Array]:
    """A new array for the result."""
    del flow_vox, options
    return (np.empty_like(image),)


def displacements(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[tuple[str, Floats]]:
    """Displacement fields of a shape that are worth trying, with a label."""
    noise = rng.standard_normal(shape)
    yield "zero", np.zeros(shape, np.float32)
    yield "whole", rng.integers(-2, 3, shape).astype(np.float32)
    yield "halves", (rng.integers(-5, 6, shape) / 2).astype(np.float32)
    yield "smooth", (0.7 * np.cumsum(noise, axis=-1) / np.sqrt(shape[-1])).astype(np.float32)
    yield "rough", (3 * noise).astype(np.float32)
    yield "outside", (2 * max(shape) * noise).astype(np.float32)
    tiny = np.nextafter(np.float32(0), np.sign(noise).astype(np.float32))
    yield "tiny", tiny.astype(np.float32)
    special = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 0.25], shape)
    yield "special", special.astype(np.float32)


# Widths around 8 and 16 lanes and around the block of 256 voxels, one-voxel axes, odd primes; the last of
# each rank is large enough for several tasks.
_GRIDS = (
    *((1, 1, w) for w in (1, 3, 7, 8, 9)),
    *((3, 2, w) for w in (1, 2, 15, 16, 17)),
    *((2, 1, w) for w in (31, 255, 257, 263)),
    *((5, 7, 11), (1, 9, 13), (11, 1, 5), (6, 5, 1), (23, 37, 61)),
    *((1, w) for w in (1, 2, 8)),
    *((5, 1), (7, 9), (13, 17), (3, 259), (211, 241)),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every grid with every displacement, order and boundary; batches and channels vary along.

    Types and layouts take turns: combinations of all are too many.
    """
    types = itertools.cycle(itertools.product(IMAGES, (np.float32, np.float16), (False, True)))
    for number, grid in enumerate(_GRIDS):
        n, c = (1, 2)[number % 2], (1, 2, 3, 5)[number % 4]
        image = (100 * rng.standard_normal((n, c, *grid))).astype(np.float32)
        for label, flow in displacements(rng, (n, len(grid), *grid)):
            for order, boundary in itertools.product(ORDERS, BOUNDARIES):
                if order == 3 and image.size > 4000 and boundary != BOUNDARIES[number % 5]:
                    continue  # the reference takes 64 voxels for each
                name = f"{label} {image.shape} order {order} {boundary}"
                options = {"order": order, "boundary": boundary}
                slack = 4.0 if order == 3 else 1.0
                yield Case(name, (image, flow), options, slack)
                dtype, flow_dtype, last = next(types)
                stored = _stored(image, dtype, last)
                with np.errstate(over="ignore"):
                    narrow = flow.astype(flow_dtype)
                name += f" {dtype} by {narrow.dtype}{' channels-last' if last else ''}"
                yield Case(name, (stored, narrow), options, slack)


def _stored(image: Array, dtype: str, channels_last: bool) -> Array:
    """The image in another type, within its range, and layout."""
    stored = np.abs(image).astype(dtype) if dtype == "uint8" else image.astype(dtype)
    if not channels_last:
        return stored
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(stored, 1, -1)), -1, 1)


# Linear: three blends of three roundings each, the weights being exact.
OPERATOR = Operator(
    name="warp",
    function=warp,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=6e-7,
    cases=cases,
    numba="edgekit.kernels.numba.sample:warp",
    numba_cuda="edgekit.kernels.numba.gpu:warp",
)
