"""What of a graph can be quantized, and what its other operators do with bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit.spec import Array, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("Gemm", "MatMul")

# Operators whose results are numbers of their first input (all inputs of a concatenation), or zero.
_PASSING = frozenset(
    (
        *("MaxPool", "Concat", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split"),
        *("DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Dropout", "Identity"),
    )
)
# Operators that runtimes compute from bytes as well as from numbers.
_TAKES_BYTES = frozenset(("Add", "Mul", "AveragePool", "GlobalAveragePool", "Resize"))
# Operators of one image between a layer and what reads it; further inputs are constants.
ACTIVATIONS = frozenset(
    (
        *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "Elu", "Selu", "Celu", "Gelu", "Mish"),
        *("Softplus", "HardSigmoid", "HardSwish", "ThresholdedRelu"),
    )
)
NORMALIZATIONS = frozenset(
    ("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization")
)
_NON_NEGATIVE = frozenset(
    ("Relu", "Sigmoid", "Softmax", "Abs", "Exp", "Sqrt", "HardSigmoid", "Softplus", "ReduceL1", "ReduceL2")
)
# Of non-negative inputs these make non-negative results.
_KEEPS_THE_SIGN = frozenset(
    ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Resize", "ReduceMean", "LeakyRelu")
)
_AFFINE = frozenset(("Mul", "Add", "Sub", "Div", "BatchNormalization"))


@dataclass(frozen=True, eq=False)
class Layer:
    """A node that multiplies an image by known weights.

    Attributes:
        node: A convolution, a transposed one, or a product of matrices.
        weights: float32, as the graph has them.
        axis: The axis of the weights that counts outputs.
        bias: Likewise, or ``None`` where there is none or it is not known.
    """

    node: ir.Node
    weights: Array
    axis: int
    bias: Array | None

    @property
    def name(self) -> str:
        """Of the node."""
        return str(self.node.name)

    @property
    def group(self) -> int:
        """In how many groups a convolution's channels are."""
        return int(attribute(self.node, "group", 1))

    @property
    def takes_bias(self) -> bool:
        """Whether the node has a constant bias, or a place for one."""
        return self.node.op_type != "MatMul" and (self.bias is not None or not _input(self.node, 2))

    @property
    def outputs(self) -> int:
        """How many output channels there are."""
        count = self.weights.shape[self.axis]
        return int(count) * groups_of_outputs(self.node)


def find(graph: ir.Graph) -> list[Layer]:
    """The layers of a network in order; those inside branches and loops are none."""
    return [layer for node in graph if (layer := as_layer(node))]


def as_layer(node: ir.Node) -> Layer | None:
    """The node as a layer, or ``None``."""
    if node.domain or node.op_type not in (*CONVOLUTIONS, *PRODUCTS) or constant(node.inputs[0]) is not None:
        return None
    weights, bias = constant(_input(node, 1)), constant(_input(node, 2))
    if weights is None or weights.dtype != np.float32 or weights.ndim < 2 or weights.size == 0:
        return None
    axis = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, 1)
    if node.op_type == "MatMul" and weights.ndim != 2:
        return None
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        if attribute(node, "transA", 0) or not plain:
            return None
        axis = 0 if attribute(node, "transB", 0) else 1
    if bias is not None and bias.shape != (weights.shape[axis] * groups_of_outputs(node),):
        bias = None
    return Layer(node, weights, axis, bias)


def groups_of_outputs(node: ir.Node) -> int:
    """How many outputs of a layer share an entry of its weights' axis."""
    return int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1


def passes_on(node: ir.Node) -> tuple[int, ...]:
    """Which inputs hold the numbers that the results consist of; none where results are others."""
    if node.domain:
        return ()
    if node.op_type == "Concat":
        return tuple(range(len(node.inputs)))
    if node.op_type in _PASSING:
        return (0,)
    if node.op_type == "Resize" and attribute(node, "mode", "nearest") == "nearest":
        return (0,)
    fill = constant(_input(node, 2)) if node.op_type == "Pad" else None
    kind = attribute(node, "mode", "constant")
    zero = _input(node, 2) is None or (fill is not None and fill.size == 1 and not fill.reshape(-1)[0])
    return (0,) if node.op_type == "Pad" and (kind != "constant" or zero) else ()


def takes_bytes(node: ir.Node) -> bool:
    """Whether it may read rounded numbers where what it makes is rounded again."""
    return not node.domain and (node.op_type in _TAKES_BYTES or bool(passes_on(node)))


def is_residual(node: ir.Node) -> bool:
    """Whether it adds two images."""
    return node.op_type == "Add" and not node.domain and not any(constant(v) is not None for v in node.inputs)


def is_concatenated(value: ir.Value) -> bool:
    """Whether a concatenation makes a value, or what is scaled and shifted by constants to make it."""
    node = value.producer()
    while node is not None and node.op_type in _AFFINE and not node.domain:
        images = [source for source in node.inputs if source is not None and constant(source) is None]
        if len(images) != 1:
            return False
        node = images[0].producer()
    return node is not None and node.op_type == "Concat" and not node.domain


class Signs:
    """Which values cannot be negative, whatever the network is given."""

    def __init__(self, inputs: Iterable[TensorSpec]) -> None:
        ranges = {spec.name: spec.value_range for spec in inputs}
        self._inputs = {name for name, span in ranges.items() if span is not None and span[0] >= 0}
        self._known: dict[ir.Value, bool] = {}

    def non_negative(self, value: ir.Value | None) -> bool:
        """Whether the operators that make it leave no other way."""
        if value is None:
            return False
        if value not in self._known:
            self._known[value] = False  # of a value that depends on itself nothing is known
            self._known[value] = self._find(value)
        return self._known[value]

    def _find(self, value: ir.Value) -> bool:
        known = constant(value)
        if known is not None:
            return known.dtype.kind in "fiu" and bool(known.min(initial=0) >= 0)
        node = value.producer()
        if node is None:
            return value.name in self._inputs
        if node.domain:
            return False
        if node.op_type in _NON_NEGATIVE:
            return True
        if node.op_type == "Clip":
            least = constant(_input(node, 1))
            return least is not None and bool(least.min(initial=0) >= 0)
        if node.op_type == "PRelu":
            return self._of_prelu(node)
        sources = passes_on(node)
        if node.op_type in _KEEPS_THE_SIGN and attribute(node, "mode", "") != "cubic":
            sources = (0, 1) if node.op_type in ("Add", "Mul") else (0,)
        return bool(sources) and all(self.non_negative(node.inputs[index]) for index in sources)

    def _of_prelu(self, node: ir.Node) -> bool:
        """A slope that was learned may have become negative: then negative numbers turn positive."""
        slope = constant(_input(node, 1))
        if slope is not None and slope.max(initial=0) <= 0:
            return True
        return self.non_negative(node.inputs[0])


def constant(value: ir.Value | None) -> Array | None:
    """What a value always is, or ``None``."""
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value; its default where the node does not say it."""
    found = node.attributes.get(name)
    if found is None:
        return default
    return found.as_string() if isinstance(default, str) else found.value


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def per_output(array: Array, axis: int) -> npt.NDArray[np.float64]:
    """Weights as float64[outputs, inputs, taps]: what is summed for one output in one row, in input order."""
    rows = np.moveaxis(array, axis, 0)
    return np.ascontiguousarray(rows.reshape(*rows.shape[:2], -1), np.float64)
