"""What the operators of edgekit shall reach, and whether a measurement shows that they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BOUND, ONE_THREAD, NUMBA = "bound", "one thread", "edgekit numba"


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        kernel: Name of the operator.
        case: Label of the case.
        against: A peer or a variant: its CPU time over edgekit's, with one thread each. Or :data:`BOUND`: the
            CPU time to move the fewest bytes at the speed of a copy over edgekit's, with one thread. Or
            :data:`ONE_THREAD`: the wall time of one thread over that of two.
        limit: The least ratio, or the largest one.
        at_most: Whether it is the largest.
    """

    kernel: str
    case: str
    against: str
    limit: float
    at_most: bool = False

    def met(self, ratio: float) -> bool:
        return ratio <= self.limit if self.at_most else ratio >= self.limit


_FULL = "160x192x160"
_PLANAR, _SKIMAGE = ("5x5 in 11x11", "7x7 in 21x21"), "scikit-image"

GOALS = (
    Goal("warp", _FULL, "torch layer", 16),
    Goal("warp", _FULL, "torch operator", 8),
    Goal("warp", _FULL, "numba fused loop", 2.5),
    Goal("warp", _FULL, BOUND, 0.20),
    Goal("warp", f"{_FULL} C=4", "torch layer", 10),
    Goal("warp", f"{_FULL} C=4", "torch operator", 8),
    Goal("warp", f"{_FULL} C=4 channels-last", "torch layer", 10),
    Goal("warp", f"{_FULL} C=4 channels-last", "torch operator", 8),
    Goal("warp", f"{_FULL} float16", "edgekit, float32 image", 1.2),
    Goal("warp", f"{_FULL} C=4 float16", "edgekit, float32 image", 1.5),
    Goal("warp", "1024x1024", "cv2.remap", 1),
    Goal("warp", "1024x1024", "torch layer", 10),
    Goal("integrate_velocity", "80x96x80", "torch layer", 13),
    Goal("integrate_velocity", _FULL, "torch layer", 20),
    Goal("compose", _FULL, "torch layer", 15),
    Goal("jacobian_determinant", _FULL, "numpy gradient + det", 10),
    Goal("jacobian_determinant", _FULL, BOUND, 0.25),
    *(Goal("non_local_means", f"512x512 {size} uint8", "cv2.fastNlMeansDenoising", 3) for size in _PLANAR),
    *(Goal("non_local_means", f"512x512 {size}", _SKIMAGE, 12) for size in _PLANAR),
    Goal("non_local_means", "128x128x128 3^3 in 5^3", "DIPY nlmeans blockwise", 15),
    Goal("non_local_means", "64x64x64 3^3 in 11^3", "DIPY nlmeans blockwise", 6),
    Goal("non_local_means", "64x64x64 3^3 in 11^3", "DIPY nlmeans classic", 35),
    Goal("non_local_means", "64x64x64 3^3 in 11^3", _SKIMAGE, 14),
    Goal("total_variation", "512x512 50 iterations", "scikit-image", 9),
    Goal("total_variation", "128x128x128 20 iterations", "scikit-image", 9),
    Goal("anisotropic_diffusion", "128x128x128 gradient", "SimpleITK", 50),
    Goal("bilateral", "512x512 radius 4", "cv2.bilateralFilter", 3),
    # 30 for each voxel of a window: SimpleITK's is a box of 1331, edgekit's a ball of 515.
    Goal("bilateral", "64x64x64 radius 5", "SimpleITK", 30 * 1331 / 515),
    Goal("median", "128x128x128 3x3x3", "SimpleITK", 50),
    Goal("median", "128x128x128 3x3x3", "scipy ndimage", 50),
    *(Goal(kernel, _FULL, NUMBA, 4, at_most=True) for kernel in ("warp", "compose", "integrate_velocity")),
    *(Goal(kernel, _FULL, ONE_THREAD, 1.7) for kernel in ("warp", "compose", "integrate_velocity")),
)


def reached(goal: Goal, results: Iterable[Mapping[str, Any]]) -> float | None:
    """The ratio that was measured, ``None`` where it was not: the results are those of a report."""
    threads = 2 if goal.against == ONE_THREAD else 1
    for result in results:
        if (result["kernel"], result["case"], result["threads"]) != (goal.kernel, goal.case, threads):
            continue
        if goal.against == ONE_THREAD:
            return result["scaling"]["speedup"]
        least_cpu_s = result["runs"]["edgekit"]["least_cpu_s"]
        if goal.against == BOUND:
            return result["bound_s"] / least_cpu_s
        if peer := result["runs"].get(goal.against):
            return peer["least_cpu_s"] / least_cpu_s
    return None
