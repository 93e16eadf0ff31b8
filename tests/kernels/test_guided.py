"""What is particular to the guided filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import guided_filter
from edgekit.kernels.denoise.guided import reference

GRIDS = hnp.array_shapes(min_dims=2, max_dims=3, max_side=12)


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.floats(-1e5, 1e5, width=32), st.integers(1, 5), st.sampled_from(["mirror", "edge", "wrap"]))
def test_a_constant_stays(grid, value, radius, boundary):
    image = np.full(grid, value, np.float32)
    options = {"radius": radius, "epsilon": 1.0, "boundary": boundary}
    np.testing.assert_array_equal(guided_filter(image, **options), image)
    guide = np.random.default_rng(0).standard_normal(grid).astype(np.float32)
    np.testing.assert_array_equal(guided_filter(image, guide, **options), image)


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_flips_and_turns_of_the_image_are_those_of_the_result(grid, seed, radius):
    image = np.random.default_rng(seed).standard_normal(grid).astype(np.float32)
    options = {"radius": radius, "epsilon": 0.3}
    want = guided_filter(image, **options)
    for axis in range(len(grid)):
        flipped = guided_filter(np.ascontiguousarray(np.flip(image, axis)), **options)
        np.testing.assert_allclose(np.flip(flipped, axis), want, atol=5e-6)
    turned = guided_filter(np.ascontiguousarray(image.T), **options)
    np.testing.assert_allclose(turned.T, want, atol=5e-6)


def test_a_linear_function_of_the_guide_stays():
    guide = np.random.default_rng(0).standard_normal((9, 15, 33)).astype(np.float32)
    image = 3 * guide - 2
    np.testing.assert_allclose(guided_filter(image, guide, radius=2, epsilon=1e-8), image, atol=2e-5)


def test_limits_of_epsilon():
    from scipy import ndimage

    image = np.random.default_rng(0).uniform(0, 100, (9, 20, 37)).astype(np.float32)
    np.testing.assert_allclose(guided_filter(image, radius=2, epsilon=1e-9), image, atol=1e-4)
    mean = image.astype(np.float64)
    for _ in range(2):
        mean = ndimage.uniform_filter(mean, 5, mode="mirror")
    np.testing.assert_allclose(guided_filter(image, radius=2, epsilon=1e12), mean, atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1000.0, 30000.0])
@pytest.mark.parametrize("radius", [1, 4, 12])
def test_a_large_offset_costs_no_precision(offset, radius):
    rng = np.random.default_rng(0)
    image = (offset + 3 * rng.standard_normal((1, 1, 14, 30, 41))).astype(np.float32)
    options = {"radius": radius, "epsilon": 4.0, "boundary": "mirror"}
    (want,) = reference(image, **options)
    got = guided_filter(image, **options, spatial_ndim=3)
    # A rounding of the result is offset * 6e-8.
    np.testing.assert_allclose(got, want, atol=1e-5 * 10 + 2e-7 * offset)
    stored = np.rint(image).astype(np.int16)
    (want,) = reference(stored, **options)
    assert np.abs(guided_filter(stored, **options, spatial_ndim=3) - want).max() <= 0.51


def test_an_image_may_be_its_own_guide():
    image = np.random.default_rng(0).uniform(0, 200, (2, 3, 18, 40)).astype(np.uint8)
    options = {"radius": 3, "epsilon": 100.0, "spatial_ndim": 2}
    own, guided = guided_filter(image, **options), guided_filter(image, image, **options)
    assert np.abs(own.astype(int) - guided).max() <= 1
    shared = guided_filter(image, image[:, 1:2].copy(), **options)
    np.testing.assert_array_equal(shared[:, 1], guided[:, 1])
    plain = guided_filter(image[1, 2], radius=3, epsilon=100.0)
    np.testing.assert_array_equal(plain, own[1, 2])


def test_edges_of_the_guide_come_into_the_image():
    guide = np.zeros((40, 60), np.float32)
    guide[:, 30:] = 1
    rng = np.random.default_rng(0)
    image = 10 * guide + rng.standard_normal(guide.shape).astype(np.float32)
    smooth = guided_filter(image, guide, radius=4, epsilon=1e-3)
    assert np.abs(smooth - 10 * guide).mean() < 0.35 * np.abs(image - 10 * guide).mean()
    assert (smooth[:, 30] - smooth[:, 29]).min() > 8


def test_bad_options_are_refused():
    image = np.zeros((4, 7, 20), np.float32)
    good = {"radius": 2, "epsilon": 1.0}
    for options, message in (
        ({"radius": 0}, "radius: want an integer from 1 to 1000"),
        ({"radius": 1.5}, "radius"),
        ({"epsilon": 0}, "epsilon: want a finite number"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"boundary": "constant"}, "boundary: want one of"),
        ({"spatial_ndim": 2}, "image: want 4 axes"),
    ):
        with pytest.raises(KernelError, match=message) as caught:
            guided_filter(image, **{**good, **options})
        assert caught.value.where == "guided_filter"
    with pytest.raises(KernelError, match=r"guide: want shape \(4, 7, 20\)"):
        guided_filter(image, image[:3], **good)


def test_the_extension_checks_for_itself():
    image = np.zeros((1, 2, 8, 9), np.float32)
    out, options = image.copy(), {"radius": 1, "epsilon": 1.0}
    for arguments, changed, message in (
        ((image, image), {}, "overlaps"),
        ((image, out[:, :1].copy()), {}, "differ"),
        ((image, out, out), {}, "overlaps guide"),
        ((image, out, image[:, :, 1:].copy()), {}, "grid"),
        ((image, out, np.zeros((1, 3, 8, 9), np.float32)), {}, "channels"),
        ((image, out), {"radius": -1}, "too far"),
        ((image, out), {"radius": 5000}, "too far"),
        ((image, out), {"epsilon": 0.0}, "epsilon"),
        ((image, out), {"threads": 0}, "threads"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.guided_filter(*arguments, **{**options, **changed})
