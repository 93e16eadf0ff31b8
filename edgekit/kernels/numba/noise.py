"""Wavelet bands: the plan of :mod:`edgekit.kernels.denoise.noise`, carried out by Numba's ``filter_axis``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.kernels.denoise.noise import BAND
from edgekit.kernels.numba import resample
from edgekit.spec import Array


def band(image: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """What the extension does."""
    BAND.native(resample, image, outputs=outputs, threads=threads, isa="", **options)
