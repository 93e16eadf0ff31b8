"""Convolve before doubling: a convolution of a doubled image is a transposed one of the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.spec import Array
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

# What of Resize makes two of each voxel, whatever else the node says.
_DOUBLING = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
}


class FoldUpsamplingPass(Pass):
    """Nearest upsampling by two, then a convolution of 3 along each axis, becomes a transposed convolution.

    A window of 3 doubled voxels holds 2 different ones, so that weights can be added beforehand: 4 along each
    axis with stride 2, of which 2 meet each result. That is 8 products instead of 27 in a volume, and the
    doubled image is never made. Where what is convolved is a concatenation, as in a U-Net's decoder, the
    convolution is split: results differ by rounding.
    """

    name = "fold_upsampling"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        if not any(node.op_type == "Resize" for node in graph.model.graph):
            return PassResult(graph, False)
        opset.register()
        model = graph.edit()
        common.ShapeInferencePass()(model)  # how many channels each part of a concatenation has
        found = [one for node in model.graph if (one := _find(node))]
        if not found:
            return PassResult(graph, False)
        for one in found:
            _replace(model.graph, one)
        common.RemoveUnusedNodesPass()(model)
        common.NameFixPass()(model)
        plural = "s" if len(found) > 1 else ""
        note = f"{len(found)} convolution{plural} of upsampled images became transposed ones"
        return PassResult(graph.with_model(model, f"fold_upsampling: {note}"), True, (note,))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Inputs and outputs keep their names and order."""
        network = graph.model.graph
        names = ([v.name for v in network.inputs], [v.name for v in network.outputs])
        wanted = ([s.name for s in graph.inputs], [s.name for s in graph.outputs])
        return None if names == wanted else f"inputs and outputs were {wanted}, are {names}"


@dataclass(frozen=True)
class _Found:
    """A convolution, the images that are doubled for it, and those that are not; each with its weights."""

    conv: ir.Node
    doubled: list[tuple[ir.Value, Array]]
    plain: list[tuple[ir.Value, Array]]


def _find(conv: ir.Node) -> _Found | None:
    if conv.op_type != "Conv" or conv.domain or not _is_plain(conv):
        return None
    image, weights = conv.inputs[0], _constant(conv.inputs[1])
    if image is None or weights is None or weights.dtype != np.float32 or set(weights.shape[2:]) != {3}:
        return None
    maker = image.producer()
    parts: Sequence[ir.Value | None] = [image]
    if maker is not None and maker.op_type == "Concat" and _is_private(image):
        axis = maker.attributes["axis"].as_int()
        parts = maker.inputs if axis in (1, 1 - weights.ndim) else parts
    counts = [_channels(part) for part in parts]
    if len(parts) == 1:
        counts = [weights.shape[1]]
    if None in counts or sum(n for n in counts if n) != weights.shape[1]:
        return None
    doubled: list[tuple[ir.Value, Array]] = []
    plain: list[tuple[ir.Value, Array]] = []
    begin = 0
    for part, count in zip(parts, counts, strict=True):
        assert part is not None and count is not None
        own = weights[:, begin : begin + count]
        source = _doubled(part)
        (plain if source is None else doubled).append((source or part, own))
        begin += count
    return _Found(conv, doubled, plain) if doubled else None


def _is_plain(conv: ir.Node) -> bool:
    """Whether it keeps the size: stride, dilation and group 1, padding 1."""
    given = {name: attribute.value for name, attribute in conv.attributes.items()}
    ones = all(set(given.get(name, (1,))) == {1} for name in ("strides", "dilations"))
    return ones and given.get("group", 1) == 1 and set(given.get("pads", (0,))) == {1}


def _doubled(value: ir.Value) -> ir.Value | None:
    """What is doubled to give a value that nothing else reads."""
    node = value.producer()
    if node is None or node.op_type != "Resize" or node.domain or not _is_private(value):
        return None
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    how = (
        given.get("coordinate_transformation_mode", "half_pixel"),
        given.get("nearest_mode", "round_prefer_floor"),
    )
    if given.get("mode", "nearest") != "nearest" or how not in _DOUBLING or "axes" in given:
        return None
    source = node.inputs[0]
    scales = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is None or source is None:
        return None
    return source if list(scales) == [1, 1, *[2] * (len(scales) - 2)] and len(scales) > 2 else None


def _is_private(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _channels(value: ir.Value | None) -> int | None:
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    length = value.shape[1]
    return length if isinstance(length, int) else None


def _constant(value: ir.Value | None) -> Array | None:
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def transposed_weights(weights: Array) -> Array:
    """Weights [K, C, 3 …] of a convolution after doubling as those [C, K, 4 …] of a transposed one before it.

    Along an axis, result ``2 i`` is ``w0 x[i - 1] + (w1 + w2) x[i]``, and result ``2 i + 1`` is ``(w0 + w1)
    x[i] + w2 x[i + 1]``: the weights of stride 2 and padding 1 are ``w2, w1 + w2, w0 + w1, w0``.
    """
    wide = weights.astype(np.float64)
    for axis in range(2, weights.ndim):
        w0, w1, w2 = (np.take(wide, [place], axis) for place in range(3))
        wide = np.concatenate([w2, w1 + w2, w0 + w1, w0], axis)
    return np.ascontiguousarray(wide.swapaxes(0, 1).astype(weights.dtype))


def _replace(graph: ir.Graph, found: _Found) -> None:
    import onnx_ir as ir

    conv, out = found.conv, found.conv.outputs[0]
    bias = list(conv.inputs[2:3])
    rank = len(found.doubled[0][1].shape) - 2
    made: list[ir.Node] = []

    def add(op: str, inputs: Sequence[ir.Value | None], suffix: str, **attributes: Any) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes, name=f"{conv.name}/{suffix}")
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{out.name}/{suffix}", out.type, out.shape
        made.append(node)
        return value

    def constant(array: Array, suffix: str) -> ir.Value:
        tensor = ir.tensor(array, name=f"{conv.name}/{suffix}")
        value = ir.Value(
            name=tensor.name,
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
        )
        graph.register_initializer(value)
        return value

    terms = []
    if found.plain:
        images = [value for value, _ in found.plain]
        image = images[0]
        if len(images) > 1:
            image = add("Concat", images, "unscaled", axis=1)
            image.shape = None  # other channels than the result
        weights = np.ascontiguousarray(np.concatenate([own for _, own in found.plain], axis=1))
        inputs = [image, constant(weights, "weights"), *bias]
        terms.append(add("Conv", inputs, "plain", kernel_shape=[3] * rank, pads=[1] * (2 * rank)))
        bias = []
    for index, (source, own) in enumerate(found.doubled):
        inputs = [source, constant(transposed_weights(own), f"doubling{index}"), *bias]
        geometry = {"kernel_shape": [4] * rank, "strides": [2] * rank, "pads": [1] * (2 * rank)}
        terms.append(add("ConvTranspose", inputs, f"doubled{index}", **geometry))
        bias = []
    total = terms[0]
    for index, term in enumerate(terms[1:]):
        total = add("Add", [total, term], f"sum{index}")
    graph.insert_before(conv, made)
    ir.convenience.replace_all_uses_with(out, total, replace_graph_outputs=True)
    name = out.name
    out.name = None
    total.name = name
