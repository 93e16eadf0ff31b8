"""Run a function in a child process with a time and a memory limit.

Vendor libraries crash, hang and swallow memory while they compile. In a child that is an error with the
end of the log; in the caller's process it would be the end of the session. Arguments and results are JSON
and NumPy arrays in files, never pickles.

Nothing outlives a call: the child and its own children are killed when the call ends, when it is
interrupted, and (on Linux) when the calling process is killed. All files lie in one folder, which is the
child's temporary folder as well; where a killed process could not remove it, the next call does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import errors
from edgekit.errors import EdgekitError, InternalError, LimitError
from edgekit.spec import Array

_POLL_S = 0.02
_LOG_BYTES = 1 << 20
_LOG_TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1
_FOLDER_PREFIX = "edgekit-"
_LOCK = "lock"
_REPORT = "report.json"

# Isolated mode, so that no variable and no file in the working folder changes what is imported; then the
# caller's own path.
_BOOTSTRAP = """
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    request = json.load(file)
sys.path[:] = request["path"]
from edgekit.isolation import _main
_main(request)
"""


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        time_s: Wall-clock seconds.
        memory_bytes: Resident memory, all of its own children included.
    """

    time_s: float = 600.0
    memory_bytes: int = 16 << 30


@dataclass(frozen=True)
class Outcome:
    """What a child left.

    Attributes:
        value: The JSON value it returned.
        arrays: The arrays it returned, by name.
        files: Files it wrote into its output folder, by name.
        log: What it printed on both streams.
        elapsed_s: Wall-clock seconds, start of the interpreter included.
        peak_bytes: Largest resident memory seen.
    """

    value: Any
    arrays: dict[str, Array]
    files: dict[str, bytes]
    log: str
    elapsed_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Request:
    """What a child function gets: ``function(request) -> (value, arrays)``.

    Attributes:
        arguments: The JSON arguments.
        arrays: The arrays, by name.
        files: Paths of the files handed over, by name.
        out: Folder for files to hand back.
        report: Tells the parent a JSON value while the child works. What is told faster than the parent
            looks is lost, but for the last one.
    """

    arguments: Any
    arrays: dict[str, Array]
    files: dict[str, Path]
    out: Path
    report: Callable[[Any], None] = lambda value: None


def run(
    function: str,
    arguments: Any = None,
    *,
    arrays: Mapping[str, Array] | None = None,
    files: Mapping[str, bytes] | None = None,
    limits: Limits = Limits(),
    what: str,
    error: type[EdgekitError],
    environment: Mapping[str, str] | None = None,
    on_report: Callable[[Any], None] = lambda value: None,
) -> Outcome:
    """Call ``"module:function"`` in a child process.

    Args:
        function: Takes a :class:`Request`, returns ``(JSON value, arrays by name)``.
        arguments: JSON value.
        arrays: Arrays to hand over.
        files: Contents of files to hand over, by plain file name.
        limits: Time and memory.
        what: What is being done, for messages: "compiling with openvino".
        error: Class of the error when the child crashes or fails.
        environment: Variables to set in the child.
        on_report: Called with what the child tells by :attr:`Request.report`; what it raises ends the child.

    Raises:
        EdgekitError: One that the child itself raised, as it was; or one of class ``error`` when it
            crashed, with the end of its log.
        LimitError: It ran out of time or memory.
        InternalError: The child could not be asked (a bug of ours).
    """
    with contextlib.ExitStack() as stack:
        try:
            work = stack.enter_context(_work_folder())
            _write_request(work, function, arguments, arrays or {}, files or {})
        except OSError as full:
            raise LimitError(
                f"{what}: cannot write temporary files: {full.strerror}",
                where=tempfile.gettempdir(),
                hint="free some space, or set TMPDIR to a folder that has it",
            ) from None
        started = time.perf_counter()
        code, peak_bytes, stopped = _supervise(work, limits, environment or {}, on_report)
        elapsed_s = time.perf_counter() - started
        log = _read_log(work / "log")
        if stopped:
            raise LimitError(
                f"{what} was stopped: {stopped}\n{_tail(log)}".rstrip(),
                where=what,
                hint="raise the limit (--time-limit-s, --memory-limit-mib) or try another backend",
            )
        return _read_answer(work, code, log, elapsed_s, peak_bytes, what, error)


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """A private folder, removed at the end; those of processes that were killed are removed as well.

    The owner of a folder holds a lock in it as long as it lives.
    """
    import fcntl

    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as name:
        work = Path(name)
        with (work / f"{_LOCK}.new").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Under this name no other process ever finds it without an owner.
            (work / f"{_LOCK}.new").rename(work / _LOCK)
            for other in work.parent.glob(f"{_FOLDER_PREFIX}*/{_LOCK}"):
                with contextlib.suppress(OSError), other.open("rb") as others:
                    fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if other.parent.owner() == work.owner():
                        shutil.rmtree(other.parent, ignore_errors=True)
            yield work


def _write_request(
    work: Path, function: str, arguments: Any, arrays: Mapping[str, Array], files: Mapping[str, bytes]
) -> None:
    for name in ("in", "files", "out", "answer"):
        (work / name).mkdir()
    _save_arrays(work / "in", arrays)
    for name, content in files.items():
        (work / "files" / name).write_bytes(content)
    request = {
        "function": function,
        "arguments": arguments,
        "arrays": list(arrays),
        "path": [os.path.abspath(entry) for entry in sys.path],  # noqa: PTH100
        "work": str(work),
        "parent": os.getpid(),
    }
    try:
        text = json.dumps(request)
    except (TypeError, ValueError) as bug:
        raise InternalError(f"arguments of {function} are not JSON: {bug}") from bug
    (work / "request.json").write_text(text, encoding="utf-8")


def _supervise(
    work: Path, limits: Limits, environment: Mapping[str, str], on_report: Callable[[Any], None]
) -> tuple[int, int, str]:
    """Run the child to its end: (exit code, peak bytes, reason why it was stopped or '')."""
    with (work / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOTSTRAP, str(work / "request.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "TMPDIR": str(work)},
            # A group of its own, so that it can be killed with its children, and an interrupt is ours alone.
            start_new_session=True,
        )
    try:
        return _watch(child, limits, work / _REPORT, on_report)
    finally:
        # Also reached by an interrupt: nothing of the child outlives this call.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _watch(
    child: subprocess.Popen[bytes], limits: Limits, report: Path, on_report: Callable[[Any], None]
) -> tuple[int, int, str]:
    deadline = time.monotonic() + limits.time_s
    peak_bytes = 0
    relay = _Relay(report, on_report)
    while child.poll() is None:
        relay.look()
        peak_bytes = max(peak_bytes, _resident_bytes(child.pid))
        if peak_bytes > limits.memory_bytes:
            return 0, peak_bytes, f"it used more than {limits.memory_bytes >> 20} MiB of memory"
        if time.monotonic() > deadline:
            return 0, peak_bytes, f"it took more than {limits.time_s:.3g} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_S)
    relay.look()
    return child.returncode, peak_bytes, ""


class _Relay:
    """Hands on what a child reports, where it is not what it reported before."""

    def __init__(self, path: Path, on_report: Callable[[Any], None]) -> None:
        self._path, self._on_report = path, on_report
        self._seen = ""

    def look(self) -> None:
        """Hand on the report that is there, if it is a new one."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        if text != self._seen:
            self._seen = text
            self._on_report(json.loads(text))


def _tell(work: Path, value: Any) -> None:
    """The child's side of a report, which appears whole."""
    temporary = work / f"{_REPORT}.tmp"
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.rename(work / _REPORT)


def _resident_bytes(pid: int) -> int:
    """Resident memory of the process and its descendants; 0 where the system does not tell."""
    total = 0
    pending = [pid]
    while pending:
        pid = pending.pop()
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
            for task in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except (OSError, ValueError, IndexError):
            continue
    return total


def _read_answer(
    work: Path, code: int, log: str, elapsed_s: float, peak_bytes: int, what: str, error: type[EdgekitError]
) -> Outcome:
    path = work / "answer.json"
    if not path.exists():
        raise _abnormal(code, log, what, error)
    answer = json.loads(path.read_text(encoding="utf-8"))
    if "bug" in answer:
        raise InternalError(f"{what}: {answer['bug']}\n{_tail(log)}")
    if "error" in answer:
        fields = answer["error"]
        raise getattr(errors, fields["class"])(fields["error"], where=fields["where"], hint=fields["hint"])
    return Outcome(
        value=answer["value"],
        arrays=_load_arrays(work / "answer", answer["arrays"]),
        files={p.name: p.read_bytes() for p in sorted((work / "out").iterdir())},
        log=log,
        elapsed_s=elapsed_s,
        peak_bytes=max(peak_bytes, answer["peak_bytes"]),
    )


def _abnormal(code: int, log: str, what: str, error: type[EdgekitError]) -> EdgekitError:
    """The error for a child that ended without an answer."""
    if code == -signal.SIGKILL:
        return LimitError(
            f"{what} was killed by the system, most likely because memory ran out\n{_tail(log)}".rstrip(),
            where=what,
            hint="close other programs, or set a lower --memory-limit-mib to see the limit by name",
        )
    name = signal.strsignal(-code) if code < 0 else f"exit code {code}"
    return error(f"{what} ended abnormally ({name})\n{_tail(log)}".rstrip(), where=what)


def _read_log(path: Path) -> str:
    """The end of what the child printed; a library may print without end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        return file.read().decode(errors="replace")


def _tail(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()][-_LOG_TAIL_LINES:]
    return "\n".join(f"    | {line[:300]}" for line in lines)


def _save_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    # Files are numbered: a tensor's name may hold any character.
    for index, array in enumerate(arrays.values()):
        np.save(folder / f"{index}.npy", array, allow_pickle=False)


def _load_arrays(folder: Path, names: list[str]) -> dict[str, Array]:
    return {name: np.load(folder / f"{i}.npy", allow_pickle=False) for i, name in enumerate(names)}


def _peak_bytes() -> int:
    """Largest resident memory of this process; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _main(request: dict[str, Any]) -> None:
    """The child's side."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only: die with the parent, even on kill -9
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != request["parent"]:
            os._exit(1)
    _no_core_file()
    faulthandler.enable()
    answer = _answer(request)
    work = Path(request["work"])
    temporary = work / "answer.tmp"
    temporary.write_text(json.dumps({**answer, "peak_bytes": _peak_bytes()}), encoding="utf-8")
    temporary.rename(work / "answer.json")
    # A vendor's library may crash while it unloads; the answer is complete, so leave at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    work = Path(request["work"])
    module, _, attribute = request["function"].partition(":")
    try:
        value, arrays = getattr(importlib.import_module(module), attribute)(
            Request(
                arguments=request["arguments"],
                arrays=_load_arrays(work / "in", request["arrays"]),
                files={p.name: p for p in (work / "files").iterdir()},
                out=work / "out",
                report=partial(_tell, work),
            )
        )
        _save_arrays(work / "answer", arrays)
        json.dumps(value)
    except EdgekitError as refused:
        return {"error": refused.as_dict()}
    except MemoryError:
        return {"error": LimitError("out of memory").as_dict()}
    except Exception as bug:  # noqa: BLE001 - the parent raises it
        if isinstance(bug, OSError) and bug.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"error": LimitError(f"cannot write temporary files: {bug.strerror}").as_dict()}
        traceback.print_exc()
        return {"bug": f"{type(bug).__name__}: {bug}"}
    return {"value": value, "arrays": list(arrays)}


def _no_core_file() -> None:
    """A crash is expected here, and its core file would be as large as the memory."""
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
