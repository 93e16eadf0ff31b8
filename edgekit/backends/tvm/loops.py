"""Loop nests written out: what every family of kernels is made of.

A kernel is a TensorIR function whose loops stand as they will run. Where TVM's schedules rewrite a nest step
by step and prove each step, these nests are written in their final form by a few lines of Python, which is
quicker to compile and says what the machine does::

    with Kernel("scale") as kernel:
        x, y = kernel.argument("x", (rows, 64)), kernel.argument("y", (rows, 64))
        with kernel.parallel(rows) as row, kernel.loop(4) as part:
            kernel.store(y, (row, part * 16), 2.0 * kernel.load(x, (row, part * 16), 16))
    kernel.function

Arguments are the inputs in order, then the outputs, as ``call_tir`` hands them over. Vectors are of any
length: LLVM cuts them into registers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as script

# TensorIR's expressions, buffers and functions; TVM has no types that a checker knows.
Expr = Any
Buffer = Any
Function = Any
Index = Any


class Kernel:
    """One function, being written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.function: Function = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Kernel:
        self._builder = self._stack.enter_context(IRBuilder())
        self._frame = self._stack.enter_context(script.prim_func(s_tir=True))
        script.func_name(self.name)
        script.func_attr({"tirx.noalias": True})
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if error[0] is None:
            self.function = self._builder.get()

    def argument(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Buffer:
        """The next argument."""
        return script.arg(name, script.buffer(tuple(shape), dtype))

    @contextlib.contextmanager
    def parallel(self, *lengths: int) -> Iterator[Any]:
        """Loops over all lengths at once, shared out among the threads: one index for each length.

        Each thread gets a run of neighbours, so what the inner lengths have in common stays in its cache.
        """
        total = 1
        for length in lengths:
            total *= length
        with script.parallel(total) as index:
            yield _unravelled(index, lengths)

    @contextlib.contextmanager
    def loop(self, length: Index) -> Iterator[Any]:
        """A loop in order."""
        with script.serial(length) as index:
            yield index

    @contextlib.contextmanager
    def loops(self, lengths: Sequence[Index]) -> Iterator[list[Any]]:
        """Loops in order, one inside the other: one index for each length."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(script.serial(length)) for length in lengths]

    @contextlib.contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """What is inside happens where the condition holds."""
        if condition is True:
            yield
            return
        with script.If(condition), script.Then():
            yield

    def registers(self, count: int, lanes: int, dtype: str = "float32") -> list[Register]:
        """Variables that live in vector registers, as far as there are any."""
        return [Register(lanes, dtype) for _ in range(count)]

    def scratch(self, shape: Sequence[int], dtype: str = "float32") -> Buffer:
        """Memory of one pass through the loops around it."""
        return script.alloc_buffer(tuple(shape), dtype, scope="global")

    def let(self, value: Expr) -> Expr:
        """The value, computed here and once."""
        return kept(value)

    def load(self, buffer: Buffer, indices: Sequence[Index], lanes: int = 1) -> Expr:
        """``lanes`` neighbours along the last axis, from the indices on."""
        return tirx.BufferLoad(buffer, _along(indices, lanes))

    def store(self, buffer: Buffer, indices: Sequence[Index], value: Expr, lanes: int = 1) -> None:
        """``lanes`` neighbours along the last axis, from the indices on."""
        script.buffer_store(buffer, value, _along(indices, lanes))


class Register:
    """A vector that a kernel changes; read it with :attr:`value`.

    TVM keeps what has less than 1024 bytes on the stack, where LLVM finds registers for it, and takes the
    rest from a heap: so each vector is a variable of its own. That holds for its scope "global" alone.
    """

    def __init__(self, lanes: int, dtype: str) -> None:
        self.lanes = lanes
        self.dtype = dtype
        self._buffer = script.alloc_buffer((lanes,), dtype, scope="global")

    @property
    def value(self) -> Expr:
        """What it holds at this point of the kernel."""
        return tirx.BufferLoad(self._buffer, _along((0,), self.lanes))

    def set(self, value: Expr) -> None:
        """Give it a vector."""
        script.buffer_store(self._buffer, value, _along((0,), self.lanes))

    def element(self, lane: Index) -> Expr:
        """One of its numbers."""
        return tirx.BufferLoad(self._buffer, [lane])


def kept(value: Expr) -> Expr:
    """The value, computed at this point of the kernel that is being written, and once.

    TVM's simplifier puts the value of a variable wherever the variable stands, if it reads no memory, and an
    expression of expressions of expressions grows beyond any bound. So all but indices go into registers.
    """
    dtype = value.ty.dtype
    if dtype.lanes == 1 and not str(dtype).startswith("float"):
        return script.bind(value)
    register = Register(int(dtype.lanes), str(dtype).split("x")[0])
    register.set(value)
    return register.value


def constant(value: float, lanes: int = 1, dtype: str = "float32") -> Expr:
    """A number, in every lane."""
    return broadcast(tirx.const(value, dtype), lanes)


def broadcast(value: Expr, lanes: int) -> Expr:
    """A number, in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def ceil_div(length: int, part: int) -> int:
    """How many parts cover a length."""
    return -(-length // part)


def product(lengths: Sequence[int]) -> int:
    """1 for none."""
    total = 1
    for length in lengths:
        total *= length
    return total


def transposed(kernel: Kernel, square: Sequence[Expr]) -> list[Expr]:
    """As many vectors as they have lanes, a power of two, with rows and columns exchanged.

    Args:
        kernel: What is being written.
        square: The vectors.
    """
    vectors = list(square)
    half = len(vectors) // 2
    low = [lane + side for lane in range(half) for side in (0, 2 * half)]
    high = [lane + half for lane in low]
    # Vector i and the one half of them further, lane by lane in turn: after log2 times all is transposed.
    for _ in range(len(vectors).bit_length() - 1):
        pairs = list(zip(vectors[:half], vectors[half:], strict=True))
        vectors = [kernel.let(tirx.Shuffle(list(pair), lanes)) for pair in pairs for lanes in (low, high)]
    return vectors


def _along(indices: Sequence[Index], lanes: int) -> list[Index]:
    *outer, last = indices
    return [*outer, last if lanes == 1 else tirx.Ramp(last, 1, lanes)]


def _unravelled(index: Expr, lengths: Sequence[int]) -> Any:
    if len(lengths) == 1:
        return index
    indices = []
    for length in reversed(lengths):
        indices.append(index % length)
        index = index // length
    return tuple(reversed(indices))
