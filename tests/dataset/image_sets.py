"""Folders of small images for tests: noisy bodies in air, each one different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import volumes
from edgekit.spec import Dim, TensorSpec
from edgekit.volumes import Volume

Floats = npt.NDArray[np.float32]


def body(shape: tuple[int, ...], seed: int, *, low: float = 0.0, high: float = 1.0) -> Floats:
    """A ball of ``high`` in ``low``, with noise of a twentieth of the difference, cut off at ``low``."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    centre = rng.uniform(-0.2, 0.2, len(shape))
    inside = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < 0.3
    values = low + (high - low) * (inside + 0.05 * np.abs(rng.standard_normal(shape)))
    return values.astype(np.float32)


def write_set(
    folder: Path, shape: tuple[int, ...] = (8, 8), count: int = 8, *, ending: str = ".npy", **values: Any
) -> Path:
    """``count`` images with the names case00, case01, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = Volume(body(shape, index, **values), (2.0, 1.0, 1.0), "LPS")
        volumes.write(folder / f"case{index:02}{ending}", image, force=True)
    return folder


def spec(*dims: int | Dim, name: str = "x", **fields: Any) -> TensorSpec:
    layout = {4: "NCHW", 5: "NCDHW", 2: "NC"}[len(dims)]
    return TensorSpec(name, "float32", dims, layout, **fields)
