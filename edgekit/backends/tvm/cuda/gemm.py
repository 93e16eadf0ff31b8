"""Convolutions on tensor cores: a product of two matrices, of which one is the image, looked up meanwhile.

The rows of the product are output positions, its columns output channels, and what is summed over are the
taps of the kernel times the input's channels ("implicit GEMM"). A block computes a tile of it: the operands'
slices of 64 bytes come to shared memory by copies that do not wait, three slices deep, and warps multiply
them by ``mma.sync``. The sums pass through shared memory once more, so that the epilogue (bias, activation,
a tensor to add) sees neighbouring channels and stores 16 bytes at once.

* Tensors are ``N[D]HWC``; weights are packed by :func:`pack` into the very order in which blocks copy them.
* One kernel for all types, as 32 bytes of each operand enter an ``mma.sync``: 16 halves, 32 bytes or 8
  floats. Half sums in float32, int8 in int32. Floats are split in two parts of TF32 each, and three products
  summed: float32's precision but for 2^-21; :attr:`Convolution.tf32` takes the first product alone.
* Transposed convolutions are one convolution for each position of an output modulo the stride ("phase"): the
  third axis of the grid.
* Input channels that do not fill 16 bytes (an image's 1 or 3) are looked up one by one.

Each output is summed by one warp in one order: results do not depend on the launch. Compiled for sm_87 and
sm_110, run on a processor that plays the GPU, and not yet run on a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from edgekit.backends.tvm.cuda.convolution import (
    CHUNKS,
    SIZES,
    STAGES,
    STEP_BYTES,
    Convolution,
    Epilogue,
    packed_shape,
    tile_of,
)
from edgekit.backends.tvm.cuda.kernel import ACCESS_BYTES, WARP, DeviceKernel
from edgekit.backends.tvm.loops import Buffer, Expr, Function, ceil_div, product

_MMA_BYTES = 32  # of each operand's rows, in an instruction
_OUTSIDE = -(1 << 28)  # a position that no tap brings back into the image


def convolution(
    problem: Convolution, epilogue: Epilogue | None = None, name: str = "convolution"
) -> Function:
    """The kernel: arguments are the image, the packed weights, the epilogue's inputs, the output.

    The image and the output are ``N[D][H]WC``, as :attr:`Convolution.image_shape` says.
    """
    epilogue = epilogue or Epilogue()
    with DeviceKernel(name) as kernel:
        _Writer(kernel, problem, epilogue).write()
    return kernel.function


class _Writer:
    """The parts of the kernel, and what they share."""

    def __init__(self, kernel: DeviceKernel, problem: Convolution, epilogue: Epilogue) -> None:
        self.kernel, self.problem, self.epilogue, self.tile = kernel, problem, epilogue, tile_of(problem)
        self.image = kernel.argument("image", problem.image_shape, problem.dtype)
        self.weights = kernel.argument("weights", packed_shape(problem), problem.dtype)
        self.vectors = [
            kernel.argument(each, (problem.channels[1],), "float32") for each in epilogue.channel_inputs
        ]
        self.tensors = [
            kernel.argument(each, problem.out_shape, problem.out_dtype) for each in epilogue.tensor_inputs
        ]
        self.out = kernel.argument("out", problem.out_shape, problem.out_dtype)

    def write(self) -> None:
        """The whole of it."""
        kernel, problem, tile = self.kernel, self.problem, self.tile
        rows = problem.batch * product(problem.positions)
        across = ceil_div(problem.channels[1], tile.columns)
        blocks = (ceil_div(rows, tile.rows) * across, product(problem.phases))
        with kernel.grid(blocks, tile.threads) as (block, thread):
            # Neighbouring blocks are of the same rows: what they read of the image is in the cache.
            self.block = (kernel.let(block[0] // across), kernel.let(block[0] % across), block[1])
            self.thread = thread
            self.lane, warp = kernel.let(thread % WARP), kernel.let(thread // WARP)
            self.warp_row = kernel.let(warp // tile.across[1])
            self.warp_column = kernel.let(warp % tile.across[1])
            self.warp = warp
            self.rows = rows
            self.shared = kernel.shared(tile.shared_bytes)
            self.sum_type = "int32" if problem.dtype == "int8" else "float32"
            self.sums = kernel.local(product(tile.warp) // WARP, self.sum_type)
            with kernel.unrolled(product(tile.warp) // WARP) as i:
                kernel.store(self.sums, (i,), tirx.const(0, self.sum_type))
            self._rows_of_thread()
            self._main_loop()
            self._store()

    # Where rows of the image begin.

    def _rows_of_thread(self) -> None:
        """Of the rows that this thread copies: where their first tap lies, per axis and as an offset."""
        kernel, problem, tile = self.kernel, self.problem, self.tile
        self.per_thread = tile.rows * CHUNKS // tile.threads
        self.chunk = kernel.let(self.thread % CHUNKS)
        self._start_counters()
        self.first = [kernel.local(self.per_thread, "int32") for _ in range(4)]
        with kernel.unrolled(self.per_thread) as i:
            row = self.block[0] * tile.rows + self.thread // CHUNKS + i * (tile.threads // CHUNKS)
            batch, *position = _unravel(row, problem.positions)
            start = [_start(problem, axis, at, self._phase(axis)) for axis, at in enumerate(position)]
            depth, height, width = start
            _, rows, columns = problem.image
            offset = ((batch * problem.image[0] + depth) * rows + height) * columns + width
            inside = row < self.rows
            kernel.store(self.first[0], (i,), tirx.Select(inside, depth, tirx.const(_OUTSIDE, "int32")))
            kernel.store(self.first[1], (i,), height)
            kernel.store(self.first[2], (i,), width)
            kernel.store(self.first[3], (i,), offset)

    def _phase(self, axis: int) -> Expr:
        """The block's phase along an axis."""
        inner = product(self.problem.phases[axis + 1 :])
        return self.block[2] // inner % self.problem.phases[axis]

    # Copies to shared memory.

    def _fetch(self, step: Expr) -> None:
        """Start the copies of a step into its stage."""
        kernel, tile = self.kernel, self.tile
        stage = kernel.let(step % STAGES * tile.stage_bytes)
        if self.problem.chunked:
            self._fetch_chunks(step, stage)
        else:
            self._fetch_numbers(step, stage)
        chunks = tile.columns * CHUNKS
        numbers = ACCESS_BYTES // self.problem.element_bytes
        for part in range(ceil_div(chunks, tile.threads)):
            index = self.thread + part * tile.threads
            where = (self.block[2], self.block[1], step, index // CHUNKS, index % CHUNKS * numbers)
            to = kernel.address(self.shared, stage + tile.rows * STEP_BYTES + index * ACCESS_BYTES)
            with kernel.when(index < chunks):
                kernel.call(
                    "ek_copy_async", to, kernel.address(self.weights, *where), tirx.const(True, "bool")
                )

    def _fetch_chunks(self, step: Expr, stage: Expr) -> None:
        """Rows of the image in chunks of 16 bytes, which are neighbouring channels at one tap."""
        kernel, problem = self.kernel, self.problem
        numbers = ACCESS_BYTES // problem.element_bytes
        if self.counters is not None:
            channel, *tap = (kernel.let(kernel.load(self.counters, (i,))) for i in range(4))
            self._advance(channel, tap)
        else:
            at = kernel.let(step * CHUNKS + self.chunk)
            tap, channel = self._tap(kernel.let(at // self.chunks)), at % self.chunks
        moves = [kernel.let(index * step) for index, step in zip(tap, self._steps(), strict=True)]
        offset = kernel.let(self._offset(moves) * problem.channels[0] + channel * numbers)
        with kernel.unrolled(self.per_thread) as i:
            inside = self._inside(i, moves, tap)
            index = kernel.load(self.first[3], (i,)) * problem.channels[0] + offset
            safe = tirx.Select(inside, index, tirx.const(0, "int32"))
            kernel.call("ek_copy_async", self._chunk_address(i, stage), self._image_at(safe), inside)

    def _fetch_numbers(self, step: Expr, stage: Expr) -> None:
        """Rows of the image number by number, for few channels."""
        kernel, problem = self.kernel, self.problem
        numbers = ACCESS_BYTES // problem.element_bytes
        zero = tirx.const(0, problem.dtype)
        with kernel.unrolled(self.per_thread) as i:
            chunk = kernel.local(numbers, problem.dtype)
            with kernel.unrolled(numbers) as number:
                at = (step * CHUNKS + self.chunk) * numbers + number
                tap, channel = self._tap(at // problem.channels[0]), at % problem.channels[0]
                moves = [index * step for index, step in zip(tap, self._steps(), strict=True)]
                index = (kernel.load(self.first[3], (i,)) + self._offset(moves)) * problem.channels[
                    0
                ] + channel
                inside = self._inside(i, moves, tap)
                value = tirx.if_then_else(inside, tirx.BufferLoad(self.image, self._image_index(index)), zero)
                kernel.store(chunk, (number,), value)
            kernel.call("ek_move_16", self._chunk_address(i, stage), kernel.address(chunk, 0))

    def _start_counters(self) -> None:
        """The tap and the chunk of its channels that the next step begins with, which spares divisions.

        A step goes on by four chunks: to the next tap at most, where a tap has four or more.
        """
        kernel, problem = self.kernel, self.problem
        self.chunks = problem.channels[0] * problem.element_bytes // ACCESS_BYTES
        self.counters: Buffer | None = None
        if problem.chunked and self.chunks >= CHUNKS:
            self.counters = kernel.local(4, "int32")
            kernel.store(self.counters, (0,), self.chunk)
            for i in range(1, 4):
                kernel.store(self.counters, (i,), tirx.const(0, "int32"))

    def _advance(self, chunk: Expr, tap: Sequence[Expr]) -> None:
        kernel, zero, one = self.kernel, tirx.const(0, "int32"), tirx.const(1, "int32")
        following = kernel.let(chunk + CHUNKS)
        over = kernel.let(following >= self.chunks)
        kernel.store(self.counters, (0,), tirx.Select(over, following - self.chunks, following))
        for axis in (2, 1, 0):
            count = kernel.let(tap[axis] + tirx.Select(over, one, zero))
            if axis == 0:  # what lies beyond the last tap is told by this
                kernel.store(self.counters, (1,), count)
            else:
                over = kernel.let(count >= self.problem.taps[axis])
                kernel.store(self.counters, (axis + 1,), tirx.Select(over, zero, count))

    def _tap(self, tap: Expr) -> list[Expr]:
        """A tap's indices."""
        _, height, width = self.problem.taps
        return [tap // (height * width), tap // width % height, tap % width]

    def _steps(self) -> Sequence[int]:
        return (1, 1, 1) if self.problem.transposed else self.problem.dilation

    def _offset(self, moves: Sequence[Expr]) -> Expr:
        _, height, width = self.problem.image
        return (moves[0] * height + moves[1]) * width + moves[2]

    def _inside(self, i: Expr, moves: Sequence[Expr], tap: Sequence[Expr]) -> Expr:
        """Whether a row's position at a tap lies in the image; steps may end beyond the last tap."""
        problem = self.problem
        conditions = [
            _between(self.kernel.load(first, (i,)) + move, length)
            for first, move, length in zip(self.first[:3], moves, problem.image, strict=True)
        ]
        if problem.depth * problem.element_bytes % STEP_BYTES:
            conditions.append(tap[0] < problem.taps[0])
        return tirx.all(*conditions)

    def _image_index(self, index: Expr) -> list[Expr]:
        """An offset as indices, which TVM makes an offset again."""
        return [*(tirx.const(0, "int32") for _ in range(self.problem.axes + 1)), index]

    def _image_at(self, index: Expr) -> Expr:
        return self.kernel.address(self.image, *self._image_index(index))

    def _chunk_address(self, i: Expr, stage: Expr) -> Expr:
        row = self.thread // CHUNKS + i * (self.tile.threads // CHUNKS)
        return self.kernel.address(self.shared, stage + _swizzled(row, self.chunk))

    # Products.

    def _main_loop(self) -> None:
        kernel, steps = self.kernel, self.problem.steps
        for step in range(STAGES - 1):
            if step < steps:
                self._fetch(tirx.const(step, "int32"))
            kernel.call("ek_close_group")
        with kernel.loop(steps) as step:
            kernel.call("ek_wait_groups_1")
            # All have done with the stage that is now fetched, and what is now read has come.
            kernel.call("ek_barrier")
            with kernel.when(step + (STAGES - 1) < steps):
                self._fetch(step + (STAGES - 1))
            kernel.call("ek_close_group")
            self._multiply(kernel.let(step % STAGES * self.tile.stage_bytes))
        kernel.call("ek_wait_groups_0")
        kernel.call("ek_barrier")

    def _multiply(self, stage: Expr) -> None:
        """Add the products of a stage to the sums."""
        kernel, (rows, columns) = self.kernel, self.tile.warp
        lane = self.lane
        row = self.warp_row * rows + lane % 16
        column = self.warp_column * columns + lane % 8 + lane // 16 * 8
        left, right = kernel.local(rows // 16 * 4, "uint32"), kernel.local(columns // 8 * 2, "uint32")
        for part in range(STEP_BYTES // _MMA_BYTES):
            for i in range(rows // 16):
                at = stage + _swizzled(row + i * 16, lane // 16 + part * 2)
                kernel.call("ek_load_matrices", kernel.address(left, i * 4), kernel.address(self.shared, at))
            for j in range(columns // 16):
                at = _swizzled(column + j * 16, lane // 8 % 2 + part * 2)
                at = stage + self.tile.rows * STEP_BYTES + at
                kernel.call("ek_load_matrices", kernel.address(right, j * 4), kernel.address(self.shared, at))
            self._mma(left, right)

    def _mma(self, left: Buffer, right: Buffer) -> None:
        kernel, (rows, columns) = self.kernel, self.tile.warp
        across = columns // 8
        pairs = [("ek_mma_" + self.problem.dtype, left, right)]
        if self.problem.dtype == "float32":
            high_left, low_left = self._split(left, rows // 16 * 4)
            high_right, low_right = self._split(right, across * 2)
            # The small products first, as they would vanish in large sums.
            pairs = [("ek_mma_tf32", low_left, high_right), ("ek_mma_tf32", high_left, low_right)]
            pairs = [*(pairs if not self.problem.tf32 else ()), ("ek_mma_tf32", high_left, high_right)]
        for i in range(rows // 16):
            for j in range(across):
                for name, a, b in pairs:
                    sums = kernel.address(self.sums, (i * across + j) * 4)
                    kernel.call(name, sums, kernel.address(a, i * 4), kernel.address(b, j * 2))

    def _split(self, numbers: Buffer, count: int) -> tuple[Buffer, Buffer]:
        kernel = self.kernel
        high, low = kernel.local(count, "uint32"), kernel.local(count, "uint32")
        for i in range(count):
            kernel.call("ek_split", *(kernel.address(each, i) for each in (high, low, numbers)))
        return high, low

    # The epilogue.

    def _store(self) -> None:
        """Each warp's sums, 16 rows at a time, through shared memory of its own."""
        kernel, (rows, columns) = self.kernel, self.tile.warp
        pitch = self.tile.staging * 4
        own = kernel.let(self.warp * (16 * pitch))
        width = self._store_width()
        lanes = columns // width
        for i in range(rows // 16):
            for j in range(columns // 8):
                for half in range(2):
                    at = own + (self.lane // 4 + half * 8) * pitch + (self.lane % 4 * 2 + j * 8) * 4
                    value = kernel.address(self.sums, (i * (columns // 8) + j) * 4 + half * 2)
                    kernel.call("ek_move_8", kernel.address(self.shared, at), value)
            kernel.call("ek_warp_barrier")
            for part in range(ceil_div(16 * lanes, WARP)):
                index = self.lane + part * WARP
                row = self.block[0] * self.tile.rows + self.warp_row * rows + i * 16 + index // lanes
                column = (
                    self.block[1] * self.tile.columns + self.warp_column * columns + index % lanes * width
                )
                inside = tirx.all(index < 16 * lanes, row < self.rows, column < self.problem.channels[1])
                with kernel.when(inside):
                    at = own + index // lanes * pitch + index % lanes * (width * 4)
                    self._store_run(row, column, at, width)
            kernel.call("ek_warp_barrier")

    def _store_width(self) -> int:
        """Channels that a thread stores together: 16 bytes, where rows of the output begin at such."""
        width = ACCESS_BYTES // SIZES[self.problem.out_dtype]
        return min(width, self.tile.warp[1]) if self.problem.channels[1] % width == 0 else 4

    def _store_run(self, row: Expr, column: Expr, at: Expr, width: int) -> None:
        """The epilogue of neighbouring channels at one position."""
        kernel, problem = self.kernel, self.problem
        sums = kernel.local(width, self.sum_type)
        for i in range(width // 4):
            kernel.call("ek_move_16", kernel.address(sums, i * 4), kernel.address(self.shared, at + i * 16))
        batch, *position = _unravel(row, problem.positions)
        places = [
            at * phases + self._phase(axis)
            for axis, (at, phases) in enumerate(zip(position, problem.phases, strict=True))
        ]
        limits = [p < o for p, o in zip(places, problem.out, strict=True)]
        ragged = [limit for limit, o, p in zip(limits, problem.out, problem.phases, strict=True) if o % p]
        whole = width * SIZES[problem.out_dtype] == ACCESS_BYTES and problem.channels[1] % width == 0
        with kernel.when(tirx.all(*ragged) if ragged else tirx.const(True, "bool")):
            where = (batch, *places[3 - problem.axes :])
            if whole:
                self._store_whole(sums, where, column, width)
            else:
                self._store_each(sums, where, column, width)

    def _store_whole(self, sums: Buffer, where: tuple[Expr, ...], column: Expr, width: int) -> None:
        kernel, dtype = self.kernel, self.problem.out_dtype
        vectors = [kernel.local(width) for _ in self.vectors]
        for local, vector in zip(vectors, self.vectors, strict=True):
            for i in range(width // 4):
                kernel.call(
                    "ek_move_16", kernel.address(local, i * 4), kernel.address(vector, column + i * 4)
                )
        tensors = [kernel.local(width, dtype) for _ in self.tensors]
        for local, tensor in zip(tensors, self.tensors, strict=True):
            kernel.call("ek_move_16", kernel.address(local, 0), kernel.address(tensor, *where, column))
        results = kernel.local(width, dtype)
        with kernel.unrolled(width) as i:
            inputs = [kernel.load(local, (i,)) for local in [*vectors, *tensors]]
            kernel.store(results, (i,), self._result(kernel.load(sums, (i,)), inputs))
        kernel.call("ek_move_16", kernel.address(self.out, *where, column), kernel.address(results, 0))

    def _store_each(self, sums: Buffer, where: tuple[Expr, ...], column: Expr, width: int) -> None:
        kernel = self.kernel
        for i in range(width):
            with kernel.when(column + i < self.problem.channels[1]):
                inputs = [kernel.load(vector, (column + i,)) for vector in self.vectors]
                inputs += [kernel.load(tensor, (*where, column + i)) for tensor in self.tensors]
                kernel.store(self.out, (*where, column + i), self._result(kernel.load(sums, (i,)), inputs))

    def _result(self, value: Expr, inputs: Sequence[Expr]) -> Expr:
        """The epilogue's result, in the output's type: int8 is rounded to even and cut off."""
        wide = [each.astype("float32") for each in inputs]
        result = self.epilogue.compute(value.astype("float32"), *wide)
        if self.problem.out_dtype == "int8":
            result = tirx.max(tirx.min(tirx.nearbyint(result), 127.0), -128.0)
        return result.astype(self.problem.out_dtype)


def _start(problem: Convolution, axis: int, at: Expr, phase: Expr) -> Expr:
    """Where the first tap of an output lies in the image."""
    if not problem.transposed:
        return at * problem.stride[axis] - problem.pad[axis]
    return at + (phase + problem.pad[axis]) // problem.stride[axis] - (problem.taps[axis] - 1)


def _swizzled(row: Expr, chunk: Expr) -> Expr:
    """The byte of a chunk in a stage: any 8 neighbouring rows have it in different banks."""
    return row * STEP_BYTES + tirx.bitwise_xor(chunk, row // 2 % 4) * ACCESS_BYTES


def _between(index: Expr, length: int) -> Expr:
    """Whether an index is one; a negative one is a large number without its sign."""
    return index.astype("uint32") < tirx.const(length, "uint32")


def _unravel(row: Expr, lengths: Sequence[int]) -> list[Any]:
    """The batch and the position of a row of the product."""
    indices = []
    for length in reversed(lengths):
        indices.append(row % length)
        row = row // length
    return [row, *reversed(indices)]
