"""What is particular to the median filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from edgekit.errors import KernelError
from edgekit.kernels import median
from edgekit.kernels.denoise.median import OPERATOR

VARIANTS = [variant for variant in OPERATOR.variants if not variant.missing()]
MODES = {"zero": "constant", "edge": "nearest", "mirror": "mirror", "reflect": "reflect", "wrap": "wrap"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int16"])
@pytest.mark.parametrize("boundary", list(MODES))
@pytest.mark.parametrize(
    ("shape", "radius"), [((23, 141), 1), ((23, 141), 2), ((41, 37), 3), ((6, 9, 35), 1)]
)
def test_equals_scipy(dtype, boundary, shape, radius):
    image = (50 * np.random.default_rng(0).standard_normal(shape)).clip(0, 200).astype(dtype)
    mode, wide = MODES[boundary], image.astype(np.float32)
    want = ndimage.median_filter(wide, size=2 * radius + 1, mode=mode).astype(dtype)
    np.testing.assert_array_equal(median(image, radius=radius, boundary=boundary), want)


@pytest.mark.parametrize("radius", [2, 3])
def test_large_windows_of_volumes_equal_scipy(radius):
    image = np.random.default_rng(1).standard_normal((9, 8, 21)).astype(np.float32)
    want = ndimage.median_filter(image, size=2 * radius + 1, mode="mirror")
    np.testing.assert_array_equal(median(image, radius=radius), want)


def test_equals_scikit_image():
    from skimage.filters import median as peer

    image = np.random.default_rng(2).integers(0, 255, (40, 60)).astype(np.uint8)
    want = peer(image, np.ones((5, 5)), mode="reflect")
    np.testing.assert_array_equal(median(image, radius=2, boundary="reflect"), want)


FLOATS = st.floats(-1e3, 1e3, width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, np.inf, -np.inf])


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=19), elements=FLOATS))
def test_a_median_commutes_with_what_keeps_the_order(image):
    found = median(image)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(median(image * 2), found * 2)
    np.testing.assert_array_equal(median(-image), -found)
    np.testing.assert_array_equal(median(image[..., ::-1].copy()), found[..., ::-1])
    assert np.isin(found, image).all()
    assert not np.signbit(found[found == 0]).any()


def test_an_outlier_is_gone_and_an_edge_stays():
    image = np.zeros((9, 12), np.uint8)
    image[:, 6:] = 200
    noisy = image.copy()
    noisy[4, 3], noisy[2, 9] = 255, 0
    np.testing.assert_array_equal(median(noisy), image)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_nan_spreads_as_far_as_the_window(variant, radius):
    rng = np.random.default_rng(3)
    for grid in ((11, 150), (9, 8, 21)):
        image = rng.standard_normal((1, 1, *grid)).astype(np.float32)
        places = [0, image.size // 2, image.size - 1, *rng.integers(0, image.size, 3)]
        image.reshape(-1)[places] = np.nan
        out = np.empty_like(image)
        options = {"radius": radius, "boundary": "edge", "spatial_ndim": len(grid)}
        variant.run(image, outputs=(out,), threads=2, **options)
        want = ndimage.maximum_filter(np.isnan(image[0, 0]), 2 * radius + 1, mode="nearest")
        np.testing.assert_array_equal(np.isnan(out[0, 0]), want)
        np.testing.assert_array_equal(out, OPERATOR.reference(image, **options)[0])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_negative_zero_is_a_zero(variant):
    image = np.where(np.arange(24 * 40) % 3, np.float32(-0.0), np.float32(0.0)).reshape(1, 1, 24, 40)
    out = np.empty_like(image)
    variant.run(image, outputs=(out,), threads=1, radius=2, boundary="wrap", spatial_ndim=2)
    assert (out == 0).all() and not np.signbit(out).any()


def test_plain_images_and_batches_agree():
    volume = np.random.default_rng(4).standard_normal((5, 9, 17)).astype(np.float32)
    np.testing.assert_array_equal(median(volume[None, None], spatial_ndim=3)[0, 0], median(volume))
    planes = median(volume[None], spatial_ndim=2)[0]
    np.testing.assert_array_equal(planes, np.stack([median(plane) for plane in volume]))
    out = np.empty_like(volume)
    assert median(volume, out=out) is out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "radius"),
        ({"radius": 4}, "radius"),
        ({"radius": 1.0}, "radius"),
        ({"radius": (1, 1)}, "radius"),
        ({"boundary": "nearest"}, "boundary"),
        ({"spatial_ndim": 1}, "spatial_ndim"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(KernelError, match=message):
        median(np.zeros((5, 5), np.float32), **options)


def test_the_extension_checks_for_itself():
    from edgekit import _C

    image = np.zeros((1, 1, 5, 5), np.float32)
    with pytest.raises(ValueError, match="radius"):
        _C.median(image, np.zeros_like(image), radius=4)
    with pytest.raises(ValueError, match="overlaps"):
        _C.median(image, image)
    with pytest.raises(ValueError, match="shape"):
        _C.median(image, np.zeros((1, 1, 5, 6), np.float32))
    with pytest.raises(ValueError, match="boundary"):
        _C.median(image, np.zeros_like(image), boundary="none")
