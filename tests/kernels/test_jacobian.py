"""What is particular to the Jacobian determinant."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import _C
from edgekit.errors import KernelError
from edgekit.kernels import base, folding_fraction, jacobian_determinant
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.jacobian import OPERATOR, allocate

VARIANTS = [variant for variant in OPERATOR.variants if not variant.missing()]


def folds(determinant: np.ndarray) -> np.ndarray:
    return np.count_nonzero(~(determinant > 0), axis=tuple(range(1, determinant.ndim)))


@pytest.fixture
def flow() -> np.ndarray:
    """Rough enough to fold at many voxels, and not at many others."""
    return smooth_field(np.random.default_rng(0), (2, 3, 9, 20, 37), amplitude=12)


@given(st.sampled_from([2, 3]), st.data())
def test_an_affine_map_has_the_determinant_of_its_matrix(dims, data):
    entries = st.floats(-0.5, 0.5, width=32)
    matrix = data.draw(hnp.arrays(np.float32, (dims, dims), elements=entries))
    grid = np.indices((5, 6, 19)[-dims:])
    flow = np.tensordot(matrix.astype(np.float64), grid, 1)[None].astype(np.float32)
    want = np.linalg.det(np.eye(dims) + matrix)
    determinant, folding = jacobian_determinant(flow, return_folding=True)
    np.testing.assert_allclose(determinant, want, atol=5e-5)
    if abs(want) > 5e-5:
        assert folding.tolist() == [0 if want > 0 else determinant.size]


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_axes_may_be_renamed(order, flow):
    renamed = flow[:, order].transpose(0, 1, *(axis + 2 for axis in order))
    want = jacobian_determinant(flow).transpose(0, *(axis + 1 for axis in order))
    np.testing.assert_allclose(jacobian_determinant(np.ascontiguousarray(renamed)), want, atol=1e-4)


def test_batches_are_apart():
    flow = np.zeros((3, 2, 4, 4), np.float32)
    flow[1] = np.indices((4, 4))
    flow[2, 0] = -2 * np.indices((4, 4))[0]
    determinant, folding = jacobian_determinant(flow, return_folding=True)
    assert determinant.mean(axis=(1, 2)).tolist() == [1, 4, -1]
    assert folding.tolist() == [0, 0, 16]


@pytest.mark.parametrize("grid", [(1, 1), (1, 5, 1), (1, 1, 1), (1, 40), (3, 1, 40)])
@pytest.mark.parametrize("value", [3.0, np.inf, np.nan])
def test_axes_of_one_voxel_do_not_change_volume(grid, value):
    flow = np.zeros((1, len(grid), *grid), np.float32)
    for axis, length in enumerate(grid):
        if length == 1:
            flow[:, axis] = value if max(grid) == 1 else 3.0
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


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_count_is_that_of_the_determinants(variant):
    """Also where they overflow, which the contract leaves out."""
    some = 0
    for case in OPERATOR.cases(np.random.default_rng(1)):
        (source,) = case.inputs
        determinant, folding = allocate(source, return_folding=True)
        variant.run(source, outputs=(determinant, folding), threads=2, return_folding=True)
        assert folding.tolist() == folds(determinant).tolist(), case.label
        alone = np.full_like(folding, -1)
        options = {"return_folding": True, "return_determinant": False}
        variant.run(source, outputs=(alone,), threads=3, **options)
        assert alone.tolist() == folding.tolist(), case.label
        some += 0 < folding.sum() < determinant.size
    assert some > 50


def test_the_determinant_is_the_same_with_and_without_the_count(flow):
    determinant, folding = jacobian_determinant(flow, return_folding=True)
    assert folding.dtype == np.int64 and 0 < folding.min() < folding.max() < determinant[0].size
    np.testing.assert_array_equal(jacobian_determinant(flow), determinant)
    assert folding_fraction(flow) == folding.sum() / determinant.size == folding_fraction(flow, threads=3)


def test_float16_is_its_values_in_float32(flow):
    half = (flow / 3).astype(np.float16)
    half[0, 1, 2, 3, 4:6] = np.inf, np.nan
    half[1, 2, 3, 4, 5:7] = 65504, 6e-8
    want = jacobian_determinant(half.astype(np.float32))
    assert want.dtype == np.float32
    np.testing.assert_array_equal(jacobian_determinant(half), want)


def test_a_voxel_that_is_not_a_number_spoils_those_beside_it():
    flow = np.zeros((1, 3, 5, 6, 40), np.float32)
    flow[0, 1, 2, 3, 20] = np.nan
    spoilt = np.isnan(jacobian_determinant(flow)[0])
    beside = [(1, 3, 20), (3, 3, 20), (2, 2, 20), (2, 4, 20), (2, 3, 19), (2, 3, 21)]
    assert sorted(zip(*(axis.tolist() for axis in np.nonzero(spoilt)), strict=True)) == sorted(beside)
    assert folding_fraction(flow) == 6 / spoilt.size


def test_huge_displacements():
    flow = np.zeros((1, 2, 4, 20), np.float32)
    flow[0, 1] = np.float32(2.0**118) * np.arange(20)
    assert (jacobian_determinant(flow) == 2.0**118).all()
    flow[0, 0] = (np.float32(2.0**20) * np.arange(4))[:, None]
    assert np.isposinf(jacobian_determinant(flow)).all() and folding_fraction(flow) == 0
    flow[0, 0] *= -1
    assert np.isneginf(jacobian_determinant(flow)).all() and folding_fraction(flow) == 1


def test_nothing_but_the_result_is_allocated(flow):
    flow = np.repeat(flow, 40, axis=2)
    out = np.empty((2, *flow.shape[2:]), np.float32)
    folding_fraction(flow)
    for call, least in (
        (lambda: jacobian_determinant(flow, return_folding=True), out.nbytes),
        (lambda: jacobian_determinant(flow, return_folding=True, out=out), 0),
        (lambda: folding_fraction(flow), 0),
    ):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert least <= peak < least + 10_000


def test_a_count_takes_no_memory_that_python_does_not_see():
    code = """
import resource, numpy as np
from edgekit.kernels import folding_fraction
folding_fraction(np.zeros((1, 3, 40, 50, 60), np.float32), threads=2)
flow = np.ones((1, 3, 128, 128, 128), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folding_fraction(flow, threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2048  # KiB; a volume of determinants would have 8192


def test_bad_arguments_are_refused():
    flow = np.zeros((1, 3, 4, 5, 6), np.float32)
    for bad, message in (
        (flow[:, :2].copy(), r"want shape \[N, 3, D, H, W\] or \[N, 2, H, W\]"),
        (flow.astype(np.float64), "want float32 or float16, got float64"),
        (np.ascontiguousarray(np.moveaxis(flow, 1, -1)), "want shape"),
        (np.moveaxis(np.zeros((1, 4, 5, 6, 3), np.float32), -1, 1), "want C-contiguous memory"),
        (flow[..., :0], "at least one element"),
    ):
        for function in (jacobian_determinant, folding_fraction):
            with pytest.raises(KernelError, match=f"flow_vox: .*{message}") as caught:
                function(bad)
            assert caught.value.where == function.__name__
    with pytest.raises(KernelError, match="return_folding: want True or False, got 1"):
        jacobian_determinant(flow, return_folding=1)
    with pytest.raises(KernelError, match=r"out: want shape \(1, 4, 5, 6\)"):
        jacobian_determinant(flow, out=np.zeros((1, 4, 5, 7), np.float32))
    with pytest.raises(KernelError, match="threads"):
        folding_fraction(flow, threads=0)


def test_the_extension_checks_for_itself():
    flow, out, folding = (
        np.zeros((2, 2, 4, 5), np.float32),
        np.zeros((2, 1, 4, 5), np.float32),
        np.zeros(2, int),
    )
    frozen = folding.copy()
    frozen.flags.writeable = False
    for arguments, message in (
        ((flow,), "neither"),
        ((flow[:, :1].copy(), out), "component"),
        ((np.zeros((2, 2, 4, 5), np.int16), out), "float32 or float16"),
        ((np.moveaxis(np.zeros((2, 4, 5, 2), np.float32), -1, 1), out), "planar"),
        ((flow, out[:1]), "differ"),
        ((flow, out[:, 0]), "rank"),
        ((flow, out.astype(np.float16)), "out must be float32"),
        ((flow, flow[:, :1].copy()[:, :, :2]), "differ|contiguous"),
        ((flow, flow.reshape(4, 1, 4, 5)[1:3]), "overlaps"),
        ((flow, None, folding[:1]), "int64"),
        ((flow, None, folding.astype(np.int32)), "int64"),
        ((flow, None, np.zeros(4, int)[::2]), "int64"),
        ((flow, None, frozen), "writeable"),
        ((flow, None, flow.reshape(-1)[4:8].view(np.int64)), "folding overlaps flow"),
        ((flow, out, out.reshape(-1)[4:8].view(np.int64)), "folding overlaps out"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.jacobian_determinant(*arguments)
    for options in ({"threads": 0}, {"isa": "neon2"}):
        with pytest.raises(ValueError, match=r"must|unknown"):
            _C.jacobian_determinant(flow, out, **options)
    with pytest.raises(TypeError):
        _C.jacobian_determinant(flow.tolist(), out)


def test_without_the_extension_the_reference_counts(flow, monkeypatch):
    want, folding = jacobian_determinant(flow, return_folding=True)
    monkeypatch.setattr(base, "_load_native", lambda: (None, "not built"))
    monkeypatch.setattr(base, "numba_missing", lambda: "not installed")
    base._warn.cache_clear()
    with pytest.warns(RuntimeWarning, match="slow NumPy references"):
        assert folding_fraction(flow) == folding.sum() / want.size
    got, counts = jacobian_determinant(flow, return_folding=True)
    assert got.dtype == np.float32 and counts.tolist() == folding.tolist()
    np.testing.assert_allclose(got, want, atol=1e-4)
