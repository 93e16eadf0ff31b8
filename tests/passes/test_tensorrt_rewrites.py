"""Passes that rewrite for TensorRT: what becomes what, and that the numbers stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.backends.tensorrt import rules
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.hosts import tensorrt_parser
from edgekit.passes import PASSES, default_passes
from edgekit.passes.base import PassResult
from edgekit.spec import Array
from edgekit.target import Target

IMAGE = "(float[1, 4, 5, 6] x) => (float[1, 4, 5, 6] y)"


def jetson(version: str) -> Target:
    device = targets.find("jetson-orin-nx-16gb")
    return replace(device, backends=("tensorrt", "tvm"), software={**device.software, "tensorrt": version})


def graph_of(text: str, folder: Path, opset: int, **shapes: str) -> Graph:
    """A graph with random weights where the text gives none."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> net {text}')
    rng = np.random.default_rng(1)
    for value in model.graph.value_info:  # what the text gives a shape but no numbers
        tensor = value.type.tensor_type
        shape = [one.dim_value for one in tensor.shape.dim]
        array = rng.standard_normal(shape).astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    path = folder / "m.onnx"
    onnx.save(model, path)
    return build_graph(model, check_file(path, shapes or None)[1], "test")


def feeds_of(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {s.name: rng.standard_normal(s.smallest_shape).astype(s.dtype) for s in graph.inputs}


def run(graph: Graph, *, reference: bool = False) -> dict[str, Array]:
    names, feeds = [spec.name for spec in graph.outputs], feeds_of(graph)
    model = graph.to_bytes()
    if reference:
        made = ReferenceEvaluator(onnx.load_from_string(model)).run(names, feeds)
    else:
        made = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(names, feeds)
    return dict(zip(names, made, strict=True))  # type: ignore[arg-type]


def rewritten(name: str, graph: Graph, target: Target) -> PassResult:
    result = PASSES[name]().run(graph, target)
    onnx.checker.check_model(onnx.load_from_string(result.graph.to_bytes()), full_check=True)
    return result


def same(after: Graph, before: Graph, tolerance: float = 1e-5, *, reference: bool = False) -> None:
    made = run(after)
    for name, wanted in run(before, reference=reference).items():
        assert made[name].dtype == wanted.dtype
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(made[name] / scale, wanted / scale, atol=tolerance, rtol=0)


def operators(graph: Graph) -> set[str]:
    return {node.op_type for node in graph.model.graph.all_nodes()}


# Name: version, operator set, model, the operator that goes, tolerance.
DECOMPOSED: dict[str, tuple[str, int, str, str, float]] = {
    "LayerNormalization": (
        "8.5", 17, f"{IMAGE} <float[6] w, float[6] b> {{ y = LayerNormalization (x, w, b) }}",
        "LayerNormalization", 1e-5,
    ),
    "LayerNormalization along three axes, without bias": (
        "8.5", 17, f"{IMAGE} <float[4, 5, 6] w> {{ y = LayerNormalization <axis = 1, epsilon = 0.01> "
                   f"(x, w) }}",
        "LayerNormalization", 1e-5,
    ),
    "LayerNormalization with all outputs": (
        "10.3", 17,
        "(float[1, 4, 6] x) => (float[1, 4, 6] y, float[1, 4, 1] m, float[1, 4, 1] s) <float[6] w, "
        "float[6] b> "
        "{ y, m, s = LayerNormalization (x, w, b) }",
        "LayerNormalization", 1e-5,
    ),
    "LayerNormalization of float16": (
        "8.5", 17,
        "(float16[1, 4, 6] x) => (float16[1, 4, 6] y) <float16[6] w, float16[6] b> "
        "{ y = LayerNormalization (x, w, b) }",
        "LayerNormalization", 2e-3,
    ),
    "GroupNormalization": (
        "10.3", 21,
        f"{IMAGE} <float[4] w, float[4] b> {{ y = GroupNormalization <num_groups = 2> (x, w, b) }}",
        "GroupNormalization", 1e-5,
    ),
    "InstanceNormalization with computed scale": (
        "8.5", 17,
        "(float[1, 4, 5, 6] x, float[4] t) => (float[1, 4, 5, 6] y) <float[4] b> "
        "{ w = Neg (t)  y = InstanceNormalization (x, w, b) }",
        "InstanceNormalization", 1e-5,
    ),
    "RMSNormalization": (
        "10.3", 23, f"{IMAGE} <float[6] w> {{ y = RMSNormalization (x, w) }}", "RMSNormalization", 1e-5,
    ),
    "Gelu": ("8.6", 20, f"{IMAGE} {{ y = Gelu (x) }}", "Gelu", 1e-5),
    "Gelu with tanh": ("8.6", 20, f'{IMAGE} {{ y = Gelu <approximate = "tanh"> (x) }}', "Gelu", 1e-5),
    "Mish": ("8.6", 18, f"{IMAGE} {{ y = Mish (x) }}", "Mish", 1e-5),
    "Swish": ("10.16", 24, f"{IMAGE} {{ y = Swish <alpha = 1.5> (x) }}", "Swish", 1e-5),
    "CastLike": (
        "8.6", 19, "(float[4] x, float16[1] t) => (float16[4] y) { y = CastLike (x, t) }", "CastLike", 1e-5,
    ),
    "AffineGrid": (
        "10.3", 20,
        "(float[2, 2, 3] x) => (float[2, 4, 5, 2] y) <int64[4] n = {2, 1, 4, 5}> { y = AffineGrid (x, n) }",
        "AffineGrid", 1e-5,
    ),
    "AffineGrid of a volume, on corners": (
        "10.3", 20,
        "(float[1, 3, 4] x) => (float[1, 2, 3, 4, 3] y) <int64[5] n = {1, 1, 2, 3, 4}> "
        "{ y = AffineGrid <align_corners = 1> (x, n) }",
        "AffineGrid", 1e-5,
    ),
    "cubic Resize of a volume": (
        "10.3", 19,
        "(float[1, 2, 3, 4, 5] x) => (float[1, 2, 6, 8, 5] y) <float[5] s = {1, 1, 2, 2, 1}> "
        '{ y = Resize <mode = "cubic"> (x, , s) }',
        "Resize", 1e-5,
    ),
    "Resize with antialiasing": (
        "10.3", 19,
        "(float[1, 2, 9, 8] x) => (float[1, 2, 4, 3] y) <int64[4] n = {1, 2, 4, 3}> "
        '{ y = Resize <mode = "linear", antialias = 1> (x, , , n) }',
        "Resize", 1e-5,
    ),
    "Resize with symmetric half pixels": (
        "10.3", 19,
        "(float[1, 2, 9, 8] x) => (float[1, 2, 4, 4] y) <float[4] s = {1, 1, 0.5, 0.5}> "
        '{ y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"> (x, , s) }',
        "Resize", 1e-5,
    ),
    "Resize of some axes": (
        "10.3", 19,
        "(float[1, 2, 4, 5] x) => (float[1, 2, 8, 15] y) <float[2] s = {2, 3}> "
        '{ y = Resize <mode = "linear", axes = [2, 3]> (x, , s) }',
        "Resize", 1e-5,
    ),
}  # fmt: skip
# The reference has to say what these are: ONNX Runtime does not run them, or not like that.
BY_REFERENCE = {"Swish", "cubic Resize of a volume", "RMSNormalization", "Resize with symmetric half pixels"}


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decomposed(name: str, tmp_path: Path) -> None:
    version, opset, text, gone, tolerance = DECOMPOSED[name]
    before = graph_of(text, tmp_path, opset)
    result = rewritten("decompose", before, jetson(version))
    assert result.changed and gone not in operators(result.graph)
    same(result.graph, before, tolerance, reference=name in BY_REFERENCE)


@pytest.mark.parametrize(
    ("version", "opset", "text"),
    [
        ("8.6", 17, DECOMPOSED["LayerNormalization"][2]),
        ("10.9", 21, DECOMPOSED["GroupNormalization"][2]),
        ("8.6", 17, DECOMPOSED["InstanceNormalization with computed scale"][2]),
        ("8.5", 17, f"{IMAGE} <float[4] w, float[4] b> {{ y = InstanceNormalization (x, w, b) }}"),
        ("10.3", 20, DECOMPOSED["Gelu"][2]),
        (
            "8.5",
            17,
            "(float[1, 2, 3, 4] x) => (float[1, 2, 6, 8] y) <float[4] s = {1, 1, 2, 2}> "
            '{ y = Resize <mode = "cubic"> (x, , s) }',
        ),
    ],
)
def test_what_the_version_has_stays(version: str, opset: int, text: str, tmp_path: Path) -> None:
    assert not rewritten("decompose", graph_of(text, tmp_path, opset), jetson(version)).changed


def test_without_tensorrt_everything_stays(tmp_path: Path) -> None:
    before = graph_of(DECOMPOSED["LayerNormalization"][2], tmp_path, 17)
    assert not rewritten("decompose", before, targets.find("cpu")).changed
    assert not rewritten("lower_opset", before, targets.find("cpu")).changed


def test_an_unknown_length_is_read_while_running(tmp_path: Path) -> None:
    text = DECOMPOSED["GroupNormalization"][2].replace("5, 6", "5, W")
    before = graph_of(text, tmp_path, 21, x="1x4x5x[6:12]")
    assert not before.is_static
    result = rewritten("decompose", before, jetson("8.5"))
    assert "Shape" in operators(result.graph)
    same(result.graph, before)


# Name: version, the operator set before and after, model.
LOWERED: dict[str, tuple[str, int, int, str]] = {
    "axes of a reduction": (
        "8.5", 18, 17, "(float[2, 4, 6] x) => (float[2, 1, 6] y) <int64[1] a = {1}> { y = ReduceMean "
                       "(x, a) }",
    ),
    "all axes of a reduction": ("8.5", 20, 17, "(float[2, 4] x) => (float[1, 1] y) { y = ReduceMax (x) }"),
    "parts that are not equal": (
        "8.5", 18, 17,
        "(float[2, 7] x) => (float[2, 4] y, float[2, 3] z) { y, z = Split <axis = 1, num_outputs = 2> (x) }",
    ),
    "padding of one axis": (
        "8.5", 18, 17,
        "(float[2, 4] x) => (float[2, 7] y) <int64[2] p = {1, 2}, float v = {3}, int64[1] a = {-1}> "
        "{ y = Pad (x, p, v, a) }",
    ),
    "lengths of the last axes": (
        "8.5", 18, 17,
        "(float[1, 2, 4, 5] x) => (float[1, 2, 8, 9] y) <int64[2] n = {8, 9}> "
        '{ y = Resize <mode = "linear", axes = [2, 3], antialias = 0> (x, , , n) }',
    ),
    "a mode of GridSample": (
        "10.3", 20, 19,
        "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) "
        '{ y = GridSample <mode = "linear"> (x, g) }',
    ),
    "the default mode of GridSample": (
        "8.6", 22, 17, "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) { y = "
                       "GridSample (x, g) }",
    ),
    "a cubic GridSample": (
        "11.1", 22, 19,
        "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) "
        '{ y = GridSample <mode = "cubic", align_corners = 1> (x, g) }',
    ),
    "types that became more": (
        "10.3", 22, 20,
        "(float[1, 4, 5, 6] x) => (float[1, 3, 5, 6] y) <float[3, 4, 3, 3] w> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w)  y = Relu (c) }",
    ),
    "a pair that quantizes": (
        "8.5", 21, 17,
        "(float[1, 4] x) => (float[1, 4] y) <float s = {0.1}> "
        "{ q = QuantizeLinear <output_dtype = 3, saturate = 1> (x, s)  y = DequantizeLinear (q, s) }",
    ),
    "averages without gaps": (
        "8.5", 19, 17,
        "(float[1, 2, 6, 6] x) => (float[1, 2, 3, 3] y) "
        "{ y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], dilations = [1, 1]> (x) }",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOWERED)
def test_lowered(name: str, tmp_path: Path) -> None:
    version, own, wanted, text = LOWERED[name]
    before = graph_of(text, tmp_path, own)
    result = rewritten("lower_opset", before, jetson(version))
    assert result.graph.model.opset_imports[""] == wanted
    assert result.notes == (f"operator set {own} became {wanted}",)
    same(result.graph, before)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (DECOMPOSED["GroupNormalization"][2], "GroupNormalization"),
        (
            "(float[4] x, int64[1, 1] i, float[1] u) => (float[4] y) "
            '{ y = ScatterND <reduction = "max"> (x, i, u) }',
            "ScatterND",
        ),
        (
            "(float[1, 4] x) => (float[1, 4] y) { y = ReduceMean <noop_with_empty_axes = 1> (x) }",
            "ReduceMean",
        ),
        (
            "(float[1, 2] x) => (float[1, 2] y) { a = Cast <to = 16> (x)  b = HardSwish (a)  y = Cast "
            "<to = 1> (b) }",
            "HardSwish",
        ),
    ],
)
def test_what_cannot_be_said_in_the_older_set_is_named(text: str, named: str, tmp_path: Path) -> None:
    result = rewritten("lower_opset", graph_of(text, tmp_path, 22), jetson("8.5"))
    assert not result.changed and result.graph.model.opset_imports[""] == 22
    assert named in result.notes[0] and "17 cannot say" in result.notes[0]


@pytest.mark.parametrize("version", ["11.2", "11.5"])
def test_a_parser_that_knows_the_names_gets_them(version: str, tmp_path: Path) -> None:
    before = graph_of(LOWERED["a mode of GridSample"][3], tmp_path, 20)
    assert not rewritten("lower_opset", before, jetson(version)).changed


def test_what_the_older_set_lacks_is_decomposed_first(tmp_path: Path) -> None:
    text = (
        "(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) "
        "{ a = Gelu (x)  y = GridSample (a, g) }"
    )
    before = after = graph_of(text, tmp_path, 20)
    device = jetson("10.3")  # it knows Gelu, but reads GridSample as it is meant in operator set 19 only
    for one in default_passes(device):
        after = one.run(after, device).graph
    assert after.model.opset_imports[""] == 19 and "Gelu" not in operators(after)
    same(after, before)


def deconvolution(axes: int, how: str, shape: list[int], window: list[int], bias: bool = True) -> str:
    free = ", ".join("ABC"[:axes])
    return (
        f"(float{[2, 3, *shape]} x) => (float[2, 4, {free}] y) <float{[3, 4, *window]} w, float[4] b> "
        f"{{ y = ConvTranspose <{how}> (x, w{', b' if bias else ''}) }}"
    )


SUBPIXEL = {
    "a decoder's volume": deconvolution(3, "strides = [2, 2, 2]", [2, 3, 4], [2, 2, 2]),
    "a decoder's image": deconvolution(2, "strides = [2, 2]", [3, 4], [2, 2], bias=False),
    "a folded upsampling": deconvolution(
        3, "strides = [2, 2, 2], pads = [1, 1, 1, 1, 1, 1]", [2, 3, 4], [4, 4, 4]
    ),
    "output padding": deconvolution(
        2, "strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]", [3, 4], [3, 3]
    ),
    "other strides along each axis": deconvolution(
        2, "strides = [3, 2], pads = [1, 0, 1, 0]", [3, 4], [5, 4]
    ),
    "a window shorter than the stride": deconvolution(
        2, "strides = [3, 3], output_padding = [1, 1]", [3, 4], [2, 2]
    ),
    "padding beyond the stride": deconvolution(2, "strides = [2, 2], pads = [3, 3, 3, 3]", [5, 6], [4, 4]),
    "one axis": deconvolution(1, "strides = [2]", [5], [2]),
}


@pytest.mark.parametrize("name", SUBPIXEL)
def test_transposed_convolution_as_convolution(name: str, tmp_path: Path) -> None:
    before = graph_of(SUBPIXEL[name], tmp_path, 17)
    result = rewritten("subpixel", before, targets.find("cpu"))
    assert result.notes == ("1 transposed convolution as convolutions",)
    assert "ConvTranspose" not in operators(result.graph)
    same(result.graph, before)


@pytest.mark.parametrize(
    "text",
    [
        deconvolution(2, "strides = [1, 1]", [3, 4], [3, 3]),
        deconvolution(2, "strides = [2, 2]", [3, 4], [3, 3]),  # a result of odd length
        deconvolution(2, "strides = [2, 2], dilations = [2, 2], output_padding = [1, 1]", [3, 4], [2, 2]),
    ],
)
def test_other_transposed_convolutions_stay(text: str, tmp_path: Path) -> None:
    assert not rewritten("subpixel", graph_of(text, tmp_path, 17), targets.find("cpu")).changed


def test_only_targets_with_tensorrt_get_these_passes() -> None:
    assert [one.name for one in default_passes(targets.find("cpu"))][-1] == "split_tail"
    names = [one.name for one in default_passes(jetson("10.3"))]
    assert names == ["simplify", "nativize", "decompose", "split_tail", "lower_opset"]


# What decompose, lower_opset and nativize promise in the rules is kept by the default passes.
@pytest.mark.parametrize("name", DECOMPOSED)
@pytest.mark.parametrize("version", ["8.5", "8.6", "10.3", "10.16", "11.1"])
def test_nothing_is_left_of_what_a_pass_is_for(name: str, version: str, tmp_path: Path) -> None:
    _, opset, text, _, _ = DECOMPOSED[name]
    graph, device = graph_of(text, tmp_path, opset), jetson(version)
    assert tensorrt_parser.version_for(device) is not None
    for one in default_passes(device):
        graph = one.run(graph, device).graph
    assert not [f for f in rules.verdict(graph, version) if f.severity == "refused"]
