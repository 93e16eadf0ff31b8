"""Metrics of classifiers, against scikit-learn and by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from edgekit.errors import SpecError
from edgekit.metrics import METRICS
from edgekit.metrics.base import Floats, Pair
from edgekit.spec import Array


def rows(name: str, results: Sequence[Array], truth: Sequence[Any], **given: Any) -> dict[str, Floats]:
    metric = METRICS[name]
    options = metric.settle(results[0], "", metric.complete(given))
    found = [
        metric.measure(Pair(r, np.atleast_1d(t), "", None, options))
        for r, t in zip(results, truth, strict=True)
    ]
    width = max(len(row) for case in found for row in case.values())
    names = sorted({key for case in found for key in case})
    return {key: np.stack([case.get(key, np.full(width, math.nan)) for case in found]) for key in names}


def value(name: str, results: Sequence[Array], truth: Sequence[Any], **given: Any) -> dict[str, float]:
    metric = METRICS[name]
    ones = np.ones((1, len(truth)))
    return {key: float(metric.pool(r, ones)[0]) for key, r in rows(name, results, truth, **given).items()}


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5]))
@settings(deadline=None, max_examples=25)
def test_several_classes_agree_with_scikit_learn(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(count), rng.integers(0, count, 30)])
    logits = rng.integers(-3, 3, (len(truth), count)).astype(np.float32)  # with ties
    logits[0] -= 5
    cases, predicted = list(logits[:, None]), logits.argmax(1)
    assert value("accuracy", cases, truth)[""] == sklearn.accuracy_score(truth, predicted)
    recalls = sklearn.recall_score(truth, predicted, average=None)
    found = value("balanced_accuracy", cases, truth)
    assert [found[str(c)] for c in range(count)] == pytest.approx(recalls.tolist())
    assert np.mean(list(found.values())) == pytest.approx(sklearn.balanced_accuracy_score(truth, predicted))
    assert value("sensitivity", cases, truth) == {k: v for k, v in found.items() if k != "0"}
    shares = softmax(logits.astype(np.float64))
    if count == 2:
        want = {"1": sklearn.roc_auc_score(truth, shares[:, 1])}
    else:
        want = {str(c): sklearn.roc_auc_score(truth == c, shares[:, c]) for c in range(count)}
    for scores in (cases, list(shares[:, None])):
        assert value("auroc", scores, truth) == pytest.approx(want, abs=1e-9)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_weighted_areas_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = np.append(rng.integers(0, 2, 20), [0, 1]), rng.integers(0, 6, 22).astype(float)
    weights = rng.integers(0, 3, (7, 22)) + np.array([0] * 20 + [1, 1])
    got = METRICS["auroc"].pool(np.stack([scores, truth], axis=1), weights.astype(float))
    want = [sklearn.roc_auc_score(truth, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(got, want)


def test_a_single_score_is_yes_or_no() -> None:
    scores = [np.array([[s]], np.float32) for s in (-2.0, 0.5, 3.0, -1.0)]
    truth = [0, 0, 1, 1]
    assert value("auroc", scores, truth) == {"1": 0.75}
    assert value("accuracy", scores, truth) == {"": 0.5}
    assert value("sensitivity", scores, truth) == {"1": 0.5}
    assert value("accuracy", [s[0] for s in scores], truth) == {"": 0.5}


def test_channels_of_their_own_have_a_truth_each() -> None:
    scores = [np.array([[0.9, 0.4]]), np.array([[0.2, 0.6]]), np.array([[0.7, 0.1]])]
    truth = [[1, 0], [0, 1], [1, 1]]
    assert value("auroc", scores, truth) == {"0": 1.0, "1": 0.5}
    with pytest.raises(SpecError, match="0 or 1 for each of 2 channels"):
        value("auroc", scores, [[1, 2]] * 3)


@pytest.mark.parametrize("truth", [[1, 1, 1], [0, 0, 0]])
def test_one_kind_of_case_has_no_area(truth: list[int]) -> None:
    scores = [np.array([[s]]) for s in (0.1, 0.2, 0.3)]
    assert math.isnan(value("auroc", scores, truth)["1"])


def _calibration(shares: Array, truth: Array, bins: int) -> float:
    """Guo's formula, bin by bin."""
    confidence, right, total = shares.max(1), shares.argmax(1) == truth, 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@given(st.integers(0, 10_000), st.sampled_from([2, 4]), st.sampled_from([5, 15]))
@settings(deadline=None, max_examples=25)
def test_calibration_is_what_the_paper_says(seed: int, count: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((60, count)) * 3
    logits[0, 0] = -4  # no probability
    truth = rng.integers(0, count, 60)
    want = _calibration(softmax(logits), truth, bins)
    assert value("ece", list(logits[:, None]), truth, bins=bins)[""] == pytest.approx(want)
    yes = [np.array([[s]]) for s in softmax(logits)[:, 1]] if count == 2 else None
    if yes:
        assert value("ece", yes, truth, bins=bins)[""] == pytest.approx(want)


def test_a_sure_and_right_answer_is_calibrated() -> None:
    assert value("ece", [np.array([[0.0, 1.0]])], [1]) == {"": 0.0}
    assert value("ece", [np.array([[0.0, 1.0]])], [0]) == {"": 1.0}
    assert value("ece", [np.array([[-900.0]]), np.array([[900.0]])], [0, 1]) == {"": 0.0}


def test_voxels_are_counted_over_all_cases() -> None:
    found = [np.array([[1, 1], [0, 0]]), np.array([[0, 0], [0, 0]])]
    truth = [np.array([[1, 0], [1, 0]]), np.array([[0, 0], [0, 1]])]
    maps = [f[None, None].astype(np.uint8) for f in found]
    assert value("accuracy", maps, truth) == {"": 5 / 8}
    assert value("sensitivity", maps, truth) == {"1": 1 / 3}
    assert value("balanced_accuracy", maps, truth) == {"0": 4 / 5, "1": 1 / 3}
    per_case = rows("sensitivity", maps, truth)["1"]
    assert [METRICS["sensitivity"].case_value(row) for row in per_case] == [0.5, 0.0]


@pytest.mark.parametrize(
    "name, result, truth, what",
    [
        ("auroc", np.zeros((1, 3)), 3, "one label, 0 … 2, got 3"),
        ("auroc", np.zeros((1, 3)), [0, 1], "one label, 0 … 2, got 0, 1"),
        ("auroc", np.zeros((2, 3)), 1, "class scores of one case, 1xC, got 2x3"),
        ("auroc", np.zeros((1, 3, 4, 4)), 1, "class scores of one case"),
        ("ece", np.array([[0.5, 0.1]]), 1, "add up to 1, got 0.6"),
        ("ece", np.array([[0.5, 0.5]]), 0.5, "whole numbers"),
        ("accuracy", np.zeros((1, 3)), 3, "labels 3, the result has 3 classes"),
    ],
)
def test_what_is_no_score_or_no_label_is_refused(name: str, result: Array, truth: Any, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        rows(name, [result], [truth])
    with pytest.raises(SpecError, match="at least 1 bin"):
        rows("ece", [np.array([[0.5, 0.5]])], [1], bins=0)
