"""Models in text: what must not be taken for a warp, a composition or an integration, and what is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nativized import CPU, SAMPLE, WARP, assert_equal, nativize, outputs, own, random_inputs
from onnx import numpy_helper, parser

from edgekit.backends.reference_ops import NEW_OPERATORS
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.spec import Array

MODEL = """<ir_version: 10, opset_import: ["" : 20]>
net (INPUTS) => (OUTPUTS)
{
    BEFORE
    at = Add (identity, flow)
    unit = Div (at, half)
    centred = Sub (unit, one)
    turned = Gather <axis = 1> (centred, xyz)
    grid = Transpose <perm = [0, 2, 3, 4, 1]> (turned)
    GRID
    moved = GridSample <align_corners = 1, mode = "linear"> (image, PLACES)
    AFTER
}
"""
VOLUME, VECTORS = "[1, 1, 3, 4, 5]", "[1, 3, 3, 4, 5]"


def model(
    folder: Path,
    changes: dict[str, str] | None = None,
    *,
    kind: type[np.generic] = np.float32,
    width: int = 5,
    version: int = 20,
    **parts: str,
) -> Graph:
    """The model with parts filled in and texts changed, constants of a type, another width, another opset."""
    defaults = {
        "INPUTS": f"float{VOLUME} image, float{VECTORS} flow",
        "OUTPUTS": f"float{VOLUME} moved",
        "PLACES": "grid",
        "BEFORE": "",
        "GRID": "",
        "AFTER": "",
    }
    given = {name.upper(): text for name, text in parts.items()}
    text = MODEL
    for old, new in (*(changes or {}).items(), *given.items()):
        assert old in text
        text = text.replace(old, new)
    for old, new in defaults.items():
        text = text.replace(old, new)
    text = text.replace("3, 4, 5]", f"3, 4, {width}]").replace('"" : 20', f'"" : {version}')
    proto = parser.parse_model(text)
    size = np.array([3, 4, width], np.float32).reshape(1, 3, 1, 1, 1)
    identity = np.indices((3, 4, width), np.float32)[None]
    constants: dict[str, Array] = {
        "identity": identity,
        "half": (size - 1) / 2,
        "size": size,
        "one": np.float32(1),
        "small": np.float32(0.1),
        "xyz": np.array([2, 1, 0]),
        "zxy": np.array([0, 2, 1]),
        "repair": identity - identity[:, :, ::-1],
        "axis": np.array([2]),
        "back": np.array([-1]),
        "end": np.array([-(2**40)]),
    }
    used = {name for node in proto.graph.node for name in node.input}
    for name, array in constants.items():
        if name in used:
            array = np.asarray(array)
            array = array.astype(kind) if array.dtype.kind == "f" else array
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    path = folder / "m.onnx"
    onnx.save(proto, path)
    return build_graph(proto, check_file(path)[1], "test")


@pytest.mark.parametrize("version", range(16, onnx.defs.onnx_opset_version() + 1))
def test_the_text_is_a_warp_in_every_operator_set(version: int, tmp_path: Path) -> None:
    mode = {} if version >= 20 else {'mode = "linear"': 'mode = "bilinear"'}
    graph = model(tmp_path, mode, version=version)
    result = nativize(graph)
    assert own(result.graph) == WARP
    assert_equal(graph, result.graph, 1e-5)


@pytest.mark.parametrize(
    ("version", "mode"), [(16, "bicubic"), (20, "cubic"), (16, "nearest"), (20, "nearest")]
)
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_attributes_keep_their_meaning(version: int, mode: str, padding: str, tmp_path: Path) -> None:
    changes = {'mode = "linear"': f'mode = "{mode}", padding_mode = "{padding}"'}
    result = nativize(model(tmp_path, changes, version=version))
    node = result.graph.model.graph[-1]
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    assert node.op_type == "GridSample3d"
    assert given == {"mode": mode.removeprefix("bi"), "padding_mode": padding, "align_corners": 1}


NOT_WARPS: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "scaled wrongly": ({"Div (at, half)": "Div (at, size)"}, {}, "not the voxel's own coordinate"),
    "shifted": ({"Sub (unit, one)": "Sub (unit, small)"}, {}, "not the voxel's own coordinate"),
    "axes swapped": ({"(centred, xyz)": "(centred, zxy)"}, {}, "not the voxel's own coordinate"),
    "bent": ({}, {"grid": "inside = Tanh (grid)", "places": "inside"}, "comes from Tanh"),
    "squared": ({}, {"grid": "twice = Mul (grid, grid)", "places": "twice"}, "comes from Mul"),
    "turned over": (
        {
            "unit = Div (at, half)": """over = Slice (at, back, end, axis, back)
            right = Add (over, repair)  unit = Div (right, half)"""
        },
        {},
        "displacement of other voxels",
    ),
    "given as it is": (
        {},
        {
            "inputs": f"float{VOLUME} image, float{VECTORS} flow, float[1, 3, 4, 5, 3] there",
            "places": "there",
        },
        "comes from 'there'",
    ),
    "constant": ({"Add (identity, flow)": "Add (identity, identity)"}, {}, "the grid is a constant"),
    "smaller than the image": (
        {},
        {"inputs": f"float[1, 1, 4, 4, 5] image, float{VECTORS} flow"},
        "samples an image of 4x4x5 at 3x4x5 places",
    ),
    "cubic": ({'mode = "linear"': 'mode = "cubic"'}, {}, "cubic kernel is another one"),
}


@pytest.mark.parametrize("name", NOT_WARPS)
def test_what_is_almost_a_warp_becomes_a_grid_sample(name: str, tmp_path: Path) -> None:
    changes, parts, reason = NOT_WARPS[name]
    graph = model(tmp_path, changes, **parts)
    result = nativize(graph)
    assert own(result.graph) == SAMPLE
    (_, note) = result.notes
    assert reason in note
    assert_equal(graph, result.graph, 1e-5)


# Differences from the plain warp, operators of ONNX that are to be left.
WARPS: dict[str, tuple[dict[str, str], list[str]]] = {
    "scaled by another number": (
        {"(identity, flow)": "(identity, f)", "BEFORE": "f = Mul (flow, small)"},
        ["Mul"],
    ),
    "of what a network makes": ({"(identity, flow)": "(identity, f)", "BEFORE": "f = Tanh (flow)"}, ["Tanh"]),
    "reordered": (
        {"(identity, flow)": "(identity, f)", "BEFORE": "f = Gather <axis = 1> (flow, zxy)"},
        ["Gather"],
    ),
    "negative": ({"Add (identity, flow)": "Sub (identity, flow)"}, ["Mul"]),
    "added twice": (
        {"unit = Div (at, half)": "more = Add (at, flow)  unit = Div (more, half)"},
        ["Mul"],
    ),
    "of a sum": (
        {"(identity, flow)": "(identity, f)", "BEFORE": "t = Tanh (flow)  f = Add (t, flow)"},
        ["Tanh", "Add"],
    ),
    "of a part": (
        {
            "(identity, flow)": "(identity, f)",
            "BEFORE": """pair = Concat <axis = 1> (image, flow)  t = Tanh (pair)
                f, rest = Split <axis = 1, num_outputs = 2> (t)""",
            "INPUTS": f"float[1, 3, 3, 4, 5] image, float{VECTORS} flow",
            "OUTPUTS": f"float{VECTORS} moved",
        },
        ["Concat", "Tanh", "Split"],
    ),
}


@pytest.mark.parametrize("name", WARPS)
def test_a_warp_by_another_field(name: str, tmp_path: Path) -> None:
    changes, left = WARPS[name]
    graph = model(tmp_path, changes)
    result = nativize(graph)
    assert [node.op_type for node in result.graph.model.graph] == [*left, "Warp"]
    assert_equal(graph, result.graph, 1e-5)


SUM = {"(image, PLACES)": "(other, PLACES)", "AFTER": "sum = Add (flow, moved)"}


def test_a_field_and_another_one_warped_by_it_are_composed(tmp_path: Path) -> None:
    inputs = f"float{VECTORS} other, float{VECTORS} flow"
    graph = model(tmp_path, SUM, inputs=inputs, outputs=f"float{VECTORS} sum")
    result = nativize(graph)
    (node,) = result.graph.model.graph
    assert (node.op_type, [v.name for v in node.inputs if v]) == ("Compose", ["flow", "other"])
    assert node.attributes["boundary"].value == "zero"
    assert_equal(graph, result.graph, 1e-5)


NOT_COMPOSED = {
    "the warped field is a result too": (
        {},
        f"float{VECTORS} other, float{VECTORS} flow",
        f"float{VECTORS} sum, float{VECTORS} moved",
    ),
    "another field is added": (
        {"Add (flow, moved)": "Add (other, moved)"},
        f"float{VECTORS} other, float{VECTORS} flow",
        f"float{VECTORS} sum",
    ),
    "an image is warped": ({}, f"float{VOLUME} other, float{VECTORS} flow", f"float{VECTORS} sum"),
}


@pytest.mark.parametrize("name", NOT_COMPOSED)
def test_what_is_almost_a_composition_stays_a_warp(name: str, tmp_path: Path) -> None:
    changes, inputs, results = NOT_COMPOSED[name]
    parts = {key: value for key, value in SUM.items()}
    for old, new in changes.items():
        parts["AFTER"] = parts["AFTER"].replace(old, new)
    graph = model(tmp_path, parts, inputs=inputs, outputs=results)
    result = nativize(graph)
    assert sorted(node.op_type for node in result.graph.model.graph) == ["Add", "Warp"]
    assert_equal(graph, result.graph, 1e-5)


def small(text: str, folder: Path, version: int = 20) -> Graph:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {version}, "edgekit" : 1]> net {text}')
    path = folder / "m.onnx"
    onnx.save(proto, path)
    return build_graph(proto, check_file(path)[1], "test")


SQUARED = """(float[1, 3, 3, 4, 5] v) => (RESULTS) <float k = {0.25}>
{ s = Mul (v, k)  a = edgekit.Compose (s, s)  b = edgekit.Compose (a, a) }"""
INTEGRALS = {
    "all of it": ({"RESULTS": f"float{VECTORS} b"}, ["IntegrateVelocity"]),
    "halfway is a result": (
        {"RESULTS": f"float{VECTORS} a, float{VECTORS} b"},
        ["Mul", "Compose", "Compose"],
    ),
    "other boundaries": (
        {"RESULTS": f"float{VECTORS} b", "(a, a)": '<boundary = "zero"> (a, a)'},
        ["Mul", "Compose", "Compose"],
    ),
    "halfway is read": (
        {"RESULTS": f"float{VECTORS} c", "(a, a)": "(a, a)  c = Add (a, b)"},
        ["Mul", "Compose", "Compose", "Add"],
    ),
    "no scale": (
        {"RESULTS": f"float{VECTORS} b", "Mul (v, k)": "Tanh (v)"},
        ["Tanh", "Mul", "IntegrateVelocity"],
    ),
    "divided": (
        {"RESULTS": f"float{VECTORS} b", "Mul (v, k)": "Div (v, k)", "0.25": "4"},
        ["IntegrateVelocity"],
    ),
}


@pytest.mark.parametrize("name", INTEGRALS)
def test_repeated_squaring(name: str, tmp_path: Path) -> None:
    changes, operators = INTEGRALS[name]
    text = SQUARED
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    graph = small(text, tmp_path)
    result = nativize(graph)
    assert [node.op_type for node in result.graph.model.graph] == operators
    for feeds in random_inputs(graph):
        pairs = zip(*(outputs(one, feeds, NEW_OPERATORS) for one in (graph, result.graph)), strict=True)
        for wanted, got in pairs:
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_sampling_in_two_dimensions_and_in_float64_stays(tmp_path: Path) -> None:
    flat = """(float[1, 1, 4, 5] image, float[1, 4, 5, 2] grid) => (float[1, 1, 4, 5] moved)
        { moved = GridSample (image, grid) }"""
    result = nativize(small(flat, tmp_path))
    assert (result.changed, result.notes) == (False, ())
    double = """(double[1, 1, 3, 4, 5] image, double[1, 3, 4, 5, 3] grid) => (double[1, 1, 3, 4, 5] moved)
        { [s] moved = GridSample (image, grid) }"""
    result = nativize(small(double, tmp_path))
    assert (result.changed, result.notes) == (False, ("s stays GridSample: it computes in double",))


def test_sampling_in_a_body_stays(tmp_path: Path) -> None:
    text = """(bool[1] which, float[1, 1, 3, 4, 5] image, float[1, 3, 4, 5, 3] grid)
        => (float[1, 1, 3, 4, 5] moved)
        { moved = If (which) <
            then_branch = yes () => (float[1, 1, 3, 4, 5] a) { [s] a = GridSample (image, grid) },
            else_branch = no () => (float[1, 1, 3, 4, 5] b) { b = Neg (image) }> }"""
    result = nativize(small(text, tmp_path))
    assert (result.changed, result.notes) == (
        False,
        ("s stays GridSample: it is inside the body of another operator",),
    )


HALF = {
    "INPUTS": "float16[1, 1, 3, 4, 5] image, TYPE[1, 3, 3, 4, 5] flow",
    "OUTPUTS": "float16[1, 1, 3, 4, 5] moved",
}


def test_float16_hides_no_other_convention(tmp_path: Path) -> None:
    """Over 200 voxels the two conventions differ by less than a few roundings of float16."""
    changes = {name: text.replace("TYPE", "float16") for name, text in HALF.items()}
    assert own(nativize(model(tmp_path, changes, kind=np.float16, width=200)).graph) == WARP
    changes["align_corners = 1"] = "align_corners = 0"
    result = nativize(model(tmp_path, changes, kind=np.float16, width=200))
    assert own(result.graph) == SAMPLE
    assert "normalised for align_corners=1" in result.notes[1]


def test_two_types_are_joined_in_the_wider_one(tmp_path: Path) -> None:
    changes = {name: text.replace("TYPE", "float") for name, text in HALF.items()}
    graph = model(tmp_path, changes)
    result = nativize(graph)
    assert [node.op_type for node in result.graph.model.graph] == ["Cast", "Warp", "Cast"]
    assert_equal(graph, result.graph, 5e-3)


def test_a_warp_in_float16_is_no_step(tmp_path: Path) -> None:
    changes = {name: text.replace("TYPE", "float16") for name, text in HALF.items()}
    changes["(image, PLACES)"] = "(negative, PLACES)"
    graph = model(tmp_path, changes, kind=np.float16, before="negative = Neg (image)")
    result = run_all(default_passes(CPU), graph, CPU)
    assert [node.op_type for node in result.graph.model.graph] == ["Neg", "Warp"]
    assert result.graph.after == ()
    # The grid of the original is rounded to float16, a voxel to 1/1000.
    assert_equal(graph, result.graph, 2e-2)
