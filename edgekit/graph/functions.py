"""Functions that a model brings along: replaced by their bodies, so that nothing after this meets them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgekit.errors import GraphError, UnsupportedError
from edgekit.graph.intake import IntakeLimits, first_line, inner_graphs
from edgekit.graph.wire import check_text

if TYPE_CHECKING:
    import onnx

_DEEPEST_CALL = 64

Key = tuple[str, str]


def inline(model: onnx.ModelProto, limits: IntakeLimits, where: str) -> onnx.ModelProto:
    """The model with calls of its functions replaced by their bodies, after counting what that makes.

    Raises:
        GraphError: Functions that call themselves, multiply beyond the limit or are malformed.
        UnsupportedError: A function wants another version of an operator set than the model.
    """
    if not model.functions:
        return model
    from onnx import inliner

    versions = _versions(model, where)
    nodes = _Sizes(model, where).count(model.graph.node)
    if nodes > limits.nodes:
        raise GraphError(
            f"too large a graph: want at most {limits.nodes} nodes, got {nodes} after inlining functions",
            where=where,
        )
    try:
        inlined: onnx.ModelProto = inliner.inline_local_functions(model)
    except Exception as error:  # noqa: BLE001 - bare RuntimeError and onnx's own classes
        raise GraphError(f"functions cannot be inlined: {first_line(error)}", where=where) from None
    inlined.ClearField("functions")
    inlined.ClearField("opset_import")
    for domain, version in versions.items():
        inlined.opset_import.add(domain=domain, version=version)
    return inlined


def _versions(model: onnx.ModelProto, where: str) -> dict[str, int]:
    """Version of each operator set that the model or a function imports, the functions' own ones left out."""
    check_text(where, *(entry.domain for entry in model.opset_import))
    own = {function.domain for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain not in own}
    for function in model.functions:
        imported = [entry.domain for entry in function.opset_import]
        check_text(where, function.domain, function.name, *imported)
        for entry in function.opset_import:
            if entry.domain not in own and versions.setdefault(entry.domain, entry.version) != entry.version:
                raise UnsupportedError(
                    f"function {function.name[:60]!r} wants another version of {entry.domain[:60]!r}",
                    where=where,
                )
    return versions


class _Sizes:
    """Number of nodes that each function becomes. Counting is linear; what is counted can be exponential."""

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        self.where = where
        self.functions: dict[Key, onnx.FunctionProto] = {}
        for function in model.functions:
            key = (function.domain, function.name)
            if key in self.functions:
                raise GraphError(f"function {function.name[:60]!r} is defined twice", where=where)
            self.functions[key] = function
        self._sizes: dict[Key, int] = {}
        self._active: set[Key] = set()

    def count(self, nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            check_text(self.where, node.op_type, node.domain, *node.input, *node.output)
            key = (node.domain, node.op_type)
            total += self._size(key) if key in self.functions else 1
            total += sum(self.count(inner.node) for a in node.attribute for inner in inner_graphs(a))
        return total

    def _size(self, key: Key) -> int:
        if key in self._active:
            raise GraphError(f"function {key[1][:60]!r} calls itself", where=self.where)
        if len(self._active) > _DEEPEST_CALL:
            raise GraphError(f"functions call each other deeper than {_DEEPEST_CALL}", where=self.where)
        if key not in self._sizes:
            self._active.add(key)
            self._sizes[key] = self.count(self.functions[key].node)
            self._active.remove(key)
        return self._sizes[key]
