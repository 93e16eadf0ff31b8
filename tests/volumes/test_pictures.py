"""Pictures of the kinds that Pillow reads, and every kind's shape from its header alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from test_dicom import example, write_series

from edgekit import volumes
from edgekit.errors import InputError, UnavailableError
from edgekit.registry import Requirement
from edgekit.volumes import Volume, pictures

GRAY = np.random.default_rng(0).integers(0, 255, (7, 5), np.uint8)


def save(path: Path, array: npt.NDArray[Any], **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_gray_pictures_keep_their_values(tmp_path: Path, ending: str) -> None:
    volume = volumes.read(save(tmp_path / f"a.{ending}", GRAY))
    assert volume.array.dtype == np.uint8 and np.array_equal(volume.array, GRAY)
    assert volume.spacing_mm_zyx is None and volume.notes == ()


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_gray_pictures_of_more_bits(tmp_path: Path, dtype: str) -> None:
    values = (GRAY.astype(dtype) * 100).astype(dtype)
    volume = volumes.read(save(tmp_path / "a.tif", values))
    assert volume.array.dtype == dtype and np.array_equal(volume.array, values)


def test_a_png_of_16_bits(tmp_path: Path) -> None:
    values = GRAY.astype(np.uint16) * 257
    assert np.array_equal(volumes.read(save(tmp_path / "a.png", values)).array, values)


def test_colour_becomes_luma_and_is_noted(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 255, (7, 5, 4), np.uint8)
    volume = volumes.read(save(tmp_path / "a.png", colour[..., :3]))
    np.testing.assert_allclose(volume.array, colour[..., :3] @ [0.299, 0.587, 0.114], rtol=1e-6)
    assert volume.notes == ("colour was converted to luma (ITU-R BT.601)",)
    assert "transparency" in volumes.read(save(tmp_path / "b.png", colour)).notes[0]


def test_a_jpeg_is_read(tmp_path: Path) -> None:
    flat = np.full((16, 16), 90, np.uint8)
    assert abs(int(volumes.read(save(tmp_path / "a.JPEG", flat, format="JPEG")).array.mean()) - 90) <= 1


def test_several_pictures_of_one_file_are_a_stack(tmp_path: Path) -> None:
    frames = [Image.fromarray(GRAY + i) for i in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    volume = volumes.read(tmp_path / "a.tif")
    assert np.array_equal(volume.array, np.stack([GRAY + np.uint8(i) for i in range(3)]))
    assert volumes.shape_of(tmp_path / "a.tif") == (3, 7, 5)


def test_damaged_and_large_pictures_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((200, 200), np.uint8))
    with pytest.raises(InputError, match="MiB are allowed"):
        volumes.read(path, max_bytes=1000)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="not a readable picture"):
        volumes.read(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="cut off"):
        volumes.shape_of(path)


def test_without_pillow_the_install_line_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GRAY)
    monkeypatch.setattr(pictures, "PILLOW", Requirement("no_such_module", "pillow", "pictures"))
    with pytest.raises(UnavailableError) as refused:
        volumes.read(path)
    assert refused.value.hint == "pip install 'edgekit[pictures]'"


@pytest.mark.parametrize("name", ["a.npy", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (3, 4, 1)])
def test_a_header_tells_the_shape(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    volumes.write(tmp_path / name, Volume(np.zeros(shape, np.int16)))
    assert volumes.shape_of(tmp_path / name) == volumes.read(tmp_path / name).array.shape == shape


def test_a_header_tells_the_shape_of_dicom(tmp_path: Path) -> None:
    for name in ("CT_small.dcm", "examples_ybr_color.dcm"):
        assert volumes.shape_of(example(name)) == volumes.read(example(name)).array.shape
    folder = write_series(tmp_path / "series", [0, 5, 10])
    assert volumes.shape_of(folder) == volumes.read(folder).array.shape == (3, 128, 128)


def test_what_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "slice").write_bytes(example("CT_small.dcm").read_bytes())
    assert volumes.is_image(tmp_path / "slice") and volumes.is_image(tmp_path / "a.NII.GZ")
    assert not volumes.is_image(tmp_path / "readme.txt")
