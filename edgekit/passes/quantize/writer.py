"""Write quantization into a network: QuantizeLinear and DequantizeLinear, weights as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.passes.quantize.layers import Layer, attribute, constant
from edgekit.passes.quantize.placement import Placement
from edgekit.passes.quantize.weights import Codes
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir


def write_placement(graph: ir.Graph, place: Placement) -> None:
    """Let a value's readers have it rounded: value → bytes → numbers."""
    import onnx_ir as ir

    value, name = place.value, place.value.name
    scale = add_constant(graph, np.asarray(place.scale, np.float32), f"{name}/scale")
    zero = _zero_point(graph, place.zero_point)
    rounding = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}/QuantizeLinear")
    stored = rounding.outputs[0]
    stored.name, stored.shape = f"{name}/bytes", value.shape
    stored.type = ir.TensorType(ir.DataType.from_numpy(place.zero_point.dtype))
    reading = ir.node("DequantizeLinear", [stored, scale, zero], name=f"{name}/DequantizeLinear")
    rounded = reading.outputs[0]
    rounded.name, rounded.shape, rounded.type = f"{name}/rounded", value.shape, value.type
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], [rounding, reading])
    else:
        graph.insert_after(maker, [rounding, reading])
    for node, index in place.readers:
        node.replace_input_with(index, rounded)


def write_weights(graph: ir.Graph, layers: Sequence[Layer], codes: Codes) -> None:
    """Let layers that share weights have them as bytes."""
    import onnx_ir as ir

    first = layers[0].node
    value = first.inputs[1]
    assert value is not None
    stored = add_constant(graph, codes.codes, f"{value.name}/bytes")
    scales = add_constant(graph, codes.scales, f"{value.name}/scale")
    # Without a zero point it is 0.
    reading = ir.node(
        "DequantizeLinear", [stored, scales], {"axis": codes.axis}, name=f"{value.name}/DequantizeLinear"
    )
    decoded = reading.outputs[0]
    decoded.name, decoded.shape, decoded.type = f"{value.name}/rounded", value.shape, value.type
    graph.insert_before(first, reading)
    for layer in layers:
        layer.node.replace_input_with(1, decoded)


def write_bias(graph: ir.Graph, node: ir.Node, bias: Array) -> None:
    """Give a layer a bias of its own."""
    value = add_constant(graph, bias, f"{node.name}/bias")
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, value)


def _zero_point(graph: ir.Graph, number: np.int8 | np.uint8) -> ir.Value:
    """One constant for all values that have the same: beside weights in bytes, names count."""
    name = f"{number.dtype.name}/{int(number)}"
    known = graph.initializers.get(name)
    return known if known is not None else add_constant(graph, np.asarray(number), name)


def add_constant(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    """A constant of the network, under this name or the next free one."""
    import onnx_ir as ir

    tries = (name, *(f"{name}{index}" for index in range(2, len(graph.initializers) + 3)))
    free = next(one for one in tries if one not in graph.initializers)
    tensor = ir.tensor(np.asarray(array, order="C"), name=free)
    value = ir.Value(
        name=free, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    graph.register_initializer(value)
    return value


def read_codes(layer: ir.Node) -> tuple[Codes, float] | None:
    """The weights of a quantized layer and the scale of its image; ``None`` where it is not quantized."""
    makers = [value.producer() if value is not None else None for value in layer.inputs[:2]]
    if len(makers) < 2 or any(node is None or node.op_type != "DequantizeLinear" for node in makers):
        return None
    image, weights = makers
    assert image is not None and weights is not None
    scale, codes, scales = (
        constant(node.inputs[index]) for node, index in ((image, 1), (weights, 0), (weights, 1))
    )
    if scale is None or codes is None or scales is None or scale.size != 1 or codes.dtype != np.int8:
        return None
    axis = int(attribute(weights, "axis", 1))
    stored, steps = codes.astype(np.int8), scales.reshape(-1).astype(np.float32)
    return Codes(stored, steps, axis), float(scale.reshape(()))
