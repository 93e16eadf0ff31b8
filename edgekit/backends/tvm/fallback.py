"""Loop nests that no family of ours takes: outer loops in parallel, inner ones contiguous."""

from __future__ import annotations

import contextlib
from typing import Any

from tvm import s_tir
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.tirx.analysis import undefined_vars


def scheduled(function: Any) -> Any:
    """Every loop nest with its outer loops in parallel, and reductions around a contiguous inner loop.

    TVM proves for each step that it changes no dependence, and refuses it otherwise; the nest then stays as
    it was. One thread sums one position in one order, so the number of threads does not change results.
    """
    plan = s_tir.Schedule(function)
    for block in normalize_prim_func(plan) or ():
        with contextlib.suppress(s_tir.ScheduleError):
            _schedule_block(plan, block)
    return plan.mod["main"].with_attrs(function.attrs)


def _schedule_block(plan: Any, block: Any) -> None:
    spatial = [axis for axis in block.iters if axis.kind == "S"]
    reduced = [axis.loop_rv for axis in block.iters if axis.kind == "R"]
    if len(spatial) < 2 or len(spatial) + len(reduced) < len(block.iters):
        return
    inner, outer = spatial[-1], [axis.loop_rv for axis in spatial[:-1]]
    # A scalar has no axes.
    reads = [read.region[-1].min for read in plan.get(block.block_rv).reads if len(read.region)]
    contiguous = any(inner.var.same_as(var) for index in reads for var in undefined_vars(index))
    if reduced and contiguous:
        plan.reorder(*outer, *reduced, inner.loop_rv)
    plan.parallel(plan.fuse(*outer))
    if reduced and contiguous:
        plan.decompose_reduction(block.block_rv, reduced[0])
