from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from edgekit import volumes
from edgekit.errors import InputError, UnavailableError
from edgekit.registry import Requirement
from edgekit.volumes import dicom

_PLACE_AND_THICKNESS = ("ImagePositionPatient", "SpacingBetweenSlices", "SliceThickness")


def example(name: str) -> Path:
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name, download=False)
    assert path is not None, f"pydicom does not ship {name}"
    return Path(str(path))


def write_slice(path: Path, **changes: Any) -> None:
    """A CT slice of 128 × 128 pixels of 0.66 mm, 5 mm thick, with other attributes."""
    data = pydicom.dcmread(example("CT_small.dcm"))
    for key, value in changes.items():
        if value is None:
            del data[key]
        else:
            setattr(data, key, value)
    data.save_as(path)


def write_series(folder: Path, heights: list[float], **changes: Any) -> Path:
    """Slices at these heights, named in another order than they lie, the n-th with a constant value of n."""
    folder.mkdir(exist_ok=True)
    for index, height in enumerate(heights):
        write_slice(
            folder / f"{(index * 7) % 10}{index}.dcm",
            ImagePositionPatient=[-158.1, -179.0, height],
            PixelData=np.full((128, 128), index, np.int16).tobytes(),
            SOPInstanceUID=f"1.2.3.{index}",
            **changes,
        )
    return folder


def test_a_ct_slice_is_in_hounsfield_units() -> None:
    volume = volumes.read(example("CT_small.dcm"))
    stored = pydicom.dcmread(example("CT_small.dcm"))
    assert volume.array.shape == (128, 128) and volume.array.dtype == np.float32
    assert np.array_equal(volume.array, stored.pixel_array * 1.0 - 1024)
    assert volume.spacing_mm_zyx == pytest.approx((5.0, 0.661468, 0.661468))
    assert (volume.orientation, volume.modality) == ("LPS", "CT")
    assert volume.frame_of_reference == stored.FrameOfReferenceUID
    x, y, z = stored.ImagePositionPatient
    assert volume.affine is not None and np.allclose(volume.affine[:3, 3], [-x, -y, z])


def test_an_mr_slice_keeps_its_values() -> None:
    volume = volumes.read(example("MR_small.dcm"))
    assert (volume.array.min(), volume.array.max()) == (127, 2145)
    assert volume.modality == "MR" and volume.notes == ()


def test_an_ultrasound_clip_becomes_luma_frame_by_frame() -> None:
    volume = volumes.read(example("examples_ybr_color.dcm"))
    assert volume.array.shape == (30, 240, 320) and volume.spacing_mm_zyx is None
    assert "luma" in volume.notes[0]
    rgb = pydicom.pixels.pixel_array(example("examples_ybr_color.dcm"), raw=False)[7]
    assert np.allclose(volume.array[7], rgb @ [0.299, 0.587, 0.114], atol=1e-3)


@pytest.mark.parametrize(("signed", "bits", "total"), [(0, 12, 4095), (0, 16, 65535), (1, 16, -1)])
def test_a_picture_with_bright_low_values_is_inverted(
    tmp_path: Path, signed: int, bits: int, total: int
) -> None:
    values = np.arange(128 * 128, dtype=np.uint16).reshape(128, 128) % 4096
    common = {"PixelRepresentation": signed, "BitsStored": bits, "HighBit": bits - 1}
    common |= {"PixelData": values.tobytes(), "RescaleSlope": 2, "RescaleIntercept": 3}
    write_slice(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1", **common)
    volume = volumes.read(tmp_path / "a.dcm")
    assert np.array_equal(volume.array, 2 * (total - values.astype(np.float32)) + 3)
    assert "MONOCHROME1" in volume.notes[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("examples_palette.dcm", "PALETTE COLOR are no intensities"),
        ("liver_1frame.dcm", "got a segmentation"),
        ("rtdose.dcm", "got a dose distribution"),
        ("reportsi.dcm", "holds no image"),
        ("image_dfl.dcm", "deflated"),
        ("MR_truncated.dcm", "pixels cannot be read"),
        ("rtstruct.dcm", "not a readable DICOM file"),
    ],
)
def test_what_is_no_clear_image_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        volumes.read(example(name))
    assert refused.value.where == str(example(name))


def test_a_missing_codec_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = example("MR_small_jpeg_ls_lossless.dcm")
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: False))
    with pytest.raises(UnavailableError, match="JPEG-LS") as refused:
        volumes.read(path)
    assert refused.value.hint == "pip install 'pylibjpeg[all]'"


def test_without_pydicom_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm")
    monkeypatch.setattr(dicom, "PYDICOM", Requirement("no_such_module", "pydicom", "dicom"))
    for path in (tmp_path, tmp_path / "a.dcm"):
        with pytest.raises(UnavailableError) as refused:
            volumes.read(path)
        assert refused.value.hint == "pip install 'edgekit[dicom]'"


def test_the_size_is_asked_of_the_header(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", Rows=65535, Columns=65535)
    with pytest.raises(InputError, match="MiB are allowed"):
        volumes.read(tmp_path / "a.dcm")
    write_slice(tmp_path / "a.dcm", NumberOfFrames=10**6)
    with pytest.raises(InputError, match="MiB are allowed"):
        volumes.read(tmp_path)


def test_a_slice_without_place_or_thickness_says_so(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", **dict.fromkeys(_PLACE_AND_THICKNESS))
    volume = volumes.read(tmp_path / "a.dcm")
    assert volume.affine is None and volume.spacing_mm_zyx == pytest.approx((1.0, 0.661468, 0.661468))
    assert "1 mm is assumed" in volume.notes[0]
    write_slice(tmp_path / "a.dcm", PixelSpacing=None)
    assert volumes.read(tmp_path / "a.dcm").spacing_mm_zyx is None


def test_pixel_spacing_is_that_of_rows_then_columns(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", PixelSpacing=[0.5, 0.75])
    assert volumes.read(tmp_path / "a.dcm").spacing_mm_zyx == pytest.approx((5.0, 0.5, 0.75))
    write_slice(tmp_path / "a.dcm", PixelSpacing=[0.5, 0.75], ImagePositionPatient=None)
    assert volumes.read(tmp_path / "a.dcm").spacing_mm_zyx == pytest.approx((5.0, 0.5, 0.75))


def test_what_pydicom_warns_of_becomes_a_note(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    content = example("CT_small.dcm").read_bytes()
    uid = str(pydicom.dcmread(example("CT_small.dcm")).FrameOfReferenceUID).encode()
    (tmp_path / "a.dcm").write_bytes(content.replace(uid, b"x" + uid[1:]))
    volume = volumes.read(tmp_path / "a.dcm")
    assert any("Invalid value for VR UI" in note for note in volume.notes)
    assert len(recwarn) == 0


def test_a_file_without_an_ending_is_known_by_its_content(tmp_path: Path) -> None:
    write_slice(tmp_path / "IM0001")
    assert volumes.read(tmp_path / "IM0001").modality == "CT"


def test_slices_are_stacked_by_their_positions(tmp_path: Path) -> None:
    heights = [-20.0, -75.5, 16.9, 35.4, -38.5, -57.0, -1.6]
    volume = volumes.read(write_series(tmp_path / "scan", heights, SliceThickness=5))
    order = np.argsort(heights)
    assert np.array_equal(volume.array[:, 0, 0], order - 1024.0)
    assert volume.array.shape == (7, 128, 128) and volume.orientation == "LPS"
    assert volume.spacing_mm_zyx == pytest.approx(((35.4 + 75.5) / 6, 0.661468, 0.661468)), (
        "the distance of the slices, not their thickness"
    )
    assert volume.affine is not None
    assert np.allclose(volume.affine @ [0, 0, 0, 1], [158.1, 179.0, -75.5, 1])
    assert np.allclose(volume.affine @ [0, 0, 6, 1], [158.1, 179.0, 35.4, 1])


def test_the_first_slice_is_where_the_normal_begins(tmp_path: Path) -> None:
    """A series whose rows run from front to back and columns from foot to head (sagittal)."""
    folder = tmp_path / "scan"
    folder.mkdir()
    for index, x in enumerate([5.0, -5.0, 0.0]):
        write_slice(
            folder / f"{index}.dcm",
            ImagePositionPatient=[x, 0, 0],
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            PixelData=np.full((128, 128), index, np.int16).tobytes(),
        )
    volume = volumes.read(folder)
    assert volume.orientation == "PIR", "x to the back, y down, z along their cross product"
    assert list(volume.array[:, 0, 0] + 1024) == [0, 2, 1]


def test_a_single_slice_in_a_folder_is_a_volume_of_one(tmp_path: Path) -> None:
    volume = volumes.read(write_series(tmp_path / "scan", [3.0]))
    assert volume.array.shape == (1, 128, 128) and volume.spacing_mm_zyx[0] == 5.0  # type: ignore[index]


def test_files_passed_over_are_told(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", [0.0, 5.0])
    (folder / "notes.txt").write_text("no image")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert volumes.read(folder).notes == ("2 files are no DICOM images: DICOMDIR, notes.txt",)


def add_other_series(folder: Path) -> None:
    write_slice(folder / "other.dcm", SeriesInstanceUID="1.2.3", SeriesDescription="scout")


def add_other_grid(folder: Path) -> None:
    write_slice(folder / "other.dcm", PixelSpacing=[0.5, 0.5])


def add_other_direction(folder: Path) -> None:
    write_slice(folder / "other.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])


def add_duplicate(folder: Path) -> None:
    (folder / "other.dcm").write_bytes((folder / "00.dcm").read_bytes())


def remove_one(folder: Path) -> None:
    (folder / "71.dcm").unlink()


def shift_one(folder: Path) -> None:
    write_slice(folder / "71.dcm", ImagePositionPatient=[-158.1, -179.0, 7.0])


def add_unplaced(folder: Path) -> None:
    write_slice(folder / "other.dcm", ImagePositionPatient=None)


def add_tilt(folder: Path) -> None:
    for index, path in enumerate(sorted(folder.iterdir(), key=lambda p: p.name[1])):
        write_slice(path, ImagePositionPatient=[-158.1, -179.0 + index, 5.0 * index])


def make_frames(folder: Path) -> None:
    pixels = np.zeros((2, 128, 128), np.int16).tobytes()
    write_slice(
        folder / "71.dcm", ImagePositionPatient=[-158.1, -179.0, 5.0], NumberOfFrames=2, PixelData=pixels
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add_other_series, "2 series in one folder.*'scout'"),
        (add_other_grid, "two grids: 00.dcm and other.dcm"),
        (add_other_direction, "two grids: 00.dcm and other.dcm"),
        (add_duplicate, "one position: 00.dcm and other.dcm"),
        (remove_one, "missing between 00.dcm and 42.dcm: want a distance of 5 mm, got 10 mm"),
        (shift_one, "lie too near between 71.dcm and 42.dcm|missing between 00.dcm and 71.dcm"),
        (add_unplaced, "ImagePositionPatient is missing"),
        (add_tilt, "tilted gantry"),
        (make_frames, "one frame in each file"),
    ],
)
def test_a_folder_that_is_not_one_whole_series_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = write_series(tmp_path / "scan", [0.0, 5.0, 10.0, 15.0, 20.0])
    volumes.read(folder)
    spoil(folder)
    with pytest.raises(InputError, match=message) as refused:
        volumes.read(folder)
    assert str(folder) in (refused.value.where or "")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no DICOM files"):
        volumes.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "impossible"),
        ({"PixelSpacing": [0, 1]}, "impossible"),
        ({"RescaleSlope": 0}, "impossible rescale"),
        ({"ImagePositionPatient": [1, 2]}, "wants 3 numbers"),
    ],
)
def test_impossible_attributes_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_slice(tmp_path / "a.dcm", **changes)
    with pytest.raises(InputError, match=message):
        volumes.read(tmp_path / "a.dcm")


def test_a_series_goes_through_nifti_unchanged(tmp_path: Path) -> None:
    volume = volumes.read(write_series(tmp_path / "scan", [0.0, 2.5, 5.0]))
    volumes.write(tmp_path / "scan.nii.gz", volume)
    back = volumes.read(tmp_path / "scan.nii.gz")
    assert np.array_equal(back.array, volume.array) and back.orientation == volume.orientation
    assert back.affine is not None and volume.affine is not None
    assert np.allclose(back.affine, volume.affine, rtol=1e-6)
