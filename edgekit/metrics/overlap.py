"""Overlap of segmentations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgekit.errors import SpecError
from edgekit.metrics import labels
from edgekit.metrics.base import CaseMetric, Option, Pair
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


class LabelMetric(CaseMetric):
    """A metric of masks, for each label but 0."""

    takes = "labels"
    defaults: ClassVar[Mapping[str, Option]] = labels.DEFAULTS
    choices = labels.CHOICES
    absence_is_perfect = True

    def settle(self, result: Array, layout: str, options: Mapping[str, Option]) -> dict[str, Option]:
        """See the base."""
        return labels.settle(result, layout, options)

    def as_reference(self, result: Array, layout: str, options: Mapping[str, Option]) -> Array:
        """See the base."""
        return labels.as_reference(result, layout, options)


class Dice(LabelMetric):
    """Dice coefficient of every class, 2·|A∩B| / (|A| + |B|) (Dice, Ecology 26, 1945); a share, 0 … 1.

    Takes masks, label maps or scores: several channels by arg-max, one by its threshold. A class that only
    one of result and reference has scores 0; one that neither has is not measured.
    """

    name = "dice"
    title = "Dice overlap"
    better = "higher"
    perfect = 1.0
    lost = 0.0
    useless = 0.1

    def values(self, pair: Pair) -> dict[str, float]:
        """See the base."""
        if labels.are_independent(pair):
            return {name: dice(ours, theirs) for name, ours, theirs in labels.masks(pair)}
        got, want = labels.labels(pair)
        # Counting once is a pass over the voxels for all classes, not one for each.
        totals: dict[int, int] = {}
        for array in (got, want):
            for label, count in zip(*np.unique(array, return_counts=True), strict=True):
                totals[int(label)] = totals.get(int(label), 0) + int(count)
        common = dict(zip(*np.unique(got[got == want], return_counts=True), strict=True))
        return {
            str(label): 2 * int(common.get(label, 0)) / total
            for label, total in sorted(totals.items())
            if label != 0
        }


DICE = Dice()
