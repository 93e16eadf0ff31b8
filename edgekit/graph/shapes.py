"""Shapes of all tensors for given shapes of the inputs, within a memory budget.

The walk goes node by node, asks onnx for the output types of each, and computes the small integer tensors
that shapes are made of itself, so it knows what a runtime would know when it folds constants. A tensor over
the budget is refused where it would arise, before anything of its size exists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import GraphError, UnsupportedError
from edgekit.graph.intake import IntakeLimits, describe, element_bits, first_line, mib
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx

# Tensors with more elements than this are never looked into.
_SMALL = 1024
# Operators that shapes are computed with; each is cheap on small tensors.
# fmt: off
_ARITHMETIC = frozenset((
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand",
    "Flatten", "Floor", "Gather", "GatherElements", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "ReduceMax", "ReduceMin",
    "ReduceProd", "ReduceSum", "Reshape", "Round", "ScatterElements", "ScatterND", "Shape", "Sign", "Size",
    "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze", "Where",
))
# onnx itself says nothing of their results.
_LIKE_THE_FIRST = frozenset(("GroupNormalization", "MeanVarianceNormalization"))
_RANDOM = frozenset((
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
))
# fmt: on

Shape = tuple[int, ...]


def infer(
    model: onnx.ModelProto, inputs: Mapping[str, Shape], limits: IntakeLimits, where: str
) -> dict[str, tuple[int, Shape]]:
    """Element type and shape of each output of a checked model.

    Args:
        model: Checked by :func:`edgekit.graph.intake.check`.
        inputs: Shape of each input; whatever else the graph lists as input stands for weights.
        limits: The budget.
        where: Name of the file, for messages.

    Raises:
        GraphError: A node does not fit its inputs, a tensor is over the budget, or an output has a shape that
            depends on values.
    """
    found_types = _walk(model, inputs, limits, where)
    outputs = {}
    for value in model.graph.output:
        found = found_types.get(value.name)
        shape = _shape_of(found)
        if found is None or shape is None or None in shape:
            raise GraphError(
                "the shape of an output depends on the values of the inputs, or cannot be told",
                where=f"{where}: output {value.name!r}",
                hint="give fixed shapes with --shape",
            )
        outputs[value.name] = (found.tensor_type.elem_type, tuple(int(n or 0) for n in shape))
    return outputs


def infer_all(
    model: onnx.ModelProto, inputs: Mapping[str, Shape], limits: IntakeLimits, where: str
) -> dict[str, tuple[int, Shape]]:
    """As :func:`infer`, but of every tensor of the main graph whose shape does not depend on values.

    Raises:
        GraphError: A node does not fit its inputs, or a tensor is over the budget.
    """
    known = {}
    for name, found in _walk(model, inputs, limits, where).items():
        shape = _shape_of(found)
        if shape is not None and None not in shape:
            known[name] = (found.tensor_type.elem_type, tuple(int(n or 0) for n in shape))
    return known


def _walk(
    model: onnx.ModelProto, inputs: Mapping[str, Shape], limits: IntakeLimits, where: str
) -> dict[str, onnx.TypeProto]:
    """The types of all tensors of the main graph."""
    walk = _Walk(model, limits, where)
    types: dict[str, onnx.TypeProto] = {}
    for value in model.graph.input:
        types[value.name] = type(value.type)()
        types[value.name].CopyFrom(value.type)
        if value.name in inputs:
            _set_shape(types[value.name], inputs[value.name])
    scope = _Scope(types, {}, types.keys() - inputs.keys())
    walk.graph(model.graph, scope, 1)
    return scope.types


class _Scope:
    """What is known inside one graph: types, small values, and which tensors depend on no input."""

    def __init__(
        self, types: dict[str, onnx.TypeProto], values: dict[str, Array], constant: set[str]
    ) -> None:
        self.types, self.values, self.constant = types, values, constant

    def inner(self) -> _Scope:
        return _Scope(dict(self.types), dict(self.values), set(self.constant))


class _Walk:
    def __init__(self, model: onnx.ModelProto, limits: IntakeLimits, file: str) -> None:
        self.limits, self.file = limits, file
        self.imports = list(model.opset_import)
        self.versions = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in self.imports}
        self.ir_version = model.ir_version
        self.constants_bytes = 0

    def graph(self, graph: onnx.GraphProto, scope: _Scope, trips: int) -> None:
        from onnx import helper

        for tensor in graph.initializer:
            scope.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            scope.constant.add(tensor.name)
            self._remember(scope, tensor.name, tensor)
        for node in graph.node:
            self._node(node, scope, trips)

    def _node(self, node: onnx.NodeProto, scope: _Scope, trips: int) -> None:
        where = f"{self.file}: {describe(node)}"
        trips = self._loop_trips(node, scope, trips, where)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                body = scope.inner()
                for value in inner.input:
                    # The body's own statement of shapes is not trusted.
                    body.types[value.name] = type(value.type)()
                    body.types[value.name].tensor_type.elem_type = value.type.tensor_type.elem_type
                    body.values.pop(value.name, None)
                self.graph(inner, body, trips)
        names = [name for name in node.input if name]
        if node.op_type == "Constant" and not node.domain:
            self._constant(node, scope, where)
            return
        outputs = self._infer(node, names, scope, where)
        constant = node.op_type not in _RANDOM and all(name in scope.constant for name in names)
        for name in node.output:
            if name and name in outputs:
                scope.types[name] = outputs[name]
                self._check_size(outputs[name], constant, f"{where}, output {name[:80]!r}")
            if name and constant:
                scope.constant.add(name)
        self._evaluate(node, names, scope)

    def _loop_trips(self, node: onnx.NodeProto, scope: _Scope, trips: int, where: str) -> int:
        if node.op_type != "Loop" or node.domain:
            return trips
        count = scope.values.get(node.input[0]) if node.input else None
        if count is None or count.size != 1:
            raise UnsupportedError(
                "a loop wants a number of runs that does not depend on values", where=where
            )
        trips *= max(1, int(count.reshape(-1)[0]))
        if trips > self.limits.loop_trips:
            raise GraphError(
                f"a loop of {trips} runs (nested ones multiplied): want at most {self.limits.loop_trips}",
                where=where,
            )
        return trips

    def _constant(self, node: onnx.NodeProto, scope: _Scope, where: str) -> None:
        from onnx import helper

        for attribute in node.attribute:
            name = node.output[0]
            scope.constant.add(name)
            if attribute.name == "value":
                tensor = attribute.t
                scope.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
                self._remember(scope, name, tensor)
            elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
                value = helper.get_attribute_value(attribute)
                kind = np.int64 if "int" in attribute.name else np.float32
                array = np.asarray(value, kind)
                elem_type = 7 if kind is np.int64 else 1
                scope.types[name] = helper.make_tensor_type_proto(elem_type, list(array.shape))
                if array.size <= _SMALL:
                    scope.values[name] = array
            else:
                raise UnsupportedError(f"a constant given by {attribute.name[:40]!r}", where=where)

    def _infer(
        self, node: onnx.NodeProto, names: Sequence[str], scope: _Scope, where: str
    ) -> dict[str, onnx.TypeProto]:
        from onnx import defs, numpy_helper, shape_inference

        if any(name not in scope.types for name in names):
            return {}
        if not node.domain and node.op_type in _LIKE_THE_FIRST:
            return {node.output[0]: scope.types[node.input[0]]}
        has_graphs = any(a.HasField("g") or a.graphs for a in node.attribute)
        domain = "" if node.domain == "ai.onnx" else node.domain
        schema = defs.get_schema(node.op_type, self.versions[domain], domain)
        types = scope.types if has_graphs else {name: scope.types[name] for name in names}
        data = {n: numpy_helper.from_array(scope.values[n], n) for n in names if n in scope.values}
        try:
            return shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self.imports, ir_version=self.ir_version
            )
        except Exception as error:  # noqa: BLE001 - RuntimeError, InferenceError, ValueError, UnicodeError
            raise GraphError(f"the node does not fit its inputs: {first_line(error)}", where=where) from None

    def _check_size(self, found: onnx.TypeProto, constant: bool, where: str) -> None:
        shape = _shape_of(found)
        if shape is None:
            return
        if len(shape) > self.limits.rank:
            raise GraphError(f"want at most {self.limits.rank} axes, got {len(shape)}", where=where)
        known = [length for length in shape if length is not None]
        if any(length < 0 for length in known):
            raise GraphError(f"a negative length: {min(known)}", where=where)
        size = math.prod(known) * (element_bits(found.tensor_type.elem_type) or 64) // 8
        if size > self.limits.tensor_bytes:
            raise _over_budget("a tensor", size, self.limits.tensor_bytes, where)
        if constant:
            if size > self.limits.constant_bytes:
                raise _over_budget(
                    "a constant computed at load time", size, self.limits.constant_bytes, where
                )
            self.constants_bytes += size
            if self.constants_bytes > self.limits.constants_bytes:
                raise _over_budget(
                    "constants computed at load time, together",
                    self.constants_bytes,
                    self.limits.constants_bytes,
                    where,
                )

    def _evaluate(self, node: onnx.NodeProto, names: Sequence[str], scope: _Scope) -> None:
        """Compute the node where it is shape arithmetic on small known tensors."""
        if node.domain or node.op_type not in _ARITHMETIC:
            return
        if node.op_type in ("Shape", "Size"):
            self._evaluate_shape(node, scope)
            return
        if any(name not in scope.values for name in names):
            return
        for name in node.output:
            shape = _shape_of(scope.types.get(name))
            if shape is None or None in shape or math.prod(n or 0 for n in shape) > _SMALL:
                return
        from onnx.reference import ReferenceEvaluator

        try:
            results: Any = ReferenceEvaluator(node, opsets=self.versions).run(
                None, {name: scope.values[name] for name in names}
            )
        except Exception:  # noqa: BLE001 - whatever it raises, the values are then just not known
            return
        for name, value in zip(node.output, results, strict=False):
            if name and isinstance(value, (np.ndarray, np.generic)):
                scope.values[name] = np.asarray(value)

    def _evaluate_shape(self, node: onnx.NodeProto, scope: _Scope) -> None:
        shape = _shape_of(scope.types.get(node.input[0]))
        if shape is None or None in shape:
            return
        lengths = np.array(shape, np.int64)
        name = node.output[0]
        if node.op_type == "Size":
            scope.values[name] = np.array(math.prod(int(n) for n in lengths), np.int64)
        else:
            bounds = {a.name: a.i for a in node.attribute}
            scope.values[name] = lengths[bounds.get("start", 0) : bounds.get("end", len(shape))]
        # Known once the inputs' shapes are: a runtime folds what follows from it.
        scope.constant.add(name)

    def _remember(self, scope: _Scope, name: str, tensor: onnx.TensorProto) -> None:
        from onnx import numpy_helper

        small = math.prod(tensor.dims) <= _SMALL
        scope.values.pop(name, None)
        if small and not tensor.external_data:
            scope.values[name] = numpy_helper.to_array(tensor)


def _over_budget(what: str, size: int, limit: int, where: str) -> GraphError:
    return GraphError(
        f"{what} would take {mib(size)}: want at most {mib(limit)}",
        where=where,
        hint="give smaller shapes with --shape; a model that needs this much does not suit a device",
    )


def _shape_of(found: onnx.TypeProto | None) -> tuple[int | None, ...] | None:
    """Lengths, ``None`` for unknown ones; ``None`` where not even the rank is known."""
    if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in found.tensor_type.shape.dim)


def _set_shape(found: onnx.TypeProto, shape: Shape) -> None:
    found.tensor_type.shape.ClearField("dim")
    for length in shape:
        found.tensor_type.shape.dim.add().dim_value = length
