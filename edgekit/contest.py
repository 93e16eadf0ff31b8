"""Choice by measurement: backends compile one graph, are judged on one case and timed side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgekit import compare, profiling, runtime
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact
from edgekit.bundle import Bundle
from edgekit.errors import (
    BackendError,
    CompileError,
    EdgekitError,
    GateError,
    LimitError,
    UnavailableError,
    UnsupportedError,
)
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.reports import AccuracyLimits, AccuracyReport, Candidate, LatencyReport
from edgekit.spec import Array
from edgekit.target import Target

_MEASURE_S = 2.0

# Makes the bundle of a compiled network.
Draft = Callable[[Artifact], Bundle]


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
class Attempt:
    """A compiled candidate: a whole bundle in memory, and how it compares."""

    bundle: Bundle
    accuracy: AccuracyReport
    candidate: Candidate


class Contest:
    """Backends that compile the same graph and are judged on the same case."""

    def __init__(
        self,
        graph: Graph,
        device: Target,
        evidence: Evidence,
        limits: AccuracyLimits,
        threads: int,
        child: Limits,
    ) -> None:
        self.graph, self.device, self.evidence = graph, device, evidence
        self.limits, self.threads, self.child = limits, threads, child
        self.attempts: dict[str, Attempt] = {}
        self.errors: dict[str, EdgekitError] = {}

    def enter(self, name: str, draft: Draft) -> None:
        """Compile with one backend; what it refuses or fails at is kept, not raised."""
        try:
            self.attempts[name] = self._attempt(name, draft)
        except (BackendError, LimitError, UnsupportedError) as error:
            self.errors[name] = error

    def passed(self) -> dict[str, Attempt]:
        """The attempts within all limits.

        Raises:
            EdgekitError: There is none.
        """
        passed = {name: attempt for name, attempt in self.attempts.items() if attempt.accuracy.passed}
        if not passed:
            raise self._nothing_passed()
        return passed

    def winner(self) -> Bundle:
        """The fastest bundle that passed, with the table of all candidates in its manifest."""
        passed = self.passed()
        reports = self._measure(passed)
        best = min(reports, key=lambda name: reports[name].p50_s)
        candidates = [a.candidate for name, a in self.attempts.items() if name not in passed]
        for name, report in reports.items():
            candidate = replace(
                passed[name].candidate,
                verdict="chosen" if name == best else "slower",
                p50_s=report.p50_s,
                p90_s=report.percentile_s(90),
                runs=len(report.samples_s),
            )
            candidates.append(candidate)
        for name, error in self.errors.items():
            candidates.append(Candidate(name, _verdict(error), error.message.splitlines()[0]))
        order = list(self.device.backends)
        candidates.sort(key=lambda c: order.index(c.backend) if c.backend in order else len(order))
        bundle = passed[best].bundle
        return replace(
            bundle,
            manifest=replace(
                bundle.manifest,
                accuracy=passed[best].accuracy,
                candidates=tuple(candidates),
                latency=reports[best],
            ),
        )

    def _attempt(self, name: str, draft: Draft) -> Attempt:
        """Compile in a child, then open the whole bundle here and compare what a user would get."""
        compiled = BACKENDS[name].compile(
            self.graph,
            self.device,
            sample=self.evidence.network_feeds,
            threads=self.threads,
            limits=self.child,
        )
        bundle = draft(compiled.artifact)
        with runtime.open(bundle, threads=self.threads) as session:
            got = session.run(self.evidence.feeds)
        accuracy = compare.compare(
            self.evidence.expected,
            got,
            reference=self.evidence.reference,
            inputs=self.evidence.inputs,
            limits=self.limits,
        )
        candidate = Candidate(
            backend=name,
            verdict="slower" if accuracy.passed else "failed",
            reason="; ".join(accuracy.failures),
            worst_snr_db=accuracy.worst_snr_db,
            compile_s=compiled.compile_s,
            artifact_bytes=sum(map(len, compiled.artifact.files.values())),
        )
        return Attempt(bundle, accuracy, candidate)

    def _measure(self, attempts: Mapping[str, Attempt]) -> dict[str, LatencyReport]:
        sessions = {name: runtime.open(a.bundle, threads=self.threads) for name, a in attempts.items()}
        try:
            return profiling.measure_interleaved(
                sessions, self.evidence.feeds, seconds=_MEASURE_S * len(sessions), stages=False
            )
        finally:
            for session in sessions.values():
                session.close()

    def _nothing_passed(self) -> EdgekitError:
        """The error that explains best why there is no bundle."""
        if self.attempts:
            lines = [f"{name}: {'; '.join(a.accuracy.failures)}" for name, a in self.attempts.items()]
            lines += [f"{name}: {error.message.splitlines()[0]}" for name, error in self.errors.items()]
            return GateError(
                "no candidate keeps within the limits, so no bundle was written\n  " + "\n  ".join(lines),
                where=", ".join(self.attempts),
                hint="loosen --max-abs-error / --min-snr-db, or choose another --backend"
                if self.limits != AccuracyLimits()
                else "--input NAME=FILE judges on an image of your own",
            )
        errors = list(self.errors.values())
        if len(errors) == 1:
            return errors[0]
        lines = [f"{name}: {error.message.splitlines()[0]}" for name, error in self.errors.items()]
        message = "no backend could compile this model\n  " + "\n  ".join(lines)
        hint = next((error.hint for error in errors if error.hint), None)
        if all(isinstance(error, UnavailableError) for error in errors):
            return UnavailableError(message, hint=hint)
        if all(isinstance(error, UnsupportedError | UnavailableError) for error in errors):
            return UnsupportedError(message, hint=hint)
        return CompileError(message, hint=hint)


def _verdict(error: EdgekitError) -> Literal["refused", "failed", "unavailable"]:
    if isinstance(error, UnavailableError):
        return "unavailable"
    return "refused" if isinstance(error, UnsupportedError) else "failed"
