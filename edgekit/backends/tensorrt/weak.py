"""The weakly typed form of a network, for TensorRT 8 and for accelerators (DLA).

There a network is in float32, and flags and scales allow narrower numbers. What edgekit's passes wrote into
the graph is taken out of it and said that way: casts to float16 become the flag FP16 and the layers that must
stay float32; pairs of QuantizeLinear and DequantizeLinear become a calibration cache.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.backends.tensorrt import versions
from edgekit.errors import CorruptError, UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir

FLOAT32 = "fp32"
_ALGORITHM = "EntropyCalibration2"
_NO_LAYERS = frozenset(("Cast", "Constant", "ConstantOfShape", "DequantizeLinear"))


@dataclass
class Said:
    """What is said beside a weakly typed network.

    Attributes:
        precisions: What its layers may compute in beside float32: ``"float16"``, ``"int8"``.
        layers: Precision of layers that must compute in it, by name.
        scales: The value of one step of a signed byte, by the name of the tensor.
    """

    precisions: set[str] = field(default_factory=set)
    layers: dict[str, str] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)


def weaken(model: ir.Model, *, calibrated: bool) -> Said:
    """Take types and rounding out of a network, in place.

    Args:
        model: The strongly typed network.
        calibrated: Whether quantization becomes scales beside the network; it stays in it otherwise.

    Raises:
        UnsupportedError: Quantization that a scale for a whole tensor does not say.
    """
    from onnx_ir.passes import common

    said = Said()
    graph = model.graph
    scales: dict[
        ir.Value, float
    ] = {}  # names come last: what an output of the network is made of gets its name
    if any(node.op_type == "QuantizeLinear" for node in graph):
        said.precisions.add("int8")
        if calibrated:
            scales = _take_out_rounding(graph)
    _widen(graph, said)
    common.RemoveUnusedNodesPass()(model)
    said.scales = {str(value.name): scale for value, scale in scales.items()}
    return said


def cache(scales: Mapping[str, float], tensorrt: str) -> bytes:
    """A calibration cache: the scale of each tensor as the bits of a float32, in hexadecimal.

    Args:
        scales: By the name of the tensor; what the largest byte, 127, stands for is 127 times that.
        tensorrt: Version that reads it.
    """
    lines = [f"TRT-{versions.number(tensorrt)}-{_ALGORITHM}"]
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    return ("\n".join(lines) + "\n").encode()


def read_cache(data: bytes) -> dict[str, float]:
    """The scales of a calibration cache.

    Raises:
        CorruptError: It is none.
    """
    header, *lines = data.decode(errors="replace").splitlines() or [""]
    if not re.fullmatch(rf"TRT-\d+-{_ALGORITHM}", header):
        raise CorruptError(f"not a calibration cache: want TRT-…-{_ALGORITHM}, got {header[:80]!r}")
    scales = {}
    for line in lines:
        name, separator, digits = line.rpartition(": ")
        if not separator or not re.fullmatch(r"[0-9a-f]{8}", digits):
            raise CorruptError(f"not a line of a calibration cache: {line[:80]!r}")
        scales[name] = float(struct.unpack(">f", bytes.fromhex(digits))[0])
    return scales


def for_version(data: bytes, tensorrt: str) -> bytes:
    """The same scales for another version, which refuses the header of any other."""
    return cache(read_cache(data), tensorrt)


def _take_out_rounding(graph: ir.Graph) -> dict[ir.Value, float]:
    """The scale of each rounded tensor; the nodes that rounded are bridged, weights become numbers again."""
    scales: dict[ir.Value, float] = {}
    refused = []
    for node in list(graph):
        if node.op_type != "DequantizeLinear":
            continue
        codes = node.inputs[0]
        rounding = codes.producer() if codes is not None else None
        if rounding is None:
            _restore_weights(graph, node)
            continue
        scale, zero = _numbers(node, 1), _numbers(node, 2)
        if rounding.op_type != "QuantizeLinear" or scale is None or scale.size != 1:
            refused.append(f"{node.name} has no scale for the whole tensor")
        elif zero is None or zero.dtype != np.int8 or zero.any():
            refused.append(f"{node.name} wants bytes that are not signed, or another zero point than 0")
        else:
            source = rounding.inputs[0]
            assert source is not None
            scales[_bridge(graph, node, source)] = float(scale.ravel()[0])
    if refused:
        raise UnsupportedError(
            f"a calibration cache cannot say this quantization: {'; '.join(refused[:3])}",
            hint="--option tensorrt.quantization=qdq keeps it in the network",
        )
    return scales


def _restore_weights(graph: ir.Graph, node: ir.Node) -> None:
    """Weights in bytes become the numbers that they stand for."""
    codes, scale, zero = _numbers(node, 0), _numbers(node, 1), _numbers(node, 2)
    if codes is None or scale is None:
        raise UnsupportedError(f"{node.name} reads bytes from outside the network", where=str(node.name))
    if scale.size > 1:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        shape = [1] * codes.ndim
        shape[axis] = scale.size
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    offset = 0 if zero is None else zero.astype(np.float32)
    numbers = ((codes.astype(np.float32) - offset) * scale.astype(np.float32)).astype(np.float32)
    _become_constant(graph, node, numbers)


def _become_constant(graph: ir.Graph, node: ir.Node, numbers: Any) -> None:
    import onnx_ir as ir

    name = f"{node.outputs[0].name}/numbers"
    tensor = ir.tensor(numbers, name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(numbers.shape)
    )
    graph.initializers[name] = value
    node.outputs[0].replace_all_uses_with(value)
    graph.remove(node, safe=True)


def _bridge(graph: ir.Graph, node: ir.Node, source: ir.Value) -> ir.Value:
    """Readers of a node read what it read; what they read now. An output of the network keeps its name."""
    import onnx_ir as ir

    result = node.outputs[0]
    if result not in graph.outputs:
        result.replace_all_uses_with(source)
    elif source.producer() is not None and source not in graph.outputs:
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        source.name, result.name = result.name, None
    else:
        same = ir.Node("", "Identity", [source], num_outputs=1, name=f"{node.name}/same")
        same.outputs[0].type, same.outputs[0].shape = result.type, result.shape
        graph.insert_before(node, same)
        result.replace_all_uses_with(same.outputs[0], replace_graph_outputs=True)
        same.outputs[0].name, result.name = result.name, None
    graph.remove(node, safe=True)
    return source


def _widen(graph: ir.Graph, said: Said) -> None:
    """float16 becomes float32; which layers computed in float32 before is kept."""
    import onnx_ir as ir

    half, single = ir.DataType.FLOAT16, ir.DataType.FLOAT
    halves = [n for n in graph if n.op_type != "Cast" and any(v.dtype == half for v in n.outputs)]
    if not halves:
        return
    said.precisions.add("float16")
    for node in graph:
        # What the passes kept wide in a network of which the rest is narrow.
        if node.op_type not in _NO_LAYERS and any(v.dtype == single for v in node.outputs):
            said.layers[str(node.name)] = FLOAT32
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == half:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(single)  # a type may be shared with other graphs
    for node in list(graph):
        _widen_node(graph, node)


def _widen_node(graph: ir.Graph, node: ir.Node) -> None:
    import onnx_ir as ir

    half, single = ir.DataType.FLOAT16, ir.DataType.FLOAT
    source = node.inputs[0] if node.inputs else None
    if node.op_type == "Cast" and source is not None:
        if node.attributes["to"].as_int() == int(half):
            node.attributes["to"] = ir.AttrInt64("to", int(single))
            node.outputs[0].type = ir.TensorType(single)
        if source.dtype == single and node.attributes["to"].as_int() == int(single):
            _bridge(graph, node, source)
            return
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == half:
            wide = ir.tensor(attribute.as_tensor().numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, wide)
    for value in node.outputs:
        if value.dtype == half:
            value.type = ir.TensorType(single)


def _numbers(node: ir.Node, index: int) -> Any:
    value = node.inputs[index] if len(node.inputs) > index else None
    tensor = value.const_value if value is not None else None
    return None if tensor is None else tensor.numpy()
