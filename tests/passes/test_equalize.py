"""Channels with other scales: the function stays, what is free and what is not, and that it helps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from passes.quantize.quantize_samples import (
    CHAIN,
    PAD,
    RESIDUAL,
    UNET,
    UNET3,
    VNNI,
    feeds,
    graph_of,
    literal,
    ranges_of,
    snr_db,
    value,
)

from edgekit.errors import PassError
from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass
from edgekit.passes.equalize import EqualizePass, SmoothPass
from edgekit.passes.quantize import QuantizePass, layers
from edgekit.passes.ranges import Ranges
from edgekit.passes.scaling import Scaling

HEAD = "(float[2, 3, 8, 8] x) => (float[2, n, a, b] y)"

SCALED = {
    "rectifiers": CHAIN,
    "a U-Net": UNET,
    "a volume": UNET3,
    "a residual sum": RESIDUAL,
    "PRelu, a slope for each channel": f"""{HEAD}
        <float[6, 3, 3, 3] u, float[6, 1, 1] s, float[4, 6, 3, 3] w> {{
        a = Conv (x, u)  p = PRelu (a, s)  y = Conv (p, w) }}""",
    "groups": f"""{HEAD} <float[6, 3, 3, 3] u, float[6, 3, 3, 3] v, float[4, 6, 1, 1] w> {{
        a = Conv (x, u)  r = Relu (a)  d = Conv <group = 2> (r, v)  e = Relu (d)  y = Conv (e, w) }}""",
    "depthwise": f"""{HEAD} <float[6, 3, 3, 3] u, float[6, 1, 3, 3] v, float[4, 6, 1, 1] w> {{
        a = Conv (x, u)  r = Relu (a)  d = Conv <group = 6> (r, v)  e = Relu (d)  y = Conv (e, w) }}""",
    "transposed with groups": f"""{HEAD} <float[6, 3, 3, 3] u, float[6, 3, 2, 2] v, float[6] b,
            float[4, 6, 1, 1] w> {{
        a = Conv (x, u)  r = Relu (a)  t = ConvTranspose <group = 2, strides = [2, 2]> (r, v, b)
        y = Conv (t, w) }}""",
    "pooling and resizing": f"""{HEAD} <float[6, 3, 3, 3] u, float[4] s, float[4, 6, 1, 1] w> {{
        a = Conv <{PAD}> (x, u)  p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        r = Resize <mode = "linear"> (p, , s)  y = Conv (r, w) }}""".replace(
        "float[4] s", "float[4] s = {1, 1, 2, 2}"
    ),
    "after instance normalisation": f"""{HEAD}
        <float[6, 3, 3, 3] u, float[6] k, float[6] b, float[4, 6, 3, 3] w> {{
        a = Conv (x, u)  i = InstanceNormalization (a, k, b)  r = Relu (i)  y = Conv (r, w) }}""",
    "after group normalisation as it is exported": f"""{HEAD}
        <float[6, 3, 3, 3] u, float[2] one = {{1, 1}}, float[2] zero = {{0, 0}}, int64[3] s = {{2, 2, -1}},
         int64[4] back = {{2, 6, 6, 6}}, float[6, 1, 1] k, float[6, 1, 1] b, float[4, 6, 3, 3] w> {{
        a = Conv (x, u)  g = Reshape (a, s)  i = InstanceNormalization (g, one, zero)  h = Reshape (i, back)
        m = Mul (h, k)  n = Add (m, b)  r = Relu (n)  y = Conv (r, w) }}""",
    "before a layer of features": """(float[2, 3, 8, 8] x) => (float[2, 4] y)
        <float[6, 3, 3, 3] u, int64[2] s = {2, 6}, float[5, 6] v, float[5] b, float[5, 4] w> {
        a = Conv (x, u)  r = Relu (a)  g = GlobalAveragePool (r)  f = Reshape (g, s)
        h = Gemm <transB = 1> (f, v, b)  e = Relu (h)  y = MatMul (e, w) }""",
    "after layer normalisation": """(float[2, 5, 8] x) => (float[2, 5, 4] y)
        <float[8] k, float[8] b, float[8, 6] v, float[6] c, float[6, 4] w> {
        n = LayerNormalization (x, k, b)  m = MatMul (n, v)  a = Add (m, c)  r = Relu (a)
        y = MatMul (r, w) }""",
    "one encoder for two images": f"""(float[1, 2, 8, 8] x, float[1, 2, 8, 8] z) => (float[1, 2, 8, 8] y)
        <float[4, 2, 3, 3] u, float[4] b, float[2, 8, 3, 3] w> {{
        a = Conv <{PAD}> (x, u, b)  c = Conv <{PAD}> (z, u, b)  s = Concat <axis = 1> (a, c)
        y = Conv <{PAD}> (s, w) }}""",
    "a constant that is added": f"""{HEAD} <float[6, 3, 3, 3] u, float k = {{0.5}}, float[4, 6, 1, 1] w> {{
        a = Conv (x, u)  s = Add (a, k)  r = Relu (s)  y = Conv (r, w) }}""",
}

FIXED = {
    "an activation that is no rectifier": f"""{HEAD} <float[6, 3, 3, 3] u, float[4, 6, 3, 3] w> {{
        a = Conv (x, u)  s = Sigmoid (a)  y = Conv (s, w) }}""",
    "an output": """(float[2, 3, 8, 8] x) => (float[2, 4, 4, 4] y, float[2, 6, 6, 6] r)
        <float[6, 3, 3, 3] u, float[4, 6, 3, 3] w> { a = Conv (x, u)  r = Relu (a)  y = Conv (r, w) }""",
    "a bias that is not known": """(float[2, 3, 8, 8] x, float[6] b) => (float[2, 4, 4, 4] y)
        <float[6, 3, 3, 3] u, float[4, 6, 3, 3] w> { a = Conv (x, u, b)  r = Relu (a)  y = Conv (r, w) }""",
    "a reader that is no layer": """(float[2, 3, 8, 8] x) => (float[2, 4, 4, 4] y, float[2, 1, 6, 6] m)
        <float[6, 3, 3, 3] u, int64[1] c = {1}, float[4, 6, 3, 3] w> {
        a = Conv (x, u)  r = Relu (a)  y = Conv (r, w)  m = ReduceMax (r, c) }""",
    "channels that are mixed": f"""{HEAD} <float[8, 3, 3, 3] u, float[4, 2, 3, 3] w> {{
        a = Conv (x, u)  r = DepthToSpace <blocksize = 2> (a)  y = Conv (r, w) }}""",
    "a sum with an input": """(float[2, 3, 8, 8] x) => (float[2, 4, 6, 6] y)
        <float[3, 3, 1, 1] u, float[4, 3, 3, 3] w> { a = Conv (x, u)  s = Add (a, x)  y = Conv (s, w) }""",
    "a branch that reads them": """(float[2, 3, 8, 8] x, bool c) => (float[2, 4, 4, 4] y, float[2, 6, 6, 6] t)
        <float[6, 3, 3, 3] u, float[4, 6, 3, 3] w> {
        a = Conv (x, u)  r = Relu (a)  y = Conv (r, w)
        t = If (c) <then_branch = one () => (float[2, 6, 6, 6] o) { o = Neg (r) },
                    else_branch = two () => (float[2, 6, 6, 6] q) { q = Abs (r) }> }""",
}


def uneven(graph: Graph) -> Graph:
    """The same function with channels of very different sizes."""
    scales = Scaling(graph.edit())
    free = scales.channels.free
    scales.apply(np.where(free, np.exp(2 * np.random.default_rng(0).standard_normal(len(free))), 1.0))
    scales.write()
    return graph.with_model(scales.model, "uneven")


def passes(graph: Graph) -> list[Pass]:
    return [EqualizePass(), SmoothPass(ranges_of(graph)), SmoothPass(ranges_of(graph), 0.8)]


@pytest.mark.parametrize("name", SCALED)
def test_the_function_stays(name: str) -> None:
    graph = graph_of(SCALED[name])
    for one in passes(graph):
        result = one.run(graph, VNNI)
        assert result.changed or (one.name == "smooth" and name == "after layer normalisation"), one.name
        onnx.checker.check_model(onnx.load_from_string(result.graph.to_bytes()), full_check=True)
        given = feeds(graph, 5)
        assert snr_db(literal(graph, given), literal(result.graph, given)) > 110
        nodes = [(node.name, node.op_type) for node in result.graph.model.graph]
        assert nodes == [(node.name, node.op_type) for node in graph.model.graph]


@pytest.mark.parametrize("name", FIXED)
def test_what_is_not_free_stays(name: str) -> None:
    graph = graph_of(FIXED[name])
    for one in passes(graph):
        assert not one.run(graph, VNNI).changed


def test_ranges_of_weights_meet() -> None:
    graph = EqualizePass().run(uneven(graph_of(UNET)), VNNI).graph
    scales = Scaling(graph.edit())
    free = scales.channels.free
    made, read = scales.largest_made()[free], scales.largest_read()[free]
    assert free.sum() > 20
    np.testing.assert_allclose(made, read, rtol=0.01)


def test_weights_that_layers_share_stay_shared() -> None:
    graph = EqualizePass().run(graph_of(SCALED["one encoder for two images"]), VNNI).graph
    first, second = (value(graph, name).producer() for name in "ac")
    assert first is not None and second is not None
    assert first.inputs[1] is second.inputs[1]


def test_a_second_run_finds_next_to_nothing() -> None:
    once = EqualizePass().run(graph_of(UNET), VNNI).graph
    twice = EqualizePass().run(once, VNNI)
    if twice.changed:
        for layer in layers.find(once.model.graph):
            node = next(n for n in twice.graph.model.graph if n.name == layer.name)
            weights = layers.constant(node.inputs[1])
            assert weights is not None
            np.testing.assert_allclose(weights, layer.weights, rtol=0.05, atol=1e-6)


@pytest.mark.parametrize("name", ["equalize", "smooth"])
def test_uneven_channels_are_quantized_as_well_as_even_ones(name: str) -> None:
    even = graph_of(UNET)
    given = feeds(even, 5)
    want = literal(even, given)

    def quality(one: Graph) -> float:
        return snr_db(want, literal(QuantizePass(ranges_of(one)).run(one, VNNI).graph, given))

    graph = uneven(even)
    one = EqualizePass() if name == "equalize" else SmoothPass(ranges_of(graph))
    better = quality(one.run(graph, VNNI).graph)
    assert better > quality(graph) + 6
    assert better > quality(even) - 2


def test_a_strength_is_a_share() -> None:
    with pytest.raises(PassError, match="strength of 0 to 1, got 2"):
        SmoothPass(Ranges.of([]), 2).run(graph_of(CHAIN), VNNI)


def test_ranges_are_needed_for_smoothing() -> None:
    with pytest.raises(PassError, match="no range was observed"):
        SmoothPass(Ranges.of([])).run(graph_of(CHAIN), VNNI)


def test_a_pad_with_zeros_commutes_and_another_does_not() -> None:
    text = f"""{HEAD} <float[6, 3, 3, 3] u, int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}, float k = {{FILL}},
        float[4, 6, 3, 3] w> {{ a = Conv (x, u)  r = Pad (a, p, k)  y = Conv (r, w) }}"""
    assert EqualizePass().run(graph_of(text.replace("FILL", "0")), VNNI).changed
    assert not EqualizePass().run(graph_of(text.replace("FILL", "1")), VNNI).changed
