"""Non-local means, row after row; what is around an image and what ends a mean is left to NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.base import Floats, rounded
from edgekit.kernels.denoise import patches
from edgekit.kernels.interpolation import OUTSIDE, extend
from edgekit.kernels.numba.jit import called, compiled, each_row, part
from edgekit.kernels.numba.mathematics import HALF, ONE, ZERO
from edgekit.spec import Array


def run(image: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """The variant of :func:`edgekit.kernels.non_local_means`."""
    from edgekit.kernels.denoise.non_local_means import patch_options

    _run(image, outputs[0], threads, **patch_options(**options))


def run_obnlm(image: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """The variant of :func:`edgekit.kernels.obnlm`."""
    from edgekit.kernels.denoise.obnlm import patch_options

    _run(image, outputs[0], threads, **patch_options(**options))


def _run(
    image: Array,
    out: Array,
    threads: int,
    *,
    sigma: Any,
    patch_radius: int,
    search_radius: int,
    strength: float,
    boundary: str,
    blockwise: bool,
    rician: bool = False,
    floor: float = 0.0,
    mask: Array | None = None,
) -> None:
    grid = (1, *image.shape[2:])[-3:]
    volume = image.ndim == 5
    sigmas = np.broadcast_to(patches.as_sigma(image, sigma), image.shape).reshape(-1, *grid)
    u: Floats = image.reshape(-1, *grid).astype(np.float32)
    reach = (2 if blockwise else 1) * patch_radius + search_radius
    reaches = (reach if volume else 0, reach, reach)
    around = _padded(u, reaches, boundary)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        values = around * around if rician else around
        scales = np.minimum(np.float32(1) / (np.float32(strength) * sigmas) ** 2, np.float32(3e38))
        scales /= np.float32((2 * patch_radius + 1) ** (3 if volume else 2))
        inverses = ONE / np.maximum(np.float32(floor), around) if floor else around[:0]
    scales = _padded(scales, reaches, "edge" if boundary == "zero" else boundary)
    bias = np.float32(0.0 if floor else 2.0 / strength**2)
    added = np.empty(u.shape, np.float32)
    radii = (patch_radius if volume else 0, patch_radius, search_radius if volume else 0, search_radius)
    kernel = _block_rows if blockwise else _rows
    rows = u.shape[0] * grid[0] * grid[1]
    each_row(kernel, rows, grid[2], threads, around, values, inverses, scales, bias, radii, reaches, added)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = (u * u if rician else u) + added
        if rician:
            mean = np.sqrt(np.maximum(np.float32(0), mean - np.float32(2) * (sigmas * sigmas)))
    if mask is not None:
        chosen = np.broadcast_to(patches.as_mask(image, mask), image.shape).reshape(mean.shape)
        mean = np.where(chosen != 0, mean, u)
    out[...] = rounded(mean, out.dtype).reshape(out.shape)


def _padded(values: Floats, reaches: Sequence[int], boundary: str) -> Floats:
    for axis, reach in enumerate(reaches, 1):
        size = values.shape[axis]
        index = extend(np.arange(-reach, size + reach), size, boundary)
        inside = (index != OUTSIDE).reshape([-1 if k == axis else 1 for k in range(4)])
        values = np.where(inside, np.take(values, np.maximum(index, 0), axis=axis), ZERO)
    return np.ascontiguousarray(values)


@part
def _squares(
    image: Any, inverses: Any, m: int, z: int, y: int, x: int, offset: Any, radii: Any, count: int, sums: Any
) -> None:
    """Squared differences of ``count`` columns of patches, of which the first has its middle at (z, y, x)."""
    o_z, o_y, o_x = offset
    for i in range(count):
        sums[i] = ZERO
    for k_z in range(-radii[0], radii[0] + 1):
        for k_y in range(-radii[1], radii[1] + 1):
            here = image[m, z + k_z, y + k_y, x : x + count]
            there = image[m, z + k_z + o_z, y + k_y + o_y, x + o_x : x + o_x + count]
            if inverses.size:
                over = inverses[m, z + k_z + o_z, y + k_y + o_y, x + o_x : x + o_x + count]
                for i in range(count):
                    difference = there[i] - here[i]
                    sums[i] += difference * difference * over[i]
            else:
                for i in range(count):
                    difference = there[i] - here[i]
                    sums[i] += difference * difference


@part
def _weight(sums: Any, first: int, count: int, scale: Any, bias: Any) -> Any:
    distance = sums[first]
    for k in range(1, count):
        distance += sums[first + k]
    power = distance * scale - bias
    return np.exp(-power) if not power < ZERO else ONE


@compiled
def _rows(
    begin: int,
    end: int,
    image: Any,
    values: Any,
    inverses: Any,
    scales: Any,
    bias: Any,
    radii: Any,
    reaches: Any,
    added: Any,
) -> None:
    """What is added to the voxels of rows."""
    depth, height, width = added.shape[1:]
    r, s_z, s = radii[1:]
    sums, total = np.empty(width + 2 * r, np.float32), np.empty(width, np.float32)
    for row in range(begin, end):
        m, z, y = row // (depth * height), row // height % depth, row % height
        at_z, at_y, at_x = z + reaches[0], y + reaches[1], reaches[2]
        result = added[m, z, y]
        result[:] = ZERO
        total[:] = ONE
        for o_z in range(-s_z, s_z + 1):
            for o_y in range(-s, s + 1):
                for o_x in range(-s, s + 1):
                    if o_z == 0 and o_y == 0 and o_x == 0:
                        continue
                    offset = (o_z, o_y, o_x)
                    _squares(image, inverses, m, at_z, at_y, at_x - r, offset, radii, width + 2 * r, sums)
                    here = values[m, at_z, at_y, at_x:]
                    there = values[m, at_z + o_z, at_y + o_y, at_x + o_x :]
                    scale = scales[m, at_z, at_y, at_x:]
                    for x in range(width):
                        weight = _weight(sums, x, 2 * r + 1, scale[x], bias)
                        result[x] += weight * (there[x] - here[x])
                        total[x] += weight
        for x in range(width):
            result[x] /= total[x]


@called
def _block_means(
    image: Any,
    values: Any,
    inverses: Any,
    scales: Any,
    bias: Any,
    radii: Any,
    place: Any,
    block: Any,
    sums: Any,
    total: Any,
    means: Any,
) -> None:
    """For a row of blocks, what is added to the voxels of a row that they hold, not yet divided by ``total``.

    ``place`` is the image and the first voxel of the row, ``block`` z and y of the centres; both are counted
    with what is around the image.
    """
    (m, z, y, x), (c_z, c_y) = place, block
    r, s_z, s = radii[1:]
    step = r + 1
    means[:] = ZERO
    total[:] = ONE
    scale, here = scales[m, c_z, c_y, x:], values[m, z, y]
    for o_z in range(-s_z, s_z + 1):
        for o_y in range(-s, s + 1):
            there = values[m, z + o_z, y + o_y]
            for o_x in range(-s, s + 1):
                if o_z == 0 and o_y == 0 and o_x == 0:
                    continue
                offset = (o_z, o_y, o_x)
                _squares(image, inverses, m, c_z, c_y, x - r, offset, radii, len(sums), sums)
                for c in range(len(total)):
                    weight = _weight(sums, c * step, 2 * r + 1, scale[c * step], bias)
                    total[c] += weight
                    first = x + c * step - r
                    for k in range(2 * r + 1):
                        means[c, k] += weight * (there[first + k + o_x] - here[first + k])


@compiled
def _block_rows(
    begin: int,
    end: int,
    image: Any,
    values: Any,
    inverses: Any,
    scales: Any,
    bias: Any,
    radii: Any,
    reaches: Any,
    added: Any,
) -> None:
    """The same of blocks, with the means of those that hold a voxel."""
    depth, height, width = added.shape[1:]
    r, step = radii[1], radii[1] + 1
    step_z = step if radii[0] else 1
    blocks = (width + step - 2) // step + 1
    sums, total = np.empty(step * (blocks - 1) + 1 + 2 * r, np.float32), np.empty(blocks, np.float32)
    means = np.empty((blocks, 2 * r + 1), np.float32)
    for row in range(begin, end):
        m, z, y = row // (depth * height), row // height % depth, row % height
        place = (m, z + reaches[0], y + reaches[1], reaches[2])
        result = added[m, z, y]
        result[:] = ZERO
        rows = 0
        for c_z in range(z // step_z * step_z, -(-z // step_z) * step_z + 1, step_z):
            for c_y in range(y // step * step, -(-y // step) * step + 1, step):
                rows += 1
                block = (c_z + reaches[0], c_y + reaches[1])
                _block_means(image, values, inverses, scales, bias, radii, place, block, sums, total, means)
                for x in range(width):
                    low, high = x // step, -(-x // step)
                    mean = means[low, x - low * step + r] / total[low]
                    if high > low:
                        mean = (mean + means[high, x - high * step + r] / total[high]) * HALF
                    result[x] += mean
        result /= np.float32(rows)
