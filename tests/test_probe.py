"""Inner values against the reference evaluator, as they are written, whatever a runtime would fuse."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from backends.backend_models import graph, sample, to_graph, weights
from onnx.reference import ReferenceEvaluator

from edgekit import probe
from edgekit.backends.reference_ops import NEW_OPERATORS
from edgekit.errors import GraphError, SessionError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.spec import Array

NETWORK = """g (float[1, 2, 6, 6] x) => (float[1, 4, 6, 6] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    r = Relu (c)
    s = Sigmoid (r)
    y = Mul (r, s)
}"""


def network() -> Graph:
    return graph(NETWORK, w=weights(4, 2, 3, 3))


def reference(model: Graph, names: list[str], feeds: dict[str, Array]) -> list[Array]:
    proto = onnx.load_from_string(values.with_outputs(model, names, alone=True).to_bytes())
    return ReferenceEvaluator(proto, new_ops=NEW_OPERATORS).run(names, feeds)  # type: ignore[return-value]


def test_inner_values_come_out_beside_the_outputs() -> None:
    model = network()
    before = model.digest()
    feeds = sample(model)
    names = ["c", "s", "x"]
    with probe.opened(model, names, threads=1) as opened:
        assert opened.names == ("y", "c", "s", "x")
        found = opened.run(feeds)
    assert list(found) == ["y", "c", "s", "x"]
    for name, wanted in zip(["y", "c", "s"], reference(model, ["y", "c", "s"], feeds), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)
    assert found["x"] is feeds["x"]
    assert model.digest() == before


def test_values_alone_leave_out_what_they_do_not_need() -> None:
    model = network()
    cut = values.with_outputs(model, ["c"], alone=True)
    assert [node.op_type for node in cut.model.graph] == ["Conv"]
    with probe.opened(model, ["c", "y"], threads=1, alone=True) as opened:
        assert opened.names == ("c", "y")
    with probe.opened(model, ["x"], alone=True) as opened:
        assert list(opened.run(sample(model))) == ["x"]
    with probe.opened(model, ["y"], threads=1) as opened:
        assert opened.names == ("y",)


def test_a_value_of_unknown_type_comes_out() -> None:
    model = network()
    edited = model.edit()
    for node in edited.graph:
        for value in node.outputs:
            if value.name != "y":
                value.shape = value.type = None
    with probe.opened(model.with_model(edited, "without types"), ["r"], threads=1) as opened:
        assert opened.run(sample(model))["r"].shape == (1, 4, 6, 6)


def test_quantized_values_are_what_onnx_says() -> None:
    """A runtime would make an integer convolution of this; literally it is one of floating point."""
    model = graph(
        """g (float[1, 2, 6, 6] x) => (float[1, 4, 6, 6] y)
        <float s = {0.02}, int8 z = {0}, float t = {0.01}> {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            k = DequantizeLinear (w, t)
            y = Conv <pads = [1, 1, 1, 1]> (d, k)
        }""",
        w=(127 * weights(4, 2, 3, 3)).astype(np.int8),
    )
    feeds = sample(model)
    names = ["q", "d", "k", "y"]
    with probe.opened(model, names, threads=1, alone=True) as opened:
        found = opened.run(feeds)
    assert found["q"].dtype == np.int8
    for name, wanted in zip(names, reference(model, names, feeds), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("names", [[], ["b"], ["b16", "a16"]])
def test_half_precision_overflows_where_it_should(names: list[str]) -> None:
    """A runtime that computes in float32 between the casts would hide it."""
    model = graph(
        """g (float[1, 4] x) => (float[1, 4] y) {
            a16 = Cast <to = 10> (x)
            b16 = Mul (a16, k)
            c16 = Mul (b16, l)
            b = Cast <to = 1> (c16)
            y = Neg (b)
        }""",
        k=np.array([60_000], np.float16),
        l=np.array([0.001], np.float16),
    )
    feeds = {"x": np.array([[1.0, 2.0, 0.1, -3.0]], np.float32)}
    with probe.opened(model, names, threads=1) as opened:
        found = opened.run(feeds)
    for name, wanted in zip(["y", *names], reference(model, ["y", *names], feeds), strict=True):
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name], wanted)
    assert np.array_equal(np.isinf(found["y"]), [[False, True, False, True]])


def test_our_own_operators_run() -> None:
    model = own()
    feeds = sample(model)
    with probe.opened(model, ["w"], threads=1) as opened:
        found = opened.run(feeds)
    (wanted,) = reference(model, ["w"], feeds)
    np.testing.assert_allclose(found["w"], wanted, atol=1e-5)
    assert np.array_equal(found["y"], -found["w"])


def own() -> Graph:
    text = """<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]>
        g (float[1, 2, 6, 6] x, float[1, 2, 6, 6] flow) => (float[1, 2, 6, 6] y) {
            w = edgekit.Warp (x, flow)
            y = Neg (w)
        }"""
    return to_graph(onnx.parser.parse_model(text))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(GraphError, match="'cc'") as refused, probe.opened(network(), ["cc"]):
        pass
    assert refused.value.hint == "did you mean 'c'?"
    with pytest.raises(GraphError, match="'w'"), probe.opened(network(), ["w"]):
        pass


def test_a_closed_probe_and_a_wrong_feed_are_refused() -> None:
    model = network()
    short = {"x": np.zeros((1, 2, 3), np.float32)}
    with probe.opened(model, threads=1) as opened, pytest.raises(SessionError, match="failed while running"):
        opened.run(short)
    with pytest.raises(SessionError, match="closed"):
        opened.run(sample(model))
