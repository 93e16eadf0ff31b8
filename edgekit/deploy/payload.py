"""What a device needs to run a bundle: one archive with edgekit, its compiled kernels and vendors' wheels.

Nothing is installed on the device and nothing comes from the network there: the archive is unpacked into a
folder, and that is Python's path. The wheels are those of the device's Python and architecture, taken by pip
here; neither PyTorch nor onnx is among them. TensorRT and CUDA come with JetPack.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit import machine
from edgekit import target as targets
from edgekit._version import __version__
from edgekit.errors import CompileError, UnavailableError
from edgekit.hosts import build, flags
from edgekit.hosts.compilers import FLOOR, Compiler, Platform, compiler, number
from edgekit.registry import Requirement

PACKAGE = Path(__file__).resolve().parents[1]
INCLUDE = "EDGEKIT_PYTHON_INCLUDE"

# What edgekit itself imports on a device.
_OWN = ("click", "numpy", "rich", "markdown-it-py", "mdurl", "pygments")
_OWN_BEFORE_3_11 = ("tomli",)
# What a vendor's package imports when a network runs, beside the backend's own requirements.
_MORE = {
    "onnxruntime": ("flatbuffers", "packaging", "protobuf"),
    "openvino": (),
    "tvm": ("apache-tvm-ffi", "ml-dtypes", "packaging", "typing-extensions"),
}
# Of these it has to be the version that is here: a vendor's package goes with it alone.
_AS_HERE = ("apache-tvm-ffi",)
# Folders of the package that only compiling and training need.
_LEFT_OUT = ("lib", "torch", "zoo/weights", "__pycache__")
_PYBIND11 = Requirement("pybind11", "pybind11", "cross", "3.0")
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Kind:
    """The Python that an archive is for.

    Attributes:
        python: Major and minor version.
        platform: Architecture and C library.
    """

    python: tuple[int, int]
    platform: Platform

    @property
    def version(self) -> str:
        """``"3.10"``."""
        return ".".join(map(str, self.python))

    def __str__(self) -> str:
        return f"Python {self.version} on {self.platform}"


def wheels_for(backends: Iterable[str], built_with: Mapping[str, str], kind: Kind) -> list[str]:
    """What pip is asked for: packages of edgekit itself, and those that the backends compiled with."""
    from edgekit.backends import BACKENDS

    names = [*_OWN, *(_OWN_BEFORE_3_11 if kind.python < (3, 11) else ())]
    for backend in backends:
        if backend in _MORE:
            names += [r.distribution for r in BACKENDS[backend].requirements] + list(_MORE[backend])
    here = {name: version for name, version in machine.versions(_AS_HERE).items() if name in names}
    versions = {name: f"{name}=={version}" for name, version in {**here, **built_with}.items()}
    return [versions.get(name, name) for name in dict.fromkeys(names)]


def make(kind: Kind, wheels: Iterable[str], *, kernels: bool, folder: Path | None = None) -> Path:
    """The archive, in the user's cache; made if it is not there.

    Args:
        kind: The Python that it is for.
        wheels: As :func:`wheels_for` names them.
        kernels: Whether the compiled kernels have to be in it; otherwise they are where they can be built.
        folder: Of wheels, to take from it and from nowhere else.

    Raises:
        UnavailableError: A wheel is not to be had, or what the kernels are built with.
        CompileError: The compiler fails.
    """
    wanted = list(wheels)
    extension, missing = _extension(kind)
    if kernels and not extension:
        raise UnavailableError(
            f"the bundle's steps want compiled kernels for {kind}, and {missing}",
            hint=f"{INCLUDE}=FOLDER, where Python.h of {kind.version} is; with it {_PYBIND11.install_line}",
        )
    files = dict(_own_files())
    key = hashlib.sha256(json.dumps([__version__, str(kind), wanted, str(folder or "")]).encode())
    for name, content in sorted(files.items()):
        key.update(hashlib.sha256(name.encode() + content).digest())
    if extension:
        key.update(extension.digest().encode())
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    archive = cache / f"{key.hexdigest()[:16]}.zip"
    if not archive.is_file():
        with tempfile.TemporaryDirectory(dir=cache) as place:
            downloaded = Path(place, "wheels")
            _download(kind, wanted, downloaded, folder)
            if extension:
                files[f"edgekit/{extension.file}"] = extension.build(Path(place))
            _write(files, sorted(downloaded.glob("*.whl")), Path(place, archive.name))
            Path(place, archive.name).replace(archive)
    return archive


def unpacked_bytes(archive: Path) -> int:
    """What the archive takes when it is unpacked."""
    with zipfile.ZipFile(archive) as opened:
        return sum(member.file_size for member in opened.infolist())


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgekit" / "deploy"


def _own_files() -> Iterator[tuple[str, bytes]]:
    """Edgekit's own Python files, and its targets where an installed package has them."""
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE).as_posix()
        left_out = any(name.startswith(f"{one}/") or f"/{one}/" in name for one in _LEFT_OUT)
        if path.is_file() and not left_out and path.suffix in (".py", ".jsonl"):
            yield f"edgekit/{name}", path.read_bytes()
    for path in sorted(targets.folder().glob("*.toml")):
        yield f"edgekit/_targets/{path.name}", path.read_bytes()


def _write(files: Mapping[str, bytes], wheels: Iterable[Path], out: Path) -> None:
    """Write the archive; names and times follow from the content alone."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED, 6)

        for name, content in sorted(files.items()):
            put(name, content)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as opened:
                for member in sorted(opened.infolist(), key=lambda m: m.filename):
                    place = _place(member.filename)
                    if place and not member.is_dir():
                        put(place, opened.read(member))


def _place(name: str) -> str:
    """Where a wheel's file goes on the path; nowhere for headers, programs and data."""
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    kind, _, rest = rest.partition("/")
    return rest if kind in ("purelib", "platlib") else ""


def _download(kind: Kind, wheels: list[str], out: Path, folder: Path | None) -> None:
    minor = number(kind.platform.glibc or FLOOR)[1]
    platforms = [f"--platform=manylinux_2_{n}_{kind.platform.arch}" for n in range(17, minor + 1)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={kind.version}"),
        *platforms,
        f"--platform=manylinux2014_{kind.platform.arch}",
        *(("--no-index", f"--find-links={folder}") if folder else ()),
        f"--dest={out}",
        *wheels,
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line or "No module" in line]
        reason = (lines or done.stderr.splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")
        raise UnavailableError(
            f"no wheel for {kind}: {reason}",
            where=str(folder) if folder else "pip download",
            hint="another backend or another Python on the device; --wheels FOLDER takes those that you have",
        )


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )


def _extension(kind: Kind) -> tuple[_Extension | None, str]:
    """What builds the compiled kernels for a Python, or why nothing does."""
    headers = _headers(kind)
    if not headers:
        return None, f"there is no Python.h of {kind.version} here"
    if missing := _PYBIND11.missing():
        return None, f"{missing}: {_PYBIND11.install_line}"
    try:
        return _Extension(kind, headers, compiler(kind.platform)), ""
    except UnavailableError as error:
        return None, f"{error.message}: {error.hint}"


def _headers(kind: Kind) -> Path | None:
    """The folder of Python.h for a version: as a variable says, of this Python, else of one on the path."""
    if named := os.environ.get(INCLUDE):
        places = [Path(named)]
    else:
        places = [Path("/usr/include", f"python{kind.version}")]
        if sys.version_info[:2] == kind.python:
            places.insert(0, Path(sysconfig.get_path("include")))
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ask = "import sysconfig; print(sysconfig.get_path('include'))"
            command = [f"python{kind.version}", "-c", ask]
            places.append(
                Path(
                    subprocess.run(
                        command, check=False, capture_output=True, text=True, timeout=20
                    ).stdout.strip()
                )
            )
    return next((place for place in places if _version_of(place) == kind.version), None)


def _version_of(headers: Path) -> str:
    """``"3.10"`` of the headers in a folder; empty where there are none."""
    try:
        lines = (headers / "patchlevel.h").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    found = dict(
        line.split()[1:3] for line in lines if line.startswith("#define PY_M") and len(line.split()) > 2
    )
    return (
        f"{found.get('PY_MAJOR_VERSION')}.{found.get('PY_MINOR_VERSION')}"
        if (headers / "Python.h").is_file()
        else ""
    )


@dataclass(frozen=True)
class _Extension:
    """Builds ``edgekit._C`` for another Python."""

    kind: Kind
    headers: Path
    compiler: Compiler

    @property
    def file(self) -> str:
        version = "".join(map(str, self.kind.python))
        return f"_C.cpython-{version}-{self.kind.platform.arch}-linux-gnu.so"

    @property
    def sources(self) -> list[Path]:
        return sorted((flags.CSRC / "bind").glob("*.cpp"))

    def digest(self) -> str:
        """Changes with everything that it is built of."""
        parts = [build.sources_digest(), self.compiler.identity, str(_PYBIND11.version()), str(self.headers)]
        found = hashlib.sha256("\0".join(parts).encode())
        for path in sorted((flags.CSRC / "bind").iterdir()):
            found.update(path.name.encode() + path.read_bytes())
        return found.hexdigest()

    def build(self, folder: Path) -> bytes:
        """Its bytes.

        Raises:
            CompileError: The compiler fails.
            MismatchError: What it built does not load there.
        """
        import pybind11

        archive = build.kernel_objects(self.kind.platform)
        includes = [f"-isystem{self.headers}", f"-isystem{pybind11.get_include()}"]
        if _configuration(self.kind, self.headers, folder):
            includes.insert(0, f"-I{folder}")

        def compile_one(source: Path) -> Path:
            out = folder / f"{source.stem}.o"
            # It hands arrays over; what computes is in the archive.
            options = ["-O1" if flag == "-O3" else flag for flag in flags.flags_for(source)]
            command = [*self.compiler.command, *options, *includes, "-fPIC", "-c", str(source)]
            done = _call([*command, "-o", str(out)])
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line]
                raise CompileError(
                    f"compiling kernels for {self.kind}: {(lines or ['failed'])[0]}", where=str(source)
                )
            return out

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            objects = list(workers.map(compile_one, self.sources))
        out = folder / self.file
        build.link([*objects, archive], out, self.kind.platform)
        return out.read_bytes()


def _configuration(kind: Kind, headers: Path, folder: Path) -> bool:
    """Write into a folder what Debian's pyconfig.h includes, where it does: that of the architecture.

    Those of two 64-bit Linux systems agree in all that an extension sees, so this one's is lent.
    """
    mine = Path(f"/usr/include/{os.uname().machine}-linux-gnu/python{kind.version}/pyconfig.h")
    wanted = folder / f"{kind.platform.arch}-linux-gnu/python{kind.version}/pyconfig.h"
    if mine.is_file() and not kind.platform.is_here and headers.is_relative_to("/usr/include"):
        wanted.parent.mkdir(parents=True)
        wanted.write_bytes(mine.read_bytes())
        return True
    return False
