"""A device at the other end of ssh: this machine, with a home folder of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy import ssh_server

# Runs what ssh was asked for as a login shell would; a file in the home folder can spoil it.
_SHELL = """
import os, subprocess, sys
home = {home!r}
environment = {{"HOME": home, "PATH": home + "/bin:" + os.environ["PATH"], "LANG": "C.UTF-8"}}
command = os.environ["SSH_ORIGINAL_COMMAND"]
with open(home + "/commands", "a") as log:
    log.write(command + "\\n")
if os.path.exists(home + "/spoil"):
    command = open(home + "/spoil").read().replace("COMMAND", command)
sys.exit(subprocess.run(["sh", "-c", command], env=environment, cwd=home).returncode)
"""


@dataclass
class Board:
    """A device.

    Attributes:
        server: What is reached by ssh.
        home: Its home folder, here.
    """

    server: ssh_server.Server
    home: Path


@pytest.fixture(scope="session")
def _server() -> Iterator[Board]:
    if reason := ssh_server.missing():
        pytest.fail(reason)
    with tempfile.TemporaryDirectory() as place:
        home, folder = Path(place, "home"), Path(place, "ssh")
        home.mkdir()
        folder.mkdir()
        shell = ssh_server.program(folder / "shell", _SHELL.format(home=str(home)))
        server = ssh_server.start(folder, shell)
        try:
            yield Board(server, home)
        finally:
            server.stop()


@pytest.fixture
def board(_server: Board) -> Iterator[Board]:
    """The device, its home folder empty."""
    import shutil

    yield _server
    for path in _server.home.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
