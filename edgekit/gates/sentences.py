"""One sentence for each demand that is not met, as a user wants to hear it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.metrics.base import Metric
from edgekit.reports import CaseResult, ClassResult, GroupResult, TaskLimits, Tolerance

# Sentences about single cases; the table of the report has the others.
_MAX_CASES = 3
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Sentences:
    """What is wrong with the figures of one metric.

    Attributes:
        metric: The metric.
        unit: Of its values.
        limits: What is demanded.
    """

    metric: Metric
    unit: str
    limits: TaskLimits

    def about_all(self, overall: GroupResult, *, failed: int, has_labels: bool) -> Iterator[str]:
        """Too few cases, a baseline that does not do the task, a value that is too bad in itself."""
        name, count, wanted = self.metric.name, overall.cases, self.limits.min_cases
        lost = f" ({_cases(failed)} failed)" if failed else ""
        if not count and not failed:
            yield f"{name} was measured in no case: there is nothing in them that it looks at"
            return
        if count < wanted:
            yield f"{name} was measured in {_cases(count)}{lost}; wanted are {wanted} or more"
        if not count:
            return
        useless = self.metric.useless
        if has_labels and useless is not None and not self.metric.drop(overall.baseline, useless) > 0:
            yield (
                f"the baseline's own {name} is {self._value(overall.baseline)}: its results and the "
                "references do not belong together, so no drop means anything"
            )
        floor = self.limits.worst_value
        if floor is not None and not self.metric.drop(floor, overall.candidate) <= 0:
            bound = "or more" if self.metric.better == "higher" else "or less"
            yield (
                f"{name} is {self._value(overall.candidate)} over all cases; "
                f"wanted are {self._value(floor)} {bound}"
            )

    def about_drop(self, group: GroupResult, limit: Tolerance | None) -> Iterator[str]:
        """A value over several cases that fell too far."""
        if limit is None or not group.cases or _within(group.drop, limit.allowed(group.baseline)):
            return
        if math.isnan(group.drop):
            yield f"{self.metric.name} cannot be compared over {group.title}: it is {self._pair(group)}"
            return
        yield f"{self._change(group)} over {group.title}; {self._allowed(limit, group.baseline)}"

    def about_margin(self, group: GroupResult) -> Iterator[str]:
        """An interval that reaches the margin. Classes in fewer cases than are wanted have none to show."""
        margin = self.limits.margin
        is_rare = group.kind == "class" and group.cases < self.limits.min_cases
        if margin is None or not group.cases or is_rare or group.high < margin.allowed(group.baseline):
            return
        name, percent = self.metric.name, f"{self.limits.confidence * 100:g} %"
        if math.isnan(group.high):
            yield (
                f"{name} over {group.title} has no {percent} interval, as {_cases(group.cases)} cannot show "
                "one, so non-inferiority is not shown"
            )
            return
        yield (
            f"{name} over {group.title} may be worse by {self._value(group.high)} ({percent} interval of the "
            f"drop {group.low:.3g} … {group.high:.3g}): that is not below the margin, "
            f"{self._share(margin, group.baseline)}"
        )

    def about_cases(self, cases: Sequence[CaseResult]) -> Iterator[str]:
        """Single cases that fell too far, or have no value any more."""
        gone = [c for c in cases if not c.error and math.isnan(c.candidate) and not math.isnan(c.baseline)]
        for case in gone[:_MAX_CASES]:
            yield (
                f"case {case.case!r}: {self.metric.name} is {self._value(case.baseline)} before and cannot "
                "be measured now"
            )
        yield from self._rest(len(gone), "cannot be measured now")
        limit = self.limits.max_case_drop
        if limit is None:
            return
        fallen = []
        for case in cases:
            parts = [p for p in _parts(case) if not _within(p.drop, limit.allowed(p.baseline))]
            if parts:
                fallen.append((max(parts, key=lambda p: p.drop), case))
        fallen.sort(key=lambda pair: -pair[0].drop)
        for part, case in fallen[:_MAX_CASES]:
            yield (
                f"case {case.case!r}: {self._change(part)}{_of_class(part)}; "
                f"{self._allowed(limit, part.baseline)} in one case"
            )
        yield from self._rest(len(fallen), "fall too far")

    def about_lost(self, cases: Sequence[CaseResult]) -> Iterator[str]:
        """What the baseline finds and the candidate does not find at all: no limit allows that."""
        lost, perfect = self.metric.lost, self.metric.perfect
        if lost is None or perfect is None:
            return
        found = [
            (part, case)
            for case in cases
            for part in case.classes or _parts(case)
            # Found is what is found by half or more.
            if self.metric.drop(part.baseline, (lost + perfect) / 2) >= 0
            and self.metric.drop(lost, part.candidate) >= 0
        ]
        for part, case in found[:_MAX_CASES]:
            what = f"class {part.name}" if part.name else "the structure"
            yield (
                f"case {case.case!r}: {what} is lost: {self.metric.name} {self._value(part.baseline)} "
                f"before, {self._value(part.candidate)} now"
            )
        yield from self._rest(len(found), "lose a structure")

    def about_group(self, group: GroupResult) -> Iterator[str]:
        """A group that fell too far, or is too small to be judged."""
        limit, wanted = self.limits.max_group_drop, self.limits.min_group_cases
        if limit is None:
            return
        if group.cases < wanted:
            yield (
                f"{group.title}: {self.metric.name} was measured in {_cases(group.cases)}; a group wants "
                f"{wanted} or more to be judged"
            )
        yield from self.about_drop(group, limit)

    def about_unseen(self, cases: Sequence[CaseResult]) -> Iterator[str]:
        """How many bad cases a set without one can still hide (Hanley and Lippman-Hand, JAMA 249, 1983)."""
        limit = self.limits.max_case_drop
        count = sum(not math.isnan(case.drop) for case in cases)
        if limit is not None and count:
            share = 1 - (1 - self.limits.confidence) ** (1 / count)
            yield (
                f"none of {_cases(count)} drops by more than {limit}; as far as so few can tell, up to "
                f"{share * 100:.2g} % of others may ({self.limits.confidence * 100:g} % confidence)"
            )

    def _change(self, item: GroupResult | ClassResult) -> str:
        """``dice falls from 0.91 to 0.88, by 0.03``."""
        verb = "falls" if self.metric.better == "higher" else "rises"
        return (
            f"{self.metric.name} {verb} from {self._value(item.baseline)} to {self._value(item.candidate)}, "
            f"by {item.drop:.3g}"
        )

    def _pair(self, item: GroupResult) -> str:
        return f"{self._value(item.baseline)} before and {self._value(item.candidate)} now"

    def _allowed(self, limit: Tolerance, baseline: float) -> str:
        return f"allowed are {self._share(limit, baseline)}"

    def _share(self, limit: Tolerance, baseline: float) -> str:
        return f"{limit} ({limit.allowed(baseline):.3g})" if limit.relative else f"{limit}"

    def _rest(self, count: int, what: str) -> Iterator[str]:
        if count > _MAX_CASES:
            yield f"{self.metric.name}: {count - _MAX_CASES} more like these, which {what}"

    def _value(self, value: float) -> str:
        if math.isnan(value):
            return "not measured"
        return f"{value:.4g}{' ' + self.unit if self.unit else ''}"


def _parts(case: CaseResult) -> list[ClassResult]:
    """The case as a whole and each of its classes, those that were measured on both sides."""
    whole = ClassResult("", case.baseline, case.candidate, case.drop)
    return [part for part in (*case.classes, whole) if not math.isnan(part.drop)]


def _within(drop: float, allowed: float) -> bool:
    """Rounding of the two values forgiven; what is not a number is not within anything."""
    return drop <= allowed + _ROUNDING


def _of_class(part: ClassResult) -> str:
    return f" in class {part.name}" if part.name else ""


def _cases(count: int) -> str:
    return f"{count} case{'' if count == 1 else 's'}"
