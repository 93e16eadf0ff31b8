"""What leaves the network at its end, and what stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.passes.base import PassResult
from edgekit.passes.split import SplitTailPass
from edgekit.spec import Dim, Step
from edgekit.steps import STEPS


def split(text: str, folder: Path, shapes: dict[str, str] | None = None) -> PassResult:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]> net {text}')
    path = folder / "m.onnx"
    onnx.save(model, path)
    graph = build_graph(model, check_file(path, shapes)[1], "test")
    return SplitTailPass().run(graph, targets.find("cpu"))


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


REGISTRATION = """(float[1, 2, H, W] moving, float[1, 2, H, W] fixed) => (moved, flow)
    {
        v0 = Sub (moving, fixed)
        v = Neg (v0)
        flow = edgekit.IntegrateVelocity <steps = 5> (v)
        moved = edgekit.Warp <order = 0, boundary = "zero"> (moving, flow)
    }"""


@pytest.mark.parametrize(
    ("shape", "dims"), [("1x2x16x24", (1, 2, 16, 24)), ("1x2x[16:64:16]x24", (1, 2, Dim(16, 64, 16), 24))]
)
def test_registration_ends_at_its_velocity(shape: str, dims: tuple[int | Dim, ...], tmp_path: Path) -> None:
    result = split(REGISTRATION, tmp_path, {"moving": shape, "fixed": shape})
    graph = result.graph
    assert result.notes == ("2 operators run as steps after the network: integrate_velocity, warp",)
    assert operators(graph) == ["Sub", "Neg"]
    assert graph.after == (
        Step("integrate_velocity", ("velocity_vox",), ("flow",), {"steps": 5, "boundary": "edge"}),
        Step("warp", ("moving", "flow"), ("moved",), {"order": 0, "boundary": "zero"}),
    )
    (velocity,) = graph.outputs
    assert (velocity.name, velocity.dims, velocity.quantity) == ("velocity_vox", dims, "velocity_vox")
    assert [spec.name for spec in graph.results] == ["moved", "flow"]
    assert [spec.dims for spec in graph.results] == [dims, dims]
    assert "edgekit" not in graph.model.opset_imports
    onnx.checker.check_model(onnx.load_from_string(graph.to_bytes()), full_check=True)


def test_the_network_gives_what_the_operator_would_have_read(tmp_path: Path) -> None:
    graph = split(REGISTRATION, tmp_path, {"moving": "1x2x4x5", "fixed": "1x2x4x5"}).graph
    rng = np.random.default_rng(0)
    moving, fixed = (rng.standard_normal((1, 2, 4, 5)).astype(np.float32) for _ in range(2))
    (velocity,) = ReferenceEvaluator(onnx.load_from_string(graph.to_bytes())).run(
        None, {"moving": moving, "fixed": fixed}
    )
    np.testing.assert_array_equal(velocity, fixed - moving)


def test_lengths_that_vary_keep_one_name(tmp_path: Path) -> None:
    shape = "1x2x[16:64:16]x24"
    network = split(REGISTRATION, tmp_path, {"moving": shape, "fixed": shape}).graph.model.graph
    values = (*network.inputs, *network.outputs)
    assert {str(value.shape[2]) for value in values if value.shape is not None} == {"H"}


def test_a_tensor_that_is_an_output_too_keeps_its_name(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] image) => (float[1, 2, 8, 8] velocity, float[1, 2, 8, 8] moved)
        {
            velocity = Neg (image)
            f = edgekit.IntegrateVelocity (velocity)
            moved = edgekit.Warp (image, f)
        }"""
    graph = split(text, tmp_path).graph
    assert [spec.name for spec in graph.outputs] == ["velocity"]
    assert graph.after[0].inputs == ("velocity",)
    assert [spec.name for spec in graph.results] == ["velocity", "moved"]


def test_other_outputs_stay_outputs(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] image) => (moved, float[1, 2, 8, 8] score)
        { flow = Neg (image)  score = Relu (flow)  moved = edgekit.Warp (image, flow) }"""
    graph = split(text, tmp_path).graph
    assert [spec.name for spec in graph.outputs] == ["score", "flow_vox"]
    assert [spec.name for spec in graph.results] == ["moved", "score"]


def test_an_input_that_only_steps_read_stays_an_input(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] pair, float[1, 1, 8, 8] label) => (moved)
        { flow = Neg (pair)  moved = edgekit.Warp <order = 0> (label, flow) }"""
    graph = split(text, tmp_path).graph
    assert [spec.name for spec in graph.inputs] == ["pair", "label"]
    assert [value.name for value in graph.model.graph.inputs] == ["pair", "label"]
    assert graph.after[0].inputs == ("label", "flow_vox")


def test_names_that_are_taken_are_not_taken_again(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] flow_vox) => (float[1, 2, 8, 8] moved)
        { inner = Neg (flow_vox)  moved = edgekit.Warp (flow_vox, inner) }"""
    graph = split(text, tmp_path).graph
    assert graph.after[0].inputs == ("flow_vox", "inner")
    assert [spec.name for spec in graph.outputs] == ["inner"]


def test_one_tensor_in_two_roles_is_one_output(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] x) => (moved)
        { u = Neg (x)  moved = edgekit.Warp (u, u) }"""
    graph = split(text, tmp_path).graph
    assert len(graph.outputs) == 1
    assert graph.after[0].inputs[0] == graph.after[0].inputs[1] == graph.outputs[0].name


def test_operators_in_the_middle_stay(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
        { flow = Neg (x)  a = edgekit.Warp (x, flow)  y = Relu (a) }"""
    result = split(text, tmp_path)
    assert not result.changed
    assert operators(result.graph) == ["Neg", "Warp", "Relu"]


def test_only_the_end_leaves(tmp_path: Path) -> None:
    text = """(float[1, 2, 8, 8] x) => (y)
        { f = Neg (x)  a = edgekit.Warp (x, f)  g = Relu (a)  y = edgekit.Warp (x, g) }"""
    result = split(text, tmp_path)
    assert operators(result.graph) == ["Neg", "Warp", "Relu"]
    assert "edgekit" in result.graph.model.opset_imports
    assert result.notes == ("1 operator runs as a step after the network: warp",)


def test_an_operator_that_reads_weights_stays(tmp_path: Path) -> None:
    text = """(float[1, 1, 2, 2] x) => (y) <float[1, 2, 2, 2] f = {0, 0, 0, 0, 0, 0, 0, 0}>
        { a = Relu (x)  y = edgekit.Warp (a, f) }"""
    assert not split(text, tmp_path).changed


def test_a_model_of_nothing_else_stays_and_says_so(tmp_path: Path) -> None:
    text = "(float[1, 1, 8, 8] image, float[1, 2, 8, 8] flow) => (y) { y = edgekit.Warp (image, flow) }"
    result = split(text, tmp_path)
    assert not result.changed
    assert "no network is left" in result.notes[0]


def test_operators_and_steps_are_one_list() -> None:
    """Where an operator is a step too, inputs, options and defaults have to agree."""
    steps = [operator for operator in opset.OPERATORS.values() if operator.step]
    assert len(steps) >= 4
    for operator in steps:
        step = STEPS[operator.step]
        assert step.inputs == len(operator.inputs)
        assert operator.attributes.keys() == step.defaults.keys() | step.required.keys()
        for name, default in operator.attributes.items():
            if isinstance(default, type):
                assert default in step.types(name)
            else:
                assert step.defaults[name] == default
