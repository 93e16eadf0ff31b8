"""Compute what does not depend on the inputs: identity grids, shapes, factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.passes.nativize.affine import SCATTERS, Affine, NotAffine, constant_of, evaluate, title
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

# Nothing larger is made of constants, in elements: an identity grid of 512 x 512 x 512 is smaller.
_LARGEST = 1 << 29
_SMALL = 4096


def evaluate_constant(node: ir.Node, inputs: Sequence[Array | None], opsets: dict[str, int]) -> list[Array]:
    """The outputs of a node whose inputs are all known.

    Raises:
        NotAffine: It is too large, or onnx's evaluator cannot do it.
    """
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    if node.op_type in SCATTERS and inputs[0] is not None and inputs[0].size > _SMALL:
        # Those of onnx's evaluator take seconds for a million elements.
        return _written_constant(node, inputs)
    known = {f"i{place}": value for place, value in enumerate(inputs) if value is not None}
    proto = ir.serde.serialize_node(node)
    for place in range(len(proto.input)):
        proto.input[place] = f"i{place}" if f"i{place}" in known else ""
    if node.op_type in ("Expand", "ConstantOfShape", "Tile", "Range"):
        _check_size(node, inputs)
    try:
        results: Any = ReferenceEvaluator(proto, opsets=opsets).run(None, known)
    except Exception as error:
        raise NotAffine(f"{title(node)} cannot be computed: {type(error).__name__}") from error
    return [np.asarray(result) for result in results]


def _written_constant(node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
    data = inputs[0]
    assert data is not None
    (result,) = evaluate(node, [constant_of(data, 0), *inputs[1:]], 0)
    assert isinstance(result, Affine)
    return [np.broadcast_to(result.offset, result.shape).astype(data.dtype)]


def _check_size(node: ir.Node, inputs: Sequence[Array | None]) -> None:
    first, *rest = (np.asarray(one) for one in inputs if one is not None)
    if node.op_type == "Expand":
        size = max(first.size, math.prod(int(n) for n in rest[0]))
    elif node.op_type == "Tile":
        size = first.size * math.prod(int(n) for n in rest[0])
    elif node.op_type == "Range":
        size = math.ceil((float(rest[0]) - float(first)) / float(rest[1])) if rest[1] else 0
    else:
        size = math.prod(int(n) for n in first)
    if size > _LARGEST:
        raise NotAffine(f"{title(node)} makes a constant of {size} elements")
