"""Biases corrected from measured means, and range methods that are tried."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quantize_samples import (
    CHAIN,
    RESIDUAL,
    UNET,
    VNNI,
    feeds,
    graph_of,
    literal,
    quantized,
    ranges_of,
    snr_db,
)

from edgekit import probe
from edgekit.errors import PassError
from edgekit.graph.graph import Graph
from edgekit.passes.quantize import CorrectBiasPass, Recipe, choose_method, layers
from edgekit.passes.ranges import METHODS, Method


def means(graph: Graph) -> dict[str, np.ndarray]:
    """Mean of each channel of what each layer makes."""
    names = [str(n.outputs[0].name) for n in graph.model.graph if n.op_type in layers.CONVOLUTIONS]
    with probe.opened(graph, names, threads=1) as network:
        runs = [network.run(feeds(graph, seed)) for seed in (1, 2)]
    return {name: np.mean([run[name].mean((0, 2, 3), dtype=np.float64) for run in runs], 0) for name in names}


@pytest.mark.parametrize("text", [UNET, RESIDUAL], ids=["U-Net", "residual"])
def test_means_come_back(text: str) -> None:
    graph = graph_of(text)
    wrong = quantized(graph, Recipe(correct_bias=False))
    expected = means(graph)

    def distance(one: Graph) -> float:
        measured = means(one)
        return float(np.sqrt(sum(np.square(expected[name] - measured[name]).sum() for name in expected)))

    right = wrong
    for _ in range(2):
        right = CorrectBiasPass(expected, means(right)).run(right, VNNI).graph
    assert distance(right) < 0.5 * distance(wrong)


def test_only_the_named_layers_move() -> None:
    graph = graph_of(CHAIN)
    wrong = quantized(graph, Recipe(correct_bias=False))
    first = layers.find(graph.model.graph)[0].name
    shifted = {name: mean + 1 for name, mean in means(wrong).items()}
    result = CorrectBiasPass(shifted, means(wrong), frozenset([first])).run(wrong, VNNI)
    assert result.notes == ("1 biases moved",)
    given = feeds(graph)
    assert snr_db(literal(wrong, given), literal(result.graph, given)) < 60


def test_nothing_to_correct_changes_nothing() -> None:
    graph = quantized(graph_of(CHAIN))
    measured = means(graph)
    assert not CorrectBiasPass(measured, measured).run(graph, VNNI).changed
    result = CorrectBiasPass({}, {}).run(graph, VNNI)
    assert not result.changed and "no means of" in result.notes[0]


def test_a_float_network_has_no_biases_to_correct() -> None:
    with pytest.raises(PassError, match="the network is not quantized"):
        CorrectBiasPass({}, {}).run(graph_of(CHAIN), VNNI)


def test_the_best_method_wins() -> None:
    graph = graph_of(UNET)
    given, ranges = feeds(graph, 3), ranges_of(graph)
    want = literal(graph, given)
    recipe, scores = choose_method(
        graph, ranges, VNNI, Recipe(), lambda one: snr_db(want, literal(one, given))
    )
    assert list(scores) == list(METHODS)
    assert scores[recipe.method] == max(scores.values())
    assert recipe == Recipe(method=recipe.method)


def test_equal_networks_are_scored_once_and_the_first_of_equals_wins() -> None:
    graph = graph_of(CHAIN)
    seen: list[str] = []

    def score(one: Graph) -> float:
        seen.append(one.digest())
        return 1.0

    methods: tuple[Method, ...] = ("minmax", "mse", "minmax")
    recipe, _ = choose_method(graph, ranges_of(graph), VNNI, Recipe(), score, methods=methods)
    assert recipe.method == "minmax" and len(seen) == len(set(seen)) < 3


def test_no_score_is_no_choice() -> None:
    graph = graph_of(CHAIN)
    with pytest.raises(PassError, match="no range method"):
        choose_method(graph, ranges_of(graph), VNNI, Recipe(), lambda one: math.nan)
