"""Products of matrices: dense layers, whose second operand is a constant, and attention's, where none is.

A tile of the result, ``rows`` of the first operand times a panel of ``vectors`` of columns, stays in
registers while the kernel runs through the depth: one number of each row is broadcast and multiplied with the
panel's vectors. Panels lie in the order in which they are read: constants are packed at compile time,
computed operands by the kernel, transposed on the way if they have to be. The last tile of either axis
overlaps the one before, so there is no code for borders; a result that is narrower than a panel has a panel
of its width.

A task is a panel and so many rows that their part of the first operand stays in the second-level cache until
the next panel wants it. The depth is never cut: a panel of any depth streams as fast as it is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, tirx
from tvm.tirx.script import builder as script

from edgekit.backends.tvm.elementwise import Output, Writer
from edgekit.backends.tvm.loops import (
    Buffer,
    Expr,
    Function,
    Index,
    Kernel,
    Register,
    broadcast,
    ceil_div,
    constant,
    product,
    transposed,
)
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.backends.tvm.tuned import Tuned

# Tasks that are enough for any number of threads we meet, and rows that are worth one.
_TASKS, _TASK_ROWS = 16, 48
# More rows of a depth of 1024 numbers find no place in the first-level cache: they all fall into one set.
_MOST_ROWS = 8
# (depth, first column within the panel, columns) -> the second operand's numbers
Panel = Callable[[Index, int, int], Expr]
# (row of the tile, depth, numbers from there on) -> the first operand's numbers
Row = Callable[[int, Index, int], Expr]


@dataclass(frozen=True)
class Matmul:
    """What is computed: operands of shape (batch…, rows, depth) and (batch…, depth, columns).

    Attributes:
        a_axes: Of the first tensor, for each axis of the operand: (0, 2, 1) reads it transposed.
        b_axes: Of the second tensor, likewise.
    """

    a_axes: tuple[int, ...]
    b_axes: tuple[int, ...]

    def lengths(self, a: Sequence[int], b: Sequence[int]) -> tuple[tuple[int, ...], int, int, int]:
        """Batch, rows, depth and columns.

        Args:
            a: Shape of the first tensor.
            b: Of the second.
        """
        first, second = [a[axis] for axis in self.a_axes], [b[axis] for axis in self.b_axes]
        batch = np.broadcast_shapes(tuple(first[:-2]), tuple(second[:-2]))
        return tuple(int(n) for n in batch), first[-2], first[-1], second[-1]

    def flat(self, b: Sequence[int]) -> bool:
        """Whether all matrices of the first tensor are one, as the second is the same for all.

        Args:
            b: Shape of the second tensor.
        """
        in_order = self.a_axes == tuple(range(len(self.a_axes)))
        return in_order and all(b[axis] == 1 for axis in self.b_axes[:-2])


def matmul_problem(call: relax.Call) -> Matmul | None:
    """What a call of ``relax.matmul`` computes; None for other types, vectors and open lengths.

    Args:
        call: The call.
    """
    kinds = [argument.ty for argument in call.args]
    for kind in kinds:
        if not isinstance(kind.shape, relax.ShapeExpr) or str(kind.dtype) != "float32" or kind.ndim < 2:
            return None
        if not all(isinstance(length, tirx.IntImm) and int(length) > 0 for length in kind.shape.values):
            return None
    if str(call.ty.dtype) != "float32":
        return None
    first, second = kinds
    return Matmul(tuple(range(first.ndim)), tuple(range(second.ndim)))


@dataclass(frozen=True)
class Tiling:
    """How the kernel goes about it: what tuning chooses.

    Attributes:
        rows: Of a tile.
        pieces: Columns of each vector of a panel; all processor's vectors, or what covers a narrow result.
        task: Rows that a thread takes on before the next panel.
        depth: Numbers of a row that one load brings; more than 1 where the processor multiplies by elements.
    """

    rows: int
    pieces: tuple[int, ...]
    task: int
    depth: int = 1

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return sum(self.pieces)

    def panels(self, columns: int) -> int:
        """How many panels cover the columns; the last one may overlap the one before."""
        return ceil_div(columns, self.width)


def tiling(problem: Matmul, a: Tensor, b: Tensor, processor: Processor, family: str = "matmul") -> Tiling:
    """What was measured, or the rule: the tile that multiplies most for what it reads and repeats least.

    Args:
        problem: What is computed.
        a: The first operand.
        b: The second one.
        processor: What it runs on.
        family: ``"dense"`` where the second operand is a constant.
    """
    candidates = tilings(problem, a, b, processor)
    rule = min(candidates, key=lambda pair: pair[0])[1]
    return (processor.tuned or Tuned()).choice(family, problem, (a, b), candidates, rule)


def tilings(problem: Matmul, a: Tensor, b: Tensor, processor: Processor) -> list[tuple[float, Tiling]]:
    """All tiles that fit into registers, each with an estimate of its time, in no unit."""
    batch, rows, depth, columns = problem.lengths(a.shape, b.shape)
    if problem.flat(b.shape):
        batch, rows = (), product(batch) * rows
    lanes, found = processor.lanes, []
    in_order = problem.a_axes[-1] == len(problem.a_axes) - 1
    at_once = processor.elements if in_order and depth >= processor.elements else 1
    for vectors in range(1, processor.registers - 2):
        pieces = _pieces(columns, vectors * lanes, lanes)
        if len(pieces) < vectors:
            break
        # One register for each vector of the panel and one for the first operand.
        room = (processor.registers - 1) // len(pieces) - 1
        if at_once > 1:
            # A third for the rows of the first operand and the vectors of the panel on their way.
            room = processor.registers * 2 // 3 // len(pieces)
        for tall in range(1, min(rows, room, _MOST_ROWS) + 1):
            # Multiplications wait for each other if there are few; loads come two at a time.
            steps = max(tall * len(pieces), tall / at_once + len(pieces), 8)
            width = sum(pieces)
            cost = ceil_div(rows, tall) * ceil_div(columns, width) * (steps + 1 / at_once)
            task = _task(rows, tall, depth, product(batch) * ceil_div(columns, width), processor)
            found.append((float(cost), Tiling(tall, pieces, task, at_once)))
    return found


def _pieces(columns: int, most: int, lanes: int) -> tuple[int, ...]:
    """Vectors that cover a panel of at most so many columns: whole ones, then powers of two."""
    left, pieces = min(columns, most), []
    while left:
        pieces.append(min(lanes, 1 << (left.bit_length() - 1)))
        left -= pieces[-1]
    return tuple(pieces)


def _task(rows: int, tall: int, depth: int, panels: int, processor: Processor) -> int:
    """Rows of a task: what the cache holds, or less where there would be too few tasks; all about as long."""
    most = max(processor.l2_bytes // (4 * depth), 1)
    shared = max(ceil_div(rows, ceil_div(_TASKS, panels)), _TASK_ROWS)
    tasks = ceil_div(rows, min(most, shared))
    return ceil_div(ceil_div(rows, tasks), tall) * tall


def weights(values: NDArray[Any], plan: Tiling) -> NDArray[Any]:
    """A constant second operand in the order in which the kernel reads it: (panels, depth, width).

    Args:
        values: (depth, columns).
        plan: The tile.
    """
    starts = [min(p * plan.width, values.shape[1] - plan.width) for p in range(plan.panels(values.shape[1]))]
    return np.ascontiguousarray(np.stack([values[:, start : start + plan.width] for start in starts]))


def dense(name: str, problem: Matmul, a: Tensor, b: Tensor, output: Output, plan: Tiling) -> Function:
    """The kernel for a constant: arguments are the input, the packed weights, the output's extras and output.

    Args:
        name: Of the function.
        problem: What is computed.
        a: The input, in the order of ONNX.
        b: The constant as the problem knows it; its batch axes, if any, have length 1.
        output: The result.
        plan: The tile.
    """
    _, _, depth, columns = problem.lengths(a.shape, b.shape)
    with Kernel(name) as kernel:
        left = kernel.argument("a", a.memory, a.dtype)
        right = kernel.argument("weights", (plan.panels(columns), depth, plan.width), b.dtype)
        writer = output.arguments(kernel)
        nest = _Nest(kernel, problem, a, b, left, right, writer, plan)
        nest.write(lambda batch, panel, first: nest.packed_panel(panel))
    return kernel.function


def matmul(name: str, problem: Matmul, a: Tensor, b: Tensor, output: Output, plan: Tiling) -> Function:
    """The kernel for two inputs: arguments are both, the output's extras and the output.

    Args:
        name: Of the function.
        problem: What is computed.
        a: The first input, in the order of ONNX.
        b: The second one, too.
        output: The result.
        plan: The tile.
    """
    with Kernel(name) as kernel:
        left = kernel.argument("a", a.memory, a.dtype)
        right = kernel.argument("b", b.memory, b.dtype)
        writer = output.arguments(kernel)
        nest = _Nest(kernel, problem, a, b, left, right, writer, plan)
        nest.write(nest.computed_panel)
    return kernel.function


@dataclass(frozen=True)
class _Nest:
    """What the loops have in common."""

    kernel: Kernel
    problem: Matmul
    a: Tensor
    b: Tensor
    left: Buffer
    right: Buffer
    writer: Writer
    plan: Tiling

    def write(self, open_panel: Callable[[list[Index], Index, Index], Panel]) -> None:
        """All tasks.

        Args:
            open_panel: From the batch's indices, the panel's number and its first column to its reader.
        """
        kernel, plan = self.kernel, self.plan
        batch, rows, _, columns = self.problem.lengths(self.a.shape, self.b.shape)
        flat = self.problem.flat(self.b.shape)
        left = self.left
        if flat:
            batch, rows = (), product(batch) * rows
            left = script.decl_buffer((rows, self.a.shape[-1]), self.a.dtype, data=self.left.data)
        panels, task = plan.panels(columns), plan.task
        with kernel.parallel(*batch, ceil_div(rows, task), panels) as (*matrix, part, panel):
            first = panel * plan.width
            if columns % plan.width:
                first = tirx.min(first, columns - plan.width)
            first = kernel.let(first) if panels > 1 else 0
            read = open_panel(matrix, panel, first)
            with kernel.loop(ceil_div(task, plan.rows)) as tile:
                row = part * task + tile * plan.rows
                inside = True if rows % task == 0 else row < rows
                with kernel.when(inside):
                    row = kernel.let(tirx.min(row, rows - plan.rows))
                    sums = self._tile(self._reader(left, matrix, row), read)
                    for down, registers in enumerate(sums):
                        index = (
                            [*matrix, row + down] if not flat else _unravelled(row + down, self.a.shape[:-1])
                        )
                        self._put(index, first, registers)
        self.writer.clear_halo()

    def packed_panel(self, panel: Index) -> Panel:
        """The reader of a packed constant."""
        return lambda depth, first, width: self.kernel.load(self.right, (panel, depth, first), width)

    def computed_panel(self, matrix: list[Index], panel: Index, first: Index) -> Panel:
        """The reader of a computed operand's panel, which is packed first where rows enough read it."""
        kernel, plan = self.kernel, self.plan
        _, rows, depth, columns = self.problem.lengths(self.a.shape, self.b.shape)
        axes = self.problem.b_axes
        last = len(axes) - 1
        in_order = axes[-1] == last

        def number(down: Index, right: Index, lanes: int = 1) -> Expr:
            return kernel.load(self.right, _memory(axes, self.b.shape, [*matrix, down, right]), lanes)

        if in_order and (rows <= 2 * plan.rows or plan.panels(columns) == 1):
            return lambda down, right, width: number(down, first + right, width)
        panel_buffer = kernel.scratch((depth, plan.width), self.b.dtype)
        starts = [sum(plan.pieces[:i]) for i in range(len(plan.pieces))]
        side = max(plan.pieces)
        for start, width in zip(starts, plan.pieces, strict=True):
            if axes[-2] == last and width == side and width > 1 and depth >= width:
                with kernel.loop(ceil_div(depth, side)) as part:
                    down = part * side if depth % side == 0 else tirx.min(part * side, depth - side)
                    self._transpose(panel_buffer, matrix, down, first, start, side)
                continue
            with kernel.loop(depth) as down:
                if in_order:
                    kernel.store(panel_buffer, (down, start), number(down, first + start, width), width)
                    continue
                for lane in range(start, start + width):
                    kernel.store(panel_buffer, (down, lane), number(down, first + lane))
        return lambda down, right, width: kernel.load(panel_buffer, (down, right), width)

    def _transpose(
        self, panel: Buffer, matrix: list[Index], down: Index, first: Index, start: int, side: int
    ) -> None:
        """A square of an operand whose depth is its last axis in memory, into a panel."""
        kernel, axes = self.kernel, self.problem.b_axes
        square = []
        for lane in range(side):
            place = _memory(axes, self.b.shape, [*matrix, down, first + start + lane])
            square.append(kernel.let(kernel.load(self.right, place, side)))
        for row, vector in enumerate(transposed(kernel, square)):
            kernel.store(panel, (down + row, start), vector, side)

    def _reader(self, left: Buffer, matrix: list[Index], row: Index) -> Row:
        """Reads the first operand's numbers by row of the tile and depth."""
        kernel, axes = self.kernel, self.problem.a_axes
        if self.problem.flat(self.b.shape):
            return lambda down, depth, count: kernel.load(left, (row + down, depth), count)
        return lambda down, depth, count: kernel.load(
            left, _memory(axes, self.a.shape, [*matrix, row + down, depth]), count
        )

    def _tile(self, numbers: Row, read: Panel) -> list[list[Any]]:
        """One tile of the result: for each row, a register for each piece."""
        kernel, plan = self.kernel, self.plan
        sums = [[kernel.registers(1, width)[0] for width in plan.pieces] for _ in range(plan.rows)]
        for register in (register for registers in sums for register in registers):
            register.set(constant(0, register.lanes))
        _, _, depth, _ = self.problem.lengths(self.a.shape, self.b.shape)
        done = 0
        for count in dict.fromkeys((plan.depth, 1)):
            if depth - done < count:
                continue
            with kernel.loop((depth - done) // count) as part:
                self._products(numbers, read, sums, done + part * count, count)
            done = depth // count * count
        return sums

    def _products(
        self, numbers: Row, read: Panel, sums: Sequence[Sequence[Register]], k: Index, count: int
    ) -> None:
        """Add the products of ``count`` numbers of each row, from a depth on."""
        kernel, plan = self.kernel, self.plan
        rows = [kernel.let(numbers(down, k, count)) for down in range(plan.rows if count > 1 else 0)]
        for lane in range(count):
            start, vectors = 0, []
            for width in plan.pieces:
                vectors.append(kernel.let(read(k + lane, start, width)))
                start += width
            for down, registers in enumerate(sums):
                value = tirx.Shuffle([rows[down]], [lane]) if rows else kernel.let(numbers(down, k, 1))
                for register, vector in zip(registers, vectors, strict=True):
                    register.set(register.value + broadcast(value, register.lanes) * vector)

    def _put(self, row: list[Index], first: Index, registers: Sequence[Any]) -> None:
        """A row of a tile."""
        start = 0
        for register in registers:
            self.writer.put([*row, first + start], len(row), register.value, register.lanes)
            start += register.lanes


def _memory(axes: Sequence[int], shape: Sequence[int], index: Sequence[Index]) -> list[Index]:
    """Where in a tensor an index of an operand is; the operand's batch may have fewer axes, or length 1.

    Args:
        axes: Of the tensor, for each axis of the operand.
        shape: Of the tensor.
        index: Of the operand, with the batch of the result.
    """
    place: list[Index] = [0] * len(axes)
    for axis, i in zip(reversed(axes), reversed(index), strict=False):
        place[axis] = 0 if shape[axis] == 1 else i
    return place


def _unravelled(row: Index, lengths: Sequence[int]) -> list[Index]:
    """Indices of the axes that were made one."""
    if len(lengths) == 1:
        return [row]
    indices = []
    for length in reversed(lengths[1:]):
        indices.append(row % length)
        row = row // length
    return [row, *reversed(indices)]
