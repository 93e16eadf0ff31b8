"""What the tests of nativize share: running it, and comparing before with after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.backends.reference_ops import NEW_OPERATORS, OVERRIDES
from edgekit.graph.graph import Graph
from edgekit.passes import PASSES
from edgekit.passes.base import PassResult
from edgekit.spec import Array

CPU = targets.find("cpu")
WARP, INTEGRATE, SAMPLE = {"Warp": 1}, {"IntegrateVelocity": 1}, {"GridSample3d": 1}


def outputs(graph: Graph, feeds: dict[str, Array], operators: list[Any]) -> list[Array]:
    evaluator = ReferenceEvaluator(onnx.load_from_string(graph.to_bytes()), new_ops=operators)
    return evaluator.run(None, feeds)  # type: ignore[return-value]


def random_inputs(graph: Graph) -> Iterator[dict[str, Array]]:
    """At the smallest shapes, and at the largest where lengths vary."""
    rng = np.random.default_rng(0)
    for shape in dict.fromkeys(
        ("smallest_shape",) if graph.is_static else ("smallest_shape", "largest_shape")
    ):
        yield {s.name: (2 * rng.standard_normal(getattr(s, shape))).astype(s.dtype) for s in graph.inputs}


def assert_equal(before: Graph, after: Graph, atol: float) -> None:
    for feeds in random_inputs(before):
        pairs = zip(outputs(before, feeds, OVERRIDES), outputs(after, feeds, NEW_OPERATORS), strict=True)
        for wanted, got in pairs:
            assert got.dtype == wanted.dtype
            np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


def own(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph.model.graph if node.domain == "edgekit")


def nativize(graph: Graph) -> PassResult:
    return PASSES["nativize"]().run(graph, CPU)
