"""The pass as a whole: what it keeps, refuses and says, and the recipes of targets."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
import pytest
from quantize_samples import (
    AVX2,
    CHAIN,
    JETSON,
    PAD,
    RESIDUAL,
    UNET,
    UNET3,
    VNNI,
    feeds,
    graph_of,
    literal,
    quantized,
    ranges_of,
    reads,
    snr_db,
    value,
)

from edgekit import target as targets
from edgekit.errors import PassError, UsageError
from edgekit.graph.graph import Graph
from edgekit.passes.quantize import QuantizePass, Recipe, layers
from edgekit.passes.quantize.writer import read_codes
from edgekit.passes.ranges import Ranges

NETWORKS = {"chain": CHAIN, "U-Net": UNET, "3-D U-Net": UNET3, "residual": RESIDUAL}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", [VNNI, AVX2, JETSON], ids=lambda target: target.name)
def test_the_quantized_network_is_valid_and_near(name: str, target: targets.Target) -> None:
    graph = graph_of(NETWORKS[name])
    result = QuantizePass(ranges_of(graph)).run(graph, target)
    onnx.checker.check_model(onnx.load_from_string(result.graph.to_bytes()), full_check=True)
    assert (result.graph.inputs, result.graph.outputs) == (graph.inputs, graph.outputs)
    given = feeds(graph, 3)
    assert snr_db(literal(graph, given), literal(result.graph, given)) > 18


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_keeps_its_name(name: str) -> None:
    graph = graph_of(NETWORKS[name])
    here = quantized(graph)

    def made(one: Graph) -> set[str]:
        return {str(v.name) for node in one.model.graph for v in node.outputs}

    assert made(graph) <= made(here)
    names = [str(node.name) for node in here.model.graph]
    assert {str(node.name) for node in graph.model.graph} <= set(names) and len(set(names)) == len(names)


def test_the_same_ranges_give_the_same_bytes() -> None:
    first, second = (quantized(graph_of(UNET)) for _ in range(2))
    assert first.digest() == second.digest()


def test_weights_are_bytes_and_nothing_of_the_old_ones_is_left() -> None:
    graph = quantized(graph_of(UNET))
    kinds = {name: value.const_value.dtype.name for name, value in graph.model.graph.initializers.items()}  # type: ignore[union-attr]
    assert [name for name, kind in kinds.items() if kind == "INT8" and name.endswith("/bytes")] != []
    assert not {"w0", "w1", "w2", "w3", "w4", "b0"} & kinds.keys()
    axes = {
        node.inputs[0].name: node.attributes["axis"].as_int()  # type: ignore[union-attr]
        for node in graph.model.graph
        if node.op_type == "DequantizeLinear" and "axis" in node.attributes
    }
    assert axes == {f"w{i}/bytes": int(i == 2) for i in range(5)}


def test_weights_that_layers_share_are_stored_once() -> None:
    """Two images through one encoder."""
    text = f"""(float[1, 2, 8, 8] x, float[1, 2, 8, 8] z) => (float[1, 2, 8, 8] y)
        <float[4, 2, 3, 3] u, float[4] b, float[2, 4, 3, 3] w> {{
        a = Conv <{PAD}> (x, u, b)  c = Conv <{PAD}> (z, u, b)  s = Sub (a, c)  y = Conv <{PAD}> (s, w) }}"""
    graph = quantized(graph_of(text))
    assert reads(graph, "a")[1] == reads(graph, "c")[1] == "u/rounded"
    # Each is on the grid of its own image.
    assert reads(graph, "a")[2] != reads(graph, "c")[2]


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_an_older_operator_set_becomes_one_with_scales_per_channel(opset: int) -> None:
    graph = graph_of(RESIDUAL, opset=opset)
    here = quantized(graph)
    assert here.model.opset_imports[""] == max(opset, 13)
    onnx.checker.check_model(onnx.load_from_string(here.to_bytes()), full_check=True)
    given = feeds(graph, 3)
    assert snr_db(literal(graph, given), literal(here, given)) > 18


def test_what_cannot_be_converted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raise RuntimeError("no adapter for Conv")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    graph = graph_of(RESIDUAL, opset=11)
    with pytest.raises(PassError, match=r"opset 11 has no scales for each channel.*no adapter") as caught:
        QuantizePass(ranges_of(graph)).run(graph, VNNI)
    assert caught.value.hint == "export the model with opset 13 or later"


def test_corrected_biases_are_on_the_grid() -> None:
    graph = quantized(graph_of(UNET))
    checked = 0
    for node in graph.model.graph:
        found = read_codes(node) if node.op_type in layers.CONVOLUTIONS else None
        if found is None:
            continue
        codes, scale = found
        bias = layers.constant(node.inputs[2])
        assert bias is not None and bias.dtype == np.float32
        whole = bias.astype(np.float64) / (np.float32(scale) * codes.scales).astype(np.float64)
        np.testing.assert_allclose(whole, np.rint(whole), rtol=1e-6)
        checked += 1
    assert checked == 5


def test_correcting_biases_gives_layers_without_one_a_bias() -> None:
    graph = graph_of(RESIDUAL)
    ranges = ranges_of(graph)
    plain = QuantizePass(ranges, Recipe(correct_bias=False)).run(graph, VNNI).graph
    corrected = QuantizePass(ranges, Recipe()).run(graph, VNNI).graph
    assert len(reads(plain, "c0")) == 2 and len(reads(corrected, "c0")) == 3


def test_every_layer_kept_changes_nothing() -> None:
    graph = graph_of(CHAIN)
    keep = frozenset(layer.name for layer in layers.find(graph.model.graph))
    result = QuantizePass(ranges_of(graph), Recipe(keep=keep)).run(graph, VNNI)
    assert not result.changed and "every layer is kept" in result.notes[0]


def test_notes_name_what_stays() -> None:
    graph = graph_of(CHAIN)
    first = layers.find(graph.model.graph)[0].name
    recipe = Recipe(keep=frozenset([first]), method="minmax")
    (note,) = QuantizePass(ranges_of(graph), recipe).run(graph, VNNI).notes
    assert note == (
        "2 of 3 layers compute in bytes, 2 values are rounded (minmax, weights of 8 bits); "
        f"in float32: {first}"
    )


REFUSED = {
    "no layers": "(float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }",
    "weights that are not known": (
        "(float[1, 4, 8, 8] x, float[4, 4, 3, 3] w) => (float[1, 4, 6, 6] y) { y = Conv (x, w) }"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_to_quantize_is_refused(name: str) -> None:
    with pytest.raises(PassError, match="no convolution and no product"):
        QuantizePass(Ranges.of([])).run(graph_of(REFUSED[name]), VNNI)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_of_another_precision_are_refused(dtype: str) -> None:
    graph = graph_of(CHAIN)
    model = graph.edit()
    for one in model.graph.initializers.values():
        assert one.const_value is not None
        one.const_value = ir.tensor(one.const_value.numpy().astype(dtype), name=one.name)
        one.type = ir.TensorType(one.const_value.dtype)
    with pytest.raises(PassError, match=f"{dtype}: quantize the float32 network"):
        QuantizePass(Ranges.of([])).run(graph.with_model(model, "typed"), VNNI)


def test_a_quantized_network_is_refused() -> None:
    graph = quantized(graph_of(CHAIN))
    with pytest.raises(PassError, match="quantized already"):
        QuantizePass(Ranges.of([])).run(graph, VNNI)


def test_an_unknown_node_is_refused_with_the_nearest() -> None:
    graph = graph_of(CHAIN)
    name = layers.find(graph.model.graph)[0].name
    recipe = Recipe(keep=frozenset([name + "x"]))
    with pytest.raises(PassError, match=f"did you mean {name!r}"):
        QuantizePass(ranges_of(graph), recipe).run(graph, VNNI)


def test_ranges_of_another_network_are_refused() -> None:
    with pytest.raises(PassError, match="no range was observed for the tensor 'x'"):
        QuantizePass(Ranges.of([])).run(graph_of(CHAIN), VNNI)


def test_recipes_of_targets() -> None:
    assert Recipe.for_target(VNNI) == Recipe(weight_bits=8)
    assert Recipe.for_target(AVX2) == Recipe(weight_bits=7)
    assert Recipe.for_target(JETSON, method="entropy") == Recipe(method="entropy", activation="int8")
    assert Recipe.for_target(targets.find("intel-n100")).weight_bits == 8
    assert Recipe.for_target(targets.find("raspberry-pi-5")).weight_bits == 8


@pytest.mark.parametrize(
    "wrong", [{"method": "minmx"}, {"activation": "uint8"}, {"weight_bits": 4}], ids=lambda w: next(iter(w))
)
def test_a_recipe_of_something_else_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_tensorrt_gets_zero_points_of_0_only() -> None:
    graph = quantized(graph_of(UNET), Recipe.for_target(JETSON), JETSON)
    for node in graph.model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = layers.constant(node.inputs[2]) if len(node.inputs) > 2 else None
            stored = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
            assert stored is not None and stored.dtype == ir.DataType.INT8
            assert (zero is None and "axis" in node.attributes) or zero == 0
    bias = value(graph, "c0").producer().inputs[2]  # type: ignore[union-attr]
    assert layers.constant(bias).dtype == np.float32  # type: ignore[union-attr]
