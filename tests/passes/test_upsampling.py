"""Convolutions of doubled images: which become transposed ones, and that the numbers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.backends.reference_ops import NEW_OPERATORS
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.passes.base import PassResult
from edgekit.passes.upsampling import FoldUpsamplingPass

HOW = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
PAD3, PAD2 = "pads = [1, 1, 1, 1, 1, 1]", "pads = [1, 1, 1, 1]"
HEAD3 = "(float[1, 3, 3, 4, 5] x, float[1, 2, 6, 8, 10] skip) => (float[1, 4, 6, 8, 10] y)"
INIT3 = "<float[5] s = {1, 1, 2, 2, 2}, float[4, 3, 3, 3, 3] w, float[4] b, float[4, 5, 3, 3, 3] v>"

FOLDED = {
    "a volume": f"{HEAD3} {INIT3} {{ u = Resize <{HOW}> (x, , s)  y = Conv <{PAD3}> (u, w, b) }}",
    "a decoder's step": f"""{HEAD3} {INIT3} {{
        u = Resize <{HOW}> (x, , s)  c = Concat <axis = 1> (u, skip)
        d = Conv <{PAD3}> (c, v, b)  y = Relu (d) }}""",
    "the other order, without bias": f"""{HEAD3} {INIT3} {{
        u = Resize <{HOW}> (x, , s)  c = Concat <axis = -4> (skip, u)  y = Conv <{PAD3}> (c, v) }}""",
    "half pixels": f"""{HEAD3} {INIT3} {{
        u = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (x, , s)
        y = Conv <{PAD3}> (u, w) }}""",
    "an image": f"""(float[2, 3, 4, 5] x) => (float[2, 4, 8, 10] y)
        <float[4] s = {{1, 1, 2, 2}}, float[4, 3, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv <{PAD2}, kernel_shape = [3, 3]> (u, w) }}""",
    "two doubled images and two others": f"""
        (float[1, 3, 4, 5] x, float[1, 2, 8, 10] skip) => (float[1, 4, 8, 10] y)
        <float[4] s = {{1, 1, 2, 2}}, float[4, 10, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  z = Neg (x)  t = Resize <{HOW}> (z, , s)  r = Neg (skip)
        c = Concat <axis = 1> (u, skip, t, r)  y = Conv <{PAD2}> (c, w) }}""",
}

KEPT = {
    "another factor": f"""(float[1, 3, 4, 5] x) => (float[1, 4, 12, 15] y)
        <float[4] s = {{1, 1, 3, 3}}, float[4, 3, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv <{PAD2}> (u, w) }}""",
    "one axis": f"""(float[1, 3, 4, 5] x) => (float[1, 4, 8, 5] y)
        <float[4] s = {{1, 1, 2, 1}}, float[4, 3, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv <{PAD2}> (u, w) }}""",
    "linear": f'{HEAD3} {INIT3} {{ u = Resize <mode = "linear"> (x, , s)  y = Conv <{PAD3}> (u, w) }}',
    "a stride": f"""(float[1, 3, 4, 5] x) => (float[1, 4, 4, 5] y)
        <float[4] s = {{1, 1, 2, 2}}, float[4, 3, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv <{PAD2}, strides = [2, 2]> (u, w) }}""",
    "no padding": f"""(float[1, 3, 4, 5] x) => (float[1, 4, 6, 8] y)
        <float[4] s = {{1, 1, 2, 2}}, float[4, 3, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv (u, w) }}""",
    "read elsewhere too": f"""(float[1, 3, 4, 5] x) => (float[1, 4, 8, 10] y, float[1, 3, 8, 10] u)
        <float[4] s = {{1, 1, 2, 2}}, float[4, 3, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv <{PAD2}> (u, w) }}""",
    "groups": f"""(float[1, 3, 4, 5] x) => (float[1, 3, 8, 10] y)
        <float[4] s = {{1, 1, 2, 2}}, float[3, 1, 3, 3] w> {{
        u = Resize <{HOW}> (x, , s)  y = Conv <{PAD2}, group = 3> (u, w) }}""",
}


def graph_of(text: str, folder: Path) -> Graph:
    """The model, with weights that are drawn."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> net {text}')
    rng = np.random.default_rng(1)
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        drawn = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(drawn, value.name))
    del model.graph.value_info[:]
    path = folder / "m.onnx"
    onnx.save(model, path)
    return build_graph(model, check_file(path)[1], "test")


def fold(graph: Graph) -> PassResult:
    return FoldUpsamplingPass().run(graph, targets.find("cpu"))


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


def outputs(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    feeds = {s.name: rng.standard_normal(s.smallest_shape).astype(np.float32) for s in graph.inputs}
    proto = onnx.load_from_string(graph.to_bytes())
    onnx.checker.check_model(proto, full_check=True)
    return ReferenceEvaluator(proto, new_ops=NEW_OPERATORS).run(None, feeds)


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_folded_gives_the_same(name: str, tmp_path: Path) -> None:
    graph = graph_of(FOLDED[name], tmp_path)
    result = fold(graph)
    assert "Resize" not in operators(result.graph) and "ConvTranspose" in operators(result.graph)
    assert result.notes[0].endswith("became transposed ones")
    for got, want in zip(outputs(result.graph), outputs(graph), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)
    assert not fold(result.graph).changed


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept(name: str, tmp_path: Path) -> None:
    assert not fold(graph_of(KEPT[name], tmp_path)).changed


def test_a_decoder_loses_its_concatenation(tmp_path: Path) -> None:
    result = fold(graph_of(FOLDED["a decoder's step"], tmp_path))
    assert operators(result.graph) == ["Conv", "ConvTranspose", "Add", "Relu"]
