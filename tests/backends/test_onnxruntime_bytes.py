"""Quantized networks in the form that ONNX Runtime fuses: the same numbers, and that it does fuse them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
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
    quantized,
)

from edgekit import machine
from edgekit.backends import BACKENDS, onnxruntime_bytes
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.passes.quantize import Recipe

NETWORKS = {"chain": CHAIN, "U-Net": UNET, "3-D U-Net": UNET3, "residual": RESIDUAL}

TWICE = f"""(float[1, 2, 8, 8] x, float[1, 2, 8, 8] z) => (float[1, 2, 8, 8] y)
    <float[4, 2, 3, 3] u, float[4] b, float[2, 4, 3, 3] w> {{
    a = Conv <{PAD}> (x, u, b)  c = Conv <{PAD}> (z, u, b)  p = Relu (a)  q = Relu (c)  s = Add (p, q)
    y = Conv <{PAD}> (s, w) }}"""


def rewritten(graph: Graph) -> Graph:
    model = graph.edit()
    onnxruntime_bytes.rewrite(model)
    return graph.with_model(model, "rewritten")


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph.model.graph)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("activation", ["int8", "uint8-where-non-negative"])
def test_nothing_changes_but_the_form(name: str, activation: str) -> None:
    graph = quantized(graph_of(NETWORKS[name]), Recipe(activation=activation))  # type: ignore[arg-type]
    other = rewritten(graph)
    onnx.checker.check_model(onnx.load_from_string(other.to_bytes()), full_check=True)
    given = feeds(graph, 4)
    for output, want in literal(graph, given).items():
        np.testing.assert_array_equal(literal(other, given)[output], want)


def test_biases_become_sums_of_products() -> None:
    graph = rewritten(quantized(graph_of(UNET)))
    stored = [
        node.inputs[0].const_value.dtype  # type: ignore[union-attr]
        for node in graph.model.graph
        if node.op_type == "DequantizeLinear" and node.inputs[0] and node.inputs[0].const_value is not None
    ]
    assert Counter(stored) == {ir.DataType.INT8: 5, ir.DataType.INT32: 5}


def test_a_bias_that_is_no_whole_number_of_steps_stays() -> None:
    graph = quantized(graph_of(CHAIN))
    model = graph.edit()
    for node in model.graph:
        if node.op_type == "Conv":
            bias = node.inputs[2]
            assert bias is not None and bias.const_value is not None
            bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1e-3), name=bias.name)
    other = rewritten(graph.with_model(model, "shifted"))
    assert operators(other)["DequantizeLinear"] == operators(graph)["DequantizeLinear"]


def test_a_rectifier_before_other_zero_points_clips_bytes() -> None:
    graph = quantized(graph_of(CHAIN), Recipe(activation="int8"))
    assert operators(rewritten(graph)) - operators(graph) == Counter(Clip=1, DequantizeLinear=3)
    unsigned = quantized(graph_of(CHAIN))
    assert operators(rewritten(unsigned))["Relu"] == 1  # ONNX Runtime fuses it as it is


def test_a_rectified_image_that_others_read_stays() -> None:
    graph = quantized(graph_of(RESIDUAL.replace("y = Sub (x, n)", "t = Add (x, n)  y = Identity (t)")))
    model = graph.edit()
    relu = next(node for node in model.graph if node.op_type == "Relu")
    twice = ir.node("Neg", [relu.outputs[0]])
    twice.outputs[0].name = "others"
    model.graph.append(twice)
    before = operators(graph.with_model(model, "others"))["Relu"]
    assert operators(rewritten(graph.with_model(model, "others")))["Relu"] == before


def fused(graph: Graph, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of the network that its backend compiles."""
    import onnxruntime

    compiled = BACKENDS["onnxruntime"].compile(
        graph, VNNI, sample=feeds(graph), threads=1, limits=Limits(120)
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(
        compiled.artifact.files["model.onnx"], options, disabled_optimizers=["WeightBiasQuantization"]
    )
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


@pytest.mark.parametrize("activation", ["int8", "uint8-where-non-negative"])
def test_convolutions_of_bytes_are_fused(activation: str, tmp_path: Path) -> None:
    graph = quantized(graph_of(UNET), Recipe(activation=activation))  # type: ignore[arg-type]
    # The last one makes numbers; a transposed one it has in float32 alone.
    assert fused(graph, tmp_path)["QLinearConv"] == 3


def test_weights_that_may_saturate_are_told() -> None:
    graph = graph_of(CHAIN)
    assert onnxruntime_bytes.may_saturate(quantized(graph).model)
    assert not onnxruntime_bytes.may_saturate(quantized(graph, Recipe(weight_bits=7)).model)
    assert not onnxruntime_bytes.may_saturate(graph.model)


@pytest.mark.parametrize("text", [CHAIN, TWICE], ids=["chain", "shared weights"])
def test_exact_products_are_asked_for_where_the_processor_saturates(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = quantized(graph_of(text))
    given = feeds(graph, 4)
    backend = BACKENDS["onnxruntime"]
    artifact = backend.compile(graph, VNNI, sample=given, threads=1, limits=Limits(120)).artifact
    assert "exact-products.txt" in artifact.files
    here = machine.record()
    without = machine.Machine(**{**vars(here), "features": ("avx2",)})
    monkeypatch.setattr(machine, "record", lambda packages=(): without)
    session = backend.open(artifact, threads=1)
    outputs = session.run(given)
    session.close()
    for name, want in literal(graph, given).items():
        steps = np.abs(outputs[name] - want).max() / np.abs(want).max()
        assert steps < 0.05


def test_a_float_network_is_stored_as_it_is() -> None:
    graph = graph_of(CHAIN)
    given = feeds(graph)
    files = BACKENDS["onnxruntime"].compile(graph, VNNI, sample=given, limits=Limits(120)).artifact.files
    assert files == {"model.onnx": graph.to_bytes()}
