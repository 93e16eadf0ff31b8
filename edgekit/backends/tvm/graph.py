"""A function of Relax as values and nodes that know who uses them; constants are computed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import ir, relax, tirx

from edgekit.errors import InternalError

# Arrays that a fold makes larger than this stay in the program.
_MOST_FOLDED = 1 << 24


@dataclass(eq=False)
class Value:
    """What flows through the network.

    Attributes:
        shape: ``None`` where a length varies, or the value is no tensor.
        dtype: Of its numbers.
        constant: Its numbers, where they are known.
        origin: The operation that the known numbers come from.
        variable: That of Relax, where it is one of the function's own.
        producer: What computes it; ``None`` for constants and inputs.
        consumers: What reads it, once for each time.
        is_output: Whether the function gives it back.
    """

    shape: tuple[int, ...] | None
    dtype: str
    constant: NDArray[Any] | None = None
    variable: Any = None
    producer: Node | None = None
    consumers: list[Node] = field(default_factory=list)
    is_output: bool = False
    origin: Node | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """The shape, for who has asked before whether it is known.

        Raises:
            InternalError: It is not.
        """
        if self.shape is None:
            raise InternalError("a value without a known shape was planned for a kernel")
        return self.shape

    @property
    def uses(self) -> int:
        """How often it is read, the function's end included."""
        return len(self.consumers) + self.is_output


@dataclass(eq=False)
class Node:
    """One operation.

    Attributes:
        operator: Its name in Relax, a name of ours where several operations were recognised as one, or "" for
            what is not an operation on tensors.
        inputs: Values in order; those that are no tensors are not among them.
        output: The result.
        call: Relax's expression, or its binding where that is a cast; ``None`` for an operation of ours.
        attributes: Of an operation of ours.
    """

    operator: str
    inputs: list[Value]
    output: Value
    call: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Network:
    """The function.

    Attributes:
        parameters: Its inputs.
        nodes: In an order in which they can run.
        result: What it gives back, in Relax's variables.
        values: By Relax's variables.
    """

    parameters: list[Value]
    nodes: list[Node]
    result: Any
    values: dict[Any, Value]

    def replace(self, old: Sequence[Node], operator: str, inputs: list[Value], **attributes: Any) -> Node:
        """Put one operation in the place of several, the last of which gives the result."""
        output = old[-1].output
        place = self.nodes.index(old[-1])
        for node in old:
            for value in node.inputs:
                value.consumers.remove(node)
        gone = set(map(id, old))
        node = Node(operator, inputs, output, None, attributes)
        output.producer = node
        for value in inputs:
            value.consumers.append(node)
        self.nodes[place] = node
        self.nodes = [other for other in self.nodes if id(other) not in gone]
        return node

    def remove(self, node: Node) -> None:
        """Take out a node whose result nobody reads."""
        self.nodes.remove(node)
        for value in node.inputs:
            value.consumers.remove(node)

    def insert(self, before: Node, node: Node) -> None:
        """Add a node before another."""
        node.output.producer = node
        for value in node.inputs:
            value.consumers.append(node)
        self.nodes.insert(self.nodes.index(before), node)


def read(function: Any) -> Network | None:
    """The function's operations; ``None`` where it has more than one block, as control flow makes."""
    if not isinstance(function.body, relax.SeqExpr) or len(function.body.blocks) != 1:
        return None
    values: dict[Any, Value] = {}
    parameters = [values.setdefault(v, _value(v)) for v in function.params]
    network = Network(parameters, [], function.body.body, values)
    for binding in function.body.blocks[0].bindings:
        _add(network, binding)
    for variable in _variables(network.result):
        values[variable].is_output = True
    return network


def constant(array: NDArray[Any]) -> Value:
    """A value that is known."""
    return Value(tuple(array.shape), str(array.dtype), array)


def _add(network: Network, binding: Any) -> None:
    """Take over one binding of Relax's."""
    expression = binding.value
    output = _value(binding.var)
    network.values[binding.var] = output
    if isinstance(expression, ir.GenericConst):
        output.constant = expression.value.numpy()
        return
    named = isinstance(binding, relax.VarBinding) and isinstance(expression, ir.Call)
    operator = expression.op.name if named and isinstance(expression.op, ir.Op) else ""
    if operator:
        inputs = [value for argument in expression.args for value in _operands(network, argument)]
    else:
        inputs = [network.values[variable] for variable in _variables(expression)]
    fold = _FOLDS.get(operator)
    if fold and output.shape is not None and all(value.constant is not None for value in inputs):
        arrays = [np.asarray(value.constant) for value in inputs]
        if operator in _ALONG_AXIS:
            arrays[1:] = [_along(array, arrays[0].ndim, int(expression.attrs.axis)) for array in arrays[1:]]
        folded = fold(output, *arrays)
        if folded.size < _MOST_FOLDED:
            output.constant = np.ascontiguousarray(folded, output.dtype).reshape(output.shape)
            output.origin = Node(operator, inputs, output, expression)
            return
    cast = isinstance(binding, relax.MatchCast)
    node = Node(operator, inputs, output, binding if cast else expression)
    output.producer = node
    network.nodes.append(node)
    for value in inputs:
        value.consumers.append(node)


def _operands(network: Network, argument: Any) -> list[Value]:
    """The values in an argument: its tensors in order, then what else it depends on."""
    if isinstance(argument, ir.GenericConst) and hasattr(argument.value, "numpy"):
        return [constant(argument.value.numpy())]
    if isinstance(argument, ir.Tuple):
        return [value for field in argument.fields for value in _operands(network, field)]
    return [network.values[variable] for variable in _variables(argument)]


def _value(variable: Any) -> Value:
    kind = variable.ty
    if not isinstance(kind, relax.TensorType):
        return Value(None, "", variable=variable)
    shape = kind.shape.values if isinstance(kind.shape, relax.ShapeExpr) else None
    if shape is not None and not all(isinstance(length, tirx.IntImm) for length in shape):
        shape = None
    lengths = None if shape is None else tuple(int(length) for length in shape)
    return Value(lengths, str(kind.dtype), variable=variable)


def _variables(expression: Any) -> list[Any]:
    """Relax's variables in an expression, in the order in which they stand there."""
    found: list[Any] = []

    def visit(part: Any) -> None:
        if isinstance(part, ir.Var) and isinstance(part.ty, (relax.TensorType, ir.TupleType)):
            found.append(part)

    relax.analysis.post_order_visit(expression, visit)
    return found


def _along(array: NDArray[Any], rank: int, axis: int) -> NDArray[Any]:
    """Numbers along one axis, or one number, in a shape that broadcasts."""
    return array.reshape(-1, *(1,) * (rank - axis % rank - 1)) if array.size > 1 else array.reshape(())


def _quantized(out: Value, x: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any]) -> NDArray[Any]:
    limits = np.iinfo(out.dtype)
    rounded: NDArray[Any] = np.rint(x / scale) + zero.astype(np.float32)
    clipped: NDArray[Any] = rounded.clip(limits.min, limits.max)
    return clipped


def _dequantized(out: Value, x: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any]) -> NDArray[Any]:
    centered: NDArray[Any] = x.astype(np.int64) - zero.astype(np.int64)
    numbers: NDArray[Any] = centered.astype(scale.dtype) * scale
    return numbers


# Operations whose inputs but the first lie along an axis.
_ALONG_AXIS = ("relax.quantize", "relax.dequantize")
_FOLDS: Mapping[str, Callable[..., NDArray[Any]]] = {
    "relax.reshape": lambda out, x: x.reshape(out.shape),
    "relax.squeeze": lambda out, x: x.reshape(out.shape),
    "relax.expand_dims": lambda out, x: x.reshape(out.shape),
    "relax.flatten": lambda out, x: x.reshape(out.shape),
    "relax.broadcast_to": lambda out, x: np.broadcast_to(x, out.shape),
    "relax.astype": lambda out, x: x.astype(out.dtype),
    "relax.add": lambda out, x, y: x + y,
    "relax.subtract": lambda out, x, y: x - y,
    "relax.multiply": lambda out, x, y: x * y,
    "relax.divide": lambda out, x, y: x / y,
    "relax.negative": lambda out, x: -x,
    "relax.ones_like": lambda out, x: np.ones(out.shape),
    "relax.zeros_like": lambda out, x: np.zeros(out.shape),
    "relax.sqrt": lambda out, x: np.sqrt(x),
    "relax.quantize": _quantized,
    "relax.dequantize": _dequantized,
}
