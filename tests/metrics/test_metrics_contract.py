"""What every registered metric has to do. A new metric is covered by its line in the registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import SpecError, UsageError
from edgekit.metrics import METRICS
from edgekit.metrics.base import Floats, Metric, Pair
from edgekit.spec import Array

each = pytest.mark.parametrize("name", list(METRICS))


@dataclass(frozen=True)
class Sample:
    """Cases as the network that is right, and one that is worse, say them; and the truth."""

    right: tuple[Array, ...]
    worse: tuple[Array, ...]
    truth: tuple[Array, ...]
    layout: str


def _segmented() -> Sample:
    grid = np.indices((9, 12, 14))
    right, worse, truth = [], [], []
    for seed in range(3):
        labels = np.zeros((9, 12, 14), np.uint8)
        labels[grid[1] < 5 + seed] = 1
        labels[(grid[0] < 4) & (grid[2] > 9)] = 2
        logits = np.stack([labels == c for c in range(3)])[None].astype(np.float32) * 8 - 4
        moved = np.roll(logits, 2, axis=3)
        right.append(logits)
        worse.append(moved)
        truth.append(labels)
    return Sample(tuple(right), tuple(worse), tuple(truth), "NCDHW")


def _classified() -> Sample:
    truth = [0, 1, 2, 1, 0, 2]
    right = [np.eye(3, dtype=np.float32)[None, t] * 40 - 20 for t in truth]
    worse = [np.roll(r, 1, axis=1) if i == 2 else r * 0.05 for i, r in enumerate(right)]
    return Sample(tuple(right), tuple(worse), tuple(np.array([t]) for t in truth), "NC")


def _pictured() -> Sample:
    rng = np.random.default_rng(0)
    truth = [rng.standard_normal((16, 18)).astype(np.float32).cumsum(0) for _ in range(3)]
    right = [t[None, None] for t in truth]
    worse = [r + rng.standard_normal(r.shape).astype(np.float32) for r in right]
    return Sample(tuple(right), tuple(worse), tuple(truth), "NCHW")


def _displaced() -> Sample:
    rng = np.random.default_rng(1)
    truth = [rng.standard_normal((1, 3, 1, 1, 1)) * np.ones((1, 3, 6, 7, 8)) for _ in range(3)]
    right = [t.astype(np.float32) for t in truth]
    worse = [r + (3 * rng.standard_normal(r.shape)).astype(np.float32) for r in right]
    return Sample(tuple(right), tuple(worse), tuple(t.astype(np.float32) for t in truth), "NCDHW")


SAMPLES: dict[str, Callable[[], Sample]] = {
    "labels": _segmented,
    "scores": _classified,
    "image": _pictured,
    "displacement": _displaced,
}


def measure(metric: Metric, results: tuple[Array, ...], sample: Sample) -> dict[str, Floats]:
    """Rows of every case by class."""
    options = metric.settle(results[0], sample.layout, metric.complete({}))
    measured = [
        metric.measure(Pair(result, truth, sample.layout, None, options))
        for result, truth in zip(results, sample.truth, strict=True)
    ]
    classes = sorted({name for rows in measured for name in rows})
    width = len(next(iter(measured[0].values())))
    empty = np.full(width, math.nan)
    return {name: np.stack([rows.get(name, empty) for rows in measured]) for name in classes}


def overall(metric: Metric, rows: dict[str, Floats], weights: Floats) -> Floats:
    return np.mean([metric.pool(r, weights) for r in rows.values()], axis=0)


@each
def test_it_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name and metric.title and type(metric).__doc__
    assert metric.better in ("higher", "lower") and metric.takes in SAMPLES
    for option, words in metric.choices.items():
        assert metric.defaults[option] in words
    if metric.perfect is not None:
        for worse in (metric.lost, metric.useless):
            assert worse is None or metric.drop(metric.perfect, worse) > 0


@each
def test_what_is_right_is_perfect_and_what_is_worse_drops(name: str) -> None:
    metric, sample = METRICS[name], SAMPLES[METRICS[name].takes]()
    ones = np.ones((1, len(sample.truth)))
    kept = [array.copy() for array in (*sample.right, *sample.truth)]
    (best,) = overall(metric, measure(metric, sample.right, sample), ones)
    for array, before in zip((*sample.right, *sample.truth), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    assert best == pytest.approx(math.inf if metric.perfect is None else metric.perfect, abs=1e-6)
    (worse,) = overall(metric, measure(metric, sample.worse, sample), ones)
    assert metric.drop(best, worse) > 0.01 and metric.drop(worse, best) < 0
    assert metric.drop(best, best) == 0


@each
def test_a_weight_counts_a_case_that_often(name: str) -> None:
    metric, sample = METRICS[name], SAMPLES[METRICS[name].takes]()
    count = len(sample.truth)
    weights = np.arange(count)[::-1]
    for rows in measure(metric, sample.worse, sample).values():
        repeated = np.repeat(rows, weights, axis=0)
        want = metric.pool(repeated, np.ones((1, len(repeated))))
        np.testing.assert_allclose(metric.pool(rows, weights[None].astype(float)), want)
        # What was not measured neither counts nor hides the others; what does not count may be anything.
        gap = np.concatenate([rows, np.full_like(rows[:1], math.nan)])
        got = metric.pool(gap, np.append(weights, 7.0)[None].astype(float))
        np.testing.assert_allclose(got, want)
        assert np.isnan(metric.pool(gap, np.eye(count + 1)[-1:])).all()
        np.testing.assert_allclose(
            metric.pool(rows, np.stack([weights, np.ones(count)]).astype(float)),
            [*want, *metric.pool(rows, np.ones((1, count)))],
        )


@each
def test_a_case_has_the_value_of_a_set_of_one(name: str) -> None:
    metric, sample = METRICS[name], SAMPLES[METRICS[name].takes]()
    for rows in measure(metric, sample.worse, sample).values():
        alone = [metric.pool(row[None], np.ones((1, 1)))[0] for row in rows if not np.isnan(row).any()]
        values = [metric.case_value(row) for row in rows if not np.isnan(row).any()]
        if metric.has_case_values:
            np.testing.assert_allclose(values, alone)
        else:
            assert np.isnan(values).all()


@each
def test_the_baselines_own_result_is_a_reference_that_it_agrees_with(name: str) -> None:
    metric, sample = METRICS[name], SAMPLES[METRICS[name].takes]()
    if not metric.own_reference or not metric.needs_reference:
        return
    options = metric.settle(sample.worse[0], sample.layout, metric.complete({}))
    truth = tuple(metric.as_reference(result, sample.layout, options) for result in sample.worse)
    own = Sample(sample.worse, sample.right, truth, sample.layout)
    rows, ones = measure(metric, own.right, own), np.ones((1, len(truth)))
    assert overall(metric, rows, ones)[0] == (math.inf if metric.perfect is None else metric.perfect)
    assert (
        metric.drop(overall(metric, rows, ones)[0], overall(metric, measure(metric, own.worse, own), ones)[0])
        > 0
    )


@each
def test_a_result_of_another_shape_is_refused(name: str) -> None:
    metric, sample = METRICS[name], SAMPLES[METRICS[name].takes]()
    options = metric.settle(sample.right[0], sample.layout, metric.complete({}))
    result = sample.right[0]
    odd = np.concatenate([result, result])
    with pytest.raises(SpecError):
        metric.measure(Pair(odd, sample.truth[0], sample.layout, None, options))


@each
def test_options_are_checked(name: str) -> None:
    metric = METRICS[name]
    with pytest.raises(UsageError, match="no option 'sores'"):
        metric.complete({"sores": 1})
    for option, default in metric.defaults.items():
        with pytest.raises(UsageError, match=f"option {option!r} of metric {name}"):
            metric.complete({option: b"" if isinstance(default, str) else "text"})
        if option in metric.choices:
            with pytest.raises(UsageError, match="want one of auto"):
                metric.complete({option: "something"})
    assert metric.complete({}) == dict(metric.defaults)


@given(st.data())
@settings(deadline=None, max_examples=20)
def test_losing_what_was_found_never_improves_a_metric_of_masks(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    truth = (rng.random((8, 9)) < 0.3).astype(np.uint8)
    truth[2:5, 3:6] = 1
    found = (truth == 1) & (rng.random(truth.shape) < 0.8)
    found[3, 4] = True
    nothing = np.zeros_like(found)
    for name in ("dice", "hd95", "surface_dice", "sensitivity"):
        metric = METRICS[name]
        options = metric.settle(found[None, None], "NCHW", metric.complete({}))
        rows = [
            metric.measure(Pair(mask[None, None], truth, "NCHW", None, options))["1"]
            for mask in (found, nothing)
        ]
        values = [metric.case_value(row) for row in rows]
        assert metric.drop(values[0], values[1]) > 0, name


def test_names_are_found_by_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown metric 'dise'") as caught:
        METRICS["dise"]
    assert caught.value.hint == "did you mean 'dice'?"
