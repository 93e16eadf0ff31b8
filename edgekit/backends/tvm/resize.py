"""Resampling of images and volumes on a regular grid: nearest, linear and cubic, axis by axis.

Along each axis an output is a sum of inputs, its taps, whose places and weights are known when the network is
compiled. A row of the result is computed in two steps: the rows that it lies between are summed up with their
weights, and that sum is resampled along the row. So a trilinear output costs four multiplications where the
grid is doubled, not eight.

Where the grid is made finer or coarser by a ratio of small numbers, weights repeat: they are constants of a
loop over the periods. Else, as with aligned corners, they come from tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, tirx

from edgekit.backends.tvm import reduction
from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import Buffer, Expr, Function, Index, Kernel, broadcast, constant
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.errors import CompileError

METHODS = {"nearest": 1, "linear": 2, "cubic": 4}
COORDINATES = (
    *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn"),
    *("align_corners", "asymmetric"),
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
# Outputs of a period that are written out.
_PERIOD = 8


@dataclass(frozen=True)
class Resize:
    """What is computed; the scales are the ratios of the lengths.

    Attributes:
        method: One of :data:`METHODS`.
        coordinates: One of :data:`COORDINATES`, by the names of ONNX.
        rounding: For nearest: one of :data:`ROUNDINGS`.
        cubic: For cubic: the kernel's coefficient, a in ONNX.
        exclude_outside: For cubic: whether inputs beyond the border weigh nothing; else it is repeated.
    """

    method: str
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False


@dataclass(frozen=True)
class Taps:
    """One axis.

    Attributes:
        places: Inputs, (outputs, taps).
        weights: Of the same shape.
    """

    places: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def outputs(self) -> int:
        """Length of the result's axis."""
        return len(self.places)

    @property
    def count(self) -> int:
        """Taps of each output."""
        return len(self.places[0])

    def period(self) -> tuple[int, int, range] | None:
        """How the weights repeat.

        Returns:
            Outputs and inputs of a period, and the outputs between which that is so, a whole number of
            periods; None where it takes long, or holds nowhere.
        """
        middle = self.outputs // 2
        for outputs in range(1, min(_PERIOD, self.outputs // 2) + 1):
            step = int(self.places[min(middle + outputs, self.outputs - 1), 0] - self.places[middle, 0])
            same = (self.places[outputs:] == self.places[:-outputs] + step).all(1)
            same &= (self.weights[outputs:] == self.weights[:-outputs]).all(1)
            # The border's are few.
            different = np.nonzero(~same)[0]
            first = int(different[different < middle].max(initial=-1)) + 1
            last = int(different[different >= middle].min(initial=same.size)) + outputs
            count = (last - first) // outputs
            if count >= 2 and 2 * count * outputs >= self.outputs:
                return outputs, step, range(first, first + count * outputs)
        return None


def taps(problem: Resize, length: int, outputs: int) -> Taps:
    """The taps along one axis.

    Args:
        problem: What is computed.
        length: Of the input.
        outputs: Length of the result.
    """
    if length == outputs:
        return Taps(np.arange(length, dtype=np.int32)[:, None], np.ones((length, 1), np.float32))
    places, weights = [], []
    for output in range(outputs):
        at = _coordinate(problem.coordinates, output, length, outputs)
        if problem.method == "nearest":
            found, share = [_rounded(problem.rounding, at)], [1.0]
        else:
            base = math.floor(at)
            t = float(at - base)
            found = [base, base + 1] if problem.method == "linear" else list(range(base - 1, base + 3))
            share = [1 - t, t] if problem.method == "linear" else _cubic(t, problem.cubic)
        if problem.exclude_outside and problem.method == "cubic":
            share = [w if 0 <= p < length else 0.0 for w, p in zip(share, found, strict=True)]
            share = [w / sum(share) for w in share]
        places.append([min(max(p, 0), length - 1) for p in found])
        weights.append(share)
    return Taps(np.array(places, np.int32), np.array(weights, np.float32))


def _coordinate(mode: str, output: int, length: int, outputs: int) -> Fraction:
    """Where an output lies in the input, exactly."""
    scale = Fraction(length, outputs)
    half = Fraction(1, 2)
    if mode == "align_corners":
        return Fraction(output * (length - 1), outputs - 1) if outputs > 1 else Fraction(0)
    if mode == "asymmetric":
        return output * scale
    if mode == "tf_half_pixel_for_nn":
        return (output + half) * scale
    if mode == "pytorch_half_pixel" and outputs == 1:
        return Fraction(0)
    return (output + half) * scale - half


def _rounded(mode: str, at: Fraction) -> int:
    half = Fraction(1, 2)
    if mode == "floor":
        return math.floor(at)
    if mode == "ceil":
        return math.ceil(at)
    return math.floor(at + half) if mode == "round_prefer_ceil" else math.ceil(at - half)


def _cubic(t: float, a: float) -> list[float]:
    """Keys' weights (1981)."""
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (1 + t, 2 - t)]
    return [far[0], *near, far[1]]


def tables(problem: Resize, lengths: Sequence[int], outputs: Sequence[int]) -> list[NDArray[Any]]:
    """The kernel's arguments after the input: for each axis that changes places, then weights.

    Args:
        problem: What is computed.
        lengths: Of the input's spatial axes.
        outputs: Of the result's.

    Returns:
        Two arrays of shape (taps, outputs) for each axis.
    """
    arrays: list[NDArray[Any]] = []
    for length, count in zip(lengths, outputs, strict=True):
        if length != count:
            axis = taps(problem, length, count)
            arrays += [np.ascontiguousarray(axis.places.T), np.ascontiguousarray(axis.weights.T)]
    return arrays


def resize(name: str, problem: Resize, x: Tensor, output: Output, processor: Processor) -> Function:
    """The kernel: arguments are the input, :func:`tables`, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed.
        x: The input: any halo.
        output: Its tensor has the input's block.
        processor: What it runs on.

    Raises:
        CompileError: The blocks differ.
    """
    result = output.tensor
    if x.layout.block != result.layout.block:
        raise CompileError(
            f"resizing keeps the order of channels: want blocks of {x.layout.block}, "
            f"got {result.layout.block}",
            where=name,
        )
    with Kernel(name) as kernel:
        image = kernel.argument("x", x.memory, x.dtype)
        axes = []
        for number, (length, count) in enumerate(zip(x.shape[2:], result.shape[2:], strict=True)):
            axis = taps(problem, length, count)
            if length == count:
                axes.append(_Axis(axis, None, None))
                continue
            shape = (axis.count, count)
            places = kernel.argument(f"places_{number}", shape, "int32")
            axes.append(_Axis(axis, places, kernel.argument(f"weights_{number}", shape)))
        nest = _Nest(kernel, x, image, axes, output.arguments(kernel), processor)
        nest.write()
        nest.writer.clear_halo()
    return kernel.function


@dataclass(frozen=True)
class _Axis:
    """One axis with its tables in memory, where it has any."""

    taps: Taps
    places: Buffer | None
    weights: Buffer | None


@dataclass(frozen=True)
class _Nest:
    """What the loops have in common."""

    kernel: Kernel
    x: Tensor
    image: Any
    axes: Sequence[_Axis]
    writer: Writer
    processor: Processor

    def write(self) -> None:
        """All rows."""
        result, kernel = self.writer.output.tensor, self.kernel
        *outer, _ = result.shape[2:]
        block, length = self.x.layout.block, self.x.shape[-1]
        with kernel.parallel(result.shape[0], result.blocks, *outer) as (batch, number, *row):
            place = [batch, number * block]
            sources = self._sources(row)
            if len(sources) == 1 and self.axes[-1].places is None:
                self._copy([*place, *row], [*place, *sources[0][0]], sources[0][1])
                return
            if len(sources) == 1 and sources[0][1] is None:
                start = [*place, *sources[0][0]]

                def load(column: Index, width: int) -> Expr:
                    return self.x.load(kernel, self.image, [*start, column], self.x.vector_axis, width)

                self._along([*place, *row], load)
                return
            blend = kernel.scratch((length * block,))
            self._blend(blend, place, sources)

            def load_blend(column: Index, width: int) -> Expr:
                return kernel.load(blend, (column * block,), width)

            self._along([*place, *row], load_blend)

    def _sources(self, row: Sequence[Index]) -> list[tuple[list[Index], Expr | None]]:
        """The input's rows that a row lies between, with their weights; None for 1."""
        kernel = self.kernel
        sources: list[tuple[list[Index], Expr | None]] = [([], None)]
        for axis, index in zip(self.axes, row, strict=False):
            if axis.places is None:
                sources = [([*place, index], weight) for place, weight in sources]
                continue
            found = []
            for tap in range(axis.taps.count):
                place = kernel.let(kernel.load(axis.places, (tap, index)))
                weight = kernel.let(kernel.load(axis.weights, (tap, index))) if axis.taps.count > 1 else None
                found.append((place, weight))
            sources = [
                ([*start, place], _product(kernel, before, weight))
                for start, before in sources
                for place, weight in found
            ]
        return sources

    def _blend(self, blend: Buffer, place: list[Index], sources: Sequence[tuple[list[Index], Any]]) -> None:
        """The weighted sum of the input's rows."""
        kernel, block = self.kernel, self.x.layout.block

        def add(column: Index, width: int) -> None:
            kernel.store(blend, (column * block,), self._sum(place, sources, column, width), width)

        reduction.columns(kernel, self.x, self.processor, add, unroll=2)

    def _sum(
        self, place: list[Index], sources: Sequence[tuple[list[Index], Any]], column: Index, width: int
    ) -> Expr:
        total: Any = None
        for row, weight in sources:
            index = [*place, *row, column]
            value = self.x.load(self.kernel, self.image, index, self.x.vector_axis, width)
            if weight is not None:
                value = value * broadcast(weight, width)
            total = value if total is None else total + value
        return total

    def _copy(self, to: list[Index], start: list[Index], weight: Any) -> None:
        """A row that is one of the input's."""
        axis = self.x.vector_axis

        def put(column: Index, width: int) -> None:
            value = self._sum(start[:2], [(start[2:], weight)], column, width)
            self.writer.put([*to, column], axis, value, width)

        reduction.columns(self.kernel, self.x, self.processor, put, unroll=2)

    def _along(self, to: list[Index], load: Any) -> None:
        """A row of the result from one of the input's length."""
        axis, result = self.axes[-1], self.writer.output.tensor
        block = self.x.layout.block
        if axis.places is None:
            reduction.columns(
                self.kernel,
                self.x,
                self.processor,
                lambda column, width: self.writer.put(
                    [*to, column], self.x.vector_axis, load(column, width), width
                ),
            )
            return
        period = axis.taps.period() if block > 1 else None
        if period is None:
            reduction.columns(
                self.kernel,
                result,
                self.processor,
                lambda column, width: self._tabled(to, load, column, width),
            )
            return
        outputs, step, inside = period
        for column in (*range(inside.start), *range(inside.stop, axis.taps.outputs)):
            self._constant(to, load, column, column, 0)
        with self.kernel.loop(len(inside) // outputs) as number:
            for phase in range(inside.start, inside.start + outputs):
                self._constant(to, load, phase, number * outputs + phase, number * step)

    def _constant(self, to: list[Index], load: Any, known: int, column: Index, shift: Index) -> None:
        """An output whose weights are those of a known one, and its places too but for a shift."""
        taps, block = self.axes[-1].taps, self.x.layout.block
        total: Any = None
        for place, weight in zip(taps.places[known].tolist(), taps.weights[known].tolist(), strict=True):
            if weight == 0:
                continue
            value = load(place + shift, block)
            value = value if weight == 1 else value * constant(weight, block)
            total = value if total is None else total + value
        self.writer.put([*to, column], 1, total, block)

    def _tabled(self, to: list[Index], load: Any, column: Index, width: int) -> None:
        """A vector of outputs by the tables."""
        axis, kernel, block = self.axes[-1], self.kernel, self.x.layout.block
        total: Any = None
        for tap in range(axis.taps.count):
            if block > 1:
                value = load(kernel.load(axis.places, (tap, column)), block)
                weight = broadcast(kernel.load(axis.weights, (tap, column)), block)
            else:
                numbers = [load(kernel.load(axis.places, (tap, column + lane)), 1) for lane in range(width)]
                value = tirx.Shuffle(numbers, list(range(width))) if width > 1 else numbers[0]
                weight = kernel.load(axis.weights, (tap, column), width)
            value = value * weight if axis.taps.count > 1 else value
            total = value if total is None else total + value
        self.writer.put([*to, column], self.x.vector_axis, total, width)


def _product(kernel: Kernel, x: Expr | None, y: Expr | None) -> Expr | None:
    if x is None or y is None:
        return x if y is None else y
    return kernel.let(x * y)


def resize_problem(call: relax.Call) -> Resize | None:
    """What a call of relax.image.resize2d or resize3d computes.

    Returns:
        None where it crops (tf_crop_and_resize), and for another layout or type than float32.
    """
    name = str(getattr(call.op, "name", ""))
    if name not in ("relax.image.resize2d", "relax.image.resize3d"):
        return None
    attrs, x = call.attrs, call.args[0].ty
    method = {"nearest_neighbor": "nearest"}.get(str(attrs.method), str(attrs.method))
    known = method in METHODS and str(attrs.coordinate_transformation_mode) in COORDINATES
    if not known or attrs.layout not in ("NCHW", "NCDHW") or str(x.dtype) != "float32" or attrs.out_dtype:
        return None
    lengths, outputs = x.shape.values[2:], call.args[1].values
    if not all(isinstance(length, tirx.IntImm) for length in (*lengths, *outputs)):
        return None
    rounding = str(attrs.rounding_method)
    if method == "nearest" and rounding not in ROUNDINGS:
        # ONNX's old Upsample comes with Relax's default; what it means is to repeat each place.
        whole = all(int(m) % int(n) == 0 for n, m in zip(lengths, outputs, strict=True))
        if rounding != "round" or attrs.coordinate_transformation_mode != "asymmetric" or not whole:
            return None
        rounding = "floor"
    return Resize(
        method,
        str(attrs.coordinate_transformation_mode),
        rounding if method == "nearest" else "round_prefer_floor",
        float(attrs.cubic_alpha),
        bool(attrs.cubic_exclude),
    )
