"""Which compiler builds a library for a platform: this machine's own, or one for other machines and systems.

A linker binds a library to the newest symbols of the system that it runs on, and an older system then refuses
it. Zig (PyPI's ``ziglang``) brings the symbols of every release of the C library, for every architecture; its
C++ library is linked in. Without it a cross compiler of GNU's serves, for systems as new as its own.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import UnavailableError
from edgekit.registry import Requirement

if TYPE_CHECKING:
    from edgekit.target import Target

ZIG = Requirement("ziglang", "ziglang", "cross", "0.13")
# The C library that the wheels of the runtimes ask for (manylinux_2_28): one library for all newer systems.
FLOOR = "2.28"

_COMMON_LINK_FLAGS = ("-shared", "-pthread", "-Wl,--gc-sections", "-Wl,--strip-all")
# What Zig's C++ library would show to others, which have their own.
_ZIG_EXPORTS = "{ global: *; local: _Zn*; _Zd*; };\n"


@dataclass(frozen=True)
class Platform:
    """What a library runs on.

    Attributes:
        arch: Instruction set architecture, as ``uname -m`` says it.
        glibc: The oldest C library it has to load with, such as ``"2.31"``; empty for this machine's.
    """

    arch: str
    glibc: str = ""

    @classmethod
    def here(cls) -> Platform:
        """This machine."""
        return cls(platform.machine())

    @classmethod
    def of(cls, target: Target) -> Platform:
        """That of a device."""
        return cls(target.arch, target.software.get("glibc", ""))

    @property
    def is_here(self) -> bool:
        """Whether what this machine's own compiler builds runs there."""
        return self.arch == platform.machine() and (
            not self.glibc or number(self.glibc) >= number(platform.libc_ver()[1] or "0")
        )

    def __str__(self) -> str:
        return f"{self.arch}-glibc{self.glibc}" if self.glibc else self.arch


@dataclass(frozen=True)
class Compiler:
    """A compiler of C++ for one platform.

    Attributes:
        command: What compiles and links.
        archiver: What makes an archive of objects.
        identity: Two that agree in it build objects that go together.
    """

    command: tuple[str, ...]
    archiver: tuple[str, ...]
    identity: str

    @property
    def is_zig(self) -> bool:
        """Whether its C++ library is LLVM's, always linked in."""
        return "ziglang" in self.command

    def link_flags(self, folder: Path, *, shared_cxx: bool = False, more: Sequence[str] = ()) -> list[str]:
        """The flags that link a shared library.

        By default it needs the C library alone, and shows none of the C++ library that is linked in.

        Args:
            folder: Where to write a file that they name.
            shared_cxx: Whether to use the C++ library of the system that loads it, as vendors do whose
                interface is of C++.
            more: Further flags; they may say what the library shows.
        """
        flags = [*_COMMON_LINK_FLAGS, *more]
        if not self.is_zig:
            static = [] if shared_cxx else ["-static-libstdc++", "-static-libgcc"]
            return [*flags, *static, "-Wl,--exclude-libs,libstdc++.a:libgcc.a:libgcc_eh.a"]
        if not any("--version-script" in flag for flag in more):
            exports = folder / "exports.map"
            exports.write_text(_ZIG_EXPORTS, encoding="utf-8")
            flags.append(f"-Wl,--version-script={exports}")
        return flags


def compiler(wanted: Platform, *, gnu: bool = False) -> Compiler:
    """The compiler for a platform.

    Args:
        wanted: What is built has to run there.
        gnu: Whether it has to be one with GNU's C++ library, as vendors have whose interface is of C++.

    Returns:
        For this machine what ``CXX`` names, else g++. For another machine or an older system Zig, where it is
        installed and may be used, else the g++ for such a machine.

    Raises:
        UnavailableError: There is none.
    """
    if not wanted.is_here and not gnu and not ZIG.missing():
        return _zig(wanted)
    native = wanted.arch == platform.machine()
    command = shlex.split(os.environ.get("CXX", "")) if native else []
    command = command or (["g++"] if native else [f"{wanted.arch}-linux-gnu-g++"])
    if not shutil.which(command[0]):
        package = "g++" if native else f"g++-{wanted.arch.replace('_', '-')}-linux-gnu"
        other = "" if wanted.is_here or gnu else f", or {ZIG.install_line}"
        raise UnavailableError(
            f"building a library for {wanted} wants a C++ compiler, and there is no {command[0]}",
            hint=f"apt-get install {package}{other}",
        )
    archiver = "ar" if native else f"{wanted.arch}-linux-gnu-ar"  # of one package with its compiler
    return Compiler(tuple(command), (archiver,), shlex.join(command))


def number(version: str) -> tuple[int, ...]:
    """A version such as ``"2.31"`` as numbers, which compare."""
    return tuple(int(part) for part in version.split("."))


def _zig(wanted: Platform) -> Compiler:
    oldest = min(wanted.glibc or FLOOR, FLOOR, key=number)
    zig, target = (sys.executable, "-m", "ziglang"), f"{wanted.arch}-linux-gnu.{oldest}"
    return Compiler((*zig, "c++", "-target", target), (*zig, "ar"), f"ziglang {ZIG.version()} {target}")
