"""Layers with what belongs to them: the units in which precision is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.graph.graph import Graph
from edgekit.passes.quantize import layers

if TYPE_CHECKING:
    import onnx_ir as ir

_FOLLOWERS = layers.ACTIVATIONS | layers.NORMALIZATIONS | {"Add", "Mul", "Sub"}


@dataclass(frozen=True)
class LayerGroup:
    """A convolution or product of matrices, and the nodes that runtimes compute with it.

    Attributes:
        name: Name of its layer.
        nodes: Names of its nodes in order, the layer first.
    """

    name: str
    nodes: tuple[str, ...]


def groups(graph: Graph) -> tuple[LayerGroup, ...]:
    """The groups of a network in order. A node is in at most one; what follows no layer is in none.

    To a layer belong the normalisation, activation and sum that follow it, up to the next layer or the first
    result that several nodes read, of which those of a gated activation (``x * sigmoid(x)``) count as one. A
    sum of two layers belongs to the later one.
    """
    network = graph.model.graph
    place = {node: index for index, node in enumerate(network)}
    owner: dict[ir.Node, str] = {}
    found = layers.find(network)
    for layer in reversed(found):
        for node in [layer.node, *_followers(layer.node)]:
            owner.setdefault(node, layer.name)
    members: dict[str, list[ir.Node]] = {layer.name: [] for layer in found}
    for node, name in owner.items():
        members[name].append(node)
    return tuple(
        LayerGroup(name, tuple(str(node.name) for node in sorted(nodes, key=place.__getitem__)))
        for name, nodes in members.items()
    )


def _followers(node: ir.Node) -> list[ir.Node]:
    found: list[ir.Node] = []
    while True:
        if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
            return found
        readers = list(dict.fromkeys(node.outputs[0].consumers()))
        gate = _gate(readers)
        if gate:
            found += gate
        elif len(readers) == 1 and not readers[0].domain and readers[0].op_type in _FOLLOWERS:
            found += readers
        else:
            return found
        node = found[-1]


def _gate(readers: list[ir.Node]) -> list[ir.Node]:
    """An activation and the product of its input and its result, where these two alone read a value."""
    if len(readers) != 2:
        return []
    for first, second in (readers, readers[::-1]):
        if first.op_type in layers.ACTIVATIONS and second.op_type == "Mul" and not second.domain:
            result = first.outputs[0]
            if list(result.consumers()) == [second] and not result.is_graph_output():
                return [first, second]
    return []
