"""The reference's own operators against another implementation, and its memory."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import onnx
import onnxruntime
import pytest
from backend_models import TARGET, graph, parse, sample, to_graph, unet, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo, NetworkSession
from edgekit.backends.reference_ops import window_geometry
from edgekit.graph import opset
from edgekit.graph.graph import Graph

ranks = st.integers(1, 3)


def opened(net: Graph) -> NetworkSession:
    info = ArtifactInfo("reference", "engine", (), net.inputs, net.outputs, "test", {}, "")
    return BACKENDS["reference"].open(Artifact(info, {"model.onnx": net.to_bytes()}))


def both(op: str, arrays: dict[str, np.ndarray], outputs: int = 1, **attributes) -> list[tuple]:
    """Outputs of one node by the reference and by ONNX Runtime."""
    names = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(op, list(arrays), names, **attributes)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "g",
            [
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in arrays.items()
            ],
            [onnx.helper.make_empty_tensor_value_info(name) for name in names],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=9,
    )
    from onnx.reference import ReferenceEvaluator

    from edgekit.backends.reference_ops import OVERRIDES

    ours = ReferenceEvaluator(model, new_ops=OVERRIDES).run(None, arrays)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(zip(ours, session.run(None, arrays), strict=True))


def assert_same(pairs: list[tuple]) -> None:
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def image(draw: st.DrawFn, rank: int, channels: int, smallest: int = 1) -> np.ndarray:
    size = [draw(st.integers(smallest, 9)) for _ in range(rank)]
    seed = draw(st.integers(0, 1000))
    return np.random.default_rng(seed).standard_normal((draw(st.integers(1, 2)), channels, *size)).astype("f")


def per_axis(draw: st.DrawFn, rank: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(rank)]


@st.composite
def windows(draw: st.DrawFn, pooling: bool = False) -> tuple[int, dict]:
    rank = draw(ranks)
    kernel = per_axis(draw, rank, 1, 3)
    attributes: dict = {
        "kernel_shape": kernel,
        "strides": per_axis(draw, rank, 1, 3),
        "dilations": per_axis(draw, rank, 1, 2),
    }
    padding = draw(st.sampled_from(["pads", "pads", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if padding == "pads":
        # A pooling window that lies in the padding alone has no meaning.
        limits = [(k - 1) if pooling else 2 for k in kernel]
        attributes["pads"] = [draw(st.integers(0, limit)) for limit in (*limits, *limits)]
    else:
        attributes["auto_pad"] = padding
        if padding.startswith("SAME"):
            # ONNX Runtime refuses dilations there, and with a stride larger than the kernel some runtimes
            # crop where others do not.
            attributes["dilations"] = [1] * rank
            attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)]
    return rank, attributes


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_conv(data: st.DataObject) -> None:
    rank, attributes = data.draw(windows())
    group = data.draw(st.sampled_from([1, 1, 2, 4]))
    x = image(data.draw, rank, 4, smallest=5)
    w = weights(4 * data.draw(st.integers(1, 2)), 4 // group, *attributes["kernel_shape"], seed=1)
    arrays = {"x": x, "w": w}
    if data.draw(st.booleans()):
        arrays["b"] = weights(w.shape[0], seed=2)
    assert_same(both("Conv", arrays, group=group, **attributes))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_conv_transpose(data: st.DataObject) -> None:
    rank, attributes = data.draw(windows())
    group = data.draw(st.sampled_from([1, 2]))
    if "pads" in attributes and data.draw(st.booleans()):
        attributes["output_padding"] = [
            data.draw(st.integers(0, stride - 1)) for stride in attributes["strides"]
        ]
    x = image(data.draw, rank, 4, smallest=3)
    attributes["pads"] = [min(p, 1) for p in attributes.get("pads", [0] * 2 * rank)]
    if "auto_pad" in attributes:
        del attributes["pads"]
    w = weights(4, data.draw(st.integers(1, 3)), *attributes["kernel_shape"], seed=1)
    arrays = {"x": x, "w": w, "b": weights(w.shape[1] * group, seed=2)}
    assert_same(both("ConvTranspose", arrays, group=group, **attributes))


def test_conv_transpose_with_a_given_shape() -> None:
    x, w = weights(1, 2, 4, 5), weights(2, 3, 3, 3)
    for auto_pad in ("NOTSET", "SAME_UPPER", "SAME_LOWER"):
        attributes = {"strides": [2, 2], "output_shape": [8, 10], "auto_pad": auto_pad}
        ((ours, _),) = both("ConvTranspose", {"x": x, "w": w}, **attributes)
        assert ours.shape == (1, 3, 8, 10)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_max_pool(data: st.DataObject) -> None:
    rank, attributes = data.draw(windows(pooling=True))
    attributes["ceil_mode"] = int("pads" in attributes and data.draw(st.booleans()))
    x = image(data.draw, rank, 2, smallest=5)
    assert_same(both("MaxPool", {"x": x}, outputs=data.draw(st.integers(1, 2)), **attributes))


def test_max_pool_of_integers_and_of_minus_infinity() -> None:
    for dtype in (np.int8, np.uint8):
        x = np.arange(-8, 8).astype(dtype).reshape(1, 1, 4, 4)
        assert_same(both("MaxPool", {"x": x}, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_average_pool(data: st.DataObject) -> None:
    rank, attributes = data.draw(windows(pooling=True))
    attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    x = image(data.draw, rank, 2, smallest=5)
    assert_same(both("AveragePool", {"x": x}, **attributes))


def test_average_pool_never_counts_what_a_ceiling_adds() -> None:
    x = np.arange(1.0, 6.0, dtype="f").reshape(1, 1, 5)
    for include in (0, 1):
        ((ours, _),) = both(
            "AveragePool", {"x": x}, kernel_shape=[3], strides=[3], pads=[0, 1], ceil_mode=1,
            count_include_pad=include,
        )  # fmt: skip
        np.testing.assert_allclose(ours.ravel(), [2.0, (4 + 5) / (3 if include else 2)])
        ((ours, _),) = both(
            "AveragePool", {"x": x}, kernel_shape=[2], strides=[2], ceil_mode=1, count_include_pad=include
        )
        np.testing.assert_allclose(ours.ravel(), [1.5, 3.5, 5.0])


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_grid_sample(data: st.DataObject) -> None:
    rank = data.draw(st.integers(2, 3))
    x = image(data.draw, rank, 2, smallest=2)
    size = per_axis(data.draw, rank, 1, 5)
    grid = np.random.default_rng(data.draw(st.integers(0, 999))).uniform(-1.7, 1.7, (x.shape[0], *size, rank))
    assert_same(
        both(
            "GridSample",
            {"x": x, "grid": grid.astype("f")},
            mode=data.draw(st.sampled_from(["linear", "nearest"])),
            padding_mode=data.draw(st.sampled_from(["zeros", "border", "reflection"])),
            align_corners=data.draw(st.integers(0, 1)),
        )
    )


def test_grid_sample_far_outside_and_cubic() -> None:
    x = weights(1, 1, 4, 5)
    far = np.float32([[[[1e6, 0], [-1e6, 0], [0, 1e6]]]])
    for mode in ("zeros", "border"):
        assert_same(both("GridSample", {"x": x, "g": far}, padding_mode=mode))
    near = np.float32([[[[0.1, -0.2], [0.5, 0.3]]]])
    assert_same(both("GridSample", {"x": x, "g": near}, mode="cubic"))


def test_a_grid_that_is_no_number_gives_none() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 1, 2, 3, 4)
    grid = np.zeros((1, 1, 1, 2, 3), np.float32)
    grid[..., 1, 0] = np.nan
    for padding in ("zeros", "border", "reflection"):
        ((ours, _),) = both("GridSample", {"x": x, "grid": grid}, padding_mode=padding)
        assert np.isfinite(ours[..., 0]).all() and np.isnan(ours[..., 1]).all()


@pytest.mark.parametrize("name", opset.OPERATORS)
def test_our_operators_are_their_references(name: str) -> None:
    opset.register()
    operator = opset.OPERATORS[name]
    needed = {"sigma": 0.5, "sigma_space": 1.0, "sigma_range": 0.5, "radius": 1}
    given = {key: needed[key] for key, value in operator.attributes.items() if isinstance(value, type)}
    rng = np.random.default_rng(0)
    shapes = {"image": (1, 2, 4, 5, 6), "grid": (1, 2, 3, 7, 3)}
    feeds = {
        key: rng.standard_normal(shapes.get(key, (1, 3, 4, 5, 6))).astype(np.float32)
        for key in operator.inputs
    }
    node = onnx.helper.make_node(name, list(feeds), ["y"], domain="edgekit", **given)
    inputs = ", ".join(f"float{list(array.shape)} {key}" for key, array in feeds.items())
    wanted = operator.reference(*feeds.values(), **given)
    header = '<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]>'
    model = onnx.parser.parse_model(f"{header} g ({inputs}) => (float{list(wanted.shape)} y) {{ }}")
    model.graph.node.append(node)
    net = to_graph(model)
    assert BACKENDS["reference"].refusals(net, TARGET) == []
    np.testing.assert_array_equal(opened(net).run(feeds)["y"], wanted)


@pytest.mark.parametrize("length", range(1, 12))
def test_windows_cover_what_they_say(length: int) -> None:
    for kernel, stride, dilation, ceil in itertools.product((1, 2, 3), (1, 2, 3), (1, 2), (False, True)):
        extent = (kernel - 1) * dilation + 1
        if extent > length:
            continue
        ((before, after),), (count,) = window_geometry(
            (length,), (kernel,), (stride,), (dilation,), None, "NOTSET", ceil
        )
        assert before == 0 and after >= 0
        assert (count - 1) * stride + extent <= length + after
        assert (count - 1) * stride < length, "every window begins inside"
        assert ceil or after == 0
        ((before, after),), (count,) = window_geometry(
            (length,), (kernel,), (stride,), (dilation,), None, "SAME_UPPER"
        )
        assert count == math.ceil(length / stride)
        assert 0 <= after - before <= 1


def test_half_precision_is_rounded_once() -> None:
    x = np.full((1, 512, 1, 1), 0.1, np.float16)
    w = np.full((1, 512, 1, 1), 0.1, np.float16)
    ((ours, _),) = both("Conv", {"x": x.astype("f"), "w": w.astype("f")})
    net = graph("g (float16[1,512,1,1] x) => (float16[1,1,1,1] y) { y = Conv(x, w) }", w=w)
    got = opened(net).run({"x": x})["y"]
    assert got.dtype == np.float16
    assert got == np.float16(ours)


def test_values_are_dropped_after_their_last_use() -> None:
    chain = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(20))
    net = graph(f"g (float[1,1000000] t0) => (float[1,1000000] t20) {{ {chain} }}")
    session, feeds = opened(net), sample(net)
    tracemalloc.start()
    out = session.run(feeds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(out["t20"], feeds["t0"])
    assert peak < 5 * 4e6


def test_values_that_subgraphs_read_are_kept() -> None:
    net = graph(
        """g (float[4] x, bool c) => (float[4] y) {
            a = Abs(x)
            b = Neg(a)
            y = If <then_branch = t () => (float[4] p) { p = Add(a, b) },
                    else_branch = e () => (float[4] q) { inner = Sub(a, x)  q = Identity(inner) }> (c)
        }"""
    )
    x = np.float32([-1, 2, -3, 4])
    session = opened(net)
    np.testing.assert_array_equal(session.run({"x": x, "c": np.array(True)})["y"], 0 * x)
    np.testing.assert_array_equal(session.run({"x": x, "c": np.array(False)})["y"], np.abs(x) - x)


def test_a_volume_takes_no_minutes() -> None:
    """As large as the operators that onnx evaluates element by element would take minutes for."""
    net = unet(3, channels=8, size=32)
    assert opened(net).run(sample(net))["logits"].shape == (1, 2, 32, 32, 32)


def test_parse_refuses_a_wrong_model() -> None:
    with pytest.raises(onnx.checker.ValidationError):
        parse("g (float[1] x) => (float[1] y) { y = Nothing(x) }")
