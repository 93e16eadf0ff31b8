"""Images with meaning: read from files, made into tensors, written back."""

from __future__ import annotations

from pathlib import Path

from edgekit import atomic
from edgekit.errors import InputError, UsageError
from edgekit.volumes import arrays, dicom, nifti, pictures
from edgekit.volumes.volume import Volume, as_tensor, from_tensor

__all__ = [
    "ENDINGS",
    "MAX_BYTES",
    "Volume",
    "as_tensor",
    "from_tensor",
    "is_image",
    "read",
    "shape_of",
    "write",
]

# Names of files that hold an image. A DICOM file may have any name.
ENDINGS = (".npy", ".nii", ".nii.gz", ".dcm", *pictures.ENDINGS)

# Memory for the voxels of one image, checked before any of them is read.
MAX_BYTES = 4 << 30


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> Volume:
    """Read an image: ``.npy``, ``.nii``, ``.nii.gz``, a picture, a DICOM file, or a folder with one series.

    DICOM and scaled NIfTI values become float32 in the file's unit (Hounsfield for CT); unscaled NIfTI
    integers, ``.npy`` arrays and gray pictures (``.png``, ``.jpg``, ``.tif``, ``.bmp``) keep their type.

    Args:
        path: The file or folder.
        max_bytes: Largest memory that the voxels may take; asked of the header, before they are read.

    Raises:
        InputError: It cannot be read, is damaged or too large, or its meaning is not clear.
        UnavailableError: The package that reads this kind of file is missing.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", where=str(path), hint=f"ls {path.parent}")
    if path.is_dir():
        return dicom.read(path, max_bytes)
    name = path.name.lower()
    if name.endswith(".npy"):
        return arrays.read(path, max_bytes)
    if name.endswith((".nii", ".nii.gz")):
        return nifti.read(path, max_bytes)
    if name.endswith(pictures.ENDINGS):
        return pictures.read(path, max_bytes)
    if name.endswith(".dcm") or dicom.is_dicom(path):
        return dicom.read(path, max_bytes)
    raise _unknown(path)


def shape_of(path: Path, *, max_bytes: int = MAX_BYTES) -> tuple[int, ...]:
    """The shape that :func:`read` would give the image, from its header alone.

    Raises:
        InputError: As :func:`read`, as far as a header tells.
        UnavailableError: The package that reads this kind of file is missing.
    """
    name = path.name.lower()
    if path.is_dir():
        return dicom.shape_of(path, max_bytes)
    if name.endswith(".npy"):
        return arrays.shape_of(path, max_bytes)
    if name.endswith((".nii", ".nii.gz")):
        return nifti.shape_of(path, max_bytes)
    if name.endswith(pictures.ENDINGS):
        return pictures.shape_of(path, max_bytes)
    if name.endswith(".dcm") or dicom.is_dicom(path):
        return dicom.shape_of(path, max_bytes)
    raise _unknown(path)


def is_image(path: Path) -> bool:
    """Whether a file is one that :func:`read` would try, by its ending or its first bytes."""
    return path.name != "DICOMDIR" and (path.name.lower().endswith(ENDINGS) or dicom.is_dicom(path))


def _unknown(path: Path) -> InputError:
    return InputError(
        f"cannot tell what kind of image it is: want {', '.join(ENDINGS)} or a folder of DICOM slices",
        where=str(path),
    )


def write(path: Path, volume: Volume, *, force: bool = False) -> None:
    """Write an image as ``.npy`` (values alone) or as ``.nii`` or ``.nii.gz`` (with its geometry).

    Args:
        path: The file.
        volume: The image; NIfTI takes ``[y, x]`` and ``[z, y, x]`` only.
        force: Replace an existing file.

    Raises:
        UsageError: Another ending, or the file exists and ``force`` is not set.
        InputError: The image has axes or a type that the format does not hold.
        LimitError: The disk is full.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".npy"):
        data = arrays.to_bytes(volume)
    elif name.endswith((".nii", ".nii.gz")):
        data = nifti.to_bytes(volume, compress=name.endswith(".gz"))
    else:
        raise UsageError(
            f"cannot write {path.suffix or 'a file without an ending'}: want .npy, .nii or .nii.gz",
            where=str(path),
            hint=f"{path.with_suffix('.nii.gz').name}",
        )
    atomic.write(path, data, force=force)
