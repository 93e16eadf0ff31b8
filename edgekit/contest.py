"""Choice by measurement: every backend compiles every form of a model; they are judged and timed together.

A form (:class:`Variant`) is the model in one precision. A candidate is a form compiled by a backend. All of
them are compared with the reference on one case, those that pass are timed together, and the fastest one that
keeps the limits on the task's own cases wins.

What is compiled for another machine is not timed. It is judged by what stands in for it here, or by the graph
computed literally; all that pass go into the bundle, in order of preference, with a golden case.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgekit import compare, machine, probe, profiling, runtime
from edgekit.backends import BACKENDS
from edgekit.backends.base import Build, Compiled
from edgekit.bundle import Bundle, Manifest
from edgekit.dataset import DatasetRecord
from edgekit.errors import (
    BackendError,
    CompileError,
    EdgekitError,
    GateError,
    LimitError,
    UnavailableError,
    UnsupportedError,
)
from edgekit.gates import Budget, Judge, Run
from edgekit.golden import Golden, GoldenRecord
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.report import Exhibit, exhibits, task_page
from edgekit.reports import (
    AccuracyLimits,
    AccuracyReport,
    Candidate,
    LatencyReport,
    LayerReport,
    TaskReport,
)
from edgekit.spec import Array
from edgekit.target import Target

_MEASURE_S = 2.0
# What a manifest says of one candidate.
_DESCRIBED = ("accuracy", "latency", "precision", "calibration", "layers", "task")

Verdict = Literal["chosen", "slower", "refused", "failed", "unavailable", "not run here"]

# Makes the bundle of a network that was compiled in one or several ways.
Draft = Callable[..., Bundle]
# The name of the build, and the precision.
Key = tuple[str, str]


@dataclass(frozen=True)
class Evidence:
    """The case that every candidate is judged on.

    Attributes:
        feeds: Inputs by name.
        expected: What a trusted implementation makes of them, by name.
        reference: Which one.
        inputs: Where the inputs come from.
        network_feeds: What the steps before the network make of ``feeds``: its inputs by name.
    """

    feeds: dict[str, Array]
    expected: dict[str, Array]
    reference: str
    inputs: str
    network_feeds: dict[str, Array]


@dataclass(frozen=True)
class Variant:
    """One form of a model.

    Attributes:
        precision: ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"int8"``: the smallest that occurs in it.
        graph: The network.
        meaning: What the graph itself says that the results are, computed literally, where a backend may read
            it in another way: quantized graphs. ``None`` where the reference says it.
        layers: What became of each layer.
        calibration: The data that its ranges come from.
        notes: What a user wants to know of how it was made.
    """

    precision: str
    graph: Graph
    meaning: dict[str, Array] | None = None
    layers: tuple[LayerReport, ...] = ()
    calibration: DatasetRecord | None = None
    notes: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """What follows a backend's name in messages: the precision, where it is not the usual one."""
        return "" if self.precision == "float32" else f" in {self.precision}"


@dataclass(frozen=True)
class Attempt:
    """A compiled candidate.

    Attributes:
        variant: The form.
        draft: Makes a bundle of it.
        bundle: A whole bundle in memory.
        here: The same as it runs here; ``None`` where nothing does.
        foreign: Why it cannot be timed here; empty where it can.
        accuracy: How it compares, or what stands in for it.
        candidate: Its row of the table.
    """

    variant: Variant
    draft: Draft
    bundle: Bundle
    here: Bundle | None
    foreign: str
    accuracy: AccuracyReport
    candidate: Candidate


class Contest:
    """Backends that compile the forms of one model and are judged on the same case."""

    def __init__(
        self,
        device: Target,
        evidence: Evidence,
        limits: AccuracyLimits,
        threads: int,
        child: Limits,
        judge: Judge | None = None,
        budget: Budget = Budget(),
        *,
        page: bool = False,
    ) -> None:
        """Nothing runs yet.

        Args:
            device: The target.
            evidence: The case that every candidate is compared on.
            limits: Limits on the difference from the reference.
            threads: Threads to measure with; 0 for all.
            child: Limits of each child process.
            judge: Judges on the task's own cases.
            budget: Limits on latency and size.
            page: Whether :meth:`page` will be asked for, which looks at the worst cases once more.
        """
        self.device, self.evidence, self.judge, self.budget = device, evidence, judge, budget
        self.limits, self.threads, self.child = limits, threads, child
        self.attempts: dict[Key, Attempt] = {}
        self.errors: dict[Key, EdgekitError] = {}
        self.judged: Manifest | None = None
        self._order: list[str] = []
        self._wants_page, self._exhibits = page, tuple[Exhibit, ...]()

    def enter(self, build: Build, variant: Variant, draft: Draft) -> None:
        """Compile a form of the model in one way; what is refused or fails is kept, not raised."""
        key = build.name, variant.precision
        self._order.append(build.name)
        try:
            self.attempts[key] = self._attempt(build, variant, draft)
        except (BackendError, LimitError, UnsupportedError) as error:
            self.errors[key] = error

    def titles(self) -> str:
        """Names of those that passed, for messages."""
        return ", ".join(f"{backend}{a.variant.suffix}" for (backend, _), a in self.passed().items())

    def passed(self) -> dict[Key, Attempt]:
        """The attempts within all limits on the one case.

        Raises:
            EdgekitError: There is none.
        """
        passed = {key: attempt for key, attempt in self.attempts.items() if attempt.accuracy.passed}
        if not passed:
            failures = {key: attempt.accuracy.failures for key, attempt in self.attempts.items()}
            raise self._nothing_passed(failures)
        return passed

    def winner(self) -> Bundle:
        """The fastest bundle that passed, with the table of all candidates in its manifest.

        Where there is a judge, it is asked about one candidate after another, the fastest first, until one
        passes. Where nothing can be timed here, the bundle of all that pass.

        Raises:
            EdgekitError: None passes.
        """
        passed = self.passed()
        failures = {key: a.accuracy.failures for key, a in self.attempts.items() if key not in passed}
        raced = {key: attempt for key, attempt in passed.items() if not attempt.foreign}
        return self._fastest(raced, failures) if raced else self._all(passed, failures)

    def _fastest(self, passed: Mapping[Key, Attempt], failures: dict[Key, tuple[str, ...]]) -> Bundle:
        latencies = self._measure(passed)
        tasks: dict[Key, TaskReport] = {}
        for key in sorted(latencies, key=lambda key: latencies[key].p50_s):
            failures[key] = self._judged(passed[key], key, tasks, latencies[key])
            if not failures[key]:
                break
        else:
            raise self._nothing_passed(failures)
        return self._with_table(passed[key].bundle, {key: "chosen"}, latencies, tasks, failures)

    def _all(self, passed: Mapping[Key, Attempt], failures: dict[Key, tuple[str, ...]]) -> Bundle:
        """The bundle of all networks that pass, of which none was timed."""
        tasks: dict[Key, TaskReport] = {}
        described: dict[Key, Manifest | None] = {}
        for key, attempt in passed.items():
            failures[key] = self._judged(attempt, key, tasks, None)
            described[key] = self.judged
        kept = {key: attempt for key, attempt in passed.items() if not failures[key]}
        if not kept:
            raise self._nothing_passed(failures)
        preferred, first = next(iter(kept.items()))
        self.judged = described[preferred]
        notes = [note for attempt in kept.values() for note in attempt.bundle.manifest.notes]
        notes.append(f"the bundle holds a case to prove its networks on the device: {self.evidence.inputs}")
        drafted = first.draft(
            *(attempt.bundle.network for attempt in kept.values()),
            golden=_golden(self.evidence, first, self.limits),
            notes=tuple(dict.fromkeys(notes)),
        )
        verdicts: dict[Key, Verdict] = dict.fromkeys(kept, "not run here")
        return self._with_table(drafted, verdicts, {}, tasks, failures)

    def _judged(
        self,
        attempt: Attempt,
        key: Key,
        tasks: dict[Key, TaskReport],
        latency: LatencyReport | None,
    ) -> tuple[str, ...]:
        """What speaks against a candidate; it becomes the one that the manifest describes."""
        size_bytes = attempt.candidate.artifact_bytes
        latency_s = latency.p50_s if latency else math.nan
        if self.judge is not None:
            tasks[key] = self.budget.applied(self._judge(self.judge, attempt), latency_s, size_bytes)
            failures = tasks[key].all_failures
        else:
            failures = self.budget.exceeded(latency_s, size_bytes)
        self.judged = replace(
            attempt.bundle.manifest,
            accuracy=attempt.accuracy,
            latency=latency,
            precision=attempt.variant.precision,
            calibration=attempt.variant.calibration,
            layers=attempt.variant.layers,
            task=tasks.get(key),
        )
        return failures

    def _with_table(
        self,
        bundle: Bundle,
        verdicts: Mapping[Key, Verdict],
        latencies: Mapping[Key, LatencyReport],
        tasks: Mapping[Key, TaskReport],
        failures: Mapping[Key, tuple[str, ...]],
    ) -> Bundle:
        """The bundle with what is known of the candidate that its manifest describes, and of all others."""
        assert self.judged is not None
        described = {name: getattr(self.judged, name) for name in _DESCRIBED}
        rows = self._candidates(verdicts, latencies, tasks, failures)
        self.judged = replace(bundle.manifest, candidates=rows, **described)
        return replace(bundle, manifest=self.judged)

    def page(self) -> str | None:
        """The page on the candidate that was judged last, which is the winner if there is one.

        ``None`` where none came so far.
        """
        return task_page(self.judged, self._exhibits) if self.judged else None

    def _candidates(
        self,
        verdicts: Mapping[Key, Verdict],
        latencies: Mapping[Key, LatencyReport],
        tasks: Mapping[Key, TaskReport],
        failures: Mapping[Key, tuple[str, ...]],
    ) -> tuple[Candidate, ...]:
        """One row for everything that was tried, in the order of preference."""
        rows = []
        for key, attempt in self.attempts.items():
            row, reasons = attempt.candidate, failures.get(key, ())
            if key in tasks:
                row = replace(row, values=tasks[key].values)
            if key in latencies:
                row = replace(
                    row,
                    p50_s=latencies[key].p50_s,
                    p90_s=latencies[key].percentile_s(90),
                    runs=len(latencies[key].samples_s),
                )
            if reasons:
                row = replace(row, verdict="failed", reason="; ".join(reasons))
            elif key in verdicts:
                row = replace(row, verdict=verdicts[key])
            rows.append(row)
        for (name, precision), error in self.errors.items():
            reason = error.message.splitlines()[0]
            rows.append(Candidate(name, _verdict(error), reason, precision=precision))
        return tuple(sorted(rows, key=lambda row: self._order.index(row.backend)))

    def _attempt(self, build: Build, variant: Variant, draft: Draft) -> Attempt:
        """Compile in a child, then open the whole bundle here and compare what a user would get."""
        backend = BACKENDS[build.backend]
        compiled = backend.compile(
            variant.graph,
            build.target,
            sample=self.evidence.network_feeds,
            threads=self.threads,
            limits=self.child,
            name=build.name,
        )
        foreign = backend.foreign(build.target)
        bundle = draft(compiled.artifact)
        notes = (*backend.notes(compiled.artifact), *_foreign_notes(build, foreign, compiled))
        if notes:
            manifest = bundle.manifest
            bundle = replace(bundle, manifest=replace(manifest, notes=(*manifest.notes, *notes)))
        here = _here(bundle, compiled, draft)
        accuracy = self._compared(variant, here)
        candidate = Candidate(
            backend=build.name,
            verdict="slower" if accuracy.passed else "failed",
            reason="; ".join(accuracy.failures) or foreign,
            precision=variant.precision,
            worst_snr_db=accuracy.worst_snr_db,
            compile_s=compiled.compile_s,
            artifact_bytes=compiled.artifact.size_bytes,
        )
        return Attempt(variant, draft, bundle, here, foreign, accuracy, candidate)

    def _compared(self, variant: Variant, here: Bundle | None) -> AccuracyReport:
        """The results of what runs here, or of the graph, beside the reference's."""
        with self._running(variant, here) as run:
            got = run(self.evidence.feeds)
        accuracy = compare.compare(
            self.evidence.expected,
            got,
            reference=self.evidence.reference,
            inputs=self.evidence.inputs,
            limits=self.limits,
        )
        if variant.meaning is None or here is None:
            return accuracy
        strange = compare.check_meaning(self.evidence.expected, variant.meaning, got)
        return replace(accuracy, failures=(*accuracy.failures, *strange))

    @contextlib.contextmanager
    def _running(self, variant: Variant, here: Bundle | None) -> Iterator[Run]:
        """What a caller gives to what a caller gets, here."""
        if here is None:
            with probe.opened_whole(variant.graph, threads=self.threads) as run:
                yield run
            return
        with runtime.open(here, threads=self.threads) as session:
            yield session.run

    def _measure(self, attempts: Mapping[Key, Attempt]) -> dict[Key, LatencyReport]:
        sessions = {
            key: runtime.open(a.here, threads=self.threads)
            for key, a in attempts.items()
            if a.here is not None
        }
        try:
            return profiling.measure_interleaved(
                sessions, self.evidence.feeds, seconds=_MEASURE_S * len(sessions), stages=False
            )
        finally:
            for session in sessions.values():
                session.close()

    def _judge(self, judge: Judge, attempt: Attempt) -> TaskReport:
        with self._running(attempt.variant, attempt.here) as run:
            report = judge.judge(run)
            if self._wants_page:
                self._exhibits = exhibits(judge, report, run)
            return report

    def _nothing_passed(self, failures: Mapping[Key, tuple[str, ...]]) -> EdgekitError:
        """The error that explains best why there is no bundle."""
        several = len({precision for _, precision in [*self.attempts, *self.errors]}) > 1
        reasons = {key: error.message.splitlines()[0] for key, error in self.errors.items()}
        lines = [
            f"{_title(key, several)}: {reason}"
            for key, reason in ({key: "; ".join(texts) for key, texts in failures.items()} | reasons).items()
        ]
        if self.attempts:
            return GateError(
                "no candidate keeps within the limits, so no bundle was written\n  " + "\n  ".join(lines),
                where=", ".join(_title(key, several) for key in self.attempts),
                hint=self._hint(),
            )
        errors = list(self.errors.values())
        if len(errors) == 1:
            return errors[0]
        message = "no backend could compile this model\n  " + "\n  ".join(lines)
        hint = next((error.hint for error in errors if error.hint), None)
        if all(isinstance(error, UnavailableError) for error in errors):
            return UnavailableError(message, hint=hint)
        if all(isinstance(error, UnsupportedError | UnavailableError) for error in errors):
            return UnsupportedError(message, hint=hint)
        return CompileError(message, hint=hint)

    def _hint(self) -> str:
        if self.limits != AccuracyLimits():
            return "loosen --max-abs-error / --min-snr-db, or choose another --backend"
        if any(precision != "float32" for _, precision in self.attempts):
            return "--precision auto keeps float32 where nothing smaller passes"
        return "--input NAME=FILE judges on an image of your own"


def _title(key: Key, several: bool) -> str:
    """What a candidate is called: its precision is said where there are several."""
    backend, precision = key
    return f"{backend} {precision}" if several else backend


def _here(bundle: Bundle, compiled: Compiled, draft: Draft) -> Bundle | None:
    """The bundle of what runs on this machine in the place of an artifact; its own if that does."""
    if compiled.here is None or compiled.here is compiled.artifact:
        return bundle if compiled.here else None
    stands_in = draft(compiled.here)
    here = machine.record()
    changed = replace(stands_in.manifest, arch=here.arch, cpu_features=())
    return replace(stands_in, manifest=changed)


def _foreign_notes(build: Build, foreign: str, compiled: Compiled) -> tuple[str, ...]:
    """What a user wants to know of a network that was not run."""
    if not foreign:
        return ()
    what = (
        "the same network, compiled for this machine, stands in for it"
        if compiled.here
        else "the network as it is written, computed literally, stands in for it"
    )
    return (f"{build.name}: was not run: {foreign}; {what}",)


def _golden(evidence: Evidence, attempt: Attempt, limits: AccuracyLimits) -> Golden:
    """The case, with what a device has to keep on it: what the user demands, or else what is known here.

    By default that is agreement as of two runtimes; where compression itself changes more, less by as much.
    """
    if limits == AccuracyLimits():
        limits = AccuracyLimits(min_snr_db=compare.agreement(attempt.accuracy.worst_snr_db))
    record = GoldenRecord(evidence.reference, evidence.inputs, limits)
    return Golden(record, evidence.feeds, evidence.expected)


def _verdict(error: EdgekitError) -> Verdict:
    if isinstance(error, UnavailableError):
        return "unavailable"
    return "refused" if isinstance(error, UnsupportedError) else "failed"
