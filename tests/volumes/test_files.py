from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit import volumes
from edgekit.errors import EdgekitError, InputError, UnavailableError, UsageError
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.volumes import Volume, nifti
from edgekit.volumes.volume import affine_of

GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
OBLIQUE = np.array([[-1.5, 0.25, 0.5, 10.0], [0.25, 2.0, -0.25, -20.5], [0.5, 0.5, 3.0, 7.75], [0, 0, 0, 1]])


def save(path: Path, data: Array, affine: Array | None = None, **header: object) -> Path:
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("ending", ["npy", "nii", "nii.gz"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 4), (3, 4), (2, 3, 1)])
def test_values_types_and_axes_come_back(
    tmp_path: Path, ending: str, dtype: str, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    path = tmp_path / f"image.{ending}"
    volumes.write(path, Volume(array, (3.0, 2.0, 1.5), "LPS"))
    back = volumes.read(path)
    assert back.array.dtype == dtype and back.array.flags.c_contiguous
    assert np.array_equal(back.array, array)
    if ending != "npy":
        assert (back.spacing_mm_zyx, back.orientation) == ((3.0, 2.0, 1.5), "LPS")


@pytest.mark.parametrize("code", ["RAS", "LPS", "SAR", "PIR"])
def test_each_axis_keeps_its_direction(tmp_path: Path, code: str) -> None:
    path = tmp_path / "image.nii.gz"
    volumes.write(path, Volume(GRID, (3.0, 2.0, 1.5), code))
    back = volumes.read(path)
    assert (back.orientation, back.spacing_mm_zyx) == (code, (3.0, 2.0, 1.5))
    assert np.array_equal(back.array, GRID)
    theirs = nibabel.load(path)
    assert "".join(nibabel.aff2axcodes(theirs.affine)) == code, "as other software sees it"
    assert theirs.get_fdata()[3, 1, 0] == GRID[0, 1, 3], "x is their first axis and our last"


def test_an_oblique_image_keeps_its_place_exactly(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    volumes.write(path, Volume(GRID, affine=OBLIQUE))
    assert np.array_equal(volumes.read(path).affine, OBLIQUE)  # type: ignore[arg-type]


def test_unknown_geometry_stays_unknown(tmp_path: Path) -> None:
    for spacing in (None, (3.0, 2.0, 1.5)):
        path = tmp_path / f"{spacing is None}.nii"
        volumes.write(path, Volume(GRID, spacing))
        back = volumes.read(path)
        assert back.affine is None and back.orientation == "" and back.spacing_mm_zyx == spacing
        assert "does not say how the image lies" in back.notes[0]


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    for path in (first, second):
        volumes.write(path, Volume(GRID, (1.0, 1.0, 1.0), "RAS"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4), "no time in the compressed file"


def test_masks_and_half_precision_become_types_of_the_format(tmp_path: Path) -> None:
    for array, want in ((GRID > 5, "uint8"), (GRID.astype(np.float16), "float32")):
        path = tmp_path / f"{want}.nii"
        volumes.write(path, Volume(array))
        back = volumes.read(path).array
        assert back.dtype == want and np.array_equal(back, array)


def test_scale_and_offset_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii"
    image = nibabel.Nifti1Image(GRID.T.astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, path)
    stored = np.asarray(nibabel.load(path).dataobj).T
    back = volumes.read(path).array
    assert back.dtype == np.float32 and np.allclose(back, stored)


def test_lengths_become_millimetres(tmp_path: Path) -> None:
    path = tmp_path / "metres.nii"
    image = nibabel.Nifti1Image(GRID.T, np.diag([0.001, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, path)
    back = volumes.read(path)
    assert back.spacing_mm_zyx == pytest.approx((3.0, 2.0, 1.0))
    assert "converted to mm" in back.notes[0]


def test_trailing_axes_of_one_are_dropped_and_series_refused(tmp_path: Path) -> None:
    one = save(tmp_path / "one.nii", GRID.T[..., None], np.eye(4))
    assert np.array_equal(volumes.read(one).array, GRID)
    many = save(tmp_path / "many.nii", np.zeros((4, 3, 2, 5), np.float32), np.eye(4))
    with pytest.raises(InputError, match="two or three axes"):
        volumes.read(many)


@pytest.mark.parametrize("dtype", ["complex64", [("R", "u1"), ("G", "u1"), ("B", "u1")], "uint64"])
def test_types_without_one_intensity_are_refused(tmp_path: Path, dtype: object) -> None:
    path = save(tmp_path / "odd.nii", np.zeros((4, 3, 2), dtype), np.eye(4))  # type: ignore[call-overload]
    with pytest.raises(InputError, match="no intensities"):
        volumes.read(path)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * (1 << 20)))
    with pytest.raises(InputError, match="MiB are allowed"):
        volumes.read(path)
    header.set_data_shape((2, 2, 2))
    header["vox_offset"] = 1e12
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * (1 << 20)))
    with pytest.raises(InputError, match="begin at byte 1e\\+12"):
        volumes.read(path)


def test_the_size_limit_is_the_caller_s(tmp_path: Path) -> None:
    for name in ("a.npy", "a.nii"):
        volumes.write(tmp_path / name, Volume(np.zeros((8, 64, 64), np.float32)))
        assert volumes.read(tmp_path / name, max_bytes=1 << 19).array.size
        with pytest.raises(InputError, match="MiB are allowed"):
            volumes.read(tmp_path / name, max_bytes=100_000)


@pytest.mark.parametrize("ending", ["npy", "nii", "nii.gz", "dcm"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_clear_error(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    good = tmp_path / f"good.{ending}"
    if not good.exists():
        if ending == "dcm":
            from pydicom import data as pydicom_data

            good.write_bytes(
                Path(pydicom_data.get_testdata_file("MR_small.dcm", download=False)).read_bytes()
            )
        else:
            volumes.write(good, Volume(GRID, (1.0, 1.0, 1.0), "RAS"))
    content = bytearray(good.read_bytes())
    content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, min(len(content), 2000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"bad.{ending}"
    path.write_bytes(content)
    try:
        volume = volumes.read(path, max_bytes=1 << 26)
    except EdgekitError as refused:
        assert str(path) in str(refused)
    else:
        assert volume.array.size


def test_pickles_and_texts_in_npy_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "empty.npy", np.zeros((0, 3), np.float32))
    for name, message in (("object", "is no image"), ("text", "is no image"), ("empty", "is empty")):
        with pytest.raises(InputError, match=message):
            volumes.read(tmp_path / f"{name}.npy")


def test_an_npy_file_becomes_native_and_contiguous(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(GRID.astype(">f4")))
    back = volumes.read(tmp_path / "a.npy").array
    assert back.dtype == np.dtype("float32") and back.dtype.isnative and back.flags.c_contiguous
    assert np.array_equal(back, GRID)


@pytest.mark.parametrize("name", ["missing.nii.gz", "missing.npy", "missing"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file") as refused:
        volumes.read(tmp_path / name)
    assert name in (refused.value.where or "")


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.gif").write_bytes(b"GIF89a")
    for read in (volumes.read, volumes.shape_of):
        with pytest.raises(InputError, match="what kind of image"):
            read(tmp_path / "photo.gif")
    pair = tmp_path / "pair.nii"
    header = nibabel.Nifti1Header()
    header.set_data_shape((2, 2, 2))
    header["magic"] = b"ni1"
    pair.write_bytes(header.binaryblock + b"\0" * 100)
    with pytest.raises(InputError, match="one file"):
        volumes.read(pair)


def test_writing_refuses_what_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write \.png") as refused:
        volumes.write(tmp_path / "a.png", Volume(GRID))
    assert refused.value.hint == "a.nii.gz"
    with pytest.raises(InputError, match="axes"):
        volumes.write(tmp_path / "a.nii", Volume(GRID[None, None]))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    volumes.write(path, Volume(GRID))
    with pytest.raises(UsageError, match="exists already"):
        volumes.write(path, Volume(GRID + 1))
    assert np.array_equal(volumes.read(path).array, GRID)
    volumes.write(path, Volume(GRID + 1), force=True)
    assert np.array_equal(volumes.read(path).array, GRID + 1)


def test_a_long_axis_is_written_as_nifti_2(tmp_path: Path) -> None:
    path = tmp_path / "long.nii"
    array = np.zeros((1, 2, 40000), np.uint8)
    volumes.write(path, Volume(array, (1.0, 1.0, 1.0), "RAS"))
    assert isinstance(nibabel.load(path), nibabel.Nifti2Image)
    assert volumes.read(path).array.shape == array.shape


def test_without_nibabel_the_install_line_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii"
    volumes.write(path, Volume(GRID))
    monkeypatch.setattr(nifti, "NIBABEL", Requirement("no_such_module", "nibabel", "nifti"))
    with pytest.raises(UnavailableError) as refused:
        volumes.read(path)
    assert refused.value.hint == "pip install 'edgekit[nifti]'"


def test_the_brain_template_that_ships_with_nilearn_lies_as_it_says() -> None:
    from nilearn import datasets

    folder = Path(datasets.__file__).parent / "data"
    path = next(folder.glob("mni_icbm152_t1*.nii.gz"))
    volume = volumes.read(path)
    theirs = nibabel.load(path)
    assert np.array_equal(volume.array, np.asarray(theirs.dataobj).T)
    assert volume.orientation == "".join(nibabel.aff2axcodes(theirs.affine))
    assert volume.spacing_mm_zyx == tuple(float(z) for z in theirs.header.get_zooms()[::-1])
    assert affine_of(volume.spacing_mm_zyx, volume.orientation)[0, 0] == theirs.affine[0, 0]
