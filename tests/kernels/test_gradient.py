"""What is particular to warp_gradient: it is what finite differences and autograd find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import warp, warp_gradient
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS, displaced, sample


def away_from_voxels(flow: np.ndarray) -> np.ndarray:
    """The field with the fraction of each component between 0.1 and 0.9: no kink is near."""
    whole = np.floor(flow)
    return (whole + 0.1 + 0.8 * (flow - whole)).astype(np.float32)


def finite_differences(cotangent, image, flow, order, boundary):
    """In float64 through the definition; exact but for rounding inside a linear cell."""
    step = 1e-5
    total = np.zeros(flow.shape)
    for axis in range(flow.shape[1]):
        shift = np.zeros((1, flow.shape[1], *(1 for _ in flow.shape[2:])))
        shift[:, axis] = step
        ahead, behind = (
            sample(image, displaced(flow + sign * shift, boundary), order, boundary) for sign in (1, -1)
        )
        total[:, axis] = (cotangent * (ahead - behind)).sum(axis=1) / (2 * step)
    return total


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(4, 5, 19), (1, 6, 17), (13, 11), (1, 9)]),
    st.sampled_from([1, 3]),
    st.sampled_from(BOUNDARIES),
    st.integers(0, 2**32 - 1),
)
def test_agrees_with_finite_differences(grid, order, boundary, seed):
    """Within 2e-5 for values of about 1: float32 against a difference over 2e-5 voxels in float64."""
    rng = np.random.default_rng(seed)
    cotangent, image = rng.standard_normal((2, 2, 2, *grid)).astype(np.float32)
    flow = away_from_voxels(3 * rng.standard_normal((2, len(grid), *grid)))
    got = warp_gradient(cotangent, image, flow, order=order, boundary=boundary)
    want = finite_differences(cotangent, image, flow, order, boundary)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("boundary", "padding"), [("zero", "zeros"), ("edge", "border")])
@pytest.mark.parametrize("grid", [(9, 11, 13), (17, 19)])
def test_agrees_with_autograd_of_torch_grid_sample(grid, boundary, padding):
    import torch

    rng = np.random.default_rng(0)
    cotangent, image = rng.standard_normal((2, 2, 3, *grid)).astype(np.float32)
    flow = away_from_voxels(smooth_field(rng, (2, len(grid), *grid), amplitude=8))
    tensor = torch.from_numpy(flow).double().requires_grad_()
    sizes = torch.tensor(grid).reshape(1, -1, *(1 for _ in grid))
    normal = (2 * (torch.from_numpy(np.indices(grid)) + tensor) / (sizes - 1) - 1).movedim(1, -1).flip(-1)
    moved = torch.nn.functional.grid_sample(
        torch.from_numpy(image).double(), normal, padding_mode=padding, align_corners=True
    )
    (want,) = torch.autograd.grad(moved, tensor, torch.from_numpy(cotangent).double())
    got = warp_gradient(cotangent, image, flow, boundary=boundary)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_with_ones_it_is_the_gradient_of_the_image_there():
    z, y, x = np.indices((7, 9, 21)).astype(np.float32)
    image = (2 * z - 3 * y + 0.5 * x)[None, None]
    flow = smooth_field(np.random.default_rng(1), (1, 3, 7, 9, 21), amplitude=0.9)
    slope = warp_gradient(np.ones_like(image), image, flow)[0, :, 1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(
        slope, np.broadcast_to(np.reshape([2, -3, 0.5], (3, 1, 1, 1)), slope.shape), atol=1e-5
    )


def test_at_a_voxel_it_is_the_slope_towards_the_next_and_at_the_last_towards_the_one_before():
    image = np.array([[[[1, 2, 4, 8]]]], np.float32)
    flow = np.zeros((1, 2, 1, 4), np.float32)
    ones = np.ones_like(image)
    assert warp_gradient(ones, image, flow)[0, 1, 0].tolist() == [1, 2, 4, 4]
    assert warp_gradient(ones, image, flow, boundary="zero")[0, 1, 0].tolist() == [1, 2, 4, -8]
    assert warp_gradient(ones, image, flow, boundary="wrap")[0, 1, 0].tolist() == [1, 2, 4, -7]
    assert not warp_gradient(ones, image, flow)[0, 0].any()  # an axis of one voxel


@pytest.mark.parametrize("sign", [-1, 1])
def test_is_zero_where_the_edge_clamps(sign):
    image = np.random.default_rng(2).standard_normal((1, 1, 4, 5, 18)).astype(np.float32)
    flow = np.full((1, 3, 4, 5, 18), sign * 30.5, np.float32)
    assert not warp_gradient(np.ones_like(image), image, flow).any()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_nearest_voxel_has_no_slope(boundary):
    rng = np.random.default_rng(3)
    cotangent, image = rng.standard_normal((2, 1, 2, 4, 5, 18)).astype(np.float32)
    flow = rng.standard_normal((1, 3, 4, 5, 18)).astype(np.float32)
    flow[0, 0, 0, 0, 0] = np.nan
    assert not warp_gradient(cotangent, image, flow, order=0, boundary=boundary).any()


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_nan_displacement_gives_nan_there_and_nowhere_else(order, boundary):
    rng = np.random.default_rng(4)
    cotangent, image = rng.standard_normal((2, 1, 2, 4, 5, 37)).astype(np.float32)
    for component in range(3):
        flow = rng.standard_normal((1, 3, 4, 5, 37)).astype(np.float32)
        want = warp_gradient(cotangent, image, flow, order=order, boundary=boundary)
        flow[0, component, 1, 2, 20] = np.nan
        got = warp_gradient(cotangent, image, flow, order=order, boundary=boundary)
        want[0, :, 1, 2, 20] = np.nan
        np.testing.assert_array_equal(got, want)


def test_follows_the_loss_downhill():
    """Steps against the gradient of the squared difference bring a moved image back."""
    fixed = smooth_field(np.random.default_rng(5), (1, 1, 24, 26), amplitude=1)
    moving = warp(fixed, np.full((1, 2, 24, 26), 0.7, np.float32))
    flow = np.zeros((1, 2, 24, 26), np.float32)
    losses = []
    for _ in range(20):
        difference = warp(moving, flow) - fixed
        losses.append(float((difference**2).sum()))
        flow -= 0.5 * warp_gradient(2 * difference, moving, flow)
    assert losses[-1] < 0.5 * losses[0] and all(np.diff(losses) < 0)


def test_bad_arguments_are_refused():
    image, flow = np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 2, 4, 4), np.float32)
    for options, message in (
        ({"order": 2}, f"order: want one of {', '.join(map(str, ORDERS))}"),
        ({"boundary": "border"}, "boundary: want one of 'zero'"),
    ):
        with pytest.raises(KernelError, match=message):
            warp_gradient(image, image, flow, **options)
    with pytest.raises(KernelError, match="image: want the shape of cotangent"):
        warp_gradient(image[:, :1].copy(), image, flow)
    with pytest.raises(KernelError, match="flow_vox: want batch and grid"):
        warp_gradient(image, image, flow[..., :3].copy())


def test_the_extension_checks_for_itself():
    cotangent, image, flow, out = (np.zeros((1, c, 4, 5), np.float32) for c in (3, 3, 2, 2))
    _C.warp_gradient(cotangent, image, flow, out)
    for arguments in (
        (cotangent, image, flow, flow),
        (cotangent, image, flow, image[:, :2]),
        (cotangent[:, :1].copy(), image, flow, out),
        (cotangent, image, flow, out[..., :4].copy()),
        (cotangent, image, cotangent, out),
        (cotangent, image.astype(np.float16), flow, out),
    ):
        with pytest.raises(ValueError, match=r"must|differ|overlaps"):
            _C.warp_gradient(*arguments)
