"""Depthwise convolutions: each channel by itself, on blocks of channels.

One vector holds the same voxel of a block of channels, so each place of a tile is one multiplication per tap,
with the vector of the input that lies there. With a multiplier m, output channel c reads input channel c / m:
the lanes of the input's vector are repeated.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from edgekit.backends.tvm import tiles
from edgekit.backends.tvm.convolution import packed
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Expr, Function, Index, Kernel, ceil_div, constant, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.backends.tvm.tiles import Convolution, Line

# Blocks of the result that one block of the input may give, each with code of its own.
_MOST_PARTS = 4
# Taps along the last axis whose weights stay in registers.
_MOST_SHARED = 5


def takes(problem: Convolution, x: Tensor, result: Tensor) -> bool:
    """Whether the kernel computes a convolution: depthwise, of channels in blocks.

    Args:
        problem: What is computed.
        x: The input.
        result: The output.
    """
    inputs, outputs = x.shape[1], result.shape[1]
    if problem.groups != inputs or outputs % inputs or 1 in (x.layout.block, result.layout.block):
        return False
    parts, rest = divmod(outputs // inputs * x.layout.block, result.layout.block)
    return rest == 0 and 0 < parts <= _MOST_PARTS


def weights(problem: Convolution, values: NDArray[Any], x: Tensor, result: Tensor) -> NDArray[Any]:
    """Weights in the order in which the kernel reads them: (output blocks, all phases' taps, block).

    Args:
        problem: What is computed.
        values: (outputs, 1, taps…), or (inputs, multiplier, taps…) where transposed.
        x: The input.
        result: The output.
    """
    flat = packed(problem, values, Tensor(x.shape), result, 1)
    return np.ascontiguousarray(flat[:, 0, :, 0, :])


def depthwise(name: str, problem: Convolution, x: Tensor, output: Output, processor: Processor) -> Function:
    """The kernel: arguments are the input, the packed weights, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed; :func:`takes` it.
        x: The input, with at least the halo that the problem needs.
        output: Its tensor's channels are in blocks.
        processor: What it runs on.
    """
    result = output.tensor
    axes = problem.lines(result.shape[2:])
    taps = sum(product([len(line.taps) for line in phase]) for phase in itertools.product(*axes))
    parts = result.shape[1] // x.shape[1] * x.layout.block // result.layout.block
    rows, columns = _tile(problem, result, processor)
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        factors = kernel.argument("weights", (result.blocks, taps, result.layout.block))
        writer = output.arguments(kernel)
        outer = tiles.outer_lengths(axes, rows)
        with kernel.parallel(x.shape[0], ceil_div(result.blocks, parts), *outer) as (batch, group, *row):
            for part in range(parts):
                number = group * parts + part
                inside = True if result.blocks % parts == 0 else number < result.blocks
                nest = _Nest(kernel, x, image, factors, writer, batch, group, number, part, rows)
                with kernel.when(inside):
                    tiles.walk(kernel, axes, row, rows, lambda count: min(columns, count), nest.tile)
        writer.clear_halo()
    return kernel.function


def _tile(problem: Convolution, result: Tensor, processor: Processor) -> tuple[int, int]:
    """Rows and columns of a tile: as square as fits, for rows of the input are read once for several."""
    registers = ceil_div(result.layout.block, processor.lanes)
    lines = problem.lines(result.shape[2:])
    # Beside the sums there are the weights and a vector of the input.
    weights = max(len(line.taps) if _shares(line) else 1 for line in lines[-1])
    places = min(max(processor.registers // registers - weights - 2, 1), 12)
    width = min(line.count for line in lines[-1])
    height = min(line.count for line in lines[-2]) if len(lines) > 1 else 1
    rows = min(height, 2) if places >= 8 else 1
    return rows, min(width, places // rows)


@dataclass(frozen=True)
class _Nest:
    """What a tile needs to know."""

    kernel: Kernel
    x: Tensor
    image: Any
    factors: Any
    writer: Writer
    batch: Index
    group: Index
    number: Index
    part: int
    rows: int

    def tile(self, start: list[Index], phase: Any, first_tap: int, columns: int) -> None:
        """One tile of outputs, from the first product to the result."""
        kernel, result = self.kernel, self.writer.output.tensor
        block = result.layout.block
        rows = self.rows if len(phase) > 1 else 1
        shifts = tiles.shifts(phase, rows, columns)
        sums = kernel.registers(len(shifts), block)
        for register in sums:
            register.set(constant(0, block))
        *outer, last = phase
        lengths = [len(line.taps) for line in outer]
        # Neighbours along the last axis read the same vectors, each for another tap.
        unrolled = len(last.taps) if _shares(last) else 1
        with kernel.loops([*lengths, len(last.taps) // unrolled]) as taps:
            tap = first_tap + tiles.flat_tap(phase, taps)
            factors = [
                kernel.let(kernel.load(self.factors, (self.number, tap + i, 0), block))
                for i in range(unrolled)
            ]
            place = tiles.input_place(start, phase, taps)
            for down in range(rows):
                near = (*(0 for _ in phase[2:]), down, 0)[-len(phase) :]
                corner = [i + by * line.step for i, by, line in zip(place, near, phase, strict=True)]
                for column in range(columns + unrolled - 1):
                    vector = kernel.let(self._input([*corner[:-1], corner[-1] + column * last.step]))
                    for i, factor in enumerate(factors):
                        if 0 <= column - i < columns:
                            register = sums[down * columns + column - i]
                            register.set(register.value + vector * factor)
        for register, shift in zip(sums, shifts, strict=True):
            index = [self.batch, self.number * block, *tiles.result_place(start, phase, shift)]
            self.writer.put(index, 1, register.value, block)

    def _input(self, at: list[Index]) -> Expr:
        """The input's channels of a block of the result."""
        kernel, x, result = self.kernel, self.x, self.writer.output.tensor
        wide, block = x.layout.block, result.layout.block
        vector = x.read(kernel, self.image, x.address([self.batch, self.group * wide, *at]), wide)
        multiplier = result.shape[1] // x.shape[1]
        if multiplier == 1 and wide == block:
            return vector
        lanes = [(self.part * block + lane) // multiplier for lane in range(block)]
        # TVM wants no more indices than there are lanes.
        return tirx.Shuffle([vector] * ceil_div(block, wide), lanes)


def _shares(line: Line) -> bool:
    """Whether the taps of a place are those of its neighbours, and few."""
    return line.step == line.tap == 1 and 1 < len(line.taps) <= _MOST_SHARED
