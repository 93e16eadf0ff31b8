"""Weights beside the model file: found without leaving its folder, checked, then read.

The files are opened by us, component by component and without following links, and only their bytes are
handed on; no library ever gets a path from a model. A location that is a link, a hard link or no regular
file is refused, since each of them can make a model read a file that its author never had.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import GraphError
from edgekit.graph.wire import check_text

if TYPE_CHECKING:
    import onnx

_KEYS = {"location", "offset", "length", "checksum"}
_DIGITS = 19


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's values lie in another file."""
    import onnx

    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def read(tensor: onnx.TensorProto, size: int, folder: Path, *, where: str, contents: bool = True) -> bytes:
    """The bytes of an external tensor.

    Args:
        tensor: A tensor for which :func:`is_external` holds.
        size: Bytes that its type and shape ask for.
        folder: The model's folder; nothing outside is opened.
        where: Model and tensor, for messages.
        contents: False to check only; the result is then empty.

    Raises:
        GraphError: An entry is malformed, the file is not inside the folder, not regular, or too short.
    """
    location, offset, length = _entries(tensor, size, where)
    with _open_inside(folder, location, where) as descriptor:
        available = os.fstat(descriptor).st_size
        if offset + length > available:
            raise GraphError(
                f"external data {location!r} is too short: want bytes {offset} to {offset + length}, "
                f"it has {available}",
                where=where,
            )
        if not contents:
            return b""
        data = b"".join(_chunks(descriptor, offset, length))
    if len(data) != length:
        raise GraphError(f"external data {location!r} became shorter while it was read", where=where)
    return data


def embed(tensors: Iterable[tuple[onnx.TensorProto, int]], folder: Path, *, where: str) -> None:
    """Put the values of the external tensors among ``tensors`` (each with its bytes) into the tensors.

    Raises:
        GraphError: As :func:`read`.
    """
    for tensor, size in tensors:
        if is_external(tensor):
            tensor.raw_data = read(tensor, size, folder, where=f"{where}: tensor {tensor.name!r}")
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def _entries(tensor: onnx.TensorProto, size: int, where: str) -> tuple[str, int, int]:
    """(location, offset, length), checked."""
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        check_text(where, entry.key, entry.value)
        if entry.key not in _KEYS or entry.key in entries:
            raise GraphError(f"external data has an unknown or repeated key {entry.key[:40]!r}", where=where)
        entries[entry.key] = entry.value
    if "location" not in entries:
        raise GraphError("external data has no location", where=where)
    numbers = {}
    for key, default in (("offset", 0), ("length", size)):
        text = entries.get(key, str(default))
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise GraphError(f"external data wants a whole {key} >= 0, got {text[:40]!r}", where=where)
        numbers[key] = int(text)
    if numbers["length"] != size:
        raise GraphError(
            f"external data has another length than type and shape ask for: want {size} bytes, "
            f"got {numbers['length']}",
            where=where,
        )
    return entries["location"], numbers["offset"], numbers["length"]


@contextmanager
def _open_inside(folder: Path, location: str, where: str) -> Iterator[int]:
    """A descriptor of the file, opened one component after the other so that no link is followed."""
    parts = location.split("/")
    if "\\" in location or "\0" in location or not location or any(p in ("", ".", "..") for p in parts):
        raise GraphError(
            f"external data wants a plain path inside the model's folder, got {location[:80]!r}", where=where
        )
    opened: list[int] = []
    try:
        opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            opened.append(os.open(part, flags, dir_fd=opened[-1]))
        # Non-blocking: a FIFO would wait for a writer for ever.
        opened.append(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        status = os.fstat(opened[-1])
        if not stat.S_ISREG(status.st_mode):
            raise GraphError(f"external data {location!r} is no regular file", where=where)
        if status.st_nlink > 1:
            raise GraphError(
                f"external data {location!r} is a hard link: it may be a file from elsewhere",
                where=where,
                hint=f"make a file of its own: cp {location} {location}.own && mv {location}.own {location}",
            )
        yield opened[-1]
    except OSError as error:
        raise GraphError(
            f"cannot open external data {location!r} inside the model's folder without following links: "
            f"{error.strerror}",
            where=where,
            hint="the file wants to lie beside the model; symbolic links are not followed",
        ) from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _chunks(descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    while length > 0:
        chunk = os.pread(descriptor, min(length, 1 << 24), offset)
        if not chunk:
            return
        yield chunk
        offset += len(chunk)
        length -= len(chunk)
