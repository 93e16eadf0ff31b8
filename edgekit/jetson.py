"""The Jetson that this runs on, from the files that its system shows: module, software, power mode, clocks.

Reads ``/proc``, ``/sys``, ``/etc`` and dpkg's list of packages, as any user may; starts no program, and never
raises: what cannot be read or makes no sense is unknown. Paths move between releases, so a fact has several
places, the newest system's first. The layouts are published ones (NVIDIA's Jetson Linux Developer Guide and
device trees); none was read on a device of ours.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import jetpack

_MAX_BYTES = 1 << 20
_MAX_PACKAGES_BYTES = 64 << 20

# Texture processing clusters of the whole chip, each with two multiprocessors. Not known of Thor's.
_CLUSTERS = {"tegra194": 4, "tegra234": 8}
# Folders with the GPU's clock, in /sys/class/devfreq: Thor, Orin since JetPack 6, Orin before, Xavier.
_GPU_CLOCKS = ("gpu-gpc-0", "17000000.gpu", "17000000.ga10b", "17000000.gv11b")
_MEMORY_RATES = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")
_MEMORY_CAPS = ("sys/kernel/nvpmodel_clk_cap/emc", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap")
_CLUSTER_MASKS = ("sys/devices/platform/gpu.0/tpc_pg_mask", "sys/devices/gpu.0/tpc_pg_mask")


@dataclass(frozen=True)
class Clock:
    """A clock in hertz: now, and the limits that it moves between; ``None`` where unknown."""

    now_hz: float | None = None
    lowest_hz: float | None = None
    highest_hz: float | None = None


@dataclass(frozen=True)
class Mode:
    """A power mode of ``/etc/nvpmodel.conf``.

    Attributes:
        number: What ``nvpmodel -m`` takes. It differs between modules and releases: only the name is a name.
        name: Without ``MODE_``.
        cores: Cores of the processor that are on; ``None`` where the file does not say.
        cluster_mask: One bit for each cluster of two multiprocessors that is off.
        gpu_clock_hz: Limit of the graphics processor; ``None`` for its own.
        memory_clock_hz: Limit of the memory; ``None`` for its own.
        dla_clock_hz: Limit of the first accelerator; ``None`` for its own, or where there is none.
    """

    number: int
    name: str
    cores: int | None = None
    cluster_mask: int | None = None
    gpu_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    dla_clock_hz: float | None = None


@dataclass(frozen=True)
class Jetson:
    """A Jetson as it is set up now. Texts are empty, and numbers ``None``, where nothing tells.

    Attributes:
        model: Its name in the device tree.
        module: Number of the module: ``"p3767-0005"``.
        chip: ``"tegra194"`` (Xavier), ``"tegra234"`` (Orin), ``"tegra264"`` (Thor).
        super_clocks: Whether it was flashed for the higher clocks that JetPack 6.2 brought.
        l4t: Jetson Linux: ``"36.4.3"``.
        jetpack: Release of JetPack: ``"6.2"``.
        tensorrt: Version of the installed package.
        cuda: Version of the installed runtime.
        cudnn: Version of the installed package.
        mode: The power mode that is on.
        modes: All that the device offers.
        gpu_clock: Of the graphics processor, all its parts together.
        memory_clock: Of the memory (EMC); the limit is the power mode's.
        multiprocessors: Those that are on.
        memory_bytes: Memory of processor and graphics processor together.
        free_memory_bytes: What of it can be had now.
        free_disk_bytes: Free where the system lies.
    """

    model: str = ""
    module: str = ""
    chip: str = ""
    super_clocks: bool = False
    l4t: str = ""
    jetpack: str = ""
    tensorrt: str = ""
    cuda: str = ""
    cudnn: str = ""
    mode: Mode | None = None
    modes: tuple[Mode, ...] = ()
    gpu_clock: Clock = Clock()
    memory_clock: Clock = Clock()
    multiprocessors: int | None = None
    memory_bytes: int | None = None
    free_memory_bytes: int | None = None
    free_disk_bytes: int | None = None


def detect(root: Path = Path("/")) -> Jetson | None:
    """The Jetson whose files lie under ``root``; ``None`` where they are no Jetson's."""
    compatible = _read(root / "proc/device-tree/compatible").replace("\0", "\n")
    chip = re.search(r"nvidia,(tegra(?:194|234|264))\b", compatible)
    release = _read(root / "etc/nv_tegra_release")
    if not chip and not release:
        return None
    packages = _packages(root)
    l4t = _l4t(release) or packages.get("nvidia-l4t-core", "").partition("-")[0]
    modes, default = _power_modes(_read(root / "etc/nvpmodel.conf"))
    mode = _current(modes, default, _read(root / "var/lib/nvpmodel/status"))
    known = jetpack.of_l4t(l4t)
    memory = _memory(_read(root / "proc/meminfo"))
    return Jetson(
        model=_read(root / "proc/device-tree/model").strip("\0 \n"),
        module=_module(_read(root / "etc/nv_boot_control.conf"), compatible),
        chip=chip[1] if chip else "",
        super_clocks="-super" in compatible or any(one.name.endswith("_SUPER") for one in modes),
        l4t=l4t,
        jetpack=_newest(packages, "nvidia-jetpack") or (known[0] if known else ""),
        tensorrt=_newest(packages, r"libnvinfer\d+"),
        cuda=_newest(packages, r"cuda-cudart-\d+-\d+"),
        cudnn=_newest(packages, r"libcudnn\d+(-cuda-\d+)?"),
        mode=mode,
        modes=modes,
        gpu_clock=_gpu_clock(root),
        memory_clock=Clock(
            now_hz=_first(root, _MEMORY_RATES),
            highest_hz=_first(root, _MEMORY_CAPS) or (mode.memory_clock_hz if mode else None),
        ),
        multiprocessors=_multiprocessors(root, chip[1] if chip else "", mode),
        memory_bytes=memory.get("MemTotal"),
        free_memory_bytes=memory.get("MemAvailable"),
        free_disk_bytes=_free_disk(root),
    )


def _read(path: Path, limit: int = _MAX_BYTES) -> str:
    """The beginning of a file's text; nothing where there is no such file or it may not be read."""
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            with path.open("rb") as file:
                return file.read(limit).decode(errors="replace")
    return ""


def _number(text: str) -> int | None:
    """A whole number, as the kernel's files hold one."""
    found = re.fullmatch(r"\s*(0[xX][0-9a-fA-F]{1,16}|\d{1,18})\s*\0?", text)
    return int(found[1], 0 if found[1][1:2] in ("x", "X") else 10) if found else None


def _first(root: Path, places: Sequence[str]) -> float | None:
    """The first of some files that holds a number greater than 0."""
    for place in places:
        if number := _number(_read(root / place)):
            return float(number)
    return None


def _l4t(release: str) -> str:
    """``"36.4.3"`` of the first line of ``nv_tegra_release``: R36 (release), REVISION: 4.3."""
    found = re.search(r"R(\d{1,3}) \(release\), REVISION: (\d{1,3}(?:\.\d{1,3}){0,2})\b", release)
    return f"{found[1]}.{found[2]}" if found else ""


def _module(boot: str, compatible: str) -> str:
    """Number of the module: what its memory says (TNSPEC 3767-300-0005-…), else what the device tree does.

    One device tree serves several modules, so the first is the better one. In the second the carrier board
    stands before the module: ``nvidia,p3768-0000+p3767-0005-super``.
    """
    if found := re.search(r"^TNSPEC\s+(\d{4})-\w{0,8}-(\d{4})-", boot, re.MULTILINE):
        return f"p{found[1]}-{found[2]}"
    numbers = re.findall(r"\+(p\d{4}-\d{4})", compatible) or re.findall(
        r"nvidia,(p(?:2888|3668|3701|3767|3834)-\d{4})", compatible
    )
    return numbers[0] if numbers else ""


def _packages(root: Path) -> dict[str, str]:
    """Versions of the installed Debian packages, by name."""
    found = {}
    for entry in _read(root / "var/lib/dpkg/status", _MAX_PACKAGES_BYTES).split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): *(.*)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed") and {"Package", "Version"} <= fields.keys():
            found[fields["Package"]] = fields["Version"]
    return found


def _newest(packages: dict[str, str], pattern: str) -> str:
    """The newest upstream version of the packages whose whole name has a pattern."""
    versions = [
        match[0]
        for name, version in packages.items()
        if re.fullmatch(pattern, name) and (match := re.match(r"\d{1,6}(\.\d{1,6}){0,3}", version))
    ]
    return max(versions, key=lambda version: [int(part) for part in version.split(".")], default="")


def _power_modes(conf: str) -> tuple[tuple[Mode, ...], int | None]:
    """The modes of an ``nvpmodel.conf`` in its order, and the number of the one that a device starts in."""
    head = r"^[ \t]*<[ \t]*POWER_MODEL[ \t]+ID=(\d{1,4})[ \t]+NAME=(\S{1,40}?)[ \t]*>"
    parts = re.split(head, conf, flags=re.MULTILINE)
    modes = {}
    for number, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        setting = r"^[ \t]*([A-Z]\w*)[ \t]+([A-Z]\w*)[ \t]+(-?\d{1,18})[ \t]*$"
        settings = re.findall(setting, body, re.MULTILINE)
        modes[int(number)] = _mode(int(number), name, {(a, b): int(value) for a, b, value in settings})
    default = re.search(r"^[ \t]*<[ \t]*PM_CONFIG[ \t]+DEFAULT=(\d{1,4})[ \t]*>", conf, re.MULTILINE)
    return tuple(modes.values()), int(default[1]) if default else None


def _mode(number: int, name: str, settings: dict[tuple[str, str], int]) -> Mode:
    def limit(clock: str) -> float | None:
        value = settings.get((clock, "MAX_FREQ"), 0)
        return None if value in (0, -1, (1 << 31) - 1) else float(value)  # these stand for no limit

    cores = [value for (parameter, _), value in settings.items() if parameter == "CPU_ONLINE"]
    mask = settings.get(("TPC_POWER_GATING", "TPC_PG_MASK"))
    return Mode(
        number=number,
        name=name.removeprefix("MODE_"),
        cores=sum(value == 1 for value in cores) if cores else None,
        cluster_mask=mask if mask is not None and mask >= 0 else None,
        gpu_clock_hz=limit("GPU"),
        memory_clock_hz=limit("EMC"),
        dla_clock_hz=limit("DLA0_CORE"),
    )


def _current(modes: Sequence[Mode], default: int | None, status: str) -> Mode | None:
    """The mode whose number the status file says (pmode:0002), else the one that a device starts in."""
    found = re.search(r"pmode:\s*(\d{1,4})", status)
    number = int(found[1]) if found else default
    return next((mode for mode in modes if mode.number == number), None)


def _gpu_clock(root: Path) -> Clock:
    for name in _GPU_CLOCKS:
        folder = root / "sys/class/devfreq" / name
        numbers = [_number(_read(folder / f"{which}_freq")) for which in ("cur", "min", "max")]
        if any(number is not None for number in numbers):
            return Clock(*(None if number is None else float(number) for number in numbers))
    return Clock()


def _multiprocessors(root: Path, chip: str, mode: Mode | None) -> int | None:
    """Two for each cluster that is not switched off, as far as the chip and a mask are known.

    The kernel's mask is what is off now, while a mode's comes with the next start; but where the kernel says
    0, clusters that the module never had are not in it, and the mode's is the better one.
    """
    if chip not in _CLUSTERS:
        return None
    mask = next((m for place in _CLUSTER_MASKS if (m := _number(_read(root / place)))), None)
    if mask is None:
        mask = mode.cluster_mask if mode else None
    if mask is None:
        return None
    return 2 * sum(not mask >> bit & 1 for bit in range(_CLUSTERS[chip])) or None


def _memory(meminfo: str) -> dict[str, int]:
    lines = re.findall(r"^(\w+):[ \t]+(\d{1,15}) kB$", meminfo, re.MULTILINE)
    return {name: int(kib) << 10 for name, kib in lines}


def _free_disk(root: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(root).free
    return None
