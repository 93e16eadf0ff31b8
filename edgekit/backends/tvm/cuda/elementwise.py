"""Loop nests that compute each output alone: 16 bytes a thread, neighbours beside neighbours.

Such a nest waits for memory. Its axes become one, whose inner part of 16 bytes of the output is a vector:
that is one store, and one load from each tensor that lies the same way. Threads take neighbouring vectors,
so a warp asks for 512 bytes in a row. A vector that does not divide the last axis would run over into the
next row, where other inputs lie: then the vector is a smaller power of two, down to one number. Where a
tensor lies another way, as in a change of layout, a thread has as many numbers, but asks for each alone.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.tirx.analysis import undefined_vars

from edgekit.backends.tvm.cuda.kernel import ACCESS_BYTES

_THREADS = 256
# An instruction of 16 bytes serves the tensor of the widest numbers too: 4 of float32.
_BYTES = {"float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1, "int64": 8, "float64": 8}


def scheduled(function: Any) -> Any | None:
    """The nest with vectors and threads; None for one with reductions, or of several outputs."""
    plan = s_tir.Schedule(function)
    blocks = normalize_prim_func(plan)
    if not blocks or any(axis.kind != "S" for block in blocks for axis in block.iters):
        return None
    for block in blocks[:-1]:
        plan.compute_inline(block.block_rv)
    last = blocks[-1].block_rv
    loops = plan.get_loops(last)
    if not loops:
        return None
    lanes = lanes_of(function, int(plan.get(loops[-1]).extent))
    *outer, inner = loops
    pieces, vector = plan.split(inner, [None, lanes])
    threads = plan.fuse(*outer, pieces)
    length = int(plan.get(threads).extent)
    block, thread = plan.split(threads, [None, min(_THREADS, length)])
    plan.bind(block, "blockIdx.x")
    plan.bind(thread, "threadIdx.x")
    if lanes > 1 and _lies_alike(plan.get(last)):
        plan.vectorize(vector)
    elif lanes > 1:
        plan.unroll(vector)
    return plan.mod["main"].with_attrs(function.attrs).with_attr("tirx.is_scheduled", True)


def _lies_alike(block: Any) -> bool:
    """Whether neighbours along the last axis are neighbours in every tensor, or the same number."""
    moving = block.iter_vars[-1].var
    for read in block.reads:
        *outer, inner = [index.min for index in read.region] or [moving]
        if any(_moves(index, moving) for index in outer):
            return False
        if _moves(inner, moving) and not inner.same_as(moving):
            return False
    return True


def _moves(index: Any, var: Any) -> bool:
    return any(each.same_as(var) for each in undefined_vars(index))


def lanes_of(function: Any, last: int) -> int:
    """Numbers of a vector: 16 bytes of the output, if that many divide the last axis."""
    lanes = ACCESS_BYTES // _BYTES.get(str(function.params[-1].ty.dtype), 4)
    while lanes > 1 and last % lanes:
        lanes //= 2
    return lanes
