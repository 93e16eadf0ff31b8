"""Convolutions and transposed convolutions of any number of axes, on blocks of channels.

The kernel keeps a tile of outputs in registers, ``rows`` × ``columns`` places times ``vectors`` blocks of
channels, while it runs through all input channels and taps: each number of the input is broadcast and
multiplied with ``vectors`` vectors of weights. Where the processor multiplies by an element of a vector, one
load brings several input channels of a place, whose weights stay in registers for all places. Weights lie in
the order in which they are read. The input's halo holds the zeros of the padding, and the last tile of a row
overlaps the one before, so there is no code for borders.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from edgekit.backends.tvm import tiles
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Expr, Function, Index, Kernel, Register, ceil_div, constant, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.backends.tvm.tiles import Convolution, Line, Tiling
from edgekit.backends.tvm.tuned import Tuned

# What an estimate is worse by where a thread goes through channels and places in the other order.
_OTHER_ORDER = 1.05


def tiling(problem: Convolution, x: Tensor, result: Tensor, processor: Processor) -> Tiling:
    """What was measured, or the rule: the tile that multiplies most for what it reads and repeats least."""

    def order(pair: tuple[float, Tiling]) -> tuple[float, int]:
        # Of equals, the one with more sums that do not wait for each other.
        return pair[0], -pair[1].vectors * pair[1].rows * pair[1].columns

    candidates = tilings(problem, x, result, processor)
    rule = min(candidates, key=order)[1]
    return (processor.tuned or Tuned()).choice("convolution", problem, (x, result), candidates, rule)


def tilings(
    problem: Convolution, x: Tensor, result: Tensor, processor: Processor
) -> list[tuple[float, Tiling]]:
    """All tiles that fit into registers, each with an estimate of its time, in no unit."""
    registers = max(result.layout.block // processor.lanes, 1)
    blocks = result.blocks // problem.groups if result.blocks % problem.groups == 0 else 1
    *_, before, last = [[], *problem.lines(result.shape[2:])]
    # Rows of a tile are the same for all phases, columns are cut for shorter ones.
    width, height = max(line.count for line in last), min((line.count for line in before), default=1)
    weights = 4 * product(problem.kernel) * x.shape[1] * result.shape[1] // problem.groups
    # Weights of one group of outputs stay in the second-level cache, or the rows that all groups read.
    small = 4 * product(x.memory) < processor.l2_bytes // 2
    channels_first = small or weights > processor.l2_bytes // 4
    depths = dict.fromkeys((processor.elements if x.layout.block > 1 else 1, 1))
    # One register is for the input, and LLVM wants one to spare; on Arm it begins the next loads early.
    usable = processor.registers - (2 if processor.elements == 1 else 4)
    found = []
    for vectors, depth in itertools.product((v for v in (4, 3, 2, 1) if blocks % v == 0), depths):
        room = usable // registers // vectors - depth
        for rows in range(1, min(height, room) + 1):
            for columns in range(1, min(width, room // rows) + 1):
                places = rows * columns
                # Multiplications wait for each other if there are few; loads come two at a time, nearly.
                loads = places / depth + vectors * registers
                steps = max(places * vectors * registers, loads * 1.1, 10)
                number = ceil_div(width, columns) * ceil_div(height, rows) / vectors
                cost = number * (steps + 1 / depth)
                for first in (channels_first, not channels_first):
                    found.append((cost, Tiling(vectors, rows, columns, first, depth)))
                    cost *= _OTHER_ORDER
    return found


def packed(
    problem: Convolution, weights: NDArray[Any], x: Tensor, result: Tensor, vectors: int
) -> NDArray[Any]:
    """Weights in the order in which the kernel reads them.

    Args:
        problem: What is computed.
        weights: (outputs, inputs of a group, taps…), or (inputs, outputs of a group, taps…) where transposed.
        x: The input.
        result: The output.
        vectors: Blocks of the output that are computed together.

    Returns:
        (output blocks / vectors, inputs of a group, all phases' taps, vectors * block); inputs in blocks:
        (output blocks / vectors, input blocks, taps, block of inputs, vectors * block).
    """
    weights = outputs_first(problem, weights)
    phases = list(itertools.product(*problem.lines(result.shape[2:])))
    parts = []
    for phase in phases:
        part = weights
        for axis, line in enumerate(phase):
            part = part.take(line.taps, axis=axis + 2)
        parts.append(part)
    flat = np.concatenate([part.reshape(*weights.shape[:2], -1) for part in parts], axis=2)
    wide, deep = vectors * result.layout.block, x.layout.block
    flat = np.pad(flat, ((0, -flat.shape[0] % wide), (0, -flat.shape[1] % deep), (0, 0)))
    outputs, inputs, taps = flat.shape
    flat = flat.reshape(outputs // wide, wide, inputs // deep, deep, taps)
    return np.ascontiguousarray(flat.transpose(0, 2, 4, 3, 1))


def outputs_first(problem: Convolution, weights: NDArray[Any]) -> NDArray[Any]:
    """Weights of (outputs, inputs of a group, taps…), whether transposed or not.

    Args:
        problem: What is computed.
        weights: (outputs, inputs of a group, taps…), or (inputs, outputs of a group, taps…) where transposed.
    """
    if not problem.transposed:
        return weights
    groups, (inputs, outputs, *taps) = problem.groups, weights.shape
    weights = weights.reshape(groups, inputs // groups, outputs, *taps).swapaxes(1, 2)
    return weights.reshape(groups * outputs, inputs // groups, *taps)


def convolution(name: str, problem: Convolution, x: Tensor, output: Output, plan: Tiling) -> Function:
    """The kernel: arguments are the input, the packed weights, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed.
        x: The input, with at least the halo that the problem needs.
        output: Its tensor's channels are in blocks.
        plan: The tile.
    """
    result = output.tensor
    axes = problem.lines(result.shape[2:])
    shape = _weights_shape(problem, x, result, plan.vectors)
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        weights = kernel.argument("weights", shape, x.dtype)
        writer = output.arguments(kernel)
        nest = _Nest(kernel, problem, x, plan, image, weights, writer)
        tiles.every(kernel, x.shape[0], shape[0], axes, plan, nest.tile)
        writer.clear_halo()
    return kernel.function


def _weights_shape(problem: Convolution, x: Tensor, result: Tensor, vectors: int) -> tuple[int, ...]:
    phases = itertools.product(*problem.lines(result.shape[2:]))
    taps = sum(product([len(line.taps) for line in phase]) for phase in phases)
    inputs = ceil_div(x.shape[1] // problem.groups, x.layout.block)
    return result.blocks // vectors, inputs, taps, x.layout.block, vectors * result.layout.block


@dataclass(frozen=True)
class _Nest:
    """What the loops have in common."""

    kernel: Kernel
    problem: Convolution
    x: Tensor
    plan: Tiling
    image: Any
    weights: Any
    writer: Writer

    def tile(
        self,
        batch: Index,
        group: Index,
        start: list[Index],
        phase: Sequence[Line],
        first_tap: int,
        columns: int,
    ) -> None:
        """One tile of outputs, from the first product to the result."""
        block, vectors = self.writer.output.tensor.layout.block, self.plan.vectors
        shifts = tiles.shifts(phase, self.plan.rows, columns)
        sums = self.kernel.registers(len(shifts) * vectors, block)
        for register in sums:
            register.set(constant(0, block))
        self._sum(batch, group, start, phase, first_tap, shifts, sums)
        for number, shift in enumerate(shifts):
            place = tiles.result_place(start, phase, shift)
            for vector in range(vectors):
                index = [batch, (group * vectors + vector) * block, *place]
                self.writer.put(index, 1, sums[number * vectors + vector].value, block)

    def _sum(
        self,
        batch: Index,
        group: Index,
        start: Sequence[Index],
        phase: Sequence[Line],
        first_tap: int,
        shifts: Sequence[tuple[int, ...]],
        sums: Sequence[Register],
    ) -> None:
        """Add the products of all inputs and taps to a tile."""
        kernel, deep = self.kernel, self.x.layout.block
        inputs = self.x.shape[1] // self.problem.groups
        groups = self.writer.output.tensor.blocks // self.plan.vectors // self.problem.groups
        first_block = group // groups * (inputs // deep) if self.problem.groups > 1 else 0

        def block(number: Index, channels: int) -> None:
            with kernel.loops([len(line.taps) for line in phase]) as taps:
                tap = first_tap + tiles.flat_tap(phase, taps)
                at = tiles.input_place(start, phase, taps)
                done = 0
                for depth in dict.fromkeys((self.plan.depth, 1)):
                    if channels - done < depth:
                        continue
                    with kernel.loop((channels - done) // depth) as part:
                        channel = done + part * depth
                        place = (group, number, tap, channel)
                        index = [batch, (first_block + number) * deep + channel, *at]
                        self._products(index, place, phase, shifts, sums, depth)
                    done = channels // depth * depth

        whole, rest = divmod(inputs, deep)
        if whole:
            with kernel.loop(whole) as number:
                block(number, deep)
        if rest:
            block(whole, rest)

    def _products(
        self,
        index: Sequence[Index],
        place: tuple[Index, ...],
        phase: Sequence[Line],
        shifts: Sequence[tuple[int, ...]],
        sums: Sequence[Register],
        depth: int,
    ) -> None:
        """``depth`` input channels from an index on, at one tap, for all places and vectors of the tile."""
        kernel, vectors = self.kernel, self.plan.vectors
        block = self.writer.output.tensor.layout.block
        (batch, channel, *at), (*outer, first) = index, place
        weights: list[Expr] = [
            kernel.let(kernel.load(self.weights, (*outer, first + lane, vector * block), block))
            for lane in range(depth)
            for vector in range(vectors)
        ]
        for number, shift in enumerate(shifts):
            spatial = [i + by * line.step for i, by, line in zip(at, shift, phase, strict=True)]
            value = kernel.load(self.image, self.x.address([batch, channel, *spatial]), depth)
            if depth > 1:
                value = kernel.let(value)
            for lane, vector in itertools.product(range(depth), range(vectors)):
                element = tirx.Shuffle([value], [lane]) if depth > 1 else value
                register = sums[number * vectors + vector]
                factor = weights[lane * vectors + vector]
                register.set(register.value + tirx.Broadcast(element, block) * factor)
