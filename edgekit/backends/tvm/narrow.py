"""Convolutions whose result has few channels: those that end a network, and those that stay narrow.

One, two or three output channels fill no vector. So where the input's channels are in blocks, vectors run
along them: each place sums vectors of products, and the lanes are added up at the end, always in the same
order, for as many places at once as the tile has. Where the input has few channels as well, its rows lie one
after the other in memory, and vectors run along the last axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from edgekit.backends.tvm import reduction, tiles
from edgekit.backends.tvm.convolution import packed
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import (
    Expr,
    Function,
    Index,
    Kernel,
    broadcast,
    ceil_div,
    constant,
    product,
)
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.backends.tvm.tiles import Convolution, Line

# Channels of a result that is computed here.
_MOST_OUTPUTS = 3
# Places of a tile along the last axis, and registers of one where vectors run along it.
_MOST_PLACES, _MOST_VECTORS = 8, 4


def takes(problem: Convolution, x: Tensor, result: Tensor) -> bool:
    """Whether the kernel computes a convolution: to few channels, one after the other in memory.

    Args:
        problem: What is computed.
        x: The input.
        result: The output.
    """
    few = result.shape[1] <= _MOST_OUTPUTS and result.layout.block == 1
    return few and (problem.groups == 1 or x.layout.block == 1)


def weights(problem: Convolution, values: NDArray[Any], x: Tensor, result: Tensor) -> NDArray[Any]:
    """Weights in the order in which the kernel reads them: (input blocks, all phases' taps, outputs, block).

    Args:
        problem: What is computed.
        values: (outputs, inputs of a group, taps…), or (inputs, outputs of a group, taps…) where transposed.
        x: The input.
        result: The output.
    """
    narrow = Tensor(result.shape, result.dtype)
    flat = packed(problem, values, x, narrow, result.shape[1])
    return np.ascontiguousarray(flat[0].transpose(0, 1, 3, 2))


def narrow(name: str, problem: Convolution, x: Tensor, output: Output, processor: Processor) -> Function:
    """The kernel: arguments are the input, the packed weights, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed; :func:`takes` it.
        x: The input, with at least the halo that the problem needs.
        output: Its tensor's channels lie one after the other.
        processor: What it runs on.
    """
    result = output.tensor
    axes = problem.lines(result.shape[2:])
    taps = sum(product([len(line.taps) for line in phase]) for phase in itertools.product(*axes))
    inputs = ceil_div(x.shape[1] // problem.groups, x.layout.block)
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        factors = kernel.argument("weights", (inputs, taps, result.shape[1], x.layout.block), x.dtype)
        writer = output.arguments(kernel)
        outer = tiles.outer_lengths(axes, 1)
        with kernel.parallel(x.shape[0], *(outer or [1])) as (batch, *row):
            nest = _Nest(kernel, problem, x, image, factors, writer, batch, processor.lanes)
            body = nest.along_rows if x.layout.block == 1 else nest.across_channels
            most = _most_places(result, x, processor)
            tiles.walk(kernel, axes, row[: len(outer)], 1, lambda count: _places(count, most), body)
        writer.clear_halo()
    return kernel.function


def _most_places(result: Tensor, x: Tensor, processor: Processor) -> int:
    """Places of a tile for which there are registers, where the row is long enough."""
    if x.layout.block == 1:
        return _MOST_VECTORS * processor.lanes
    registers = ceil_div(x.layout.block, processor.lanes) * result.shape[1]
    return min(max(processor.registers // registers - 1, 1), _MOST_PLACES)


def _places(count: int, most: int) -> int:
    """A power of two, for sums are added up in pairs."""
    return 1 << (min(count, most).bit_length() - 1)


@dataclass(frozen=True)
class _Nest:
    """What a tile needs to know."""

    kernel: Kernel
    problem: Convolution
    x: Tensor
    image: Any
    factors: Any
    writer: Writer
    batch: Index
    lanes: int

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return self.writer.output.tensor.shape[1]

    def across_channels(
        self, start: list[Index], phase: Sequence[Line], first_tap: int, columns: int
    ) -> None:
        """One tile of all outputs, from vectors of input channels."""
        kernel, x = self.kernel, self.x
        block = x.layout.block
        sums = [kernel.registers(columns, block) for _ in range(self.outputs)]
        for register in itertools.chain(*sums):
            register.set(constant(0, block))

        def products(number: Index, channels: int) -> None:
            with kernel.loops([len(line.taps) for line in phase]) as taps:
                tap = first_tap + tiles.flat_tap(phase, taps)
                place = tiles.input_place(start, phase, taps)
                factors = [
                    kernel.let(kernel.load(self.factors, (number, tap, o, 0), block))
                    for o in range(self.outputs)
                ]
                for column in range(columns):
                    at = [*place[:-1], place[-1] + column * phase[-1].step]
                    vector = kernel.load(self.image, x.address([self.batch, number * block, *at]), block)
                    vector = kernel.let(_first_lanes(vector, channels, block))
                    for output, factor in enumerate(factors):
                        register = sums[output][column]
                        register.set(register.value + vector * factor)

        whole, rest = divmod(x.shape[1], block)
        if whole:
            with kernel.loop(whole) as number:
                products(number, block)
        if rest:
            products(whole, rest)
        for output, registers in enumerate(sums):
            total = kernel.let(reduction.neighbours([register.value for register in registers], block, block))
            self._put(output, start, phase, total, columns)

    def along_rows(self, start: list[Index], phase: Sequence[Line], first_tap: int, columns: int) -> None:
        """One tile of all outputs, from vectors of the last axis."""
        kernel, x = self.kernel, self.x
        width = min(columns, self.lanes)
        parts = columns // width
        inputs = x.shape[1] // self.problem.groups
        sums = [kernel.registers(parts, width) for _ in range(self.outputs)]
        for register in itertools.chain(*sums):
            register.set(constant(0, width))
        with kernel.loops([inputs, *(len(line.taps) for line in phase)]) as (number, *taps):
            tap = first_tap + tiles.flat_tap(phase, taps)
            place = tiles.input_place(start, phase, taps)
            for group in range(self.problem.groups):
                vectors = [
                    kernel.let(self._row(group * inputs + number, place, part * width, phase[-1].step, width))
                    for part in range(parts)
                ]
                each = self.outputs // self.problem.groups
                for output in range(group * each, (group + 1) * each):
                    factor = kernel.load(self.factors, (number, tap, output, 0))
                    for register, vector in zip(sums[output], vectors, strict=True):
                        register.set(register.value + vector * broadcast(factor, width))
        for output, registers in enumerate(sums):
            for part, register in enumerate(registers):
                first = [*start[:-1], start[-1] + part * width]
                self._put(output, first, phase, register.value, width)

    def _row(self, channel: Index, place: list[Index], shift: int, step: int, width: int) -> Expr:
        """Inputs of neighbouring places of the result."""
        address = self.x.address([self.batch, channel, *place[:-1], place[-1] + shift * step])
        if width == 1 or step == 1:
            return self.kernel.load(self.image, address, width)
        numbers = [
            self.kernel.load(self.image, [*address[:-1], address[-1] + i * step]) for i in range(width)
        ]
        return tirx.Shuffle(numbers, list(range(width)))

    def _put(self, output: int, start: list[Index], phase: Sequence[Line], value: Expr, width: int) -> None:
        """Neighbouring places of a phase, which are none of the result where it has several phases."""
        place = tiles.result_place(start, phase, [0] * len(phase))
        axis = len(place) + 1
        if width == 1 or phase[-1].step_out == 1:
            self.writer.put([self.batch, output, *place], axis, value, width)
            return
        # A loop, and not a line for each lane: chains are long.
        register = self.kernel.registers(1, width)[0]
        register.set(value)
        with self.kernel.loop(width) as lane:
            at = [*place[:-1], place[-1] + lane * phase[-1].step_out]
            self.writer.put([self.batch, output, *at], axis, register.element(lane), 1)


def _first_lanes(vector: Expr, channels: int, block: int) -> Expr:
    """The vector, with zeros for what lies beyond its last channel: that may be NaN."""
    if channels == block:
        return vector
    inside = tirx.Ramp(0, 1, block) < tirx.Broadcast(channels, block)
    return tirx.Select(inside, vector, constant(0, block))
