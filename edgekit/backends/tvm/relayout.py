"""From the order of ONNX to blocks of channels and back: squares of vectors, transposed in registers."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from edgekit.backends.tvm.elementwise import Output
from edgekit.backends.tvm.loops import Expr, Function, Kernel, ceil_div, transposed
from edgekit.backends.tvm.tensor import Tensor


def takes(source: Tensor, result: Tensor) -> bool:
    """Whether the kernel does it: one of both is in blocks, and rows are as long as a block.

    Args:
        source: What is read.
        result: What is written.
    """
    blocks = sorted((source.layout.block, result.layout.block))
    same = source.shape == result.shape and len(result.shape) > 2 and source.dtype == result.dtype
    return same and blocks[0] == 1 and blocks[1] > 1 and result.shape[-1] >= blocks[1]


def relayout(name: str, source: Tensor, output: Output) -> Function:
    """The kernel: arguments are the input, the output's extras and the output.

    Args:
        name: Of the function.
        source: The input.
        output: Its result and the input are what :func:`takes` takes.
    """
    result = output.tensor
    blocked = result if result.layout.block > 1 else source
    block = blocked.layout.block
    batches, channels, *outer, last = result.shape
    with Kernel(name) as kernel:
        buffer = kernel.argument("x", source.memory, source.dtype)
        writer = output.arguments(kernel)

        def read(index: list[Any], axis: int) -> Expr:
            return kernel.let(source.load(kernel, buffer, index, axis, block))

        order = (batches, blocked.blocks, *outer)
        with kernel.parallel(*order) as (batch, part, *row), kernel.loop(ceil_div(last, block)) as number:
            first = part * block
            # The last square overlaps the one before.
            column = tirx.min(number * block, last - block) if last % block else number * block
            if result.layout.block > 1:
                # Lanes beyond the last channel repeat it.
                places = [first + i if i == 0 else tirx.min(first + i, channels - 1) for i in range(block)]
                square = [read([batch, place, *row, column], len(result.shape) - 1) for place in places]
                for i, vector in enumerate(transposed(kernel, square)):
                    writer.put([batch, first, *row, column + i], 1, vector, block)
            else:
                square = [read([batch, first, *row, column + i], 1) for i in range(block)]
                for i, vector in enumerate(transposed(kernel, square)):
                    exists = True if channels % block == 0 or i < channels % block else first + i < channels
                    with kernel.when(exists):
                        writer.put([batch, first + i, *row, column], len(result.shape) - 1, vector, block)
        writer.clear_halo()
    return kernel.function
