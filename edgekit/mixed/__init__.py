"""Mixed precision by measurement: which layers compute in bytes or 16 bits, and which stay float32.

``search`` finds the fastest assignment for one backend; everything it measures can be asked for by itself.
"""

from __future__ import annotations

from edgekit.mixed.assignment import Assignment, Choice, Option
from edgekit.mixed.fastest import search
from edgekit.mixed.forms import Build, Group, builder
from edgekit.mixed.layers import layer_reports
from edgekit.mixed.sensitivity import Sensitivity, decibels, noise_of
from edgekit.mixed.trial import Bench, Gate

__all__ = [
    "Assignment",
    "Bench",
    "Build",
    "Choice",
    "Gate",
    "Group",
    "Option",
    "Sensitivity",
    "builder",
    "decibels",
    "layer_reports",
    "noise_of",
    "search",
]
