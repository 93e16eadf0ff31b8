"""How much noise is found in images, against what was put there."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import KernelError
from edgekit.kernels import estimate_noise
from edgekit.kernels.denoise.noise import BAND, reference, rician_deviation

VARIANTS = [variant for variant in BAND.variants if not variant.missing()]


def scene(shape: tuple[int, ...]) -> np.ndarray:
    """Steps, a ramp and a smooth wave, around 100; air around them."""
    grid = np.indices(shape).astype(np.float64)
    centred = [2 * line / (size - 1) - 1 for line, size in zip(grid, shape, strict=True)]
    inside = sum(np.square(line) for line in centred) < 0.8
    steps = 40 * ((grid.sum(0) // 90) % 2) + 10 * np.sin(grid[-1] / 9) + 20 * centred[0]
    return np.where(inside, 100 + steps, 0)


def rician(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    real, imaginary = sigma * rng.standard_normal((2, *image.shape))
    return np.hypot(image + real, imaginary)


SHAPES = ((192, 160), (64, 72, 80))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_gaussian_noise_is_found_within_five_per_cent(shape, sigma):
    rng = np.random.default_rng(0)
    image = scene(shape) + sigma * rng.standard_normal(shape)
    found = estimate_noise(image.astype(np.float32))
    assert isinstance(found, float) and abs(found / sigma - 1) < 0.05
    for dtype in ("float16", "int16"):
        assert abs(estimate_noise(np.rint(image).astype(dtype)) / sigma - 1) < 0.08
    masked = np.where(scene(shape) > 0, image, 0).astype(np.float32)
    assert abs(estimate_noise(masked) / sigma - 1) < 0.15  # the mask has an edge of 100
    assert (scene(shape) == 0).mean() > 0.3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [5.0, 20.0, 40.0])
def test_rician_noise_is_found_within_eight_per_cent_down_to_a_ratio_of_two(shape, sigma):
    image = rician(scene(shape), sigma, np.random.default_rng(1)).astype(np.float32)
    assert abs(estimate_noise(image, noise="rician") / sigma - 1) < 0.08
    assert estimate_noise(image) / sigma < 0.9  # the air, where it is 0.66 sigma, takes part


def test_the_correction_is_exact_for_known_moments():
    """Without signal a magnitude is a Rayleigh one; with much of it a normal one."""
    sigma = np.array([3.0, 3.0])
    mean = np.array([3 * np.sqrt(np.pi / 2), 3000.0])
    deviation = np.array([3 * np.sqrt(2 - np.pi / 2), 3.0])
    np.testing.assert_allclose(rician_deviation(deviation, mean), sigma, rtol=2e-3)
    rng = np.random.default_rng(2)
    for signal in (1.0, 2.0, 4.0):
        values = rician(np.full(200000, signal), 1.0, rng)
        found = rician_deviation(np.array(values.std()), np.array(values.mean()))
        assert abs(found - 1) < 0.01, signal


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
@pytest.mark.parametrize("local", [False, 8, True])
@pytest.mark.parametrize("grid", [(37, 53), (9, 3, 21), (1, 16, 19), (11, 14, 17), (5, 1), (4, 4)])
def test_agrees_with_the_definition(noise, local, grid):
    rng = np.random.default_rng(3)
    for dtype in ("float32", "float16", "uint8", "int16"):
        image = np.clip(60 + 30 * rng.standard_normal((2, 3, *grid)), 0, 255).astype(dtype)
        options = {"noise": noise, "local": local, "spatial_ndim": len(grid)}
        (want,) = reference(image, **options)
        got = estimate_noise(image, **options)
        assert got.dtype == np.float32 and got.shape == (image.shape if local else (2, 3))
        np.testing.assert_allclose(got, want, rtol=1e-5)
        if dtype == "float32" and not local:
            plain = [[estimate_noise(c, noise=noise) for c in sample] for sample in image]
            np.testing.assert_allclose(plain, got, rtol=1e-6)


def test_a_coefficient_is_the_sum_of_taps_and_voxels():
    """Straight from the wavelet: of a single voxel at one of 8 x 8 places."""
    root = np.sqrt(3)
    high = np.array([1 - root, root - 3, 3 + root, -1 - root]) / (4 * np.sqrt(2))
    assert abs(np.square(high).sum() - 1) < 1e-15 and abs(high @ np.arange(4)) < 1e-15
    rng = np.random.default_rng(4)
    image = rng.standard_normal((8, 8)).astype(np.float32)
    want = [
        abs(sum(high[i] * high[j] * image[2 * p + i, 2 * q + j] for i in range(4) for j in range(4)))
        for p in range(3)
        for q in range(3)
    ]
    assert abs(estimate_noise(image) / (np.median(want) / 0.6744897501960817) - 1) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("band", ["detail", "signal"])
def test_every_variant_computes_the_bands(variant, band):
    rng = np.random.default_rng(5)
    for shape in ((1, 2, 33, 35), (2, 1, 7, 3, 18), (1, 1, 9, 21, 1), (1, 1, 40, 41, 66)):
        image = rng.integers(0, 200, shape).astype(np.uint8 if shape[0] == 2 else np.float32)
        (want,) = BAND.reference(image, band=band)
        results = []
        for threads in (1, 3):
            outputs = BAND.allocate(image, band=band)
            variant.run(image, outputs=outputs, threads=threads, band=band)
            np.testing.assert_allclose(outputs[0], want, atol=1e-6 * 200)
            results.append(outputs[0].tobytes())
        assert results[0] == results[1]


@pytest.mark.parametrize("shape", [(256, 256), (48, 64, 64)])
def test_a_local_estimate_follows_the_noise(shape):
    rng = np.random.default_rng(7)
    sigma = np.linspace(6, 12, shape[-1]) * np.ones(shape)
    image = (100 + sigma * rng.standard_normal(shape)).astype(np.float32)
    found = estimate_noise(image, local=True)
    assert found.shape == shape and found.min() > 0
    error = np.abs(found / sigma - 1)
    assert error.mean() < 0.08 and np.median(error) < 0.06
    inside = np.indices(shape)[0] >= 16
    magnitude = sigma * rician(4.0 * inside, 1.0, rng)
    found = estimate_noise(magnitude.astype(np.float32), noise="rician", local=True)
    assert np.abs(found / sigma - 1)[inside].mean() < 0.20


def test_masked_air_has_the_noise_of_the_rest():
    rng = np.random.default_rng(8)
    image = np.zeros((96, 128), np.float32)
    image[:, :64] = 50 + 3 * rng.standard_normal((96, 64))
    found = estimate_noise(image, local=16)
    assert abs(found / 3 - 1).max() < 0.5 and (found > 0).all()
    assert abs(found[:, 100:] / estimate_noise(image) - 1).max() < 1e-6


def test_without_noise_it_is_nothing():
    ramp = np.indices((20, 24)).sum(0).astype(np.float32)
    assert estimate_noise(np.full((20, 24), 7.3, np.float32)) == 0
    assert estimate_noise(ramp) < 1e-5
    assert (estimate_noise(np.zeros((1, 2, 20, 24), np.uint8), spatial_ndim=2, local=8) == 0).all()
    assert estimate_noise(np.zeros((20, 24), np.float32), noise="rician") == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_voxels_that_are_not_finite_do_not_count(value, noise):
    rng = np.random.default_rng(9)
    image = (50 + 3 * rng.standard_normal((80, 90))).astype(np.float32)
    image[::20, ::30] = value
    assert abs(estimate_noise(image, noise=noise) / 3 - 1) < 0.1
    assert np.isfinite(estimate_noise(image, noise=noise, local=True)).all()
    assert estimate_noise(np.full((9, 9), value, np.float32), noise=noise) == 0


def test_a_tensor_gives_a_tensor():
    import torch

    image = torch.rand(2, 1, 16, 17)
    found = estimate_noise(image, spatial_ndim=2)
    assert isinstance(found, torch.Tensor) and found.shape == (2, 1)
    assert isinstance(estimate_noise(image[0, 0]), float)
    assert isinstance(estimate_noise(image[0, 0].contiguous(), local=8), torch.Tensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "poisson"}, "noise"),
        ({"local": 7}, "local"),
        ({"local": 8.0}, "local"),
        ({"spatial_ndim": 4}, "spatial_ndim"),
        ({"threads": 0}, "threads"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(KernelError, match=message):
        estimate_noise(np.zeros((9, 9), np.float32), **options)


def test_an_image_of_too_few_voxels_is_refused():
    with pytest.raises(KernelError, match="at least 4 voxels") as caught:
        estimate_noise(np.zeros((3, 3), np.float32))
    assert "number" in caught.value.hint
    with pytest.raises(KernelError, match="axes"):
        estimate_noise(np.zeros((1, 1, 9, 9), np.float32))
