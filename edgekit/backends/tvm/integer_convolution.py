"""Convolutions of bytes: products of four neighbouring ones at a time, exact sums in 32 bits.

Values are bytes with a scale and a zero point (ONNX DequantizeLinear), weights bytes with a scale for each
output channel. The kernel sums ``x * w`` over taps and channels, takes the zero point's part away, which is
known beforehand because the halo holds the zero point, and multiplies the sum by the scales::

    y = (sum(x * w) - zero_point * sum(w)) * scale[output]

An output is a sum over quads, which are runs of four (:mod:`edgekit.backends.tvm.runs`). The tile of outputs
stands in registers as in :mod:`edgekit.backends.tvm.convolution`; each quad of the input is broadcast as one
number of 32 bits and multiplied as :mod:`edgekit.backends.tvm.dot` says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.tirx.script import builder as script

from edgekit.backends.tvm import dot, runs, tiles
from edgekit.backends.tvm.convolution import outputs_first
from edgekit.backends.tvm.dot import QUAD, Products, Way
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Buffer, Expr, Function, Index, Kernel, Register, ceil_div, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.runs import Runs
from edgekit.backends.tvm.tensor import Halo, Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution, Line, Tiling

# Places of a tile of few outputs.
_MOST_NARROW = 8
# Registers of sums in a tile: in those of all phases together, and in one at least.
_MOST_SUMS, _LEAST_SUMS = 96, 12


@dataclass(frozen=True)
class IntegerConvolution:
    """What is computed.

    Attributes:
        convolution: Its geometry.
        zero_point: The byte that stands for 0 in the input, and fills its halo.
        way: How bytes are multiplied.
        block: Channels of the input that lie side by side.
    """

    convolution: Convolution
    zero_point: int
    way: Way
    block: int

    def halo(self, lengths: Sequence[int], results: Sequence[int]) -> Halo:
        """What the kernel reads around the input.

        Args:
            lengths: Of the input's spatial axes.
            results: Of the output's.
        """
        if self.block > 1:
            return self.convolution.halo(lengths, results)
        return runs.halo(self.convolution, lengths, results, QUAD)


def takes(convolution: Convolution, x: Tensor, result: Tensor) -> bool:
    """Whether the kernel computes a convolution: not from few channels to few, no block in two groups.

    Args:
        convolution: The geometry.
        x: The input.
        result: The output.
    """
    groups = convolution.groups
    mixed = x.shape[1] // groups % x.layout.block or result.shape[1] // groups % _sums(result).layout.block
    few = x.layout.block == result.layout.block == 1
    return not few and (groups == 1 or not mixed)


def tiling(problem: IntegerConvolution, x: Tensor, result: Tensor, processor: Processor) -> Tiling:
    """The rule: the tile that multiplies most for what it reads and repeats least."""
    convolution, sums, way = problem.convolution, _sums(result), problem.way
    registers = ceil_div(sums.layout.block, processor.lanes)
    blocks = sums.blocks // convolution.groups if sums.blocks % convolution.groups == 0 else 1
    axes = convolution.lines(result.shape[2:])
    counts = [min(line.count for line in axis) for axis in axes]
    width, height = axes[-1][0].count, counts[-2] if len(counts) > 1 else 1
    weights = product(convolution.kernel) * x.shape[1] * result.shape[1] // convolution.groups
    channels_first = weights > processor.l2_bytes // 2
    # Every phase is code of its own.
    most = max(_MOST_SUMS // product([len(axis) for axis in axes]), _LEAST_SUMS)
    each, once = way.steps
    if result.layout.block == 1:
        # Places are written number by number.
        width, height = min(width, _MOST_NARROW), 1
    best: tuple[float, Tiling] | None = None
    # Of many outputs, some have weights that are taken out of nearly every quad.
    for vectors in (1,) if way.rest else (v for v in (4, 3, 2, 1) if blocks % v == 0):
        across = vectors * registers
        # Several quads that several vectors are multiplied with stay in registers as well.
        kept = way.weights * way.depth * across + (way.depth if across > 1 else 1) - 1
        room = max(min((processor.registers - way.spare - kept) // across, most // across), 1)
        for rows in range(1, min(height, room) + 1):
            for columns in range(1, min(width, room // rows) + 1):
                places = rows * columns
                # Sums wait for each other if there are few; loads come two at a time.
                steps = places * (across * each + once)
                steps = max(steps, places + across * way.weights, 10)
                count = ceil_div(width, columns) * ceil_div(height, rows) / vectors
                found = count * (steps + 1), Tiling(vectors, rows, columns, channels_first)
                if best is None or found[0] < best[0]:
                    best = found
    assert best is not None
    return best[1]


def way_of(
    weights: NDArray[np.int8],
    convolution: Convolution,
    x: Tensor,
    result: Tensor,
    processor: Processor,
    most: int = 255,
) -> Way:
    """The fastest exact way to multiply with these weights.

    Args:
        weights: As :func:`edgekit.backends.tvm.convolution.packed` takes them.
        convolution: The geometry.
        x: The input.
        result: The output.
        processor: What it runs on.
        most: The largest byte of the input.
    """
    kinds = dot.kinds(processor)
    if "bytes" not in kinds:
        return Way(kinds[0])
    words, wide = Way("words"), _sums(result).layout.block
    every = _quads(IntegerConvolution(convolution, 0, words, x.layout.block), weights, x, result, 1)
    total = sum(map(len, every))
    best = total * sum(words.steps), words
    for depth in dot.DEPTHS:
        way = Way("bytes", depth, most=most)
        rest = max(len(places) for quads in every for places, _ in _rest(way, quads, wide))
        steps = total * way.steps[0] + rest * len(every) * replace(way, depth=1).steps[0]
        best = min(best, (steps, replace(way, rest=rest)), key=lambda pair: pair[0])
    return best[1]


def _quads(
    problem: IntegerConvolution, weights: NDArray[np.int8], x: Tensor, result: Tensor, vectors: int
) -> list[NDArray[np.int16]]:
    """The weights of each phase's quads: (quads, 4, outputs), the last ones zeros."""
    flat = outputs_first(problem.convolution, weights)
    flat = flat.reshape(*flat.shape[:2], -1)
    flat = np.pad(flat, ((0, -len(flat) % (vectors * _sums(result).layout.block)), (0, 0), (0, 0)))
    return [quads.weights(flat) for quads in _listed(problem.convolution, x, result)]


def _listed(convolution: Convolution, x: Tensor, result: Tensor) -> list[Runs]:
    """Each phase's quads."""
    phases = itertools.product(*convolution.lines(result.shape[2:]))
    return [Runs.of(convolution, phase, x, QUAD) for phase in phases]


def _rest(way: Way, quads: NDArray[np.int16], wide: int) -> list[tuple[NDArray[np.int64], NDArray[np.int16]]]:
    """For outputs that are computed together: which quads are taken out, and their weights."""
    _, left = dot.taken_out(quads, way)
    found = []
    for first in range(0, quads.shape[-1], wide):
        part = left[..., first : first + wide]
        numbers, parts = [np.zeros(0, np.int64)], [part[:0]]
        while part.any():
            (places,) = np.nonzero(part.any((1, 2)))
            kept, more = dot.taken_out(part[places], replace(way, depth=1))
            numbers.append(places)
            parts.append(kept)
            part = np.zeros_like(part)
            part[places] = more
        found.append((np.concatenate(numbers), np.concatenate(parts)))
    return found


@dataclass(frozen=True)
class Arranged:
    """A convolution's constants in the order in which the kernel reads them.

    Attributes:
        weights: (output blocks / vectors, all phases' parts of quads, quads of a part, 4 * outputs).
        distances: Of the quads from an output's place, (parts, quads of a part).
        begin: Minus the zero point's part of each sum, (phases, output blocks / vectors, outputs).
        rest: Weights that were taken out, (output blocks / vectors, phases, quads, 4 * outputs), and their
            quads' distances, (output blocks / vectors, phases, quads); none where the way takes none out.
    """

    weights: NDArray[Any]
    distances: NDArray[np.int32]
    begin: NDArray[np.int32]
    rest: tuple[NDArray[Any], ...]

    @classmethod
    def of(
        cls,
        problem: IntegerConvolution,
        weights: NDArray[np.int8],
        x: Tensor,
        result: Tensor,
        vectors: int,
    ) -> Arranged:
        """Put the weights in order.

        Args:
            problem: What is computed.
            weights: As :func:`edgekit.backends.tvm.convolution.packed` takes them.
            x: The input.
            result: The output.
            vectors: Blocks of the output that are computed together.
        """
        way, wide = problem.way, vectors * _sums(result).layout.block
        every, runs_of = _quads(problem, weights, x, result, vectors), _listed(problem.convolution, x, result)
        kept, distances, begin, rest, rest_distances = [], [], [], [], []
        for quads, listed in zip(every, runs_of, strict=True):
            begin.append(-problem.zero_point * quads.sum((0, 1), dtype=np.int64))
            # Quads that fill a part up multiply with zeros.
            more = -len(quads) % way.depth
            main = np.pad(dot.taken_out(quads, way)[0], ((0, more), (0, 0), (0, 0)))
            kept.append(main.reshape(-1, way.depth, QUAD, main.shape[-1] // wide, wide))
            distances.append(np.pad(listed.distances, (0, more), "edge").reshape(-1, way.depth))
            if way.rest:
                taken = [_filled(listed, *found, way.rest) for found in _rest(way, quads, wide)]
                rest.append(np.stack([part for _, part in taken]))
                rest_distances.append(np.stack([part for part, _ in taken]))
        joined = np.moveaxis(np.concatenate(kept), 3, 0)
        return cls(
            dot.arranged(joined, way),
            np.concatenate(distances),
            np.stack(begin).astype(np.int32).reshape(len(begin), -1, wide),
            (dot.arranged(np.stack(rest, 1), way), np.stack(rest_distances, 1)) if way.rest else (),
        )


def _filled(
    listed: Runs, places: NDArray[np.int64], weights: NDArray[np.int16], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """So many quads' distances and weights."""
    more = count - len(places)
    distances = np.pad(listed.distances[places], (0, more), constant_values=listed.distances[0])
    return distances, np.pad(weights, ((0, more), (0, 0), (0, 0)))


def integer_convolution(
    name: str, problem: IntegerConvolution, x: Tensor, output: Output, plan: Tiling, processor: Processor
) -> Function:
    """The kernel: arguments are the input, constants, the output's extras and the output.

    The constants are those of :class:`Arranged` in order, with the scales after the beginnings: float32,
    (output blocks / vectors, outputs).

    Args:
        name: Of the function.
        problem: What is computed; :func:`takes` it.
        x: The input, with at least the halo that the problem needs, filled with the zero point.
        output: Its tensor's channels are in blocks, or at most three.
        plan: The tile.
        processor: What it runs on.
    """
    result, convolution, way = output.tensor, problem.convolution, problem.way
    axes, sums = convolution.lines(result.shape[2:]), _sums(result)
    phases = list(itertools.product(*axes))
    counts = [ceil_div(len(listed.distances), way.depth) for listed in _listed(convolution, x, result)]
    groups, wide = sums.blocks // plan.vectors, plan.vectors * sums.layout.block
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        shape = (groups, sum(counts), way.depth, QUAD * wide)
        weights = kernel.argument("weights", shape, way.weight_type)
        distances = kernel.argument("distances", shape[1:3], "int32")
        begin = kernel.argument("begin", (len(phases), groups, wide), "int32")
        scales = kernel.argument("scales", (groups, wide))
        rest: tuple[Buffer, ...] = ()
        if way.rest:
            lengths = (groups, len(phases), way.rest)
            rest = (
                kernel.argument("rest", (*lengths, QUAD * wide), way.weight_type),
                kernel.argument("rest_distances", lengths, "int32"),
            )
        writer = output.arguments(kernel)
        # Quads lie at distances in the whole memory.
        flat = script.decl_buffer((product(x.memory),), x.dtype, data=image.data)
        constants = (weights, distances, begin, scales, rest)
        products = Products(kernel, processor, way, min(sums.layout.block, processor.lanes))
        nest = _Nest(kernel, problem, x, plan, products, flat, constants, writer, phases, counts)
        tiles.every(kernel, x.shape[0], groups, axes, plan, nest.tile)
        writer.clear_halo()
    return kernel.function


def _sums(result: Tensor) -> Tensor:
    """The result in blocks: few channels are the first ones of a block."""
    block = result.layout.block
    return Tensor(result.shape, "float32", Layout(block if block > 1 else QUAD))


@dataclass(frozen=True)
class _Quad:
    """Where a quad's distance and weights are."""

    distances: Buffer
    at: tuple[Index, ...]
    weights: Buffer
    place: tuple[Index, ...]


@dataclass(frozen=True)
class _Nest:
    """What the loops have in common."""

    kernel: Kernel
    problem: IntegerConvolution
    x: Tensor
    plan: Tiling
    products: Products
    image: Buffer
    constants: Any
    writer: Writer
    phases: list[tuple[Line, ...]]
    counts: list[int]

    @property
    def block(self) -> int:
        """Outputs that lie side by side."""
        return _sums(self.writer.output.tensor).layout.block

    @property
    def wide(self) -> int:
        """Outputs that are computed together."""
        return self.plan.vectors * self.block

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
        kernel, width = self.kernel, self.products.width
        shifts = tiles.shifts(phase, self.plan.rows, columns)
        sums = [kernel.registers(self.wide // width, width, "int32") for _ in shifts]
        number, begin = self.phases.index(tuple(phase)), self.constants[2]
        for vector in range(self.wide // width):
            first = kernel.let(kernel.load(begin, (number, group, vector * width), width))
            for place in sums:
                place[vector].set(first)
        self._sum(batch, group, start, number, shifts, sums)
        places = [tiles.result_place(start, phase, shift) for shift in shifts]
        if self.writer.output.tensor.layout.block > 1:
            self._put_blocks(batch, group, places, sums)
        else:
            self._put_rows(batch, places, sums, columns, phase[-1].step_out)

    def _sum(
        self,
        batch: Index,
        group: Index,
        start: Sequence[Index],
        number: int,
        shifts: Sequence[tuple[int, ...]],
        sums: list[list[Register]],
    ) -> None:
        """Add the products of all quads to a tile."""
        kernel, phase, way = self.kernel, self.phases[number], self.problem.way
        weights, distances, _, _, rest = self.constants
        corner = [place * line.step for place, line in zip(start, phase, strict=True)]
        base = kernel.let(self.x.flat([batch, self._first_channel(group), *corner]))
        steps = [line.step * stride for line, stride in zip(phase, self.x.strides[2:], strict=False)]
        near = [sum(by * step for by, step in zip(shift, steps, strict=True)) for shift in shifts]
        if self.counts[number]:
            with kernel.loop(self.counts[number]) as own:
                part = own + sum(self.counts[:number])
                quads = [_Quad(distances, (part, i), weights, (group, part, i)) for i in range(way.depth)]
                self._products(base, near, quads, sums)
        if rest:
            with kernel.loop(way.rest) as quad:
                place = (group, number, quad)
                self._products(base, near, [_Quad(rest[1], place, rest[0], place)], sums)

    def _products(
        self, base: Index, near: Sequence[int], quads: Sequence[_Quad], sums: list[list[Register]]
    ) -> None:
        """A few quads, for all places and vectors of the tile."""
        kernel, products = self.kernel, self.products
        distances = [kernel.let(kernel.load(quad.distances, quad.at)) for quad in quads]
        factors = [
            [
                products.factors(quad.weights, quad.place, first, self.wide)
                for first in range(0, self.wide, products.width)
            ]
            for quad in quads
        ]
        for shift, registers in zip(near, sums, strict=True):
            values = [products.repeated(self._reader(base + distance + shift)) for distance in distances]
            for vector, register in enumerate(registers):
                products.add(register, values, [of_quad[vector] for of_quad in factors])

    def _reader(self, first: Index) -> Callable[[int, int], Expr]:
        return lambda number, count: self.kernel.load(self.image, (first + number,), count)

    def _first_channel(self, group: Index) -> Index:
        """The input's first channel for outputs that are computed together."""
        groups = self.problem.convolution.groups
        if groups == 1:
            return 0
        tensor = self.writer.output.tensor
        return group // (_sums(tensor).blocks // self.plan.vectors // groups) * (self.x.shape[1] // groups)

    def _scaled(self, group: Index, vector: int, register: Register) -> Expr:
        width = self.products.width
        scale = self.kernel.load(self.constants[3], (group, vector * width), width)
        return register.value.astype(f"float32x{width}") * scale

    def _put_blocks(
        self, batch: Index, group: Index, places: list[list[Index]], sums: list[list[Register]]
    ) -> None:
        """A tile of blocks."""
        width = self.products.width
        for place, registers in zip(places, sums, strict=True):
            for vector, register in enumerate(registers):
                channel = group * self.wide + vector * width
                self.writer.put([batch, channel, *place], 1, self._scaled(group, vector, register), width)

    def _put_rows(
        self,
        batch: Index,
        places: list[list[Index]],
        sums: list[list[Register]],
        columns: int,
        step_out: int,
    ) -> None:
        """A tile of few channels: places side by side, where they are neighbours."""
        wide = columns if step_out == 1 else 1
        scaled = [self.kernel.let(self._scaled(0, 0, registers[0])) for registers in sums]
        for first in range(0, len(places), wide):
            place = places[first]
            for output in range(self.writer.output.tensor.shape[1]):
                lanes = [output + self.products.width * number for number in range(wide)]
                value = tirx.Shuffle(scaled[first : first + wide], lanes)
                self.writer.put([batch, output, *place], len(place) + 1, value, wide)
