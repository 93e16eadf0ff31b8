"""A network tried as a whole: steps around it, the floor of noise, the gate, and the clock."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from backends import backend_models
from backends.backend_models import TARGET

from edgekit.errors import LimitError
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.mixed.trial import Bench, Run, Trial, timed
from edgekit.spec import Array, Step

GRAPH = backend_models.varying()
SAMPLES = tuple({"image": backend_models.sample(GRAPH, seed)["image"] + 1} for seed in range(2))


def bench(**wanted: object) -> Bench:
    return Bench("onnxruntime", TARGET, SAMPLES, threads=1, **(wanted or {"min_snr_db": 20.0}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def single() -> Trial:
    return Trial.of(GRAPH, bench())


def scaled(graph: Graph, factor: float) -> Graph:
    """The network with all weights a little larger."""
    model = graph.edit()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        value.const_value = type(tensor)(tensor.numpy() * np.float32(factor), name=tensor.name)  # type: ignore[call-arg]
    return graph.with_model(model, "scaled")


def test_all_samples_are_run(single: Trial) -> None:
    assert [list(outputs) for outputs in single.outputs] == [["clean"], ["clean"]]
    assert (single.snr_db, single.failure) == (math.inf, "")
    assert not np.array_equal(single.outputs[0]["clean"], single.outputs[1]["clean"])


def test_noise_above_the_floor_fails(single: Trial) -> None:
    other = Trial.of(scaled(GRAPH, 1.05), bench(min_snr_db=60.0))
    other.judge(single.outputs)
    assert 10 < other.snr_db < 60
    assert other.failure == f"{other.snr_db:.1f} dB against float32, wanted are 60 dB"
    lenient = Trial.of(scaled(GRAPH, 1.05), bench(min_snr_db=10.0))
    lenient.judge(single.outputs)
    assert lenient.failure == ""


def test_the_gate_sees_what_a_caller_gives_and_gets(single: Trial) -> None:
    graph = replace(GRAPH, before=(Step("median", ("image",), ("image",), {"radius": 1}),))
    raw: dict[str, Array] = {"image": SAMPLES[0]["image"].copy()}
    raw["image"][0, 0, 1, 1] = 50  # a grain that the median takes away
    seen: list[Array] = []

    def gate(run: Run) -> str:
        seen.append(run(raw)["clean"])
        return "too bad"

    trial = Trial.of(graph, bench(gate=gate))
    trial.judge(single.outputs)
    assert trial.failure == "too bad"
    assert seen[0].shape == raw["image"].shape and np.abs(seen[0]).max() < 25


def test_what_takes_too_long_to_compile_is_an_error() -> None:
    with pytest.raises(LimitError, match=r"more than 0\.01 s"):
        Trial.of(GRAPH, replace(bench(), limits=Limits(time_s=0.01)))


def test_networks_are_timed_side_by_side(single: Trial) -> None:
    times = timed({"float32": single, "again": single}, SAMPLES[0], 0.02)
    assert list(times) == ["float32", "again"]
    assert all(0 < time.median_s < 0.5 and time.runs >= 3 for time in times.values())


def test_a_closed_trial_does_not_run() -> None:
    trial = Trial.of(GRAPH, bench())
    trial.close()
    with pytest.raises(Exception, match="closed"):
        trial.run(SAMPLES[0])
