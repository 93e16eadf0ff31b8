"""A real ssh server on this machine's loopback, with keys and a configuration of its own.

Its devices are this machine itself, with another home folder, or the emulated arm64 machine.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing() -> str:
    """Why there can be no server here; nothing if there can."""
    absent = [name for name in ("ssh", "ssh-keygen") if not shutil.which(name)]
    if absent or not SSHD:
        return "no ssh server: apt-get install openssh-client openssh-server"
    return ""


@dataclass
class Server:
    """A running server.

    Attributes:
        folder: Of its keys and configuration.
        port: Where it listens.
        config: The client's configuration.
        process: The server.
    """

    folder: Path
    port: int
    config: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """What to deploy to."""
        return f"ssh://device:{self.port}"

    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """End it, and the connections that it serves."""
        self.process.terminate()
        self.process.wait(10)


def start(folder: Path, shell: Path) -> Server:
    """Start a server that has a program run each command: ``$SSH_ORIGINAL_COMMAND``.

    Args:
        folder: An empty one.
        shell: The program.
    """
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a server that is root locks itself up
    (folder / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        f"PermitRootLogin prohibit-password\nKbdInteractiveAuthentication no\nForceCommand {shell}\n"
    )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host device\n  HostName 127.0.0.1\nHost *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
    )
    assert SSHD
    log = (folder / "log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "server")], stderr=log)
    log.close()
    server = Server(folder, port, folder / "config", process)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        assert process.poll() is None, server.log()
        time.sleep(0.05)
    raise TimeoutError(server.log())


def program(path: Path, text: str) -> Path:
    """A program in Python, to be the shell of a device."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path
