"""What is particular to warp_labels: labels stay labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import warp, warp_labels
from edgekit.kernels.checks import LABELS
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.labels import METHODS

GRIDS = st.sampled_from([(5, 7, 19), (1, 6, 17), (23, 21), (1, 33), (9, 1)])


def extremes(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


@given(st.sampled_from(LABELS), GRIDS, st.sampled_from(METHODS), st.integers(0, 2**32 - 1))
def test_whole_displacements_move_any_label_exactly(dtype, grid, method, seed):
    rng = np.random.default_rng(seed)
    low, high = extremes(dtype)
    labels = rng.choice(np.array([low, high - 1, high], dtype), (1, 1, *grid))
    flow = rng.integers(-3, 4, (1, len(grid), *grid)).astype(np.float32)
    places = [
        np.clip(index + shift.astype(int), 0, size - 1)
        for index, shift, size in zip(np.indices(grid), flow[0], grid, strict=True)
    ]
    got = warp_labels(labels, flow, method=method)
    assert got.dtype == labels.dtype
    np.testing.assert_array_equal(got[0, 0], labels[0, 0][tuple(places)])


@settings(max_examples=40, deadline=None)
@given(
    GRIDS,
    st.sampled_from(["uint8", "int16", "uint32", "int64", "uint64"]),
    st.sampled_from(BOUNDARIES),
    st.integers(0, 2**32 - 1),
)
def test_linear_is_the_arg_max_of_the_warped_one_hot_volume(grid, dtype, boundary, seed):
    """The winner's share is within 1e-5 of the largest one, and it is the winner but for such ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (1, 1, *grid)).astype(dtype)
    flow = (2 * rng.standard_normal((1, len(grid), *grid))).astype(np.float32)
    one_hot = np.concatenate([labels == label for label in range(4)], axis=1).astype(np.float32)
    shares = warp(one_hot, flow, boundary=boundary)[0]
    shares[0] += 1 - shares.sum(axis=0)  # what lies outside under "zero" is label 0
    got = warp_labels(labels, flow, method="linear", boundary=boundary)[0, 0]
    won = np.take_along_axis(shares, got[None].astype(np.intp), axis=0)[0]
    best = np.sort(shares, axis=0)
    assert (won >= best[-1] - 1e-5).all()
    clear = best[-1] - best[-2] > 1e-5
    np.testing.assert_array_equal(got[clear], shares.argmax(axis=0)[clear])


@settings(max_examples=40, deadline=None)
@given(GRIDS, st.sampled_from(BOUNDARIES), st.integers(0, 2**32 - 1))
def test_nearest_is_the_warp_of_order_0(grid, boundary, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 256, (2, 2, *grid)).astype(np.int32)
    flow = (3 * rng.standard_normal((2, len(grid), *grid))).astype(np.float32)
    want = warp(labels.astype(np.float32), flow, order=0, boundary=boundary)
    np.testing.assert_array_equal(warp_labels(labels, flow, boundary=boundary), want)


@pytest.mark.parametrize("dtype", LABELS)
def test_of_equal_weights_the_smaller_label_wins(dtype):
    low, high = extremes(dtype)
    flow = np.zeros((1, 2, 1, 2), np.float32)
    flow[0, 1] = [0.5, -0.5]
    for smaller, larger in ((low, high), (low, 0), (0, high), (-1 if low < 0 else 0, 1)):
        for pair in ((smaller, larger), (larger, smaller)):
            labels = np.array([[[pair]]], dtype)
            assert warp_labels(labels, flow, method="linear")[0, 0, 0].tolist() == [smaller, smaller]


def test_several_corners_of_one_label_outvote_a_nearer_one():
    labels = np.array([[[[7, 3], [3, 3]]]], np.uint8)
    flow = np.zeros((1, 2, 2, 2), np.float32)
    flow[0, :, 0, 0] = 0.4
    assert warp_labels(labels, flow)[0, 0, 0, 0] == 7
    assert warp_labels(labels, flow, method="linear")[0, 0, 0, 0] == 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64"])
def test_nan_displacements_and_places_outside_have_label_0(method, dtype):
    labels = np.ones((1, 2, 3, 4, 21), dtype)
    flow = np.zeros((1, 3, 3, 4, 21), np.float32)
    flow[0, 1, 1, 2, 9] = np.nan
    flow[0, 2, 0, 0, 0] = -5
    got = warp_labels(labels, flow, method=method, boundary="zero")
    want = labels.copy()
    want[0, :, 1, 2, 9] = want[0, :, 0, 0, 0] = 0
    np.testing.assert_array_equal(got, want)


def test_labels_far_apart_in_a_64_bit_type_are_not_confused():
    labels = np.array([[[[2**63 + 1, 2**63, 2**63 + 2, 2**53 + 1]]]], np.uint64)
    flow = np.zeros((1, 2, 1, 4), np.float32)
    flow[0, 1, 0] = [0.25, 0.75, 0.75, -0.25]
    got = warp_labels(labels, flow, method="linear")[0, 0, 0].tolist()
    assert got == [2**63 + 1, 2**63 + 2, 2**53 + 1, 2**53 + 1]


def test_linear_borders_are_smoother_than_nearest_ones():
    y, x = np.indices((60, 60)) - 30
    disc = ((y**2 + x**2) < 400).astype(np.uint8)[None, None]
    flow = smooth_field(np.random.default_rng(0), (1, 2, 60, 60), amplitude=2)
    outlines = [
        sum(
            np.abs(np.diff(warp_labels(disc, flow, method=method).astype(int), axis=axis)).sum()
            for axis in (2, 3)
        )
        for method in METHODS
    ]
    assert outlines[1] <= outlines[0]


def test_bad_arguments_are_refused():
    labels, flow = np.zeros((1, 1, 4, 4), np.uint8), np.zeros((1, 2, 4, 4), np.float32)
    for options, message in (
        ({"method": "cubic"}, "method: want one of 'nearest', 'linear'"),
        ({"boundary": "border"}, "boundary: want one of"),
        ({"out": np.zeros((1, 1, 4, 4), np.int8)}, "out: want uint8, got int8"),
    ):
        with pytest.raises(KernelError, match=message):
            warp_labels(labels, flow, **options)
    with pytest.raises(KernelError, match="labels: want bool or uint8"):
        warp_labels(labels.astype(np.float32), flow)
    with pytest.raises(KernelError, match="overlaps"):
        warp_labels(labels, flow, out=labels)


def test_the_extension_checks_for_itself():
    labels, flow = np.zeros((1, 1, 4, 5), np.int64), np.zeros((1, 2, 4, 5), np.float32)
    out = np.zeros_like(labels)
    _C.warp_labels(labels, flow, out)
    for arguments in (
        (labels, flow, labels),
        (labels, flow, out.astype(np.int32)),
        (labels, flow, out.astype(np.uint64)),
        (labels.astype(np.float32), flow, out.astype(np.float32)),
        (labels, flow[:, :1].copy(), out),
        (labels, flow, out[..., :4].copy()),
    ):
        with pytest.raises(ValueError, match=r"must|differ|overlaps"):
            _C.warp_labels(*arguments)
