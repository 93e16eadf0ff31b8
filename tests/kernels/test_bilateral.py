"""What is particular to the bilateral filter, with a guide and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import bilateral, joint_bilateral
from edgekit.kernels.denoise.bilateral import decay_of, window

GRIDS = hnp.array_shapes(min_dims=2, max_dims=3, max_side=12)


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (60 * (np.indices((9, 20, 37)).sum(0) // 7 % 3) + 10 * rng.standard_normal((9, 20, 37))).astype(
        np.float32
    )


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.floats(-1e6, 1e6, width=32), st.floats(0.1, 50), st.sampled_from(["mirror", "edge", "wrap"]))
def test_a_constant_stays(grid, value, sigma, boundary):
    image = np.full(grid, value, np.float32)
    np.testing.assert_array_equal(
        bilateral(image, sigma_space=2, sigma_range=sigma, boundary=boundary), image
    )


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_flipped_image_gives_the_flipped_result(grid, seed, radius):
    image = np.random.default_rng(seed).standard_normal(grid).astype(np.float32)
    options = {"sigma_space": 1.5, "sigma_range": 0.8, "radius": radius}
    want = bilateral(image, **options)
    for axis in range(len(grid)):
        flipped = bilateral(np.ascontiguousarray(np.flip(image, axis)), **options)
        np.testing.assert_allclose(np.flip(flipped, axis), want, atol=2e-6)


def test_means_stay_between_the_values_of_the_window(image):
    smooth = bilateral(image, sigma_space=2, sigma_range=30)
    assert image.min() <= smooth.min() and smooth.max() <= image.max()
    assert smooth.std() < image.std()


def test_a_wide_range_weighs_by_distance_alone(image):
    from scipy import ndimage

    radius, sigma = 3, 1.7
    grid = np.indices((7, 7, 7)) - radius
    squared = np.square(grid).sum(0)
    weights = np.where(squared <= radius**2, np.exp(-squared / (2 * sigma**2)), 0)
    want = ndimage.correlate(image.astype(np.float64), weights / weights.sum(), mode="mirror")
    got = bilateral(image, sigma_space=sigma, sigma_range=1e9, radius=radius)
    np.testing.assert_allclose(got, want, atol=1e-5 * image.max())


@pytest.mark.parametrize("sigma", [1e-15, 1e-6])
def test_a_narrow_range_changes_nothing(image, sigma):
    np.testing.assert_array_equal(bilateral(image, sigma_space=2, sigma_range=sigma), image)


def test_noise_goes_and_edges_stay():
    clean = np.zeros((40, 60), np.float32)
    clean[:, 30:] = 100
    noisy = clean + 5 * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    smooth = bilateral(noisy, sigma_space=3, sigma_range=20)
    assert np.abs(smooth - clean).mean() < 0.3 * np.abs(noisy - clean).mean()
    assert (smooth[:, 30] - smooth[:, 29]).min() > 85


def test_the_default_radius(image):
    options = {"sigma_space": 2.0, "sigma_range": 30.0}
    np.testing.assert_array_equal(bilateral(image, **options), bilateral(image, **options, radius=3))
    np.testing.assert_array_equal(
        bilateral(image[0], sigma_space=0.1, sigma_range=30),
        bilateral(image[0], sigma_space=0.1, sigma_range=30, radius=1),
    )


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_window_is_half_a_ball(axes, radius):
    offsets, weights = window(axes, radius, 2.0)
    both = {tuple(o) for o in offsets.tolist()} | {tuple(o) for o in (-offsets).tolist()}
    ball = {
        tuple([0] * (3 - axes) + [o - radius for o in at])
        for at in np.ndindex(*(2 * radius + 1,) * axes)
        if 0 < sum((o - radius) ** 2 for o in at) <= radius**2
    }
    assert both == ball and 2 * len(offsets) == len(ball)
    np.testing.assert_allclose(weights, np.exp(-np.square(offsets).sum(1) / 8.0), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int16])
def test_an_image_is_its_own_guide(image, dtype):
    stored = np.clip(image, 0, 255).astype(dtype)
    options = {"sigma_space": 1.5, "sigma_range": 20.0, "radius": 2}
    want = bilateral(stored, **options)
    assert want.dtype == dtype
    np.testing.assert_array_equal(joint_bilateral(stored, stored, **options), want)
    batch = np.stack([stored, stored + dtype(1)])[None]
    for result in (
        bilateral(batch, **options, spatial_ndim=3),
        joint_bilateral(batch, batch, **options, spatial_ndim=3),
    ):
        np.testing.assert_array_equal(result[0, 0], want)
        np.testing.assert_array_equal(result[0, 1], bilateral(batch[0, 1], **options))
    shared = joint_bilateral(batch, batch[:, :1].copy(), **options, spatial_ndim=3)
    np.testing.assert_array_equal(shared[0, 0], want)


def test_edges_of_the_guide_stay(image):
    guide = np.zeros_like(image)
    guide[..., 18:] = 1
    smooth = joint_bilateral(image, guide, sigma_space=3, sigma_range=1e-3, radius=3, boundary="mirror")
    for part in (slice(0, 18), slice(18, 37)):
        spoilt = image.copy()
        outside = np.ones(37, bool)
        outside[part] = False
        spoilt[..., outside] = -500
        again = joint_bilateral(spoilt, guide, sigma_space=3, sigma_range=1e-3, radius=3)
        np.testing.assert_allclose(again[..., part], smooth[..., part], atol=1e-3)


def phantom(shape: tuple[int, ...]) -> np.ndarray:
    """Discs or balls of several values on a slope, with noise."""
    rng = np.random.default_rng(0)
    at = np.moveaxis(np.indices(shape) / np.array(shape).reshape(-1, *(1 for _ in shape)), 0, -1)
    image = 30 * at[..., -1]
    for _ in range(12):
        inside = np.square(at - rng.random(len(shape))).sum(-1) < rng.uniform(0.05, 0.3) ** 2
        image = image + rng.uniform(-60, 100) * inside
    return (image + 8 * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "sigma_space", "sigma_range"),
    [((160, 160), 8.0, 30.0), ((160, 160), 16.0, 30.0), ((160, 160), 8.0, 15.0), ((40, 40, 40), 4.0, 30.0)],
)
def test_the_error_of_the_grid_is_what_is_stated(shape, sigma_space, sigma_range):
    image = phantom(shape)
    options = {"sigma_space": sigma_space, "sigma_range": sigma_range}
    want = bilateral(image, **options, radius=int(3 * sigma_space))
    error = (bilateral(image, **options, method="grid") - want) / sigma_range
    assert np.abs(error).max() < 0.11 and 0.001 < np.sqrt(np.square(error).mean()) < 0.006


@settings(max_examples=15, deadline=None)
@given(GRIDS, st.floats(-1e6, 1e6, width=32), st.sampled_from(["mirror", "edge", "wrap", "reflect"]))
def test_a_constant_stays_on_the_grid(grid, value, boundary):
    image = np.full(grid, value, np.float32)
    options = {"sigma_space": 2.0, "sigma_range": 1e6, "method": "grid", "boundary": boundary}
    np.testing.assert_array_equal(bilateral(image, **options), image)


def test_what_has_no_place_on_the_grid_is_refused(image):
    options = {"sigma_space": 2.0, "sigma_range": 30.0, "method": "grid"}
    for changed, message in (
        ({"method": "fast"}, "method: want one of 'exact', 'grid'"),
        ({"radius": 3}, "radius: want None for method='grid'"),
        ({"sigma_space": 0.5}, "sigma_space: want at least 1"),
        ({"sigma_range": 1e-3}, "sigma_range: want fewer than 1024 layers"),
    ):
        with pytest.raises(KernelError, match=message):
            bilateral(image, **{**options, **changed})
    image[3, 4, 5] = np.nan
    with pytest.raises(KernelError, match="want finite voxels") as caught:
        bilateral(image, **options)
    assert caught.value.hint == "method='exact'"


def test_what_is_not_a_number_spoils_its_windows():
    image = np.zeros((9, 40), np.float32)
    near = np.square(np.indices(image.shape) - np.array([4, 20])[:, None, None]).sum(0) <= 4
    guide = image.copy()
    for value in (np.nan, np.inf):
        image[4, 20] = value
        got = bilateral(image, sigma_space=2, sigma_range=1, radius=2)
        np.testing.assert_array_equal(np.isnan(got), near)
        got = joint_bilateral(image, guide, sigma_space=2, sigma_range=1, radius=2)
        np.testing.assert_array_equal(np.isnan(got), near)
    image[4, 20], guide[4, 20] = 0, np.nan
    got = joint_bilateral(image, guide, sigma_space=2, sigma_range=1, radius=2)
    np.testing.assert_array_equal(np.isnan(got), near)
    guide[4, 20] = np.inf
    got = joint_bilateral(image, guide, sigma_space=2, sigma_range=1, radius=2)
    np.testing.assert_array_equal(np.isnan(got), guide == np.inf)


def test_bad_options_are_refused(image):
    options = {"sigma_space": 2.0, "sigma_range": 3.0}
    for changed, message in (
        ({"sigma_space": 0}, "sigma_space: want a finite number"),
        ({"sigma_space": float("inf")}, "sigma_space"),
        ({"sigma_range": -1.0}, "sigma_range: want a finite number"),
        ({"sigma_range": 1e-16}, "sigma_range"),
        ({"sigma_range": "3"}, "sigma_range"),
        ({"radius": 0}, "radius: want an integer from 1 to 100"),
        ({"radius": 101}, "radius"),
        ({"radius": 2.0}, "radius"),
        ({"boundary": "constant"}, "boundary: want one of"),
        ({"spatial_ndim": 4}, "spatial_ndim"),
        ({"spatial_ndim": 2}, "image: want 4 axes"),
    ):
        with pytest.raises(KernelError, match=message) as caught:
            bilateral(image, **{**options, **changed})
        assert caught.value.where == "bilateral"
        with pytest.raises(KernelError, match=message) as caught:
            joint_bilateral(image, image, **{**options, **changed})
        assert caught.value.where == "joint_bilateral"
    with pytest.raises(KernelError, match=r"guide: want shape \(9, 20, 37\), got \(9, 20, 36\)"):
        joint_bilateral(image, image[..., 1:].copy(), **options)
    batch = np.zeros((2, 3, 8, 9), np.float32)
    with pytest.raises(KernelError, match=r"guide: want shape .* or the same with one channel"):
        joint_bilateral(batch, batch[:, :2].copy(), **options, spatial_ndim=2)


def test_the_extension_checks_for_itself():
    image = np.zeros((1, 2, 8, 9), np.float32)
    offsets, weights = window(2, 1, 1.0)
    decay = decay_of(1.0)
    good = (image, image.copy(), offsets, weights)
    for arguments, message in (
        ((image, image, offsets, weights), "overlaps image"),
        ((image, image[:, :1].copy(), offsets, weights), "differ"),
        ((image, image.astype(np.int16), offsets, weights), "type"),
        ((image, image.copy(), offsets[:, :2].copy(), weights), r"\[pairs, 3\]"),
        ((image, image.copy(), offsets, weights[:1]), r"\[pairs, 3\]"),
        ((image, image.copy(), offsets[::-1].copy(), weights), "descend"),
        ((image, image.copy(), -offsets, weights), "after|descend"),
        ((image, image.copy(), 200 * offsets, weights), "128"),
        ((*good, image[:, :, 1:].copy()), "grid"),
        ((*good, np.zeros((1, 3, 8, 9), np.float32)), "channels"),
        ((*good, good[1]), "overlaps guide"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.bilateral(*arguments, decay=decay)
    for options in ({"decay": 1.0}, {"decay": float("nan")}, {"decay": -1, "threads": 0}):
        with pytest.raises(ValueError, match=r"decay|threads"):
            _C.bilateral(*good, **options)
