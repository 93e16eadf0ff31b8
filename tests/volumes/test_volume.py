from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import InputError, SpecError
from edgekit.spec import Array, Dim, TensorSpec
from edgekit.volumes import Volume, as_tensor, from_tensor
from edgekit.volumes.volume import affine_of, orientation_of, spacing_of

GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
SPEC = TensorSpec("ct", "float32", (1, 1, Dim(1, 64), Dim(1, 64), Dim(1, 64)), "NCDHW")
PICTURE = TensorSpec("image", "float32", (1, 1, 3, 4), "NCHW")

CODES = [
    "".join(letters)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*order)
]


def rotation(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("code", CODES)
def test_orientation_and_spacing_say_the_same_as_the_affine(code: str) -> None:
    volume = Volume(GRID, (3.0, 2.0, 1.5), code)
    assert volume.affine is not None
    assert orientation_of(volume.affine) == code
    assert spacing_of(volume.affine) == (3.0, 2.0, 1.5)
    assert Volume(GRID, affine=volume.affine).orientation == code


def test_the_letters_say_where_growing_indices_go() -> None:
    affine = affine_of((1.0, 1.0, 1.0), "LPS")
    assert (affine @ [1, 0, 0, 1])[0] == -1, "x grows to the left, away from right"
    assert (affine @ [0, 0, 1, 1])[2] == 1, "z grows to the head"


@given(st.floats(-0.7, 0.7), st.sampled_from(CODES))
def test_an_oblique_image_has_the_nearest_letters(angle: float, code: str) -> None:
    affine = rotation(angle) @ affine_of((3.0, 1.0, 1.0), code)
    assert orientation_of(affine) == code
    assert spacing_of(affine) == pytest.approx((3.0, 1.0, 1.0))


@pytest.mark.parametrize("code", ["RA", "RAR", "RAX", "RASS", "ras", "RLS"])
def test_impossible_orientations_are_refused(code: str) -> None:
    with pytest.raises(InputError, match="orientation of three letters"):
        Volume(GRID, (1.0, 1.0, 1.0), code)


def test_impossible_geometry_is_refused() -> None:
    with pytest.raises(InputError, match="above 0 mm"):
        Volume(GRID, (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="cannot be inverted"):
        Volume(GRID, affine=np.diag([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="cannot be inverted"):
        Volume(GRID, affine=np.diag([1.0, np.nan, 1.0, 1.0]))
    with pytest.raises(InputError, match="says a spacing of 1 × 1 × 1 mm"):
        Volume(GRID, (2.0, 1.0, 1.0), affine=np.eye(4))


def test_a_volume_is_contiguous_and_its_affine_its_own() -> None:
    affine = np.eye(4)
    volume = Volume(GRID.transpose(2, 1, 0), affine=affine)
    affine[0, 0] = 5
    assert volume.array.flags.c_contiguous
    assert volume.affine is not None and volume.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2


def test_batch_and_channel_axes_are_added_and_values_kept() -> None:
    tensor = as_tensor(Volume(GRID.astype(np.int16)), SPEC)
    assert tensor.shape == (1, 1, 2, 3, 4) and tensor.dtype == np.float32
    assert np.array_equal(tensor[0, 0], GRID)
    assert as_tensor(Volume(GRID[None, None]), SPEC).shape == (1, 1, 2, 3, 4)
    assert as_tensor(Volume(GRID[0]), SPEC).shape == (1, 1, 1, 3, 4)
    assert as_tensor(Volume(GRID[:1]), PICTURE).shape == (1, 1, 3, 4)
    two = TensorSpec("two", "float32", (1, 2, 3, 4), "NCHW")
    assert as_tensor(Volume(GRID[None]), two).shape == (1, 2, 3, 4), (
        "a tensor of the right rank stays as it is"
    )


def wanting(dtype: str = "float32", **changes: object) -> TensorSpec:
    return TensorSpec("t", dtype, **{"dims": SPEC.dims, "layout": "NCDHW", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("volume", "spec", "message", "hint"),
    [
        (Volume(GRID), PICTURE, "want one picture (y, x), got 2", "one by one"),
        (Volume(GRID[:, :2, :2]), wanting(dims=(1, 1, 2, 2, 4)), "wrong shape", "1x1x2x2x4"),
        (Volume(GRID), wanting("int32"), "want int32", "astype"),
        (
            Volume(GRID, (2.0, 1.0, 1.0)),
            wanting(spacing_mm_zyx=(1.0, 1.0, 1.0)),
            "want 1 × 1 × 1 mm, got 2 × 1 × 1 mm",
            "resample",
        ),
        (Volume(GRID, modality="MR"), wanting(quantity="hounsfield"), "CT image", "CT"),
        (Volume(GRID * np.nan), SPEC, "NaN", "nan_to_num"),
        (Volume(GRID * 1e30), wanting("float16"), "infinite", "nan_to_num"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(
    volume: Volume, spec: TensorSpec, message: str, hint: str
) -> None:
    with pytest.raises(SpecError) as refused:
        as_tensor(volume, spec)
    assert message in refused.value.message
    assert hint in (refused.value.hint or "")


def test_spacing_within_a_hundredth_or_unknown_is_accepted() -> None:
    spec = TensorSpec("t", "float32", SPEC.dims, "NCDHW", spacing_mm_zyx=(1.0, 1.0, 1.0))
    assert as_tensor(Volume(GRID, (1.005, 1.0, 0.995)), spec).shape == (1, 1, 2, 3, 4)
    assert as_tensor(Volume(GRID), spec).shape == (1, 1, 2, 3, 4)


@pytest.mark.parametrize("array", [GRID, GRID[0], GRID[:1]])
def test_a_result_on_the_same_grid_has_the_image_s_geometry(array: Array) -> None:
    image = Volume(array, (3.0, 2.0, 1.0), "LPS", modality="CT", notes=("inverted",))
    spec = SPEC if array.ndim == 3 and len(array) > 1 else PICTURE
    result = from_tensor(as_tensor(image, spec), spec, like=image)
    assert np.array_equal(result.array, image.array)
    assert (result.spacing_mm_zyx, result.orientation) == ((3.0, 2.0, 1.0), "LPS")
    assert result.notes == ()


def test_a_result_on_another_grid_has_none() -> None:
    image = Volume(GRID, (3.0, 2.0, 1.0), "LPS")
    flow = np.zeros((1, 3, 2, 3, 4), np.float32)
    result = from_tensor(flow, TensorSpec("flow", "float32", flow.shape, "NCDHW"), like=image)
    assert result.array.shape == (3, 2, 3, 4) and result.affine is None
    half = from_tensor(flow[:, :1, :1], SPEC, like=image)
    assert half.array.shape == (1, 3, 4) and half.spacing_mm_zyx is None
