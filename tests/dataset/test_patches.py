"""Where images are cut: in the foreground for the most part, and for ever at the same places."""

from __future__ import annotations

import numpy as np
import pytest
from image_sets import spec

from edgekit.dataset.patches import Chooser, Cut, cut_for
from edgekit.spec import Dim, TensorSpec

VOLUME = spec(1, 1, 8, 8, 8)


def island(shape: tuple[int, ...] = (30, 32, 34)) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Zeros with a small bright box."""
    box = (slice(20, 24), slice(3, 7), slice(25, 29))
    array = np.zeros(shape, np.float32)
    array[box] = 1
    return array, box


def test_most_patches_show_the_foreground_and_some_do_not() -> None:
    array, _ = island()
    cut = cut_for(array.shape, VOLUME)
    assert cut is not None and cut.is_needed
    chooser = Chooser(array, cut, 0.5, "key")
    shows = [bool(cut.of(array, chooser.origin(i)).any()) for i in range(200)]
    # By chance alone a patch in fifty would.
    assert 0.68 < np.mean(shows) < 0.85


def test_every_patch_lies_inside() -> None:
    array, _ = island()
    array[0, 0, 0] = array[-1, -1, -1] = 1
    cut = cut_for(array.shape, VOLUME)
    assert cut is not None
    for number in range(100):
        origin = Chooser(array, cut, 0.5, "key").origin(number)
        assert cut.of(array, origin).shape == (8, 8, 8)
        assert min(origin) >= 0


def test_places_are_those_of_all_releases() -> None:
    """Frozen: calibration must find the same patches next year."""
    array, _ = island()
    cut = cut_for(array.shape, VOLUME)
    assert cut is not None
    origins = [Chooser(array, cut, 0.5, "key").origin(number) for number in range(3)]
    assert origins == [(17, 1, 22), (19, 2, 21), (3, 11, 8)]


def test_an_image_without_foreground_is_cut_anywhere() -> None:
    array = np.zeros((20, 20), np.float32)
    cut = cut_for(array.shape, spec(1, 1, 8, 8))
    assert cut is not None
    origins = {Chooser(array, cut, 0.5, "key").origin(i) for i in range(20)}
    assert len(origins) > 10


@pytest.mark.parametrize(
    ("shape", "contract", "wanted"),
    [
        ((9, 9, 9), VOLUME, Cut((0, 1, 2), (9, 9, 9), (8, 8, 8))),
        ((1, 1, 9, 8, 7), VOLUME, Cut((2, 3, 4), (9, 8, 7), (8, 8, 7))),
        ((3, 9, 9, 9), spec(1, 3, 8, 8, 8), Cut((1, 2, 3), (9, 9, 9), (8, 8, 8))),
        ((9, 9), VOLUME, Cut((0, 1), (9, 9), (8, 8))),
        ((5, 9, 9), spec(1, 1, 8, 8), Cut((0, 1, 2), (5, 9, 9), (1, 8, 8))),
        ((9, 12), spec(1, 1, Dim(4, 16, 4), Dim(16, 32)), Cut((0, 1), (9, 12), (8, 12))),
        ((3,), spec(1, 3), None),
        ((2, 2, 9, 9, 9, 9), VOLUME, None),
        ((9, 9), TensorSpec("x", "float32", (1, 8, 8, 1), "NHWC"), None),
        ((1, 9, 9, 1), TensorSpec("x", "float32", (1, 8, 8, 1), "NHWC"), Cut((1, 2), (9, 9), (8, 8))),
    ],
)
def test_which_axes_are_cut(shape: tuple[int, ...], contract: TensorSpec, wanted: Cut | None) -> None:
    assert cut_for(shape, contract) == wanted
    if wanted is not None:
        assert wanted.is_needed == (wanted.lengths != wanted.sizes)
