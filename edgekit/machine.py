"""The machine that a measurement was made on. Reads ``/proc``, ``/sys`` and nothing else; never raises."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")

# Extensions that decide which kernel runs or how fast eight-bit arithmetic is, as /proc/cpuinfo names them.
_FEATURES = (
    *("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("neon", "asimd", "asimddp", "asimdhp", "i8mm", "sve"),
)

# CPU implementer and part of the cores of the devices we target (Arm's MIDR_EL1 register).
_ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x004"): "Carmel",
}


@dataclass(frozen=True)
class Machine:
    """The machine that a measurement was made on.

    Attributes:
        cpu: Model name of the processor, with the board's name where there is one.
        arch: ``"x86_64"`` or ``"aarch64"``.
        cores: Processors that the process may use: its affinity, or the container's quota where that is less.
        features: Instruction set extensions that matter here.
        memory_bytes: Physical memory, or the container's limit where that is less; 0 where unknown.
        system: Kernel and its release.
        python: Version of the interpreter.
        load: One-minute load average when the measurement began; -1 where unknown.
        packages: Versions of the packages that took part.
    """

    cpu: str
    arch: str
    cores: int
    features: tuple[str, ...]
    memory_bytes: int
    system: str
    python: str
    load: float
    packages: dict[str, str] = field(default_factory=dict)


def record(packages: Iterable[str] = ()) -> Machine:
    """This machine, now.

    Args:
        packages: Names of distributions whose versions belong to the record; missing ones are left out.
    """
    cpuinfo = _read("/proc/cpuinfo")
    return Machine(
        cpu=cpu_name(cpuinfo, board=_read("/proc/device-tree/model")),
        arch={"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine()),
        cores=usable_cores(),
        features=cpu_features(cpuinfo),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load=_load(),
        packages=versions(packages),
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions of distributions by name; missing ones are left out."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def cpu_name(cpuinfo: str, board: str = "") -> str:
    """The processor's name from the text of ``/proc/cpuinfo`` and the device tree's ``model``.

    An Arm processor tells the part number of its cores, which is looked up; cores of several kinds are
    joined by ``+``.
    """
    names = dict.fromkeys(_values(cpuinfo, "model name"))
    parts = zip(_values(cpuinfo, "CPU implementer"), _values(cpuinfo, "CPU part"), strict=False)
    cores = dict.fromkeys(_ARM_PARTS.get(part, f"Arm implementer {part[0]} part {part[1]}") for part in parts)
    chip = " + ".join(names or cores)
    board = board.strip("\0 \n")
    if board and chip:
        return f"{board} ({chip})"
    return board or chip or platform.processor() or "unknown"


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """The instruction set extensions that matter here, from the text of ``/proc/cpuinfo``."""
    lines = _values(cpuinfo, "flags") or _values(cpuinfo, "Features")
    found = set(lines[0].split()) if lines else set()
    return tuple(name for name in _FEATURES if name in found)


def usable_cores() -> int:
    """Processors that this process may use, at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        allowed = os.cpu_count() or 1
    quota = cpu_quota(_read(_CGROUP / "cpu.max"))
    if quota is None:
        old = [_read(_CGROUP / "cpu" / f"cpu.cfs_{key}_us").strip() for key in ("quota", "period")]
        quota = cpu_quota(" ".join(old))
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def cpu_quota(text: str) -> float | None:
    """Processors granted by a control group, from ``"<microseconds> <period>"``; ``None`` for no limit."""
    try:
        granted, period = map(int, text.split())
    except ValueError:  # "max 100000", or no such file
        return None
    return granted / period if granted > 0 and period > 0 else None


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not tell."""
    high = _values(_read("/proc/self/status"), "VmHWM")
    try:
        if high:
            return int(high[0].split()[0]) << 10
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
    except (ImportError, ValueError, IndexError, OSError):
        return 0


def _memory_bytes() -> int:
    sizes = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"):
        with contextlib.suppress(ValueError):
            sizes.append(int(_read(path)))
    return max(0, min(sizes, default=0))


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return -1.0


def _values(text: str, key: str) -> list[str]:
    """Values of all lines ``key : value``."""
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
