"""NIfTI-1 and NIfTI-2 in one file (https://nifti.nimh.nih.gov), through nibabel.

NIfTI stores x fastest, so the file's ``[x, y, z]`` in Fortran order is our ``[z, y, x]`` in C order:
transposing moves no byte.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import InputError
from edgekit.registry import Requirement
from edgekit.spec import DTYPES, Array, format_dims
from edgekit.volumes.volume import Affine, Volume

NIBABEL = Requirement("nibabel", "nibabel", "nifti", minimum="5.3")

# Extensions lie between header and voxels; nibabel reads them whole.
_MAX_OFFSET_BYTES = 1 << 20
_MM_PER_UNIT = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_LARGEST_NIFTI1_LENGTH = 32767


def read(path: Path, max_bytes: int) -> Volume:
    """Read ``.nii`` or ``.nii.gz``.

    Raises:
        InputError: Not such a file, damaged, too large, of more than three axes, or in colour.
        UnavailableError: nibabel is missing.
    """
    nibabel = NIBABEL.load()
    try:
        _check_header(nibabel, path, max_bytes)
        image = nibabel.load(path)
        array = _values(image)
    except InputError:
        raise
    except Exception as error:  # nibabel has no common base class for what it raises
        raise InputError(
            f"not a readable NIfTI file: {type(error).__name__}: {error}", where=str(path)
        ) from error
    header = image.header
    unit = header.get_xyzt_units()[0]
    scale = _MM_PER_UNIT[unit]
    notes = () if scale == 1 else (f"the file's unit of length was {unit}; it was converted to mm",)
    is_placed = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    if is_placed:
        affine = np.diag([scale, scale, scale, 1.0]) @ image.affine
        return Volume(array, affine=affine, notes=notes)
    x, y, z = (float(length) * scale for length in header["pixdim"][1:4])
    is_known = unit != "unknown" or (x, y, z) != (1, 1, 1)
    return Volume(
        array,
        spacing_mm_zyx=(z, y, x) if is_known and min(x, y, z) > 0 else None,
        notes=(*notes, "the file does not say how the image lies in the patient"),
    )


def shape_of(path: Path, max_bytes: int) -> tuple[int, ...]:
    """``[z, y, x]`` or ``[y, x]`` from the header of a file.

    Raises:
        InputError: As :func:`read`, as far as a header tells.
        UnavailableError: nibabel is missing.
    """
    return _check_header(NIBABEL.load(), path, max_bytes)


def to_bytes(volume: Volume, *, compress: bool) -> bytes:
    """The image as a NIfTI-1 file, or NIfTI-2 where an axis is too long for that; the same bytes every time.

    Raises:
        InputError: Not two or three axes.
        UnavailableError: nibabel is missing.
    """
    nibabel = NIBABEL.load()
    array = volume.array
    if array.ndim not in (2, 3):
        raise InputError(
            f"a NIfTI image wants the axes (z, y, x) or (y, x), got {format_dims(array.shape)}",
            hint="write .npy",
        )
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype == bool:
        array = array.astype(np.uint8)
    is_long = max(array.shape) > _LARGEST_NIFTI1_LENGTH
    kind = nibabel.Nifti2Image if is_long else nibabel.Nifti1Image
    image = kind(array.T, volume.affine, dtype=array.dtype)
    _place(image, volume.affine, volume.spacing_mm_zyx)
    data: bytes = image.to_bytes()
    return gzip.compress(data, compresslevel=1, mtime=0) if compress else data


def _place(image: Any, affine: Affine | None, spacing_mm_zyx: tuple[float, float, float] | None) -> None:
    header = image.header
    if affine is not None:
        image.set_sform(affine, code="scanner")
        image.set_qform(affine, code="scanner")
    elif spacing_mm_zyx:
        header["pixdim"][1:4] = spacing_mm_zyx[::-1]
    header.set_xyzt_units("mm" if spacing_mm_zyx else "unknown")


def _check_header(nibabel: Any, path: Path, max_bytes: int) -> tuple[int, ...]:
    """The array's shape; refuses what is no image or too large, having read the first bytes alone."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            block = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the file: {reason}", where=str(path)) from None
    classes = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    size = {int.from_bytes(block[:4], order) for order in ("little", "big")} & classes.keys()
    if not size or len(block) < (length := size.pop()):
        raise InputError("not a NIfTI file: its header is missing or cut off", where=str(path))
    header = classes[length](block[:length], check=False)
    if not header["magic"].tobytes().startswith(b"n+"):
        raise InputError("want header and voxels in one file, magic n+1 or n+2", where=str(path))
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(
            f"want two or three axes of length 1 or more, got {format_dims(shape)}",
            where=str(path),
            hint="split a series over time or direction into its volumes",
        )
    dtype = header.get_data_dtype()
    if dtype.newbyteorder("=").name not in (*DTYPES, "uint32"):
        raise InputError(f"voxels of type {dtype} are no intensities or labels", where=str(path))
    # Scaled values are float64 on the way to float32.
    needed = math.prod(shape) * max(8, dtype.itemsize)
    if needed > max_bytes:
        raise InputError(
            f"an image of {format_dims(shape)} takes {needed >> 20} MiB, {max_bytes >> 20} MiB are allowed",
            where=str(path),
        )
    if not 0 <= float(header["vox_offset"]) <= _MAX_OFFSET_BYTES:
        raise InputError(f"the voxels begin at byte {float(header['vox_offset']):g}", where=str(path))
    return shape[::-1]


def _values(image: Any) -> Array:
    """``[z, y, x]``: integers as they are where the file states no scale, else float32."""
    proxy = image.dataobj
    is_scaled = (proxy.slope, proxy.inter) != (1, 0)
    array = np.asarray(proxy) if is_scaled else np.asarray(proxy.get_unscaled())
    while array.ndim > 3:
        array = array[..., 0]
    if is_scaled or array.dtype.kind == "f":
        return np.asarray(array.T, dtype=np.float32)
    native = array.dtype.newbyteorder("=")
    return np.asarray(array.T, dtype=np.int64 if native == np.uint32 else native)
