from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
import torch
from kernel_runs import AVX2, each_processor, placed, run, tensor
from onnx import TensorProto, helper
from torch.nn import functional
from tvm import relax

from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.resize import Resize, resize, resize_problem, tables, taps
from edgekit.errors import CompileError

TORCH = {
    "nearest": ("nearest", Resize("nearest", "asymmetric", "floor")),
    "nearest-exact": ("nearest-exact", Resize("nearest", "half_pixel", "round_prefer_ceil")),
}


def sample(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def check(problem, array, want, block=1, halo=0, processor=AVX2, steps=()):
    x = tensor(array.shape, block, halo)
    output = Output(tensor(want.shape, block, 2 * halo), steps)
    inputs = [placed(x, array), *tables(problem, array.shape[2:], want.shape[2:])]
    got = run(resize("resize", problem, x, output, processor), processor, inputs, output.tensor)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6)


@each_processor
@pytest.mark.parametrize("mode", TORCH)
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 5, 13), (26,)),
        ((1, 12, 5, 7), (10, 14)),
        ((1, 3, 5, 40), (15, 80)),
        ((1, 9, 3, 4, 5), (6, 8, 10)),
        ((1, 9, 10, 11), (4, 7)),
        ((1, 9, 6, 6), (6, 18)),
    ],
)
def test_nearest(shape, size, mode, processor):
    array = sample(*shape)
    method, problem = TORCH[mode]
    want = functional.interpolate(torch.tensor(array).double(), size, mode=method).numpy()
    for block, halo in [(1, 0), (1, 1), (processor.block, 0), (processor.block, 1)]:
        check(problem, array, want, block, halo, processor)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 5, 13), (26,)),
        ((1, 12, 5, 7), (10, 14)),
        ((1, 3, 5, 40), (15, 80)),
        ((1, 9, 3, 4, 5), (6, 8, 10)),
        ((1, 9, 10, 11), (4, 7)),
        ((1, 9, 6, 6), (6, 9)),
        ((1, 9, 6, 6), (12, 6)),
        ((1, 9, 1, 6), (4, 1)),
    ],
)
def test_linear(shape, size, align):
    array, method = sample(*shape), ("linear", "bilinear", "trilinear")[len(size) - 1]
    want = functional.interpolate(
        torch.tensor(array).double(), size, mode=method, align_corners=align
    ).numpy()
    problem = Resize("linear", "align_corners" if align else "half_pixel")
    for block, halo in itertools.product((1, 8), (0, 1)):
        check(problem, array, want, block, halo)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(10, 14), (4, 9), (5, 21)])
def test_cubic(size, align):
    array = sample(1, 9, 5, 7)
    want = functional.interpolate(
        torch.tensor(array).double(), size, mode="bicubic", align_corners=align
    ).numpy()
    problem = Resize("cubic", "align_corners" if align else "half_pixel")
    for block in (1, 8):
        check(problem, array, want, block)


def by_onnxruntime(array, size, **attributes):
    node = helper.make_node("Resize", ["x", "", "", "size"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("size", TensorProto.INT64, [len(size)], size)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": array})[0]


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn"])
def test_nearest_as_onnx_has_it(coordinates, rounding):
    array = sample(1, 4, 7, 6)
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    want = by_onnxruntime(array, (1, 4, 12, 4), mode="nearest", **attributes)
    check(Resize("nearest", coordinates, rounding), array, want, 4)


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_cubic_as_onnx_has_it(coordinates, exclude):
    array = sample(1, 4, 7, 6)
    attributes = {"coordinate_transformation_mode": coordinates, "exclude_outside": exclude}
    want = by_onnxruntime(array, (1, 4, 13, 1), mode="cubic", cubic_coeff_a=-0.5, **attributes)
    check(Resize("cubic", coordinates, cubic=-0.5, exclude_outside=bool(exclude)), array, want, 4)


def test_periods():
    assert taps(Resize("linear"), 20, 40).period() == (2, 1, range(1, 39))
    assert taps(Resize("nearest", "asymmetric", "floor"), 20, 60).period() == (3, 1, range(60))
    assert taps(Resize("linear", "asymmetric"), 30, 20).period() == (2, 3, range(20))
    assert taps(Resize("linear", "align_corners"), 20, 40).period() is None


def test_what_is_fused():
    array = sample(1, 9, 4, 5)
    want = np.maximum(array.repeat(2, 2).repeat(2, 3), 0)
    steps = (Step("relax.nn.relu", (0,)),)
    check(Resize("nearest", "asymmetric", "floor"), array, want, 8, 1, steps=steps)


def test_blocks_that_differ_are_refused():
    with pytest.raises(CompileError, match="want blocks of 8, got 1"):
        resize("resize", Resize("linear"), tensor((1, 8, 4), 8), Output(tensor((1, 8, 8))), AVX2)


def test_calls():
    x = relax.Var("x", relax.TensorType((1, 8, 9, 9), "float32"))
    volume = relax.Var("x", relax.TensorType((1, 8, 9, 9, 9), "float32"))

    def call(method, coordinates, rounding, size=(18, 18), source=x, **more):
        function = relax.op.image.resize2d if source is x else relax.op.image.resize3d
        return resize_problem(
            function(
                source,
                relax.ShapeExpr(size),
                roi=[0.0] * (2 * len(size)),
                layout="NCHW" if source is x else "NCDHW",
                method=method,
                coordinate_transformation_mode=coordinates,
                rounding_method=rounding,
                **more,
            )
        )

    assert call("nearest_neighbor", "asymmetric", "floor") == Resize("nearest", "asymmetric", "floor")
    assert call("nearest_neighbor", "asymmetric", "round") == Resize("nearest", "asymmetric", "floor")
    assert call("nearest_neighbor", "asymmetric", "round", (13, 18)) is None
    assert call("linear", "half_pixel", "", (18, 18, 18), volume) == Resize("linear")
    cubic = call("cubic", "align_corners", "", cubic_alpha=-0.5, cubic_exclude=1)
    assert cubic == Resize("cubic", "align_corners", cubic=-0.5, exclude_outside=True)
    assert call("linear", "tf_crop_and_resize", "") is None
    assert resize_problem(relax.op.nn.relu(x)) is None
