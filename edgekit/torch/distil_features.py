"""What a student and its teacher compute on the way, matched by the paths of their modules.

The idea is FitNets' (Romero et al. 2015). Where the student lost channels, the teacher's are picked by the
plan that the pruning left; without one, a linear map from the student's channels to the teacher's is learned
beside the student and thrown away with the training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import ModelError, did_you_mean
from edgekit.torch.distil_losses import relative_error, spread

_AUTOMATIC = 6
_ROWS = 1 << 14
_RIDGE = 1e-3

Values = dict[str, Tensor]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Match:
    """One pair of features.

    Attributes:
        path: The module's path, the same in both networks.
        scale: Spread of the teacher's values.
        channels: The teacher's channels that the student has, in its order; empty where it has all.
        adapted: Whether a learned map leads from the student's channels to the teacher's.
    """

    path: str
    scale: float
    channels: tuple[int, ...] = ()
    adapted: bool = False


class Features:
    """Pairs of features, with the maps that some of them need.

    Attributes:
        matches: The pairs.
        maps: By path, float32 [channels of the student, channels of the teacher]; trained with the student.
        notes: What was left out and why.
    """

    def __init__(self, matches: Sequence[Match], maps: Values, notes: Sequence[str]) -> None:
        self.matches = tuple(matches)
        self.maps = maps
        self.notes = tuple(notes)

    def loss(self, student: Values, teacher: Values) -> Tensor:
        """Mean over the pairs of the squared difference against the teacher's spread."""
        total = torch.zeros(())
        for match in self.matches:
            mine, theirs = student[match.path], teacher[match.path]
            if match.channels:
                theirs = theirs[:, list(match.channels)]
            if match.adapted:
                mine = torch.einsum("nc...,ck->nk...", mine, self.maps[match.path])
            total = total + relative_error(mine, theirs, match.scale)
        return total / max(1, len(self.matches))

    @contextlib.contextmanager
    def recorded(self, module: nn.Module) -> Iterator[Values]:
        """Inside, a call of the module leaves its features in the dictionary."""
        with recorded(module, [match.path for match in self.matches]) as values:
            yield values


@contextlib.contextmanager
def recorded(module: nn.Module, paths: Iterable[str]) -> Iterator[Values]:
    """Inside, a call of the module leaves the outputs of these parts in the dictionary, in their order.

    A part that runs several times, or gives something else than one tensor, is left out.
    """
    values: Values = {}
    spoiled: set[str] = set()

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, arguments: Any, result: Any) -> None:
            if path in values or not isinstance(result, Tensor) or not result.is_floating_point():
                spoiled.add(path)
            values.pop(path, None)
            if path not in spoiled:
                values[path] = result

        return hook

    parts = dict(module.named_modules())
    handles = [parts[path].register_forward_hook(keep(path)) for path in paths]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()


def match(
    student: nn.Module,
    teacher: nn.Module,
    call: Callable[[nn.Module], Any],
    wanted: Sequence[str] | None,
    kept: Mapping[str, Sequence[int]],
) -> Features:
    """Pair the features of two networks.

    Args:
        student: The network that is trained.
        teacher: The one it is to become like.
        call: Runs one of them on a sample, without gradients.
        wanted: Paths of modules; ``None`` picks some along the way through the network.
        kept: By path of a layer, the teacher's channels that the student still has, in its order.

    Raises:
        ModelError: A wanted path does not exist.
    """
    shared = _shared(student, teacher, wanted)
    with recorded(teacher, shared) as theirs:
        call(teacher)
    with recorded(student, shared) as mine:
        call(student)
    paths = _along_the_way(teacher, theirs, mine) if wanted is None else list(wanted)
    matches, maps, notes = [], {}, []
    for path in paths:
        if path not in theirs or path not in mine:
            notes.append(f"feature {path} is left out: it wants to run once and give one tensor")
            continue
        pair = _pair(path, mine[path], theirs[path], _channels(path, mine[path], theirs, kept))
        if isinstance(pair, str):
            notes.append(f"feature {path} is left out: {pair}")
            continue
        if pair.adapted:
            maps[path] = _fitted(mine[path], theirs[path])
            notes.append(
                f"feature {path} is compared through a learned map from {mine[path].shape[1]} to "
                f"{theirs[path].shape[1]} channels: no plan says which ones were kept"
            )
        matches.append(pair)
    return Features(matches, maps, notes)


def _shared(student: nn.Module, teacher: nn.Module, wanted: Sequence[str] | None) -> list[str]:
    have = [path for path, _ in teacher.named_modules() if path]
    common = {path for path, _ in student.named_modules()}.intersection(have)
    for path in wanted or ():
        if path not in common:
            near = did_you_mean(path, common)
            raise ModelError(
                f"student and teacher share no module {path!r}",
                where="features",
                hint=f"did you mean {near!r}?" if near else "want a path as named_modules() gives it",
            )
    return [path for path in have if path in common]


def _along_the_way(teacher: nn.Module, theirs: Values, mine: Values) -> list[str]:
    """Some blocks, evenly along the way: those of several layers, single layers where there are too few."""
    parts = dict(teacher.named_modules())
    ran = [path for path in theirs if path in mine and theirs[path].dim() > 2]
    blocks = [path for path in ran if any(True for _ in parts[path].children())]
    if len(blocks) < 2:
        blocks = [path for path in ran if any(True for _ in parts[path].parameters(recurse=False))]
    # Of modules that give the very same tensor the outermost one, which finishes last, stands for all.
    outermost = {theirs[path].data_ptr(): path for path in blocks}
    distinct = [path for path in blocks if outermost[theirs[path].data_ptr()] == path]
    count = min(_AUTOMATIC, len(distinct))
    return [distinct[(2 * index + 1) * len(distinct) // (2 * count)] for index in range(count)]


def _channels(path: str, mine: Tensor, theirs: Values, kept: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The teacher's channels in a module's output, as the last pruned layer inside it has them."""
    if path in kept:
        return tuple(kept[path])
    inside = [name for name in theirs if name.startswith(f"{path}.") and name in kept]
    fitting = [name for name in inside if mine.dim() > 1 and len(kept[name]) == mine.shape[1]]
    return tuple(kept[fitting[-1]]) if fitting else ()


def _pair(path: str, mine: Tensor, theirs: Tensor, channels: tuple[int, ...]) -> Match | str:
    """The pair, or why there is none."""
    if mine.dim() != theirs.dim() or mine.dim() < 2 or mine.shape[2:] != theirs.shape[2:]:
        return f"want one grid, got {list(mine.shape)} of {list(theirs.shape)}"
    scale = spread(theirs)
    if mine.shape[1] == theirs.shape[1]:
        return Match(path, scale)
    if len(channels) == mine.shape[1] and max(channels, default=0) < theirs.shape[1]:
        return Match(path, scale, channels)
    return Match(path, scale, adapted=True)


def _fitted(mine: Tensor, theirs: Tensor) -> Tensor:
    """The linear map that fits one sample best: from another one, the student would first learn the map."""
    rows, wanted = (t.movedim(1, -1).reshape(-1, t.shape[1]).double() for t in (mine, theirs))
    every = -(-len(rows) // _ROWS)
    rows, wanted = rows[::every], wanted[::every]
    gram = rows.T @ rows
    ridge = _RIDGE * max(float(gram.diagonal().mean()), _RIDGE)
    eye = torch.eye(len(gram), dtype=gram.dtype)
    fitted: Tensor = torch.linalg.solve(gram + ridge * eye, rows.T @ wanted)
    return fitted.float().requires_grad_()
