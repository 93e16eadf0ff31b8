"""Gates as people type them, and the limits that are no metric's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from edgekit.cases import MIN_CASES
from edgekit.errors import SpecError, UsageError, did_you_mean
from edgekit.metrics import METRICS
from edgekit.metrics.base import Metric, Option
from edgekit.reports import TaskLimits, TaskReport, Tolerance

_T = TypeVar("_T")

_EXAMPLE = "--metric 'dice mask scores=logits'"


@dataclass(frozen=True)
class Gate:
    """One metric and what it has to keep.

    Attributes:
        metric: Name in :data:`edgekit.metrics.METRICS`.
        result: The model's result that it looks at; empty for the only one that fits.
        options: Options of the metric; it has defaults for the others.
        limits: What is demanded.
    """

    metric: str
    result: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    limits: TaskLimits = field(default_factory=TaskLimits)

    def __post_init__(self) -> None:
        metric = METRICS[self.metric]
        metric.complete(self.options)
        if self.limits.max_case_drop is not None and not metric.has_case_values:
            raise UsageError(
                f"metric {metric.name} has a value for many cases together, not for one",
                where="--max-case-drop",
                hint=f"leave --max-case-drop out for {metric.name}",
            )

    @classmethod
    def of(cls, text: str, limits: TaskLimits = TaskLimits()) -> Gate:
        """Read ``METRIC [RESULT] [OPTION=VALUE …]``.

        Raises:
            UsageError: An unknown metric or option, or a value of another type.
        """
        words = text.split()
        names = [word for word in words if "=" not in word]
        if not words or words[0] not in names or len(names) > 2:
            raise UsageError(
                f"want a metric, the result that it looks at and options, got {text!r}",
                where="--metric",
                hint=_EXAMPLE,
            )
        try:
            return cls._read(names, words, limits)
        except UsageError as error:
            raise UsageError(
                error.message, where=error.where or f"--metric {text}", hint=error.hint
            ) from None

    @classmethod
    def _read(cls, names: Sequence[str], words: Sequence[str], limits: TaskLimits) -> Gate:
        metric = METRICS[names[0]]
        options: dict[str, Option] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                continue
            if not name or not value or name in options:
                raise UsageError(f"want OPTION=VALUE once, got {word!r}", where="--metric", hint=_EXAMPLE)
            options[name] = _option(metric, name, value)
        return cls(metric.name, names[1] if len(names) == 2 else "", options, limits)


def parse(
    metrics: Sequence[str],
    *,
    max_drop: Sequence[str] = (),
    max_case_drop: Sequence[str] = (),
    max_group_drop: Sequence[str] = (),
    margin: Sequence[str] = (),
    worst_value: Sequence[str] = (),
    min_cases: int = MIN_CASES,
    min_group_cases: int = TaskLimits.min_group_cases,
    confidence: float = TaskLimits.confidence,
) -> tuple[Gate, ...]:
    """Gates from the texts of a command line.

    Args:
        metrics: ``METRIC [RESULT] [OPTION=VALUE …]`` each.
        max_drop: ``[METRIC=]X`` in the metric's unit or ``[METRIC=]X%`` of the baseline's value. The metric
        may
            be left out where there is only one; a percentage without one holds for all.
        max_case_drop: Likewise, for any one case.
        max_group_drop: Likewise, for any group.
        margin: Likewise, for the interval of the drop.
        worst_value: ``[METRIC=]X``: the value itself may be no worse.
        min_cases: Fewest cases.
        min_group_cases: Fewest cases of a group that has a limit.
        confidence: Of the intervals.

    Raises:
        UsageError: A text that cannot be read, a limit without a metric, or no limit's number.
    """
    gates = [Gate.of(text) for text in metrics]
    names = [gate.metric for gate in gates]
    try:
        common = TaskLimits(min_cases=min_cases, min_group_cases=min_group_cases, confidence=confidence)
    except SpecError as error:
        raise UsageError(error.message, where="--min-cases, --confidence") from None
    drops = _by_metric("--max-drop", max_drop, names, _tolerance)
    case_drops = _by_metric("--max-case-drop", max_case_drop, names, _tolerance)
    group_drops = _by_metric("--max-group-drop", max_group_drop, names, _tolerance)
    margins = _by_metric("--margin", margin, names, _margin)
    worst = _by_metric("--worst-value", worst_value, names, _number)
    return tuple(
        replace(
            gate,
            limits=replace(
                common,
                max_drop=drops.get(gate.metric),
                max_case_drop=case_drops.get(gate.metric),
                max_group_drop=group_drops.get(gate.metric),
                margin=margins.get(gate.metric),
                worst_value=worst.get(gate.metric),
            ),
        )
        for gate in gates
    )


@dataclass(frozen=True)
class Budget:
    """What a compiled model may cost.

    Attributes:
        max_latency_s: Largest median latency; ``None`` for any.
        max_size_bytes: Largest artifact; ``None`` for any.
    """

    max_latency_s: float | None = None
    max_size_bytes: int | None = None

    def exceeded(self, latency_s: float = math.nan, size_bytes: int = 0) -> tuple[str, ...]:
        """A sentence for each limit that is exceeded; one on what was not measured is.

        Args:
            latency_s: Median seconds.
            size_bytes: Size of the artifact; 0 where nothing was measured.
        """
        failures = []
        if self.max_latency_s is not None and not latency_s <= self.max_latency_s:
            got = "was not measured" if math.isnan(latency_s) else f"is {latency_s * 1e3:.4g} ms"
            failures.append(f"the median latency {got}; allowed are {self.max_latency_s * 1e3:.4g} ms")
        if self.max_size_bytes is not None and not 0 < size_bytes <= self.max_size_bytes:
            got = f"is {size_bytes / 2**20:.4g} MiB" if size_bytes else "was not measured"
            failures.append(f"the artifact's size {got}; allowed are {self.max_size_bytes / 2**20:.4g} MiB")
        return tuple(failures)

    def applied(self, report: TaskReport, latency_s: float = math.nan, size_bytes: int = 0) -> TaskReport:
        """The report with these figures, and what they exceed among its failures; see :meth:`exceeded`."""
        return replace(
            report,
            max_latency_s=self.max_latency_s,
            latency_s=latency_s,
            max_size_bytes=self.max_size_bytes,
            size_bytes=size_bytes,
            failures=(*report.failures, *self.exceeded(latency_s, size_bytes)),
        )


def _by_metric(
    option: str, texts: Sequence[str], names: Sequence[str], read: Callable[[str, str], _T]
) -> dict[str, _T]:
    """The value of each metric that has one."""
    found: dict[str, _T] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not names:
            raise UsageError(
                f"a limit wants a metric, got {text!r} alone", where=option, hint="--metric dice"
            )
        if equals and name not in names:
            near = did_you_mean(name, names)
            raise UsageError(
                f"no --metric is called {name!r}: want {', '.join(names)}",
                where=option,
                hint=f"did you mean {near!r}?" if near else None,
            )
        if not equals and len(set(names)) > 1 and not number.strip().endswith("%"):
            raise UsageError(
                f"which metric has it? want METRIC={number}",
                where=option,
                hint=f"{option} {names[0]}={number}",
            )
        for metric in (name,) if equals else dict.fromkeys(names):
            if metric in found:
                raise UsageError(f"{metric!r} has two limits", where=option, hint="leave one of them out")
            found[metric] = read(option, number)
    return found


def _tolerance(option: str, text: str) -> Tolerance:
    share = text.strip().removesuffix("%")
    is_relative = share != text.strip()
    amount = _number(option, share)
    try:
        return Tolerance(amount / 100 if is_relative else amount, is_relative)
    except SpecError as error:
        raise UsageError(error.message, where=f"{option} {text}", hint=f"{option} 0.01") from None


def _margin(option: str, text: str) -> Tolerance:
    margin = _tolerance(option, text)
    if not margin.amount:
        raise UsageError("no interval lies below a margin of 0", where=option, hint=f"{option} 0.01")
    return margin


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            f"want a number, or a percentage of the baseline's value, got {text!r}",
            where=option,
            hint=f"{option} 0.01 or {option} 1%",
        )
    return value


def _option(metric: Metric, name: str, text: str) -> Option:
    """A metric's option from its text, by the type of its default."""
    default = metric.defaults.get(name, "")
    if isinstance(default, str):
        return text
    try:
        return type(default)(text)
    except ValueError:
        want = type(default).__name__
        raise UsageError(
            f"option {name!r} of metric {metric.name}: want {want}, got {text!r}",
            where="--metric",
            hint=f"{name}={default}, the default",
        ) from None
