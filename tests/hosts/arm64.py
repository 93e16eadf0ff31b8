"""An emulated 64-bit Arm machine with the real wheels of the runtimes, to run what is cross-compiled.

A folder holds Debian's arm64 packages and the aarch64 wheels of ``constraints.txt``; QEMU runs its Python in
a chroot. It is made once, in about 15 seconds, and kept in the user's cache folder. Nothing is registered
with the kernel (no binfmt_misc): QEMU is named on the command line, so a program in there can start no other.

What a program sees is decided here. The processor is a Cortex-A76, the nearest to that of a Jetson Orin which
QEMU knows; its default one has vector units that no Jetson has. ``/proc`` is the host's, since OpenVINO spins
without it, except ``/proc/cpuinfo``. That and the few files in ``/sys`` are ours, and describe the processor:
with the ``/sys`` of an x86 host importing ONNX Runtime crashes, and with none OpenVINO does when it compiles.

Results count, times do not: it is 10 to 40 times slower than a processor.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import edgekit

PACKAGE = Path(edgekit.__file__).resolve().parent
CONSTRAINTS = PACKAGE.parent / "constraints.txt"

PROCESSOR = "cortex-a76"
MIDR = "0x00000000414fd0b1"  # its identification register: implementer 41, variant 4, part d0b, revision 1
FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)
DEBIAN_PACKAGES = ("python3", "libgomp1", "libstdc++6")  # and what they depend on
# The runtimes, and what they import when a network runs.
WHEELS = (
    "apache-tvm",
    "apache-tvm-ffi",
    "flatbuffers",
    "ml-dtypes",
    "numpy",
    "onnxruntime",
    "openvino",
    "packaging",
    "protobuf",
    "typing-extensions",
)
GLIBC_MINOR = 36  # Debian 12 has 2.36; wheels for a newer one are left alone
RECIPE = "2"  # counts the changes of what is made here and how

# Folders in there.
SITE, CHECKOUT, WORK = "/opt/site", "/opt/checkout", "/mnt"

COMMANDS = {
    "apt-get": "apt",
    "chroot": "coreutils",
    "dpkg-deb": "dpkg",
    "mount": "mount",
    "qemu-aarch64-static": "qemu-user-static",
    "tar": "tar",
    "unshare": "util-linux",
}

# In a mount namespace of its own: what is mounted goes when the program ends.
_ENTER = f"""
set -e
root=$1 work=$2 package=$3
shift 3
mount --rbind /proc "$root/proc"
mount --bind "$root/etc/cpuinfo" "$root/proc/cpuinfo"
mount --rbind /dev "$root/dev"
mount --bind "$work" "$root{WORK}"
mount --bind "$package" "$root{CHECKOUT}/edgekit"
mount -o remount,bind,ro "$root{CHECKOUT}/edgekit"
exec chroot "$root" /qemu-aarch64-static /usr/bin/python3 "$@"
"""


class Arm64Error(RuntimeError):
    """The machine cannot be made, or a program in it fails."""


def run(
    *arguments: str,
    work: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run the machine's Python, with edgekit on its path and a folder of the host at ``/mnt``.

    Args:
        *arguments: What follows ``python3``; paths as the machine sees them.
        work: The folder.
        environment: Added to a small environment; nothing of the host's is passed on.
        timeout_s: When to end it.

    Returns:
        How it ended, and what it printed.

    Raises:
        Arm64Error: The machine cannot be made.
    """
    chosen = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"{SITE}:{CHECKOUT}",
        "QEMU_CPU": PROCESSOR,
        **(environment or {}),
    }
    enter = ["sh", "-c", _ENTER, "arm64", str(root()), str(work.resolve()), str(PACKAGE)]
    return subprocess.run(
        [*_unshare(), *enter, *arguments],
        env=chosen,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
    )


@functools.cache
def missing() -> str:
    """Why there can be no such machine here; nothing if there can."""
    absent = [package for command, package in COMMANDS.items() if not shutil.which(command)]
    if absent:
        return f"no emulated arm64 machine: apt-get install {' '.join(absent)}"
    if _codename() is None:
        return "no emulated arm64 machine: its packages are Debian's, and this is another system"
    done = subprocess.run([*_unshare(), "true"], capture_output=True, text=True)
    return f"no emulated arm64 machine: {done.stderr.strip()}" if done.returncode else ""


@functools.cache
def root() -> Path:
    """The folder that is the machine's root; made if it is not there.

    Raises:
        Arm64Error: It cannot be made: a tool is missing, or packages cannot be downloaded.
    """
    if reason := missing():
        raise Arm64Error(reason)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-tests"
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / f"arm64-{_digest()[:16]}"
    with (cache / "arm64.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():
            with tempfile.TemporaryDirectory(prefix="arm64-making-", dir=cache) as folder:
                _make(Path(folder))
                Path(folder, "root").rename(final)
    return final


def _digest() -> str:
    """Changes with everything that decides what the root holds."""
    parts = [RECIPE, str(_codename()), str(os.cpu_count()), str(GLIBC_MINOR), *DEBIAN_PACKAGES, *_pins(None)]
    qemu = shutil.which("qemu-aarch64-static")
    assert qemu
    parts.append(hashlib.sha256(Path(qemu).read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _make(folder: Path) -> None:
    """Fill ``folder/root``, and see that its Python runs."""
    top = folder / "root"
    for name in ("bin", "sbin", "lib"):
        (top / "usr" / name).mkdir(parents=True)
        (top / name).symlink_to(f"usr/{name}")
    for inside in ("/dev", "/proc", "/tmp", WORK, f"{CHECKOUT}/edgekit", SITE):
        Path(f"{top}{inside}").mkdir(parents=True)
    for package in _download(folder / "apt"):
        _unpack(package, top)
    _describe_processor(top, os.cpu_count() or 1)
    qemu = shutil.which("qemu-aarch64-static")
    assert qemu
    shutil.copy2(qemu, top)
    version = (top / "usr/bin/python3").readlink().name.removeprefix("python")
    _install(version, Path(f"{top}{SITE}"))


def _describe_processor(top: Path, count: int) -> None:
    """Write what Linux tells of a processor with so many cores, as far as the runtimes ask."""

    def mask(cores: range) -> str:
        digits = f"{sum(1 << core for core in cores):0{(count + 31) // 32 * 8}x}"
        return ",".join(digits[i : i + 8] for i in range(0, len(digits), 8))

    cores = [
        f"processor\t: {core}\nBogoMIPS\t: 100.00\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"
        for core in range(count)
    ]
    (top / "etc/cpuinfo").write_text("\n".join(cores))
    files = {name: f"0-{count - 1}" for name in ("possible", "present", "online")}
    for core in range(count):
        files |= {
            f"cpu{core}/regs/identification/midr_el1": MIDR,
            f"cpu{core}/topology/core_id": str(core),
            f"cpu{core}/topology/core_siblings": mask(range(count)),
            f"cpu{core}/topology/physical_package_id": "0",
            f"cpu{core}/topology/thread_siblings": mask(range(core, core + 1)),
        }
    for name, text in files.items():
        path = top / "sys/devices/system/cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def _download(folder: Path) -> list[Path]:
    """The Debian packages and all they depend on, by the host's sources but an apt of their own."""
    sources = folder / "sources"
    for needed in (sources, folder / "lists" / "partial", folder / "archives" / "partial"):
        needed.mkdir(parents=True)
    (folder / "status").touch()  # nothing is installed
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        # Debian's only: others have no packages for this machine, or none at all to offer.
        if path.is_file() and _codename() in path.read_text(errors="replace").split():
            shutil.copy2(path, sources)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",  # apt's own user may not enter the cache folder
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": str(folder / "archives"),
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": str(sources),
        "Dir::State": str(folder),
        "Dir::State::lists": str(folder / "lists"),
        "Dir::State::status": str(folder / "status"),
    }
    apt = ["apt-get", "--quiet", *(f"--option={key}={value}" for key, value in settings.items())]
    _call([*apt, "update"])
    _call([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *DEBIAN_PACKAGES])
    return sorted((folder / "archives").glob("*.deb"))


def _unpack(package: Path, top: Path) -> None:
    """Unpack one Debian package; ``/lib`` and its like stay the links that they are."""
    archive = package.with_suffix(".tar")
    with archive.open("wb") as stream:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=stream, check=True)
    _call(["tar", "--extract", "--keep-directory-symlink", "--file", str(archive), "--directory", str(top)])
    archive.unlink()


def _install(version: str, site: Path) -> None:
    """Install the wheels for a version of Python, without running any of it."""
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC_MINOR + 1)]
    _call(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={version}"),
            *platforms,
            f"--target={site}",
            *_pins(version),
        ]
    )


def _pins(version: str | None) -> list[str]:
    """The lines of ``constraints.txt`` for the wheels; for one version of Python, if it is given."""
    from packaging.requirements import Requirement

    found = []
    for line in CONSTRAINTS.read_text().splitlines():
        if not re.match(r"[\w.-]+==", line):
            continue
        wanted = Requirement(line)
        where = {
            "platform_machine": "aarch64",
            "sys_platform": "linux",
            "python_version": version or "",
            "python_full_version": f"{version}.0",
        }
        fits = version is None or wanted.marker is None or wanted.marker.evaluate(where)
        if wanted.name in WHEELS and fits:
            found.append(line if version is None else f"{wanted.name}{wanted.specifier}")
    return found


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Arm64Error(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def _unshare() -> list[str]:
    """Begins the command line of what needs mounts of its own; without being root, as root of a namespace."""
    return ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]


@functools.cache
def _codename() -> str | None:
    """Debian's name of the release that this machine runs; None for another system."""
    path = Path("/etc/os-release")
    text = path.read_text() if path.is_file() else ""
    found = dict(re.findall(r'^(\w+)="?([^"\n]*)', text, re.MULTILINE))
    return found.get("VERSION_CODENAME") if found.get("ID") == "debian" else None
