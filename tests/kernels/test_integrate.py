"""What is particular to integrate_velocity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import KernelError
from edgekit.kernels import compose, integrate_velocity, invert, jacobian_determinant, warp
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES


@pytest.mark.parametrize("steps", [0, 1, 7, 20])
def test_constant_velocity_is_a_translation(steps):
    velocity = np.full((1, 3, 5, 6, 7), 1.5, np.float32)
    np.testing.assert_array_equal(integrate_velocity(velocity, steps=steps), velocity)


def test_no_steps_is_the_velocity_itself():
    velocity = smooth_field(np.random.default_rng(0), (2, 2, 9, 11), amplitude=2)
    np.testing.assert_array_equal(integrate_velocity(velocity, steps=0), velocity)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_opposite_velocity_gives_the_inverse(seed):
    fade = np.sin(np.linspace(0, np.pi, 25, dtype=np.float32))  # nothing flows across the border
    velocity = smooth_field(np.random.default_rng(seed), (1, 2, 25, 25), amplitude=2) * fade * fade[:, None]
    forth, back = integrate_velocity(velocity), integrate_velocity(-velocity)
    assert np.abs(forth + warp(back, forth)).max() < 0.1 * np.abs(forth).max()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(BOUNDARIES), st.integers(1, 8))
def test_integrating_twice_is_integrating_twice_the_velocity(seed, boundary, steps):
    """exp(v) after exp(v) is exp(2 v), to the bit: it is the last of one step more."""
    velocity = smooth_field(np.random.default_rng(seed), (1, 2, 25, 27), amplitude=1)
    once = integrate_velocity(velocity, steps=steps, boundary=boundary)
    twice = integrate_velocity(2 * velocity, steps=steps + 1, boundary=boundary)
    np.testing.assert_array_equal(compose(once, once, boundary=boundary), twice)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_inverse_is_the_integral_of_the_opposite_velocity(seed):
    """Within a tenth of a voxel: squaring interpolates what inversion solves for."""
    fade = np.sin(np.linspace(0, np.pi, 25, dtype=np.float32))
    velocity = smooth_field(np.random.default_rng(seed), (1, 2, 25, 25), amplitude=1.5) * fade * fade[:, None]
    inverse, residual = invert(integrate_velocity(velocity), iterations=100)
    assert residual[0] <= 1e-3
    assert np.abs(inverse - integrate_velocity(-velocity)).max() < 0.1


@pytest.mark.parametrize("steps", range(6))
def test_a_workspace_changes_nothing(steps):
    velocity = smooth_field(np.random.default_rng(3), (1, 3, 7, 9, 21), amplitude=2)
    workspace = np.full_like(velocity, np.nan)
    out = np.empty_like(velocity)
    assert integrate_velocity(velocity, steps=steps, out=out, workspace=workspace) is out
    np.testing.assert_array_equal(out, integrate_velocity(velocity, steps=steps))


def test_a_workspace_must_be_memory_of_its_own():
    velocity, out = np.zeros((2, 1, 2, 4, 5), np.float32)
    for workspace in (velocity, out):
        with pytest.raises(KernelError, match="workspace: want memory of its own"):
            integrate_velocity(velocity, out=out, workspace=workspace)
    with pytest.raises(KernelError, match="workspace: want shape"):
        integrate_velocity(velocity, workspace=np.zeros((1, 2, 4, 4), np.float32))


def test_a_smooth_velocity_does_not_fold():
    velocity = smooth_field(np.random.default_rng(1), (1, 3, 20, 20, 20), amplitude=2)
    assert jacobian_determinant(integrate_velocity(velocity)).min() > 0


def test_linear_velocity_is_an_exponential():
    """dx/dt = a x has the solution exp(a) x."""
    y, x = (np.indices((41, 41)) - 20).astype(np.float32)
    flow = integrate_velocity(np.stack([-0.2 * y, -0.3 * x])[None], steps=12)[0]
    np.testing.assert_allclose(flow, np.stack([(np.exp(-0.2) - 1) * y, (np.exp(-0.3) - 1) * x]), atol=2e-3)


@pytest.mark.parametrize("steps", [-1, 33, 2.0, "7", True, None])
def test_bad_steps_are_refused(steps):
    with pytest.raises(KernelError, match="steps: want an integer from 0 to 32"):
        integrate_velocity(np.zeros((1, 2, 4, 4), np.float32), steps=steps)


def test_bad_boundary_and_shape_are_refused():
    with pytest.raises(KernelError, match="boundary"):
        integrate_velocity(np.zeros((1, 2, 4, 4), np.float32), boundary="border")
    with pytest.raises(KernelError, match=r"velocity_vox: want shape \[N, 3, D, H, W\]"):
        integrate_velocity(np.zeros((1, 3, 4, 4), np.float32))
