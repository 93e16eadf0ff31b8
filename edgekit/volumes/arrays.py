"""NumPy files: values and nothing else."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgekit.errors import InputError
from edgekit.spec import DTYPES, format_dims
from edgekit.volumes.volume import Volume

_MAX_HEADER_BYTES = 10_000


def read(path: Path, max_bytes: int) -> Volume:
    """Read a ``.npy`` file; its geometry is unknown.

    Raises:
        InputError: Not such a file, truncated, too large, or not of plain numbers.
    """
    try:
        with path.open("rb") as file:
            shape, dtype = _header(file)
            count = math.prod(shape)
            if dtype.name not in DTYPES:
                raise InputError(
                    f"an array of {dtype} is no image: want {', '.join(DTYPES)}", where=str(path)
                )
            if min(shape, default=1) < 1:
                raise InputError(f"the array is empty: {format_dims(shape)}", where=str(path))
            if count * dtype.itemsize > max_bytes:
                raise InputError(
                    f"the array takes {count * dtype.itemsize >> 20} MiB, {max_bytes >> 20} MiB are allowed",
                    where=str(path),
                )
            file.seek(0)
            array = np.load(file, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None
    except InputError:
        raise
    except Exception as error:  # NumPy hands a damaged header to Python's own parsers
        raise InputError(f"not a whole .npy file: {error}", where=str(path)) from error
    return Volume(array.astype(array.dtype.newbyteorder("="), copy=False))


def to_bytes(volume: Volume) -> bytes:
    """The values as a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, volume.array, allow_pickle=False)
    return buffer.getvalue()


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"unknown version {version}")
    shape, _, dtype = readers[version](file, max_header_size=_MAX_HEADER_BYTES)
    return shape, dtype
