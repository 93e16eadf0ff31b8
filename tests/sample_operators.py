"""Random inputs and attributes of the operators of domain ``edgekit``."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.graph import opset
from edgekit.spec import Array

GRIDS = ((5, 6, 7), (1, 4, 3), (6, 5), (1, 3))


def inputs(operator: opset.Operator, grid: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Float32 inputs: a batch of 2, images of 3 channels, displacements that also lead outside."""
    arrays = []
    for name in operator.inputs:
        if name == "grid":
            shape: tuple[int, ...] = (2, *(length + 1 for length in grid), len(grid))
        else:
            shape = (2, len(grid) if name.endswith("_vox") else 3, *grid)
        arrays.append(rng.standard_normal(shape).astype(np.float32))
    return arrays


def attributes(operator: opset.Operator, rng: np.random.Generator) -> dict[str, Any]:
    """One of its choices for each attribute; small where they cost time."""
    chosen: dict[str, Any] = {}
    for name in operator.attributes:
        choices = opset.CHOICES.get(name)
        if choices is None:
            chosen[name] = float(rng.uniform(0.3, 1.5))
        else:
            few = choices[:2] if name.endswith("radius") else choices[:5]
            value = few[int(rng.integers(len(few)))]
            chosen[name] = value
    return chosen


def defaults(operator: opset.Operator) -> dict[str, Any]:
    """What a node of it has to say."""
    said: dict[str, Any] = {"sigma": 0.5, "sigma_space": 1.0, "sigma_range": 0.5, "radius": 1}
    return {name: said[name] for name, default in operator.attributes.items() if isinstance(default, type)}
