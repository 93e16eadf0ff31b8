"""Search the rules' parameters for a network: the likeliest candidates are measured, the fastest kept.

A rule's estimate says which tiles are worth a measurement; see :mod:`edgekit.backends.tvm.measuring` for how
they are measured. What is found goes into the user's records (:mod:`edgekit.backends.tvm.tuned`), problem by
problem, so a search that is ended goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.backends.tvm import tuned
from edgekit.backends.tvm.emission import planned
from edgekit.backends.tvm.measuring import Problem, Runner
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.backends.tvm.tuned import KERNELS, Record, Tuned
from edgekit.errors import CompileError, LimitError

# Candidates that are measured, and what a better one has to gain: less is noise.
_MEASURED = 12
GAIN = 0.95

Observer = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A problem of a network with its candidates.

    Attributes:
        what: The problem.
        candidates: All plans, each with its estimate.
        rule: The one that the rule takes.
    """

    what: Problem
    candidates: tuple[tuple[float, Any], ...]
    rule: Any

    @property
    def key(self) -> str:
        """As records know it."""
        return tuned.key(self.what.family, self.what.problem, self.what.tensors)

    def shortlist(self, count: int) -> list[Any]:
        """The plans with the least estimates, the rule's own first.

        Args:
            count: How many.
        """
        ordered = sorted(self.candidates, key=lambda pair: pair[0])
        return [self.rule, *(plan for _, plan in ordered if plan != self.rule)][:count]


@dataclass(frozen=True)
class Report:
    """What a search came to.

    Attributes:
        tasks: Problems of the network that have a choice.
        known: Of them, those that had a record.
        measured: Those that have one now.
        better: Of the measured, those where the rule was beaten.
        notes: What was not measured, or not read, and why.
    """

    tasks: int
    known: int
    measured: int
    better: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"tuning: {self.tasks} problems, {self.known} known, {self.measured} measured, "
            f"{self.better} faster than the rule"
        )


class _Asked(Tuned):
    """Knows nothing and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Task] = {}

    def choice(
        self,
        family: str,
        problem: Any,
        tensors: Sequence[Tensor],
        candidates: Sequence[tuple[float, Any]],
        rule: Any,
    ) -> Any:
        task = Task(Problem(family, problem, tuple(tensors)), tuple(candidates), rule)
        self.tasks.setdefault(task.key, task)
        return super().choice(family, problem, tensors, candidates, rule)


def tasks(module: Any, processor: Processor) -> list[Task]:
    """The problems of a network whose rules have a choice, in the order in which they run.

    Args:
        module: As the importer gives it: one function, ``main``.
        processor: What it is to run on.
    """
    asked = _Asked()
    planned(module, replace(processor, tuned=asked))
    return list(asked.tasks.values())


def tune(
    module: Any,
    processor: Processor,
    seconds: float,
    runner: Runner = Runner(),
    *,
    file: Path | None = None,
    on_event: Observer = lambda event: None,
) -> Report:
    """Measure what has no record yet, as far as the time goes: what multiplies most comes first.

    Args:
        module: As the importer gives it: one function, ``main``.
        processor: What it is to run on.
        seconds: After which no other problem is begun.
        runner: Where it is measured.
        file: The records; the user's own of the processor by default.
        on_event: Called with a line for each problem.

    Returns:
        What it came to. A problem whose measurement fails is left to the rule, with a note.

    Raises:
        LimitError: A record cannot be written.
        UnavailableError: The device where it is to be measured cannot be reached.
        UsageError: The records cannot be read.
    """
    file = file or tuned.user_file(processor.name)
    records, said = tuned.read(file)
    found, notes = Tuned(records), list(said)
    every = sorted(tasks(module, processor), key=lambda task: -task.what.products)
    known, measured, better = 0, 0, 0
    ends = time.monotonic() + seconds
    for number, task in enumerate(every, 1):
        if found.knows(task.key):
            known += 1
            continue
        if time.monotonic() >= ends:
            continue
        on_event(f"measure problem {number} of {len(every)}")
        try:
            record = measure(task, processor, runner)
        except (CompileError, LimitError) as error:
            notes.append(f"left to the rule: {task.key}: {error.message}")
            continue
        tuned.append(file, record)
        measured += 1
        better += record.time_s < record.rule_s
    left = len(every) - known - measured
    if left:
        notes.append(f"{left} of {len(every)} problems have no measurement and are left to the rule")
    return Report(len(every), known, measured, better, tuple(notes))


def measure(task: Task, processor: Processor, runner: Runner = Runner(), count: int = _MEASURED) -> Record:
    """The record of one problem; who beats the rule has to do so twice.

    Args:
        task: The problem.
        processor: What it is to run on.
        runner: Where it is measured.
        count: Candidates that are measured.

    Raises:
        CompileError, LimitError, UnavailableError: As
            :meth:`edgekit.backends.tvm.measuring.Runner.measure`.
    """
    plans = task.shortlist(count)
    times = runner.measure(task.what, plans, processor)
    rule_s = times[0]
    assert rule_s is not None
    right = [(seconds, n) for n, seconds in enumerate(times) if seconds is not None]
    time_s, winner = min(right)
    if winner and time_s <= GAIN * rule_s:
        # The best of many is often the luckiest: once more, against the rule alone.
        first, second = runner.measure(task.what, [plans[0], plans[winner]], processor)
        assert first is not None and second is not None
        rule_s, time_s = first, second
    if time_s > GAIN * rule_s:
        time_s, winner = rule_s, 0
    return Record(
        kernels=KERNELS,
        tvm=tuned.tvm_version(),
        family=task.what.family,
        problem=tuned.fields(task.what.problem),
        tensors=tuple(map(tuned.described, task.what.tensors)),
        plan=tuned.fields(plans[winner]),
        time_s=time_s,
        rule_s=rule_s,
        tried=len(right),
        device=runner.device,
    )
