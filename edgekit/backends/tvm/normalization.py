"""Normalisation at run time: each channel, group of channels or row at mean 0 and variance 1.

The mean and the squares of a row are taken about one of the channel's numbers, the row's squares about the
row's mean while it is in the cache, and rows are joined as Chan, Golub and LeVeque (1979) join samples. So
nothing is lost where the mean is large and the spread is small, and memory is read twice in all: once for the
statistics, once to apply them.

Scale and shift of the channels, where there are any, belong to the chain behind. Batch normalisation has
nothing but those (:func:`batch_affine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, tirx

from edgekit.backends.tvm import reduction
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Expr, Function, Index, Kernel, Register, broadcast, constant, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import PLAIN, Tensor
from edgekit.errors import CompileError


@dataclass(frozen=True)
class Normalization:
    """Of groups of channels, each over all its places.

    Attributes:
        groups: How many; as many as there are channels for instance normalisation.
        epsilon: Added to the variance.
    """

    groups: int
    epsilon: float


@dataclass(frozen=True)
class RowNormalization:
    """Of each row along the last axis.

    Attributes:
        epsilon: Added to the variance.
    """

    epsilon: float


def normalization(
    name: str, problem: Normalization | RowNormalization, x: Tensor, output: Output, processor: Processor
) -> Function:
    """The kernel: arguments are the input, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed.
        x: The input, of any halo; for rows, without one and in the order of ONNX.
        output: Its tensor has the input's block.
        processor: What it runs on.

    Raises:
        CompileError: The blocks differ, or rows are in blocks.
    """
    result = output.tensor
    rows = isinstance(problem, RowNormalization)
    if x.layout.block != result.layout.block or (rows and not x.layout == result.layout == PLAIN):
        raise CompileError(
            f"normalisation: want {'the order of ONNX' if rows else f'blocks of {x.layout.block}'}, "
            f"got {x.layout} and {result.layout}",
            where=name,
        )
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        nest = _Nest(kernel, x, image, output.arguments(kernel), processor)
        if isinstance(problem, RowNormalization):
            nest.rows(problem.epsilon)
        else:
            _Channels(nest, problem, reduction.Parts.of(x)).write()
        nest.writer.clear_halo()
    return kernel.function


@dataclass(frozen=True)
class _Nest:
    """What all loops have in common."""

    kernel: Kernel
    x: Tensor
    image: Any
    writer: Writer
    processor: Processor

    def load(self, place: Sequence[Index], width: int) -> Expr:
        """A vector of the input along its vector axis."""
        return self.x.load(self.kernel, self.image, place, self.x.vector_axis, width)

    def wide(self, value: Expr, width: int) -> Expr:
        """A channel's number for each lane: in blocks there is one for each already."""
        return value if self.x.layout.block > 1 else broadcast(value, width)

    def row(self, place: Sequence[Index], origin: Expr) -> tuple[Expr, Expr]:
        """A row's mean, less the origin, and the sum of squares about it."""
        kernel, length = self.kernel, self.x.shape[-1]
        block = self.x.layout.block

        def shifted(column: Index, width: int) -> Expr:
            return self.load([*place, column], width) - self.wide(origin, width)

        total = reduction.over_row(kernel, self.x, self.processor, shifted)
        mean = kernel.let(total * constant(1.0 / length, block))

        def square(column: Index, width: int) -> Expr:
            distance = kernel.let(shifted(column, width) - self.wide(mean, width))
            return distance * distance

        return mean, reduction.over_row(kernel, self.x, self.processor, square)

    def apply(self, place: Sequence[Index], center: Expr, scale: Expr) -> None:
        """Write a row."""
        axis = self.writer.output.tensor.vector_axis

        def put(column: Index, width: int) -> None:
            value = self.load([*place, column], width) - self.wide(center, width)
            self.writer.put([*place, column], axis, value * self.wide(scale, width), width)

        reduction.columns(self.kernel, self.x, self.processor, put, unroll=2)

    def rows(self, epsilon: float) -> None:
        """Every row by itself."""
        *outer, last = self.x.shape
        with self.kernel.parallel(*(outer or (1,))) as index:
            place = list(index) if len(outer) > 1 else [index] if outer else []
            origin = self.kernel.let(self.load([*place, 0], 1))
            mean, squares = self.row(place, origin)
            scale = self.scale(squares * constant(1.0 / last), epsilon)
            self.apply(place, self.kernel.let(origin + mean), scale)

    def scale(self, variance: Expr, epsilon: float) -> Expr:
        """What brings a variance to 1."""
        lanes = int(variance.ty.dtype.lanes)
        root = tirx.sqrt(variance + constant(epsilon, lanes))
        return self.kernel.let(constant(1.0, lanes) / root)


@dataclass(frozen=True)
class _Channels:
    """The loops over channels and their places."""

    nest: _Nest
    problem: Normalization
    parts: reduction.Parts

    @property
    def _block(self) -> int:
        return self.nest.x.layout.block

    @property
    def _numbers(self) -> int:
        """Of a channel."""
        return product(self.nest.x.shape[2:])

    def write(self) -> None:
        """The whole result."""
        x, kernel, block = self.nest.x, self.nest.kernel, self._block
        by_channel = self.problem.groups == x.shape[1]
        if by_channel and self.parts.count == 1:
            with kernel.parallel(x.shape[0], x.blocks) as (batch, number):
                origin = self._origin(batch, number)
                mean, squares = self._part(batch, number, 0, origin)
                center = kernel.let(origin + mean)
                scale = self._scale(squares, self._numbers)
                with kernel.loop(product(self.parts.rows)) as row:
                    place = [batch, number * block, *self.parts.place(row)]
                    self.nest.apply(place, center, scale)
            return
        centers = kernel.scratch((x.shape[0], x.blocks * block))
        scales = kernel.scratch((x.shape[0], x.blocks * block))
        self._statistics(centers, scales)
        if not by_channel:
            self._groups(centers, scales)
        *outer, _ = x.shape[2:]
        with kernel.parallel(x.shape[0], x.blocks, *outer) as (batch, number, *row):
            at = (batch, number * block)
            center = kernel.let(kernel.load(centers, at, block))
            scale = kernel.let(kernel.load(scales, at, block))
            self.nest.apply([*at, *row], center, scale)

    def _statistics(self, centers: Any, scales: Any) -> None:
        """Means of all channels, and their scales; sums of squares instead where channels form groups."""
        x, kernel, block, parts = self.nest.x, self.nest.kernel, self._block, self.parts
        means = kernel.scratch((x.shape[0], x.blocks, parts.count, block))
        squares = kernel.scratch((x.shape[0], x.blocks, parts.count, block))
        with kernel.parallel(x.shape[0], x.blocks, parts.count) as (batch, number, part):
            mean, square = self._part(batch, number, part, self._origin(batch, number))
            kernel.store(means, (batch, number, part, 0), mean, block)
            kernel.store(squares, (batch, number, part, 0), square, block)
        with kernel.loops((x.shape[0], x.blocks)) as (batch, number):
            mean, square = self._joined(means, squares, batch, number)
            at = (batch, number * block)
            kernel.store(centers, at, self._origin(batch, number) + mean, block)
            by_channel = self.problem.groups == x.shape[1]
            kernel.store(scales, at, self._scale(square, self._numbers) if by_channel else square, block)

    def _origin(self, batch: Index, number: Index) -> Expr:
        """The first number of each channel: whatever it is, the others are not much farther from the mean."""
        place = [batch, number * self._block, *(0 for _ in self.nest.x.shape[2:])]
        return self.nest.kernel.let(self.nest.load(place, self._block))

    def _part(self, batch: Index, number: Index, part: Index, origin: Expr) -> tuple[Expr, Expr]:
        """The mean of a part's rows, less the origin, and the sum of squares about it."""
        kernel, block = self.nest.kernel, self._block
        mean, squares = kernel.registers(2, block)
        for register in (mean, squares):
            register.set(constant(0, block))
        first, count = self.parts.rows_of(part)
        with kernel.loop(count) as row:
            place = [batch, number * block, *self.parts.place(first + row)]
            row_mean, row_squares = self.nest.row(place, origin)
            before = kernel.let(tirx.Cast("float32", row) if not isinstance(row, int) else constant(row))
            self._join(mean, squares, (before, row_mean, row_squares, constant(1.0)))
        return kernel.let(mean.value), kernel.let(squares.value)

    def _join(self, mean: Register, squares: Register, other: tuple[Expr, Expr, Expr, Expr]) -> None:
        """Add a sample.

        Args:
            mean: Of what there is.
            squares: About it.
            other: Rows before, the mean of the new ones, their squares, and how many they are.
        """
        kernel, block = self.nest.kernel, self._block
        before, new_mean, new_squares, rows = other
        share = kernel.let(rows / (before + rows))
        weight = kernel.let(before * share * constant(float(self.nest.x.shape[-1])))
        delta = kernel.let(new_mean - mean.value)
        squares.set(squares.value + new_squares + delta * delta * broadcast(weight, block))
        mean.set(mean.value + delta * broadcast(share, block))

    def _joined(self, means: Any, squares: Any, batch: Index, number: Index) -> tuple[Expr, Expr]:
        """All parts of a block, in order."""
        kernel, block = self.nest.kernel, self._block
        mean, square = kernel.registers(2, block)
        mean.set(kernel.load(means, (batch, number, 0, 0), block))
        square.set(kernel.load(squares, (batch, number, 0, 0), block))
        if self.parts.count > 1:
            with kernel.loop(self.parts.count - 1) as part:
                at = (batch, number, part + 1, 0)
                first, rows = self.parts.rows_of(part + 1)
                count = constant(rows) if isinstance(rows, int) else tirx.Cast("float32", rows)
                new = kernel.load(means, at, block), kernel.load(squares, at, block)
                self._join(mean, square, (tirx.Cast("float32", first), *new, count))
        return kernel.let(mean.value), kernel.let(square.value)

    def _groups(self, centers: Any, scales: Any) -> None:
        """From means and squares of channels to means and scales of their groups."""
        kernel, channels = self.nest.kernel, self.nest.x.shape[1]
        size = channels // self.problem.groups
        with kernel.loops((self.nest.x.shape[0], self.problem.groups)) as (batch, group):
            first = group * size
            origin = kernel.let(kernel.load(centers, (batch, first)))
            total, spread = kernel.registers(2, 1)
            total.set(constant(0.0))
            with kernel.loop(size) as channel:
                total.set(total.value + (kernel.load(centers, (batch, first + channel)) - origin))
            mean = kernel.let(origin + total.value * constant(1.0 / size))
            spread.set(constant(0.0))
            with kernel.loop(size) as channel:
                at = (batch, first + channel)
                delta = kernel.let(kernel.load(centers, at) - mean)
                squares = kernel.load(scales, at) + delta * delta * constant(float(self._numbers))
                spread.set(spread.value + squares)
            scale = self._scale(spread.value, self._numbers * size)
            with kernel.loop(size) as channel:
                kernel.store(centers, (batch, first + channel), mean)
                kernel.store(scales, (batch, first + channel), scale)

    def _scale(self, squares: Expr, count: int) -> Expr:
        lanes = int(squares.ty.dtype.lanes)
        return self.nest.scale(squares * constant(1.0 / count, lanes), self.problem.epsilon)


def batch_affine(
    gamma: NDArray[Any], beta: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any], epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Batch normalisation of a trained network: what each channel is multiplied with, then what is added."""
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    shift = beta.astype(np.float64) - mean.astype(np.float64) * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def normalization_problem(call: relax.Call) -> Normalization | RowNormalization | None:
    """What a call of relax.nn's group_norm, instance_norm or layer_norm computes before its scale and shift.

    Those, its second and third argument, are for the chain: of shape (C, 1, …) for channels.

    Returns:
        None for other axes, another type than float32, unknown lengths.
    """
    x = call.args[0].ty if call.args else None
    if not isinstance(x, relax.TensorType) or not isinstance(x.shape, relax.ShapeExpr):
        return None
    if str(x.dtype) != "float32" or not all(isinstance(length, tirx.IntImm) for length in x.shape.values):
        return None
    name = str(getattr(call.op, "name", "")).removeprefix("relax.nn.")
    if name not in ("group_norm", "instance_norm", "layer_norm"):
        return None
    axes = sorted(int(axis) % x.ndim for axis in call.attrs.axes)
    epsilon = float(call.attrs.epsilon)
    if name == "layer_norm":
        return RowNormalization(epsilon) if axes == [x.ndim - 1] else None
    if axes != list(range(2, x.ndim)) or x.ndim < 3 or int(call.attrs.channel_axis) % x.ndim != 1:
        return None
    groups = call.attrs.num_groups if name == "group_norm" else x.shape.values[1]
    return Normalization(int(groups), epsilon)
