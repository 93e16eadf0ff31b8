"""What is particular to warp: exactness, other implementations, odd values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import KernelError
from edgekit.kernels import warp
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS

# NumPy calls "reflect" what is "mirror" here, and "symmetric" what is "reflect".
PAD_MODES = {"zero": "constant", "edge": "edge", "mirror": "reflect", "reflect": "symmetric", "wrap": "wrap"}

GRIDS = st.one_of(
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=19), hnp.array_shapes(min_dims=2, max_dims=2)
)


def image_of(rng: np.random.Generator, grid: tuple[int, ...], n: int = 1, c: int = 1) -> np.ndarray:
    return rng.standard_normal((n, c, *grid)).astype(np.float32)


@given(GRIDS, st.integers(1, 3), st.sampled_from(ORDERS), st.sampled_from(BOUNDARIES))
def test_zero_flow_is_the_identity(grid, channels, order, boundary):
    image = image_of(np.random.default_rng(0), grid, 2, channels)
    flow = np.zeros((2, len(grid), *grid), np.float32)
    np.testing.assert_array_equal(warp(image, flow, order=order, boundary=boundary), image)


@given(GRIDS, st.data(), st.sampled_from(ORDERS), st.sampled_from(BOUNDARIES))
def test_whole_translation_is_an_exact_shift(grid, data, order, boundary):
    shift = [data.draw(st.integers(-size - 1, size + 1)) for size in grid]
    image = image_of(np.random.default_rng(1), grid)
    flow = np.broadcast_to(np.reshape(shift, (1, -1, *(1 for _ in grid))), (1, len(grid), *grid))
    moved = warp(image, np.ascontiguousarray(flow, np.float32), order=order, boundary=boundary)
    pad = [(0, 0), (0, 0), *((size + 1, size + 1) for size in grid)]
    padded = np.pad(image, pad, mode=PAD_MODES[boundary])
    window = tuple(slice(size + 1 + s, 2 * size + 1 + s) for size, s in zip(grid, shift, strict=True))
    np.testing.assert_array_equal(moved, padded[(..., *window)])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["zero", "edge"]))
def test_linear_in_the_image(seed, boundary):
    rng = np.random.default_rng(seed)
    a, b = image_of(rng, (4, 5, 18)), image_of(rng, (4, 5, 18))
    flow = (2 * rng.standard_normal((1, 3, 4, 5, 18))).astype(np.float32)
    together = warp(2 * a + b, flow, boundary=boundary)
    apart = 2 * warp(a, flow, boundary=boundary) + warp(b, flow, boundary=boundary)
    np.testing.assert_allclose(together, apart, atol=5e-6)


def test_linear_functions_are_reproduced_inside():
    z, y, x = np.indices((9, 11, 13)).astype(np.float32)
    flow = smooth_field(np.random.default_rng(2), (1, 3, 9, 11, 13), amplitude=0.9)
    moved = warp((z + 2 * y - 3 * x)[None, None], flow)[0, 0]
    want = (z + flow[0, 0]) + 2 * (y + flow[0, 1]) - 3 * (x + flow[0, 2])
    np.testing.assert_allclose(moved[1:-1, 1:-1, 1:-1], want[1:-1, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize("boundary", ["zero", "edge"])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("grid", [(17, 19, 23), (31, 37)])
def test_agrees_with_torch_grid_sample(grid, order, boundary):
    import torch

    rng = np.random.default_rng(3)
    image = image_of(rng, grid, 2, 3)
    flow = smooth_field(rng, (2, len(grid), *grid), amplitude=6)
    places = torch.from_numpy(np.indices(grid) + flow.astype(np.float64))
    sizes = torch.tensor(grid).reshape(1, -1, *(1 for _ in grid))
    normal = (2 * places / (sizes - 1) - 1).movedim(1, -1).flip(-1)
    want = torch.nn.functional.grid_sample(
        torch.from_numpy(image).double(),
        normal,
        mode="bilinear" if order else "nearest",
        padding_mode={"zero": "zeros", "edge": "border"}[boundary],
        align_corners=True,
    )
    np.testing.assert_allclose(warp(image, flow, order=order, boundary=boundary), want, rtol=0, atol=2e-6)


def test_precision_does_not_depend_on_the_position_in_the_volume():
    ramp = np.arange(100_000, dtype=np.float32)[None, None, None] % 2
    flow = np.zeros((1, 2, 1, ramp.size), np.float32)
    flow[:, 1] = 1e-4
    moved = warp(ramp, flow)[0, 0, 0, :-1]
    np.testing.assert_allclose(moved[::2], 1e-4, rtol=1e-5)


def test_nearest_takes_the_higher_of_two_equally_near_voxels():
    image = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
    flow = np.zeros((1, 2, 1, 8), np.float32)
    flow[0, 1, 0] = [0.5, -0.5, 1.5, -1.5, np.nextafter(np.float32(0.5), np.float32(0)), -0.50001, 0, 0.5]
    assert warp(image, flow, order=0)[0, 0, 0].tolist() == [1, 1, 4, 2, 4, 4, 6, 7]


def test_zero_fades_out_over_one_voxel():
    image = np.ones((1, 1, 1, 4), np.float32)
    flow = np.zeros((1, 2, 1, 4), np.float32)
    flow[0, 1, 0] = [-0.25, -1.75, -3, 0.75]
    assert warp(image, flow, boundary="zero")[0, 0, 0].tolist() == [0.75, 0.25, 0, 0.25]
    assert warp(image, flow, boundary="edge")[0, 0, 0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("boundary", ["zero", "edge"])
@pytest.mark.parametrize("component", [0, 1, 2])
def test_nan_displacement_gives_nan_there_and_nowhere_else(order, boundary, component):
    image = image_of(np.random.default_rng(4), (3, 5, 37), 1, 2)
    flow = np.zeros((1, 3, 3, 5, 37), np.float32)
    flow[0, component, 1, 2, 20] = np.nan
    moved = warp(image, flow, order=order, boundary=boundary)
    assert np.isnan(moved[0, :, 1, 2, 20]).all()
    moved[0, :, 1, 2, 20] = image[0, :, 1, 2, 20]
    np.testing.assert_array_equal(moved, image)


@pytest.mark.parametrize("far", [np.inf, 3e38, 2.0**31, 1e10])
@pytest.mark.parametrize("order", [0, 1])
def test_far_displacements_lead_outside(far, order):
    image = image_of(np.random.default_rng(5), (2, 3, 17))
    for component, sign in np.ndindex(3, 2):
        flow = np.zeros((1, 3, 2, 3, 17), np.float32)
        flow[:, component] = -far if sign else far
        assert not warp(image, flow, order=order, boundary="zero").any()
        edge = np.take(image, [0 if sign else -1], axis=2 + component)
        np.testing.assert_array_equal(warp(image, flow, order=order), np.broadcast_to(edge, image.shape))


def test_values_outside_the_image_never_matter_with_zero():
    image = np.full((1, 1, 4, 5, 20), np.inf, np.float32)
    flow = np.full((1, 3, 4, 5, 20), 1000.0, np.float32)
    assert not warp(image, flow, boundary="zero").any()


def test_a_nan_voxel_reaches_its_neighbours_at_weight_0():
    image = np.zeros((1, 1, 1, 20), np.float32)
    image[..., 10] = np.nan
    moved = warp(image, np.zeros((1, 2, 1, 20), np.float32), boundary="edge")
    assert np.flatnonzero(np.isnan(moved)).tolist() == [9, 10]


def test_a_line_of_one_voxel_has_no_neighbour_in_the_next_line():
    image = np.zeros((1, 1, 2, 3, 1), np.float32)
    image[0, 0, 1, 0] = np.nan
    moved = warp(image, np.zeros((1, 3, 2, 3, 1), np.float32))
    assert np.argwhere(np.isnan(moved[0, 0, ..., 0])).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("order", [2, -1, "linear", True, None])
def test_unknown_order_is_refused(order):
    with pytest.raises(KernelError, match="order: want one of 0, 1, 3"):
        warp(np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.float32), order=order)


@pytest.mark.parametrize("boundary", ["border", "", None, 0, "constant"])
def test_unknown_boundary_is_refused(boundary):
    with pytest.raises(KernelError, match="boundary: want one of 'zero', 'edge'"):
        warp(np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.float32), boundary=boundary)


@pytest.mark.parametrize(
    ("image", "flow"),
    [
        ((1, 1, 4, 5, 6), (1, 2, 4, 5, 6)),
        ((1, 1, 4, 5, 6), (1, 3, 4, 5, 7)),
        ((2, 1, 4, 5, 6), (1, 3, 4, 5, 6)),
        ((1, 1, 4, 5, 6), (1, 2, 5, 6)),
        ((1, 1, 5, 6), (1, 3, 5, 6)),
        ((1, 1, 5, 6), (1, 2, 6, 5)),
    ],
)
def test_image_and_flow_that_do_not_go_together_are_refused(image, flow):
    with pytest.raises(KernelError, match="flow_vox"):
        warp(np.zeros(image, np.float32), np.zeros(flow, np.float32))
