"""Real images with noise of a known kind and strength added: what bench_denoise.py measures on.

By default the images are those that ship inside pydicom and nilearn; ``--image KIND=FILE`` names others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit import volumes

Array = np.ndarray

# Standard deviation of the noise, as a share of the image's range.
SHARE = 0.07


@dataclass(frozen=True)
class Noisy:
    """An image with and without noise.

    Attributes:
        clean: float32 [H, W] or [D, H, W].
        image: The same with noise.
        sigma: Standard deviation of the noise, in the image's unit; of speckle that at the mean intensity.
        noise: ``"gaussian"``, ``"rician"`` or ``"speckle"``.
    """

    clean: Array
    image: Array
    sigma: float
    noise: str


@dataclass(frozen=True)
class Kind:
    """A kind of image, and the noise it is given."""

    name: str
    noise: str
    load: Callable[[], list[Array]]


def noisy(clean: Array, noise: str, seed: int) -> Noisy:
    """Noise on an image, which is moved to begin at 0.

    Gaussian noise is added. Rician noise is what the magnitude of a complex image has whose parts are noisy.
    Speckle is added in proportion to the root of the intensity (Loupas et al., 1989), as log-compressed
    ultrasound shows it.
    """
    clean = clean - clean.min()
    sigma = SHARE * float(clean.max())
    first, second = np.random.default_rng(seed).standard_normal((2, *clean.shape)).astype(np.float32)
    if noise == "gaussian":
        image = clean + sigma * first
    elif noise == "rician":
        image = np.hypot(clean + sigma * first, sigma * second)
    else:
        image = clean + np.sqrt(clean) * first * np.float32(sigma / np.sqrt(clean.mean()))
    return Noisy(clean, image.astype(np.float32), sigma, noise)


def read(path: str | Path) -> Array:
    """A DICOM or NIfTI file as float32, axes of length 1 left out."""
    return np.squeeze(volumes.read(Path(path)).array.astype(np.float32))


def _example(name: str) -> Array:
    from pydicom.data import get_testdata_file

    return read(str(get_testdata_file(name, download=False)))


def _template(resolution_mm: int) -> Array:
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=resolution_mm)
    return np.ascontiguousarray(np.asarray(image.dataobj, np.float32).T)


def _ct() -> list[Array]:
    """One slice has to do: its upper half is tuned on, its lower half reported."""
    slice_ = _example("CT_small.dcm")
    return [slice_[:64], slice_[64:]]


def _mr() -> list[Array]:
    template = _template(1)
    return [np.ascontiguousarray(template[z]) for z in (70, 85, 100)]


def _volume() -> list[Array]:
    template = _template(2)
    return [
        np.ascontiguousarray(part) for part in (template[10:42, 20:84, 16:80], template[42:74, 20:84, 16:80])
    ]


def _ultrasound() -> list[Array]:
    clip = _example("examples_ybr_color.dcm")
    return [np.ascontiguousarray(clip[frame]) for frame in (0, 10, 20)]


KINDS = (
    Kind("CT slice", "gaussian", _ct),
    Kind("MR slice", "rician", _mr),
    Kind("MR volume", "rician", _volume),
    Kind("ultrasound frame", "gaussian", _ultrasound),
    Kind("ultrasound speckle", "speckle", _ultrasound),
)


def images(kind: Kind, given: Sequence[str]) -> list[Noisy]:
    """The first is for tuning, the others for the report."""
    clean = [read(path) for path in given] if given else kind.load()
    if len(clean) < 2:
        raise SystemExit(f"error: {kind.name}: want 2 images or more, got {len(clean)}")
    return [noisy(array, kind.noise, seed) for seed, array in enumerate(clean)]
