"""The order in which channels go: families of classes, cut in chunks that leave a multiple of channels.

A *family* is what has to be rounded together: the classes of one layer's outgoing channels, or of several
layers whose results are added. Each is cut from its least important class on, in chunks that leave a multiple
of the target's vector width. Of all families the chunk goes next that loses least for the work it saves.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.cuts import Ranking, Step
from edgekit.torch.prune.atoms import NONE, Ids
from edgekit.torch.prune.groups import Groups
from edgekit.torch.prune.scores import Scores

# A family keeps this share of its channels at least, and of its importance for what the logarithm below sees.
_LEAST = 0.1
_NOTHING = 1e-9


@dataclass(frozen=True)
class Chunk:
    """Classes that go at once, and the importance that the family has lost with them."""

    classes: tuple[int, ...]
    lost: float


@dataclass(frozen=True)
class Family:
    """Classes that are rounded together.

    Attributes:
        classes: All of them.
        width: Channels of the narrowest layer, those included that must stay.
        total: What it counts beside other families.
        chunks: In the order in which they go.
    """

    classes: tuple[int, ...]
    width: int
    total: float
    chunks: tuple[Chunk, ...]


def rank(
    groups: Groups,
    scores: Scores,
    importance: str,
    *,
    multiple: int,
    without: Collection[int] = frozenset(),
) -> Ranking:
    """The order in which channels go.

    Args:
        groups: The classes.
        scores: Of the layers' channels.
        importance: What the scores are.
        multiple: What a family's number of channels is rounded to.
        without: Classes to keep beside those that must stay.
    """
    found = families(groups, scores, importance, multiple=multiple, without=without)
    work = _Work(groups)
    whole = work.macs
    steps: list[Step] = []
    names: set[str] = set()
    for chunk in _order(found, work):
        work.cut(chunk.classes)
        cuts = _cuts(groups, chunk.classes)
        names.update(cuts)
        steps.append(Step(round(work.macs), cuts))
    tensors = {name for name in names if name not in groups.layers}
    return Ranking(
        round(whole),
        {name: groups.sides(name) for name in sorted(names - tensors)},
        {name: _shape(groups, name) for name in sorted(tensors)},
        tuple(steps),
        kept=_kept(groups, found, multiple),
        exact=groups.inexact.isdisjoint(root for family in found for root in family.classes if family.chunks),
    )


def _order(found: Sequence[Family], work: _Work) -> Iterator[Chunk]:
    """The chunks of all families, the cheapest next one first; whoever takes one cuts it before the next."""
    waiting: list[tuple[float, int, int]] = []

    def push(at: int, index: int) -> None:
        chunks = found[at].chunks
        if index < len(chunks):
            before = chunks[index - 1].lost if index else 0.0
            price = _price(found[at], before, chunks[index].lost)
            heapq.heappush(waiting, (price / max(work.saved(chunks[index].classes), 1.0), at, index))

    for at in range(len(found)):
        push(at, 0)
    while waiting:
        _, at, index = heapq.heappop(waiting)
        # A cut elsewhere leaves less to save here, so a price only rises.
        push(at, index)
        if waiting[0][1] == at:
            heapq.heappop(waiting)
            yield found[at].chunks[index]
            push(at, index + 1)


def families(
    groups: Groups,
    scores: Scores,
    importance: str,
    *,
    multiple: int,
    without: Collection[int] = frozenset(),
) -> list[Family]:
    """The families of the classes that may go, in the order of the network."""
    parent: dict[int, int] = {}

    def find(root: int) -> int:
        while parent.setdefault(root, root) != root:
            root = parent[root]
        return root

    stay = {NONE, *groups.reasons, *without}
    for column in groups.producers:
        free = [root for root in groups.columns[column] if root not in stay]
        for root in free:
            parent[find(root)] = find(free[0])
    together: dict[int, list[int]] = defaultdict(list)
    for root in parent:
        together[find(root)].append(root)
    return [_family(groups, classes, scores, importance, multiple) for classes in together.values()]


def _family(
    groups: Groups,
    classes: list[int],
    scores: Scores,
    importance: str,
    multiple: int,
) -> Family:
    counts = {root: Counter(column for column, _ in groups.places[root]) for root in classes}
    # Where a class is several channels of one layer and one of the next (pixel shuffling), it counts once.
    widths = np.array([min(counts[root].values()) for root in classes])
    values = np.array([_value(groups, root, scores, importance) for root in classes])
    total = max(float(values.sum()), _NOTHING)
    order = np.argsort(values / widths, kind="stable").tolist()
    layers = []
    for column in groups.producers:
        here = np.array([counts[root][column] for root in classes])
        if here.any():
            unit = int((here[here > 0] // widths[here > 0]).min())
            layers.append((here[order], len(groups.columns[column]), unit * multiple))
    chunks = tuple(_chunks([classes[at] for at in order], values[order] / total, layers))
    # Magnitudes of different layers have no common unit: every family counts alike then.
    return Family(
        tuple(classes),
        min(length for _, length, _ in layers),
        total if importance == "taylor" else 1.0,
        chunks,
    )


def _chunks(
    classes: Sequence[int], values: npt.NDArray[np.float64], layers: Sequence[tuple[Ids, int, int]]
) -> Iterator[Chunk]:
    """The classes in chunks that leave every layer a multiple, as long as enough is left.

    Args:
        classes: In the order in which they go.
        values: Share of the importance of each.
        layers: Of each layer: channels in each class, channels in all, and what is to divide what is left.
    """
    left = np.stack([length - here.cumsum() for here, length, _ in layers])
    divisors = np.array([[divisor] for _, _, divisor in layers])
    least = np.array([[max(divisor, _LEAST * length)] for _, length, divisor in layers])
    fits = (left % divisors == 0).all(0)
    enough = (left >= least).all(0)
    lost = values.cumsum()
    start = 0
    for at in np.flatnonzero(fits & enough).tolist():
        yield Chunk(tuple(classes[start : at + 1]), float(lost[at]))
        start = at + 1


def _value(groups: Groups, root: int, scores: Scores, importance: str) -> float:
    """What a class is worth: to first order what is made of it, or where no weights do, what makes it."""
    sums = {"out": 0.0, "into": 0.0}
    for (name, side), index in groups.places[root]:
        if (found := scores.get((name, side))) is not None:
            sums[side] += float(found[index])
    if importance == "taylor":
        return sums["into"] or sums["out"]
    return sums["out"] + sums["into"]


def _price(family: Family, before: float, after: float) -> float:
    """What a cut costs: to first order what it loses, and more and more as less is left."""
    left = max(1 - before, _NOTHING), max(1 - after, _NOTHING)
    return family.total * math.log(left[0] / left[1])


class _Work:
    """The network's work while classes go.

    Attributes:
        macs: Multiply-adds of one run.
    """

    def __init__(self, groups: Groups) -> None:
        self._macs = [float(work.macs) for work in groups.works]
        self.macs = sum(self._macs)
        self._lengths = [[length for _, length in work.factors] for work in groups.works]
        self._alive = [[float(length) for _, length in work.factors] for work in groups.works]
        self._uses: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for at, work in enumerate(groups.works):
            for factor, (counts, _) in enumerate(work.factors):
                for root, count in counts.items():
                    self._uses[root].append((at, factor, count))

    def saved(self, classes: tuple[int, ...]) -> float:
        """Multiply-adds that go with these classes."""
        touched: dict[int, list[float]] = {}
        for root in classes:
            for at, factor, count in self._uses[root]:
                touched.setdefault(at, list(self._alive[at]))[factor] -= count
        return sum(self._of(at, self._alive[at]) - self._of(at, alive) for at, alive in touched.items())

    def cut(self, classes: tuple[int, ...]) -> None:
        """Let these classes go."""
        self.macs -= self.saved(classes)
        for root in classes:
            for at, factor, count in self._uses[root]:
                self._alive[at][factor] -= count

    def _of(self, at: int, alive: list[float]) -> float:
        return self._macs[at] * math.prod(a / n for a, n in zip(alive, self._lengths[at], strict=True))


def _cuts(groups: Groups, classes: tuple[int, ...]) -> dict[str, dict[str, tuple[int, ...]]]:
    cuts: dict[str, dict[str, list[int]]] = {}
    for root in classes:
        for (name, side), index in groups.places[root]:
            cuts.setdefault(name, {}).setdefault(side, []).append(index)
    return {name: {side: tuple(sorted(at)) for side, at in sides.items()} for name, sides in cuts.items()}


def _shape(groups: Groups, name: str) -> tuple[int, ...]:
    """Lengths of a tensor's axes as far as they are columns; 1 elsewhere."""
    lengths = {int(side): len(roots) for (own, side), roots in groups.columns.items() if own == name}
    return tuple(lengths.get(axis, 1) for axis in range(max(lengths) + 1))


def _kept(groups: Groups, found: list[Family], multiple: int) -> dict[str, str]:
    """Why layers keep all their outgoing channels, by path."""
    whole = {root: family for family in found for root in family.classes if not family.chunks}
    kept = {}
    for name, side in groups.producers:
        roots = [root for root in groups.columns[name, side] if root != NONE]
        if not roots or any(root not in groups.reasons and root not in whole for root in roots):
            continue
        reasons = [groups.reasons[root] for root in roots if root in groups.reasons]
        if reasons:
            kept[name] = str(reasons[0])
        else:
            width = whole[roots[0]].width
            kept[name] = f"its {width} channels leave no smaller multiple of {multiple}"
    return kept
