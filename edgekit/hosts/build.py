"""Build the library of a host, once: the kernels' objects, one adapter, the vendor's headers if it needs any.

What is built lies in the user's cache, in a folder named by a digest of all that went into it. The objects of
this machine's kernels, and the library for ONNX Runtime, which needs no headers, are made when edgekit is
installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import CompileError
from edgekit.hosts import compilers, elf, flags
from edgekit.hosts.compilers import Compiler, Platform

__all__ = [
    "ARCHIVE",
    "DIGEST",
    "INSTALLED",
    "ONNXRUNTIME",
    "Adapter",
    "Platform",
    "adapter_object",
    "built",
    "compile_adapter",
    "installed_digest",
    "kept",
    "kernel_objects",
    "library",
    "link",
    "onnxruntime",
    "run",
    "sources_digest",
]

INSTALLED = Path(__file__).resolve().parents[1] / "lib"
ARCHIVE = "libedgekit_kernels.a"
# Written beside what setup.py built: the digest of the sources that it is made of.
DIGEST = "sources.sha256"


@dataclass(frozen=True)
class Adapter:
    """The one file that a host's library has beside the kernels, and what it is built with.

    Attributes:
        host: Name in :data:`edgekit.hosts.flags.HOSTS`.
        version: Of the vendor's package, where the library fits one alone.
        includes: Folders of the vendor's headers.
        flags: More for the compiler.
        links: More for the linker.
        gnu: Whether the vendor's interface is of GNU's C++ library, which has to be the vendor's own then.
    """

    host: str
    version: str = ""
    includes: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    gnu: bool = False

    @property
    def file(self) -> str:
        """Name of the library."""
        return f"libedgekit_{self.host}.so"

    @property
    def source(self) -> Path:
        """The file."""
        return flags.CSRC / "hosts" / f"{self.host}.cpp"

    def compile_flags(self) -> list[str]:
        """Everything that the compiler is told beside the file."""
        return [
            *flags.flags_for(self.source),
            "-fPIC",
            *(f"-isystem{folder}" for folder in self.includes),
            *self.flags,
        ]


# The runtime unloads the library before it is done with what the library registered.
ONNXRUNTIME = Adapter("onnxruntime", links=("-Wl,-z,nodelete",))


def onnxruntime() -> Adapter:
    """What the library for ONNX Runtime is built with: nothing of the vendor's."""
    return ONNXRUNTIME


def library(adapter: Adapter, wanted: Platform | None = None) -> Path:
    """The library of a host, built now if it was not yet.

    Args:
        adapter: Which one.
        wanted: What it is to run on; this machine by default.

    Raises:
        UnavailableError: It has to be built, and there is no compiler, or for another machine no pyelftools.
        CompileError: The compiler fails.
        MismatchError: What the compiler built does not load there.
    """
    wanted = wanted or Platform.here()
    if found := built(adapter, wanted):
        return found
    return kept(
        f"{adapter.file} for {wanted}",
        _library_ingredients(adapter, wanted),
        adapter.file,
        functools.partial(_build_library, adapter, wanted),
    )


def built(adapter: Adapter, wanted: Platform) -> Path | None:
    """The library of a host where it is there already.

    Raises:
        UnavailableError: It is not installed, and there is no compiler.
    """
    if adapter.host == "onnxruntime" and _is_installed(wanted):
        return INSTALLED / adapter.file
    path = _place(adapter.file, _library_ingredients(adapter, wanted)) / adapter.file
    return path if path.is_file() else None


def adapter_object(adapter: Adapter, wanted: Platform | None = None) -> Path:
    """The object of a host's file, for what the host itself links: :func:`kernel_objects` go with it.

    Raises:
        UnavailableError, CompileError: As :func:`library`.
    """
    wanted = wanted or Platform.here()
    file = f"edgekit_{adapter.host}.o"

    def compile_it(folder: Path) -> None:
        compile_adapter(adapter, folder / file, wanted)

    return kept(f"{file} for {wanted}", _ingredients(adapter, wanted), file, compile_it)


def kernel_objects(wanted: Platform | None = None, *, gnu: bool = False) -> Path:
    """The archive of the kernels' objects, position-independent: for a library that holds them itself.

    Args:
        wanted: What they are to run on; this machine by default.
        gnu: Whether they go into a library that uses GNU's C++ library.

    Raises:
        UnavailableError, CompileError: As :func:`library`.
    """
    wanted = wanted or Platform.here()
    if _is_installed(wanted):
        return INSTALLED / ARCHIVE
    compiler = compilers.compiler(wanted, gnu=gnu)
    return kept(
        f"the kernels for {wanted}",
        [compiler.identity],
        ARCHIVE,
        functools.partial(_build_archive, compiler, wanted.arch),
    )


def link(
    objects: Sequence[str | Path],
    out: Path,
    wanted: Platform,
    links: Sequence[str] = (),
    *,
    gnu: bool = False,
) -> None:
    """Link a shared library of objects and archives, and see that it loads where it is wanted.

    Args:
        objects: What it is linked of, compiled for the platform by the compiler for it.
        out: The library to write.
        wanted: What it is to run on.
        links: More for the linker.
        gnu: Whether it uses GNU's C++ library, the one that is there when it is loaded.

    Raises:
        UnavailableError, CompileError, MismatchError: As :func:`library`.
    """
    compiler = compilers.compiler(wanted, gnu=gnu)
    with tempfile.TemporaryDirectory() as folder:
        options = compiler.link_flags(Path(folder), shared_cxx=gnu, more=links)
        run([*compiler.command, *map(str, objects), *options, "-o", str(out)])
    if not wanted.is_here:
        elf.check(out, wanted.arch, wanted.glibc)


def compile_adapter(adapter: Adapter, out: Path, wanted: Platform) -> None:
    """Compile the file of a host.

    Raises:
        UnavailableError, CompileError: As :func:`library`.
    """
    command = compilers.compiler(wanted, gnu=adapter.gnu).command
    run([*command, *adapter.compile_flags(), "-c", str(adapter.source), "-o", str(out)])


@functools.cache
def sources_digest(host: str | None = None) -> str:
    """SHA-256 of the sources that every library is made of and of their flags, or of a host's own sources."""
    found = hashlib.sha256(Path(flags.__file__).read_bytes())
    for path in sorted(p for p in flags.CSRC.rglob("*") if p.suffix in (".h", ".cpp", ".cu")):
        if flags.host_of(path) == host and (host or (path.suffix != ".cu" and path.parent.name != "bind")):
            found.update(str(path.relative_to(flags.CSRC)).encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def installed_digest() -> str:
    """What setup.py writes beside what it built."""
    return f"{sources_digest()}\n{sources_digest(ONNXRUNTIME.host)}\n"


def _is_installed(wanted: Platform) -> bool:
    """Whether setup.py built for this platform, of the sources as they are."""
    if not wanted.is_here:
        return False
    try:
        return (INSTALLED / DIGEST).read_text() == installed_digest()
    except OSError:
        return False


def _ingredients(adapter: Adapter, wanted: Platform) -> list[str]:
    compiler = compilers.compiler(wanted, gnu=adapter.gnu).identity
    return [sources_digest(adapter.host), str(wanted), compiler, adapter.version, *adapter.compile_flags()]


def _library_ingredients(adapter: Adapter, wanted: Platform) -> list[str]:
    return [*_ingredients(adapter, wanted), *adapter.links]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgekit" / "hosts"


def _place(file: str, ingredients: Sequence[str]) -> Path:
    """The folder of the cache for a file that is made of these."""
    digest = hashlib.sha256("\0".join([sources_digest(), file, *ingredients]).encode()).hexdigest()
    return _cache() / digest[:32]


def kept(what: str, ingredients: Sequence[str], file: str, build: Callable[[Path], None]) -> Path:
    """A file of the cache, which ``build(folder)`` makes if it is not there. One process builds at a time.

    Raises:
        CompileError: There is no room for it; beside what ``build`` raises.
    """
    folder = _place(file, ingredients)
    if (folder / file).is_file():
        return folder / file
    try:
        _cache().mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(_cache() / f"{folder.name}.lock"):
            if not (folder / file).is_file():
                with tempfile.TemporaryDirectory(dir=_cache()) as place:
                    build(Path(place))
                    folder.mkdir(exist_ok=True)
                    Path(place, file).replace(folder / file)
    except OSError as error:
        raise CompileError(
            f"cannot build {what}: {error.strerror or error}",
            where=str(_cache()),
            hint="XDG_CACHE_HOME names another folder",
        ) from None
    return folder / file


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_library(adapter: Adapter, wanted: Platform, folder: Path) -> None:
    compile_adapter(adapter, folder / "adapter.o", wanted)
    objects = [folder / "adapter.o", kernel_objects(wanted, gnu=adapter.gnu)]
    link(objects, folder / adapter.file, wanted, adapter.links, gnu=adapter.gnu)


def _build_archive(compiler: Compiler, arch: str, folder: Path) -> None:
    def build(source: Path) -> str:
        result = str(folder / ("_".join(source.parts[-2:]) + ".o"))
        run([*compiler.command, *flags.flags_for(source), "-fPIC", "-c", str(source), "-o", result])
        return result

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        objects = list(workers.map(build, flags.kernel_sources(arch)))
    run([*compiler.archiver, "rcs", str(folder / ARCHIVE), *objects])


def run(command: Sequence[str]) -> None:
    """Run a compiler or a linker.

    Raises:
        CompileError: It fails.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CompileError(
            f"{command[0]} failed: {lines[0] if lines else f'exit status {done.returncode}'}",
            where=shlex.join(command)[:400],
        )
