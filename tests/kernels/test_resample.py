"""What is particular to resample: other implementations, band limits, what is kept exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform, gaussian_filter

from edgekit.errors import KernelError
from edgekit.kernels import coords, resample
from edgekit.kernels.checks import LABELS
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.resample import OPERATOR, gaussian, sigmas_vox

SCIPY = {
    "edge": "nearest",
    "mirror": "mirror",
    "reflect": "reflect",
    "wrap": "grid-wrap",
    "zero": "grid-constant",
}
PERIODIC_OR_EDGE = [boundary for boundary in BOUNDARIES if boundary != "zero"]
GRIDS = st.one_of(
    st.tuples(*3 * [st.integers(1, 12)]),
    st.tuples(*2 * [st.integers(1, 40)]),
)


def image_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def oblique(axes: int, scale: float, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hstack(
        [scale * np.linalg.qr(rng.standard_normal((axes, axes)))[0], rng.uniform(2, 5, (axes, 1))]
    )


@pytest.mark.parametrize("wanted", [(9, 14, 30), (4, 7, 11), (12, 3, 7)])
def test_agrees_with_torch_interpolate(wanted):
    import torch

    image = image_of((2, 3, 4, 7, 11))
    got = resample(image, wanted, antialias=False)
    tensor = torch.from_numpy(image).double()
    want = torch.nn.functional.interpolate(tensor, wanted, mode="trilinear", align_corners=False)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    nearest = torch.nn.functional.interpolate(tensor, wanted, mode="nearest-exact")
    np.testing.assert_array_equal(resample(image, wanted, order=0), nearest)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("straight", [True, False])
def test_agrees_with_scipy(axes, boundary, straight):
    shape, wanted = (9, 10, 11)[-axes:], (7, 12, 8)[-axes:]
    image = image_of((1, 1, *shape))
    matrix = oblique(axes, 0.9)
    if straight:
        matrix[:, :-1] = np.diag(np.linspace(0.5, 1.4, axes))
    got = resample(image, wanted, matrix, boundary=boundary, antialias=False)[0, 0]
    want = affine_transform(
        image[0, 0].astype(np.float64),
        matrix[:, :-1],
        matrix[:, -1],
        wanted,
        order=1,
        mode=SCIPY[boundary],
        prefilter=False,
    )
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("straight", [True, False])
def test_smooths_as_scipy_does_with_the_stated_sigma(boundary, straight):
    image = image_of((1, 2, 14, 20, 17))
    matrix = oblique(3, 2.3)
    if straight:
        matrix[:, :-1] = np.diag([2.5, 1.6, 0.7])
    sigmas = [math.sqrt(max((row[:-1] ** 2).sum() - 1, 0) / (8 * math.log(2))) for row in matrix]
    assert sigmas_vox(matrix, 1, True) == pytest.approx(sigmas, abs=1e-6)
    smooth = gaussian_filter(
        image.astype(np.float64), [0, 0, *sigmas], mode=SCIPY[boundary].replace("grid-", "")
    )
    if boundary == "zero":
        smooth = gaussian_filter(image.astype(np.float64), [0, 0, *sigmas], mode="constant")
    got = resample(image, (5, 9, 8), matrix, boundary=boundary)
    want = resample(smooth.astype(np.float32), (5, 9, 8), matrix, boundary=boundary, antialias=False)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


@given(
    GRIDS,
    GRIDS,
    st.sampled_from([0, 1, 3]),
    st.sampled_from(PERIODIC_OR_EDGE),
    st.floats(-1e6, 1e6, width=32),
)
def test_a_constant_is_kept_exactly(grid, wanted, order, boundary, value):
    wanted = wanted[: len(grid)] + grid[len(wanted) :]
    image = np.full((1, 2, *grid), value, np.float32)
    assert (resample(image, wanted, order=order, boundary=boundary) == np.float32(value)).all()


@given(GRIDS, st.sampled_from([0, 1, 3]), st.sampled_from(BOUNDARIES), st.sampled_from(["float32", "uint8"]))
def test_the_same_grid_is_the_identity(grid, order, boundary, dtype):
    image = (50 + 20 * image_of((2, 1, *grid))).astype(dtype)
    got = resample(image, grid, order=order, boundary=boundary)
    np.testing.assert_array_equal(got, image)
    assert not np.may_share_memory(got, image)


@given(GRIDS, st.data())
def test_whole_steps_take_voxels(grid, data):
    step = [data.draw(st.integers(1, 3)) for _ in grid]
    first = [data.draw(st.integers(0, size - 1)) for size in grid]
    wanted = [len(range(f, size, s)) for f, size, s in zip(first, grid, step, strict=True)]
    image = image_of((1, 1, *grid))
    matrix = np.column_stack([np.diag(step), first]).astype(float)
    got = resample(image, wanted, matrix, antialias=False)
    slices = tuple(slice(f, None, s) for f, s in zip(first, step, strict=True))
    np.testing.assert_array_equal(got, image[(..., *slices)])


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_mean_is_nearly_kept_when_shrinking(factor, seed):
    image = np.random.default_rng(seed).uniform(0, 1, (1, 1, 24 * factor, 20 * factor)).astype(np.float32)
    small = resample(image, (24, 20), boundary="reflect")
    assert abs(small.mean() - image.mean()) < 0.01


@pytest.mark.parametrize("factor", [2, 3, 4.5])
def test_what_the_new_grid_cannot_hold_is_attenuated(factor):
    size = 360
    x = np.arange(size)
    new = int(size / factor)
    for frequency in np.linspace(0.55, 0.95, 9) / factor * np.array(2.0):  # above the new Nyquist, up to 2 x
        if frequency > 0.5:
            continue
        wave = np.cos(2 * np.pi * frequency * x).astype(np.float32)[None, None, None]
        kept = np.abs(resample(wave, (1, new))[..., 20:-20]).max()
        plain = np.abs(resample(wave, (1, new), antialias=False)[..., 20:-20]).max()
        # A Gaussian's response at this frequency; linear interpolation attenuates a little more.
        sigma = sigmas_vox(np.array([[1.0, 0, 0], [0, size / new, 0]]), 1, True)[1]
        assert kept < np.exp(-2 * (np.pi * sigma * frequency) ** 2) + 0.01
        assert kept < 0.6 * plain + 0.01
    slow = np.cos(2 * np.pi * 0.05 / factor * x).astype(np.float32)[None, None, None]
    assert np.abs(resample(slow, (1, new))[..., 20:-20]).max() > 0.95


def test_the_gaussian_is_that_of_the_source():
    weights = gaussian(math.sqrt((2**2 - 1) / (8 * math.log(2))))
    distance = np.arange(len(weights)) - len(weights) // 2
    assert weights.sum() == pytest.approx(1) and (weights == weights[::-1]).all()
    assert (weights * distance**2).sum() == pytest.approx(3 / (8 * math.log(2)), rel=2e-3)
    # Spreads add: an image voxel's and the filter's make that of a result voxel, twice as wide.
    assert 1 / (8 * math.log(2)) + 3 / (8 * math.log(2)) == pytest.approx((2 / 2.3548) ** 2, rel=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from(BOUNDARIES))
def test_linear_in_the_image(seed, boundary):
    a, b = image_of((1, 2, 9, 31), seed), image_of((1, 2, 9, 31), seed + 1)
    together = resample(2 * a + b, (5, 44), boundary=boundary)
    apart = 2 * resample(a, (5, 44), boundary=boundary) + resample(b, (5, 44), boundary=boundary)
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-5)


def test_oblique_and_straight_paths_agree():
    image = image_of((1, 2, 13, 15, 40))
    straight = np.column_stack([np.diag([2.0, 1.0, 0.6]), [0.25, -1.5, 3]])
    nearly = straight.copy()
    nearly[0, 1] = 1e-12  # no zero: the way of oblique matrices
    for order in (1, 3):
        for boundary in BOUNDARIES:
            options = {"order": order, "boundary": boundary}
            a = resample(image, (6, 15, 50), straight, **options)
            np.testing.assert_allclose(a, resample(image, (6, 15, 50), nearly, **options), rtol=0, atol=5e-6)


def test_between_worlds():
    image = image_of((1, 1, 10, 12, 14))
    image_to_world = np.diag([2.0, 1.0, 1.0, 1.0])
    image_to_world[:3, 3] = -5, 3, 8
    fixed_to_world = image_to_world.copy()
    fixed_to_world[:3, 3] += image_to_world[:3, :3] @ [2, 3, 4]
    got = resample(image, (8, 9, 10), coords.affine_between(fixed_to_world, image_to_world))
    np.testing.assert_allclose(got, image[:, :, 2:, 3:, 4:], rtol=0, atol=1e-6)


def test_respacing_keeps_what_is_linear():
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32) * 0.8, (1, 1, 6, 20)).copy()
    shape, matrix = coords.respaced((6, 20), (3.0, 0.8), (1.5, 1.0))
    assert shape == (12, 16)
    got = resample(ramp, shape, matrix, antialias=False)[0, 0]
    np.testing.assert_allclose(np.diff(got[:, 1:-1], axis=1), 1.0, rtol=0, atol=1e-5)
    assert got.mean() == pytest.approx(ramp.mean(), abs=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16"])
@pytest.mark.parametrize("wanted", [(5, 6, 9), (8, 12, 40), (8, 10, 33), (8, 9, 21), (5, 9, 33)])
@pytest.mark.parametrize("straight", [True, False])
def test_narrow_images_are_rounded_once(dtype, wanted, straight):
    image = (100 + 50 * image_of((1, 2, 8, 9, 33))).astype(dtype)
    matrix = None if straight else oblique(3, 1.4)
    wide = resample(image.astype(np.float32), wanted, matrix)
    got = resample(image, wanted, matrix)
    assert got.dtype == dtype
    if dtype == "float16":
        np.testing.assert_allclose(got, wide, rtol=5e-4)
    else:
        np.testing.assert_allclose(got, wide, rtol=0, atol=0.5 + 1e-4)


@pytest.mark.parametrize("straight", [True, False])
def test_channels_last_in_channels_last_out(straight):
    image = image_of((2, 3, 5, 8, 9))
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1)
    matrix = None if straight else oblique(3, 1.4)
    got = resample(last, (4, 9, 3), matrix)
    assert np.moveaxis(got, 1, -1).flags.c_contiguous
    np.testing.assert_allclose(got, resample(image, (4, 9, 3), matrix), rtol=0, atol=1e-6)
    one = resample(last, (1, 1, 1), matrix)
    np.testing.assert_allclose(one, resample(image, (1, 1, 1), matrix), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", LABELS)
@pytest.mark.parametrize("shape", [(2, 3, 9, 8, 7), (1, 2, 1, 1, 1), (1, 1, 12, 5)])
def test_labels_of_any_type_stay_labels(dtype, shape):
    whole = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, shape)
    labels = (whole > 0) if dtype == "bool" else whole.view(np.uint64).astype(dtype)
    wanted = (5, 4, 6)[: len(shape) - 2]
    index = [
        np.floor((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(shape[2:], wanted, strict=True)
    ]
    want = labels[(slice(None), slice(None), *np.ix_(*index))]
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(labels, 1, -1)), -1, 1)
    for image in (labels, last):
        got = resample(image, wanted, order=0)
        assert got.dtype == labels.dtype
        np.testing.assert_array_equal(got, want)
    turned = resample(labels, wanted, oblique(len(wanted), 1.3), order=0, boundary="mirror")
    assert np.isin(turned, labels).all()
    with pytest.raises(KernelError, match="image: want float32"):
        resample(labels.astype(np.int32), wanted, order=1)


@pytest.mark.parametrize("variant", [v for v in OPERATOR.variants if not v.missing()], ids=lambda v: v.name)
def test_a_nan_stays_near_and_does_not_matter_at_weight_0(variant):
    image = np.ones((1, 1, 40, 41), np.float32)
    image[0, 0, 20, 20] = np.nan
    got = np.empty((1, 1, 20, 20), np.float32)
    variant.run(image, outputs=(got,), threads=1, shape=(20, 20))
    unknown = np.argwhere(np.isnan(got[0, 0]))
    assert len(unknown) and np.abs(unknown - 10).max() <= 2
    image[0, 0, 0, 0] = np.nan  # where the tables point to for want of a voxel
    outside = np.array([[1.0, 0, 1000], [0, 0.7, 1000]])
    variant.run(image, outputs=(got,), threads=1, shape=(20, 20), matrix_vox=outside, boundary="zero")
    assert (got == 0).all()
    identity = np.empty_like(image)
    variant.run(image, outputs=(identity,), threads=1, shape=(40, 41))
    np.testing.assert_array_equal(identity, image)


@pytest.mark.parametrize(
    ("shape", "matrix", "options", "message"),
    [
        ((4,), None, {}, "shape: want 2 integers"),
        ((4, 4, 4), None, {}, "shape: want 2 integers"),
        ((4.0, 4.0), None, {}, "shape: want 2 integers"),
        (5, None, {}, "shape: want 2 integers"),
        ((4, 0), None, {}, "shape: want axes of 1 to"),
        ((4, 2**24 + 1), None, {}, "shape: want axes of 1 to"),
        ((2**16, 2**15), None, {}, "shape: want axes of 1 to"),
        ((4, 4), np.eye(2), {}, r"matrix_vox: want \[2, 3\]"),
        ((4, 4), np.eye(4), {}, r"matrix_vox: want \[2, 3\]"),
        ((4, 4), np.ones((3, 3)), {}, r"matrix_vox: want \[2, 3\]"),
        ((4, 4), np.full((2, 3), np.nan), {}, "finite"),
        ((4, 4), np.full((2, 3), 1e9), {}, "below 2"),
        ((4, 4), None, {"order": 2}, "order: want one of 0, 1, 3"),
        ((4, 4), None, {"boundary": "constant"}, "boundary: want one of"),
        ((4, 4), None, {"antialias": 1}, "antialias: want True or False"),
    ],
)
def test_bad_arguments_are_refused(shape, matrix, options, message):
    with pytest.raises(KernelError, match=message):
        resample(np.zeros((1, 1, 5, 6), np.float32), shape, matrix, **options)
