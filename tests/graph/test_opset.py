"""The operators of domain ``edgekit`` in onnx: what its checker and shape inference take and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sample_operators as cases
from onnx import TensorProto, checker, defs, helper, shape_inference

from edgekit.errors import GraphError
from edgekit.graph import opset
from edgekit.graph.load import load
from edgekit.kernels import base

NAMES = list(opset.OPERATORS)
Shape = list[int | str | None] | None


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    opset.register()


def model(name: str, shapes: list[Shape], attributes: dict[str, Any], *types: int) -> onnx.ModelProto:
    """One node with inputs of these shapes (and types), and with these attributes."""
    operator = opset.OPERATORS[name]
    node = helper.make_node(
        name, operator.inputs, [operator.output], name="the_node", domain=opset.DOMAIN, **attributes
    )
    values = [
        helper.make_tensor_value_info(value, kind, shape)
        for value, kind, shape in zip(
            operator.inputs, types or [TensorProto.FLOAT] * len(shapes), shapes, strict=True
        )
    ]
    output = helper.make_tensor_value_info(operator.output, TensorProto.UNDEFINED, None)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(opset.DOMAIN, opset.VERSION)]
    return helper.make_model(
        helper.make_graph([node], "one", values, [output]), opset_imports=imports, ir_version=10
    )


def declared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With what the checker wants to know of the output: its type, and how many axes it has."""
    operator = opset.OPERATORS[proto.graph.node[0].op_type]
    lengths = operator.shape(*([f"{i}_{k}" for k in range(5)] for i in range(len(operator.inputs))))
    output = helper.make_tensor_value_info(operator.output, TensorProto.FLOAT, list(lengths))
    proto.graph.output[0].CopyFrom(output)
    return proto


def fitting(name: str, grid: tuple[int, ...] = (4, 5, 6)) -> list[Shape]:
    operator = opset.OPERATORS[name]
    return [list(a.shape) for a in cases.inputs(operator, grid, np.random.default_rng(0))]


def inferred(proto: onnx.ModelProto) -> tuple[int, Shape]:
    """Type and shape of the output."""
    found = shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph.output[0]
    tensor = found.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    lengths: Shape = [
        d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim
    ]
    return tensor.elem_type, lengths


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_that_of_the_kernels(name: str) -> None:
    operator = opset.OPERATORS[name]
    assert operator.name == name and operator.kernel in base.OPERATORS
    for key, default in operator.attributes.items():
        assert (key in opset.CHOICES) != (key in opset.SPANS)
        if not isinstance(default, type):
            assert operator.options({**cases.defaults(operator), key: default})[key] == default


def test_every_choice_is_one_that_a_kernel_takes() -> None:
    rng = np.random.default_rng(0)
    for operator in opset.OPERATORS.values():
        # Large radii take their time in volumes.
        grid = (3, 4) if 4 in operator.ranks else (3, 3, 4)
        arrays = cases.inputs(operator, grid, rng)
        for key in operator.attributes.keys() & opset.CHOICES.keys():
            choices = opset.CHOICES[key]
            ends = (choices[0], choices[-1]) if isinstance(choices, range) else choices
            for value in ends:
                options = operator.options({**cases.defaults(operator), key: value})
                if operator.kernel in ("non_local_means", "bilateral"):
                    options["spatial_ndim"] = 2
                result = base.OPERATORS[operator.kernel].function(*arrays, **options)
                assert result.shape == tuple(operator.shape(*(array.shape for array in arrays)))


@pytest.mark.parametrize("name", NAMES)
def test_schemas_say_what_the_table_says(name: str) -> None:
    schema, operator = defs.get_schema(name, opset.VERSION, opset.DOMAIN), opset.OPERATORS[name]
    assert [i.name for i in schema.inputs] == list(operator.inputs)
    assert [o.name for o in schema.outputs] == [operator.output]
    assert schema.attributes.keys() == operator.attributes.keys()
    for key, default in operator.attributes.items():
        attribute = schema.attributes[key]
        assert attribute.required == isinstance(default, type)
        if not attribute.required:
            said = helper.get_attribute_value(attribute.default_value)
            assert (said.decode() if isinstance(said, bytes) else said) == default
    opset.register()  # a second time is no harm


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_the_checker_takes_nodes_and_shapes_follow(name: str, kind: int) -> None:
    operator = opset.OPERATORS[name]
    for rank in operator.ranks:
        shapes = fitting(name, (4, 5, 6)[: rank - 2])
        proto = model(name, shapes, cases.defaults(operator), *[kind] * len(shapes))
        checker.check_model(shape_inference.infer_shapes(proto), full_check=True)
        assert inferred(proto) == (kind, list(operator.shape(*shapes)))


@pytest.mark.parametrize(
    ("name", "shapes", "wanted"),
    [
        ("Warp", [["n", 2, "d", 5, 6], ["n", 3, "d", 5, 6]], ["n", 2, "d", 5, 6]),
        ("Warp", [["n", "c", "d", 5, 6], [1, 3, 4, "h", "w"]], [1, "c", 4, 5, 6]),
        ("Warp", [[None, 2, None, 5], [1, 2, 7, None]], [1, 2, 7, 5]),
        ("Compose", [["n", 3, "d", "h", "w"], [1, 3, 4, 5, 6]], [1, 3, 4, 5, 6]),
        ("IntegrateVelocity", [["n", 2, "h", 8]], ["n", 2, "h", 8]),
        ("GridSample3d", [["n", "c", 4, 5, 6], [2, "a", 7, "b", 3]], [2, "c", "a", 7, "b"]),
        ("JacobianDeterminant", [["n", 3, "d", 5, "w"]], ["n", "d", 5, "w"]),
        ("NonLocalMeans", [["n", 1, "h", "w"]], ["n", 1, "h", "w"]),
        ("Bilateral", [["n", 1, "d", "h", "w"]], ["n", 1, "d", "h", "w"]),
        ("Warp", [None, [1, 3, 4, 5, 6]], None),
        ("Bilateral", [None], None),
    ],
)
def test_unknown_lengths_stay_so_or_come_from_the_other_input(
    name: str, shapes: list[Shape], wanted: Shape
) -> None:
    proto = model(name, shapes, cases.defaults(opset.OPERATORS[name]))
    found = inferred(proto)
    assert found == (TensorProto.FLOAT, wanted)


@pytest.mark.parametrize(
    ("name", "shapes", "text"),
    [
        ("Warp", [[1, 1, 4], [1, 1, 4]], "image: want 4 or 5 axes, got 3"),
        ("Warp", [[1, 1, 4, 5], [1, 3, 4, 5, 6]], "flow_vox: want the 4 axes of image, got 5"),
        ("Warp", [[1, 1, 4, 5, 6], [1, 2, 4, 5, 6]], "flow_vox: want 3 components, got 2"),
        ("Warp", [[1, 1, 4, 5, 6], [1, 3, 4, 7, 6]], "flow_vox: want length 5 of axis 3, as image has"),
        ("Warp", [[2, 1, 4, 5, 6], [1, 3, 4, 5, 6]], "flow_vox: want length 2 of axis 0, as image has"),
        ("Warp", [None, [1, 1, 4]], "flow_vox: want 4 or 5 axes, got 3"),
        ("Compose", [[1, 3, 4, 5, 6], [1, 3, 4, 5, 7]], "second_vox: want length 6 of axis 4"),
        ("IntegrateVelocity", [[1, 4, 5, 6, 7]], "velocity_vox: want 3 components, got 4"),
        ("GridSample3d", [[1, 1, 5, 6], [1, 5, 6, 2]], "image: want 5 axes, got 4"),
        ("GridSample3d", [[1, 1, 4, 5, 6], [1, 4, 5, 6, 2]], "grid: want 3 components, got 2"),
        ("GridSample3d", [[1, 1, 4, 5, 6], [2, 4, 5, 6, 3]], "grid: want length 1 of axis 0"),
        ("JacobianDeterminant", [[1, 2, 4, 5, 6]], "flow_vox: want 3 components, got 2"),
        ("NonLocalMeans", [[4, 5]], "image: want 4 or 5 axes, got 2"),
        ("Bilateral", [[1, 1, 1, 4, 5, 6]], "image: want 4 or 5 axes, got 6"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(
    name: str, shapes: list[Shape], text: str, tmp_path: Path
) -> None:
    proto = model(name, shapes, cases.defaults(opset.OPERATORS[name]))
    with pytest.raises(ValueError, match=text):
        inferred(proto)
    if None in shapes:
        return
    with pytest.raises(GraphError, match=f"the node does not fit its inputs: {text}") as caught:
        loaded(proto, tmp_path)
    assert caught.value.where == f"model.onnx: node 'the_node' ({name})"


def loaded(proto: onnx.ModelProto, folder: Path) -> None:
    """Load it as a user does."""
    onnx.save(proto, folder / "model.onnx")
    shapes = {
        value.name: "x".join(str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
    }
    load(folder / "model.onnx", shapes=shapes)


@pytest.mark.parametrize(
    ("name", "attributes", "text"),
    [
        ("Warp", {"boundary": "foo"}, "boundary: want one of 'zero', 'edge', .*, got 'foo'"),
        ("Warp", {"order": 2}, "order: want one of 0, 1, 3, got 2"),
        ("Warp", {"order": 1.0}, "order: want one of 0, 1, 3, got 1.0"),
        ("Warp", {"boundary": 1}, "boundary: want one of 'zero', .*, got 1"),
        ("Compose", {"boundary": b"Edge"}, "boundary: want one of 'zero', .*, got 'Edge'"),
        ("IntegrateVelocity", {"steps": 99}, "steps: want an integer from 0 to 32, got 99"),
        ("IntegrateVelocity", {"steps": [3]}, r"steps: want an integer from 0 to 32, got \[3\]"),
        ("GridSample3d", {"mode": "foo"}, "mode: want one of 'linear', 'bilinear', .*, got 'foo'"),
        ("GridSample3d", {"padding_mode": "edge"}, "padding_mode: want one of 'zeros', .*, got 'edge'"),
        ("GridSample3d", {"align_corners": 2}, "align_corners: want one of 0, 1, got 2"),
        ("NonLocalMeans", {}, "sigma: want a finite number of at least 0, got none"),
        ("NonLocalMeans", {"sigma": -1.0}, "sigma: want a finite number of at least 0, got -1.0"),
        ("NonLocalMeans", {"sigma": float("nan")}, "sigma: want a finite number .*, got nan"),
        ("NonLocalMeans", {"sigma": 1.0, "strength": 0.001}, "strength: want a number from 0.01 to 100"),
        ("NonLocalMeans", {"sigma": 1.0, "patch_radius": 5}, "patch_radius: want an integer from 1 to 4"),
        ("NonLocalMeans", {"sigma": 1.0, "noise": "poisson"}, "noise: want one of 'gaussian', 'rician'"),
        ("Bilateral", {"sigma_space": 1.0, "sigma_range": 1.0}, "radius: want .* from 1 to 100, got none"),
        ("Bilateral", {"sigma_space": 0.0, "sigma_range": 1.0, "radius": 1}, "sigma_space: want a finite"),
        ("Bilateral", {"sigma_space": 1.0, "sigma_range": 1.0, "radius": 0}, "radius: want an integer"),
    ],
)
def test_values_that_there_are_not_are_refused(
    name: str, attributes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    proto = model(name, fitting(name), attributes)
    with pytest.raises(ValueError, match=text):
        inferred(proto)
    with pytest.raises(GraphError, match=text) as caught:
        loaded(proto, tmp_path)
    assert caught.value.where == f"model.onnx: node 'the_node' ({name})"


def test_what_onnx_itself_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    unknown = model("Warp", fitting("Warp"), {"colour": 1})
    with pytest.raises(checker.ValidationError, match="Unrecognized attribute: colour"):
        checker.check_model(declared(unknown))
    with pytest.raises(GraphError, match="Unrecognized attribute: colour"):
        loaded(unknown, tmp_path)
    missing = model("Bilateral", fitting("Bilateral"), {"sigma_space": 1.0, "radius": 2})
    with pytest.raises(checker.ValidationError, match="Required attribute 'sigma_range' is missing"):
        checker.check_model(declared(missing))
    mistyped = model("Warp", fitting("Warp"), {"order": "1"})
    with pytest.raises(checker.ValidationError, match="Mismatched attribute type"):
        checker.check_model(declared(mistyped))
    lonely = model("Warp", fitting("Warp"), {})
    del lonely.graph.node[0].input[1]
    with pytest.raises(checker.ValidationError, match="input size 1"):
        checker.check_model(declared(lonely))
    with pytest.raises(GraphError, match="input size 1"):
        loaded(lonely, tmp_path)


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ((TensorProto.FLOAT, TensorProto.FLOAT16), "flow_vox has inconsistent type"),
        ((TensorProto.INT32, TensorProto.INT32), "unsupported type"),
        ((TensorProto.DOUBLE, TensorProto.DOUBLE), "unsupported type"),
    ],
)
def test_types_are_one_and_floating(types: tuple[int, int], text: str, tmp_path: Path) -> None:
    proto = model("Warp", fitting("Warp"), {}, *types)
    with pytest.raises(shape_inference.InferenceError, match=text):
        inferred(proto)
    with pytest.raises(GraphError, match=text):
        loaded(proto, tmp_path)


def test_a_node_inside_a_graph_is_looked_at_too(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]>
        inner (float[1,1,4,5] image, float[1,2,4,5] flow, bool[1] go) => (float[1,1,4,5] y) {
            y = If (go) <
                then_branch = yes () => (float[1,1,4,5] a) { a = edgekit.Warp <order = 2> (image, flow) },
                else_branch = no () => (float[1,1,4,5] b) { b = Identity (image) }
            >
        }"""
    )
    with pytest.raises(GraphError, match="order: want one of 0, 1, 3, got 2"):
        loaded(proto, tmp_path)


def test_floats_of_nodes_are_the_numbers_that_were_meant() -> None:
    operator = opset.OPERATORS["NonLocalMeans"]
    said = {"sigma": float(np.float32(0.1)), "strength": float(np.float32(0.01))}
    options = operator.options(said)
    assert options["sigma"] == 0.1 and options["strength"] == 0.01  # and so within the kernels' limits


def test_references_compute_coordinates_of_float16_in_float32() -> None:
    operator = opset.OPERATORS["GridSample3d"]
    image = np.arange(1000, dtype=np.float16).reshape(1, 1, 1, 1, 1000)
    grid = np.zeros((1, 1, 1, 1, 3), np.float16)
    grid[..., 0] = np.float16(0.501)
    wide = operator.reference(image.astype(np.float32), grid.astype(np.float32))
    np.testing.assert_array_equal(operator.reference(image, grid), wide.astype(np.float16))
    assert abs(float(wide[0, 0, 0, 0, 0]) - ((float(grid[0, 0, 0, 0, 0]) + 1) * 500 - 0.5)) < 1e-3
