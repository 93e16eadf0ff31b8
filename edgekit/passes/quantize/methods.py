"""Which range method suits a network: tried, not believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekit.errors import PassError
from edgekit.graph.graph import Graph
from edgekit.passes.quantize.recipe import Recipe
from edgekit.passes.ranges import METHODS, Method, Ranges
from edgekit.target import Target


def choose_method(
    graph: Graph,
    ranges: Ranges,
    target: Target,
    recipe: Recipe,
    score: Callable[[Graph], float],
    *,
    methods: Sequence[Method] = METHODS,
) -> tuple[Recipe, dict[Method, float]]:
    """Quantize with each method, and keep the one whose network scores best.

    Args:
        graph: The float network.
        ranges: Of its values.
        target: The device.
        recipe: What else is chosen.
        score: How good a quantized network is, larger is better, such as the signal-to-noise ratio of its
            outputs on a few calibration samples. Called once for each different network; NaN is worst.
        methods: Those to try, the preferred one first: a later one has to be better.

    Returns:
        The recipe with the best method, and the score of each.

    Raises:
        PassError: No network has a score.
    """
    from edgekit.passes.quantize import QuantizePass

    scores: dict[Method, float] = {}
    seen: dict[str, float] = {}
    for method in methods:
        quantized = QuantizePass(ranges, replace(recipe, method=method)).run(graph, target).graph
        digest = quantized.digest()
        if digest not in seen:
            seen[digest] = score(quantized)
        scores[method] = seen[digest]
    known = {method: value for method, value in scores.items() if value == value}
    if not known:
        raise PassError("no range method gives a network with a score", where="quantize")
    return replace(recipe, method=max(known, key=lambda method: known[method])), scores
