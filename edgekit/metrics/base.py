"""What a metric is.

A metric looks at one case at a time and leaves a small row of numbers for each class. What it says of many
cases it computes from those rows and a weight for each case: all ones for the cases as they are, counts for a
bootstrap sample, ones and zeros for a group. So nothing larger than the rows is ever kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgekit.errors import SpecError, UsageError, did_you_mean
from edgekit.registry import Requirement
from edgekit.spec import LAYOUTS, Array, format_dims

Option = int | float | str | bool
Floats = npt.NDArray[np.float64]
Direction = Literal["higher", "lower"]

SCIPY = Requirement("scipy", "scipy", "metrics", minimum="1.15")
SKIMAGE = Requirement("skimage", "scikit-image", "metrics", minimum="0.25")


@dataclass(frozen=True)
class Pair:
    """A result and what it is measured against.

    Attributes:
        result: The result, as the model gives it.
        reference: Of the same case; a metric that needs none is given an empty array.
        layout: One letter an axis of the result, ``N C D H W``; the usual one for its rank if empty.
        spacing_mm_zyx: Distance of neighbouring voxels, or ``None``: lengths are in voxels.
        options: Every option of the metric.
    """

    result: Array
    reference: Array
    layout: str = ""
    spacing_mm_zyx: tuple[float, float, float] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def axes(self) -> str:
        """The layout, or the usual one for the result's rank."""
        return self.layout or LAYOUTS.get(self.result.ndim, "")

    @property
    def channel_axis(self) -> int | None:
        """The axis of the channels, or ``None``."""
        return channel_axis(self.result, self.layout)

    def spacing(self, ndim: int) -> tuple[float, ...]:
        """Distance of neighbours along the last ``ndim`` of the axes (z, y, x); 1 where it is not known."""
        return (self.spacing_mm_zyx or (1.0, 1.0, 1.0))[-ndim:]

    def aligned(self) -> Array:
        """The reference in the result's shape; only axes of length 1 are added or removed.

        Raises:
            SpecError: The shapes differ in more than that.
        """
        return reshaped(self.reference, self.result.shape)


def channel_axis(array: Array, layout: str) -> int | None:
    """The axis of the channels in a layout, or in the usual one for this rank."""
    axis = (layout or LAYOUTS.get(array.ndim, "")).find("C")
    return axis if axis >= 0 else None


def reshaped(reference: Array, shape: tuple[int, ...]) -> Array:
    """The reference in this shape; only axes of length 1 are added or removed.

    Raises:
        SpecError: The shapes differ in more than that.
    """
    if [n for n in reference.shape if n != 1] != [n for n in shape if n != 1]:
        raise SpecError(
            f"the reference does not lie on the result's grid: want {format_dims(shape)}, "
            f"got {format_dims(reference.shape)}"
        )
    return reference.reshape(shape)


class Metric(ABC):
    """One way to say how good results are.

    ``NaN`` is *not measured*, never a bad or a good value: whoever takes a mean has to look at it first.

    Attributes:
        name: Name in the registry.
        title: A few words.
        better: Which direction is better.
        unit: Of its values: ``"dB"``, ``"mm"`` (voxels where no spacing is known), or empty.
        takes: What it looks at: ``"labels"`` (masks, label maps or class scores), ``"scores"`` (class
            scores of a whole case), ``"image"`` or ``"displacement"``.
        perfect: The best possible value, or ``None`` where there is no such finite one.
        lost: The value of a structure that was missed altogether, if there is such a value.
        useless: A baseline that is no better than this does not do the task that the references describe.
        absence_is_perfect: Not measured means that neither the result nor the reference has the class,
            which is as good as can be: opposite a result that has it, that counts as ``perfect``.
        needs_reference: Whether it compares with something.
        own_reference: Whether comparing with the baseline's own results has a meaning.
        has_case_values: Whether it has a value for a single case.
        defaults: Every option with its default.
        choices: The words that an option may be.
        requirements: Packages that it computes with.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    better: ClassVar[Direction]
    takes: ClassVar[Literal["labels", "scores", "image", "displacement"]]
    unit: ClassVar[str] = ""
    perfect: ClassVar[float | None] = None
    lost: ClassVar[float | None] = None
    useless: ClassVar[float | None] = None
    absence_is_perfect: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    own_reference: ClassVar[bool] = True
    has_case_values: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Option]] = {}
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    requirements: ClassVar[tuple[Requirement, ...]] = ()

    @abstractmethod
    def measure(self, pair: Pair) -> dict[str, Floats]:
        """Look at one case.

        Returns:
            One row of numbers for each class that was measured, float64 [k]; the class is ``""`` where the
            metric has none.

        Raises:
            SpecError: The result or the reference is not what the metric looks at.
        """

    @abstractmethod
    def pool(self, rows: Floats, weights: Floats) -> Floats:
        """What the rows of many cases say together.

        Args:
            rows: One a case, float64 [n, k]; a case that was not measured is a row of NaN.
            weights: How often each case counts, float64 [b, n].

        Returns:
            float64 [b]; NaN where the cases that count say nothing.
        """

    @abstractmethod
    def case_value(self, row: Floats) -> float:
        """The value of a single case; NaN where the metric has none."""

    def settle(self, result: Array, layout: str, options: Mapping[str, Option]) -> dict[str, Option]:
        """The options with nothing left to guess, from the first result of the baseline."""
        return dict(options)

    def as_reference(self, result: Array, layout: str, options: Mapping[str, Option]) -> Array:
        """The baseline's result as a reference, where the cases have none."""
        return result

    def drop(self, baseline: float, candidate: float) -> float:
        """How much worse the candidate's value is, whichever direction that is."""
        if baseline == candidate:
            return 0.0  # two infinities as well
        return baseline - candidate if self.better == "higher" else candidate - baseline

    def unit_of(self, has_spacing: bool) -> str:
        """The unit of its values, for cases whose spacing is known or not."""
        return "voxels" if self.unit == "mm" and not has_spacing else self.unit

    def complete(self, given: Mapping[str, Option]) -> dict[str, Option]:
        """Every option, with defaults for those that are not given.

        Raises:
            UsageError: An unknown option, another type, or a word that is not among its choices.
        """
        for name, value in given.items():
            if name not in self.defaults:
                near = did_you_mean(name, self.defaults)
                raise UsageError(
                    f"metric {self.name} has no option {name!r}: want {', '.join(self.defaults) or 'none'}",
                    hint=f"did you mean {near!r}?" if near else None,
                )
            if type(value) is not type(self.defaults[name]):
                want = type(self.defaults[name]).__name__
                raise UsageError(f"option {name!r} of metric {self.name}: want {want}, got {value!r}")
            if name in self.choices and value not in self.choices[name]:
                near = did_you_mean(str(value), self.choices[name])
                raise UsageError(
                    f"option {name!r} of metric {self.name}: want one of {', '.join(self.choices[name])}, "
                    f"got {value!r}",
                    hint=f"did you mean {near!r}?" if near else None,
                )
        return {**self.defaults, **given}


class CaseMetric(Metric):
    """A metric that has a value for each case and class, and of which many cases have the mean."""

    @abstractmethod
    def values(self, pair: Pair) -> dict[str, float]:
        """The value of each class of one case; see :meth:`Metric.measure`."""

    def measure(self, pair: Pair) -> dict[str, Floats]:
        """See the base."""
        return {name: np.array([value]) for name, value in self.values(pair).items()}

    def pool(self, rows: Floats, weights: Floats) -> Floats:
        """The mean over the cases that were measured."""
        known = ~np.isnan(rows[:, 0])
        values, weights = rows[known, 0], weights[:, known]
        with np.errstate(invalid="ignore"):
            # A weight of 0 leaves a case out, an infinite one too.
            sums = np.where(weights > 0, weights * values, 0.0).sum(axis=1)
            return np.asarray(sums / weights.sum(axis=1))

    def case_value(self, row: Floats) -> float:
        """See the base."""
        return float(row[0])
