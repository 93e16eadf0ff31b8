"""What is particular to speckle reduction."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import srad
from edgekit.kernels.denoise.srad import starts

GRIDS = ((61, 85), (17, 25, 37))


def speckled(*grid: int, variation: float = 0.2) -> np.ndarray:
    """Halves of 50 and 150, times noise of mean 1."""
    shape = 1 / variation**2
    noise = np.random.default_rng(0).gamma(shape, 1 / shape, grid)
    return (np.where(np.indices(grid)[-1] < grid[-1] // 2, 50, 150) * noise).astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("options", [{}, {"q0": 0.2}, {"region": True}])
def test_speckle_goes_and_the_mean_and_the_edge_stay(grid, options):
    image = speckled(*grid)
    if "region" in options:
        options = {"region": [*((0, size) for size in grid[:-1]), (2, 15)]}
    got = srad(image, iterations=40, **options)
    np.testing.assert_allclose(got.mean(), image.mean(), rtol=1e-5)
    middle = grid[-1] // 2
    for half in (slice(2, middle - 3), slice(middle + 3, -2)):
        assert got[..., half].std() < 0.6 * image[..., half].std()
    assert np.median(got[..., middle + 1] - got[..., middle - 2]) > 75


@pytest.mark.parametrize("variation", [0.1, 0.25])
def test_the_estimate_is_near_the_variation_of_speckle(variation):
    image = speckled(100, 140, variation=variation)[None, None]
    np.testing.assert_allclose(starts(image, None), variation, rtol=0.1)
    np.testing.assert_allclose(starts(1000 * image, None), starts(image, None), rtol=1e-5)
    assert starts(image, 0.3) == 0.3 and starts(image[..., :1, :1], None) == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_constants_stay_also_at_nothing(grid):
    for value in (7.3, 0.0):
        constant = np.full(grid, value, np.float32)
        np.testing.assert_array_equal(srad(constant), constant)
        np.testing.assert_array_equal(srad(constant, region=[(0, 3)] * len(grid)), constant)


def test_scale_does_not_matter_and_axes_may_be_exchanged():
    image = speckled(17, 25, 37)
    want = srad(image, q0=0.2)
    np.testing.assert_allclose(srad(64 * image, q0=0.2), 64 * want, rtol=1e-5)
    turned = srad(np.ascontiguousarray(image.transpose(2, 0, 1)), q0=0.2)
    np.testing.assert_allclose(turned.transpose(1, 2, 0), want, rtol=1e-4)


def test_values_stay_between_the_extremes_at_the_largest_step():
    image = speckled(40, 60, variation=0.9)
    got = srad(image, time_step=1.0, q0=2.0, iterations=50)
    assert image.min() <= got.min() and got.max() <= image.max()


def test_without_decay_more_is_smoothed():
    image = speckled(40, 60)
    spreads = [float(srad(image, q0=0.2, decay=decay).std()) for decay in (0.0, 0.2, 2.0)]
    assert spreads == sorted(spreads) and spreads[0] < spreads[2]


def test_any_cut_gives_the_same_bits():
    for grid in ((3, 700, 500), (150, 40, 30), (2000, 300)):
        image = speckled(*grid)
        for options in ({"q0": 0.2}, {"region": [(0, 3)] * len(grid)}):
            one = srad(image, threads=1, iterations=9, **options)
            for threads in (2, 5):
                np.testing.assert_array_equal(srad(image, threads=threads, iterations=9, **options), one)


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16"])
def test_other_types_are_their_values_in_float32(dtype):
    image = np.clip(speckled(40, 57), 0, 255).astype(dtype)
    got, want = srad(image), srad(image.astype(np.float32))
    np.testing.assert_array_equal(got, want.astype(dtype) if dtype == "float16" else np.rint(want))


def test_channels_are_apart_and_a_plain_image_is_one_of_a_batch():
    batch = np.stack([speckled(13, 29, variation=0.1 + 0.1 * i) for i in range(6)]).reshape(2, 3, 13, 29)
    got = srad(batch, spatial_ndim=2)
    for at in np.ndindex(2, 3):
        np.testing.assert_array_equal(got[at], srad(batch[at]))


def test_bad_arguments_are_refused():
    image = speckled(8, 9)
    for bad, message in (
        ({"time_step": 1.01}, "time_step: want at most 1, where the diffusion is stable"),
        ({"time_step": 0}, "time_step: want a positive number"),
        ({"q0": -1}, "q0: want a finite number of at least 0"),
        ({"decay": -1}, "decay: want a finite number of at least 0"),
        ({"iterations": 0}, "iterations: want an integer from 1"),
        ({"q0": 0.1, "region": [(0, 4), (0, 4)]}, "q0: want none beside a region"),
        ({"region": [(0, 4)]}, "region: want"),
        ({"region": [(0, 4), (0, 10)]}, "region: want"),
        ({"region": [(0, 4), (5, 5)]}, "region: want"),
        ({"region": "all"}, "region: want"),
        ({"spatial_ndim": 3}, "image: want 5 axes"),
    ):
        with pytest.raises(KernelError, match=message) as caught:
            srad(image, **bad)
        assert caught.value.where == "srad"
    with pytest.raises(KernelError, match="image: want intensities of at least 0"):
        srad(-image)
    batch = image[None, None]
    good = {"iterations": 2, "time_step": 0.1, "decay": 0.0}
    start, region = np.ones((1, 1)), np.array([[0, 4], [0, 4]])
    for arguments, message in (
        ((None, None), "start or a region"),
        ((np.ones(2), None), "start"),
        ((None, region[:1].copy()), "region"),
        ((None, region + 6), "region"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.srad(batch, np.zeros_like(batch), *arguments, **good)
    with pytest.raises(ValueError, match="time_step"):
        _C.srad(batch, np.zeros_like(batch), start, None, **{**good, "time_step": 1.5})
