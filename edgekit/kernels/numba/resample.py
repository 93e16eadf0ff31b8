"""Resampling: the operator's own plan of it, carried out by Numba's functions in place of the extension's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.kernels.base import rounded
from edgekit.kernels.numba.jit import compiled, each_row
from edgekit.kernels.numba.sample import sample_affine
from edgekit.kernels.resample import OPERATOR
from edgekit.spec import Array

__all__ = ["filter_axes", "run", "sample_affine"]


def run(image: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """The variant of :func:`edgekit.kernels.resample`."""
    OPERATOR.native(sys.modules[__name__], image, outputs=outputs, threads=threads, isa="", **options)


def filter_axes(
    image: Array,
    out: Array,
    stages: Sequence[tuple[int, Array, Array, Array, Array]],
    *,
    threads: int,
    isa: str,
) -> None:
    """What the extension's function of this name does, with whole images between the stages."""
    del isa
    source = image.astype(np.float32, copy=False)
    for axis, base, *tables in stages:
        shape = list(source.shape)
        shape[axis + 1] = out.shape[axis + 1]
        target = np.empty(shape, np.float32)
        inner = int(np.prod(shape[axis + 2 :]))
        lines = [array.reshape(-1, array.shape[axis + 1], inner) for array in (source, target)]
        each_row(_filter_rows, target.size // inner, inner, threads, *lines, base, *tables)
        source = target
    out[...] = rounded(source, out.dtype)


@compiled
def _filter_rows(
    begin: int, end: int, image: Any, out: Any, base: Any, scale: Any, index: Any, weight: Any
) -> None:
    """New voxels of lines, neighbours in memory at a time."""
    for row in range(begin, end):
        outer, p = row // out.shape[1], row % out.shape[1]
        to, centre = out[outer, p], image[outer, base[p]]
        for x in range(len(to)):
            to[x] = centre[x] * scale[p] if scale[p] != 0 else np.float32(0)
        for tap in range(len(index)):
            factor, voxels = weight[tap, p], image[outer, index[tap, p]]
            if factor != 0:
                for x in range(len(to)):
                    to[x] += (voxels[x] - centre[x]) * factor
