"""Where to cut an image that is larger than the contract, so that the cuts show what matters in it.

Three of four cuts lie around a voxel of the foreground, the others anywhere. Which ones follows from the
image's bytes, the seed and the number of the cut alone, on every machine and with every version of NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.spec import Array, Dim, TensorSpec

# Quantized layers meet background too; but most of a scan is air, and says little.
_BACKGROUND = 4


@dataclass(frozen=True)
class Cut:
    """The part of an image that fits its contract.

    Attributes:
        axes: The image's axes that are those of space, or lie along its slices.
        lengths: Its lengths along them.
        sizes: Lengths of the part.
    """

    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def is_needed(self) -> bool:
        """Whether the image is larger than the part."""
        return self.lengths != self.sizes

    def of(self, array: Array, origin: Sequence[int]) -> Array:
        """The part that begins at ``origin``, as a view."""
        index = [slice(None)] * array.ndim
        for axis, first, size in zip(self.axes, origin, self.sizes, strict=True):
            index[axis] = slice(first, first + size)
        return array[tuple(index)]


def cut_for(shape: Sequence[int], spec: TensorSpec) -> Cut | None:
    """How to cut an image of this shape; ``None`` where its axes are not those of an image.

    A volume gives its slices to a contract of pictures. Where an image is smaller than the contract it stays
    whole, for :func:`edgekit.volumes.as_tensor` to refuse.
    """
    spatial = [axis for axis, letter in enumerate(spec.layout) if letter in "DHW"]
    dims: list[int | Dim] = [spec.dims[axis] for axis in spatial]
    if not spatial:
        return None
    if len(shape) == len(spec.dims):
        axes = spatial
    elif len(shape) == 3 and len(spatial) == 2:
        axes, dims = [0, 1, 2], [1, *dims]
    elif len(shape) < len(spec.dims) and spec.layout.strip("NC") == spec.layout[spatial[0] :]:
        # Axes that are missing lie before those of space.
        known = min(len(shape), len(spatial))
        axes, dims = list(range(len(shape) - known, len(shape))), dims[-known:]
    else:
        return None
    lengths = tuple(int(shape[axis]) for axis in axes)
    sizes = tuple(_size(length, dim) for length, dim in zip(lengths, dims, strict=True))
    return Cut(tuple(axes), lengths, sizes)


def _size(length: int, dim: int | Dim) -> int:
    if isinstance(dim, int):
        return min(length, dim)
    if length < dim.min:
        return length
    return dim.min + (min(length, dim.largest) - dim.min) // dim.step * dim.step


class Chooser:
    """Chooses where the parts of one image begin.

    Args:
        array: The image.
        cut: How to cut it.
        threshold: Values above it are foreground.
        key: What the choice depends on: the digest of the image and the seed.
    """

    def __init__(self, array: Array, cut: Cut, threshold: float, key: str) -> None:
        others = [0 if axis not in cut.axes else slice(None) for axis in range(array.ndim)]
        self._space = array[tuple(others)]
        self._cut, self._threshold, self._key = cut, threshold, key
        counts = [int(np.count_nonzero(layer > threshold)) for layer in self._space]
        self._until = np.cumsum(counts, dtype=np.int64)

    def origin(self, number: int) -> tuple[int, ...]:
        """Where the part with this number begins."""
        foreground = int(self._until[-1])
        if foreground and self._draw(_BACKGROUND, number, "kind"):
            centre = self._foreground_voxel(self._draw(foreground, number, "voxel"))
        else:
            centre = tuple(
                self._draw(length, number, f"axis {axis}") for axis, length in enumerate(self._cut.lengths)
            )
        return tuple(
            min(max(0, middle - size // 2), length - size)
            for middle, size, length in zip(centre, self._cut.sizes, self._cut.lengths, strict=True)
        )

    def _foreground_voxel(self, index: int) -> tuple[int, ...]:
        layer = int(np.searchsorted(self._until, index, side="right"))
        before = int(self._until[layer - 1]) if layer else 0
        inside = np.flatnonzero(self._space[layer] > self._threshold)[index - before]
        return (layer, *(int(i) for i in np.unravel_index(inside, self._space.shape[1:])))

    def _draw(self, count: int, number: int, what: str) -> int:
        """A number from 0 up to ``count``; NumPy's generators may change with its version."""
        digest = hashlib.sha256(f"{self._key}:{number}:{what}".encode()).digest()
        return int.from_bytes(digest[:16], "big") % count
