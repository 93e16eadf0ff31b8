"""Networks in which ONNX's QuantizeLinear and DequantizeLinear stand: what they compute in bytes.

A convolution between dequantized values becomes one of bytes. What chooses among its inputs' numbers, as a
concatenation or the largest of a window does, chooses among their bytes. The other quantizations become
functions of the chains around them, and every dequantization is done where it is read: values stay bytes in
memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from edgekit.backends.tvm import dot, integer_convolution, narrow_integer, patterns
from edgekit.backends.tvm.functions import DEQUANTIZE, QUANTIZE
from edgekit.backends.tvm.graph import Network, Node, Value, constant
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.backends.tvm.tiles import Convolution, convolution_problem

# A convolution of bytes with known weights; its result is float32. Attributes: zero_point (of the input),
# most (its largest byte), scales (of the sums, one for each output), bias (of the sums, likewise).
CONVOLUTION = "edgekit.quantized_convolution"
_BYTES = ("int8", "uint8")
# What gives some of its inputs' numbers in other places: of bytes it gives bytes of the same scale.
_CHOICES = (
    *("relax.concat", "relax.strided_slice", "relax.nn.pad", patterns.PART),
    *(f"relax.nn.max_pool{axes}d" for axes in (1, 2, 3)),
)
_NEVER_NEGATIVE = (
    "relax.nn.relu",
    "relax.sigmoid",
    "relax.nn.softmax",
    "relax.abs",
    "relax.exp",
    "relax.sqrt",
)
# Attributes of a node that are bytes.
_IN_BYTES = {"zero_point", "least", "most", "fill"}
# The same numbers in another shape.
_VIEWS = ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.permute_dims")


def recognize(network: Network, processor: Processor) -> None:
    """Replace quantizations and what stands between them; the network is changed.

    Args:
        network: As :func:`edgekit.backends.tvm.graph.read` gives it.
        processor: What it is to run on.
    """
    for node in list(network.nodes):
        _name(network, node)
    for node in list(network.nodes):
        _choose_bytes(network, node)
    for node in list(network.nodes):
        _cancel(network, node)
    for node in network.nodes:
        _bound(node)
    _convert(network, dot.byte_type(processor))
    for node in network.nodes:
        if node.operator in _VIEWS and node.output.dtype in _BYTES:
            node.call = _view(network, node)
    for node in list(network.nodes):
        _convolution(network, node, processor)
    for node in list(network.nodes):
        _requantization(network, node)


def _name(network: Network, node: Node) -> None:
    """Quantizations between float32 and bytes, by one scale, get names and numbers of their own."""
    if node.operator not in ("relax.quantize", "relax.dequantize"):
        return
    data, scale, zero_point = node.inputs
    quantizes = node.operator == "relax.quantize"
    number, byte = (data, node.output) if quantizes else (node.output, data)
    known = [value.constant for value in (scale, zero_point)]
    single = all(array is not None and array.size == 1 for array in known)
    if not single or number.dtype != "float32" or byte.dtype not in _BYTES or data.shape is None:
        return
    step, zero = (float(np.asarray(array).reshape(())) for array in known)
    if not quantizes:
        network.replace([node], DEQUANTIZE, [data], scale=step, zero_point=zero)
        return
    least, most = _limits(byte.dtype)
    network.replace(
        [node], QUANTIZE, [data], scale=step, zero_point=zero, least=least, most=most, signed=least < 0
    )


def _limits(dtype: str) -> tuple[float, float]:
    """The least and the largest byte of a type."""
    limits = np.iinfo(dtype)
    return float(limits.min), float(limits.max)


def _choose_bytes(network: Network, node: Node) -> None:
    """A choice among dequantized numbers is one among bytes, dequantized after it."""
    before = [value.producer for value in node.inputs]
    known = [other for other in before if other is not None and other.operator == DEQUANTIZE]
    if not known or len(known) < len(before) or node.output.shape is None or not _chooses(node):
        return
    first, kinds = known[0], {other.inputs[0].dtype for other in known}
    if len(kinds) > 1 or any(other.attributes != first.attributes for other in known):
        return
    filled = {}
    if node.operator == "relax.nn.pad" and str(node.call.attrs.pad_mode) == "constant":
        filled["fill"] = (
            node.call.attrs.pad_value / first.attributes["scale"] + first.attributes["zero_point"]
        )
        least, most = _limits(first.inputs[0].dtype)
        if not (filled["fill"].is_integer() and least <= filled["fill"] <= most):
            return
    sources = [other.inputs[0] for other in known]
    chosen = Value(node.output.shape, sources[0].dtype)
    last = network.replace([node], DEQUANTIZE, [chosen], **first.attributes)
    new = Node(node.operator, sources, chosen, node.call, {**node.attributes, **filled})
    network.insert(last, new)
    _drop(network, known)


def _chooses(node: Node) -> bool:
    if node.operator.startswith("relax.image.resize"):
        return str(node.call.attrs.method) == "nearest_neighbor"
    return node.operator in _CHOICES or node.operator in _VIEWS


def _view(network: Network, node: Node) -> Any:
    """Relax's call for another shape of bytes: no kernel of ours does it."""
    source = node.inputs[0]
    variable = relax.Var("bytes", relax.TensorType(source.lengths, source.dtype))
    network.values[variable] = source
    if node.operator == "relax.permute_dims":
        return relax.op.permute_dims(variable, node.call.attrs.axes)
    return relax.op.reshape(variable, node.output.lengths)


def _cancel(network: Network, node: Node) -> None:
    """Bytes that are dequantized and quantized alike are the same bytes."""
    before = node.inputs[0].producer if node.operator == QUANTIZE else None
    if before is None or before.operator != DEQUANTIZE or node.output.is_output:
        return
    source = before.inputs[0]
    same = all(node.attributes[name] == before.attributes[name] for name in ("scale", "zero_point"))
    if not same or source.dtype != node.output.dtype:
        return
    for reader in node.output.consumers:
        reader.inputs = [source if value is node.output else value for value in reader.inputs]
        source.consumers.append(reader)
    node.output.consumers = []
    network.remove(node)
    _drop(network, [before])


def _drop(network: Network, nodes: list[Node]) -> None:
    """Take out the nodes whose results nobody reads any more."""
    for node in {id(node): node for node in nodes}.values():
        if node.output.uses == 0:
            network.remove(node)


def _bound(node: Node) -> None:
    """What is not negative becomes no byte below the one for 0, though the type holds more."""
    if node.operator == QUANTIZE and _not_negative(node.inputs[0]):
        node.attributes["least"] = max(node.attributes["least"], node.attributes["zero_point"])


def _not_negative(value: Value) -> bool:
    producer = value.producer
    if producer is None:
        return False
    if producer.operator == DEQUANTIZE:
        return _range(producer.inputs[0])[0] >= float(producer.attributes["zero_point"])
    return producer.operator in _NEVER_NEGATIVE or (
        _chooses(producer) and bool(producer.inputs) and all(map(_not_negative, producer.inputs))
    )


def _range(value: Value) -> tuple[float, float]:
    """The least and the largest byte that a value may have."""
    producer = value.producer
    if producer is not None and producer.operator == QUANTIZE:
        return producer.attributes["least"], producer.attributes["most"]
    if producer is None or not _chooses(producer):
        return _limits(value.dtype)
    ranges = [*map(_range, producer.inputs)]
    if "fill" in producer.attributes:
        ranges.append((producer.attributes["fill"],) * 2)
    return min(least for least, _ in ranges), max(most for _, most in ranges)


def _is_convolution(node: Node) -> bool:
    return node.operator.startswith("relax.nn.conv")


def _convert(network: Network, dtype: str) -> None:
    """Bytes of the kind that the processor multiplies.

    Bytes that come together somewhere are converted together, or not at all.
    """
    every: dict[int, Value] = {}
    for node in network.nodes:
        found = (v for v in (*node.inputs, node.output) if v.dtype in _BYTES and v.constant is None)
        every.update((id(value), value) for value in found)
    together = {key: [value] for key, value in every.items()}
    fixed = {key for key, value in every.items() if value.is_output or value.producer is None}
    for node in network.nodes:
        around = [id(value) for value in (*node.inputs, node.output) if id(value) in every]
        if node.operator not in (QUANTIZE, DEQUANTIZE) and not _chooses(node):
            fixed.update(around)
        for key in around[1:]:
            one, other = together[around[0]], together[key]
            if one is not other:
                one += other
                together.update(dict.fromkeys(map(id, other), one))
    for values in {id(values): values for values in together.values()}.values():
        if values[0].dtype != dtype and not any(id(value) in fixed for value in values):
            _retype(network, values, dtype)


def _retype(network: Network, values: list[Value], dtype: str) -> None:
    """The same numbers as bytes of the other kind: the same ones where both have them, else 128 further."""
    ranges = [*map(_range, values)]
    (least, most), shift = _limits(dtype), 128.0 if dtype == "uint8" else -128.0
    if all(least <= low and high <= most for low, high in ranges):
        shift = 0.0
    changed = set(map(id, values))
    for value in values:
        value.dtype = dtype
    for node in network.nodes:
        if not any(id(value) in changed for value in (*node.inputs, node.output)):
            continue
        for name in _IN_BYTES & node.attributes.keys():
            node.attributes[name] += shift
        if node.operator == QUANTIZE:
            node.attributes["signed"] = dtype == "int8"


def _convolution(network: Network, node: Node, processor: Processor) -> None:
    """A convolution of dequantized values, where a kernel multiplies their bytes."""
    if not _is_convolution(node):
        return
    before, known = node.inputs[0].producer, _known_bytes(node)
    if before is None or before.operator != DEQUANTIZE or known is None:
        return
    data, result = before.inputs[0], node.output.shape
    if data.dtype != dot.byte_type(processor) or data.shape is None or result is None:
        return
    weights, scales = known
    problem = convolution_problem(node.call, weights.shape[2:])
    x = Tensor(data.shape, data.dtype, processor.layout_for(data.shape[1]))
    y = Tensor(result, layout=processor.layout_for(result[1]))
    narrow = narrow_integer.takes(problem, narrow_integer.in_blocks(x), y, processor)
    if not narrow and not integer_convolution.takes(problem, x, y):
        return
    zero_point = int(before.attributes["zero_point"])
    new = network.replace(
        [node],
        CONVOLUTION,
        [data, constant(weights)],
        zero_point=zero_point,
        # The halo holds the zero point.
        most=max(int(_range(data)[1]), zero_point),
        scales=np.broadcast_to(scales * np.float32(before.attributes["scale"]), result[1:2]),
        bias=np.zeros(result[1], np.int32),
    )
    new.call = node.call
    _drop(network, [before])


def _requantization(network: Network, node: Node) -> None:
    """From sums to bytes of another scale in one step: bias, ReLU and scales go into the convolution.

    It rounds once, as ONNX Runtime does (``QLinearConv``).
    """
    if node.operator != CONVOLUTION:
        return
    attributes, old = dict(node.attributes), [node]
    following = _only_reader(node.output)
    if following is not None and following.operator == "relax.add":
        bias = _bias(following, attributes["scales"])
        if bias is None:
            return
        attributes["bias"] = bias
        old.append(following)
        following = _only_reader(following.output)
    rectified = following is not None and following.operator == "relax.nn.relu"
    if following is not None and rectified:
        old.append(following)
        following = _only_reader(following.output)
    if following is None or following.operator != QUANTIZE:
        return
    limits = dict(following.attributes)
    attributes["scales"] = attributes["scales"] / np.float32(limits["scale"])
    limits["scale"] = 1.0
    if rectified:
        limits["least"] = max(limits["least"], limits["zero_point"])
    sums = Value(node.output.shape, "float32")
    last = network.replace([*old, following], QUANTIZE, [sums], **limits)
    network.insert(last, Node(CONVOLUTION, list(node.inputs), sums, node.call, attributes))


def _bias(node: Node, scales: NDArray[np.float32]) -> NDArray[np.int32] | None:
    """What a sum adds to each channel, in units of the scales: only what was quantized so."""
    known = next((value for value in node.inputs if value.constant is not None), None)
    shape = node.output.shape
    if known is None or known.constant is None or shape is None:
        return None
    array = known.constant
    if array.shape[array.ndim - len(shape) + 1 :][:1] != shape[1:2] or array.size != shape[1]:
        return None
    exact = array.reshape(-1).astype(np.float64) / scales.astype(np.float64)
    bias = np.rint(exact)
    fits = np.abs(bias).max() < 1 << 30 and np.abs(exact - bias).max() <= 1e-6 * max(np.abs(bias).max(), 1)
    return bias.astype(np.int32) if fits else None


def _only_reader(value: Value) -> Node | None:
    return value.consumers[0] if value.uses == 1 and value.consumers else None


def _known_bytes(node: Node) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """The weights of a convolution as signed bytes around zero, and their scale or one for each output."""
    origin = node.inputs[1].origin
    if origin is None or origin.operator != "relax.dequantize":
        return None
    values, scale, zero_point = (np.asarray(value.constant) for value in origin.inputs)
    axis = int(origin.call.attrs.axis) % values.ndim
    # Outputs are the second axis where transposed; with groups they are spread over two.
    outputs = 1 if "transpose" in node.operator else 0
    grouped = outputs == 1 and int(node.call.attrs.groups) != 1
    if scale.dtype != np.float32 or (scale.size > 1 and (axis != outputs or grouped)):
        return None
    shape = [1] * values.ndim
    shape[axis] = -1
    centered = values.astype(np.int64) - zero_point.astype(np.int64).reshape(
        shape if zero_point.size > 1 else ()
    )
    if centered.min() < -128 or centered.max() > 127:
        return None
    return centered.astype(np.int8), scale.reshape(-1)


def asked(node: Node, processor: Processor) -> tuple[Convolution, Tensor, Tensor]:
    """What a convolution of bytes asks for: its geometry, and its input and result in blocks.

    Args:
        node: A :data:`CONVOLUTION`.
        processor: What it is to run on.
    """
    (data, weights), result = node.inputs, node.output.lengths
    x = Tensor(data.lengths, data.dtype, processor.layout_for(data.lengths[1]))
    geometry = convolution_problem(node.call, weights.lengths[2:])
    return geometry, x, Tensor(result, layout=processor.layout_for(result[1]))
