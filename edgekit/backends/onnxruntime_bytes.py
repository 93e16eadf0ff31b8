"""A quantized network as ONNX Runtime fuses it, of the same meaning to the last bit.

Its convolutions of bytes (``QLinearConv``) want images in unsigned bytes, a bias of 32 bits in steps of the
sums of products, and bytes right after the sum: a ReLU between is fused only where the zero point is the
smallest byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
# Two products of an unsigned byte and weights fit 16 bits up to this sum of the weights.
_LARGEST_PAIR = 32767 // 255
# Bytes can be clipped since this version of ONNX's operator set.
_CLIP_OPSET = 12


def is_quantized(model: ir.Model) -> bool:
    """Whether a network has quantized values."""
    return any(node.op_type == "QuantizeLinear" and not node.domain for node in model.graph)


def rewrite(model: ir.Model) -> None:
    """Change a quantized network into the form that is fused; what it computes stays the same."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and not node.domain:
            _unsign(graph, node)
    for node in list(graph):
        if node.op_type in _LAYERS and not node.domain:
            _store_bias(graph, node)
        elif node.op_type == "Relu" and not node.domain and model.opset_imports.get("", 0) >= _CLIP_OPSET:
            _rectify_bytes(graph, node)


def may_saturate(model: ir.Model) -> bool:
    """Whether products of bytes overflow 16 bits in pairs, as x86 without VNNI adds them.

    Neighbours are looked for along the inputs, of one tap or of two that follow each other.
    """
    for node in model.graph:
        if node.op_type not in (*_LAYERS, "MatMul") or node.domain:
            continue
        weights = _dequantized(node.inputs[1])
        if weights is None or weights.values.dtype != np.int8:
            continue
        axis = _output_axis(node)
        rows = np.moveaxis(weights.values.astype(np.int32), axis, 0)
        rows = rows.reshape(*rows.shape[:2], -1).transpose(0, 2, 1)
        if any(_largest_pair(way) > _LARGEST_PAIR for way in _ways(rows)):
            return True
    return False


def separate_weights(model: ir.Model) -> None:
    """Give each layer weights and zero points of its own: else ONNX Runtime cannot widen its sums.

    (Its option for that, ``session.x64quantprecision``, writes weights of one name twice, and one zero point
    for all outputs where there were none, and fails on both: 1.32.)
    """
    graph = model.graph
    for node in list(graph):
        maker = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
        if node.op_type not in (*_LAYERS, "MatMul") or maker is None or maker.op_type != "DequantizeLinear":
            continue
        weights = _dequantized(node.inputs[1])
        if weights is None:
            continue
        if len(maker.inputs) < 3:
            zeros = np.zeros(weights.scale.shape, weights.values.dtype)
            maker.resize_inputs(3)
            maker.replace_input_with(2, _add_constant(graph, zeros, f"{maker.name}/zero_point"))
        if len(maker.outputs[0].uses()) > 1:
            _copy_weights(graph, node, maker, weights.values)


def _copy_weights(graph: ir.Graph, node: ir.Node, maker: ir.Node, values: Array) -> None:
    import onnx_ir as ir

    zeros = _constant(maker.inputs[2]) if len(maker.inputs) > 2 else None
    inputs = [_add_constant(graph, values, f"{node.name}/weights/bytes"), maker.inputs[1]]
    if zeros is not None:
        inputs.append(_add_constant(graph, zeros, f"{node.name}/weights/zero_point"))
    attributes = {name: attribute.value for name, attribute in maker.attributes.items()}
    reading = ir.node("DequantizeLinear", inputs, attributes, name=f"{node.name}/weights/DequantizeLinear")
    reading.outputs[0].name = f"{node.name}/weights/rounded"
    graph.insert_before(node, reading)
    node.replace_input_with(1, reading.outputs[0])


def _ways(rows: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.int32]]:
    """Weights [outputs, taps, inputs] in pairs: within a tap, and across taps where their number is odd."""
    odd = rows.shape[2] % 2
    yield np.pad(rows, ((0, 0), (0, 0), (0, odd)))
    if odd:
        flat = rows.reshape(len(rows), -1)
        yield np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))


def _largest_pair(way: npt.NDArray[np.int32]) -> int:
    pairs = way.reshape(-1, 2)
    if not len(pairs):
        return 0
    return int(max(np.maximum(pairs, 0).sum(1).max(), np.maximum(-pairs, 0).sum(1).max()))


def _output_axis(node: ir.Node) -> int:
    if node.op_type == "Gemm":
        found = node.attributes.get("transB")
        return 0 if found is not None and found.as_int() else 1
    return 0 if node.op_type == "Conv" else 1


def _unsign(graph: ir.Graph, node: ir.Node) -> None:
    """Signed bytes as unsigned ones that are 128 further, the only ones that it fuses on x86."""
    import onnx_ir as ir

    zero, stored = _constant(node.inputs[2]) if len(node.inputs) > 2 else None, node.outputs[0]
    readers = list(stored.consumers())
    if zero is None or zero.dtype != np.int8 or zero.size != 1 or stored.is_graph_output():
        return
    if any(reader.op_type != "DequantizeLinear" or len(reader.inputs) < 3 for reader in readers):
        return
    further = (zero.astype(np.int16) + 128).astype(np.uint8)
    value = _add_constant(graph, further, f"{node.name}/zero_point")
    stored.type = ir.TensorType(ir.DataType.UINT8)
    for one in (node, *readers):
        one.replace_input_with(2, value)


@dataclass(frozen=True)
class _Dequantized:
    """A constant that a DequantizeLinear makes numbers of."""

    values: Array
    scale: Array


def _dequantized(value: ir.Value | None) -> _Dequantized | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain:
        return None
    values, scale = _constant(node.inputs[0]), _constant(node.inputs[1])
    return _Dequantized(values, scale) if values is not None and scale is not None else None


def _store_bias(graph: ir.Graph, node: ir.Node) -> None:
    """The bias of a layer of bytes in 32 bits, where it is whole steps of the sums of products."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return
    value, weights = node.inputs[2], _dequantized(node.inputs[1])
    bias, image = _constant(value), node.inputs[0]
    maker = image.producer() if image is not None else None
    if bias is None or weights is None or maker is None or maker.op_type != "DequantizeLinear":
        return
    input_scale = _constant(maker.inputs[1])
    if input_scale is None or input_scale.size != 1 or bias.dtype != np.float32 or bias.ndim != 1:
        return
    steps = (input_scale.reshape(()) * weights.scale).astype(np.float32).reshape(-1)
    if steps.size not in (1, bias.size):
        return
    whole = np.rint(bias.astype(np.float64) / steps)
    if np.abs(whole).max(initial=0) >= 1 << 31 or (whole.astype(np.float32) * steps != bias).any():
        return
    _read_bias(graph, node, whole.astype(np.int32), steps)


def _read_bias(graph: ir.Graph, node: ir.Node, whole: Array, steps: Array) -> None:
    import onnx_ir as ir

    zeros = np.zeros(steps.shape, np.int32)
    if steps.size == 1:
        steps, zeros = steps.reshape(()), zeros.reshape(())
    parts = (("sums", whole), ("step", steps), ("zero", zeros))
    inputs = [_add_constant(graph, array, f"{node.name}/bias/{name}") for name, array in parts]
    reading = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{node.name}/bias/DequantizeLinear")
    reading.outputs[0].name = f"{node.name}/bias/rounded"
    graph.insert_before(node, reading)
    node.replace_input_with(2, reading.outputs[0])


def _rectify_bytes(graph: ir.Graph, relu: ir.Node) -> None:
    """``quantize(relu(x))`` as ``clip(quantize(x))``, where the zero point is not the smallest byte anyway.

    The two are equal: rounding keeps the order of numbers, and 0 becomes the zero point.
    """
    import onnx_ir as ir

    source, result = relu.inputs[0], relu.outputs[0]
    readers = list(result.consumers())
    if (
        source is None
        or len(readers) != 1
        or readers[0].op_type != "QuantizeLinear"
        or result.is_graph_output()
    ):
        return
    if len(source.uses()) != 1 or source.is_graph_output():
        return
    rounding = readers[0]
    zero = _constant(rounding.inputs[2]) if len(rounding.inputs) > 2 else None
    if zero is None or zero.size != 1 or zero.dtype.kind not in "iu" or zero.dtype.itemsize != 1:
        return
    if zero.reshape(()) == np.iinfo(zero.dtype).min:
        return
    stored = rounding.outputs[0]
    least = _add_constant(graph, zero.reshape(()), f"{relu.name}/least")
    clip = ir.node("Clip", [stored, least], name=f"{relu.name}/bytes")
    clipped = clip.outputs[0]
    clipped.name, clipped.type, clipped.shape = f"{stored.name}/rectified", stored.type, stored.shape
    graph.insert_after(rounding, clip)
    for use in list(stored.uses()):
        if use.node is not clip:
            use.node.replace_input_with(use.idx, clipped)
    rounding.replace_input_with(0, source)
    graph.remove(relu, safe=True)


def _has_one_reader(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _constant(value: ir.Value | None) -> Any:
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def _add_constant(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    import onnx_ir as ir

    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    graph.register_initializer(value)
    return value
