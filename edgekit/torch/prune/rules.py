"""What torch's operators do to labels: the table, and the operators that move elements or work on each alone.

A rule gets a :class:`Call`, couples or fixes atoms, and returns the labels of the result, or of each result.
An operator without a rule fixes everything that goes in: what is not understood is not cut. Those with
weights are in :mod:`edgekit.torch.prune.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from edgekit.torch.prune.atoms import NONE, Atoms, Ids, Reason
from edgekit.torch.prune.labels import Labels, Shape, compact, concatenate, couple, varying, view


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one operator, which shrink with the share of living atoms of each factor."""

    macs: int
    factors: tuple[Ids, ...]


@dataclass
class Findings:
    """What rules note beside the classes.

    Attributes:
        costs: The work of each operator.
        consumed: Atoms that something is computed from.
        inexact: Atoms whose removal changes more than their own contribution: means over channels.
        split: By the module's path, atoms of axes that its code splits with numbers of its own.
    """

    costs: list[Cost] = field(default_factory=list)
    consumed: list[Ids] = field(default_factory=list)
    inexact: list[Ids] = field(default_factory=list)
    split: dict[str, list[Ids]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        name: Such as ``"convolution"``.
        where: Path of the module that calls it.
        given: The arguments by name, with their defaults.
        result: What it returned.
        atoms: To couple and fix.
        findings: To note what else is found.
        labels_of: Labels of a tensor.
    """

    name: str
    where: str
    given: Mapping[str, Any]
    result: Any
    atoms: Atoms
    findings: Findings
    labels_of: Callable[[Tensor], Labels]

    def labels(self, name: str) -> Labels:
        """Labels of an argument that is a tensor."""
        return self.labels_of(self.given[name])

    def optional(self, *names: str) -> list[Labels]:
        """Labels of those arguments that are given."""
        return [self.labels(name) for name in names if isinstance(self.given.get(name), Tensor)]

    @property
    def shape(self) -> Shape:
        """The result's shape, of the first where there are several."""
        return tuple((self.result[0] if isinstance(self.result, (tuple, list)) else self.result).shape)

    @property
    def meets(self) -> Reason:
        """The usual reason to stay: an element is combined with one that does not vanish with it."""
        return self.because("meets a tensor that keeps its size")

    def because(self, text: str) -> Reason:
        """Why something must stay, said about this call."""
        return Reason(self.where, f"{self.name} {text}")

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        found: list[Tensor] = []
        for value in self.given.values():
            items = value if isinstance(value, (list, tuple)) else [value]
            found += [item for item in items if isinstance(item, Tensor)]
        return found

    def moved(self, label: Labels, move: Callable[[Ids], Ids]) -> Labels:
        """Labels of the result where ``move`` does to each part what the operator did to the tensor."""
        return compact([move(part) for part in label.parts], self.shape, self.atoms)

    def channels(self, ids: Ids, axis: int = 1) -> Labels:
        """Labels of a result that vary along one axis."""
        part = ids.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return compact([part], self.shape, self.atoms)

    def note_split(self, ids: Ids) -> None:
        """Remember atoms whose axis is split here."""
        self.findings.split.setdefault(self.where, []).append(ids.reshape(-1))


Rule = Callable[[Call], "Labels | Sequence[Labels]"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function into the table under these operators' names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def unknown(call: Call) -> Labels:
    """For an operator without a rule."""
    for tensor in call.tensors():
        call.atoms.fix(call.labels_of(tensor).ids, call.because("is an operator that is not understood"))
    return Labels(())


@rule("_prelu_kernel", "where", "masked_fill", "masked_fill_", "copy_", "_to_copy", "lerp", "native_dropout")
def pointwise(call: Call) -> Labels | list[Labels]:
    """Element by element; also for every operator that torch tags so."""
    found = couple([call.labels_of(tensor) for tensor in call.tensors()], call.atoms, call.meets)
    return [found] * len(call.result) if isinstance(call.result, (tuple, list)) else found


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "fill_", "zero_")
@rule("alias", "detach", "lift_fresh", "bernoulli", "bernoulli_", "clone")
def _same(call: Call) -> Labels:
    return call.labels_of(call.tensors()[0])


@rule("empty", "zeros", "ones", "full", "arange", "scalar_tensor", "linspace", "rand", "randn", "eye")
@rule("new_zeros", "new_ones", "new_full", "new_empty", "_local_scalar_dense")
def _constant(call: Call) -> Labels:
    """A tensor whose size stands in the module's code, or a number for it."""
    return Labels(())


@rule("permute")
def _permute(call: Call) -> Labels:
    order = [axis % len(call.shape) for axis in call.given["dims"]]
    return call.moved(call.labels("self"), lambda part: part.transpose(order))


@rule("transpose", "transpose_")
def _transpose(call: Call) -> Labels:
    axes = call.given["dim0"], call.given["dim1"]
    return call.moved(call.labels("self"), lambda part: np.swapaxes(part, *axes))


@rule("t")
def _t(call: Call) -> Labels:
    return call.moved(call.labels("self"), lambda part: part.T)


@rule("view", "_unsafe_view", "_reshape_alias", "reshape", "squeeze", "squeeze_", "unsqueeze", "unsqueeze_")
def _view(call: Call) -> Labels:
    found, split = view(call.labels("self"), call.shape, call.atoms, call.meets)
    for ids in split:
        call.note_split(ids)
    return found


@rule("expand")
def _expand(call: Call) -> Labels:
    label = call.labels("self")
    missing = (1,) * (len(call.shape) - len(label.shape))
    # Nothing varies along an axis that is made longer.
    return call.moved(label, lambda part: part.reshape(missing + part.shape))


@rule("repeat")
def _repeat(call: Call) -> Labels:
    label, times = call.labels("self"), call.given["repeats"]
    missing = (1,) * (len(times) - len(label.shape))

    def repeat(part: Ids) -> Ids:
        part = part.reshape(missing + part.shape)
        return np.tile(part, [n if part.shape[axis] > 1 else 1 for axis, n in enumerate(times)])

    return call.moved(label, repeat)


@rule("slice")
def _slice(call: Call) -> Labels:
    label = call.labels("self")
    axis, length = call.given["dim"] % len(label.shape), label.shape[call.given["dim"]]
    cut = slice(call.given["start"], call.given["end"], call.given["step"])
    if cut.indices(length) != (0, length, 1):
        _fix_along(call, label, {axis})
    return call.moved(label, lambda part: _taken(part, axis, cut))


@rule("select")
def _select(call: Call) -> Labels:
    label = call.labels("self")
    axis = call.given["dim"] % len(label.shape)
    _fix_along(call, label, {axis})
    at = call.given["index"]
    return call.moved(label, lambda part: _picked(part, axis, at))


def _fix_along(call: Call, label: Labels, axes: set[int]) -> None:
    """Keep what varies along these axes: the code counts along them with numbers of its own."""
    for part in label.parts:
        if varying(part) & axes:
            call.atoms.fix(part, call.because("counts the channels with numbers of its own"))


def _picked(part: Ids, axis: int, at: int) -> Ids:
    return np.asarray(part.take(at if part.shape[axis] > 1 else 0, axis))


def _taken(part: Ids, axis: int, cut: slice) -> Ids:
    return part[(slice(None),) * axis + (cut,)] if part.shape[axis] > 1 else part


@rule("split", "split_with_sizes", "unbind")
def _split(call: Call) -> list[Labels]:
    """Equal pieces shrink alike; of unequal ones nobody knows what the code would do."""
    label = call.labels("self")
    axis = call.given["dim"] % len(label.shape)
    if call.name == "unbind":
        _fix_along(call, label, {axis})
        parts = [[_picked(p, axis, at) for p in label.parts] for at in range(len(call.result))]
        return [compact(found, call.shape, call.atoms) for found in parts]
    lengths = [piece.shape[axis] for piece in call.result]
    if len(set(lengths)) > 1:
        _fix_along(call, label, {axis})
    elif len(lengths) > 1:
        for part in label.parts:
            if part.shape[axis] > 1:
                call.note_split(part)
                pieces = np.moveaxis(part, axis, -1).reshape(-1, len(lengths), lengths[0])
                call.atoms.merge(np.swapaxes(pieces, 1, 2), call.meets)
    ends = np.cumsum(lengths).tolist()
    cuts = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    return [
        compact([_taken(p, axis, cut) for p in label.parts], tuple(piece.shape), call.atoms)
        for cut, piece in zip(cuts, call.result, strict=True)
    ]


@rule("cat")
def _cat(call: Call) -> Labels:
    labels = [call.labels_of(tensor) for tensor in call.given["tensors"] if tensor.numel()]
    return concatenate(labels, call.given["dim"] % len(call.shape), call.shape, call.atoms, call.meets)


@rule("stack")
def _stack(call: Call) -> Labels:
    axis = call.given["dim"] % len(call.shape)
    shape = (*call.shape[:axis], 1, *call.shape[axis + 1 :])
    labels = [
        compact([np.expand_dims(p, axis) for p in call.labels_of(tensor).parts], shape, call.atoms)
        for tensor in call.given["tensors"]
    ]
    return concatenate(labels, axis, call.shape, call.atoms, call.meets)


@rule("roll", "flip")
def _shuffled(call: Call) -> Labels:
    """Elements change places along some axes."""
    label = call.labels("self")
    _fix_along(call, label, {axis % len(call.shape) for axis in call.given["dims"]})
    return label


@rule("constant_pad_nd")
def _pad(call: Call) -> Labels:
    pad = call.given["pad"]
    if min(pad) < 0:
        return unknown(call)
    widths = [(0, 0)] * (len(call.shape) - len(pad) // 2)
    widths += [(pad[at], pad[at + 1]) for at in range(len(pad) - 2, -1, -2)]

    def extend(part: Ids) -> Ids:
        around = [width if part.shape[axis] > 1 else (0, 0) for axis, width in enumerate(widths)]
        return np.pad(part, around, constant_values=NONE)

    return call.moved(call.labels("self"), extend)


@rule("_softmax", "_log_softmax")
def _softmax(call: Call) -> Labels:
    label = call.labels("self")
    for part in label.parts:
        if part.shape[call.given["dim"]] > 1:
            call.atoms.fix(part, call.because("spans the channels"))
    return label


@rule("mean", "sum", "amax", "amin", "var", "var_mean", "std", "linalg_vector_norm", "prod")
def _reduce(call: Call) -> Labels | list[Labels]:
    """Of what the reduced axes hold nothing is left; the mean over channels is one over fewer then."""
    label = call.labels("self")
    rank = len(label.shape)
    dims = call.given.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(rank)
    over = {axis % rank for axis in dims}
    kept = []
    for part in label.parts:
        if not varying(part) & over:
            kept.append(part if len(call.shape) == rank else part.squeeze(tuple(over)))
            continue
        call.findings.inexact.append(part)
        call.findings.consumed.append(part)
        if varying(part) - over:
            call.atoms.fix(part, call.because("spans the channels"))
    found = compact(kept, call.shape, call.atoms)
    return [found] * len(call.result) if isinstance(call.result, (tuple, list)) else found
