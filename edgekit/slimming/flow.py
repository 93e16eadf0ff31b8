"""The flow: rank the channels, then cut, compile and measure until the network is fast enough."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import atomic, machine
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.cuts import IMPORTANCES, Plan, Ranking
from edgekit.errors import GateError, UnavailableError, UsageError
from edgekit.front import Front
from edgekit.isolation import Limits
from edgekit.slimming import search
from edgekit.slimming.bench import Bench, Race
from edgekit.slimming.sources import Cut, Data, Factory, Module, Rules, Sizes, Source
from edgekit.spec import Step
from edgekit.target import Target

if TYPE_CHECKING:
    import torch

_REASONS = 10


@dataclass(frozen=True)
class Trial:
    """One cut that was measured.

    Attributes:
        share: Share of the multiply-adds that it takes away.
        speedup: How many times faster it is than the original, each on its best backend.
        seconds: Its median latency.
        backend: Its best backend.
        sizes: Parameters and floating-point operations, before and after.
    """

    share: float
    speedup: float
    seconds: float
    backend: str
    sizes: Sizes


@dataclass(frozen=True)
class Slimmed:
    """What :func:`prune` made.

    Attributes:
        plan: What is kept of the network that was given.
        chosen: The smallest cut that was fast enough.
        trials: All cuts that were measured, in order.
        wanted: The speed-up that was wanted.
        original_s: Median latency of the original, measured beside the chosen cut.
        original_backend: Its best backend.
        kept: Why layers keep all their channels, by path.
        notes: What a user wants to know.
        module: The pruned module, where one was given.
    """

    plan: Plan
    chosen: Trial
    trials: tuple[Trial, ...]
    wanted: float
    original_s: float
    original_backend: str
    kept: dict[str, str]
    notes: tuple[str, ...] = ()
    module: Any = None


def prune(
    source: str | torch.nn.Module,
    calibrate: Sequence[str] | Iterable[Any],
    *,
    target: str | Target = "cpu",
    speedup: float = 1.8,
    weights: str | Path | None = None,
    shapes: Mapping[str, str] | None = None,
    before: Step | str | Sequence[Step | str] = (),
    importance: str = "taylor",
    multiple: int = 8,
    keep: Sequence[str] = (),
    backend: str = "auto",
    attempts: int = 6,
    limit: int = 16,
    patches: int = 1,
    seed: int = 0,
    threads: int = 0,
    output: str | Path | None = None,
    force: bool = False,
    time_limit_s: float = 900.0,
    memory_limit_bytes: int = 16 << 30,
    on_event: Callable[[str], None] = lambda event: None,
) -> Slimmed:
    """Cut the least important channels until the network is as much faster as wanted.

    The channels are ranked once. Then a network is cut, compiled with the target's backends and timed beside
    the original, until the smallest cut is found that is fast enough. Speed is that of the network on a
    calibration sample; steps before it are not part of it.

    Args:
        source: ``"package.module:function"`` that returns a ``torch.nn.Module``, or such a module.
        calibrate: For a factory, images as ``[NAME=]FOLDER``, ``FILE`` or ``GLOB``; for a module its inputs:
            a tensor, several by position, or by name.
        target: Name or alias of a target, path of a target file, or a target.
        speedup: How many times faster it is to be, measured against the original's best backend.
        weights: ``.safetensors`` or ``.pt`` file for a factory.
        shapes: Shape of each input of a factory, as ``{"ct": "1x1x[32:128:16]x96"}``.
        before: Steps that make the network's inputs of a factory's images, as for :func:`edgekit.compile`.
        importance: ``"taylor"`` on the samples, or ``"l2"`` or ``"l1"`` of the weights.
        multiple: Layers keep a multiple of this many channels: the width of the target's vectors.
        keep: Paths of modules whose layers keep all outgoing channels, ``*`` and ``?`` allowed.
        backend: ``"auto"`` for all that the target lists.
        attempts: Most cuts to compile and measure.
        limit: Most images of each input, and samples of a module.
        patches: Samples to take of an image that is larger than the contract.
        seed: Another one takes other patches.
        threads: Threads to measure with; 0 for the target's own number.
        output: The ``.safetensors`` file to write: pruned weights with their plan.
        force: Replace an existing file.
        time_limit_s: For each child process.
        memory_limit_bytes: Likewise.
        on_event: Called with one line at the beginning of each phase.

    Raises:
        UnsupportedError: Nothing can be cut; the message says why, layer by layer.
        GateError: No cut is fast enough.
        EdgekitError: See :mod:`edgekit.errors`.
    """
    device = target if isinstance(target, Target) else targets.find(target)
    names = _backends(device, backend)
    _check(speedup, importance, attempts)
    file = _writable(output, force)
    child = Limits(time_limit_s, memory_limit_bytes)
    with tempfile.TemporaryDirectory(prefix="edgekit-prune-") as folder:
        if isinstance(source, str):
            data = Data(_texts(calibrate), _steps(before), limit, patches, seed)
            network: Source = Factory(source, _given(weights), shapes or {}, data, child, Path(folder))
        else:
            _only_for_factories(weights=weights, shapes=shapes, before=before)
            network = Module(source, calibrate, limit)
        hunt = _Hunt(network, speedup, on_event)
        hunt.rank(Rules(importance, multiple, tuple(keep)))
        on_event("load the original")
        hunt.bench = Bench(network.load(), device, names, threads=threads, child=child, on_event=on_event)
        found = hunt.run(attempts)
        if file is not None:
            on_event(f"write {file}")
            hunt.cuts[hunt.best].save(file, force=force)
    if device.arch != machine.record().arch:
        found = replace(found, notes=(*found.notes, f"measured on this machine, not on {device.title}"))
    return found


class _Hunt:
    """The search with all that it found: cuts and races by number of steps."""

    bench: Bench
    ranking: Ranking

    def __init__(self, network: Source, wanted: float, on_event: Callable[[str], None]) -> None:
        self.network, self.wanted, self._on_event = network, wanted, on_event
        self.cuts: dict[int, Cut] = {}
        self.races: dict[int, Race] = {}
        self.best = 0

    def rank(self, rules: Rules) -> None:
        """Rank the channels."""
        self._on_event("rank the channels")
        self.ranking = self.network.rank(rules)

    def run(self, attempts: int) -> Slimmed:
        """Measure cuts; the smallest one that is fast enough is chosen.

        Raises:
            GateError: There is none.
        """
        points = search.search(self._measure, self.ranking, self.wanted, attempts=attempts)
        chosen = search.best(points, self.wanted)
        if chosen is None:
            raise self._too_slow(points)
        self.best = chosen.count
        race = self.races[chosen.count]
        return Slimmed(
            plan=self.ranking.plan(chosen.count),
            chosen=self._trial(chosen.count),
            trials=tuple(self._trial(point.count) for point in points),
            wanted=self.wanted,
            original_s=race.original_s,
            original_backend=self.bench.backend,
            kept=self.ranking.kept,
            notes=self.network.notes,
            module=getattr(self.cuts[chosen.count], "module", None),
        )

    def _measure(self, count: int) -> float:
        share = self.ranking.share(count)
        self._on_event(f"cut {share:.0%} of the work")
        self.cuts[count] = self.network.cut(self.ranking, count)
        self.races[count] = self.bench.race(self.cuts[count].load())
        self._on_event(f"{self.races[count].speedup:.2f} times faster without {share:.0%} of the work")
        return self.races[count].speedup

    def _trial(self, count: int) -> Trial:
        race = self.races[count]
        sizes = self.cuts[count].sizes
        return Trial(self.ranking.share(count), race.speedup, race.pruned_s, race.backend, sizes)

    def _too_slow(self, points: Sequence[search.Point]) -> GateError:
        fastest = max(points, key=lambda point: point.speedup)
        lines = [f"  {path}: {why}" for path, why in list(self.ranking.kept.items())[:_REASONS]]
        return GateError(
            "\n".join(
                [
                    f"no cut is {self.wanted:g} times faster: the best is {fastest.speedup:.2f} times, "
                    f"without {self.ranking.share(fastest.count):.0%} of the work; layers that stay whole:",
                    *lines,
                ]
            ),
            where=", ".join(sorted({race.backend for race in self.races.values()})),
            hint=f"--speedup {max(1.05, int(fastest.speedup * 20) / 20):g}, or a smaller --multiple",
        )


def _backends(device: Target, backend: str) -> list[str]:
    """The backends to try."""
    if backend != "auto":
        BACKENDS[backend]  # refuses an unknown name, with the nearest
        return [backend]
    names = [name for name in device.backends if name in BACKENDS and name != "reference"]
    if not names:
        raise UnavailableError(
            f"this release cannot compile for {device.title} yet: it needs {', '.join(device.backends)}",
            where=f"target {device.name}",
            hint="--target cpu measures on this machine",
        )
    return names


def _check(speedup: float, importance: str, attempts: int) -> None:
    if not speedup > 1:
        raise UsageError(f"want a speed-up larger than 1, got {speedup:g}", where="--speedup")
    if importance not in IMPORTANCES:
        raise UsageError(f"unknown importance {importance!r}: want one of {', '.join(IMPORTANCES)}")
    if attempts < 1:
        raise UsageError(f"want one attempt or more, got {attempts}")


def _writable(output: str | Path | None, force: bool) -> Path | None:
    if output is None:
        return None
    file = Path(output)
    if file.suffix != ".safetensors":
        raise UsageError(f"want a name that ends with .safetensors, got {file.name!r}", where=str(file))
    atomic.check_writable(file, force=force)
    return file


def _texts(calibrate: Iterable[Any]) -> tuple[str, ...]:
    texts = [calibrate] if isinstance(calibrate, str) else list(calibrate)
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("a factory's network is calibrated on files", where="calibrate")
    return tuple(texts)


def _steps(before: Step | str | Sequence[Step | str]) -> tuple[Step, ...]:
    front = Front.of(before)
    if front.networks:
        raise UsageError(
            f"{front.networks[0].op} would stand before the network: want steps of the runtime alone",
            where="before",
            hint="run it on the images first, and prune on what it makes of them",
        )
    return front.steps


def _given(weights: str | Path | None) -> Path:
    if weights is None:
        raise UsageError("a factory's network has no weights yet", hint="--weights FILE")
    return Path(weights)


def _only_for_factories(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} goes with a factory; a module has its own", where=name)
