"""Where a compiled network begins to compute something else than the model that it was compiled from."""

from __future__ import annotations

from edgekit.diff.report import DiffReport, Divergence, Part, Probed
from edgekit.diff.run import diff

__all__ = ["DiffReport", "Divergence", "Part", "Probed", "diff"]
