"""Convolutions of bytes whose result has few channels: vectors of what lies side by side in the input.

One, two or three outputs fill no vector. So a vector holds the channels of some neighbouring places, as they
lie in memory, and each output is a sum of its products with that output's weights, repeated for each place.
Lanes are added up at the end, as many as a place has. A transposed convolution's phases along the last axis
are computed beside each other, for their results are neighbours in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.tirx.script import builder as script

from edgekit.backends.tvm import dot, reduction, tiles
from edgekit.backends.tvm.convolution import outputs_first
from edgekit.backends.tvm.dot import QUAD, Products, Way
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.integer_convolution import IntegerConvolution
from edgekit.backends.tvm.loops import (
    Buffer,
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
from edgekit.backends.tvm.runs import Runs
from edgekit.backends.tvm.tensor import Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution, Line

# Channels of a result that is computed here.
_MOST_OUTPUTS = 3
# Quads that are summed in 16 bits: of more there would be no registers for the weights.
_DEPTHS = (2, 1)
# Vectors of the input that are multiplied together.
_MOST_VECTORS = 8
# Sums in the shortest vector that all ways have instructions for.
_LEAST_WIDTH = 4


def takes(convolution: Convolution, x: Tensor, result: Tensor, processor: Processor) -> bool:
    """Whether the kernel computes a convolution: from blocks to few channels, of neighbouring places.

    Args:
        convolution: What is computed.
        x: The input.
        result: The output.
        processor: What it runs on.
    """
    few = result.shape[1] <= _MOST_OUTPUTS and result.layout.block == 1
    if not few or x.layout.block == 1 or convolution.groups > 1 or "numbers" in dot.kinds(processor):
        return False
    last = convolution.lines(result.shape[2:])[-1]
    alike = all(line.count == last[0].count and line.step == last[0].step for line in last)
    return alike and _vector(last[0], x, processor) is not None


def in_blocks(x: Tensor) -> Tensor:
    """An input as the kernel reads it: two or three channels lie beside each other, too.

    Args:
        x: In blocks as the processor likes them.
    """
    return replace(x, layout=Layout(QUAD)) if x.layout.block == 1 < x.shape[1] else x


def _vector(line: Line, x: Tensor, processor: Processor) -> tuple[int, int] | None:
    """Sums in a vector and places that it holds; ``None`` where none is short enough."""
    width = processor.lanes
    while width >= _LEAST_WIDTH:
        places = QUAD * width // x.layout.block
        if 1 <= places <= line.count and (places == 1 or line.step == 1):
            return width, places
        width //= 2
    return None


def way_of(
    weights: NDArray[np.int8],
    convolution: Convolution,
    x: Tensor,
    result: Tensor,
    processor: Processor,
    most: int = 255,
) -> Way:
    """The fastest exact way to multiply with these weights, of which none is taken out.

    Args:
        weights: As :func:`edgekit.backends.tvm.convolution.packed` takes them.
        convolution: The geometry.
        x: The input.
        result: The output.
        processor: What it runs on.
        most: The largest byte of the input.
    """
    kinds = dot.kinds(processor)
    for depth in _DEPTHS if "bytes" in kinds else ():
        way = Way("bytes", depth, most=most)
        phases = _weights(convolution, weights, x, result)
        quads = [found.reshape(*found.shape[:2], product(found.shape[2:])) for found in phases]
        if not any(dot.taken_out(found, way)[1].any() for found in quads):
            return way
    return Way(kinds[-1])


def _listed(convolution: Convolution, x: Tensor, result: Tensor) -> list[Runs]:
    """Each phase's runs: all channels of a block."""
    phases = itertools.product(*convolution.lines(result.shape[2:]))
    return [Runs.of(convolution, phase, x, x.layout.block) for phase in phases]


def _weights(
    convolution: Convolution, weights: NDArray[np.int8], x: Tensor, result: Tensor
) -> list[NDArray[np.int16]]:
    """Of each phase's runs: (runs, neighbours of a quad, quads of a block, outputs)."""
    flat = outputs_first(convolution, weights)
    flat = flat.reshape(*flat.shape[:2], -1)
    found = [listed.weights(flat) for listed in _listed(convolution, x, result)]
    shape = (x.layout.block // QUAD, QUAD, len(flat))
    return [part.reshape(len(part), *shape).swapaxes(1, 2) for part in found]


def arranged(
    problem: IntegerConvolution, weights: NDArray[np.int8], x: Tensor, result: Tensor, processor: Processor
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int32]]:
    """Weights in the order in which the kernel reads them, the runs' distances, and what sums begin with.

    Args:
        problem: What is computed.
        weights: As :func:`edgekit.backends.tvm.convolution.packed` takes them.
        x: The input.
        result: The output.
        processor: What it runs on.

    Returns:
        (all phases' parts of runs, runs of a part, outputs, lanes of a vector), (parts, runs of a part), and
        minus the zero point's part, (phases, outputs).
    """
    convolution, way = problem.convolution, problem.way
    _, places = _places(convolution, x, result, processor)
    vectors, distances, begin = [], [], []
    for found, listed in zip(
        _weights(convolution, weights, x, result), _listed(convolution, x, result), strict=True
    ):
        begin.append(-problem.zero_point * found.sum((0, 1, 2), dtype=np.int64))
        block = found.swapaxes(1, 2).reshape(len(found), x.layout.block, result.shape[1]).swapaxes(1, 2)
        more = -len(found) % way.depth
        repeated = np.tile(np.pad(block, ((0, more), (0, 0), (0, 0))), places)
        vectors.append(repeated.reshape(-1, way.depth, *repeated.shape[1:]))
        distances.append(np.pad(listed.distances, (0, more), "edge").reshape(-1, way.depth))
    joined = dot.beside(np.concatenate(vectors), way)
    return joined, np.concatenate(distances), np.stack(begin).astype(np.int32)


def narrow_integer(
    name: str, problem: IntegerConvolution, x: Tensor, output: Output, processor: Processor
) -> Function:
    """The kernel: arguments are the input, constants, the output's extras and the output.

    The constants are those of :func:`arranged` in order, then the scales of the outputs in float32.

    Args:
        name: Of the function.
        problem: What is computed; :func:`takes` it.
        x: The input, with at least the halo that the problem needs, filled with the zero point.
        output: Its tensor's channels lie one after the other.
        processor: What it runs on.
    """
    result, convolution, way = output.tensor, problem.convolution, problem.way
    axes, outputs = convolution.lines(result.shape[2:]), result.shape[1]
    phases = list(itertools.product(*axes))
    counts = [ceil_div(len(listed.distances), way.depth) for listed in _listed(convolution, x, result)]
    width, places = _places(convolution, x, result, processor)
    lanes = QUAD * width
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        weights = kernel.argument("weights", (sum(counts), way.depth, outputs, lanes), way.weight_type)
        distances = kernel.argument("distances", (sum(counts), way.depth), "int32")
        begin = kernel.argument("begin", (len(phases), outputs), "int32")
        scales = kernel.argument("scales", (outputs,))
        writer = output.arguments(kernel)
        # Runs lie at distances in the whole memory.
        flat = script.decl_buffer((product(x.memory),), x.dtype, data=image.data)
        constants = (weights, distances, begin, scales)
        products = Products(kernel, processor, way, width)
        nest = _Nest(kernel, x, products, places, flat, constants, writer, phases, counts)
        beside = [*axes[:-1], axes[-1][:1]]
        most = _most_vectors(way, outputs, processor)
        with kernel.parallel(x.shape[0], *(tiles.outer_lengths(axes, 1) or [1])) as (batch, *row):

            def tile(start: list[Index], phase: Sequence[Line], first_tap: int, columns: int) -> None:
                nest.tile(batch, start, [(*phase[:-1], line) for line in axes[-1]], columns)

            def columns(count: int) -> int:
                return places * (1 << (min(count // places, most).bit_length() - 1))

            tiles.walk(kernel, beside, row[: len(axes) - 1], 1, columns, tile)
        writer.clear_halo()
    return kernel.function


def _places(convolution: Convolution, x: Tensor, result: Tensor, processor: Processor) -> tuple[int, int]:
    """Sums in a vector, and places that it holds, of what the kernel takes."""
    found = _vector(convolution.lines(result.shape[2:])[-1][0], x, processor)
    assert found is not None  # takes() has asked
    return found


def _most_vectors(way: Way, outputs: int, processor: Processor) -> int:
    """Vectors of a tile for whose sums there are registers, beside those of weights."""
    room = processor.registers - way.spare - (outputs * way.weights + 1) * way.depth
    return min(max(room // outputs, 1), _MOST_VECTORS)


@dataclass(frozen=True)
class _Nest:
    """What a tile needs to know."""

    kernel: Kernel
    x: Tensor
    products: Products
    places: int
    image: Buffer
    constants: tuple[Buffer, Buffer, Buffer, Buffer]
    writer: Writer
    phases: list[tuple[Line, ...]]
    counts: list[int]

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return self.writer.output.tensor.shape[1]

    def tile(
        self, batch: Index, start: list[Index], phases: Sequence[tuple[Line, ...]], columns: int
    ) -> None:
        """One tile of all outputs, of phases whose results are neighbours."""
        found = [self._sums(batch, start, self.phases.index(phase), columns) for phase in phases]
        place = tiles.result_place(start, phases[0], [0] * len(start))
        lanes = [phase * columns + column for column in range(columns) for phase in range(len(phases))]
        for output in range(self.outputs):
            vectors = [of_phase[output] for of_phase in found]
            value = vectors[0] if len(lanes) == 1 else tirx.Shuffle(vectors, lanes)
            index = [batch, output, *place]
            self.writer.put(index, len(place) + 1, value, len(lanes))

    def _sums(self, batch: Index, start: list[Index], number: int, columns: int) -> list[Expr]:
        """Each output's numbers at a phase's places."""
        kernel, products, phase = self.kernel, self.products, self.phases[number]
        weights, distances, begin, scales = self.constants
        width, depth = products.width, products.way.depth
        corner = [place * line.step for place, line in zip(start, phase, strict=True)]
        base = kernel.let(self.x.flat([batch, 0, *corner]))
        step = self.places * phase[-1].step * self.x.layout.block
        near = [number * step for number in range(columns // self.places)]
        sums = [kernel.registers(len(near), width, "int32") for _ in range(self.outputs)]
        for register in itertools.chain(*sums):
            register.set(constant(0, width, "int32"))
        if self.counts[number]:
            with kernel.loop(self.counts[number]) as own:
                part = own + sum(self.counts[:number])
                reach = [kernel.let(kernel.load(distances, (part, i))) for i in range(depth)]
                factors = [
                    [products.factors(weights, (part, i, output), 0, width) for i in range(depth)]
                    for output in range(self.outputs)
                ]
                for vector, shift in enumerate(near):
                    values = [products.side_by_side(self._quads(base + i + shift)) for i in reach]
                    for output, registers in enumerate(sums):
                        products.add(registers[vector], values, factors[output])
        found = []
        for output, registers in enumerate(sums):
            count = width // self.places
            total = reduction.neighbours([register.value for register in registers], width, count)
            total = total + broadcast(kernel.load(begin, (number, output)), columns)
            numbers = total.astype("float32" if columns == 1 else f"float32x{columns}")
            found.append(kernel.let(numbers * broadcast(kernel.load(scales, (output,)), columns)))
        return found

    def _quads(self, place: Index) -> Expr:
        """A vector of the input."""
        width = self.products.width
        return tirx.reinterpret(f"int32x{width}", self.kernel.load(self.image, (place,), QUAD * width))
