"""What a convolution computes, phase by phase, and the walk over its outputs, tile by tile.

A convolution is a sum over taps: the output at place j of a phase is the sum over taps t and channels c of
``weight[t, c] * input[j * step + offset[t], c]``. It has one phase, whose step is its stride. A transposed
convolution with stride s has s phases along each axis (its outputs at p, p + s, p + 2s, …), each of which
is a convolution of step 1 with every s-th tap, so no zero is ever multiplied.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from edgekit.backends.tvm.loops import Index, Kernel, ceil_div, product
from edgekit.backends.tvm.tensor import Halo


@dataclass(frozen=True)
class Line:
    """One phase along one axis: output ``first + step_out * j`` reads inputs ``step * j + offset + t * tap``.

    Attributes:
        first: First output.
        step_out: From one output to the next.
        count: Outputs.
        step: Of the input, from one output to the next.
        offset: Input of the first tap, for j = 0.
        tap: Of the input, from one tap to the next.
        taps: Which weights along this axis, in order.
    """

    first: int
    step_out: int
    count: int
    step: int
    offset: int
    tap: int
    taps: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, int]:
        """Smallest and largest input that is read."""
        far = self.offset + (self.count - 1) * self.step
        span = (len(self.taps) - 1) * self.tap
        return self.offset + min(span, 0), far + max(span, 0)


@dataclass(frozen=True)
class Convolution:
    """What is computed.

    Attributes:
        kernel: Taps along each axis.
        strides: Along each axis.
        dilations: Along each axis.
        pads: Zeros before the first input along each axis; of the output, where transposed.
        groups: Of channels that do not mix.
        transposed: Whether it is the transpose (ONNX ConvTranspose).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    def lines(self, lengths: Sequence[int]) -> list[list[Line]]:
        """The phases along each axis.

        Args:
            lengths: Of the output's spatial axes.
        """
        axes = zip(self.kernel, self.strides, self.dilations, self.pads, lengths, strict=True)
        if not self.transposed:
            return [[Line(0, 1, n, s, -pad, d, tuple(range(k)))] for k, s, d, pad, n in axes]
        return [list(_phases(*axis)) for axis in axes]

    def halo(self, lengths: Sequence[int], results: Sequence[int]) -> Halo:
        """Zeros that the input needs around its spatial axes.

        Args:
            lengths: Of the input's spatial axes.
            results: Of the output's.
        """
        halo = []
        for length, lines in zip(lengths, self.lines(results), strict=True):
            reaches = [line.reach for line in lines if line.taps]
            least, most = min(low for low, _ in reaches), max(high for _, high in reaches)
            halo.append((max(-least, 0), max(most - length + 1, 0)))
        return tuple(halo)


def convolution_problem(call: Any, kernel: tuple[int, ...]) -> Convolution:
    """What a call of Relax computes.

    Args:
        call: Of ``relax.nn.conv1d`` and its kind.
        kernel: Taps along each axis.
    """
    attributes = call.attrs
    return Convolution(
        kernel=kernel,
        strides=tuple(int(n) for n in attributes.strides),
        dilations=tuple(int(n) for n in attributes.dilation),
        pads=tuple(int(pad) for pad in attributes.padding)[: len(kernel)],
        groups=int(attributes.groups),
        transposed="transpose" in call.op.name,
    )


def _phases(taps: int, stride: int, dilation: int, pad: int, length: int) -> Iterator[Line]:
    """The phases of a transposed convolution along one axis."""
    for phase in range(min(stride, length)):
        count = ceil_div(length - phase, stride)
        used = [t for t in range(taps) if (phase + pad - t * dilation) % stride == 0]
        offsets = [(phase + pad - t * dilation) // stride for t in used]
        tap = offsets[1] - offsets[0] if len(used) > 1 else 0
        yield Line(phase, stride, count, 1, offsets[0] if used else 0, tap, tuple(used))


@dataclass(frozen=True)
class Tiling:
    """How a kernel goes about it: what tuning chooses.

    Attributes:
        vectors: Blocks of output channels that are computed together.
        rows: Places along the last axis but one.
        columns: Places along the last axis.
        channels_first: Whether a thread goes through all places before the next channels; else the other way.
        depth: Input channels that one load brings; more than 1 where the processor multiplies by elements.
    """

    vectors: int
    rows: int
    columns: int
    channels_first: bool = True
    depth: int = 1


# (first place of the tile, phase, its first tap among all phases', places along the last axis)
Body = Callable[[list[Index], Sequence[Line], int, int], None]


def every(
    kernel: Kernel,
    batches: int,
    groups: int,
    axes: Sequence[Sequence[Line]],
    plan: Tiling,
    body: Callable[[Index, Index, list[Index], Sequence[Line], int, int], None],
) -> None:
    """All tiles of all groups of outputs, shared out among the threads in the plan's order.

    Args:
        kernel: What is being written.
        batches: Samples.
        groups: Of outputs that are computed together.
        axes: The phases along each axis.
        plan: The tile, and the order.
        body: Writes one tile: from the batch and the group, then as :func:`walk` calls it.
    """
    outer = outer_lengths(axes, plan.rows)
    order = [groups, *outer] if plan.channels_first else [*outer, groups]
    with kernel.parallel(batches, *order) as (batch, *rest):
        group, row = (rest[0], rest[1:]) if plan.channels_first else (rest[-1], rest[:-1])
        tile = functools.partial(body, batch, group)
        walk(kernel, axes, row, plan.rows, lambda count: min(plan.columns, count), tile)


def shifts(phase: Sequence[Line], rows: int, columns: int) -> list[tuple[int, ...]]:
    """From a tile's first place to its places, row by row.

    Args:
        phase: The tile's.
        rows: Along the last axis but one, where there is one.
        columns: Along the last axis.
    """
    places = itertools.product(range(rows if len(phase) > 1 else 1), range(columns))
    return [(*(0 for _ in phase[2:]), *place)[-len(phase) :] for place in places]


def outer_lengths(axes: Sequence[Sequence[Line]], rows: int) -> list[int]:
    """Lengths of the loops around :func:`walk`: all axes but the last.

    Args:
        axes: The phases along each axis.
        rows: Places of a tile along the last axis but one.
    """
    *outer, _ = [max(line.count for line in axis) for axis in axes]
    if outer:
        outer[-1] = ceil_div(outer[-1], rows)
    return outer


def walk(
    kernel: Kernel,
    axes: Sequence[Sequence[Line]],
    row: Sequence[Index],
    rows: int,
    columns: Callable[[int], int],
    body: Body,
) -> None:
    """All tiles of all phases along the last axis. A tile that would end late overlaps the one before.

    Args:
        kernel: What is being written.
        axes: The phases along each axis.
        row: Indices of the loops of :func:`outer_lengths`.
        rows: Places of a tile along the last axis but one; at most as many as the shortest phase has.
        columns: From the places along the last axis to those of a tile, which are at most as many.
        body: Writes one tile.
    """
    first_tap = 0
    for phase in itertools.product(*axes):
        inside: Any = True
        start = list(row)
        for axis, line in enumerate(phase[:-1]):
            tall = rows if axis == len(phase) - 2 else 1
            if line.count < max(other.count for other in axes[axis]) or tall > 1:
                inside = _both(inside, row[axis] * tall < line.count)
            if tall > 1:
                start[axis] = tirx.min(row[axis] * tall, line.count - tall)
        count = phase[-1].count
        wide = columns(count)
        with kernel.when(inside), kernel.loop(ceil_div(count, wide)) as part:
            place = part * wide if count % wide == 0 else tirx.min(part * wide, count - wide)
            body([*start, place], phase, first_tap, wide)
        first_tap += product([len(line.taps) for line in phase])


def result_place(start: Sequence[Index], phase: Sequence[Line], shift: Sequence[int]) -> list[Index]:
    """Where in the result a place of a tile is.

    Args:
        start: The tile's first place.
        phase: The tile's.
        shift: From the first place, along each axis.
    """
    places = zip(start, shift, phase, strict=True)
    return [(place + by) * line.step_out + line.first for place, by, line in places]


def input_place(start: Sequence[Index], phase: Sequence[Line], taps: Sequence[Index]) -> list[Index]:
    """Where in the input the first place of a tile reads at a tap; the next ones are ``step`` further.

    Args:
        start: The tile's first place.
        phase: The tile's.
        taps: Along each axis.
    """
    places = zip(start, taps, phase, strict=True)
    return [place * line.step + line.offset + tap * line.tap for place, tap, line in places]


def flat_tap(phase: Sequence[Line], taps: Sequence[Index]) -> Index:
    """Number of a tap within its phase."""
    number: Index = 0
    for tap, line in zip(taps, phase, strict=True):
        number = number * len(line.taps) + tap
    return number


def _both(first: Any, second: Any) -> Any:
    return second if first is True else tirx.all(first, second)
