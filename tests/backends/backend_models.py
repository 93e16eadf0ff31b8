"""Tiny networks for the contract of the backends, written in ONNX's text form."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import onnx_ir as ir

from edgekit.backends import BACKENDS
from edgekit.graph.graph import Graph
from edgekit.spec import LAYOUTS, Array, Dim, TensorSpec
from edgekit.target import Target

TARGET = Target(
    name="test",
    title="this machine",
    arch=platform.machine(),  # type: ignore[arg-type]
    device="cpu",
    memory_bytes=4 << 30,
    bandwidth_bytes_per_s=1e10,
    threads=0,
    backends=tuple(name for name in BACKENDS if name != "reference"),
    precisions=("float32",),
)

DTYPES = {
    1: "float32",
    10: "float16",
    11: "float64",
    7: "int64",
    6: "int32",
    2: "uint8",
    3: "int8",
    9: "bool",
}


def parse(text: str, *, opset: int = 20, **weights: Array) -> onnx.ModelProto:
    """A checked model from ``name (inputs) => (outputs) { nodes }`` and its weights."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for name, w in weights.items())
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def to_graph(model: onnx.ModelProto, **ranges: Dim) -> Graph:
    """The model as a Graph; ``ranges`` gives the lengths that its symbolic axes may have."""
    return Graph(
        ir.serde.deserialize_model(model),
        tuple(_spec(value, ranges) for value in model.graph.input),
        tuple(_spec(value, ranges) for value in model.graph.output),
    )


def graph(text: str, *, opset: int = 20, ranges: dict[str, Dim] | None = None, **weights: Array) -> Graph:
    return to_graph(parse(text, opset=opset, **weights), **(ranges or {}))


def sample(graph: Graph, seed: int = 0, *, largest: bool = False) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for spec in graph.inputs:
        shape = spec.largest_shape if largest else spec.smallest_shape
        values = rng.standard_normal(shape)
        arrays[spec.name] = (values if spec.dtype.startswith("float") else values * 50).astype(spec.dtype)
    return arrays


def weights(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    """Random weights that keep the magnitude of what they are applied to."""
    fan_in = max(1, int(np.prod(shape[1:])))
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan_in)).astype(dtype)


def _spec(value: onnx.ValueInfoProto, ranges: dict[str, Dim]) -> TensorSpec:
    tensor = value.type.tensor_type
    dims = tuple(ranges[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim)
    return TensorSpec(value.name, DTYPES[tensor.elem_type], dims, LAYOUTS.get(len(dims), ""))


def unet(rank: int, *, channels: int = 4, size: int = 8) -> Graph:
    """Two levels: convolution, pooling, convolution, transposed convolution, concatenation, convolution."""
    space, half = ",".join([str(size)] * rank), ",".join(["1"] * (2 * rank))
    twos = ",".join(["2"] * rank)
    c = channels
    text = f"""
    unet{rank}d (float[1,1,{space}] image) => (float[1,2,{space}] logits) {{
        a0 = Conv<pads=[{half}]>(image, wa, ba)
        a1 = InstanceNormalization(a0, scale, shift)
        a = LeakyRelu<alpha=0.1>(a1)
        p = MaxPool<kernel_shape=[{twos}], strides=[{twos}]>(a)
        b0 = Conv<pads=[{half}]>(p, wb)
        b = Relu(b0)
        u = ConvTranspose<strides=[{twos}]>(b, wu, bu)
        joined = Concat<axis=1>(a, u)
        logits = Conv<pads=[{half}]>(joined, wl, bl)
    }}"""
    k3, k2 = (3,) * rank, (2,) * rank
    return graph(
        text,
        wa=weights(c, 1, *k3, seed=1),
        ba=weights(c, seed=2),
        scale=1 + weights(c, seed=3),
        shift=weights(c, seed=4),
        wb=weights(2 * c, c, *k3, seed=5),
        wu=weights(2 * c, c, *k2, seed=6),
        bu=weights(c, seed=7),
        wl=weights(2, 2 * c, *k3, seed=8),
        bl=weights(2, seed=9),
    )
