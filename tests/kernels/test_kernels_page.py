"""The pages about the kernels: their code runs, and together they name every operator."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edgekit.kernels.base import OPERATORS

DOCS = Path(__file__).parents[2] / "docs"
REGISTRATION, DENOISING = (
    (DOCS / name).read_text(encoding="utf-8") for name in ("kernels.md", "denoising.md")
)


def run(page: str) -> dict[str, np.ndarray]:
    """What the code of a page leaves behind."""
    names: dict[str, np.ndarray] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    return names


def test_registration_does_what_its_comments_say():
    names = run(REGISTRATION)
    assert names["segmentation"].dtype == np.uint8
    assert names["coarse"].shape == (1, 1, 12, 16, 14)
    assert float(np.max(names["residual_vox"])) < 1e-2
    inside = names["there_and_back"][..., 4:-4, 4:-4, 4:-4]
    assert np.abs(inside).max() < 5e-2  # of a displacement of 3 voxels, resampled once
    np.testing.assert_allclose(names["same"], names["moved"], atol=1e-4)
    np.testing.assert_allclose(names["count"].sum(), names["image"].size, rtol=1e-5)


def test_denoising_takes_noise_away():
    names = run(DENOISING)
    clean, volume = names["clean"], names["volume"]

    def error(result: np.ndarray, want: np.ndarray) -> float:
        return float(np.sqrt(np.mean((result - want) ** 2)))

    assert 7 < names["sigma"] < 9
    np.testing.assert_array_equal(names["calm"], names["same"])
    for name in ("calm", "magnitude", "flat", "better", "diffused", "middle", "smooth"):
        assert error(names[name], clean) < 0.75 * error(volume, clean), name
    for name in ("edges", "guided", "speckle_free", "diffused_speckle"):
        assert error(names[name], clean[12]) < 0.75 * error(names["slice_"], clean[12]), name
    assert 0 <= float(names["gap"].max()) <= 1e-4
    assert len(names["frames"]) == len(volume)
    np.testing.assert_array_equal(names["both"][1, 0], names["middle"])
    assert names["calm_tensor"].shape == names["batch"].shape


def test_every_operator_is_in_a_table():
    tables = re.findall(r"^\| `(\w+)` \|", REGISTRATION + DENOISING, re.MULTILINE)
    assert sorted(tables) == sorted(OPERATORS)
