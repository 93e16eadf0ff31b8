"""Half precision: what computes in 16 bits, what stays float32 and why, and that every backend agrees."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from backends import backend_models
from observed import observed
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.reference_ops import NEW_OPERATORS
from edgekit.errors import PassError, UnsupportedError, UsageError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.passes.base import PassResult
from edgekit.passes.half import HalfPass
from edgekit.passes.ranges import Ranges
from edgekit.spec import Array
from edgekit.target import Target

CPU = targets.find("x86-avx512")
RNG = np.random.default_rng(0)


def weights(*shape: int, scale: float = 1.0) -> Array:
    fan_in = max(1, int(np.prod(shape[1:])))
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale / np.sqrt(fan_in)).astype("f4")


def graph_of(text: str, *, version: int = 20, **constants: Array) -> Graph:
    """A typed graph whose nodes are called like their outputs."""
    opset.register()
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {version}, "edgekit" : 1]> net {text}'
    )
    used = {name for node in model.graph.node for name in node.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    model.graph.initializer.extend(tensors)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return backend_models.to_graph(model)


# A first and a last layer, to stand before and after what a test is about.
TWO = """(float[1, 2, 8, 8] image) => (float[1, 3, SIZE, SIZE] out) {{
    a = Conv <pads = [1, 1, 1, 1]> (image, w)  {middle}  out = Conv (b, v) }}"""
CONSTANTS = {
    "w": weights(4, 2, 3, 3),
    "v": weights(3, 4, 1, 1),
    "ones": np.ones(4, np.float32),
    "zeros": np.zeros(4, np.float32),
    "two": np.float32(2),
    "small": np.float32(1e-5),
    "scales": np.float32([1, 1, 2, 2]),
    "low": np.float32(-1),
    "high": np.float32(1),
    "axes": np.int64([2, 3]),
    "channels": np.int64([1]),
    "grid": RNG.uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32),
    "flow": RNG.uniform(-1, 1, (1, 2, 8, 8)).astype(np.float32),
    "layer": np.ones(8, np.float32),
}
IMAGE = {"image": RNG.standard_normal((1, 2, 8, 8)).astype(np.float32)}


def two_layers(middle: str, *, version: int = 20, **constants: Array) -> Graph:
    size = "16" if "Resize" in middle else "8"
    text = TWO.format(middle=middle).replace("SIZE", size)
    return graph_of(text, version=version, **{**CONSTANTS, **constants})


def halved(graph: Graph, feeds: dict[str, Array] = IMAGE, precision: str = "float16") -> PassResult:
    return HalfPass(precision, observed(graph, feeds)).run(graph, CPU)


def types(graph: Graph) -> dict[str, str]:
    """The type of each tensor by name."""
    network = graph.model.graph
    values = [*network.inputs, *network.initializers.values()]
    values += [value for node in network for value in node.outputs]
    return {str(value.name): value.dtype.name for value in values if value.dtype is not None}


def type_of(graph: Graph, node: str) -> str:
    """The type in which a node computes."""
    kind = next(n for n in graph.model.graph if n.name == node).outputs[0].dtype
    assert kind is not None
    return str(kind.name)


def check(graph: Graph) -> onnx.ModelProto:
    """onnx's opinion of the types, and that no Cast reads another one, none is doubled and none is idle."""
    model = onnx.load_from_string(graph.to_bytes())
    onnx.checker.check_model(model, full_check=True)
    kinds, casts = types(graph), [node for node in graph.model.graph if node.op_type == "Cast"]
    for node in casts:
        maker = node.inputs[0].producer()  # type: ignore[union-attr]
        assert maker is None or maker.op_type != "Cast", f"{node.name} reads a Cast"
        assert kinds[str(node.inputs[0].name)] != kinds[str(node.outputs[0].name)]  # type: ignore[union-attr]
    pairs = [(node.inputs[0], node.outputs[0].dtype) for node in casts]
    assert len(pairs) == len(set(pairs)), "two Casts do the same"
    return model


def run(graph: Graph, feeds: dict[str, Array] = IMAGE) -> dict[str, Array]:
    names = [spec.name for spec in graph.outputs]
    evaluator = ReferenceEvaluator(onnx.load_from_string(graph.to_bytes()), new_ops=NEW_OPERATORS)
    with np.errstate(over="ignore", invalid="ignore"):
        return dict(zip(names, map(np.asarray, evaluator.run(names, feeds)), strict=True))  # type: ignore[arg-type]


def snr_db(want: Array, got: Array) -> float:
    error = np.linalg.norm(want.astype(np.float64) - got)
    return float(20 * np.log10(np.linalg.norm(want.astype(np.float64)) / error))


def test_layers_compute_in_16_bits_between_float32_ends() -> None:
    graph = two_layers("b = Relu (a)")
    result = halved(graph)
    check(result.graph)
    kinds = types(result.graph)
    assert (kinds["image"], kinds["out"]) == ("FLOAT", "FLOAT")
    assert [type_of(result.graph, name) for name in ("a", "b", "out")] == ["FLOAT16"] * 3
    assert result.notes == ("3 of 3 operators compute in float16, 2 casts",)
    assert result.graph.history[-1] == "half: 3 of 3 operators compute in float16, 2 casts"
    assert (result.graph.inputs, result.graph.outputs) == (graph.inputs, graph.outputs)


def test_weights_are_stored_in_half_the_bytes() -> None:
    graph = backend_models.unet(3, channels=16)
    sample = backend_models.sample(graph)
    small = halved(graph, sample).graph
    stored = {name: v.const_value for name, v in small.model.graph.initializers.items()}
    assert {name for name, tensor in stored.items() if tensor.dtype == ir.DataType.FLOAT} == {
        "scale",
        "shift",
    }  # type: ignore[union-attr]
    assert len(small.to_bytes()) < 0.52 * len(graph.to_bytes())


UNSAFE = {
    "instance normalization": "b = InstanceNormalization (a, ones, zeros)",
    "layer normalization": "b = LayerNormalization (a, layer)",
    "group normalization": "b = GroupNormalization <num_groups = 2> (a, ones, zeros)",
    "softmax": "b = Softmax <axis = 1> (a)",
    "an exponential": "b = Exp (a)",
    "a power": "b = Pow (a, two)",
    "a logarithm": "p = Exp (a)  b = Log (p)",
    "a root": "p = Exp (a)  b = Sqrt (p)",
    "a mean of many": "b = GlobalAveragePool (p)  p = Sqrt (p)",
    "a quotient": "p = Abs (a)  q = Add (p, two)  b = Div (a, q)",
    "softplus": "b = Softplus (a)",
    "a warp": "b = edgekit.Warp (a, flow)",
}
UNSAFE["a mean of many"] = """p = Concat <axis = 2> (a, a)  q = GlobalAveragePool (p)  b = Mul (a, q)"""


@pytest.mark.parametrize("middle", UNSAFE.values(), ids=UNSAFE)
def test_unsafe_operators_stay_float32(middle: str) -> None:
    graph = two_layers(middle, version=21)
    result = halved(graph)
    model = check(result.graph)
    (name,) = re.findall(r"b = (?:edgekit\.)?(\w+)", middle)
    assert type_of(result.graph, "b") == "FLOAT"
    assert [type_of(result.graph, name) for name in ("a", "out")] == ["FLOAT16"] * 2
    unsafe = "GlobalAveragePool" if "GlobalAveragePool" in middle else name
    assert re.search(
        rf"operators that float16 is not safe for stay float32: .*{unsafe} \(1\)", result.notes[-1]
    )
    assert {t.data_type for t in model.graph.initializer if t.name in ("ones", "zeros", "layer", "flow")} <= {
        1
    }
    assert snr_db(run(graph)["out"], run(result.graph)["out"]) > 50


def test_sums_of_few_numbers_do_not() -> None:
    middle = (
        "p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)  q = ReduceMean (p, channels)  "
        'r = Add (p, q)  b = Resize <mode = "nearest"> (r, , scales)'
    )
    text = TWO.format(middle=middle).replace("SIZE", "8")
    result = halved(graph_of(text, **CONSTANTS))
    check(result.graph)
    assert [type_of(result.graph, name) for name in "pqrb"] == ["FLOAT16"] * 4


def test_a_normalization_that_is_written_out_stays_float32_as_a_whole() -> None:
    middle = """mean = ReduceMean (a, axes)  c = Sub (a, mean)  p = Mul (c, c)  q = ReduceMean (p, axes)
        r = Add (q, small)  s = Sqrt (r)  n = Div (c, s)  b = Relu (n)"""
    images = np.int64([0, 1, 2, 3])
    result = halved(two_layers(middle, axes=images))
    check(result.graph)
    inner = ("mean", "c", "p", "q", "r", "s", "n", "b")
    assert [type_of(result.graph, name) for name in inner] == ["FLOAT"] * len(inner)
    assert result.notes[0].startswith("2 of 10 operators compute in float16, 4 casts")


def test_what_the_schema_keeps_float32_stays_so() -> None:
    resized = halved(two_layers('b = Resize <mode = "linear"> (a, , scales)')).graph
    sampled = halved(two_layers("b = GridSample (a, grid)")).graph
    for graph, name in ((resized, "scales"), (sampled, "grid")):
        check(graph)
        assert (type_of(graph, "b"), types(graph)[name]) == ("FLOAT16", "FLOAT")


def test_what_has_to_be_of_one_type_changes_together() -> None:
    middle = "c = Clip (a, low, high)  b = BatchNormalization (c, ones, zeros, zeros, ones)"
    result = halved(two_layers(middle))
    check(result.graph)
    kinds = types(result.graph)
    assert {kinds[f"{name}/float16"] for name in ("low", "high", "ones", "zeros")} == {"FLOAT16"}
    assert not {"low", "high", "ones", "zeros"} & kinds.keys()


# Numbers of ordinary size, in a layer whose results are far beyond what float16 holds.
LOUD = """(float[1, 2, 8, 8] image) => (float[1, 3, 8, 8] out) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w)  b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, loud)  d = Relu (c)
    e = Conv (d, quiet)  out = Conv (e, v) }"""


def loud() -> Graph:
    constants = {"loud": weights(4, 4, 3, 3, scale=5e4), "quiet": weights(4, 4, 1, 1, scale=1e-3)}
    return graph_of(LOUD, **CONSTANTS, **constants)


def test_a_layer_that_overflows_stays_float32_and_the_note_says_which() -> None:
    graph = loud()
    ranges = observed(graph, IMAGE)
    result = HalfPass("float16", ranges).run(graph, CPU)
    check(result.graph)
    assert [type_of(result.graph, n) for n in ("a", "c", "d", "e", "out")] == [
        "FLOAT16",
        *["FLOAT"] * 3,
        "FLOAT16",
    ]
    told = " ".join(result.notes)
    assert (
        f"Conv c stays float32: 'c' reaches {ranges['c'].largest:.4g}, and safe are 1.638e+04, 0.25 of"
        in told
    )
    assert "Conv e stays float32: 'd' reaches" in told
    want, got = run(graph)["out"], run(result.graph)["out"]
    assert np.isfinite(got).all() and snr_db(want, got) > 55


def test_without_that_it_would_overflow() -> None:
    """The ranges of a quieter image let the layer pass, and the loud one shows why they have to be right."""
    graph = loud()
    quiet = {"image": IMAGE["image"] * np.float32(1e-3)}
    strong = {"image": IMAGE["image"] * np.float32(2)}
    result = HalfPass("float16", observed(graph, quiet)).run(graph, CPU)
    assert type_of(result.graph, "c") == "FLOAT16"
    model = onnx.load_from_string(result.graph.to_bytes())
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", TensorProto.FLOAT16, [1, 4, 8, 8]))
    with np.errstate(over="ignore", invalid="ignore"):
        (values,) = ReferenceEvaluator(model).run(["c"], strong)  # type: ignore[misc]
    assert np.isinf(values).any()


def test_a_network_that_overflows_everywhere_is_left_alone() -> None:
    graph = two_layers("b = Relu (a)")
    feeds = {"image": IMAGE["image"] * np.float32(1e6)}
    result = halved(graph, feeds)
    assert not result.changed and result.graph is graph
    assert len(result.notes) == 2 and all("stays float32" in note for note in result.notes)


def test_values_that_vanish_stay_float32() -> None:
    graph = two_layers("b = Mul (a, faint)", faint=np.float32(1e-7), v=weights(3, 4, 1, 1, scale=1e7))
    result = halved(graph, IMAGE)
    assert type_of(result.graph, "b") == "FLOAT"
    told = " ".join(result.notes)
    assert "Mul b stays float32: 'faint' vanishes in float16: its largest number is 1e-07" in told
    assert re.search(r"Conv out stays float32: 'b' stays below \S+, where float16 has few bits left", told)


WEIGHTS = {
    "beyond the range": (weights(4, 2, 3, 3, scale=1e6), "'w' holds"),
    "vanishing": (weights(4, 2, 3, 3, scale=1e-6), "'w' vanishes in float16"),
    "not a number": (np.full((4, 2, 3, 3), np.nan, np.float32), "'w' holds"),
}


@pytest.mark.parametrize(("w", "reason"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_16_bits_do_not_hold_stay_float32(w: Array, reason: str) -> None:
    graph = two_layers("b = Relu (a)", w=w)
    usual = observed(two_layers("b = Relu (a)"), IMAGE)
    decision = HalfPass("float16", usual).decide(graph)[0]
    assert (decision.node, decision.operator, decision.half) == ("a", "Conv", False)
    assert decision.why.startswith(reason)


def test_a_bias_may_vanish_beside_the_sum_that_it_is_added_to() -> None:
    text = (
        TWO.format(middle="b = Relu (a)")
        .replace("N", "8")
        .replace("M", "8")
        .replace("(image, w)", "(image, w, f)")
    )
    faint = graph_of(text, **CONSTANTS, f=np.full(4, 1e-7, np.float32))
    result = halved(faint)
    assert type_of(result.graph, "a") == "FLOAT16"
    assert snr_db(run(faint)["out"], run(result.graph)["out"]) > 60


def test_a_tensor_that_nobody_calibrated_is_not_trusted() -> None:
    graph = two_layers("b = Relu (a)")
    known = observed(graph, IMAGE)
    partly = Ranges({name: known[name] for name in known if name != "b"})
    result = HalfPass("float16", partly).run(graph, CPU)
    assert [type_of(result.graph, name) for name in ("a", "b", "out")] == ["FLOAT16", "FLOAT", "FLOAT"]
    assert "Relu b stays float32: nobody has calibrated 'b'" in result.notes


def test_float16_wants_ranges_and_bfloat16_does_not() -> None:
    graph = loud()
    with pytest.raises(PassError, match="float16 ends at 65504, and without calibrated ranges nobody knows"):
        HalfPass("float16").run(graph, CPU)
    result = HalfPass("bfloat16").run(graph, CPU)
    check(result.graph)
    assert [type_of(result.graph, name) for name in ("a", "c", "e", "out")] == ["BFLOAT16"] * 4
    assert result.graph.model.opset_imports[""] == 22
    assert snr_db(run(graph)["out"], run(result.graph)["out"]) > 35


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="no half precision is called 'fp8': want float16 or bfloat16"):
        HalfPass("fp8")
    with pytest.raises(PassError, match="no node is called 'nobody'"):
        HalfPass("bfloat16", keep=frozenset({"nobody"})).run(two_layers("b = Relu (a)"), CPU)


def test_an_operator_set_that_cannot_be_raised_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object) -> None:
        raise RuntimeError("No Adapter From Version $17 for Strange\nand more")

    monkeypatch.setattr("onnx.version_converter.convert_version", convert)
    with pytest.raises(PassError, match=r"bfloat16 needs operator set 22, .* has 20, .*: No .* for Strange "):
        HalfPass("bfloat16").run(two_layers("b = Relu (a)"), CPU)


def test_layers_are_kept_on_demand() -> None:
    graph = two_layers("b = Relu (a)")
    result = HalfPass("float16", observed(graph, IMAGE), frozenset({"a"})).run(graph, CPU)
    check(result.graph)
    assert [type_of(result.graph, name) for name in ("a", "b", "out")] == ["FLOAT", "FLOAT", "FLOAT16"]
    assert result.notes == ("1 of 3 operators compute in float16, 2 casts",)


def test_a_cast_that_is_there_is_not_followed_by_another() -> None:
    text = """(uint8[1, 2, 8, 8] image) => (float[1, 3, 8, 8] out) {
        x = Cast <to = 1> (image)  a = Conv <pads = [1, 1, 1, 1]> (x, w)
        h = Cast <to = 10> (a)  r = Relu (h)  b = Cast <to = 1> (r)  out = Conv (b, v) }"""
    graph = graph_of(text, **CONSTANTS)
    feeds: dict[str, Array] = {"image": RNG.integers(0, 255, (1, 2, 8, 8)).astype(np.uint8)}
    result = halved(graph, feeds)
    model = check(result.graph)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Conv", "Relu", "Conv", "Cast"]
    assert snr_db(run(graph, feeds)["out"], run(result.graph, feeds)["out"]) > 60


def test_a_tensor_is_cast_once_for_all_its_readers() -> None:
    middle = """n = InstanceNormalization (a, ones, zeros)  c = Conv (n, own)  d = Conv (n, own)
        m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (n)  e = Sum (c, d, m)  s = Softmax (e)
        t = Exp (e)  b = Add (s, t)"""
    result = halved(two_layers(middle, own=weights(4, 4, 1, 1)))
    model = check(result.graph)
    assert [type_of(result.graph, name) for name in "cdmeb"] == [*["FLOAT16"] * 4, "FLOAT"]
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 6


def test_an_output_in_the_middle_keeps_its_name_and_type() -> None:
    text = """(float[1, 2, 8, 8] image) => (float[1, 4, 8, 8] a, float[1, 3, 8, 8] out, float[1, 4, 8, 8] s) {
        a = Conv <pads = [1, 1, 1, 1]> (image, w)  b = Relu (a)  out = Conv (b, v)  s = Softmax (a) }"""
    graph = graph_of(text, **CONSTANTS)
    result = halved(graph)
    check(result.graph)
    want, got = run(graph), run(result.graph)
    assert list(got) == ["a", "out", "s"]
    for name in want:
        assert got[name].dtype == np.float32 and snr_db(want[name], got[name]) > 50


def test_inner_graphs_read_float32() -> None:
    text = """(float[1, 2, 8, 8] image, bool yes) => (float[1, 3, 8, 8] out) {
        a = Conv <pads = [1, 1, 1, 1]> (image, w)
        b = If (yes) <then_branch = one () => (float[1, 4, 8, 8] p) { p = Relu (a) },
                      else_branch = other () => (float[1, 4, 8, 8] q) { q = Neg (a) }>
        out = Conv (b, v) }"""
    graph = graph_of(text, **CONSTANTS)
    feeds: dict[str, Array] = {**IMAGE, "yes": np.array(True)}
    result = halved(graph, feeds)
    check(result.graph)
    assert [type_of(result.graph, name) for name in ("a", "b", "out")] == ["FLOAT16", "FLOAT", "FLOAT16"]
    assert snr_db(run(graph, feeds)["out"], run(result.graph, feeds)["out"]) > 55


def test_quantized_layers_stay_as_they_are() -> None:
    text = """(float[1, 2, 8, 8] image) => (float[1, 3, 8, 8] out) {
        xq = QuantizeLinear (image, xs, zero)  x = DequantizeLinear (xq, xs, zero)
        wf = DequantizeLinear (wq, ws, zero)
        a = Conv <pads = [1, 1, 1, 1]> (x, wf)  r = Relu (a)
        rq = QuantizeLinear (r, xs, zero)  b = DequantizeLinear (rq, xs, zero)
        m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b)  out = Conv (m, v) }"""
    scales = {"xs": np.float32(0.03), "ws": np.float32(0.01), "zero": np.int8(0)}
    graph = graph_of(text, wq=RNG.integers(-99, 99, (4, 2, 3, 3)).astype(np.int8), **scales, **CONSTANTS)
    # Ranges are those of the graph before it was quantized: they know nothing of what quantizing made.
    known = observed(graph, IMAGE)
    ranges = Ranges({name: known[name] for name in ("image", "a", "r", "m", "out")})
    result = HalfPass("float16", ranges).run(graph, CPU)
    check(result.graph)
    assert [type_of(result.graph, name) for name in ("x", "wf", "a", "r", "m", "out")] == [
        *["FLOAT"] * 5,
        "FLOAT16",
    ]
    assert len(result.notes) == 1


def test_a_second_run_changes_nothing() -> None:
    graph = backend_models.unet(2)
    ranges = observed(graph, backend_models.sample(graph))
    once = HalfPass("float16", ranges).run(graph, CPU).graph
    assert not HalfPass("float16", ranges).run(once, CPU).changed


def everything() -> Graph:
    """Operators of many kinds between two convolutions."""
    middle = """c = Clip (a, low, high)  d = BatchNormalization (c, ones, zeros, zeros, ones)
        e = HardSwish (d)  f = Sigmoid (a)  g = Mul (e, f)  h = InstanceNormalization (g, ones, zeros)
        i = LeakyRelu <alpha = 0.2> (h)  j = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (i)
        k = ConvTranspose <strides = [2, 2]> (j, up)  l = Concat <axis = 1> (i, k)  m = Conv (l, join)
        n = Transpose <perm = [0, 1, 3, 2]> (m)  o = MatMul (n, square)  p = Softmax <axis = 1> (o)
        b = Add (p, m)"""
    own = {"up": weights(4, 4, 2, 2), "join": weights(4, 8, 1, 1), "square": weights(8, 8)}
    return two_layers(middle, **own)


NETWORKS = {
    "unet2d": lambda: backend_models.unet(2),
    "unet3d": lambda: backend_models.unet(3),
    "everything": everything,
}
REFUSED = {("tvm", "float16"), ("tvm", "bfloat16"), ("onnxruntime", "bfloat16")}
LEAST_DB = {"float16": 55, "bfloat16": 35}


@pytest.mark.parametrize("precision", LEAST_DB)
@pytest.mark.parametrize("backend", [name for name in BACKENDS if "cpu" in BACKENDS[name].devices])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_backend_computes_it_or_says_that_it_does_not(
    network: str, backend: str, precision: str
) -> None:
    graph = NETWORKS[network]()
    feeds = backend_models.sample(graph)
    result = halved(graph, feeds, precision)
    target: Target = replace(CPU, backends=tuple(BACKENDS), arch=backend_models.TARGET.arch, cpu_features=())
    if (backend, precision) in REFUSED:
        with pytest.raises(UnsupportedError, match=r"in (16 bits|bfloat16).* \(Conv "):
            BACKENDS[backend].compile(result.graph, target, sample=feeds)
        return
    got = BACKENDS[backend].compile(result.graph, target, sample=feeds, threads=1).outputs
    for name, want in run(graph, feeds).items():
        assert got[name].dtype == np.float32
        assert snr_db(want, got[name]) > LEAST_DB[precision]
