"""Groups of nodes: what they read and make, who is next to whom, and which are alike."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from backends import backend_models
from onnx import numpy_helper

from edgekit.errors import GraphError
from edgekit.graph import groups, values
from edgekit.graph.graph import Graph

RNG = np.random.default_rng(0)
CONSTANTS = {
    "w": RNG.standard_normal((2, 2, 3, 3)).astype(np.float32),
    "v": RNG.standard_normal((2, 2, 3, 3)).astype(np.float32),
    "wq": RNG.integers(-9, 9, (2, 2, 3, 3)).astype(np.int8),
    "s": np.float32(0.1),
    "z": np.int8(0),
    "u": np.uint8(0),
}
PADS = "pads = [1, 1, 1, 1]"


def graph_of(text: str) -> Graph:
    """A typed graph whose nodes are called like their outputs."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> net {text}')
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in CONSTANTS.items() if name in used
    )
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model)
    return backend_models.to_graph(onnx.shape_inference.infer_shapes(model))


PLAIN = f"""(float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y, float[1, 2, 2, 2] p) {{
    a = Conv <{PADS}> (x, w)  b = Relu (a)  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
    c = Conv <{PADS}> (b, w)  d = Add (c, a)  y = Conv <{PADS}> (d, v) }}"""

QUANTIZED = f"""(float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {{
    xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)  wd = DequantizeLinear (wq, s, z)
    a = Conv <{PADS}> (xd, wd)  b = Relu (a)
    bq = QuantizeLinear (b, s, u)  bd = DequantizeLinear (bq, s, u)
    c = Conv <{PADS}> (bd, wd)  y = Conv <{PADS}> (c, v) }}"""

CAST = f"""(float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {{
    h = Cast <to = 10> (x)  vh = Cast <to = 10> (v)  a = Conv <{PADS}> (h, vh)  b = Cast <to = 1> (a)
    y = Conv <{PADS}> (b, v) }}"""


@pytest.mark.parametrize(
    ("text", "nodes", "stored", "read", "made"),
    [
        (PLAIN, ["a", "b"], False, ("x",), ("a", "b")),
        (PLAIN, ["c", "d"], False, ("b", "a"), ("d",)),
        (PLAIN, ["y"], False, ("d",), ("y",)),
        (QUANTIZED, ["a", "b"], False, ("x",), ("b",)),
        (QUANTIZED, ["a", "b"], True, ("xq",), ("bq",)),
        (QUANTIZED, ["c"], True, ("bq",), ("c",)),
        (QUANTIZED, ["c"], False, ("b",), ("c",)),
        (QUANTIZED, ["a", "b", "c"], True, ("xq",), ("c",)),
        (CAST, ["a"], False, ("x",), ("b",)),
        (CAST, ["y"], False, ("a",), ("y",)),
    ],
)
def test_a_group_has_borders(
    text: str, nodes: list[str], stored: bool, read: tuple[str, ...], made: tuple[str, ...]
) -> None:
    assert groups.borders(graph_of(text), nodes, stored=stored) == (read, made)


def test_a_group_of_strangers_is_refused() -> None:
    with pytest.raises(GraphError, match="no node is called 'nobody'"):
        groups.borders(graph_of(PLAIN), ["a", "nobody"])


def test_neighbours_are_found_through_nodes_of_no_group() -> None:
    members = {"first": ["a", "b"], "second": ["c", "d"], "third": ["y"]}
    assert groups.neighbours(graph_of(PLAIN), members) == {
        "first": (groups.END, "second", "second", groups.END),
        "second": ("first", "first", "third"),
        "third": ("second", groups.END),
    }
    assert groups.neighbours(graph_of(QUANTIZED), {"one": ["a"], "two": ["y"]}) == {
        "one": (groups.END, "two"),
        "two": ("one", groups.END),
    }


def test_parts_are_alike_whatever_their_weights_and_names_are() -> None:
    graph = graph_of(PLAIN)
    sizes = values.sizes(graph)

    def part(nodes: list[str]) -> Graph:
        ends = [
            [backend_models.TensorSpec(n, sizes[n].dtype, sizes[n].shape) for n in names]
            for names in groups.borders(graph, nodes)
        ]
        return values.part(graph, *ends)

    assert groups.likeness(part(["c"])) == groups.likeness(part(["y"]))
    assert groups.likeness(part(["c"])) != groups.likeness(part(["c", "d"]))
    wider = graph_of(PLAIN.replace(f"c = Conv <{PADS}>", 'c = Conv <auto_pad = "SAME_UPPER">'))
    graph = wider
    assert groups.likeness(part(["c"])) != groups.likeness(part(["y"]))


def test_labels_are_looked_behind() -> None:
    text = f"""(float[1, 2, 4, 4] x) =>
        (int64[1, 1, 4, 4] label, bool[1, 2, 4, 4] sure, float[1, 2, 4, 4] a) {{
        a = Conv <{PADS}> (x, w)  b = Relu (a)  label = ArgMax <axis = 1> (b)  sure = Greater (a, s) }}"""
    graph = graph_of(text)
    assert set(groups.floats_behind(graph, values.sizes(graph))) == {"a", "b"}


def test_what_bytes_hold() -> None:
    found = groups.held(graph_of(QUANTIZED))
    assert found == {"x": pytest.approx(12.7), "b": pytest.approx(25.5)}
