"""Softmax along one axis of a value: attention's rows, and the classes of a segmentation.

Three passes: the largest number, the exponentials of what is below it and their sum, the quotients. Along the
last axis vectors run along it, and their lanes are joined in a fixed order; along another one they run along
the last axis, each lane a softmax of its own. The exponentials wait in memory that stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import relax, tirx

from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.functions import exp
from edgekit.backends.tvm.loops import Expr, Function, Index, Kernel, broadcast, constant
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor

# Registers that a vector fills, where there are numbers enough.
_VECTORS = 4


@dataclass(frozen=True)
class Softmax:
    """What is computed.

    Attributes:
        axis: Along which the result sums to 1, counted from the first.
    """

    axis: int


def softmax_problem(call: relax.Call) -> Softmax | None:
    """What a call of ``relax.nn.softmax`` computes; None for other types and open lengths.

    Args:
        call: The call.
    """
    kind = call.args[0].ty
    if not isinstance(kind.shape, relax.ShapeExpr) or str(kind.dtype) != "float32" or kind.ndim < 1:
        return None
    if not all(isinstance(length, tirx.IntImm) and int(length) > 0 for length in kind.shape.values):
        return None
    return Softmax(int(call.attrs.axis) % kind.ndim)


def softmax(name: str, problem: Softmax, x: Tensor, output: Output, processor: Processor) -> Function:
    """The kernel: arguments are the input, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed.
        x: The input, of the result's shape.
        output: The result.
        processor: What it runs on.
    """
    shape, last = x.shape, len(x.shape) - 1
    outer = [length for axis, length in enumerate(shape) if axis not in (problem.axis, last)]
    with Kernel(name) as kernel:
        nest = _Nest(kernel, problem, x, kernel.argument("x", x.memory, x.dtype), output.arguments(kernel))
        most = _VECTORS * processor.lanes
        with kernel.parallel(1, *(outer or [1])) as (_, *around):
            place = around[: len(outer)]
            if problem.axis == last:
                nest.along(place, most)
            else:
                place.insert(problem.axis, 0)
                _pieces(kernel, shape[last], most, lambda start, width: nest.across([*place, start], width))
        nest.writer.clear_halo()
    return kernel.function


@dataclass(frozen=True)
class _Nest:
    """What both ways have in common."""

    kernel: Kernel
    problem: Softmax
    x: Tensor
    image: Any
    writer: Writer

    def along(self, place: list[Index], most: int) -> None:
        """One row, whose numbers are the last axis."""
        kernel, length = self.kernel, self.x.shape[-1]
        axis = len(place)
        largest, total = kernel.registers(2, 1)
        largest.set(constant(float("-inf")))
        total.set(constant(0))
        powers = kernel.scratch((length,))

        def most_of(start: Index, width: int) -> None:
            vector = self.x.load(kernel, self.image, [*place, start], axis, width)
            largest.set(_larger(largest.value, _joined(kernel, vector, width, _larger)))

        def add(start: Index, width: int) -> None:
            vector = self.x.load(kernel, self.image, [*place, start], axis, width)
            power = kernel.let(exp(vector - broadcast(largest.value, width)))
            kernel.store(powers, (start,), power, width)
            total.set(total.value + _joined(kernel, power, width, lambda a, b: a + b))

        def put(start: Index, width: int) -> None:
            share = kernel.load(powers, (start,), width) * broadcast(total.value, width)
            self.writer.put([*place, start], axis, share, width)

        _pieces(kernel, length, most, most_of)
        _pieces(kernel, length, most, add)
        total.set(constant(1) / total.value)
        _pieces(kernel, length, most, put)

    def across(self, place: list[Index], width: int) -> None:
        """Neighbours along the last axis, each with the numbers behind it along the problem's."""
        kernel, axis, last = self.kernel, self.problem.axis, len(place) - 1
        length = self.x.shape[axis]
        largest, total = kernel.registers(2, width)
        largest.set(constant(float("-inf"), width))
        total.set(constant(0, width))
        powers = kernel.scratch((length, width))

        def at(number: Index) -> list[Index]:
            return [*place[:axis], number, *place[axis + 1 :]]

        with kernel.loop(length) as number:
            vector = kernel.let(self.x.load(kernel, self.image, at(number), last, width))
            largest.set(_larger(largest.value, vector))
        with kernel.loop(length) as number:
            vector = self.x.load(kernel, self.image, at(number), last, width)
            power = kernel.let(exp(vector - largest.value))
            kernel.store(powers, (number, 0), power, width)
            total.set(total.value + power)
        total.set(constant(1, width) / total.value)
        with kernel.loop(length) as number:
            self.writer.put(at(number), last, kernel.load(powers, (number, 0), width) * total.value, width)


def _pieces(kernel: Kernel, length: int, most: int, body: Callable[[Index, int], None]) -> None:
    """A length in vectors: long ones, then what is left in halves, and so on."""
    width = min(most, 1 << (length.bit_length() - 1))
    with kernel.loop(length // width) as part:
        body(part * width, width)
    start = length // width * width
    while start < length:
        width = 1 << ((length - start).bit_length() - 1)
        body(start, width)
        start += width


def _larger(x: Expr, y: Expr) -> Expr:
    """The larger of two, or the second where one is NaN: the exponentials tell of NaN."""
    return tirx.Select(x > y, x, y)


def _joined(kernel: Kernel, vector: Expr, width: int, join: Callable[[Expr, Expr], Expr]) -> Expr:
    """All lanes of a vector, half of them with the other half, and so on."""
    vector = kernel.let(vector)
    while width > 1:
        width //= 2
        halves = [
            tirx.Shuffle([vector], list(range(first, first + width) if width > 1 else [first]))
            for first in (0, width)
        ]
        vector = kernel.let(join(*halves))
    return vector
