"""Overlap of segmentations."""

from __future__ import annotations

import math

import numpy as np

from edgekit.errors import SpecError
from edgekit.spec import Array, format_dims


def dice(a: Array, b: Array, label: int = 1) -> float:
    """Dice coefficient of one label, 2·|A∩B| / (|A| + |B|) (Dice, Ecology 26, 1945).

    Args:
        a: Labels or a mask, of any shape.
        b: Likewise, of the same shape.
        label: The label whose voxels are compared; 1 is the inside of a mask.

    Returns:
        0 … 1. NaN where neither has the label, because nothing was measured: neither a full nor a zero score
        would be true, and a mean over cases has to see it.

    Raises:
        SpecError: The shapes differ.
    """
    if a.shape != b.shape:
        raise SpecError(f"want two masks of one shape, got {format_dims(a.shape)} and {format_dims(b.shape)}")
    in_a, in_b = np.equal(a, label), np.equal(b, label)
    total = np.count_nonzero(in_a) + np.count_nonzero(in_b)
    return 2 * np.count_nonzero(in_a & in_b) / total if total else math.nan
