"""Half precision as types in the graph: what gains computes in 16 bits, what is unsafe there stays float32.

The result is strongly typed: every tensor says what it is, and a Cast stands wherever that changes, so that a
backend has nothing to decide. Inputs and outputs of the network keep their types.

A layer stays float32 where a calibrated range, or a weight, says that 16 bits do not hold its numbers; where
its arithmetic loses too much of them (statistics, exponentials, long sums, coordinates); and where nothing
would be gained, since its neighbours stay float32.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import UsageError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.casts import FORMATS, OF_ANY_TYPE, Format, Typing, constant, retype, with_bfloat16
from edgekit.spec import Array
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.passes.ranges import Ranges

# Of the largest number, what a tensor may reach on the calibration images: other images go further, and so do
# sums on the way to a result.
SAFE_SHARE = 0.25
# A sum of more numbers than this is computed in float32: rounded 64 times, ten bits leave four.
_MOST_SUMMED = 64

# Multiply and accumulate: what hardware does faster in 16 bits.
_HEAVY = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# What may compute in 16 bits beside them: bounded by its inputs, or checked by its calibrated range.
# fmt: off
_LIGHT = frozenset((
    "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "DepthToSpace", "Div",
    "Dropout", "Elu", "Erf", "Expand", "Flatten", "Gather", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
    "GridSample", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "MaxPool", "Min", "Mul", "Neg",
    "PRelu", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "Selu",
    "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Tile",
    "Transpose", "Unsqueeze", "Where",
))
# Their results are statistics or powers: arithmetic on such numbers stays float32, too.
_STATISTICS = frozenset((
    "CumSum", "Exp", "GlobalAveragePool", "Log", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Sqrt",
))
# fmt: on
_SUMS = frozenset(("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"))
_UNSAFE = "16 bits are not safe there"
_STATISTIC = "it computes with statistics"
_QUANTIZED = "it is quantized"
_NO_GAIN = "nothing would be gained there"
_KEPT = "it is to be kept"
# Reasons that lie in the operators are counted in the notes; those in the numbers are told one by one.
_COUNTED = (_UNSAFE, _STATISTIC)
_SILENT = (*_COUNTED, _QUANTIZED, _NO_GAIN, _KEPT)
_MOST_NOTES = 12


@dataclass(frozen=True)
class Decision:
    """What becomes of one node.

    Attributes:
        node: Its name.
        operator: Its ``op_type``.
        half: Whether it computes in 16 bits.
        why: Why not; empty where it does.
    """

    node: str
    operator: str
    half: bool
    why: str = ""


class HalfPass(Pass):
    """float32 networks in mixed 16-bit precision.

    Weights of the layers that compute in 16 bits are stored so. Which layers stay float32, and why, stands in
    the notes; :meth:`decide` tells it of every node.
    """

    name = "half"

    def __init__(
        self,
        precision: str = "float16",
        ranges: Ranges | None = None,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """Choose.

        Args:
            precision: ``"float16"`` or ``"bfloat16"``.
            ranges: Of the graph's activations by name, from calibration images; float16 wants them.
            keep: Names of nodes that stay float32 whatever the ranges say.

        Raises:
            UsageError: There is no such precision.
        """
        if precision not in FORMATS:
            raise UsageError(f"no half precision is called {precision!r}: want {' or '.join(FORMATS)}")
        self._format = FORMATS[precision]
        self._ranges = ranges
        self._keep = keep

    def requires(self, graph: Graph, target: Target) -> str | None:
        """float16 overflows where nobody has looked: without ranges only bfloat16 is taken."""
        if self._ranges is None and not self._format.reaches_as_far:
            return (
                f"{self._format.name} ends at {self._format.largest:g}, and without calibrated ranges nobody "
                "knows what goes beyond: give calibration images, or take bfloat16"
            )
        unknown = sorted(self._keep - {str(node.name) for node in graph.model.graph.all_nodes()})
        return f"no node is called {unknown[0]!r}" if unknown else None

    def decide(self, graph: Graph) -> tuple[Decision, ...]:
        """What would become of every node of the graph, in order."""
        _, found = self._decide(graph)
        return tuple(Decision(str(n.name), n.op_type, not why, why) for n, why in found.items())

    def _decide(self, graph: Graph) -> tuple[ir.Model, dict[ir.Node, str]]:
        from onnx_ir.passes import common

        opset.register()
        model = graph.edit()
        if self._format.name == "bfloat16":
            model = with_bfloat16(model)
        common.ShapeInferencePass()(model)
        return model, _Chooser(model, self._format, self._ranges, self._keep).choose()

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        model, found = self._decide(graph)
        halves = [node for node, why in found.items() if not why]
        notes = _notes(found, self._format)
        if not halves:
            return PassResult(graph, False, notes)
        casts = retype(model, halves, self._format)
        common.RemoveUnusedNodesPass()(model)
        common.NameFixPass()(model)
        plural = "" if casts == 1 else "s"
        note = f"{len(halves)} of {len(found)} operators compute in {self._format.name}, {casts} cast{plural}"
        return PassResult(graph.with_model(model, f"half: {note}"), True, (note, *notes))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Inputs and outputs keep their names, order and types."""
        network = graph.model.graph
        got = [(v.name, v.dtype and v.dtype.numpy()) for v in (*network.inputs, *network.outputs)]
        wanted = [(spec.name, spec.numpy_dtype) for spec in (*graph.inputs, *graph.outputs)]
        return None if got == wanted else f"inputs and outputs were {wanted}, are {got}"


class _Chooser:
    """Which nodes of a graph compute in 16 bits."""

    def __init__(self, model: ir.Model, wanted: Format, ranges: Ranges | None, keep: frozenset[str]) -> None:
        self._typing = Typing.of(model, wanted)
        self._graph, self._format, self._keep = model.graph, wanted, keep
        # A tensor of float32 does not overflow where the exponent is as long.
        self._ranges = None if ranges is None or wanted.reaches_as_far else ranges.tensors

    def choose(self) -> dict[ir.Node, str]:
        """The nodes that read or make float32, in order; why each stays so, or an empty text."""
        nodes = [node for node in self._graph if self._typing.is_float(node)]
        why = {node: self._obstacle(node) for node in nodes}
        self._keep_statistics(nodes, why)
        halves = {node for node in nodes if not why[node] and node.op_type in _HEAVY}
        # What only float32 goes into is computed before its Cast: rounded later, and fused with what made it.
        # Where that Cast is there anyhow, for another reader, nothing is lost beside it.
        waiting, found = [node for node in nodes if not why[node] and node not in halves], True
        while found:
            found = False
            for node in waiting:
                values = self._activations(node)
                if any(value.producer() in halves or _is_read_by(value, halves) for value in values):
                    halves.add(node)
                    found = True
            waiting = [node for node in waiting if node not in halves]
        why.update(dict.fromkeys(waiting, _NO_GAIN))
        # What only float32 reads, and float32 goes into, would cost a Cast more.
        for node in reversed(nodes):
            if node not in halves or node.op_type in _HEAVY:
                continue
            all_half = all(value.producer() in halves for value in self._activations(node))
            if not all_half and not any(_is_read_by(value, halves) for value in node.outputs):
                halves.remove(node)
                why[node] = _NO_GAIN
        for node in nodes:
            if node.op_type not in _HEAVY and why[node] not in ("", *_SILENT) and not _touches(node, halves):
                why[node] = _NO_GAIN
        return why

    def _obstacle(self, node: ir.Node) -> str:
        """Why a node cannot compute in 16 bits, looked at alone; empty if it can."""
        if node.name in self._keep:
            return _KEPT
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or self._is_quantized(node):
            return _QUANTIZED
        if node.op_type in OF_ANY_TYPE or not any(map(self._typing.is_single, node.outputs)):
            return _NO_GAIN
        if node.domain or node.op_type not in _HEAVY | _LIGHT or _is_unsafe(node):
            return _UNSAFE
        inputs, outputs = self._typing.places(node)
        if not outputs:
            return _UNSAFE
        values = [node.inputs[index] for index in inputs] + [node.outputs[index] for index in outputs]
        bias = node.inputs[2] if node.op_type in _HEAVY and len(node.inputs) > 2 else None
        for value in values:
            beside = self._largest(node.outputs[0]) if value is bias else None
            if value is not None and (why := self._does_not_hold(value, beside or 0.0)):
                return why
        return ""

    def _is_quantized(self, node: ir.Node) -> bool:
        """Whether the weights of a layer, or all that another operator reads, come from integers."""
        values = node.inputs[1:2] if node.op_type in _HEAVY else self._activations(node)
        return bool(values) and all(value is not None and _quantized(value) is not None for value in values)

    def _largest(self, value: ir.Value) -> float | None:
        """The largest ``|x|`` that was calibrated; ``None`` where nobody did."""
        while (quantized := _quantized(value)) is not None:
            value = quantized
        found = None if self._ranges is None else self._ranges.get(str(value.name))
        return None if found is None else found.largest

    def _does_not_hold(self, value: ir.Value, beside: float) -> str:
        """Why 16 bits do not hold a tensor's numbers; empty if they do.

        Args:
            value: The tensor.
            beside: The largest number that it is added to: what is lost beside that is not missed.
        """
        array = constant(value)
        if array is not None:
            return _lost(array, self._format, str(value.name), beside)
        if self._ranges is None:
            return ""
        reached, safe = self._largest(value), SAFE_SHARE * self._format.largest
        if reached is None:
            return f"nobody has calibrated {value.name!r}"
        if not reached <= safe:
            holds = f"{SAFE_SHARE:g} of what {self._format.name} holds"
            return f"{value.name!r} reaches {reached:.4g}, and safe are {safe:.4g}, {holds}"
        if 0 < reached < self._format.smallest:
            return f"{value.name!r} stays below {reached:.3g}, where {self._format.name} has few bits left"
        return ""

    def _keep_statistics(self, nodes: Iterable[ir.Node], why: dict[ir.Node, str]) -> None:
        """Let arithmetic on statistics stay float32, as in a normalization that is written out."""
        statistics: set[ir.Value] = set()
        for node in nodes:
            reads = [value in statistics for value in self._activations(node)]
            # That its numbers would not fit either need not be told.
            if any(reads) and node.op_type not in _HEAVY and why[node] not in _SILENT:
                why[node] = _STATISTIC
            made = why[node] == _UNSAFE and node.op_type in _STATISTICS and not node.domain
            if made or (why[node] == _STATISTIC and all(reads)):
                statistics.update(node.outputs)

    def _activations(self, node: ir.Node) -> list[ir.Value]:
        """The float32 tensors that a node reads, constants excepted."""
        values = [value for value in node.inputs if value is not None and self._typing.is_single(value)]
        return [value for value in values if constant(value) is None]


def _is_read_by(value: ir.Value, nodes: Set[ir.Node]) -> bool:
    return any(user in nodes for user in value.consumers())


def _touches(node: ir.Node, nodes: Set[ir.Node]) -> bool:
    makers = (value.producer() for value in node.inputs if value is not None)
    return any(maker in nodes for maker in makers) or any(_is_read_by(v, nodes) for v in node.outputs)


def _quantized(value: ir.Value) -> ir.Value | None:
    """What was quantized to give a tensor that comes from integers."""
    maker = value.producer()
    if maker is None or maker.op_type != "DequantizeLinear" or maker.inputs[0] is None:
        return None
    before = maker.inputs[0].producer()
    return maker.inputs[0] if before is None else before.inputs[0]


def _lost(array: Array, wanted: Format, name: str, beside: float) -> str:
    """What rounding to 16 bits would do to weights; empty if no more than it has to."""
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    largest = float(np.abs(finite).max(initial=0.0))
    if np.isnan(wide).any() or largest > wanted.largest:
        return f"{name!r} holds {largest:.4g}, and {wanted.name} ends at {wanted.largest:g}"
    if largest == 0:
        return ""
    # Divided by the largest, so that no square vanishes. A number that is not subnormal loses at most half of
    # this share of itself.
    share = 2.0**-wanted.bits
    error = finite.astype(wanted.kind.numpy()).astype(np.float64) - finite
    missed = np.abs(error).max() > share * beside
    if not missed or np.linalg.norm(error / largest) <= share * np.linalg.norm(finite / largest):
        return ""
    return f"{name!r} vanishes in {wanted.name}: its largest number is {largest:.3g}"


def _is_unsafe(node: ir.Node) -> bool:
    """Whether an operator that is safe in general is not so here."""
    if node.op_type in _SUMS:
        count = _summed(node)
        return count is None or count > _MOST_SUMMED
    # Nobody has calibrated how near to zero a divisor comes.
    return node.op_type == "Div" and constant(node.inputs[1]) is None


def _summed(node: ir.Node) -> int | None:
    """How many numbers a pool or a reduction adds up for each result; ``None`` where nobody knows."""
    if node.op_type == "AveragePool":
        return math.prod(node.attributes["kernel_shape"].as_ints())
    image = node.inputs[0]
    if image is None or image.shape is None:
        return None
    axes: Iterable[int] = range(len(image.shape))
    if node.op_type == "GlobalAveragePool":
        axes = range(2, len(image.shape))
    elif "axes" in node.attributes:
        axes = node.attributes["axes"].as_ints()
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        if given is None:
            return None
        axes = map(int, given.reshape(-1))
    count = 1
    for axis in axes:
        length = image.shape[axis]
        if not isinstance(length, int):
            return None
        count *= length
    return count


def _notes(found: Mapping[ir.Node, str], wanted: Format) -> tuple[str, ...]:
    """What a user wants to know of the layers that stay float32."""
    told = [f"{node.op_type} {node.name} stays float32: {why}"
            for node, why in found.items() if why and why not in _SILENT]  # fmt: skip
    if len(told) > _MOST_NOTES:
        told[_MOST_NOTES:] = [f"{len(told) - _MOST_NOTES} more layers stay float32 for such reasons"]
    counted = Counter(node.op_type for node, why in found.items() if why in _COUNTED)
    if counted:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(counted.items()))
        told.append(f"operators that {wanted.name} is not safe for stay float32: {names}")
    return tuple(told)
