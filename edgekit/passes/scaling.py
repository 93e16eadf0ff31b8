"""Which channels of a network can be scaled without changing what it computes.

A channel that constants make and constants read has a scale of nobody's choice: what makes it can be
multiplied by a number and what reads it divided by the same. Between the two may stand whatever commutes
with positive factors: rectifiers, pooling, resizing, sums, concatenations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit.graph import opset
from edgekit.passes.quantize import layers
from edgekit.passes.quantize.layers import Layer, attribute, constant
from edgekit.passes.quantize.writer import add_constant

if TYPE_CHECKING:
    import onnx_ir as ir

Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]

# f(k x) = k f(x) for k > 0, each channel by itself.
_HOMOGENEOUS = frozenset(
    (
        *("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("Resize", "Identity", "Dropout", "Pad"),
    )
)
# Their scale and bias make the result's channels: in the network's second, or in its last axis.
_NORMS = {
    "BatchNormalization": 1,
    "InstanceNormalization": 1,
    "GroupNormalization": 1,
    "LayerNormalization": -1,
}
# Of a normalised value, what counts as the largest: so many standard deviations.
_DEVIATIONS = 3.0


@dataclass(frozen=True, eq=False)
class Ends:
    """A layer, the factors of its input channels and those of its output channels."""

    layer: Layer
    inputs: _Indices
    outputs: _Indices

    @property
    def weights(self) -> str:
        """Names the weights; layers that share some have the same factors."""
        return f"{self.layer.node.inputs[1].name}/{self.layer.node.op_type}"  # type: ignore[union-attr]


@dataclass(frozen=True, eq=False)
class Constants:
    """Constants of a node that is no layer, which times their factors make its channels.

    Attributes:
        node: The node.
        indices: Numbers of the inputs that are the constants.
        channels: The factors of the channels.
        axis: Axis of the node's result that counts channels.
        makes: Whether the constants alone make the channels; else what they are added to has the same
            factors.
    """

    node: ir.Node
    indices: tuple[int, ...]
    channels: _Indices
    axis: int
    makes: bool


class Channels:
    """The channels of a network; those that have to share a factor count as one.

    Args:
        network: With the shapes of its values inferred.

    Attributes:
        network: The same.
        count: How many factors there are.
        ends: The layers.
        constants: What else makes channels.
        free: bool[count], whether the factor may be another than 1.
    """

    def __init__(self, network: ir.Graph) -> None:
        self.network = network
        self._places: dict[tuple[ir.Value, int], int] = {}
        self._parent: list[int] = []
        self._fixed: list[bool] = []
        ends: list[Ends] = []
        made: list[Constants] = []
        self._fix_all((*network.inputs, *network.outputs))
        for node in network:
            layer = layers.as_layer(node)
            found = self._ends(layer) if layer is not None else None
            if found is not None:
                ends.append(found)
            elif layer is None:
                made += self._other(node)
        shared: dict[str, Ends] = {}
        for one in ends:
            first = shared.setdefault(one.weights, one)
            self._join(one.inputs, first.inputs)
            self._join(one.outputs, first.outputs)
        self._number(ends, made)

    def _number(self, ends: list[Ends], made: list[Constants]) -> None:
        """Number the factors, and tell which are free: those that constants make and read."""
        roots = np.array([self._root(place) for place in range(len(self._parent))], np.int64)
        names, numbers = np.unique(roots, return_inverse=True)
        self.count = len(names)
        fixed, written, read = (np.zeros(self.count, bool) for _ in range(3))
        np.logical_or.at(fixed, numbers, np.array(self._fixed, bool))
        self.ends = [Ends(one.layer, numbers[one.inputs], numbers[one.outputs]) for one in ends]
        self.constants = [
            Constants(one.node, one.indices, numbers[one.channels], one.axis, one.makes) for one in made
        ]
        for end in self.ends:
            read[end.inputs] = written[end.outputs] = True
        for constants in self.constants:
            if constants.makes:
                written[constants.channels] = True
        self.free = ~fixed & written & read

    def _ends(self, layer: Layer) -> Ends | None:
        """A layer with the places of its channels; ``None`` where it cannot take factors."""
        node, value = layer.node, layer.node.inputs[0]
        assert value is not None
        axis = 1 if node.op_type != "MatMul" or _rank(value) == 2 else -1
        before, after = self._channels(value, axis), self._channels(node.outputs[0], axis)
        if before is None or after is None or (len(before), len(after)) != (_inputs(layer), layer.outputs):
            self._fix_all((value, *node.outputs))
            return None
        if len(node.inputs) > 2 and node.inputs[2] is not None and layer.bias is None:
            self._fix_all(node.outputs)  # by a bias that nobody knows
        for end in (value, node.outputs[0]):
            self._fix_other_axis(end, axis)
        return Ends(layer, before, after)

    def _other(self, node: ir.Node) -> list[Constants]:
        """Join or fix what stands around a node that is no layer; what it makes by itself."""
        images = [v for v in node.inputs if v is not None and constant(v) is None]
        made: list[Constants] | None = None
        if not node.domain and len(images) == 1:
            made = self._unary(node, images[0])
        elif not node.domain and node.op_type in ("Add", "Sub") and len(images) == 2:
            made = [] if all([self._join_values(one, node.outputs[0]) for one in images]) else None
        elif not node.domain and node.op_type == "Concat" and attribute(node, "axis", 1) == 1:
            whole = len(images) == len(node.inputs) and self._concatenate(images, node.outputs[0])
            made = [] if whole else None
        if made is None:
            # Whatever a branch of the network reads stays what it is, too.
            inner = [value for one in _subgraphs(node) for reader in one for value in reader.inputs if value]
            self._fix_all((*images, *node.outputs, *inner))
        return made or []

    def _unary(self, node: ir.Node, image: ir.Value) -> list[Constants] | None:
        """A node of one image and constants; ``None`` where it does not commute with factors."""
        result = node.outputs[0]
        if node.op_type in _NORMS:
            return self._norm(node, image)
        others = [
            index for index, value in enumerate(node.inputs) if value is not None and value is not image
        ]
        axis = _axis_of(node, others) if node.op_type in ("Add", "Sub", "Mul") else None
        if node.op_type == "Mul" and axis is not None:
            # One constant for each channel makes them, as a normalisation's scale does.
            self._fix_all((image,))
            return self._constants(node, others, axis, makes=True)
        if node.op_type in ("Add", "Sub") and axis is not None:
            if not self._join_values(image, result):
                return None
            return self._constants(node, others, axis, makes=False)
        zero_pad = node.op_type != "Pad" or bool(layers.passes_on(node))
        if node.op_type in _HOMOGENEOUS and image is node.inputs[0] and zero_pad:
            self._fix_all(node.outputs[1:])
            return [] if self._join_values(image, result) else None
        return None

    def _norm(self, node: ir.Node, image: ir.Value) -> list[Constants] | None:
        known = [constant(value) for value in node.inputs[1:3]]
        axis = _NORMS[node.op_type]
        places = self._channels(node.outputs[0], axis)
        if places is None or len(known) != 2 or attribute(node, "axis", axis) != axis:
            return None
        if any(one is None or one.dtype != np.float32 or one.shape != (len(places),) for one in known):
            return None
        self._fix_all((image, *node.outputs[1:]))
        self._fix_other_axis(node.outputs[0], axis)
        return [Constants(node, (1, 2), places, axis, True)]

    def _constants(self, node: ir.Node, indices: Sequence[int], axis: int, *, makes: bool) -> list[Constants]:
        places = self._channels(node.outputs[0], axis)
        self._fix_other_axis(node.outputs[0], axis)
        assert places is not None
        return [Constants(node, tuple(indices), places, axis, makes)]

    def _concatenate(self, parts: Sequence[ir.Value], whole: ir.Value) -> bool:
        places = [found for part in parts if (found := self._channels(part, 1)) is not None]
        joined = self._channels(whole, 1)
        if joined is None or len(places) < len(parts) or sum(map(len, places)) != len(joined):
            return False
        self._join(np.concatenate(places), joined)
        for value in (*parts, whole):
            self._fix_other_axis(value, 1)
        return True

    def _join_values(self, first: ir.Value, second: ir.Value) -> bool:
        """Let the channels of two values have the same factors; false where their numbers differ."""
        for axis in (1, -1):
            mine, others = self._channels(first, axis), self._channels(second, axis)
            if mine is not None and others is not None and len(mine) == len(others):
                self._join(mine, others)
            elif axis == 1:
                return False
            else:  # resized along it, or not known
                self._fix_other_axis(first, 1)
                self._fix_other_axis(second, 1)
        return True

    def _fix_all(self, values: Iterable[ir.Value]) -> None:
        for value in values:
            self._fix_axis(value, 1)
            self._fix_axis(value, -1)

    def _fix_other_axis(self, value: ir.Value, axis: int) -> None:
        """A value whose channels are in one axis has none of their own in the other."""
        if _rank(value) != 2:
            self._fix_axis(value, -axis)

    def _fix_axis(self, value: ir.Value, axis: int) -> None:
        places = self._channels(value, axis)
        for place in places if places is not None else ():
            self._fixed[place] = True

    def _channels(self, value: ir.Value, axis: int) -> _Indices | None:
        """Places of a value's channels in an axis; those of new ones are made."""
        rank, length = _rank(value), _length(value, axis)
        if rank is None or rank < 2 or length is None:
            return None
        key = (value, 1 if rank == 2 else axis)
        if key not in self._places:
            first = len(self._parent)
            self._places[key] = first
            self._parent += range(first, first + length)
            self._fixed += [False] * length
        return np.arange(self._places[key], self._places[key] + length)

    def _join(self, first: _Indices, second: _Indices) -> None:
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            self._parent[self._root(one)] = self._root(other)

    def _root(self, place: int) -> int:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place


class Scaling:
    """A network's constants on their way to other scales: :meth:`apply` factors, then :meth:`write`.

    Args:
        model: Changed: shapes of its values are inferred.

    Attributes:
        model: The same.
        channels: Of its network.
    """

    def __init__(self, model: ir.Model) -> None:
        from onnx_ir.passes import common

        opset.register()
        common.ShapeInferencePass()(model)
        self.model, self.channels = model, Channels(model.graph)
        channels = self.channels
        self._layers = {end.weights: end for end in channels.ends}
        self._weights = {name: end.layer.weights.astype(np.float64) for name, end in self._layers.items()}
        self._factors = np.ones(channels.count)

    def largest_made(self) -> Floats:
        """For each factor, the largest constant that makes its channels."""
        largest = np.zeros(self.channels.count)
        for name, end in self._layers.items():
            rows = np.abs(_by_output(end.layer, self._weights[name]))
            np.maximum.at(largest, end.outputs, rows.max(1))
        for one in self.channels.constants:
            if one.makes:
                scale, *shift = (np.abs(_along(one, index)) for index in one.indices)
                made = _DEVIATIONS * scale + (shift[0] if shift else 0.0)
                np.maximum.at(largest, one.channels, made * self._factors[one.channels])
        return largest

    def largest_read(self) -> Floats:
        """For each factor, the largest weight that reads its channels."""
        largest = np.zeros(self.channels.count)
        for name, end in self._layers.items():
            rows = np.abs(_by_input(end.layer, self._weights[name]))
            np.maximum.at(largest, end.inputs, rows.max(1))
        return largest

    def apply(self, factors: Floats) -> None:
        """Multiply channels by factors where they are made, divide by them where they are read.

        Args:
            factors: float64[count], positive; 1 where a channel is not free.
        """
        for name, end in self._layers.items():
            rows = _by_input(end.layer, self._weights[name]) / factors[end.inputs, None]
            weights = _from_input(end.layer, rows)
            rows = _by_output(end.layer, weights) * factors[end.outputs, None]
            self._weights[name] = _from_output(end.layer, rows)
        self._factors *= factors

    def write(self) -> None:
        """Put the scaled constants into the network; layers that share weights share the new ones."""
        network = self.channels.network
        written: dict[str, ir.Value] = {}
        for end in self.channels.ends:
            node, times = end.layer.node, self._factors[end.outputs]
            name = end.weights
            if name not in written:
                weights = self._weights[name].astype(np.float32)
                written[name] = add_constant(network, weights, f"{node.inputs[1].name}/scaled")  # type: ignore[union-attr]
            if end.layer.bias is not None:
                bias = (end.layer.bias.astype(np.float64) * times).astype(np.float32)
                node.replace_input_with(2, add_constant(network, bias, f"{node.name}/bias/scaled"))
        for end in self.channels.ends:
            end.layer.node.replace_input_with(1, written[end.weights])
        for one in self.channels.constants:
            times = self._factors[one.channels]
            for index in one.indices:
                value = one.node.inputs[index]
                known = constant(value)
                assert value is not None and known is not None
                spread = times if known.shape == times.shape and one.axis == -1 else _spread(one, times)
                spread = times if one.node.op_type in _NORMS else spread
                scaled = (known.astype(np.float64) * spread).astype(np.float32)
                one.node.replace_input_with(index, add_constant(network, scaled, f"{value.name}/scaled"))


def _axis_of(node: ir.Node, others: Sequence[int]) -> int | None:
    """The axis along which a node's constant has one number for each channel, the only one where it varies.

    A single number that is added counts as one for each channel of axis 1.
    """
    result = node.outputs[0]
    known = constant(node.inputs[others[0]]) if len(others) == 1 else None
    rank = _rank(result)
    if known is None or known.dtype != np.float32 or rank is None or rank < 2 or known.ndim > rank:
        return None
    if _rank(next(v for i, v in enumerate(node.inputs) if i not in others and v is not None)) != rank:
        return None
    lengths = (1,) * (rank - known.ndim) + known.shape
    varies = [axis for axis, length in enumerate(lengths) if length != 1]
    if not varies:
        return 1 if node.op_type != "Mul" and _length(result, 1) else None
    if len(varies) > 1 or varies[0] not in (1, rank - 1):
        return None
    axis = 1 if varies[0] == 1 else -1
    return axis if _length(result, axis) == known.size else None


def _spread(one: Constants, times: Floats) -> Floats:
    """Factors in the shape of a node's result, with one axis that is longer than 1."""
    rank = _rank(one.node.outputs[0])
    assert rank is not None
    return times.reshape([-1 if axis == one.axis % rank else 1 for axis in range(rank)])


def _along(one: Constants, index: int) -> Floats:
    """A node's constant with one number for each channel."""
    known = constant(one.node.inputs[index])
    assert known is not None
    return np.broadcast_to(known.astype(np.float64).reshape(-1), (len(one.channels),))


def _by_output(layer: Layer, weights: Any) -> Floats:
    """Weights as float64[output channels, all that they multiply]."""
    if layer.node.op_type == "ConvTranspose":
        # [inputs, outputs of a group, …] as [groups, outputs, inputs of a group, …].
        grouped = weights.reshape(layer.group, -1, *weights.shape[1:]).swapaxes(1, 2)
        return np.asarray(grouped.reshape(layer.outputs, -1))
    return np.asarray(np.moveaxis(weights, layer.axis, 0).reshape(layer.outputs, -1))


def _from_output(layer: Layer, rows: Floats) -> Floats:
    shape = layer.weights.shape
    if layer.node.op_type == "ConvTranspose":
        grouped = rows.reshape(layer.group, shape[1], -1, *shape[2:])
        return np.asarray(grouped.swapaxes(1, 2).reshape(shape))
    moved = (shape[layer.axis], *(n for axis, n in enumerate(shape) if axis != layer.axis))
    return np.asarray(np.moveaxis(rows.reshape(moved), 0, layer.axis))


def _by_input(layer: Layer, weights: Any) -> Floats:
    """Weights as float64[input channels, all that multiply them]."""
    if layer.node.op_type == "Conv":
        # [outputs, inputs of a group, …] as [groups, inputs, outputs of a group, …].
        grouped = weights.reshape(layer.group, -1, *weights.shape[1:]).swapaxes(1, 2)
        return np.asarray(grouped.reshape(_inputs(layer), -1))
    return np.asarray(np.moveaxis(weights, 1 - layer.axis, 0).reshape(_inputs(layer), -1))


def _from_input(layer: Layer, rows: Floats) -> Floats:
    shape = layer.weights.shape
    if layer.node.op_type == "Conv":
        grouped = rows.reshape(layer.group, shape[1], -1, *shape[2:])
        return np.asarray(grouped.swapaxes(1, 2).reshape(shape))
    axis = 1 - layer.axis
    moved = (shape[axis], *(n for place, n in enumerate(shape) if place != axis))
    return np.asarray(np.moveaxis(rows.reshape(moved), 0, axis))


def _inputs(layer: Layer) -> int:
    if layer.node.op_type == "Conv":
        return int(layer.weights.shape[1]) * layer.group
    return int(layer.weights.shape[1 - layer.axis])


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    import onnx_ir as ir

    found = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    for one in node.attributes.values():
        if one.type == ir.AttributeType.GRAPHS:
            found += one.as_graphs()
    return found


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _length(value: ir.Value, axis: int) -> int | None:
    if value.shape is None or len(value.shape) < 2:
        return None
    length = value.shape[axis]
    return length if isinstance(length, int) else None
