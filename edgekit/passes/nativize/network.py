"""The network under the pass: shapes of its tensors, what depends on the inputs, proofs about parts of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.graph import interface, shapes
from edgekit.graph.graph import Graph
from edgekit.graph.intake import IntakeLimits
from edgekit.passes.nativize.affine import (
    OPERATORS,
    Affine,
    NotAffine,
    Shape,
    Tensor,
    attribute,
    evaluate,
    leaf_of,
    operands,
)
from edgekit.passes.nativize.constants import evaluate_constant
from edgekit.spec import Array, Dim

if TYPE_CHECKING:
    import onnx_ir as ir

_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
# Constants of more elements are computed anew for each grid rather than kept.
_KEPT = 1 << 20


class Network:
    """The network under the pass, with the shapes of its tensors at one or more sizes of the inputs.

    Attributes:
        graph: It.
        sizes: By name of a tensor its element type and shape, for each choice of lengths that vary.
    """

    def __init__(self, graph: Graph, model: ir.Model) -> None:
        import onnx_ir as ir

        self.graph = model.graph
        self.opsets = {("" if d == "ai.onnx" else d): v for d, v in model.opset_imports.items()}
        proto = ir.serde.serialize_model(model)
        self.sizes = [
            shapes.infer_all(proto, lengths, IntakeLimits(), "nativize") for lengths in _choices(graph)
        ]
        self._varying = self._find_varying()
        self._digests: dict[ir.Value, str] = {}
        self._constants: list[dict[ir.Value, Array]] = [{} for _ in self.sizes]
        self._proved: dict[tuple[Any, ...], list[Affine] | NotAffine] = {}

    def shapes(self, value: ir.Value) -> list[Shape]:
        """The shape of a tensor at each size; empty where it is not known."""
        found = [table.get(str(value.name)) for table in self.sizes]
        return [one[1] for one in found if one is not None] if None not in found else []

    def add(self, new: ir.Value, sizes: Sequence[Shape]) -> None:
        """A new tensor, that depends on the inputs, has these shapes."""
        import onnx_ir as ir

        self._varying.add(new)
        for table, shape in zip(self.sizes, sizes, strict=True):
            table[str(new.name)] = (int(new.dtype or ir.DataType.UNDEFINED), shape)

    def constant(self, value: ir.Value | None) -> Array | None:
        """What a tensor is, if that is the same whatever the inputs are."""
        if value is None or value in self._varying:
            return None
        try:
            found = [self._computed(value, number) for number in range(len(self.sizes))]
        except NotAffine:
            return None
        return found[0] if all(np.array_equal(found[0], one) for one in found[1:]) else None

    def annotate(self) -> None:
        """Write types and shapes into the network where it does not say them."""
        import onnx_ir as ir

        for value in (v for node in self.graph for v in node.outputs):
            found = [table.get(str(value.name)) for table in self.sizes]
            if value.type is None and found[0] is not None:
                value.type = ir.TensorType(ir.DataType(found[0][0]))
            sizes = self.shapes(value)
            if value.shape is None and sizes and len({len(shape) for shape in sizes}) == 1:
                lengths = [set(axis) for axis in zip(*sizes, strict=True)]
                value.shape = ir.Shape([axis.pop() if len(axis) == 1 else None for axis in lengths])

    def _find_varying(self) -> set[ir.Value]:
        """Tensors that depend on more than the inputs' shapes."""
        varying = set(self.graph.inputs)
        for node in self.graph:
            bodies = any(_has_body(a) for a in node.attributes.values())
            if bodies or node.domain or node.op_type in _RANDOM or any(v in varying for v in operands(node)):
                varying.update(node.outputs)
        return varying

    # --- the cone behind a grid ---

    def back(self, value: ir.Value) -> list[ir.Value]:
        """What a tensor is made of by operators that may be affine; nothing where it ends."""
        node = value.producer()
        if node is None or node.domain or node.op_type not in OPERATORS:
            return []
        varying = [v for v in operands(node) if v is not None and v in self._varying]
        moves = {"Add", "Sub", "Sum", "Concat", "ScatterElements", "ScatterND"}
        return varying if len(varying) == 1 or node.op_type in moves else []

    def cuts(self, grid: ir.Value) -> Iterator[ir.Value]:
        """Tensors that all of the grid goes through, the one furthest back first."""
        if grid not in self._varying:
            return
        cone = self._cone(grid)
        found = [value for value in cone if not _reaches_an_end(cone, grid, value)]
        # One lies behind the other, and the other is then reachable without the one.
        yield from sorted(found, key=lambda value: _count_behind(cone, value))

    def ends(self, grid: ir.Value) -> str:
        """Where the cone behind a grid ends, in words."""
        found = [value for value, behind in self._cone(grid).items() if not behind]
        makers = [value.producer() for value in found[:3]]
        words = [
            repr(value.name) if node is None else f"{node.op_type} {node.name!r}"
            for value, node in zip(found, makers, strict=False)
        ]
        return ", ".join(words) + (", …" if len(found) > len(words) else "")

    def _cone(self, grid: ir.Value) -> dict[ir.Value, list[ir.Value]]:
        cone: dict[ir.Value, list[ir.Value]] = {}
        waiting = [grid]
        while waiting:
            value = waiting.pop()
            if value not in cone:
                cone[value] = self.back(value)
                waiting += cone[value]
        return cone

    # --- proofs ---

    def prove(self, grid: ir.Value, leaf: ir.Value) -> list[Affine]:
        """The grid in terms of a leaf, at each size.

        Raises:
            NotAffine: It is not.
        """
        shapes_of_leaf = self.shapes(leaf)
        key = (self._digest(grid, leaf, {}), tuple(shapes_of_leaf))
        if key not in self._proved:
            try:
                self._proved[key] = [self._evaluate(grid, leaf, number) for number in range(len(self.sizes))]
            except NotAffine as why:
                self._proved[key] = why
        found = self._proved[key]
        if isinstance(found, NotAffine):
            raise found
        return found

    def _evaluate(self, grid: ir.Value, leaf: ir.Value, number: int) -> Affine:
        found = self._run(grid, leaf, leaf_of(self.shapes(leaf)[number]), number)
        if not isinstance(found, Affine):
            raise NotAffine("the grid does not depend on the field")
        return found

    def _computed(self, value: ir.Value, number: int) -> Array:
        found = self._run(value, None, None, number)
        assert found is not None and not isinstance(found, Affine)
        return found

    def _run(
        self, wanted: ir.Value, leaf: ir.Value | None, start: Affine | None, number: int
    ) -> Tensor | None:
        """Evaluate what is between a leaf and a tensor, at one size."""
        known: dict[ir.Value, Tensor] = {}
        if leaf is not None and start is not None:
            known[leaf] = start
        constants = self._constants[number]
        needed = _needed(wanted, leaf)
        readers = _last_readers(needed)
        for node in needed:
            if all(value in constants for value in node.outputs):
                continue
            inputs = [None if v is None else self._known(v, known, number) for v in operands(node)]
            for value, result in zip(node.outputs, self._node(node, inputs, start, number), strict=False):
                known[value] = result
                if not isinstance(result, Affine) and result.size <= _KEPT:
                    constants[value] = result
            for value in readers.get(node, ()):
                if value is not wanted:
                    known.pop(value, None)
        return self._known(wanted, known, number)

    def _node(
        self, node: ir.Node, inputs: Sequence[Tensor | None], start: Affine | None, number: int
    ) -> Sequence[Tensor]:
        if node.op_type in ("Shape", "Size") and not node.domain:
            return [self._measured(node, number)]
        if start is not None and any(isinstance(one, Affine) for one in inputs):
            return evaluate(node, inputs, len(start.shape))
        known = [one for one in inputs if not isinstance(one, Affine)]
        if node.op_type == "CastLike":
            return [np.asarray(known[0]).astype(self._numpy_type(node.inputs[1]))]
        return evaluate_constant(node, known, self.opsets)

    def _known(self, value: ir.Value, known: Mapping[ir.Value, Tensor], number: int) -> Tensor | None:
        for table in (known, self._constants[number]):
            if value in table:
                return table[value]
        if value.const_value is not None:
            return value.const_value.numpy()
        return None

    def _numpy_type(self, value: ir.Value | None) -> np.dtype[Any]:
        import onnx_ir as ir

        found = self.sizes[0].get(str(value.name)) if value is not None else None
        if found is None:
            raise NotAffine(f"the type of {value.name if value else ''!r} is not known")
        return ir.DataType(found[0]).numpy()

    def _measured(self, node: ir.Node, number: int) -> Array:
        value = node.inputs[0]
        shape = self.shapes(value)[number] if value is not None and self.shapes(value) else None
        if shape is None:
            raise NotAffine(f"the shape of {value.name if value else ''!r} is not known")
        if node.op_type == "Size":
            return np.array(np.prod(shape, dtype=np.int64))
        return np.array(shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))], np.int64)

    def _digest(self, value: ir.Value, leaf: ir.Value, seen: dict[ir.Value, str]) -> str:
        """What a tensor is in terms of the leaf: equal for equal computations of different leaves."""
        for node in _needed(value, leaf):
            if node.op_type in ("Shape", "Size") and not node.domain:
                source = node.inputs[0]
                inputs = [str(self.shapes(source)) if source is not None else ""]
            else:
                inputs = [self._digest_of(v, leaf, seen) for v in operands(node)]
            attributes = sorted((name, _written_attribute(one)) for name, one in node.attributes.items())
            if node.op_type == "CastLike":
                inputs.append(str(self._numpy_type(node.inputs[1])))
            text = repr((node.domain, node.op_type, attributes, inputs))
            for place, output in enumerate(node.outputs):
                seen[output] = hashlib.sha256(f"{place} {text}".encode()).hexdigest()
        return self._digest_of(value, leaf, seen)

    def _digest_of(self, value: ir.Value | None, leaf: ir.Value, seen: Mapping[ir.Value, str]) -> str:
        if value is None:
            return ""
        if value is leaf:
            return "leaf"
        if value in seen:
            return seen[value]
        if value not in self._digests:
            constant = value.const_value
            data = b"" if constant is None else np.ascontiguousarray(constant.numpy()).tobytes()
            about = "" if constant is None else f"{constant.dtype} {constant.shape}"
            self._digests[value] = about + hashlib.sha256(data).hexdigest()
        return self._digests[value]


def _choices(graph: Graph) -> list[dict[str, Shape]]:
    """Shapes of the inputs to prove at: the fixed ones, or the smallest and two where all lengths differ."""
    varying = interface.symbols(graph.inputs)
    if not varying:
        return [{spec.name: spec.smallest_shape for spec in graph.inputs}]
    choices = []
    for stride, start in ((0, 0), (1, 1), (2, 3)):
        taken = {
            symbol: symbol[1].nearest(symbol[1].min + symbol[1].step * (start + stride * order))
            for order, symbol in enumerate(varying)
        }
        choices.append(
            {
                spec.name: tuple(
                    taken[(axis, n)] if isinstance(n, Dim) else n for axis, n in enumerate(spec.dims)
                )
                for spec in graph.inputs
            }
        )
    return choices


def _has_body(one: ir.Attr) -> bool:
    return one.type.name in ("GRAPH", "GRAPHS")


def _written_attribute(one: ir.Attr) -> str:
    if one.type.name == "TENSOR":
        array = one.as_tensor().numpy()
        return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    return repr(one.value)


def _reaches_an_end(cone: Mapping[ir.Value, list[ir.Value]], start: ir.Value, without: ir.Value) -> bool:
    seen, waiting = set(), [] if start is without else [start]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if not cone[value]:
            return True
        waiting += [one for one in cone[value] if one is not without]
    return False


def _count_behind(cone: Mapping[ir.Value, list[ir.Value]], value: ir.Value) -> int:
    seen, waiting = set(), [value]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += cone[one]
    return len(seen)


def _needed(value: ir.Value, leaf: ir.Value | None) -> list[ir.Node]:
    """The nodes between a leaf and a tensor, with all that makes constants there, in order."""
    done: dict[ir.Node, None] = {}
    waiting: list[tuple[ir.Value | None, ir.Node | None]] = [(value, None)]
    seen: set[ir.Node] = set()
    while waiting:
        one, finished = waiting.pop()
        if finished is not None:
            done[finished] = None
            continue
        node = None if one is None or one is leaf or one.const_value is not None else one.producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.append((None, node))
        waiting += [(v, None) for v in operands(node)]
    return list(done)


def _last_readers(nodes: Sequence[ir.Node]) -> dict[ir.Node, list[ir.Value]]:
    """What is not read any more after each node."""
    last = {v: node for node in nodes for v in node.inputs if v is not None and v.producer() is not None}
    readers: dict[ir.Node, list[ir.Value]] = {}
    for value, node in last.items():
        readers.setdefault(node, []).append(value)
    return readers
