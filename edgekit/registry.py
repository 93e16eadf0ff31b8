"""Names that stand for code, resolved only when used, and packages that may be missing.

A registry maps a name to ``"module:attribute"``. Listing names imports nothing, so ``--help`` and
``doctor`` stay fast and a broken optional package cannot take the program down.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgekit.errors import InternalError, UnavailableError, UsageError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A fixed table from a name to a lazily imported object.

    Args:
        kind: What the entries are, in the singular, for messages ("backend").
        entries: Name to ``"package.module:attribute"``.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """The object registered as ``name``.

        Raises:
            UsageError: ``name`` is not registered; the hint names the nearest one.
        """
        if name not in self._entries:
            near = did_you_mean(name, self._entries)
            raise UsageError(
                f"unknown {self.kind} {name!r}: want one of {', '.join(self._entries)}",
                hint=f"did you mean {near!r}?" if near else None,
            )
        return resolve(self._entries[name])  # type: ignore[no-any-return]


def resolve(path: str) -> Any:
    """Import ``"module:attribute"``; a wrong path in edgekit's own tables is an InternalError."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise InternalError(f"registered object {path!r} does not exist") from error


@dataclass(frozen=True)
class Requirement:
    """An optional package: what it is imported as, how it is called in the index, how it is installed.

    Attributes:
        module: Import name, such as ``"onnxruntime"``.
        distribution: Name in the package index, such as ``"apache-tvm"``.
        extra: The extra of edgekit that installs it.
        minimum: Lowest version that is known to work, such as ``"1.23"``; empty for any.
    """

    module: str
    distribution: str
    extra: str
    minimum: str = ""

    @property
    def install_line(self) -> str:
        """What to type to get it."""
        return f"pip install 'edgekit[{self.extra}]'"

    def version(self) -> str | None:
        """The installed version, read from metadata without importing, or ``None``."""
        import importlib.metadata  # a third of the time that --help takes, which needs no version

        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def missing(self) -> str | None:
        """Why the package cannot be used as far as metadata tell, or ``None`` where it looks usable."""
        try:
            found = importlib.util.find_spec(self.module) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            return f"package {self.distribution!r} is not installed"
        version = self.version()
        if version and self.minimum and _release(version) < _release(self.minimum):
            return f"package {self.distribution!r} is too old: want >= {self.minimum}, got {version}"
        return None

    def load(self) -> Any:
        """Import and return the module.

        Raises:
            UnavailableError: It is missing, too old, or installed but broken.
        """
        reason = self.missing()
        if reason:
            raise UnavailableError(reason, where=f"import {self.module}", hint=self.install_line)
        try:
            return importlib.import_module(self.module)
        except Exception as error:  # a broken binary package raises anything, OSError included
            raise UnavailableError(
                f"package {self.distribution!r} {self.version()} is installed but does not import: "
                f"{type(error).__name__}: {error}",
                where=f"import {self.module}",
                hint=f"pip install --force-reinstall '{self.distribution}'",
            ) from error


def _release(version: str) -> tuple[int, ...]:
    """The leading numeric part of a version: '2026.4.1-rc' -> (2026, 4, 1)."""
    numbers = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
