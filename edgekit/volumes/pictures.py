"""Pictures without geometry (PNG, JPEG, TIFF, BMP), through Pillow: radiographs, photographs, sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import EdgekitError, InputError
from edgekit.registry import Requirement
from edgekit.spec import DTYPES
from edgekit.volumes.volume import Volume

PILLOW = Requirement("PIL", "pillow", "pictures", minimum="11")

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# Pillow's names of pixels that are one number each.
_GRAY = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def read(path: Path, max_bytes: int) -> Volume:
    """Read a picture as ``[y, x]``, as its pixels are stored.

    Gray values keep their type; colour becomes luma in float32, which stands in ``notes``, and so does a
    transparency that was dropped. Of a file with several pictures they lie along z.

    Raises:
        InputError: Not such a file, damaged, or too large.
        UnavailableError: Pillow is missing.
    """
    try:
        with _opened(path, max_bytes) as picture:
            frames, notes = [], dict[str, None]()
            for index in range(getattr(picture, "n_frames", 1)):
                picture.seek(index)
                frame, remarks = _pixels(picture)
                frames.append(frame)
                notes |= dict.fromkeys(remarks)
        array = frames[0] if len(frames) == 1 else np.stack(frames)
    except EdgekitError:
        raise
    except Exception as error:  # Pillow's decoders have no common base class
        raise InputError(
            f"not a readable picture: {type(error).__name__}: {error}", where=str(path)
        ) from error
    if array.dtype.name not in DTYPES:
        raise InputError(f"pixels of type {array.dtype} are no intensities", where=str(path))
    return Volume(array, notes=tuple(notes))


def shape_of(path: Path, max_bytes: int) -> tuple[int, ...]:
    """``(y, x)`` or ``(frame, y, x)`` from the header.

    Raises:
        InputError: As :func:`read`, as far as a header tells.
        UnavailableError: Pillow is missing.
    """
    with _opened(path, max_bytes) as picture:
        frames = getattr(picture, "n_frames", 1)
        return (*((frames,) if frames > 1 else ()), picture.height, picture.width)


def _opened(path: Path, max_bytes: int) -> Any:
    """The picture, of which the header alone was read."""
    PILLOW.load()
    from PIL import Image

    try:
        picture = Image.open(path, formats=_FORMATS)
        frames = getattr(picture, "n_frames", 1)
    except OSError as error:
        reason = error.strerror or "neither PNG nor JPEG, TIFF or BMP, or cut off"
        raise InputError(f"cannot read the picture: {reason}", where=str(path)) from None
    except Exception as error:
        raise InputError(
            f"not a readable picture: {type(error).__name__}: {error}", where=str(path)
        ) from error
    # Colour becomes float32 once it is read, one after three channels.
    needed = frames * picture.width * picture.height * 16
    if needed > max_bytes:
        picture.close()
        raise InputError(
            f"the picture takes {needed >> 20} MiB, {max_bytes >> 20} MiB are allowed", where=str(path)
        )
    return picture


def _pixels(picture: Any) -> tuple[np.ndarray[Any, Any], list[str]]:
    notes: list[str] = []
    if picture.mode in _GRAY:
        array = np.asarray(picture)
        return array.astype(array.dtype.newbyteorder("=")), notes
    if picture.mode in ("LA", "La"):
        notes.append("the picture's transparency was dropped")
        return np.asarray(picture.getchannel(0)), notes
    if "A" in picture.getbands() or "transparency" in picture.info:
        notes.append("the picture's transparency was dropped")
    notes.append("colour was converted to luma (ITU-R BT.601)")
    return np.asarray(picture.convert("RGB")).astype(np.float32) @ _LUMA, notes
