"""The units in which precision is chosen."""

from __future__ import annotations

from quantize_samples import PAD, RESIDUAL, UNET, graph_of

from edgekit.graph.graph import Graph
from edgekit.passes.quantize import groups

# What exporters make of SiLU and of a normalisation over groups.
GATED = f"""(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
    <float[4, 4, 3, 3] w, float[4] k, float[4] b, float[4, 4, 3, 3] v> {{
    a = Conv <{PAD}> (x, w)  n = InstanceNormalization (a, k, b)  g = Sigmoid (n)  m = Mul (n, g)
    y = Conv <{PAD}> (m, v) }}"""


def operators(graph: Graph) -> list[list[str]]:
    kinds = {str(node.name): node.op_type for node in graph.model.graph}
    return [[kinds[name] for name in group.nodes] for group in groups(graph)]


def test_a_layer_goes_with_what_follows_it() -> None:
    assert operators(graph_of(UNET)) == [
        ["Conv", "Relu"],
        ["Conv", "Relu"],
        ["ConvTranspose"],
        ["Conv", "Relu"],
        ["Conv"],
    ]


def test_a_sum_belongs_to_the_later_layer() -> None:
    assert operators(graph_of(RESIDUAL)) == [
        ["Conv", "Relu"],
        ["Conv", "Relu"],
        ["Conv", "Add", "Relu"],
        ["Conv", "Sub"],
    ]


def test_a_gated_activation_is_one() -> None:
    assert operators(graph_of(GATED)) == [["Conv", "InstanceNormalization", "Sigmoid", "Mul"], ["Conv"]]


def test_no_node_is_in_two_and_names_are_those_of_layers() -> None:
    found = groups(graph_of(RESIDUAL))
    nodes = [name for group in found for name in group.nodes]
    assert len(set(nodes)) == len(nodes)
    assert all(group.name == group.nodes[0] for group in found)
