"""What iterations over neighbours share: channels as volumes of float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.kernels.base import Floats, rounded
from edgekit.kernels.numba.jit import inlined
from edgekit.spec import Array


def channels(image: Array, out: Array) -> Iterator[tuple[tuple[int, int], Floats, Array]]:
    """Each channel's index, the channel as float32 [D, H, W], and where its result goes.

    The volume is a copy.
    """
    for at in np.ndindex(image.shape[:2]):
        grid = (1, *image.shape[2:])[-3:]
        yield (at[0], at[1]), image[at].reshape(grid).astype(np.float32), out[at]


def finish(result: Floats, out: Array) -> None:
    """Writes a volume, rounded to the type of the result."""
    if out.dtype == np.float32:
        out[...] = result.reshape(out.shape)
    else:
        out[...] = rounded(result.reshape(out.shape).astype(np.float64), out.dtype)


@inlined
def inside(at: int, size: int) -> Any:
    """The nearest voxel of an axis."""
    return np.uint64(0 if at < 0 else (at if at < size else size - 1))
