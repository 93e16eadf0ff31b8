"""What is particular to denoising by total variation."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import total_variation
from edgekit.kernels.denoise.total_variation import METHODS, energy


def noisy(*grid: int, seed: int = 0) -> np.ndarray:
    """Steps of 1, with noise."""
    noise = np.random.default_rng(seed).standard_normal(grid)
    return ((np.indices(grid).sum(0) // 6 % 2) + 0.3 * noise).astype(np.float32)


GRIDS = ((40, 57), (11, 23, 37))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("iterations", [1, 2, 7, 40])
def test_it_is_the_sequence_of_scikit_image(grid, iterations):
    from skimage.restoration import denoise_tv_chambolle

    image = noisy(*grid)
    want = denoise_tv_chambolle(image.astype(np.float64), weight=0.25, eps=0, max_num_iter=iterations)
    got = total_variation(image, weight=0.25, iterations=iterations)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert iterations == 1 or np.abs(got - image).max() > 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_energy_falls_and_the_gap_bounds_the_distance_to_the_minimum(grid, method):
    image = noisy(*grid)
    best = total_variation(image, weight=0.3, iterations=3000, method="primal_dual").astype(np.float64)
    least = energy(best, image.astype(np.float64), 0.3)
    energies = []
    for iterations in (1, 11, 41, 161):
        u, gap = total_variation(image, weight=0.3, iterations=iterations, method=method, return_gap=True)
        energies.append(energy(u.astype(np.float64), image.astype(np.float64), 0.3))
        # The best is itself only known to a relative gap of about 1e-6.
        bound = float(gap[0, 0]) * energies[-1] + 2e-6 * least
        assert energies[-1] - least <= bound
        assert ((u - best) ** 2).sum() / 2 <= bound
        assert gap.shape == (1, 1) and gap.dtype == np.float32
    assert energies == sorted(energies, reverse=True) and energies[-1] < 0.7 * energies[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_tolerance_ends_the_iterations(method):
    image = np.stack([noisy(30, 41), np.full((30, 41), 2.0, np.float32)])[None]
    options = {"weight": 0.3, "iterations": 500, "method": method, "return_gap": True, "spatial_ndim": 2}
    u, gap = total_variation(image, tolerance=0.01, **options)
    assert 0 < gap[0, 0] <= 0.01 and gap[0, 1] == 0
    # The same as at the first multiple of 10 with such a gap.
    counts = range(11, 501, 10)
    each = (total_variation(image, **{**options, "iterations": count}) for count in counts)
    want = next(result for result, reached in each if reached[0, 0] <= 0.01)
    np.testing.assert_array_equal(u[0, 0], want[0, 0])
    _, exact = total_variation(image, tolerance=0.0, **{**options, "iterations": 37})
    np.testing.assert_array_equal(exact, total_variation(image, **{**options, "iterations": 37})[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", GRIDS)
def test_constants_stay_and_means_are_kept(grid, method):
    constant = np.full(grid, 7.3, np.float32)
    options = {"weight": 2.0, "iterations": 30, "method": method}
    np.testing.assert_array_equal(total_variation(constant, **options), constant)
    image = noisy(*grid)
    np.testing.assert_allclose(total_variation(image, **options).mean(), image.mean(), atol=1e-5)
    smooth = total_variation(image, weight=1e4, iterations=4000, method="primal_dual")
    np.testing.assert_allclose(smooth, image.mean(), atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_axes_may_be_exchanged_and_more_weight_is_smoother(method):
    image = noisy(9, 14, 33)
    options = {"iterations": 60, "method": method}
    results = {weight: total_variation(image, weight=weight, **options) for weight in (0.05, 0.2, 0.8)}
    turned = total_variation(np.ascontiguousarray(image.transpose(2, 0, 1)), weight=0.2, **options)
    np.testing.assert_allclose(turned.transpose(1, 2, 0), results[0.2], atol=1e-5)
    spreads = [float(result.std()) for result in (image, *results.values())]
    assert spreads == sorted(spreads, reverse=True) and len(set(spreads)) == 4


def test_of_a_minimiser_that_is_unique_mirrors_are_mirrored():
    """The gradient looks ahead, so that only where the iterations end it does not matter whence."""
    image = noisy(30, 41)
    options = {"weight": 0.2, "iterations": 3000, "method": "primal_dual"}
    mirrored = total_variation(np.ascontiguousarray(image[::-1, ::-1]), **options)[::-1, ::-1]
    assert np.abs(mirrored - total_variation(image, **options)).mean() < 0.02


def test_channels_are_apart_and_a_plain_image_is_one_of_a_batch():
    batch = np.stack([noisy(13, 29, seed=seed) for seed in range(6)]).reshape(2, 3, 13, 29)
    got = total_variation(batch, weight=0.2, iterations=12, spatial_ndim=2)
    for at in np.ndindex(2, 3):
        np.testing.assert_array_equal(got[at], total_variation(batch[at], weight=0.2, iterations=12))


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16"])
def test_other_types_are_their_values_in_float32(dtype):
    image = np.clip(noisy(40, 57) * 50 + 60, 0, 255).astype(dtype)
    got = total_variation(image, weight=20.0, iterations=25)
    want = total_variation(image.astype(np.float32), weight=20.0, iterations=25)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want.astype(dtype) if dtype == "float16" else np.rint(want))


def test_any_cut_gives_the_same_bits():
    """Tall and wide volumes are cut along rows, deep ones along planes."""
    for grid in ((3, 700, 600), (150, 40, 30), (2000, 300)):
        image = noisy(*grid)
        one = total_variation(image, weight=0.2, iterations=23, threads=1)
        for threads in (2, 5):
            many = total_variation(image, weight=0.2, iterations=23, threads=threads)
            np.testing.assert_array_equal(many, one)
        part = tuple(slice(0, min(size, 64)) for size in grid)  # voxels further than 23 from its ends
        alone = total_variation(np.ascontiguousarray(image[part]), weight=0.2, iterations=23)
        inner = tuple(slice(0, 64 - 23) if size > 64 else slice(None) for size in grid)
        np.testing.assert_array_equal(alone[inner], one[part][inner])


def test_bad_arguments_are_refused():
    image = noisy(8, 9)
    good = {"weight": 1.0}
    for bad, message in (
        ({"weight": 0}, "weight: want a positive number"),
        ({"weight": 1e300}, "weight: want a positive number"),
        ({"weight": float("nan")}, "weight: want a finite number"),
        ({"iterations": 0}, "iterations: want an integer from 1"),
        ({"iterations": 2.0}, "iterations: want an integer"),
        ({"method": "newton"}, "method: want one of 'chambolle', 'primal_dual'"),
        ({"tolerance": -1}, "tolerance: want a finite number of at least 0"),
        ({"return_gap": 1}, "return_gap: want True or False"),
        ({"spatial_ndim": 4}, "spatial_ndim: want one of 2, 3"),
        ({"spatial_ndim": 2}, "image: want 4 axes"),
        ({"out": np.zeros((8, 8), np.float32)}, "out: want shape"),
    ):
        with pytest.raises(KernelError, match=message) as caught:
            total_variation(image, **{**good, **bad})
        assert caught.value.where == "total_variation"


def test_the_extension_checks_for_itself():
    image = np.zeros((1, 1, 8, 9), np.float32)
    good = {"weight": 1.0, "iterations": 3}
    for bad, message in (
        ({"weight": 0.0}, "weight"),
        ({"iterations": 0}, "iterations"),
        ({"method": "newton"}, "method"),
        ({"tolerance": float("inf")}, "tolerance"),
        ({"threads": 0}, "threads"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.total_variation(image, np.zeros_like(image), None, **{**good, **bad})
    with pytest.raises(ValueError, match="overlaps"):
        _C.total_variation(image, image, None, **good)
    with pytest.raises(ValueError, match="gap"):
        _C.total_variation(image, np.zeros_like(image), np.zeros(2, np.float32), **good)
