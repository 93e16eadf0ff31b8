"""How good a classifier is: what it says of many cases, or of the voxels of many cases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgekit.errors import SpecError
from edgekit.metrics import labels
from edgekit.metrics.base import Floats, Metric, Option, Pair
from edgekit.spec import Array, format_dims

# Rows of class probabilities add up to 1 within this.
_SUM_TOLERANCE = 1e-3
# Resampled weights are looked at in pieces of this many numbers.
_PIECE = 1 << 20


class LabelShare(Metric):
    """A share of right answers; each row is how many were right, of how many."""

    better = "higher"
    takes = "labels"
    perfect = 1.0
    defaults = labels.DEFAULTS
    choices = labels.CHOICES

    def settle(self, result: Array, layout: str, options: Mapping[str, Option]) -> dict[str, Option]:
        """See the base."""
        return labels.settle(result, layout, options)

    def as_reference(self, result: Array, layout: str, options: Mapping[str, Option]) -> Array:
        """See the base."""
        return labels.as_reference(result, layout, options)

    def pool(self, rows: Floats, weights: Floats) -> Floats:
        """All right answers over all answers."""
        known = ~np.isnan(rows[:, 0])
        right, total = (weights[:, known] @ rows[known]).T
        with np.errstate(invalid="ignore"):
            return np.asarray(right / total)

    def case_value(self, row: Floats) -> float:
        """The share in one case."""
        return float(row[0] / row[1])


class Accuracy(LabelShare):
    """Share of right labels: of the cases, or of all voxels where every voxel has a label.

    Takes class scores [1, C] or a single score, masks, label maps or scores per voxel.
    """

    name = "accuracy"
    title = "accuracy"

    def measure(self, pair: Pair) -> dict[str, Floats]:
        """See the base."""
        got, want = labels.labels(pair)
        return {"": np.array([np.count_nonzero(got == want), got.size], np.float64)}


class Sensitivity(LabelShare):
    """Of what is of a class, the share that is found (recall); every class but 0, which is the negative one.

    Over all cases together, or over the voxels of all cases together.
    """

    name = "sensitivity"
    title = "sensitivity"
    useless = 0.0

    def measure(self, pair: Pair) -> dict[str, Floats]:
        """See the base."""
        return {name: row for name, row in _recalls(pair).items() if name != "0"}


class BalancedAccuracy(LabelShare):
    """Mean of the sensitivities of all classes, 0 included (Brodersen et al., ICPR 2010)."""

    name = "balanced_accuracy"
    title = "balanced accuracy"

    def measure(self, pair: Pair) -> dict[str, Floats]:
        """See the base."""
        return _recalls(pair)


def _recalls(pair: Pair) -> dict[str, Floats]:
    """For each class of the reference: how many were found, of how many."""
    got, want = labels.labels(pair)
    totals = np.unique(want, return_counts=True)
    found = dict(zip(*np.unique(want[got == want], return_counts=True), strict=True))
    return {
        str(label): np.array([found.get(label, 0), total], np.float64)
        for label, total in zip(*totals, strict=True)
    }


class ScoreMetric(Metric):
    """A metric of the scores of a whole case: [1, C], or [1, 1] and [1] for yes and no."""

    takes = "scores"
    own_reference = False
    has_case_values = False
    defaults: ClassVar[Mapping[str, Option]] = {"scores": "auto"}
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"scores": ("auto", "logits", "probabilities")}

    def settle(self, result: Array, layout: str, options: Mapping[str, Option]) -> dict[str, Option]:
        """Probabilities lie in 0 … 1."""
        if options["scores"] != "auto":
            return dict(options)
        are_shares = bool(result.min() >= 0 and result.max() <= 1)
        return {**options, "scores": "probabilities" if are_shares else "logits"}

    def case_value(self, row: Floats) -> float:
        """There is none."""
        return math.nan


class Auroc(ScoreMetric):
    """Area under the ROC curve (Hanley and McNeil, Radiology 143, 1982): 0.5 is chance.

    The share of pairs of a positive and a negative case in which the positive one has the larger score; equal
    scores count half. Several classes: each against the rest, by its probability, and the mean of them. A
    reference of C numbers gives each channel a yes or no of its own.

    Not measured where all cases are positive, or none.
    """

    name = "auroc"
    title = "area under the ROC curve"
    better = "higher"
    perfect = 1.0
    useless = 0.5

    def measure(self, pair: Pair) -> dict[str, Floats]:
        """One row a class: its score, and whether the case is of it."""
        scores = _case_scores(pair.result)
        truth = labels.reference_labels(pair.reference).ravel()
        if scores.size == 1:
            return {"1": _row(scores[0], _label(truth, 2) == 1)}
        if truth.size == scores.size:
            if not np.isin(truth, (0, 1)).all():
                raise SpecError(f"want 0 or 1 for each of {scores.size} channels, got {truth.tolist()}")
            return {str(i): _row(s, bool(t)) for i, (s, t) in enumerate(zip(scores, truth, strict=True))}
        label = _label(truth, scores.size)
        shares = _probabilities(scores, pair.options)
        if scores.size == 2:
            return {"1": _row(shares[1], label == 1)}
        return {str(i): _row(share, i == label) for i, share in enumerate(shares)}

    def pool(self, rows: Floats, weights: Floats) -> Floats:
        """Over all pairs of cases, each as often as the product of its weights."""
        rows, weights = rows[~np.isnan(rows[:, 0])], weights[:, ~np.isnan(rows[:, 0])]
        if not len(rows):
            return np.full(len(weights), math.nan)
        order = np.argsort(rows[:, 0], kind="stable")
        rows = rows[order]
        starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-math.inf))
        step = max(1, _PIECE // len(rows))
        pieces = [weights[i : i + step, order] for i in range(0, len(weights), step)]
        return np.concatenate([_areas(rows[:, 1], piece, starts) for piece in pieces])


class ExpectedCalibrationError(ScoreMetric):
    """How far confidence and accuracy lie apart (Guo et al., ICML 2017): Σ nᵢ/n · |accuracyᵢ - confidenceᵢ|.

    The largest probability of a case is its confidence; cases fall into ``bins`` bins of equal width. It says
    little of fewer cases than some ten a bin.
    """

    name = "ece"
    title = "expected calibration error"
    better = "lower"
    perfect = 0.0
    defaults: ClassVar[Mapping[str, Option]] = {"scores": "auto", "bins": 15}

    def measure(self, pair: Pair) -> dict[str, Floats]:
        """One row: of each bin the number of cases, their confidence, and how many are right."""
        scores = _case_scores(pair.result)
        bins = int(pair.options["bins"])
        if bins < 1:
            raise SpecError(f"want at least 1 bin, got {bins}")
        label = _label(labels.reference_labels(pair.reference).ravel(), max(2, scores.size))
        shares = _probabilities(scores, pair.options)
        confidence = float(shares.max())
        row = np.zeros((bins, 3))
        # Bins are closed above, as in the paper.
        row[min(bins - 1, max(0, math.ceil(confidence * bins) - 1))] = (
            1,
            confidence,
            shares.argmax() == label,
        )
        return {"": row.ravel()}

    def pool(self, rows: Floats, weights: Floats) -> Floats:
        """See the base."""
        known = ~np.isnan(rows[:, 0])
        sums = (weights[:, known] @ rows[known]).reshape(len(weights), -1, 3)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(sums[..., 1] - sums[..., 2]).sum(axis=1) / sums[..., 0].sum(axis=1))


def _row(score: float, is_positive: bool) -> Floats:
    return np.array([score, is_positive], np.float64)


def _areas(positive: Floats, weights: Floats, starts: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    """Areas under the curve for rows in the order of their scores; equal scores begin at ``starts``."""
    ups = np.add.reduceat(weights * positive, starts, axis=1)
    downs = np.add.reduceat(weights * (1 - positive), starts, axis=1)
    below = np.cumsum(downs, axis=1) - downs / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((ups * below).sum(axis=1) / (ups.sum(axis=1) * downs.sum(axis=1)))


def _case_scores(result: Array) -> Floats:
    """``[C]`` of one case."""
    if result.ndim > 2 or (result.ndim == 2 and result.shape[0] != 1) or result.size == 0:
        raise SpecError(f"want the class scores of one case, 1xC, got {format_dims(result.shape)}")
    return result.ravel().astype(np.float64)


def _label(truth: Array, count: int) -> int:
    if truth.size != 1 or not 0 <= int(truth[0]) < count:
        raise SpecError(f"want one label, 0 … {count - 1}, got {', '.join(map(str, truth[:8].tolist()))}")
    return int(truth[0])


def _probabilities(scores: Floats, options: Mapping[str, Option]) -> Floats:
    """Of every class; of no and yes where there is a single score."""
    if scores.size == 1:
        yes = float(scores[0])
        if options["scores"] == "logits":
            yes = 1 / (1 + math.exp(-max(-700.0, min(700.0, yes))))
        return np.array([1 - yes, yes])
    if options["scores"] == "logits":
        raised = np.exp(scores - scores.max())
        return np.asarray(raised / raised.sum())
    if abs(float(scores.sum()) - 1) > _SUM_TOLERANCE:
        raise SpecError(
            f"probabilities of classes that exclude each other add up to 1, got {scores.sum():.4g}",
            hint="scores=logits, or a reference with one number for each channel",
        )
    return scores


ACCURACY = Accuracy()
BALANCED_ACCURACY = BalancedAccuracy()
SENSITIVITY = Sensitivity()
AUROC = Auroc()
ECE = ExpectedCalibrationError()
