"""Push an image along a displacement field: the transpose of the warp."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import (
    check_choice,
    check_flag,
    check_flow,
    check_input,
    check_output,
    check_threads,
)
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS, corners, displaced, known
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def warp_adjoint(
    values: Array,
    flow_vox: Array,
    *,
    order: int = 1,
    boundary: str = "edge",
    return_count: bool = False,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Add ``values[p]`` around ``p + flow_vox[p]``: the adjoint of :func:`edgekit.kernels.warp` in the image.

    For any image ``sum(warp(image, flow_vox) * values) == sum(image * warp_adjoint(values, flow_vox))``, up
    to rounding. It is the gradient of a warp by its image, and moves an image forward ("push", "splat");
    divided by the count it becomes a weighted mean of what arrives at each voxel. Every voxel adds up what it
    gets in the order of the voxels ``p``, so the result depends neither on the number of threads nor on the
    instruction set.

    Args:
        values: What is pushed, float32 [N, C, D, H, W], or [N, C, H, W].
        flow_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]
            with (y, x). Where a component is NaN nothing is pushed, as that sample of a warp depends on no
            voxel.
        order: 0, 1 or 3, as for a warp. A NaN or an infinity of ``values`` reaches every voxel that takes
            part in the sample, those of weight 0 too.
        boundary: As for a warp. What leaves the grid is lost under ``"zero"``; under any other rule it is
            added to the voxel inside that the rule reads there.
        return_count: Also return what ``values`` of 1 would give, found in the same pass.
        out: Where to write, float32 and shaped like ``values``, C-contiguous, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array of the shape of ``values``; with ``return_count`` a pair of that and the
        count, float32 [N, 1, D, H, W] or [N, 1, H, W].

    Raises:
        KernelError: An argument is not as described, or too large for a warp.
    """
    where = "warp_adjoint"
    source = check_input(values, "values", where=where, ranks=(4, 5))
    flow = check_flow(flow_vox, "flow_vox", where=where, image=source)
    check_choice(order, "order", ORDERS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    counted = check_flag(return_count, "return_count", where=where)
    target = check_output(out, source, (source, flow), where=where)
    workers = check_threads(threads, where=where)
    options = {"order": order, "boundary": boundary, "return_count": counted}
    outputs = (target, *allocate(source, flow, return_count=counted)[1:])
    OPERATOR.execute((source, flow), outputs, threads=workers, **options)
    result = like(target, values) if out is None else out
    return (result, like(outputs[1], values)) if counted else result


def _native(
    module: ModuleType,
    values: Array,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    order: int,
    boundary: str,
    return_count: bool = False,
) -> None:
    count = outputs[1] if return_count else None
    module.warp_adjoint(
        values, flow, outputs[0], count=count, order=order, boundary=boundary, threads=threads, isa=isa
    )


def reference(
    values: Array, flow_vox: Array, *, order: int = 1, boundary: str = "edge", return_count: bool = False
) -> tuple[Doubles, ...]:
    """The definition in float64."""
    pushed = _push(as_doubles(values), displaced(flow_vox, boundary), order, boundary)
    if not return_count:
        return (pushed,)
    ones = np.ones((len(values), 1, *values.shape[2:]))
    return pushed, _push(ones, displaced(flow_vox, boundary), order, boundary)


def _push(values: Doubles, at: Doubles, order: int, boundary: str) -> Doubles:
    at, unknown = known(at)
    grid = values.shape[2:]
    total = np.zeros((*values.shape[:2], int(np.prod(grid))))
    for corner in corners(at, grid, order, boundary):
        lost = corner.outside | unknown
        for n, c in np.ndindex(*values.shape[:2]):
            parts = np.where(lost[n], 0.0, values[n, c] * corner.weight[n])
            total[n, c] += np.bincount(corner.flat[n].ravel(), parts.ravel(), total.shape[-1])
    return total.reshape(values.shape)


def allocate(
    values: Array, flow_vox: Array, *, return_count: bool = False, **options: object
) -> tuple[Floats, ...]:
    """New arrays for the results."""
    del flow_vox, options
    pushed = np.empty(values.shape, np.float32)
    count = np.empty((len(values), 1, *values.shape[2:]), np.float32)
    return (pushed, count) if return_count else (pushed,)


# Widths around the lanes and the block of 256 voxels, one-voxel axes, planes enough for several slabs.
GRIDS = (
    *((1, 1, 9), (3, 2, 17), (2, 1, 263), (5, 7, 11), (11, 1, 5), (6, 5, 1), (23, 17, 41)),
    *((1, 8), (5, 1), (13, 17), (3, 259), (211, 61)),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every grid and displacement with every boundary; orders, batches, channels and counts vary along."""
    for number, grid in enumerate(GRIDS):
        n, c = (1, 2)[number % 2], (1, 2, 3)[number % 3]
        values = rng.standard_normal((n, c, *grid)).astype(np.float32)
        shifts = displacements(rng, (n, len(grid), *grid))
        for (label, flow), boundary in itertools.product(shifts, BOUNDARIES):
            order = (1, 3, 1, 0)[int(rng.integers(4))]
            options = {"order": order, "boundary": boundary, "return_count": bool(rng.integers(2))}
            yield Case(f"{label} {(n, c, *grid)} {options}", (values, flow), options)


# Far displacements pile up thousands of values in a voxel of the border, each with a rounding.
OPERATOR = Operator(
    name="warp_adjoint",
    function=warp_adjoint,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=3e-6,
    cases=cases,
    numba="edgekit.kernels.numba.adjoint:run",
)
