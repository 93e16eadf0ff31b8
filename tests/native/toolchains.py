"""Builds the native tests: the kernel sources, with the flags they are shipped with, and those here.

A toolchain is a compiler with what it adds to those flags. Each program is built in a folder of its own.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit.hosts.flags import flags_for, kernel_sources, sources_for

HERE = Path(__file__).resolve().parent
JOBS = 2


@dataclass(frozen=True)
class Toolchain:
    """A way to build the native tests.

    Attributes:
        compiler: The command.
        package: What to install for it, with Debian's package manager.
        flags: Added to the flags of every source; the later flag wins.
        link: Added to the command line of the linker.
        machine: What it compiles for.
        runner: The command that runs what it built.
        environment: Added to the environment of what it built.
    """

    compiler: str
    package: str
    flags: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    machine: str = platform.machine()
    runner: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def build(self, main: str, folder: Path, *, link: tuple[str, ...] = ()) -> Path:
        """Compile the sources not yet compiled in a folder, and link the program ``main_<main>.cpp``.

        Raises:
            RuntimeError: The compiler fails.
        """
        tests = [source for source in sources_for(self.machine, HERE) if not source.match("main_*")]
        sources = [*kernel_sources(self.machine), *tests, HERE / f"main_{main}.cpp"]
        with ThreadPoolExecutor(JOBS) as workers:
            objects = list(workers.map(lambda source: self._compile(source, folder), sources))
        program = folder / main
        self.call([*map(str, objects), *self.link, *link, "-pthread", "-o", str(program)])
        return program

    def run(
        self, program: Path, *arguments: str, timeout_s: float = 1800
    ) -> subprocess.CompletedProcess[str]:
        """Run what was built, and keep what it prints."""
        return subprocess.run(
            [*self.runner, str(program), *arguments],
            env={**os.environ, **dict(self.environment)},
            cwd=program.parent,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )

    def _compile(self, source: Path, folder: Path) -> Path:
        result = folder / ("_".join(source.parts[-2:]) + ".o")
        if not result.exists():
            self.call([*flags_for(source), *self.flags, "-c", str(source), "-o", str(result)])
        return result

    def call(self, arguments: list[str]) -> None:
        """Call the compiler, and raise what it says when it fails."""
        done = subprocess.run([self.compiler, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.compiler} {' '.join(arguments)}\n{done.stderr}")


@functools.cache
def missing(toolchain: Toolchain) -> str:
    """Why a toolchain cannot build and run an empty program here; nothing if it can."""
    for command in (toolchain.compiler, *toolchain.runner):
        if not shutil.which(command):
            return f"no {command}: apt-get install {toolchain.package}"
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "empty.cpp"), Path(folder, "empty")
        source.write_text("int main() {}")
        try:
            toolchain.call([*toolchain.flags, *toolchain.link, str(source), "-o", str(program)])
        except RuntimeError as error:
            return f"{toolchain.compiler} lacks a library: apt-get install {toolchain.package}: {error}"
        result = toolchain.run(program)
        return f"what {toolchain.compiler} builds does not run: {result.stderr}" if result.returncode else ""


# Quick to compile: the bits are the same, and the extension's own tests run what -O3 makes of the kernels.
HOST = Toolchain("g++", "g++", flags=("-O1",))
ARM = Toolchain(
    "aarch64-linux-gnu-g++",
    "g++-aarch64-linux-gnu qemu-user",
    link=("-static",),
    machine="aarch64",
    runner=("qemu-aarch64",),
)
# One set of objects for the contract tests and for the fuzzer.
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
SANITIZED = Toolchain(
    "clang++",
    "clang libclang-rt-dev",
    flags=(
        "-O1",
        "-gline-tables-only",
        f"{SANITIZERS},fuzzer-no-link",
        "-fno-sanitize-recover=all",
        "-Wno-unknown-warning-option",
    ),
    link=(SANITIZERS,),
    environment=(("UBSAN_OPTIONS", "print_stacktrace=1"),),
)
THREADS = Toolchain("g++", "g++", flags=("-O1", "-g1", "-fsanitize=thread"), link=("-fsanitize=thread",))
