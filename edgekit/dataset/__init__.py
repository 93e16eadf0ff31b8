"""Images of the user's own as a model's inputs: in order, lazily read, digested, refused where they mislead.

Quantizing, pruning and distilling look at data. What they find depends on every file of it, so the order is
fixed, each file's SHA-256 is kept, and a set that cannot stand for what the model will see is refused. There
are no random samples.
"""

from __future__ import annotations

from edgekit.dataset.checks import MIN_SAMPLES, unlike
from edgekit.dataset.dataset import Dataset, Sample
from edgekit.dataset.record import DatasetRecord, FileDigest, InputFacts, look_at

__all__ = [
    "MIN_SAMPLES",
    "Dataset",
    "DatasetRecord",
    "FileDigest",
    "InputFacts",
    "Sample",
    "look_at",
    "unlike",
]
