"""The Gaussian filter; narrow types are widened as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.base import rounded
from edgekit.kernels.denoise.gaussian import OPERATOR
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.numba.jit import compiled, each_row
from edgekit.kernels.numba.mathematics import OUTSIDE, ZERO, extended
from edgekit.spec import Array


def run(image: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """The variant of :func:`edgekit.kernels.gaussian`."""
    OPERATOR.native(_Module, image, outputs=tuple(outputs), threads=threads, isa="", **options)


class _Module:
    """What stands for the extension."""

    @staticmethod
    def gaussian(image: Array, out: Array, *tables: Array, boundary: str, threads: int, isa: str) -> None:
        del isa
        sizes = (1, *image.shape[2:])[-3:]
        smooth = image.astype(np.float32, copy=False).reshape(-1)
        for axis in (2, 1, 0):
            if weights := len(tables[axis]):
                size, inner = sizes[axis], int(np.prod(sizes[axis + 1 :]))
                target = np.empty_like(smooth)
                rule = BOUNDARIES.index(boundary)
                rows = len(smooth) // inner
                cost = inner * (2 * weights + 1)
                each_row(_rows, rows, cost, threads, smooth, target, size, inner, tables[axis], rule)
                smooth = target
        out[...] = rounded(smooth.reshape(out.shape), out.dtype)


@compiled
def _rows(
    begin: int, end: int, image: Any, out: Any, size: int, inner: int, weights: Any, boundary: int
) -> None:
    """New voxels of lines that are neighbours in memory."""
    for row in range(begin, end):
        outer, p = row // size, row % size
        for x in range(inner):
            centre = image[row * inner + x]
            total, twice = centre, centre + centre
            for k in range(len(weights)):
                before, after = extended(p - k - 1, size, boundary), extended(p + k + 1, size, boundary)
                pair = ZERO
                if before != OUTSIDE:
                    pair = image[(outer * size + before) * inner + x]
                if after != OUTSIDE:
                    pair += image[(outer * size + after) * inner + x]
                total += (pair - twice) * weights[k]
            out[row * inner + x] = total
