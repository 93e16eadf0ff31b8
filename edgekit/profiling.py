"""How long a session takes: the first run apart, warmed up until stable, every sample kept, side by side."""

from __future__ import annotations

import contextlib
import gc
import inspect
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from edgekit import machine, samples, schema
from edgekit.errors import UsageError
from edgekit.reports import LatencyReport, nearest_rank
from edgekit.spec import Array, TensorSpec

# The warm-up has settled when the medians of its last two windows of runs differ by at most this share.
_WINDOW = 5
_SETTLED = 0.05
# How long one candidate runs before the next has its turn. A vendor's worker threads keep spinning for some
# milliseconds after a run; taking turns run by run would charge that to whoever comes next (2.5 times the
# median of a 0.5 ms network was seen), in turns of 50 ms it meets the first run alone, which is not counted.
_TURN_S = 0.05
_PAUSE_S = 0.02
_MIN_RUNS = 3
_MAX_RUNS = 10_000

Progress = Callable[[float], None]
Clock = Callable[[], int]
Key = TypeVar("Key", bound=Hashable)


class Runnable(Protocol):
    """What can be measured. ``load_s``, ``threads`` and ``packages`` are read where it has them."""

    def run(self, feeds: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Outputs by name."""


class Session(Runnable, Protocol):
    """What can be measured without inputs: it says what they look like."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Contracts of the inputs."""


def profile(
    session: Session,
    feeds: Mapping[str, Array] | None = None,
    *,
    runs: int = 0,
    seconds: float = 5.0,
    warmup_seconds: float = 3.0,
    on_progress: Progress | None = None,
) -> LatencyReport:
    """:func:`measure`, on seeded generated inputs of the smallest shapes where none are given."""
    if feeds is None:
        feeds = samples.generate_inputs(session.inputs)
    return measure(
        session, feeds, runs=runs, seconds=seconds, warmup_seconds=warmup_seconds, on_progress=on_progress
    )


def measure(
    session: Runnable,
    feeds: Mapping[str, Array],
    *,
    runs: int = 0,
    seconds: float = 5.0,
    warmup_seconds: float = 3.0,
    stages: bool = True,
    on_progress: Progress | None = None,
) -> LatencyReport:
    """Run a session again and again and keep every time.

    The first run stands apart. Then comes the warm-up: runs until the median of the last five differs by at
    most 5 % from that of the five before, for at most ``warmup_seconds``, the first run included. The clock
    is ``perf_counter_ns`` around ``run``, so checks and steps count. Garbage collection stays on, as in the
    application whose latency this predicts, but what the process already holds (a compiler's modules, say)
    is set aside, since no application on a device would carry it.

    Args:
        session: Anything with ``run(feeds)``.
        feeds: Inputs by name, the same in every run.
        runs: Number of runs to measure; 0 for as many as fit into ``seconds``: at least three (one, where it
            takes longer than that by itself) and at most 10 000, which is enough for the 99.9th percentile.
        seconds: Time to measure for when ``runs`` is 0.
        warmup_seconds: Longest warm-up.
        stages: Also keep the times of the session's stages, where it tells them.
        on_progress: Called now and then with the share of the work that is done, 0 … 1.

    Raises:
        UsageError: No runs and no time to measure.
    """
    budget = _Budget(seconds, runs=runs)
    return _measure({"session": session}, feeds, budget, warmup_seconds, stages, on_progress)["session"]


def measure_interleaved(
    sessions: Mapping[Key, Runnable],
    feeds: Mapping[str, Array],
    *,
    seconds: float = 10.0,
    min_runs: int = _MIN_RUNS,
    warmup_seconds: float = 3.0,
    stages: bool = True,
    clock: Clock | None = None,
    on_progress: Progress | None = None,
) -> dict[Key, LatencyReport]:
    """Measure several sessions side by side, so that noise of the machine hits all alike.

    Each is warmed up as in :func:`measure`. Then they take turns of 50 ms or one run, whichever is longer;
    the next turn goes to one of those that have used the least time, drawn with a fixed seed. So all get an
    equal share of ``seconds``, spread over the whole measurement: fast ones have many runs, slow ones few. A
    turn of short runs begins with one that is not counted (it stands in ``warmup_s``), since threads and
    caches still belong to the candidate before; a turn of long runs begins with a pause of 20 ms.

    Args:
        sessions: Candidates by name, or by whatever tells them apart.
        feeds: Inputs by name, the same for all.
        seconds: Time of all measured runs together.
        min_runs: Runs that each candidate gets even when its share is used up; one whose runs are longer than
            the whole share gets one.
        warmup_seconds: Longest warm-up of each.
        stages: Also keep the times of the sessions' stages, where they tell them.
        clock: Tells nanoseconds; ``time.perf_counter_ns`` by default. ``time.process_time_ns`` leaves out
            what other processes take and sums over threads: for sessions of one thread it is what they would
            take on a machine of their own.
        on_progress: Called now and then with the share of the work that is done, 0 … 1.

    Raises:
        UsageError: No runs and no time to measure.
    """
    budget = _Budget(seconds / max(1, len(sessions)), min_runs)
    return _measure(sessions, feeds, budget, warmup_seconds, stages, on_progress, clock)


def summary(report: LatencyReport) -> dict[str, Any]:
    """The figures of a report without its samples, as plain data; seconds and bytes."""

    def figures(times: tuple[float, ...]) -> dict[str, float]:
        names = {"p50_s": 50, "p90_s": 90, "p99_s": 99, "p99_9_s": 99.9}
        return {name: nearest_rank(times, percent) for name, percent in names.items()}

    data = {
        "runs": len(report.samples_s),
        **figures(report.samples_s),
        "min_s": min(report.samples_s),
        "max_s": max(report.samples_s),
        "jitter_s": report.jitter_s,
        "load_s": report.load_s,
        "first_run_s": report.first_run_s,
        "warmup_runs": len(report.warmup_s),
        "settled": report.settled,
        "stages": {name: figures(times) for name, times in report.stages_s.items()},
        "peak_memory_bytes": report.peak_memory_bytes,
        "threads": report.threads,
        "shapes": report.shapes,
        "machine": report.machine,
        "notes": report.notes,
    }
    return schema.encode(data)  # type: ignore[no-any-return]


class _Candidate:
    """One session being measured."""

    def __init__(self, session: Runnable, feeds: Mapping[str, Array], stages: bool, clock: Clock) -> None:
        self._clock = clock
        self._run: Callable[..., object] = session.run
        self._feeds = feeds
        self._with_stages = stages and "stages" in inspect.signature(session.run).parameters
        self._packages = ("edgekit", "numpy", *getattr(session, "packages", ()))
        self.session = session
        self.samples_s: list[float] = []
        self.warmup_s: list[float] = []
        self.stages_s: dict[str, list[float]] = {}
        self.first_run_s = 0.0
        self.used_s = 0.0
        self.settled = False

    def warm_up(self, longest_s: float) -> None:
        used_s = self.first_run_s = self._time()
        while not self.settled and used_s < longest_s:
            self.warmup_s.append(self._time())
            used_s += self.warmup_s[-1]
            if len(self.warmup_s) >= 2 * _WINDOW:
                before = statistics.median(self.warmup_s[-2 * _WINDOW : -_WINDOW])
                last = statistics.median(self.warmup_s[-_WINDOW:])
                self.settled = abs(last - before) <= _SETTLED * before

    def begin_turn(self) -> None:
        """Leave behind what the candidate before has left in threads and caches."""
        typical_s = self.warmup_s[-1] if self.warmup_s else self.first_run_s
        if typical_s < _TURN_S:
            self.warmup_s.append(self._time())
        else:
            time.sleep(_PAUSE_S)

    def sample(self) -> None:
        stages: dict[str, float] = {}
        self.samples_s.append(self._time(stages))
        self.used_s += self.samples_s[-1]
        for name, seconds in stages.items():
            self.stages_s.setdefault(name, []).append(seconds)

    def _time(self, stages: dict[str, float] | None = None) -> float:
        options = {"stages": stages} if self._with_stages and stages is not None else {}
        started = self._clock()
        self._run(self._feeds, **options)
        return (self._clock() - started) / 1e9

    def report(self, where: machine.Machine) -> LatencyReport:
        return LatencyReport(
            samples_s=tuple(self.samples_s),
            load_s=getattr(self.session, "load_s", 0.0),
            first_run_s=self.first_run_s,
            warmup_s=tuple(self.warmup_s),
            settled=self.settled,
            stages_s={name: tuple(times) for name, times in self.stages_s.items()},
            peak_memory_bytes=machine.peak_memory_bytes(),
            threads=getattr(self.session, "threads", 0),
            shapes={name: tuple(array.shape) for name, array in self._feeds.items()},
            machine=replace(where, packages=machine.versions(self._packages)),
        )


@dataclass(frozen=True)
class _Budget:
    """How much each candidate is measured: ``runs`` times, or for ``seconds`` and ``min_runs`` at least."""

    seconds: float
    min_runs: int = _MIN_RUNS
    runs: int = 0

    def __post_init__(self) -> None:
        if self.runs < 0 or self.min_runs < 1 or (self.runs == 0 and not self.seconds > 0):
            raise UsageError(
                f"want some runs or more than 0 seconds to measure, got {self.runs} and {self.seconds:g}",
                hint="--seconds 5, or --runs 100",
            )

    def done(self, candidate: _Candidate) -> float:
        """The share of it that a candidate has had; 1 is all."""
        runs, used_s = len(candidate.samples_s), candidate.used_s
        if self.runs:
            return runs / self.runs
        if runs == _MAX_RUNS:
            return 1.0
        # One run that takes longer than all the time there is has to do.
        min_runs = self.min_runs if used_s < runs * self.seconds else 1
        return min(runs / min_runs, used_s / self.seconds, 1.0)


def _measure(
    sessions: Mapping[Key, Runnable],
    feeds: Mapping[str, Array],
    budget: _Budget,
    warmup_seconds: float,
    stages: bool,
    on_progress: Progress | None,
    clock: Clock | None = None,
) -> dict[Key, LatencyReport]:
    where = machine.record()
    candidates = {
        name: _Candidate(session, feeds, stages, clock or time.perf_counter_ns)
        for name, session in sessions.items()
    }
    with _own_garbage_only():
        for candidate in candidates.values():
            candidate.warm_up(warmup_seconds)
        _take_turns(list(candidates.values()), budget, on_progress or (lambda share: None))
    return {name: candidate.report(where) for name, candidate in candidates.items()}


def _take_turns(candidates: list[_Candidate], budget: _Budget, on_progress: Progress) -> None:
    rng = random.Random(0)
    active, alone = list(candidates), len(candidates) == 1
    while active:
        least_s = min(candidate.used_s for candidate in active)
        turn = rng.choice([c for c in active if c.used_s <= least_s + _TURN_S])
        if not alone:
            turn.begin_turn()
        until_s = turn.used_s + _TURN_S
        while True:
            turn.sample()
            if turn.used_s >= until_s or budget.done(turn) >= 1:
                break
        active = [c for c in active if budget.done(c) < 1]
        on_progress(sum(budget.done(c) for c in candidates) / len(candidates))


@contextlib.contextmanager
def _own_garbage_only() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
