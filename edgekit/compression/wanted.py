"""What a user asks for: precisions to try, the data to find them on, and what has to be kept."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edgekit import calibration, gates, probe
from edgekit.cases import Cases
from edgekit.dataset import Dataset, InputFacts, look_at, unlike
from edgekit.errors import InputError, UsageError, did_you_mean
from edgekit.gates import Budget, Gate, Judge
from edgekit.graph.graph import Graph
from edgekit.reports import AccuracyLimits
from edgekit.spec import TensorSpec
from edgekit.volumes import Volume

Precision = Literal["float32", "float16", "bfloat16", "int8", "auto"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# What no image of the user's own has to be looked at for: its numbers reach as far as float32's.
_WITHOUT_DATA = ("float32", "bfloat16")
# Cases that calibration data are held against.
_COMPARED = 8


@dataclass(frozen=True)
class Compression:
    """What may be given up for speed and size, and what has to be kept.

    Attributes:
        precision: ``"float32"``; ``"float16"``, ``"bfloat16"`` or ``"int8"`` wherever that is possible; or
            ``"auto"``, the fastest assignment of the target's precisions to layers that keeps everything
            below, which may be float32.
        calibrate: Images of the user's own, as :meth:`edgekit.dataset.Dataset.open` takes them.
        patches: Parts to take from each image that is larger than the model's input.
        cases: CSV file of labelled cases (:mod:`edgekit.cases`).
        gates: What to keep on them.
        budget: Largest latency and size.
        memory_bytes: Cap on the memory of calibration.
    """

    precision: Precision = "float32"
    calibrate: Sequence[str] = ()
    patches: int = 1
    cases: Path | None = None
    gates: tuple[Gate, ...] = ()
    budget: Budget = field(default_factory=Budget)
    memory_bytes: int = calibration.MEMORY_BYTES

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            near = did_you_mean(self.precision, PRECISIONS)
            raise UsageError(
                f"unknown precision {self.precision!r}: want one of {', '.join(PRECISIONS)}",
                where="--precision",
                hint=f"did you mean {near!r}?" if near else None,
            )
        if self.precision not in _WITHOUT_DATA and not self.calibrate:
            raise UsageError(
                f"{self.precision} wants calibration data: images like those that the device will see",
                where="--precision",
                hint="--calibrate FOLDER",
            )
        if bool(self.gates) != (self.cases is not None):
            raise UsageError(
                "labelled cases want a metric" if self.cases else "a metric wants labelled cases",
                where="--cases" if self.cases else "--metric",
                hint="--metric dice --max-drop 0.01" if self.cases else "--cases FILE.csv",
            )

    def check(self, limits: AccuracyLimits) -> None:
        """Refuse what cannot be done, before anything is.

        Raises:
            UsageError: ``"auto"``, and nothing that has to be kept.
        """
        if self.precision == "auto" and not self.gates and limits.min_snr_db is None:
            raise UsageError(
                "auto wants to know what has to be kept: a metric on labelled cases, or a noise limit",
                where="--precision auto",
                hint="--cases FILE.csv --metric dice --max-drop 0.01, or --min-snr-db 30",
            )

    def data_for(self, given: Sequence[TensorSpec]) -> Dataset | None:
        """The calibration data for a model's inputs, if there are any.

        Raises:
            InputError, SpecError, UsageError: They are refused; see :mod:`edgekit.dataset`.
        """
        return Dataset.open(self.calibrate, given, patches=self.patches) if self.calibrate else None

    def described(self, original: Graph) -> tuple[str, ...]:
        """What would be done, a line each; files are listed, and no image is read but for its header.

        Raises:
            EdgekitError: As :meth:`data_for` and :meth:`edgekit.cases.Cases.open`.
        """
        lines = [f"precision: {self.precision}"]
        if data := self.data_for(original.given):
            lines.append(f"calibration: {len(data)} samples of {', '.join(self.calibrate)}")
        if self.cases is not None:
            lines.append(f"cases: {len(self._listed(original))} of {self.cases}")
        return (*lines, *(f"gate: {gate}" for gate in self.gates))

    def _listed(self, original: Graph) -> Cases:
        assert self.cases is not None
        minimum = min(gate.limits.min_cases for gate in self.gates)
        return Cases.open(self.cases, original.given, original.results, minimum=minimum)

    @contextlib.contextmanager
    def judge(
        self, original: Graph, data: Dataset | None, threads: int, on_event: Callable[[str], None]
    ) -> Iterator[Judge | None]:
        """What judges candidates on the labelled cases; ``None`` where there are none.

        Args:
            original: The model as it was loaded, in float32: the baseline.
            data: The calibration data, which have to be of one kind with the cases.
            threads: Threads to use; 0 for all.
            on_event: Called with one line at the beginning.

        Raises:
            InputError: The calibration data are plainly of another kind than the cases.
            EdgekitError: As :class:`edgekit.gates.Judge` and :meth:`edgekit.cases.Cases.open`.
        """
        if self.cases is None:
            yield None
            return
        cases = self._listed(original)
        if data is not None:
            _check_alike(data, cases)
        on_event(f"run float32 on {len(cases)} cases")
        with (
            probe.opened_whole(original, threads=threads) as baseline,
            gates.Judge(self.gates, cases, original.results, baseline) as judged,
        ):
            yield judged


def _check_alike(data: Dataset, cases: Cases) -> None:
    """Refuse calibration data that are plainly of another kind than the cases.

    Raises:
        InputError: They are.
    """
    first = [case.feeds for case in itertools.islice(cases, _COMPARED)]
    facts = []
    for spec in data.specs:
        images = [look_at(Volume(feeds[spec.name]), (), (), str(cases.path)) for feeds in first]
        facts.append(InputFacts.of(spec.name, images))
    if reasons := unlike(data.record.inputs, facts):
        raise InputError(
            f"the calibration data are of another kind than the cases: {'; '.join(reasons)}",
            where=f"{', '.join(data.record.sources)} against {cases.path}",
            hint="calibrate on images of the same scanner, unit and contrast as the cases",
        )
