"""Normalisation by the numbers themselves, of instances or of groups of channels: three kernels.

Two make means and variances: of parts of the positions, and of all parts. The parts' sums are of differences
to a channel's first number, or large means would swallow the variance. How positions are shared out follows
from the shape alone, and so does the order of every sum. The third normalises, and has the epilogue of
convolutions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tvm import tirx

from edgekit.backends.tvm.cuda.convolution import Epilogue
from edgekit.backends.tvm.cuda.kernel import DeviceKernel
from edgekit.backends.tvm.cuda.memory import flat, lanes_of, move
from edgekit.backends.tvm.loops import Buffer, Expr, Function, Index, ceil_div, product

_THREADS = 256
# Positions that a thread goes through (for a mean at least), and the most partial sums that there are.
_RUN = 16
_PARTS = 128


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Means and variances of groups of channels over all positions, and tensors normalised by them.

    Attributes:
        shape: Of the tensor, channels last.
        groups: As many as channels for instance normalisation.
        dtype: Of the tensor.
    """

    shape: tuple[int, ...]
    groups: int
    dtype: str = "float16"

    @property
    def batch(self) -> int:
        """Images."""
        return self.shape[0]

    @property
    def channels(self) -> int:
        """Of the tensor."""
        return self.shape[-1]

    @property
    def positions(self) -> int:
        """Of an image."""
        return product(self.shape[1:-1])

    @property
    def statistics_shape(self) -> tuple[int, ...]:
        """Of mean and variance: axes of length 1 in place of the positions."""
        return (self.batch, *(1 for _ in self.shape[1:-1]), self.groups)

    @property
    def lanes(self) -> int:
        """Channels of a thread."""
        return lanes_of(self.channels, self.dtype)

    @property
    def across(self) -> int:
        """Threads of a block side by side, along the channels."""
        return min(self.channels // self.lanes, 32)

    @property
    def rows(self) -> int:
        """Threads of a block behind each other, along the positions."""
        return _THREADS // self.across

    @property
    def parts(self) -> int:
        """Blocks that share the positions."""
        return max(1, min(_PARTS, self.positions // (self.rows * _RUN)))

    @property
    def parts_shape(self) -> tuple[int, ...]:
        """Of what the first kernel hands to the second."""
        return (self.batch, self.parts, 2, self.channels)

    def partial(self, name: str = "partial_statistics") -> Function:
        """The first kernel: from the tensor to :attr:`parts_shape`."""
        lanes, across, rows = self.lanes, self.across, self.rows
        length = ceil_div(self.positions, self.parts)
        runs = self.channels // lanes
        with DeviceKernel(name) as kernel:
            image = kernel.argument("image", self.shape, self.dtype)
            out = kernel.argument("out", self.parts_shape)
            grid = (self.parts, ceil_div(runs, across), self.batch)
            with kernel.grid(grid, across * rows) as ((part, column, batch), thread):
                run = kernel.let(column * across + thread % across)
                row = kernel.let(thread // across)
                shared = kernel.shared(across * rows * lanes * 8)
                sums, first = kernel.local(2 * lanes), kernel.local(lanes, self.dtype)
                with kernel.unrolled(2 * lanes) as i:
                    kernel.store(sums, (i,), tirx.const(0.0, "float32"))
                with kernel.when(run < runs):
                    move(kernel, (first, (0,)), (image, self._at(batch, 0, run * lanes)), lanes)
                    with kernel.loop(ceil_div(length, rows)) as step:
                        offset = step * rows + row
                        at = kernel.let(part * length + offset)
                        with kernel.when(tirx.all(offset < length, at < self.positions)):
                            self._add(kernel, sums, first, (image, self._at(batch, at, run * lanes)))
                for i in range(0, 2 * lanes):
                    where = (thread * (2 * lanes) + i) * 4
                    kernel.call("ek_move_4", kernel.address(shared, where), kernel.address(sums, i))
                kernel.call("ek_barrier")
                self._gather(kernel, shared, thread, (out, (batch, part), column))
        return kernel.function

    def _add(
        self, kernel: DeviceKernel, sums: Buffer, first: Buffer, run: tuple[Buffer, Sequence[Index]]
    ) -> None:
        numbers = kernel.local(self.lanes, self.dtype)
        move(kernel, (numbers, (0,)), run, self.lanes)
        with kernel.unrolled(self.lanes) as i:
            difference = kernel.let(
                kernel.load(numbers, (i,)).astype("float32") - kernel.load(first, (i,)).astype("float32")
            )
            kernel.store(sums, (i,), kernel.load(sums, (i,)) + difference)
            squares = kernel.load(sums, (i + self.lanes,)) + difference * difference
            kernel.store(sums, (i + self.lanes,), squares)

    def _gather(
        self, kernel: DeviceKernel, shared: Buffer, thread: Expr, out: tuple[Buffer, Sequence[Index], Expr]
    ) -> None:
        """The sums of a block's threads for the same channels, in their order: each number by one thread."""
        buffer, where, column = out
        width = self.across * 2 * self.lanes
        threads = self.across * self.rows
        for piece in range(ceil_div(width, threads)):
            at = kernel.let(thread + piece * threads)
            channel = kernel.let(
                (column * self.across + at // (2 * self.lanes)) * self.lanes + at % self.lanes
            )
            total, number = kernel.local(1), kernel.local(1)
            kernel.store(total, (0,), tirx.const(0.0, "float32"))
            with kernel.when(tirx.all(at < width, channel < self.channels)):
                with kernel.loop(self.rows) as row:
                    address = kernel.address(shared, (row * width + at) * 4)
                    kernel.call("ek_move_4", kernel.address(number, 0), address)
                    kernel.store(total, (0,), kernel.load(total, (0,)) + kernel.load(number, (0,)))
                index = (*where, at % (2 * self.lanes) // self.lanes, channel)
                kernel.store(buffer, index, kernel.load(total, (0,)))

    def _at(self, batch: Expr, position: Index, channel: Expr) -> list[Expr]:
        return flat(self.shape[:-1], (batch * self.positions + position) * self.channels + channel)

    def final(self, name: str = "statistics") -> Function:
        """The second kernel: from tensor and parts to mean and variance, of :attr:`statistics_shape`."""
        each = self.channels // self.groups
        with DeviceKernel(name) as kernel:
            image = kernel.argument("image", self.shape, self.dtype)
            parts = kernel.argument("parts", self.parts_shape)
            mean, variance = (
                kernel.argument(each_name, self.statistics_shape) for each_name in ("mean", "variance")
            )
            total = self.batch * self.groups
            threads = 32  # small blocks, as there are few groups
            with kernel.grid((ceil_div(total, threads),), threads) as (block, thread):
                index = kernel.let(block[0] * threads + thread)
                with kernel.when(index < total):
                    batch, group = kernel.let(index // self.groups), kernel.let(index % self.groups)
                    sums = kernel.local(3)  # of channels' means, squared distances, variances
                    first = kernel.let(self._mean(kernel, image, parts, batch, group * each)[0])
                    for i in range(3):
                        kernel.store(sums, (i,), tirx.const(0.0, "float32"))
                    with kernel.loop(each) as channel:
                        own, spread = self._mean(kernel, image, parts, batch, group * each + channel)
                        distance = kernel.let(own - first)
                        for i, more in enumerate((distance, distance * distance, spread)):
                            kernel.store(sums, (i,), kernel.load(sums, (i,)) + more)
                    shift, square, spread = (kernel.load(sums, (i,)) / float(each) for i in range(3))
                    kernel.store(mean, flat(self.shape[:-1], index), first + shift)
                    wide = spread + tirx.max(square - shift * shift, 0.0)
                    kernel.store(variance, flat(self.shape[:-1], index), wide)
        return kernel.function

    def _mean(
        self, kernel: DeviceKernel, image: Buffer, parts: Buffer, batch: Expr, channel: Expr
    ) -> tuple[Expr, Expr]:
        """A channel's mean and variance."""
        sums = kernel.local(2)
        for i in range(2):
            kernel.store(sums, (i,), tirx.const(0.0, "float32"))
        with kernel.loop(self.parts) as part:
            for i in range(2):
                more = kernel.load(parts, (batch, part, i, channel))
                kernel.store(sums, (i,), kernel.load(sums, (i,)) + more)
        shift = kernel.let(kernel.load(sums, (0,)) / float(self.positions))
        square = kernel.load(sums, (1,)) / float(self.positions)
        first = kernel.load(image, self._at(batch, 0, channel)).astype("float32")
        return kernel.let(first + shift), kernel.let(tirx.max(square - shift * shift, 0.0))

    def normalised(self, epsilon: float, epilogue: Epilogue, name: str = "normalised") -> Function:
        """The third kernel: from tensor, mean, variance and the epilogue's inputs to a tensor alike.

        A thread keeps its channels' means and scales, and goes through several positions.
        """
        lanes, across, rows = self.lanes, self.across, self.rows
        runs = self.channels // lanes
        length = rows * _RUN
        with DeviceKernel(name) as kernel:
            image = kernel.argument("image", self.shape, self.dtype)
            statistics = [kernel.argument(each, self.statistics_shape) for each in ("mean", "variance")]
            vectors = [kernel.argument(each, (self.channels,)) for each in epilogue.channel_inputs]
            tensors = [kernel.argument(each, self.shape, self.dtype) for each in epilogue.tensor_inputs]
            out = kernel.argument("out", self.shape, self.dtype)
            grid = (ceil_div(self.positions, length), ceil_div(runs, across), self.batch)
            with kernel.grid(grid, across * rows) as ((part, column, batch), thread):
                run = kernel.let(column * across + thread % across)
                with kernel.when(run < runs):
                    channel = run * lanes
                    constants = [kernel.local(lanes) for _ in range(2 + len(vectors))]
                    with kernel.unrolled(lanes) as i:
                        group = (channel + i) // (self.channels // self.groups)
                        at = flat(self.shape[:-1], batch * self.groups + group)
                        kernel.store(constants[0], (i,), kernel.load(statistics[0], at))
                        scale = tirx.rsqrt(kernel.load(statistics[1], at) + epsilon)
                        kernel.store(constants[1], (i,), scale)
                        for local, vector in zip(constants[2:], vectors, strict=True):
                            kernel.store(local, (i,), kernel.load(vector, (channel + i,)))
                    with kernel.loop(_RUN) as step:
                        position = kernel.let(part * length + step * rows + thread // across)
                        with kernel.when(position < self.positions):
                            where = self._at(batch, position, channel)
                            self._normalise(kernel, (image, *tensors, out), where, constants, epilogue)
        return kernel.function

    def _normalise(
        self,
        kernel: DeviceKernel,
        buffers: Sequence[Buffer],
        where: Sequence[Expr],
        constants: Sequence[Buffer],
        epilogue: Epilogue,
    ) -> None:
        """A run of channels at one position."""
        *inputs, out = buffers
        locals_ = [kernel.local(self.lanes, self.dtype) for _ in buffers]
        for local, each in zip(locals_, inputs, strict=False):
            move(kernel, (local, (0,)), (each, where), self.lanes)
        with kernel.unrolled(self.lanes) as i:
            number, *more = (kernel.load(local, (i,)).astype("float32") for local in locals_[:-1])
            mean, scale, *vectors = (kernel.load(local, (i,)) for local in constants)
            result = epilogue.compute((number - mean) * scale, *vectors, *more)
            kernel.store(locals_[-1], (i,), result.astype(self.dtype))
        move(kernel, (out, where), (locals_[-1], (0,)), self.lanes)
