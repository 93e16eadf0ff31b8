"""The page about the kernels: its code runs, and it names every operator."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edgekit.kernels.base import OPERATORS

PAGE = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text(encoding="utf-8")


def test_the_code_runs_and_does_what_its_comments_say():
    names: dict[str, np.ndarray] = {}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, names)
    assert names["segmentation"].dtype == np.uint8
    assert names["coarse"].shape == (1, 1, 12, 16, 14)
    assert float(np.max(names["residual_vox"])) < 1e-2
    inside = names["there_and_back"][..., 4:-4, 4:-4, 4:-4]
    assert np.abs(inside).max() < 5e-2  # of a displacement of 3 voxels, resampled once
    np.testing.assert_allclose(names["same"], names["moved"], atol=1e-4)
    np.testing.assert_allclose(names["count"].sum(), names["image"].size, rtol=1e-5)


def test_every_operator_is_in_the_table():
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(OPERATORS)
