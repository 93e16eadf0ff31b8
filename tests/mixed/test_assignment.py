"""Plans: which precision each group has, in which order groups give one up, and where that stops."""

from __future__ import annotations

import math

import pytest

from edgekit.mixed.assignment import (
    FLOAT,
    Option,
    Plan,
    fastest_that_passes,
    ladder,
    plans,
    without_islands,
)


def option(precision: str, saved_ms: float, harm: float = 0.0, border_ms: float = 0.0) -> Option:
    return Option(precision, saved_ms * 1e-3, border_ms * 1e-3, harm)


def named(plan: Plan) -> dict[str, str]:
    return {group: one.precision for group, one in plan.items()}


def test_a_ladder_leads_from_the_fastest_to_float32() -> None:
    bytes_, half = option("int8", 3, harm=0.1), option("bfloat16", 2, harm=0.01)
    assert ladder([half, bytes_]) == (bytes_, half, FLOAT)
    assert ladder([bytes_, option("bfloat16", 2, harm=0.2)]) == (bytes_, FLOAT), "slower and worse"
    assert ladder([option("int8", 0), option("bfloat16", -1)]) == (FLOAT,)
    assert ladder([]) == (FLOAT,)


def test_what_harms_most_for_the_time_that_it_saves_goes_first() -> None:
    ladders = {
        "cheap": ladder([option("int8", 4, harm=0.02)]),  # 5 each second
        "dear": ladder([option("int8", 1, harm=0.1)]),  # 100
        "middling": ladder([option("int8", 1, harm=0.01)]),  # 10
    }
    lost = [sorted(g for g, p in named(plan).items() if p == "float32") for plan in plans(ladders)]
    assert lost == [[], ["dear"], ["dear", "middling"], ["cheap", "dear", "middling"]]


def test_a_group_may_go_down_one_rung_or_several() -> None:
    steep = ladder([option("int8", 4, harm=0.5), option("bfloat16", 3, harm=0.001)])
    flat = ladder([option("int8", 4, harm=0.5), option("bfloat16", 1, harm=0.499)])
    assert [named(plan)["g"] for plan in plans({"g": steep})] == ["int8", "bfloat16", "float32"]
    assert [named(plan)["g"] for plan in plans({"g": flat})] == ["int8", "float32"]


def test_a_group_that_ruins_the_results_goes_before_all_others() -> None:
    ladders = {
        "bad": ladder([option("int8", 1, harm=0.5)]),
        "fatal": ladder([option("int8", 50, harm=math.inf)]),
    }
    assert named(list(plans(ladders))[1]) == {"bad": "int8", "fatal": "float32"}


CHAIN = {"a": ("", "b"), "b": ("a", "c"), "c": ("b", "d"), "d": ("c", "")}


def test_an_island_that_does_not_pay_for_its_borders_becomes_float32() -> None:
    paying, losing = option("int8", 1, border_ms=0.5), option("int8", 1, border_ms=2)
    assert named(without_islands({"a": losing, "b": FLOAT, "c": paying, "d": FLOAT}, CHAIN)) == {
        "a": "float32",
        "b": "float32",
        "c": "int8",
        "d": "float32",
    }


def test_groups_side_by_side_share_no_border() -> None:
    losing = option("int8", 1, border_ms=2)
    together: Plan = {"a": losing, "b": losing, "c": losing, "d": FLOAT}
    # Alone each would pay 2 ms for the 1 ms it saves; together two ways of six lead out.
    assert named(without_islands(together, CHAIN)) == named(together)
    other = option("bfloat16", 1, border_ms=2)
    mixed: Plan = {"a": losing, "b": other, "c": losing, "d": other}
    assert set(named(without_islands(mixed, CHAIN)).values()) == {"float32"}


def test_the_plan_that_is_given_stays() -> None:
    plan = {"a": option("int8", 1, border_ms=9), "b": FLOAT, "c": FLOAT, "d": FLOAT}
    without_islands(plan, CHAIN)
    assert named(plan)["a"] == "int8"


class Tried:
    open_now = 0

    def __init__(self, failure: str) -> None:
        self.failure = failure
        Tried.open_now += 1

    def close(self) -> None:
        Tried.open_now -= 1


@pytest.mark.parametrize(("count", "first"), [(n, k) for n in (1, 2, 3, 5, 12, 40) for k in range(n)])
def test_bisection_finds_the_first_plan_that_passes(count: int, first: int) -> None:
    candidates: list[Plan] = [{"g": option("int8", count - index)} for index in range(count)]
    asked: list[int] = []

    def attempt(plan: Plan) -> Tried:
        asked.append(candidates.index(plan))
        return Tried("" if asked[-1] >= first else f"plan {asked[-1]} is bad")

    Tried.open_now = 0
    index, best, failures = fastest_that_passes(candidates, attempt)
    assert index == first
    assert (best is None) == (first == count - 1), "float32 needs no attempt"
    assert Tried.open_now == (best is not None), "what is not the answer is closed"
    assert failures == {one: f"plan {one} is bad" for one in asked if one < first}
    assert len(asked) <= 1 + math.ceil(math.log2(max(1, count)))
    assert asked[:1] == [0] * (count > 1), "the fastest is tried first"
