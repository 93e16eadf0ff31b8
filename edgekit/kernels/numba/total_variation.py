"""Total variation; see ``csrc/total_variation/total_variation-inl.h``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.base import Floats
from edgekit.kernels.numba.jit import compiled, each_row, inlined
from edgekit.kernels.numba.mathematics import HALF, ONE, ZERO
from edgekit.kernels.numba.stencil import channels, finish, inside
from edgekit.spec import Array

_GAP_INTERVAL, _GAMMA = 10, 0.7


def total_variation(
    image: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    weight: float,
    iterations: int = 100,
    method: str = "chambolle",
    tolerance: float | None = None,
    return_gap: bool = False,
    spatial_ndim: int | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.total_variation`."""
    for at, source, out in channels(image, outputs[0]):
        dims, pair = image.ndim - 2, method == "primal_dual"
        u, gap = _minimise(source, dims, weight, iterations, pair, tolerance, return_gap, threads)
        finish(u, out)
        if return_gap:
            outputs[1][at] = gap


def _minimise(
    image: Floats,
    dims: int,
    weight: float,
    iterations: int,
    pair: bool,
    tolerance: float | None,
    wants_gap: bool,
    threads: int,
) -> tuple[Floats, float]:
    depth, height, width = image.shape
    dual, u, ahead = np.zeros((3, *image.shape), np.float32), image.copy(), image.copy()
    tau, sigma = 1.0, 1 / (4 * dims)
    sums = np.empty((depth * height, 2))
    float_weight = np.float32(weight)

    def gap() -> float:
        each_row(_energies, depth * height, width, threads, image, u, dual, float_weight, pair, sums)
        between, energy = sums.sum(axis=0)
        return 0.0 if energy == 0 else float(between / energy)

    for number in range(1, iterations):
        if pair:
            theta = 1 / math.sqrt(1 + 2 * _GAMMA * tau)
            step = (np.float32(sigma), np.float32(tau / (1 + tau)), np.float32(theta))
            tau, sigma = tau * theta, sigma / theta
        else:
            step = (np.float32(1 / (2 * dims)), np.float32(1 / (2 * dims) / weight), np.float32(0))
        each_row(_dual_rows, depth * height, width, threads, ahead, dual, step, float_weight, pair)
        each_row(_primal_rows, depth * height, width, threads, image, dual, u, ahead, step, pair)
        if tolerance is not None and number % _GAP_INTERVAL == 0 and not gap() > tolerance:
            break
    return u, gap() if wants_gap else 0.0


@inlined
def _gradient(u: Any, z: int, y: int, x: int) -> Any:
    depth, height, width = u.shape
    centre = u[z, y, x]
    along_x = u[z, y, inside(x + 1, width)] - centre
    along_y = u[z, inside(y + 1, height), x] - centre
    return along_x, u[inside(z + 1, depth), y, x] - centre, along_y


@inlined
def _inflow(dual: Any, z: int, y: int, x: int) -> Any:
    along_y = (dual[2, z, y - 1, x] if y > 0 else ZERO) - dual[2, z, y, x]
    along_z = (dual[1, z - 1, y, x] if z > 0 else ZERO) - dual[1, z, y, x]
    return along_y + along_z + ((dual[0, z, y, x - 1] if x > 0 else ZERO) - dual[0, z, y, x])


@inlined
def _length(x: Any, z: Any, y: Any) -> Any:
    return np.sqrt(x * x + z * z + y * y)


@compiled
def _dual_rows(begin: int, end: int, ahead: Any, dual: Any, step: Any, weight: Any, pair: bool) -> None:
    _, height, width = ahead.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        for x in range(width):
            gx, gz, gy = _gradient(ahead, z, y, x)
            px, pz, py = dual[0, z, y, x], dual[1, z, y, x], dual[2, z, y, x]
            px, pz, py = px - gx * step[0], pz - gz * step[0], py - gy * step[0]
            if pair:
                excess = _length(px, pz, py) * (ONE / weight)
                share = ONE / (ONE if excess <= ONE else excess)
            else:
                share = ONE / (ONE + _length(gx, gz, gy) * step[1])
            dual[0, z, y, x], dual[1, z, y, x], dual[2, z, y, x] = px * share, pz * share, py * share


@compiled
def _primal_rows(
    begin: int, end: int, image: Any, dual: Any, u: Any, ahead: Any, step: Any, pair: bool
) -> None:
    _, height, width = image.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        for x in range(width):
            v = image[z, y, x] + _inflow(dual, z, y, x)
            if pair:
                before = u[z, y, x]
                v = before + (v - before) * step[1]
                ahead[z, y, x] = v + (v - before) * step[2]
            else:
                ahead[z, y, x] = v
            u[z, y, x] = v


@compiled
def _energies(
    begin: int, end: int, image: Any, u: Any, dual: Any, weight: Any, pair: bool, sums: Any
) -> None:
    _, height, width = image.shape
    for row in range(begin, end):
        z, y = row // height, row % height
        between, energy = 0.0, 0.0
        for x in range(width):
            gx, gz, gy = _gradient(u, z, y, x)
            variation = _length(gx, gz, gy) * weight
            dot = dual[0, z, y, x] * gx + dual[1, z, y, x] * gz + dual[2, z, y, x] * gy
            change = u[z, y, x] - image[z, y, x]
            off = change - _inflow(dual, z, y, x) if pair else ZERO
            between += variation + dot + off * off * HALF
            energy += variation + change * change * HALF
        sums[row, 0], sums[row, 1] = between, energy
