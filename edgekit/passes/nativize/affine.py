"""What a piece of a graph does to each element of one tensor, proved rather than sampled.

Every element of every tensor between a *leaf* and what is computed of it is ``scale * leaf[place] + offset``
as long as the operators between only move elements, add, and multiply by constants. The evaluator carries
place, scale and offset along instead of numbers: at the end it is known of each element what it is, and no
random input is needed. Anything else is refused, with the node that does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.kernels.base import Doubles
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

Shape = tuple[int, ...]


class NotAffine(Exception):
    """Why a tensor is not affine in the leaf; the text goes into the report."""


@dataclass(frozen=True)
class Affine:
    """A tensor whose elements are ``scale * leaf[places] + offset``.

    Attributes:
        shape: Its shape.
        places: For each axis of the leaf, the coordinate there.
        scale: The factor; 0 where the element does not depend on the leaf.
        offset: What is added.

    All arrays have as many axes as the tensor. Along an axis where they do not vary they have length 1, which
    makes most of them tiny.
    """

    shape: Shape
    places: tuple[Array, ...]
    scale: Doubles
    offset: Doubles

    @property
    def parts(self) -> tuple[Array, ...]:
        """All its arrays."""
        return (self.scale, self.offset, *self.places)

    def at(self, axis: int, place: int) -> Affine:
        """Its part at one place of an axis, which goes."""
        parts = []
        for part in self.parts:
            index: Any = (*[slice(None)] * axis, place if part.shape[axis] != 1 else 0)
            parts.append(part[index])
        return _of_parts(self.shape[:axis] + self.shape[axis + 1 :], parts)

    @property
    def varies(self) -> bool:
        """Whether any element depends on the leaf."""
        return bool(self.scale.any())


def leaf_of(shape: Shape) -> Affine:
    """The leaf itself."""
    axes = range(len(shape))
    one = (1,) * len(shape)
    places = tuple(
        np.arange(length, dtype=np.int32).reshape([length if axis == own else 1 for axis in axes])
        for own, length in enumerate(shape)
    )
    return Affine(shape, places, np.ones(one), np.zeros(one))


def constant_of(array: Array, rank: int) -> Affine:
    """A constant, beside a leaf of that many axes."""
    one = (1,) * array.ndim
    places = (np.zeros(one, np.int32),) * rank
    return Affine(array.shape, places, np.zeros(one), array.astype(np.float64))


def _of_parts(shape: Shape, parts: Sequence[Array]) -> Affine:
    scale, offset, *places = parts
    return Affine(
        shape, tuple(places), scale.astype(np.float64, copy=False), offset.astype(np.float64, copy=False)
    )


Tensor = Array | Affine
# Takes an array with the true shape of what it stands for, gives another such pair.
_Move = Callable[["ir.Node", Array, Shape, Sequence[Any]], tuple[Array, Shape]]


def evaluate(node: ir.Node, inputs: Sequence[Tensor | None], rank: int) -> list[Tensor]:
    """The outputs of a node that is in :data:`OPERATORS`, where some input is an :class:`Affine`.

    Args:
        node: The node.
        inputs: Its :func:`operands`.
        rank: Number of axes of the leaf.

    Raises:
        NotAffine: It does something else to the leaf's elements than is allowed.
    """
    name = node.op_type
    if name in _MOVES:
        first, *rest = inputs
        if not isinstance(first, Affine) or any(isinstance(one, Affine) for one in rest):
            raise NotAffine(f"{title(node)} takes from the field where to look")
        moved = [_MOVES[name](node, part, first.shape, rest) for part in first.parts]
        return [_of_parts(moved[0][1], [part for part, _ in moved])]
    given = [one if isinstance(one, Affine) else constant_of(one, rank) for one in inputs if one is not None]
    if name in _ARITHMETIC:
        return [_ARITHMETIC[name](node, given)]
    if name == "Split":
        return list(_split(node, given[0], inputs[1] if len(inputs) > 1 else None))
    if name == "Concat":
        return [_concat(node, given)]
    indices = inputs[1]
    if isinstance(indices, Affine) or indices is None:
        raise NotAffine(f"{title(node)} takes from the field where to write")
    return [SCATTERS[name](node, given[0], indices, given[2])]


def title(node: ir.Node) -> str:
    """What a node is called in a reason."""
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def operands(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs whose values matter: a shape or a type alone is known without."""
    if node.domain:
        return node.inputs
    if node.op_type in ("Shape", "Size"):
        return ()
    return node.inputs[:1] if node.op_type == "CastLike" else node.inputs


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The value of an attribute of a node."""
    found = node.attributes.get(name)
    return default if found is None else found.value


# --- moving elements ---


def _axes(node: ir.Node, rest: Sequence[Any], rank: int) -> list[int] | None:
    given = rest[0] if rest and rest[0] is not None else attribute(node, "axes", None)
    return None if given is None else sorted(int(axis) % rank for axis in np.asarray(given).reshape(-1))


def _identity(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    return part, shape


def _cast(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    import onnx_ir as ir

    if not ir.DataType(attribute(node, "to", 0)).is_floating_point():
        raise NotAffine(f"{title(node)} rounds the field")
    return part, shape


def _transpose(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    order = list(attribute(node, "perm", range(len(shape))[::-1]))
    return part.transpose(order), tuple(shape[axis] for axis in order)


def _unsqueeze(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    count = np.asarray(rest[0] if rest else attribute(node, "axes", ())).size
    axes = _axes(node, rest, len(shape) + count) or []
    wide = list(shape)
    for axis in axes:
        wide.insert(axis, 1)
    return np.expand_dims(part, tuple(axes)), tuple(wide)


def _squeeze(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    axes = _axes(node, rest, len(shape))
    if axes is None:
        axes = [axis for axis, length in enumerate(shape) if length == 1]
    left = tuple(length for axis, length in enumerate(shape) if axis not in axes)
    return part.squeeze(tuple(axes)), left


def _reshape(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    wanted = [int(length) for length in rest[0]]
    if not attribute(node, "allowzero", 0):
        wanted = [shape[axis] if length == 0 else length for axis, length in enumerate(wanted)]
    if -1 in wanted:
        known = -math.prod(wanted)
        wanted[wanted.index(-1)] = math.prod(shape) // known if known else 0
    return _laid_out(part, shape, tuple(wanted))


def _flatten(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    axis = attribute(node, "axis", 1) % (len(shape) + 1)
    return _laid_out(part, shape, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _laid_out(part: Array, shape: Shape, wanted: Shape) -> tuple[Array, Shape]:
    if part.size == 1:
        return part.reshape((1,) * len(wanted)), wanted
    if [n for n in shape if n != 1] == [n for n in wanted if n != 1]:
        # Only axes of length 1 come and go.
        lengths = iter([own for own, n in zip(part.shape, shape, strict=True) if n != 1])
        return part.reshape([1 if n == 1 else next(lengths) for n in wanted]), wanted
    return np.broadcast_to(part, shape).reshape(wanted), wanted


def _expand(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    wide = np.broadcast_shapes(shape, tuple(int(length) for length in rest[0]))
    return part.reshape((1,) * (len(wide) - len(shape)) + part.shape), wide


def _tile(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    repeats = [int(count) for count in rest[0]]
    own = [1 if length == 1 else count for length, count in zip(part.shape, repeats, strict=True)]
    return np.tile(part, own), tuple(n * count for n, count in zip(shape, repeats, strict=True))


def _slice(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    if "starts" in node.attributes:
        starts, ends = attribute(node, "starts", ()), attribute(node, "ends", ())
        axes, steps = attribute(node, "axes", None), None
    else:
        starts, ends, axes, steps = (*rest, None, None)[:4]
    axes = range(len(starts)) if axes is None else [int(axis) % len(shape) for axis in axes]
    steps = [1] * len(starts) if steps is None else steps
    index, lengths = [slice(None)] * len(shape), list(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        span = slice(int(start), int(end), int(step))
        lengths[axis] = len(range(*span.indices(shape[axis])))
        if part.shape[axis] != 1:
            index[axis] = span
    return part[tuple(index)], tuple(lengths)


def _gather(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    axis = attribute(node, "axis", 0) % len(shape)
    indices = np.asarray(rest[0])
    wanted = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    if part.shape[axis] == 1:
        indices = np.zeros((1,) * indices.ndim, np.intp)
    return np.take(part, indices, axis), wanted


def _gather_nd(node: ir.Node, part: Array, shape: Shape, rest: Sequence[Any]) -> tuple[Array, Shape]:
    if attribute(node, "batch_dims", 0):
        raise NotAffine(f"{title(node)} picks by batch")
    indices = np.moveaxis(np.asarray(rest[0]), -1, 0)
    wanted = (*indices.shape[1:], *shape[len(indices) :])
    if all(part.shape[axis] == 1 for axis in range(len(indices))):
        indices = np.zeros((len(indices), *(1,) * (indices.ndim - 1)), np.intp)
    else:
        part = np.broadcast_to(part, (*shape[: len(indices)], *part.shape[len(indices) :]))
    return part[tuple(indices)], wanted


_MOVES: Mapping[str, _Move] = {
    "Cast": _cast,
    "CastLike": _identity,
    "Identity": _identity,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Tile": _tile,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
}


def _split(node: ir.Node, whole: Affine, sizes: Tensor | None) -> Iterable[Affine]:
    axis = attribute(node, "axis", 0) % len(whole.shape)
    length, count = whole.shape[axis], len(node.outputs)
    if isinstance(sizes, Affine):
        raise NotAffine(f"{title(node)} takes from the field where to cut")
    if sizes is None:
        sizes = attribute(node, "split", None)
    if sizes is None:
        each = -(-length // count)
        sizes = np.diff([min(each * piece, length) for piece in range(count + 1)])
    begin = 0
    for size in map(int, np.asarray(sizes)):
        index = (*[slice(None)] * axis, slice(begin, begin + size))
        parts = [part if part.shape[axis] == 1 else part[index] for part in whole.parts]
        yield _of_parts((*whole.shape[:axis], size, *whole.shape[axis + 1 :]), parts)
        begin += size


def _concat(node: ir.Node, pieces: Sequence[Affine]) -> Affine:
    axis = attribute(node, "axis", 0) % len(pieces[0].shape)
    lengths = [piece.shape[axis] for piece in pieces]
    shape = (*pieces[0].shape[:axis], sum(lengths), *pieces[0].shape[axis + 1 :])
    joined = []
    for same in zip(*(piece.parts for piece in pieces), strict=True):
        one = [(*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in same]
        common = np.broadcast_shapes(*one)
        joined.append(
            np.concatenate(
                [
                    np.broadcast_to(part, (*common[:axis], length, *common[axis + 1 :]))
                    for part, length in zip(same, lengths, strict=True)
                ],
                axis,
            )
        )
    return _of_parts(shape, joined)


# --- writing in place ---


def _scatter_elements(node: ir.Node, data: Affine, indices: Array, updates: Affine) -> Affine:
    _check_plain(node)
    axis = attribute(node, "axis", 0) % len(data.shape)
    one_place = indices.shape[axis] == 1 and indices.size and indices.min() == indices.max()
    if one_place and indices.shape == (*data.shape[:axis], 1, *data.shape[axis + 1 :]):
        place = int(indices.flat[0]) % data.shape[axis]
        return _of_parts(
            data.shape,
            [
                _written(a, b, axis, place, data.shape[axis])
                for a, b in zip(data.parts, updates.parts, strict=True)
            ],
        )
    region = tuple(slice(length) for length in indices.shape)
    region = (*region[:axis], slice(None), *region[axis + 1 :])
    parts = []
    for part, new in zip(data.parts, updates.parts, strict=True):
        whole = np.broadcast_to(part, data.shape).copy()
        np.put_along_axis(whole[region], indices.astype(np.int64), np.broadcast_to(new, updates.shape), axis)
        parts.append(whole)
    return _of_parts(data.shape, parts)


def _written(part: Array, new: Array, axis: int, place: int, length: int) -> Array:
    """``part`` with ``new`` at one place of an axis; other axes vary where either does."""
    one = (*part.shape[:axis], 1, *part.shape[axis + 1 :])
    common = list(np.broadcast_shapes(one, new.shape))
    common[axis] = length
    whole: Array = np.broadcast_to(part, common).copy()
    index = (*[slice(None)] * axis, slice(place, place + 1))
    whole[index] = new
    return whole


def _scatter_nd(node: ir.Node, data: Affine, indices: Array, updates: Affine) -> Affine:
    _check_plain(node)
    index = tuple(np.moveaxis(indices, -1, 0))
    parts = []
    for part, new in zip(data.parts, updates.parts, strict=True):
        whole = np.broadcast_to(part, data.shape).copy()
        whole[index] = np.broadcast_to(new, updates.shape)
        parts.append(whole)
    return _of_parts(data.shape, parts)


def _check_plain(node: ir.Node) -> None:
    reduction = attribute(node, "reduction", "none")
    if reduction != "none":
        raise NotAffine(f"{title(node)} writes with reduction {reduction!r}")


SCATTERS = {"ScatterElements": _scatter_elements, "ScatterND": _scatter_nd}


# --- arithmetic ---


def _ranked(tensor: Affine, rank: int) -> Affine:
    ahead = (1,) * (rank - len(tensor.shape))
    return _of_parts(ahead + tensor.shape, [part.reshape(ahead + part.shape) for part in tensor.parts])


def _add(node: ir.Node, terms: Sequence[Affine]) -> Affine:
    rank = max(len(term.shape) for term in terms)
    total, *others = (_ranked(term, rank) for term in terms)
    for term in others:
        shape = np.broadcast_shapes(total.shape, term.shape)
        places = _common_places(node, total, term)
        total = Affine(shape, places, total.scale + term.scale, total.offset + term.offset)
    return total


def _common_places(node: ir.Node, one: Affine, other: Affine) -> tuple[Array, ...]:
    if not other.varies:
        return one.places
    if not one.varies:
        return other.places
    free, there = one.scale == 0, other.scale == 0
    for a, b in zip(one.places, other.places, strict=True):
        if not np.all((a == b) | free | there):
            raise NotAffine(f"{title(node)} adds different elements of the field")
    if not free.any():
        return one.places
    return tuple(np.where(free, b, a) for a, b in zip(one.places, other.places, strict=True))


def _negative(node: ir.Node, terms: Sequence[Affine]) -> Affine:
    (term,) = terms
    return Affine(term.shape, term.places, -term.scale, -term.offset)


def _subtract(node: ir.Node, terms: Sequence[Affine]) -> Affine:
    return _add(node, (terms[0], _negative(node, terms[1:])))


def _multiply(node: ir.Node, terms: Sequence[Affine]) -> Affine:
    rank = max(len(term.shape) for term in terms)
    field, factor = (_ranked(term, rank) for term in terms)
    if factor.varies:
        field, factor = factor, field
    if factor.varies:
        raise NotAffine(f"{title(node)} multiplies the field by itself")
    return _scaled(field, factor.shape, factor.offset)


def _divide(node: ir.Node, terms: Sequence[Affine]) -> Affine:
    rank = max(len(term.shape) for term in terms)
    field, divisor = (_ranked(term, rank) for term in terms)
    if divisor.varies:
        raise NotAffine(f"{title(node)} divides by the field")
    with np.errstate(divide="ignore"):
        return _scaled(field, divisor.shape, 1 / divisor.offset)


def _scaled(field: Affine, shape: Shape, factor: Doubles) -> Affine:
    with np.errstate(invalid="ignore"):  # what is not finite is found at the end
        scale, offset = field.scale * factor, field.offset * factor
    return Affine(np.broadcast_shapes(field.shape, shape), field.places, scale, offset)


_ARITHMETIC: Mapping[str, Callable[[ir.Node, Sequence[Affine]], Affine]] = {
    "Add": _add,
    "Sum": _add,
    "Sub": _subtract,
    "Neg": _negative,
    "Mul": _multiply,
    "Div": _divide,
}

OPERATORS = frozenset((*_MOVES, *_ARITHMETIC, *SCATTERS, "Split", "Concat"))
