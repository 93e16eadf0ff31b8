"""Makes the forms of a model that backends are to compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

from edgekit import calibration, compare, mixed, probe
from edgekit.backends import BACKENDS
from edgekit.backends.base import Build
from edgekit.compression.preparation import Preparation, prepare
from edgekit.compression.wanted import Compression
from edgekit.contest import Evidence, Variant
from edgekit.dataset import Dataset
from edgekit.errors import BackendError, LimitError, UnsupportedError
from edgekit.gates import Judge, Run
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.passes.half import HalfPass
from edgekit.passes.ranges import Ranges
from edgekit.reports import AccuracyLimits
from edgekit.target import Target


class Forms:
    """Makes the forms of one model. What several of them need, such as ranges, is found once.

    Args:
        graph: The model after all passes, in float32.
        wanted: What the user asks for.
        data: The calibration data, where there are any.
        evidence: The case that candidates are compared on.
        device: The target.
        limits: Limits on every result.
        judge: What judges candidates on the labelled cases, where there are any.
        threads: Threads to use; 0 for all.
        child: Limits of each child process.
        on_event: Called with one line at the beginning of each phase.
    """

    def __init__(
        self,
        graph: Graph,
        wanted: Compression,
        data: Dataset | None,
        evidence: Evidence,
        device: Target,
        limits: AccuracyLimits,
        judge: Judge | None,
        threads: int,
        child: Limits,
        on_event: Callable[[str], None],
    ) -> None:
        self.graph, self.wanted, self.data, self.evidence = graph, wanted, data, evidence
        self.device, self.limits, self.judge = device, limits, judge
        self._threads, self._child, self._on_event = threads, child, on_event

    def of(self, build: Build) -> Iterator[Variant]:
        """The forms that are to be compiled in one way.

        Raises:
            EdgekitError: A pass refuses the network, or the data.
        """
        backend = BACKENDS[build.backend]
        foreign = bool(backend.foreign(build.target))
        smallest = self._smallest if self.wanted.precision == "auto" and foreign else None
        wanted = smallest.precision if smallest else self.wanted.precision
        precision = backend.graph_precision(wanted, build)
        if precision != wanted:
            why = f"{build.name}: takes the network in {precision}, where {wanted} is asked for"
            yield Variant(precision, self.graph, notes=((*smallest.notes, why) if smallest else (why,)))
            return
        if smallest:
            yield smallest
        elif precision == "float32":
            yield Variant("float32", self.graph)
        elif precision == "int8":
            yield self._int8
        elif precision == "auto":
            yield from self._fastest(build)
        else:
            yield self._half(precision)

    # ── one precision wherever it goes ────────────────────────────────────────────────────────────────

    @cached_property
    def _int8(self) -> Variant:
        return self._variant(self._prepared.everywhere("int8"))

    def _half(self, precision: str) -> Variant:
        ranges = self._ranges(self.data) if self.data is not None else None
        made = HalfPass(precision, ranges).run(self.graph, self.device)
        record = self.data.record if self.data is not None else None
        notes = tuple(f"half: {note}" for note in made.notes)
        return Variant(precision, made.graph, calibration=record, notes=notes)

    # ── several precisions, by measurement ────────────────────────────────────────────────────────────

    @cached_property
    def _smallest(self) -> Variant:
        """The smallest precision that is good enough, computed literally: nothing can be timed here."""
        reasons = []
        for precision in ("int8", "float16"):
            if precision not in self.device.precisions:
                continue
            self._on_event(f"judge {precision}, computed literally")
            form = self._int8 if precision == "int8" else self._half(precision)
            if not (why := self._shortcoming(form.graph)):
                note = (
                    f"auto: {precision} is the smallest precision that passes; nothing was timed, since the "
                    "device is another machine"
                )
                return replace(form, notes=(*form.notes, note))
            reasons.append(f"{precision}: {why}")
        note = f"auto: stays in float32: {'; '.join(reasons) or 'the device has no smaller precision'}"
        return Variant("float32", self.graph, notes=(note,))

    def _shortcoming(self, graph: Graph) -> str:
        """Why a graph, computed literally, is not good enough; empty where it is."""
        with probe.opened_whole(graph, threads=self._threads) as run:
            found = compare.compare(
                self.evidence.expected,
                run(self.evidence.feeds),
                reference=self.evidence.reference,
                inputs=self.evidence.inputs,
                limits=self.limits,
            )
            return "; ".join(found.failures) or (self._failures(run) if self.judge is not None else "")

    def _fastest(self, build: Build) -> Iterator[Variant]:
        """Float32, and what was found to be faster with one backend and good enough, if anything was."""
        try:
            found = self._search(build)
        except (BackendError, LimitError, UnsupportedError):
            # It does not take the network in float32, and says so once more when it is entered.
            yield Variant("float32", self.graph)
            return
        if found.precision == "float32":
            yield Variant("float32", self.graph, notes=found.notes)
            return
        yield Variant("float32", self.graph)
        yield self._variant(found)

    def _search(self, build: Build) -> mixed.Assignment:
        prepared = self._prepared
        bench = mixed.Bench(
            build.backend,
            build.target,
            prepared.samples,
            gate=self._failures if self.judge is not None else None,
            min_snr_db=self.limits.min_snr_db,
            threads=self._threads,
            limits=self._child,
        )
        return mixed.search(
            prepared.graph,
            prepared.groups,
            prepared.lower,
            bench,
            self._sensitivity,
            precisions=prepared.precisions,
            on_event=self._on_event,
        )

    @cached_property
    def _sensitivity(self) -> mixed.Sensitivity:
        prepared = self._prepared
        return mixed.Sensitivity(
            prepared.graph,
            prepared.lower,
            prepared.samples,
            estimates=prepared.estimates,
            threads=self._threads,
        )

    def _failures(self, run: Run) -> str:
        """What the labelled cases say against a network; empty where they say nothing."""
        assert self.judge is not None
        return "; ".join(self.judge.judge(run).all_failures)

    # ── what several forms need ───────────────────────────────────────────────────────────────────────

    def _ranges(self, data: Dataset) -> Ranges:
        return calibration.calibrate(
            self.graph,
            data,
            memory_limit_bytes=self.wanted.memory_bytes,
            time_limit_s=self._child.time_s,
            threads=self._threads,
            on_event=self._on_event,
        )

    @cached_property
    def _prepared(self) -> Preparation:
        assert self.data is not None
        return prepare(
            self.graph,
            self.data,
            self.device,
            memory_bytes=self.wanted.memory_bytes,
            time_limit_s=self._child.time_s,
            threads=self._threads,
            on_event=self._on_event,
            keeps=self._keeps if self.judge is not None else None,
        )

    def _keeps(self, graph: Graph) -> bool:
        """Whether the labelled cases say nothing against a network, computed literally."""
        with probe.opened_whole(graph, threads=self._threads) as run:
            return not self._failures(run)

    def _variant(self, found: mixed.Assignment) -> Variant:
        assert self.data is not None
        meaning = None
        if "bfloat16" not in {choice.precision for choice in found.choices}:
            # Nothing computes bfloat16 literally; there the reference alone judges.
            with probe.opened_whole(found.graph, threads=self._threads) as run:
                meaning = run(self.evidence.feeds)
        layers = self._prepared.layers(found)
        return Variant(found.precision, found.graph, meaning, layers, self.data.record, found.notes)
