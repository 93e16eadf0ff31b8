"""Nodes in the place of one node: what passes that rewrite an operator share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.graph import opset, values
from edgekit.graph.graph import Graph
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

# From here on, reductions take their axes as an input.
_AXES_ARE_INPUTS = 18


class Builder:
    """Writes nodes before one node and puts their result in its place.

    Attributes:
        node: The node that goes.
        opset: Operator set of the model.
    """

    def __init__(self, network: ir.Graph, node: ir.Node, opset: int) -> None:
        self.node = node
        self.opset = opset
        self._network = network
        self._made: list[ir.Node] = []

    def add(self, op: str, *inputs: ir.Value | Array | None, **attributes: Any) -> ir.Value:
        """One more node with one output; arrays become weights of the network."""
        import onnx_ir as ir

        values = [self.constant(one) if isinstance(one, np.ndarray) else one for one in inputs]
        place = f"{self.node.outputs[0].name}/{op}{len(self._made)}"
        made = ir.node(op, values, attributes=attributes, name=place)
        made.outputs[0].name = place
        self._made.append(made)
        return made.outputs[0]

    def constant(self, array: Array) -> ir.Value:
        """A weight of the network."""
        import onnx_ir as ir

        name = f"{self.node.outputs[0].name}/weight{len(self._made)}_{len(self._network.initializers)}"
        tensor = ir.tensor(np.asarray(array, order="C"), name=name)
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=name, const_value=tensor, type=kind, shape=ir.Shape(array.shape))
        self._network.register_initializer(value)
        return value

    def reduce(self, op: str, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """A reduction that keeps its axes."""
        if self.opset < _AXES_ARE_INPUTS:
            return self.add(op, value, axes=list(axes), keepdims=1)
        return self.add(op, value, np.asarray(axes, np.int64), keepdims=1)

    def scalar(self, value: float, like: ir.Value) -> Array:
        """A number in the type of a value; float32 where that is not known."""
        return np.asarray(value, like.dtype.numpy() if like.dtype is not None else np.float32)

    def replace(self, *results: ir.Value | None) -> None:
        """Put the results in the place of the node's outputs, under their names, and remove the node."""
        import onnx_ir as ir

        owner = self.node.graph
        assert owner is not None
        owner.insert_before(self.node, self._made)
        for old, new in zip(self.node.outputs, results, strict=False):
            if new is None:
                continue
            new.type, new.shape, name = old.type, old.shape, old.name
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name, new.name = None, name
        owner.remove(self.node, safe=True)


def annotate(graph: Graph, model: ir.Model) -> None:
    """Fill in types and shapes of the values of a copy of the graph's network, as far as they can be told."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    opset.register()
    common.ShapeInferencePass()(model)
    made = [value for node in model.graph for value in node.outputs if value.name]
    if all(value.shape is not None for value in made):
        return
    # onnx does not look beyond some normalizations.
    found = values.sizes(graph)
    for value in made:
        size = found.get(str(value.name))
        if size is not None and value.shape is None:
            value.shape = ir.Shape(size.shape if graph.is_static else [None] * len(size.shape))
            if size.dtype and value.dtype is None:
                value.dtype = ir.DataType.from_numpy(np.dtype(size.dtype))


def constant(node: ir.Node, index: int) -> Array | None:
    """Numbers of an input of a node that is a weight or a Constant; ``None`` for any other one."""
    import onnx_ir as ir

    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Value of an attribute of a node."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Lengths of a value, if all of them are known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(value.shape.numpy())
