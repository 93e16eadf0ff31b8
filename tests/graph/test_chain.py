"""Two networks as one: the same numbers as one after the other, in every version of ONNX's operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from edgekit.errors import GraphError, SpecError
from edgekit.graph.chain import chain
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.spec import Array

NEWEST = onnx.defs.onnx_opset_version()

FRONT = """(float[1, 1, H, W] x) => (float[1, 1, H, W] y)
    <int64[3] axes = {1, 2, 3}, int64[1] rows = {3}, float low = {0.1}, float[1, 1, 1, 1] w = {2}>
    {
        mean = ReduceMean <keepdims = 1> (x, axes)
        row = ReduceMean <keepdims = 1, noop_with_empty_axes = 0> (x, rows)
        a = Sub (x, mean)
        b = Add (a, row)
        c = Clip (b, low)
        y = Conv (c, w)
    }"""
MODEL = """(float[1, 1, H, W] image, float[1, 1, H, W] other)
    => (float[1, 1, H, W] out, float[1, 1, H, W] neg)
    { y = Relu (image)  out = Add (y, other)  neg = Neg (image) }"""


def graph_of(text: str, folder: Path, *, opset: int = 20, length: str = "6", imports: str = "") -> Graph:
    imports = imports or f'"" : {opset}, "edgekit" : 1'
    model = parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> net {text}")
    names = [value.name for value in model.graph.input]
    path = folder / "m.onnx"
    onnx.save(model, path)
    shapes = {name: f"1x1x{length}x4" for name in names}
    return build_graph(model, check_file(path, shapes)[1], "test")


def run(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    model = onnx.load_from_string(graph.to_bytes())
    onnx.checker.check_model(model, full_check=True)
    names = [spec.name for spec in graph.outputs]
    return dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True))  # type: ignore[arg-type]


def feeds(*names: str) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((1, 1, 6, 4)).astype(np.float32) for name in names}


@pytest.mark.parametrize("length", ["6", "[2:6:2]"])
@pytest.mark.parametrize("opset", range(11, NEWEST + 1))
def test_one_after_the_other(opset: int, length: str, tmp_path: Path) -> None:
    first = graph_of(FRONT, tmp_path, length=length)
    second = graph_of(MODEL, tmp_path, opset=opset, length=length)
    before = first.to_bytes(), second.to_bytes()
    chained = chain(first, second, at="image", title="front")
    assert (first.to_bytes(), second.to_bytes()) == before
    assert (chained.inputs, chained.outputs, chained.given) == (second.inputs, second.outputs, second.given)
    assert chained.model.opset_imports[""] == opset
    assert chained.history == ("test", "front runs in front of the network, on image")
    given = feeds("image", "other")
    between = run(first, {"x": given["image"]})["y"]
    wanted = run(second, {"image": between, "other": given["other"]})
    for name, array in run(chained, given).items():
        np.testing.assert_array_equal(array, wanted[name])
    made = {output.name for node in chained.model.graph for output in node.outputs}
    assert {"front/image/y", "front/image/mean", "y"} <= made


def test_twice_in_front_of_one_input_and_once_of_another(tmp_path: Path) -> None:
    first, graph = graph_of(FRONT, tmp_path), graph_of(MODEL, tmp_path)
    for at in ("image", "image", "other"):
        graph = chain(first, graph, at=at, title="front")
    given = feeds("image", "other")
    twice = run(first, {"x": run(first, {"x": given["image"]})["y"]})["y"]
    np.testing.assert_array_equal(run(graph, given)["neg"], -twice)
    assert len(graph.history) == 4


def test_a_subgraph_reads_what_the_front_made(tmp_path: Path) -> None:
    model = """(float[1, 1, H, W] x) => (float[1, 1, H, W] out) <bool yes = {1}>
        {
            out = If (yes) <
                then_branch = a () => (float[1, 1, H, W] t) { t = Neg (x) },
                else_branch = b () => (float[1, 1, H, W] e) { e = Relu (x) }
            >
        }"""
    first, second = graph_of(FRONT, tmp_path), graph_of(model, tmp_path)
    given = feeds("x")
    (out,) = run(chain(first, second, at="x", title="front"), given).values()
    np.testing.assert_array_equal(out, -run(first, given)["y"])


@pytest.mark.parametrize("imports", ['"ai.onnx" : 18', '"edgekit" : 1'])
def test_the_version_may_have_another_name_or_none(imports: str, tmp_path: Path) -> None:
    own = "(float[1, 2, 6, 4] x) => (y) { y = edgekit.IntegrateVelocity (x) }"
    text = own if "edgekit" in imports else MODEL
    model = parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> net {text}")
    onnx.save(model, tmp_path / "m.onnx")
    names = [value.name for value in model.graph.input]
    shape = "1x2x6x4" if "edgekit" in imports else "1x1x6x4"
    found = check_file(tmp_path / "m.onnx", dict.fromkeys(names, shape))[1]
    second = build_graph(model, found, "test")
    channels = shape[2]
    front = f"(float[1, {channels}, H, W] x) => (float[1, {channels}, H, W] y) {{ y = Clip (x) }}"
    onnx.save(
        parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> net {front}'), tmp_path / "f.onnx"
    )
    first = build_graph(
        onnx.load(tmp_path / "f.onnx"), check_file(tmp_path / "f.onnx", {"x": shape})[1], "test"
    )
    chained = chain(first, second, at=names[0], title="front")
    onnx.checker.check_model(onnx.load_from_string(chained.to_bytes()))
    assert [node.op_type for node in chained.model.graph][:1] == ["Clip"]


@pytest.mark.parametrize(
    "front, opset, what",
    [
        (FRONT, 10, "opset 10, which the model has: want 11 or later"),
        ("(float[1, 1, H, W] x) => (float[1, 1, H, W] y) { y = Mish (x) }", 17, "opset 17"),
        ("(float[1, 1, H, W] x) => (float[1, 1, H, W] y) { y = Tanh (x) }", 17, "it has Tanh"),
        (
            """(float[1, 1, H, W] x) => (float[1, 1, H, W] y)
            { m = ReduceMean <keepdims = 1, noop_with_empty_axes = 1> (x)  y = Add (m, x) }""",
            17,
            "it has ReduceMean",
        ),
    ],
)
def test_what_an_old_version_cannot_say_is_refused(front: str, opset: int, what: str, tmp_path: Path) -> None:
    first, second = graph_of(front, tmp_path), graph_of(MODEL, tmp_path, opset=opset)
    with pytest.raises(GraphError, match=what) as caught:
        chain(first, second, at="image", title="front")
    assert caught.value.hint == "export the model with opset 20" and caught.value.where == "front"


@pytest.mark.parametrize(
    "front",
    [
        "(float[1, 1, H, W] x) => (float[1, 1, W, H] y) { y = Transpose <perm = [0, 1, 3, 2]> (x) }",
        "(float[1, 1, H, W] x) => (double[1, 1, H, W] y) { y = Cast <to = 11> (x) }",
        "(float[1, 1, H, W] x, float[1, 1, H, W] z) => (float[1, 1, H, W] y) { y = Add (x, z) }",
        "(float[1, 1, H, W] x) => (float[1, 1, H, W] y, float[1, 1, H, W] z) { y = Neg (x)  z = Relu (x) }",
    ],
)
def test_ends_that_do_not_fit_are_refused(front: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="one such input and one such output, got x: float32 1x1x6x4"):
        chain(graph_of(front, tmp_path), graph_of(MODEL, tmp_path), at="image", title="front")
