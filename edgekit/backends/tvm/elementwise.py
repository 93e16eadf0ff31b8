"""Chains of element-wise functions: the last thing that a kernel does to a value before it writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.backends.tvm.functions import FUNCTIONS
from edgekit.backends.tvm.loops import Buffer, Expr, Function, Index, Kernel, constant
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor


@dataclass(frozen=True)
class Step:
    """One function of a chain.

    Attributes:
        function: Its name in :data:`edgekit.backends.tvm.functions.FUNCTIONS`.
        operands: Values by number (the chain's first value, the other ones it reads, then the results of
            steps), and constants as floats.
        parameters: Numbers that follow the operands.
    """

    function: str
    operands: tuple[int | float, ...]
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Output:
    """What a kernel writes, and what becomes of a value on the way.

    Attributes:
        tensor: The result.
        chain: Functions between the value and the result, in order; the last one gives the result.
        extras: Further tensors that the chain reads, of shapes that broadcast to the result's.
    """

    tensor: Tensor
    chain: tuple[Step, ...] = ()
    extras: tuple[Tensor, ...] = ()

    def arguments(self, kernel: Kernel) -> Writer:
        """Declare the extras and the result: a kernel's last arguments."""
        extras = [kernel.argument(f"extra_{i}", t.memory, t.dtype) for i, t in enumerate(self.extras)]
        return Writer(self, kernel, extras, kernel.argument("out", self.tensor.memory, self.tensor.dtype))


@dataclass(frozen=True)
class Writer:
    """An output with its memory, in the kernel that writes it."""

    output: Output
    kernel: Kernel
    extras: list[Buffer]
    buffer: Buffer

    def put(self, index: Sequence[Index], axis: int, value: Expr, width: int) -> None:
        """Give ``width`` neighbours along an axis their value, from an index on.

        Args:
            index: Of the result, as the network sees it.
            axis: Of the result.
            value: Before the chain: a number, or a vector.
            width: 1 for a number.
        """
        output = self.output
        values = [self.kernel.let(value) if output.chain else value]
        for tensor, buffer in zip(output.extras, self.extras, strict=True):
            values.append(tensor.load(self.kernel, buffer, index, axis, width))
        for step in output.chain:
            operands = [values[o] if isinstance(o, int) else constant(o, width) for o in step.operands]
            result = FUNCTIONS[step.function](*operands, *step.parameters)
            # A value that several functions use is computed once.
            values.append(self.kernel.let(result))
        output.tensor.store(self.kernel, self.buffer, index, axis, values[-1], width)

    def clear_halo(self) -> None:
        """Write the zeros around the result."""
        self.output.tensor.clear_halo(self.kernel, self.buffer)


def elementwise(name: str, source: Tensor, output: Output, processor: Processor) -> Function:
    """A chain by itself; with an empty one, a copy from one layout to another.

    Args:
        name: Of the function.
        source: The chain's first value: it may broadcast to the result.
        output: The chain and its result.
        processor: What it runs on.
    """
    shape, result = output.tensor.shape, output.tensor
    with Kernel(name) as kernel:
        buffer = kernel.argument("x", source.memory, source.dtype)
        writer = output.arguments(kernel)
        axis = result.vector_axis

        def put(index: list[Any], width: int) -> None:
            writer.put(index, axis, source.load(kernel, buffer, index, axis, width), width)

        if not shape:
            writer.put([], 0, kernel.load(buffer, []), 1)
        elif result.layout.block > 1:
            block = result.layout.block
            *outer, last = shape[2:]
            blocks = kernel.parallel(shape[0], result.blocks, *outer)
            with blocks as (batch, part, *row), kernel.loop(last) as column:
                put([batch, part * block, *row, column], block)
        else:
            *outer, last = shape
            width = min(4 * processor.lanes, 1 << (last.bit_length() - 1))
            with kernel.parallel(*(outer or (1,))) as row:
                place = list(row) if len(outer) > 1 else [row] if outer else []
                with kernel.loop(last // width) as part:
                    put([*place, part * width], width)
                # What is left: half as many at a time, and so on.
                column = last // width * width
                while column < last:
                    part = 1 << ((last - column).bit_length() - 1)
                    put([*place, column], part)
                    column += part
        writer.clear_halo()
    return kernel.function
