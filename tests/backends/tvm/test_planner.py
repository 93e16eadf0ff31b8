"""Whole networks: what becomes of each operation, how values lie, and ONNX Runtime's numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tvm
from kernel_runs import AVX2, each_processor, use
from onnx import numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from edgekit.backends.tvm import compiler, graph, patterns, planner
from edgekit.backends.tvm.emission import SCHEDULED, planned
from edgekit.backends.tvm.importer import importable
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import PLAIN, Layout
from edgekit.hosts.build import Platform

HERE = Platform.here()


def network(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A graph in ONNX's own language, with random weights of the given shapes."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        scale = 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        array = (scale * rng.standard_normal(shape)).astype(np.float32)
        if name.startswith("var"):
            array = np.abs(array) + 0.5
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


UNET = network(
    """unet (float[1,1,16,24] x) => (float[1,2,16,24] y) {
        a0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
        a1 = InstanceNormalization<epsilon=1e-5>(a0, s1, t1)
        a = PRelu(a1, p1)
        d0 = Conv<pads=[1,1,1,1], strides=[2,2]>(a, w2, b2)
        d1 = LeakyRelu<alpha=0.1>(d0)
        d2 = Conv<pads=[1,1,1,1]>(d1, w3)
        d = Add(d2, d1)
        u0 = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(d, w4, b4)
        u = Relu(u0)
        c = Concat<axis=1>(a, u)
        e = Conv<pads=[1,1,1,1]>(c, w5, b5)
        g0 = Conv(c, w6)
        g = Sigmoid(g0)
        f = Mul(e, g)
        y = Conv(f, w7, b7)
    }""",
    w0=(16, 1, 3, 3), b0=(16,), s1=(16,), t1=(16,), p1=(1,), w2=(24, 16, 3, 3), b2=(24,), w3=(24, 24, 3, 3),
    w4=(24, 12, 2, 2), b4=(12,), w5=(16, 28, 3, 3), b5=(16,), w6=(1, 28, 1, 1), w7=(2, 16, 1, 1), b7=(2,),
)  # fmt: skip

VOLUME = network(
    """volume (float[1,8,5,6,7] x) => (float[1,3,10,12,14] y) {
        a0 = Conv<pads=[1,1,1,1,1,1]>(x, w0, b0)
        groups = Constant<value_ints=[0, 4, -1]>()
        g0 = Reshape(a0, groups)
        g1 = InstanceNormalization<epsilon=1e-5>(g0, s0, t0)
        whole = Shape(a0)
        g2 = Reshape(g1, whole)
        g3 = Mul(g2, s1)
        a1 = Add(g3, t1)
        a2 = Relu(a1)
        a3 = Conv<pads=[1,1,1,1,1,1]>(a2, w1)
        a = Add(a3, x)
        scales = Constant<value_floats=[1.0, 1.0, 2.0, 2.0, 2.0]>()
        u = Resize<mode="linear">(a, , scales)
        m = MaxPool<kernel_shape=[3,3,3], pads=[1,1,1,1,1,1], strides=[1,1,1]>(u)
        widths = Constant<value_ints=[0, 0, 1, 1, 1, 0, 0, 1, 1, 1]>()
        r = Pad<mode="reflect">(m, widths)
        y = Conv(r, w2, b2)
    }""",
    w0=(8, 8, 3, 3, 3), b0=(8,), s0=(4,), t0=(4,), s1=(8, 1, 1, 1), t1=(8, 1, 1, 1),
    w1=(8, 8, 3, 3, 3), w2=(3, 8, 3, 3, 3), b2=(3,),
)  # fmt: skip

CLASSIFIER = network(
    """classifier (float[2,3,19,21] x) => (float[2,5] y) {
        a0 = Conv<pads=[3,3,3,3], strides=[2,2]>(x, w0)
        a1 = BatchNormalization(a0, s1, t1, m1, var1)
        a2 = Relu(a1)
        p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(a2)
        n1 = BatchNormalization(p, s2, t2, m2, var2)
        n2 = Relu(n1)
        n3 = Conv<pads=[1,1,1,1]>(n2, w2)
        c = Concat<axis=1>(p, n3)
        n4 = BatchNormalization(c, s3, t3, m3, var3)
        n5 = Relu(n4)
        v = AveragePool<kernel_shape=[2,2], strides=[2,2]>(n5)
        d = Conv<group=24, pads=[1,1,1,1]>(v, w4)
        e0 = Sigmoid(d)
        e = Mul(d, e0)
        g = GlobalAveragePool(e)
        f = Flatten(g)
        y = Gemm<transB=1>(f, w5, b5)
    }""",
    w0=(16, 3, 7, 7), s1=(16,), t1=(16,), m1=(16,), var1=(16,), s2=(16,), t2=(16,), m2=(16,), var2=(16,),
    w2=(8, 16, 3, 3), s3=(24,), t3=(24,), m3=(24,), var3=(24,), w4=(24, 1, 3, 3), w5=(5, 24), b5=(5,),
)  # fmt: skip

TOKENS = network(
    """tokens (float[2,10,12] x) => (float[2,10,12] y) {
        n = LayerNormalization<axis=-1, epsilon=1e-5>(x, s, t)
        q = MatMul(n, wq)
        k = MatMul(n, wk)
        kt = Transpose<perm=[0,2,1]>(k)
        l = MatMul(q, kt)
        p = Softmax<axis=-1>(l)
        o = MatMul(p, n)
        h = Add(o, x)
        f = MatMul(h, w1)
        fb = Add(f, b1)
        r = Constant<value_float=1.4142135>()
        g0 = Div(fb, r)
        g1 = Erf(g0)
        one = Constant<value_float=1.0>()
        g2 = Add(g1, one)
        g3 = Mul(fb, g2)
        half = Constant<value_float=0.5>()
        g = Mul(g3, half)
        z = MatMul(g, w2)
        y = Add(z, h)
    }""",
    s=(12,), t=(12,), wq=(12, 12), wk=(12, 12), w1=(12, 40), b1=(40,), w2=(40, 12),
)  # fmt: skip

NETWORKS = {"U-Net": UNET, "volume": VOLUME, "classifier": CLASSIFIER, "tokens": TOKENS}


def imported(model: onnx.ModelProto) -> Any:
    network = ir.from_proto(model)
    compiler.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(network)
    with importable():
        return from_onnx(ir.to_proto(network))


def operations(module: Any) -> Counter[str]:
    """What the function calls: operations of Relax's and kernels, by name."""
    found: Counter[str] = Counter()

    def visit(expression: Any) -> None:
        name = getattr(getattr(expression, "op", None), "name", "")
        if name == "relax.call_tir":
            name = expression.args[0].name_hint.rstrip("0123456789")
        if name:
            found[name] += 1

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@each_processor
@pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)
def test_networks_give_onnx_runtimes_numbers(
    model: onnx.ModelProto, processor: Processor, tmp_path: Path
) -> None:
    inputs = feeds(model)
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)
    compiler.export(ir.from_proto(model), tmp_path / "model.so", {}, HERE, processor)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "model.so")), tvm.cpu())
    results = []
    for threads in (1, 2):
        use(threads)
        results.append(machine["main"](*map(tvm.runtime.tensor, inputs.values())).numpy())
    np.testing.assert_allclose(results[0], want, atol=2e-5 * np.abs(want).max())
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("U-Net", {"conv2d": 6, "conv2d_transpose": 1, "normalization": 1, "concat": 1, "copy": 1}),
        ("volume", {"conv3d": 3, "normalization": 1, "resize3d": 1, "max_pool3d": 1, "pad": 1, "copy": 1}),
    ],
)
def test_every_operation_has_a_kernel(name: str, kernels: dict[str, int]) -> None:
    """And what follows one is part of it: there is no other kernel, and no copy but the input's."""
    assert operations(planned(imported(NETWORKS[name]), AVX2)) == kernels


def test_attention_is_products_and_a_softmax() -> None:
    found = operations(planned(imported(TOKENS), AVX2))
    assert found["product"] == 1 and found["softmax"] == 1 and not found["relax.permute_dims"]
    assert found["matmul"] == 5 and found["normalization"] == 1
    # The GELU is part of the product before it, and so is the sum after the last.
    assert found["chain"] == 0


def test_kernels_stand_as_they_will_run() -> None:
    module = planned(imported(UNET), AVX2)
    functions = [f for _, f in module.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    assert functions and all(SCHEDULED in function.attrs for function in functions)


def test_equal_layers_are_one_kernel() -> None:
    model = network(
        """same (float[1,8,9,9] x) => (float[1,8,9,9] y) {
            a = Conv<pads=[1,1,1,1]>(x, w0)
            b = Conv<pads=[1,1,1,1]>(a, w1)
            y = Conv<pads=[1,1,1,1]>(b, w2)
        }""",
        w0=(8, 8, 3, 3), w1=(8, 8, 3, 3), w2=(8, 8, 3, 3),
    )  # fmt: skip
    module = planned(imported(model), AVX2)
    kernels = [v.name_hint for v, f in module.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    # The last one writes no halo.
    assert sorted(name for name in kernels if name.startswith("conv")) == ["conv2d", "conv2d1"]


def test_layouts_carry_through() -> None:
    """Blocks from the first convolution to the last, and the halo that the reader wants."""
    found = graph.read(imported(UNET)["main"])
    assert found is not None
    patterns.recognize(found)
    plan = planner.plan(found, AVX2)
    first, *_, last = plan.groups
    assert [link.name for link in first.links] == ["relax.add"]
    assert plan.layout(last.output) == PLAIN
    blocks = [plan.layout(group.output).block for group in plan.groups if group.output.shape[1] >= 4]
    assert len(blocks) == len(plan.groups) - 2 and set(blocks) == {4, 8}
    strided = next(g for g in plan.groups if g.anchor and g.output.shape == (1, 24, 8, 12))
    assert plan.layout(strided.output) == Layout(8, ((1, 1), (1, 1)))


def test_what_nobody_takes_stays() -> None:
    model = network(
        """odd (float[1,8,9,9] x) => (float[1,8,9,9] y) {
            a = Conv<pads=[1,1,1,1]>(x, w0)
            b = CumSum(a, axis)
            y = Conv<pads=[1,1,1,1]>(b, w1)
        }""",
        w0=(8, 8, 3, 3), w1=(8, 8, 3, 3),
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int64), "axis"))
    found = operations(planned(imported(model), AVX2))
    assert found == {"conv2d": 2, "relax.cumsum": 1, "copy": 4} or found["relax.cumsum"] == 1


def test_a_value_with_two_readers_is_written_before_it_is_changed(tmp_path: Path) -> None:
    model = network(
        """two (float[1,8,9,9] x) => (float[1,8,9,9] y, float[1,8,9,9] z) {
            y = Conv<pads=[1,1,1,1]>(x, w0)
            r = Relu(y)
            s = Add(r, y)
            z = Mul(s, s)
        }""",
        w0=(8, 8, 3, 3),
    )
    inputs = feeds(model)
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)
    compiler.export(ir.from_proto(model), tmp_path / "model.so", {}, HERE, AVX2)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "model.so")), tvm.cpu())
    got = machine["main"](*map(tvm.runtime.tensor, inputs.values()))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4)


def test_a_result_that_is_a_view_outlives_the_next_run(tmp_path: Path) -> None:
    model = network(
        """view (float[1,8,9,9] x) => (float[8,81] y) {
            a = Conv<pads=[1,1,1,1]>(x, w0)
            b = Relu(a)
            shape = Constant<value_ints=[8, 81]>()
            y = Reshape(b, shape)
        }""",
        w0=(8, 8, 3, 3),
    )
    inputs = feeds(model)
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)
    compiler.export(ir.from_proto(model), tmp_path / "model.so", {}, HERE, AVX2)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "model.so")), tvm.cpu())
    (x,) = inputs.values()
    first = machine["main"](tvm.runtime.tensor(x))
    machine["main"](tvm.runtime.tensor(-x))
    np.testing.assert_allclose(first.numpy(), want, atol=1e-4)


def test_onnx_group_normalization_is_one_kernel(tmp_path: Path) -> None:
    text = """groups (float[1,8,5,9] x) => (float[1,8,5,9] y) {
        y = GroupNormalization<epsilon=1e-5, num_groups=4>(x, s, t)
    }"""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    rng = np.random.default_rng(0)
    for name in ("s", "t"):
        weights = rng.standard_normal(8).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    assert operations(planned(imported(model), AVX2))["normalization"] == 1
    inputs = feeds(model)
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)
    compiler.export(ir.from_proto(model), tmp_path / "model.so", {}, HERE, AVX2)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "model.so")), tvm.cpu())
    got = machine["main"](*map(tvm.runtime.tensor, inputs.values())).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)
