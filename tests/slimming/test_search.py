"""The search for the smallest cut that is fast enough, on speed-ups that are computed and not measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgekit.cuts import Ranking, Step
from edgekit.slimming.search import Point, best, search

STEPS = 60


def ranking(steps: int = STEPS, left: float = 0.02) -> Ranking:
    """Cuts that leave less and less of the work, in unequal steps."""
    sizes = np.random.default_rng(0).uniform(0.5, 1.5, steps)
    shares = (1 - left) * sizes.cumsum() / sizes.sum()
    return Ranking(10**9, {}, {}, tuple(Step(round(10**9 * (1 - share)), {}) for share in shares))


def amdahl(rest: float, exponent: float = 1.0) -> Callable[[float], float]:
    """Speed-up for a share of the work, where ``rest`` of the time does not follow it."""
    return lambda share: 1 / (rest + (1 - rest) * (1 - share) ** exponent)


CURVES = {
    "all of the time": amdahl(0.0),
    "most of it": amdahl(0.15),
    "half of it": amdahl(0.4),
    "more than the work": amdahl(0.05, 1.4),
    "late": amdahl(0.1, 0.6),
}


def smallest(curve: Callable[[float], float], found: Ranking, wanted: float) -> int:
    return next(n for n in range(1, STEPS + 1) if curve(found.share(n)) >= wanted)


@pytest.mark.parametrize("wanted", [1.2, 1.8, 2.4])
@pytest.mark.parametrize("name", CURVES)
def test_few_measurements_find_the_cut(name: str, wanted: float) -> None:
    curve, found = CURVES[name], ranking()
    points = search(lambda count: curve(found.share(count)), found, wanted, attempts=6)
    if wanted > curve(found.share(STEPS)):
        assert best(points, wanted) is None and points[-1].count == STEPS
        return
    chosen = best(points, wanted)
    assert chosen is not None
    # Near in speed, or the very smallest.
    assert chosen.speedup <= 1.05 * wanted or chosen.count == smallest(curve, found, wanted)
    assert len(points) <= 6 and len({point.count for point in points}) == len(points)


def test_nothing_is_measured_twice_and_the_end_is_seen() -> None:
    found = ranking(3)
    speedups = {1: 1.1, 2: 1.7, 3: 2.5}
    points = search(speedups.__getitem__, found, 1.8, attempts=10)
    assert best(points, 1.8) == Point(3, 2.5)
    assert {point.count for point in points} <= {2, 3} and len(points) <= 3


def test_what_cannot_be_reached_ends_at_the_last_step() -> None:
    found = ranking()
    points = search(lambda count: 1.0 + 0.2 * count / STEPS, found, 1.8, attempts=6)
    assert best(points, 1.8) is None
    assert max(point.count for point in points) == STEPS


def test_a_slower_larger_cut_does_not_confuse_it() -> None:
    """Backends have widths that they like: speed is not monotonic."""
    found = ranking()

    def measure(count: int) -> float:
        return amdahl(0.1)(found.share(count)) * (0.9 if count % 7 == 3 else 1.0)

    points = search(measure, found, 1.8, attempts=8)
    chosen = best(points, 1.8)
    assert chosen is not None and chosen.speedup >= 1.8
    assert chosen.count == min(p.count for p in points if p.speedup >= 1.8)


def test_attempts_are_a_limit() -> None:
    calls: list[int] = []

    def measure(count: int) -> float:
        calls.append(count)
        return 1.01

    search(measure, ranking(), 5.0, attempts=2)
    assert len(calls) == 2


def test_a_cut_that_slows_down_is_followed_by_a_larger_one() -> None:
    found = ranking()
    points = search(lambda count: 0.8 if count < 40 else 2.0, found, 1.8, attempts=6)
    assert points[0].speedup == 0.8 and points[1].count > points[0].count
    assert all(math.isfinite(point.speedup) for point in points)
