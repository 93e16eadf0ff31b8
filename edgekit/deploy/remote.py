"""A device at the other end of ssh: what to type for it, requests to it, files to it.

The system's own ``ssh`` does the talking, so keys, hosts, jump hosts and passwords are its business and its
configuration's. The command line that the device's shell sees holds nothing but the name of a Python; all
else that a user named goes through the pipe as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import urlsplit

from edgekit.deploy import device
from edgekit.errors import CorruptError, EdgekitError, LimitError, SessionError, UnavailableError, UsageError

_SCHEME = "ssh://[USER@]HOST[:PORT][/FOLDER]"
_DEFAULT_FOLDER = "edgekit"
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}")
_PYTHON = re.compile(r"/?([A-Za-z0-9_+.-]+/)*python[A-Za-z0-9_.-]*")
_PIECE = 1 << 20
_SSH_FAILED, _NOT_FOUND = 255, 127


@dataclass(frozen=True)
class Address:
    """Where a device is.

    Attributes:
        host: Name or address; also a name of the ssh configuration.
        user: Who to log in as; empty for what ssh does without one.
        port: Of the ssh server; 0 for what ssh does without one.
        folder: Where to put things, absolute or in the user's home folder.
    """

    host: str
    user: str = ""
    port: int = 0
    folder: str = _DEFAULT_FOLDER

    @classmethod
    def of(cls, text: str) -> Address:
        """Read ``ssh://user@host:port/folder``; ``/~/folder`` is in the home folder.

        Raises:
            UsageError: It is something else, holds a password, or a name that is none.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or 0
        except ValueError as error:
            raise _unreadable(text, str(error)) from None
        if parts.scheme != "ssh" or not parts.hostname or parts.query or parts.fragment:
            raise _unreadable(text, "")
        if parts.password is not None:
            raise UsageError(
                "an address holds no password: ssh asks for it, or better uses a key",
                where=text.replace(f":{parts.password}@", ":…@"),
                hint="ssh-copy-id USER@HOST",
            )
        host, user, folder = parts.hostname, parts.username or "", parts.path.rstrip("/")
        if folder.startswith("/~"):
            folder = folder[2:].lstrip("/")
        names = [name for name in folder.split("/") if name]
        for what, name, rule in (("host", host, _HOST), *((("user", user, _USER),) if user else ())):
            if not rule.fullmatch(name):
                raise _unreadable(text, f"{name!r} is no {what}")
        if bad := next((name for name in names if not _NAME.fullmatch(name)), None):
            raise _unreadable(text, f"{bad!r} is no name of a folder: want letters, digits and . _ + -")
        return cls(host, user, port, folder or _DEFAULT_FOLDER)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    @property
    def ssh_line(self) -> str:
        """What to type to log in there."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{self.user + '@' if self.user else ''}{self.host}"


def _unreadable(text: str, why: str) -> UsageError:
    return UsageError(
        f"want {_SCHEME}, got {text!r}{f': {why}' if why else ''}",
        where="device",
        hint="ssh://nvidia@192.168.55.1 is a Jetson on a USB cable",
    )


def check_name(name: str) -> str:
    """A file's name that is safe to have on a device.

    Raises:
        UsageError: It is not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a file on a device: want letters, digits and . _ + -",
            hint="rename the file",
        )
    return name


@dataclass
class Remote:
    """A device; a context manager, since its requests share one connection.

    Attributes:
        address: Where it is.
        python: Its interpreter, by name or path.
        config: File of ssh's configuration; the user's own by default.
        on_bytes: Called with the name, the number of bytes of a file that are there, and its size.
    """

    address: Address
    python: str = "python3"
    config: Path | None = None
    on_bytes: Callable[[str, int, int], None] = field(default=lambda name, there, size: None)

    def __enter__(self) -> Remote:
        if not shutil.which("ssh"):
            raise UnavailableError("there is no ssh here", hint="apt-get install openssh-client")
        if not _PYTHON.fullmatch(self.python):
            raise UsageError(
                f"want a Python interpreter, got {self.python!r}",
                where="--python",
                hint="--python python3.10",
            )
        # A socket's path has at most 107 bytes, which a user's own temporary folder may exceed.
        self._folder = tempfile.TemporaryDirectory(
            prefix="ek-", dir="/tmp" if Path("/tmp").is_dir() else None
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                check=False,
                args=[*self._ssh(), "-O", "exit", "--", self._host()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=10,
            )
        self._folder.cleanup()

    def ask(self, what: str, *, content: IO[bytes] | None = None, show: bool = False, **request: Any) -> Any:
        """Send a request of :mod:`edgekit.deploy.device`, and what follows it; return the answer.

        Args:
            what: Its name.
            content: What to send after it, from where it stands to its end.
            show: Whether to pass on what the device prints for people (on its standard error).
            **request: More of the request, as JSON.

        Raises:
            UnavailableError: The device cannot be reached, or has no such Python or too old a one.
            LimitError: The device has no space.
            CorruptError: What arrived is not what was sent.
            SessionError: The device refuses for another reason, or the connection ended.
        """
        program = Path(device.__file__).read_bytes()
        head = {"do": what, "folder": self.address.folder, **request}
        # The only thing that the shell over there reads; it means the same to every shell.
        line = f"{self.python} -c 'import sys;exec(sys.stdin.buffer.read({len(program)}))'"
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*self._ssh(), "--", self._host(), line],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A file, since what keeps the connection open would keep a pipe open too.
                stderr=None if show else errors,
            )
            try:
                text = self._talk(process, program + json.dumps(head).encode() + b"\n", content, head)
            except BaseException:
                process.kill()
                process.wait()
                raise
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
        return self._answer(text, process.returncode, said)

    def _talk(
        self,
        process: subprocess.Popen[bytes],
        first: bytes,
        content: IO[bytes] | None,
        head: Mapping[str, Any],
    ) -> str:
        assert process.stdin and process.stdout
        there = head.get("there", 0)
        with contextlib.suppress(BrokenPipeError):  # it has something to say first
            process.stdin.write(first)
            while content and (piece := content.read(_PIECE)):
                process.stdin.write(piece)
                there += len(piece)
                self.on_bytes(head["name"], there, head["size"])
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        text = process.stdout.read().decode(errors="replace")
        process.wait()
        return text

    def send(self, name: str, content: Path | bytes, *, program: bool = False, room: int = 0) -> int:
        """Put a file into the device's folder; one that is there in part is gone on with.

        Args:
            name: Its name there, in folders if it has any.
            content: A file, or its content.
            program: Whether it can be run.
            room: Bytes that have to be free beside it.

        Returns:
            Bytes that were sent: none where it was there already.
        """
        for part in name.split("/"):
            check_name(part)
        with contextlib.ExitStack() as stack:
            if isinstance(content, bytes):
                file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                file.write(content)
            else:
                file = stack.enter_context(content.open("rb"))
            file.seek(0)
            digest = hashlib.sha256()
            while piece := file.read(_PIECE):
                digest.update(piece)
            size = file.tell()
            about: dict[str, Any] = {"name": name, "sha256": digest.hexdigest(), "size": size}
            begun = self.ask("begin", room=room, **about)
            if begun["finished"]:
                return 0
            there = file.seek(begun["there"])
            self.ask("receive", content=file, there=there, program=program, **about)
            return size - there

    def _ssh(self) -> list[str]:
        options = {
            "ConnectTimeout": "15",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "ControlMaster": "auto",
            "ControlPath": f"{self._folder.name}/%C",
            "ControlPersist": "60",
        }
        where = ["-F", str(self.config)] if self.config else []
        where += ["-p", str(self.address.port)] if self.address.port else []
        where += ["-l", self.address.user] if self.address.user else []
        return ["ssh", "-T", *where, *(f"-o{key}={value}" for key, value in options.items())]

    def _host(self) -> str:
        return self.address.host

    def _answer(self, text: str, code: int, said: str) -> Any:
        found = [line for line in text.splitlines() if line.startswith(device.ANSWER)]
        if code == 0 and found:
            answer = json.loads(found[-1][len(device.ANSWER) :])
            if "refused" in answer:
                raise self._refusal(answer["refused"], answer["message"])
            return answer
        last = said.splitlines()[-1] if said else "it said nothing"
        if code == _SSH_FAILED:
            raise UnavailableError(
                f"ssh does not reach {self.address}: {last}", where="device", hint=self._way_in(said)
            )
        if code == _NOT_FOUND:
            raise UnavailableError(
                f"there is no {self.python} on {self.address}",
                where="--python",
                hint="--python PATH names another; sudo apt-get install python3 on the device",
            )
        if "SyntaxError" in said:
            raise UnavailableError(
                f"{self.python} on {self.address} is too old: want 3.10 or newer",
                where="--python",
                hint="--python PATH names another",
            )
        raise SessionError(
            f"{self.python} on {self.address} ended with exit status {code}: {last}", where="device"
        )

    def _way_in(self, said: str) -> str:
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
            return f"if the device does have a new key: ssh-keygen -R {self.address.host}"
        if "Host key verification failed" in said:
            return f"{self.address.ssh_line}  # once, to compare the device's key and accept it"
        if "Permission denied" in said:
            return self.address.ssh_line.replace("ssh", "ssh-copy-id", 1)
        return f"{self.address.ssh_line} true  # has to work first"

    def _refusal(self, kind: str, message: str) -> EdgekitError:
        where = f"{self.address}, folder {self.address.folder}"
        if kind == "space":
            return LimitError(
                f"no space on the device: {message}", where=where, hint="make room, or name another folder"
            )
        if kind == "digest":
            return CorruptError(message, where=where, hint="deploy again")
        if kind == "short":
            return SessionError(
                f"the connection ended: {message}",
                where=where,
                hint="deploy again: it goes on where it ended",
            )
        return SessionError(f"the device refuses: {message}", where=where)
