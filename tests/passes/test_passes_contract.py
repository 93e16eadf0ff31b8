"""What every pass must keep, and what the base does with one that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from edgekit import target as targets
from edgekit.errors import GraphError, InternalError, PassError
from edgekit.graph.graph import Graph
from edgekit.graph.intake import OLDEST_OPSET
from edgekit.graph.load import build_graph, check_file
from edgekit.passes import PASSES, default_passes
from edgekit.passes.base import Pass, PassResult, run_all
from edgekit.spec import Array
from edgekit.target import Target

MODELS = {
    "nothing to do": "(float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }",
    "constants to fold": """(float[1, 4] x) => (float[1, 4] y) <float[4] w = {1, 2, 3, 4}>
        { a = Neg (w)  b = Mul (a, w)  y = Add (x, b) }""",
    "does nothing": """(float[1, 4] x) => (float[1, 4] y)
        { a = Identity (x)  b = Dropout (a)  y = Neg (b) }""",
    "twice the same": """(float[1, 4] x) => (float[1, 4] y)
        { a = Relu (x)  b = Relu (x)  y = Add (a, b) }""",
    "output is an input": "(float[1, 4] x) => (float[1, 4] y) { y = Identity (x) }",
    "two names of one tensor": """(float[1, 4] x) => (float[1, 4] y, float[1, 4] z)
        { y = Relu (x)  z = Identity (y) }""",
    "two names of an input": """(float[1, 4] x) => (float[1, 4] y, float[1, 4] z)
        { y = Identity (x)  z = Identity (y) }""",
    "outputs that change places": """(float[1, 4] x) => (float[1, 4] y, float[1, 4] z)
        { a = Relu (x)  b = Neg (x)  z = Identity (a)  y = Identity (b) }""",
    "a constant output": """(float[1, 4] x) => (float[1, 4] y, float[2] z)
        { y = Relu (x)  z = Constant <value = float[2] {1, 2}> () }""",
    "shape arithmetic": """(float[2, 6] x) => (float[3, 4] y)
        <int64[1] i = {0}, int64[1] two = {2}, int64[1] m = {3}>
        { s = Shape (x)  n = Gather (s, i)  k = Mul (n, two)
          t = Concat <axis = 0> (m, k)  y = Reshape (x, t) }""",
    "unused": "(float[1, 4] x, float[1, 4] spare) => (float[1, 4] y) { a = Exp (x)  y = Relu (x) }",
}


@pytest.fixture
def cpu() -> Target:
    return targets.find("cpu")


def graph_of(text: str, folder: Path, version: int = 20) -> Graph:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {version}, "edgekit" : 1]> net {text}')
    path = folder / "m.onnx"
    onnx.save(model, path)
    return build_graph(model, check_file(path)[1], "test")


def run(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    names = [spec.name for spec in graph.outputs]
    return dict(
        zip(names, ReferenceEvaluator(onnx.load_from_string(graph.to_bytes())).run(names, feeds), strict=True)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("model", MODELS)
def test_a_pass_keeps_the_function_and_is_honest(name: str, model: str, tmp_path: Path, cpu: Target) -> None:
    graph = graph_of(MODELS[model], tmp_path)
    before = graph.to_bytes()
    result = PASSES[name]().run(graph, cpu)
    assert graph.to_bytes() == before
    assert result.changed == (result.graph.digest() != graph.digest())
    assert (result.graph.inputs, result.graph.results) == (graph.inputs, graph.results)
    rng = np.random.default_rng(0)
    feeds = {s.name: rng.standard_normal(s.smallest_shape).astype(s.dtype) for s in graph.inputs}
    after = run(result.graph, feeds)
    for tensor, wanted in run(graph, feeds).items():
        np.testing.assert_allclose(after[tensor], wanted, rtol=1e-6)
    onnx.checker.check_model(onnx.load_from_string(result.graph.to_bytes()), full_check=True)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("version", range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1))
def test_every_operator_set_is_understood(name: str, version: int, tmp_path: Path, cpu: Target) -> None:
    graph = graph_of(MODELS["shape arithmetic"], tmp_path, version)
    result = PASSES[name]().run(graph, cpu).graph
    onnx.checker.check_model(onnx.load_from_string(result.to_bytes()), full_check=True)
    feeds: dict[str, Array] = {"x": np.arange(12, dtype=np.float32).reshape(2, 6)}
    np.testing.assert_array_equal(run(result, feeds)["y"], run(graph, feeds)["y"])


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("model", MODELS)
def test_a_second_run_changes_nothing(name: str, model: str, tmp_path: Path, cpu: Target) -> None:
    once = PASSES[name]().run(graph_of(MODELS[model], tmp_path), cpu).graph
    assert not PASSES[name]().run(once, cpu).changed


def test_the_default_passes_are_registered_and_noted(tmp_path: Path, cpu: Target) -> None:
    passes = default_passes(cpu)
    names = [one.name for one in passes]
    assert names == [name for name in PASSES if name in names]
    graph = graph_of(MODELS["constants to fold"], tmp_path)
    result = run_all(passes, graph, cpu)
    assert result.changed
    assert result.notes == ("simplify: 3 nodes became 1",)
    assert result.graph.history == ("test", "simplify: 3 nodes became 1")


def make(work: Callable[[Graph], PassResult], **hooks: str) -> Pass:
    class Made(Pass):
        name = "made"

        def requires(self, graph: Graph, target: Target) -> str | None:
            return hooks.get("requires")

        def _run(self, graph: Graph, target: Target) -> PassResult:
            return work(graph)

        def ensures(self, graph: Graph, target: Target) -> str | None:
            return hooks.get("ensures")

    return Made()


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return graph_of(MODELS["constants to fold"], tmp_path)


def test_a_requirement_that_fails_is_the_users_error(graph: Graph, cpu: Target) -> None:
    made = make(lambda g: PassResult(g, False), requires="wants fixed shapes")
    with pytest.raises(PassError, match="made cannot run: wants fixed shapes") as caught:
        made.run(graph, cpu)
    assert caught.value.where == "after test"


def test_a_broken_promise_is_our_bug(graph: Graph, cpu: Target) -> None:
    with pytest.raises(InternalError, match="made broke its promise"):
        make(lambda g: PassResult(g, False), ensures="lost an output").run(graph, cpu)


def test_saying_changed_without_change_is_our_bug(graph: Graph, cpu: Target) -> None:
    with pytest.raises(InternalError, match="says changed=True"):
        make(lambda g: PassResult(g, True)).run(graph, cpu)


def test_changing_without_saying_so_is_our_bug(graph: Graph, cpu: Target) -> None:
    with pytest.raises(InternalError, match="says changed=False"):
        make(lambda g: PassResult(g.with_model(g.edit(), "x"), False)).run(graph, cpu)


def test_changing_the_graph_that_came_in_is_our_bug(graph: Graph, cpu: Target) -> None:
    def work(given: Graph) -> PassResult:
        given.model.graph.inputs[0].name = "other"
        return PassResult(given, False)

    with pytest.raises(InternalError, match="changed the graph it was given"):
        make(work).run(graph, cpu)


def test_another_exception_names_the_pass(graph: Graph, cpu: Target) -> None:
    def work(given: Graph) -> PassResult:
        raise KeyError("weights")

    with pytest.raises(PassError, match=r"made failed: KeyError: 'weights'"):
        make(work).run(graph, cpu)


def test_an_error_of_ours_passes_through(graph: Graph, cpu: Target) -> None:
    def work(given: Graph) -> PassResult:
        raise GraphError("as it was")

    with pytest.raises(GraphError, match="as it was"):
        make(work).run(graph, cpu)
