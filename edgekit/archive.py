"""A file that holds files: a zip of stored members whose framing follows from names and contents alone.

Any unzip tool opens it. The reader needs no tolerance: it goes through the file from front to back once and
compares the framing with the one that the writer would have made, so compression, comments, extra fields,
gaps, a second directory or bytes before and after have no place to be.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from edgekit.errors import CorruptError

MAX_FILE_BYTES = (1 << 32) - 1  # beyond it a zip file needs another framing

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION, _UNIX, _MODE = 20, 3 << 8, 0o100644 << 16
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01 00:00, where a zip file's time begins
_COMMON = ("version", "flags", "compression", "time", "date", "checksum", "packed size", "size")
_FIELDS = {
    _LOCAL: ("signature", *_COMMON, "length of the name", "length of the extra field"),
    _CENTRAL: (
        *("signature", "writer", *_COMMON, "length of the name", "length of the extra field"),
        *("length of the comment", "disk", "internal attributes", "attributes", "offset"),
    ),
    _END: (
        *("signature", "disk", "disk of the directory", "entries on the disk", "entries"),
        *("size of the directory", "offset of the directory", "length of the comment"),
    ),
}


def file_bytes(sizes: Mapping[str, int]) -> int:
    """Size of the file with members of these sizes by name."""
    return _END.size + sum(_LOCAL.size + _CENTRAL.size + 2 * len(n) + size for n, size in sizes.items())


def pieces(contents: Mapping[str, bytes]) -> Iterator[bytes]:
    """The file's bytes, with members in this order; names are ASCII."""
    directory, offset = [], 0
    for name, content in contents.items():
        checksum = zlib.crc32(content)
        head = _local(name, checksum, len(content))
        directory.append(_central(name, checksum, len(content), offset))
        yield head
        yield content
        offset += len(head) + len(content)
    yield b"".join(directory) + _end(directory, offset)


class Reader:
    """Takes the members in the order in which they were written.

    Args:
        file: Open for reading; read once, from its beginning.
        path: For messages.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self._file = file
        self._file_bytes = file.seek(0, 2)
        self._offset = file.seek(0)
        self._directory: list[bytes] = []
        self._names: list[str] = []

    def refuse(self, message: str, what: str) -> NoReturn:
        """Raise CorruptError about a part of the file."""
        raise CorruptError(message, where=f"{self.path}: {what}", hint="copy the file again from its origin")

    def member(
        self, name: str, *, size: int | None = None, limit: int = MAX_FILE_BYTES
    ) -> tuple[bytes, bool]:
        """Content of the next member, and whether its checksum fits.

        Args:
            name: Its name.
            size: Its size; ``None`` takes the stated one.
            limit: Largest size to read.

        Raises:
            CorruptError: It is not the next member, its framing differs, it is too large or cut off.
        """
        start = self._offset
        head = self._take(_LOCAL.size + len(name), name)
        *_, checksum, _packed, stated, _name_length, _extra_length = _LOCAL.unpack(head[: _LOCAL.size])
        size = stated if size is None else size
        self._compare(head, _local(name, checksum, size), _LOCAL, name)
        if size > limit:
            self.refuse(f"too large: want at most {limit} bytes, got {size}", name)
        content = self._take(size, name)
        self._directory.append(_central(name, checksum, size, start))
        self._names.append(name)
        return content, zlib.crc32(content) == checksum

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Refuse a file that is shorter or longer than one with members of these sizes."""
        want = file_bytes(sizes)
        if want != self._file_bytes or want > MAX_FILE_BYTES:
            what = "cut off" if self._file_bytes < want else "longer than its members"
            self.refuse(f"the file is {what}: want {want} bytes, got {self._file_bytes}", "size")

    def finish(self) -> None:
        """Compare the rest of the file, which describes the members again, with what it has to be.

        Raises:
            CorruptError: It differs, or the file goes on after it.
        """
        start = self._offset
        for name, want in zip(self._names, self._directory, strict=True):
            self._compare(self._take(len(want), "directory"), want, _CENTRAL, f"directory: {name}")
        self._compare(self._take(_END.size, "end"), _end(self._directory, start), _END, "end")
        if self._file.read(1):
            self.refuse("the file goes on after its end", "end")

    def _take(self, count: int, what: str) -> bytes:
        try:
            data = self._file.read(count)
        except OSError as error:
            self.refuse(f"cannot be read: {error.strerror}", what)
        self._offset += len(data)
        if len(data) != count:
            self.refuse(f"the file ends after {self._offset} bytes", what)
        return data

    def _compare(self, got: bytes, want: bytes, layout: struct.Struct, what: str) -> None:
        if got == want:
            return
        size = layout.size
        pairs = zip(_FIELDS[layout], layout.unpack(want[:size]), layout.unpack(got[:size]), strict=True)
        for name, wanted, found in pairs:
            if wanted != found:
                self.refuse(f"not the one way to write it: {name}: want {wanted!r}, got {found!r}", what)
        self.refuse(f"wrong name: want {want[size:].decode()!r}, got {got[size:]!r}", what)


def _local(name: str, checksum: int, size: int) -> bytes:
    head = _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, _TIME, _DATE, checksum, size, size, len(name), 0)
    return head + name.encode("ascii")


def _central(name: str, checksum: int, size: int, offset: int) -> bytes:
    common = (_VERSION, 0, 0, _TIME, _DATE, checksum, size, size, len(name), 0)
    head = _CENTRAL.pack(b"PK\1\2", _UNIX | _VERSION, *common, 0, 0, 0, _MODE, offset)
    return head + name.encode("ascii")


def _end(directory: list[bytes], offset: int) -> bytes:
    count = len(directory)
    return _END.pack(b"PK\5\6", 0, 0, count, count, sum(map(len, directory)), offset, 0)
