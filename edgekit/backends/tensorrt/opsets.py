"""Write a network in an older operator set of ONNX, where a parser knows no newer one.

A node is left as it is where the older set has its operator with the same inputs and attributes. Operators
that are written otherwise there are rewritten; what cannot be said there is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir

# Newer sets than its own mean something else by the same words.
_CHANGED = {"GroupNormalization": 21}
_SAMPLING_MODES = {"linear": "bilinear", "cubic": "bicubic"}
# Formats of files that go with the operator sets.
_IR_VERSIONS = {17: 8, 20: 9}


def lower(model: ir.Model, ceiling: int) -> None:
    """Write the network in the operator set ``ceiling``, in place, if its own is newer.

    Raises:
        UnsupportedError: A node cannot be said in that set; the message names all of them.
    """
    own = model.opset_imports.get("", ceiling)
    model.ir_version = min(model.ir_version or 8, _IR_VERSIONS[ceiling])
    if own <= ceiling:
        return
    refused = []
    for node in list(model.graph.all_nodes()):
        if node.domain in ("", "ai.onnx"):
            reason = _lower_node(node, own, ceiling)
            if reason:
                refused.append((node, reason))
    if refused:
        raise UnsupportedError(
            f"operator set {ceiling} cannot say: "
            + "; ".join(f"{node.op_type} {node.name} ({reason})" for node, reason in refused),
            where=", ".join(str(node.name) for node, _ in refused[:3]),
            hint=f"export the model with opset_version={ceiling}",
        )
    model.opset_imports[""] = ceiling
    for node in model.graph.all_nodes():
        if node.domain in ("", "ai.onnx"):
            node.version = ceiling


def _lower_node(node: ir.Node, own: int, ceiling: int) -> str:
    """Rewrite one node; why it cannot be, or an empty text."""
    import onnx

    newer = onnx.defs.get_schema(node.op_type, own, "")
    try:
        older = onnx.defs.get_schema(node.op_type, ceiling, "")
    except onnx.defs.SchemaError:
        return f"it came with operator set {newer.since_version}"
    if older.since_version == newer.since_version:
        return ""
    if _CHANGED.get(node.op_type, 0) > ceiling:
        return "it means something else there"
    rewrite = _REWRITES.get(node.op_type)
    if rewrite is None and node.op_type.startswith("Reduce"):
        rewrite = _reduce
    if rewrite and (reason := rewrite(node)):
        return reason
    for name in list(node.attributes):
        if name not in older.attributes:
            default = newer.attributes[name].default_value
            usual = onnx.helper.get_attribute_value(default) if default.name else None
            if usual is None or node.attributes[name].value != (
                usual.decode() if isinstance(usual, bytes) else usual
            ):
                return f"{name}={node.attributes[name].value!r} is new"
            del node.attributes[name]
    given = len(node.inputs)
    while given and node.inputs[given - 1] is None:
        given -= 1
    return "" if given <= older.max_input else f"want at most {older.max_input} inputs, got {given}"


def _known(node: ir.Node, index: int) -> Any:
    """The numbers of an input; ``None`` where they, or the input, are not there."""
    value = node.inputs[index] if len(node.inputs) > index else None
    tensor = value.const_value if value is not None else None
    return None if tensor is None else tensor.numpy()


def _reduce(node: ir.Node) -> str:
    """Axes were an attribute (until 18), and an empty list of them meant all."""
    import onnx_ir as ir

    if len(node.inputs) > 1 and node.inputs[1] is not None and node.op_type != "ReduceSum":
        axes = _known(node, 1)
        if axes is None:
            return "its axes are computed"
        node.resize_inputs(1)
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])
    return ""


def _pad(node: ir.Node) -> str:
    """Axes were all of them (until 18)."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return ""
    pads, axes, image = _known(node, 1), _known(node, 3), node.inputs[0]
    if pads is None or axes is None or image is None or image.shape is None:
        return "its axes or sizes are computed"
    rank, count = len(image.shape), len(axes)
    full = np.zeros(2 * rank, np.int64)
    for position, axis in enumerate(axes):
        full[int(axis) % rank] = pads[position]
        full[rank + int(axis) % rank] = pads[count + position]
    _replace_input(node, 1, full)
    node.resize_inputs(3)
    return ""


def _split(node: ir.Node) -> str:
    """Parts were told by their lengths, or equal (until 18)."""
    attribute = node.attributes.get("num_outputs")
    if attribute is None:
        return ""
    image, axis = node.inputs[0], node.attributes.get("axis")
    length = image.shape[axis.as_int() if axis else 0] if image is not None and image.shape else None
    if not isinstance(length, int):
        return "it splits a length that is not known"
    parts = attribute.as_int()
    whole = -(-length // parts)
    sizes = [whole] * (parts - 1) + [length - whole * (parts - 1)]
    node.resize_inputs(2)
    _replace_input(node, 1, np.asarray(sizes, np.int64))
    del node.attributes["num_outputs"]
    return ""


def _resize(node: ir.Node) -> str:
    """Axes were all of them (until 18)."""
    axes, image = node.attributes.get("axes"), node.inputs[0]
    if axes is not None:
        if image is None or image.shape is None:
            return "the rank of its input is not known"
        rank, wanted = len(image.shape), [axis % len(image.shape) for axis in axes.as_ints()]
        for index in (2, 3):
            numbers = _known(node, index)
            if numbers is None or not numbers.size:
                continue
            lengths = (
                [1.0] * rank if index == 2 else list(image.shape.numpy()) if image.shape.is_static() else None
            )
            if lengths is None:
                return "it leaves a length that is not known"
            for axis, number in zip(wanted, numbers, strict=True):
                lengths[axis] = number
            _replace_input(node, index, np.asarray(lengths, numbers.dtype))
        del node.attributes["axes"]
    return ""


def _grid_sample(node: ir.Node) -> str:
    """Linear was called bilinear, and images had two axes (until 20)."""
    import onnx_ir as ir

    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "linear"
    node.attributes["mode"] = ir.AttrString("mode", _SAMPLING_MODES.get(mode, mode))
    return ""


def _replace_input(node: ir.Node, index: int, numbers: Any) -> None:
    import onnx_ir as ir

    graph = node.graph
    assert graph is not None
    name = f"{node.name}/{index}"
    tensor = ir.tensor(numbers, name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(numbers.shape)
    )
    graph.initializers[name] = value
    node.replace_input_with(index, value)


_REWRITES = {"Pad": _pad, "Split": _split, "Resize": _resize, "GridSample": _grid_sample}
