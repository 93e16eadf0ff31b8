"""Speckle reduction; see ``csrc/srad/srad-inl.h``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.denoise.srad import Region, starts
from edgekit.kernels.numba.jit import compiled, each_row, inlined
from edgekit.kernels.numba.mathematics import ONE, TWO, ZERO
from edgekit.kernels.numba.stencil import channels, finish, inside
from edgekit.spec import Array

_TINY = np.float32(1e-30)


def srad(
    image: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    iterations: int,
    time_step: float,
    q0: float | None,
    decay: float,
    region: Region | None,
    spatial_ndim: int | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.srad`."""
    dims = image.ndim - 2
    half_share, rate = np.float32(1 / (2 * dims)), np.float32(time_step / (2 * dims))
    first = starts(image, q0)
    for at, volume, out in channels(image, outputs[0]):
        source = volume
        depth, height, width = source.shape
        there, coefficient = np.empty_like(source), np.empty_like(source)
        for number in range(iterations):
            square = float(first[at] * math.exp(-decay * time_step * number)) ** 2
            if region:
                square = _square_of(source, region)
            scale = square * (1 + square)
            inverse = np.float32(min(1 / scale, 1e38) if scale > 0 else 1e38 if scale == 0 else scale)
            constants = (half_share, np.float32(square), inverse)
            each_row(_weigh, depth * height, width, threads, source, coefficient, constants)
            each_row(_move, depth * height, width, threads, source, coefficient, there, rate)
            source, there = there, source
        finish(source, out)


def _square_of(volume: Array, region: Region) -> float:
    """The squared coefficient of variation in a box."""
    box = volume[tuple(slice(*pair) for pair in ((0, 1), *region)[-3:])].astype(np.float64)
    mean = float(box.mean())
    return 0.0 if mean == 0 else max(float((box**2).mean()) - mean**2, 0.0) / mean**2


@inlined
def _beside(u: Any, z: int, y: int, x: int) -> Any:
    """The neighbours before and behind, along x, z and y."""
    depth, height, width = u.shape
    along_x = u[z, y, inside(x - 1, width)], u[z, y, inside(x + 1, width)]
    along_z = u[inside(z - 1, depth), y, x], u[inside(z + 1, depth), y, x]
    return along_x, along_z, (u[z, inside(y - 1, height), x], u[z, inside(y + 1, height), x])


@compiled
def _weigh(begin: int, end: int, u: Any, coefficient: Any, constants: Any) -> None:
    half_share, square, inverse = constants
    _, height, width = u.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        for x in range(width):
            centre, total, squares = u[z, y, x], ZERO, ZERO
            for before, after in _beside(u, z, y, x):
                back, ahead = before - centre, after - centre
                total += back + ahead
                squares += back * back + ahead * ahead
            change = total * half_share
            mean = centre + change
            variance = squares * (TWO * half_share) - change * change
            floor = mean * mean
            excess = (variance / (_TINY if floor < _TINY else floor) - square) * inverse
            coefficient[z, y, x] = ONE / (ONE + (ZERO if excess < ZERO else excess))


@compiled
def _move(begin: int, end: int, u: Any, coefficient: Any, to: Any, rate: Any) -> None:
    _, height, width = u.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        for x in range(width):
            centre, here, inflow = u[z, y, x], coefficient[z, y, x], ZERO
            (bx, ax), (bz, az), (by, ay) = _beside(u, z, y, x)
            (_, cx), (_, cz), (_, cy) = _beside(coefficient, z, y, x)
            inflow += cx * (ax - centre) - here * (centre - bx)
            inflow += cz * (az - centre) - here * (centre - bz)
            inflow += cy * (ay - centre) - here * (centre - by)
            to[z, y, x] = centre + inflow * rate
