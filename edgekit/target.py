"""A target: the device a model is compiled for, read from one TOML file.

The folder ``targets/`` is the list of known devices; a path to a file of the same form names one of your own.
"""

from __future__ import annotations

import functools
import os
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgekit import jetpack, schema
from edgekit.errors import TargetError, did_you_mean
from edgekit.jetson import Jetson

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_FILE_BYTES = 64 << 10

Arch = Literal["x86_64", "aarch64"]
DeviceKind = Literal["cpu", "cuda"]
Precision = Literal["float32", "tf32", "bfloat16", "float16", "fp8", "fp4", "int8"]


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        model: Name of the part or of its cores.
        cores: Number of cores, all kinds together.
        clock_hz: Highest clock of the fastest kind of core.
        l2_bytes: Second-level cache, the whole processor's.
        l3_bytes: Third-level cache.
    """

    model: str
    cores: int
    clock_hz: float | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None


@dataclass(frozen=True)
class Gpu:
    """The graphics processor.

    Attributes:
        multiprocessors: Streaming multiprocessors.
        cuda_cores: All of them together.
        tensor_cores: All of them together.
        clock_hz: Highest clock.
        l2_bytes: Second-level cache.
        shared_bytes_per_multiprocessor: Most shared memory that the blocks of one multiprocessor can have.
    """

    multiprocessors: int
    cuda_cores: int
    tensor_cores: int
    clock_hz: float
    l2_bytes: int | None = None
    shared_bytes_per_multiprocessor: int | None = None


@dataclass(frozen=True)
class Dla:
    """Deep-learning accelerators beside the graphics processor. They take 2-D networks only.

    Attributes:
        engines: Number of them.
        int8_ops_per_s: Dense peak of all together.
        clock_hz: Highest clock.
        sram_bytes: Private memory of each.
    """

    engines: int
    int8_ops_per_s: float
    clock_hz: float | None = None
    sram_bytes: int | None = None


@dataclass(frozen=True)
class PowerMode:
    """One power mode, by name, since its number differs between releases; ``None`` where no figure is known.

    Attributes:
        name: As the vendor's tool prints it, without ``MODE_``.
        watts: Budget of the module.
        multiprocessors: Active ones: a mode may switch some off.
        gpu_clock_hz: Highest clock of the graphics processor.
        memory_clock_hz: Highest clock of the memory (EMC), which moves data twice in each.
        dla_clock_hz: Highest clock of the accelerators.
        bandwidth_bytes_per_s: Peak of the memory.
        int8_ops_per_s: Dense peak of the graphics processor.
        dla_int8_ops_per_s: Dense peak of all accelerators.
    """

    name: str
    watts: float | None = None
    multiprocessors: int | None = None
    gpu_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    dla_clock_hz: float | None = None
    bandwidth_bytes_per_s: float | None = None
    int8_ops_per_s: float | None = None
    dla_int8_ops_per_s: float | None = None


@dataclass(frozen=True)
class Target:
    """One device.

    Attributes:
        name: The file's name without ``.toml``.
        title: The name people use.
        arch: Instruction set architecture of its CPU.
        device: What runs the network.
        memory_bytes: Memory that the network can use (shared with the GPU on Jetson).
        bandwidth_bytes_per_s: Peak of the memory.
        threads: Threads to use unless the user says otherwise; 0 for all of the machine that runs the bundle.
        backends: Backends in the order in which they are tried.
        precisions: Number formats in order of preference.
        cpu: The processor; ``None`` for a target that stands for many machines.
        gpu: The graphics processor of a CUDA device.
        dla: Its accelerators, where it has any.
        aliases: Other names.
        compute_capability: ``"8.7"`` for CUDA devices, else empty.
        cpu_features: Instruction set extensions that may be used, as Linux names them in ``/proc/cpuinfo``.
        peak_ops_per_s: Dense peak of each precision, of the GPU where there is one; a multiply-add is two.
        advertised_ops_per_s: The vendor's headline figure, which counts sparsity and every engine.
        power_w: Smallest and largest power budget in watts.
        modules: Numbers of the modules that are such a device, as a device tree has them: ``"p3767-0003"``.
        jetpacks: Versions of JetPack that it runs, the oldest first.
        software: Versions that belong to the device: jetpack, l4t, tensorrt, cuda, cudnn, ubuntu, glibc,
            python. A file that names a JetPack need not name the others: :mod:`edgekit.jetpack` does.
        power_modes: Power modes, the smallest budget first.
        options: Options for each backend.
        unverified: Keys, dotted, whose figures come from no primary source and no measurement of ours.
        sources: Where the figures come from.
    """

    name: str
    title: str
    arch: Arch
    device: DeviceKind
    memory_bytes: int
    bandwidth_bytes_per_s: float
    threads: int
    backends: tuple[str, ...]
    precisions: tuple[Precision, ...]
    cpu: Cpu | None = None
    gpu: Gpu | None = None
    dla: Dla | None = None
    aliases: tuple[str, ...] = ()
    compute_capability: str = ""
    cpu_features: tuple[str, ...] = ()
    peak_ops_per_s: dict[Precision, float] = field(default_factory=dict)
    advertised_ops_per_s: float | None = None
    power_w: tuple[float, float] | None = None
    modules: tuple[str, ...] = ()
    jetpacks: tuple[str, ...] = ()
    software: dict[str, str] = field(default_factory=dict)
    power_modes: tuple[PowerMode, ...] = ()
    options: dict[str, dict[str, int | float | str | bool]] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.device == "cuda") != bool(self.compute_capability) or (self.device == "cuda") != bool(
            self.gpu
        ):
            raise TargetError(
                "compute_capability and [gpu] belong to a CUDA device, and every CUDA device has both"
            )
        if self.memory_bytes <= 0 or self.bandwidth_bytes_per_s <= 0 or self.threads < 0:
            raise TargetError(
                "memory_bytes and bandwidth_bytes_per_s want positive numbers, threads 0 or more"
            )
        if not self.backends:
            raise TargetError("backends wants at least one name")
        self._check_jetpacks()
        precisions = typing.get_args(Precision)
        for key in self.peak_ops_per_s:
            if key not in precisions:
                raise TargetError(f"peak_ops_per_s has no precision {key!r}: want {', '.join(precisions)}")
        plain = schema.encode(self)
        for doubted in self.unverified:
            if not _has(plain, doubted):
                raise TargetError(f"unverified names {doubted!r}, which the target does not state")

    def _check_jetpacks(self) -> None:
        for version in self.jetpacks:
            if version not in jetpack.JETPACKS:
                raise TargetError(f"jetpacks names {version!r}: want some of {', '.join(jetpack.JETPACKS)}")
        if bool(self.jetpacks) != ("jetpack" in self.software):
            raise TargetError("jetpacks and software.jetpack belong together: one device has both or neither")

    def is_unverified(self, key: str) -> bool:
        """Whether the figure of this dotted key, or the table that it stands in, is unverified."""
        return any(key == doubted or key.startswith(doubted + ".") for doubted in self.unverified)

    def options_for(self, backend: str) -> dict[str, int | float | str | bool]:
        """The options of one backend."""
        return self.options.get(backend, {})


def _has(plain: Any, key: str) -> bool:
    """Whether the dotted key leads somewhere; items of a list are found by their name."""
    for part in key.split("."):
        if isinstance(plain, list):
            plain = {item["name"]: item for item in plain if isinstance(item, dict)}
        if not isinstance(plain, dict) or part not in plain:
            return False
        plain = plain[part]
    return True


def folder() -> Path:
    """Where the known targets lie: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_targets"
    return installed if installed.is_dir() else package.parent / "targets"


def _stem(path: Path) -> str:
    return path.stem


@functools.cache
def known() -> dict[str, Target]:
    """All known targets by name, sorted.

    Raises:
        TargetError: A file is malformed, or two targets share a name or an alias.
    """
    targets = {path.stem: read(path) for path in sorted(folder().glob("*.toml"), key=_stem)}
    owner: dict[str, str] = {}
    for target in targets.values():
        for name in (target.name, *target.aliases):
            if name in owner:
                raise TargetError(
                    f"{name!r} names both {owner[name]!r} and {target.name!r}", where=str(folder())
                )
            owner[name] = target.name
    return targets


def find(name: str) -> Target:
    """The target of this name or alias, or the one described by the TOML file at this path.

    Raises:
        TargetError: There is none; the hint names the nearest.
    """
    if name.endswith(".toml") or os.sep in name:
        return read(Path(name))
    names = {alias: target for target in known().values() for alias in (target.name, *target.aliases)}
    if name in names:
        return names[name]
    near = did_you_mean(name, names)
    raise TargetError(
        f"unknown target {name!r}: want one of {', '.join(names)}",
        where="--target",
        hint=f"did you mean {near!r}?" if near else "edgekit targets lists them",
    )


def with_jetpack(device: Target, version: str) -> Target:
    """The device with another JetPack: its software is that JetPack's.

    Args:
        device: A target.
        version: Such as ``"6.2"``, or one of its releases, ``"6.2.1"``.

    Raises:
        TargetError: There is no such JetPack, or the device has none or not this one.
    """
    if not device.jetpacks:
        raise TargetError(
            f"{device.title} has no JetPack",
            where="--jetpack",
            hint="leave --jetpack out, or name a Jetson: edgekit targets lists them",
        )
    wanted = jetpack.find(version)
    if wanted.version not in device.jetpacks:
        raise TargetError(
            f"{device.title} does not run JetPack {version}: want {', '.join(device.jetpacks)}",
            where="--jetpack",
            hint=_other_way(device, wanted.version),
        )
    others = tuple(key for key in device.unverified if not key.startswith("software"))
    doubted = tuple(f"software.{name}" for name in wanted.unverified if name in wanted.software)
    return replace(device, software=wanted.software, unverified=(*others, *doubted))


def _other_way(device: Target, version: str) -> str:
    """What to type instead: another target of the same module, where that runs it, else another JetPack."""
    for other in known().values():
        if version in other.jetpacks and set(other.modules) & set(device.modules):
            return f"--target {other.name} --jetpack {version}"
    return f"--jetpack {device.jetpacks[-1]}"


@dataclass(frozen=True)
class Match:
    """What is known of a Jetson at hand.

    Attributes:
        target: The target that it is, with the JetPack that is installed, where it runs that; ``None`` where
            it is none of the known ones.
        mismatches: What differs from the target's figures, in words.
    """

    target: Target | None
    mismatches: tuple[str, ...]


def matching(jetson: Jetson) -> Match:
    """Which known target a Jetson is, and in what it differs."""
    candidates = [t for t in known().values() if jetson.module and jetson.module in t.modules]
    candidates = candidates or [t for t in known().values() if _resembles(t, jetson)]
    flavours = [t for t in candidates if t.name.endswith("-super") == jetson.super_clocks] or candidates
    if len(flavours) != 1:
        names = ", ".join(t.name for t in flavours)
        number = jetson.module or jetson.chip or "no number of a module"
        return Match(None, (f"{number} is {f'one of {names}' if names else 'no module that is known here'}",))
    found = flavours[0]
    installed = jetpack.of_l4t(jetson.l4t)
    if installed and installed[1].version in found.jetpacks:
        found = with_jetpack(found, installed[1].version)
    return Match(found, tuple(_mismatches(found, jetson)))


# Of a chip: its compute capability.
_CAPABILITIES = {"tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}


def _resembles(target: Target, jetson: Jetson) -> bool:
    """Whether a Jetson without the number of its module may be a target: by chip, memory and name."""
    if target.compute_capability != _CAPABILITIES.get(jetson.chip) or not jetson.memory_bytes:
        return False
    families = {family for family in ("Nano", "NX", "AGX") if family in jetson.model}
    named = not families or target.compute_capability == "11.0" or any(f in target.title for f in families)
    return named and 0.75 < jetson.memory_bytes / target.memory_bytes <= 1


def _mismatches(target: Target, jetson: Jetson) -> Iterator[str]:
    assert target.gpu is not None
    installed = jetpack.of_l4t(jetson.l4t)
    if not installed:
        yield f"Jetson Linux {jetson.l4t or 'of an unknown version'} belongs to no JetPack that is known here"
    elif installed[1].version not in target.jetpacks:
        yield f"JetPack {installed[0]} is none that {target.title} runs: {', '.join(target.jetpacks)}"
    for name in ("tensorrt", "cuda"):
        here, wanted = getattr(jetson, name), target.software[name]
        if here and here.split(".")[:2] != wanted.split(".")[:2]:
            title = {"tensorrt": "TensorRT", "cuda": "CUDA"}[name]
            yield f"{title} {here} is installed, JetPack {target.software['jetpack']} has {wanted}"
    if jetson.memory_bytes and jetson.memory_bytes < 0.75 * target.memory_bytes:
        here = f"{jetson.memory_bytes / 2**30:.1f}"
        yield f"{here} GiB of memory, {target.title} has {target.memory_bytes >> 30}"
    mode = f"power mode {jetson.mode.name}" if jetson.mode else "the power mode"
    clock = jetson.gpu_clock.highest_hz or (jetson.mode.gpu_clock_hz if jetson.mode else None)
    if clock and clock < 0.98 * target.gpu.clock_hz:
        yield f"{mode} allows the GPU {clock / 1e6:.0f} of {target.gpu.clock_hz / 1e6:.0f} MHz"
    if jetson.multiprocessors and jetson.multiprocessors < target.gpu.multiprocessors:
        yield f"{mode} leaves {jetson.multiprocessors} of {target.gpu.multiprocessors} multiprocessors on"


def read(path: Path) -> Target:
    """Read and check one file.

    Raises:
        TargetError: It cannot be read, is not TOML, or does not describe a target.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TargetError(
            f"cannot read the target: {error.strerror}",
            where=str(path),
            hint="edgekit targets lists the known ones",
        ) from None
    if len(text) > _MAX_FILE_BYTES:
        raise TargetError(f"a target file has at most {_MAX_FILE_BYTES} bytes", where=str(path))
    try:
        data: dict[str, Any] = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TargetError(f"not a TOML file: {error}", where=str(path)) from None
    target = schema.decode(Target, data, error=TargetError, where=str(path))
    if target.name != path.stem:
        raise TargetError(f"the file's name wants to be {target.name}.toml, got {path.name}", where=str(path))
    if list(target.software) != ["jetpack"]:
        return target
    try:
        return with_jetpack(target, target.software["jetpack"])
    except TargetError as error:
        raise TargetError(error.message, where=f"{path}: software.jetpack") from None
