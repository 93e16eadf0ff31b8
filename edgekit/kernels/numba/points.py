"""The displacement of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.kernels.numba.block import Plan, locate, new_block, plan_of
from edgekit.kernels.numba.fetch import cell
from edgekit.kernels.numba.jit import compiled, each_row, memory_of
from edgekit.spec import Array


def run(source: Array, flow: Array, *, outputs: Sequence[Array], threads: int, boundary: str) -> None:
    """The variant of :func:`edgekit.kernels.warp_points`."""
    (out,) = outputs
    plan = plan_of(flow, flow, 1, boundary)
    each_row(_move_points, len(out.reshape(-1, plan.dims)), 16, threads, source, memory_of(flow), out, plan)


@compiled
def _move_points(begin: int, end: int, points: Any, flow: Any, out: Any, plan: Plan) -> None:
    dims, count = plan.dims, points.shape[1]
    block = new_block()
    for row in range(begin, end):
        n, p = row // count, row % count
        for axis in range(dims):
            block.shift[3 - dims + axis, 0] = points[n, p, axis]
        locate(1, plan, block)
        for axis in range(dims):
            moved = cell(flow, n * plan.image.batch + axis * plan.image.channel, 0, plan, block)
            out[n, p, axis] = points[n, p, axis] + moved
