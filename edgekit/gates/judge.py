"""Runs a baseline and candidates on labelled cases and keeps what the metrics say of each case."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from edgekit.cases import Cases, Loaded
from edgekit.errors import EdgekitError, GateError, InputError, InternalError, SpecError, UsageError
from edgekit.gates import verdict
from edgekit.gates.options import Gate
from edgekit.gates.verdict import Observed, Reference, Task
from edgekit.metrics import METRICS
from edgekit.metrics.base import SCIPY, Floats, Pair
from edgekit.reports import CaseRecord, TaskReport
from edgekit.spec import Array, TensorSpec, all_finite, format_dims

# Runs a model: a caller's inputs by name give results by name.
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Observer = Callable[[str], None]


def judge(
    gates: Sequence[Gate],
    cases: Cases,
    results: Sequence[TensorSpec],
    baseline: Run,
    candidate: Run,
    *,
    described: str = "float32",
) -> TaskReport:
    """One candidate against the baseline; see :class:`Judge`, which judges several."""
    with Judge(gates, cases, results, baseline, described=described) as judged:
        return judged.judge(candidate)


@dataclass(frozen=True)
class Failed:
    """Why a candidate has no result for a case."""

    reason: str


class Judge:
    """Judges candidates on labelled cases. The baseline runs once, when this is made.

    Images are read one case at a time; what stays is a few numbers a case. Where the cases have no
    references, the baseline's results wait in a temporary folder, which goes with :meth:`close`.

    Args:
        gates: What to keep; one or more.
        cases: The cases.
        results: Contracts of the model's results.
        baseline: The model as it was.
        described: What that is, for reports.
        on_event: Called with one line for each case.

    Raises:
        UsageError: A gate that does not go with these cases or results.
        UnavailableError: A package that a metric computes with is missing.
        GateError: The baseline gives no finite results, so nothing can be compared.
        InputError, SpecError: A case that cannot be read, or that the model or a metric does not take.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        cases: Cases,
        results: Sequence[TensorSpec],
        baseline: Run,
        *,
        described: str = "float32",
        on_event: Observer = lambda event: None,
    ) -> None:
        if not gates:
            raise UsageError("labelled cases want a metric", where="--metric", hint="--metric dice")
        self.cases, self.results, self.baseline, self.described = cases, tuple(results), baseline, described
        self.tasks = tuple(_task(gate, cases, results) for gate in gates)
        self._on_event = on_event
        self._records: list[CaseRecord] = []
        self._notes: dict[str, None] = dict.fromkeys(cases.notes)
        self._has_spacing: bool | None = None
        keeps = any(task.reference == "baseline" for task in self.tasks)
        self._kept = tempfile.TemporaryDirectory(prefix="edgekit-") if keeps else None
        try:
            self._baseline = self._observe_baseline()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what the baseline left on disk."""
        if self._kept is not None:
            self._kept.cleanup()

    def judge(self, candidate: Run) -> TaskReport:
        """Run a candidate on every case and compare.

        Whatever the candidate raises is a failed case. What cannot be read is the user's to mend, and raised.
        """
        observed, errors = self._observe(candidate)
        failures = [f"case {self._records[i].name!r}: {reason}" for i, reason in enumerate(errors) if reason]
        unit = bool(self._has_spacing)
        metrics = [
            verdict.report(task, self._records, ours, theirs, errors, has_spacing=unit)
            for task, ours, theirs in zip(self.tasks, self._baseline, observed, strict=True)
        ]
        if metrics and self._notes:
            metrics[0] = replace(metrics[0], notes=(*self._notes, *metrics[0].notes))
        return TaskReport(
            source=self.cases.path.name,
            sha256=self.cases.sha256,
            baseline=self.described,
            cases=tuple(self._records),
            metrics=tuple(metrics),
            failures=tuple(failures),
        )

    def values(self, candidate: Run) -> dict[str, float]:
        """The drop of each metric over all cases, without verdict or intervals; NaN where a case failed.

        For those who try many candidates and look at the order alone.
        """
        observed, errors = self._observe(candidate)
        if any(errors):
            return {task.metric.name: float("nan") for task in self.tasks}
        pairs = zip(self.tasks, self._baseline, observed, strict=True)
        return {task.metric.name: verdict.overall_drop(task, ours, theirs) for task, ours, theirs in pairs}

    def read(self, case: str) -> Loaded:
        """A case of this name, from its files."""
        return self.cases.read(case)

    # ── the baseline ──────────────────────────────────────────────────────────────────────────────────

    def _observe_baseline(self) -> list[Observed]:
        observed: list[Observed] = [[] for _ in self.tasks]
        for index, loaded in enumerate(self._events(iter(self.cases), "baseline")):
            self._check_spacing(loaded)
            self._records.append(loaded.record)
            self._notes.update(dict.fromkeys(loaded.notes))
            results = self.baseline(loaded.feeds)
            for reason in _unusable(results, self.results):
                raise GateError(
                    f"the baseline has no usable result for case {loaded.record.name!r}: {reason}",
                    where=self.described,
                    hint="correct the model or the case: there is nothing to compare with",
                )
            if index == 0:
                self.tasks = tuple(task.settled(results[task.spec.name]) for task in self.tasks)
            for number, task in enumerate(self.tasks):
                if task.reference == "baseline":
                    self._keep(index, number, task, results[task.spec.name])
                try:
                    rows = self._measure(index, number, results, loaded)
                except SpecError as error:
                    raise SpecError(
                        f"case {loaded.record.name!r}: {error.message}",
                        where=f"metric {task.metric.name}, result {task.spec.name!r}",
                        hint=error.hint,
                    ) from None
                observed[number].append(rows)
        return observed

    def _keep(self, index: int, number: int, task: Task, result: Array) -> None:
        array = task.metric.as_reference(result, task.spec.layout, task.options)
        if array.dtype.kind in "iu" and array.size:
            # Labels are small numbers in a large type.
            array = array.astype(np.result_type(*map(np.min_scalar_type, (array.min(), array.max()))))
        np.save(self._kept_file(index, number), array)

    def _kept_file(self, index: int, number: int) -> Path:
        assert self._kept is not None
        return Path(self._kept.name) / f"{index}-{number}.npy"

    def _check_spacing(self, loaded: Loaded) -> None:
        has_spacing = loaded.spacing_mm_zyx is not None
        if self._has_spacing is None:
            self._has_spacing = has_spacing
        if self._has_spacing != has_spacing and any(task.metric.unit == "mm" for task in self.tasks):
            raise InputError(
                f"case {loaded.record.name!r} has {'a' if has_spacing else 'no'} spacing, those before it "
                f"have {'none' if has_spacing else 'one'}: millimetres and voxels do not mix",
                where=str(self.cases.path),
                hint="give every case an image with a spacing (.nii.gz), or none",
            )

    # ── a candidate ───────────────────────────────────────────────────────────────────────────────────

    def _observe(self, candidate: Run) -> tuple[list[Observed], list[str]]:
        """What each metric says of each case, and why there is nothing of a case, if so."""
        observed: list[Observed] = [[] for _ in self.tasks]
        errors = []
        for index, loaded in enumerate(self._events(iter(self.cases), "candidate")):
            if loaded.record != self._records[index]:
                raise InputError(
                    f"the files of case {loaded.record.name!r} changed while the cases were judged",
                    where=str(self.cases.path),
                )
            outcome = self._observe_case(index, candidate, loaded)
            errors.append(outcome.reason if isinstance(outcome, Failed) else "")
            for number in range(len(self.tasks)):
                observed[number].append({} if isinstance(outcome, Failed) else outcome[number])
        return observed, errors

    def _observe_case(self, index: int, candidate: Run, loaded: Loaded) -> Failed | list[dict[str, Floats]]:
        results = attempt(candidate, loaded.feeds)
        if isinstance(results, Failed):
            return results
        for reason in _unusable(results, self.results):
            return Failed(reason)
        try:
            return [self._measure(index, number, results, loaded) for number in range(len(self.tasks))]
        except SpecError as error:
            # The baseline's result went through: it is the candidate's that has another shape or meaning.
            return Failed(error.message)

    def _measure(
        self, index: int, number: int, results: Mapping[str, Array], loaded: Loaded
    ) -> dict[str, Floats]:
        task = self.tasks[number]
        if task.reference == "baseline":
            reference = np.load(self._kept_file(index, number), allow_pickle=False)
        else:
            reference = loaded.references.get(task.spec.name, np.empty(0))
        pair = Pair(results[task.spec.name], reference, task.spec.layout, loaded.spacing_mm_zyx, task.options)
        return task.metric.measure(pair)

    def _events(self, cases: Iterator[Loaded], side: str) -> Iterator[Loaded]:
        for index in range(len(self.cases)):
            self._on_event(f"{side}: case {index + 1} of {len(self.cases)}")
            yield next(cases)


def attempt(candidate: Run, feeds: Mapping[str, Array]) -> Mapping[str, Array] | Failed:
    """What a candidate makes of a case, or why it makes nothing; a bug of ours is raised."""
    try:
        return candidate(feeds)
    except InternalError:
        raise
    except EdgekitError as error:
        return Failed(f"the candidate failed: {error.message}")
    except Exception as error:  # noqa: BLE001 - whatever a candidate raises, it has no result
        return Failed(f"the candidate crashed: {type(error).__name__}: {error}")


def _unusable(results: Mapping[str, Array], specs: Sequence[TensorSpec]) -> Iterator[str]:
    """Why the results cannot be measured."""
    for spec in specs:
        if spec.name not in results:
            yield f"there is no result {spec.name!r}"
            continue
        array = results[spec.name]
        if not spec.fits(array.shape):
            yield (
                f"result {spec.name!r} has another shape: want {format_dims(spec.dims)}, "
                f"got {format_dims(array.shape)}"
            )
        elif array.dtype.kind == "f" and not all_finite(array):
            bad = array.size - int(np.count_nonzero(np.isfinite(array)))
            yield f"result {spec.name!r} has {bad} NaN or infinite of {array.size} values"


def _task(gate: Gate, cases: Cases, results: Sequence[TensorSpec]) -> Task:
    """The gate with its metric, the result that it looks at and what that is compared with."""
    metric = METRICS[gate.metric]
    for requirement in (SCIPY, *metric.requirements):  # intervals want SciPy
        requirement.load()
    spec = _result_of(gate, cases, results)
    has_labels = spec.name in cases.references
    if metric.needs_reference and not has_labels:
        _check_own_reference(gate, spec, cases)
    if gate.limits.max_group_drop is not None and not cases.has_groups:
        raise UsageError(
            "a limit for groups wants groups: the list of cases has no column 'group'",
            where=str(cases.path),
            hint="add a column 'group', or leave --max-group-drop out",
        )
    reference: Reference = "labels" if has_labels else "baseline"
    if not metric.needs_reference:
        reference = "nothing"
    return Task(gate, metric, spec, reference, metric.complete(gate.options))


def _check_own_reference(gate: Gate, spec: TensorSpec, cases: Cases) -> None:
    metric = METRICS[gate.metric]
    if not metric.own_reference:
        raise UsageError(
            f"metric {metric.name} wants labels: the list of cases has no column {spec.name!r}",
            where=str(cases.path),
            hint=f"add a column {spec.name!r} with what the result should be",
        )
    limits = gate.limits
    if metric.perfect is None and any(
        (limits.max_drop, limits.max_case_drop, limits.max_group_drop, limits.margin)
    ):
        raise UsageError(
            f"without references the baseline is compared with itself, and its {metric.name} is infinite: "
            "no drop from that can be allowed",
            where=str(cases.path),
            hint=f"--worst-value {metric.name}=40, or add a column {spec.name!r}",
        )


def _result_of(gate: Gate, cases: Cases, results: Sequence[TensorSpec]) -> TensorSpec:
    metric, names = METRICS[gate.metric], [spec.name for spec in results]
    if gate.result:
        for spec in results:
            if spec.name == gate.result:
                return spec
        raise UsageError(
            f"the model has no result {gate.result!r}: want one of {', '.join(names)}",
            where=f"--metric {gate.metric}",
        )
    fitting = [spec for spec in results if _is_displacement(spec) == (metric.takes == "displacement")]
    labelled = [spec for spec in fitting if spec.name in cases.references]
    if metric.needs_reference and labelled:
        fitting = labelled
    if len(fitting) == 1:
        return fitting[0]
    possible = [spec.name for spec in fitting] or names
    raise UsageError(
        f"which result does {metric.name} look at? want one of {', '.join(possible)}",
        where=f"--metric {metric.name}",
        hint=f"--metric '{metric.name} {possible[0]}'",
    )


def _is_displacement(spec: TensorSpec) -> bool:
    return spec.quantity.endswith("_vox")
