"""What was measured of the rules' parameters: a file of JSON lines for each kind of processor.

A line is one problem that was tuned: which of the tiles that the rule considers was the fastest, and by how
much. Nothing in a file is trusted: a line can only choose among the rule's own candidates, all of which give
the same bits, so the worst that it can do is to cost time. Lines of other versions of the kernels or of TVM
are left alone, and so is what cannot be read; both are said.

Files only grow, by whole lines under a lock, so a process that is killed loses the line that it was writing.
The one of a processor lies in the user's cache folder; what is known when edgekit is released lies in
``tunings/`` beside this file, and the user's own lines come before it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from edgekit import schema
from edgekit.backends.tvm.tensor import Tensor
from edgekit.errors import LimitError, UsageError

# Counts the changes to kernels and rules that make measured times untrue.
KERNELS = 1
SHIPPED = Path(__file__).with_name("tunings")
_MOST_BYTES = 64 << 20

Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Record:
    """One line.

    Attributes:
        kernels: The kernels' version, :data:`KERNELS`.
        tvm: TVM's, as :func:`tvm_version` gives it.
        family: Of kernels.
        problem: What is computed: its fields.
        tensors: Shapes, types and blocks of what is read and written.
        plan: The fastest of the rule's candidates: its fields.
        time_s: Of one call on one thread.
        rule_s: Of the rule's own choice, measured beside it.
        tried: Candidates that were measured.
        device: Where, in words.
    """

    kernels: int
    tvm: str
    family: str
    problem: dict[str, Any]
    tensors: tuple[dict[str, Any], ...]
    plan: dict[str, Any]
    time_s: float
    rule_s: float
    tried: int
    device: str

    @property
    def key(self) -> str:
        """What it is about."""
        return _text([self.family, self.problem, list(self.tensors)])


def key(family: str, problem: Any, tensors: Sequence[Tensor]) -> str:
    """What a record is about.

    Zeros around a tensor are left out: they are there for its other readers, and change no tile.

    Args:
        family: Of kernels.
        problem: What is computed, a dataclass.
        tensors: What is read and written.
    """
    return _text([family, fields(problem), [described(tensor) for tensor in tensors]])


def fields(value: Any) -> dict[str, Any]:
    """A problem or a plan as plain data."""
    return dict(schema.encode(value))


def described(tensor: Tensor) -> dict[str, Any]:
    """What a record says of a tensor."""
    return {"shape": list(tensor.shape), "dtype": tensor.dtype, "block": tensor.layout.block}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Tuned:
    """Choices for one kind of processor.

    Attributes:
        notes: What was not read, and why.
        used: Problems for which a choice was found, by key.
        missed: Problems that the rule decided.
    """

    def __init__(self, records: Sequence[Record] = (), notes: Sequence[str] = ()) -> None:
        self._plans = {record.key: record.plan for record in records}
        self.notes = tuple(notes)
        self.used: set[str] = set()
        self.missed: set[str] = set()

    def knows(self, problem: str) -> bool:
        """Whether there is a record of it.

        Args:
            problem: As :func:`key` gives it.
        """
        return problem in self._plans

    def choice(
        self,
        family: str,
        problem: Any,
        tensors: Sequence[Tensor],
        candidates: Sequence[tuple[float, Plan]],
        rule: Plan,
    ) -> Plan:
        """The plan for a problem: the measured one, if it is a candidate, or the rule's.

        Args:
            family: Of kernels.
            problem: What is computed.
            tensors: What is read and written.
            candidates: All plans, with an estimate of the time of each.
            rule: The one that the rule takes.
        """
        about = key(family, problem, tensors)
        wanted = self._plans.get(about)
        for _, plan in candidates if wanted is not None else ():
            if fields(plan) == wanted:
                self.used.add(about)
                return plan
        self.missed.add(about)
        return rule


@functools.cache
def tvm_version() -> str:
    """Major and minor number of the compiler that is installed."""
    return ".".join(metadata.version("apache-tvm").split(".")[:2])


def load(processor: str) -> Tuned:
    """What is known of a kind of processor: what came with edgekit, then what the user measured.

    Args:
        processor: Its name.
    """
    records: list[Record] = []
    notes: list[str] = []
    for file in (SHIPPED / _file(processor), user_file(processor)):
        found, said = read(file)
        records += found
        notes += said
    return Tuned(records, notes)


def user_file(processor: str) -> Path:
    """Where the user's own lines are."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgekit" / "tvm" / _file(processor)


def _file(processor: str) -> str:
    return re.sub(r"[^\w.+-]", "_", processor) + ".jsonl"


def read(path: Path) -> tuple[list[Record], list[str]]:
    """The lines of a file that fit this release, and a note for those that do not; a missing file has none.

    Args:
        path: The file.

    Raises:
        UsageError: It cannot be read, or is no file of this kind by its size.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise UsageError(
                f"want at most {_MOST_BYTES >> 20} MiB of tuning records, got {size >> 20} MiB",
                where=str(path),
                hint=f"rm {path}",
            )
        text = path.read_bytes()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise UsageError(f"cannot read tuning records: {error.strerror}", where=str(path)) from None
    records, notes, others = [], [], 0
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = parsed(line, f"{path}:{number}")
        except UsageError as refused:
            torn = number == text.count(b"\n") + 1
            what = "a line that was not written to its end" if torn else refused.message
            notes.append(f"{refused.where}: ignored: {what}")
            continue
        if (record.kernels, record.tvm) == (KERNELS, tvm_version()):
            records.append(record)
        else:
            others += 1
    if others:
        wanted = f"version {KERNELS} of the kernels and TVM {tvm_version()}"
        notes.append(f"{path}: ignored: {others} of other versions than {wanted}")
    return records, notes


def parsed(line: bytes, where: str) -> Record:
    """One line.

    Args:
        line: Without its end.
        where: For the error.

    Raises:
        UsageError: It is no record.
    """
    try:
        data = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise UsageError("want a JSON object, got something else", where=where) from None
    fixed = {**data} if isinstance(data, Mapping) else data
    loose = {name: fixed.pop(name, None) for name in _LOOSE} if isinstance(fixed, dict) else {}
    strict = schema.decode(_Strict, fixed, error=UsageError, where=where)
    problem, tensors, plan = (loose[name] for name in _LOOSE)
    tables = [problem, plan, *(tensors if isinstance(tensors, list) else [None])]
    if not all(isinstance(table, dict) for table in tables):
        raise UsageError("want tables as problem and plan, and a list of tables as tensors", where=where)
    if not (0 < strict.time_s < 1e6 and 0 < strict.rule_s < 1e6):
        raise UsageError(f"want times in seconds, got {strict.time_s} and {strict.rule_s}", where=where)
    return Record(problem=problem, tensors=tuple(tensors), plan=plan, **vars(strict))


def _refuse(name: str) -> float:
    raise ValueError(name)


@dataclass(frozen=True)
class _Strict:
    """The fields of a record whose types are the same for all families."""

    kernels: int
    tvm: str
    family: str
    time_s: float
    rule_s: float
    tried: int
    device: str


# They are compared with what the rules say, and used for nothing else.
_LOOSE = ("problem", "tensors", "plan")


def append(path: Path, record: Record) -> None:
    """Add a line to a file, which is made if it is not there.

    Args:
        path: The file.
        record: The line.

    Raises:
        LimitError: It cannot be written.
    """
    line = (_text(vars(record)) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                # Whoever wrote the last line was killed in the middle.
                line = line if file.read(1) == b"\n" else b"\n" + line
            if file.write(line) != len(line):
                raise LimitError("the disk is full: a tuning record was not written", where=str(path))
            os.fsync(file.fileno())
    except OSError as error:
        raise LimitError(
            f"cannot write a tuning record: {error.strerror}",
            where=str(path),
            hint="XDG_CACHE_HOME names another folder",
        ) from None
