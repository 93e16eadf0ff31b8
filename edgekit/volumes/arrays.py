"""NumPy files: values and nothing else."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
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
    with _opened(path) as file:
        _check_header(path, file, max_bytes)
        file.seek(0)
        array = np.load(file, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)
    return Volume(array.astype(array.dtype.newbyteorder("="), copy=False))


def shape_of(path: Path, max_bytes: int) -> tuple[int, ...]:
    """The shape in the header of a ``.npy`` file.

    Raises:
        InputError: As :func:`read`, as far as a header tells.
    """
    with _opened(path) as file:
        return _check_header(path, file, max_bytes)


def to_bytes(volume: Volume) -> bytes:
    """The values as a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, volume.array, allow_pickle=False)
    return buffer.getvalue()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None
    except InputError:
        raise
    except Exception as error:  # NumPy hands a damaged header to Python's own parsers
        raise InputError(f"not a whole .npy file: {error}", where=str(path)) from error


def _check_header(path: Path, file: BinaryIO, max_bytes: int) -> tuple[int, ...]:
    shape, dtype = _header(file)
    size_bytes = math.prod(shape) * dtype.itemsize
    if dtype.name not in DTYPES:
        raise InputError(f"an array of {dtype} is no image: want {', '.join(DTYPES)}", where=str(path))
    if min(shape, default=1) < 1:
        raise InputError(f"the array is empty: {format_dims(shape)}", where=str(path))
    if size_bytes > max_bytes:
        raise InputError(
            f"the array takes {size_bytes >> 20} MiB, {max_bytes >> 20} MiB are allowed", where=str(path)
        )
    return shape


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"unknown version {version}")
    shape, _, dtype = readers[version](file, max_header_size=_MAX_HEADER_BYTES)
    return shape, dtype
