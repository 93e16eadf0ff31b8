"""Sample an image on a normalised grid, as PyTorch and ONNX define it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Floats, Operator
from edgekit.kernels.checks import (
    IMAGES,
    check_choice,
    check_flag,
    check_input,
    check_output,
    check_threads,
    empty_image,
)
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import sample
from edgekit.spec import Array

# PyTorch's words and, from operator set 20 on, ONNX's.
ORDER_OF_MODE = {"nearest": 0, "bilinear": 1, "linear": 1, "bicubic": 3, "cubic": 3}
PADDING_MODES = ("zeros", "border", "reflection")
# The parameter of cubic convolution that both define.
CUBIC = -0.75


def grid_sample(
    image: Array,
    grid: Array,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Sample ``image`` where ``grid`` says, exactly as PyTorch's ``grid_sample`` and ONNX's GridSample.

    A grid value ``g`` is the coordinate ``(g + 1) * size / 2 - 0.5`` in voxels along its axis, or
    ``(g + 1) * (size - 1) / 2`` if the corners are aligned, computed in float32. What it samples is defined
    by PyTorch (``torch.nn.functional.grid_sample``) and ONNX (GridSample, operator sets 16 to 22). They agree
    but for ties of ``"nearest"`` under ``"reflection"``, and ``"cubic"`` under ``"border"`` more than half a
    voxel outside, where ONNX clamps the coordinate, not the voxels: there the result is PyTorch's. It depends
    neither on the number of threads nor on the instruction set.

    Args:
        image: [N, C, H, W] or [N, C, D, H, W]; float32, float16, uint8 or int16; C-contiguous or
            channels-last.
        grid: float32 [N, H', W', 2] with components (x, y), or [N, D', H', W', 3] with (x, y, z): -1 to 1 is
            the image.
        mode: ``"bilinear"`` (or ``"linear"``) interpolates between the 2 x 2 (x 2) voxels around;
            ``"nearest"`` takes the nearest voxel, and halfway between two the one of even index;
            ``"bicubic"`` (or ``"cubic"``) convolves 4 x 4 voxels with Keys' kernel, a = -0.75. As in ONNX,
            ``"cubic"`` may also be used on volumes; ``"bicubic"`` may not, as in PyTorch.
        padding_mode: ``"zeros"`` counts voxels outside as 0, ``"border"`` as the nearest voxel of the image,
            and ``"reflection"`` mirrors at the faces of the image, or through the centres of its outermost
            voxels if the corners are aligned.
        align_corners: Whether -1 and 1 are the centres of the first and the last voxel, or their outer faces.
        out: Where to write, [N, C, H', W'] or [N, C, D', H', W'] with the type and the memory layout of
            ``image``, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array. Integers are rounded to nearest and saturate.

    What PyTorch and ONNX leave open: a NaN in any component makes the sample NaN (0 in an integer image).
    Coordinates that are infinite in float32 lead outside under ``"zeros"`` and ``"border"``, and have no
    reflection: NaN.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "grid_sample"
    source = check_input(image, "image", where=where, ranks=(4, 5), dtypes=IMAGES, channels_last=True)
    places = check_input(grid, "grid", where=where, ranks=(4, 5))
    axes = source.ndim - 2
    if places.ndim != source.ndim or places.shape[-1] != axes or len(places) != len(source):
        raise KernelError(
            f"grid: want shape [{len(source)}, {'D, ' if axes == 3 else ''}H, W, {axes}] for image"
            f" {source.shape}, got {places.shape}",
            where=where,
        )
    check_choice(mode, "mode", tuple(ORDER_OF_MODE), where=where)
    if mode == "bicubic" and axes == 3:
        raise KernelError(
            f"mode: want 'bicubic' for images of 2 axes alone, got image {source.shape}",
            where=where,
            hint='mode="cubic"',
        )
    check_choice(padding_mode, "padding_mode", PADDING_MODES, where=where)
    options = {
        "mode": mode,
        "padding_mode": padding_mode,
        "align_corners": check_flag(align_corners, "align_corners", where=where),
    }
    target = check_output(out, allocate(source, places)[0], (source, places), where=where)
    OPERATOR.execute((source, places), (target,), threads=check_threads(threads, where=where), **options)
    return like(target, image) if out is None else out


def _native(
    module: ModuleType,
    image: Array,
    grid: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> None:
    module.grid_sample(
        image,
        grid,
        outputs[0],
        order=ORDER_OF_MODE[mode],
        padding=padding_mode,
        align_corners=align_corners,
        cubic=CUBIC,
        threads=threads,
        isa=isa,
    )


def reference(
    image: Array,
    grid: Array,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> tuple[Doubles]:
    """The definition: coordinates in the type of the grid, in this very order of operations; then float64."""
    order = ORDER_OF_MODE[mode]
    sizes = image.shape[2:]
    at = np.stack(
        [
            coordinates(component, size, order, padding_mode, align_corners)
            for component, size in zip(np.moveaxis(grid, -1, 0)[::-1], sizes, strict=True)
        ],
        axis=1,
    )
    return (sample(image, at, order, padding_boundary(order, padding_mode, align_corners), cubic=CUBIC),)


def coordinates(
    grid: npt.NDArray[np.floating[Any]], size: int, order: int, padding_mode: str, align_corners: bool
) -> Doubles:
    """One component of a grid in voxels, finite or NaN: padded where the rule applies to coordinates.

    The operations are PyTorch's, so that ties of nearest are the same. They are decided here, as they go to
    even.
    """
    real = grid.dtype.type
    span = size - 1 if align_corners else size
    shift = real(0 if align_corners else 0.5)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinity has no reflection
        at = (grid + real(1)) * real(span / 2) - shift
        if padding_mode == "reflection":
            turns = np.rint((at + shift) * real(0.5 / span if span else 0.0))
            at = np.minimum(np.abs(at + shift - real(2 * span) * turns), real(span)) - shift
    if padding_mode == "border" and order != 3:
        at = np.clip(at, real(0), real(size - 1))
    if order == 0:
        at = np.rint(at)
    near: Doubles = np.clip(at, real(-3), real(size + 2)).astype(np.float64)  # nothing changes beyond
    return near


def padding_boundary(order: int, padding_mode: str, align_corners: bool) -> str:
    """How the image is extended for coordinates that are padded already."""
    if padding_mode == "zeros":
        return "zero"
    if padding_mode == "border" or order != 3:
        return "edge"
    return "mirror" if align_corners else "reflect"


def allocate(image: Array, grid: Array, **options: object) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (empty_image(image, grid.shape[1:-1]),)


def grids(
    rng: np.random.Generator, shape: tuple[int, ...], sizes: Sequence[int]
) -> Iterator[tuple[str, Floats]]:
    """Grids of a shape that are worth trying on an image of some size, with a label."""
    noise = rng.standard_normal(shape)
    yield "inside", rng.uniform(-1, 1, shape).astype(np.float32)
    yield "around", (1.5 * noise).astype(np.float32)
    yield "outside", (20 * noise).astype(np.float32)
    steps = np.array([2 * size for size in sizes[::-1]])
    yield "halves", (rng.integers(-2 * steps, 2 * steps + 1, shape) / steps).astype(np.float32)
    steps = np.array([2 * max(size - 1, 1) for size in sizes[::-1]])
    yield "aligned halves", (rng.integers(-2 * steps, 2 * steps + 1, shape) / steps).astype(np.float32)
    lines = [np.linspace(-1, 1, count) for count in shape[1:-1]]
    smooth = np.stack(np.meshgrid(*lines, indexing="ij")[::-1], axis=-1) * 0.9
    yield "smooth", np.ascontiguousarray(np.broadcast_to(smooth, shape), np.float32)
    special = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10, -1.0, 1.0, 0.25], shape)
    yield "special", special.astype(np.float32)


# Image and grid: widths around the vectors and the block, one-voxel axes, other sizes than the image.
_GRIDS = (
    ((3, 4, 5), (3, 4, 5)),
    ((5, 7, 11), (2, 3, 17)),
    ((1, 1, 1), (1, 2, 9)),
    ((4, 1, 6), (3, 5, 7)),
    ((6, 5, 1), (1, 1, 31)),
    ((2, 3, 8), (1, 2, 263)),
    ((7, 9), (7, 9)),
    ((1, 5), (3, 16)),
    ((5, 1), (2, 15)),
    ((1, 1), (1, 1)),
    ((31, 33), (64, 257)),
    ((13, 17, 19), (23, 29, 37)),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every pair of sizes with every grid and all options; types, layouts, batches, channels vary along."""
    for number, (sizes, wanted) in enumerate(_GRIDS):
        n, c = (1, 2)[number % 2], (1, 2, 3, 5)[number % 4]
        values = 100 * rng.standard_normal((n, c, *sizes))
        for label, grid in grids(rng, (n, *wanted, len(sizes)), sizes):
            if math.prod(wanted) > 20000 and label != "around":  # slow in float64
                continue
            chosen = itertools.product(("nearest", "linear", "cubic"), PADDING_MODES, (False, True))
            for turn, (mode, padding, align) in enumerate(chosen):
                dtype = IMAGES[turn % len(IMAGES)] if label in ("around", "special") else "float32"
                image = (values if dtype != "uint8" else np.abs(values)).astype(dtype)
                last = turn % 5 == 4
                if last:
                    image = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1)
                name = (
                    f"{label} {sizes} to {wanted} {mode} {padding} {align} {dtype} {'last' if last else ''}"
                )
                options = {"mode": mode, "padding_mode": padding, "align_corners": align}
                yield Case(name, (image, grid), options)


OPERATOR = Operator(
    name="grid_sample",
    function=grid_sample,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=2e-6,
    cases=cases,
    numba="edgekit.kernels.numba.sample:grid_sample",
)
