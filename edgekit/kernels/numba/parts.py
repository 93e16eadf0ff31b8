"""What filters made of other kernels run on, by Numba; see :mod:`edgekit.kernels.denoise.parts`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from edgekit.kernels.denoise.parts import FILTER
from edgekit.kernels.denoise.temporal import OPERATOR
from edgekit.kernels.numba import sample
from edgekit.kernels.numba.resample import filter_axis
from edgekit.spec import Array

__all__ = ["filter_axis", "run_filter", "temporal_denoise", "warp"]


def run_filter(image: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """What the extension's ``filter_axis`` does."""
    FILTER.native(sys.modules[__name__], image, outputs=outputs, threads=threads, isa="", **options)


def warp(image: Array, flow: Array, out: Array, *, order: int, boundary: str, threads: int, isa: str) -> None:
    """What the extension's function of this name does."""
    del isa
    sample.warp(image, flow, outputs=(out,), threads=threads, order=order, boundary=boundary)


def temporal_denoise(clip: Array, *, outputs: Sequence[Array], threads: int, **options: Any) -> None:
    """The variant of :func:`edgekit.kernels.temporal_denoise`."""
    OPERATOR.native(sys.modules[__name__], clip, outputs=outputs, threads=threads, isa="", **options)
