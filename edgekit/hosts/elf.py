"""What a compiled library asks of the machine that loads it, read from its symbols.

A linker writes beside each symbol of a system library the version that brought it. The loader of an older
system refuses the whole library for one symbol that it lacks, so the newest version decides where it loads.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import CompileError, MismatchError
from edgekit.hosts.compilers import number
from edgekit.registry import Requirement

PYELFTOOLS = Requirement("elftools", "pyelftools", "cross", "0.30")

# Numbers of the ELF header, by the names systems give machines.
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}

# The C library of a system decides which GNU C++ library it has, at least: that of manylinux2014; then of
# Red Hat 8, Ubuntu 20.04 (JetPack 5), Ubuntu 22.04 (JetPack 6), Ubuntu 24.04 (JetPack 7).
_NEWEST = {
    "2.17": {"GLIBCXX": "3.4.19", "CXXABI": "1.3.7", "GCC": "4.8.0"},
    "2.28": {"GLIBCXX": "3.4.25", "CXXABI": "1.3.11", "GCC": "7.0.0"},
    "2.31": {"GLIBCXX": "3.4.28", "CXXABI": "1.3.12", "GCC": "7.0.0"},
    "2.35": {"GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"},
    "2.39": {"GLIBCXX": "3.4.33", "CXXABI": "1.3.15", "GCC": "14.0.0"},
}
_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_([0-9.]+)")


@dataclass(frozen=True)
class Symbol:
    """A symbol that a library takes from another.

    Attributes:
        name: As the linker knows it.
        version: Such as ``"GLIBC_2.34"``; empty where none is asked for.
        library: The file that has it, such as ``"libc.so.6"``; empty where any may.
    """

    name: str
    version: str = ""
    library: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True)
class Library:
    """A shared library.

    Attributes:
        arch: What it runs on, as ``uname -m`` says it.
        needed: Files that are loaded with it.
        wanted: Symbols it takes from them.
        exported: Names of those that others may take from it.
    """

    arch: str
    needed: tuple[str, ...]
    wanted: tuple[Symbol, ...]
    exported: tuple[str, ...]

    def newest(self, family: str = "GLIBC") -> str:
        """The newest version asked of a family: ``"2.34"``; empty if none is."""
        found = [version for symbol in self.wanted if (version := _version(symbol, family))]
        return max(found, key=number, default="")


def arch_of(head: bytes) -> str | None:
    """What a file's first 20 bytes say that it runs on, as ``uname -m`` says it; None if it is no ELF file.

    This needs no package: a device tells with it why a library does not load.
    """
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        return None
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    return _MACHINES.get(machine, f"machine {machine}")


def read(path: Path) -> Library:
    """Read a shared library.

    Raises:
        UnavailableError: The package pyelftools is missing.
        CompileError: It is no shared library.
        OSError: It cannot be read.
    """
    PYELFTOOLS.load()
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        arch = arch_of(stream.read(20))
        try:
            file = ELFFile(stream)
            sections = {section.name: section for section in file.iter_sections()}
            dynamic, symbols = sections[".dynamic"], sections[".dynsym"]
            needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
            versions = _versions(sections.get(".gnu.version_r"))
            numbers = sections.get(".gnu.version")
            wanted, exported = [], []
            for index, symbol in enumerate(symbols.iter_symbols()):
                if symbol["st_info"]["bind"] == "STB_LOCAL" or not symbol.name:
                    continue
                if symbol["st_shndx"] != "SHN_UNDEF":
                    exported.append(symbol.name)
                    continue
                ordinal = numbers.get_symbol(index)["ndx"] if numbers else 0
                wanted.append(Symbol(symbol.name, *versions.get(ordinal, ())))
        except (ELFError, KeyError) as error:
            raise CompileError(f"not a shared library: {error}", where=str(path)) from None
    return Library(str(arch), tuple(needed), tuple(wanted), tuple(exported))


def check(path: Path, arch: str, glibc: str = "") -> None:
    """Refuse a library that a system would not load.

    Args:
        path: The library.
        arch: The system's instruction set architecture, as ``uname -m`` says it.
        glibc: Its C library, such as ``"2.31"``; empty to check the architecture alone.

    Raises:
        UnavailableError: The package pyelftools is missing.
        CompileError: It is no shared library.
        MismatchError: It is for another machine, or takes symbols that the system lacks; it names them.
        OSError: It cannot be read.
    """
    library = read(path)
    if library.arch != arch:
        raise MismatchError(f"{path.name} is for another machine: want {arch}, got {library.arch}")
    if not glibc:
        return
    limits = {"GLIBC": glibc, **_newest_of(glibc)}
    late = [
        symbol
        for symbol in library.wanted
        for family, limit in limits.items()
        if (version := _version(symbol, family)) and number(version) > number(limit)
    ]
    if late:
        allowed = ", ".join(f"{family}_{limit}" for family, limit in limits.items())
        named = ", ".join(map(str, late[:4])) + (f" and {len(late) - 4} more" if len(late) > 4 else "")
        raise MismatchError(
            f"{path.name} does not load with glibc {glibc}: want symbols of {allowed} at most, got {named}",
            hint="pip install 'edgekit[cross]', whose compiler links for older systems",
        )


def _versions(section: object) -> dict[int, tuple[str, str]]:
    """Number of a version in the file: its name, and the library that has it."""
    if section is None:
        return {}
    return {
        version["vna_other"]: (version.name, needed.name)
        for needed, versions in section.iter_versions()  # type: ignore[attr-defined]
        for version in versions
    }


def _newest_of(glibc: str) -> dict[str, str]:
    """The newest versions of the C++ library's families on a system with such a C library."""
    older = [system for system in _NEWEST if number(system) <= number(glibc)]
    return _NEWEST[max(older, key=number, default="2.17")]


def _version(symbol: Symbol, family: str) -> str | None:
    match = _VERSION.fullmatch(symbol.version)
    return match[2] if match and match[1] == family else None
