"""edgekit.atomic: a file is written whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgekit import atomic
from edgekit.errors import LimitError, UsageError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["unnamed", "named"])
def way(request, monkeypatch):
    """Both kinds of temporary file."""
    if request.param == "named":
        monkeypatch.setattr(atomic, "_NO_UNNAMED_FILES", set(range(200)))
        real_open = os.open

        def no_unnamed(path, flags, *rest, **named):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "no unnamed files")
            return real_open(path, flags, *rest, **named)

        monkeypatch.setattr(os, "open", no_unnamed)
    return request.param


def test_writes_pieces_in_order(tmp_path, way):
    path = tmp_path / "a"
    atomic.write(path, iter([b"one", b"", b"two"]))
    assert path.read_bytes() == b"onetwo"
    assert names(tmp_path) == ["a"]


def test_mode_follows_the_umask(tmp_path, way):
    old = os.umask(0o027)
    try:
        atomic.write(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_keeps_an_existing_file_without_force(tmp_path, way):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already") as caught:
        atomic.write(path, b"new")
    assert caught.value.exit_code == 2 and "--force" in caught.value.hint
    assert path.read_bytes() == b"old"
    atomic.write(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_keeps_a_file_that_appears_meanwhile(tmp_path, way):
    path = tmp_path / "a"

    def pieces():
        path.write_bytes(b"other")
        yield b"mine"

    with pytest.raises(UsageError, match="exists already"):
        atomic.write(path, pieces())
    assert path.read_bytes() == b"other"
    assert names(tmp_path) == ["a"]


def test_works_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(atomic, "_temporary", lambda folder: _named(folder))
    monkeypatch.setattr(os, "link", no_links)
    atomic.write(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]


def _named(folder):
    name = atomic._part_name(folder)
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY), name


@pytest.mark.parametrize("force", [False, True])
def test_refuses_what_is_no_file(tmp_path, force):
    os.mkfifo(tmp_path / "pipe")
    for path, what in [
        (tmp_path, "folder"),
        (tmp_path / "pipe", "device or a pipe"),
        (Path("/dev/null"), "device or a pipe"),
        (tmp_path / "missing" / "a", "does not exist"),
    ]:
        with pytest.raises(UsageError, match=what):
            atomic.write(path, b"x", force=force)


def test_names_longer_than_allowed_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="too long"):
        atomic.write(tmp_path / ("x" * 300), b"x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_limit_error_and_leaves_nothing(tmp_path, way, monkeypatch, code):
    real_write, calls = os.write, []

    def full(descriptor, data):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(code, os.strerror(code))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LimitError, match="no space") as caught:
        atomic.write(tmp_path / "a", [b"x" * 10, b"y" * 10])
    assert caught.value.exit_code == 6 and str(tmp_path / "a") in caught.value.where
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["fsync", "link"])
def test_a_failure_at_the_end_leaves_nothing(tmp_path, way, monkeypatch, name):
    def broken(*_, **__):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, name, broken)
    with pytest.raises(UsageError, match="input/output error"):
        atomic.write(tmp_path / "a", b"x")
    assert names(tmp_path) == []


def test_a_failing_replace_keeps_the_old_file(tmp_path, way, monkeypatch):
    def broken(*_, **__):
        raise OSError(errno.EIO, "input/output error")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(UsageError):
        atomic.write(tmp_path / "a", b"new", force=True)
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_an_interrupt_leaves_nothing(tmp_path, way):
    def pieces():
        yield b"x"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write(tmp_path / "a", pieces())
    assert names(tmp_path) == []


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, bytes(data)[:3]))
    atomic.write(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_the_file_size_limit_of_the_process(tmp_path):
    script = textwrap.dedent("""
        import resource, signal, sys, pathlib
        from edgekit import atomic
        from edgekit.errors import LimitError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            atomic.write(pathlib.Path(sys.argv[1]), b"x" * 5000)
        except LimitError as error:
            sys.exit(error.exit_code)
    """)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] != 0
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], timeout=60)
    assert done.returncode == 6
    assert names(tmp_path) == []


@pytest.mark.parametrize("point", ["piece 0", "piece 3", "fsync", "link"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_killed_process_leaves_the_old_file_or_nothing(tmp_path, point, old):
    path = tmp_path / "a"
    if old is not None:
        path.write_bytes(old)
    script = textwrap.dedent("""
        import os, signal, sys, pathlib
        from edgekit import atomic
        path, point, force = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "1"
        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)
        def pieces():
            for index in range(5):
                if point == f"piece {index}":
                    die()
                yield b"x" * 100_000
        if not point.startswith("piece"):
            setattr(os, point, die)
        atomic.write(path, pieces(), force=force)
    """)
    arguments = [sys.executable, "-c", script, str(path), point, str(int(old is not None))]
    done = subprocess.run(arguments, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == ([] if old is None else ["a"])
    assert old is None or path.read_bytes() == old
