"""Networks that ONNX Runtime quantized, compiled for TVM, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tvm
from kernel_runs import AVX2, cpu_flags, use
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tvm import relax

from edgekit.backends.tvm import emission
from edgekit.backends.tvm.compiler import export
from edgekit.backends.tvm.processor import Processor
from edgekit.hosts.build import Platform

# "Right" for a quantized network: its bytes differ from ONNX Runtime's by the rounding of a few.
LEAST_SNR_DB = 35.0
# Arm's order of bytes and its code without a dot product, built for this machine.
PROCESSORS = {"AVX2": AVX2, "like Arm": Processor("aarch64", 4, 32, mcpu="x86-64-v3")}
if "avx512_vnni" in cpu_flags():
    PROCESSORS["VNNI"] = Processor("x86_64", 16, 32, "vnni", mcpu="x86-64-v4", mattr=("+avx512vnni",))
each_processor = pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)


class Builder:
    """A network under construction: nodes and weights, drawn from one generator."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        name = f"w{len(self.weights)}"
        values = self._random.normal(0, scale, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, *taps: int, **attributes: object) -> str:
        scale = (inputs * np.prod(taps)) ** -0.5
        pads = [tap // 2 for tap in taps] * 2
        weights = self.weight(outputs, inputs, *taps, scale=scale)
        return self.node("Conv", x, weights, self.weight(outputs, scale=0.1), pads=pads, **attributes)

    def up(self, x: str, inputs: int, outputs: int, axes: int) -> str:
        weights = self.weight(inputs, outputs, *[2] * axes, scale=inputs**-0.5)
        return self.node("ConvTranspose", x, weights, self.weight(outputs, scale=0.1), strides=[2] * axes)


def plain(b: Builder) -> str:
    x = b.node("Relu", b.conv("x", 1, 16, 3, 3))
    x = b.node("Relu", b.conv(x, 16, 20, 3, 3, strides=[2, 2]))
    return b.conv(b.node("LeakyRelu", b.conv(x, 20, 16, 1, 1), alpha=0.1), 16, 2, 3, 3)


def residual(b: Builder) -> str:
    x = b.node("Relu", b.conv("x", 1, 32, 3, 3))
    y = b.conv(b.node("Relu", b.conv(x, 32, 32, 3, 3)), 32, 32, 3, 3)
    return b.conv(b.node("Relu", b.node("Add", x, y)), 32, 1, 3, 3)


def u_shaped(b: Builder) -> str:
    x = b.node("Relu", b.conv("x", 1, 16, 3, 3))
    y = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = b.up(b.node("Relu", b.conv(y, 16, 32, 3, 3)), 32, 16, 2)
    z = b.node("AveragePool", b.node("Concat", x, y, axis=1), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.node("Sigmoid", b.conv(z, 32, 3, 3, 3))


def volume(b: Builder) -> str:
    x = b.node("Relu", b.conv("x", 1, 8, 3, 3, 3))
    y = b.up(b.node("Relu", b.conv(x, 8, 16, 3, 3, 3, strides=[2, 2, 2])), 16, 8, 3)
    return b.conv(b.node("Mul", x, y), 8, 2, 1, 1, 1)


def classifier(b: Builder) -> str:
    x = b.node("Relu", b.conv("x", 1, 16, 3, 3))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.node("Gemm", x, b.weight(5, 16), b.weight(5), transB=1)


NETWORKS: dict[str, tuple[Callable[[Builder], str], tuple[int, ...]]] = {
    "plain": (plain, (1, 1, 20, 26)),
    "residual": (residual, (2, 1, 13, 18)),
    "u-shaped": (u_shaped, (1, 1, 16, 20)),
    "volume": (volume, (1, 1, 6, 8, 10)),
    "classifier": (classifier, (1, 1, 16, 16)),
}


class Images(CalibrationDataReader):  # type: ignore[misc]
    """What the quantizer learns ranges from."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image}


def quantized(name: str, folder: Path, kind: QuantType) -> tuple[Path, np.ndarray]:
    """The network as ONNX Runtime quantizes it, and an input."""
    build, shape = NETWORKS[name]
    builder = Builder()
    result = build(builder)
    images = list(np.random.default_rng(1).normal(0.3, 1, (3, *shape)).astype(np.float32))
    made = helper.make_graph(
        builder.nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        builder.weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    plain_file, file = folder / "plain.onnx", folder / "quantized.onnx"
    onnx.save(model, plain_file)
    quantize_static(
        plain_file,
        file,
        Images(images),
        quant_format=QuantFormat.QDQ,
        activation_type=kind,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return file, images[0]


def snr_db(got: np.ndarray, want: np.ndarray) -> float:
    noise = np.square(got.astype(np.float64) - want).sum()
    return float(10 * np.log10(np.square(want.astype(np.float64)).sum() / max(noise, 1e-30)))


@each_processor
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, kind: QuantType, processor: Processor, tmp_path: Path) -> None:
    file, image = quantized(name, tmp_path, kind)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": image})
    library = tmp_path / "network.so"
    export(ir.load(file), library, {}, Platform.here(), processor)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    results = []
    for threads in (1, 2):
        use(threads)
        results.append(machine["main"](tvm.runtime.tensor(image)).numpy())
    assert results[0].tobytes() == results[1].tobytes()
    assert snr_db(results[0], want) >= LEAST_SNR_DB


@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
def test_values_between_convolutions_are_bytes(kind: QuantType, tmp_path: Path) -> None:
    file, _ = quantized("residual", tmp_path, kind)
    module = emission.planned(relax.frontend.onnx.from_onnx(onnx.load(file)), AVX2)
    calls: list[list[str]] = []

    def visit(expression: object) -> None:
        if isinstance(expression, tvm.ir.Call) and expression.op.name == "relax.call_tir":
            calls.append([expression.args[0].name_hint, str(expression.ty.dtype)])

    relax.analysis.post_order_visit(module["main"], visit)
    convolutions = [dtype for name, dtype in calls if name.startswith("quantized_convolution")]
    # The last one ends in the network's result.
    assert sorted(convolutions) == ["float32", "uint8", "uint8", "uint8"]
