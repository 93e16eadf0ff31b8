"""DICOM images (PS3.3), through pydicom: one file, or a folder that holds the slices of one series.

DICOM's patient axes point left, posterior and superior; ours right, anterior and superior.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import EdgekitError, InputError, UnavailableError
from edgekit.registry import Requirement
from edgekit.volumes.volume import Affine, Volume

PYDICOM = Requirement("pydicom", "pydicom", "dicom", minimum="3.0.2")

_MAX_SLICES = 10_000
_DEFLATED = "1.2.840.10008.1.2.1.99"
_CODECS = "pip install 'pylibjpeg[all]'"
# Objects whose pixels are not an image of intensities.
_NO_IMAGE = {"SEG": "a segmentation", "RTDOSE": "a dose distribution"}
# Neighbouring slices may differ this much from the mean distance, and point this far off the normal.
_TOLERANCE = 0.02
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_Floats = npt.NDArray[np.float64]
_Pixels = npt.NDArray[np.float32]


def is_dicom(path: Path) -> bool:
    """Whether the file begins as a DICOM file does, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read(path: Path, max_bytes: int) -> Volume:
    """Read one DICOM file, or the slices of one series in a folder.

    A file is ``[y, x]``, or ``[frame, y, x]`` where it holds several frames; a folder is ``[z, y, x]`` in the
    order of the slices' positions along their normal. Values are those of the modality (rescale slope and
    intercept applied, Hounsfield for CT). A picture whose low values are bright (MONOCHROME1) is inverted,
    colour becomes luma; both stand in ``notes``, and so does what pydicom warns of.

    Raises:
        InputError: Not an image, damaged, too large, or without a clear meaning; of a folder also several
            series, slices that differ in grid or direction, two at one position, or one missing between
            others. The files are named.
        UnavailableError: pydicom, or the codec of a compressed file, is missing.
    """
    with _remarks() as remarks:
        volume = _read_series(path, max_bytes) if path.is_dir() else _read_file(path, max_bytes)
    return replace(volume, notes=(*volume.notes, *remarks))


def shape_of(path: Path, max_bytes: int) -> tuple[int, ...]:
    """The shape of a file's image, or of the series in a folder, from one header.

    Raises:
        InputError: As :func:`read`, as far as a header tells.
        UnavailableError: pydicom is missing.
    """
    with _remarks():
        if not path.is_dir():
            header = _read_header(path, max_bytes)
            frames = int(header.get("NumberOfFrames") or 1)
            return (*((frames,) if frames > 1 else ()), int(header.Rows), int(header.Columns))
        PYDICOM.load()
        slices, _ = _slices_in(path)
        header = _read_header(slices[0], max_bytes // len(slices))
        return (len(slices), int(header.Rows), int(header.Columns))


@contextlib.contextmanager
def _remarks() -> Iterator[list[str]]:
    """What pydicom warns of inside, in the list when it ends."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += dict.fromkeys(f"pydicom: {warning.message}" for warning in caught)


def _read_file(path: Path, max_bytes: int) -> Volume:
    header = _read_header(path, max_bytes)
    pixels, notes = _read_pixels(path)
    affine = None
    spacing_mm: tuple[float, float, float] | None = None
    if pixels.ndim == 2 and "PixelSpacing" in header:
        thickness_mm, remarks = _thickness_mm(header)
        notes += remarks
        if all(key in header for key in _PLACE):
            slice_ = _Slice.of(path, header)
            affine = _affine(slice_, slice_.normal * thickness_mm)
        else:
            y, x = _numbers(path, header, "PixelSpacing", 2)
            spacing_mm = (thickness_mm, float(y), float(x))
    return Volume(
        pixels,
        spacing_mm_zyx=spacing_mm,
        affine=affine,
        modality=str(header.get("Modality", "")),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "")),
        notes=tuple(notes),
    )


def _slices_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The DICOM files of a folder, sorted, and the names of its other files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    slices = [path for path in files if is_dicom(path) and path.name != "DICOMDIR"]
    if not slices:
        raise InputError(
            "the folder holds no DICOM files",
            where=str(folder),
            hint="name the folder that holds the slices themselves",
        )
    if len(slices) > _MAX_SLICES:
        raise InputError(f"{len(slices)} slices, {_MAX_SLICES} are allowed", where=str(folder))
    return slices, sorted({path.name for path in files} - {path.name for path in slices})


def _read_series(folder: Path, max_bytes: int) -> Volume:
    PYDICOM.load()
    slices, passed_over = _slices_in(folder)
    headers = {path: _read_header(path, max_bytes // len(slices)) for path in slices}
    _require_one_series(folder, headers)
    ordered = _in_order(folder, [_Slice.of(path, header) for path, header in headers.items()])
    pixels = np.empty((len(ordered), *ordered[0].shape), np.float32)
    notes = dict[str, None]()
    for index, slice_ in enumerate(ordered):
        picture, remarks = _read_pixels(slice_.path)
        if picture.shape != slice_.shape:
            raise InputError("want one frame in each file of a series", where=str(slice_.path))
        pixels[index] = picture
        notes |= dict.fromkeys(remarks)
    if passed_over:
        notes[f"{len(passed_over)} files are no DICOM images: {_list(passed_over)}"] = None
    first, last = ordered[0], ordered[-1]
    if len(ordered) > 1:
        step = (last.position - first.position) / (len(ordered) - 1)
    else:
        thickness_mm, remarks = _thickness_mm(headers[first.path])
        notes |= dict.fromkeys(remarks)
        step = first.normal * thickness_mm
    header = headers[first.path]
    return Volume(
        pixels,
        affine=_affine(first, step),
        modality=str(header.get("Modality", "")),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "")),
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Slice:
    """Where one picture lies, in DICOM's patient axes, mm.

    Attributes:
        path: Its file.
        shape: Rows and columns.
        position: Centre of the first pixel.
        across: Step from one column to the next.
        down: Step from one row to the next.
    """

    path: Path
    shape: tuple[int, int]
    position: _Floats
    across: _Floats
    down: _Floats

    @staticmethod
    def of(path: Path, header: Any) -> _Slice:
        missing = [key for key in (*_PLACE, "PixelSpacing") if key not in header]
        if missing:
            raise InputError(
                f"the slice does not say where it lies: {', '.join(missing)} is missing", where=str(path)
            )
        directions = _numbers(path, header, "ImageOrientationPatient", 6)
        spacing_y, spacing_x = _numbers(path, header, "PixelSpacing", 2)
        across, down = directions[:3], directions[3:]
        lengths = np.linalg.norm(across), np.linalg.norm(down)
        if (
            not np.allclose(lengths, 1, atol=0.01)
            or abs(across @ down) > 0.01
            or min(spacing_x, spacing_y) <= 0
        ):
            raise InputError(
                "the directions or the pixel spacing of the slice are impossible", where=str(path)
            )
        return _Slice(
            path,
            (int(header.Rows), int(header.Columns)),
            _numbers(path, header, "ImagePositionPatient", 3),
            across / lengths[0] * spacing_x,
            down / lengths[1] * spacing_y,
        )

    @property
    def normal(self) -> _Floats:
        normal = np.cross(self.across, self.down)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def height_mm(self) -> float:
        """Position along the normal."""
        return float(self.position @ self.normal)


_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")


def _affine(first: _Slice, step: _Floats) -> Affine:
    affine = np.eye(4)
    affine[:3] = np.stack([first.across, first.down, step, first.position], axis=1)
    return np.asarray(_LPS_TO_RAS @ affine)


def _in_order(folder: Path, slices: list[_Slice]) -> list[_Slice]:
    """The slices along the normal, one grid and evenly spaced."""
    first = slices[0]
    for other in slices:
        if other.shape != first.shape or not np.allclose(
            [other.across, other.down], [first.across, first.down], atol=1e-3
        ):
            raise InputError(
                f"slices of two grids: {first.path.name} and {other.path.name} differ in size, pixel spacing "
                "or direction",
                where=str(folder),
                hint="move the slices of one grid (without scouts) into a folder of their own",
            )
    ordered = sorted(slices, key=lambda s: s.height_mm)
    if len(ordered) == 1:
        return ordered
    offset = ordered[-1].position - ordered[0].position
    step_mm = float(np.median(np.diff([s.height_mm for s in ordered])))
    for low, high in itertools.pairwise(ordered):
        gap_mm = high.height_mm - low.height_mm
        names = f"{low.path.name} and {high.path.name}"
        if gap_mm < 1e-3:
            raise InputError(
                f"two slices at one position: {names}",
                where=str(folder),
                hint="keep one acquisition (echo, time point, reconstruction) in the folder",
            )
        if abs(gap_mm - step_mm) > max(_TOLERANCE * step_mm, 0.02):
            what = "slices are missing" if gap_mm > step_mm else "slices lie too near"
            raise InputError(
                f"{what} between {names}: want a distance of {step_mm:.4g} mm, got {gap_mm:.4g} mm",
                where=str(folder),
                hint="copy the whole series again",
            )
    beside_mm = np.linalg.norm(offset - (offset @ first.normal) * first.normal)
    if beside_mm > _TOLERANCE * np.linalg.norm(offset):
        raise InputError(
            "the slices are stacked at an angle (tilted gantry)",
            where=str(folder),
            hint="resample the series to an upright grid first",
        )
    return ordered


def _require_one_series(folder: Path, headers: dict[Path, Any]) -> None:
    series = Counter(str(header.get("SeriesInstanceUID", "")) for header in headers.values())
    if len(series) > 1:
        about = {str(h.get("SeriesInstanceUID", "")): h for h in headers.values()}
        lines = [
            f"{count} × {about[uid].get('Modality', '?')} {about[uid].get('SeriesDescription', '')!r} {uid}"
            for uid, count in series.most_common(5)
        ]
        raise InputError(
            f"{len(series)} series in one folder: {'; '.join(lines)}",
            where=str(folder),
            hint="move the slices of one series into a folder of its own",
        )


def _read_header(path: Path, max_bytes: int) -> Any:
    """Everything before the pixels, checked to describe an image of bearable size."""
    pydicom = PYDICOM.load()
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", "")
        if syntax == _DEFLATED:
            raise InputError(
                "deflated DICOM files are not read, since their size cannot be known before",
                where=str(path),
                hint=f"dcmconv +te {path.name} plain.dcm",
            )
        header = pydicom.dcmread(path, stop_before_pixels=True)
        modality = str(header.get("Modality", ""))
        if modality in _NO_IMAGE:
            raise InputError(f"want an image, got {_NO_IMAGE[modality]} ({modality})", where=str(path))
        if not all(header.get(key) for key in ("Rows", "Columns", "BitsAllocated")):
            raise InputError(f"the file holds no image (modality {modality or 'unknown'})", where=str(path))
        if "PerFrameFunctionalGroupsSequence" in header:
            raise InputError(
                "an enhanced multi-frame image, each frame with geometry and scale of its own, is not read",
                where=str(path),
                hint=f"dcm2niix -z y {path.parent} makes .nii.gz files of it",
            )
        if "ModalityLUTSequence" in header:
            raise InputError("the unit of the values is a look-up table, which is not read", where=str(path))
        samples = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel", 1))
        # Pixels are float32 once they are read.
        needed = samples * max(1, int(header.get("NumberOfFrames") or 1)) * max(4, header.BitsAllocated // 8)
    except EdgekitError:
        raise
    except Exception as error:  # pydicom raises what its parser stumbles over
        raise InputError(
            f"not a readable DICOM file: {type(error).__name__}: {error}", where=str(path)
        ) from error
    if needed > max_bytes:
        raise InputError(
            f"the image takes {needed >> 20} MiB, {max_bytes >> 20} MiB are allowed", where=str(path)
        )
    return header


def _read_pixels(path: Path) -> tuple[_Pixels, list[str]]:
    """Values of the modality, float32 ``[y, x]`` or ``[frame, y, x]``, and what was changed on the way."""
    pydicom = PYDICOM.load()
    try:
        data = pydicom.dcmread(path)
        _require_codec(pydicom, path, data.file_meta.TransferSyntaxUID)
        kind = str(data.get("PhotometricInterpretation", ""))
        stored = pydicom.pixels.pixel_array(data, raw=False)
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        bits = int(data.get("BitsStored", data.BitsAllocated))
        is_signed = int(data.get("PixelRepresentation", 0)) == 1
    except EdgekitError:
        raise
    except Exception as error:  # pydicom and the codecs have no common base class
        raise InputError(
            f"the pixels cannot be read: {type(error).__name__}: {error}", where=str(path)
        ) from error
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
        raise InputError(f"impossible rescale slope {slope} or intercept {intercept}", where=str(path))
    notes = []
    pixels: _Pixels = stored.astype(np.float32)
    if kind.startswith(("RGB", "YBR")):
        pixels = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        notes.append("colour was converted to luma (ITU-R BT.601)")
    elif kind == "MONOCHROME1":
        # The largest and the smallest storable value change places, whatever values the picture uses.
        pixels = np.float32(-1 if is_signed else (1 << bits) - 1) - pixels
        notes.append("low values were bright (MONOCHROME1); the values were inverted")
    elif kind != "MONOCHROME2":
        raise InputError(f"pixels of kind {kind or 'unknown'} are no intensities", where=str(path))
    if (slope, intercept) != (1, 0):
        pixels = pixels * np.float32(slope) + np.float32(intercept)
    return pixels, notes


def _require_codec(pydicom: Any, path: Path, syntax: Any) -> None:
    if not syntax.is_compressed:
        return
    decoder = pydicom.pixels.get_decoder(syntax)
    if not decoder.is_available:
        raise UnavailableError(
            f"no codec for {syntax.name} is installed: {'; '.join(decoder.missing_dependencies)}",
            where=str(path),
            hint=_CODECS,
        )


def _numbers(path: Path, header: Any, key: str, count: int) -> _Floats:
    try:
        values = np.array([float(value) for value in header[key].value], np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"{key} wants {count} numbers, got {header[key].value}", where=str(path))
    return values


def _thickness_mm(header: Any) -> tuple[float, list[str]]:
    """How far a lone slice reaches along its normal, and what had to be assumed for that."""
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            value = float(header.get(key) or 0)
        except (TypeError, ValueError):
            continue
        if 0 < value < math.inf:
            return value, []
    return 1.0, ["the file states no thickness of the slice; 1 mm is assumed"]


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
