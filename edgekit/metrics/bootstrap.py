"""How sure a figure over few cases is: a bootstrap interval, the same for the same seed.

Cases are drawn with replacement; both sides of a difference get the same draw, so what makes a case hard for
both does not blur it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from edgekit.metrics.base import SCIPY, Floats

RESAMPLES = 5000
# Of the draws, at most this share may say nothing (all cases of one class, say) before the interval does not.
_MAX_UNKNOWN = 0.05

_NORMAL = NormalDist()


def interval(
    statistic: Callable[[Floats], Floats],
    count: int,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """A two-sided interval of a statistic of ``count`` independent cases.

    The bias-corrected and accelerated one (BCa; Efron, JASA 82, 1987), made wider for few cases as Student's
    t is wider than the normal distribution (Hesterberg, American Statistician 69, 2015): without that, ten
    cases give an interval that covers 90 % where 95 % is said.

    Args:
        statistic: Its values for weights of the cases, float64 [b, count] -> [b]; NaN where they say nothing.
        count: Number of cases.
        confidence: How often the interval covers the truth.
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        Both ends. NaN where there are fewer than two cases or too many draws say nothing. Where no draw
        differs from the whole, both are the value itself: the cases say nothing about what they do not show.
    """
    if count < 2:
        return math.nan, math.nan
    estimate = float(statistic(np.ones((1, count)))[0])
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    places = draws + count * np.arange(resamples)[:, None]
    weights = np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count).astype(float)
    values = statistic(weights)
    values = values[np.isfinite(values)]
    if not math.isfinite(estimate) or len(values) < (1 - _MAX_UNKNOWN) * resamples:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return estimate, estimate
    left_out = statistic(1.0 - np.eye(count))
    levels = _levels(values, estimate, left_out[np.isfinite(left_out)], count, confidence)
    low, high = np.quantile(values, levels)
    return float(low), float(high)


def _levels(
    values: Floats, estimate: float, left_out: Floats, count: int, confidence: float
) -> tuple[float, float]:
    """Which quantiles of the draws are the ends."""
    below = (np.count_nonzero(values < estimate) + np.count_nonzero(values == estimate) / 2) / len(values)
    bias = _NORMAL.inv_cdf(min(max(below, 1 / len(values)), 1 - 1 / len(values)))
    deviations = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float((deviations**2).sum())
    skew = float((deviations**3).sum()) / (6 * spread**1.5) if spread else 0.0
    ends = []
    for side in (-1, 1):
        reach = bias + side * _reach(count, confidence)
        ends.append(_NORMAL.cdf(bias + reach / (1 - skew * reach)))
    return ends[0], ends[1]


def _reach(count: int, confidence: float) -> float:
    """Standard errors from the middle to an end, as wide as Student's t and with the variance unbiased."""
    SCIPY.load()
    from scipy import special

    quantile = float(special.stdtrit(count - 1, (1 + confidence) / 2))
    return quantile * math.sqrt(count / (count - 1))
