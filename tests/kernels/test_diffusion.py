"""What is particular to anisotropic diffusion."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import anisotropic_diffusion
from edgekit.kernels.denoise.diffusion import FORMS

GRIDS = ((31, 45), (11, 17, 37))


def noisy(*grid: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(grid)
    return (100 * (np.indices(grid).sum(0) // 6 % 2) + 10 * noise).astype(np.float32)


# What SimpleITK 2.5.7 makes of formula(grid), in five steps of the largest size, with a conductance of 1.2
# that is scaled in every other step.
ITK = {
    ("gradient", (4, 5)): (
        *(42.3297, 28.8274, 4.56636, 33.9007, 25.7174, 58.3622, 10.9722, 11.9492, 31.4732, -4.47257),
        *(61.3126, -17.3004, 48.5009, 25.7928, -8.50134, -26.0674, -10.0084, 72.9015, -45.1227, 22.3605),
    ),
    ("curvature", (4, 5)): (
        *(36.9469, 22.0759, 19.5638, 26.6977, 31.0906, 49.9279, 21.2818, 20.4697, 16.9611, 1.50433),
        *(54.1817, 15.8211, 19.0755, 14.8946, 2.08227, -9.91768, 6.21849, 29.269, -3.25943, 9.9902),
    ),
    ("gradient", (2, 3, 4)): (
        *(24.9837, 9.04069, 40.2749, -26.8116, 41.3225, 21.7773, 15.4301, 8.2591, -28.4993, 49.6511),
        *(-28.5443, 101.947, 75.2791, -8.32864, 55.1136, -55.1252, 19.8526, 17.3971, 11.2094, 72.888),
        *(-16.3548, 30.4138, 10.1169, 22.1771),
    ),
    ("curvature", (2, 3, 4)): (
        *(22.5791, 18.2271, 19.9806, -22.2801, 20.438, 20.7507, 20.5537, 10.7656, -18.169, 16.9641),
        *(21.9577, 84.5328, 55.371, 21.4927, 19.5899, -44.0443, 15.2307, 19.0363, 22.9685, 30.6236),
        *(-12.2643, 16.2685, 18.524, 29.936),
    ),
}


def formula(grid: tuple[int, ...]) -> np.ndarray:
    at = np.indices(grid)
    waves = np.sin(sum((i + 1.3) * axis for i, axis in enumerate(at)))
    return (100 * waves + 20 * (at.sum(0) % 3)).astype(np.float32)


@pytest.mark.parametrize(("form", "grid"), ITK)
def test_it_is_what_itk_does(form, grid):
    got = anisotropic_diffusion(
        formula(grid), iterations=5, conductance=1.2, form=form, conductance_scaling_update_interval=2
    )
    np.testing.assert_allclose(got.ravel(), ITK[form, grid], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("grid", GRIDS)
def test_constants_stay_and_the_mean_is_kept(grid, form):
    constant = np.full(grid, 7.3, np.float32)
    np.testing.assert_array_equal(anisotropic_diffusion(constant, form=form), constant)
    image = noisy(*grid)
    got = anisotropic_diffusion(image, form=form, iterations=20)
    assert got.std() < image.std() and got.min() >= image.min() and got.max() <= image.max()
    if form == "gradient":
        np.testing.assert_allclose(got.mean(), image.mean(), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_axes_may_be_mirrored_and_exchanged(form):
    image = noisy(9, 14, 33)
    want = anisotropic_diffusion(image, form=form)
    for axis in range(3):
        mirrored = anisotropic_diffusion(np.ascontiguousarray(np.flip(image, axis)), form=form)
        np.testing.assert_allclose(np.flip(mirrored, axis), want, atol=2e-4)
    turned = anisotropic_diffusion(np.ascontiguousarray(image.transpose(2, 0, 1)), form=form)
    np.testing.assert_allclose(turned.transpose(1, 2, 0), want, atol=2e-4)


def test_more_conductance_is_smoother_and_edges_stay():
    image = noisy(40, 60)
    results = [anisotropic_diffusion(image, conductance=c, iterations=20) for c in (0.1, 0.5, 3.0)]
    roughness = [float(np.abs(np.diff(result)).mean()) for result in (image, *results)]
    assert roughness == sorted(roughness, reverse=True) and len(set(roughness)) == 4
    step = np.where(np.arange(60) < 30, 0, 100) + np.random.default_rng(0).standard_normal((40, 60))
    kept = anisotropic_diffusion(step.astype(np.float32), conductance=0.5, iterations=50)
    assert np.diff(kept)[:, 29].min() > 95 and kept[:, :25].std() < 0.4


@pytest.mark.parametrize("form", FORMS)
def test_any_cut_gives_the_same_bits(form):
    for grid in ((3, 900, 600), (150, 40, 30), (2000, 300)):
        image = noisy(*grid)
        options = {"form": form, "iterations": 7, "conductance_scaling_update_interval": 6}
        one = anisotropic_diffusion(image, threads=1, **options)
        for threads in (2, 5):
            np.testing.assert_array_equal(anisotropic_diffusion(image, threads=threads, **options), one)


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16"])
def test_other_types_are_their_values_in_float32(dtype):
    image = np.clip(noisy(40, 57) + 60, 0, 255).astype(dtype)
    got, want = anisotropic_diffusion(image), anisotropic_diffusion(image.astype(np.float32))
    np.testing.assert_array_equal(got, want.astype(dtype) if dtype == "float16" else np.rint(want))


def test_channels_are_apart_and_a_plain_image_is_one_of_a_batch():
    batch = np.stack([noisy(13, 29) * scale for scale in range(6)]).reshape(2, 3, 13, 29)
    got = anisotropic_diffusion(batch, spatial_ndim=2)
    for at in np.ndindex(2, 3):
        np.testing.assert_array_equal(got[at], anisotropic_diffusion(batch[at]))


def test_bad_arguments_are_refused():
    image = noisy(8, 9)
    for bad, message in (
        ({"time_step": 0.126}, "time_step: want at most 0.125, where 2-D diffusion is stable"),
        ({"time_step": 0}, "time_step: want a positive number"),
        ({"conductance": 0}, "conductance: want a positive number"),
        ({"iterations": 0}, "iterations: want an integer from 1"),
        ({"form": "heat"}, "form: want one of 'gradient', 'curvature'"),
        ({"conductance_scaling_update_interval": 0}, "conductance_scaling_update_interval: want an integer"),
        ({"spatial_ndim": 3}, "image: want 5 axes"),
    ):
        with pytest.raises(KernelError, match=message) as caught:
            anisotropic_diffusion(image, **bad)
        assert caught.value.where == "anisotropic_diffusion"
    with pytest.raises(KernelError, match=r"want at most 0\.0625, where 3-D"):
        anisotropic_diffusion(noisy(3, 4, 5), time_step=0.1)
    batch = noisy(1, 1, 8, 9)
    good = {"iterations": 2, "time_step": 0.1, "conductance": 1.0}
    for bad, message in (
        ({"time_step": 0.13}, "time_step"),
        ({"interval": 0}, "interval"),
        ({"form": ""}, "form"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.anisotropic_diffusion(batch, np.zeros_like(batch), **{**good, **bad})
