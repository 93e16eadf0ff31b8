"""What can be told of data that would mislead: too little, of another kind, or in another unit.

Only what is plain is refused. A scanner's tag that contradicts the contract is plain; so are Hounsfield units
without a negative number, and values that fill a hundredth of the range that the contract states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.dataset.record import MANY_VALUES, ImageFacts, InputFacts
from edgekit.errors import InputError
from edgekit.spec import TensorSpec

MIN_SAMPLES = 8

# Quantities whose few values or narrow span are what they should be.
_NO_IMAGE = ("label", "flow_vox", "velocity_vox")
# The fat, lung and air of any CT lie below, as interpolation's overshoots around 0 do not.
_BELOW_WATER_HU = -50.0
# Air to soft tissue is 1000.
_LEAST_SPAN_HU = 200.0
# Data that fill less of the contract's range are in another unit.
_LEAST_SHARE = 0.01
# Of so few voxels an image may happen to have few values.
_FEW_VOXELS = 256
# Two sets whose values span so different ranges are not of one kind.
_LARGEST_RATIO = 10.0


def check_count(samples: int, where: str) -> None:
    """Refuse too few samples.

    Raises:
        InputError: Fewer than :data:`MIN_SAMPLES`.
    """
    if samples < MIN_SAMPLES:
        raise InputError(
            f"too few samples: want at least {MIN_SAMPLES} that differ, got {samples}",
            where=where,
            hint="add images, or take more --patches of those that are larger than the model's input",
        )


def check_image(spec: TensorSpec, image: ImageFacts, where: str) -> None:
    """Refuse an image that says nothing.

    Raises:
        InputError: All its values are the same. A vector may be like that.
    """
    if image.minimum == image.maximum and _has_space(spec):
        raise InputError(
            f"the image is constant: all {math.prod(image.shape)} values are {image.minimum:g}",
            where=where,
            hint="leave it out: it says nothing about the images that the model will see",
        )


def check_input(spec: TensorSpec, images: Sequence[ImageFacts]) -> None:
    """Refuse images that are plainly not what the contract means.

    Raises:
        InputError: They contradict the contract's range or quantity, or are label maps.
    """
    for image in images:
        _check_range(spec, image)
    facts = InputFacts.of(spec.name, images)
    if spec.quantity in _NO_IMAGE or spec.dtype == "bool" or not _has_space(spec):
        return
    if spec.quantity == "hounsfield":
        _check_hounsfield(facts, images)
    if all(image.distinct < MANY_VALUES and math.prod(image.shape) >= _FEW_VOXELS for image in images):
        most = max(image.distinct for image in images)
        raise InputError(
            f"the images look like label maps: none of {len(images)} has more than {most} different values",
            where=_where(spec.name),
            hint="name the folder with the scans, not the one with the masks",
        )
    if spec.value_range and all(map(math.isfinite, spec.value_range)):
        low, high = spec.value_range
        share = (facts.maximum - facts.minimum) / (high - low) if high > low else 1.0
        if share < _LEAST_SHARE:
            raise InputError(
                f"the values fill {100 * share:.2g} % of the contract's range: want {low:g} … {high:g}, got "
                f"{facts.minimum:g} … {facts.maximum:g}",
                where=_where(spec.name),
                hint="check the unit of the images: they may have been scaled to another range",
            )


def _check_range(spec: TensorSpec, image: ImageFacts) -> None:
    if spec.value_range is None:
        return
    low, high = spec.value_range
    if not (low <= image.minimum and image.maximum <= high):
        raise InputError(
            f"values out of range: want {low:g} … {high:g}, got {image.minimum:g} … {image.maximum:g}",
            where=f"{image.files[0].name}, {_where(spec.name)}",
            hint="check the unit and the rescale slope of the image",
        )


def _check_hounsfield(facts: InputFacts, images: Sequence[ImageFacts]) -> None:
    others = [modality for modality in facts.modalities if modality != "CT"]
    if others:
        image = next(image for image in images if image.modality == others[0])
        raise InputError(
            f"want CT images in Hounsfield units, got modality {', '.join(others)}",
            where=f"{image.files[0].name}, {_where(facts.name)}",
            hint="choose the CT series of the studies",
        )
    if facts.minimum > _BELOW_WATER_HU:
        raise InputError(
            f"the values are no Hounsfield units: no image of {facts.images} holds fat, lung or air, the "
            f"lowest value is {facts.minimum:g}",
            where=_where(facts.name),
            hint="use CT images, with the rescale slope and intercept of their headers applied",
        )
    if facts.maximum - facts.minimum < _LEAST_SPAN_HU:
        raise InputError(
            f"the values are no Hounsfield units: all lie within {facts.minimum:g} … {facts.maximum:g}",
            where=_where(facts.name),
            hint="use CT images as they are, not scaled to mean and deviation",
        )


def remarks(spec: TensorSpec, images: Sequence[ImageFacts], samples: int) -> list[str]:
    """What a user may not have meant, though it is no reason to refuse the images; a sentence each."""
    notes = []
    facts = InputFacts.of(spec.name, images)
    if len(images) < MIN_SAMPLES:
        count = "1 image" if len(images) == 1 else f"{len(images)} images"
        notes.append(f"input {spec.name!r}: the {samples} samples come from {count} only")
    if len(facts.modalities) > 1:
        notes.append(f"input {spec.name!r}: images of several modalities: {', '.join(facts.modalities)}")
    spans = sorted(
        (high - low, image.files[0].name) for image in images for low, _, high in [image.quantiles]
    )
    (narrow, first), (wide, last) = spans[0], spans[-1]
    if _has_space(spec) and wide > _LARGEST_RATIO * narrow:
        notes.append(
            f"input {spec.name!r}: the values of {last} span {wide:g}, those of {first} {narrow:g}: are both "
            "in one unit?"
        )
    return notes


def unlike(one: Sequence[InputFacts], other: Sequence[InputFacts]) -> tuple[str, ...]:
    """Why two sets of data are plainly not of one kind, a sentence for each reason; empty where they may be.

    This is how calibration data can be held against the cases that a model is judged on.
    """
    reasons = []
    theirs = {facts.name: facts for facts in other}
    for facts in one:
        if facts.name in theirs:
            reasons += _differences(facts, theirs[facts.name])
    return tuple(reasons)


def _differences(one: InputFacts, other: InputFacts) -> list[str]:
    reasons = []
    if one.modalities and other.modalities and not set(one.modalities) & set(other.modalities):
        reasons.append(
            f"input {one.name!r}: modality {', '.join(one.modalities)} against {', '.join(other.modalities)}"
        )
    (low, _, high), (their_low, _, their_high) = one.quantiles, other.quantiles
    spans = f"98 % of the values of an image lie in {low:g} … {high:g} against {their_low:g} … {their_high:g}"
    narrow, wide = sorted((high - low, their_high - their_low))
    if high < their_low or their_high < low or wide > _LARGEST_RATIO * narrow:
        reasons.append(f"input {one.name!r}: {spans}")
    return reasons


def _has_space(spec: TensorSpec) -> bool:
    return any(letter in "DHW" for letter in spec.layout)


def _where(name: str) -> str:
    return f"data for input {name!r}"
