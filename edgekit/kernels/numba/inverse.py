"""The inversion of a displacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.block import Plan, locate, new_block, plan_of, row_of
from edgekit.kernels.numba.fetch import cell
from edgekit.kernels.numba.jit import compiled, each_row, memory_of
from edgekit.kernels.numba.mathematics import ZERO
from edgekit.spec import Array


def run(
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    iterations: int,
    tolerance_vox: float,
    boundary: str,
) -> None:
    """The variant of :func:`edgekit.kernels.invert`."""
    out, residual = outputs
    plan = plan_of(flow, out, 1, boundary)
    depth, height, width = plan.out.size
    largest = np.empty((len(flow), depth * height), np.float32)
    arrays = (memory_of(flow), memory_of(out), largest.reshape(-1))
    each_row(_inverse_rows, largest.size, width, threads, *arrays, iterations, tolerance_vox, plan)
    residual[...] = largest.max(axis=1)


@compiled
def _inverse_rows(
    begin: int, end: int, flow: Any, out: Any, largest: Any, iterations: int, tolerance: float, plan: Plan
) -> None:
    depth, height, width = plan.out.size
    voxels, dims = depth * height * width, plan.dims
    limit = np.float32(tolerance)
    block = new_block()
    there = np.empty(3, np.float32)
    for row in range(begin, end):
        n, z, y = row_of(row, plan)
        base, most = n * dims * voxels, ZERO
        for x in range(width):
            at = base + (z * height + y) * width + x
            block.whole[0, 0], block.whole[1, 0], block.whole[2, 0] = z, y, x
            for c in range(dims):
                block.shift[3 - dims + c, 0] = ZERO - flow[at + c * voxels]
            residual = ZERO
            for iteration in range(iterations + 1):
                locate(1, plan, block)
                residual = ZERO
                for c in range(dims):
                    there[c] = cell(flow, base + c * voxels, 0, plan, block)
                    part_of = abs(block.shift[3 - dims + c, 0] + there[c])
                    residual = part_of if part_of > residual or part_of != part_of else residual
                if residual <= limit or iteration == iterations:
                    break
                for c in range(dims):
                    block.shift[3 - dims + c, 0] = ZERO - there[c]
            for c in range(dims):
                out[at + c * voxels] = block.shift[3 - dims + c, 0]
            most = residual if residual > most or residual != residual else most
        largest[row] = most
