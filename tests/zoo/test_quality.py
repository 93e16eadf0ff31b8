"""The committed weights, on images that ship inside nilearn (MNI152) and pydicom (CT, MR, ultrasound).

And on drawn cases where there is no such image with labels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_nl_means

from edgekit import kernels
from edgekit.torch.source import call_factory
from edgekit.zoo import MODELS, cases

Image = npt.NDArray[np.float32]
GRID_ZYX = (96, 112, 96)
SPACING_MM = 2


def trained(name: str) -> torch.nn.Module:
    module = call_factory(MODELS[name].factory)
    module.load_state_dict(load_file(MODELS[name].weights))
    return module


def psnr_db(image: Image, clean: Image) -> float:
    return float(10 * np.log10(np.ptp(clean) ** 2 / np.mean((image - clean) ** 2)))


def denoised(noisy: Image) -> Image:
    with torch.no_grad():
        return trained("denoise2d")(torch.from_numpy(noisy)[None, None])[0, 0].numpy()


def example(name: str) -> Image:
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    pixels = dataset.pixel_array.astype(np.float32)
    return pixels[0, ..., 0] if pixels.ndim == 4 else pixels


@pytest.mark.parametrize(
    ("name", "rician", "gain_db"),
    [
        ("CT_small.dcm", False, 11.0),
        ("examples_ybr_color.dcm", False, 10.0),
        ("MR_small.dcm", True, 5.0),
    ],
)
def test_denoiser_gains_and_beats_non_local_means(name: str, rician: bool, gain_db: float) -> None:
    clean, random = example(name), np.random.default_rng(0)
    sigma = 0.1 * float(np.ptp(clean))
    noisy = clean + sigma * random.standard_normal(clean.shape).astype(np.float32)
    if rician:
        noisy = np.hypot(noisy, sigma * random.standard_normal(clean.shape).astype(np.float32))
    peer = denoise_nl_means(noisy, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
    result = psnr_db(denoised(noisy), clean)
    assert result - psnr_db(noisy, clean) >= gain_db
    assert result > psnr_db(peer, clean)


def test_denoiser_leaves_a_clean_image_alone() -> None:
    clean = example("CT_small.dcm")
    assert psnr_db(denoised(clean), clean) > 38


def on_grid(nifti: object) -> Image:
    """Cut or padded around the centre, axes (z, y, x)."""
    source = np.asarray(nifti.dataobj, dtype=np.float32).T  # type: ignore[attr-defined]
    result = np.zeros(GRID_ZYX, np.float32)
    cut, place = [], []
    for have, want in zip(source.shape, GRID_ZYX, strict=True):
        length = min(have, want)
        cut.append(slice((have - length) // 2, (have - length) // 2 + length))
        place.append(slice((want - length) // 2, (want - length) // 2 + length))
    result[tuple(place)] = source[tuple(cut)]
    return result


@cache
def brain() -> dict[str, Image]:
    from nilearn import datasets

    return {
        name: on_grid(getattr(datasets, f"load_mni152_{name}")(resolution=SPACING_MM))
        for name in ("template", "gm_template", "wm_template")
    }


def pulled(image: Image, flow_vox: Image) -> Image:
    return kernels.warp(image[None, None], flow_vox)[0, 0]


def dice(a: Image, b: Image) -> float:
    return float(2 * np.sum((a > 0.5) & (b > 0.5)) / (np.sum(a > 0.5) + np.sum(b > 0.5)))


def test_registration_recovers_a_known_deformation_of_the_brain() -> None:
    anatomy, random = brain(), np.random.default_rng(0)
    inside = (anatomy["gm_template"] + anatomy["wm_template"]) > 0.5
    velocity = np.stack([gaussian_filter(random.standard_normal(GRID_ZYX), 7.0) for _ in range(3)])
    velocity *= 1.75 / np.linalg.norm(velocity, axis=0)[inside].mean()
    known = kernels.integrate_velocity(velocity[None].astype(np.float32))
    fixed = pulled(anatomy["template"], known)
    moving, target = (torch.from_numpy(image)[None, None] for image in (anatomy["template"], fixed))
    with torch.no_grad():
        found = trained("register3d")(moving, target)[1].numpy()

    there = pulled(inside.astype(np.float32), known) > 0.5
    before_mm = SPACING_MM * np.linalg.norm(known[0], axis=0)[there].mean()
    after_mm = SPACING_MM * np.linalg.norm((found - known)[0], axis=0)[there].mean()
    assert after_mm < LARGEST_ERROR * before_mm
    assert kernels.folding_fraction(found) <= 1e-3
    for tissue, gain in (("gm_template", SMALLEST_GAIN), ("wm_template", SMALLEST_GAIN)):
        wanted = pulled(anatomy[tissue], known)
        assert dice(pulled(anatomy[tissue], found), wanted) > dice(anatomy[tissue], wanted) + gain


LARGEST_ERROR = 0.5
SMALLEST_GAIN = 0.1


def overlaps(name: str, shape: tuple[int, ...], count: int) -> npt.NDArray[np.float64]:
    """Dice of each label in cases that training has not seen, [cases, 3]."""
    module, rows = trained(name), []
    for case in cases.generate(name, count, seed=7, shape=shape):
        with torch.no_grad():
            found = module(torch.from_numpy(case.inputs["image"])).argmax(1).numpy()
        rows.append([dice(found == label, case.references["logits"] == label) for label in (1, 2, 3)])
    return np.array(rows)


# Of the organs and of the lesion: a little below what the weights reach on these very cases.
SMALLEST_OVERLAPS = {"segment2d": (0.95, 0.85, 0.7), "segment3d": (0.95, 0.9, 0.6)}


@pytest.mark.parametrize(
    ("name", "shape", "count"), [("segment2d", (256, 256), 8), ("segment3d", (64,) * 3, 6)]
)
def test_segmenter_finds_organs_and_small_lesions(name: str, shape: tuple[int, ...], count: int) -> None:
    found = overlaps(name, shape, count)
    assert (found.mean(0) > SMALLEST_OVERLAPS[name]).all(), found.mean(0)
    # Not so easy that nothing could be lost: compression is judged on these.
    assert found.max() < 1
    assert found.std(0).min() > 1e-3


def test_classifier_tells_findings_apart() -> None:
    module, right = trained("classify2d"), []
    for case in cases.generate("classify2d", 32, seed=7, shape=(160, 160)):
        with torch.no_grad():
            found = module(torch.from_numpy(case.inputs["image"])).argmax(1)
        right.append(found.item() == case.references["logits"].item())
    assert np.mean(right) > SMALLEST_ACCURACY


SMALLEST_ACCURACY = 0.75
