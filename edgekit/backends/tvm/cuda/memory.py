"""Kernels that wait for memory: pooling, depthwise convolution, joining, softmax.

Tensors are channels-last. A thread takes a run of neighbouring channels, 16 bytes where they divide the
channels, and threads beside each other take runs beside each other, so that a warp's accesses are of whole
lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tvm import tirx

from edgekit.backends.tvm.cuda.convolution import SIZES
from edgekit.backends.tvm.cuda.kernel import ACCESS_BYTES, DeviceKernel
from edgekit.backends.tvm.loops import Buffer, Expr, Function, Index, ceil_div, product

_THREADS = 256


@dataclasses.dataclass(frozen=True)
class Window:
    """What slides over an image, of three axes, of which those that an image has not are of length 1.

    Attributes:
        batch: Images.
        channels: Of input and output.
        image: The input's D, H, W.
        out: The output's D, H, W.
        size: The window's.
        stride: Steps between outputs.
        pad: What lies before the image.
        dilation: Steps between a window's positions.
        kind: "max"; "mean" of what lies in the image; "padded mean", of the window's size; "depthwise", of
            which the weights ``(size, channels)`` come second and the bias third.
        dtype: Of input and output; sums are in float32.
        axes: How many of D, H, W the tensors have.
    """

    batch: int
    channels: int
    image: tuple[int, int, int]
    out: tuple[int, int, int]
    size: tuple[int, int, int]
    stride: tuple[int, int, int]
    pad: tuple[int, int, int]
    dilation: tuple[int, int, int] = (1, 1, 1)
    kind: str = "max"
    dtype: str = "float16"
    axes: int = 3


def sliding(window: Window, name: str = "window") -> Function:
    """The kernel: arguments are the image, a depthwise one's weights and bias (float32), the output."""
    lanes = lanes_of(window.channels, window.dtype)
    runs = window.channels // lanes
    total = window.batch * product(window.out) * runs
    with DeviceKernel(name) as kernel:
        ends = [window.image, window.out]
        shapes = [(window.batch, *end[3 - window.axes :], window.channels) for end in ends]
        image = kernel.argument("image", shapes[0], window.dtype)
        more = []
        if window.kind == "depthwise":
            more = [kernel.argument("weights", (product(window.size), window.channels))]
            more.append(kernel.argument("bias", (window.channels,)))
        out = kernel.argument("out", shapes[1], window.dtype)
        with kernel.grid((ceil_div(total, _THREADS),), _THREADS) as (block, thread):
            index = kernel.let(block[0] * _THREADS + thread)
            with kernel.when(index < total):
                batch, *place, run = _unravel(index, (*window.out, runs))
                channel = run * lanes
                sums, count = _slide(kernel, window, lanes, [image, *more], batch, place, channel)
                results = kernel.local(lanes, window.dtype)
                with kernel.unrolled(lanes) as i:
                    value = kernel.load(sums, (i,))
                    if window.kind == "mean":
                        value = value / tirx.max(kernel.load(count, (0,)), 1.0)
                    if window.kind == "padded mean":
                        value = value / float(product(window.size))
                    kernel.store(results, (i,), value.astype(window.dtype))
                move(kernel, (out, (batch, *place[3 - window.axes :], channel)), (results, (0,)), lanes)
    return kernel.function


def _slide(
    kernel: DeviceKernel,
    window: Window,
    lanes: int,
    inputs: Sequence[Buffer],
    batch: Expr,
    place: Sequence[Expr],
    channel: Expr,
) -> tuple[Buffer, Buffer]:
    """A run of channels' maxima or sums over the window, and how many positions of it lie in the image."""
    image, *more = inputs
    sums, count = kernel.local(lanes), kernel.local(1)
    least = tirx.min_value("float32") if window.kind == "max" else tirx.const(0.0, "float32")
    with kernel.unrolled(lanes) as i:
        kernel.store(sums, (i,), kernel.load(more[1], (channel + i,)) if more else least)
    kernel.store(count, (0,), tirx.const(0.0, "float32"))
    with kernel.loop(window.size[0]) as d, kernel.loop(window.size[1]) as h, kernel.loop(window.size[2]) as w:
        at = [
            begin * stride - pad + step * dilation
            for begin, stride, pad, step, dilation in zip(
                place, window.stride, window.pad, (d, h, w), window.dilation, strict=True
            )
        ]
        inside = [tirx.all(index >= 0, index < end) for index, end in zip(at, window.image, strict=True)]
        with kernel.when(tirx.all(*inside)):
            numbers = kernel.local(lanes, window.dtype)
            move(kernel, (numbers, (0,)), (image, (batch, *at[3 - window.axes :], channel)), lanes)
            with kernel.unrolled(lanes) as i:
                value = kernel.load(numbers, (i,)).astype("float32")
                if window.kind == "depthwise":
                    tap = (d * window.size[1] + h) * window.size[2] + w
                    value = value * kernel.load(more[0], (tap, channel + i))
                before = kernel.load(sums, (i,))
                kernel.store(sums, (i,), tirx.max(before, value) if window.kind == "max" else before + value)
            kernel.store(count, (0,), kernel.load(count, (0,)) + 1.0)
    return sums, count


def joined(space: Sequence[int], channels: Sequence[int], dtype: str, name: str = "join") -> Function:
    """Tensors ``(*space, channels[i])`` one behind the other along the channels."""
    lanes = min(lanes_of(each, dtype) for each in channels)
    runs = sum(channels) // lanes
    total = product(space) * runs
    with DeviceKernel(name) as kernel:
        inputs = [kernel.argument(f"input{i}", (*space, each), dtype) for i, each in enumerate(channels)]
        out = kernel.argument("out", (*space, sum(channels)), dtype)
        with kernel.grid((ceil_div(total, _THREADS),), _THREADS) as (block, thread):
            index = kernel.let(block[0] * _THREADS + thread)
            with kernel.when(index < total):
                row, run = kernel.let(index // runs), kernel.let(index % runs)
                numbers = kernel.local(lanes, dtype)
                first = 0
                for each, count in zip(inputs, channels, strict=True):
                    end = first + count // lanes
                    with kernel.when(tirx.all(run >= first, run < end)):
                        at = flat(space, row * count + (run - first) * lanes)
                        move(kernel, (numbers, (0,)), (each, at), lanes)
                    first = end
                at = flat(space, row * sum(channels) + run * lanes)
                move(kernel, (out, at), (numbers, (0,)), lanes)
    return kernel.function


def softmax(space: Sequence[int], channels: int, dtype: str, name: str = "softmax") -> Function:
    """Softmax over the few channels of each position: from ``(*space, channels)`` to float32 of that shape.

    A thread has a position, and reads it three times: the second and the third time from the cache.
    """
    positions = product(space)
    with DeviceKernel(name) as kernel:
        image = kernel.argument("image", (*space, channels), dtype)
        out = kernel.argument("out", (*space, channels))
        with kernel.grid((ceil_div(positions, _THREADS),), _THREADS) as (block, thread):
            row = kernel.let(block[0] * _THREADS + thread)

            def number(channel: Index) -> Expr:
                return kernel.load(image, flat(space, row * channels + channel)).astype("float32")

            with kernel.when(row < positions):
                most, total = kernel.local(1), kernel.local(1)
                kernel.store(most, (0,), number(0))
                kernel.store(total, (0,), tirx.const(0.0, "float32"))
                with kernel.loop(channels) as channel:
                    kernel.store(most, (0,), tirx.max(kernel.load(most, (0,)), number(channel)))
                with kernel.loop(channels) as channel:
                    more = tirx.exp(number(channel) - kernel.load(most, (0,)))
                    kernel.store(total, (0,), kernel.load(total, (0,)) + more)
                with kernel.loop(channels) as channel:
                    share = tirx.exp(number(channel) - kernel.load(most, (0,))) / kernel.load(total, (0,))
                    kernel.store(out, flat(space, row * channels + channel), share)
    return kernel.function


def lanes_of(channels: int, dtype: str) -> int:
    """Channels that a thread takes: 16 bytes, or the largest power of two below that divides them."""
    lanes = ACCESS_BYTES // SIZES[dtype]
    while channels % lanes:
        lanes //= 2
    return lanes


def flat(space: Sequence[int], index: Expr) -> list[Expr]:
    """An index into a tensor ``(*space, channels)`` as if it had one axis: TVM makes it that again."""
    return [*(tirx.const(0, "int32") for _ in space), index]


def move(
    kernel: DeviceKernel,
    to: tuple[Buffer, Sequence[Index]],
    source: tuple[Buffer, Sequence[Index]],
    lanes: int,
) -> None:
    """Neighbouring numbers from one buffer to another of the same type, in one access where it can be."""
    size = lanes * SIZES[str(source[0].dtype)]
    if size in (4, 8, 16):
        kernel.call(f"ek_move_{size}", kernel.address(to[0], *to[1]), kernel.address(source[0], *source[1]))
        return
    for i in range(lanes):
        (*outer, inner), (*other, last) = to[1], source[1]
        kernel.store(to[0], (*outer, inner + i), kernel.load(source[0], (*other, last + i)))


def _unravel(index: Expr, lengths: Sequence[int]) -> list[Expr]:
    """What is left, and an index for each length."""
    indices = []
    for length in reversed(lengths):
        indices.append(index % length)
        index = index // length
    return [index, *reversed(indices)]
