"""Operators that sample an image: locate a block of voxels of a row, then fetch it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit.kernels.checks import is_channels_last
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.numba.jit import called, compiled, each_row, inlined, memory_of, part
from edgekit.kernels.numba.mathematics import (
    HALF,
    OUTSIDE,
    UNKNOWN,
    ZERO,
    Span,
    blend,
    cubic_weights,
    extended,
    from_half,
    place,
    put,
    span_of,
    widen,
)
from edgekit.spec import Array

# Voxels of a row that are located at once.
BLOCK = 256

Triple = tuple[int, int, int]


class Layout(NamedTuple):
    """Where the elements of an array [N, C, D, H, W] are; a plane has D = 1.

    Attributes:
        size: Of the grid.
        batch: Elements from one sample to the next.
        channel: From one channel to the next.
        step: From one voxel to the next along each axis.
        channels: How many there are.
    """

    size: Triple
    batch: int
    channel: int
    step: Triple
    channels: int


class Plan(NamedTuple):
    """What sampling is told, apart from the arrays.

    Attributes:
        dims: 3, or 2 for planes.
        order: 0, 1 or 3.
        boundary: Position in :data:`BOUNDARIES`.
        cubic: The parameter of cubic convolution.
        spans: See :func:`span_of`.
        image: What is sampled.
        out: What is written.
        add: Whether the displacement is added to the sample.
    """

    dims: int
    order: int
    boundary: int
    cubic: float
    spans: tuple[Span, Span, Span]
    image: Layout
    out: Layout
    add: bool


class Block(NamedTuple):
    """Where up to :data:`BLOCK` voxels of a row are sampled: lines per axis z, y, x, except the last.

    Attributes:
        shift: float32; the coordinate is whole + shift.
        whole: int32.
        first: int32, the first voxel that takes part.
        weight: float32, the coordinate's distance from it; NaN if it is NaN.
        values: float32, workspace: what is fetched.
    """

    shift: Any
    whole: Any
    first: Any
    weight: Any
    values: Any


def layout_of(array: Array) -> Layout:
    """The layout of a C-contiguous or channels-last array."""
    channels, voxels = array.shape[1], int(np.prod(array.shape[2:]))
    unit, channel = (channels, 1) if is_channels_last(array) else (1, voxels)
    depth, height, width = (1, *array.shape[2:])[-3:]
    step = (height * width * unit, width * unit, unit)
    return Layout((depth, height, width), channels * voxels, channel, step, channels)


def plan_of(
    image: Array, out: Array, order: int, boundary: str, *, cubic: float = -0.5, add: bool = False
) -> Plan:
    """The plan for sampling ``image`` into ``out``."""
    source = layout_of(image)
    z, y, x = (span_of(size, order, boundary) for size in source.size)
    rule = BOUNDARIES.index(boundary)
    return Plan(image.ndim - 2, order, rule, cubic, (z, y, x), source, layout_of(out), add)


def warp(
    image: Array,
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    order: int,
    boundary: str,
    add: bool = False,
) -> None:
    """The variant of :func:`edgekit.kernels.warp`."""
    (out,) = outputs
    plan = plan_of(image, out, order, boundary, add=add)
    _, height, width = plan.out.size
    empty = np.empty(0, np.uint16)
    flows = (
        (memory_of(flow), empty)
        if flow.dtype == np.float32
        else (empty.view(np.float32)[:0], memory_of(flow))
    )
    rows = out.shape[0] * plan.out.size[0] * height
    each_row(_warp_rows, rows, width, threads, memory_of(image), *flows, memory_of(out), plan)


def compose(first: Array, second: Array, *, outputs: Sequence[Array], threads: int, boundary: str) -> None:
    """The variant of :func:`edgekit.kernels.compose`."""
    warp(second, first, outputs=outputs, threads=threads, order=1, boundary=boundary, add=True)


def integrate(velocity: Array, *, outputs: Sequence[Array], threads: int, steps: int, boundary: str) -> None:
    """The variant of :func:`edgekit.kernels.integrate_velocity`."""
    (out,) = outputs
    spare = np.empty_like(out) if steps else out
    # Two buffers take turns, beginning so that the last composition lands in `out`.
    field, following = (spare, out) if steps % 2 else (out, spare)
    np.multiply(velocity, np.float32(2.0**-steps), out=field)
    for _ in range(steps):
        compose(field, field, outputs=(following,), threads=threads, boundary=boundary)
        field, following = following, field


@compiled
def _warp_rows(begin: int, end: int, image: Any, flow: Any, half_flow: Any, out: Any, plan: Plan) -> None:
    """Warp rows of the result; of the two flows one is empty."""
    depth, height, width = plan.out.size
    block = new_block()
    for row in range(begin, end):
        n, z, y = row // (depth * height), row // height % depth, row % height
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            displace(flow, half_flow, n, z, y, x, count, plan, block)
            target = n * plan.out.batch + ((z * height + y) * width + x) * plan.out.step[2]
            fetch(image, n * plan.image.batch, count, plan, block, out, target)


@part
def new_block() -> Block:
    """Memory for a block; a plane leaves what belongs to z at 0."""
    return Block(
        np.zeros((3, BLOCK), np.float32),
        np.zeros((3, BLOCK), np.int32),
        np.zeros((3, BLOCK), np.int32),
        np.zeros((3, BLOCK), np.float32),
        np.zeros(BLOCK, np.float32),
    )


@part
def displace(
    flow: Any, half_flow: Any, n: int, z: int, y: int, x: int, count: int, plan: Plan, block: Block
) -> None:
    """Locate the block that begins at voxel (z, y, x) of sample ``n``. Of the two flows one is empty."""
    depth, height, width = plan.out.size
    for axis in range(3 - plan.dims, 3):
        component = n * plan.dims + axis - (3 - plan.dims)
        at = ((component * depth + z) * height + y) * width + x
        if len(half_flow) == 0:
            block.shift[axis, :count] = flow[at : at + count]
        else:
            for k in range(count):
                block.shift[axis, k] = from_half(half_flow[at + k])
        start = z if axis == 0 else y if axis == 1 else x
        for k in range(count):
            block.whole[axis, k] = start + k if axis == 2 else start
    locate(count, plan, block)


@part
def locate(count: int, plan: Plan, block: Block) -> None:
    """Place all coordinates of a block."""
    for axis in range(3 - plan.dims, 3):
        place(
            block.shift[axis],
            block.whole[axis],
            count,
            plan.spans[axis],
            block.first[axis],
            block.weight[axis],
        )


@part
def fetch(image: Any, base: int, count: int, plan: Plan, block: Block, out: Any, target: int) -> None:
    """Sample the image that begins at ``base`` where a block says, to ``target`` in ``out``."""
    values = block.values
    for c in range(plan.image.channels):
        start = base + c * plan.image.channel
        if plan.order == 0:
            _fetch_nearest(image, start, count, plan, block)
        elif plan.order == 3:
            _fetch_cubic(image, start, count, plan, block)
        elif _all_inside(block.first, count, plan):
            _fetch_inside(image, start, count, plan, block)
        else:
            _fetch_linear(image, start, count, plan, block)
        if plan.add:
            for k in range(count):
                values[k] += block.shift[3 - plan.dims + c, k]
        for k in range(count):
            put(out, target + c * plan.out.channel + k * plan.out.step[2], values[k])


@part
def _all_inside(first: Any, count: int, plan: Plan) -> bool:
    """Whether every cell of a block is inside the image."""
    inside = True
    for axis in range(3 - plan.dims, 3):
        last = np.int32(plan.image.size[axis] - 2)
        for k in range(count):
            inside &= (first[axis, k] >= 0) & (first[axis, k] <= last)
    return inside


@part
def _fetch_inside(image: Any, base: int, count: int, plan: Plan, block: Block) -> None:
    first, weight, values = block.first, block.weight, block.values
    dz, dy, dx = plan.image.step
    if plan.dims == 2:
        for k in range(count):
            at = base + first[1, k] * dy + first[2, k] * dx
            values[k] = _plane(image, at, dy, dx, weight[1, k], weight[2, k])
        return
    for k in range(count):
        at = base + first[0, k] * dz + first[1, k] * dy + first[2, k] * dx
        near = _plane(image, at, dy, dx, weight[1, k], weight[2, k])
        far = _plane(image, at + dz, dy, dx, weight[1, k], weight[2, k])
        values[k] = blend(near, far, weight[0, k])


@part
def _fetch_linear(image: Any, base: int, count: int, plan: Plan, block: Block) -> None:
    for k in range(count):
        block.values[k] = cell(image, base, k, plan, block)


@inlined
def cell(image: Any, base: int, k: int, plan: Plan, block: Block) -> Any:
    """Linear interpolation where a voxel may be outside."""
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    z, y, x = np.int64(block.first[0, k]), np.int64(block.first[1, k]), np.int64(block.first[2, k])
    wz, wy, wx = block.weight[0, k], block.weight[1, k], block.weight[2, k]
    if plan.dims == 3 and 0 <= x < width - 1 and 0 <= y < height - 1 and 0 <= z < depth - 1:
        at = base + z * dz + y * dy + x * dx
        near = _plane(image, at, dy, dx, wy, wx)
        return blend(near, _plane(image, at + dz, dy, dx, wy, wx), wz)
    return _mapped(image, base, z, y, x, wz, wy, wx, plan)


@inlined
def _plane(image: Any, at: int, dy: int, dx: int, wy: Any, wx: Any) -> Any:
    """Linear interpolation between four voxels of a plane."""
    near = blend(widen(image[np.uint64(at)]), widen(image[np.uint64(at + dx)]), wx)
    far = blend(widen(image[np.uint64(at + dy)]), widen(image[np.uint64(at + dy + dx)]), wx)
    return blend(near, far, wy)


@called
def offset(index: int, size: int, step: int, boundary: int) -> int:
    """The offset of the voxel that stands for any whole coordinate, or :data:`OUTSIDE`."""
    voxel = extended(index, size, boundary)
    return voxel * step if voxel >= 0 else OUTSIDE


@inlined
def _at(image: Any, base: int, z: int, y: int, x: int) -> Any:
    """The voxel at a sum of offsets, 0 if one of them is outside."""
    if z < 0 or y < 0 or x < 0:
        return ZERO
    return widen(image[np.uint64(base + z + y + x)])


@inlined
def _mapped_plane(image: Any, base: int, z: int, y: int, x: int, wy: Any, wx: Any, plan: Plan) -> Any:
    _, height, width = plan.image.size
    _, dy, dx = plan.image.step
    y0, y1 = offset(y, height, dy, plan.boundary), offset(y + 1, height, dy, plan.boundary)
    x0, x1 = offset(x, width, dx, plan.boundary), offset(x + 1, width, dx, plan.boundary)
    near = blend(_at(image, base, z, y0, x0), _at(image, base, z, y0, x1), wx)
    far = blend(_at(image, base, z, y1, x0), _at(image, base, z, y1, x1), wx)
    return blend(near, far, wy)


@called
def _mapped(image: Any, base: int, z: int, y: int, x: int, wz: Any, wy: Any, wx: Any, plan: Plan) -> Any:
    """Linear interpolation where a voxel may be outside."""
    if plan.dims == 2:
        return _mapped_plane(image, base, 0, y, x, wy, wx, plan)
    depth, dz = plan.image.size[0], plan.image.step[0]
    z0, z1 = offset(z, depth, dz, plan.boundary), offset(z + 1, depth, dz, plan.boundary)
    near = _mapped_plane(image, base, z0, y, x, wy, wx, plan)
    return blend(near, _mapped_plane(image, base, z1, y, x, wy, wx, plan), wz)


@part
def nearest(k: int, plan: Plan, block: Block) -> int:
    """The offset of the nearest voxel, :data:`OUTSIDE`, or :data:`UNKNOWN`."""
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    wz, wy, wx = block.weight[0, k], block.weight[1, k], block.weight[2, k]
    if not wz + wy + wx >= ZERO:
        return UNKNOWN
    z = np.int64(block.first[0, k]) + (wz >= HALF)
    y = np.int64(block.first[1, k]) + (wy >= HALF)
    x = np.int64(block.first[2, k]) + (wx >= HALF)
    if not (0 <= z < depth and 0 <= y < height and 0 <= x < width):
        z, y, x = (
            extended(z, depth, plan.boundary),
            extended(y, height, plan.boundary),
            extended(x, width, plan.boundary),
        )
        if z < 0 or y < 0 or x < 0:
            return OUTSIDE
    return z * dz + y * dy + x * dx


@part
def _fetch_nearest(image: Any, base: int, count: int, plan: Plan, block: Block) -> None:
    values = block.values
    for k in range(count):
        at = nearest(k, plan, block)
        if at >= 0:
            values[k] = widen(image[np.uint64(base + at)])
        else:
            values[k] = ZERO if at == OUTSIDE else np.float32(np.nan)


@called
def _cubic_taps(index: int, size: int, step: int, boundary: int) -> tuple[int, int, int, int]:
    """Offsets of the four voxels around the one between ``index`` and the next."""
    return (
        offset(index - 1, size, step, boundary),
        offset(index, size, step, boundary),
        offset(index + 1, size, step, boundary),
        offset(index + 2, size, step, boundary),
    )


@inlined
def _cubic_line(image: Any, base: int, z: int, y: int, x: Any, weights: Any) -> Any:
    total = _at(image, base, z, y, x[0]) * weights[0] + _at(image, base, z, y, x[1]) * weights[1]
    return total + _at(image, base, z, y, x[2]) * weights[2] + _at(image, base, z, y, x[3]) * weights[3]


@part
def _fetch_cubic(image: Any, base: int, count: int, plan: Plan, block: Block) -> None:
    first, weight, values = block.first, block.weight, block.values
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    a = np.float32(plan.cubic)
    for k in range(count):
        z, y, x = np.int64(first[0, k]), np.int64(first[1, k]), np.int64(first[2, k])
        wz = cubic_weights(weight[0, k], a)
        wy, wx = cubic_weights(weight[1, k], a), cubic_weights(weight[2, k], a)
        total = ZERO
        if plan.dims == 3 and 1 <= x < width - 2 and 1 <= y < height - 2 and 1 <= z < depth - 2:
            at = base + (z - 1) * dz + (y - 1) * dy + (x - 1) * dx
            for i in range(4):
                total += _cubic_square(image, at + i * dz, dy, dx, wy, wx) * wz[i]
            values[k] = total
            continue
        ys = _cubic_taps(y, height, dy, plan.boundary)
        xs = _cubic_taps(x, width, dx, plan.boundary)
        if plan.dims == 2:
            values[k] = _cubic_plane(image, base, 0, ys, xs, wy, wx)
            continue
        zs = _cubic_taps(z, depth, dz, plan.boundary)
        for i in range(4):
            total += _cubic_plane(image, base, zs[i], ys, xs, wy, wx) * wz[i]
        values[k] = total


@inlined
def _cubic_square(image: Any, at: int, dy: int, dx: int, wy: Any, wx: Any) -> Any:
    """The weighted sum of 4 x 4 voxels of a plane that are inside the image."""
    total = ZERO
    for j in range(4):
        line = ZERO
        for i in range(4):
            line += widen(image[np.uint64(at + j * dy + i * dx)]) * wx[i]
        total += line * wy[j]
    return total


@called
def _cubic_plane(image: Any, base: int, z: int, ys: Any, xs: Any, wy: Any, wx: Any) -> Any:
    total = ZERO
    for j in range(4):
        total += _cubic_line(image, base, z, ys[j], xs, wx) * wy[j]
    return total
