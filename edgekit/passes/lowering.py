"""Write a network in an older operator set, where the target's TensorRT does not take its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.graph.graph import Graph
from edgekit.hosts import tensorrt_parser
from edgekit.hosts.tensorrt_parser import Version
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.builder import annotate, attribute, constant, static_shape
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

# Modes of GridSample by their names of operator set 20, and what they were called before.
_OLD_MODES = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
_BEFORE_NEW_MODES = 19
# The first parser that knows the new names.
_KNOWS_NEW_MODES = (11, 2)
# Operators that compute something else in a newer set with the very same inputs and attributes.
_CHANGED = {"GroupNormalization"}


class LowerOpsetPass(Pass):
    """The newest operator set that the target's TensorRT understands; others keep their own.

    A parser before 11.2 takes GridSample of operator set 20 and samples the nearest pixel whatever it says,
    so that a network with one goes to set 19. Where an operator cannot be said in the older set, the network
    stays as it is, and the note names it.
    """

    name = "lower_opset"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        version = tensorrt_parser.version_for(target)
        own = graph.model.opset_imports.get("", 0)
        newest = own if version is None else newest_for(graph, version)
        if own <= newest or graph.model.functions:
            return PassResult(graph, False)
        model = graph.edit()
        annotate(graph, model)
        lost = [
            node
            for node in model.graph.all_nodes()
            if not node.domain and not _lower(model, node, own, newest)
        ]
        if lost:
            names = ", ".join(f"{node.op_type} {node.name}" for node in lost[:5])
            note = f"operator set {own} stays, since {newest} cannot say: {names}"
            return PassResult(graph, False, (note,))
        model.opset_imports[""] = newest
        common.RemoveUnusedNodesPass()(model)
        note = f"operator set {own} became {newest}"
        return PassResult(graph.with_model(model, f"lower_opset: {note}"), True, (note,))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """It is a model that onnx accepts."""
        names = [value.name for value in graph.model.graph.outputs]
        wanted = [spec.name for spec in graph.outputs]
        return None if names == wanted else f"outputs were {wanted}, are {names}"


def newest_for(graph: Graph, version: Version) -> int:
    """The newest operator set in which a version's parser reads a network as it is meant."""
    newest = tensorrt_parser.operator_sets(version).newest
    if version >= _KNOWS_NEW_MODES:
        return newest
    misread = any(
        node.op_type == "GridSample" and not node.domain and attribute(node, "mode", "linear") != "nearest"
        for node in graph.model.graph.all_nodes()
    )
    return min(newest, _BEFORE_NEW_MODES) if misread else newest


def _lower(model: ir.Model, node: ir.Node, own: int, newest: int) -> bool:
    """Say a node in the older set; false where it cannot be said."""
    from onnx import defs

    try:
        now, then = defs.get_schema(node.op_type, own, ""), defs.get_schema(node.op_type, newest, "")
    except defs.SchemaError:
        return False
    if now.since_version == then.since_version:
        return True
    if node.op_type in _CHANGED:
        return False
    writer = _WRITERS.get(node.op_type, _REDUCTION if "axes" in then.attributes else None)
    if writer is not None and not writer(model, node):
        return False
    for name in [name for name in node.attributes if name not in then.attributes]:
        if not _says_nothing(node.attributes[name].value, now, name):
            return False
        del node.attributes[name]
    return _fits(node, then)


def _says_nothing(value: Any, now: onnx.defs.OpSchema, name: str) -> bool:
    """Whether an attribute has the value that it has where it is left out."""
    from onnx import helper

    if isinstance(value, (list, tuple)):
        return set(value) <= {1} and name == "dilations"
    default = now.attributes[name].default_value
    if not default.name:
        return False
    wanted = helper.get_attribute_value(default)
    return bool((wanted.decode() if isinstance(wanted, bytes) else wanted) == value)


def _fits(node: ir.Node, then: onnx.defs.OpSchema) -> bool:
    """Whether the older operator has so many inputs, of such types."""
    given = list(node.inputs)
    while given and given[-1] is None:
        given.pop()
    if len(given) > then.max_input or sum(1 for value in node.outputs if value.name) > then.max_output:
        return False
    for index, value in enumerate(given):
        parameter = then.inputs[min(index, len(then.inputs) - 1)]
        if value is None or value.dtype is None:
            continue
        if parameter.types and f"tensor({_type_name(value.dtype)})" not in parameter.types:
            return False
    return True


def _type_name(kind: ir.DataType) -> str:
    return str(kind.name).lower()


def _axes_to_attribute(model: ir.Model, node: ir.Node) -> bool:
    """Axes of a reduction, from its second input."""
    import onnx_ir as ir

    if len(node.inputs) < 2 or node.inputs[1] is None:
        return not attribute(node, "noop_with_empty_axes", 0)
    axes = constant(node, 1)
    if axes is None or (axes.size == 0 and attribute(node, "noop_with_empty_axes", 0)):
        return False
    if axes.size:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes.tolist())
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    return True


def _split(model: ir.Model, node: ir.Node) -> bool:
    """Parts by their lengths instead of their number."""
    if "num_outputs" not in node.attributes:
        return True
    axis = attribute(node, "axis", 0)
    shapes = [static_shape(value) for value in node.outputs]
    if any(shape is None for shape in shapes):
        return False
    lengths = [shape[axis] for shape in shapes if shape is not None]
    del node.attributes["num_outputs"]
    _set_input(model, node, 1, np.asarray(lengths, np.int64), "split")
    return True


def _pad(model: ir.Model, node: ir.Node) -> bool:
    """Widths for all axes instead of some."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return True
    axes, pads, image = constant(node, 3), constant(node, 1), node.inputs[0]
    if axes is None or pads is None or image is None or image.shape is None:
        return False
    rank = len(image.shape)
    widths = np.zeros((2, rank), np.int64)
    widths[:, [int(axis) % rank for axis in axes]] = pads.reshape(2, -1)
    _set_input(model, node, 1, widths.reshape(-1), "pads")
    node.resize_inputs(3)
    return True


def _resize(model: ir.Model, node: ir.Node) -> bool:
    """Scales or lengths of all axes instead of some."""
    axes, image = attribute(node, "axes", None), node.inputs[0]
    if axes is None:
        return True
    if image is None or image.shape is None:
        return False
    rank = len(image.shape)
    index = 3 if len(node.inputs) > 3 and node.inputs[3] is not None else 2
    given, shape = constant(node, index), static_shape(image)
    if given is None or (index == 3 and shape is None):
        return False
    every = np.asarray(shape, np.int64) if index == 3 else np.ones(rank, np.float32)
    every[[int(axis) % rank for axis in axes]] = given
    _set_input(model, node, index, every, "lengths" if index == 3 else "scales")
    del node.attributes["axes"]
    return True


def _grid_sample(model: ir.Model, node: ir.Node) -> bool:
    """The old name of its mode; the old operator has no volumes."""
    import onnx_ir as ir

    image = node.inputs[0]
    if image is None or image.shape is None or len(image.shape) != 4:
        return False
    mode = _OLD_MODES.get(attribute(node, "mode", "linear"))
    if mode is None:
        return False
    node.attributes["mode"] = ir.AttrString("mode", mode)
    return True


def _quantize(model: ir.Model, node: ir.Node) -> bool:
    """The type of the result from a zero point instead of an attribute."""
    import onnx_ir as ir

    kind = attribute(node, "output_dtype", 0)
    if not kind:
        return True
    scale = node.inputs[1]
    shape = static_shape(scale)
    if node.op_type == "DequantizeLinear" or (len(node.inputs) > 2 and node.inputs[2] is not None):
        matches = scale is not None and scale.dtype == ir.DataType(kind)
        if node.op_type == "DequantizeLinear" and not matches:
            return False
    elif shape is None:
        return False
    else:
        _set_input(model, node, 2, np.zeros(shape, ir.DataType(kind).numpy()), "zero_point")
    del node.attributes["output_dtype"]
    return True


def _scatter(model: ir.Model, node: ir.Node) -> bool:
    """The old operators know no largest and no smallest."""
    return attribute(node, "reduction", "none") in ("none", "add", "mul")


def _set_input(model: ir.Model, node: ir.Node, index: int, array: Any, what: str) -> None:
    import onnx_ir as ir

    name = f"{node.outputs[0].name}/{what}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    model.graph.register_initializer(value)
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


_REDUCTION: Callable[[Any, Any], bool] = _axes_to_attribute
_WRITERS: dict[str, Callable[[Any, Any], bool]] = {
    "DequantizeLinear": _quantize,
    "GridSample": _grid_sample,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Resize": _resize,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Split": _split,
}
