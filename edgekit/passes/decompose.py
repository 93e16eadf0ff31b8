"""Write operators in simpler ones, where the target's TensorRT does not have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgekit.graph.graph import Graph
from edgekit.hosts import tensorrt_parser
from edgekit.hosts.tensorrt_parser import Version
from edgekit.passes import resizing
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.builder import Builder, annotate, attribute, constant, static_shape
from edgekit.passes.lowering import newest_for
from edgekit.spec import Array
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

# Puts nodes in the place of one; false where it cannot for what it knows of the node.
Writer = Callable[[Builder], bool]

_NARROW = ("FLOAT16", "BFLOAT16")
# The first parser that knows GroupNormalization with scales for channels; the one before is refused on
# loading.
_SCALES_OF_CHANNELS = (10, 9)
_SCALES_OF_CHANNELS_OPSET = 21
_FREE_INSTANCE_NORM = (8, 6)


class DecomposePass(Pass):
    """Normalizations, activations, grids and resizing that the target's version of TensorRT does not import.

    A target without TensorRT keeps them all. Numbers change by rounding only: float16 is normalized in
    float32, as ONNX has it.
    """

    name = "decompose"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        version = tensorrt_parser.version_for(target)
        if version is None or not any(node.op_type in WRITERS for node in graph.model.graph.all_nodes()):
            return PassResult(graph, False)
        model = graph.edit()
        annotate(graph, model)
        own, newest = model.opset_imports.get("", 0), newest_for(graph, version)
        written = []
        for node in list(model.graph.all_nodes()):
            if not node.domain and node.op_type in WRITERS and _needed(node, version, min(own, newest)):
                name = f"{node.op_type} {node.name}"
                if WRITERS[node.op_type](Builder(model.graph, node, own)):
                    written.append(name)
        if not written:
            return PassResult(graph, False)
        common.RemoveUnusedNodesPass()(model)
        common.NameFixPass()(model)
        plural = "operators" if len(written) > 1 else "operator"
        note = f"{len(written)} {plural} in simpler ones for TensorRT {'.'.join(map(str, version))}: "
        note += ", ".join(written[:5]) + (", …" if len(written) > 5 else "")
        return PassResult(graph.with_model(model, f"decompose: {note}"), True, (note,))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Inputs and outputs keep their names and order."""
        network = graph.model.graph
        names = ([v.name for v in network.inputs], [v.name for v in network.outputs])
        wanted = ([s.name for s in graph.inputs], [s.name for s in graph.outputs])
        return None if names == wanted else f"inputs and outputs were {wanted}, are {names}"


def _needed(node: ir.Node, version: Version, newest: int) -> bool:
    """Whether the version does not take the node as it stands, or the operator set it takes lacks it."""
    from onnx import defs

    if node.op_type == "InstanceNormalization":
        odd = not 3 <= (_rank(node) or 0) <= 5
        computed = constant(node, 1) is None or constant(node, 2) is None
        return version < _FREE_INSTANCE_NORM and (odd or computed)
    first = min(s.since_version for s in defs.get_all_schemas_with_history() if s.name == node.op_type)
    if not tensorrt_parser.imports(node.op_type, version) or newest < first:
        return True
    if node.op_type == "LayerNormalization":
        return any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if node.op_type == "GroupNormalization":
        return version < _SCALES_OF_CHANNELS or newest < _SCALES_OF_CHANNELS_OPSET
    return node.op_type == "Resize" and resizing.is_beyond_tensorrt(node)


def _rank(node: ir.Node) -> int | None:
    image = node.inputs[0]
    return None if image is None or image.shape is None else len(image.shape)


def _widened(make: Builder) -> tuple[ir.Value, ir.DataType | None]:
    """The first input in float32, and the type that it had if that is a narrower one."""
    import onnx_ir as ir

    image = make.node.inputs[0]
    assert image is not None
    if image.dtype is None or image.dtype.name not in _NARROW:
        return image, None
    wide = make.add("Cast", image, to=int(ir.DataType.FLOAT))
    wide.dtype = ir.DataType.FLOAT
    return wide, image.dtype


def _narrowed(make: Builder, value: ir.Value, kind: ir.DataType | None) -> ir.Value:
    return value if kind is None else make.add("Cast", value, to=int(kind))


def _normalized(
    make: Builder, image: ir.Value, axes: list[int], *, centred: bool = True
) -> tuple[ir.Value, ir.Value | None, ir.Value]:
    """The image with mean 0 and variance 1 along axes; its mean; its standard deviation."""
    epsilon = make.scalar(attribute(make.node, "epsilon", 1e-5), image)
    mean = make.reduce("ReduceMean", image, axes) if centred else None
    offset = image if mean is None else make.add("Sub", image, mean)
    variance = make.reduce("ReduceMean", make.add("Mul", offset, offset), axes)
    deviation = make.add("Sqrt", make.add("Add", variance, epsilon))
    return make.add("Div", offset, deviation), mean, deviation


def _layer_normalization(make: Builder) -> bool:
    node, rank = make.node, _rank(make.node)
    axis = attribute(node, "axis", -1)
    if rank is None:
        return False
    image, kind = _widened(make)
    result, mean, deviation = _normalized(make, image, list(range(axis % rank, rank)))
    result = make.add("Mul", _narrowed(make, result, kind), node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = make.add("Add", result, node.inputs[2])
    read = [bool(value.uses()) or value.is_graph_output() for value in node.outputs[1:]]
    inverse = make.add("Reciprocal", deviation) if read[1:] == [True] else None
    make.replace(result, mean if read[:1] == [True] else None, inverse)
    return True


def _rms_normalization(make: Builder) -> bool:
    rank = _rank(make.node)
    axis = attribute(make.node, "axis", -1)
    if rank is None:
        return False
    image, kind = _widened(make)
    result, _, _ = _normalized(make, image, list(range(axis % rank, rank)), centred=False)
    make.replace(make.add("Mul", _narrowed(make, result, kind), make.node.inputs[1]))
    return True


def _scaled(make: Builder, value: ir.Value, trailing: int) -> ir.Value:
    """The value times the second input plus the third one, both along the axis before ``trailing`` others."""
    for op, index in (("Mul", 1), ("Add", 2)):
        given, shape = make.node.inputs[index], np.asarray([-1, *[1] * trailing], np.int64)
        value = make.add(op, value, make.add("Reshape", given, shape) if trailing else given)
    return value


def _instance_normalization(make: Builder) -> bool:
    rank = _rank(make.node)
    if rank is None or rank < 3:
        return False
    image, kind = _widened(make)
    result, _, _ = _normalized(make, image, list(range(2, rank)))
    make.replace(_scaled(make, _narrowed(make, result, kind), rank - 2))
    return True


def _group_normalization(make: Builder) -> bool:
    rank = _rank(make.node)
    if rank is None:
        return False
    groups = attribute(make.node, "num_groups", 1)
    image, kind = _widened(make)
    parts = make.add("Reshape", image, np.asarray([0, groups, -1], np.int64))
    parts.type = image.type
    result, _, _ = _normalized(make, parts, [2])
    result = _narrowed(make, result, kind)
    shape = static_shape(make.node.inputs[0])
    lengths = np.asarray(shape, np.int64) if shape else make.add("Shape", make.node.inputs[0])
    make.replace(_scaled(make, make.add("Reshape", result, lengths), rank - 2))
    return True


def _gelu(make: Builder) -> bool:
    x = make.node.inputs[0]
    assert x is not None
    if attribute(make.node, "approximate", "none") == "tanh":
        cube = make.add("Mul", make.add("Mul", x, x), x)
        inner = make.add("Add", x, make.add("Mul", cube, make.scalar(0.044715, x)))
        bell = make.add("Tanh", make.add("Mul", inner, make.scalar(math.sqrt(2 / math.pi), x)))
    else:
        bell = make.add("Erf", make.add("Mul", x, make.scalar(math.sqrt(0.5), x)))
    part = make.add("Add", bell, make.scalar(1, x))
    make.replace(make.add("Mul", make.add("Mul", x, part), make.scalar(0.5, x)))
    return True


def _mish(make: Builder) -> bool:
    x = make.node.inputs[0]
    make.replace(make.add("Mul", x, make.add("Tanh", make.add("Softplus", x))))
    return True


def _swish(make: Builder) -> bool:
    x, alpha = make.node.inputs[0], attribute(make.node, "alpha", 1.0)
    assert x is not None
    inner = x if alpha == 1 else make.add("Mul", x, make.scalar(alpha, x))
    make.replace(make.add("Mul", x, make.add("Sigmoid", inner)))
    return True


def _cast_like(make: Builder) -> bool:
    like = make.node.inputs[1]
    if like is None or like.dtype is None:
        return False
    make.replace(make.add("Cast", make.node.inputs[0], to=int(like.dtype)))
    return True


def _coordinates(length: int, corners: bool) -> Array:
    """From -1 to 1: at the corners' centres, or at their edges."""
    if not corners:
        return (2 * np.arange(length) + 1) / length - 1
    return np.linspace(-1, 1, length) if length > 1 else np.zeros(1)


def _affine_grid(make: Builder) -> bool:
    """Coordinates times each affine map: the coordinates of a fixed size are a constant."""
    size, theta = constant(make.node, 1), make.node.inputs[0]
    if size is None or theta is None:
        return False
    lengths = [int(length) for length in size[2:]]
    corners = attribute(make.node, "align_corners", 0)
    axes = [_coordinates(length, bool(corners)) for length in lengths]
    # Components are (x, y, z), the other way round than axes, and a 1 for the offset.
    points = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(lengths)], -1)
    points = points.reshape(-1, len(lengths) + 1).astype(np.float32)
    grid = make.add(
        "MatMul", points.astype(make.scalar(0, theta).dtype), make.add("Transpose", theta, perm=[0, 2, 1])
    )
    shape = np.asarray([-1, *lengths, len(lengths)], np.int64)
    make.replace(make.add("Reshape", grid, shape))
    return True


WRITERS: dict[str, Writer] = {
    "AffineGrid": _affine_grid,
    "CastLike": _cast_like,
    "Gelu": _gelu,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "Mish": _mish,
    "RMSNormalization": _rms_normalization,
    "Resize": resizing.write,
    "Swish": _swish,
}
