"""Fewer nodes, and no constant that costs more than it saves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import parser
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.passes.simplify import SimplifyPass


def simplify(text: str, folder: Path, shapes: dict[str, str] | None = None) -> Graph:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> net {text}')
    path = folder / "m.onnx"
    onnx.save(model, path)
    graph = build_graph(model, check_file(path, shapes)[1], "test")
    return SimplifyPass().run(graph, targets.find("cpu")).graph


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


def test_shape_arithmetic_of_fixed_shapes_goes(tmp_path: Path) -> None:
    text = """(float[1, L] x) => (float[2, K] y) <int64[1] one = {1}, int64[1] two = {2}>
        {
            s = Shape (x)  l = Gather (s, one)  h = Div (l, two)
            t = Concat <axis = 0> (two, h)  y = Reshape (x, t)
        }"""
    assert operators(simplify(text, tmp_path, {"x": "1x8"})) == ["Reshape"]
    varying = ReferenceEvaluator(
        onnx.load_from_string(simplify(text, tmp_path, {"x": "1x[8:16:2]"}).to_bytes())
    )
    for length in (8, 10, 16):
        (y,) = varying.run(None, {"x": np.zeros((1, length), np.float32)})
        assert y.shape == (2, length // 2)  # type: ignore[union-attr]


def test_small_constants_are_computed_and_large_ones_are_not(tmp_path: Path) -> None:
    text = """(float[1] x) => (float[1] y) <int64[1] n = {%d}>
        {{ c = ConstantOfShape (n)  e = Exp (c)  m = ReduceMax <keepdims = 0> (e)  y = Add (x, m) }}"""
    assert operators(simplify(text.replace("{{", "{").replace("}}", "}") % 100, tmp_path))[-1] == "Add"
    large = simplify(text.replace("{{", "{").replace("}}", "}") % 10_000_000, tmp_path)
    assert operators(large) == ["ConstantOfShape", "Exp", "ReduceMax", "Add"]
    assert len(large.to_bytes()) < 1000


def test_constants_of_unknown_size_are_not_computed(tmp_path: Path) -> None:
    text = """(float[1] x) => (float[1] y) <float[4] w = {1, 0, 2, 0}>
        { n = NonZero (w)  c = Cast <to = 1> (n)  m = ReduceMax <keepdims = 0> (c)  y = Add (x, m) }"""
    assert operators(simplify(text, tmp_path))[0] == "NonZero"


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    text = """(float[4] x) => (float[4] y) <float[4] a = {1, 2, 3, 4}, float[4] b = {1, 2, 3, 4}>
        { c = Add (x, a)  y = Mul (c, b) }"""
    assert len(simplify(text, tmp_path).model.graph.initializers) == 1


def test_operator_sets_that_nothing_uses_go(tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]>
        net (float[1] x) => (float[1] y) { y = Relu (x) }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    graph = build_graph(model, check_file(tmp_path / "m.onnx")[1], "test")
    result = SimplifyPass().run(graph, targets.find("cpu"))
    assert result.changed
    assert set(result.graph.model.opset_imports) == {""}


def test_an_old_operator_set_is_left_to_the_backends_and_said(tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        net (float[2, 6] x) => (float[3, 4] y) <int64[1] a = {3}, int64[1] b = {4}>
        { s = Concat <axis = 0> (a, b)  i = Identity (x)  y = Reshape (i, s) }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    graph = build_graph(model, check_file(tmp_path / "m.onnx")[1], "test")
    result = SimplifyPass().run(graph, targets.find("cpu"))
    assert operators(result.graph) == ["Concat", "Reshape"]
    assert result.notes[0] == "3 nodes became 2"
    assert "opset 13" in result.notes[1]
