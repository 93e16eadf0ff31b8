"""Operations that the importer takes apart, put together again: normalisations, activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import ir

from edgekit.backends.tvm.graph import Network, Node, Value, constant
from edgekit.backends.tvm.normalization import RowNormalization, batch_affine, normalization_problem

# (x - mean) / sqrt(variance + epsilon) over the axes of each sample and group of channels.
NORMALIZATION = "edgekit.normalization"
# One of the results of relax.split.
PART = "edgekit.part"
# A product of matrices whose operands are read in any order of their axes.
PRODUCT = "edgekit.product"

_AFFINE = ("relax.nn.layer_norm", "relax.nn.group_norm", "relax.nn.instance_norm")


def recognize(network: Network) -> None:
    """Replace every group of nodes that is one operation; the network is changed."""
    for match in _PATTERNS:
        for node in list(network.nodes):
            if node.output.producer is node:
                match(network, node)


def _batch_norm(network: Network, node: Node) -> None:
    """Batch normalisation of known statistics is a scale and a shift of each channel."""
    if node.operator != "" or len(node.inputs) != 1:
        return
    norm = node.inputs[0].producer
    if norm is None or norm.operator != "relax.nn.batch_norm" or node.call.index != 0:
        return
    data, *statistics = norm.inputs
    known = [value.constant for value in statistics if value.constant is not None]
    attributes = norm.call.attrs
    if data.shape is None or len(known) < 4 or attributes.training or norm.output.uses != 1:
        return
    gamma, beta, mean, variance = known
    gamma = gamma if attributes.scale else np.ones_like(mean)
    beta = beta if attributes.center else np.zeros_like(mean)
    scale, shift = batch_affine(gamma, beta, mean, variance, float(attributes.epsilon))
    shape = (-1, *(1,) * (len(data.shape) - int(attributes.axis) % len(data.shape) - 1))
    _scale_and_shift(network, [norm, node], data, scale.reshape(shape), shift.reshape(shape))


def _part(network: Network, node: Node) -> None:
    """One result of a split is a slice."""
    if node.operator != "" or len(node.inputs) != 1 or not isinstance(node.call, ir.TupleGetItem):
        return
    split = node.inputs[0].producer
    if split is None or split.operator != "relax.split" or split.inputs[0].shape is None:
        return
    part = network.replace([node], PART, split.inputs, part=int(node.call.index))
    part.call = split.call
    if split.output.uses == 0:
        network.remove(split)


def _product(network: Network, node: Node) -> None:
    """A product reads transposed operands as they are."""
    if node.operator != "relax.matmul" or any(v.shape is None or len(v.shape) < 2 for v in node.inputs):
        return
    old, inputs, axes = [], [], []
    for operand in node.inputs:
        moved, order = operand.producer, list(range(len(operand.shape or ())))
        if _is(moved, "relax.permute_dims") and moved is not None and operand.uses == 1:
            given = moved.call.attrs.axes
            order = order[::-1] if given is None else [int(axis) % len(order) for axis in given]
            old.append(moved)
            inputs.append(moved.inputs[0])
        else:
            inputs.append(operand)
        axes.append(tuple(order))
    if old:
        network.replace([*old, node], PRODUCT, inputs, a_axes=axes[0], b_axes=axes[1])


def _scale_and_shift(
    network: Network, old: Sequence[Node], data: Value, scale: NDArray[Any], shift: NDArray[Any]
) -> None:
    """Put a product and a sum in the place of nodes."""
    scaled = Value(data.shape, data.dtype)
    last = network.replace(old, "relax.add", [scaled, constant(shift.astype(np.float32))])
    network.insert(last, Node("relax.multiply", [data, constant(scale.astype(np.float32))], scaled))


def _normalization(network: Network, node: Node) -> None:
    """Mean, variance, square root and quotient over the same axes are one normalisation."""
    if node.operator != "relax.divide":
        return
    centered, deviation = (value.producer for value in node.inputs)
    if not _is(centered, "relax.subtract") or not _is(deviation, "relax.sqrt"):
        return
    assert centered is not None and deviation is not None
    raised = deviation.inputs[0].producer
    data, mean = centered.inputs[0], centered.inputs[1].producer
    if not _is(raised, "relax.add") or not _is(mean, "relax.mean"):
        return
    assert raised is not None and mean is not None
    variance, epsilon = raised.inputs[0].producer, _number(raised.inputs[1])
    if not _is(variance, "relax.variance") or epsilon is None:
        return
    assert variance is not None
    old = [mean, centered, variance, raised, deviation, node]
    axes = [tuple(int(axis) for axis in part.call.attrs.axis or ()) for part in (mean, variance)]
    same = mean.inputs[0] is data and variance.inputs[0] is data and axes[0] == axes[1]
    kept = mean.call.attrs.keepdims and variance.call.attrs.keepdims
    if not same or not kept or any(part.output.uses != 1 for part in old[:-1]) or data.shape is None:
        return
    rank = len(data.shape)
    network.replace(
        old, NORMALIZATION, [data], axes=tuple(a % rank for a in axes[0]), epsilon=epsilon, groups=0
    )


def _affine_norm(network: Network, node: Node) -> None:
    """Layer, group and instance normalisation are one of a kind, then a known scale and shift."""
    shape = node.output.shape
    if node.operator not in _AFFINE or shape is None:
        return
    problem, (data, *known) = normalization_problem(node.call), node.inputs
    affine = [value.constant for value in known if value.constant is not None]
    if problem is None or len(affine) < 2:
        return
    rows = isinstance(problem, RowNormalization)
    axes = (len(shape) - 1,) if rows else tuple(range(2, len(shape)))
    attributes, places = node.call.attrs, (-1,) if rows else (-1, *(1,) * len(axes))
    scale = affine[0].reshape(places) if attributes.scale else np.ones(1)
    shift = affine[1].reshape(places) if attributes.center else np.zeros(1)
    groups = 0 if isinstance(problem, RowNormalization) else problem.groups
    whole = Value(data.shape, data.dtype)
    _scale_and_shift(network, [node], whole, scale, shift)
    parameters = {"axes": axes, "epsilon": problem.epsilon, "groups": groups}
    network.insert(whole.consumers[0], Node(NORMALIZATION, [data], whole, None, parameters))


def _group_norm(network: Network, node: Node) -> None:
    """A normalisation between two reshapes, (N, G, rest) and back, is one over groups of channels."""
    if node.operator != NORMALIZATION or node.attributes["axes"] != (2,):
        return
    before = node.inputs[0].producer
    if not _is(before, "relax.reshape") or before is None or before.output.uses != 1:
        return
    data, shape = before.inputs[0], node.output.shape
    old, scale, shift = [before, node], np.ones((1, 1)), np.zeros((1, 1))
    after = _only_user(node.output)
    while after is not None and after.operator in ("relax.multiply", "relax.add"):
        known = next((value.constant for value in after.inputs if value.constant is not None), None)
        if known is None or known.size not in (1, (shape or (0, 0))[1]):
            return
        array = known.reshape(-1, 1).astype(np.float64)
        product = after.operator == "relax.multiply"
        scale, shift = (scale * array, shift * array) if product else (scale, shift + array)
        old.append(after)
        after = _only_user(after.output)
    if after is None or after.operator != "relax.reshape" or data.shape is None or shape is None:
        return
    fits = len(data.shape) > 2 and shape[:1] == data.shape[:1] and data.shape[1] % shape[1] == 0
    if not fits or after.output.shape != data.shape:
        return
    whole = Value(data.shape, data.dtype)
    groups, channels = shape[1], data.shape[1]
    axes, epsilon = tuple(range(2, len(data.shape))), node.attributes["epsilon"]
    scale, shift = (
        np.repeat(np.broadcast_to(part, (groups, 1)), channels // groups, axis=0).reshape(
            -1, *(1,) * len(axes)
        )
        for part in (scale, shift)
    )
    norm = Node(NORMALIZATION, [data], whole, None, {"axes": axes, "epsilon": epsilon, "groups": groups})
    _scale_and_shift(network, [*old, after], whole, scale, shift)
    multiply = whole.consumers[0]
    network.insert(multiply, norm)


def _silu(network: Network, node: Node) -> None:
    """X times its sigmoid."""
    if node.operator != "relax.multiply":
        return
    for one, other in (node.inputs, node.inputs[::-1]):
        gate = other.producer
        if (
            gate is not None
            and gate.operator == "relax.sigmoid"
            and gate.inputs[0] is one
            and other.uses == 1
        ):
            network.replace([gate, node], "relax.nn.silu", [one])
            return


def _gelu(network: Network, node: Node) -> None:
    """Half of x times one plus the error function of x over the root of two, in any order of the factors."""
    if node.operator != "relax.multiply":
        return
    factors, old = _factors(node)
    sums = [value for value in factors if _error_function(value) is not None]
    numbers = [number for number in map(_number, factors) if number is not None]
    if len(factors) != 3 or len(sums) != 1 or len(numbers) != 1 or not math.isclose(numbers[0], 0.5):
        return
    (data,) = (value for value in factors if value is not sums[0] and _number(value) is None)
    added = sums[0].producer
    assert added is not None
    inner = _error_function(sums[0])
    if inner is None or not any(_number(value) == 1.0 for value in added.inputs):
        return
    scaled = inner.inputs[0].producer
    if scaled is None or not any(value is data for value in scaled.inputs):
        return
    ratio = next((n for n in map(_number, scaled.inputs) if n is not None), None)
    wanted = {"relax.multiply": math.sqrt(0.5), "relax.divide": math.sqrt(2)}.get(scaled.operator)
    if ratio is None or wanted is None or not math.isclose(ratio, wanted, rel_tol=1e-5):
        return
    parts = [scaled, inner, added, *old]
    if all(part.output.uses == 1 for part in parts if part is not node):
        network.replace([*(part for part in parts if part is not node), node], "relax.nn.gelu", [data])


def _error_function(value: Value) -> Node | None:
    """The error function that a sum contains."""
    added = value.producer
    if added is None or added.operator != "relax.add":
        return None
    return next((v.producer for v in added.inputs if _is(v.producer, "relax.erf")), None)


def _factors(node: Node) -> tuple[list[Value], list[Node]]:
    """What a product of products multiplies, and the nodes that do."""
    factors: list[Value] = []
    nodes = [node]
    for value in node.inputs:
        inner = value.producer
        if _is(inner, "relax.multiply") and inner is not None and value.uses == 1:
            deeper, more = _factors(inner)
            factors += deeper
            nodes += more
        else:
            factors.append(value)
    return factors, nodes


def _is(node: Node | None, operator: str) -> bool:
    return node is not None and node.operator == operator


def _number(value: Value) -> float | None:
    known = value.constant
    return float(known.reshape(())) if known is not None and known.size == 1 else None


def _only_user(value: Value) -> Node | None:
    return value.consumers[0] if value.uses == 1 and value.consumers else None


_PATTERNS: Sequence[Callable[[Network, Node], None]] = (
    _batch_norm,
    _part,
    _normalization,
    _group_norm,
    _affine_norm,
    _silu,
    _gelu,
    _product,
)
