"""Rows of a value: the loops along its last axis, and what a whole row comes to.

With channels in blocks a vector holds the same voxel of a block of channels, and a row is summed vector by
vector. In the order of ONNX a vector holds neighbours along the row, whose numbers are summed at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from edgekit.backends.tvm.loops import Expr, Index, Kernel, ceil_div, constant, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor

Combine = Callable[[Expr, Expr], Expr]

# An addition waits for the one before; so many of them do not wait for each other.
_CHAINS = 4
# A value is cut into parts for the threads where it has fewer blocks than this and more memory than that.
_TASKS = 32
_PART_BYTES = 128 << 10


def add(x: Expr, y: Expr) -> Expr:
    """The sum of two."""
    return x + y


def largest(x: Expr, y: Expr) -> Expr:
    """The larger of two; NaN where either is."""
    if not str(x.ty.dtype).startswith("float"):
        return tirx.max(x, y)
    # TVM takes x != x for never true, and a maximum from selections for a tree that doubles at each level.
    return tirx.call_llvm_pure_intrin(str(x.ty.dtype), "llvm.maximum", x, y)


def columns(
    kernel: Kernel, tensor: Tensor, processor: Processor, body: Callable[[Index, int], None], unroll: int = 1
) -> None:
    """A loop along the last axis.

    Args:
        kernel: What is being written.
        tensor: Whose last axis it is.
        processor: What it runs on.
        body: Does the vector from a column on; its second argument is the length of the vector. In the order
            of ONNX the last vector may overlap the one before, so it must not depend on how often it is done.
        unroll: Vectors that are written out in one pass of the loop, where channels are in blocks.
    """
    last, block = tensor.shape[-1], tensor.layout.block
    if block > 1:
        unroll = min(unroll, last)
        with kernel.loop(last // unroll) as part:
            for column in range(unroll):
                body(part * unroll + column, block)
        for column in range(last // unroll * unroll, last):
            body(column, block)
        return
    width = row_vector(last, 4 * processor.lanes)
    with kernel.loop(ceil_div(last, width)) as part:
        body(part * width if last % width == 0 else tirx.min(part * width, last - width), width)


def row_vector(length: int, most: int) -> int:
    """The longest vector, a power of two, of at most so many neighbours."""
    return min(most, 1 << (length.bit_length() - 1))


def over_row(
    kernel: Kernel,
    tensor: Tensor,
    processor: Processor,
    value: Callable[[Index, int], Expr],
    combine: Combine = add,
    start: float = 0.0,
) -> Expr:
    """What a row comes to: a vector of a block of channels, or a number in the order of ONNX.

    Args:
        kernel: What is being written.
        tensor: Whose last axis it is.
        processor: What it runs on.
        value: The vector from a column on, of the length that is its second argument.
        combine: Of two vectors, in an order that depends on the shape alone.
        start: What leaves every number as it is.
    """
    last, block = tensor.shape[-1], tensor.layout.block
    width = block if block > 1 else row_vector(last, processor.lanes)
    step = 1 if block > 1 else width
    whole = last // step
    chains = min(_CHAINS, whole)
    registers = kernel.registers(chains, width)
    for register in registers:
        register.set(constant(start, width))
    with kernel.loop(whole // chains) as part:
        for number, register in enumerate(registers):
            register.set(combine(register.value, value((part * chains + number) * step, width)))
    for number in range(whole % chains):
        register = registers[number]
        register.set(combine(register.value, value((whole // chains * chains + number) * step, width)))
    total = _tree(kernel, [register.value for register in registers], combine)
    if block > 1:
        return total
    numbers = [across(kernel, total, width, combine)]
    numbers += [value(column, 1) for column in range(whole * step, last)]
    return _tree(kernel, numbers, combine)


def across(kernel: Kernel, vector: Expr, width: int, combine: Combine) -> Expr:
    """What the lanes of a vector come to: halves first, as long as there are two."""
    while width > 1 and width % 2 == 0:
        width //= 2
        low = tirx.Shuffle([vector], list(range(width))) if width > 1 else tirx.Shuffle([vector], [0])
        high = tirx.Shuffle([vector], list(range(width, 2 * width)))
        vector = kernel.let(combine(low, high))
    return vector


def neighbours(vectors: Sequence[Expr], lanes: int, count: int) -> Expr:
    """The sums of so many neighbouring lanes, in order, in one vector: a number where there is one sum.

    Args:
        vectors: A power of two.
        lanes: Of each, a power of two.
        count: Lanes of a sum, a power of two.
    """
    while count > 1:
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [tuple(vectors)]
        vectors = [_pair_sums(pair, lanes * len(pair)) for pair in pairs]
        # One vector by itself becomes shorter.
        lanes, count = lanes * len(pairs[0]) // 2, count // 2
    whole = list(range(len(vectors) * lanes))
    return vectors[0] if len(vectors) == 1 else tirx.Shuffle(list(vectors), whole)


def _pair_sums(vectors: Sequence[Expr], lanes: int) -> Expr:
    """Neighbouring lanes of the vectors, side by side, added to each other."""
    even, odd = (tirx.Shuffle(list(vectors), list(range(first, lanes, 2))) for first in (0, 1))
    return even + odd


def _tree(kernel: Kernel, values: Sequence[Expr], combine: Combine) -> Expr:
    """Neighbours first: sums of few roundings."""
    values = [kernel.let(value) for value in values]
    while len(values) > 1:
        pairs = [kernel.let(combine(*values[i : i + 2])) for i in range(0, len(values) - 1, 2)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


@dataclass(frozen=True)
class Parts:
    """How the rows of a block of channels are shared out: by its shape, whatever the number of threads.

    Attributes:
        rows: Lengths of the spatial axes but the last.
        count: Parts.
        length: Rows of each part but the last, which may have fewer.
    """

    rows: tuple[int, ...]
    count: int
    length: int

    @classmethod
    def of(cls, tensor: Tensor) -> Parts:
        """One part, or several where a few blocks are large."""
        *rows, last = tensor.shape[2:]
        total, blocks = product(rows), tensor.shape[0] * tensor.blocks
        size = total * last * tensor.layout.block * 4
        count = max(min(ceil_div(_TASKS, blocks), size // _PART_BYTES, total), 1)
        length = ceil_div(total, count)
        return cls(tuple(rows), ceil_div(total, length), length)

    def rows_of(self, part: Index) -> tuple[Index, Index]:
        """The first row of a part, and how many it has."""
        total = product(self.rows)
        first = part * self.length
        if total % self.length == 0:
            return first, self.length
        return first, tirx.min(self.length, total - first)

    def place(self, row: Index) -> list[Index]:
        """A row's index along each spatial axis but the last."""
        place: list[Index] = []
        for length in reversed(self.rows[1:]):
            place.insert(0, row % length)
            row = row // length
        return [row, *place] if self.rows else []
