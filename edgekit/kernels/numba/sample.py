"""Operators that sample an image: locate a block of voxels of a row, then fetch it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.grid_sample import CUBIC, ORDER_OF_MODE, padding_boundary
from edgekit.kernels.numba.block import (
    AFFINE,
    BLOCK,
    FLOW,
    GRID,
    NO_HALVES,
    Block,
    Plan,
    displace,
    locate,
    new_block,
    plan_of,
    row_of,
)
from edgekit.kernels.numba.fetch import fetch
from edgekit.kernels.numba.jit import called, compiled, each_row, memory_of
from edgekit.kernels.numba.mathematics import HALF, MIRROR, ONE, TWO, WRAP, ZERO
from edgekit.spec import Array


def warp(
    image: Array,
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    order: int,
    boundary: str,
    add: bool = False,
) -> None:
    """The variant of :func:`edgekit.kernels.warp`."""
    (out,) = outputs
    _sample(image, flow, out, plan_of(image, out, order, boundary, add=add), threads)


def compose(first: Array, second: Array, *, outputs: Sequence[Array], threads: int, boundary: str) -> None:
    """The variant of :func:`edgekit.kernels.compose`."""
    warp(second, first, outputs=outputs, threads=threads, order=1, boundary=boundary, add=True)


def integrate(
    velocity: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    steps: int,
    boundary: str,
    workspace: Array | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.integrate_velocity`."""
    (out,) = outputs
    spare = workspace
    if spare is None:
        spare = np.empty_like(out) if steps else out
    # Two buffers take turns, beginning so that the last composition lands in `out`.
    field, following = (spare, out) if steps % 2 else (out, spare)
    np.multiply(velocity, np.float32(2.0**-steps), out=field)
    for _ in range(steps):
        compose(field, field, outputs=(following,), threads=threads, boundary=boundary)
        field, following = following, field


def grid_sample(
    image: Array,
    grid: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> None:
    """The variant of :func:`edgekit.kernels.grid_sample`."""
    (out,) = outputs
    order = ORDER_OF_MODE[mode]
    boundary = padding_boundary(order, padding_mode, align_corners)
    folded = padding_mode == "reflection"
    plan = plan_of(
        image, out, order, boundary, cubic=CUBIC, source=GRID, aligned=align_corners, folded=folded
    )
    _sample(image, grid, out, plan, threads)


def sample_affine(
    image: Array, matrix: Array, out: Array, *, order: int, boundary: str, threads: int, isa: str
) -> None:
    """What the extension's function of this name does."""
    del isa
    square = np.eye(3, 4)
    square[-len(matrix) :, -len(matrix) - 1 :] = matrix
    z, y, x = ((by_z, by_y, by_x, start) for by_z, by_y, by_x, start in square.tolist())
    plan = plan_of(image, out, order, boundary, source=AFFINE, matrix=(z, y, x))
    _sample(image, np.empty((1, 1), np.float32), out, plan, threads)


def _sample(image: Array, coordinates: Array, out: Array, plan: Plan, threads: int) -> None:
    depth, height, width = plan.out.size
    exact: Array = memory_of(coordinates)
    halves: Array = NO_HALVES
    if coordinates.dtype == np.float16:
        exact, halves = np.empty(0, np.float32), exact
    arrays = (memory_of(image), exact, halves, memory_of(out))
    each_row(_sample_rows, len(out) * depth * height, width, threads, *arrays, plan)


@compiled
def _sample_rows(
    begin: int, end: int, image: Any, coordinates: Any, halves: Any, out: Any, plan: Plan
) -> None:
    """Rows of the result; coordinates are in ``halves`` if that is not empty."""
    depth, height, width = plan.out.size
    block = new_block()
    for row in range(begin, end):
        n, z, y = row_of(row, plan)
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            voxel = (z * height + y) * width + x
            if plan.source == FLOW:
                displace(coordinates, halves, n, z, y, x, count, plan, block)
            elif plan.source == GRID:
                _scale_grid(coordinates, n * depth * height * width + voxel, count, plan, block)
            else:
                _map(z, y, x, count, plan, block)
            target = n * plan.out.batch + voxel * plan.out.step[2]
            fetch(image, n * plan.image.batch, count, plan, block, out, target)


@called
def _scale_grid(grid: Any, begin: int, count: int, plan: Plan, block: Block) -> None:
    """Locate a block of a normalised grid with components (x, y, z), in PyTorch's order of operations."""
    for axis in range(3 - plan.dims, 3):
        size = plan.image.size[axis]
        span = np.float32(size - 1 if plan.aligned else size)
        margin = ZERO if plan.aligned else HALF
        turn = HALF / span if span > ZERO else ZERO
        for k in range(count):
            at = (grid[(begin + k) * plan.dims + 2 - axis] + ONE) * (span / TWO) - margin
            if plan.folded:
                start = at + margin
                at = min(abs(start - TWO * span * np.rint(start * turn)), span) - margin
            if plan.order == 0:
                at = np.rint(at)
            whole = 0
            if plan.folded and plan.order == 3 and at == at:  # the whole part may be large
                whole = np.int32(max(ZERO, min(np.floor(at), np.float32(size - 1))))
            block.shift[axis, k] = at - np.float32(whole)
            block.whole[axis, k] = whole
    locate(count, plan, block)


@called
def _map(z: int, y: int, x: int, count: int, plan: Plan, block: Block) -> None:
    """Locate a block by an affine map, in float64: a float32 would lose the position where steps are long."""
    for axis in range(3 - plan.dims, 3):
        by_z, by_y, by_x, start = plan.matrix[axis]
        size = plan.image.size[axis]
        period = float(size * (1 if plan.boundary == WRAP else 2))
        if plan.boundary == MIRROR:
            period = max(period - 2.0, 1.0)
        for k in range(count):
            at = by_z * z + by_y * y + by_x * (x + k) + start
            if plan.order == 0:  # ties are decided here
                at = np.floor(at + 0.5)
            if plan.spans[axis][3] == 0:
                at -= period * np.floor(at / period)
                whole = np.floor(at)
            else:
                whole = min(max(np.floor(at), 0.0), size - 1.0)
            block.whole[axis, k] = np.int32(whole)
            block.shift[axis, k] = np.float32(at - whole)
    locate(count, plan, block)
