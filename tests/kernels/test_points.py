"""What is particular to warp_points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from edgekit.errors import KernelError
from edgekit.kernels import integrate_velocity, warp, warp_points
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES

SCIPY = {
    "edge": "nearest",
    "mirror": "mirror",
    "reflect": "reflect",
    "wrap": "grid-wrap",
    "zero": "grid-constant",
}


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", [(5, 6, 7), (8, 9)])
def test_agrees_with_scipy(grid, boundary):
    rng = np.random.default_rng(0)
    flow = rng.standard_normal((2, len(grid), *grid)).astype(np.float32)
    points = rng.uniform(-3, np.array(grid) + 2, (2, 300, len(grid))).astype(np.float32)
    moved = warp_points(points, flow, boundary=boundary)
    for n in range(2):
        for axis in range(len(grid)):
            step = map_coordinates(
                flow[n, axis].astype(np.float64), points[n].T, order=1, mode=SCIPY[boundary], prefilter=False
            )
            np.testing.assert_allclose(moved[n, :, axis], points[n, :, axis] + step, rtol=0, atol=3e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(6, 7, 8), (9, 11)]))
def test_points_on_voxels_move_by_their_displacement(seed, grid):
    rng = np.random.default_rng(seed)
    flow = rng.standard_normal((1, len(grid), *grid)).astype(np.float32)
    voxels = np.stack([rng.integers(0, size, 40) for size in grid], axis=-1)
    moved = warp_points(voxels[None].astype(np.float32), flow)
    want = voxels.astype(np.float32) + flow[0][(slice(None), *voxels.T)].T
    np.testing.assert_array_equal(moved[0], want)


def test_there_and_back_through_a_velocity_field():
    rng = np.random.default_rng(1)
    velocity = smooth_field(rng, (1, 3, 20, 24, 28), amplitude=2)
    points = rng.uniform(6, 14, (1, 200, 3)).astype(np.float32)
    there = warp_points(points, integrate_velocity(velocity))
    back = warp_points(there, integrate_velocity(-velocity))
    assert np.abs(there - points).max() > 0.3
    np.testing.assert_allclose(back, points, rtol=0, atol=0.05)


def test_a_landmark_of_the_warped_image_goes_to_where_it_is_in_the_image():
    z, y, x = np.indices((16, 16, 16)).astype(np.float32)
    flow = smooth_field(np.random.default_rng(2), (1, 3, 16, 16, 16), amplitude=1.5)
    landmark = np.array([[[7.0, 8.0, 9.0]]], np.float32)
    place = warp_points(landmark, flow)[0, 0]
    coordinates = warp(np.stack([z, y, x])[None], flow)[0, :, 7, 8, 9]
    np.testing.assert_allclose(coordinates, place, rtol=0, atol=1e-5)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_nan_makes_its_point_nan_and_no_other(boundary):
    flow = np.ones((1, 3, 4, 5, 6), np.float32)
    points = np.full((1, 30, 3), 2.0, np.float32)
    points[0, 17, 1] = np.nan
    moved = warp_points(points, flow, boundary=boundary)
    assert np.isnan(moved[0, 17]).all() and np.isnan(moved).sum() == 3


def test_points_far_outside_take_the_edge_or_stay():
    flow = np.full((1, 2, 4, 5), 0.5, np.float32)
    for far in (np.inf, -np.inf, 1e7, -3e38):
        points = np.array([[[far, 2.0]]], np.float32)
        assert warp_points(points, flow).tolist() == [[[np.float32(far) + np.float32(0.5), 2.5]]]
        assert warp_points(points, flow, boundary="zero").tolist() == points.tolist()


@pytest.mark.parametrize(
    ("points", "flow", "message"),
    [
        ((1, 5, 3), (1, 2, 4, 5), r"want shape \[1, P, 2\]"),
        ((2, 5, 2), (1, 2, 4, 5), r"want shape \[1, P, 2\]"),
        ((5, 2), (1, 2, 4, 5), "points_vox: want 3 axes"),
        ((1, 5, 2), (1, 3, 4, 5), "flow_vox: want shape"),
    ],
)
def test_points_and_flow_that_do_not_go_together_are_refused(points, flow, message):
    with pytest.raises(KernelError, match=message):
        warp_points(np.zeros(points, np.float32), np.zeros(flow, np.float32))
