"""Tiny networks for the contract of the backends, written in ONNX's text form."""

from __future__ import annotations

import platform
from collections.abc import Callable

import ml_dtypes
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
    backends=tuple(name for name in BACKENDS if name != "reference" and "cpu" in BACKENDS[name].devices),
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


def blocks() -> Graph:
    """Two inputs and two outputs with awkward names; normalisations, pooling, resizing, groups, dilations."""
    text = """
    blocks (float[1,4,9,7] first, float[1,4,9,7] second) => (float[1,6,18,14] large, float[1,4,1,1] pooled) {
        low = ReduceMin(first)
        high = ReduceMax(first)
        range = Sub(high, low)
        moved = Sub(first, low)
        scaled = Div(moved, range)
        both = Add(scaled, second)
        normal = BatchNormalization(both, one, shift, mean, variance)
        active = PRelu(normal, slope)
        wide = Conv<pads=[2,2,2,2], dilations=[2,2], group=2>(active, grouped, bias)
        small = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(wide)
        factors = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>()
        smooth = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(wide, , factors)
        sizes = Constant<value_ints=[1, 6, 18, 14]>()
        blocky = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">
            (small, , , sizes)
        mixed = Mul(smooth, blocky)
        large = Softmax<axis=1>(mixed)
        pooled = GlobalAveragePool(active)
    }"""
    model = parse(
        text,
        one=1 + weights(4, seed=1),
        shift=weights(4, seed=2),
        mean=weights(4, seed=3),
        variance=1 + np.abs(weights(4, seed=4)),
        slope=np.float32([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1),
        grouped=weights(6, 2, 3, 3, seed=5),
        bias=weights(6, seed=6),
    )
    return to_graph(_renamed(model, {"first": "an image/0:in", "second": "b,c;d", "pooled": "out put:0"}))


def volume() -> Graph:
    """Three-dimensional: strides, groups, resizing, padding, reductions, a statistic as second output."""
    text = """
    volume (float[1,2,7,8,6] image) => (float[1,4,9,10,8] out, float[1,4] mean) {
        half = Conv<strides=[2,2,2], pads=[1,1,1,1,1,1]>(image, w)
        halved = Elu(half)
        sizes = Constant<value_ints=[1, 4, 7, 8, 6]>()
        back = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(halved, , , sizes)
        deep = Conv<pads=[1,1,1,1,1,1], group=4>(back, v)
        soft = Sigmoid(deep)
        widths = Constant<value_ints=[0, 0, 1, 1, 1, 0, 0, 1, 1, 1]>()
        out = Pad<mode="edge">(soft, widths)
        axes = Constant<value_ints=[2, 3, 4]>()
        mean = ReduceMean<keepdims=0>(soft, axes)
    }"""
    return graph(text, w=weights(4, 2, 3, 3, 3, seed=1), v=weights(4, 1, 3, 3, 3, seed=2))


def varying() -> Graph:
    """A residual denoiser of any size, any number of images."""
    text = """
    varying (float[N,1,H,W] image) => (float[N,1,H,W] clean) {
        a = Conv<pads=[1,1,1,1]>(image, wa)
        b = Relu(a)
        c = Conv<pads=[1,1,1,1]>(b, wb)
        clean = Sub(image, c)
    }"""
    ranges = {"N": Dim(1, 2), "H": Dim(4, 12, 4), "W": Dim(4, 12, 4)}
    return graph(text, ranges=ranges, wa=weights(4, 1, 3, 3, seed=1), wb=weights(1, 4, 3, 3, seed=2))


def varying_unet() -> Graph:
    text = """
    varying_unet (float[1,1,H,W] image) => (float[1,2,H,W] out) {
        a = MaxPool<kernel_shape=[2,2], strides=[2,2]>(image)
        b = ConvTranspose<strides=[2,2]>(a, w)
        out = Concat<axis=1>(image, b)
    }"""
    return graph(text, ranges={"H": Dim(4, 12, 4), "W": Dim(4, 12, 4)}, w=weights(1, 1, 2, 2))


def float16() -> Graph:
    text = """
    float16 (float16[1,2,8,8] image) => (float16[1,4,8,8] out) {
        a = Conv<pads=[1,1,1,1]>(image, w)
        out = Relu(a)
    }"""
    return graph(text, w=weights(4, 2, 3, 3, dtype="float16"))


def bfloat16() -> Graph:
    """Types that the contract does not have, behind Casts."""
    text = """
    bfloat16 (float[1,2,8,8] image) => (float[1,4,8,8] out) {
        x = Cast<to=16>(image)
        a = Conv<pads=[1,1,1,1]>(x, w)
        b = Relu(a)
        c = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(b)
        out = Cast<to=1>(c)
    }"""
    return graph(text, opset=22, w=weights(4, 2, 3, 3).astype(ml_dtypes.bfloat16))


def float64() -> Graph:
    text = "float64 (double[1,2,8,8] image) => (double[1,4,6,6] out) { out = Conv(image, w) }"
    return graph(text, w=weights(4, 2, 3, 3, dtype="float64"))


def labels() -> Graph:
    """Integers in, integers and truth values out."""
    text = """
    labels (uint8[1,2,6,6] image) => (int64[1,1,6,6] label, bool[1,3,6,6] sure) {
        x = Cast<to=1>(image)
        y = Conv<pads=[1,1,1,1]>(x, w)
        label = ArgMax<axis=1>(y)
        zero = Constant<value_float=0.0>()
        sure = Greater(y, zero)
    }"""
    return graph(text, w=weights(3, 2, 3, 3, seed=3))


def passing() -> Graph:
    """Outputs that are inputs or each other: whoever hands out its own memory is caught."""
    text = """
    passing (float[1,1,4,4] image) => (float[1,1,4,4] same, float[16] flat, float[1,1,4,4] a,
             float[1,1,4,4] b) {
        same = Identity(image)
        shape = Constant<value_ints=[16]>()
        flat = Reshape(image, shape)
        a = Relu(image)
        b = Identity(a)
    }"""
    return graph(text)


def warp3d() -> Graph:
    text = """
    warp3d (float[1,2,5,6,4] image, float[1,4,3,5,3] grid) => (float[1,2,4,3,5] out) {
        out = GridSample<padding_mode="border">(image, grid)
    }"""
    return graph(text)


def unpooled() -> Graph:
    text = """
    unpooled (float[1,1,4,4] image) => (float[1,1,4,4] out) {
        small, indices = MaxPool<kernel_shape=[2,2], strides=[2,2]>(image)
        out = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(small, indices)
    }"""
    return graph(text)


def padded_by_shape() -> Graph:
    text = """
    padded_by_shape (float[1,1,4,4] image, int64[2] more) => (float[1,1,P,Q] out) {
        four = Constant<value_ints=[0, 0, 0, 0]>()
        two = Constant<value_ints=[0, 0]>()
        absolute = Abs(more)
        widths = Concat<axis=0>(four, two, absolute)
        out = Pad(image, widths)
    }"""
    return graph(text, ranges={"P": Dim(1, 200), "Q": Dim(1, 200)})


def lstm() -> Graph:
    text = "lstm (float[3,1,4] x) => (float[3,1,1,5] y) { y = LSTM<hidden_size=5>(x, w, r) }"
    return graph(text, w=weights(1, 20, 4), r=weights(1, 20, 5))


def _renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """The model with other tensor names: the text form has only plain ones."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


NETWORKS: dict[str, Callable[[], Graph]] = {
    "unet2d": lambda: unet(2),
    "unet3d": lambda: unet(3),
    **{
        build.__name__: build
        for build in (
            blocks,
            volume,
            varying,
            varying_unet,
            float16,
            bfloat16,
            float64,
            labels,
            passing,
            warp3d,
            unpooled,
            padded_by_shape,
        )
    },
}
