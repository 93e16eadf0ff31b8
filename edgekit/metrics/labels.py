"""Results of segmentation and classification as labels, however the network says them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edgekit.errors import SpecError
from edgekit.metrics.base import Option, Pair, channel_axis, reshaped
from edgekit.spec import Array, format_dims

Mask = npt.NDArray[np.bool_]

#: What floating-point results hold, and how several channels are meant. ``auto`` is settled by looking at the
#: first result of the baseline and said in the report.
DEFAULTS: Mapping[str, Option] = {"scores": "auto", "channels": "auto"}
CHOICES = {
    "scores": ("auto", "logits", "probabilities", "labels"),
    "channels": ("auto", "exclusive", "independent"),
}

_SHOWN = 8


def settle(result: Array, layout: str, options: Mapping[str, Option]) -> dict[str, Option]:
    """The options with ``scores`` told: labels are integers, probabilities lie in 0 … 1, logits do not."""
    if options["scores"] != "auto":
        return dict(options)
    channels = _channels(result, layout)
    if result.dtype.kind in "iub" or (channels == 1 and float(result.max()) > 1 and _is_integral(result)):
        scores = "labels"
    elif result.min() >= 0 and result.max() <= 1:
        scores = "probabilities"
    else:
        scores = "logits"
    return {**options, "scores": scores}


def label_map(result: Array, layout: str, options: Mapping[str, Option]) -> Array:
    """The label at every place, without the axis of the channels: int64 [N, …], or as the network says it.

    Several channels: the first one with the largest score. One channel: 1 above the threshold, 0 elsewhere.

    Raises:
        SpecError: Labels in several channels.
    """
    axis, channels = channel_axis(result, layout), _channels(result, layout)
    if options["scores"] == "labels":
        if result.dtype.kind == "f" and not _is_integral(result):
            raise SpecError("the result holds numbers that are no labels", hint="scores=probabilities")
        # A label map may come without an axis for channels; then that letter of its layout means nothing.
        labels = result.squeeze(axis) if axis is not None and channels == 1 else result
        return labels.astype(np.int64)
    if axis is None or channels == 1:
        above = _above(result, options)
        return (above if axis is None else above.squeeze(axis)).astype(np.int64)
    return np.asarray(result.argmax(axis))


def reference_labels(reference: Array) -> Array:
    """The reference as int64.

    Raises:
        SpecError: It holds numbers that are no labels.
    """
    if reference.dtype.kind == "f" and not _is_integral(reference):
        odd = reference[~(reference == np.rint(reference))].flat[0]
        raise SpecError(f"the reference wants whole numbers, which are labels, got {odd:g}")
    return reference.astype(np.int64)


def labels(pair: Pair) -> tuple[Array, Array]:
    """Result and reference as labels of one shape.

    Raises:
        SpecError: The shapes differ, or the reference has labels that the result cannot have.
    """
    got = label_map(pair.result, pair.layout, pair.options)
    want = reshaped(reference_labels(pair.reference), got.shape)
    if pair.options["scores"] != "labels":
        _check_known(want, max(2, _channels(pair.result, pair.layout)))
    return got, want


def are_independent(pair: Pair) -> bool:
    """Whether each channel is a mask of its own: it is said, or the reference has as many channels."""
    channels = _channels(pair.result, pair.layout)
    if channels == 1 or pair.options["scores"] == "labels":
        return False
    if pair.options["channels"] != "auto":
        return pair.options["channels"] == "independent"
    longer = [n for n in pair.reference.shape if n != 1]
    return longer == [n for n in pair.result.shape if n != 1]


def masks(pair: Pair) -> Iterator[tuple[str, Mask, Mask]]:
    """Each class that the result or the reference has, with both masks; label 0 is background and left out.

    Masks have the shape of the result without its axis of channels. Channels that are independent are named
    by their index, from 0.

    Raises:
        SpecError: Result and reference do not go together.
    """
    if are_independent(pair):
        axis = pair.channel_axis
        assert axis is not None
        want = reshaped(reference_labels(pair.reference), pair.result.shape)
        _check_known(want, 2)
        got = _above(pair.result, pair.options)
        for index in range(pair.result.shape[axis]):
            ours = got.take([index], axis).squeeze(axis)
            theirs = np.equal(want.take([index], axis).squeeze(axis), 1)
            if ours.any() or theirs.any():
                yield str(index), ours, theirs
        return
    got_labels, want_labels = labels(pair)
    for label in np.union1d(np.unique(got_labels), np.unique(want_labels)):
        if label != 0:
            yield str(label), np.equal(got_labels, label), np.equal(want_labels, label)


def as_reference(result: Array, layout: str, options: Mapping[str, Option]) -> Array:
    """The labels that a result says, to compare another result with."""
    if options["channels"] == "independent" and _channels(result, layout) > 1:
        return _above(result, options).astype(np.uint8)
    return label_map(result, layout, options)


def _above(result: Array, options: Mapping[str, Option]) -> Mask:
    """Where a score of its own is a yes."""
    return np.greater(result, 0.0 if options["scores"] == "logits" else 0.5)


def _channels(result: Array, layout: str) -> int:
    axis = channel_axis(result, layout)
    return 1 if axis is None else result.shape[axis]


def _is_integral(array: Array) -> bool:
    return bool((array == np.rint(array)).all())


def _check_known(labels: Array, count: int) -> None:
    found = np.unique(labels)
    if found[0] >= 0 and found[-1] < count:
        return
    shown = ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
    raise SpecError(
        f"the reference holds the labels {shown}, the result has {count} classes: want 0 … {count - 1}",
        hint="renumber the labels of the reference",
    )


def check_single(array: Array, layout: str) -> None:
    """Refuse a batch: a distance has no meaning across its items.

    Raises:
        SpecError: There is more than one item.
    """
    if layout.startswith("N") and array.shape[0] != 1:
        raise SpecError(f"want one image a case, got a batch of {array.shape[0]}: {format_dims(array.shape)}")
