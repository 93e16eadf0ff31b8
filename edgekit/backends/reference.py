"""What a network means: NumPy alone, by onnx's reference evaluator; slow, and the judge of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgekit.backends.base import Artifact, ArtifactInfo, Backend, NetworkSession, Refusal
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target

_FILE = "model.onnx"


class Reference(Backend):
    """The reference evaluator, with the operators of :mod:`edgekit.backends.reference_ops`, ours among them.

    Its matrix products run on the threads that NumPy was started with (``OPENBLAS_NUM_THREADS``): it is
    there to be right, and nobody times it.
    """

    name: ClassVar[str] = "reference"
    title: ClassVar[str] = "NumPy reference"
    requirements = (Requirement("onnx", "onnx", "onnx", "1.21"),)
    domains = frozenset({"", opset.DOMAIN})
    any_target = True

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        return []

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        (out / _FILE).write_bytes(model.read_bytes())

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        from onnx.reference import ReferenceEvaluator

        from edgekit.backends.reference_ops import NEW_OPERATORS

        evaluator = ReferenceEvaluator(artifact.files[_FILE], new_ops=NEW_OPERATORS)
        return _Session(artifact.info, evaluator)


class _Session(NetworkSession):
    def __init__(self, info: ArtifactInfo, evaluator: Any) -> None:
        super().__init__(info)
        self._evaluator = evaluator
        self._last_use = _last_use(evaluator)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._evaluator is None:
            raise self.closed()
        try:
            values = self._evaluate(feeds)
        except Exception as error:
            raise self.failed(error) from error
        # An output may be an input, a constant or a view of either.
        return {spec.name: values[spec.name].copy() for spec in self.info.outputs}

    def _evaluate(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """The evaluator's own loop, except that a value is dropped after its last use.

        Without that a network keeps every intermediate volume it ever made.
        """
        values = {"": None, **self._evaluator.rt_inits_, **feeds}
        for index, node in enumerate(self._evaluator.rt_nodes_):
            inputs = [values[name] for name in node.input]
            context = {"context": values} if node.need_context() else {}
            values.update(zip(node.output, node.run(*inputs, **context), strict=False))
            for name in self._last_use.get(index, ()):
                values.pop(name, None)
        return values

    def close(self) -> None:
        self._evaluator = None


def _last_use(evaluator: Any) -> dict[int, list[str]]:
    """By number of a node, the names that nothing after it reads."""
    last: dict[str, int] = {}
    for index, node in enumerate(evaluator.rt_nodes_):
        for name in _names_read(node.onnx_node):
            last[name] = index
    kept = {"", *evaluator.output_names}
    by_node: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in kept:
            by_node.setdefault(index, []).append(name)
    return by_node


def _names_read(node: Any) -> Iterator[str]:
    """Names that a node or its subgraphs read."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _names_read(inner)
            yield from (output.name for output in graph.output)


BACKEND = Reference()
