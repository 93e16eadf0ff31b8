"""The one way a file is written: whole, or not at all.

The bytes go to a file without a name in the same folder (Linux ``O_TMPFILE``: a killed process leaves
nothing), or to a hidden ``.part`` file where the file system has no such thing. They are flushed to the
disk before the name appears, and the folder is flushed after.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgekit.errors import EdgekitError, LimitError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write(path: Path, data: bytes | Iterable[bytes], *, force: bool = False) -> None:
    """Write a file; when this returns it is on the disk, when it raises nothing has changed.

    Args:
        path: Where. Its folder exists.
        data: The content, or its pieces in order.
        force: Replace an existing file.

    Raises:
        UsageError: The file exists and ``force`` is not set, the folder is missing, it may not be written.
        LimitError: The disk, the quota or the process's file size limit is full.
    """
    check_writable(path, force=force)
    pieces = [data] if isinstance(data, bytes) else data
    with _explained(path):
        descriptor, name = _temporary(path.parent)
        try:
            for piece in pieces:
                _write_all(descriptor, piece)
            os.fsync(descriptor)
            _publish(descriptor, name, path, force)
            _flush_folder(path.parent)
        finally:
            os.close(descriptor)
            if name is not None:
                name.unlink(missing_ok=True)


def check_writable(path: Path, *, force: bool = False) -> None:
    """Refuse a path that :func:`write` would refuse, before the work that makes its content.

    Raises:
        UsageError: It exists and ``force`` is not set, it is no ordinary file, or its folder is missing.
    """
    with _explained(path):
        if path.is_dir():
            raise UsageError("want the path of a file, got a folder", where=str(path), hint="add a file name")
        if path.exists() and not path.is_file():
            raise UsageError("want an ordinary file, got a device or a pipe", where=str(path))
        if not path.parent.is_dir():
            raise UsageError(
                f"the folder {str(path.parent)!r} does not exist",
                where=str(path),
                hint=f"mkdir -p {path.parent}",
            )
        if not force and (path.exists() or path.is_symlink()):
            raise _exists(path)


def _exists(path: Path) -> UsageError:
    return UsageError(
        "the file exists already", where=str(path), hint="another name, or --force to replace it"
    )


def _temporary(folder: Path) -> tuple[int, Path | None]:
    """A new file to write into: (descriptor, its name or ``None`` where it has none)."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        try:
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666), None
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
    name = _part_name(folder)
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666), name


def _part_name(folder: Path) -> Path:
    return folder / f".edgekit-{secrets.token_hex(6)}.part"


def _write_all(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _publish(descriptor: int, name: Path | None, path: Path, force: bool) -> None:
    """Give the finished file its name. Without ``force``, also a file that has just appeared is kept."""
    source = name or Path(f"/proc/self/fd/{descriptor}")
    if not force:
        try:
            _link(source, path)
            return
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            if name is None or error.errno not in _NO_HARD_LINKS:
                raise
            check_writable(path)
    if name is None:
        name = _part_name(path.parent)
        _link(source, name)
    try:
        name.replace(path)
    except OSError:
        name.unlink(missing_ok=True)
        raise


def _link(source: Path, target: Path) -> None:
    # Naming a folder makes Python use linkat, which follows the link in /proc; plain link would not.
    folder = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.link(source, target.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a network file system that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except EdgekitError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise LimitError(
                f"no space to write the file: {reason}",
                where=str(path),
                hint=f"df -h {path.parent}",
            ) from None
        raise UsageError(
            f"cannot write the file: {reason}", where=str(path), hint="choose another folder"
        ) from None
