"""From blocks to samples: nearest, linear and cubic."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.kernels.numba.block import Block, Plan
from edgekit.kernels.numba.jit import called, inlined, part
from edgekit.kernels.numba.mathematics import (
    HALF,
    OUTSIDE,
    UNKNOWN,
    ZERO,
    blend,
    cubic_weights,
    extended,
    put,
    widen,
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


@called
def _mapped(image: Any, base: int, z: int, y: int, x: int, wz: Any, wy: Any, wx: Any, plan: Plan) -> Any:
    """Linear interpolation where a voxel may be outside."""
    if plan.dims == 2:
        return _mapped_plane(image, base, 0, y, x, wy, wx, plan)
    depth, dz = plan.image.size[0], plan.image.step[0]
    z0, z1 = offset(z, depth, dz, plan.boundary), offset(z + 1, depth, dz, plan.boundary)
    near = _mapped_plane(image, base, z0, y, x, wy, wx, plan)
    return blend(near, _mapped_plane(image, base, z1, y, x, wy, wx, plan), wz)


@inlined
def _mapped_plane(image: Any, base: int, z: int, y: int, x: int, wy: Any, wx: Any, plan: Plan) -> Any:
    _, height, width = plan.image.size
    _, dy, dx = plan.image.step
    y0, y1 = offset(y, height, dy, plan.boundary), offset(y + 1, height, dy, plan.boundary)
    x0, x1 = offset(x, width, dx, plan.boundary), offset(x + 1, width, dx, plan.boundary)
    near = blend(_at(image, base, z, y0, x0), _at(image, base, z, y0, x1), wx)
    far = blend(_at(image, base, z, y1, x0), _at(image, base, z, y1, x1), wx)
    return blend(near, far, wy)


@part
def nearest(k: int, plan: Plan, block: Block) -> Any:
    """The offset of the nearest voxel, :data:`OUTSIDE`, or :data:`UNKNOWN`."""
    depth, height, width = plan.image.size
    dz, dy, dx = plan.image.step
    wz, wy, wx = block.weight[0, k], block.weight[1, k], block.weight[2, k]
    if not wz + wy + wx >= ZERO:
        return UNKNOWN
    z = np.int64(block.first[0, k]) + np.int64(wz >= HALF)
    y = np.int64(block.first[1, k]) + np.int64(wy >= HALF)
    x = np.int64(block.first[2, k]) + np.int64(wx >= HALF)
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


@inlined
def _cubic_line(image: Any, base: int, z: int, y: int, x: Any, weights: Any) -> Any:
    total = _at(image, base, z, y, x[0]) * weights[0] + _at(image, base, z, y, x[1]) * weights[1]
    return total + _at(image, base, z, y, x[2]) * weights[2] + _at(image, base, z, y, x[3]) * weights[3]
