"""How good a result is, in the terms of the task."""

from __future__ import annotations

from edgekit.metrics.overlap import dice

__all__ = ["dice"]
