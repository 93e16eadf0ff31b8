"""What is particular to warp_adjoint: it is the transpose of the warp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import warp, warp_adjoint
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS
from edgekit.kernels.warp import displacements

GRIDS = st.one_of(
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=19),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
)
FLOWS = st.sampled_from(["whole", "halves", "smooth", "rough", "outside", "tiny"])


def flow_of(rng: np.random.Generator, label: str, shape: tuple[int, ...]) -> np.ndarray:
    return dict(displacements(rng, shape))[label]


@settings(max_examples=150, deadline=None)
@given(GRIDS, FLOWS, st.sampled_from(ORDERS), st.sampled_from(BOUNDARIES), st.integers(0, 2**32 - 1))
def test_is_the_transpose_of_the_warp(grid, label, order, boundary, seed):
    """Within 1e-6 of the sum of all absolute products, which float32 rounds a few times each."""
    rng = np.random.default_rng(seed)
    image, values = rng.standard_normal((2, 2, 2, *grid)).astype(np.float32)
    flow = flow_of(rng, label, (2, len(grid), *grid))
    moved = warp(image, flow, order=order, boundary=boundary).astype(np.float64)
    pushed = warp_adjoint(values, flow, order=order, boundary=boundary).astype(np.float64)
    size = np.abs(moved * values).sum() + np.abs(image * pushed).sum()
    assert abs((moved * values).sum() - (image * pushed).sum()) <= 1e-6 * size


@settings(max_examples=50, deadline=None)
@given(GRIDS, FLOWS, st.sampled_from(ORDERS), st.sampled_from(BOUNDARIES))
def test_the_count_is_the_adjoint_of_ones(grid, label, order, boundary):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 3, *grid)).astype(np.float32)
    flow = flow_of(rng, label, (2, len(grid), *grid))
    pushed, count = warp_adjoint(values, flow, order=order, boundary=boundary, return_count=True)
    np.testing.assert_array_equal(pushed, warp_adjoint(values, flow, order=order, boundary=boundary))
    ones = np.ones((2, 1, *grid), np.float32)
    np.testing.assert_array_equal(count, warp_adjoint(ones, flow, order=order, boundary=boundary))


@settings(max_examples=50, deadline=None)
@given(GRIDS, FLOWS, st.sampled_from(ORDERS), st.sampled_from(["edge", "mirror", "reflect", "wrap"]))
def test_nothing_is_lost_but_under_zero(grid, label, order, boundary):
    rng = np.random.default_rng(1)
    flow = flow_of(rng, label, (1, len(grid), *grid))
    ones = np.ones((1, 1, *grid), np.float32)
    total = warp_adjoint(ones, flow, order=order, boundary=boundary).astype(np.float64).sum()
    assert total == pytest.approx(ones.size, rel=1e-5)


@given(GRIDS, st.sampled_from(ORDERS), st.sampled_from(BOUNDARIES))
def test_zero_flow_is_the_identity(grid, order, boundary):
    values = np.random.default_rng(2).standard_normal((2, 2, *grid)).astype(np.float32)
    flow = np.zeros((2, len(grid), *grid), np.float32)
    np.testing.assert_array_equal(warp_adjoint(values, flow, order=order, boundary=boundary), values)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_nan_displacement_pushes_nothing(order, boundary):
    values = np.ones((1, 2, 5, 6, 21), np.float32)
    for component in range(3):
        flow = np.zeros((1, 3, 5, 6, 21), np.float32)
        flow[0, component, 2, 3, 10] = np.nan
        pushed, count = warp_adjoint(values, flow, order=order, boundary=boundary, return_count=True)
        want = values.copy()
        want[0, :, 2, 3, 10] = 0
        np.testing.assert_array_equal(pushed, want)
        np.testing.assert_array_equal(count, want[:, :1])


def test_a_voxel_is_shared_by_its_weights():
    values = np.array([[[[0, 0, 8, 0]]]], np.float32)
    flow = np.zeros((1, 2, 1, 4), np.float32)
    flow[0, 1, 0, 2] = -0.75
    assert warp_adjoint(values, flow)[0, 0, 0].tolist() == [0, 6, 2, 0]
    flow[0, 1, 0, 2] = 1.25
    assert warp_adjoint(values, flow, boundary="zero")[0, 0, 0].tolist() == [0, 0, 0, 6]
    assert warp_adjoint(values, flow, boundary="edge")[0, 0, 0].tolist() == [0, 0, 0, 8]
    assert warp_adjoint(values, flow, boundary="wrap")[0, 0, 0].tolist() == [2, 0, 0, 6]


def test_everything_may_land_in_one_voxel_of_another_end():
    values = np.ones((1, 1, 40, 9, 31), np.float32)
    flow = np.full((1, 3, 40, 9, 31), 1e6, np.float32)
    pushed = warp_adjoint(values, flow)
    assert pushed[0, 0, -1, -1, -1] == values.size and pushed.sum() == values.size


def test_agrees_with_the_gradient_of_torch_grid_sample():
    import torch

    rng = np.random.default_rng(3)
    grid = (9, 11, 13)
    values = rng.standard_normal((1, 2, *grid)).astype(np.float32)
    flow = flow_of(rng, "rough", (1, 3, *grid))
    places = torch.from_numpy(np.indices(grid) + flow.astype(np.float64))
    sizes = torch.tensor(grid).reshape(1, -1, 1, 1, 1)
    normal = (2 * places / (sizes - 1) - 1).movedim(1, -1).flip(-1)
    image = torch.zeros((1, 2, *grid), dtype=torch.float64, requires_grad=True)
    for boundary, padding in (("zero", "zeros"), ("edge", "border")):
        moved = torch.nn.functional.grid_sample(image, normal, padding_mode=padding, align_corners=True)
        (want,) = torch.autograd.grad(moved, image, torch.from_numpy(values).double())
        np.testing.assert_allclose(warp_adjoint(values, flow, boundary=boundary), want, rtol=0, atol=5e-6)


def test_bad_options_are_refused():
    values, flow = np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 2, 4, 4), np.float32)
    for options, message in (
        ({"order": 2}, "order: want one of 0, 1, 3"),
        ({"boundary": "border"}, "boundary: want one of 'zero'"),
        ({"return_count": 1}, "return_count: want True or False"),
    ):
        with pytest.raises(KernelError, match=message):
            warp_adjoint(values, flow, **options)
    with pytest.raises(KernelError, match="flow_vox: want batch and grid"):
        warp_adjoint(values, flow[..., :3].copy())


def test_the_extension_checks_for_itself():
    values, flow, out, count = (np.zeros((1, c, 4, 5), np.float32) for c in (3, 2, 3, 1))
    _C.warp_adjoint(values, flow, out, count)
    for arguments in (
        (values, flow, values),
        (values, flow[:, :1].copy(), out),
        (values, flow, out[:, :2].copy()),
        (values, flow, out, out[:, :1]),
        (values, flow, out, count[..., :4].copy()),
        (values.astype(np.float16), flow, out.astype(np.float16)),
        (values[None], flow, out),
    ):
        with pytest.raises(ValueError, match=r"must|differ|overlaps"):
            _C.warp_adjoint(*arguments)
