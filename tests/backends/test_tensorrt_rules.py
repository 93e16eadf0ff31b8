"""Rules of TensorRT: minimal models × versions, and what is found in each. No TensorRT is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from backend_models import to_graph
from onnx import numpy_helper, parser

from edgekit.backends.tensorrt import rules
from edgekit.backends.tensorrt.rules import dla as accelerator
from edgekit.backends.tensorrt.rules.rule import EVERY
from edgekit.errors import UsageError
from edgekit.graph import opset as own_operators
from edgekit.graph.graph import Graph
from edgekit.hosts import tensorrt_parser
from edgekit.passes import PASSES
from edgekit.spec import Dim

VERSIONS = ("8.5", "8.6", "10.3", "10.7", "10.9", "10.13", "10.16", "11.0", "11.1", "11.2", "11.5")
ALL = "8.5..11.5"


@dataclass(frozen=True)
class Case:
    """A minimal model, and in which versions which rules are broken: ``{"top_k.sorted": "10.3..11.5"}``."""

    text: str
    found: Mapping[str, str] = field(default_factory=dict)
    opset: int = 17
    ranges: Mapping[str, int | Dim] = field(default_factory=dict)

    def expected(self, version: str) -> set[str]:
        return {rule for rule, span in self.found.items() if version in versions_in(span)}

    def graph(self) -> Graph:
        own_operators.register()
        imports = f'"" : {self.opset}, "edgekit" : 1, "ai.onnx.ml" : 3'
        model = parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> net {self.text}")
        rng = np.random.default_rng(0)
        for value in model.graph.value_info:  # what the text gives a shape but no numbers
            tensor = value.type.tensor_type
            shape = [one.dim_value for one in tensor.shape.dim]
            array = (rng.standard_normal(shape) * 9).astype(
                onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            )
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        del model.graph.value_info[:]
        return to_graph(model, **self.ranges)

    def operators(self) -> set[str]:
        return {node.op_type for node in self.graph().model.graph.all_nodes()}


def versions_in(span: str) -> tuple[str, ...]:
    first, _, last = span.partition("..")
    return VERSIONS[VERSIONS.index(first) : VERSIONS.index(last or first) + 1]


IMAGE = "(float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y)"
VOLUME = "(float[1, 4, 6, 6, 6] x) => (float[1, 4, 6, 6, 6] y)"
PLAIN = 'Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
TWICE = "(float[1, 8, 6, 6] x) => (float[1, 8, 12, 12] y) <float[4] s = {1, 1, 2, 2}>"


def resize(how: str, scales: str = "1, 1, 2, 2", shape: str = "1, 8, 12, 12") -> str:
    head = f"(float[1, 8, 6, 6] x) => (float[{shape}] y) <float[4] s = {{{scales}}}>"
    return f"{head} {{ y = Resize <{how}> (x, , s) }}"


def quantized(node: str, head: str, weights: str, image: str = "x") -> str:
    """A node on quantized numbers: of the image and of its weights."""
    return (
        f"{head} <float s = {{0.1}}, int8 z = {{0}}, int8{weights} w> "
        f"{{ q = QuantizeLinear ({image}, s, z)  d = DequantizeLinear (q, s, z)  v = DequantizeLinear "
        f"(w, s, z)  "
        f"y = {node} (d, v) }}"
    )


CASES: dict[str, Case] = {
    # What nobody minds, as counterexamples.
    "a classifier": Case(
        "(float[1, 3, 8, 8] x) => (float[1, 5] y) <float[8, 3, 3, 3] w, float[8] b, float[8, 5] m> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w, b)  r = Relu (c)  g = GlobalAveragePool (r)  f = "
        "Flatten (g)  "
        "y = MatMul (f, m) }"
    ),
    "a decoder of volumes": Case(
        f"{VOLUME} <float[4, 4, 2, 2, 2] u, float[4, 4, 3, 3, 3] w, float[4] g> "
        "{ p = MaxPool <kernel_shape = [2, 2, 2], strides = [2, 2, 2]> (x)  "
        "t = ConvTranspose <strides = [2, 2, 2]> (p, u)  c = Conv <pads = [1, 1, 1, 1, 1, 1]> (t, w)  "
        "n = InstanceNormalization (c, g, g)  y = LeakyRelu (n) }"
    ),
    "axes that are weights": Case(
        "(float[2, 3, 1] x) => (float[2, 3] y) <int64[1] a = {2}, int64[1] b = {0}, int64 c = {1}> "
        "{ s = Squeeze (x, a)  u = Unsqueeze (s, b)  v = Squeeze (u, b)  w = CumSum (v, c)  "
        "t = Slice (w, b, a, b)  r = ReduceSum <keepdims = 1> (t, b)  y = Add (t, r) }"
    ),
    "dropout that does nothing": Case("(float[4] x) => (float[4] y) { y = Dropout (x) }"),
    "a network of float16": Case(
        "(float16[1, 4, 6, 6] x) => (float16[1, 4, 6, 6] y) <float16[4, 4, 3, 3] w> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w)  y = Relu (c) }"
    ),
    # The whole.
    "operator set 18": Case(f"{IMAGE} {{ y = Relu (x) }}", {"opset.newest": "8.5..8.6"}, 18),
    "operator set 21": Case(f"{IMAGE} {{ y = Relu (x) }}", {"opset.newest": "8.5..10.3"}, 21),
    "operator set 23": Case(f"{IMAGE} {{ y = Relu (x) }}", {"opset.newest": "8.5..10.13"}, 23),
    "operator set 25": Case(f"{IMAGE} {{ y = Relu (x) }}", {"opset.newest": "8.5..11.2"}, 25),
    "another runtime's operator": Case(
        "(float[1, 4] x) => (float[1, 4] y) { y = ai.onnx.ml.Normalizer (x) }", {"operator.domain": ALL}
    ),
    "no parser's operator": Case("(float[3, 3] x) => (float y) { y = Det (x) }", {"operator.unknown": ALL}),
    "an operator of integers": Case(
        "(uint8[1, 1, 4, 4] x, uint8[1, 1, 3, 3] w) => (int32[1, 1, 2, 2] y) { y = ConvInteger (x, w) }",
        {"operator.unknown": ALL, "type.uint8": ALL},
    ),
    "our operator": Case(
        "(float[1, 1, 4, 4, 4] x, float[1, 3, 4, 4, 4] f) => (float[1, 1, 4, 4, 4] y) { y = "
        "edgekit.Warp (x, f) }"
    ),
    "bfloat16": Case(
        "(float[4] x) => (float[4] y) { a = Cast <to = 16> (x)  b = Relu (a)  y = Cast <to = 1> (b) }",
        {"type.bfloat16": "8.5..8.6"},
    ),
    "float64": Case("(double[4] x) => (double[4] y) { y = Relu (x) }", {"type.float64": ALL}),
    "uint16": Case(
        "(float[4] x) => (float[4] y) { a = Cast <to = 4> (x)  y = Cast <to = 1> (a) }", {"type.unknown": ALL}
    ),
    "uint8 that is cast": Case("(uint8[4] x) => (float[4] y) { y = Cast <to = 1> (x) }"),
    "uint8 that is moved": Case(
        "(uint8[4] x) => (uint8[8] y) { y = Concat <axis = 0> (x, x) }", {"type.uint8": ALL}
    ),
    "int8 that is computed with": Case(
        "(int8[4] x) => (int8[4] y) { y = Add (x, x) }", {"type.int8": "10.3..11.5"}
    ),
    "nine axes": Case(
        "(float[1, 1, 1, 1, 1, 1, 1, 1, 2] x) => (float[1, 1, 1, 1, 1, 1, 1, 1, 2] y) { y = Relu (x) }",
        {"shape.rank": ALL},
    ),
    # Operators that came later.
    "LayerNormalization": Case(
        f"{IMAGE} <float[6] w, float[6] b> {{ y = LayerNormalization (x, w, b) }}",
        {"missing.LayerNormalization": "8.5"},
    ),
    "LayerNormalization's mean": Case(
        "(float[1, 4, 6] x) => (float[1, 4, 6] y, float[1, 4, 1] m) <float[6] w> "
        "{ y, m = LayerNormalization (x, w) }",
        {"missing.LayerNormalization": "8.5", "layer_norm.outputs": "8.6..11.5"},
    ),
    "GroupNormalization": Case(
        f"{IMAGE} <float[8] w, float[8] b> {{ y = GroupNormalization <num_groups = 2> (x, w, b) }}",
        {
            "missing.GroupNormalization": "8.5",
            "group_norm.channels": "8.6..10.7",
            "opset.newest": "8.5..10.3",
        },
        21,
    ),
    "IsInf": Case("(float[4] x) => (bool[4] y) { y = IsInf (x) }", {"missing.IsInf": "8.5"}),
    "Hardmax": Case(
        "(float[1, 4] x) => (float[1, 4] y) { y = Hardmax (x) }", {"missing.Hardmax": "8.5..8.6"}
    ),
    "CastLike": Case(
        "(float[4] x, float16[1] t) => (float16[4] y) { y = CastLike (x, t) }",
        {"missing.CastLike": "8.5..8.6"},
    ),
    "Gelu": Case(f"{IMAGE} {{ y = Gelu (x) }}", {"missing.Gelu": "8.5..8.6", "opset.newest": "8.5..8.6"}, 20),
    "Mish": Case(f"{IMAGE} {{ y = Mish (x) }}", {"missing.Mish": "8.5..8.6", "opset.newest": "8.5..8.6"}, 18),
    "DeformConv": Case(
        "(float[1, 2, 5, 5] x, float[1, 18, 3, 3] o) => (float[1, 4, 3, 3] y) <float[4, 2, 3, 3] w> "
        "{ y = DeformConv (x, w, o) }",
        {"missing.DeformConv": "8.5..8.6", "opset.newest": "8.5..8.6"},
        19,
    ),
    "DeformConv of a volume": Case(
        "(float[1, 2, 5, 5, 5] x, float[1, 81, 3, 3, 3] o) => (float[1, 4, 3, 3, 3] y) <float[4, 2, 3, "
        "3, 3] w> "
        "{ y = DeformConv (x, w, o) }",
        {
            "missing.DeformConv": "8.5..8.6",
            "deform_conv.rank": "10.3..11.5",
            "opset.newest": "8.5..8.6",
        },
        19,
    ),
    "windows of a spectrum": Case(
        "(float[8] x) => (float[8] y) <int64 n = {8}> "
        "{ a = HannWindow (n)  b = HammingWindow (n)  c = BlackmanWindow (n)  y = Sum (x, a, b, c) }",
        {
            "missing.HannWindow": "8.5..10.3",
            "missing.HammingWindow": "8.5..10.3",
            "missing.BlackmanWindow": "8.5..10.3",
        },
    ),
    "STFT": Case(
        "(float[1, 16, 1] x) => (float[1, 3, 5, 2] y) <int64 n = {4}, float[8] w> { y = STFT (x, n, w) }",
        {"missing.STFT": "8.5..10.3"},
    ),
    "DFT": Case(
        "(float[1, 8, 1] x) => (float[1, 8, 2] y) { y = DFT <axis = 1> (x) }", {"missing.DFT": "8.5..11.1"}
    ),
    "Attention": Case(
        "(float[1, 2, 4, 8] q, float[1, 2, 4, 8] k, float[1, 2, 4, 8] v) => (float[1, 2, 4, 8] y) "
        "{ y = Attention (q, k, v) }",
        {"missing.Attention": "8.5..10.13", "opset.newest": "8.5..10.13"},
        23,
    ),
    "RotaryEmbedding": Case(
        "(float[1, 2, 4, 8] x, float[1, 4, 4] c, float[1, 4, 4] s) => (float[1, 2, 4, 8] y) "
        "{ y = RotaryEmbedding (x, c, s) }",
        {"missing.RotaryEmbedding": "8.5..10.13", "opset.newest": "8.5..10.13"},
        23,
    ),
    "RMSNormalization": Case(
        f"{IMAGE} <float[6] w> {{ y = RMSNormalization (x, w) }}",
        {"missing.RMSNormalization": "8.5..10.13", "opset.newest": "8.5..10.13"},
        23,
    ),
    "TensorScatter": Case(
        "(float[1, 2, 8, 4] p, float[1, 2, 1, 4] u) => (float[1, 2, 8, 4] y) { y = TensorScatter (p, u) }",
        {"missing.TensorScatter": "8.5..10.13", "opset.newest": "8.5..10.13"},
        24,
    ),
    "Swish": Case(
        f"{IMAGE} {{ y = Swish (x) }}",
        {"missing.Swish": "8.5..10.16", "opset.newest": "8.5..10.13"},
        24,
    ),
    "AffineGrid": Case(
        "(float[1, 2, 3] x) => (float[1, 4, 5, 2] y) <int64[4] n = {1, 1, 4, 5}> { y = AffineGrid (x, n) }",
        {"missing.AffineGrid": ALL, "opset.newest": "8.5..8.6"},
        20,
    ),
    # Normalization.
    "InstanceNormalization with computed scale": Case(
        "(float[1, 8, 6, 6] x, float[8] t) => (float[1, 8, 6, 6] y) <float[8] b> "
        "{ w = Neg (t)  y = InstanceNormalization (x, w, b) }",
        {"instance_norm.computed": "8.5"},
    ),
    "InstanceNormalization of four axes of voxels": Case(
        "(float[1, 2, 3, 3, 3, 3] x) => (float[1, 2, 3, 3, 3, 3] y) <float[2] w, float[2] b> "
        "{ y = InstanceNormalization (x, w, b) }",
        {"instance_norm.rank": "8.5"},
    ),
    # Sampling.
    "GridSample": Case(
        "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) "
        '{ y = GridSample <mode = "bilinear"> (x, g) }'
    ),
    "GridSample by its new name": Case(
        "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) { y = GridSample (x, g) }",
        {"grid_sample.mode": "8.5..11.1", "opset.newest": "8.5..8.6"},
        20,
    ),
    "GridSample of the nearest": Case(
        "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) "
        '{ y = GridSample <mode = "nearest"> (x, g) }',
        {"opset.newest": "8.5..8.6"},
        20,
    ),
    "GridSample of a volume": Case(
        "(float[1, 2, 4, 4, 4] x, float[1, 3, 3, 3, 3] g) => (float[1, 2, 3, 3, 3] y) { y = GridSample "
        "(x, g) }",
        {"grid_sample.volume": "8.5..11.1", "opset.newest": "8.5..8.6"},
        20,
    ),
    "GridSample of a line": Case(
        "(float[1, 2, 4] x, float[1, 3, 1] g) => (float[1, 2, 3] y) { y = GridSample (x, g) }",
        {"grid_sample.rank": ALL, "opset.newest": "8.5..8.6"},
        20,
    ),
    "Resize": Case(resize('mode = "linear"')),
    "a cubic Resize of an image": Case(resize('mode = "cubic"')),
    "a cubic Resize of a volume": Case(
        "(float[1, 2, 3, 3, 3] x) => (float[1, 2, 6, 6, 6] y) <float[5] s = {1, 1, 2, 2, 2}> "
        '{ y = Resize <mode = "cubic"> (x, , s) }',
        {"resize.cubic": ALL},
    ),
    "a linear Resize of a volume": Case(
        "(float[1, 2, 3, 3, 3] x) => (float[1, 2, 6, 6, 6] y) <float[5] s = {1, 1, 2, 2, 2}> "
        '{ y = Resize <mode = "linear"> (x, , s) }'
    ),
    "a linear Resize of channels too": Case(
        "(float[1, 2, 3, 3, 3] x) => (float[1, 4, 6, 6, 6] y) <float[5] s = {1, 2, 2, 2, 2}> "
        '{ y = Resize <mode = "linear"> (x, , s) }',
        {"resize.linear": ALL},
    ),
    "Resize with antialiasing": Case(
        resize('mode = "linear", antialias = 1', "1, 1, 0.5, 0.5", "1, 8, 3, 3"),
        {"resize.antialias": ALL, "opset.newest": "8.5..8.6"},
        18,
    ),
    "Resize that keeps the aspect": Case(
        "(float[1, 2, 6, 6] x) => (float[1, 2, 4, 4] y) <int64[2] n = {4, 5}> "
        '{ y = Resize <axes = [2, 3], keep_aspect_ratio_policy = "not_larger"> (x, , , n) }',
        {"resize.aspect": ALL, "opset.newest": "8.5..8.6"},
        18,
    ),
    "Resize in other coordinates": Case(
        resize('mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"'),
        {"resize.coordinates": ALL, "opset.newest": "8.5..8.6"},
        19,
    ),
    "Resize by scales of some axes": Case(
        "(float[1, 2, 6, 6] x) => (float[1, 2, 12, 12] y) <float[2] s = {2, 2}> "
        "{ y = Resize <axes = [2, 3]> (x, , s) }",
        {"resize.axes": ALL, "opset.newest": "8.5..8.6"},
        18,
    ),
    "Resize to lengths of some axes": Case(
        "(float[1, 2, 6, 6] x) => (float[1, 2, 12, 12] y) <int64[2] n = {12, 12}> "
        "{ y = Resize <axes = [2, 3]> (x, , , n) }",
        {"opset.newest": "8.5..8.6"},
        18,
    ),
    "Resize that rounds up": Case(
        resize('coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "ceil"'),
        {"resize.rounding": ALL},
    ),
    # Windows.
    "MaxPool with indices": Case(
        "(float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y, int64[1, 2, 2, 2] i) "
        "{ y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }",
        {"max_pool.indices": ALL},
    ),
    "MaxPool with gaps": Case(
        "(float[1, 2, 6, 6] x) => (float[1, 2, 4, 4] y) { y = MaxPool <kernel_shape = [2, 2], dilations "
        "= [2, 2]> (x) }",
        {"pool.dilations": ALL},
    ),
    "AveragePool along four axes": Case(
        "(float[1, 1, 4, 4, 4, 4] x) => (float[1, 1, 3, 3, 3, 3] y) "
        "{ y = AveragePool <kernel_shape = [2, 2, 2, 2]> (x) }",
        {"pool.rank": ALL},
    ),
    "MaxPool along a line": Case(
        "(float[1, 2, 6] x) => (float[1, 2, 3] y) { y = MaxPool <kernel_shape = [2], strides = [2]> (x) }"
    ),
    "Conv along four axes": Case(
        "(float[1, 1, 4, 4, 4, 4] x) => (float[1, 2, 3, 3, 3, 3] y) <float[2, 1, 2, 2, 2, 2] w> { y = "
        "Conv (x, w) }",
        {"conv.rank": ALL},
    ),
    # Others.
    "TopK": Case(
        "(float[1, 9] x) => (float[1, 3] y, int64[1, 3] i) <int64[1] k = {3}> { y, i = TopK (x, k) }"
    ),
    "TopK of many": Case(
        "(float[1, 5000] x) => (float[1, 4000] y, int64[1, 4000] i) <int64[1] k = {4000}> { y, i = TopK "
        "(x, k) }",
        {"top_k.count": ALL},
    ),
    "TopK in no order": Case(
        "(float[1, 9] x) => (float[1, 3] y, int64[1, 3] i) <int64[1] k = {3}> { y, i = TopK <sorted = "
        "0> (x, k) }",
        {"top_k.sorted": "10.3..11.5"},
    ),
    "TopK of computed many": Case(
        "(float[1, 9] x, int64[1] k) => (float[1, K] y, int64[1, K] i) { y, i = TopK (x, k) }",
        {"top_k.computed": "8.5"},
        ranges={"K": 3},
    ),
    "ArgMax of integers": Case(
        "(int32[1, 9] x) => (int64[1, 1] y) { y = ArgMax <axis = 1> (x) }", {"top_k.integers": "8.5"}
    ),
    "Einsum": Case(
        '(float[2, 3] x, float[3, 4] v) => (float[2, 4] y) { y = Einsum <equation = "ij,jk->ik"> (x, v) }'
    ),
    "Einsum of a diagonal": Case(
        '(float[3, 3] x) => (float[3] y) { y = Einsum <equation = "ii->i"> (x) }',
        {"einsum.form": "8.5..10.9"},
    ),
    "Einsum with an ellipsis": Case(
        "(float[2, 5, 3] x, float[3, 4] v) => (float[2, 5, 4] y) "
        '{ y = Einsum <equation = "...j,jk->...k"> (x, v) }',
        {"einsum.form": "8.5..10.9"},
    ),
    "Einsum that broadcasts": Case(
        '(float[2, 3] x, float[1, 3] v) => (float[2, 3] y) { y = Einsum <equation = "ij,ij->ij"> (x, v) }',
        {"einsum.form": "8.5..10.9"},
    ),
    "Einsum in capitals": Case(
        '(float[2, 3] x, float[3, 4] v) => (float[2, 4] y) { y = Einsum <equation = "IJ,JK->IK"> (x, v) }',
        {"einsum.letters": ALL},
    ),
    "ScatterND": Case("(float[4] x, int64[1, 1] i, float[1] u) => (float[4] y) { y = ScatterND (x, i, u) }"),
    "ScatterND that adds": Case(
        '(float[4] x, int64[1, 1] i, float[1] u) => (float[4] y) { y = ScatterND <reduction = "add"> '
        "(x, i, u) }",
        {"scatter_nd.reduction": ALL},
    ),
    "ScatterElements that adds": Case(
        '(float[4] x, int64[1] i, float[1] u) => (float[4] y) { y = ScatterElements <reduction = "add"> '
        "(x, i, u) }",
        {"scatter_elements.reduction": "8.5..8.6"},
    ),
    "Pad": Case('(float[4] x) => (float[6] y) <int64[2] p = {1, 1}> { y = Pad <mode = "reflect"> (x, p) }'),
    "Pad that wraps around": Case(
        '(float[4] x) => (float[6] y) <int64[2] p = {1, 1}> { y = Pad <mode = "wrap"> (x, p) }',
        {"pad.wrap": "8.5..8.6", "opset.newest": "8.5..8.6"},
        19,
    ),
    "Pad of computed axes": Case(
        "(float[4, 4] x, int64[1] a) => (float[A, B] y) <int64[2] p = {1, 1}, float v = {0}> { y = Pad "
        "(x, p, v, a) }",
        {"pad.axes": "8.5..10.3", "opset.newest": "8.5..8.6"},
        18,
        ranges={"A": 4, "B": 6},
    ),
    "a reduction of computed axes": Case(
        "(float[4, 4] x, int64[1] a) => (float[A, B] y) { y = ReduceSum (x, a) }",
        {"reduce.axes": ALL},
        ranges={"A": 1, "B": 4},
    ),
    "a reduction of integers": Case(
        "(int64[4] x) => (int64[1] y) { y = ReduceMax (x) }", {"reduce.integers": "8.5..8.6"}
    ),
    "Slice of computed axes": Case(
        "(float[4, 4] x, int64[1] a) => (float[A, B] y) <int64[1] b = {0}, int64[1] e = {2}> { y = "
        "Slice (x, b, e, a) }",
        {"slice.axes": "8.5..8.6"},
        ranges={"A": 2, "B": 4},
    ),
    "Unsqueeze of computed axes": Case(
        "(float[4] x, int64[1] a) => (float[A, B] y) { y = Unsqueeze (x, a) }",
        {"squeeze.axes": "8.5..10.3"},
        ranges={"A": 1, "B": 4},
    ),
    "CumSum of a computed axis": Case(
        "(float[4, 4] x, int64 a) => (float[4, 4] y) { y = CumSum (x, a) }", {"cum_sum.axis": "8.5..10.7"}
    ),
    "OneHot": Case(
        "(int64[4] x) => (float[4, 3] y) <int64 d = {3}, float[2] v = {0, 1}> { y = OneHot (x, d, v) }"
    ),
    "OneHot of a computed depth": Case(
        "(int64[4] x, int64 d) => (float[4, D] y) <float[2] v = {0, 1}> { y = OneHot (x, d, v) }",
        {"one_hot.depth": ALL},
        ranges={"D": 3},
    ),
    "Pow": Case("(float[4] x) => (float[4] y) <float e = {2}> { y = Pow (x, e) }"),
    "Pow of integers": Case(
        "(int32[4] x) => (int32[4] y) <int32 e = {2}> { y = Pow (x, e) }", {"pow.integers": "8.5..10.9"}
    ),
    "Dropout that drops": Case(
        "(float[4] x) => (float[4] y) <float r = {0.5}, bool t = {1}> { y = Dropout (x, r, t) }",
        {"dropout.training": ALL},
    ),
    "LSTM": Case(
        "(float[3, 1, 4] x) => (float[3, 1, 1, 2] y) <float[1, 8, 4] w, float[1, 8, 2] r> "
        "{ y = LSTM <hidden_size = 2> (x, w, r) }"
    ),
    "LSTM of batches first, with coupled gates": Case(
        "(float[1, 3, 4] x) => (float[1, 3, 1, 2] y) <float[1, 8, 4] w, float[1, 8, 2] r> "
        "{ y = LSTM <hidden_size = 2, layout = 1, input_forget = 1> (x, w, r) }",
        {"lstm.layout": ALL, "lstm.input_forget": ALL},
    ),
    # Quantized networks.
    "a quantized image": Case(
        quantized(
            "Conv <pads = [1, 1, 1, 1]>", "(float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y)", "[8, 8, 3, 3]"
        )
    ),
    "a zero point": Case(
        "(float[4] x) => (float[4] y) <float s = {0.1}, int8 z = {3}> "
        "{ q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }",
        {"quantize.zero_point": ALL},
    ),
    "quantized to uint8": Case(
        "(float[4] x) => (float[4] y) <float s = {0.1}, uint8 z = {0}> "
        "{ q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }",
        {"quantize.uint8": ALL},
    ),
    "quantized to what there is without a zero point": Case(
        "(float[4] x) => (float[4] y) <float s = {0.1}> { q = QuantizeLinear (x, s)  y = "
        "DequantizeLinear (q, s) }",
        {"quantize.uint8": ALL},
    ),
    "a quantized volume": Case(
        quantized("Conv <pads = [1, 1, 1, 1, 1, 1]>", VOLUME, "[4, 4, 3, 3, 3]"), {"conv3d.int8": "8.5"}
    ),
    "a quantized volume in groups": Case(
        quantized(
            "Conv <pads = [1, 1, 1, 1, 1, 1], group = 2>",
            "(float[1, 8, 4, 4, 4] x) => (float[1, 8, 4, 4, 4] y)",
            "[8, 4, 3, 3, 3]",
        ),
        {"conv3d.int8": "8.5", "conv3d.groups": ALL},
    ),
    "quantized groups of three": Case(
        quantized("Conv <group = 2>", "(float[1, 6, 4, 4] x) => (float[1, 8, 2, 2] y)", "[8, 3, 3, 3]"),
        {"conv.int8_groups": ALL},
    ),
    "quantized groups of four": Case(
        quantized("Conv <group = 2>", "(float[1, 8, 4, 4] x) => (float[1, 8, 2, 2] y)", "[8, 4, 3, 3]")
    ),
    "a quantized decoder of images": Case(
        quantized(
            "ConvTranspose <strides = [2, 2]>",
            "(float[1, 4, 3, 3] x) => (float[1, 4, 6, 6] y)",
            "[4, 4, 2, 2]",
        )
    ),
    "a quantized decoder of volumes": Case(
        quantized(
            "ConvTranspose <strides = [2, 2, 2]>",
            "(float[1, 4, 3, 3, 3] x) => (float[1, 4, 6, 6, 6] y)",
            "[4, 4, 2, 2, 2]",
        ),
        {"conv_transpose3d.int8": ALL},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_found(name: str) -> None:
    case, graph = CASES[name], CASES[name].graph()
    for version in VERSIONS:
        found = {finding.rule for finding in rules.verdict(graph, version)}
        assert found == case.expected(version), version


def test_there_are_enough_models() -> None:
    assert len(CASES) >= 60


def test_every_rule_is_broken_by_one_model_and_kept_by_another() -> None:
    broken = {rule for case in CASES.values() for rule in case.found}
    every = {rules.OPSET.id, *(rule.id for rule in rules.RULES)}
    assert broken == every
    operators = {name: case.operators() for name, case in CASES.items()}
    for rule in rules.RULES:
        kept = [
            (name, version)
            for name, case in CASES.items()
            for version in VERSIONS
            if (rule.operators == EVERY or operators[name] & set(rule.operators))
            and rule.id not in case.expected(version)
        ]
        assert kept or rule.id == "missing.AffineGrid", rule.id


def deconvolution(how: str, weights: str, made: str) -> str:
    return (
        f"(float[1, 8, 6, 6] x) => (float{made} y) <float{weights} w> {{ y = ConvTranspose <{how}> (x, w) }}"
    )


def conv(how: str = "pads = [1, 1, 1, 1]", weights: str = "[8, 8, 3, 3]", made: str = "[1, 8, 6, 6]") -> str:
    return f"(float[1, 8, 6, 6] x) => (float{made} y) <float{weights} w> {{ y = Conv <{how}> (x, w) }}"


ON_DLA = "8.5..10.7"
DLA: dict[str, Case] = {
    "Conv": Case(conv()),
    "a network": Case(
        f"{IMAGE} <float[8, 8, 3, 3] w, float[8] b, float low = {{0}}, float high = {{6}}, "
        "float[4] f = {1, 1, 2, 2}> { c = Conv <pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, "
        "b, b, b, b)  r = Relu (n)  "
        "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)  q = Clip (p, low, high)  "
        f"t = {PLAIN} (q, , f)  s = Add (t, x)  y = Sigmoid (s) }}"
    ),
    "no layer of its own": Case(f"{IMAGE} {{ i = Identity (x)  y = Relu (i) }}"),
    "another operator": Case(f"{IMAGE} {{ y = Exp (x) }}", {"dla.operator": ON_DLA}),
    "our operator": Case(
        "(float[1, 2, 4, 4] f) => (float[1, 4, 4] y) { y = edgekit.JacobianDeterminant (f) }",
        {"dla.operator": ON_DLA},
    ),
    "a volume": Case(
        f"{VOLUME} <float[4, 4, 3, 3, 3] w> {{ y = Conv <pads = [1, 1, 1, 1, 1, 1]> (x, w) }}",
        {"dla.rank": ON_DLA},
    ),
    "a long line": Case(
        "(float[1, 1, 1, 9000] x) => (float[1, 1, 1, 9000] y) { y = Relu (x) }", {"dla.length": ON_DLA}
    ),
    "a large batch": Case(
        "(float[5000, 1, 1, 1] x) => (float[5000, 1, 1, 1] y) { y = Relu (x) }", {"dla.length": ON_DLA}
    ),
    "a long window": Case(
        "(float[1, 1, 40, 40] x) => (float[1, 1, 8, 8] y) <float[1, 1, 33, 33] w> { y = Conv (x, w) }",
        {"dla.conv.kernel": ON_DLA},
    ),
    "a long stride": Case(
        "(float[1, 1, 40, 40] x) => (float[1, 1, 5, 5] y) <float[1, 1, 3, 3] w> { y = Conv <strides = "
        "[9, 9]> (x, w) }",
        {"dla.conv.stride": ON_DLA},
    ),
    "padding as long as the window": Case(
        conv("pads = [3, 3, 3, 3]", made="[1, 8, 10, 10]"), {"dla.conv.padding": ON_DLA}
    ),
    "gaps beyond 32": Case(
        "(float[1, 1, 80, 80] x) => (float[1, 1, 14, 14] y) <float[1, 1, 3, 3] w> "
        "{ y = Conv <dilations = [33, 33]> (x, w) }",
        {"dla.conv.dilation": ON_DLA},
    ),
    "many maps": Case(
        "(float[1, 1, 2, 2] x) => (float[1, 9000, 2, 2] y) <float[9000, 1, 1, 1] w> { y = Conv (x, w) }",
        {"dla.conv.maps": ON_DLA, "dla.length": ON_DLA},
    ),
    "computed weights": Case(
        "(float[1, 8, 6, 6] x, float[8, 8, 3, 3] w) => (float[1, 8, 4, 4] y) { y = Conv (x, w) }",
        {"dla.conv.weights": ON_DLA},
    ),
    "a decoder": Case(deconvolution("strides = [2, 2]", "[8, 8, 2, 2]", "[1, 8, 12, 12]")),
    "a decoder with padding": Case(
        deconvolution("strides = [2, 2], pads = [1, 1, 1, 1]", "[8, 8, 4, 4]", "[1, 8, 12, 12]"),
        {"dla.deconv.padding": ON_DLA},
    ),
    "a decoder in groups": Case(
        deconvolution("strides = [2, 2], group = 2", "[8, 4, 2, 2]", "[1, 8, 12, 12]"),
        {"dla.deconv.groups": ON_DLA},
    ),
    "a decoder with a long window": Case(
        deconvolution("strides = [1, 1]", "[8, 1, 40, 1]", "[1, 1, 45, 6]"), {"dla.deconv.kernel": ON_DLA}
    ),
    "a decoder with a very long window along one axis": Case(
        deconvolution("strides = [1, 1]", "[8, 1, 64, 1]", "[1, 1, 69, 6]")
    ),
    "a large pooling": Case(
        "(float[1, 1, 20, 20] x) => (float[1, 1, 12, 12] y) { y = MaxPool <kernel_shape = [9, 9]> (x) }",
        {"dla.pool.window": ON_DLA},
    ),
    "clipped below zero": Case(
        f"{IMAGE} <float low = {{-1}}, float high = {{6}}> {{ y = Clip (x, low, high) }}",
        {"dla.clip": ON_DLA},
    ),
    "joined channels": Case(
        "(float[1, 8, 6, 6] x) => (float[1, 16, 6, 6] y) { y = Concat <axis = 1> (x, x) }"
    ),
    "joined rows": Case(
        "(float[1, 8, 6, 6] x) => (float[1, 8, 12, 6] y) { y = Concat <axis = 2> (x, x) }",
        {"dla.concat.axis": ON_DLA},
    ),
    "repeated pixels": Case(f"{TWICE} {{ y = {PLAIN} (x, , s) }}"),
    "half a size": Case(resize('mode = "linear"', "1, 1, 0.5, 0.5", "1, 8, 3, 3"), {"dla.resize": ON_DLA}),
    "a cubic Resize": Case(resize('mode = "cubic"'), {"dla.resize": ON_DLA}),
    "Softmax of channels": Case(f"{IMAGE} {{ y = Softmax <axis = 1> (x) }}"),
    "Softmax of many channels": Case(
        "(float[1, 2000, 2, 2] x) => (float[1, 2000, 2, 2] y) { y = Softmax <axis = 1> (x) }",
        {"dla.softmax": ON_DLA},
    ),
    "Slice of channels": Case(
        "(float[1, 8, 6, 6] x) => (float[1, 4, 6, 6] y) <int64[1] b = {0}, int64[1] e = {4}, int64[1] a "
        "= {1}> "
        "{ y = Slice (x, b, e, a) }"
    ),
    "every second row": Case(
        "(float[1, 8, 6, 6] x) => (float[1, 8, 3, 6] y) <int64[1] b = {0}, int64[1] e = {6}, int64[1] a "
        "= {2}, "
        "int64[1] t = {2}> { y = Slice (x, b, e, a, t) }",
        {"dla.slice": ON_DLA},
    ),
    "the largest of three": Case(
        f"{IMAGE} {{ a = Abs (x)  y = Max (x, a, x) }}", {"dla.element_wise": ON_DLA}
    ),
    "PRelu": Case(f"{IMAGE} <float[8, 1, 1] s> {{ y = PRelu (x, s) }}"),
    "PRelu of computed slopes": Case(
        "(float[1, 8, 6, 6] x, float[8, 1, 1] s) => (float[1, 8, 6, 6] y) { y = PRelu (x, s) }",
        {"dla.prelu.slope": ON_DLA},
    ),
    "LRN": Case(f"{IMAGE} {{ y = LRN <size = 5> (x) }}"),
    "LRN of two": Case(f"{IMAGE} {{ y = LRN <size = 2> (x) }}", {"dla.lrn.size": ON_DLA}),
    "a quantized network": Case(
        "(float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) <float s = {0.1}, int8 z = {0}> "
        "{ q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }",
        {"dla.explicit": ON_DLA, "dla.operator": ON_DLA},
    ),
}


@pytest.mark.parametrize("name", DLA)
def test_what_leaves_the_accelerator(name: str) -> None:
    case, graph = DLA[name], DLA[name].graph()
    for version in ("8.5", "8.6", "10.3", "10.7"):
        found = {finding.rule for finding in rules.verdict(graph, version, dla=True)}
        assert found == case.expected(version), version
        assert all(f.severity == "falls back" for f in rules.verdict(graph, version, dla=True))


def test_every_rule_of_the_accelerator_is_broken_and_kept() -> None:
    broken = {rule for case in DLA.values() for rule in case.found}
    assert broken == {rule.id for rule in rules.DLA_RULES}
    fine = set().union(*(case.operators() for case in DLA.values() if not case.found))
    for rule in rules.DLA_RULES:
        assert rule.operators == EVERY or fine & set(rule.operators) or rule.id == "dla.explicit", rule.id
    assert not accelerator.OPERATORS - set(tensorrt_parser.OPERATORS)


def test_the_accelerator_takes_fixed_shapes() -> None:
    text = "(float[1, 1, H, 4] x) => (float[1, 1, H, 4] y) { y = Relu (x) }"
    graph = Case(text, ranges={"H": Dim(4, 8)}).graph()
    (found,) = rules.verdict(graph, "10.3", dla=True)
    assert (found.rule, found.severity, found.node) == ("dla.static", "falls back", "")
    assert {place.where for place in rules.places(graph, "10.3", dla=True)} == {"GPU"}


@pytest.mark.parametrize(
    ("version", "missing"),
    [("10.7", False), ("10.8", True), ("11.3", True), ("11.4.0", True), ("11.4.1", False)],
)
def test_versions_without_the_accelerator(version: str, missing: bool) -> None:
    found = rules.verdict(DLA["another operator"].graph(), version, dla=True)
    assert [finding.rule for finding in found] == (["dla.release"] if missing else ["dla.operator"])


@pytest.mark.parametrize("parts", [16, 17])
def test_parts_that_the_accelerator_loads(parts: int) -> None:
    nodes = "".join(f"r{n} = Relu (e{n})  e{n + 1} = Exp (r{n})  " for n in range(parts))
    text = f"(float[1, 8, 6, 6] e0) => (float[1, 8, 6, 6] e{parts}) {{ {nodes} }}"
    graph = Case(text).graph()
    assert rules.dla_parts(rules.places(graph, "10.3", dla=True)) == parts
    whole = [finding.rule for finding in rules.verdict(graph, "10.3", dla=True) if not finding.node]
    assert whole == (["dla.loadables"] if parts > 16 else [])


def test_where_each_node_runs() -> None:
    graph = Case(
        "(float[1, 8, 6, 6] x, float[1, 2, 6, 6] f) => (float[1, 8, 6, 6] y) <float[8, 8, 3, 3] w> "
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Relu (a)  c = Identity (b)  d = Exp (c)  e = Relu (d)  "
        "m = edgekit.Warp (e, f)  y = Hardmax (m) }"
    ).graph()
    found = rules.places(graph, "8.6", dla=True)
    assert [place.where for place in found] == ["DLA", "DLA", "GPU", "DLA", "plug-in", "nowhere"]
    assert rules.dla_parts(found) == 2
    assert [p.where for p in rules.places(graph, "10.3")] == ["GPU", "GPU", "GPU", "GPU", "plug-in", "GPU"]


def test_a_finding_says_all_there_is() -> None:
    graph = CASES["GridSample by its new name"].graph()
    for node in graph.model.graph:
        node.name = "sample"
    (found,) = rules.verdict(graph, "10.3")
    assert found.node == "GridSample sample" and found.severity == "refused"
    assert "nearest" in found.reason and "4646" in found.source
    assert found.rewrite_pass == "lower_opset"


@pytest.mark.parametrize("rule", [*rules.RULES, *rules.DLA_RULES, rules.OPSET], ids=lambda rule: rule.id)
def test_every_entry_is_whole(rule: rules.Rule) -> None:
    assert rule.source in rules.SOURCES and rule.reason and not rule.reason.endswith(".")
    assert not rule.rewrite_pass or (rule.rewrite_pass in PASSES and rule.rewrite)
    assert (
        not rule.since
        or not rule.until
        or tensorrt_parser.parse(rule.since) < tensorrt_parser.parse(rule.until)
    )


def test_names_of_rules_are_their_own() -> None:
    names = [rule.id for rule in (*rules.RULES, *rules.DLA_RULES)]
    assert len(names) == len(set(names))


def test_a_table_of_operators_that_onnx_has() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    assert set(tensorrt_parser.OPERATORS) <= known


@pytest.mark.parametrize("version", ["", "8.4", "7", "ten", "10"])
def test_versions_that_are_none(version: str) -> None:
    with pytest.raises(UsageError, match="want a version of 8"):
        rules.verdict(CASES["Pow"].graph(), version)


def test_nodes_inside_of_a_branch_are_judged() -> None:
    text = (
        "(float[3, 3] x, bool c) => (float y) "
        "{ y = If <then_branch = g () => (float a) { a = Det (x) }, "
        "else_branch = h () => (float b) <float k = {1}> { b = Identity (k) }> (c) }"
    )
    graph = Case(text).graph()
    assert isinstance(graph.model, ir.Model)
    assert [finding.rule for finding in rules.verdict(graph, "10.3")] == ["operator.unknown"]
