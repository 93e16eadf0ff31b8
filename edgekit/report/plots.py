"""Small drawings as SVG: what a row of a table says in figures, on a scale that all rows share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_WIDTH, _HEIGHT, _EDGE = 260, 22, 6


@dataclass(frozen=True)
class Scale:
    """From a drop to a place.

    Attributes:
        low: Value at the left end.
        high: Value at the right end.
    """

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """The scale that holds 0 and all values that are finite, with a little space around."""
        known = [0.0, *(v for v in values if math.isfinite(v))]
        low, high = min(known), max(known)
        space = 0.06 * ((high - low) or 1.0)
        return cls(low - space, high + space)

    def at(self, value: float) -> float:
        """Pixels from the left; values beyond an end lie on it."""
        share = (value - self.low) / (self.high - self.low)
        return round(_EDGE + min(max(share, 0.0), 1.0) * (_WIDTH - 2 * _EDGE), 1)


def interval(scale: Scale, drop: float, low: float, high: float, limit: float | None, *, failed: bool) -> str:
    """A drop as a dot and its interval as a bar; the limit is a dashed line, no drop a thin one."""
    middle = _HEIGHT / 2
    parts = [_line(scale.at(0), 1, scale.at(0), _HEIGHT - 1, "zero")]
    if limit is not None and math.isfinite(limit):
        parts.append(_line(scale.at(limit), 1, scale.at(limit), _HEIGHT - 1, "limit"))
    if math.isfinite(low) and math.isfinite(high):
        parts.append(_line(scale.at(low), middle, scale.at(high), middle, "bar"))
        parts += [_line(scale.at(end), middle - 4, scale.at(end), middle + 4, "bar") for end in (low, high)]
    if math.isfinite(drop):
        x = scale.at(drop)
        # Failed is another shape, not only another colour.
        parts.append(
            f'<path class="bad" d="M{x - 5} {middle}L{x} {middle - 5}L{x + 5} {middle}L{x} {middle + 5}Z"/>'
            if failed
            else f'<circle class="good" cx="{x}" cy="{middle}" r="4"/>'
        )
    return _svg(parts, f"drop {drop:.3g}, interval {low:.3g} to {high:.3g}")


def pair(scale: Scale, baseline: float, candidate: float, *, failed: bool) -> str:
    """Two values: a ring for the baseline, a dot or a diamond for the candidate, a line between."""
    middle = _HEIGHT / 2
    parts = []
    if math.isfinite(baseline) and math.isfinite(candidate):
        parts.append(_line(scale.at(baseline), middle, scale.at(candidate), middle, "between"))
    if math.isfinite(candidate):
        x = scale.at(candidate)
        parts.append(
            f'<path class="bad" d="M{x - 5} {middle}L{x} {middle - 5}L{x + 5} {middle}L{x} {middle + 5}Z"/>'
            if failed
            else f'<circle class="good" cx="{x}" cy="{middle}" r="4"/>'
        )
    if math.isfinite(baseline):
        parts.append(f'<circle class="ring" cx="{scale.at(baseline)}" cy="{middle}" r="4"/>')
    return _svg(parts, f"from {baseline:.4g} to {candidate:.4g}")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _svg(parts: Iterable[str], label: str) -> str:
    return (
        f'<svg role="img" aria-label="{label}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>'
    )
