"""From what a metric says of each case to a report: figures, intervals, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgekit.gates.options import Gate
from edgekit.gates.sentences import Sentences
from edgekit.metrics.base import CaseMetric, Floats, Metric, Option
from edgekit.metrics.bootstrap import interval
from edgekit.reports import (
    CaseRecord,
    CaseResult,
    ClassResult,
    GroupResult,
    MetricReport,
)
from edgekit.spec import Array, TensorSpec

# For each case: the row of each class.
Observed = list[dict[str, Floats]]
# What results are compared with; see MetricReport.
Reference = Literal["labels", "baseline", "nothing"]


@dataclass(frozen=True)
class Task:
    """A gate on a model: what is measured, on which result, against what.

    Attributes:
        gate: As the user gave it.
        metric: Its metric.
        spec: The result that it looks at.
        reference: ``"labels"``, ``"baseline"`` or ``"nothing"``; see :class:`MetricReport`.
        options: Every option of the metric.
        notes: What was settled by looking.
    """

    gate: Gate
    metric: Metric
    spec: TensorSpec
    reference: Reference
    options: Mapping[str, Option]
    notes: tuple[str, ...] = ()

    def settled(self, result: Array) -> Task:
        """The same with nothing left to guess, from the first result of the baseline."""
        options = self.metric.settle(result, self.spec.layout, self.options)
        changed = {n: v for n, v in options.items() if v != self.options[n]}
        notes = tuple(
            f"{self.metric.name}: {name} of {self.spec.name!r} are taken as {value}"
            for name, value in changed.items()
        )
        return replace(self, options=options, notes=(*self.notes, *notes))


def overall_drop(task: Task, baseline: Observed, candidate: Observed) -> float:
    """How much worse the candidate is over all cases."""
    series = _Series(task.metric, baseline, candidate, [""] * len(baseline))
    return float(series.drops("", np.ones((1, len(baseline))))[0])


def report(
    task: Task,
    records: Sequence[CaseRecord],
    baseline: Observed,
    candidate: Observed,
    errors: Sequence[str],
    *,
    has_spacing: bool,
) -> MetricReport:
    """Everything about one metric.

    Args:
        task: What was measured.
        records: The cases.
        baseline: What the metric says of the baseline in each case.
        candidate: Likewise of the candidate; nothing where it failed.
        errors: Why it failed in each case, or empty.
        has_spacing: Whether lengths are in mm.
    """
    metric, limits = task.metric, task.gate.limits
    series = _Series(metric, baseline, candidate, errors)
    cases = tuple(series.case(i, record.name, errors[i]) for i, record in enumerate(records))
    groups = tuple(_groups(series, records, limits.confidence))
    unit = metric.unit_of(has_spacing)
    says = Sentences(metric, unit, limits)
    failures = [
        *says.about_all(groups[0], failed=sum(map(bool, errors)), has_labels=task.reference == "labels"),
        *(s for g in groups if g.kind != "group" for s in says.about_drop(g, limits.max_drop)),
        *(s for g in groups if g.kind != "group" for s in says.about_margin(g)),
        *says.about_cases(cases),
        *says.about_lost(cases),
        *(s for g in groups if g.kind == "group" for s in says.about_group(g)),
    ]
    notes = [*task.notes]
    if task.reference == "baseline":
        notes.append(
            f"{metric.name}: the cases have no references for {task.spec.name!r}; results are compared with "
            "the baseline's own"
        )
    if not failures and not any(errors):
        notes += says.about_unseen(cases)
    return MetricReport(
        metric=metric.name,
        result=task.spec.name,
        better=metric.better,
        unit=unit,
        reference=task.reference,
        options=dict(sorted(task.options.items())),
        limits=limits,
        groups=groups,
        cases=cases,
        notes=tuple(notes),
        failures=tuple(failures),
    )


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────


class _Series:
    """Rows of every case, by class, of both sides; the class ``""`` is all classes together."""

    def __init__(
        self, metric: Metric, baseline: Observed, candidate: Observed, errors: Sequence[str]
    ) -> None:
        self.metric = metric
        names = sorted({n for case in (*baseline, *candidate) for n in case}, key=lambda n: (len(n), n))
        width = max((len(row) for case in (*baseline, *candidate) for row in case.values()), default=1)
        self.failed = np.array([bool(error) for error in errors])
        self.rows: dict[str, tuple[Floats, Floats]] = {}
        for name in names:
            ours, theirs = (_stack(side, name, width) for side in (baseline, candidate))
            if metric.absence_is_perfect and metric.perfect is not None:
                _fill(ours, ~np.isnan(theirs), metric.perfect)
                _fill(theirs, ~np.isnan(ours) & ~self.failed[:, None], metric.perfect)
            self.rows[name] = (ours, theirs)
        self.classes = [name for name in names if name]
        if "" not in self.rows and isinstance(metric, CaseMetric):
            pairs = list(self.rows.values())
            self.rows[""] = (
                _mean([ours for ours, _ in pairs], len(errors)),
                _mean([theirs for _, theirs in pairs], len(errors)),
            )

    def values(self, name: str, side: int, weights: Floats) -> Floats:
        """Of one side, over cases that count as often as the weights say; failed cases never do."""
        weights = weights * ~self.failed
        if name in self.rows:
            return self.metric.pool(self.rows[name][side], weights)
        pooled = [self.metric.pool(self.rows[label][side], weights) for label in self.classes]
        return np.asarray(np.mean(pooled, axis=0)) if pooled else np.full(len(weights), math.nan)

    def drops(self, name: str, weights: Floats) -> Floats:
        """How much worse the candidate is."""
        ours, theirs = (self.values(name, side, weights) for side in (0, 1))
        sign = 1 if self.metric.better == "higher" else -1
        with np.errstate(invalid="ignore"):
            return np.where(ours == theirs, 0.0, sign * (ours - theirs))

    def measured(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """In which cases there is a value of the baseline, and the candidate did not fail."""
        names = [name] if name in self.rows else self.classes
        known = [~np.isnan(self.rows[n][0]).any(axis=1) for n in names]
        return np.any(known, axis=0) & ~self.failed if known else np.zeros(len(self.failed), bool)

    def case(self, index: int, name: str, error: str) -> CaseResult:
        classes = []
        for label in self.classes if len(self.classes) > 1 else ():
            ours, theirs = (self._value(label, side, index) for side in (0, 1))
            if not (math.isnan(ours) and math.isnan(theirs)):
                classes.append(ClassResult(label, ours, theirs, self.metric.drop(ours, theirs)))
        only = self.classes[0] if len(self.classes) == 1 and "" not in self.rows else ""
        ours, theirs = (self._value(only, side, index) for side in (0, 1))
        return CaseResult(name, ours, theirs, self.metric.drop(ours, theirs), tuple(classes), error)

    def _value(self, name: str, side: int, index: int) -> float:
        if name not in self.rows:  # of all classes, where the metric pools them
            values = [self._value(label, side, index) for label in self.classes]
            known = [v for v in values if not math.isnan(v)]
            return float(np.mean(known)) if known else math.nan
        row = self.rows[name][side][index]
        return math.nan if np.isnan(row).any() else self.metric.case_value(row)


def _stack(side: Observed, name: str, width: int) -> Floats:
    missing = np.full(width, math.nan)
    return np.stack([case.get(name, missing) for case in side])


def _fill(rows: Floats, where: np.ndarray[tuple[int, int], np.dtype[np.bool_]], value: float) -> None:
    rows[np.isnan(rows) & where] = value


def _mean(rows: Sequence[Floats], count: int) -> Floats:
    """Over the classes of each case that were measured."""
    if not rows:
        return np.full((count, 1), math.nan)
    stacked = np.stack(rows)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0))


def _groups(series: _Series, records: Sequence[CaseRecord], confidence: float) -> Iterator[GroupResult]:
    """All cases, each class over them, each group."""
    everyone = np.ones(len(records), bool)
    yield _summary(series, "all", "", "", everyone, confidence)
    if len(series.classes) > 1:
        for label in series.classes:
            yield _summary(series, "class", label, label, everyone, confidence)
    for group in sorted({group for record in records for group in record.groups}):
        members = np.array([group in record.groups for record in records])
        yield _summary(series, "group", group, "", members, confidence)


def _summary(
    series: _Series,
    kind: Literal["all", "class", "group"],
    title: str,
    name: str,
    members: np.ndarray[tuple[int], np.dtype[np.bool_]],
    confidence: float,
) -> GroupResult:
    chosen = np.flatnonzero(members & series.measured(name))

    def drops(weights: Floats) -> Floats:
        whole = np.zeros((len(weights), len(members)))
        whole[:, chosen] = weights
        return series.drops(name, whole)

    ones = np.zeros((1, len(members)))
    ones[0, chosen] = 1
    ours, theirs = (float(series.values(name, side, ones)[0]) for side in (0, 1))
    low, high = interval(drops, len(chosen), confidence=confidence)
    return GroupResult(kind, title, len(chosen), ours, theirs, series.metric.drop(ours, theirs), low, high)
