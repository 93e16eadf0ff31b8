from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import SpecError
from edgekit.metrics import dice
from edgekit.spec import Array

labels = hnp.arrays(np.uint8, (3, 4), elements=st.integers(0, 2))


def test_half_of_each_overlaps() -> None:
    a, b = np.array([[1, 1, 0, 2]]), np.array([[0, 1, 1, 2]])
    assert dice(a, b) == 0.5
    assert dice(a, b, label=2) == 1.0
    assert dice(a == 1, b == 1) == 0.5, "masks are label 1"


@given(labels, labels)
def test_dice_is_symmetric_between_zero_and_one(a: Array, b: Array) -> None:
    value = dice(a, b)
    if math.isnan(value):
        assert not (a == 1).any() and not (b == 1).any()
    else:
        assert 0 <= value <= 1 and value == dice(b, a)
        assert (value == 1) == np.array_equal(a == 1, b == 1)


def test_nothing_on_either_side_is_no_score_and_on_one_side_zero() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert math.isnan(dice(empty, empty))
    assert dice(empty, full) == dice(full, empty) == 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(SpecError, match="one shape"):
        dice(np.zeros((2, 2)), np.zeros((2, 1)))
