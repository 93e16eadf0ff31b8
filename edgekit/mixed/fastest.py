"""The fastest network of several precisions that is good enough: by measurement, on one backend.

Each group of layers is timed in each precision; those that gain are looked at for what they do to the
results; then plans are compiled as a whole, the fastest first and the next ones by bisection, until the gate
passes. At the end the whole is timed beside float32, which is the answer wherever nothing better was found.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from edgekit import machine
from edgekit.errors import BackendError, LimitError, UnsupportedError
from edgekit.graph import groups as grouping
from edgekit.graph.graph import Graph
from edgekit.mixed import latency
from edgekit.mixed.assignment import (
    SINGLE,
    Assignment,
    Choice,
    Option,
    Plan,
    fastest_that_passes,
    ladder,
    plans,
    without_islands,
)
from edgekit.mixed.forms import Build, Group, Parts, alone
from edgekit.mixed.latency import Time
from edgekit.mixed.sensitivity import LITERAL, Sensitivity
from edgekit.mixed.trial import Bench, Trial, timed
from edgekit.spec import Array

# What a group, and the whole, have to gain at least: less is not worth a loss of accuracy.
LEAST_GAIN = 0.02
_NAMES = 6

_SLOWER = "not clearly faster"
_INACCURATE = "for accuracy"
_ISLAND = "between float32 layers"
_FAILED = "not possible"


def search(
    graph: Graph,
    groups: Sequence[Group],
    build: Build,
    bench: Bench,
    sensitivity: Sensitivity,
    *,
    precisions: Sequence[str] = ("int8",),
    on_event: Callable[[str], None] = lambda event: None,
) -> Assignment:
    """Find the fastest assignment of precisions to groups that passes the gate.

    The result is never slower than float32 and never worse than the gate: where nothing is both, it is the
    float32 graph, with the reason.

    Args:
        graph: The float32 network.
        groups: The units in which precision is chosen.
        build: Makes the graphs; see :func:`edgekit.mixed.forms.builder`.
        bench: The backend, the samples and the gate.
        sensitivity: What groups do to the results. Searches on several backends can share one.
        precisions: Those to choose from besides float32, the smallest first.
        on_event: Called with one line at the beginning of each phase.

    Raises:
        EdgekitError: The backend does not take the float32 network.
    """
    on_event(f"compile float32 with {bench.backend}")
    with contextlib.ExitStack() as stack:
        single = Trial.of(graph, bench)
        stack.callback(single.close)
        survey = _survey(graph, groups, build, bench, sensitivity, precisions, on_event)

        def attempt(plan: Plan) -> Trial | _Failed:
            return _attempt(plan, build, bench, single)

        on_event(f"try up to {max(1, len(survey.plans) - 1).bit_length() + 1} plans with {bench.backend}")
        index, best, failures = fastest_that_passes(survey.plans, attempt)
        found = {"mixed": (survey.plans[index], best)}
        everything = {group.name: Option(precisions[0]) for group in groups}
        if _precisions(everything) != _precisions(survey.plans[0]):
            # What was timed group by group leaves out what a compiler makes of several.
            found["everything"] = (everything, attempt(everything))
        passed: dict[str, Trial] = {SINGLE: single}
        for name, (_, trial) in found.items():
            if isinstance(trial, Trial):
                stack.callback(trial.close)
                if not trial.failure:
                    passed[name] = trial
        on_event(f"measure {', '.join(passed)}")
        times = timed(passed, bench.samples[0], LEAST_GAIN)
        chosen = _fastest(times)
        if chosen == SINGLE:
            reason = _reason(times, failures, survey, found)
            return _result(graph, groups, bench, survey, {}, times[SINGLE], times[SINGLE], math.inf, reason)
        plan, trial = found[chosen]
        assert isinstance(trial, Trial)
        return _result(
            trial.graph, groups, bench, survey, plan, times[SINGLE], times[chosen], trial.snr_db, ""
        )


@dataclass(frozen=True)
class _Survey:
    """What is known of the groups before anything is compiled as a whole.

    Attributes:
        options: By group, the precisions in which it is faster than in float32.
        whys: Why others are not among them: kind and text.
        plans: Without islands, each once, the fastest first, float32 last.
        raw: The first of them with its islands.
        decibels: What each group does alone in the smallest precision in which it is faster.
    """

    options: dict[str, list[Option]]
    whys: dict[str, tuple[str, str]]
    plans: list[Plan]
    raw: Plan
    decibels: dict[str, float] = field(default_factory=dict)


@dataclass
class _Failed:
    """A plan that could not be compiled or run."""

    failure: str

    def close(self) -> None:
        """There is nothing to give back."""


def _survey(
    graph: Graph,
    groups: Sequence[Group],
    build: Build,
    bench: Bench,
    sensitivity: Sensitivity,
    precisions: Sequence[str],
    on_event: Callable[[str], None],
) -> _Survey:
    """Time the groups, look at what those that gain do to the results, and order the plans."""
    forms, failures = Parts(graph, groups, build, precisions, bench.samples[0]).forms()
    times = latency.measure(
        forms,
        bench.backend,
        bench.device,
        share=LEAST_GAIN,
        threads=bench.threads,
        limits=bench.limits,
        on_event=on_event,
    )
    whys = {name: (_FAILED, reason) for name, reason in failures.items()}
    options: dict[str, list[Option]] = {}
    for name, found in times.items():
        options[name], why = _options(found, precisions)
        if not options[name]:
            whys[name] = why
    decibels: dict[str, float] = {}
    for precision in precisions:
        gaining = [name for name, some in options.items() if any(o.precision == precision for o in some)]
        if gaining:
            on_event(f"look at what {len(gaining)} groups do in {precision}")
        compiled = None if precision in LITERAL else partial(_outputs, bench)
        harms = sensitivity.harms(gaining, precision, compiled)
        for name in gaining:
            options[name] = [
                replace(one, harm=harms[name]) if one.precision == precision else one for one in options[name]
            ]
            decibels.setdefault(name, sensitivity.in_decibels(harms[name]))
    ladders = {name: ladder(some) for name, some in options.items()}
    neighbours = grouping.neighbours(graph, {group.name: group.nodes for group in groups})
    candidates: list[Plan] = []
    raw: Plan = {}
    for plan in plans(ladders):
        raw = raw or plan
        settled = without_islands(plan, neighbours)
        if not candidates or _precisions(settled) != _precisions(candidates[-1]):
            candidates.append(settled)
    return _Survey(options, whys, candidates or [{}], raw, decibels)


def _outputs(bench: Bench, graph: Graph) -> list[dict[str, Array]]:
    trial = Trial.of(graph, bench)
    trial.close()
    return trial.outputs


def _options(times: Mapping[str, Time], precisions: Sequence[str]) -> tuple[list[Option], tuple[str, str]]:
    """The precisions in which a group is faster than in float32; if there are none, why."""
    single = times[SINGLE]
    found, why = [], (_FAILED, single.error)
    if single.error:
        return [], why
    for precision in precisions:
        time = times[precision]
        by_itself = times.get(alone(precision), time)
        if time.error or by_itself.error:
            why = (_FAILED, time.error or by_itself.error)
        elif not time.is_faster_than(single, LEAST_GAIN):
            said = f"{time.median_s * 1e3:.3g} ms in {precision}, {single.median_s * 1e3:.3g} ms in {SINGLE}"
            why = (_SLOWER, said)
        else:
            border_s = max(0.0, by_itself.median_s - time.median_s)
            found.append(Option(precision, single.median_s - time.median_s, border_s))
    return found, why


def _attempt(plan: Plan, build: Build, bench: Bench, single: Trial) -> Trial | _Failed:
    try:
        trial = Trial.of(build(_precisions(plan)), bench)
    except (BackendError, LimitError, UnsupportedError) as error:
        return _Failed(error.message.splitlines()[0])
    try:
        trial.judge(single.outputs)
    except (BackendError, LimitError) as error:
        trial.close()
        return _Failed(error.message.splitlines()[0])
    return trial


def _precisions(plan: Plan) -> dict[str, str]:
    return {group: option.precision for group, option in plan.items() if option.precision != SINGLE}


def _fastest(times: Mapping[str, Time]) -> str:
    """The fastest network that is faster than float32 beyond doubt; of two alike the one that was planned."""
    chosen = SINGLE
    for name, time in times.items():
        least = LEAST_GAIN if chosen == SINGLE else 0.0
        if name != SINGLE and time.is_faster_than(times[chosen], least):
            chosen = name
    return chosen


def _reason(
    times: Mapping[str, Time],
    failures: Mapping[int, str],
    survey: _Survey,
    found: Mapping[str, tuple[Plan, Trial | _Failed | None]],
) -> str:
    """Why the answer is float32."""
    others = [time.median_s for name, time in times.items() if name != SINGLE]
    if others:
        return (
            f"the whole network takes {min(others) * 1e3:.3g} ms with smaller precisions, "
            f"{times[SINGLE].median_s * 1e3:.3g} ms in {SINGLE}"
        )
    whole = found["everything"][1] if "everything" in found else None
    failure = failures[max(failures)] if failures else whole.failure if whole is not None else ""
    if failure:
        return f"nothing smaller is good enough: {failure}"
    return "no group of layers would be faster"


def _result(
    graph: Graph,
    groups: Sequence[Group],
    bench: Bench,
    survey: _Survey,
    plan: Plan,
    single: Time,
    mixed: Time,
    snr_db: float,
    reason: str,
) -> Assignment:
    chosen = _precisions(plan)
    kinds: list[str] = []
    choices = []
    for group in groups:
        kind, why = ("", "") if group.name in chosen else _why(group.name, survey, reason)
        options = survey.options.get(group.name, ())
        saved_s = options[0].saved_s if options else math.nan
        decibels = survey.decibels.get(group.name, math.nan)
        precision = chosen.get(group.name, SINGLE)
        choices.append(Choice(group.name, group.nodes, precision, why, decibels, saved_s))
        kinds.append(kind)
    notes = (*_notes(choices, kinds, reason), *_doubts())
    return Assignment(
        bench.backend, graph, tuple(choices), single.median_s, mixed.median_s, snr_db, reason, notes
    )


def _why(name: str, survey: _Survey, reason: str) -> tuple[str, str]:
    """Why a group is float32: kind and text."""
    if name in survey.whys:
        kind, text = survey.whys[name]
        return kind, f"{kind}: {text}" if text else kind
    if reason:
        return "", reason
    if survey.raw[name].precision != SINGLE and survey.plans[0][name].precision == SINGLE:
        return _ISLAND, f"{_ISLAND}: changing types at its borders takes longer than it saves"
    decibels = survey.decibels.get(name, math.nan)
    alone_db = "" if math.isnan(decibels) else f": {decibels:.1f} dB with it alone"
    return _INACCURATE, f"{_INACCURATE}{alone_db}"


def _doubts() -> tuple[str, ...]:
    here = machine.record()
    if here.load <= here.cores:
        return ()
    return (f"the machine was busy while layers were timed: load {here.load:.1f}, {here.cores} cores",)


def _notes(choices: Sequence[Choice], kinds: Sequence[str], reason: str) -> tuple[str, ...]:
    if reason:
        return (f"all layers stay float32: {reason}",)
    kept = [choice for choice in choices if choice.precision == SINGLE]
    if not kept:
        return ()
    parts = []
    for kind in dict.fromkeys(filter(None, kinds)):
        names = [choice.group for choice, its in zip(choices, kinds, strict=True) if its == kind]
        told = ", ".join(names[:_NAMES]) + (", …" if len(names) > _NAMES else "")
        parts.append(f"{len(names)} {kind} ({told})")
    return (f"{len(kept)} of {len(choices)} layers stay float32: {'; '.join(parts)}",)
