"""File trees of Jetsons, for what reads them.

They are written after published layouts (NVIDIA's Jetson Linux Developer Guide, device trees and nvpmodel
tables, outputs that owners posted); none was recorded on a device of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TREES: dict[str, dict[str, str]] = {}


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files, by their paths, under a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def tree(root: Path, name: str) -> Path:
    """Write one of :data:`TREES` under a folder."""
    return write(root, TREES[name])


def packages(*entries: str) -> str:
    """A dpkg status of ``name version`` texts; one that ends with ``-`` is removed but still listed."""
    stanzas = []
    for entry in entries:
        name, version = entry.rstrip("-").split()
        status = "deinstall ok config-files" if entry.endswith("-") else "install ok installed"
        stanzas.append(
            f"Package: {name}\nStatus: {status}\nPriority: optional\nSection: devel\nMaintainer: NVIDIA\n"
            f"Architecture: arm64\nVersion: {version}\nDescription: {name}\n of two lines\n .\n Version: no\n"
        )
    return "\n".join(stanzas)


def nvpmodel(default: int, *modes: str) -> str:
    """An ``nvpmodel.conf`` of modes as ``id name cores mask gpu emc [dla]``, limits in MHz; 0, -1: none."""
    lines = [
        "# FORMAT:",
        "# < PARAM TYPE=PARAM_TYPE NAME=PARAM_NAME >",
        "# < POWER_MODEL ID=id_num NAME=mode_name >",
        "",
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >",
        "CORE_0 /sys/devices/system/cpu/cpu0/online",
        "",
        "< PARAM TYPE=CLOCK NAME=GPU >",
        "MAX_FREQ /sys/devices/17000000.ga10b/devfreq/17000000.ga10b/max_freq",
        "MAX_FREQ_KNEXT /sys/devices/platform/17000000.gpu/devfreq_dev/max_freq",
        "",
        "<PARAM TYPE=CLOCK NAME=EMC >",
        "MAX_FREQ /sys/kernel/nvpmodel_emc_cap/emc_iso_cap",
    ]
    for mode in modes:
        number, name, cores, mask, gpu, emc, *dla = mode.split()
        hz = [text if text in ("-1", "0") else str(int(float(text) * 1e6)) for text in (gpu, emc, *dla)]
        lines += ["", f"< POWER_MODEL ID={number} NAME={name} >"]
        lines += [f"CPU_ONLINE CORE_{core} {int(core < int(cores))}" for core in range(12)]
        lines += [f"TPC_POWER_GATING TPC_PG_MASK {mask}", "GPU_POWER_CONTROL_ENABLE GPU_PWR_CNTL_EN on"]
        lines += ["CPU_A78_0 MIN_FREQ 729600", "CPU_A78_0 MAX_FREQ 1497600", "GPU MIN_FREQ 0"]
        lines += [f"GPU MAX_FREQ {hz[0]}", "GPU_POWER_CONTROL_DISABLE GPU_PWR_CNTL_DIS auto"]
        lines += [f"EMC MAX_FREQ {hz[1]}", *(f"DLA0_CORE MAX_FREQ {clock}" for clock in hz[2:])]
    return "\n".join([*lines, "", "# mandatory", f"< PM_CONFIG DEFAULT={default} >", ""])


def devfreq(name: str, now: float, lowest: float, highest: float) -> dict[str, str]:
    """Files of a clock in MHz."""
    folder = f"sys/class/devfreq/{name}"
    values = {"cur": now, "min": lowest, "max": highest}
    return {f"{folder}/{which}_freq": f"{int(mhz * 1e6)}\n" for which, mhz in values.items()}


def meminfo(total_kib: int, available_kib: int) -> str:
    """``/proc/meminfo``."""
    return (
        f"MemTotal:       {total_kib} kB\nMemFree:          301232 kB\nMemAvailable:    {available_kib} kB\n"
        "SwapTotal:       3907040 kB\nHugePages_Total:       0\n"
    )


def _release(major: int, revision: str) -> str:
    return f"# R{major} (release), REVISION: {revision}, GCID: 389680, BOARD: generic, EABI: aarch64, DATE\n"


TREES["orin-nano-super-jetpack-6"] = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/meminfo": meminfo(7_802_384, 5_123_456),
    "etc/nv_tegra_release": _release(36, "4.3"),
    "etc/nv_boot_control.conf": "TNSPEC 3767-300-0005-N.2-1-1-jetson-orin-nano-devkit-super-\n",
    "etc/nvpmodel.conf": nvpmodel(
        1, "0 15W 6 240 612 2133", "1 25W 6 240 918 3199", "2 MAXN_SUPER 6 240 -1 -1", "3 7W 4 252 408 2133"
    ),
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "var/lib/dpkg/status": packages(
        "nvidia-l4t-core 36.4.3-20250107174145",
        "nvidia-jetpack 6.2+b77",
        "libnvinfer10 10.3.0.30-1+cuda12.5",
        "libnvinfer-dev 10.3.0.30-1+cuda12.5",
        "libnvinfer8 8.6.2.3-1+cuda12.2-",
        "cuda-cudart-12-6 12.6.68-1",
        "cuda-cudart-dev-12-6 12.6.68-1",
        "libcudnn9-cuda-12 9.3.0.75-1",
    ),
    "sys/devices/platform/gpu.0/tpc_pg_mask": "240\n",
    "sys/kernel/nvpmodel_clk_cap/emc": "3199000000\n",
    **devfreq("17000000.gpu", 306, 306, 918),
}
TREES["orin-nx-jetpack-6"] = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0",
    "proc/meminfo": meminfo(15_993_608, 13_000_000),
    "etc/nv_tegra_release": _release(36, "3.0"),
    "etc/nvpmodel.conf": nvpmodel(
        2,
        "0 MAXN 8 240 -1 0 -1",
        "1 10W 4 252 612 2133 153.6",
        "2 15W 4 252 612 0 614.4",
        "3 25W 8 240 408 0 614.4",
    ),
    "var/lib/dpkg/status": packages(
        "nvidia-l4t-core 36.3.0-20240506102626",
        "libnvinfer8 8.6.2.3-1+cuda12.2",
        "cuda-cudart-12-2 12.2.140-1",
        "libcudnn8 8.9.4.25-1+cuda12.2",
    ),
    **devfreq("17000000.gpu", 612, 306, 612),
}
TREES["agx-orin-jetpack-5"] = {
    "proc/device-tree/model": "Jetson AGX Orin\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0nvidia,tegra23x\0",
    "proc/meminfo": meminfo(64_335_136, 60_000_000),
    "etc/nv_tegra_release": _release(35, "4.1"),
    # One device tree serves two modules here: the module's own memory tells which it is.
    "etc/nv_boot_control.conf": "TNSPEC 3701-500-0005-J.0-1-0-jetson-agx-orin-devkit-\n",
    "etc/nvpmodel.conf": nvpmodel(
        2,
        "0 MAXN 12 0 -1 0 -1",
        "1 MODE_15W 4 248 408 2133 614.4",
        "2 MODE_30W 8 240 612 0 1369.6",
        "3 MODE_50W 12 0 816 0 1369.6",
    ),
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
    "var/lib/dpkg/status": packages(
        "nvidia-jetpack 5.1.2-b104",
        "libnvinfer8 8.5.2-1+cuda11.4",
        "cuda-cudart-11-4 11.4.298-1",
        "libcudnn8 8.6.0.166-1+cuda11.4",
    ),
    "sys/devices/gpu.0/tpc_pg_mask": "240\n",
    "sys/kernel/nvpmodel_emc_cap/emc_iso_cap": "0\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
    **devfreq("17000000.ga10b", 114.75, 114.75, 612),
}
TREES["agx-xavier-jetpack-5"] = {
    "proc/device-tree/model": "Jetson-AGX\0",
    "proc/device-tree/compatible": "nvidia,p2972-0000\0nvidia,tegra194\0",
    "proc/meminfo": meminfo(31_921_000, 30_000_000),
    "etc/nv_tegra_release": _release(35, "3.1"),
    "etc/nv_boot_control.conf": "TNSPEC 2888-400-0004-M.0-1-2-jetson-agx-xavier-devkit-\n",
    "etc/nvpmodel.conf": nvpmodel(
        7, "0 MAXN 8 0 -1 0 -1", "1 MODE_10W 2 5 520 1065.6 550", "7 MODE_15W_DESKTOP 4 0 670 1331.2 115.2"
    ),
    "var/lib/nvpmodel/status": "pmode:0001\n",
    **devfreq("17000000.gv11b", 114.75, 114.75, 520),
}
TREES["thor-jetpack-7"] = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    "proc/meminfo": meminfo(128_824_000, 120_000_000),
    "etc/nv_tegra_release": _release(38, "2.1"),
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nGPU MAX_FREQ -1\n"
    "< POWER_MODEL ID=1 NAME=120W >\nGPU MAX_FREQ 1386000000\n< PM_CONFIG DEFAULT=1 >\n",
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "var/lib/dpkg/status": packages(
        "nvidia-jetpack 7.0-b128",
        "libnvinfer10 10.13.3.9-1+cuda13.0",
        "cuda-cudart-13-0 13.0.48-1",
        "libcudnn9-cuda-13 9.12.0.46-1",
    ),
    **devfreq("gpu-gpc-0", 315, 315, 1575),
    **devfreq("gpu-nvd-0", 315, 315, 1692),
}
