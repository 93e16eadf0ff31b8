"""edgekit.spec: what stands between a caller's array and a vendor's library."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import SpecError
from edgekit.spec import Dim, TensorSpec, all_finite, format_dims, parse_dims, with_dims

SPEC = TensorSpec("ct", "float32", (1, 1, Dim(32, 128, 16), 8), "NCHW", "hounsfield", (-1024.0, 3071.0))

dims = st.one_of(
    st.integers(1, 500),
    st.tuples(st.integers(1, 90), st.integers(0, 90), st.integers(1, 20)).map(
        lambda t: Dim(t[0], t[0] + t[1], t[2])
    ),
)


@given(st.lists(dims, min_size=1, max_size=6))
def test_shapes_are_read_as_they_are_written(shape):
    assert parse_dims(format_dims(shape)) == tuple(shape)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1x", "1x-2", "0", "1x[4]", "[8:4]", "[0:4]", "[4:8:0]", "1 2", "1xax2", "9" * 80, "[1:2:3:4]"],
)
def test_other_shapes_are_refused(text):
    with pytest.raises(SpecError):
        parse_dims(text)


@given(dims, st.integers(1, 300))
def test_the_nearest_length_is_allowed_and_nearest(dim, length):
    if isinstance(dim, int):
        return
    allowed = range(dim.min, dim.max + 1, dim.step)
    assert all((n in dim) == (n in allowed) for n in range(1, 200))
    nearest = dim.nearest(length)
    assert nearest in allowed
    assert abs(nearest - length) == min(abs(n - length) for n in allowed)
    assert dim.largest == allowed[-1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "size", [1, 2, 3, 7, 8, 9, 17, 64, 1000, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 100_003]
)
def test_every_nan_and_infinity_is_found(dtype, size):
    largest = np.finfo(dtype).max
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for background in (0, largest, -largest):
            array = np.full(size, background, dtype)
            assert all_finite(array)
            for value in (np.nan, np.inf, -np.inf):
                for position in {0, 1 % size, size // 2, size - 1}:
                    array[position] = value
                    assert not all_finite(array), (background, value, position)
                    array[position] = background
        array[0], array[-1] = largest, -largest
        assert all_finite(array)
        array[0], array[-1] = np.inf, -np.inf
        assert not all_finite(array)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool"])
@pytest.mark.parametrize("size", [1, 100, 1 << 17])
def test_integers_are_finite(dtype, size):
    assert all_finite(np.ones(size, dtype))


def test_views_and_scalars_are_looked_through():
    array = np.zeros((6, 6), np.float32)
    array[1, 1] = np.nan
    assert all_finite(array[::2, ::2]) and not all_finite(array[1::2, 1::2].T)
    assert all_finite(np.float32(1).reshape(())) and not all_finite(np.float32(np.nan).reshape(()))


def test_check_changes_nothing_but_the_layout():
    good = np.zeros((1, 1, 48, 8), np.float32)
    assert SPEC.check(good) is good
    turned = np.asfortranarray(good)
    checked = SPEC.check(turned)
    assert checked.flags.c_contiguous and checked is not turned
    np.testing.assert_array_equal(checked, turned)


@pytest.mark.parametrize(
    "array, what, hint",
    [
        ([1.0], "want a NumPy array, got list", "numpy.asarray"),
        (np.zeros((1, 1, 48, 8)), "want float32, got float64", "astype"),
        (np.zeros((48, 8), np.float32), "wrong shape", "batch and channel"),
        (np.zeros((1, 1, 50, 8), np.float32), "wrong shape", "1x1x48x8"),
        (np.zeros((1, 1, 57, 8), np.float32), "wrong shape", "1x1x64x8"),
        (np.zeros((1, 1, 999, 8), np.float32), "wrong shape", "1x1x128x8"),
        (np.zeros((8,), np.float32), "wrong shape", "4 axes, got 1"),
        (np.full((1, 1, 48, 8), 4000, np.float32), "out of range.*4000", "rescale slope"),
        (np.full((1, 1, 48, 8), np.nan, np.float32), "384 NaN", "nan_to_num"),
        (np.full((1, 1, 48, 8), np.inf, np.float32), "384 NaN or infinite", "nan_to_num"),
    ],
)
def test_check_refuses_with_a_way_out(array, what, hint):
    with pytest.raises(SpecError, match=what) as caught:
        SPEC.check(array)
    assert caught.value.where == "tensor 'ct'" and hint in caught.value.hint


def test_one_bad_value_is_enough():
    array = np.zeros((1, 1, 48, 8), np.float32)
    for value in (np.nan, np.inf, -np.inf, 3071.5, -1024.5):
        array[0, 0, 47, 7] = value
        with pytest.raises(SpecError):
            SPEC.check(array)
    array[0, 0, 47, 7] = 3071
    SPEC.check(array)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "complex64"},
        {"layout": "NC"},
        {"dims": (1, 0, 8, 8)},
        {"value_range": (1.0, 0.0)},
        {"value_range": (0.0, float("nan"))},
    ],
)
def test_contracts_that_mean_nothing_are_refused(change):
    with pytest.raises(SpecError):
        replace(SPEC, **change)


def test_sizes():
    assert SPEC.largest_shape == (1, 1, 128, 8) and SPEC.smallest_shape == (1, 1, 32, 8)
    assert SPEC.largest_bytes == 128 * 8 * 4
    assert not SPEC.is_static and with_dims(SPEC, (1, 1, 32, 8)).is_static
    assert with_dims(SPEC, (4, 4, 4)).layout == "NCW"
    assert not SPEC.fits((1, 1, 48)) and SPEC.fits([1, 1, 48, 8])
