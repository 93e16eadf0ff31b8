"""Operators that sample an image: locate a block of voxels of a row, then fetch it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit.kernels.checks import is_channels_last
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.numba.jit import compiled, each_row, inlined, memory_of
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
    voxels = depth * height * width
    shift = np.zeros((3, BLOCK), np.float32)
    whole = np.zeros((3, BLOCK), np.int32)
    first = np.zeros((3, BLOCK), np.int32)
    weight = np.zeros((3, BLOCK), np.float32)
    for row in range(begin, end):
        n, z, y = row // (depth * height), row // height % depth, row % height
        for x in range(0, width, BLOCK):
            count = min(BLOCK, width - x)
            voxel = (z * height + y) * width + x
            for axis in range(3 - plan.dims, 3):
                at = (n * plan.dims + axis - (3 - plan.dims)) * voxels + voxel
                start = z if axis == 0 else y if axis == 1 else x
                step = 1 if axis == 2 else 0
                if len(half_flow) == 0:
                    shift[axis, :count] = flow[at : at + count]
                else:
                    for k in range(count):
                        shift[axis, k] = from_half(half_flow[at + k])
                for k in range(count):
                    whole[axis, k] = start + k * step
                place(shift[axis], whole[axis], count, plan.spans[axis], first[axis], weight[axis])
            base = n * plan.out.batch + voxel * plan.out.step[2]
            fetch(image, n * plan.image.batch, first, weight, shift, count, plan, out, base)


@inlined
def fetch(
    image: Any,
    base: int,
    first: Any,
    weight: Any,
    shift: Any,
    count: int,
    plan: Plan,
    out: Any,
    target: int,
) -> None:
    """Sample a block that begins at ``target`` in ``out``."""
    if plan.order == 0:
        _fetch_nearest(image, base, first, weight, count, plan, out, target)
    elif plan.order == 1:
        _fetch_linear(image, base, first, weight, shift, count, plan, out, target)
    else:
        _fetch_cubic(image, base, first, weight, count, plan, out, target)


@inlined
def _fetch_linear(
    image: Any,
    base: int,
    first: Any,
    weight: Any,
    shift: Any,
    count: int,
    plan: Plan,
    out: Any,
    target: int,
) -> None:
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    solid = plan.dims == 3
    for k in range(count):
        z, y, x = np.int64(first[0, k]), np.int64(first[1, k]), np.int64(first[2, k])
        wz, wy, wx = weight[0, k], weight[1, k], weight[2, k]
        inside = 0 <= x < width - 1 and 0 <= y < height - 1 and (not solid or 0 <= z < depth - 1)
        at = base + z * dz + y * dy + x * dx
        to = target + k * plan.out.step[2]
        for c in range(plan.image.channels):
            if inside:
                value = _plane(image, at, dy, dx, wy, wx)
                if solid:
                    value = blend(value, _plane(image, at + dz, dy, dx, wy, wx), wz)
            else:
                value = _mapped(image, base + c * plan.image.channel, z, y, x, wz, wy, wx, plan)
            if plan.add:
                value = value + shift[3 - plan.dims + c, k]
            put(out, to, value)
            at += plan.image.channel
            to += plan.out.channel


@inlined
def _plane(image: Any, at: int, dy: int, dx: int, wy: Any, wx: Any) -> Any:
    """Linear interpolation between four voxels of a plane."""
    near = blend(widen(image[np.uint64(at)]), widen(image[np.uint64(at + dx)]), wx)
    far = blend(widen(image[np.uint64(at + dy)]), widen(image[np.uint64(at + dy + dx)]), wx)
    return blend(near, far, wy)


@inlined
def _offset(index: int, size: int, step: int, boundary: int) -> int:
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
    y0, y1 = _offset(y, height, dy, plan.boundary), _offset(y + 1, height, dy, plan.boundary)
    x0, x1 = _offset(x, width, dx, plan.boundary), _offset(x + 1, width, dx, plan.boundary)
    near = blend(_at(image, base, z, y0, x0), _at(image, base, z, y0, x1), wx)
    far = blend(_at(image, base, z, y1, x0), _at(image, base, z, y1, x1), wx)
    return blend(near, far, wy)


@inlined
def _mapped(image: Any, base: int, z: int, y: int, x: int, wz: Any, wy: Any, wx: Any, plan: Plan) -> Any:
    """Linear interpolation where a voxel may be outside."""
    if plan.dims == 2:
        return _mapped_plane(image, base, 0, y, x, wy, wx, plan)
    depth, dz = plan.image.size[0], plan.image.step[0]
    z0, z1 = _offset(z, depth, dz, plan.boundary), _offset(z + 1, depth, dz, plan.boundary)
    near = _mapped_plane(image, base, z0, y, x, wy, wx, plan)
    return blend(near, _mapped_plane(image, base, z1, y, x, wy, wx, plan), wz)


@inlined
def nearest(first: Any, weight: Any, k: int, plan: Plan) -> int:
    """The offset of the nearest voxel, :data:`OUTSIDE`, or :data:`UNKNOWN`."""
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    wz, wy, wx = weight[0, k], weight[1, k], weight[2, k]
    if not wz + wy + wx >= ZERO:
        return UNKNOWN
    z = extended(first[0, k] + (1 if wz >= HALF else 0), depth, plan.boundary)
    y = extended(first[1, k] + (1 if wy >= HALF else 0), height, plan.boundary)
    x = extended(first[2, k] + (1 if wx >= HALF else 0), width, plan.boundary)
    return OUTSIDE if z < 0 or y < 0 or x < 0 else z * dz + y * dy + x * dx


@inlined
def _fetch_nearest(
    image: Any, base: int, first: Any, weight: Any, count: int, plan: Plan, out: Any, target: int
) -> None:
    for k in range(count):
        at = nearest(first, weight, k, plan)
        to = target + k * plan.out.step[2]
        for c in range(plan.image.channels):
            if at >= 0:
                value = widen(image[np.uint64(base + at + c * plan.image.channel)])
            else:
                value = ZERO if at == OUTSIDE else np.float32(np.nan)
            put(out, to + c * plan.out.channel, value)


@inlined
def _cubic_taps(index: int, size: int, step: int, boundary: int) -> tuple[int, int, int, int]:
    """Offsets of the four voxels around the one between ``index`` and the next."""
    return (
        _offset(index - 1, size, step, boundary),
        _offset(index, size, step, boundary),
        _offset(index + 1, size, step, boundary),
        _offset(index + 2, size, step, boundary),
    )


@inlined
def _cubic_line(image: Any, base: int, z: int, y: int, x: Any, weights: Any) -> Any:
    total = _at(image, base, z, y, x[0]) * weights[0] + _at(image, base, z, y, x[1]) * weights[1]
    return total + _at(image, base, z, y, x[2]) * weights[2] + _at(image, base, z, y, x[3]) * weights[3]


@inlined
def _fetch_cubic(
    image: Any, base: int, first: Any, weight: Any, count: int, plan: Plan, out: Any, target: int
) -> None:
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    a = np.float32(plan.cubic)
    for k in range(count):
        ys = _cubic_taps(first[1, k], height, dy, plan.boundary)
        xs = _cubic_taps(first[2, k], width, dx, plan.boundary)
        wy, wx = cubic_weights(weight[1, k], a), cubic_weights(weight[2, k], a)
        zs, wz = (0, 0, 0, 0), wy
        if plan.dims == 3:
            zs = _cubic_taps(first[0, k], depth, dz, plan.boundary)
            wz = cubic_weights(weight[0, k], a)
        for c in range(plan.image.channels):
            start, total = base + c * plan.image.channel, ZERO
            for i in range(4 if plan.dims == 3 else 1):
                plane = ZERO
                for j in range(4):
                    plane += _cubic_line(image, start, zs[i], ys[j], xs, wx) * wy[j]
                total = total + plane * wz[i] if plan.dims == 3 else plane
            put(out, target + k * plan.out.step[2] + c * plan.out.channel, total)
