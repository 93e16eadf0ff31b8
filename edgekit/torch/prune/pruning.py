"""Prune a network: trace it, rank its channels, try the cuts, take some."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.cuts import IMPORTANCES, Plan, Ranking
from edgekit.errors import ModelError, UnsupportedError, UsageError, did_you_mean
from edgekit.spec import Array
from edgekit.torch.prune import verify
from edgekit.torch.prune.apply import apply
from edgekit.torch.prune.atoms import Reason
from edgekit.torch.prune.groups import Groups
from edgekit.torch.prune.ranking import families, rank
from edgekit.torch.prune.scores import Scores, score
from edgekit.torch.prune.trace import Trace, trace

# A tensor or an array, several by position, or by name.
Sample = Tensor | Array | Sequence[Tensor | Array] | Mapping[str, Tensor | Array]

_SAMPLES = 16
_ATTEMPTS = 100
_REASONS = 20


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        module: The network, with the weights of what was kept.
        plan: What was kept of the module that was given.
        parameters: Numbers in its parameters, before and after.
        flops: Floating-point operations of one run, before and after.
        kept: Why layers kept all their channels, by path.
    """

    module: nn.Module
    plan: Plan
    parameters: tuple[int, int]
    flops: tuple[int, int]
    kept: dict[str, str]


def prune(
    module: nn.Module,
    samples: Iterable[Sample],
    *,
    share: float = 0.5,
    multiple: int = 8,
    importance: str = "taylor",
    keep: Sequence[str] = (),
) -> Pruned:
    """Cut the least important channels, until a share of the multiply-adds is gone.

    Args:
        module: The network; it is left as it is.
        samples: Its inputs: a tensor or an array, several by position, or by name. The first 16 are used.
        share: How much of the work is to go, 0 … 1. Where no step hits it, a little more goes.
        multiple: Layers keep a multiple of this many channels: the width of the target's vectors.
        importance: ``"taylor"`` on the samples, or ``"l2"`` or ``"l1"`` of the weights.
        keep: Paths of modules whose layers keep all outgoing channels, ``*`` and ``?`` allowed.

    Raises:
        UnsupportedError: Nothing can be cut; the message says why, layer by layer.
        UsageError: An argument out of range, no samples, or no module of that path.
        ModelError: The network fails on the samples.
        UnavailableError: Torch-Pruning is missing.
    """
    if not 0 < share < 1:
        raise UsageError(f"share: want a number between 0 and 1, got {share}")
    first = list(islice(samples, _SAMPLES))
    ranking = analyse(module, first, multiple=multiple, importance=importance, keep=keep)
    made = cut(module, ranking.plan(ranking.count(share)), first[0], exactly=ranking.exact)
    return replace(made, kept=ranking.kept)


def analyse(
    module: nn.Module,
    samples: Iterable[Sample],
    *,
    multiple: int = 8,
    importance: str = "taylor",
    keep: Sequence[str] = (),
) -> Ranking:
    """The order in which channels go. Arguments and errors are those of :func:`prune`."""
    if importance not in IMPORTANCES:
        raise UsageError(f"unknown importance {importance!r}: want one of {', '.join(IMPORTANCES)}")
    first = list(islice(samples, _SAMPLES))
    if not first:
        raise UsageError("pruning wants samples: none given", hint="--calibrate FOLDER")
    if multiple < 1:
        raise UsageError(f"multiple: want 1 or more, got {multiple}")
    working = copy.deepcopy(module).eval().requires_grad_(True)
    runs: list[Callable[[], Any]] = [partial(runner(sample), working) for sample in first]
    found = trace(working, runs[0])
    _keep(working, found, keep)
    scores = score(working, runs, importance)
    ranking = _Trial(verify.awake(module), runner(first[0]), found, scores, importance, multiple).ranking()
    if not ranking.steps:
        lines = [f"  {path}: {why}" for path, why in list(ranking.kept.items())[:_REASONS]]
        raise UnsupportedError(
            "\n".join(["nothing of this network can be pruned:", *lines]),
            where=next(iter(ranking.kept), type(module).__qualname__),
            hint="--multiple 4 or less, where channels are few",
        )
    return ranking


def cut(module: nn.Module, plan: Plan, sample: Sample, *, exactly: bool = False) -> Pruned:
    """Cut a copy of a network to a plan and prove that it runs and became smaller.

    Args:
        module: The network that the plan was made for; it is left as it is.
        plan: What to keep.
        sample: To run it on.
        exactly: Whether it has to give what the whole network gives with the cut channels set to zero.

    Raises:
        ModelError: The plan does not fit, the network does not run, or it gives something else.
    """
    run = runner(sample)
    made = copy.deepcopy(module)
    apply(made, plan, where="plan")
    whole, part = copy.deepcopy(module).eval(), copy.deepcopy(made).eval()
    if (failure := verify.check(whole, plan, run, exactly=exactly)) is not None:
        raise ModelError(f"the pruned network is broken: {failure.text}", where=failure.path)
    sizes = verify.parameters(whole), verify.parameters(part)
    work = verify.flops(whole, run), verify.flops(part, run)
    if plan and (sizes[1] >= sizes[0] or work[1] >= work[0]):
        raise ModelError(f"the plan cuts nothing: {sizes[1]} parameters and {work[1]} operations remain")
    return Pruned(made, plan, sizes, work, {})


def runner(sample: Sample) -> verify.Run:
    """What calls a module on a sample."""
    if isinstance(sample, Mapping):
        by_name = {name: torch.as_tensor(value) for name, value in sample.items()}
        return lambda module: module(**by_name)
    values = [sample] if isinstance(sample, (Tensor, np.ndarray)) else sample
    tensors = [torch.as_tensor(value) for value in values]
    return lambda module: module(*tensors)


def _keep(module: nn.Module, found: Trace, patterns: Sequence[str]) -> None:
    """Fix the outgoing channels of all layers in modules of these paths."""
    paths = [path for path, _ in module.named_modules() if path]
    for pattern in patterns:
        chosen = [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
        if not chosen:
            near = did_you_mean(pattern, paths)
            raise UsageError(
                f"no module {pattern!r} to keep",
                where="--keep",
                hint=f"did you mean {near!r}?" if near else None,
            )
        inside = tuple(f"{path}." for path in chosen)
        for (name, side), roots in Groups(module, found).columns.items():
            if side != "into" and f"{name}.".startswith(inside):
                found.atoms.fix(np.array(roots), Reason("", "you keep it"))


@dataclass(frozen=True)
class _Trial:
    """Tries cuts on a network, and keeps what does not work."""

    module: nn.Module
    run: verify.Run
    found: Trace
    scores: Scores
    importance: str
    multiple: int

    def ranking(self) -> Ranking:
        """A ranking whose cuts work: what the network's own code does not take is kept, with the reason."""
        failure = None
        for _ in range(_ATTEMPTS):
            groups = Groups(self.module, self.found)
            ranking = self._rank(groups)
            failure = self._failure(groups, ranking)
            if failure is None:
                return ranking
            if failure.path is None:
                self._fix_families(groups)
            else:
                self._fix_around(groups, failure.path, failure.text)
        raise UnsupportedError(
            f"the network cannot be pruned: {failure.text if failure else ''}",
            where=failure.path if failure else None,
        )

    def _rank(self, groups: Groups, without: Collection[int] = ()) -> Ranking:
        return rank(groups, self.scores, self.importance, multiple=self.multiple, without=without)

    def _failure(self, groups: Groups, ranking: Ranking) -> verify.Failure | None:
        """What goes wrong with the whole ranking, with half of it, and with what can be compared exactly."""
        steps = len(ranking.steps)
        trials = [(ranking, steps), (ranking, steps // 2)]
        if not ranking.exact:
            exact = self._rank(groups, without=groups.inexact)
            trials.append((exact, len(exact.steps)))
        for one, count in trials:
            if count:
                failure = verify.check(self.module, one.plan(count), self.run, exactly=one.exact)
                if failure is not None:
                    return failure
        return None

    def _fix_around(self, groups: Groups, path: str, text: str) -> None:
        """Keep what the failing module works with: what its code splits, then all, then its parent's."""
        reason = Reason(path, f"its code does not take fewer channels: {text}")
        while True:
            below = [
                ids for name, ids in self.found.used.items() if f"{name}.".startswith(f"{path}." * bool(path))
            ]
            for ids in (
                self.found.findings.split.get(path, []),
                self.found.used.get(path, []),
                list(chain.from_iterable(below)),
            ):
                flat = np.concatenate([np.zeros(0, np.int64), *(part.reshape(-1) for part in ids)])
                roots = set(self.found.atoms.find(flat).tolist())
                if free := [root for root in roots if root in groups.places and root not in groups.reasons]:
                    self.found.atoms.fix(np.array(free), reason)
                    return
            if not path:
                raise UnsupportedError(f"the network cannot be pruned: {text}", where=reason.where)
            path = path.rpartition(".")[0]

    def _fix_families(self, groups: Groups) -> None:
        """Keep every family that changes more than itself, tried one by one; all, where none does alone."""
        found = families(groups, self.scores, self.importance, multiple=self.multiple)
        every = {root for family in found for root in family.classes}
        guilty = []
        for family in found:
            alone = self._rank(groups, without=every - set(family.classes))
            plan = alone.plan(len(alone.steps))
            if plan and verify.check(self.module, plan, self.run, exactly=alone.exact):
                guilty.append(np.array(family.classes))
        reason = Reason("", "cutting it changes more than its own contribution")
        for classes in guilty or [np.array(sorted(every))]:
            self.found.atoms.fix(classes, reason)
