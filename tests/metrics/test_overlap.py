from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import SpecError
from edgekit.metrics import dice
from edgekit.metrics.base import Pair
from edgekit.metrics.overlap import DICE
from edgekit.spec import Array

labels = hnp.arrays(np.uint8, (3, 4), elements=st.integers(0, 2))


def test_half_of_each_overlaps() -> None:
    a, b = np.array([[1, 1, 0, 2]]), np.array([[0, 1, 1, 2]])
    assert dice(a, b) == 0.5
    assert dice(a, b, label=2) == 1.0
    assert dice(a == 1, b == 1) == 0.5, "masks are label 1"


@given(labels, labels)
def test_dice_is_symmetric_between_zero_and_one(a: Array, b: Array) -> None:
    value = dice(a, b)
    if math.isnan(value):
        assert not (a == 1).any() and not (b == 1).any()
    else:
        assert 0 <= value <= 1 and value == dice(b, a)
        assert (value == 1) == np.array_equal(a == 1, b == 1)


def test_nothing_on_either_side_is_no_score_and_on_one_side_zero() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert math.isnan(dice(empty, empty))
    assert dice(empty, full) == dice(full, empty) == 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(SpecError, match="one shape"):
        dice(np.zeros((2, 2)), np.zeros((2, 1)))


def measured(result: Array, reference: Array, layout: str = "", **given: Any) -> dict[str, float]:
    options = DICE.settle(result, layout, DICE.complete(given))
    return DICE.values(Pair(result, reference, layout, None, options))


@given(
    hnp.arrays(np.uint8, (3, 4), elements=st.integers(0, 3)),
    hnp.arrays(np.uint8, (3, 4), elements=st.integers(0, 3)),
)
def test_one_pass_over_a_label_map_is_dice_of_each_label(a: Array, b: Array) -> None:
    got = measured(a[None, None], b, "NCHW", scores="labels")
    want = {str(label): dice(a, b, label) for label in (1, 2, 3)}
    assert got == {name: value for name, value in want.items() if not math.isnan(value)}


@given(hnp.arrays(np.int8, (1, 3, 4, 5), elements=st.integers(-8, 8)))
def test_channels_are_compared_by_their_arg_max(scores: Array) -> None:
    logits = scores.astype(np.float32)
    truth = np.arange(20).reshape(4, 5) % 3
    labels = logits[0].argmax(0)
    want = {str(label): dice(labels, truth, label) for label in (1, 2)}
    assert measured(logits, truth.astype(np.float32), scores="logits") == want
    assert measured(logits / 16 + 0.5, truth[None]) == want, "as probabilities"


def test_a_single_channel_has_a_threshold() -> None:
    truth = np.array([[0, 1], [1, 1]])
    logits = np.array([[-3.0, 0.2], [4.0, -0.1]], np.float32)
    assert measured(logits[None, None], truth) == {"1": 0.8}
    shares = 1 / (1 + np.exp(-logits))
    assert measured(shares[None, None], truth) == {"1": 0.8}, "settled from the values"
    assert measured(shares[None, None], truth, scores="logits") == {"1": 6 / 7}, "as the user says"
    assert measured((logits > 0)[None, None], truth) == {"1": 0.8}
    assert measured((logits > 0)[None, None].astype(np.float32), truth) == {"1": 0.8}


def test_channels_with_a_reference_each_are_masks_of_their_own() -> None:
    truth = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]], np.uint8)
    result = np.where(truth == 1, 0.9, 0.1)[None].astype(np.float32)
    result[0, 1, 0, 0] = 0.8
    assert measured(result, truth) == {"0": 1.0, "1": 2 / 3}
    assert measured(result, truth[None], channels="independent") == {"0": 1.0, "1": 2 / 3}
    result[0, 2, 0, 0] = 0.7
    assert measured(result, truth)["2"] == 0, "found where nothing is"


def test_a_label_map_needs_no_axis_of_channels() -> None:
    truth = np.arange(24).reshape(2, 3, 4) % 3
    assert measured(truth[None].astype(np.int64), truth) == {"1": 1.0, "2": 1.0}
    assert measured(truth[None, None].astype(np.float32), truth) == {"1": 1.0, "2": 1.0}


@pytest.mark.parametrize(
    "result, truth, what",
    [
        (
            np.zeros((1, 3, 2, 2)),
            np.full((2, 2), 3),
            "holds the labels 3, the result has 3 classes: want 0 … 2",
        ),
        (np.zeros((1, 1, 2, 2)), np.full((2, 2), 255), "holds the labels 255, the result has 2 classes"),
        (np.zeros((1, 3, 2, 2)), np.array([[0, -1], [0, 0]]), "holds the labels -1, 0"),
        (np.zeros((1, 1, 2, 2)), np.full((2, 2), 0.5), "whole numbers, which are labels, got 0.5"),
        (np.zeros((1, 1, 2, 2)), np.zeros((2, 3)), "grid: want 1x2x2, got 2x3"),
        (np.zeros((1, 1, 2, 2)), np.full((2, 2), np.nan), "got nan"),
    ],
)
def test_references_that_do_not_belong_are_refused(result: Array, truth: Array, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        measured(result, truth)
    with pytest.raises(SpecError, match="no labels"):
        measured(np.full((1, 1, 2, 2), 0.5), np.zeros((2, 2)), scores="labels")
