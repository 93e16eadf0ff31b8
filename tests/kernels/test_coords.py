"""Conversions of coordinates: against what other libraries compute, and there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import KernelError
from edgekit.kernels import coords

SHAPES = ((2, 3, 3, 4, 5), (1, 2, 6, 7), (1, 3, 1, 1, 9))
SPACING = (2.5, 0.5, 0.75)
SIZES = st.lists(st.integers(1, 300), min_size=3, max_size=3)
SPACINGS = st.lists(st.floats(0.1, 10), min_size=3, max_size=3)


def field_of(shape: tuple[int, ...], dtype: str = "float64") -> np.ndarray:
    return (3 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back_is_the_same(shape):
    flow = field_of(shape)
    spacing = SPACING[: len(shape) - 2]
    pairs = [
        (coords.flow_to_mm(flow, spacing), lambda f: coords.flow_from_mm(f, spacing)),
        (coords.reversed_components(flow), coords.reversed_components),
        (coords.flow_to_positions(flow), coords.flow_from_positions),
        (coords.flow_to_grid(flow), coords.flow_from_grid),
        (
            coords.flow_to_grid(flow, align_corners=True),
            lambda grid: coords.flow_from_grid(grid, align_corners=True),
        ),
    ]
    for there, back in pairs:
        np.testing.assert_allclose(back(there), flow, rtol=0, atol=1e-12)


def test_millimetres_are_voxels_times_spacing_per_component():
    flow = np.ones((1, 3, 2, 2, 2), np.float32)
    assert coords.flow_to_mm(flow, SPACING)[0, :, 0, 0, 0].tolist() == list(SPACING)
    assert coords.flow_from_mm(flow, SPACING)[0, :, 1, 1, 1].tolist() == [
        np.float32(0.4),
        2,
        np.float32(1 / 0.75),
    ]


def test_positions_are_absolute():
    positions = coords.flow_to_positions(np.full((1, 2, 3, 4), 0.25, np.float32))
    assert positions[0, :, 2, 3].tolist() == [2.25, 3.25] and positions.dtype == np.float32


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 3, 4, 5), (1, 2, 6, 7)])
def test_the_grid_of_no_displacement_is_that_of_torch(shape, align_corners):
    import torch

    axes = len(shape) - 2
    theta = torch.eye(axes, axes + 1, dtype=torch.float64)[None].repeat(shape[0], 1, 1)
    want = torch.nn.functional.affine_grid(theta, list(shape), align_corners=align_corners)
    grid = coords.flow_to_grid(torch.zeros(shape, dtype=torch.float64), align_corners=align_corners)
    assert isinstance(grid, torch.Tensor)
    np.testing.assert_allclose(grid, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_grid_displaces_as_the_flow_does(align_corners):
    import torch

    image = np.random.default_rng(1).standard_normal((1, 1, 5, 6, 7))
    flow = np.zeros((1, 3, 5, 6, 7))
    flow[:, 0], flow[:, 1], flow[:, 2] = 1, 2, -1
    grid = coords.flow_to_grid(flow, align_corners=align_corners)
    moved = torch.nn.functional.grid_sample(
        torch.from_numpy(image), torch.from_numpy(grid), align_corners=align_corners
    )
    np.testing.assert_allclose(moved[0, 0, :-1, :-2, 1:], image[0, 0, 1:, 2:, :-1], rtol=0, atol=1e-12)


def test_itk_vectors_displace_the_same_points_of_the_patient():
    rng = np.random.default_rng(2)
    flow = rng.uniform(-3, 3, (1, 3, 5, 6, 7))
    direction = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    origin, spacing_xyz = np.array([3.0, -20.0, 7.0]), np.array(SPACING[::-1])

    def point_of(index_xyz):  # how ITK places a voxel
        return origin + direction @ (spacing_xyz * index_xyz)

    vectors = coords.flow_to_itk(flow, SPACING, tuple(direction.ravel()))
    assert vectors.shape == (5, 6, 7, 3)
    for z, y, x in ((0, 0, 0), (4, 2, 5), (1, 5, 6)):
        displaced = np.array([x, y, z]) + flow[0, ::-1, z, y, x]
        np.testing.assert_allclose(point_of([x, y, z]) + vectors[z, y, x], point_of(displaced))
    back = coords.flow_from_itk(vectors, SPACING, direction)
    assert back.dtype == np.float32 and back.flags.c_contiguous
    np.testing.assert_allclose(back, flow, rtol=0, atol=1e-6)


def test_itk_vectors_are_millimetres_of_x_y_z():
    flow = np.zeros((1, 2, 3, 4), np.float32)
    flow[:, 0], flow[:, 1] = 2, -1
    assert coords.flow_to_itk(flow, (0.5, 3.0))[0, 0].tolist() == [-3, 1]


@given(SIZES, SIZES)
def test_grids_of_the_same_field_meet_at_their_faces(shape, wanted):
    matrix = coords.same_field_matrix(shape, wanted)
    low = matrix @ [-0.5, -0.5, -0.5, 1]
    high = matrix @ [*(np.array(wanted) - 0.5), 1]
    np.testing.assert_allclose(low, -0.5, atol=1e-9)
    np.testing.assert_allclose(high, np.array(shape) - 0.5, atol=1e-9)


@given(SIZES, SPACINGS, SPACINGS)
def test_respaced_grids_have_the_spacing_and_the_centre(shape, spacing, wanted):
    size, matrix = coords.respaced(shape, spacing, wanted)
    np.testing.assert_allclose(np.diag(matrix) * spacing, wanted, rtol=1e-12)
    middle = matrix @ [*(np.array(size) - 1) / 2, 1]
    np.testing.assert_allclose(middle, (np.array(shape) - 1) / 2, atol=1e-6)
    missing_voxels = np.array(shape) * spacing / wanted - size
    assert ((np.abs(missing_voxels) <= 0.5 + 1e-9) | (np.array(size) == 1)).all()


def test_affine_between_goes_through_the_world():
    first, second = np.diag([2.0, 1.0, 1.0, 1.0]), np.diag([4.0, 0.5, 1.0, 1.0])
    first[:3, 3] = 6, 0, -1
    between = coords.affine_between(first, second)
    voxel = np.array([3, 5, 7, 1.0])
    np.testing.assert_allclose(second @ (between @ voxel), first @ voxel)
    assert between[-1].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coords.flow_to_mm(np.zeros((1, 3, 4, 4), np.float32), (1, 1)), "one component per axis"),
        (lambda: coords.flow_to_mm(np.zeros((1, 2, 4, 4), np.float32), (1, 1, 1)), "2 positive numbers"),
        (lambda: coords.flow_to_mm(np.zeros((1, 2, 4, 4), np.float32), (1, 0)), "2 positive numbers"),
        (lambda: coords.flow_from_mm(np.zeros((1, 2, 4, 4), int), (1, 1)), "floating"),
        (lambda: coords.flow_from_mm([[0.0]], (1, 1)), "DLPack"),
        (lambda: coords.flow_from_grid(np.zeros((1, 4, 4, 3), np.float32)), "one component per axis"),
        (lambda: coords.flow_from_grid(np.zeros(())), "one component per axis"),
        (lambda: coords.flow_to_grid(np.zeros((1, 2, 4, 4)), align_corners=1), "align_corners"),
        (lambda: coords.flow_to_itk(np.zeros((2, 2, 4, 4)), (1, 1)), "single field"),
        (lambda: coords.flow_to_itk(np.zeros((1, 2, 4, 4)), (1, 1), np.eye(3)), "direction cosines"),
        (lambda: coords.flow_to_itk(np.zeros((1, 2, 4, 4)), (1, 1), np.zeros(4)), "direction cosines"),
        (lambda: coords.respaced((4, 4), (1, 1), (1, np.nan)), "wanted_mm_zyx"),
        (lambda: coords.affine_between(np.eye(4), np.eye(3)), "one size"),
        (lambda: coords.affine_between(np.ones((4, 4)), np.eye(4)), "last row"),
        (lambda: coords.affine_between(np.eye(4), np.diag([0.0, 1, 1, 1])), "inverted"),
        (lambda: coords.affine_between(1.0, np.eye(4)), "from_world"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(KernelError, match=message) as caught:
        call()
    assert caught.value.where
