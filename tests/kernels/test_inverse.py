"""What is particular to invert: consistency, the residual, and when it stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import compose, integrate_velocity, invert, warp
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES

SHAPES = st.sampled_from([(1, 3, 9, 11, 21), (2, 2, 25, 33), (1, 3, 1, 9, 17), (2, 2, 1, 40)])


def residual_of(inverse: np.ndarray, flow: np.ndarray, boundary: str = "edge") -> np.ndarray:
    return np.abs(inverse + warp(flow, inverse, boundary=boundary)).reshape(len(flow), -1).max(axis=1)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(BOUNDARIES), st.integers(0, 2**32 - 1))
def test_a_smooth_field_is_inverted_within_the_tolerance(shape, boundary, seed):
    flow = smooth_field(np.random.default_rng(seed), shape, amplitude=0.5)
    # Faded towards the borders, where the rules may extend it by a jump.
    fades = (np.sin(np.linspace(0, np.pi, size + 2)[1:-1]) for size in shape[2:])
    flow *= np.prod(np.meshgrid(*fades, indexing="ij"), axis=0).astype(np.float32)
    inverse, residual = invert(flow, boundary=boundary, iterations=40)
    assert (residual <= 1e-3).all()
    np.testing.assert_array_equal(residual, residual_of(inverse, flow, boundary))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_forth_and_back_is_nowhere_far_from_the_start(seed):
    """Both ways: the residual bounds one, and the field's stretching times it the other."""
    velocity = smooth_field(np.random.default_rng(seed), (1, 2, 31, 29), amplitude=1.5)
    flow = integrate_velocity(velocity)
    inverse, _ = invert(flow, tolerance_vox=1e-4, iterations=50)
    assert np.abs(compose(inverse, flow)).max() <= 1e-4
    assert np.abs(compose(flow, inverse))[..., 4:-4, 4:-4].max() < 0.1


@given(SHAPES, st.data())
def test_a_constant_shift_is_inverted_at_once(shape, data):
    shift = [data.draw(st.integers(-40, 40)) / 8 for _ in range(shape[1])]
    flow = np.zeros(shape, np.float32) + np.reshape(shift, (1, -1, *(1 for _ in shape[2:]))).astype(
        np.float32
    )
    inverse, residual = invert(flow, iterations=0)
    np.testing.assert_array_equal(inverse, -flow)
    np.testing.assert_array_equal(residual, np.zeros(len(flow), np.float32))


def test_more_iterations_and_less_tolerance_leave_less():
    flow = smooth_field(np.random.default_rng(0), (2, 3, 9, 11, 21), amplitude=1)
    residuals = [invert(flow, iterations=k, tolerance_vox=0)[1] for k in (0, 2, 4, 8)]
    assert (np.diff(residuals, axis=0) < 0).all()
    for tolerance in (0.1, 0.01, 0.0001):
        assert (invert(flow, tolerance_vox=tolerance, iterations=50)[1] <= tolerance).all()


def test_a_voxel_does_not_depend_on_the_others_of_the_batch():
    flow = smooth_field(np.random.default_rng(1), (3, 2, 13, 40), amplitude=2)
    together, residual = invert(flow)
    for n in range(3):
        alone, one = invert(flow[n : n + 1])
        np.testing.assert_array_equal(together[n : n + 1], alone)
        np.testing.assert_array_equal(residual[n : n + 1], one)


def test_where_it_cannot_converge_the_residual_says_so():
    flow = np.zeros((2, 2, 1, 40), np.float32)
    flow[1, 1, 0, ::2] = 3  # neighbours that pass each other
    _, residual = invert(flow)
    assert residual[0] == 0 and residual[1] > 0.1


def test_a_nan_is_where_the_search_meets_it_and_in_the_residual():
    flow = np.zeros((2, 3, 4, 5, 40), np.float32)
    flow[1, 1, 2, 3, 20] = np.nan
    inverse, residual = invert(flow)
    unknown = np.isnan(inverse)
    assert unknown[1, :, 2, 3, 20].all()
    assert np.abs(np.argwhere(unknown[1].any(axis=0)) - [2, 3, 20]).max() <= 1
    assert residual[0] == 0 and np.isnan(residual[1])
    np.testing.assert_array_equal(inverse[~unknown], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "iterations: want an integer from 0 to 1000"),
        ({"iterations": 2.0}, "iterations: want an integer"),
        ({"tolerance_vox": -1e-9}, "tolerance_vox: want a finite number of at least 0"),
        ({"tolerance_vox": float("nan")}, "tolerance_vox: want a finite number"),
        ({"tolerance_vox": float("inf")}, "tolerance_vox: want a finite number"),
        ({"tolerance_vox": "1"}, "tolerance_vox: want a finite number"),
        ({"tolerance_vox": True}, "tolerance_vox: want a finite number"),
        ({"boundary": "border"}, "boundary: want one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(KernelError, match=message):
        invert(np.zeros((1, 2, 4, 4), np.float32), **options)


def test_the_extension_checks_for_itself():
    flow, out = np.zeros((2, 2, 2, 4, 5), np.float32)
    residual = np.zeros(2, np.float32)
    _C.invert(flow, out, residual)
    for arguments in (
        (flow, flow, residual),
        (flow, out[:1].copy(), residual),
        (flow, out, residual[:1].copy()),
        (flow, out, residual.astype(np.float64)),
        (flow[:, :1].copy(), out[:, :1].copy(), residual),
    ):
        with pytest.raises(ValueError, match=r"must|differ|overlaps"):
            _C.invert(*arguments)
    with pytest.raises(ValueError, match="iterations"):
        _C.invert(flow, out, residual, iterations=-1)
