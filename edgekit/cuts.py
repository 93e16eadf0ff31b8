"""What pruning cuts from a network, as data: a plan says what is kept, a ranking in which order things go.

    {"format": 1, "layers": {"encoder.0": {"kind": "convolution", "out": {"of": 32, "kept": [0, 3, …]}, …}}}

A plan stands in the metadata of the .safetensors file with the pruned weights, and is applied to the network
that the factory makes before they are loaded (:mod:`edgekit.torch.prune.apply`). Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from edgekit import schema
from edgekit.errors import ModelError

FORMAT = 1
_LARGEST_TEXT = 32 << 20
_LARGEST_LENGTH = 1 << 20
_MOST_ENTRIES = 100_000

# What tells how important a channel is.
IMPORTANCES = ("taylor", "l2", "l1")

Kind = Literal["convolution", "transposed convolution", "linear", "norm", "embedding"]


@dataclass(frozen=True)
class Kept:
    """Which indices of an axis are kept.

    Attributes:
        of: Length of the axis before.
        kept: The indices, in ascending order.
    """

    of: int
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.of <= _LARGEST_LENGTH:
            raise ModelError(f"want a length from 1 to {_LARGEST_LENGTH}, got {self.of}")
        if not self.kept or self.kept[0] < 0 or self.kept[-1] >= self.of:
            raise ModelError(f"want some indices from 0 to {self.of - 1}")
        if any(later <= earlier for earlier, later in zip(self.kept, self.kept[1:], strict=False)):
            raise ModelError("want indices in ascending order, each once")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut."""
        return len(self.kept) == self.of

    def then(self, later: Kept) -> Kept:
        """The two cuts one after the other."""
        if later.of != len(self.kept):
            raise ModelError(f"a later plan is for length {later.of}, this one leaves {len(self.kept)}")
        return Kept(self.of, tuple(self.kept[index] for index in later.kept))


@dataclass(frozen=True)
class Layer:
    """What one layer keeps.

    Attributes:
        kind: What it has to be.
        out: Of its outgoing channels; for a norm, of its channels.
        into: Of its incoming channels, of one group where a convolution has several.
        groups: Groups of a convolution or a group norm afterwards, where their number changes.
    """

    kind: Kind
    out: Kept | None = None
    into: Kept | None = None
    groups: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a network keeps.

    Attributes:
        layers: By path of the module.
        tensors: Of parameters and buffers that belong to no such layer, by name: their axes by number.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    tensors: dict[str, dict[str, Kept]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.layers) + len(self.tensors) > _MOST_ENTRIES:
            raise ModelError(f"want at most {_MOST_ENTRIES} layers and tensors")

    def __bool__(self) -> bool:
        return bool(self.layers or self.tensors)

    def then(self, later: Plan) -> Plan:
        """One plan for two that follow each other.

        Raises:
            ModelError: The later one is not for what this one leaves.
        """
        layers = dict(self.layers)
        for path, layer in later.layers.items():
            layers[path] = _join_layers(layers[path], layer, path) if path in layers else layer
        tensors = dict(self.tensors)
        for name, axes in later.tensors.items():
            tensors[name] = _join_axes(tensors.get(name, {}), axes, name)
        return Plan(layers, tensors)

    def encode(self) -> str:
        """The plan as text."""
        return json.dumps({"format": FORMAT, **schema.encode(self)}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str, *, where: str) -> Plan:
        """Read a plan.

        Args:
            text: From a file that may come from anywhere.
            where: Its name, for messages.

        Raises:
            ModelError: Too large, not JSON, of another format, or not a plan.
        """
        if len(text) > _LARGEST_TEXT:
            raise ModelError(
                f"the pruning plan is too large: want at most {_LARGEST_TEXT} characters, got {len(text)}",
                where=where,
            )
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelError("the pruning plan is not JSON", where=where) from None
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, Mapping) else None
            raise ModelError(
                f"a pruning plan of another format: want {FORMAT}, got {str(found)[:40]}",
                where=where,
                hint="prune again with this version",
            )
        rest = {key: value for key, value in data.items() if key != "format"}
        return schema.decode(cls, rest, error=ModelError, where=f"{where}: pruning plan")


@dataclass(frozen=True)
class Sides:
    """How a layer looks before anything is cut.

    Attributes:
        kind: What it is.
        out: Outgoing channels as a plan counts them, 0 where none can be cut.
        into: Incoming channels likewise.
        group: Channels of one group, where groups go as a whole; 0 where there are none such.
    """

    kind: Kind
    out: int
    into: int = 0
    group: int = 0


@dataclass(frozen=True)
class Step:
    """The next cut.

    Attributes:
        macs: Multiply-adds of the network after it.
        cuts: Indices to cut, by path of a layer or name of a tensor, then by ``"out"``, ``"into"`` or the
            number of the axis.
    """

    macs: int
    cuts: dict[str, dict[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Ranking:
    """In which order channels go, the least important first.

    Attributes:
        macs: Multiply-adds of one run before any cut.
        layers: The layers that steps cut, by path.
        tensors: The shapes of the other tensors that they cut, by name.
        steps: The cuts, in order.
        kept: Why layers are kept as they are, by path.
        exact: Whether the network without the channels gives what the whole one gives with the channels set
            to zero: no statistic that is cut spans channels.
    """

    macs: int
    layers: dict[str, Sides]
    tensors: dict[str, tuple[int, ...]]
    steps: tuple[Step, ...]
    kept: dict[str, str] = field(default_factory=dict)
    exact: bool = True

    def count(self, share: float) -> int:
        """How many steps take this share of the work away, 0 … 1; all of them where that is not enough."""
        for index, step in enumerate(self.steps):
            if step.macs <= (1 - share) * self.macs:
                return index + 1
        return len(self.steps)

    def share(self, count: int) -> float:
        """The share of the work that the first steps take away."""
        return 1 - self.steps[count - 1].macs / self.macs if count else 0.0

    def plan(self, count: int) -> Plan:
        """What the network keeps after the first ``count`` steps."""
        gone: dict[str, dict[str, set[int]]] = {}
        for step in self.steps[:count]:
            for name, sides in step.cuts.items():
                for side, indices in sides.items():
                    gone.setdefault(name, {}).setdefault(side, set()).update(indices)
        layers, tensors = {}, {}
        for name, cuts in sorted(gone.items()):
            if name in self.layers:
                layers[name] = _layer(self.layers[name], cuts)
            else:
                shape = self.tensors[name]
                tensors[name] = {axis: _rest(shape[int(axis)], cut) for axis, cut in sorted(cuts.items())}
        return Plan(layers, tensors)


def _layer(whole: Sides, cuts: Mapping[str, set[int]]) -> Layer:
    out = _rest(whole.out, cuts["out"]) if "out" in cuts else None
    into = _rest(whole.into, cuts["into"]) if "into" in cuts else None
    groups = None
    if whole.group:
        kept = out if out is not None else into
        groups = len(kept.kept) // whole.group if kept is not None else None
    return Layer(whole.kind, out, into, groups)


def _rest(length: int, cut: set[int]) -> Kept:
    return Kept(length, tuple(index for index in range(length) if index not in cut))


def _join_layers(first: Layer, later: Layer, path: str) -> Layer:
    if first.kind != later.kind:
        raise ModelError(f"{path} is a {first.kind} in one plan and a {later.kind} in the next", where=path)
    axes = _join_axes(_axes(first), _axes(later), path)
    return replace(
        first,
        out=axes.get("out"),
        into=axes.get("into"),
        groups=first.groups if later.groups is None else later.groups,
    )


def _axes(layer: Layer) -> dict[str, Kept]:
    both = {"out": layer.out, "into": layer.into}
    return {name: kept for name, kept in both.items() if kept is not None}


def _join_axes(first: Mapping[str, Kept], later: Mapping[str, Kept], where: str) -> dict[str, Kept]:
    joined = dict(first)
    for axis, kept in later.items():
        try:
            joined[axis] = joined[axis].then(kept) if axis in joined else kept
        except ModelError as error:
            raise ModelError(error.message, where=where) from None
    return joined
