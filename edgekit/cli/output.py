"""What the command line prints: results, one JSON document, errors in three lines.

Text that comes from files or vendors is printed with its control characters spelled out, so that nothing in
a bundle's name or a log can move the cursor or change a terminal.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from edgekit import schema
from edgekit.errors import EdgekitError, InternalError, LimitError, UsageError

SCHEMA = 1

Rows = list[tuple[str, ...]]

_OUR_BUG = 70
# Everything but line feed and tab that a terminal obeys, the marks that reorder text included.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_FULL = {errno.ENOSPC, errno.EDQUOT}


def clean(text: str) -> str:
    """The text with control characters spelled out."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def say(text: str = "") -> None:
    """Print a line of a result."""
    _print(clean(text), sys.stdout)


def note(text: str) -> None:
    """Print a line that is no result."""
    _print(clean(text), sys.stderr)


def document(command: str, data: Mapping[str, object]) -> None:
    """Print the JSON document of a command; ``schema`` changes when a key changes its meaning.

    Args:
        command: Name of the command.
        data: Plain values, arrays excepted, and dataclasses of them.
    """
    _print(_json({"schema": SCHEMA, "command": command, **schema.encode(data)}), sys.stdout)


def table(rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Print rows in columns; the first one is the heading."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        say(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def seconds(value: float) -> str:
    """``12.3 ms``: three digits and a unit."""
    if value != value:
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value / 1e-6:.3g} µs"


def decibels(value: float) -> str:
    """``92.1 dB``, or ``-`` where it is not known."""
    return "-" if value != value else f"{value:.4g} dB"


def size(value: float) -> str:
    """``12.3 MiB``."""
    for scale, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value:.0f} B"


def from_system(error: Exception) -> Exception:
    """An error of the operating system as the edgekit error that a user can act on; any other as it is."""
    if isinstance(error, MemoryError):
        return LimitError("out of memory", hint="edgekit doctor shows how much is free")
    if isinstance(error, OSError) and error.errno in _FULL:
        return LimitError(f"no space left: {error.strerror}", where=error.filename, hint="df -h")
    if isinstance(error, OSError) and error.filename and not isinstance(error, ConnectionError):
        return UsageError(f"cannot use the file: {error.strerror}", where=str(error.filename))
    return error


def fail(error: Exception, *, help_line: str, as_json: bool, with_traceback: bool) -> int:
    """Print an error on stderr in three lines and return its exit code.

    Args:
        error: The error.
        help_line: The hint where the error has none.
        as_json: Print it on stdout too, as a JSON document.
        with_traceback: Print the traceback before.
    """
    if with_traceback:
        note("".join(traceback.format_exception(error)).rstrip())
    fields = _fields(error, help_line)
    first, *rest = str(fields["error"]).splitlines() or [""]
    _labelled("error:", f"{first} [{fields['id']}]")
    for line in rest:
        note(f"  {line}")
    _labelled("where:", " ".join(fields["where"].split()))
    _labelled("hint:", " ".join(fields["hint"].split()))
    if as_json:
        _print(_json({"schema": SCHEMA, "error": fields}), sys.stdout)
    return int(fields["exit_code"])


def interrupted(exit_code: int, *, as_json: bool) -> int:
    """Print that the user stopped it, and return the exit code."""
    note("interrupted")
    if as_json:
        fields = {"id": "", "class": "KeyboardInterrupt", "error": "interrupted", "exit_code": exit_code}
        _print(_json({"schema": SCHEMA, "error": fields}), sys.stdout)
    return exit_code


def uses_colour(stream: TextIO) -> bool:
    """Whether colours and cursor movements may be written to the stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _fields(error: Exception, help_line: str) -> dict[str, Any]:
    if isinstance(error, EdgekitError):
        fields = dict(error.as_dict())
        fields["where"] = error.where or "edgekit"
        fields["hint"] = error.hint or help_line
        return fields
    return {
        "id": InternalError.id,
        "class": type(error).__name__,
        "error": f"this is a bug in edgekit: {type(error).__name__}: {error}",
        "where": _raised_in(error),
        "hint": "rerun with --debug for the traceback, and report it",
        "exit_code": _OUR_BUG,
    }


def _raised_in(error: Exception) -> str:
    """The module, function and line of our own code that the error came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}edgekit{os.sep}" in frame.filename] or frames
    if not ours:
        return "edgekit"
    inside = ours[-1].filename.rpartition(f"{os.sep}edgekit{os.sep}")[2]
    return f"edgekit/{inside}, line {ours[-1].lineno}, in {ours[-1].name}"


def _labelled(label: str, text: str) -> None:
    if uses_colour(sys.stderr):
        label = f"\x1b[1;31m{label}\x1b[0m"
    _print(f"{label} {clean(text)}", sys.stderr)


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, allow_nan=False)


def _print(text: str, stream: TextIO) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
