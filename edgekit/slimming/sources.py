"""Where a network to prune comes from: a factory, that child processes call, or a module of this process."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgekit import atomic, isolation, runtime, schema, steps
from edgekit.cuts import Plan, Ranking
from edgekit.dataset import Dataset
from edgekit.errors import ModelError, SpecError, UsageError
from edgekit.front import Front
from edgekit.graph import weights as weights_file
from edgekit.graph.load import Loaded, load
from edgekit.isolation import Limits, Request
from edgekit.registry import resolve
from edgekit.spec import Array, Step, TensorSpec

if TYPE_CHECKING:
    import torch

METADATA_KEY = "edgekit.prune"
"""Under this key a file of pruned weights says in its metadata how they were chosen, as JSON."""

_PRUNED = "pruned.safetensors"


@dataclass(frozen=True)
class Rules:
    """How channels are ranked.

    Attributes:
        importance: ``"taylor"``, ``"l2"`` or ``"l1"``.
        multiple: Layers keep a multiple of this many channels.
        keep: Paths of modules that keep their channels.
    """

    importance: str = "taylor"
    multiple: int = 8
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """What a cut did: numbers in the parameters and floating-point operations, before and after."""

    parameters: tuple[int, int]
    flops: tuple[int, int]


class Cut(Protocol):
    """A network that was cut."""

    sizes: Sizes

    def load(self) -> Loaded:
        """The network as a graph."""

    def save(self, path: Path, *, force: bool) -> None:
        """Write its weights and its plan."""


class Source(Protocol):
    """A network to prune, with its samples."""

    notes: tuple[str, ...]

    def rank(self, rules: Rules) -> Ranking:
        """The order in which channels go. To be asked first."""

    def load(self) -> Loaded:
        """The whole network as a graph."""

    def cut(self, ranking: Ranking, count: int) -> Cut:
        """The network after the first steps of the ranking, proved to work."""


class Module:
    """A module of this process.

    Args:
        module: It is left as it is.
        samples: Its inputs: a tensor, several by position, or by name.
    """

    def __init__(self, module: torch.nn.Module, samples: Iterable[Any], limit: int) -> None:
        self.module = module
        if isinstance(samples, str):
            raise UsageError("a module is calibrated on its inputs, not on files", where="calibrate")
        self.samples = [self._named(sample) for sample in itertools.islice(samples, limit)]
        self.notes: tuple[str, ...] = ()

    def _named(self, sample: Any) -> dict[str, Any]:
        if isinstance(sample, Mapping):
            return dict(sample)
        values = list(sample) if isinstance(sample, (list, tuple)) else [sample]
        names = resolve("edgekit.torch.calls:input_names")(self.module, [])
        if len(names) < len(values):
            raise UsageError(f"a sample has {len(values)} inputs, the module {len(names)}", where="calibrate")
        return dict(zip(names, values, strict=False))

    def rank(self, rules: Rules) -> Ranking:
        """The order in which channels go."""
        ranking: Ranking = resolve("edgekit.torch.prune:analyse")(
            self.module,
            self.samples,
            multiple=rules.multiple,
            importance=rules.importance,
            keep=rules.keep,
        )
        return ranking

    def load(self) -> Loaded:
        """The whole network as a graph."""
        return self.graph_of(self.module)

    def cut(self, ranking: Ranking, count: int) -> ModuleCut:
        """The network after the first steps of the ranking."""
        pruned = resolve("edgekit.torch.prune:cut")(
            self.module, ranking.plan(count), self.samples[0], exactly=ranking.exact
        )
        return ModuleCut(self, pruned.module, pruned.plan, Sizes(pruned.parameters, pruned.flops))

    def graph_of(self, module: torch.nn.Module) -> Loaded:
        """A module of the same inputs as a graph."""
        feeds = {name: np.asarray(value) for name, value in self.samples[0].items()}
        return load(module, shapes=_shapes(feeds), samples=feeds)


@dataclass
class ModuleCut:
    """A module that was cut."""

    whole: Module
    module: Any
    plan: Plan
    sizes: Sizes

    def load(self) -> Loaded:
        """The network as a graph."""
        return self.whole.graph_of(self.module)

    def save(self, path: Path, *, force: bool) -> None:
        """Write its weights and its plan."""
        resolve("edgekit.torch.prune:save")(self.module, self.plan, path, force=force)


@dataclass(frozen=True)
class Data:
    """Which images a factory's network is ranked on.

    Attributes:
        texts: ``[NAME=]FOLDER``, ``FILE`` or ``GLOB``.
        before: Steps before the network.
        limit: Most images of each input.
        patches: Samples to take of an image that is larger than the contract.
        seed: Another one takes other patches.
    """

    texts: tuple[str, ...]
    before: tuple[Step, ...] = ()
    limit: int = 16
    patches: int = 1
    seed: int = 0


@dataclass(frozen=True)
class _Task:
    """What a child is to do with a factory's network."""

    source: str
    weights: str
    shapes: dict[str, str]
    rules: Rules = Rules()
    data: Data | None = None
    plan: str = ""
    exactly: bool = False
    story: dict[str, Any] = field(default_factory=dict)


class Factory:
    """``"package.module:function"`` with a file of weights; all that needs torch runs in child processes.

    Args:
        source: The factory.
        weights: ``.safetensors`` or ``.pt``.
        shapes: Shape of each input.
        data: The images.
        child: Limits of each child.
        folder: For files that go from one child to another.
    """

    def __init__(
        self, source: str, weights: Path, shapes: Mapping[str, str], data: Data, child: Limits, folder: Path
    ) -> None:
        weights_file.check(weights)
        self.weights, self.child, self.folder, self._data = weights, child, folder, data
        self.task = _Task(source, str(weights.absolute()), dict(shapes))
        self.sample: dict[str, Array] = {}
        self.notes: tuple[str, ...] = ()
        self._story: dict[str, Any] = {}

    def rank(self, rules: Rules) -> Ranking:
        """The order in which channels go; the first sample is kept for what follows."""
        outcome = self._ask("rank", replace(self.task, rules=rules, data=self._data))
        self.sample = outcome.arrays
        self.notes = tuple(outcome.value["notes"])
        self._story = {"rules": schema.encode(rules), "samples": outcome.value["samples"]}
        return schema.decode(Ranking, outcome.value["ranking"], error=ModelError, where="ranking")

    def load(self) -> Loaded:
        """The whole network as a graph."""
        return self.graph_of(self.weights)

    def cut(self, ranking: Ranking, count: int) -> FactoryCut:
        """The network after the first steps of the ranking, in a file of the folder."""
        story = {**self._story, "share": round(ranking.share(count), 4)}
        plan = ranking.plan(count).encode()
        outcome = self._ask("cut", replace(self.task, plan=plan, exactly=ranking.exact, story=story))
        file = self.folder / f"{count}-{_PRUNED}"
        file.write_bytes(outcome.files[_PRUNED])
        return FactoryCut(self, file, schema.decode(Sizes, outcome.value, error=ModelError, where="cut"))

    def graph_of(self, weights: Path) -> Loaded:
        """The network with the weights of a file as a graph."""
        return load(
            self.task.source,
            shapes=_shapes(self.sample),
            weights=weights,
            samples=self.sample,
            time_limit_s=self.child.time_s,
        )

    def _ask(self, what: str, task: _Task) -> isolation.Outcome:
        return isolation.run(
            f"edgekit.slimming.sources:{what}_job",
            schema.encode(task),
            arrays=self.sample,
            limits=self.child,
            what=f"pruning {task.source}",
            error=ModelError,
        )


@dataclass
class FactoryCut:
    """A factory's network that was cut, in a file."""

    whole: Factory
    file: Path
    sizes: Sizes

    def load(self) -> Loaded:
        """The network as a graph."""
        return self.whole.graph_of(self.file)

    def save(self, path: Path, *, force: bool) -> None:
        """Write its weights and its plan."""
        atomic.write(path, self.file.read_bytes(), force=force)


def _shapes(feeds: Mapping[str, Array]) -> dict[str, str]:
    return {name: "x".join(map(str, array.shape)) for name, array in feeds.items()}


# --- in the child -----------------------------------------------------------------------------------------


def rank_job(request: Request) -> tuple[Any, dict[str, Array]]:
    """In the child: load the network, read the images, rank the channels."""
    from edgekit.torch import calls, prune

    task = schema.decode(_Task, request.arguments, error=ModelError, where="task")
    assert task.data is not None
    module, notes = _module(task)
    feeds = _Feeds(task.data, calls.input_specs(module, task.shapes, {}, task.source))
    samples = list(feeds)
    ranking = prune.analyse(
        module,
        samples,
        multiple=task.rules.multiple,
        importance=task.rules.importance,
        keep=task.rules.keep,
    )
    record = feeds.dataset.record
    value = {"ranking": schema.encode(ranking), "notes": notes + list(record.notes)}
    return {**value, "samples": schema.encode(record)}, samples[0]


def cut_job(request: Request) -> tuple[Any, dict[str, Array]]:
    """In the child: load the network, cut it, write its weights."""
    from edgekit.torch import prune

    task = schema.decode(_Task, request.arguments, error=ModelError, where="task")
    module, _ = _module(task)
    plan = Plan.decode(task.plan, where="plan")
    pruned = prune.cut(module, plan, request.arrays, exactly=task.exactly)
    earlier = prune.read_plan(task.weights)
    prune.save(
        pruned.module,
        earlier.then(plan) if earlier is not None else plan,
        request.out / _PRUNED,
        metadata={METADATA_KEY: json.dumps(task.story)},
    )
    return schema.encode(Sizes(pruned.parameters, pruned.flops)), {}


def _module(task: _Task) -> tuple[Any, list[str]]:
    from edgekit.torch.source import call_factory, load_weights

    # A user's module lies where the command was typed.
    sys.path.insert(0, str(Path.cwd()))
    module = call_factory(task.source)
    return module, load_weights(module, Path(task.weights))


class _Feeds:
    """Samples as the network gets them: what the steps make of the images."""

    def __init__(self, data: Data, specs: Sequence[TensorSpec]) -> None:
        self._names = [spec.name for spec in specs]
        self._steps = Front(data.before).named(self._names).steps
        made = steps.infer(self._steps, {spec.name: spec for spec in specs}, in_place=True)
        for spec in specs:
            if (made[spec.name].dtype, made[spec.name].dims) != (spec.dtype, spec.dims):
                raise SpecError(
                    f"the network wants {spec}, the steps before it make {made[spec.name]}", where="before"
                )
        self.dataset = Dataset.open(data.texts, specs, limit=data.limit, patches=data.patches, seed=data.seed)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for sample in self.dataset:
            made = runtime.run_steps(self._steps, sample.feeds)
            yield {name: made[name] for name in self._names}
