"""A step that any tensor fits, for the tests of what steps are embedded in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.steps import STEPS
from edgekit.steps.base import StepKind


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> StepKind:
    """A step ``add`` in the registry, which adds an option to its input."""
    kind = StepKind(
        name="add",
        inputs=1,
        run=lambda arrays, options, threads: (arrays[0] + np.float32(options["value"]),),
        infer=lambda specs, options: specs,
        defaults={"value": 1.0},
    )
    monkeypatch.setitem(sys.modules, "step_of_this_test", SimpleNamespace(ADD=kind))
    monkeypatch.setitem(STEPS._entries, "add", "step_of_this_test:ADD")
    return kind
