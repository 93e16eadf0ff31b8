"""What was measured, as values: they stand in a bundle's manifest and in every ``--json``.

Seconds and bytes; every sample is kept. The functions that make them are in :mod:`edgekit.compare`,
:mod:`edgekit.gates` and :mod:`edgekit.profiling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.errors import SpecError
from edgekit.machine import Machine

__all__ = [
    "LATER",
    "AccuracyLimits",
    "AccuracyReport",
    "Candidate",
    "CaseRecord",
    "CaseResult",
    "ClassResult",
    "GroupResult",
    "LatencyReport",
    "LayerReport",
    "Machine",
    "MetricReport",
    "MetricValue",
    "TaskLimits",
    "TaskReport",
    "TensorAccuracy",
    "Tolerance",
]

# For fields that came after the first bundles: left out where they say nothing new, so that the bytes of
# those bundles stay as they are.
LATER: dict[str, Any] = {"later": True}

# Samples that a percentile needs at least, so that one of them lies above it.
_NEEDED = {99.0: 100, 99.9: 1000}


@dataclass(frozen=True)
class TensorAccuracy:
    """How near one output is to its reference.

    An output that cannot be compared (missing, of another shape, with NaN) has infinite errors.

    Attributes:
        name: Name of the output.
        max_abs_error: Largest absolute difference, in the output's unit.
        max_rel_error: ``max_abs_error`` over the largest absolute value of the reference.
        snr_db: 10·log10 of the reference's energy over that of the difference; infinite where they are equal.
        cosine: Cosine of the angle between the two as vectors.
        informative: Whether the reference varies; agreement with a constant proves nothing.
    """

    name: str
    max_abs_error: float
    max_rel_error: float
    snr_db: float
    cosine: float
    informative: bool


@dataclass(frozen=True)
class AccuracyLimits:
    """What the user demands of every output; ``None`` demands nothing.

    Attributes:
        max_abs_error: Largest allowed absolute difference.
        min_snr_db: Smallest allowed signal-to-noise ratio.
    """

    max_abs_error: float | None = None
    min_snr_db: float | None = None


@dataclass(frozen=True)
class AccuracyReport:
    """A compiled model against its reference.

    Attributes:
        reference: What it was compared with: ``"pytorch"`` (outputs recorded at export) or ``"reference"``.
        inputs: Which inputs were used: ``"given: scan.npy"`` or ``"generated: seed 0"``.
        tensors: One entry an output.
        limits: What was demanded.
        failures: One sentence for each demand that was not met.
    """

    reference: str
    inputs: str
    tensors: tuple[TensorAccuracy, ...]
    limits: AccuracyLimits = AccuracyLimits()
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every demand was met."""
        return not self.failures

    @property
    def worst_snr_db(self) -> float:
        """The smallest signal-to-noise ratio of all outputs."""
        return min((t.snr_db for t in self.tensors), default=-math.inf)


@dataclass(frozen=True)
class LatencyReport:
    """How long a session takes, end to end: checks, steps, network.

    Attributes:
        samples_s: Every measured run after the warm-up, in order.
        load_s: Opening: reading, verifying, loading into the vendor's runtime.
        first_run_s: The first run after opening.
        warmup_s: The runs that were made until the running median settled.
        settled: Whether it settled within the time allowed.
        stages_s: Every sample of each stage by name (``"network"``, and each step), where measured.
        peak_memory_bytes: Largest resident memory of the process so far; 0 where unknown.
        threads: Threads that the session was opened with; 0 for all.
        shapes: Shape of each input.
        machine: Where.
    """

    samples_s: tuple[float, ...]
    load_s: float
    first_run_s: float
    warmup_s: tuple[float, ...]
    settled: bool
    stages_s: dict[str, tuple[float, ...]]
    peak_memory_bytes: int
    threads: int
    shapes: dict[str, tuple[int, ...]]
    machine: Machine

    def __post_init__(self) -> None:
        if not self.samples_s:
            raise SpecError("a latency report wants at least one sample")

    def percentile_s(self, percent: float) -> float:
        """The sample below which ``percent`` of all lie (nearest rank, so always a sample that was seen)."""
        return nearest_rank(self.samples_s, percent)

    @property
    def p50_s(self) -> float:
        """Median."""
        return self.percentile_s(50)

    @property
    def jitter_s(self) -> float:
        """Interquartile range."""
        return self.percentile_s(75) - self.percentile_s(25)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures has to know."""
        runs = len(self.samples_s)
        notes = [
            f"p{percent:g} of {runs} runs is the slowest run: {needed} are needed to tell it"
            for percent, needed in _NEEDED.items()
            if runs < needed
        ]
        if not self.settled:
            notes.append("the warm-up ended before the running median settled")
        if self.machine.load > self.machine.cores:
            notes.append(f"the machine was busy: load {self.machine.load:.1f}, {self.machine.cores} cores")
        return tuple(notes)


def nearest_rank(samples: Iterable[float], percent: float) -> float:
    """The sample below which ``percent`` of all lie: the one of rank ⌈percent / 100 · n⌉."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]


@dataclass(frozen=True)
class MetricValue:
    """What a metric says of one candidate, over all cases."""

    metric: str
    value: float


@dataclass(frozen=True)
class Candidate:
    """One backend that was considered when a bundle was made.

    Attributes:
        backend: Its name, with what it runs on where it compiles for several.
        verdict: ``"chosen"``, ``"slower"``, ``"refused"`` (by the backend), ``"failed"`` (compiling, or a
            limit was exceeded), ``"unavailable"``, or ``"not run here"``: it is in the bundle, and was not
            timed.
        reason: Why, for the last four.
        p50_s: Median of its runs; NaN where it did not run.
        p90_s: 90th percentile likewise.
        runs: Number of measured runs.
        worst_snr_db: Of its outputs against the reference; NaN where it did not run.
        compile_s: Seconds that compiling took.
        artifact_bytes: Size of what it made.
        precision: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"`` or ``"mixed"``.
        values: What each metric of the task says of it.
    """

    backend: str
    verdict: Literal["chosen", "slower", "refused", "failed", "unavailable", "not run here"]
    reason: str = ""
    p50_s: float = math.nan
    p90_s: float = math.nan
    runs: int = 0
    worst_snr_db: float = math.nan
    compile_s: float = math.nan
    artifact_bytes: int = 0
    precision: str = field(default="float32", metadata=LATER)
    values: tuple[MetricValue, ...] = ()


@dataclass(frozen=True)
class LayerReport:
    """What compression did to one layer, or to one group of layers that share a precision.

    Attributes:
        name: Name of the layer in the graph.
        operator: Its operator, such as ``"Conv"``.
        precision: What it computes in.
        minimum: Smallest value of its output on the calibration data.
        maximum: Largest one.
        saturation: Share of those values beyond what the precision holds, 0 … 1; NaN where it was not
            measured.
        snr_db: Of its output against the baseline's, with everything before it compressed as well; NaN where
            it was not measured.
        reason: Why it stayed in float32, if it did.
    """

    name: str
    operator: str
    precision: str
    minimum: float = math.nan
    maximum: float = math.nan
    saturation: float = math.nan
    snr_db: float = math.nan
    reason: str = ""


# ── the task: labelled cases, a baseline and a candidate ──────────────────────────────────────────────


@dataclass(frozen=True)
class Tolerance:
    """How much worse something may get: in the metric's unit, or as a share of the baseline's value."""

    amount: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf:
            raise SpecError(f"a tolerance wants a finite number >= 0, got {self.amount}")

    def allowed(self, baseline: float) -> float:
        """The drop that is allowed from this value of the baseline, in the metric's unit."""
        return self.amount * abs(baseline) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{self.amount * 100:.6g} %" if self.relative else f"{self.amount:.6g}"


@dataclass(frozen=True)
class TaskLimits:
    """What the user demands of one metric; ``None`` demands nothing.

    Attributes:
        max_drop: Largest drop of the value over all cases, and of each class over all cases.
        max_case_drop: Largest drop in any one case; of several classes the worst counts.
        max_group_drop: Largest drop of the value over the cases of any one group.
        margin: Non-inferiority: the interval of the drop has to lie below it.
        worst_value: The candidate's own value over all cases has to be no worse.
        min_cases: Fewest cases in which it has to be measured.
        min_group_cases: Likewise in each group, where a group has a limit.
        confidence: Of the intervals, which have two sides.
    """

    max_drop: Tolerance | None = None
    max_case_drop: Tolerance | None = None
    max_group_drop: Tolerance | None = None
    margin: Tolerance | None = None
    worst_value: float | None = None
    min_cases: int = 10
    min_group_cases: int = 3
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise SpecError(f"a confidence wants to lie in 0.5 … 1, got {self.confidence}")
        if self.min_cases < 1 or self.min_group_cases < 1:
            raise SpecError(
                f"want at least 1 case, got {self.min_cases}, and {self.min_group_cases} in a group"
            )


@dataclass(frozen=True)
class ClassResult:
    """One class in one case. NaN is not measured: neither side nor the reference has it."""

    name: str
    baseline: float
    candidate: float
    drop: float


@dataclass(frozen=True)
class CaseResult:
    """One case under one metric.

    Attributes:
        case: Its name.
        baseline: Value of the baseline: the mean over the classes that were measured; NaN where none was.
        candidate: Value of the candidate.
        drop: How much worse the candidate is, whichever direction that is; negative where it is better.
        classes: Every class that was measured, where the metric has classes.
        error: Why there is no value of the candidate.
    """

    case: str
    baseline: float
    candidate: float
    drop: float
    classes: tuple[ClassResult, ...] = ()
    error: str = ""

    @property
    def worst_class(self) -> ClassResult | None:
        """The class with the largest drop, where there are classes."""
        known = [c for c in self.classes if not math.isnan(c.drop)]
        return max(known, key=lambda c: c.drop, default=None)

    @property
    def worst_drop(self) -> float:
        """The largest drop of its classes and of their mean; NaN where nothing was measured."""
        drops = [d for d in (self.drop, *(c.drop for c in self.classes)) if not math.isnan(d)]
        return max(drops, default=math.nan)


@dataclass(frozen=True)
class GroupResult:
    """Several cases under one metric.

    Attributes:
        kind: ``"all"`` cases, one ``"class"`` over all cases, or the cases of one ``"group"``.
        name: Of the class or group; empty for all.
        cases: In how many it was measured.
        baseline: Value of the baseline over them.
        candidate: Value of the candidate.
        drop: How much worse the candidate is.
        low: Lower end of the drop's interval; NaN where there are too few cases for one.
        high: Upper end.
    """

    kind: Literal["all", "class", "group"]
    name: str
    cases: int
    baseline: float
    candidate: float
    drop: float
    low: float = math.nan
    high: float = math.nan

    @property
    def title(self) -> str:
        """``all cases``, ``class 2`` or ``group 'site A'``."""
        if self.kind == "all":
            return "all cases"
        return f"class {self.name}" if self.kind == "class" else f"group {self.name!r}"


@dataclass(frozen=True)
class MetricReport:
    """One metric over all cases.

    Attributes:
        metric: Its name.
        result: The result that it looks at.
        better: Which direction is better.
        unit: Of its values; empty for a share or a ratio.
        reference: What results are compared with: ``"labels"`` (the cases' own), ``"baseline"`` (where they
            have none) or ``"nothing"`` (the metric needs no reference).
        options: Options of the metric that were used.
        limits: What was demanded.
        groups: All cases, then each class, then each group.
        cases: Every case.
        notes: What a reader of the figures has to know.
        failures: One sentence for each demand that was not met.
    """

    metric: str
    result: str
    better: Literal["higher", "lower"]
    unit: str
    reference: Literal["labels", "baseline", "nothing"]
    options: dict[str, int | float | str | bool]
    limits: TaskLimits
    groups: tuple[GroupResult, ...]
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def overall(self) -> GroupResult:
        """Over all cases."""
        return self.groups[0]

    def worst(self, count: int) -> tuple[CaseResult, ...]:
        """The cases that got worst, those that failed altogether first."""
        keys = [(not c.error, -c.worst_drop if c.worst_drop == c.worst_drop else 0.0) for c in self.cases]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return tuple(self.cases[i] for i in order[:count])


@dataclass(frozen=True)
class CaseRecord:
    """A labelled case: its name, its groups, and the SHA-256 over the content of its files."""

    name: str
    sha256: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskReport:
    """A candidate against the baseline on labelled cases.

    Attributes:
        source: Name of the file that lists the cases.
        sha256: Of that file, in hexadecimal.
        baseline: What the candidate was compared with, such as ``"float32 reference"``.
        cases: The cases, in order.
        metrics: One entry a metric.
        max_latency_s: Largest median latency allowed; ``None`` for any.
        latency_s: What was measured; NaN where nothing was.
        max_size_bytes: Largest artifact allowed; ``None`` for any.
        size_bytes: What was measured; 0 where nothing was.
        failures: What failed beside the metrics' demands: a candidate that crashed, latency, size.
    """

    source: str
    sha256: str
    baseline: str
    cases: tuple[CaseRecord, ...]
    metrics: tuple[MetricReport, ...]
    max_latency_s: float | None = None
    latency_s: float = math.nan
    max_size_bytes: int | None = None
    size_bytes: int = 0
    failures: tuple[str, ...] = ()

    @property
    def all_failures(self) -> tuple[str, ...]:
        """Every sentence, the metrics' included."""
        return (*self.failures, *(sentence for metric in self.metrics for sentence in metric.failures))

    @property
    def passed(self) -> bool:
        """Whether every demand was met; a report without a metric meets none."""
        return bool(self.metrics) and not self.all_failures

    @property
    def values(self) -> tuple[MetricValue, ...]:
        """The candidate's value of each metric over all cases."""
        return tuple(MetricValue(m.metric, m.overall.candidate) for m in self.metrics)
