"""Forms of a model that are smaller and faster than float32: what is asked for, and how they are made.

What a user asks for is a :class:`Compression`. :class:`Forms` makes the forms from it: calibration data are
read once, every form is judged by what it does, and none is assumed to be faster or good enough.
"""

from __future__ import annotations

from edgekit.compression.forms import Forms
from edgekit.compression.wanted import PRECISIONS, Compression, Precision

__all__ = ["PRECISIONS", "Compression", "Forms", "Precision"]
