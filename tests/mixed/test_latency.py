"""Times of groups: what is faster beyond doubt, what is timed once, and what a crash leaves of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from backends import backend_models
from backends.backend_models import TARGET

from edgekit import isolation, profiling
from edgekit.errors import CompileError, LimitError
from edgekit.graph.graph import Graph
from edgekit.mixed import latency
from edgekit.mixed.latency import Time, side_by_side


def conv(channels: int, seed: int = 0) -> Graph:
    text = f"""net (float[1, 2, 8, 8] x) => (float[1, {channels}, 8, 8] y) {{
        y = Conv <pads = [1, 1, 1, 1]> (x, w) }}"""
    return backend_models.graph(text, w=backend_models.weights(channels, 2, 3, 3, seed=seed))


def test_a_time_is_the_median_and_what_it_is_known_to() -> None:
    time = Time.of([4.0, 1.0, 2.0, 3.0, 100.0])
    assert (time.median_s, time.spread_s, time.runs) == (3.0, 2.0, 5)
    # Against many medians of as many normal samples.
    samples = np.random.default_rng(0).normal(1, 0.1, (2000, 41))
    known = np.mean([Time.of(row.tolist()).error_s for row in samples])
    assert known == pytest.approx(np.std(np.median(samples, axis=1)), rel=0.15)


def test_faster_means_by_more_than_the_share_and_by_more_than_chance() -> None:
    base = Time(1.0, 0.01, 100)
    assert Time(0.97, 0.01, 100).is_faster_than(base, 0.02)
    assert not Time(0.99, 0.0001, 100).is_faster_than(base, 0.02), "not by the share"
    noisy = Time(0.9, 2.0, 100)
    assert not noisy.is_faster_than(base, 0.02) and noisy.may_be_faster_than(base, 0.02)
    assert not Time(1.1, 2.0, 100).may_be_faster_than(base, 0.02)
    assert not Time().is_faster_than(base, 0.02) and not base.is_faster_than(Time(), 0.02)


class Session:
    def run(self, feeds: Mapping[str, Any], /) -> dict[str, Any]:
        return {}


def report(samples_s: list[float]) -> Any:
    return type("Report", (), {"samples_s": tuple(samples_s)})()


def test_what_cannot_be_told_is_timed_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[float] = []

    def measure(sessions: Any, feeds: Any, *, seconds: float, **_: Any) -> dict[str, Any]:
        rounds.append(seconds)
        noise = np.linspace(0, 0.8, 40)
        return {"float32": report((1.0 + noise).tolist()), "int8": report((0.9 + noise).tolist())}

    monkeypatch.setattr(profiling, "measure_interleaved", measure)
    times = side_by_side({"float32": Session(), "int8": Session()}, {}, 0.5, 0.02)
    assert rounds == [1.0, 1.0, 1.0]
    assert times["int8"].runs == 40 * len(rounds)
    assert times["int8"].is_faster_than(times["float32"], 0.02)


def test_groups_that_are_alike_are_timed_once() -> None:
    groups = {
        "first": {"float32": conv(4, seed=1), "other": conv(6)},
        "twin": {"float32": conv(4, seed=2), "other": conv(6, seed=3)},
        "alone": {"float32": conv(5)},
    }
    told: list[str] = []
    times = latency.measure(groups, "onnxruntime", TARGET, share=0.02, threads=1, on_event=told.append)
    assert told == ["time 2 different groups of 3 with ONNX Runtime"]
    assert list(times) == ["first", "twin", "alone"]
    assert times["first"] is times["twin"] and times["first"].keys() == {"float32", "other"}
    for forms in times.values():
        for time in forms.values():
            assert time.error == "" and 0 < time.median_s < 1 and time.runs >= 3


def test_a_form_that_is_refused_leaves_the_others() -> None:
    double = backend_models.float64()
    groups = {"group": {"float32": conv(4), "wrong": double}}
    times = latency.measure(groups, "onnxruntime", TARGET, share=0.02, threads=1)["group"]
    assert times["float32"].error == "" and math.isnan(times["wrong"].median_s)
    assert times["wrong"].error.startswith("operators in float64")


@pytest.mark.parametrize("error", [CompileError, LimitError])
def test_a_crash_costs_the_group_that_crashes_alone(
    error: type[CompileError], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(function: str, arguments: Any, **_: Any) -> isolation.Outcome:
        names = [group["name"] for group in arguments["groups"]]
        asked.append(names)
        if "bad" in names:
            raise error("the child ended abnormally\n    | a long log")
        value = {name: {"float32": {"median_s": 1.0, "spread_s": 0.1, "runs": 9}} for name in names}
        return isolation.Outcome(value, {}, {}, "", 1.0, 0)

    monkeypatch.setattr(isolation, "run", run)
    names = ["a", "b", "bad", "c", "d"]
    groups = {name: {"float32": conv(index + 1)} for index, name in enumerate(names)}
    times = latency.measure(groups, "onnxruntime", TARGET, share=0.02)
    assert times.keys() == set(names)
    assert times["bad"]["float32"].error == "the child ended abnormally"
    assert all(times[name]["float32"] == Time(1.0, 0.1, 9) for name in names if name != "bad")
    assert asked[0] == names and ["bad"] in asked and len(asked) < 8
