"""JetPack, the system software of a Jetson: which release has which versions. The one place for them.

A module runs what its JetPack ships: a plug-in, a cubin or an engine for another version is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgekit.errors import TargetError, did_you_mean


@dataclass(frozen=True)
class JetPack:
    """One line of releases, all with the same versions of what a network is compiled against.

    Attributes:
        version: Major and minor: ``"6.2"``.
        releases: Jetson Linux (L4T) of each release, the oldest first: ``{"6.2": ("36.4.3",)}``.
        tensorrt: Version that it ships.
        cuda: Version of the toolkit and of what the driver takes.
        cudnn: Version that it ships; empty where unknown.
        ubuntu: The system.
        glibc: Its C library.
        python: Its interpreter.
        unverified: Names of attributes whose values come from no primary source.
        sources: Where the versions come from.
    """

    version: str
    releases: Mapping[str, tuple[str, ...]]
    tensorrt: str
    cuda: str
    cudnn: str
    ubuntu: str
    glibc: str
    python: str
    unverified: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def software(self) -> dict[str, str]:
        """What a target of this JetPack says of its software; versions that are unknown are left out."""
        names = ("tensorrt", "cuda", "cudnn", "ubuntu", "glibc", "python")
        known = {name: getattr(self, name) for name in names if getattr(self, name)}
        return {"jetpack": self.version, "l4t": list(self.releases.values())[-1][-1], **known}


_GUIDE = "docs.nvidia.com/jetson/archives, Developer Guide"


def _five() -> JetPack:
    return JetPack(
        version="5.1",
        releases={
            "5.1.1": ("35.3.1",),
            "5.1.2": ("35.4.1",),
            "5.1.3": ("35.5.0",),
            "5.1.4": ("35.6.0",),
            "5.1.5": ("35.6.1", "35.6.2", "35.6.3"),
            "5.1.6": ("35.6.4",),
        },
        tensorrt="8.5.2",
        cuda="11.4",
        cudnn="8.6.0",
        ubuntu="20.04",
        glibc="2.31",
        python="3.8",
        sources=(
            "developer.nvidia.com/embedded/jetpack-sdk-511 and jetpack-sdk-514",
            f"{_GUIDE} r35.4.1: toolchain",
        ),
    )


def _six(version: str, releases: Mapping[str, tuple[str, ...]], **versions: str) -> JetPack:
    unverified = ("cuda", "cudnn") if version == "6.0" else ()
    return JetPack(
        version=version,
        releases=releases,
        **versions,
        ubuntu="22.04",
        glibc="2.35",
        python="3.10",
        unverified=unverified,
        sources=(
            "github.com/NVIDIA/Deep-Learning-Accelerator-SW, operators/README: TensorRT of JetPack 6.0",
            "docs.pytorch.org/TensorRT/getting_started/jetpack.html: JetPack 6.1 and 6.2",
            f"{_GUIDE} r36.4.3: system and toolchain",
        ),
    )


def _seven(
    version: str, releases: Mapping[str, tuple[str, ...]], *, unverified: tuple[str, ...], **versions: str
) -> JetPack:
    return JetPack(
        version=version,
        releases=releases,
        **versions,
        ubuntu="24.04",
        glibc="2.39",
        python="3.12",
        unverified=(*unverified, "glibc", "python"),
        sources=(
            "developer.nvidia.com/embedded/jetpack/downloads, archive-7.0, archive-7.1 and archive-7.2",
            f"{_GUIDE} r38.2.1: architecture",
        ),
    )


_ALL = (
    _five(),
    _six("6.0", {"6.0": ("36.3.0",)}, tensorrt="8.6.2", cuda="12.2", cudnn="8.9.4"),
    _six("6.1", {"6.1": ("36.4.0",)}, tensorrt="10.3", cuda="12.6", cudnn="9.3"),
    _six(
        "6.2",
        {"6.2": ("36.4.3",), "6.2.1": ("36.4.4", "36.4.7"), "6.2.2": ("36.5.0",)},
        tensorrt="10.3",
        cuda="12.6",
        cudnn="9.3",
    ),
    _seven(
        "7.0",
        {"7.0": ("38.2.0", "38.2.1")},
        tensorrt="10.13",
        cuda="13.0",
        cudnn="9.12",
        unverified=("tensorrt", "cudnn"),
    ),
    _seven(
        "7.1",
        {"7.1": ("38.4.0",)},
        tensorrt="10.13",
        cuda="13.0",
        cudnn="",
        unverified=("tensorrt",),
    ),
    _seven("7.2", {"7.2": ("39.2.0",)}, tensorrt="10.16.2", cuda="13.2.1", cudnn="", unverified=()),
)

JETPACKS: Mapping[str, JetPack] = MappingProxyType({one.version: one for one in _ALL})


def find(version: str) -> JetPack:
    """The JetPack of a version such as ``"6.2"``, or of one of its releases such as ``"6.2.1"``.

    Raises:
        TargetError: There is none; the hint names the nearest.
    """
    for one in JETPACKS.values():
        if version == one.version or version in one.releases:
            return one
    near = did_you_mean(version, JETPACKS)
    raise TargetError(
        f"unknown JetPack {version!r}: want one of {', '.join(JETPACKS)}",
        where="--jetpack",
        hint=f"did you mean {near!r}?" if near else "edgekit targets NAME says which ones a module has",
    )


def of_l4t(release: str) -> tuple[str, JetPack] | None:
    """The release of JetPack with this Jetson Linux, ``"36.4.3"``, and its line; ``None`` where unknown.

    One that is not in the table goes with the nearest older one of the same major number, and without the
    release's name: ``"36.4.9"`` is some 6.2.
    """
    for one in JETPACKS.values():
        for name, systems in one.releases.items():
            if release in systems:
                return name, one
    numbers = _numbers(release)
    older = [
        (_numbers(system), one)
        for one in JETPACKS.values()
        for systems in one.releases.values()
        for system in systems
        if _numbers(system)[:1] == numbers[:1] and _numbers(system) <= numbers
    ]
    if not numbers or not older:
        return None
    one = max(older, key=lambda pair: pair[0])[1]
    return one.version, one


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d{1,6}", version))
