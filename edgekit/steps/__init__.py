"""What a bundle does around its network, by name. One function and one line here add a step."""

from __future__ import annotations

from edgekit.registry import Registry
from edgekit.steps.base import StepKind

STEPS: Registry[StepKind] = Registry(
    "step",
    {
        "warp": "edgekit.steps.registration:WARP",
        "integrate_velocity": "edgekit.steps.registration:INTEGRATE_VELOCITY",
    },
)
