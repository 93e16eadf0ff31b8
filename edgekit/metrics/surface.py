"""Distances between the surfaces of segmentations.

Published tools disagree on these (Podobnik and Vrtovec, "HDilemma", 2024), so the definitions are spelled
out. The surface of a mask are its voxels with a neighbour outside, along any axis; outside the image is
outside. Every surface voxel has the distance from its centre to the nearest one of the other surface, both
ways.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from edgekit.metrics import labels
from edgekit.metrics.base import SCIPY, Floats, Option, Pair
from edgekit.metrics.labels import Mask
from edgekit.metrics.overlap import LabelMetric


class SurfaceMetric(LabelMetric):
    """A metric of the distances between two surfaces; in mm, or in voxels where the spacing is not known."""

    requirements = (SCIPY,)

    def values(self, pair: Pair) -> dict[str, float]:
        """See the base."""
        labels.check_single(pair.result, pair.axes)
        ndimage = _ndimage()
        found = {}
        for name, *both in labels.masks(pair):
            ours, theirs = (mask[0] if pair.axes.startswith("N") else mask for mask in both)
            spacing = pair.spacing(ours.ndim)
            if not ours.any() or not theirs.any():
                found[name] = self.missed(ours, spacing)
                continue
            box = _box(ours | theirs)
            ours, theirs = _surface(ndimage, ours[box]), _surface(ndimage, theirs[box])
            there = ndimage.distance_transform_edt(~theirs, sampling=spacing)[ours]
            back = ndimage.distance_transform_edt(~ours, sampling=spacing)[theirs]
            found[name] = self.of(there, back, pair)
        return found

    @abstractmethod
    def of(self, there: Floats, back: Floats, pair: Pair) -> float:
        """The value, from the distances of either surface's voxels to the other surface."""

    @abstractmethod
    def missed(self, mask: Mask, spacing: tuple[float, ...]) -> float:
        """The value where only one of the two has the class."""


class HausdorffDistance95(SurfaceMetric):
    """95th percentile of the surface distances, the larger of both directions (Huttenlocher et al., 1993).

    In mm, or in voxels where the spacing is not known. A class that only one of result and reference has is
    as far off as the image is large: its diagonal. So finding less never improves it.
    """

    name = "hd95"
    title = "Hausdorff distance, 95th percentile"
    better = "lower"
    unit = "mm"
    perfect = 0.0

    def of(self, there: Floats, back: Floats, pair: Pair) -> float:
        """See the base."""
        return max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))

    def missed(self, mask: Mask, spacing: tuple[float, ...]) -> float:
        """The diagonal of the image."""
        return float(np.linalg.norm(np.multiply(mask.shape, spacing)))


class SurfaceDice(SurfaceMetric):
    """Share of both surfaces that lies within ``tolerance`` of the other (Nikolov et al., arXiv:1809.04430).

    A share, 0 … 1, counted in surface voxels. The tolerance is in mm, or in voxels where the spacing is not
    known. A class that only one of result and reference has scores 0.
    """

    name = "surface_dice"
    title = "surface Dice"
    better = "higher"
    perfect = 1.0
    lost = 0.0
    useless = 0.1
    defaults: ClassVar[Mapping[str, Option]] = {**labels.DEFAULTS, "tolerance": 1.0}

    def of(self, there: Floats, back: Floats, pair: Pair) -> float:
        """See the base."""
        tolerance = float(pair.options["tolerance"])
        near = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
        return float(near / (there.size + back.size))

    def missed(self, mask: Mask, spacing: tuple[float, ...]) -> float:
        """Nothing of it is near."""
        return 0.0


def _ndimage() -> Any:
    SCIPY.load()
    from scipy import ndimage

    return ndimage


def _box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask."""
    box = []
    for axis in range(mask.ndim):
        (at,) = mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)).nonzero()
        box.append(slice(int(at[0]), int(at[-1]) + 1))
    return tuple(box)


def _surface(ndimage: Any, mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


HD95 = HausdorffDistance95()
SURFACE_DICE = SurfaceDice()
