"""Pooling of any number of spatial axes: the largest or the mean of a window, of a bin or of all places.

Windows that reach over the border end there: their first and last tap are known for a whole row along the
outer axes, and column by column at both ends of a row. So nothing is read from the padding, no place in the
middle asks where the border is, and a dilated window keeps its own taps.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from edgekit.backends.tvm import reduction
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Expr, Function, Index, Kernel, broadcast, ceil_div, constant, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.errors import CompileError

# Columns of a row that are computed together, and taps that are written out rather than looped over.
_COLUMNS = 4
_TAPS = 9
# Bins of unequal lengths are written out column by column.
_BINS = 32


@dataclass(frozen=True)
class Pooling:
    """A window that moves.

    Attributes:
        kind: ``"max"`` or ``"average"``.
        kernel: Taps along each axis.
        strides: Along each axis.
        dilations: Along each axis.
        pads: Places before the first and after the last along each axis.
        count_pads: Whether an average counts the padding, as zeros.
    """

    kind: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    count_pads: bool = False


@dataclass(frozen=True)
class Adaptive:
    """Bins that cover the value, as many as the result has places.

    Attributes:
        kind: ``"max"`` or ``"average"``.
    """

    kind: str


@dataclass(frozen=True)
class GlobalPooling:
    """All places of a channel.

    Attributes:
        kind: ``"max"`` or ``"average"``.
    """

    kind: str


@dataclass(frozen=True)
class _Span:
    """The taps of one output along an axis: ``first + t * step`` for ``count`` numbers t, and the divisor."""

    first: Index
    count: Index
    step: int
    divisor: Index


@dataclass(frozen=True)
class _Axis:
    """A window along one axis."""

    length: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    count_pads: bool

    @property
    def whole(self) -> range:
        """The outputs whose window lies inside."""
        first = min(ceil_div(self.before, self.stride), self.outputs)
        room = self.length - 1 - (self.kernel - 1) * self.dilation + self.before
        return range(first, max(min(room // self.stride + 1, self.outputs), first))

    def span(self, output: Index) -> _Span:
        """The taps of an output."""
        if len(self.whole) == self.outputs:
            return self.inside(output)
        start = output * self.stride - self.before
        least, most = (max, min) if isinstance(output, int) else (tirx.max, tirx.min)
        # Rounded down both, of numbers that are not negative: a window never starts beyond the other border.
        low = least(self.dilation - 1 - start, 0) // self.dilation
        high = most(self._taps_before(self.length - start), self.kernel)
        divisor = high - low
        if self.count_pads:
            divisor = most(self._taps_before(self.length + self.after - start), self.kernel)
        return _Span(start + low * self.dilation, high - low, self.dilation, divisor)

    def inside(self, output: Index) -> _Span:
        """The taps of an output whose window lies inside."""
        return _Span(output * self.stride - self.before, self.kernel, self.dilation, self.kernel)

    def _taps_before(self, distance: Index) -> Index:
        return (distance + self.dilation - 1) // self.dilation


@dataclass(frozen=True)
class _Bins:
    """Bins along one axis."""

    length: int
    outputs: int

    def span(self, output: Index) -> _Span:
        """The places of a bin, as PyTorch and TVM choose them."""
        first = output * self.length // self.outputs
        count = ((output + 1) * self.length + self.outputs - 1) // self.outputs - first
        return _Span(first, count, 1, count)


def pooling(
    name: str, problem: Pooling | Adaptive | GlobalPooling, x: Tensor, output: Output, processor: Processor
) -> Function:
    """The kernel: arguments are the input, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed.
        x: The input: any halo.
        output: Its tensor has the input's block.
        processor: What it runs on.

    Raises:
        CompileError: The blocks differ.
    """
    if x.layout.block != output.tensor.layout.block:
        raise CompileError(
            f"pooling keeps the order of channels: want blocks of {x.layout.block}, "
            f"got {output.tensor.layout.block}",
            where=name,
        )
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        writer = output.arguments(kernel)
        if isinstance(problem, GlobalPooling):
            _Whole(kernel, problem.kind, x, image, writer, processor).write()
        else:
            _Windows(kernel, problem.kind, x, image, writer, _axes(problem, x, output.tensor)).write(
                processor
            )
        writer.clear_halo()
    return kernel.function


def _axes(problem: Pooling | Adaptive, x: Tensor, result: Tensor) -> list[_Axis | _Bins]:
    lengths, outputs = x.shape[2:], result.shape[2:]
    axes: list[_Axis | _Bins] = []
    if isinstance(problem, Pooling):
        for axis, (length, count) in enumerate(zip(lengths, outputs, strict=True)):
            sizes = problem.kernel[axis], problem.strides[axis], problem.dilations[axis]
            axes.append(_Axis(length, count, *sizes, *problem.pads[axis], problem.count_pads))
        return axes
    for length, count in zip(lengths, outputs, strict=True):
        step = length // count
        regular = _Axis(length, count, step, step, 1, 0, 0, False)
        axes.append(_Bins(length, count) if length % count else regular)
    return axes


@dataclass(frozen=True)
class _Windows:
    """What the loops over windows have in common."""

    kernel: Kernel
    kind: str
    x: Tensor
    image: Any
    writer: Writer
    axes: Sequence[_Axis | _Bins]

    @property
    def _start(self) -> float:
        if self.kind == "average":
            return 0.0
        numbers = self.x.numbers
        return -math.inf if numbers == "float32" else float(np.iinfo(numbers).min)

    def write(self, processor: Processor) -> None:
        """All places of the result."""
        result = self.writer.output.tensor
        *outer, _ = result.shape[2:]
        block = result.layout.block
        with self.kernel.parallel(result.shape[0], result.blocks, *outer) as (batch, part, *row):
            spans = [self._named(axis.span(place)) for axis, place in zip(self.axes, row, strict=False)]
            place = [batch, part * block, *row]
            self._row(place, spans, processor)

    def _named(self, span: _Span) -> _Span:
        """Computed once for a row."""
        values = (span.first, span.count, span.divisor)
        first, count, divisor = (v if isinstance(v, int) else self.kernel.let(v) for v in values)
        return _Span(first, count, span.step, divisor)

    def _row(self, place: list[Index], spans: Sequence[_Span], processor: Processor) -> None:
        """Columns at the borders one by one, those in the middle in tiles."""
        last = self.axes[-1]
        whole = last.whole if isinstance(last, _Axis) else range(0)
        for column in (*range(whole.start), *range(whole.stop, last.outputs)):
            self._tile(place, spans, column, 1, last.span(column), 1)
        if not whole or isinstance(last, _Bins):
            return
        block = self.x.layout.block
        width = 1 if block > 1 else reduction.row_vector(len(whole), processor.lanes)
        count = min(_COLUMNS, len(whole) // width)
        with self.kernel.loop(ceil_div(len(whole), count * width)) as part:
            first = part * (count * width) + whole.start
            if len(whole) % (count * width):
                first = tirx.min(first, whole.stop - count * width)
            self._tile(place, spans, first, count, last.inside(first), width)

    def _tile(
        self, place: list[Index], spans: Sequence[_Span], first: Index, count: int, span: _Span, width: int
    ) -> None:
        """A few vectors of results, from a column on. Their windows have equally many taps along the row."""
        kernel, block = self.kernel, self.x.layout.block
        lanes, stride = (block, 1) if block > 1 else (width, self._stride)
        registers = kernel.registers(count, lanes, self.x.numbers)
        for register in registers:
            register.set(constant(self._start, lanes, self.x.numbers))
        with self._outer(spans) as rows, self._taps(span) as taps:
            for row, tap in itertools.product(rows, taps):
                for number, register in enumerate(registers):
                    column = span.first + tap * span.step + number * width * self._stride
                    value = self._load([*place[:2], *row, column], lanes, stride)
                    combined = (
                        reduction.largest(register.value, value) if self._is_max else register.value + value
                    )
                    register.set(combined)
        scale = None if self._is_max else self._scale([*spans, span], lanes)
        axis = self.writer.output.tensor.vector_axis
        for number, register in enumerate(registers):
            value = register.value if scale is None else register.value * scale
            self.writer.put([*place, first + number * width], axis, value, lanes)

    @property
    def _is_max(self) -> bool:
        return self.kind == "max"

    @property
    def _stride(self) -> int:
        last = self.axes[-1]
        return last.stride if isinstance(last, _Axis) else 1

    @contextlib.contextmanager
    def _outer(self, spans: Sequence[_Span]) -> Iterator[list[list[Index]]]:
        """Loops over the taps of the outer axes, or all of them written out."""
        counts = [span.count for span in spans]
        numbers = [count for count in counts if isinstance(count, int)]
        if len(numbers) == len(counts) and product(numbers) <= _TAPS:
            steps = itertools.product(*map(range, numbers))
            yield [[s.first + i * s.step for s, i in zip(spans, step, strict=True)] for step in steps]
            return
        with self.kernel.loops(counts) as taps:
            yield [[span.first + tap * span.step for span, tap in zip(spans, taps, strict=True)]]

    @contextlib.contextmanager
    def _taps(self, span: _Span) -> Iterator[Sequence[Index]]:
        """The taps of the last axis, in a loop where they are many."""
        if span.count <= _TAPS:
            yield range(span.count)
            return
        with self.kernel.loop(span.count) as tap:
            yield [tap]

    def _load(self, index: list[Index], lanes: int, stride: int) -> Expr:
        axis = self.x.vector_axis
        if stride == 1 or lanes == 1:
            return self.x.load(self.kernel, self.image, index, axis, lanes)
        *outer, column = index
        places = [[*outer, column + lane * stride] for lane in range(lanes)]
        return tirx.Shuffle(
            [self.x.load(self.kernel, self.image, place, axis, 1) for place in places], list(range(lanes))
        )

    def _scale(self, spans: Sequence[_Span], lanes: int) -> Expr:
        """One over the number of places in the window."""
        number, known = constant(1.0), 1
        for span in spans:
            if isinstance(span.divisor, int):
                known *= span.divisor
            else:
                number = number * span.divisor.astype("float32")
        return broadcast(self.kernel.let(constant(1.0) / (number * constant(float(known)))), lanes)


@dataclass(frozen=True)
class _Whole:
    """What the loops over all places of a channel have in common."""

    kernel: Kernel
    kind: str
    x: Tensor
    image: Any
    writer: Writer
    processor: Processor

    def write(self) -> None:
        """One number for each channel."""
        x, kernel, block = self.x, self.kernel, self.x.layout.block
        parts = reduction.Parts.of(x)
        if parts.count == 1:
            with kernel.parallel(x.shape[0], x.blocks) as (batch, number):
                self._put(batch, number, self._part(batch, number, 0, parts))
            return
        partial = kernel.scratch((x.shape[0], x.blocks, parts.count, block))
        with kernel.parallel(x.shape[0], x.blocks, parts.count) as (batch, number, part):
            total = self._part(batch, number, part, parts)
            kernel.store(partial, (batch, number, part, 0), total, block)
        with kernel.loops((x.shape[0], x.blocks)) as (batch, number):
            (total,) = kernel.registers(1, block)
            total.set(kernel.load(partial, (batch, number, 0, 0), block))
            with kernel.loop(parts.count - 1) as part:
                value = kernel.load(partial, (batch, number, part + 1, 0), block)
                total.set(self._combine(total.value, value))
            self._put(batch, number, total.value)

    def _combine(self, x: Expr, y: Expr) -> Expr:
        return reduction.largest(x, y) if self.kind == "max" else x + y

    def _part(self, batch: Index, number: Index, part: Index, parts: reduction.Parts) -> Expr:
        """What the rows of a part come to."""
        kernel, x, block = self.kernel, self.x, self.x.layout.block
        first, count = parts.rows_of(part)
        start = 0.0 if self.kind == "average" else -math.inf
        (total,) = kernel.registers(1, block)
        total.set(constant(start, block))
        with kernel.loop(count) as row:
            place = [batch, number * block, *parts.place(first + row)]

            def value(column: Index, width: int) -> Expr:
                return x.load(kernel, self.image, [*place, column], x.vector_axis, width)

            total.set(
                self._combine(
                    total.value, reduction.over_row(kernel, x, self.processor, value, self._combine, start)
                )
            )
        return total.value

    def _put(self, batch: Index, number: Index, total: Expr) -> None:
        block = self.x.layout.block
        if self.kind == "average":
            total = total * constant(1.0 / product(self.x.shape[2:]), block)
        index = [batch, number * block, *(0 for _ in self.x.shape[2:])]
        self.writer.put(index, self.writer.output.tensor.vector_axis, total, block)


def pooling_problem(call: relax.Call) -> Pooling | Adaptive | GlobalPooling | None:
    """What a call computes: relax.nn's pools, and the mean or the maximum over all spatial axes, which stay.

    Returns:
        None for anything else: another layout, another type than float32, unknown lengths.
    """
    x = call.args[0].ty if call.args else None
    if not isinstance(x, relax.TensorType) or not isinstance(x.shape, relax.ShapeExpr):
        return None
    if str(x.dtype) != "float32" or not 3 <= x.ndim <= 5:
        return None
    if not all(isinstance(length, tirx.IntImm) for length in x.shape.values):
        return None
    name = str(getattr(call.op, "name", "")).removeprefix("relax.").removeprefix("nn.")
    if name in ("mean", "max"):
        axes = {int(axis) % x.ndim for axis in call.attrs.axis or ()}
        if axes != set(range(2, x.ndim)) or not call.attrs.keepdims:
            return None
        return GlobalPooling("max" if name == "max" else "average")
    if name not in _POOLS or call.attrs.layout != "NC" + "DHW"[5 - x.ndim :]:
        return None
    return _window(name, call, [int(length) for length in x.shape.values[2:]])


_POOLS = {f"{kind}_pool{axes}d" for kind in ("max", "avg", "adaptive_avg") for axes in (1, 2, 3)}


def _window(name: str, call: relax.Call, lengths: Sequence[int]) -> Pooling | Adaptive | GlobalPooling | None:
    """One of relax.nn's pools."""
    attrs, kind = call.attrs, "max" if name.startswith("max") else "average"
    if name.startswith("adaptive"):
        bins = [int(count) for count in attrs.output_size or lengths]
        if all(count == 1 for count in bins):
            return GlobalPooling(kind)
        return Adaptive(kind) if lengths[-1] % bins[-1] == 0 or bins[-1] <= _BINS else None
    pads = [int(pad) for pad in attrs.padding]
    half = len(pads) // 2
    kernel, strides, dilations = (
        tuple(map(int, values)) for values in (attrs.pool_size, attrs.strides, attrs.dilation)
    )
    around = tuple(zip(pads[:half], pads[half:], strict=True))
    return Pooling(kind, kernel, strides, dilations, around, bool(attrs.count_include_pad))
