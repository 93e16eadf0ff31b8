"""What is particular to non-local means."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.restoration import denoise_nl_means

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import non_local_means
from edgekit.kernels.denoise.patches import METHODS, NOISES
from edgekit.kernels.interpolation import BOUNDARIES

SIGMA = 10.0


def steps(shape: tuple[int, ...]) -> np.ndarray:
    """Bands of three grey levels, without noise."""
    return 40 + 60.0 * (np.indices(shape).sum(0) // 9 % 3)


def noisy(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    noise = SIGMA * np.random.default_rng(seed).standard_normal(shape)
    return (steps(shape) + noise).astype(np.float32)


def error(result: np.ndarray) -> float:
    return float(np.sqrt(np.mean((result - steps(result.shape)) ** 2)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", [b for b in BOUNDARIES if b != "zero"])
@pytest.mark.parametrize("shape", [(20, 33), (7, 9, 18)])
def test_a_constant_stays_to_the_bit(method, boundary, shape):
    image = np.full(shape, 0.1, np.float32)
    result = non_local_means(image, sigma=2.0, search_radius=3, method=method, boundary=boundary)
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_removed_and_edges_stay(method):
    for shape, radius in (((60, 70), 5), ((20, 24, 28), 2)):
        image = noisy(shape)
        result = non_local_means(image, sigma=SIGMA, search_radius=radius, method=method)
        assert error(result) < 0.55 * error(image)
        np.testing.assert_allclose(result, steps(shape), atol=5 * SIGMA)


def test_more_strength_is_smoother():
    image = noisy((50, 60))
    smooth = [non_local_means(image, sigma=SIGMA, strength=s) for s in (0.1, 0.5, 1.0, 2.0, 8.0)]
    rough = [np.diff(each).std() for each in smooth]
    assert rough == sorted(rough, reverse=True) and rough[0] > 1.5 * rough[-1]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.sampled_from([(17, 12), (1, 19), (5, 8, 11), (6, 1, 17)]),
    st.integers(1, 3),
    st.data(),
)
def test_axes_may_be_renamed(method, shape, radius, data):
    order = data.draw(st.permutations(range(len(shape))))
    options = {"sigma": SIGMA, "patch_radius": radius, "search_radius": 2, "method": method}
    image = noisy(shape)
    want = non_local_means(image, **options).transpose(order)
    got = non_local_means(np.ascontiguousarray(image.transpose(order)), **options)
    np.testing.assert_allclose(got, want, atol=2e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(17, 12), (1, 19), (5, 8, 11)]),
    st.sampled_from(BOUNDARIES),
    st.sampled_from([-3000.0, -7.0, 0.5, 1000.0]),
    st.data(),
)
def test_axes_may_be_flipped_and_grey_levels_shifted(shape, boundary, shift, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    options = {"sigma": SIGMA, "search_radius": 2, "boundary": boundary}
    image = noisy(shape)
    want = non_local_means(image, **options)
    flipped = non_local_means(np.ascontiguousarray(np.flip(image, axis)), **options)
    np.testing.assert_allclose(np.flip(flipped, axis), want, atol=2e-4)
    if boundary != "zero":
        shifted = non_local_means(image + np.float32(shift), **options)
        np.testing.assert_allclose(shifted - np.float32(shift), want, atol=3e-3)


@pytest.mark.parametrize("method", METHODS)
def test_grey_levels_may_be_scaled_with_the_noise(method):
    image = noisy((20, 31))
    want = non_local_means(image, sigma=SIGMA, method=method)
    got = non_local_means(image * np.float32(4), sigma=4 * SIGMA, method=method)
    np.testing.assert_array_equal(got, want * 4)  # powers of two round alike


@pytest.mark.parametrize("shape", [(33, 47), (9, 11, 19)])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", ["zero", "mirror"])
def test_a_constant_map_is_a_number(shape, noise, method, boundary):
    options = {"search_radius": 2, "noise": noise, "method": method, "boundary": boundary}
    image = noisy(shape)
    want = non_local_means(image, sigma=SIGMA, **options)
    got = non_local_means(image, sigma=np.full(shape, SIGMA, np.float32), **options)
    np.testing.assert_array_equal(got, want)


def test_a_map_counts_where_it_is():
    image, sigma = noisy((40, 60)), np.zeros((40, 60), np.float32)
    sigma[:, 30:] = SIGMA
    result = non_local_means(image, sigma=sigma)
    np.testing.assert_array_equal(result[:, :30], image[:, :30])
    np.testing.assert_array_equal(result[:, 30:], non_local_means(image, sigma=SIGMA)[:, 30:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", NOISES)
def test_outside_a_mask_voxels_are_copied(method, noise):
    image = noisy((2, 1, 12, 41, 75))
    options = {"sigma": SIGMA, "search_radius": 2, "method": method, "noise": noise, "spatial_ndim": 3}
    whole = non_local_means(image, **options)
    grid = np.random.default_rng(1).random(image.shape[2:]) < 0.5
    grid[:, 20:] = False
    for mask in (grid, grid.astype(np.uint8), np.broadcast_to(grid, image.shape).copy()):
        got = non_local_means(image, mask=mask, **options)
        np.testing.assert_array_equal(got, np.where(grid, whole, image))
    np.testing.assert_array_equal(non_local_means(image, mask=np.zeros_like(grid), **options), image)


def test_rician_noise_loses_its_bias():
    """The magnitude of a weak signal in complex noise is too large on average."""
    rng, true = np.random.default_rng(3), 15.0
    real, imaginary = true + SIGMA * rng.standard_normal((90, 90)), SIGMA * rng.standard_normal((90, 90))
    image = np.hypot(real, imaginary).astype(np.float32)
    plain = non_local_means(image, sigma=SIGMA, patch_radius=2, strength=2.0)
    rician = non_local_means(image, sigma=SIGMA, patch_radius=2, strength=2.0, noise="rician")
    assert plain.mean() > true + 2.5
    assert abs(rician.mean() - true) < 0.6


def test_blocks_are_close_to_voxels():
    image = noisy((64, 80))
    voxels, blocks = (non_local_means(image, sigma=SIGMA, method=method) for method in METHODS)
    assert np.sqrt(np.mean((voxels - blocks) ** 2)) < 0.3 * SIGMA
    assert (voxels != blocks).any()


def test_without_noise_nothing_changes():
    image = noisy((30, 41))
    for method in METHODS:
        np.testing.assert_array_equal(non_local_means(image, sigma=0.0, method=method), image)


@pytest.mark.parametrize(
    ("shape", "patch", "search"), [((60, 70), 2, 5), ((40, 50), 3, 4), ((15, 18, 21), 1, 2)]
)
def test_agrees_with_scikit_image_where_it_drops_no_weight(shape, patch, search):
    """Of noise alone, with a large h, no distance reaches the one from which it drops weights."""
    image = 100 + (SIGMA * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    got = non_local_means(image, sigma=SIGMA, patch_radius=patch, search_radius=search, strength=3.0)
    want = denoise_nl_means(
        image, 2 * patch + 1, search, h=3 * SIGMA, sigma=SIGMA, fast_mode=True, preserve_range=True
    )
    # Its exponential is right to a few per cent, its float32 integral image to less.
    np.testing.assert_allclose(got, want, atol=0.05 * SIGMA)
    assert np.abs(image - want).max() > 2 * SIGMA


def test_a_plain_image_is_a_batch_of_one():
    for shape in ((12, 20), (6, 12, 20)):
        image = noisy(shape)
        batch = non_local_means(image[None, None], sigma=SIGMA, search_radius=2, spatial_ndim=len(shape))
        np.testing.assert_array_equal(non_local_means(image, sigma=SIGMA, search_radius=2), batch[0, 0])
        out = np.empty_like(image)
        assert non_local_means(image, sigma=SIGMA, search_radius=2, out=out) is out
        np.testing.assert_array_equal(out, batch[0, 0])


def test_channels_are_apart():
    image = noisy((2, 3, 20, 30))
    whole = non_local_means(image, sigma=SIGMA, spatial_ndim=2)
    for n, c in np.ndindex(2, 3):
        np.testing.assert_array_equal(whole[n, c], non_local_means(image[n, c], sigma=SIGMA))
    sigmas = np.array([[1, 5, 10], [20, 0, 3]], np.float32)
    each = non_local_means(image, sigma=sigmas[..., None, None], spatial_ndim=2)
    for n, c in np.ndindex(2, 3):
        np.testing.assert_array_equal(each[n, c], non_local_means(image[n, c], sigma=float(sigmas[n, c])))


def test_sigma_can_be_estimated(monkeypatch):
    """Whatever finds it is asked once, for every channel."""
    found = np.array([[SIGMA, 3.0]])
    module = types.ModuleType("edgekit.kernels.denoise.noise")
    module.estimate_noise = lambda image, **options: found[0, 0] if image.ndim == 2 else found
    monkeypatch.setitem(sys.modules, module.__name__, module)
    image = noisy((1, 2, 30, 40))
    got = non_local_means(image, sigma="estimate", spatial_ndim=2)
    for c, sigma in enumerate(found[0]):
        np.testing.assert_array_equal(got[0, c], non_local_means(image[0, c], sigma=float(sigma)))
    plain = non_local_means(image[0, 0], sigma="estimate")
    np.testing.assert_array_equal(plain, got[0, 0])


BAD = {
    "sigma": [
        *(-1.0, np.nan, np.inf, "guess", True, None, [1.0]),
        *(np.full((12, 20), bad, np.float32) for bad in (-1, np.nan)),
        *(np.ones((12, 21), np.float32), np.ones((12, 20))),
    ],
    "patch_radius": [0, 5, 1.0, True, "1"],
    "search_radius": [0, 17, 2.5, None],
    "strength": [0.0, -1.0, 1e3, np.nan, "1", True],
    "method": ["blocks", None, 1],
    "noise": ["speckle", None],
    "mask": [np.ones((12, 21), bool), np.ones((12, 20), np.float32), "all", np.ones((20,), bool)],
    "boundary": ["border", None],
    "spatial_ndim": [1, 4, True, "2"],
}


@pytest.mark.parametrize(("name", "value"), [(name, each) for name, bad in BAD.items() for each in bad])
def test_bad_options_are_refused(name, value):
    with pytest.raises(KernelError, match=name) as caught:
        non_local_means(noisy((12, 20)), **{"sigma": SIGMA, name: value})
    assert caught.value.where == "non_local_means"


def test_what_a_batch_needs_is_said():
    with pytest.raises(KernelError, match="axes") as caught:
        non_local_means(noisy((1, 1, 12, 20)), sigma=SIGMA)
    assert "spatial_ndim" in str(caught.value.hint)


def test_out_may_not_be_sigma_or_mask():
    image = noisy((12, 20))
    sigma, mask = np.full_like(image, SIGMA), np.ones(image.shape, np.uint8)
    with pytest.raises(KernelError, match="overlaps"):
        non_local_means(image, sigma=sigma, out=sigma)
    with pytest.raises(KernelError, match="overlaps"):
        non_local_means(image.astype(np.uint8), sigma=SIGMA, mask=mask, out=mask)


def test_the_extension_checks_for_itself():
    image, sigma = np.zeros((1, 1, 4, 5), np.float32), np.ones((1, 1, 1, 1), np.float32)
    out = np.empty_like(image)
    _C.non_local_means(image, out, sigma)
    for arguments, options in (
        ((image, image, sigma), {}),
        ((image, out[..., :4].copy(), sigma), {}),
        ((image, out, np.ones((1, 1, 4, 4), np.float32)), {}),
        ((image, out, sigma.astype(np.float16)), {}),
        ((image, out, sigma, np.ones((1, 1, 4, 4), np.uint8)), {}),
        ((image, out, sigma, image), {}),
        ((image, out, sigma), {"patch_radius": 5}),
        ((image, out, sigma), {"search_radius": 2**30}),
        ((image, out, sigma), {"strength": float("nan")}),
        ((image, out, sigma), {"floor": 1.0}),
        ((image, out, sigma), {"threads": 0}),
    ):
        with pytest.raises(ValueError, match=r"must|differ|overlaps|blocks"):
            _C.non_local_means(*arguments, **options)
