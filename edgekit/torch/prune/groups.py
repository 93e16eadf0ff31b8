"""The classes of a traced network in a plan's words: which channels of which layers go together.

A *column* is one side of a layer, or one axis of another tensor, as a plan counts it. Biases and statistics
follow their layer's column and have none of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from torch import nn

from edgekit.cuts import Sides
from edgekit.torch.prune.apply import kind_of, length_of, side_of, tensors_of_layer
from edgekit.torch.prune.atoms import NONE, Ids, Reason
from edgekit.torch.prune.trace import Trace

# By name of the layer or tensor, then side or number of the axis.
Column = tuple[str, str]


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one operator: how many indices of each class each factor has, and how many in all."""

    macs: int
    factors: tuple[tuple[Counter[int], int], ...]


class Groups:
    """The classes of a traced network.

    Attributes:
        layers: The layers that a plan knows, by path.
        columns: The class of each index; :data:`~edgekit.torch.prune.atoms.NONE` where it has none.
        places: Where each class lies: the columns with the indices.
        reasons: Why a class must stay.
        works: The work of the network.
        inexact: Classes whose removal changes statistics of others.
    """

    def __init__(self, module: nn.Module, found: Trace) -> None:
        self.layers = {path: part for path, part in module.named_modules() if kind_of(part)}
        self.columns: dict[Column, list[int]] = {}
        atoms = found.atoms
        own = {
            f"{path}.{name}" if path else name: (path, name)
            for path, part in self.layers.items()
            for name, _ in tensors_of_layer(part)
        }
        for axis in atoms.axes:
            column = self._column(axis.tensor, axis.axis, own)
            if column is not None:
                self.columns.setdefault(column, atoms.find(axis.ids).tolist())
        for path, ids in found.counted.items():
            self.columns.setdefault((path, "out"), atoms.find(ids).tolist())
        self.places: dict[int, list[tuple[Column, int]]] = defaultdict(list)
        for column, roots in self.columns.items():
            for index, root in enumerate(roots):
                if root != NONE:
                    self.places[root].append((column, index))
        self.reasons = self._why(found)
        self.works = [
            Work(cost.macs, tuple((Counter(atoms.find(f).tolist()), len(f)) for f in cost.factors))
            for cost in found.findings.costs
        ]
        self.inexact = set(atoms.find(_joined(found.findings.inexact)).tolist()) - {NONE}

    def _column(self, tensor: str, axis: int, own: dict[str, tuple[str, str]]) -> Column | None:
        if tensor not in own:
            return tensor, str(axis)
        path, name = own[tensor]
        kind = kind_of(self.layers[path])
        assert kind is not None
        if name != "weight" and kind != "norm":
            return None
        side = side_of(kind, name, axis)
        return None if side is None else (path, side)

    def _why(self, found: Trace) -> dict[int, Reason]:
        atoms = found.atoms
        reasons = {root: reason for root in self.places if (reason := atoms.reason(root)) is not None}
        used = set(atoms.find(_joined(found.findings.consumed)).tolist())
        made = {root for column in self.producers for root in self.columns[column]}
        for root in self.places:
            if root not in used:
                reasons.setdefault(root, Reason("", "nothing that the network gives depends on it"))
            if root not in made:
                reasons.setdefault(root, Reason("", "no layer makes it"))
        return reasons

    @property
    def producers(self) -> list[Column]:
        """The columns of outgoing channels of convolutions and linear layers."""
        return [
            (name, side)
            for name, side in self.columns
            if name in self.layers
            and kind_of(self.layers[name]) not in ("norm", "embedding")
            and (side == "out" or self.sides(name).group)
        ]

    def sides(self, path: str) -> Sides:
        """A layer before any cut."""
        return sides_of(self.layers[path])


def _joined(ids: list[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, np.int64), *(i.reshape(-1) for i in ids)])


def sides_of(module: nn.Module) -> Sides:
    """A layer before any cut, as a ranking keeps it."""
    kind = kind_of(module)
    assert kind is not None
    out, into = length_of(module, kind, "out"), length_of(module, kind, "into")
    groups = getattr(module, "num_groups" if isinstance(module, nn.GroupNorm) else "groups", 1)
    if groups == 1:
        return Sides(kind, out, into)
    if kind == "norm":
        return Sides(kind, out, group=out // groups)
    # A group goes as a whole where one channel goes into it.
    each = into // groups if kind == "transposed convolution" else into
    return Sides(
        kind, out, into, (1 if kind == "transposed convolution" else out // groups) if each == 1 else 0
    )
