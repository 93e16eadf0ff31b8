"""Metrics of images, against their formulas written down once more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import SpecError
from edgekit.metrics import METRICS
from edgekit.metrics.base import Pair
from edgekit.spec import Array

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((1, 2, 12, 15)).cumsum(2).astype(np.float32)
NOISY = (TRUTH + 0.2 * RNG.standard_normal(TRUTH.shape)).astype(np.float32)


def value(name: str, result: Array, truth: Array, **given: float) -> float:
    metric = METRICS[name]
    return metric.values(Pair(result, truth, options=metric.complete(given)))[""]


@given(st.floats(0.01, 100), st.floats(-50, 50))
@settings(deadline=None)
def test_ratios_of_signal_and_noise(scale: float, shift: float) -> None:
    truth, noisy = (a.astype(np.float64) * scale + shift for a in (TRUTH, NOISY))
    squared = [float(d) for d in ((noisy - truth).ravel() ** 2).tolist()]
    mean = math.fsum(squared) / len(squared)
    span = float(truth.max() - truth.min())
    assert value("psnr", noisy, truth) == pytest.approx(10 * math.log10(span**2 / mean))
    assert value("psnr", noisy, truth, range=255.0) == pytest.approx(10 * math.log10(255**2 / mean))
    signal = math.fsum(v * v for v in truth.ravel().tolist()) / len(squared)
    assert value("snr", noisy, truth) == pytest.approx(10 * math.log10(signal / mean))
    assert value("nrmse", noisy, truth) == pytest.approx(math.sqrt(mean / signal))


def _similarity(a: Array, b: Array, span: float) -> float:
    """Wang's formula, window by window."""
    size, c1, c2, found = 7, (0.01 * span) ** 2, (0.03 * span) ** 2, []
    for y in range(a.shape[0] - size + 1):
        for x in range(a.shape[1] - size + 1):
            p, q = (i[y : y + size, x : x + size].astype(np.float64).ravel() for i in (a, b))
            cov = np.cov(p, q, ddof=1)
            brightness = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
            found.append(brightness * (2 * cov[0, 1] + c2) / (cov[0, 0] + cov[1, 1] + c2))
    return float(np.mean(found))


def test_structural_similarity_is_the_mean_over_windows_and_channels() -> None:
    want = [_similarity(NOISY[0, c], TRUTH[0, c], 10.0) for c in range(2)]
    assert value("ssim", NOISY, TRUTH, range=10.0) == pytest.approx(np.mean(want), abs=1e-6)
    volume = np.repeat(TRUTH[0, :1, None], 8, axis=1)[None, 0]
    assert value("ssim", volume, volume[0]) == 1.0


def test_equal_images_are_infinitely_near() -> None:
    assert value("psnr", TRUTH, TRUTH) == value("snr", TRUTH, TRUTH) == math.inf
    assert value("nrmse", TRUTH, TRUTH) == 0 and value("ssim", TRUTH, TRUTH) == 1


def test_a_reference_that_says_nothing_measures_nothing() -> None:
    flat = np.zeros_like(TRUTH)
    assert all(math.isnan(value(name, NOISY, flat)) for name in ("psnr", "ssim", "snr", "nrmse"))
    assert math.isfinite(value("psnr", NOISY, flat, range=1.0))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(SpecError, match="7 or more voxels an axis, got 1x2x5x15"):
        value("ssim", NOISY[:, :, :5], TRUTH[:, :, :5])
    with pytest.raises(SpecError, match="above 0, got -1"):
        value("psnr", NOISY, TRUTH, range=-1.0)
    with pytest.raises(SpecError, match="grid: want 1x2x12x15, got 2x15x12"):
        value("snr", NOISY, TRUTH[0].swapaxes(1, 2))
