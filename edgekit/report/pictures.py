"""The worst cases as pictures: one slice each, and what baseline and candidate make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.cases import Loaded
from edgekit.gates import Judge, Run
from edgekit.gates.judge import Failed, attempt
from edgekit.gates.verdict import Task
from edgekit.metrics import labels
from edgekit.metrics.base import Pair, channel_axis
from edgekit.report.png import Pixels, encode
from edgekit.reports import CaseResult, ClassResult, MetricReport, TaskReport
from edgekit.spec import LAYOUTS, Array, TensorSpec

# Okabe and Ito's colours, which people of any colour vision tell apart.
BASELINE, CANDIDATE, REFERENCE, GAINED = (0, 114, 178), (213, 94, 0), (240, 228, 66), (86, 180, 233)

Floats = npt.NDArray[np.float64]
_T = TypeVar("_T", bound=np.generic)

_MAX_SIDE = 256
_MIN_PIXELS = 288


@dataclass(frozen=True)
class Panel:
    """One picture: a caption, and a PNG file."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Exhibit:
    """One case under one metric, to look at.

    Attributes:
        metric: Name of the metric.
        case: What was measured.
        text: What is shown: which slice, and which part of it.
        panels: The pictures; none where the candidate has no result, or there is nothing to look at.
    """

    metric: str
    case: CaseResult
    text: str
    panels: tuple[Panel, ...] = ()


def exhibits(judge: Judge, report: TaskReport, candidate: Run, *, count: int = 3) -> tuple[Exhibit, ...]:
    """Run the worst cases once more and draw them.

    Args:
        judge: What made the report.
        report: What it said of the candidate.
        candidate: The candidate.
        count: How many cases of each metric; a result that an earlier metric showed is not shown again.
    """
    found: list[Exhibit] = []
    shown = set()
    for task, metric in zip(judge.tasks, report.metrics, strict=True):
        for case in _worth_showing(metric, count):
            if (task.spec.name, case.case) in shown:
                continue
            shown.add((task.spec.name, case.case))
            loaded = judge.read(case.case)
            ours = judge.baseline(loaded.feeds)[task.spec.name]
            results = attempt(candidate, loaded.feeds)
            theirs = None if isinstance(results, Failed) else results.get(task.spec.name)
            if theirs is None or theirs.shape != ours.shape or not np.isfinite(theirs).all():
                found.append(Exhibit(metric.metric, case, case.error or "the candidate has no usable result"))
                continue
            found.append(
                Exhibit(metric.metric, case, *_drawn(judge, task, loaded, ours, theirs, case.worst_class))
            )
    return tuple(found)


def _worth_showing(metric: MetricReport, count: int) -> Sequence[CaseResult]:
    """The worst cases, but none that did not get worse unless all did not: then the first."""
    worst = metric.worst(count)
    return [case for case in worst if case.error or case.worst_drop > 0] or worst[:1]


def _drawn(
    judge: Judge, task: Task, loaded: Loaded, ours: Array, theirs: Array, worst: ClassResult | None
) -> tuple[str, tuple[Panel, ...]]:
    """What is shown, and the pictures."""
    takes = task.metric.takes
    if takes == "scores" or ours.ndim < 3:
        return f"baseline {_listed(ours)}, candidate {_listed(theirs)}", _input_alone(judge, loaded)
    if takes == "labels":
        return _draw_labels(judge, task, loaded, ours, theirs, worst)
    if takes == "displacement":
        return _draw_fields(task, ours, theirs)
    return _draw_images(judge, task, loaded, ours, theirs)


# ── by the kind of result ─────────────────────────────────────────────────────────────────────────────


def _draw_labels(
    judge: Judge, task: Task, loaded: Loaded, ours: Array, theirs: Array, worst: ClassResult | None
) -> tuple[str, tuple[Panel, ...]]:
    reference = loaded.references.get(task.spec.name, np.empty(0))
    pairs = [Pair(r, reference, task.spec.layout, None, task.options) for r in (ours, theirs)]
    before, now = (_labels(pair) for pair in pairs)
    changed = before != now
    if worst is not None:
        # What is lost may be smaller than what else moved.
        label = int(worst.name) + labels.are_independent(pairs[0])
        changed &= (before == label) | (now == label)
    truth = _truth(reference, before.shape, task, ours)
    window, text = _window(changed, before > 0)
    before, now = before[window], now[window]
    gray = _background(judge, loaded, before.shape, window)
    zoom = _zoom(before.shape)
    panels = []
    if truth is not None:
        drawn = _contour(_enlarged(gray, zoom), _repeat(truth[window], zoom), REFERENCE)
        panels.append(Panel("input and reference", encode(drawn)))
    drawn = _contour(_enlarged(gray, zoom), _repeat(before, zoom), BASELINE)
    panels.append(Panel("baseline", encode(drawn)))
    drawn = _contour(_enlarged(gray, zoom), _repeat(now, zoom), CANDIDATE)
    panels.append(Panel("candidate", encode(drawn)))
    dimmed = _enlarged(gray * 0.5 + 64, zoom)
    lost, gained = (before > 0) & (now != before), (now > 0) & (now != before)
    dimmed[_repeat(gained, zoom)] = GAINED
    dimmed[_repeat(lost, zoom)] = CANDIDATE
    panels.append(Panel("lost (orange), gained (light blue)", encode(dimmed)))
    return text, tuple(panels)


def _draw_images(
    judge: Judge, task: Task, loaded: Loaded, ours: Array, theirs: Array
) -> tuple[str, tuple[Panel, ...]]:
    before, now = (_spatial(result, task.spec) for result in (ours, theirs))
    difference = now - before
    window, text = _window(np.abs(difference), np.ones(before.shape, bool))
    zoom = _zoom(before[window].shape)
    low, high = _limits(before)
    panels = []
    gray = _background(judge, loaded, before[window].shape, window)
    panels.append(Panel("input", encode(_enlarged(gray, zoom))))
    for caption, image in (("baseline", before), ("candidate", now)):
        panels.append(Panel(caption, encode(_enlarged(_gray(image[window], low, high), zoom))))
    peak = float(np.abs(difference[window]).max())
    caption = f"difference: orange brighter, blue darker, full at {peak:.3g}"
    panels.append(Panel(caption, encode(_repeat(_diverging(difference[window], peak), zoom))))
    return text, tuple(panels)


def _draw_fields(task: Task, ours: Array, theirs: Array) -> tuple[str, tuple[Panel, ...]]:
    before, now = (np.linalg.norm(r[0].astype(np.float64), axis=0) for r in (ours, theirs))
    difference = np.linalg.norm(theirs[0].astype(np.float64) - ours[0], axis=0)
    window, text = _window(difference, np.ones(before.shape, bool))
    zoom, high = _zoom(before[window].shape), float(max(before.max(), now.max()))
    panels = [
        Panel(
            f"{caption}: length, white is {high:.3g} voxels",
            encode(_enlarged(_gray(f[window], 0.0, high), zoom)),
        )
        for caption, f in (("baseline", before), ("candidate", now))
    ]
    peak = float(difference[window].max())
    caption = f"length of the difference, full at {peak:.3g} voxels"
    panels.append(Panel(caption, encode(_repeat(_diverging(difference[window], peak), zoom))))
    return text, tuple(panels)


def _input_alone(judge: Judge, loaded: Loaded) -> tuple[Panel, ...]:
    """The middle of the first input that is an image."""
    for spec in judge.cases.specs:
        image = _spatial(loaded.feeds[spec.name], spec)
        if image.ndim in (2, 3):
            window, _ = _window(np.zeros(image.shape), np.ones(image.shape, bool))
            gray = _gray(image[window], *_limits(image))
            return (Panel("input", encode(_enlarged(gray, _zoom(gray.shape)))),)
    return ()


# ── what is shown of an array ─────────────────────────────────────────────────────────────────────────


def _labels(pair: Pair) -> npt.NDArray[np.int64]:
    """One label a voxel, ``[z, y, x]`` or ``[y, x]``; of channels that are independent the last one wins."""
    if labels.are_independent(pair):
        whole = np.zeros([n for n, a in zip(pair.result.shape, pair.axes, strict=True) if a != "C"], np.int64)
        for name, ours, _ in labels.masks(pair):
            whole[ours] = int(name) + 1
    else:
        whole = labels.label_map(pair.result, pair.layout, pair.options).astype(np.int64)
    return whole[0] if pair.axes.startswith("N") else whole


def _truth(reference: Array, shape: tuple[int, ...], task: Task, result: Array) -> Array | None:
    if not reference.size:
        return None
    if [n for n in reference.shape if n != 1] == [n for n in shape if n != 1]:
        return reference.reshape(shape)
    axis = channel_axis(result, task.spec.layout)
    return None if axis is None else np.asarray(np.not_equal(reference.reshape(result.shape), 0).any(axis))[0]


def _spatial(array: Array, spec: TensorSpec) -> Floats:
    """The first item and channel, in float64."""
    layout = spec.layout or LAYOUTS.get(array.ndim, "")
    first = tuple(0 if letter in "NC" else slice(None) for letter in layout)
    return array[first].astype(np.float64)


def _background(
    judge: Judge, loaded: Loaded, shape: tuple[int, ...], window: tuple[int | slice, ...]
) -> Floats:
    """The first input that lies on the same grid, as gray; plain gray where none does."""
    for spec in judge.cases.specs:
        image = _spatial(loaded.feeds[spec.name], spec)
        if image.ndim == len(window) and image[window].shape == shape:
            return _gray(image[window], *_limits(image))
    return np.full(shape, 128.0)


def _window(difference: Array, structure: npt.NDArray[np.bool_]) -> tuple[tuple[int | slice, ...], str]:
    """Where to look: the slice that differs most, and around that a part of it if it is large."""
    weight = difference.astype(np.float64)
    if not weight.any():
        weight = structure.astype(np.float64)
    place: tuple[int | slice, ...] = ()
    text = ""
    if weight.ndim == 3:
        index = int(weight.sum(axis=(1, 2)).argmax())
        place, weight = (index,), weight[index]
        text = f"slice {index + 1} of {len(difference)}"
    parts = []
    for axis in (0, 1):
        length = weight.shape[axis]
        side = min(length, _MAX_SIDE)
        profile = weight.sum(axis=1 - axis)
        middle = float(profile @ np.arange(length) / profile.sum()) if profile.any() else length / 2
        start = min(max(0, round(middle - side / 2)), length - side)
        parts.append(slice(start, start + side))
    if any(part.stop - part.start < n for part, n in zip(parts, weight.shape, strict=True)):
        what = ", ".join(
            f"{axis} {part.start}–{part.stop - 1}" for axis, part in zip("yx", parts, strict=True)
        )
        text = f"{text}, {what}" if text else what
    return (*place, *parts), text


def _limits(image: Floats) -> tuple[float, float]:
    """Black and white: nearly all values lie between."""
    low, high = np.quantile(image, (0.005, 0.995))
    return float(low), float(high)


def _gray(image: Floats, low: float, high: float) -> Floats:
    """0 … 255."""
    return np.clip((image - low) / ((high - low) or 1.0), 0, 1) * 255


def _diverging(difference: Floats, peak: float) -> Pixels:
    """White where nothing differs, towards orange above and blue below."""
    share = np.clip(difference / (peak or 1.0), -1, 1)[..., None]
    end = np.where(share > 0, np.array(CANDIDATE), np.array(BASELINE))
    return np.asarray((255 + (end - 255) * np.abs(share)).round(), np.uint8)


def _zoom(shape: tuple[int, ...]) -> int:
    return max(1, math.ceil(_MIN_PIXELS / max(shape)))


def _repeat(array: npt.NDArray[_T], zoom: int) -> npt.NDArray[_T]:
    """Every pixel as a square of them."""
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _enlarged(gray: Floats, zoom: int) -> Pixels:
    """Gray values as pixels ``[y, x, 3]``."""
    return np.repeat(_repeat(gray.round().astype(np.uint8), zoom)[..., None], 3, axis=2)


def _contour(pixels: Pixels, regions: Array, colour: tuple[int, int, int]) -> Pixels:
    """Draw the border of every region, on the inside, two pixels wide."""
    padded = np.pad(regions, 2, mode="edge")
    inner = np.zeros(regions.shape, bool)
    for step in (1, 2):
        for y, x in ((step, 0), (-step, 0), (0, step), (0, -step)):
            shifted = padded[2 + y : 2 + y + regions.shape[0], 2 + x : 2 + x + regions.shape[1]]
            inner |= shifted != regions
    pixels[inner & np.greater(regions, 0)] = colour
    return pixels


def _listed(scores: Array) -> str:
    values = scores.ravel()
    return ", ".join(f"{float(v):.3g}" for v in values[:10]) + (", …" if values.size > 10 else "")
