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

__all__ = ["filter_axes", "filter_axis", "run", "sample_affine"]


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
    for number, (axis, *tables) in enumerate(stages):
        target = out
        if number + 1 < len(stages):
            shape = (*image.shape[: axis + 1], out.shape[axis + 1], *image.shape[axis + 2 :])
            target = np.empty(shape, np.float32)
        filter_axis(image, target, axis + 1, *tables, threads=threads, isa=isa)
        image = target


def filter_axis(
    image: Array,
    out: Array,
    axis: int,
    base: Array,
    scale: Array,
    index: Array,
    weight: Array,
    *,
    threads: int,
    isa: str,
) -> None:
    """What the extension's function of this name does; narrow types are widened as a whole."""
    del isa
    inner = int(np.prod(image.shape[axis + 1 :]))
    exact = out if out.dtype == np.float32 else np.empty(out.shape, np.float32)
    source = image.astype(np.float32, copy=False).reshape(-1, image.shape[axis], inner)
    target = exact.reshape(-1, out.shape[axis], inner)
    rows = target.shape[0] * target.shape[1]
    each_row(_filter_rows, rows, inner, threads, source, target, base, scale, index, weight)
    if exact is not out:
        out[...] = rounded(exact, out.dtype)


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
