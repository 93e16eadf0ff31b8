"""What is particular to non-local means under speckle."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import KernelError
from edgekit.kernels import obnlm

SIGMA = 1.5


def clean(shape: tuple[int, ...]) -> np.ndarray:
    return 20 + 80.0 * (np.indices(shape).sum(0) // 11 % 3)


def speckled(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    noise = SIGMA * np.random.default_rng(seed).standard_normal(shape)
    return np.maximum(clean(shape) + np.sqrt(clean(shape)) * noise, 0).astype(np.float32)


def test_speckle_is_removed_where_it_is_weak_and_where_it_is_strong():
    for shape, radius in (((70, 80), 5), ((22, 25, 28), 2)):
        image, true = speckled(shape), clean(shape)
        result = obnlm(image, sigma=SIGMA, search_radius=radius, strength=1.5)
        for level in np.unique(true):
            before, after = ((each - true)[true == level].std() for each in (image, result))
            assert after < 0.7 * before, (shape, level)


def test_a_constant_stays_to_the_bit():
    image = np.full((20, 33), 0.1, np.float32)
    np.testing.assert_array_equal(obnlm(image, sigma=2.0), image)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(17, 12), (1, 19), (5, 8, 11)]), st.integers(1, 2), st.data())
def test_axes_may_be_renamed(shape, radius, data):
    order = data.draw(st.permutations(range(len(shape))))
    options = {"sigma": SIGMA, "patch_radius": radius, "search_radius": 2}
    image = speckled(shape)
    want = obnlm(image, **options).transpose(order)
    got = obnlm(np.ascontiguousarray(image.transpose(order)), **options)
    np.testing.assert_allclose(got, want, atol=2e-4)


def test_four_times_as_bright_with_twice_the_noise_is_the_same():
    image = speckled((20, 31))
    want = obnlm(image, sigma=SIGMA, floor=1.0)
    np.testing.assert_array_equal(obnlm(image * np.float32(4), sigma=2 * SIGMA, floor=4.0), want * 4)


def test_maps_masks_and_batches():
    image = speckled((2, 3, 21, 40))
    whole = obnlm(image, sigma=SIGMA, spatial_ndim=2)
    np.testing.assert_array_equal(whole[1, 2], obnlm(image[1, 2], sigma=SIGMA))
    sigma = np.full(image.shape[2:], SIGMA, np.float32)
    np.testing.assert_array_equal(obnlm(image, sigma=sigma, spatial_ndim=2), whole)
    mask = np.random.default_rng(0).random(image.shape[2:]) < 0.5
    masked = obnlm(image, sigma=SIGMA, mask=mask, spatial_ndim=2)
    np.testing.assert_array_equal(masked, np.where(mask, whole, image))


def test_sigma_is_estimated_where_it_is_the_same_everywhere(monkeypatch):
    seen = []
    module = types.ModuleType("edgekit.kernels.denoise.noise")

    def estimate_noise(image: np.ndarray, **options: object) -> np.ndarray:
        seen.append(image)
        return np.full(image.shape[:2], SIGMA)

    module.estimate_noise = estimate_noise
    monkeypatch.setitem(sys.modules, module.__name__, module)
    image = speckled((60, 60))
    np.testing.assert_array_equal(obnlm(image, sigma="estimate"), obnlm(image, sigma=SIGMA))
    (stable,), true = seen, clean(image.shape)
    for level in np.unique(true):
        assert stable[0, 0][true == level].std() == pytest.approx(SIGMA, rel=0.2)


BAD = {
    "sigma": [-1.0, np.nan, "guess", None, np.full((12, 20), -1, np.float32)],
    "floor": [0.0, -1.0, 1e7, np.nan, "1"],
    "strength": [0.0, 1e3],
    "patch_radius": [0, 5],
    "search_radius": [0, 17],
    "mask": [np.ones((12, 21), bool)],
    "boundary": ["border"],
}


@pytest.mark.parametrize(("name", "value"), [(name, each) for name, bad in BAD.items() for each in bad])
def test_bad_options_are_refused(name, value):
    with pytest.raises(KernelError, match=name) as caught:
        obnlm(speckled((12, 20)), **{"sigma": SIGMA, name: value})
    assert caught.value.where == "obnlm"
