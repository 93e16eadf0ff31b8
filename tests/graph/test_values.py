"""Which values a network has inside, and how large they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from backends.backend_models import graph, weights

from edgekit.errors import GraphError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.spec import Dim, TensorSpec


def network() -> Graph:
    text = """g (float[1, 2, 6, 6] x) => (float[1, 4, 6, 6] y)
        { c = Conv <pads = [1, 1, 1, 1]> (x, w)  s = Sigmoid (c)  y = Mul (c, s) }"""
    return graph(text, w=weights(4, 2, 3, 3))


def test_sizes_are_known_without_running() -> None:
    model = network()
    found = values.sizes(model)
    assert found["c"] == values.Size("float32", (1, 4, 6, 6)) and found["c"].nbytes == 4 * 4 * 36
    assert found["x"].shape == (1, 2, 6, 6)


def test_sizes_follow_lengths_that_vary() -> None:
    text = """g (float[1, 2, H, W] x) => (float[1, 4, H, W] y)
        { c = Conv <pads = [1, 1, 1, 1]> (x, w)  y = Relu (c) }"""
    model = graph(text, ranges={"H": Dim(4, 16, 4), "W": Dim(4, 10, 4)}, w=weights(4, 2, 3, 3))
    assert values.sizes(model)["c"].shape == (1, 4, 16, 8)
    assert values.sizes(model, {"x": (1, 2, 4, 4)})["c"].shape == (1, 4, 4, 4)


def test_large_weights_cost_nothing_when_sizes_are_told() -> None:
    text = "g (float[1, 64] x) => (float[1, 64] y) { c = MatMul (x, w)  y = Relu (c) }"
    model = graph(text, w=weights(64, 64))
    before = model.digest()
    assert values.sizes(model)["c"].shape == (1, 64)
    assert model.digest() == before


def test_half_precision_is_told_by_weights_and_casts() -> None:
    cast = "g (float[1, 4] x) => (float[1, 4] y) { h = Cast <to = 10> (x)  y = Cast <to = 1> (h) }"
    weight = "g (float[1, 4] x) => (float[1, 4] y) { h = CastLike (x, k)  y = CastLike (h, x) }"
    constant = """g (float[1, 4] x) => (float[1, 4] y)
        { k = Constant <value = float[1] {1.0}> ()  h = CastLike (x, k)  y = CastLike (h, x) }"""
    edited = graph(constant).edit()
    edited.graph[0].attributes["value"] = ir.AttrTensor("value", ir.tensor(np.ones(1, np.float16)))
    edited.graph[0].outputs[0].dtype = edited.graph[1].outputs[0].dtype = ir.DataType.FLOAT16
    half = [graph(cast), graph(weight, k=np.ones(1, np.float16)), graph(constant).with_model(edited, "half")]
    for model in half:
        assert values.computes_in_half(model)
        kept = values.with_half_kept(model)
        assert [node.op_type for node in kept.model.graph].count("Identity") >= 2
        assert kept.model.graph.outputs[0].name == "y"
    assert not values.computes_in_half(network())
    assert values.with_half_kept(plain := network()) is plain


def test_a_part_stands_by_itself() -> None:
    whole = network()
    specs = [
        TensorSpec("c", "float32", (1, 4, 6, 6), "NCHW"),
        TensorSpec("s", "float32", (1, 4, 6, 6), "NCHW"),
    ]
    cut = values.part(whole, specs[:1], specs[1:])
    assert [node.op_type for node in cut.model.graph] == ["Sigmoid"]
    assert not cut.model.graph.initializers and cut.history[-1] == "the part that makes s"
    first = values.part(whole, whole.inputs, specs[:1])
    onnx.checker.check_model(onnx.load_from_string(first.to_bytes()), full_check=True)
    assert list(first.model.graph.initializers) == ["w"]
    with pytest.raises(GraphError, match="no part of the network"):
        values.part(whole, specs[:1], whole.outputs[:0])
    with pytest.raises(GraphError, match="no part of the network"):
        values.part(whole, specs[1:], whole.outputs)
