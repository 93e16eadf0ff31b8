"""What groups do to the results: measured one by one, in sets where there are many, estimated before."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import small_quantizer
from backends import backend_models

from edgekit import probe
from edgekit.graph.graph import Graph
from edgekit.mixed.forms import builder
from edgekit.mixed.sensitivity import Sensitivity, decibels, harms, noise_of, noise_share
from edgekit.passes.ranges import Observer, TensorRange


class Measured:
    """Harm that adds up."""

    def __init__(self, harm: dict[str, float]) -> None:
        self.harm = harm
        self.asked: list[frozenset[str]] = []

    def __call__(self, groups: frozenset[str]) -> float:
        self.asked.append(groups)
        return sum(self.harm[name] for name in groups)


def test_few_groups_are_measured_one_by_one() -> None:
    measure = Measured({"a": 0.1, "b": 0.2, "c": 0.0})
    assert harms(measure, dict.fromkeys("abc", 1.0), 3) == measure.harm
    assert sorted(map(sorted, measure.asked)) == [["a"], ["b"], ["c"]]


def test_of_many_groups_the_sets_that_harm_are_split() -> None:
    truth = {f"g{index:02}": 1e-6 for index in range(64)} | {"g07": 0.3, "g50": 0.2}
    # The estimates know a little: the bad ones are among the first third.
    estimates = {name: 2.0 if name in ("g07", "g50") else 1.0 + (hash(name) % 3) / 2 for name in truth}
    measure = Measured(truth)
    found = harms(measure, estimates, 30)
    assert len(measure.asked) <= 30
    assert list(found) == list(truth)
    assert sorted(found, key=found.__getitem__)[-2:] == ["g50", "g07"]
    assert found["g07"] == pytest.approx(0.3) and found["g50"] == pytest.approx(0.2)
    assert sum(found.values()) == pytest.approx(sum(truth.values()))


def test_what_is_not_split_is_shared_as_estimated() -> None:
    found = harms(Measured(dict.fromkeys("abcd", 0.25)), {"a": 1.0, "b": 3.0, "c": 0.0, "d": 0.0}, 2)
    assert found == {"a": 0.25, "b": 0.75, "c": 0.0, "d": 0.0}
    spread = harms(Measured(dict.fromkeys("abcd", 0.25)), dict.fromkeys("abcd", 0.0), 2)
    assert spread == dict.fromkeys("abcd", 0.25)


def test_a_set_that_ruins_everything_ruins_with_all_its_members() -> None:
    truth = {f"g{index}": 1e-3 for index in range(16)} | {"g5": math.inf}
    found = harms(Measured(truth), dict.fromkeys(truth, 1.0), 5)
    assert found["g5"] == math.inf
    assert min(found.values()) < math.inf


def seen(array: np.ndarray) -> TensorRange:
    observer = Observer("x")
    observer.add(array)
    return observer.range()


@pytest.mark.parametrize("bits", [6, 8])
def test_the_estimate_is_the_noise_of_rounding(bits: int) -> None:
    array = np.random.default_rng(0).standard_normal((1, 4, 64, 64)).astype(np.float32)
    step = np.abs(array).max() / (2 ** (bits - 1) - 1)
    noise = np.square(np.rint(array / step) * step - array).mean() / np.square(array).mean()
    assert noise_of([seen(array)], bits) == pytest.approx(noise, rel=0.03)
    with_outlier = array.copy()
    with_outlier[0, 0, 0, 0] = 100
    assert noise_of([seen(array), seen(with_outlier)], bits) > 100 * noise


def test_nothing_is_lost_of_zeros() -> None:
    assert noise_of([]) == 0
    assert noise_of([seen(np.zeros((1, 1, 4), np.float32))]) == 0


def test_noise_is_that_of_the_worst_output_over_all_samples() -> None:
    a, b = np.float32([3, 4]), np.float32([1, 0])
    wanted = [{"a": a, "b": b}, {"a": a, "b": b}]
    got = [{"a": a, "b": b}, {"a": a + np.float32([0, 1]), "b": b * np.float32(1.5)}]
    assert noise_share(wanted, got) == pytest.approx(0.25 / 2)
    assert noise_share(wanted, wanted) == 0
    assert noise_share(wanted, [{"a": a, "b": b}, {"a": a, "b": np.float32([np.inf, 0])}]) == math.inf
    labels = [{"l": np.int64([1, 2, 2])}]
    assert noise_share(labels, [{"l": np.int64([1, 2, 1])}]) == pytest.approx(1 / 9)


def test_decibels() -> None:
    assert decibels(0.001) == pytest.approx(30)
    assert (decibels(0), decibels(math.inf)) == (math.inf, -math.inf)
    assert math.isnan(decibels(math.nan))


def network() -> Graph:
    text = """net (float[1, 2, 8, 8] image) => (float[1, 2, 8, 8] out) {
        a = Conv <pads = [1, 1, 1, 1]> (image, w)  b = Relu (a)
        c = Conv <pads = [1, 1, 1, 1]> (b, v)  d = Relu (c)  out = Conv <pads = [1, 1, 1, 1]> (d, u) }"""
    shapes = {"w": (4, 2, 3, 3), "v": (4, 4, 3, 3), "u": (2, 4, 3, 3)}
    tensors = {name: backend_models.weights(*shape, seed=sum(shape)) for name, shape in shapes.items()}
    graph = backend_models.graph(text, **tensors)
    model = graph.edit()
    for node in model.graph:
        node.name = node.outputs[0].name
    return graph.with_model(model, "nodes are called like their outputs")


def test_a_layer_whose_bytes_hold_too_little_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    largest = {"image": 4.0, "b": 0.5, "d": 4.0}  # most of what is read by c does not fit
    parts = small_quantizer.groups(graph)
    build = builder(graph, parts, {"int8": lambda g, keep: small_quantizer.quantize(g, keep, largest)})
    samples = [backend_models.sample(graph, seed) for seed in range(2)]
    sensitivity = Sensitivity(graph, build, samples, threads=1)
    found = sensitivity.harms(["a", "c", "out"], "int8")
    assert found["c"] > 5 * max(found["a"], found["out"]) > 0
    assert 0 < sensitivity.in_decibels(found["c"]) < 20 < sensitivity.in_decibels(found["a"]) < 60
    monkeypatch.setattr(probe, "opened", lambda *_, **__: pytest.fail("it was measured again"))
    assert sensitivity.harms(["c"], "int8") == {"c": found["c"]}


def test_the_tasks_loss_can_take_the_place_of_noise(tmp_path: Path) -> None:
    graph = network()
    made: list[frozenset[str]] = []

    def build(precisions: object) -> Graph:
        made.append(frozenset(precisions))  # type: ignore[call-overload]
        return graph

    sensitivity = Sensitivity(graph, build, [], loss=lambda _: 0.02 * ("c" in made[-1]))
    assert sensitivity.harms(["a", "c"], "int8") == {"a": 0.0, "c": 0.02}
    assert math.isnan(sensitivity.in_decibels(0.02))
