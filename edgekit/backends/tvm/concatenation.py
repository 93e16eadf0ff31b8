"""Copies: concatenations, slices and paddings along any axes, with a chain on the way.

Each is a list of boxes: a part of the result, and where in which input it comes from. With channels in blocks
a box's channels need not begin where a block does. Then a vector of the result is put together from the
blocks that its channels lie in, by a permutation that LLVM knows when it compiles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax, tirx

from edgekit.backends.tvm import reduction
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Expr, Function, Index, Kernel, ceil_div, constant, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor

# Given a place in the result, one in the input (None for the constant) and a number of columns.
Write = Callable[[list[Index], "list[Index] | None", int], None]

# With fewer rows than this, blocks of channels are shared out among threads instead.
_ROWS = 4
# With more inputs than this, compiling takes longer than copying.
_UNROLLED = 4
MODES = ("constant", "edge", "reflect", "wrap")


@dataclass(frozen=True)
class Along:
    """A box along one axis: the result at ``first + i`` is the input at ``start + i * step``.

    Attributes:
        first: Place in the result.
        count: How many.
        start: Place in the input; it may lie outside.
        step: Of the input.
        length: Of the input.
        mode: What is outside: one of :data:`MODES`.
    """

    first: int
    count: int
    start: int
    step: int
    length: int
    mode: str = "constant"

    @property
    def inside(self) -> range:
        """The i whose input exists."""
        steps = np.arange(self.count) * self.step + self.start
        (found,) = np.nonzero((steps >= 0) & (steps < self.length))
        return range(int(found[0]), int(found[-1]) + 1) if found.size else range(0)

    def place(self, i: Index) -> Index:
        """The input's place for an i; outside the constant mode's reach it is one inside."""
        place, last = i * self.step + self.start, self.length - 1
        if len(self.inside) == self.count or self.mode == "constant":
            return place
        if self.mode == "wrap":
            return (place + self.length) % self.length
        least, most = (max, min) if isinstance(place, int) else (tirx.max, tirx.min)
        if self.mode == "edge":
            return most(least(place, 0), last)
        # Away from the first, then from the last.
        place = least(place, 0 - place)
        return most(place, 2 * last - place)

    def exists(self, i: Expr) -> Expr:
        """Whether the input has a place for an i; True where it always has, or always is given one."""
        if self.mode != "constant" or len(self.inside) == self.count:
            return True
        return tirx.all(i >= self.inside.start, i < self.inside.stop)


@dataclass(frozen=True)
class Box:
    """A part of the result.

    Attributes:
        source: Number of the input.
        axes: All axes.
    """

    source: int
    axes: tuple[Along, ...]


@dataclass(frozen=True)
class Copy:
    """What is copied.

    Attributes:
        boxes: They cover the result.
        value: What is outside in mode "constant".
    """

    boxes: tuple[Box, ...]
    value: float = 0.0


def concatenation(shapes: Sequence[Sequence[int]], axis: int) -> Copy:
    """Inputs one after the other.

    Args:
        shapes: Of the inputs.
        axis: Not negative.
    """
    boxes, first = [], 0
    for source, shape in enumerate(shapes):
        axes = [Along(0, length, 0, 1, length) for length in shape]
        axes[axis] = replace(axes[axis], first=first)
        first += shape[axis]
        boxes.append(Box(source, tuple(axes)))
    return Copy(tuple(boxes))


def slices(shape: Sequence[int], starts: Sequence[int], steps: Sequence[int], counts: Sequence[int]) -> Copy:
    """Every so many places of each axis, from a start on; a split's parts are slices too."""
    axes = zip(counts, starts, steps, shape, strict=True)
    return Copy((Box(0, tuple(Along(0, *axis) for axis in axes)),))


def padding(shape: Sequence[int], pads: Sequence[tuple[int, int]], mode: str, value: float = 0.0) -> Copy:
    """More places before and after each axis; fewer where negative.

    Args:
        shape: Of the input.
        pads: Before and after each axis.
        mode: One of :data:`MODES`.
        value: Of mode "constant".
    """
    axes = zip(shape, pads, strict=True)
    box = [Along(0, before + n + after, -before, 1, n, mode) for n, (before, after) in axes]
    return Copy((Box(0, tuple(box)),), value)


def copy(name: str, problem: Copy, xs: Sequence[Tensor], output: Output, processor: Processor) -> Function:
    """The kernel: arguments are the inputs, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is copied.
        xs: The inputs, in any order and with any halo.
        output: Of any order.
        processor: What it runs on.
    """
    with Kernel(name) as kernel:
        buffers = [kernel.argument(f"x_{i}", x.memory, x.dtype) for i, x in enumerate(xs)]
        nest = _Nest(kernel, problem, list(xs), buffers, output.arguments(kernel), processor)
        nest.write()
        nest.writer.clear_halo()
    return kernel.function


@dataclass(frozen=True)
class _Run:
    """Neighbouring blocks of the result whose lanes come from the inputs' blocks in the same way.

    Attributes:
        first: Block of the result.
        count: Blocks.
        sources: Numbers of inputs; None for the constant.
        blocks: Of each source, which of its blocks belongs to the first.
        step: From there to the next.
        lanes: Of the sources' blocks, side by side.
    """

    first: int
    count: int
    sources: tuple[int | None, ...]
    blocks: tuple[int, ...]
    step: int
    lanes: tuple[int, ...]


@dataclass(frozen=True)
class _Nest:
    """What the loops have in common."""

    kernel: Kernel
    problem: Copy
    xs: list[Tensor]
    buffers: list[Any]
    writer: Writer
    processor: Processor

    @property
    def _result(self) -> Tensor:
        return self.writer.output.tensor

    @property
    def _numbers(self) -> str:
        """The type of what is copied; a chain may write another."""
        return self.xs[0].numbers

    def write(self) -> None:
        """All boxes."""
        if self._result.layout.block == 1:
            for box in self.problem.boxes:
                self._plain(box)
            return
        groups: dict[tuple[Along, ...], list[Box]] = {}
        for box in self.problem.boxes:
            groups.setdefault((box.axes[0], *box.axes[2:]), []).append(box)
        for axes, boxes in groups.items():
            self._blocked(axes, self._runs(self._channels(boxes)))

    def _channels(self, boxes: Sequence[Box]) -> list[tuple[int, int] | None]:
        """The input and the channel of each channel of the result; None for the constant."""
        channels: list[tuple[int, int] | None] = [None] * self._result.shape[1]
        for box in boxes:
            along = box.axes[1]
            for i in range(along.count):
                if along.mode != "constant" or i in along.inside:
                    channels[along.first + i] = (box.source, int(along.place(i)))
        return channels

    def _runs(self, channels: list[tuple[int, int] | None]) -> list[_Run]:
        """Blocks of the result, as few runs of them as there are patterns."""
        size, runs = self._result.layout.block, list[_Run]()
        # Lanes beyond the last channel may hold anything.
        channels = channels + [channels[-1]] * (-len(channels) % size)
        for number in range(len(channels) // size):
            new = self._pattern(number, channels[number * size : (number + 1) * size])
            old = runs[-1] if runs else new
            step = (new.blocks[0] - old.blocks[0]) // max(old.count, 1)
            moved = tuple(block + step * old.count for block in old.blocks)
            same = (old.sources, old.lanes, moved) == (new.sources, new.lanes, new.blocks)
            if runs and same and (old.count == 1 or step == old.step):
                runs[-1] = replace(old, count=old.count + 1, step=step)
            else:
                runs.append(new)
        return runs

    def _pattern(self, number: int, channels: Sequence[tuple[int, int] | None]) -> _Run:
        places: list[tuple[int | None, int]] = []
        lanes = []
        for entry in channels:
            source = entry[0] if entry else None
            block = self.xs[source].layout.block if source is not None else 1
            channel = entry[1] if entry else 0
            place = (source, channel // block)
            if place not in places:
                places.append(place)
            offset = sum(self._width(other) for other, _ in places[: places.index(place)])
            lanes.append(offset + channel % block)
        return _Run(number, 1, tuple(s for s, _ in places), tuple(b for _, b in places), 0, tuple(lanes))

    def _width(self, source: int | None) -> int:
        """Lanes that are loaded of a source: its block, or a number that is repeated."""
        block = self.xs[source].layout.block if source is not None else 1
        return block if block > 1 else self._result.layout.block

    def _blocked(self, axes: tuple[Along, ...], runs: Sequence[_Run]) -> None:
        """A box with channels in blocks."""
        *outer, last = axes
        counts = [along.count for along in outer]
        kernel = self.kernel
        if product(counts) >= _ROWS:
            with kernel.parallel(*counts) as index:
                row = list(index) if len(counts) > 1 else [index]
                for run in runs:
                    with kernel.loop(run.count) as number:
                        self._row(outer, last, row, self._block_writer(run, number), 1)
            return
        for run in runs:
            with kernel.parallel(*counts, run.count) as (*row, number):
                self._row(outer, last, row, self._block_writer(run, number), 1)

    def _row(
        self, outer: Sequence[Along], last: Along, row: Sequence[Index], write: Write, width: int
    ) -> None:
        """Vectors whose input exists in a loop, the others' columns one by one.

        Args:
            outer: Axes but the last; without that of channels where those are in blocks.
            last: The last axis.
            row: Number along each outer axis.
            write: Writes a vector.
            width: Columns in a vector.
        """
        kernel, inside = self.kernel, last.inside
        to = [along.first + i for along, i in zip(outer, row, strict=True)]
        with self._cases(outer, row) as cases:
            for condition, exists in cases:
                with kernel.when(condition):
                    start = [along.place(i) for along, i in zip(outer, row, strict=True)]
                    for i in (*range(inside.start), *range(inside.stop, last.count)):
                        given = exists and last.mode != "constant"
                        write([*to, last.first + i], [*start, last.place(i)] if given else None, 1)
                    with kernel.loop(self._hidden(ceil_div(len(inside), width), row[-1:])) as part:
                        i = part * width + inside.start
                        if len(inside) % width:
                            i = tirx.min(i, inside.stop - width)
                        place = [*start, i * last.step + last.start] if exists else None
                        write([*to, last.first + i], place, width)

    def _hidden(self, length: int, row: Sequence[Index]) -> Index:
        """A loop's length, kept from LLVM where there are many loops: it would write out every one of them.

        No row has so large a number, which neither LLVM nor TVM proves.
        """
        if len(self.xs) <= _UNROLLED or not row:
            return length
        return length + tirx.bitwise_and(row[0], 1 << 30)

    @contextlib.contextmanager
    def _cases(self, outer: Sequence[Along], row: Sequence[Index]) -> Iterator[list[tuple[Any, bool]]]:
        """Whether a row's input exists: one case or two."""
        conditions = [along.exists(i) for along, i in zip(outer, row, strict=True)]
        asked = [condition for condition in conditions if condition is not True]
        if not asked:
            yield [(True, True)]
            return
        exists = self.kernel.let(tirx.all(*asked))
        yield [(exists, True), (tirx.Not(exists), False)]

    def _block_writer(self, run: _Run, number: Index) -> Write:
        """What writes a vector of a run's block."""
        size, lanes = self._result.layout.block, list(run.lanes)

        def write(to: list[Index], place: list[Index] | None, width: int) -> None:
            index = [to[0], (number + run.first) * size, *to[1:]]
            if place is None:
                value = constant(self.problem.value, size, self._numbers)
            else:
                pairs = zip(run.sources, run.blocks, strict=True)
                parts = [self._part(source, number * run.step + block, place) for source, block in pairs]
                whole = len(parts) == 1 and lanes == list(range(self._width(run.sources[0])))
                # TVM wants no more indices than there are lanes.
                lacking = ceil_div(size, sum(self._width(source) for source in run.sources))
                value = parts[0] if whole else tirx.Shuffle(parts * lacking, lanes)
            self.writer.put(index, 1, value, size)

        return write

    def _part(self, source: int | None, block: Index, place: list[Index]) -> Expr:
        """A block of an input."""
        if source is None:
            return constant(self.problem.value, self._width(None), self._numbers)
        x = self.xs[source]
        index = [place[0], block * x.layout.block, *place[1:]]
        value = x.read(self.kernel, self.buffers[source], x.address(index), x.layout.block)
        return value if x.layout.block > 1 else tirx.Broadcast(value, self._width(source))

    def _plain(self, box: Box) -> None:
        """A box in the order of ONNX."""
        *outer, last = box.axes
        width = reduction.row_vector(max(len(last.inside), 1), 4 * self.processor.lanes)
        with self.kernel.parallel(*([along.count for along in outer] or [1])) as index:
            row = list(index) if len(outer) > 1 else [index] if outer else []
            self._row(outer, last, row, self._row_writer(box.source, last.step), width)

    def _row_writer(self, source: int, step: int) -> Write:
        """What writes a vector along the last axis."""
        x, buffer, axis = self.xs[source], self.buffers[source], len(self._result.shape) - 1

        def write(to: list[Index], place: list[Index] | None, width: int) -> None:
            if place is None:
                value = constant(self.problem.value, width, self._numbers)
            elif step == 1 or width == 1:
                value = x.load(self.kernel, buffer, place, axis, width)
            else:
                *outer, column = place
                places = [[*outer, column + lane * step] for lane in range(width)]
                numbers = [x.read(self.kernel, buffer, x.address(place)) for place in places]
                value = tirx.Shuffle(numbers, list(range(width)))
            self.writer.put(to, axis, value, width)

        return write


def copy_problem(call: relax.Call, part: int = 0) -> Copy | None:
    """What a call of concat, split, strided_slice or relax.nn.pad copies.

    Args:
        call: Of Relax.
        part: Which of a split's results.

    Returns:
        None for anything else, unknown lengths, and bounds that are computed.
    """
    name = str(getattr(call.op, "name", ""))
    if name not in _CALLS:
        return None
    given = call.args[0]
    values = list(given.fields) if isinstance(given, relax.Tuple) else [given]
    shapes = [_shape(value) for value in values]
    known = [shape for shape in shapes if shape]
    return _CALLS[name](call, known, part) if len(known) == len(shapes) else None


def _shape(value: Any) -> tuple[int, ...] | None:
    shape = value.ty.shape if isinstance(value.ty, relax.TensorType) else None
    if not isinstance(shape, relax.ShapeExpr) or not all(isinstance(n, tirx.IntImm) for n in shape.values):
        return None
    return tuple(int(n) for n in shape.values)


def _concat(call: relax.Call, shapes: list[tuple[int, ...]], part: int) -> Copy | None:
    if call.attrs.axis is None:
        return None
    return concatenation(shapes, int(call.attrs.axis) % len(shapes[0]))


def _split(call: relax.Call, shapes: list[tuple[int, ...]], part: int) -> Copy | None:
    shape, axis = shapes[0], int(call.attrs.axis) % len(shapes[0])
    where = call.attrs.indices_or_sections
    if isinstance(where, tirx.IntImm):
        size = ceil_div(shape[axis], int(where))
        bounds = [min(i * size, shape[axis]) for i in range(int(where) + 1)]
    else:
        bounds = [0, *(min(int(i), shape[axis]) for i in where), shape[axis]]
    starts, counts = [0] * len(shape), list(shape)
    starts[axis], counts[axis] = bounds[part], bounds[part + 1] - bounds[part]
    return slices(shape, starts, [1] * len(shape), counts) if min(counts) > 0 else None


def _strided_slice(call: relax.Call, shapes: list[tuple[int, ...]], part: int) -> Copy | None:
    shape = shapes[0]
    numbers = [_integers(argument) for argument in call.args[1:]]
    if any(found is None for found in numbers):
        return None
    axes, begins, ends, *strides = [found or [] for found in numbers]
    ranges = [range(length) for length in shape]
    for i, axis in enumerate(axes):
        step = strides[0][i] if strides and strides[0] else 1
        end: int | None = ends[i]
        # TVM's end of a slice that goes down to the first.
        if step < 0 and ends[i] < -shape[axis]:
            end = None
        ranges[axis] = range(*slice(begins[i], end, step).indices(shape[axis]))
    if not all(len(r) for r in ranges):
        return None
    return slices(shape, [r.start for r in ranges], [r.step for r in ranges], [len(r) for r in ranges])


def _integers(argument: Any) -> list[int] | None:
    """A tuple of numbers."""
    fields = list(argument.fields) if isinstance(argument, relax.Tuple) else []
    return [int(f) for f in fields] if all(isinstance(f, tirx.IntImm) for f in fields) else None


def _pad(call: relax.Call, shapes: list[tuple[int, ...]], part: int) -> Copy | None:
    widths = [int(width) for width in call.attrs.pad_width]
    pads = list(zip(widths[::2], widths[1::2], strict=True))
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    mode = modes.get(str(call.attrs.pad_mode))
    return padding(shapes[0], pads, mode, float(call.attrs.pad_value)) if mode else None


_CALLS: dict[str, Callable[[relax.Call, list[tuple[int, ...]], int], Copy | None]] = {
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.nn.pad": _pad,
}
