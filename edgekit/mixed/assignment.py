"""Which precision each group of layers has, and in which order groups give up a fast one. Pure arithmetic.

Harm is additive to first order: the noise of groups that are quantized alone, in power, adds up to that of
all together. So a group is worth giving up by the harm that goes for each second that is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgekit.graph.graph import Graph

SINGLE = "float32"


@dataclass(frozen=True)
class Option:
    """A precision that a group may have, and what it would bring.

    Attributes:
        precision: ``"int8"``, ``"float16"``, ``"bfloat16"`` or ``"float32"``.
        saved_s: Seconds less than in float32, where all neighbours have this precision too; may be negative.
        border_s: Seconds more than that, where none of them has.
        harm: What it adds to the noise of the results, as a share of their power, or to the task's loss.
    """

    precision: str
    saved_s: float = 0.0
    border_s: float = 0.0
    harm: float = 0.0


FLOAT = Option(SINGLE)

Plan = Mapping[str, Option]
"""An option by name of the group."""


@dataclass(frozen=True)
class Choice:
    """What was decided of one group.

    Attributes:
        group: Its name.
        nodes: Names of its nodes, the layer first.
        precision: What it computes in.
        why: Why it stayed in float32; empty where it did not.
        sensitivity_db: Signal-to-noise ratio of the results with this group alone in the smallest precision;
            NaN where it was not measured.
        saved_s: Seconds that the smallest precision saves in this group; NaN where it was not measured.
    """

    group: str
    nodes: tuple[str, ...]
    precision: str
    why: str = ""
    sensitivity_db: float = math.nan
    saved_s: float = math.nan


@dataclass(frozen=True)
class Assignment:
    """The fastest network of several precisions that is good enough, for one backend.

    Attributes:
        backend: Name of the backend it was measured on.
        graph: The network; the float32 one itself where that is the answer.
        choices: One entry a group.
        float_s: Median seconds of the float32 network.
        mixed_s: Median seconds of this one, measured beside it; ``float_s`` where it is the float32 one.
        snr_db: Of its results against those of float32, on the samples; infinite where it is the float32 one.
        reason: Why the answer is float32 as a whole; empty where it is not.
        notes: What a user wants to know.
    """

    backend: str
    graph: Graph
    choices: tuple[Choice, ...]
    float_s: float
    mixed_s: float
    snr_db: float
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The smallest precision that occurs."""
        found = {choice.precision for choice in self.choices}
        return next((name for name in ("int8", "float16", "bfloat16") if name in found), SINGLE)

    @property
    def keep(self) -> frozenset[str]:
        """Names of the nodes that stay in float32."""
        return frozenset(node for one in self.choices if one.precision == SINGLE for node in one.nodes)


def ladder(options: Iterable[Option]) -> tuple[Option, ...]:
    """A group's options that are worth considering, the fastest first and float32 last.

    Each does less harm than the one before. What is not faster than float32 is not among them.
    """
    rungs: list[Option] = []
    for option in sorted(options, key=lambda one: (-one.saved_s, one.harm)):
        if option.saved_s > 0 and (not rungs or option.harm < rungs[-1].harm):
            rungs.append(option)
    return (*rungs, FLOAT)


def plans(ladders: Mapping[str, Sequence[Option]]) -> Iterator[dict[str, Option]]:
    """Plans from the fastest to float32; each gives up what does most harm for the time that it saves."""
    plan = {group: options[0] for group, options in ladders.items()}
    yield dict(plan)
    while steps := [
        (_harm_per_second(plan[group], lower), group, lower)
        for group, options in ladders.items()
        for lower in options[options.index(plan[group]) + 1 :]
    ]:
        # Of equal ones the first group: the order does not depend on anything but the numbers.
        _, group, lower = max(steps, key=lambda step: step[0])
        plan[group] = lower
        yield dict(plan)


def _harm_per_second(now: Option, lower: Option) -> float:
    less, lost_s = now.harm - lower.harm, now.saved_s - lower.saved_s
    if math.isnan(less) or math.isinf(now.harm):
        return math.inf
    return less / lost_s if lost_s > 0 else math.inf


def without_islands(plan: Plan, neighbours: Mapping[str, Sequence[str]]) -> dict[str, Option]:
    """The plan without groups whose changes of type at their borders take longer than they save.

    Groups of one precision that follow each other share no border; a border's cost is spread evenly over the
    ways that lead out of a group.

    Args:
        plan: It stays as it is.
        neighbours: Of each group, from :func:`edgekit.graph.grouping.neighbours`.
    """
    settled = dict(plan)
    for island in _islands(plan, neighbours):
        saved_s = sum(plan[group].saved_s for group in island)
        for group in island:
            ways = neighbours.get(group, ())
            out = sum(other not in island for other in ways)
            saved_s -= plan[group].border_s * out / max(1, len(ways))
        if saved_s <= 0:
            settled.update(dict.fromkeys(island, FLOAT))
    return settled


def _islands(plan: Plan, neighbours: Mapping[str, Sequence[str]]) -> Iterator[set[str]]:
    """Groups of one precision that hang together, float32 excepted."""
    left = {group for group, option in plan.items() if option.precision != SINGLE}
    for group in plan:
        if group not in left:
            continue
        island, pending = set[str](), [group]
        while pending:
            one = pending.pop()
            if one in left and plan[one].precision == plan[group].precision:
                left.remove(one)
                island.add(one)
                pending += neighbours.get(one, ())
        yield island


class Tried(Protocol):
    """What came of a plan."""

    failure: str

    def close(self) -> None:
        """Give back what it holds."""


T = TypeVar("T", bound=Tried)


def fastest_that_passes(
    candidates: Sequence[Plan], attempt: Callable[[Plan], T]
) -> tuple[int, T | None, dict[int, str]]:
    """The first plan that passes, by bisection: each is slower than the one before, and does less harm.

    The last one is float32, which needs no attempt. What fails on the way is closed.

    Args:
        candidates: The plans, the fastest first.
        attempt: Compiles and judges one.

    Returns:
        The number of the plan; what came of it, ``None`` for float32; and by number why others failed.
    """
    failures: dict[int, str] = {}
    low, high, best = -1, len(candidates) - 1, None
    middle = 0  # most often the fastest one is good enough
    while high - low > 1:
        tried = attempt(candidates[middle])
        if tried.failure:
            failures[middle], low = tried.failure, middle
            tried.close()
        else:
            if best is not None:
                best.close()
            best, high = tried, middle
        middle = (low + high) // 2
    return high, best, failures
