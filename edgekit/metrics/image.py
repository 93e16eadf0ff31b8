"""How near an image is to the one it should be."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.errors import SpecError
from edgekit.metrics.base import SKIMAGE, CaseMetric, Floats, Option, Pair
from edgekit.spec import format_dims

_RANGE: Mapping[str, Option] = {"range": 0.0}
_SSIM_WINDOW = 7


class ImageMetric(CaseMetric):
    """A metric of two arrays of numbers."""

    takes = "image"

    def values(self, pair: Pair) -> dict[str, float]:
        """See the base."""
        got, want = pair.result.astype(np.float64), pair.aligned().astype(np.float64)
        return {"": self.of(got, want, pair)}

    @abstractmethod
    def of(self, got: Floats, want: Floats, pair: Pair) -> float:
        """The value, from both as float64 in the result's shape."""


class PeakSignalToNoise(ImageMetric):
    """Peak signal-to-noise ratio, 10·log10(range² / mean squared error), in dB; through scikit-image.

    ``range`` is the span of possible values; 0 takes the reference's own, largest minus smallest. Equal
    images are infinite. Not measured where the reference is constant and no range is given.
    """

    name = "psnr"
    title = "peak signal-to-noise ratio"
    better = "higher"
    unit = "dB"
    defaults = _RANGE
    requirements = (SKIMAGE,)

    def of(self, got: Floats, want: Floats, pair: Pair) -> float:
        """See the base."""
        span = _range(want, pair)
        if not span:
            return math.nan
        if np.array_equal(got, want):
            return math.inf
        return float(_skimage().peak_signal_noise_ratio(want, got, data_range=span))


class StructuralSimilarity(ImageMetric):
    """Structural similarity (Wang et al., IEEE TIP 13, 2004) in a window of 7; at most 1.

    Through scikit-image; the mean over the places of an image, its channels and items. ``range`` as for
    ``psnr``. Not measured where the reference is constant and no range is given.
    """

    name = "ssim"
    title = "structural similarity"
    better = "higher"
    perfect = 1.0
    defaults = _RANGE
    requirements = (SKIMAGE,)

    def of(self, got: Floats, want: Floats, pair: Pair) -> float:
        """See the base."""
        span = _range(want, pair)
        if not span:
            return math.nan
        count = math.prod(n for n, letter in zip(got.shape, pair.axes, strict=True) if letter in "NC")
        grid = [n for n, letter in zip(got.shape, pair.axes, strict=True) if letter in "DHW" and n > 1]
        if not grid or min(grid) < _SSIM_WINDOW:
            raise SpecError(
                f"structural similarity wants {_SSIM_WINDOW} or more voxels an axis, "
                f"got {format_dims(got.shape)}"
            )
        ours, theirs = got.reshape(count, *grid), want.reshape(count, *grid)
        similarity = _skimage().structural_similarity
        return float(np.mean([similarity(t, o, data_range=span) for o, t in zip(ours, theirs, strict=True)]))


class RootMeanSquareError(ImageMetric):
    """Root of the mean squared error over that of the reference's squares, ‖a − b‖ / ‖b‖.

    Not measured where the reference is zero everywhere.
    """

    name = "nrmse"
    title = "normalised root-mean-square error"
    better = "lower"
    perfect = 0.0

    def of(self, got: Floats, want: Floats, pair: Pair) -> float:
        """See the base."""
        signal = float(np.linalg.norm(want))
        return float(np.linalg.norm(got - want)) / signal if signal else math.nan


class SignalToNoise(ImageMetric):
    """Signal-to-noise ratio, 20·log10(‖b‖ / ‖a − b‖), in dB. Equal images are infinite.

    Not measured where the reference is zero everywhere.
    """

    name = "snr"
    title = "signal-to-noise ratio"
    better = "higher"
    unit = "dB"

    def of(self, got: Floats, want: Floats, pair: Pair) -> float:
        """See the base."""
        signal, noise = float(np.linalg.norm(want)), float(np.linalg.norm(got - want))
        if not signal:
            return math.nan
        return 20 * math.log10(signal / noise) if noise else math.inf


def _range(want: Floats, pair: Pair) -> float:
    given = float(pair.options["range"])
    if given < 0:
        raise SpecError(f"a range of values is above 0, got {given:g}")
    return given or float(np.ptp(want))


def _skimage() -> Any:
    SKIMAGE.load()
    from skimage import metrics

    return metrics


PSNR = PeakSignalToNoise()
SSIM = StructuralSimilarity()
NRMSE = RootMeanSquareError()
SNR = SignalToNoise()
