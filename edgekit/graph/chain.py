"""Two networks as one: what the first makes is an input of the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import GraphError, SpecError
from edgekit.graph.graph import Graph, own_tensors
from edgekit.graph.intake import first_line

if TYPE_CHECKING:
    import onnx_ir as ir

# Of ONNX's operator set: the first version where axes of ReduceMean are an input, and the operators that a
# network in front may have before that, which mean the same from the oldest of these versions on.
_AXES_ARE_INPUTS = 18
_OLDEST = 11
_REDUCE = "ReduceMean"
_SAME = frozenset(("Add", "Clip", "Conv", "ConvTranspose", "Div", "Mul", "Relu", "Sqrt", "Sub"))


def chain(first: Graph, second: Graph, *, at: str, title: str) -> Graph:
    """``second`` with ``first`` in front of its input ``at``: contracts and names of both ends stay.

    Args:
        first: One input and one output, both with the type and the lengths of ``at``.
        second: The network behind it.
        at: Name of the input.
        title: What ``first`` is called, in names of its nodes and in the history.

    Raises:
        SpecError: The contracts do not fit.
        GraphError: ``first`` cannot be written in the operator set of ``second``.
    """
    want = next(spec for spec in second.inputs if spec.name == at)
    for spec in (*first.inputs, *first.outputs):
        if (spec.dtype, spec.dims) != (want.dtype, want.dims) or len(first.inputs) + len(first.outputs) != 2:
            ends = ", ".join(map(str, (*first.inputs, *first.outputs)))
            raise SpecError(
                f"a network in front of {want} wants one such input and one such output, got {ends}",
                where=title,
            )
    network = second.edit()
    imports = network.opset_imports
    front = _in_opset(first, imports.get("") or imports.get("ai.onnx"), title)
    if "ai.onnx" not in imports:
        imports.setdefault("", front.opset_imports[""])
    _prefix(front.graph, _free_prefix(network.graph, f"{title}/{at}"))
    _connect(front.graph, network.graph, at)
    return second.with_model(network, f"{title} runs in front of the network, on {at}")


def _in_opset(graph: Graph, version: int | None, title: str) -> ir.Model:
    """A copy of the network in another version of ONNX's operator set; ``None`` for any.

    The one in front is converted and not the user's, because it is ours and known.
    """
    import onnx_ir as ir

    own = graph.model.opset_imports[""]
    if version in (own, None):
        return graph.edit()
    from onnx import version_converter

    try:
        proto = ir.serde.serialize_model(graph.model)
        # onnx takes axes back from inputs to attributes, but leaves an attribute that is not known there.
        proto = version_converter.convert_version(proto, max(version, _AXES_ARE_INPUTS))
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # noqa: BLE001 - RuntimeError, ConvertError and whatever its C++ throws
        raise _other_opset(title, version, own, first_line(error)) from None
    own_tensors(model)
    if version < _OLDEST:
        raise _other_opset(title, version, own, f"want {_OLDEST} or later")
    if version < _AXES_ARE_INPUTS:
        strange = sorted(
            {n.op_type for n in model.graph.all_nodes() if n.op_type not in _SAME and not _take_back_axes(n)}
        )
        if strange:
            raise _other_opset(title, version, own, f"it has {', '.join(strange)}")
    return model


def _take_back_axes(node: ir.Node) -> bool:
    """Write a reduction as it was before its axes became an input; false for a node that is no such one."""
    import onnx_ir as ir

    if node.op_type != _REDUCE or len(node.inputs) != 2 or node.inputs[1] is None:
        return False
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    if axes is None or axes.size == 0:
        return False
    node.attributes["axes"] = ir.AttrInt64s("axes", axes.numpy().tolist())
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    return True


def _other_opset(title: str, version: int, own: int, why: str) -> GraphError:
    return GraphError(
        f"the network in front cannot be written in opset {version}, which the model has: {why}",
        where=title,
        hint=f"export the model with opset {own}",
    )


def _free_prefix(graph: ir.Graph, wanted: str) -> str:
    """``wanted/``, or with a number where the same network is in front already."""
    names = [str(value.name) for node in graph.all_nodes() for value in node.outputs]
    names += [str(name) for name in graph.initializers]
    tries = (f"{wanted}{index}/" for index in ("", *range(2, len(names) + 3)))
    return next(prefix for prefix in tries if not any(name.startswith(prefix) for name in names))


def _prefix(graph: ir.Graph, prefix: str) -> None:
    for value in (*graph.inputs, *list(graph.initializers.values())):
        value.name = f"{prefix}{value.name}"
    for node in graph.all_nodes():
        node.name = f"{prefix}{node.name}"
        for value in node.outputs:
            if value.name:
                value.name = f"{prefix}{value.name}"


def _connect(front: ir.Graph, graph: ir.Graph, at: str) -> None:
    """Move all of ``front`` into ``graph``, between its input ``at`` and that input's readers."""
    import onnx_ir as ir

    source, made = front.inputs[0], front.outputs[0]
    value = next(value for value in graph.inputs if value.name == at)
    made.shape = value.shape.copy() if value.shape is not None else None
    made.type = value.type
    ir.convenience.replace_all_uses_with(value, made)
    ir.convenience.replace_all_uses_with(source, value)
    front.outputs.clear()
    front.inputs.clear()
    nodes, weights = list(front), list(front.initializers.values())
    front.initializers.clear()
    front.remove(nodes)
    for weight in weights:
        graph.initializers.add(weight)
    graph.insert_before(graph[0], nodes)
