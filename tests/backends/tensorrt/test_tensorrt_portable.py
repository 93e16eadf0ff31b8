"""The portable network: types kept or taken out, operator sets, plug-ins; what it computes stays the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from backends.backend_models import parse

from edgekit.backends.onnxruntime import literal
from edgekit.backends.tensorrt import portable, weak
from edgekit.errors import CorruptError, UnsupportedError

OPSET = 17  # the newest that every version takes
RNG = np.random.default_rng(3)
WEIGHTS = RNG.standard_normal((4, 2, 3, 3)).astype(np.float32)

MIXED = """net (float[1,2,8,8] x) => (float[1,4,8,8] y) {
  half = Cast <to=10> (x)
  conv = Conv <pads=[1,1,1,1]> (half, w)
  wide = Cast <to=1> (conv)
  norm = InstanceNormalization (wide, scale, bias)
  narrow = Cast <to=10> (norm)
  active = Relu (narrow)
  y = Cast <to=1> (active)
}"""
QUANTIZED = """net (float[1,2,8,8] x) => (float[1,4,8,8] y) {
  xq = QuantizeLinear (x, sx, zero)
  xr = DequantizeLinear (xq, sx, zero)
  wr = DequantizeLinear <axis=0> (wq, sw, zw)
  conv = Conv <pads=[1,1,1,1]> (xr, wr)
  y = Relu (conv)
}"""
CODES = np.clip(np.round(WEIGHTS / 0.03), -127, 127).astype(np.int8)


def mixed() -> onnx.ModelProto:
    numbers = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    return named(parse(MIXED, opset=OPSET, w=WEIGHTS.astype(np.float16), **numbers))


def quantized(zero: np.ndarray = np.array(0, np.int8), sx: object = np.float32(0.02)) -> onnx.ModelProto:
    numbers = {"sw": np.full(4, 0.03, np.float32), "zw": np.zeros(4, np.int8), "wq": CODES}
    return named(parse(QUANTIZED, opset=OPSET, zero=zero, sx=np.asarray(sx, np.float32), **numbers))


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return model


def run(model: onnx.ModelProto | bytes, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = literal(content, own_operators=False, threads=1)
    return session.run(feeds)


def write(model: onnx.ModelProto, version: str, **options: bool) -> portable.Portable:
    return portable.write(ir.serde.deserialize_model(model), version, **options)


def operators(made: portable.Portable) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(made.model).graph.node]


X = RNG.standard_normal((1, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("version", ["10.3", "10.16.2", "11.1"])
@pytest.mark.parametrize("model", [mixed, quantized])
def test_types_are_kept_where_networks_are_strongly_typed(model, version):
    made = write(model(), version)
    assert made.strongly_typed and not made.precisions and not made.calibration
    np.testing.assert_array_equal(run(made.model, x=X)["y"], run(model(), x=X)["y"])


@pytest.mark.parametrize("version", ["8.5.2", "8.6.2"])
def test_casts_become_a_flag_and_the_layers_that_stay_wide(version):
    made = write(mixed(), version)
    assert not made.strongly_typed and made.precisions == {"float16"}
    assert operators(made) == ["Conv", "InstanceNormalization", "Relu"]
    assert made.layers == {"InstanceNormalization_norm": "fp32"}
    np.testing.assert_allclose(run(made.model, x=X)["y"], run(mixed(), x=X)["y"], atol=5e-3)
    loaded = onnx.load_from_string(made.model)
    assert {tensor.data_type for tensor in loaded.graph.initializer} == {onnx.TensorProto.FLOAT}


def test_writing_leaves_the_given_graph_alone():
    model = ir.serde.deserialize_model(mixed())
    before = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    portable.write(model.clone(), "8.5.2")
    assert ir.serde.serialize_model(model).SerializeToString(deterministic=True) == before


def test_rounding_becomes_a_calibration_cache():
    made = write(quantized(), "8.5.2")
    assert operators(made) == ["Conv", "Relu"] and made.precisions == {"int8"}
    # 0.02 is 3ca3d70a as a float32.
    assert made.calibration == b"TRT-8502-EntropyCalibration2\nx: 3ca3d70a\n"
    assert weak.read_cache(made.calibration) == {"x": pytest.approx(0.02)}
    np.testing.assert_allclose(run(made.model, x=X)["y"], run(quantized(), x=X)["y"], atol=0.2)
    (weights,) = [t for t in onnx.load_from_string(made.model).graph.initializer if len(t.dims) == 4]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weights), CODES * np.float32(0.03))


def test_rounding_stays_where_that_is_wanted_and_accelerators_want_it_out():
    kept = write(quantized(), "8.5.2", calibrated=False)
    assert "QuantizeLinear" in operators(kept) and not kept.calibration and kept.precisions == {"int8"}
    dla = write(quantized(), "10.3", weakly=True)
    assert not dla.strongly_typed and dla.calibration.startswith(b"TRT-100300-")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: quantized(zero=np.array(3, np.int8)), "another zero point than 0"),
        (lambda: quantized(zero=np.array(0, np.uint8)), "bytes that are not signed"),
        (lambda: quantized(sx=[0.02, 0.03], zero=np.zeros(2, np.int8)), "no scale for the whole tensor"),
    ],
)
def test_what_a_calibration_cache_cannot_say_is_refused(model, message):
    with pytest.raises(UnsupportedError, match=message) as caught:
        write(model(), "8.5.2")
    assert "quantization=qdq" in caught.value.hint


def test_a_calibration_cache_is_read_back_and_gets_another_header():
    scales = {"a b: c": 0.5, "x": 3.0e-5}
    data = weak.cache(scales, "8.5.2")
    assert weak.read_cache(data) == {"a b: c": 0.5, "x": pytest.approx(3.0e-5)}
    assert weak.for_version(data, "8.6.1").startswith(b"TRT-8601-EntropyCalibration2\na b: c: 3f000000\n")
    for damaged in (b"", b"x: 3f000000\n", data + b"y: 3f\n", data.replace(b"Entropy", b"MinMax")):
        with pytest.raises(CorruptError):
            weak.read_cache(damaged)


def test_an_output_keeps_its_name_where_what_makes_it_goes():
    text = """net (float[2] x) => (float[2] y) {
      a = Relu (x) b = Cast <to=10> (a) c = Neg (b) y = Cast <to=1> (c) }"""
    made = write(named(parse(text, opset=OPSET)), "8.5.2")
    x = np.array([1.5, -2], np.float32)
    np.testing.assert_array_equal(run(made.model, x=x)["y"], [-1.5, 0])


@pytest.mark.parametrize(
    ("mode", "wanted"), [("bilinear", "linear"), ("nearest", "nearest"), ("bicubic", "cubic")]
)
@pytest.mark.parametrize("version", ["8.5.2", "10.3"])
def test_sampling_of_volumes_becomes_the_plug_in(mode, wanted, version):
    text = f"""net (float[1,1,3,4,5] x, float[1,2,2,2,3] grid) => (float[1,1,2,2,2] y) {{
      y = GridSample <mode="{mode}", align_corners=1, padding_mode="border"> (x, grid) }}"""
    made = write(named(parse(text, opset=OPSET)), version)
    (node,) = onnx.load_from_string(made.model).graph.node
    assert (node.op_type, node.domain) == ("GridSample3d", "edgekit") and made.operators == ("GridSample3d",)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes == {"mode": wanted.encode(), "align_corners": 1, "padding_mode": b"border"}


@pytest.mark.parametrize(("version", "newest"), [("8.5.2", 17), ("10.3", 20)])
def test_an_operator_set_that_the_parser_does_not_take_is_refused(version, newest):
    text = "net (float[3] x) => (float[3] y) { y = Relu (x) }"
    assert onnx.load_from_string(write(named(parse(text, opset=newest)), version).model).ir_version <= 9
    with pytest.raises(UnsupportedError, match=f"up to {newest}, the network has {newest + 1}") as caught:
        write(named(parse(text, opset=newest + 1)), version)
    assert caught.value.hint == f"export the model with opset_version={newest}"


def test_a_network_of_an_older_operator_set_stays_in_it():
    made = write(named(parse("net (float[3] x) => (float[3] y) { y = Relu (x) }", opset=13)), "8.5.2")
    assert [entry.version for entry in onnx.load_from_string(made.model).opset_import] == [13]
