"""Weights as bytes: axes, ranges that do not saturate, biases on the grid, what rounding shifts."""

from __future__ import annotations

import numpy as np
import pytest
from quantize_samples import graph_of, literal

from edgekit.passes.quantize import layers, weights
from edgekit.passes.quantize.layers import Layer
from edgekit.spec import Array

LAYERS = {
    "Conv": ("y = Conv (x, w, b)", (6, 4, 3, 3), 0),
    "an odd number of inputs": ("y = Conv (x, w, b)", (6, 3, 3, 3), 0),
    "groups": ("y = Conv <group = 2> (x, w, b)", (6, 2, 3, 3), 0),
    "depthwise": ("y = Conv <group = 6> (x, w, b)", (6, 1, 3, 3), 0),
    "a volume": ("y = Conv (x, w, b)", (6, 4, 2, 3, 3), 0),
    "ConvTranspose": ("y = ConvTranspose <strides = [2, 2]> (x, w, b)", (4, 6, 2, 2), 1),
    "its groups": ("y = ConvTranspose <group = 2> (x, w, b)", (4, 3, 2, 2), 1),
    "Gemm": ("y = Gemm (x, w, b)", (4, 6), 1),
    "Gemm transposed": ("y = Gemm <transB = 1> (x, w, b)", (6, 4), 0),
}


def layer_of(name: str, scale: float = 1.0, bias: float = 1.0) -> Layer:
    nodes, shape, _ = LAYERS[name]
    channels = shape[0] if "Transpose" in nodes else shape[1] if "Conv" in nodes else 4
    channels *= (
        int(nodes[nodes.index("group = ") + 8]) if "group" in nodes and "Transpose" not in nodes else 1
    )
    image = ", ".join(map(str, (2, channels, *([8] * (len(shape) - 2)))))
    lengths = ", ".join(map(str, shape))
    text = f"(float[{image}] x) => (float[] y) <float[{lengths}] w, float[6] b> {{ {nodes} }}"
    text = text.replace("(float[] y)", f"(float[{', '.join(['n', 'c', *'def'[: len(shape) - 2]])}] y)")
    graph = graph_of(text, factors={"w": scale, "b": bias})
    (layer,) = layers.find(graph.model.graph)
    return layer


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [7, 8])
def test_each_output_has_its_scale(name: str, bits: int) -> None:
    layer = layer_of(name)
    codes = weights.encode(layer, bits=bits)
    assert (codes.axis, codes.scales.shape) == (LAYERS[name][2], (layer.weights.shape[layer.axis],))
    error = np.abs(codes.decoded() - layer.weights)
    steps = weights.along(codes.scales, layer.weights.ndim, layer.axis)
    assert (error <= 0.5001 * steps).all()
    assert codes.codes.min() >= -127
    if bits == 8:
        others = tuple(axis for axis in range(layer.weights.ndim) if axis != layer.axis)
        assert (np.abs(codes.codes).max(others) == 127).all()


@pytest.mark.parametrize("name", LAYERS)
def test_seven_bits_never_saturate(name: str) -> None:
    """In any of the ways that a kernel may pair neighbours: inputs of a tap, padded or across taps."""
    layer = layer_of(name)
    codes = weights.encode(layer, bits=7)
    rows = np.moveaxis(codes.codes.astype(np.int64), layer.axis, 0)
    rows = rows.reshape(*rows.shape[:2], -1).transpose(0, 2, 1)
    padded = np.concatenate([rows, np.zeros((*rows.shape[:2], rows.shape[2] % 2), np.int64)], 2)
    flat = rows.reshape(len(rows), -1)
    flat = np.concatenate([flat, np.zeros((len(flat), flat.shape[1] % 2), np.int64)], 1)
    worst = 0
    for way in (padded.reshape(len(rows), -1), flat):
        pairs = way.reshape(len(way), -1, 2)
        for images in ([255, 255], [255, 0], [0, 255]):
            worst = max(worst, int(np.abs((pairs * images).sum(2)).max()))
    assert 20_000 < worst <= 32_767


def test_seven_bits_cost_less_than_a_bit() -> None:
    layer = layer_of("Conv")
    ratio = weights.encode(layer, bits=7).scales / weights.encode(layer, bits=8).scales
    assert 1.0 < ratio.mean() < 1.8
    assert (ratio <= 2.02).all()


def test_weights_of_zero_have_a_scale() -> None:
    layer = layer_of("Conv", scale=0.0)
    codes = weights.encode(layer, bits=8)
    assert not codes.codes.any() and (codes.scales > 0).all()


@pytest.mark.parametrize("name", LAYERS)
def test_biases_are_whole_steps(name: str) -> None:
    layer = layer_of(name)
    codes = weights.encode(layer, bits=8)
    bias = weights.on_grid(layer.bias, 0.0371, codes.scales)  # type: ignore[arg-type]
    steps = np.float32(0.0371) * np.tile(codes.scales, 6 // len(codes.scales))
    whole = bias.astype(np.float64) / steps.astype(np.float64)
    np.testing.assert_allclose(whole, np.rint(whole), rtol=1e-6)
    assert (np.abs(bias - layer.bias) <= 0.5001 * steps).all()  # type: ignore[operator]


@pytest.mark.parametrize("name", LAYERS)
def test_a_bias_beside_tiny_weights_gets_a_coarser_scale(name: str) -> None:
    """Some channels' weights are all but zero; their biases would not fit 32 bits of such steps."""
    layer = layer_of(name, scale=1e-12, bias=100)
    codes = weights.encode(layer, bits=8, input_scales=(1e-3,))
    steps = np.tile(codes.scales.astype(np.float64), 6 // len(codes.scales)) * 1e-3
    assert np.abs(layer.bias / steps).max() <= 1.001 * (1 << 30)  # type: ignore[operator]
    bias = weights.on_grid(layer.bias, 1e-3, codes.scales)  # type: ignore[arg-type]
    np.testing.assert_allclose(bias, layer.bias, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_what_rounding_shifts(name: str) -> None:
    """Of images whose channels are constant, away from the border, the shift is exact."""
    layer = layer_of(name)
    codes = weights.encode(layer, bits=8)
    node = layer.node
    value = node.inputs[0]
    assert value is not None and value.shape is not None
    shape = value.shape.numpy()
    means = np.linspace(0.5, 2.0, shape[1])
    image = np.broadcast_to(means.reshape(1, -1, *[1] * (len(shape) - 2)), shape).astype(np.float32)
    nodes, lengths, _ = LAYERS[name]

    def run(array: Array) -> Array:
        sizes = ", ".join(map(str, lengths))
        names = ", ".join(["n", "c", *"def"[: len(shape) - 2]])
        images = ", ".join(map(str, shape))
        text = f"(float[{images}] x, float[{sizes}] w) => (float[{names}] y) <float[6] b> {{ {nodes} }}"
        return literal(graph_of(text), {"x": image, "w": array.astype(np.float32)})["y"]

    moved = run(codes.decoded()) - run(layer.weights)
    inside = moved[(slice(None), slice(None), *[slice(2, -2)] * (len(shape) - 2))]
    if "Transpose" in nodes and "strides" not in nodes:
        inside = moved[:, :, 2:-2, 2:-2]
    got = inside.mean((0, *range(2, inside.ndim)))
    expected = weights.shift(layer, codes, means)
    assert expected is not None
    np.testing.assert_allclose(got, expected, atol=3e-5)


def test_no_shift_where_channels_are_others() -> None:
    layer = layer_of("Conv")
    assert weights.shift(layer, weights.encode(layer, bits=8), np.ones(5)) is None
