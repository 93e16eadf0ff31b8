"""How good a displacement field is."""

from __future__ import annotations

import math

import numpy as np

from edgekit import kernels
from edgekit.errors import SpecError
from edgekit.metrics.base import CaseMetric, Floats, Pair
from edgekit.spec import Array, format_dims


class TargetRegistrationError(CaseMetric):
    """Mean distance from where a point is sent to where it belongs; in mm, or in voxels without a spacing.

    Takes displacements in voxels, [1, 3, D, H, W] with components (z, y, x) or [1, 2, H, W] with (y, x). The
    reference is either

    - a field of the same shape: all voxels count but those where it is NaN, so a mask is NaN outside; or
    - landmarks [K, 2, 3] or [K, 6] (in 2-D [K, 2, 2] or [K, 4]) in voxels: a point of the fixed image, then
      the same point in the moving one. The field is interpolated linearly at the first (Fitzpatrick et al.,
      IEEE TMI 17, 1998).

    Not measured where every voxel of the reference is NaN.
    """

    name = "tre"
    title = "target registration error"
    better = "lower"
    takes = "displacement"
    unit = "mm"
    perfect = 0.0

    def values(self, pair: Pair) -> dict[str, float]:
        """See the base."""
        flow = _field(pair.result)
        ndim = flow.shape[1]
        if _are_landmarks(pair.reference, ndim):
            fixed, moving = pair.reference.astype(np.float64).reshape(-1, 2, ndim).swapaxes(0, 1)
            _check_inside(fixed, flow.shape[2:])
            moved = kernels.warp_points(fixed[None].astype(np.float32), flow)[0]
            error = moving - moved
        else:
            want = pair.aligned()[0].astype(np.float64)
            error = np.moveaxis(want - flow[0], 0, -1)[~np.isnan(want).any(axis=0)]
        lengths = np.linalg.norm(error * np.array(pair.spacing(ndim)), axis=1)
        return {"": float(lengths.mean()) if lengths.size else math.nan}


class Folding(CaseMetric):
    """Share of voxels where the map folds: the Jacobian determinant is not positive (no reference needed).

    Takes displacements as ``tre`` does. Derivatives are those of
    :func:`edgekit.kernels.jacobian_determinant`.
    """

    name = "folding"
    title = "share of folded voxels"
    better = "lower"
    takes = "displacement"
    perfect = 0.0
    needs_reference = False

    def values(self, pair: Pair) -> dict[str, float]:
        """See the base."""
        return {"": kernels.folding_fraction(_field(pair.result))}


def _field(result: Array) -> Array:
    """The displacement as the kernels take it."""
    ndim = result.ndim - 2
    if ndim not in (2, 3) or result.shape[0] != 1 or result.shape[1] != ndim:
        raise SpecError(
            "want a displacement of one image in voxels, 1x3xDxHxW or 1x2xHxW, "
            f"got {format_dims(result.shape)}"
        )
    return np.ascontiguousarray(result, np.float32)


def _are_landmarks(reference: Array, ndim: int) -> bool:
    return reference.ndim in (2, 3) and reference.shape[1:] in ((2, ndim), (2 * ndim,))


def _check_inside(points: Floats, grid: tuple[int, ...]) -> None:
    if not ((points >= 0) & (points <= np.array(grid) - 1)).all():
        last = ", ".join(str(n - 1) for n in grid)
        raise SpecError(f"a landmark lies outside the fixed image: want voxels from 0 to ({last})")


TRE = TargetRegistrationError()
FOLDING = Folding()
