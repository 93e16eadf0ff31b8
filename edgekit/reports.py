"""What was measured, as values: they stand in a bundle's manifest and in every ``--json``.

Seconds and bytes; every sample is kept. The functions that make them are in :mod:`edgekit.compare` and
:mod:`edgekit.profiling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgekit.errors import SpecError
from edgekit.machine import Machine

__all__ = ["AccuracyLimits", "AccuracyReport", "Candidate", "LatencyReport", "Machine", "TensorAccuracy"]

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
class Candidate:
    """One backend that was considered when a bundle was made.

    Attributes:
        backend: Its name.
        verdict: ``"chosen"``, ``"slower"``, ``"refused"`` (by the backend), ``"failed"`` (compiling, or a
            limit was exceeded) or ``"unavailable"``.
        reason: Why, for the last three.
        p50_s: Median of its runs; NaN where it did not run.
        p90_s: 90th percentile likewise.
        runs: Number of measured runs.
        worst_snr_db: Of its outputs against the reference; NaN where it did not run.
        compile_s: Seconds that compiling took.
        artifact_bytes: Size of what it made.
    """

    backend: str
    verdict: Literal["chosen", "slower", "refused", "failed", "unavailable"]
    reason: str = ""
    p50_s: float = math.nan
    p90_s: float = math.nan
    runs: int = 0
    worst_snr_db: float = math.nan
    compile_s: float = math.nan
    artifact_bytes: int = 0
