"""Run a function in a child process with a time and a memory limit.

Vendor libraries crash, hang and swallow memory while they compile. In a child that is an error with the
end of the log; in the caller's process it would be the end of the session. Arguments and results are JSON
and NumPy arrays in files, never pickles.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import errors
from edgekit.errors import EdgekitError, InternalError, LimitError
from edgekit.spec import Array

_POLL_S = 0.02
_LOG_TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1


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
    """

    arguments: Any
    arrays: dict[str, Array]
    files: dict[str, Path]
    out: Path


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

    Raises:
        EdgekitError: One that the child itself raised, as it was; or one of class ``error`` when it
            crashed, with the end of its log.
        LimitError: It ran out of time or memory.
        InternalError: The child could not be asked (a bug of ours).
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        work = Path(folder)
        _write_request(work, function, arguments, arrays or {}, files or {})
        started = time.perf_counter()
        code, peak_bytes, stopped = _supervise(work, limits, environment or {})
        elapsed_s = time.perf_counter() - started
        log = (work / "log").read_text(errors="replace")
        if stopped:
            raise LimitError(
                f"{what} was stopped: {stopped}\n{_tail(log)}".rstrip(),
                where=what,
                hint="raise the limit (--time-limit-s, --memory-limit-mib) or try another backend",
            )
        return _read_answer(work, code, log, elapsed_s, peak_bytes, what, error)


def _write_request(
    work: Path, function: str, arguments: Any, arrays: Mapping[str, Array], files: Mapping[str, bytes]
) -> None:
    for name in ("in", "files", "out", "answer"):
        (work / name).mkdir()
    _save_arrays(work / "in", arrays)
    for name, content in files.items():
        (work / "files" / name).write_bytes(content)
    request = {"function": function, "arguments": arguments, "arrays": list(arrays), "path": sys.path}
    (work / "request.json").write_text(json.dumps(request))


def _supervise(work: Path, limits: Limits, environment: Mapping[str, str]) -> tuple[int, int, str]:
    """Run the child to its end: (exit code, peak bytes, reason why it was stopped or '')."""
    with (work / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "edgekit.isolation", str(work)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            start_new_session=True,
        )
    deadline = time.monotonic() + limits.time_s
    peak_bytes, stopped = 0, ""
    try:
        while child.poll() is None:
            peak_bytes = max(peak_bytes, _resident_bytes(child.pid))
            if peak_bytes > limits.memory_bytes:
                stopped = f"it used more than {limits.memory_bytes >> 20} MiB of memory"
            elif time.monotonic() > deadline:
                stopped = f"it took more than {limits.time_s:g} s"
            if stopped:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_S)
    finally:
        # Also reached by an interrupt: nothing of the child outlives this call.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return child.returncode, peak_bytes, stopped


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
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise error(f"{what} ended abnormally ({name})\n{_tail(log)}".rstrip(), where=what)
    answer = json.loads(path.read_text())
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
        peak_bytes=peak_bytes,
    )


def _tail(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()][-_LOG_TAIL_LINES:]
    return "\n".join(f"    | {line[:300]}" for line in lines)


def _save_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    # Files are numbered: a tensor's name may hold any character.
    for index, array in enumerate(arrays.values()):
        np.save(folder / f"{index}.npy", array, allow_pickle=False)


def _load_arrays(folder: Path, names: list[str]) -> dict[str, Array]:
    return {name: np.load(folder / f"{i}.npy", allow_pickle=False) for i, name in enumerate(names)}


def _main(work: Path) -> None:
    """The child's side."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only: die with the parent, even on kill -9
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    request = json.loads((work / "request.json").read_text())
    answer: dict[str, Any] = {}
    try:
        module, _, attribute = request["function"].partition(":")
        value, arrays = getattr(importlib.import_module(module), attribute)(
            Request(
                arguments=request["arguments"],
                arrays=_load_arrays(work / "in", request["arrays"]),
                files={p.name: p for p in (work / "files").iterdir()},
                out=work / "out",
            )
        )
        _save_arrays(work / "answer", arrays)
        answer = {"value": value, "arrays": list(arrays)}
    except EdgekitError as refused:
        answer = {"error": refused.as_dict()}
    except MemoryError:
        answer = {"error": LimitError("out of memory").as_dict()}
    except Exception as bug:
        import traceback

        traceback.print_exc()
        answer = {"bug": f"{type(bug).__name__}: {bug}"}
    temporary = work / "answer.tmp"
    temporary.write_text(json.dumps(answer))
    temporary.rename(work / "answer.json")
    # A vendor's library may crash while it unloads; the answer is complete, so leave at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
