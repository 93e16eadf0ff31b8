"""Groups of a network's nodes: what they read and make, which are neighbours, and which are alike."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import GraphError
from edgekit.graph.graph import Graph
from edgekit.graph.values import Size

if TYPE_CHECKING:
    import onnx_ir as ir

# Constants of so many integers are lengths and axes: they belong to what a node does.
_FEW = 16
# They change the type of a value and nothing else.
_CHANGES = frozenset(("Cast", "DequantizeLinear", "QuantizeLinear"))
# What an end of the network is called among the neighbours of a group.
END = ""


def borders(
    graph: Graph, nodes: Collection[str], *, stored: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the values that a group of nodes reads, and of those that it makes for others.

    Constants, and what is computed from them alone, are not among them. Changes of type between a value and
    the group that reads it (Cast, QuantizeLinear, DequantizeLinear) belong to the group; so do Casts of what
    it makes.

    Args:
        graph: The network.
        nodes: Names of nodes of its main graph.
        stored: Take quantized values as they lie in memory between groups that are quantized: bytes are
            read, and bytes are made.

    Raises:
        GraphError: There is no node of one of these names.
    """
    group = _with_bridges(_nodes(graph, nodes))
    varying = _varying(graph.model.graph)
    read: dict[str, None] = {}
    made: dict[str, None] = {}
    for node in group:
        for value in node.inputs:
            if value is not None and value in varying and value.producer() not in group:
                read[str(_source(value, stored).name)] = None
        for value in node.outputs:
            readers = [user for user in value.consumers() if user not in group]
            casts = _only(readers, "Cast") or (stored and _only(readers, "QuantizeLinear"))
            if casts and not value.is_graph_output():
                made.update({str(reader.outputs[0].name): None for reader in readers})
            elif readers or value.is_graph_output():
                made[str(value.name)] = None
    return tuple(read), tuple(made)


def likeness(graph: Graph) -> str:
    """The same text for networks that take equally long: equal but for names and the numbers of weights."""
    network = graph.model.graph
    known: dict[ir.Value | None, str] = {None: "-"}
    for index, value in enumerate(network.inputs):
        known[value] = f"input {index} {value.dtype} {value.shape}"
    lines = []
    for index, node in enumerate(network):
        attributes = sorted(f"{name}={_told(attribute)}" for name, attribute in node.attributes.items())
        reads = [known[value] if value in known else _told(value) for value in node.inputs]
        lines.append(f"{node.domain}.{node.op_type} {attributes} {reads}")
        known.update({value: f"{index}.{place}" for place, value in enumerate(node.outputs)})
    lines += [known.get(value, "") for value in network.outputs]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def neighbours(graph: Graph, groups: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """By group, the groups whose values it reads or that read its own, each once for each way between them.

    Nodes that are in no group are looked through; :data:`END` stands for an input or output of the network.

    Args:
        graph: The network.
        groups: Names of nodes by name of the group.
    """
    owner = {name: group for group, nodes in groups.items() for name in nodes}
    reached: dict[ir.Value, tuple[str, ...]] = {value: (END,) for value in graph.model.graph.inputs}
    found: dict[str, list[str]] = {name: [] for name in groups}
    for node in graph.model.graph:
        before = [maker for value in node.inputs if value is not None for maker in reached.get(value, ())]
        group = owner.get(str(node.name))
        if group is not None:
            for other in dict.fromkeys(before):
                if other != group:
                    found[group].append(other)
                    if other != END:
                        found[other].append(group)
            before = [group]
        for value in node.outputs:
            reached[value] = tuple(dict.fromkeys(before))
    for value in graph.model.graph.outputs:
        for name in reached.get(value, ()):
            if name != END:
                found[name].append(END)
    return {name: tuple(others) for name, others in found.items()}


def floats_behind(graph: Graph, sizes: Mapping[str, Size]) -> tuple[str, ...]:
    """Names of the floating-point values nearest to a network's outputs: these, or what labels are made of.

    Args:
        graph: The network.
        sizes: Types of its values, from :func:`edgekit.graph.values.sizes`.
    """
    network = graph.model.graph
    found: dict[str, None] = {}
    pending = list(network.outputs)
    while pending:
        value = pending.pop(0)
        maker = value.producer()
        if maker is None and value not in network.inputs:
            continue  # a constant
        if str(value.name) in sizes and sizes[str(value.name)].dtype.startswith("float"):
            found[str(value.name)] = None
        elif maker is not None:
            pending += [one for one in maker.inputs if one is not None]
    return tuple(found)


def held(graph: Graph) -> dict[str, float]:
    """By name of each value that is quantized, the largest ``|x|`` that its bytes hold."""
    import onnx_ir as ir

    found = {}
    for node in graph.model.graph:
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None or len(node.inputs) < 3:
            continue
        scale, zero = (
            None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:3]
        )
        if scale is not None and zero is not None and scale.size == 1:
            numbers = zero.numpy()
            most = np.iinfo(numbers.dtype).max - int(numbers.reshape(()))
            found[str(node.inputs[0].name)] = most * float(scale.numpy().reshape(()))
    return found


def _nodes(graph: Graph, names: Collection[str]) -> list[ir.Node]:
    found = [node for node in graph.model.graph if node.name in names]
    missing = set(names) - {str(node.name) for node in found}
    if missing:
        raise GraphError(f"no node is called {sorted(missing)[0]!r}", where="main graph")
    return found


def _varying(network: ir.Graph) -> set[ir.Value | None]:
    """The values that depend on an input of the network."""
    found: set[ir.Value | None] = set(network.inputs)
    for node in network:
        if any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _with_bridges(nodes: list[ir.Node]) -> dict[ir.Node, None]:
    """Nodes with the changes of type that lie between them, in order."""
    group = dict.fromkeys(nodes)
    for node in nodes:
        for value in node.inputs:
            way: list[ir.Node] = []
            maker = value.producer() if value is not None else None
            while maker is not None and maker.op_type in _CHANGES and maker not in group:
                way.append(maker)
                source = maker.inputs[0]
                maker = source.producer() if source is not None else None
            if maker in group:
                group.update(dict.fromkeys(way))
    return group


def _source(value: ir.Value, stored: bool) -> ir.Value:
    """Where a group that reads a value begins: before the change of its type, or with its bytes."""
    maker = value.producer()
    while maker is not None and maker.op_type in _CHANGES and maker.inputs[0] is not None:
        value = maker.inputs[0]
        if stored and maker.op_type == "DequantizeLinear":
            return value
        maker = value.producer()
    return value


def _only(readers: Sequence[ir.Node], operator: str) -> bool:
    return bool(readers) and all(reader.op_type == operator for reader in readers)


def _told(value: ir.Value | ir.Attr | None) -> str:
    """What of a constant or an attribute decides how long a node takes."""
    import onnx_ir as ir

    if isinstance(value, ir.Attr):
        if value.type != ir.AttributeType.TENSOR:
            return str(value.value)
        tensor: Any = value.as_tensor()
    else:
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        return "?"
    numbers = tensor.numpy().tolist() if tensor.dtype.is_integer() and tensor.size <= _FEW else ""
    return f"{tensor.dtype} {tensor.shape} {numbers}"
