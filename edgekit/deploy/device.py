"""What runs on the device while a bundle is deployed.

This file is sent there as it is and run by whatever Python is there, so it uses the standard library of
Python 3.7 alone and imports nothing of edgekit (but for :func:`_run`, from what was installed before). It
reads one request, a line of JSON, from its standard input, then a file's content; it prints one answer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import platform
import runpy
import shutil
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

ANSWER = "edgekit-answer: "
_PIECE = 1 << 20
_MARGIN = 16 << 20  # bytes that stay free


class _Refused(Exception):
    """What the one who deploys is told instead of an answer: of which kind it is, and in words."""


def main() -> None:
    """Answer one request."""
    stream = sys.stdin.buffer
    request = json.loads(stream.readline().decode())
    try:
        answer = _COMMANDS[request["do"]](request, stream)
    except _Refused as refused:
        answer = {"refused": refused.args[0], "message": refused.args[1]}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        message = f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
        answer = {"refused": "space" if full else "system", "message": message}
    print("\n" + ANSWER + json.dumps(answer))
    sys.stdout.flush()


def _probe(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """What the device is: its Python, its machine, room in the folder, and files that tell what it is."""
    texts = {}
    for name in request["files"]:
        try:
            with Path(name).open("rb") as file:
                texts[name] = file.read(1 << 16).decode("utf-8", "replace")
        except OSError:  # there is no such file, or it is not for everybody
            pass
    folder = _folder(request)
    return {
        "python": list(sys.version_info[:3]),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "arch": platform.machine(),
        "system": platform.system(),
        "glibc": platform.libc_ver()[1],
        "folder": str(folder),
        "free_bytes": _free(folder),
        "files": texts,
    }


def _begin(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """How many bytes of a file are there already: all of them, some in an unfinished one, or none."""
    path, part = _paths(request)
    if path.is_file() and _digest(path) == request["sha256"]:
        return {"there": request["size"], "finished": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    there = part.stat().st_size if part.is_file() else 0
    if there > request["size"]:
        part.unlink()
        there = 0
    wanted = request["size"] - there + request["room"] + _MARGIN
    if wanted > _free(path.parent):
        raise _Refused("space", f"want {wanted >> 20} MiB, got {_free(path.parent) >> 20}")
    return {"there": there, "finished": False}


def _receive(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """Take the rest of a file, compare all of it with its digest, and give it its name."""
    path, part = _paths(request)
    try:
        with part.open("r+b" if part.exists() else "w+b") as file:
            file.seek(request["there"])
            file.truncate()
            for piece in iter(lambda: stream.read(_PIECE), b""):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        part.unlink()
        raise
    size = part.stat().st_size
    if size < request["size"]:
        raise _Refused("short", f"{size} of {request['size']} bytes arrived")
    if size > request["size"] or _digest(part) != request["sha256"]:
        part.unlink()
        raise _Refused("digest", "what arrived is not what was sent")
    part.chmod(0o755 if request["program"] else 0o644)
    part.replace(path)
    _flush(path.parent)
    return {}


def _unpack(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """Unpack an archive into a folder beside it, which has its name when all of it is there."""
    archive = _paths(request)[0]
    final = archive.with_suffix("")
    if not final.is_dir():
        part = archive.with_suffix(".part")
        shutil.rmtree(str(part), ignore_errors=True)
        try:
            with zipfile.ZipFile(str(archive)) as opened:
                opened.extractall(str(part))
            part.rename(final)
        except BaseException:
            shutil.rmtree(str(part), ignore_errors=True)
            raise
        _flush(final.parent)
    archive.unlink()
    return {}


def _tidy(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """Remove the runtimes that no bundle's launcher names any more, and what arrived of others in part."""
    folder = _folder(request)
    launchers = "".join(launcher.read_text() for launcher in folder.glob("*/edgekit"))
    removed = [one for one in (folder / "runtime").iterdir() if one.stem not in launchers]
    for one in removed:
        if one.is_dir():
            shutil.rmtree(str(one), ignore_errors=True)
        else:
            one.unlink()
    return {"removed": [one.name for one in removed]}


def _installed(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """Whether a runtime is there."""
    return {"installed": (_folder(request) / "runtime" / request["runtime"]).is_dir()}


def _run(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """Run a command of edgekit from an installed runtime; its output is the answer."""
    sys.path.insert(0, str(_folder(request) / "runtime" / request["runtime"]))
    sys.argv = ["edgekit", *request["arguments"]]
    os.chdir(str(_folder(request)))
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_module("edgekit.cli", run_name="__main__")
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 1
    return {"code": code, "output": text.getvalue()}


def _folder(request: dict[str, Any]) -> Path:
    folder: str = request["folder"]
    return Path.home() / folder  # an absolute one stays what it is


def _paths(request: dict[str, Any]) -> tuple[Path, Path]:
    """Where a file goes, and where the part of it that has arrived is."""
    path = _folder(request) / request["name"]
    return path, path.parent / f".{request['sha256']}.part"


def _free(folder: Path) -> int:
    """Bytes free where a folder is or will be."""
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    return shutil.disk_usage(str(there)).free


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            found.update(piece)
    return found.hexdigest()


def _flush(folder: Path) -> None:
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_COMMANDS = {
    "probe": _probe,
    "begin": _begin,
    "receive": _receive,
    "unpack": _unpack,
    "tidy": _tidy,
    "installed": _installed,
    "run": _run,
}

if __name__ == "__main__":
    main()
