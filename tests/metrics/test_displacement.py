"""Metrics of displacement fields, by hand and against SciPy's interpolation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from edgekit.errors import SpecError
from edgekit.metrics.base import Pair
from edgekit.metrics.displacement import FOLDING, TRE
from edgekit.spec import Array

SPACING = (3.0, 2.0, 1.0)


def error(flow: Array, truth: Array, spacing: tuple[float, float, float] | None = None) -> float:
    return TRE.values(Pair(flow, truth, "", spacing))[""]


def field(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((1, len(shape), *shape)).astype(np.float32)


def test_against_a_field_it_is_the_mean_length_of_the_difference() -> None:
    flow = np.zeros((1, 3, 2, 2, 2), np.float32)
    truth = flow.copy()
    truth[0, :, 0, 0, 0] = (1, 2, 2)
    assert error(flow, truth) == pytest.approx(3 / 8)
    assert error(flow, truth[0], SPACING) == pytest.approx(math.sqrt(9 + 16 + 4) / 8)
    flat = np.zeros((1, 2, 3, 3), np.float32)
    shifted = flat + np.array([1, 1], np.float32).reshape(1, 2, 1, 1)
    assert error(flat, shifted, SPACING) == pytest.approx(math.sqrt(5)), "a picture has y and x"


def test_voxels_where_the_reference_is_unknown_are_left_out() -> None:
    flow, truth = field((4, 5)), field((4, 5), seed=1)
    truth[0, 0, :2] = np.nan
    want = np.linalg.norm(flow[0] - truth[0], axis=0)[2:].mean()
    assert error(flow, truth) == pytest.approx(want)
    assert math.isnan(error(flow, np.full_like(flow, np.nan)))
    flow[0, 0, 3, 3] = np.nan
    assert math.isnan(error(flow, truth)), "a result that is not a number is not left out"


@pytest.mark.parametrize("shape", [(6, 7, 8), (9, 5)])
def test_against_landmarks_the_field_is_interpolated(shape: tuple[int, ...]) -> None:
    ndim, rng = len(shape), np.random.default_rng(2)
    flow = field(shape)
    fixed = rng.random((11, ndim)) * (np.array(shape) - 1)
    moving = fixed + rng.standard_normal((11, ndim))
    moved = fixed + np.stack([ndimage.map_coordinates(f, fixed.T, order=1) for f in flow[0]], axis=1)
    want = np.linalg.norm((moving - moved) * SPACING[-ndim:], axis=1).mean()
    pairs = np.stack([fixed, moving], axis=1)
    assert error(flow, pairs, SPACING) == pytest.approx(want, rel=1e-5)
    assert error(flow, pairs.reshape(11, 2 * ndim), SPACING) == pytest.approx(want, rel=1e-5)
    assert error(flow, pairs) == pytest.approx(np.linalg.norm(moving - moved, axis=1).mean(), rel=1e-5)


def test_folding_is_the_share_of_voxels_that_turn_inside_out() -> None:
    flow = np.zeros((1, 2, 8, 8), np.float32)
    nothing = np.empty(0, np.float32)
    assert FOLDING.values(Pair(flow, nothing)) == {"": 0.0}
    flow[0, 1, :, 4:] = -6
    # Central differences: columns 3 and 4 see a step of -6 over two voxels, 1 - 3 < 0.
    assert FOLDING.values(Pair(flow, nothing)) == {"": 0.25}
    assert FOLDING.values(Pair(flow[..., ::-1], nothing)) == {"": 0.0}


@pytest.mark.parametrize(
    "flow, truth, what",
    [
        (np.zeros((1, 2, 3, 4, 5)), np.zeros((1, 2, 3, 4, 5)), "1x3xDxHxW or 1x2xHxW, got 1x2x3x4x5"),
        (np.zeros((2, 2, 4, 5)), np.zeros((2, 2, 4, 5)), "of one image"),
        (np.zeros((1, 2, 4, 5)), np.zeros((1, 2, 5, 4)), "grid: want 1x2x4x5, got 1x2x5x4"),
        (np.zeros((1, 2, 4, 5)), np.array([[0.0, 4.5, 1, 1]]), r"outside the fixed image: want .* \(3, 4\)"),
        (np.zeros((1, 2, 4, 5)), np.array([[0.0, np.nan, 1, 1]]), "outside"),
    ],
)
def test_what_is_no_displacement_is_refused(flow: Array, truth: Array, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        error(flow.astype(np.float32), truth)
