"""Requests and files to a device by a real ssh, and what goes wrong on the way."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from pathlib import Path

import pytest
from deploy.conftest import Board

from edgekit.deploy import device, remote
from edgekit.deploy.remote import Address, Remote
from edgekit.errors import (
    CorruptError,
    EdgekitError,
    LimitError,
    SessionError,
    UnavailableError,
    UsageError,
)


def to(board: Board, folder: str = "", python: str = sys.executable) -> Remote:
    address = Address.of(f"{board.server.address}{folder}")
    return Remote(address, python, board.server.config)


@pytest.mark.parametrize(
    ("text", "address", "line"),
    [
        ("ssh://jetson", Address("jetson"), "ssh jetson"),
        ("ssh://nvidia@192.168.55.1", Address("192.168.55.1", "nvidia"), "ssh nvidia@192.168.55.1"),
        (
            "ssh://a.b@orin-1.lan:2222/opt/ek",
            Address("orin-1.lan", "a.b", 2222, "/opt/ek"),
            "ssh -p 2222 a.b@orin-1.lan",
        ),
        ("ssh://orin/~/models/lung", Address("orin", folder="models/lung"), "ssh orin"),
        ("ssh://orin/~", Address("orin"), "ssh orin"),
        ("ssh://orin/", Address("orin"), "ssh orin"),
        ("ssh://[fe80::1]:22", Address("fe80::1", port=22), "ssh -p 22 fe80::1"),
    ],
)
def test_addresses(text: str, address: Address, line: str) -> None:
    assert Address.of(text) == address
    assert address.ssh_line == line


@pytest.mark.parametrize(
    "text",
    [
        "jetson",
        "nvidia@jetson",
        "http://jetson",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://host:99999",
        "ssh://host:x",
        "ssh://a b@host",
        "ssh://-l@host",
        "ssh://$(x)@host",
        "ssh://host/../etc",
        "ssh://host/a b",
        "ssh://host/a;b",
        "ssh://host/a'b",
        "ssh://host/a?b",
        "ssh://host/a#b",
        "ssh://[::1",
        "ssh://host/.",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Address.of(text)
    assert refused.value.exit_code == 2 and refused.value.hint


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="no password") as refused:
        Address.of("ssh://nvidia:secret@jetson")
    assert "secret" not in str(refused.value)


def test_what_runs_there_is_for_old_pythons_too() -> None:
    text = Path(device.__file__).read_text()
    ast.parse(text, feature_version=(3, 7))
    assert not any(new in text for new in ("removeprefix", "removesuffix", "is_relative_to", "match "))


def test_a_probe(board: Board) -> None:
    (board.home / "told").write_text("told")
    with to(board) as there:
        answer = there.ask("probe", files=[str(board.home / "told"), "/no/such/file"])
    assert answer["python"] == list(sys.version_info[:3]) and answer["arch"] == os.uname().machine
    assert answer["folder"] == str(board.home / "edgekit") and answer["free_bytes"] > 0
    assert answer["files"] == {str(board.home / "told"): "told"}


def test_a_device_that_talks_before_and_after(board: Board) -> None:
    (board.home / "spoil").write_text("echo 'Welcome to Jetson'; COMMAND; echo bye")
    with to(board) as there:
        assert there.ask("installed", runtime="x") == {"installed": False}


CONTENT = bytes(range(256)) * 20_000  # 5 MB


def test_a_file_arrives_once(board: Board, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    seen: list[tuple[str, int, int]] = []
    with to(board) as there:
        there.on_bytes = lambda *state: seen.append(state)
        assert there.send("lung/lung.ekb", tmp_path / "a") == len(CONTENT)
        place = board.home / "edgekit/lung/lung.ekb"
        assert place.read_bytes() == CONTENT and place.stat().st_mode & 0o777 == 0o644
        assert seen[-1] == ("lung/lung.ekb", len(CONTENT), len(CONTENT)) and len(seen) > 2
        assert there.send("lung/lung.ekb", tmp_path / "a") == 0
        # Another content under the same name replaces it.
        assert there.send("lung/lung.ekb", b"new", program=True) == 3
        assert place.read_bytes() == b"new" and place.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in place.parent.iterdir()] == ["lung.ekb"]
    # One connection, and command lines that hold nothing of ours.
    assert board.server.log().count("Accepted publickey") >= 1
    commands = set((board.home / "commands").read_text().splitlines())
    size = len(Path(device.__file__).read_bytes())
    assert commands == {f"{sys.executable} -c 'import sys;exec(sys.stdin.buffer.read({size}))'"}


def part_of(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f".{hashlib.sha256(content).hexdigest()}.part"


def test_a_transfer_goes_on_where_it_ended(board: Board, tmp_path: Path) -> None:
    part = part_of(board.home / "edgekit/lung", CONTENT)
    part.write_bytes(CONTENT[:3_000_000])
    (tmp_path / "a").write_bytes(CONTENT)
    with to(board) as there:
        assert there.send("lung/lung.ekb", tmp_path / "a") == len(CONTENT) - 3_000_000
    assert (board.home / "edgekit/lung/lung.ekb").read_bytes() == CONTENT and not part.exists()


def test_a_connection_that_breaks_leaves_a_part_and_no_file(board: Board, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    with to(board) as there:
        # What goes over the line after the program and the request is cut.
        (board.home / "spoil").write_text("head -c 2000000 | COMMAND")
        with pytest.raises(SessionError, match="bytes arrived") as broken:
            there.send("lung/lung.ekb", tmp_path / "a")
        assert "deploy again" in (broken.value.hint or "")
        assert not (board.home / "edgekit/lung/lung.ekb").exists()
        (board.home / "spoil").unlink()
        assert 0 < there.send("lung/lung.ekb", tmp_path / "a") < len(CONTENT)
    assert (board.home / "edgekit/lung/lung.ekb").read_bytes() == CONTENT


def test_what_was_spoiled_on_the_way_is_thrown_away(board: Board, tmp_path: Path) -> None:
    part = part_of(board.home / "edgekit/lung", CONTENT)
    part.write_bytes(b"x" * 1000)  # of the right name and another content
    (tmp_path / "a").write_bytes(CONTENT)
    with to(board) as there:
        with pytest.raises(CorruptError, match="not what was sent") as refused:
            there.send("lung/lung.ekb", tmp_path / "a")
        assert refused.value.exit_code == 5 and not part.exists()
        assert not (board.home / "edgekit/lung/lung.ekb").exists()
        assert there.send("lung/lung.ekb", tmp_path / "a") == len(CONTENT)


def test_no_space(board: Board) -> None:
    with to(board) as there, pytest.raises(LimitError, match="no space on the device: want") as refused:
        there.send("lung/lung.ekb", b"small", room=1 << 60)
    assert refused.value.exit_code == 6 and not list(board.home.rglob("*.ekb"))


def test_a_folder_that_cannot_be(board: Board) -> None:
    (board.home / "edgekit").write_text("a file")
    with to(board) as there, pytest.raises(SessionError, match="refuses"):
        there.send("lung/lung.ekb", b"small")


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/x", "-x y", "a b", "a\nb", "", "."])
def test_names_are_checked_here(name: str, board: Board) -> None:
    with to(board) as there, pytest.raises(UsageError, match="no name"):
        there.send(name, b"x")


ERRORS: list[tuple[str, type[EdgekitError], str, str]] = [
    ("python-of-nowhere", UnavailableError, "there is no python-of-nowhere", "--python"),
    ("old/python3", UnavailableError, "too old", "--python"),
    ("broken/python3", SessionError, "exit status 3: out of order", ""),
]


@pytest.mark.parametrize(("python", "kind", "message", "hint"), ERRORS)
def test_pythons_that_do_not_do(
    python: str, kind: type[EdgekitError], message: str, hint: str, board: Board
) -> None:
    for name, text in (
        ("old", "echo 'SyntaxError: future feature annotations is not defined' >&2; exit 1"),
        ("broken", "echo 'out of order' >&2; exit 3"),
    ):
        program = board.home / name / "python3"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    with to(board, python=python) as there, pytest.raises(kind, match=message) as refused:
        there.ask("installed", runtime="x")
    assert refused.value.exit_code == 4 and hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    "python", ["perl", "python3; rm -rf /", "python3 -c x", "$(python3)", "-python3", ""]
)
def test_what_is_no_python(python: str, board: Board) -> None:
    with pytest.raises(UsageError, match="Python interpreter"), to(board, python=python):
        pass


def test_ssh_s_own_troubles(board: Board, tmp_path: Path) -> None:
    folder = board.server.folder
    stranger = tmp_path / "stranger"
    stranger.write_text(board.server.config.read_text().replace(f"{folder}/user\n", f"{folder}/host\n"))
    unknown = tmp_path / "unknown"
    unknown.write_text(board.server.config.read_text().replace(f"{folder}/known", f"{tmp_path}/none"))
    changed = tmp_path / "changed"
    changed.write_text(board.server.config.read_text().replace(f"{folder}/known", f"{tmp_path}/other"))
    key = (folder / "user.pub").read_text()
    (tmp_path / "other").write_text(f"[127.0.0.1]:{board.server.port} {key}")
    address = Address.of(board.server.address)
    for where, config, hint in (
        (Address("127.0.0.1", port=1), board.server.config, "true  # has to work first"),
        (Address("no-such-host.invalid"), board.server.config, "true  # has to work first"),
        (address, stranger, "ssh-copy-id -p"),
        (address, unknown, "accept it"),
        (address, changed, "ssh-keygen -R"),
    ):
        with Remote(where, sys.executable, config) as there, pytest.raises(UnavailableError) as refused:
            there.ask("installed", runtime="x")
        assert "ssh does not reach" in refused.value.message and hint in (refused.value.hint or ""), hint


def test_no_ssh(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match="no ssh here") as refused, to(board):
        pass
    assert refused.value.hint == "apt-get install openssh-client"
