"""How a network's values lie in memory while it runs, and how kernels read and write them.

A value of a network has the shape (N, C, spatial axes…). Here its channels may be cut into blocks that lie
side by side, as (N, C / block, spatial axes…, block), so that one vector holds the same voxel of a block of
channels; and its spatial axes may have a halo of zeros (in bytes: of what stands for zero), so that no
convolution asks where the border is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from edgekit.backends.tvm.functions import dequantize
from edgekit.backends.tvm.loops import Buffer, Expr, Index, Kernel, broadcast, ceil_div, constant, product

# Zeros before and after each spatial axis.
Halo = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Layout:
    """The order of a value's numbers in memory.

    Attributes:
        block: Channels side by side; 1 leaves the order of ONNX.
        halo: Zeros before and after each spatial axis; empty for none.
        fill: The number that stands for zero in the halo.
    """

    block: int = 1
    halo: Halo = ()
    fill: int = 0


PLAIN = Layout()


@dataclass(frozen=True)
class Scale:
    """What bytes stand for: ``(byte - zero_point) * step``.

    Attributes:
        step: From one byte to the next.
        zero_point: The byte that stands for 0.
    """

    step: float
    zero_point: int


@dataclass(frozen=True)
class Tensor:
    """A value and its place in memory.

    Attributes:
        shape: As the network sees it.
        dtype: Of its numbers.
        layout: Anything but :data:`PLAIN` wants a shape of (N, C, spatial axes…).
        scale: For bytes that are dequantized as they are read; else ``None``.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: Layout = PLAIN
    scale: Scale | None = None

    @property
    def halo(self) -> Halo:
        """Zeros before and after each spatial axis."""
        return self.layout.halo or ((0, 0),) * max(len(self.shape) - 2, 0)

    @property
    def numbers(self) -> str:
        """The type of what is read."""
        return self.dtype if self.scale is None else "float32"

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return ceil_div(self.shape[1], self.layout.block)

    @property
    def memory(self) -> tuple[int, ...]:
        """Shape of the memory: (N, blocks, padded spatial axes…, block), or the shape itself, padded."""
        if self.layout == PLAIN:
            return self.shape
        spatial = [
            before + length + after for length, (before, after) in zip(self.shape[2:], self.halo, strict=True)
        ]
        if self.layout.block == 1:
            return (*self.shape[:2], *spatial)
        return (self.shape[0], self.blocks, *spatial, self.layout.block)

    @property
    def strides(self) -> tuple[int, ...]:
        """Numbers in memory from one index of :meth:`address` to the next."""
        lengths = self.memory
        return tuple(product(lengths[axis + 1 :]) for axis in range(len(lengths)))

    @property
    def vector_axis(self) -> int:
        """The axis whose neighbours are neighbours in memory."""
        return 1 if self.layout.block > 1 else len(self.shape) - 1

    def load(self, kernel: Kernel, buffer: Buffer, index: Sequence[Index], axis: int, width: int) -> Expr:
        """``width`` neighbours along an axis, from an index on; axes of length 1 are repeated.

        Args:
            kernel: What is being written.
            buffer: The tensor's memory.
            index: Of a value that this one is broadcast to, as ONNX does: its axes count from the last.
            axis: Of that value. Where neighbours along it are none in memory, lanes are read one by one.
            width: 1 gives a number, more a vector.
        """
        missing = len(index) - len(self.shape)
        axis -= missing
        own = [0 if length == 1 else i for length, i in zip(self.shape, index[missing:], strict=True)]
        if width == 1 or axis < 0 or self.shape[axis] == 1:
            return broadcast(self.read(kernel, buffer, self.address(own)), width)
        if self._adjoining(axis, width):
            return self.read(kernel, buffer, self.address(own), width)
        # A block may end beyond the last channel: nothing is read there.
        last, cut = self.shape[axis] - 1, self.shape[axis] % width != 0
        along = [own[axis] + lane if lane else own[axis] for lane in range(width)]
        along = [tirx.min(place, last) if cut else place for place in along]
        lanes = [[*own[:axis], place, *own[axis + 1 :]] for place in along]
        numbers = [kernel.load(buffer, self.address(place)) for place in lanes]
        return self._number(tirx.Shuffle(numbers, list(range(width))))

    def read(self, kernel: Kernel, buffer: Buffer, address: Sequence[Index], width: int = 1) -> Expr:
        """``width`` neighbours in memory, as numbers.

        Args:
            kernel: What is being written.
            buffer: The tensor's memory.
            address: As :meth:`address` gives it.
            width: 1 gives a number, more a vector.
        """
        return self._number(kernel.load(buffer, address, width))

    def _number(self, value: Expr) -> Expr:
        return value if self.scale is None else dequantize(value, self.scale.step, self.scale.zero_point)

    def store(
        self, kernel: Kernel, buffer: Buffer, index: Sequence[Index], axis: int, value: Expr, width: int
    ) -> None:
        """``width`` neighbours along an axis, from an index on; the last block of channels may end early."""
        if width == 1 or self._adjoining(axis, width):
            kernel.store(buffer, self.address(index), value, width)
            return
        vector = kernel.let(value)
        for lane in range(width):
            place = [*index[:axis], index[axis] + lane, *index[axis + 1 :]]
            kernel.store(buffer, self.address(place), tirx.Shuffle([vector], [lane]))

    def _adjoining(self, axis: int, width: int) -> bool:
        return axis == self.vector_axis and (self.layout.block == 1 or self.layout.block % width == 0)

    def address(self, index: Sequence[Index]) -> list[Index]:
        """Where in memory an index is; a spatial one may lie in the halo."""
        if self.layout == PLAIN:
            return list(index)
        batch, channel, *spatial = index
        padded = [i + before for i, (before, _) in zip(spatial, self.halo, strict=True)]
        block = self.layout.block
        if block == 1:
            return [batch, channel, *padded]
        return [batch, channel // block, *padded, channel % block]

    def flat(self, index: Sequence[Index]) -> Index:
        """Where in memory an index is, counted from the first number."""
        place: Index = 0
        for i, stride in zip(self.address(index), self.strides, strict=True):
            place = place + i * stride
        return place

    def clear_halo(self, kernel: Kernel, buffer: Buffer) -> None:
        """Write the zeros around the value."""
        if not any(before or after for before, after in self.halo):
            return
        *outer, last = self.memory[2 : 2 + len(self.halo)]
        block = self.layout.block
        zero = constant(self.layout.fill, block, self.dtype)
        with kernel.parallel(self.shape[0], self.memory[1], *outer) as (batch, channel, *row):
            inside: Any = True
            for place, length, (before, _) in zip(row, self.shape[2:], self.halo, strict=False):
                inside = tirx.all(inside, place >= before, place < before + length)

            def clear(column: Index) -> None:
                place = [batch, channel, *row, column]
                kernel.store(buffer, place if block == 1 else [*place, 0], zero, block)

            with kernel.when(inside):
                before, after = self.halo[-1]
                for column in (*range(before), *range(last - after, last)):
                    clear(column)
            with kernel.when(tirx.Not(inside)), kernel.loop(last) as column:
                clear(column)

    def packed(self, values: NDArray[Any]) -> NDArray[Any]:
        """A constant's numbers in this order; channels beyond the last are zero."""
        values = np.ascontiguousarray(values, self.dtype).reshape(self.shape)
        if self.layout == PLAIN:
            return values
        block = self.layout.block
        values = np.pad(values, ((0, 0), (0, 0), *self.halo), constant_values=self.layout.fill)
        values = np.pad(values, ((0, 0), (0, -self.shape[1] % block), *((0, 0) for _ in self.halo)))
        if block == 1:
            return values
        batch, channels, *spatial = values.shape
        values = values.reshape(batch, channels // block, block, *spatial)
        return np.ascontiguousarray(np.moveaxis(values, 2, -1))
