"""Atoms: the indices of every parameter's axes, which of them live and die together, and which must stay.

An *atom* is one index of one axis of one parameter: output channel 5 of a convolution, entry 5 of a norm's
scale. Running the network once (:mod:`edgekit.torch.prune.trace`) tells which atoms go together. What is left
are *classes* of atoms: cutting a class out of all its tensors leaves a network that still fits together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

# The atom of what is always there; no parameter has it.
NONE = 0


@dataclass(frozen=True)
class Reason:
    """Why a class must stay.

    Attributes:
        where: Path of the module that demands it; empty for the network itself.
        text: What it demands, as a part of a sentence.
    """

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.where})" if self.where else self.text


@dataclass(frozen=True)
class Axis:
    """One axis of one tensor of the state.

    Attributes:
        tensor: Name of the parameter or buffer.
        axis: Which axis of it.
        first: Atom of index 0; the others follow.
        length: Number of indices.
    """

    tensor: str
    axis: int
    first: int
    length: int

    @property
    def ids(self) -> Ids:
        """The atoms, in order."""
        return np.arange(self.first, self.first + self.length)


class Atoms:
    """A union of sets that remembers why a set must stay whole."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)
        self._reasons: dict[int, Reason] = {}
        self.axes: list[Axis] = []

    def add(self, tensor: str, axis: int, length: int) -> Axis:
        """New atoms for one axis of a tensor."""
        first = len(self._parent)
        self._parent = np.concatenate([self._parent, np.arange(first, first + length)])
        made = Axis(tensor, axis, first, length)
        self.axes.append(made)
        return made

    def find(self, ids: Ids) -> Ids:
        """The representative of each atom's class; the shape is kept."""
        found = self._parent[ids]
        while not np.array_equal(found, again := self._parent[found]):
            found = again
        return found

    def unify(self, left: Ids, right: Ids, reason: Reason) -> None:
        """Let the atoms live and die in pairs; what is paired with nothing must stay.

        Args:
            left: Atoms; :data:`NONE` for what is always there.
            right: Likewise, of a shape that broadcasts with ``left``'s.
            reason: Why an atom that is paired with nothing must stay.
        """
        pairs = np.stack([a.reshape(-1) for a in np.broadcast_arrays(self.find(left), self.find(right))])
        pairs = np.unique(pairs[:, pairs[0] != pairs[1]], axis=1)
        alone = (pairs == NONE).any(0)
        self.fix(pairs[:, alone].max(0, initial=NONE), reason)
        self._join(pairs[:, ~alone])

    def merge(self, ids: Ids, reason: Reason) -> None:
        """Make one class of all atoms along the last axis, for each index of the other axes."""
        ids = self.find(ids.reshape(-1, ids.shape[-1]))
        self.unify(ids, ids[:, :1], reason)

    def fix(self, ids: Ids, reason: Reason) -> None:
        """Say that these atoms must stay; the first reason is kept."""
        for atom in np.unique(self.find(ids)).tolist():
            if atom != NONE:
                self._reasons.setdefault(atom, reason)

    def reason(self, atom: int) -> Reason | None:
        """Why the atom's class must stay, or ``None`` where it may go."""
        return self._reasons.get(int(self.find(np.array(atom))))

    def classes(self) -> dict[int, Ids]:
        """The atoms of each class, by representative."""
        roots = self.find(np.arange(len(self._parent)))
        order = np.argsort(roots, kind="stable")
        starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
        return {int(roots[part[0]]): part for part in np.split(order, starts[1:]) if roots[part[0]] != NONE}

    def members(self, ids: Ids) -> Iterator[tuple[Axis, int]]:
        """Where atoms lie: axis and index, in order of the atoms."""
        firsts = np.array([axis.first for axis in self.axes])
        for atom, at in zip(ids.tolist(), np.searchsorted(firsts, ids, side="right").tolist(), strict=True):
            axis = self.axes[at - 1]
            yield axis, atom - axis.first

    def _join(self, pairs: Ids) -> None:
        """Make one class of two, for each column."""
        parent = self._parent
        for pair in pairs.T.tolist():
            for side in (0, 1):
                while parent[pair[side]] != pair[side]:
                    pair[side] = int(parent[pair[side]])
            low, high = sorted(pair)
            if low == high:
                continue
            parent[high] = low
            if (reason := self._reasons.pop(high, None)) is not None:
                self._reasons.setdefault(low, reason)
        if pairs.size:
            self._parent = self.find(self._parent)
