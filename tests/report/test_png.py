"""PNG files, read back by another implementation."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgekit.report.png import Pixels, encode


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_any_picture_is_read_back(pixels: Pixels) -> None:
    with Image.open(io.BytesIO(encode(pixels))) as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    assert encode(pixels) == encode(pixels.copy())
