"""Anisotropic diffusion; see ``csrc/diffusion/diffusion_math-inl.h``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.numba.jit import called, compiled, each_row, inlined
from edgekit.kernels.numba.mathematics import ZERO
from edgekit.kernels.numba.stencil import channels, finish, inside
from edgekit.spec import Array

_SIXTEENTH, _LEAST_NORM = np.float32(0.0625), np.float32(1e-10)
_LOWEST = float(np.finfo(np.float32).min)


def anisotropic_diffusion(
    image: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    iterations: int,
    time_step: float,
    conductance: float,
    form: str,
    conductance_scaling_update_interval: int,
    spatial_ndim: int | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.anisotropic_diffusion`."""
    curvature = form == "curvature"
    for _, volume, out in channels(image, outputs[0]):
        source = volume
        depth, height, width = source.shape
        there, sums = np.empty_like(source), np.empty(depth * height)
        step, inverse_k = np.float32(0), np.float32(0)
        for number in range(iterations):
            if number % conductance_scaling_update_interval == 0:
                each_row(_squares, len(sums), width, threads, source, sums)
                k = -2 * conductance**2 * float(sums.sum()) / 4 / source.size
                step = np.float32(time_step if k != 0 else 0)
                inverse_k = np.float32(0 if k == 0 else max(1 / k, _LOWEST) if k == k else k)
            each_row(_rows, len(sums), width, threads, source, there, step, inverse_k, curvature)
            source, there = there, source
        finish(source, out)


@inlined
def _value(u: Any, z: int, y: int, x: int) -> Any:
    depth, height, width = u.shape
    return u[inside(z, depth), inside(y, height), inside(x, width)]


@inlined
def _central(u: Any, axis: int, z: int, y: int, x: int) -> Any:
    """The difference over two voxels along an axis."""
    dz, dy, dx = (1 if axis == 0 else 0), (1 if axis == 1 else 0), (1 if axis == 2 else 0)
    return _value(u, z + dz, y + dy, x + dx) - _value(u, z - dz, y - dy, x - dx)


@called
def _flux(u: Any, axis: int, z: int, y: int, x: int, inverse_k: Any, curvature: bool) -> Any:
    """Through the face between a voxel and the next one along an axis; nothing at the border."""
    nz, ny, nx = z + (1 if axis == 0 else 0), y + (1 if axis == 1 else 0), x + (1 if axis == 2 else 0)
    if min(z, y, x) < 0 or nz >= u.shape[0] or ny >= u.shape[1] or nx >= u.shape[2]:
        return ZERO
    total = ZERO
    for other in range(3):
        if other != axis:
            cross = _central(u, other, z, y, x) + _central(u, other, nz, ny, nx)
            total += cross * cross
    difference = u[nz, ny, nx] - u[z, y, x]
    magnitude = difference * difference + total * _SIXTEENTH
    conductance = np.exp(magnitude * inverse_k)
    if curvature:
        return difference / np.sqrt(magnitude + _LEAST_NORM) * conductance
    return difference * conductance


@inlined
def _upwind(rises: bool, before: Any, after: Any) -> Any:
    low, high = (before, after) if rises else (after, before)
    low, high = (low if low < ZERO else ZERO), (high if high > ZERO else ZERO)
    return low * low + high * high


@compiled
def _rows(begin: int, end: int, u: Any, to: Any, step: Any, inverse_k: Any, curvature: bool) -> None:
    _, height, width = u.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        before_x = ZERO
        for x in range(width):
            after_x = _flux(u, 2, z, y, x, inverse_k, curvature)
            inflow = after_x - before_x
            before_x = after_x
            inflow += _flux(u, 1, z, y, x, inverse_k, curvature) - _flux(
                u, 1, z, y - 1, x, inverse_k, curvature
            )
            inflow += _flux(u, 0, z, y, x, inverse_k, curvature) - _flux(
                u, 0, z - 1, y, x, inverse_k, curvature
            )
            centre = u[z, y, x]
            if curvature:
                rises = inflow > ZERO
                total = _upwind(rises, centre - _value(u, z, y, x - 1), _value(u, z, y, x + 1) - centre)
                total += _upwind(rises, centre - _value(u, z, y - 1, x), _value(u, z, y + 1, x) - centre)
                total += _upwind(rises, centre - _value(u, z - 1, y, x), _value(u, z + 1, y, x) - centre)
                inflow = np.sqrt(total) * inflow
            to[z, y, x] = centre + inflow * step


@compiled
def _squares(begin: int, end: int, u: Any, sums: Any) -> None:
    """Sums of squared differences over two voxels."""
    _, height, width = u.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        total = 0.0
        for x in range(width):
            along_x, along_y = _central(u, 2, z, y, x), _central(u, 1, z, y, x)
            along_z = _central(u, 0, z, y, x)
            total += along_x * along_x + along_y * along_y + along_z * along_z
        sums[row] = total
