"""Surface distances, against MONAI's own computation and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import SpecError
from edgekit.metrics import METRICS
from edgekit.metrics.base import Pair
from edgekit.metrics.surface import HD95, SURFACE_DICE
from edgekit.spec import Array


def values(name: str, result: Array, truth: Array, spacing=None, **given: object) -> dict[str, float]:
    metric = METRICS[name]
    options = metric.settle(result, "", metric.complete(given))
    return metric.values(Pair(result, truth, "", spacing, options))


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    mask = rng.random(shape) < 0.02
    corner = [int(rng.integers(0, n // 2)) for n in shape]
    mask[tuple(slice(c, c + int(rng.integers(1, 6))) for c in corner)] = True
    return mask


@given(st.integers(0, 10_000), st.booleans())
@settings(deadline=None, max_examples=25)
def test_agrees_with_monai(seed: int, in_3d: bool) -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(seed)
    shape, spacing = ((7, 10, 9), (3.0, 0.7, 1.1)) if in_3d else ((14, 11), (0.7, 1.1))
    ours, truth = blob(rng, shape), blob(rng, shape)
    both = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (ours, truth)]
    spacing_zyx = spacing if in_3d else (9.0, *spacing)
    got = values("hd95", ours[None, None], truth, spacing_zyx)["1"]
    want = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing)
    assert got == pytest.approx(float(want), rel=1e-5)
    got = values("surface_dice", ours[None, None], truth, spacing_zyx, tolerance=1.2)["1"]
    want = compute_surface_dice(*both, class_thresholds=[1.2], include_background=True, spacing=spacing)
    assert got == pytest.approx(float(want), rel=1e-5)


def test_two_voxels_are_as_far_apart_as_they_are() -> None:
    ours, truth = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    ours[0, 0, 0], truth[3, 4, 0] = 2, 2
    assert values("hd95", ours[None, None], truth) == {"2": 5.0}
    assert values("hd95", ours[None, None], truth, (2.0, 1.0, 1.0)) == {"2": pytest.approx(math.hypot(6, 4))}
    assert values("surface_dice", ours[None, None], truth, tolerance=4.9) == {"2": 0.0}
    assert values("surface_dice", ours[None, None], truth, tolerance=5.0) == {"2": 1.0}


def test_a_class_that_only_one_has_is_as_far_off_as_the_image_is_large() -> None:
    ours, truth = np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8)
    truth[0, 0] = 1
    for result, reference in ((ours, truth), (truth, ours)):
        assert values("hd95", result[None, None], reference) == {"1": 5.0}
        assert values("hd95", result[None, None], reference, (9.0, 2.0, 2.0)) == {"1": 10.0}
        assert values("surface_dice", result[None, None], reference) == {"1": 0.0}
    assert values("hd95", ours[None, None], ours) == {}, "not measured"
    farthest = truth.copy()[::-1, ::-1]
    assert values("hd95", farthest[None, None], truth)["1"] < 5.0, "what is found anywhere is nearer"


def test_a_slice_is_a_picture() -> None:
    rng = np.random.default_rng(0)
    ours, truth = blob(rng, (12, 12)), blob(rng, (12, 12))
    flat = values("hd95", ours[None, None], truth, (5.0, 2.0, 2.0))
    assert values("hd95", ours[None, None, None], truth[None], (5.0, 2.0, 2.0)) == flat


def test_a_batch_has_no_distances() -> None:
    masks = np.ones((2, 1, 3, 3), np.uint8)
    for metric in (HD95, SURFACE_DICE):
        with pytest.raises(SpecError, match="one image a case, got a batch of 2"):
            values(metric.name, masks, masks[:, 0])
