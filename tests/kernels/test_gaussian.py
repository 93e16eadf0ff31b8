"""What is particular to the Gaussian filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import gaussian

GRIDS = hnp.array_shapes(min_dims=2, max_dims=3, max_side=12)
MODES = {
    "edge": "nearest",
    "zero": "grid-constant",
    "mirror": "mirror",
    "reflect": "reflect",
    "wrap": "grid-wrap",
}


@settings(max_examples=30, deadline=None)
@given(
    GRIDS, st.floats(-1e6, 1e6, width=32), st.floats(0, 3), st.sampled_from([b for b in MODES if b != "zero"])
)
def test_a_constant_stays(grid, value, sigma, boundary):
    image = np.full(grid, value, np.float32)
    np.testing.assert_array_equal(gaussian(image, sigma=sigma, boundary=boundary), image)


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.sampled_from(list(MODES)))
def test_flips_and_turns_of_the_image_are_those_of_the_result(grid, seed, sigma, boundary):
    image = np.random.default_rng(seed).standard_normal(grid).astype(np.float32)
    want = gaussian(image, sigma=sigma, boundary=boundary)
    for axis in range(len(grid)):
        flipped = gaussian(np.ascontiguousarray(np.flip(image, axis)), sigma=sigma, boundary=boundary)
        np.testing.assert_allclose(np.flip(flipped, axis), want, atol=2e-6)
    turned = gaussian(np.ascontiguousarray(image.T), sigma=sigma, boundary=boundary)
    np.testing.assert_allclose(turned.T, want, atol=2e-6)


@pytest.mark.parametrize("boundary", list(MODES))
@pytest.mark.parametrize("sigma", [0.4, 1.7, (0.0, 3.0, 1.0), 9.0])
def test_agrees_with_scipy(boundary, sigma):
    from scipy import ndimage

    image = (1000 + 300 * np.random.default_rng(0).standard_normal((9, 21, 35))).astype(np.float32)
    want = ndimage.gaussian_filter(image.astype(np.float64), sigma, mode=MODES[boundary])
    got = gaussian(image, sigma=sigma, boundary=boundary)
    np.testing.assert_allclose(got, want, atol=2e-6 * image.max())
    plane = ndimage.gaussian_filter(image[3].astype(np.float64), 2.0, mode=MODES[boundary], truncate=2.5)
    got = gaussian(image[3], sigma=2, boundary=boundary, truncate=2.5)
    np.testing.assert_allclose(got, plane, atol=2e-6 * image.max())


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.int16])
def test_narrow_types_are_rounded_once(dtype):
    image = np.random.default_rng(0).uniform(0, 200, (2, 3, 5, 18, 40)).astype(dtype)
    exact = gaussian(image.astype(np.float32), sigma=1.5, spatial_ndim=3)
    want = exact.astype(dtype) if dtype == np.float16 else np.rint(exact).astype(dtype)
    np.testing.assert_array_equal(gaussian(image, sigma=1.5, spatial_ndim=3), want)


def test_an_axis_of_zero_is_left():
    image = np.random.default_rng(0).standard_normal((4, 7, 20)).astype(np.float32)
    np.testing.assert_array_equal(gaussian(image, sigma=0), image)
    planes = np.stack([gaussian(plane, sigma=(1.0, 2.0)) for plane in image])
    np.testing.assert_array_equal(gaussian(image, sigma=(0, 1.0, 2.0)), planes)


def test_bad_options_are_refused():
    image = np.zeros((4, 7, 20), np.float32)
    for options, message in (
        ({"sigma": -1.0}, "sigma: want a finite number of at least 0"),
        ({"sigma": float("nan")}, "sigma"),
        ({"sigma": (1.0, 2.0)}, "sigma: want a number or 3 of them"),
        ({"sigma": (1.0, 2.0, "3")}, "sigma"),
        ({"sigma": 2000.0}, "sigma: want sigma . truncate of at most 4096 voxels"),
        ({"sigma": 1.0, "truncate": -1}, "truncate"),
        ({"sigma": 1.0, "boundary": "nearest"}, "boundary: want one of"),
        ({"sigma": 1.0, "spatial_ndim": 3}, "image: want 5 axes"),
    ):
        with pytest.raises(KernelError, match=message) as caught:
            gaussian(image, **options)
        assert caught.value.where == "gaussian"


def test_the_extension_checks_for_itself():
    image, none, some = np.zeros((1, 2, 8, 9), np.float32), np.zeros(0, np.float32), np.zeros(2, np.float32)
    out = image.copy()
    for arguments, message in (
        ((image, image, none, some, some), "overlaps"),
        ((image, out[:, :1].copy(), none, some, some), "differ"),
        ((image, out.astype(np.uint8), none, some, some), "type"),
        ((image, out, none, some[None], some), "lines"),
        ((image, out, none, some, np.zeros(5000, np.float32)), "too far"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.gaussian(*arguments)
