"""Choice by measurement: every backend compiles every form of a model; they are judged and timed together.

A form (:class:`Variant`) is the model in one precision. A candidate is a form compiled by a backend. All of
them are compared with the reference on one case, those that pass are timed together, and the fastest one that
keeps the limits on the task's own cases wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgekit import compare, machine, profiling, runtime
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact
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
from edgekit.gates import Budget, Judge
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

# Makes the bundle of a compiled network.
Draft = Callable[[Artifact], Bundle]
# The name of the backend, and the precision.
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
    """A compiled candidate: a whole bundle in memory, the same as it runs here, and how it compares."""

    variant: Variant
    bundle: Bundle
    here: Bundle
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
        self._wants_page, self._exhibits = page, tuple[Exhibit, ...]()

    def enter(self, backend: str, variant: Variant, draft: Draft) -> None:
        """Compile a form of the model with one backend; what it refuses or fails at is kept, not raised."""
        key = backend, variant.precision
        try:
            self.attempts[key] = self._attempt(backend, variant, draft)
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
        passes.

        Raises:
            EdgekitError: None passes.
        """
        passed = self.passed()
        latencies = self._measure(passed)
        tasks: dict[Key, TaskReport] = {}
        failures = {key: a.accuracy.failures for key, a in self.attempts.items() if key not in passed}
        for key in sorted(latencies, key=lambda key: latencies[key].p50_s):
            latency_s, size_bytes = latencies[key].p50_s, passed[key].candidate.artifact_bytes
            if self.judge is not None:
                tasks[key] = self.budget.applied(self._judge(self.judge, passed[key]), latency_s, size_bytes)
                failures[key] = tasks[key].all_failures
            else:
                failures[key] = self.budget.exceeded(latency_s, size_bytes)
            tried = passed[key]
            self.judged = replace(
                tried.bundle.manifest,
                accuracy=tried.accuracy,
                latency=latencies[key],
                precision=tried.variant.precision,
                calibration=tried.variant.calibration,
                layers=tried.variant.layers,
                task=tasks.get(key),
            )
            if not failures[key]:
                break
        else:
            raise self._nothing_passed(failures)
        rows = self._candidates(key, latencies, tasks, failures)
        self.judged = replace(self.judged, candidates=rows)
        return replace(tried.bundle, manifest=self.judged)

    def page(self) -> str | None:
        """The page on the candidate that was judged last, which is the winner if there is one.

        ``None`` where none came so far.
        """
        return task_page(self.judged, self._exhibits) if self.judged else None

    def _candidates(
        self,
        chosen: Key,
        latencies: Mapping[Key, LatencyReport],
        tasks: Mapping[Key, TaskReport],
        failures: Mapping[Key, tuple[str, ...]],
    ) -> tuple[Candidate, ...]:
        """One row for everything that was tried, in the target's order of backends."""
        rows = []
        for key, attempt in self.attempts.items():
            row = attempt.candidate
            if key in latencies:
                reasons = failures.get(key, ())
                row = replace(
                    row,
                    verdict="chosen" if key == chosen else "failed" if reasons else "slower",
                    reason="; ".join(reasons),
                    p50_s=latencies[key].p50_s,
                    p90_s=latencies[key].percentile_s(90),
                    runs=len(latencies[key].samples_s),
                    values=tasks[key].values if key in tasks else (),
                )
            rows.append(row)
        for (backend, precision), error in self.errors.items():
            reason = error.message.splitlines()[0]
            rows.append(Candidate(backend, _verdict(error), reason, precision=precision))
        order = list(self.device.backends)
        return tuple(
            sorted(rows, key=lambda row: order.index(row.backend) if row.backend in order else len(order))
        )

    def _attempt(self, backend: str, variant: Variant, draft: Draft) -> Attempt:
        """Compile in a child, then open the whole bundle here and compare what a user would get."""
        compiled = BACKENDS[backend].compile(
            variant.graph,
            self.device,
            sample=self.evidence.network_feeds,
            threads=self.threads,
            limits=self.child,
        )
        bundle = draft(compiled.artifact)
        if notes := BACKENDS[backend].notes(compiled.artifact):
            manifest = bundle.manifest
            bundle = replace(bundle, manifest=replace(manifest, notes=(*manifest.notes, *notes)))
        here = _here(bundle, compiled.artifact, draft)
        with runtime.open(here, threads=self.threads) as session:
            got = session.run(self.evidence.feeds)
        accuracy = compare.compare(
            self.evidence.expected,
            got,
            reference=self.evidence.reference,
            inputs=self.evidence.inputs,
            limits=self.limits,
        )
        if variant.meaning is not None:
            strange = compare.check_meaning(self.evidence.expected, variant.meaning, got)
            accuracy = replace(accuracy, failures=(*accuracy.failures, *strange))
        candidate = Candidate(
            backend=backend,
            verdict="slower" if accuracy.passed else "failed",
            reason="; ".join(accuracy.failures),
            precision=variant.precision,
            worst_snr_db=accuracy.worst_snr_db,
            compile_s=compiled.compile_s,
            artifact_bytes=compiled.artifact.size_bytes,
        )
        return Attempt(variant, bundle, here, accuracy, candidate)

    def _measure(self, attempts: Mapping[Key, Attempt]) -> dict[Key, LatencyReport]:
        sessions = {key: runtime.open(a.here, threads=self.threads) for key, a in attempts.items()}
        try:
            return profiling.measure_interleaved(
                sessions, self.evidence.feeds, seconds=_MEASURE_S * len(sessions), stages=False
            )
        finally:
            for session in sessions.values():
                session.close()

    def _judge(self, judge: Judge, attempt: Attempt) -> TaskReport:
        with runtime.open(attempt.here, threads=self.threads) as session:
            report = judge.judge(session.run)
            if self._wants_page:
                self._exhibits = exhibits(judge, report, session.run)
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


def _here(bundle: Bundle, artifact: Artifact, draft: Draft) -> Bundle:
    """The bundle of an artifact, with operators for this machine if those in it are for another."""
    runnable = BACKENDS[artifact.info.backend].runnable_here(artifact)
    if runnable is artifact:
        return bundle
    bundle = draft(runnable)
    return replace(bundle, manifest=replace(bundle.manifest, arch=machine.record().arch))


def _verdict(error: EdgekitError) -> Literal["refused", "failed", "unavailable"]:
    if isinstance(error, UnavailableError):
        return "unavailable"
    return "refused" if isinstance(error, UnsupportedError) else "failed"
