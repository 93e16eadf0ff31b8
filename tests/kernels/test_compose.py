"""What is particular to compose: shifts add up, order matters as for maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import KernelError
from edgekit.kernels import compose, integrate_velocity, warp
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES

SHAPES = st.sampled_from([(1, 3, 4, 5, 19), (2, 3, 1, 7, 9), (2, 2, 9, 17), (1, 2, 1, 33)])


def constant(shape: tuple[int, ...], vector) -> np.ndarray:
    vector = np.reshape(vector, (1, -1, *(1 for _ in shape[2:])))
    return np.ascontiguousarray(np.broadcast_to(vector, shape), np.float32)


@given(SHAPES, st.data())
def test_constant_shifts_add_up_exactly(shape, data):
    eighths = st.integers(-40, 40)
    first, second = ([data.draw(eighths) / 8 for _ in range(shape[1])] for _ in range(2))
    got = compose(constant(shape, first), constant(shape, second))
    np.testing.assert_array_equal(got, constant(shape, np.add(first, second)))


@given(SHAPES, st.sampled_from(BOUNDARIES), st.integers(0, 2**32 - 1))
def test_zero_on_either_side_changes_nothing(shape, boundary, seed):
    field = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    zero = np.zeros_like(field)
    np.testing.assert_array_equal(compose(field, zero, boundary=boundary), field)
    np.testing.assert_array_equal(compose(zero, field, boundary=boundary), field)


@given(SHAPES, st.sampled_from(BOUNDARIES), st.integers(0, 2**32 - 1))
def test_is_the_first_plus_the_second_pulled_through_it(shape, boundary, seed):
    first, second = (3 * np.random.default_rng(seed).standard_normal((2, *shape))).astype(np.float32)
    np.testing.assert_array_equal(
        compose(first, second, boundary=boundary), first + warp(second, first, boundary=boundary)
    )


@given(SHAPES, st.integers(0, 2**32 - 1))
def test_whole_displacements_compose_associatively_on_a_torus(shape, seed):
    """All samples are voxels, and the rule of the boundary agrees with adding up: equal to the bit."""
    a, b, c = np.random.default_rng(seed).integers(-9, 10, (3, *shape)).astype(np.float32)
    left = compose(compose(a, b, boundary="wrap"), c, boundary="wrap")
    right = compose(a, compose(b, c, boundary="wrap"), boundary="wrap")
    np.testing.assert_array_equal(left, right)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_smooth_displacements_compose_associatively(seed):
    """Within 0.05 voxels: linear interpolation errs by an eighth of a second derivative, twice."""
    rng = np.random.default_rng(seed)
    a, b, c = (smooth_field(rng, (1, 2, 30, 33), amplitude=1) for _ in range(3))
    left = compose(compose(a, b), c)
    right = compose(a, compose(b, c))
    assert np.abs(left - right)[..., 4:-4, 4:-4].max() < 0.05


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_warping_by_the_composition_is_warping_twice(seed):
    rng = np.random.default_rng(seed)
    first, second = (smooth_field(rng, (1, 2, 30, 33), amplitude=1) for _ in range(2))
    image = smooth_field(rng, (1, 1, 30, 33), amplitude=1)
    once, twice = warp(image, compose(first, second)), warp(warp(image, second), first)
    assert np.abs(once - twice)[..., 4:-4, 4:-4].max() < 0.08


def test_integration_composes_with_itself():
    velocity = smooth_field(np.random.default_rng(0), (1, 3, 9, 11, 21), amplitude=2)
    half = integrate_velocity(velocity / 2, steps=6)
    np.testing.assert_array_equal(compose(half, half), integrate_velocity(velocity, steps=7))


def test_fields_of_different_shapes_are_refused():
    with pytest.raises(KernelError, match="second_vox: want the shape of first_vox"):
        compose(np.zeros((1, 2, 4, 5), np.float32), np.zeros((1, 2, 5, 4), np.float32))
    with pytest.raises(KernelError, match="boundary: want one of"):
        compose(*np.zeros((2, 1, 2, 4, 5), np.float32), boundary="border")
