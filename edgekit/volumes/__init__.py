"""Images with meaning: read from files, made into tensors, written back."""

from __future__ import annotations

from pathlib import Path

from edgekit import atomic
from edgekit.errors import InputError, UsageError
from edgekit.volumes import arrays, dicom, nifti
from edgekit.volumes.volume import Volume, as_tensor, from_tensor

__all__ = ["MAX_BYTES", "Volume", "as_tensor", "from_tensor", "read", "write"]

# Memory for the voxels of one image, checked before any of them is read.
MAX_BYTES = 4 << 30


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> Volume:
    """Read an image: ``.npy``, ``.nii``, ``.nii.gz``, a DICOM file, or a folder with one DICOM series.

    DICOM and scaled NIfTI values become float32 in the file's unit (Hounsfield for CT); unscaled NIfTI
    integers and ``.npy`` arrays keep their type.

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
    if name.endswith(".dcm") or dicom.is_dicom(path):
        return dicom.read(path, max_bytes)
    raise InputError(
        "cannot tell what kind of image it is: want .npy, .nii, .nii.gz, .dcm or a folder of DICOM slices",
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
