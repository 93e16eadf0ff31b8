"""Fused loops as one would write them with Numba: parallel over rows, nothing but the result in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

compiled = njit(parallel=True, fastmath=True, boundscheck=False)
inline = njit(fastmath=True, inline="always")


@inline
def inside(at: Any, size: Any) -> Any:
    return min(max(at, np.float32(0)), np.float32(size - 1))


@inline
def blend(a: Any, b: Any, t: Any) -> Any:
    return a + t * (b - a)


@inline
def trilinear(image: Any, z: Any, y: Any, x: Any) -> Any:
    """At a place inside the grid."""
    depth, height, width = image.shape
    i, j, k = int(z), int(y), int(x)
    i1, j1, k1 = min(i + 1, depth - 1), min(j + 1, height - 1), min(k + 1, width - 1)
    tz, ty, tx = z - np.float32(i), y - np.float32(j), x - np.float32(k)
    near = blend(blend(image[i, j, k], image[i, j, k1], tx), blend(image[i, j1, k], image[i, j1, k1], tx), ty)
    far = blend(
        blend(image[i1, j, k], image[i1, j, k1], tx), blend(image[i1, j1, k], image[i1, j1, k1], tx), ty
    )
    return blend(near, far, tz)


@compiled
def warp3d(image: Any, flow: Any, out: Any) -> None:
    channels, depth, height, width = image.shape
    for row in prange(depth * height):
        i, j = row // height, row % height
        for k in range(width):
            z = inside(np.float32(i) + flow[0, i, j, k], depth)
            y = inside(np.float32(j) + flow[1, i, j, k], height)
            x = inside(np.float32(k) + flow[2, i, j, k], width)
            for c in range(channels):
                out[c, i, j, k] = trilinear(image[c], z, y, x)


@compiled
def compose3d(first: Any, second: Any, out: Any) -> None:
    _, depth, height, width = first.shape
    for row in prange(depth * height):
        i, j = row // height, row % height
        for k in range(width):
            z = inside(np.float32(i) + first[0, i, j, k], depth)
            y = inside(np.float32(j) + first[1, i, j, k], height)
            x = inside(np.float32(k) + first[2, i, j, k], width)
            for c in range(3):
                out[c, i, j, k] = first[c, i, j, k] + trilinear(second[c], z, y, x)


@compiled
def warp2d(image: Any, flow: Any, out: Any) -> None:
    channels, height, width = image.shape
    for j in prange(height):
        for k in range(width):
            y = inside(np.float32(j) + flow[0, j, k], height)
            x = inside(np.float32(k) + flow[1, j, k], width)
            j0, k0 = int(y), int(x)
            j1, k1 = min(j0 + 1, height - 1), min(k0 + 1, width - 1)
            ty, tx = y - np.float32(j0), x - np.float32(k0)
            for c in range(channels):
                near = blend(image[c, j0, k0], image[c, j0, k1], tx)
                far = blend(image[c, j1, k0], image[c, j1, k1], tx)
                out[c, j, k] = blend(near, far, ty)


@compiled
def jacobian3d(flow: Any, out: Any) -> None:
    _, depth, height, width = flow.shape
    for row in prange(depth * height):
        i, j = row // height, row % height
        i0, i1, j0, j1 = max(i - 1, 0), min(i + 1, depth - 1), max(j - 1, 0), min(j + 1, height - 1)
        by_z, by_y = np.float32(1 / (i1 - i0)), np.float32(1 / (j1 - j0))
        for k in range(width):
            k0, k1 = max(k - 1, 0), min(k + 1, width - 1)
            by_x = np.float32(1) if k1 - k0 == 1 else np.float32(0.5)
            a = (flow[0, i1, j, k] - flow[0, i0, j, k]) * by_z + np.float32(1)
            b = (flow[0, i, j1, k] - flow[0, i, j0, k]) * by_y
            c = (flow[0, i, j, k1] - flow[0, i, j, k0]) * by_x
            d = (flow[1, i1, j, k] - flow[1, i0, j, k]) * by_z
            e = (flow[1, i, j1, k] - flow[1, i, j0, k]) * by_y + np.float32(1)
            f = (flow[1, i, j, k1] - flow[1, i, j, k0]) * by_x
            g = (flow[2, i1, j, k] - flow[2, i0, j, k]) * by_z
            h = (flow[2, i, j1, k] - flow[2, i, j0, k]) * by_y
            m = (flow[2, i, j, k1] - flow[2, i, j, k0]) * by_x + np.float32(1)
            out[i, j, k] = a * (e * m - f * h) - b * (d * m - f * g) + c * (d * h - e * g)


@compiled
def points3d(points: Any, flow: Any, out: Any) -> None:
    _, depth, height, width = flow.shape
    for p in prange(len(points)):
        z, y, x = inside(points[p, 0], depth), inside(points[p, 1], height), inside(points[p, 2], width)
        for c in range(3):
            out[p, c] = points[p, c] + trilinear(flow[c], z, y, x)
