"""Every error a user can cause or meet, as one tree.

    EdgekitError                     EK1000  exit 2
    ├─ UsageError                    EK1010  exit 2   an option, a name or an output path that cannot be used
    ├─ SpecError                     EK1100  exit 3   an array or a shape does not fit its TensorSpec
    ├─ TargetError                   EK1150  exit 2   an unknown or malformed target
    ├─ KernelError (ValueError)      EK1170  exit 3   bad arguments of an operator
    ├─ InputError                    EK1180  exit 3   an image or array file that cannot be read
    ├─ ModelError                    EK1200  exit 3
    │  ├─ GraphError                 EK1210  exit 3   the model file or graph is malformed
    │  └─ UnsupportedError           EK1220  exit 3   operators × backend × target that do not go together
    ├─ PassError                     EK1300  exit 3   a pass failed; names the passes before it
    ├─ BackendError                  EK1400  exit 4
    │  ├─ UnavailableError           EK1410  exit 4   a package or device is missing, with the install line
    │  ├─ CompileError               EK1420  exit 4   a vendor's compiler refused, crashed or hung
    │  └─ SessionError               EK1430  exit 4   a compiled network could not be opened or run
    ├─ BundleError                   EK1500  exit 5
    │  ├─ CorruptError               EK1510  exit 5   bytes that are not what the manifest says
    │  ├─ VersionError               EK1520  exit 5   a format version this build does not read
    │  ├─ MismatchError              EK1530  exit 4   a bundle for another machine or another software version
    │  └─ SignatureError             EK1540  exit 5
    ├─ LimitError                    EK1600  exit 6   time, memory or disk ran out
    └─ GateError                     EK1700  exit 1   a limit that the user set was exceeded
    InternalError (RuntimeError)     EK9999  exit 70  a bug in edgekit; not an EdgekitError

A message says what is wrong, what was wanted and what was got; ``where`` names the file, node or
tensor; ``hint`` is something to type.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "BackendError",
    "BundleError",
    "CompileError",
    "CorruptError",
    "EdgekitError",
    "GateError",
    "GraphError",
    "InputError",
    "InternalError",
    "KernelError",
    "LimitError",
    "MismatchError",
    "ModelError",
    "PassError",
    "SessionError",
    "SignatureError",
    "SpecError",
    "TargetError",
    "UnavailableError",
    "UnsupportedError",
    "UsageError",
    "VersionError",
    "did_you_mean",
]


class EdgekitError(Exception):
    """Base of everything a user can cause or meet.

    Args:
        message: What is wrong, what was wanted, what was got; one sentence or a short list.
        where: File, node, tensor or option that it is about.
        hint: What to type or change next.
    """

    id: ClassVar[str] = "EK1000"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.message} [{self.id}]"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str | int | None]:
        """The error as plain data, for ``--json`` and for crossing a process boundary."""
        return {
            "id": self.id,
            "class": type(self).__name__,
            "error": self.message,
            "where": self.where,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(EdgekitError):
    """An option, a name or an output path that cannot be used."""

    id = "EK1010"


class SpecError(EdgekitError):
    """An array or a shape does not fit its :class:`~edgekit.spec.TensorSpec`."""

    id = "EK1100"
    exit_code = 3


class TargetError(EdgekitError):
    """An unknown or malformed target."""

    id = "EK1150"


class KernelError(EdgekitError, ValueError):
    """Bad arguments of an operator."""

    id = "EK1170"
    exit_code = 3


class InputError(EdgekitError):
    """An image or array file that cannot be read, or a picture with missing meaning."""

    id = "EK1180"
    exit_code = 3


class ModelError(EdgekitError):
    """A model that cannot be taken in."""

    id = "EK1200"
    exit_code = 3


class GraphError(ModelError):
    """The model file or graph is malformed, unsafe or over budget."""

    id = "EK1210"


class UnsupportedError(ModelError):
    """Operators, backend and target that do not go together; the message lists the nodes."""

    id = "EK1220"


class PassError(EdgekitError):
    """A pass failed; the message names it and the passes that ran before it."""

    id = "EK1300"
    exit_code = 3


class BackendError(EdgekitError):
    """A backend cannot do what was asked."""

    id = "EK1400"
    exit_code = 4


class UnavailableError(BackendError):
    """A package or device is missing; the hint is the install line."""

    id = "EK1410"


class CompileError(BackendError):
    """A vendor's compiler refused, crashed or hung; the message carries the end of its log."""

    id = "EK1420"


class SessionError(BackendError):
    """A compiled network could not be opened or run."""

    id = "EK1430"


class BundleError(EdgekitError):
    """A bundle that cannot be used."""

    id = "EK1500"
    exit_code = 5


class CorruptError(BundleError):
    """Bytes that are not what the manifest says, or a file that is not a bundle."""

    id = "EK1510"


class VersionError(BundleError):
    """A bundle format version that this build does not read."""

    id = "EK1520"


class MismatchError(BundleError):
    """A bundle built for another machine or for another version of a vendor's runtime."""

    id = "EK1530"
    exit_code = 4


class SignatureError(BundleError):
    """A signature that is missing, unknown or wrong."""

    id = "EK1540"


class LimitError(EdgekitError):
    """Time, memory or disk space ran out."""

    id = "EK1600"
    exit_code = 6


class GateError(EdgekitError):
    """A limit that the user set was exceeded."""

    id = "EK1700"
    exit_code = 1


class InternalError(RuntimeError):
    """A bug in edgekit: please report it. Not an :class:`EdgekitError`, so that no handler hides it."""

    id: ClassVar[str] = "EK9999"
    exit_code: ClassVar[int] = 70


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to ``name``, or ``None`` where nothing is near."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return near[0] if near else None
