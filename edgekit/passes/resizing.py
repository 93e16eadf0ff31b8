"""Resizing as a product with a matrix along each axis, in operators that every runtime has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.passes.builder import Builder, attribute, constant, static_shape
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
# Axes, counted from the last, that TensorRT interpolates along.
_AXES = {"nearest": 8, "linear": 3, "cubic": 2}
# What of a Resize says how one axis is interpolated.
_HOW = (
    "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value",
    "mode", "nearest_mode",
)  # fmt: skip


def is_beyond_tensorrt(node: ir.Node) -> bool:
    """Whether no version of TensorRT resizes like that."""
    mode = attribute(node, "mode", "nearest")
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if attribute(node, "antialias", 0) or coordinates not in _COORDINATES:
        return True
    rounding = attribute(node, "nearest_mode", "round_prefer_floor")
    if coordinates == "tf_half_pixel_for_nn" and rounding != "round_prefer_floor":
        return True
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    axes = attribute(node, "axes", None)
    scales = constant(node, 2) is not None
    if scales and axes is not None and before is not None and list(axes) != list(range(len(before))):
        return True
    if before is None or after is None:
        return False
    changed = [a != b for a, b in zip(before, after, strict=True)]
    return any(changed[: -_AXES[mode]])


def write(make: Builder) -> bool:
    """Put products in the place of a Resize, where its shapes are fixed and each axis stands for itself."""
    node = make.node
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    whole = (
        attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
        or coordinates == "tf_crop_and_resize"
    )
    if before is None or after is None or whole:
        return False
    scales = _scales(node, len(before))
    value = node.inputs[0]
    assert value is not None
    kind = make.scalar(0, value).dtype
    lengths = list(before)
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new and (scales is None or scales[axis] == 1):
            continue
        matrix = _matrix(node, old, new, None if scales is None else float(scales[axis])).astype(kind)
        rows, columns = int(np.prod(lengths[:axis])), int(np.prod(lengths[axis + 1 :]))
        value = make.add("Reshape", value, np.asarray([rows, old, columns], np.int64))
        value = make.add("MatMul", matrix, value)
        lengths[axis] = new
        value = make.add("Reshape", value, np.asarray(lengths, np.int64))
    if value is node.inputs[0]:
        value = make.add("Identity", value)
    make.replace(value)
    return True


def _scales(node: ir.Node, rank: int) -> Array | None:
    """The scale of every axis, where the node gives scales."""
    given = constant(node, 2)
    if given is None or given.size == 0:
        return None
    axes = attribute(node, "axes", None)
    every = np.ones(rank, np.float32)
    every[list(range(rank)) if axes is None else list(axes)] = given
    return every


def _matrix(node: ir.Node, old: int, new: int, scale: float | None) -> Array:
    """[new, old]: what the node makes of an axis, found by resizing the unit vectors."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    how: dict[str, Any] = {name: node.attributes[name].value for name in _HOW if name in node.attributes}
    feeds: dict[str, Array] = {"x": np.eye(old, dtype=np.float32)}
    names = ["x", "", "scales"]
    if scale is None:
        names, feeds["sizes"] = ["x", "", "", "sizes"], np.asarray([old, new], np.int64)
    else:
        feeds["scales"] = np.asarray([1, scale], np.float32)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [old, old])]
    if scale is None:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [2]))
    else:
        inputs.append(helper.make_tensor_value_info("scales", TensorProto.FLOAT, [2]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    one = helper.make_graph([helper.make_node("Resize", names, ["y"], **how)], "axis", inputs, [output])
    model = helper.make_model(one, opset_imports=[helper.make_opsetid("", 19)])
    (rows,) = ReferenceEvaluator(model).run(None, feeds)
    made: Array = np.ascontiguousarray(np.asarray(rows).T)
    if made.shape != (new, old):
        raise ValueError(f"Resize {node.name}: want {new} from {old}, got {made.shape[0]}")
    return made
