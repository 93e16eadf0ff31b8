"""What is particular to the Jacobian determinant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.kernels import folding_fraction, jacobian_determinant


@given(st.sampled_from([2, 3]), st.data())
def test_an_affine_map_has_the_determinant_of_its_matrix(dims, data):
    entries = st.floats(-0.5, 0.5, width=32)
    matrix = data.draw(hnp.arrays(np.float32, (dims, dims), elements=entries))
    grid = np.indices((5, 6, 7)[:dims])
    flow = np.tensordot(matrix.astype(np.float64), grid, 1)[None].astype(np.float32)
    want = np.linalg.det(np.eye(dims) + matrix)
    np.testing.assert_allclose(jacobian_determinant(flow), want, atol=2e-5)


def test_batches_are_apart():
    flow = np.zeros((2, 2, 4, 4), np.float32)
    flow[1] = np.indices((4, 4))
    assert jacobian_determinant(flow).mean(axis=(1, 2)).tolist() == [1, 4]


@pytest.mark.parametrize("grid", [(1, 1), (1, 5, 1), (1, 1, 1)])
def test_axes_of_one_voxel_do_not_change_volume(grid):
    flow = np.full((1, len(grid), *grid), 3.0, np.float32)
    assert (jacobian_determinant(flow) == 1).all()


def test_folding_fraction_counts_folds_and_unknowns():
    flow = np.zeros((1, 2, 4, 10), np.float32)
    assert folding_fraction(flow) == 0
    flow[0, 1] = -2 * np.arange(10)  # mirrored
    assert folding_fraction(flow) == 1
    flow[0, 1] = -np.arange(10)  # collapsed
    assert folding_fraction(flow) == 1
    flow[0, 1] = 0
    flow[0, 0, 0, 0] = np.nan  # its own voxel, and the ones beside and below
    assert folding_fraction(flow) == 3 / 40
