"""Labels: for every element of a tensor, the atoms that it vanishes with.

A label is kept in *parts*. Each part is an array of atoms with the tensor's rank, of length 1 along the axes
where it does not vary: after a convolution one part (1, C, 1, 1, 1), for its weight two, (O, 1, 1, 1, 1) and
(1, I, 1, 1, 1). An element vanishes when any of its atoms does; :data:`~edgekit.torch.prune.atoms.NONE` never
does. Operators that only move elements move the labels; the others say which atoms they couple.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.torch.prune.atoms import NONE, Atoms, Ids, Reason

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Labels:
    """The atoms of a tensor's elements.

    Attributes:
        shape: The tensor's shape.
        parts: Arrays of atoms, each of the tensor's rank, with length 1 or the tensor's along every axis.
    """

    shape: Shape
    parts: tuple[Ids, ...] = ()

    def along(self, axis: int) -> Ids:
        """The atoms of each index of an axis, as far as they vary along it alone; NONE elsewhere."""
        found = np.full(self.shape[axis], NONE)
        for part in self.parts:
            if varying(part) == {axis}:
                found = np.where(found == NONE, part.reshape(-1), found)
        return found

    @property
    def ids(self) -> Ids:
        """All its atoms."""
        return np.concatenate([np.zeros(0, np.int64), *(part.reshape(-1) for part in self.parts)])


def varying(part: Ids) -> set[int]:
    """The axes along which a part varies."""
    return {axis for axis, length in enumerate(part.shape) if length > 1}


def compact(parts: Sequence[Ids], shape: Shape, atoms: Atoms) -> Labels:
    """Labels of these parts, each with length 1 along the axes where it is constant; empty ones left out."""
    found = [_compacted(atoms.find(part)) for part in parts]
    return Labels(shape, tuple(part for part in found if (part != NONE).any()))


def _compacted(part: Ids) -> Ids:
    for axis in varying(part):
        first = part.take([0], axis)
        if (part == first).all():
            part = first
    return part


def couple(labels: Sequence[Labels], atoms: Atoms, reason: Reason) -> Labels:
    """Labels of what is computed element by element, from tensors that broadcast.

    Elements of two tensors that meet vanish together. Along an axis where one tensor has length 1 its
    elements meet all, and nothing follows.
    """
    rank = max(len(label.shape) for label in labels)
    labels = [_raised(label, rank) for label in labels]
    shape = np.broadcast_shapes(*(label.shape for label in labels))
    for index, one in enumerate(labels):
        for other in labels[index + 1 :]:
            _couple_two(one, other, atoms, reason)
    parts: dict[frozenset[int], Ids] = {}
    for label in labels:
        for part in label.parts:
            parts.setdefault(frozenset(varying(part)), part)
    return compact(list(parts.values()), shape, atoms)


def _couple_two(one: Labels, other: Labels, atoms: Atoms, reason: Reason) -> None:
    for mine, theirs in ((one, other), (other, one)):
        for part in mine.parts:
            axes = varying(part)
            partners = [p for p in theirs.parts if varying(p) & axes]
            for partner in partners if mine is one else ():
                atoms.unify(part, partner, reason)
            met = any(theirs.shape[axis] > 1 for axis in axes)
            if met and not partners:
                atoms.fix(part, reason)


def _raised(label: Labels, rank: int) -> Labels:
    """The same with axes of length 1 in front."""
    missing = (1,) * (rank - len(label.shape))
    return Labels(missing + label.shape, tuple(part.reshape(missing + part.shape) for part in label.parts))


def concatenate(labels: Sequence[Labels], axis: int, shape: Shape, atoms: Atoms, reason: Reason) -> Labels:
    """Labels of tensors one after the other along an axis; what varies across it is coupled."""
    across = [
        Labels(_without(label.shape, axis), tuple(p for p in label.parts if p.shape[axis] == 1))
        for label in labels
    ]
    whole = couple(across, atoms, reason)
    along: list[Ids] = []
    for label in labels:
        parts = [part for part in label.parts if part.shape[axis] > 1]
        for part in parts[1:]:
            atoms.fix(part, reason)
        along.append(parts[0] if parts else np.full((1,) * len(shape), NONE))
    # The pieces have equal lengths elsewhere, so every part can be spread to the largest extent of all.
    spread = np.broadcast_shapes(*(_without(part.shape, axis) for part in along))
    pieces = [
        np.broadcast_to(part, (*spread[:axis], label.shape[axis], *spread[axis + 1 :]))
        for part, label in zip(along, labels, strict=True)
    ]
    return compact([*whole.parts, np.concatenate(pieces, axis)], shape, atoms)


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def view(label: Labels, shape: Shape, atoms: Atoms, reason: Reason) -> tuple[Labels, list[Ids]]:
    """Labels of the same elements in another shape, and the atoms of every axis that was split.

    After a cut the elements of an axis that was split must still fill a box. One of the new axes keeps its
    freedom, along the others a class takes all: for channels last (attention heads) the last one, for
    channels first (pixel shuffling) the first.
    """
    split: list[Ids] = []
    parts: list[Ids] = []
    blocks = _blocks(label.shape, shape)
    for part in label.parts:
        whole = list(part.shape)
        lengths = [1] * len(shape)
        for old, new in blocks:
            if any(part.shape[axis] > 1 for axis in old):
                for axis in old:
                    whole[axis] = label.shape[axis]
                for axis in new:
                    lengths[axis] = shape[axis]
        moved = _compacted(atoms.find(np.broadcast_to(part, whole).reshape(lengths)))
        for _, new in blocks:
            varies = [axis for axis in new if moved.shape[axis] > 1]
            if len(varies) > 1:
                split.append(moved)
                free = varies[-1] if new[-1] == len(shape) - 1 else varies[0]
                _merge_axes(moved, [axis for axis in varies if axis != free], atoms, reason)
        parts.append(moved)
    return compact(parts, shape, atoms), split


def _merge_axes(part: Ids, axes: Sequence[int], atoms: Atoms, reason: Reason) -> None:
    """Make one class along these axes, for each index of the others."""
    rows = np.moveaxis(part, axes, range(-len(axes), 0))
    atoms.merge(rows.reshape(-1, math.prod(part.shape[axis] for axis in axes)), reason)


def _blocks(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes on both sides that hold equally many elements; axes of length 1 left out."""
    left = [axis for axis, length in enumerate(old) if length != 1]
    right = [axis for axis, length in enumerate(new) if length != 1]
    blocks: list[tuple[list[int], list[int]]] = []
    while left and right:
        one, other = [left.pop(0)], [right.pop(0)]
        while (size := math.prod(old[a] for a in one)) != (size_new := math.prod(new[a] for a in other)):
            if size < size_new:
                one.append(left.pop(0))
            else:
                other.append(right.pop(0))
        blocks.append((one, other))
    return blocks
