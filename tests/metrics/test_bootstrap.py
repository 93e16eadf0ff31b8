"""Intervals: against SciPy's, and how often they cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgekit.metrics import METRICS, bootstrap
from edgekit.metrics.base import Floats
from edgekit.metrics.bootstrap import interval


def mean_of(values: Floats):
    return lambda weights: weights @ values / weights.sum(axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scipy_but_for_the_small_sample(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(seed).lognormal(size=25)
    monkeypatch.setattr(bootstrap, "_reach", lambda count, confidence: stats.norm.ppf((1 + confidence) / 2))
    got = interval(mean_of(values), 25, confidence=0.9, resamples=20_000)
    want = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=20_000, method="BCa", rng=1
    ).confidence_interval
    np.testing.assert_allclose(got, want, rtol=0.02)


def test_for_many_cases_it_is_the_textbook_interval() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    got = interval(mean_of(values), 400)
    want = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    np.testing.assert_allclose(got, want, atol=0.006)


@pytest.mark.parametrize("count", [10, 25])
def test_it_covers_as_often_as_it_says(count: int) -> None:
    rng, trials = np.random.default_rng(7), 300
    covered = 0
    for seed in range(trials):
        # Cases that are hard for both sides, and a difference of 0.02 with noise of its own.
        hard = rng.normal(0.8, 0.1, count)
        difference = 0.02 + rng.normal(0, 0.03, count)
        ours, theirs = hard, hard - difference
        low, high = interval(
            lambda w, a=ours, b=theirs: (w @ a - w @ b) / w.sum(axis=1), count, resamples=300, seed=seed
        )
        covered += low <= 0.02 <= high
    # Three standard errors of 300 trials at 95 % are 3.8 %.
    assert 0.912 <= covered / trials <= 0.988


def test_the_same_cases_give_the_same_interval() -> None:
    values = np.random.default_rng(1).standard_normal(12)
    first = interval(mean_of(values), 12)
    assert interval(mean_of(values), 12) == first
    assert interval(mean_of(values), 12, seed=1) != first
    wide, narrow = (
        interval(mean_of(values), 12, confidence=0.99),
        interval(mean_of(values), 12, confidence=0.5),
    )
    assert wide[0] < first[0] < narrow[0] < values.mean() < narrow[1] < first[1] < wide[1]


@given(st.floats(-1e3, 1e3), st.integers(2, 30))
@settings(deadline=None, max_examples=20)
def test_cases_that_are_all_alike_have_no_width(value: float, count: int) -> None:
    low, high = interval(lambda w: np.full(len(w), value), count, resamples=50)
    assert low == high == value


def test_what_cannot_be_told_is_not_a_number() -> None:
    assert all(map(math.isnan, interval(mean_of(np.ones(1)), 1)))
    # Two positive cases among ten: a ninth of the draws has none of them.
    rows = np.stack([np.arange(10.0), np.array([1.0, 1.0] + [0.0] * 8)], axis=1)
    assert all(map(math.isnan, interval(lambda w: METRICS["auroc"].pool(rows, w), 10)))
    rows[[3, 6, 9], 1] = 1
    low, high = interval(lambda w: METRICS["auroc"].pool(rows, w), 10)
    assert 0 <= low < high <= 1
    assert all(map(math.isnan, interval(lambda w: np.full(len(w), math.inf), 5)))
