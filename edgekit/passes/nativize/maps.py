"""Channels reordered and scaled: what stands between fields in other conventions, and how it cancels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.passes.nativize.affine import Shape, attribute
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.passes.nativize.network import Network

# A product of a number and its reciprocal in float32 is this near to 1.
_ONE = 8 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Map:
    """Channel ``c`` of the result is ``scales[c]`` times channel ``sources[c]``."""

    sources: tuple[int, ...]
    scales: tuple[float, ...]

    @classmethod
    def identity(cls, channels: int) -> Map:
        """The map that does nothing."""
        return cls(tuple(range(channels)), (1.0,) * channels)

    def after(self, first: Map) -> Map:
        """This map of the result of another one."""
        return Map(
            tuple(first.sources[s] for s in self.sources),
            tuple(k * first.scales[s] for k, s in zip(self.scales, self.sources, strict=True)),
        )

    def inverse(self) -> Map | None:
        """The map back; ``None`` where a channel is lost."""
        order = range(len(self.sources))
        if sorted(self.sources) != list(order) or not all(self.scales):
            return None
        back = [self.sources.index(channel) for channel in order]
        return Map(tuple(back), tuple(1 / self.scales[place] for place in back))

    def times(self, factor: float) -> Map:
        """This map, scaled."""
        return Map(self.sources, tuple(scale * factor for scale in self.scales))

    @property
    def reorders(self) -> bool:
        """Whether channels change places."""
        return self.sources != tuple(range(len(self.sources)))

    @property
    def is_scaled(self) -> bool:
        """Whether any scale is not 1, up to rounding."""
        return any(abs(scale - 1) > _ONE for scale in self.scales)

    @property
    def cost(self) -> int:
        """How many operators it takes."""
        return self.reorders + self.is_scaled


def history(network: Network, value: ir.Value, channels: int) -> Iterator[tuple[ir.Value, Map]]:
    """The tensor itself and what it was made of by reordering and scaling its channels, going back."""
    total = Map.identity(channels)
    yield value, total
    while True:
        step = _step(network, value, channels)
        if step is None:
            return
        value, one = step
        total = total.after(one)
        yield value, total


def _step(network: Network, value: ir.Value, channels: int) -> tuple[ir.Value, Map] | None:
    node = value.producer()
    if node is None or node.domain or not node.inputs or node.inputs[0] is None:
        return None
    source = node.inputs[0]
    if node.op_type == "Identity":
        return source, Map.identity(channels)
    if node.op_type == "Neg":
        return source, Map.identity(channels).times(-1)
    if node.op_type == "Gather" and attribute(node, "axis", 0) == 1:
        indices = network.constant(node.inputs[1])
        if indices is None or indices.shape != (channels,) or source.shape is None:
            return None
        if source.shape[1] != channels:
            return None
        return source, Map(tuple(int(place) % channels for place in indices), (1.0,) * channels)
    if node.op_type not in ("Mul", "Div") or node.inputs[1] is None:
        return None
    factor = _factor(network, node.inputs[1], value, channels)
    if factor is None and node.op_type == "Mul":
        source = node.inputs[1]
        factor = _factor(network, node.inputs[0], value, channels)
    if factor is None or (node.op_type == "Div" and not factor.all()):
        return None
    scales = np.reciprocal(factor) if node.op_type == "Div" else factor
    return source, Map(tuple(range(channels)), tuple(map(float, scales)))


def _factor(network: Network, value: ir.Value, result: ir.Value, channels: int) -> Array | None:
    """A constant as one factor for each channel, if that is what it is."""
    array = network.constant(value)
    if array is None or result.shape is None or array.ndim > len(result.shape):
        return None
    if array.size == 1:
        return np.full(channels, float(array.reshape(-1)[0]))
    wide = (1,) * (len(result.shape) - array.ndim) + array.shape
    if wide != (1, channels, *(1,) * (len(wide) - 2)):
        return None
    return array.reshape(-1).astype(np.float64)


@dataclass(frozen=True)
class Type:
    """Element type and shape of a tensor, the shape also at each size that is proved at."""

    dtype: ir.DataType
    dims: tuple[Any, ...]
    sizes: tuple[Shape, ...]

    def permuted(self, order: Sequence[int]) -> Type:
        """With the axes in another order."""
        return Type(self.dtype, _picked(self.dims, order), tuple(_picked(s, order) for s in self.sizes))

    def with_channels(self, count: int) -> Type:
        """With another number of channels."""
        sizes = tuple((s[0], count, *s[2:]) for s in self.sizes)
        return Type(self.dtype, (self.dims[0], count, *self.dims[2:]), sizes)


def _picked(lengths: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    return tuple(lengths[axis] for axis in order)


class Writer:
    """Writes nodes into the network.

    Attributes:
        network: It.
        wrote: Whether anything was written.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.wrote = False
        self._made: dict[tuple[Any, ...], ir.Value] = {}
        nodes = list(network.graph.all_nodes())
        values = [*network.graph.inputs, *network.graph.initializers.values()]
        values += [value for node in nodes for value in node.outputs]
        self._names = {str(node.name) for node in nodes} | {str(value.name) for value in values}

    def type_of(self, value: ir.Value) -> Type:
        """What a tensor is."""
        assert value.dtype is not None and value.shape is not None
        return Type(value.dtype, tuple(value.shape), tuple(self.network.shapes(value)))

    def name(self, wanted: str) -> str:
        """A name that no node and no tensor has yet."""
        tries = (f"{wanted}_{number}" if number else wanted for number in range(len(self._names) + 1))
        found = next(name for name in tries if name not in self._names)
        self._names.add(found)
        return found

    def constant(self, array: Array, name: str) -> ir.Value:
        """A constant tensor."""
        import onnx_ir as ir

        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        known = self._made.get(key)
        # What nothing read for a while has been removed.
        if known is not None and known.graph is self.network.graph:
            return known
        chosen = self.name(name)
        value = ir.Value(
            name=chosen,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.Tensor(array, name=chosen),
        )
        self.network.graph.register_initializer(value)
        self._made[key] = value
        return value

    def node(
        self,
        before: ir.Node,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        like: Type,
        *,
        domain: str = "",
        **attributes: object,
    ) -> ir.Value:
        """The output, of type ``like``, of a new node in front of another one.

        Where this has written such a node of ONNX before, it is that one's.
        """
        import onnx_ir as ir

        key = (operator, *inputs, *(f"{k}={v}" for k, v in sorted(attributes.items())))
        known = self._made.get(key)
        if known is not None and known.graph is self.network.graph:
            return known
        self.wrote = True
        chosen = self.name(name)
        node = ir.node(operator, inputs, attributes, domain=domain, name=chosen)  # type: ignore[arg-type]
        (output,) = node.outputs
        output.name = chosen
        output.type, output.shape = ir.TensorType(like.dtype), ir.Shape(like.dims)
        self.network.graph.insert_before(before, node)
        self.network.add(output, like.sizes)
        if not domain:
            self._made[key] = output
        return output

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let all that reads a tensor read another one, which takes its name and that of its node."""
        import onnx_ir as ir

        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        before, after = old.producer(), new.producer()
        if old.name:
            new.name, old.name = old.name, self.name(f"{old.name}_old")
        if before is not None and after is not None and before.name:
            after.name, before.name = before.name, self.name(f"{before.name}_old")

    def mapped(self, before: ir.Node, value: ir.Value, by: Map, name: str) -> ir.Value:
        """A tensor with its channels reordered and scaled, in at most two nodes."""
        like = self.type_of(value).with_channels(len(by.sources))
        if by.reorders or like.dims != self.type_of(value).dims:
            order = self.constant(np.array(by.sources, np.int64), f"{name}_order")
            value = self.node(before, "Gather", [value, order], f"{name}_ordered", like, axis=1)
        if by.is_scaled:
            scales = np.array(by.scales)
            even = np.ptp(scales) <= _ONE * np.abs(scales).max()
            factor = scales[0] if even else scales.reshape(1, -1, *(1,) * (len(like.dims) - 2))
            number = self.constant(np.asarray(factor, like.dtype.numpy()), f"{name}_scale")
            value = self.node(before, "Mul", [value, number], f"{name}_scaled", like)
        return value

    def cast(self, before: ir.Node, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        """A tensor in another element type."""
        if value.dtype == dtype:
            return value
        like = replace(self.type_of(value), dtype=dtype)
        return self.node(before, "Cast", [value], f"{name}_cast", like, to=int(dtype))

    def shortest(self, before: ir.Node, value: ir.Value, by: Map, name: str) -> ir.Value:
        """``by`` of a tensor, made of whatever tensor behind it takes the fewest nodes."""
        candidates = [(one, by.after(done)) for one, done in history(self.network, value, len(by.sources))]
        # Of equally good ones the last, which leaves most nodes without a reader.
        source, total = min(reversed(candidates), key=lambda candidate: candidate[1].cost)
        return self.mapped(before, source, total, name)
