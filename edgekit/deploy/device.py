"""What runs on the device while a bundle is deployed.

This file is sent there as it is and run by whatever Python is there, so it uses the standard library of
Python 3.7 alone and imports nothing of edgekit (but for :func:`_run`, from what was installed before). It reads
one request, a line of JSON, from its standard input, and a file's content after it; it prints one answer.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import sys
import zipfile

ANSWER = "edgekit-answer: "
_PIECE = 1 << 20
_MARGIN = 16 << 20  # bytes that stay free


class _Refused(Exception):
    """What the one who deploys is told instead of an answer."""


def main():
    """Answer one request."""
    stream = sys.stdin.buffer
    request = json.loads(stream.readline().decode("utf-8"))
    try:
        answer = _COMMANDS[request["do"]](request, stream)
    except _Refused as refused:
        answer = {"refused": refused.args[0], "message": refused.args[1]}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        message = "%s: %s" % (error.strerror or error, error.filename or "")
        answer = {"refused": "space" if full else "system", "message": message.rstrip(": ")}
    print("\n" + ANSWER + json.dumps(answer))
    sys.stdout.flush()


def _probe(request, stream):
    """What the device is: its Python, its machine, room in the folder, and files that tell what it is."""
    texts = {}
    for path in request["files"]:
        try:
            with open(path, "rb") as file:
                texts[path] = file.read(1 << 16).decode("utf-8", "replace")
        except OSError:
            pass
    folder = _folder(request)
    there = folder
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    return {
        "python": list(sys.version_info[:3]),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "arch": platform.machine(),
        "system": platform.system(),
        "glibc": platform.libc_ver()[1],
        "folder": folder,
        "free_bytes": shutil.disk_usage(there).free,
        "files": texts,
    }


def _begin(request, stream):
    """How many bytes of a file are there already: all of them, some in an unfinished one, or none."""
    path, part = _paths(request)
    if os.path.isfile(path) and _digest(path) == request["sha256"]:
        return {"there": request["size"], "finished": True}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    there = os.path.getsize(part) if os.path.isfile(part) else 0
    if there > request["size"]:
        os.unlink(part)
        there = 0
    room = shutil.disk_usage(os.path.dirname(path)).free
    if request["size"] - there + request["room"] + _MARGIN > room:
        wanted = (request["size"] - there + request["room"] + _MARGIN) >> 20
        raise _Refused("space", "want %d MiB free, got %d" % (wanted, room >> 20))
    return {"there": there, "finished": False}


def _receive(request, stream):
    """Take the rest of a file, compare all of it with its digest, and give it its name."""
    path, part = _paths(request)
    try:
        with open(part, "r+b" if os.path.exists(part) else "w+b") as file:
            file.seek(request["there"])
            file.truncate()
            for piece in iter(lambda: stream.read(_PIECE), b""):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(part)
        raise
    size = os.path.getsize(part)
    if size < request["size"]:
        raise _Refused("short", "%d of %d bytes arrived" % (size, request["size"]))
    if size > request["size"] or _digest(part) != request["sha256"]:
        os.unlink(part)
        raise _Refused("digest", "what arrived is not what was sent")
    os.chmod(part, 0o755 if request["program"] else 0o644)
    os.replace(part, path)
    _flush(os.path.dirname(path))
    return {"path": path}


def _unpack(request, stream):
    """Unpack an archive beside itself into a folder, which has its name when all of it is there."""
    archive = _paths(request)[0]
    final = archive[: -len(".zip")]
    if not os.path.isdir(final):
        part = final + ".part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            with zipfile.ZipFile(archive) as opened:
                for name in opened.namelist():
                    if name.startswith("/") or ".." in name.split("/"):
                        raise _Refused("digest", "the archive names %r" % name)
                opened.extractall(part)
            os.rename(part, final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _flush(os.path.dirname(final))
    for old in request["remove"]:
        shutil.rmtree(os.path.join(os.path.dirname(final), old), ignore_errors=True)
    os.unlink(archive)
    return {"path": final}


def _installed(request, stream):
    """The runtimes that are there, by name."""
    folder = os.path.join(_folder(request), "runtime")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return {"names": [name for name in names if os.path.isdir(os.path.join(folder, name))]}


def _run(request, stream):
    """Run a command of edgekit from an installed runtime; its output is the answer."""
    sys.path.insert(0, os.path.join(_folder(request), "runtime", request["runtime"]))
    from contextlib import redirect_stdout
    from io import StringIO

    from edgekit.cli import main as command_line

    os.chdir(_folder(request))
    text = StringIO()
    with redirect_stdout(text):
        code = command_line(request["arguments"])
    return {"code": code, "output": text.getvalue()}


def _folder(request):
    folder = request["folder"]
    return folder if folder.startswith("/") else os.path.join(os.path.expanduser("~"), folder)


def _paths(request):
    """Where a file goes, and where the part of it that has arrived is."""
    path = os.path.join(_folder(request), *request["name"].split("/"))
    part = ".%s.part" % request["sha256"]
    return path, os.path.join(os.path.dirname(path), part)


def _digest(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            found.update(piece)
    return found.hexdigest()


def _flush(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_COMMANDS = {
    "probe": _probe,
    "begin": _begin,
    "receive": _receive,
    "unpack": _unpack,
    "installed": _installed,
    "run": _run,
}

if __name__ == "__main__":
    main()
