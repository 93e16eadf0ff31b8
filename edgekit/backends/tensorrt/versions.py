"""What each version of TensorRT has, as far as a plan depends on it.

Read off the public headers and ``trtexec`` of 8.5, 8.6, 10.0 to 10.16, 11.0 and 11.1
(github.com/NVIDIA/TensorRT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.errors import UsageError

Version = tuple[int, int]

# What JetPack ships, where a version is told without its last part.
_PATCHES = {(8, 5): 2, (8, 6): 2}


def parse(text: str) -> Version:
    """``(10, 3)`` for ``"10.3.0.30"``.

    Raises:
        UsageError: It is no version that plans are made for: 8.5, 8.6, or 10.0 and later.
    """
    match = re.match(r"(\d+)\.(\d+)", text)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version not in ((8, 5), (8, 6)) and version < (10, 0):
        raise UsageError(f"TensorRT: want 8.5, 8.6, or 10.0 and later, got {text or 'none'}")
    return version


@dataclass(frozen=True)
class Abilities:
    """What a version has.

    Attributes:
        strong_typing: A network whose types are those of the ONNX file, and are kept.
        weak_typing: Flags that allow a precision, calibration, and precisions of layers.
        optimization_level: The builder's effort can be chosen.
        tactic_dram: Memory for the tactics it times can be capped.
        fails_on_cache_miss: A build can be told to time nothing that the timing cache does not know.
        editable_cache: The timing cache can be edited, and pins a tactic for each layer.
        independent_of_batch: A result can be asked for that does not depend on the batch's other items.
        progress: It tells how far a build is.
        loads_libraries: Its registry loads libraries of plug-ins.
    """

    strong_typing: bool
    weak_typing: bool
    optimization_level: bool
    tactic_dram: bool
    fails_on_cache_miss: bool
    editable_cache: bool
    independent_of_batch: bool
    progress: bool
    loads_libraries: bool


def abilities(version: Version) -> Abilities:
    """What a version has."""
    return Abilities(
        strong_typing=version >= (10, 0),
        weak_typing=version < (11, 0),
        optimization_level=version >= (8, 6),
        tactic_dram=version >= (8, 6),
        fails_on_cache_miss=version >= (10, 0),
        editable_cache=version >= (10, 8),
        independent_of_batch=version >= (10, 13),
        progress=version >= (10, 0),
        loads_libraries=version >= (8, 6),
    )


def has_dla(version: Version) -> bool:
    """Whether a version compiles for deep-learning accelerators: until 10.7, and from 11.4.1 on AGX Orin."""
    return version <= (10, 7) or version > (11, 4)


def number(text: str) -> int:
    """The version as TensorRT writes it into its files: 8502 for 8.5.2, 100300 for 10.3.0."""
    version = parse(text)
    match = re.match(r"\d+\.\d+\.(\d+)", text)
    patch = int(match[1]) if match else _PATCHES.get(version, 0)
    major, minor = version
    return major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch
