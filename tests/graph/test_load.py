"""ONNX files on their way in: contracts, shapes, external data, bytes that are always the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

from edgekit.errors import GraphError, SpecError, UnsupportedError, UsageError
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import check_file, load
from edgekit.spec import Dim

CONV = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[N, 1, H, W] image) => (float[N, 2, H2, W2] mask)
<float[2, 1, 3, 3] k = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0}>
{
    c = Conv <pads = [1, 1, 1, 1]> (image, k)
    mask = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
}
"""


def write(text: str, path: Path) -> Path:
    onnx.save(parser.parse_model(text), path)
    return path


def test_fixed_shapes_are_written_into_the_network(tmp_path: Path) -> None:
    loaded = load(write(CONV, tmp_path / "m.onnx"), shapes={"image": "1x1x32x48"})
    (image,), (mask,) = loaded.graph.inputs, loaded.graph.outputs
    assert (image.name, image.dtype, image.dims, image.layout) == ("image", "float32", (1, 1, 32, 48), "NCHW")
    assert (mask.name, mask.dims) == ("mask", (1, 2, 16, 24))
    assert loaded.graph.is_static and loaded.graph.results == loaded.graph.outputs
    assert loaded.golden is None
    assert loaded.graph.history == ("loaded m.onnx",)
    network = loaded.graph.model.graph
    assert network.inputs[0].shape is not None and network.inputs[0].shape.numpy() == (1, 1, 32, 48)
    assert network.outputs[0].shape is not None and network.outputs[0].shape.numpy() == (1, 2, 16, 24)


def test_ranges_reach_the_outputs_with_their_steps(tmp_path: Path) -> None:
    path = write(CONV, tmp_path / "m.onnx")
    graph = load(path, shapes={"": "1x1x[32:128:16]x[64:100:4]"}).graph
    assert graph.inputs[0].dims == (1, 1, Dim(32, 128, 16), Dim(64, 100, 4))
    assert graph.outputs[0].dims == (1, 2, Dim(16, 64, 8), Dim(32, 50, 2))
    # The names that the file gives its open lengths stay.
    shape = graph.model.graph.inputs[0].shape
    assert shape is not None and str(shape[2]) == "H" and shape[0] == 1


def test_a_range_of_one_length_is_that_length(tmp_path: Path) -> None:
    path = write(CONV, tmp_path / "m.onnx")
    assert load(path, shapes={"": "1x1x[32:40:16]x48"}).graph.inputs[0].dims == (1, 1, 32, 48)


def test_open_lengths_want_a_shape(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Nx1xHxW") as caught:
        load(write(CONV, tmp_path / "m.onnx"))
    assert caught.value.hint is not None and "--shape image=1x1x256x256" in caught.value.hint
    assert caught.value.where == "m.onnx: input 'image'"


@pytest.mark.parametrize("shape", ["1x3x32x32", "1x1x32", "1x[1:3]x32x32"])
def test_a_shape_that_contradicts_the_file_is_refused(shape: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="contradicts the file: want Nx1xHxW"):
        check_file(write(CONV, tmp_path / "m.onnx"), {"image": shape})


def test_an_unknown_input_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="want image") as caught:
        check_file(write(CONV, tmp_path / "m.onnx"), {"imag": "1x1x32x32"})
    assert caught.value.hint == "--shape image=1x1x32x32"


def test_one_name_is_one_length(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, S] a, float[1, S] b) => (float[1, S] c) { c = Concat <axis = 0> (a, b) }""",
        tmp_path / "m.onnx",
    )
    with pytest.raises(SpecError, match="every axis 'S'"):
        check_file(path, {"a": "1x4", "b": "1x5"})
    assert check_file(path, {"a": "1x4", "b": "1x4"})[1].outputs[0].dims == (2, 4)


def test_equal_ranges_of_several_inputs_are_one_symbol(tmp_path: Path) -> None:
    """The file's lengths have no names of their own here; Add fits only where both are equal."""
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, ?] a, float[1, ?] b) => (c) { c = Sub (a, b) }""",
        tmp_path / "m.onnx",
    )
    graph = load(path, shapes={"a": "1x[8:64:8]", "b": "1x[8:64:8]"}).graph
    names = [str(value.shape[1]) for value in (*graph.model.graph.inputs, *graph.model.graph.outputs)]  # type: ignore[index]
    assert len(set(names)) == 1
    assert graph.outputs[0].dims == (1, Dim(8, 64, 8))


def test_two_lengths_that_vary_on_one_output_axis(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, A] a, float[1, B] b) => (float[1, C] c) { c = Concat <axis = 1> (a, b) }""",
        tmp_path / "m.onnx",
    )
    dims = check_file(path, {"a": "1x[10:40:10]", "b": "1x[5:30:5]"})[1].outputs[0].dims
    assert dims == (1, Dim(15, 70, 5))


@settings(max_examples=40, deadline=None)
@given(
    low=st.integers(1, 20), step=st.integers(1, 8), count=st.integers(1, 6),
    kernel=st.integers(1, 5), stride=st.integers(1, 3),
)  # fmt: skip
def test_output_ranges_hold_every_length_that_occurs(
    tmp_path_factory: pytest.TempPathFactory, low: int, step: int, count: int, kernel: int, stride: int
) -> None:
    low = max(low, kernel)
    lengths = [low + k * step for k in range(count + 1)]
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[kernel], strides=[stride])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 1, "L"])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    found = check_file(path, {"x": f"1x1x[{low}:{lengths[-1]}:{step}]"})[1].outputs[0]
    for length in lengths:
        assert found.fits((1, 1, (length - kernel) // stride + 1))


def test_weights_outside_are_read_and_stored_inside(tmp_path: Path) -> None:
    model = parser.parse_model(CONV)
    plain = load(write(CONV, tmp_path / "plain.onnx"), shapes={"": "1x1x32x32"}).graph
    # onnx moves raw data only.
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "k")
    )
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert (tmp_path / "weights.bin").stat().st_size == 72
    graph = load(tmp_path / "m.onnx", shapes={"": "1x1x32x32"}).graph
    (tmp_path / "weights.bin").unlink()
    assert graph.to_bytes() == plain.to_bytes()


def test_shapes_can_come_from_small_weights_outside(tmp_path: Path) -> None:
    weights = TensorProto(name="s", data_type=TensorProto.INT64, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="in/s.bin")
    weights.external_data.add(key="offset", value="8")
    weights.external_data.add(key="length", value="16")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "s.bin").write_bytes(np.array([99, 2, 8], np.int64).tobytes())
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [4, 4])],
        [helper.make_tensor_value_info("y", 1, None)],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert load(tmp_path / "m.onnx").graph.outputs[0].dims == (2, 8)


def test_functions_are_inlined(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        net (float[1, 4] x) => (float[1, 4] y) { a = own.twice (x)  y = own.twice (a) }
        <opset_import: ["" : 20], domain: "own"> twice (v) => (w) { w = Add (v, v) }""",
        tmp_path / "m.onnx",
    )
    graph = load(path).graph
    assert [node.op_type for node in graph.model.graph] == ["Add", "Add"]
    assert not graph.model.functions


def test_weights_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 4, opset_import: ["" : 11]>
        net (float[1, 4] x, float[4] w) => (float[1, 4] y) <float[4] w = {1, 2, 3, 4}> { y = Add (x, w) }""",
        tmp_path / "m.onnx",
    )
    graph = load(path).graph
    assert [spec.name for spec in graph.inputs] == ["x"]
    assert [value.name for value in graph.model.graph.inputs] == ["x"]


def test_shape_arithmetic_is_followed(tmp_path: Path) -> None:
    """The output's shape goes through Shape, Gather, Div, Concat and Reshape."""
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, L] x) => (y)
        <int64[1] one = {1}, int64[1] two = {2}>
        {
            s = Shape (x)
            l = Gather <axis = 0> (s, one)
            half = Div (l, two)
            t = Concat <axis = 0> (two, half)
            y = Reshape (x, t)
        }""",
        tmp_path / "m.onnx",
    )
    assert check_file(path, {"x": "1x[8:32:8]"})[1].outputs[0].dims == (2, Dim(4, 16, 4))


def test_an_output_shape_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, 4] x) => (int64[2, K] y) { y = NonZero (x) }""",
        tmp_path / "m.onnx",
    )
    with pytest.raises(GraphError, match="depends on the values") as caught:
        check_file(path)
    assert caught.value.where == "m.onnx: output 'y'"


def test_an_input_of_any_shape_wants_one(tmp_path: Path) -> None:
    made = parser.parse_model(CONV)
    made.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(SpecError, match="any shape"):
        check_file(tmp_path / "m.onnx")
    assert check_file(tmp_path / "m.onnx", {"": "1x1x8x8"})[1].outputs[0].dims == (1, 2, 4, 4)


def test_an_output_type_without_contract_is_refused(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, 4] x) => (bfloat16[1, 4] y) { y = Cast <to = 16> (x) }""",
        tmp_path / "m.onnx",
    )
    with pytest.raises(UnsupportedError, match="element type"):
        check_file(path)


def test_limits_are_the_callers(tmp_path: Path) -> None:
    path = write(CONV, tmp_path / "m.onnx")
    shape = {"": "1x1x64x64"}
    with pytest.raises(GraphError, match="would take"):
        check_file(path, shape, IntakeLimits(tensor_bytes=16 << 10))
    with pytest.raises(GraphError, match="nodes"):
        check_file(path, shape, IntakeLimits(nodes=1))
    check_file(path, shape, IntakeLimits(tensor_bytes=32 << 10, nodes=2))


def test_a_big_but_honest_model_fits_the_default_limits(tmp_path: Path) -> None:
    """A 3-D network at 192^3 with 32 channels, and a displacement grid computed from constants."""
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, 1, 192, 192, 192] x) => (float[1, 32, 192, 192, 192] y)
        <float[1] zero = {0}, int64[5] grid = {1, 3, 192, 192, 192}, int64[5] wide = {1, 32, 1, 1, 1}>
        {
            g = ConstantOfShape (grid)
            m = ReduceMax <keepdims = 1> (g)
            z = Add (x, m)
            y = Expand (z, wide)
        }""",
        tmp_path / "m.onnx",
    )
    assert check_file(path)[1].outputs[0].largest_bytes == 32 * 192**3 * 4


def test_bytes_are_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    model = parser.parse_model(CONV)
    model.doc_string = "made on a Monday"
    model.graph.node[0].metadata_props.add(key="source", value="/home/somebody/net.py")
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        onnx.save(model, tmp_path / name / "m.onnx")
        code = (
            "import sys; from edgekit.graph.load import load\n"
            "graph = load(sys.argv[1], shapes={'': '1x1x[32:64:8]x32'}).graph\n"
            "assert b'somebody' not in graph.to_bytes()\n"
            "print(graph.digest())"
        )
        for seed in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / name / "m.onnx")],
                capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed},
            )  # fmt: skip
            digests.add(done.stdout)
    assert len(digests) == 1


def test_a_copy_can_be_changed_without_changing_the_graph(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}>
        { c = Constant <value = float[4] {4, 3, 2, 1}> ()  a = Add (x, w)  y = Mul (a, c) }""",
        tmp_path / "m.onnx",
    )
    graph = load(path).graph
    before = graph.to_bytes()
    copy = graph.edit()
    copy.graph.initializers["w"].name = "renamed"
    copy.graph.node(0).attributes["value"].as_tensor().name = "renamed too"
    copy.graph.inputs[0].name = "z"
    assert graph.to_bytes() == before


def test_what_is_no_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="what kind of model") as caught:
        load("model.tflite")
    assert caught.value.hint is not None and "package.module:function" in caught.value.hint


def test_weights_go_with_factories_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="own weights"):
        load(write(CONV, tmp_path / "m.onnx"), weights=tmp_path / "w.pt")


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="No such file") as caught:
        load(tmp_path / "none.onnx")
    assert "none.onnx" in (caught.value.where or "")


def test_our_operators_have_shapes(tmp_path: Path) -> None:
    path = write(
        """<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]>
        net (float[1, 2, 4, 5, 6] image, float[1, 3, 4, 5, 6] flow) => (moved, u)
        { u = edgekit.IntegrateVelocity <steps = 4> (flow)  moved = edgekit.Warp <order = 0> (image, u) }""",
        tmp_path / "m.onnx",
    )
    moved, u = check_file(path)[1].outputs
    assert moved.dims == (1, 2, 4, 5, 6)
    assert u.dims == (1, 3, 4, 5, 6)


def test_the_very_bytes_that_were_checked_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.graph import load as module

    path = write(CONV, tmp_path / "m.onnx")
    read = module._read_file

    def read_then_swap(*arguments: object) -> tuple[bytes, int]:
        data, payload = read(*arguments)  # type: ignore[arg-type]
        path.write_bytes(data.replace(b"mask", b"kams"))
        return data, payload

    monkeypatch.setattr(module, "_read_file", read_then_swap)
    with pytest.raises(GraphError, match="changed while it was read"):
        load(path, shapes={"": "1x1x32x32"})
