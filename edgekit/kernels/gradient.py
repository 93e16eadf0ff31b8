"""The derivative of a warp by its displacement."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_flow, check_input, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS, contribution, corners, displaced, known
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def warp_gradient(
    cotangent: Array,
    image: Array,
    flow_vox: Array,
    *,
    order: int = 1,
    boundary: str = "edge",
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Derivative of ``sum(cotangent * warp(image, flow_vox))`` by ``flow_vox``.

    With one channel and a ``cotangent`` of ones it is the gradient of the interpolated image at
    ``p + flow_vox[p]``, the force of a registration by optical flow. Interpolation of order 1 has a kink at
    every voxel: there the derivative is that of the cell on the side of the higher index. Where ``"edge"``
    clamps a coordinate, and under order 0 everywhere, it is 0.

    Args:
        cotangent: What the result of the warp is multiplied with, float32 [N, C, D, H, W], or [N, C, H, W].
        image: What is warped, float32 and shaped like ``cotangent``.
        flow_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]
            with (y, x). Under orders 1 and 3 a NaN in any component makes all those of the result NaN there.
        order: 0, 1 or 3, as for a warp.
        boundary: As for a warp.
        out: Where to write, float32 and shaped like ``flow_vox``, C-contiguous, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array of the shape of ``flow_vox``: per voxel, in units of ``cotangent * image``.

    Raises:
        KernelError: An argument is not as described, or too large for a warp.
    """
    where = "warp_gradient"
    factor = check_input(cotangent, "cotangent", where=where, ranks=(4, 5))
    source = check_input(image, "image", where=where, ranks=(factor.ndim,))
    if source.shape != factor.shape:
        raise KernelError(
            f"image: want the shape of cotangent, {factor.shape}, got {source.shape}", where=where
        )
    flow = check_flow(flow_vox, "flow_vox", where=where, image=source)
    check_choice(order, "order", ORDERS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, flow, (factor, source, flow), where=where)
    workers = check_threads(threads, where=where)
    OPERATOR.execute((factor, source, flow), (target,), threads=workers, order=order, boundary=boundary)
    return like(target, flow_vox) if out is None else out


def _native(
    module: ModuleType,
    cotangent: Array,
    image: Array,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    order: int,
    boundary: str,
) -> None:
    module.warp_gradient(
        cotangent, image, flow, outputs[0], order=order, boundary=boundary, threads=threads, isa=isa
    )


def reference(
    cotangent: Array, image: Array, flow_vox: Array, *, order: int = 1, boundary: str = "edge"
) -> tuple[Doubles]:
    """The definition in float64."""
    total: Doubles = np.zeros(flow_vox.shape)
    if order == 0:
        return (total,)
    at, unknown = known(displaced(flow_vox, boundary))
    flat = as_doubles(image).reshape(*image.shape[:2], -1)
    factor = as_doubles(cotangent)
    for corner in corners(at, image.shape[2:], order, boundary):
        for axis, slope in enumerate(corner.slopes):
            total[:, axis] += (factor * contribution(flat, corner, slope)).sum(axis=1)
    return (np.where(unknown[:, None], np.nan, total),)


def allocate(cotangent: Array, image: Array, flow_vox: Array, **options: object) -> tuple[Floats]:
    """A new array for the result."""
    del cotangent, image, options
    return (np.empty_like(flow_vox),)


GRIDS = (
    *((1, 1, 9), (3, 2, 17), (2, 1, 263), (5, 7, 11), (11, 1, 5), (6, 5, 1), (23, 17, 41)),
    *((1, 8), (5, 1), (13, 17), (3, 259), (211, 61)),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every grid and displacement with every boundary; orders, batches and channels vary along."""
    for number, grid in enumerate(GRIDS):
        n, c = (1, 2)[number % 2], (1, 2, 3)[number % 3]
        cotangent, image = rng.standard_normal((2, n, c, *grid)).astype(np.float32)
        shifts = displacements(rng, (n, len(grid), *grid))
        for (label, flow), boundary in itertools.product(shifts, BOUNDARIES):
            if label == "tiny":  # the slope jumps at a voxel, and coordinates in float64 do not tell the side
                continue
            options = {"order": (1, 3, 1, 0)[int(rng.integers(4))], "boundary": boundary}
            yield Case(f"{label} {(n, c, *grid)} {options}", (cotangent, image, flow), options)


# Sums of differences, per axis three roundings of the weights and two per channel.
OPERATOR = Operator(
    name="warp_gradient",
    function=warp_gradient,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-6,
    cases=cases,
    numba="edgekit.kernels.numba.gradient:run",
)
