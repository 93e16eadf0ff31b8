"""The smallest cut that is fast enough, with few measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.cuts import Ranking

# A cut that is faster than wanted by no more than this is near enough; a guess aims at half of it.
_NEAR = 1.05
_AIM = 1.025
# How much latency follows the work where nothing was measured yet: some of it is always left.
_FIRST_EXPONENT = 0.8


@dataclass(frozen=True)
class Point:
    """A cut that was measured: the number of steps and the speed-up."""

    count: int
    speedup: float


def search(measure: Callable[[int], float], ranking: Ranking, wanted: float, *, attempts: int) -> list[Point]:
    """Measure cuts until one is fast enough and the next smaller one is not, or nearly so.

    Speed-up is taken to be a power of the work that is left, with an exponent from the cuts next to the
    wanted one. What is measured last is not always the best: the smallest cut that is fast enough is.

    Args:
        measure: The speed-up after that many steps.
        ranking: The steps.
        wanted: The speed-up that is wanted, larger than 1.
        attempts: Most measurements.

    Returns:
        All that was measured, in order.
    """
    points: list[Point] = []
    while len(points) < attempts:
        count = _next(points, ranking, wanted)
        if count is None:
            break
        points.append(Point(count, measure(count)))
    return points


def best(points: list[Point], wanted: float) -> Point | None:
    """The smallest cut that is fast enough, or ``None``."""
    return min((point for point in points if point.speedup >= wanted), key=lambda p: p.count, default=None)


def _next(points: list[Point], ranking: Ranking, wanted: float) -> int | None:
    """The number of steps to measure next, or ``None`` where there is nothing more to learn."""
    steps = len(ranking.steps)
    enough = best(points, wanted)
    if enough is not None and enough.speedup <= wanted * _NEAR:
        return None
    # Noise may make a larger cut seem too slow; what counts is below the smallest that was fast enough.
    slow = [p for p in points if p.speedup < wanted and (enough is None or p.count < enough.count)]
    low = max(slow, key=lambda p: p.count, default=Point(0, 1.0))
    high = enough.count if enough is not None else steps + 1
    if high - low.count <= 1:
        return None
    guess = ranking.count(1 - math.exp(-_work(low, enough, ranking, wanted)))
    return min(max(guess, low.count + 1), high - 1)


def _work(low: Point, enough: Point | None, ranking: Ranking, wanted: float) -> float:
    """Minus the logarithm of the work that is to be left."""
    here, there = _depth(low.count, ranking), _depth(enough.count, ranking) if enough else math.nan
    if enough is not None:
        # Between the two.
        part = math.log(wanted * _AIM / low.speedup) / math.log(enough.speedup / low.speedup)
        return here + min(max(part, 0.05), 0.95) * (there - here)
    if low.count == 0:
        return math.log(wanted * _AIM) / _FIRST_EXPONENT
    exponent = max(math.log(max(low.speedup, 1.01)) / here, 0.2)
    return here + max(math.log(wanted * _AIM / low.speedup) / exponent, 0.02)


def _depth(count: int, ranking: Ranking) -> float:
    return -math.log(max(1 - ranking.share(count), 1e-9))
