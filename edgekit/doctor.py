"""What works here, what is missing, and what to type to get it. Looks at everything, raises nothing.

A package that crashes or hangs while it is imported is a finding like any other: imports happen in child
processes, all at the same time.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from edgekit import hosts, jetson, machine
from edgekit import target as targets
from edgekit._version import __version__
from edgekit.backends import BACKENDS
from edgekit.backends.base import Availability
from edgekit.errors import UnavailableError
from edgekit.jetson import Jetson
from edgekit.kernels.base import NUMBA, gpu_missing, numba_is_forced, numba_missing
from edgekit.machine import Machine
from edgekit.metrics.base import SCIPY, SKIMAGE
from edgekit.registry import Requirement
from edgekit.target import Match, Target

State = Literal["found", "missing", "broken"]

_MIN_PYTHON = (3, 10)

# Packages beside the backends' own, and what they are good for. Looked up in metadata, never imported.
_PACKAGES = {
    "take in ONNX models": Requirement("onnx", "onnx", "onnx", "1.21"),
    "hold models as graphs": Requirement("onnx_ir", "onnx-ir", "onnx", "1.1"),
    "simplify graphs": Requirement("onnxscript", "onnxscript", "onnx", "0.7.2"),
    "export PyTorch models": Requirement("torch", "torch", "torch", "2.10"),
    "compile operators where the extension is missing": NUMBA,
    "read DICOM images": Requirement("pydicom", "pydicom", "dicom", "3.0.2"),
    "read NIfTI images": Requirement("nibabel", "nibabel", "nifti", "5.3"),
    "read pictures": Requirement("PIL", "pillow", "pictures", "11"),
    "measure distances of surfaces": SCIPY,
    "measure likeness of images": SKIMAGE,
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: Its name.
        purpose: What it is good for.
        state: ``"found"``, ``"missing"`` or ``"broken"`` (installed, but it does not load).
        versions: Installed versions; of the kernels, the instruction set in use, or Numba.
        reason: Why not, when not found; otherwise what it stands in for, if anything.
        hint: What to type then.
    """

    name: str
    purpose: str
    state: State
    versions: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was looked at.

    Attributes:
        edgekit: Version of edgekit.
        python: Version of the interpreter, and whether it is new enough.
        backends: What compiles and runs networks.
        kernels: The compiled kernels.
        gpu: The same for a GPU.
        operators: edgekit's operators in the runtimes that networks run in.
        packages: Optional packages.
        machine: This machine.
        target: Name of the target that describes this machine best, or empty.
        jetson: What is known of it, where it is a Jetson.
        mismatches: In what the Jetson differs from its target.
        other_targets: Other targets whose instruction set extensions are all here.
        free_memory_bytes: Memory that can be had now; 0 where unknown.
        free_disk_bytes: Space in the current folder; 0 where unknown.
    """

    edgekit: str
    python: Finding
    backends: tuple[Finding, ...]
    kernels: Finding
    gpu: Finding
    operators: tuple[Finding, ...]
    packages: tuple[Finding, ...]
    machine: Machine
    target: str
    other_targets: tuple[str, ...]
    free_memory_bytes: int
    free_disk_bytes: int
    jetson: Jetson | None = None
    mismatches: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether any backend works."""
        return any(backend.state == "found" for backend in self.backends)


def examine() -> Diagnosis:
    """Look at everything; takes as long as the slowest import."""
    with ThreadPoolExecutor(max_workers=max(1, len(BACKENDS))) as pool:
        backends = pool.map(_backend, BACKENDS)
        here = machine.record()
        fitting = _fitting_targets(here)
        board, match = _jetson()
        best = match.target.name if match.target else best_target(here, fitting)
        return Diagnosis(
            edgekit=__version__,
            python=_python(),
            kernels=_guarded("kernels", "run operators fast", _kernels),
            gpu=_guarded("CUDA kernels", "run operators on a GPU", _gpu),
            operators=tuple(
                _guarded(f"operators in {name}", "run warps inside networks", partial(_operators, name))
                for name in hosts.ADAPTERS
            ),
            packages=tuple(
                _guarded(r.distribution, purpose, partial(_package, r)) for purpose, r in _PACKAGES.items()
            ),
            machine=here,
            target=best,
            other_targets=tuple(t.name for t in fitting if t.name != best),
            free_memory_bytes=_free_memory_bytes(),
            free_disk_bytes=_free_disk_bytes(),
            backends=tuple(backends),
            jetson=board,
            mismatches=match.mismatches,
        )


def best_target(here: Machine, fitting: list[Target]) -> str:
    """Name of the target that describes a machine best, or empty.

    The one that is named like its processor; else the one that uses most of its extensions; else, where
    several use as many, the one that stands for many machines.
    """
    named = [t for t in fitting if t.cpu and _plain(t.cpu.model) in _plain(here.cpu)]
    most = max((len(t.cpu_features) for t in fitting), default=0)
    richest = [t for t in fitting if len(t.cpu_features) == most]
    general = [t for t in fitting if t.cpu is None]
    for candidates in (named, richest, general):
        if len(candidates) == 1:
            return candidates[0].name
    return ""


def _jetson() -> tuple[Jetson | None, Match]:
    """The Jetson that this is, and the target that it is; none, where it is no Jetson."""
    board = jetson.detect()
    with contextlib.suppress(Exception):  # as below
        return board, targets.matching(board) if board else Match(None, ())
    return board, Match(None, ())


def _fitting_targets(here: Machine) -> list[Target]:
    """Targets of this architecture whose extensions are all here."""
    with contextlib.suppress(Exception):  # a malformed file in the folder is for `edgekit targets` to report
        return [
            t
            for t in targets.known().values()
            if t.device == "cpu" and t.arch == here.arch and set(t.cpu_features) <= set(here.features)
        ]
    return []


def _plain(name: str) -> str:
    """A processor's name without marks: ``Intel(R) N100`` -> ``intel n100``."""
    for mark in ("(R)", "(TM)", "CPU", "Processor"):
        name = name.replace(mark, "")
    return " ".join(name.lower().split())


def _guarded(name: str, purpose: str, look: Callable[[], Availability]) -> Finding:
    """What ``look`` found; whatever it raises is a finding too."""
    try:
        found = look()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
        found = Availability("broken", reason=f"{type(error).__name__}: {error}")
    return Finding(name, purpose, found.state, found.versions, found.reason, found.hint)


def _backend(name: str) -> Finding:
    return _guarded(name, "compile and run networks", lambda: BACKENDS[name].available(load=True))


def _package(requirement: Requirement) -> Availability:
    version = requirement.version()
    versions = {requirement.distribution: version} if version else {}
    reason = requirement.missing()
    if reason:
        return Availability("missing", versions, reason, requirement.install_line)
    return Availability("found", versions)


def _kernels() -> Availability:
    from edgekit import kernels

    status = kernels.native_status()
    if status.isa:
        return Availability("found", {"instruction set": status.isa})
    if status.isas and not numba_is_forced():
        return Availability("broken", reason=status.missing, hint="unset EDGEKIT_ISA")
    reason = status.missing if status.isas else f"extension missing: {status.missing}"
    if not numba_missing():
        return Availability("found", {"kernels": f"numba {NUMBA.version()}"}, reason)
    if status.isas:
        return Availability("broken", reason=numba_missing(), hint="unset EDGEKIT_ISA")
    return Availability("missing", reason=reason, hint="pip install --force-reinstall edgekit")


def _gpu() -> Availability:
    reason = gpu_missing()
    return Availability("missing", reason=reason) if reason else Availability("found")


def _operators(runtime: str) -> Availability:
    """Whether a network for a runtime can hold edgekit's operators."""
    from edgekit.hosts import build

    try:
        built = build.built(hosts.ADAPTERS[runtime](), build.Platform.here())
    except UnavailableError as error:
        return Availability("missing", reason=error.message, hint=error.hint or "")
    return Availability("found", reason="" if built else "built at first use")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, _MIN_PYTHON))
    if sys.version_info[:2] < _MIN_PYTHON:
        return Finding("python", "run edgekit", "broken", {"python": version}, f"want >= {wanted}")
    return Finding("python", "run edgekit", "found", {"python": version})


def _free_memory_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10
    return 0


def _free_disk_bytes() -> int:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(Path.cwd()).free
    return 0
