"""The build plan: everything that decides how an engine is built, as data.

The plan goes with the portable network. From it come the engine on the device (:mod:`.builder`), a
``trtexec`` command line and a C++ program (:mod:`.programs`), which all build the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgekit import schema
from edgekit.backends.tensorrt import versions
from edgekit.errors import CorruptError, MismatchError, UsageError
from edgekit.spec import Dim, TensorSpec
from edgekit.target import Target

FILE = "plan.json"
MODEL = "model.onnx"
CALIBRATION = "calibration.cache"
TIMING_CACHE = "timing.cache"
NO_DLA = -1

# Of the module's memory, which the processor and the system share: one eighth for workspace is 512 MiB on a
# module of 4 GiB; while tactics are timed half of it may be used, TensorRT's own limit is three quarters.
_WORKSPACE_SHARE = 8
_TACTIC_SHARE = 2
_DLA_LOCAL_BYTES, _DLA_GLOBAL_BYTES = 1 << 30, 512 << 20
_DLA_SRAM_BYTES = 1 << 20

# Layers of a network that compute in it: TensorRT's name, as the parser reads it.
Precision = str


@dataclass(frozen=True)
class Profile:
    """Shapes of one input: the smallest, the one to optimise for, the largest."""

    input: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Dla:
    """Placement on a deep-learning accelerator; what it does not take runs on the GPU.

    Attributes:
        core: Its number.
        sram_bytes: Its private memory.
        local_dram_bytes: Memory for its tensors.
        global_dram_bytes: Memory for its weights.
    """

    core: int
    sram_bytes: int = _DLA_SRAM_BYTES
    local_dram_bytes: int = _DLA_LOCAL_BYTES
    global_dram_bytes: int = _DLA_GLOBAL_BYTES


@dataclass(frozen=True)
class BuildPlan:
    """How to build an engine.

    Attributes:
        tensorrt: The version it is for.
        target: Name of the target.
        compute_capability: Of its GPU, ``"8.7"``.
        strongly_typed: The network's types are kept as they are; otherwise ``flags`` and calibration allow
            narrower ones.
        flags: Builder flags by TensorRT's names: ``"FP16"``, ``"INT8"``, ``"TF32"``, …
        workspace_bytes: Most memory that a layer may ask for.
        tactic_dram_bytes: Most memory that tactics may use while they are timed.
        optimization_level: Effort of the builder, 0 to 5.
        avg_timing_iterations: How often a tactic is timed.
        max_aux_streams: Streams beside the first one. 0: layers run one after another, in one order.
        profiles: One for each input whose shape varies.
        dla: Placement on an accelerator.
        calibration: File of scales for a weakly typed network, if any.
        layer_precisions: Layers of a weakly typed network that must compute in a precision: ``"fp32"``.
        plugins: File of the library with edgekit's operators, where the network has such.
        model: File of the network.
        timing_cache: File that keeps the tactics' times, and with them which one is taken.
        pinned: Times nothing: every tactic is the one in the timing cache.
    """

    tensorrt: str
    target: str
    compute_capability: str
    strongly_typed: bool
    flags: tuple[str, ...]
    workspace_bytes: int
    tactic_dram_bytes: int
    optimization_level: int = 3
    avg_timing_iterations: int = 8
    max_aux_streams: int = 0
    profiles: tuple[Profile, ...] = ()
    dla: Dla | None = None
    calibration: str = ""
    layer_precisions: dict[str, Precision] = field(default_factory=dict)
    plugins: str = ""
    model: str = MODEL
    timing_cache: str = TIMING_CACHE
    pinned: bool = False

    def __post_init__(self) -> None:
        abilities = versions.abilities(self.version)
        if self.strongly_typed and not abilities.strong_typing:
            raise UsageError(f"TensorRT {self.tensorrt} has no strongly typed networks")
        if not self.strongly_typed and not abilities.weak_typing:
            raise UsageError(f"TensorRT {self.tensorrt} has strongly typed networks alone")
        if self.strongly_typed and (
            self.calibration or self.layer_precisions or {"FP16", "INT8"} & set(self.flags)
        ):
            raise UsageError("a strongly typed network has its precisions in the file, and none in the plan")
        if self.dla and not versions.has_dla(self.version):
            raise UsageError(f"TensorRT {self.tensorrt} does not compile for accelerators (DLA)")
        if self.pinned and not abilities.fails_on_cache_miss:
            raise UsageError(f"TensorRT {self.tensorrt} cannot be held to its timing cache")
        if not 0 <= self.optimization_level <= 5:
            raise UsageError(f"the optimization level is 0 to 5, got {self.optimization_level}")
        if min(self.workspace_bytes, self.tactic_dram_bytes, self.avg_timing_iterations) <= 0:
            raise UsageError("memory and iterations want positive numbers")

    @property
    def version(self) -> versions.Version:
        """The version that it is for."""
        return versions.parse(self.tensorrt)

    def to_json(self) -> bytes:
        """The plan's file."""
        return (json.dumps(schema.encode(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str = FILE) -> BuildPlan:
        """Read a plan's file.

        Raises:
            CorruptError: It is none.
        """
        try:
            plain = json.loads(data)
        except ValueError as error:
            raise CorruptError(f"not a build plan: {error}", where=where) from None
        try:
            return schema.decode(cls, plain, error=CorruptError, where=where)
        except UsageError as error:
            raise CorruptError(f"not a build plan: {error.message}", where=where) from None

    def on(self, found: str) -> BuildPlan:
        """This plan for the version that is there.

        A strongly typed network means the same to every later version. A weakly typed one is for its major
        version.

        Raises:
            MismatchError: The network was not made for that version.
        """
        version = versions.parse(found)
        fits = version >= self.version and (self.strongly_typed or version[0] == self.version[0])
        if not fits:
            raise MismatchError(
                f"the network was prepared for TensorRT {self.tensorrt}, here is {found}",
                where=self.model,
                hint=f"edgekit compile MODEL --target {self.target}, with the --jetpack that this device has",
            )
        return replace(self, tensorrt=found, flags=_flags(version, self.flags))


def make(
    target: Target,
    inputs: tuple[TensorSpec, ...],
    *,
    strongly_typed: bool,
    precisions: frozenset[str] = frozenset(),
    tf32: bool = True,
    dla_core: int = NO_DLA,
    workspace_mib: int = 0,
    optimization_level: int = 3,
    max_aux_streams: int = 0,
    calibration: str = "",
    layer_precisions: Mapping[str, Precision] | None = None,
    plugins: str = "",
) -> BuildPlan:
    """The plan for a target.

    Args:
        target: The device, with the TensorRT that it has.
        inputs: Contracts of the network's inputs.
        strongly_typed: Whether the network's types are kept.
        precisions: What layers of a weakly typed network may compute in beside float32: ``"float16"``,
            ``"int8"``.
        tf32: Whether float32 layers may multiply with 10 bits of mantissa.
        dla_core: Accelerator to place layers on; -1 for none.
        workspace_mib: Most workspace; 0 for a share of the module's memory.
        optimization_level: Effort of the builder, 0 to 5.
        max_aux_streams: Streams beside the first one.
        calibration: File of scales, if any.
        layer_precisions: Precision of layers by name.
        plugins: File of the library with edgekit's operators, if any.

    Raises:
        UsageError: The version has not what is asked for.
    """
    text = target.software.get("tensorrt", "")
    version = versions.parse(text)
    wanted = [name for name, precision in (("FP16", "float16"), ("INT8", "int8")) if precision in precisions]
    if tf32:
        wanted.append("TF32")
    if dla_core != NO_DLA:
        wanted.append("GPU_FALLBACK")
    if layer_precisions:
        wanted.append("OBEY_PRECISION_CONSTRAINTS")
    wanted += ["EDITABLE_TIMING_CACHE", "DISTRIBUTIVE_INDEPENDENCE"]
    return BuildPlan(
        tensorrt=text,
        target=target.name,
        compute_capability=target.compute_capability,
        strongly_typed=strongly_typed,
        flags=_flags(version, tuple(wanted)),
        workspace_bytes=(workspace_mib << 20) or target.memory_bytes // _WORKSPACE_SHARE,
        tactic_dram_bytes=target.memory_bytes // _TACTIC_SHARE,
        optimization_level=optimization_level,
        max_aux_streams=max_aux_streams,
        profiles=profiles(inputs),
        dla=_dla(target, dla_core),
        calibration=calibration,
        layer_precisions=dict(layer_precisions or {}),
        plugins=plugins,
    )


def profiles(inputs: tuple[TensorSpec, ...]) -> tuple[Profile, ...]:
    """A profile for each input with a length that varies; what it is optimised for is halfway."""
    return tuple(
        Profile(
            spec.name,
            tuple(d.min if isinstance(d, Dim) else d for d in spec.dims),
            tuple(d.nearest((d.min + d.max) // 2) if isinstance(d, Dim) else d for d in spec.dims),
            tuple(d.largest if isinstance(d, Dim) else d for d in spec.dims),
        )
        for spec in inputs
        if not spec.is_static
    )


def _flags(version: versions.Version, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The flags that a version has. One that makes builds repeatable is taken where it is there."""
    abilities = versions.abilities(version)
    absent = set()
    if not abilities.editable_cache:
        absent.add("EDITABLE_TIMING_CACHE")
    if not abilities.independent_of_batch:
        absent.add("DISTRIBUTIVE_INDEPENDENCE")
    return tuple(flag for flag in wanted if flag not in absent)


def _dla(target: Target, core: int) -> Dla | None:
    if core == NO_DLA:
        return None
    engines = target.dla.engines if target.dla else 0
    if not 0 <= core < engines:
        raise UsageError(
            f"{target.title} has {engines or 'no'} accelerators (DLA), got core {core}",
            hint="--option tensorrt.dla_core=-1"
            if not engines
            else f"--option tensorrt.dla_core={engines - 1}",
        )
    assert target.dla
    return Dla(core, sram_bytes=target.dla.sram_bytes or _DLA_SRAM_BYTES)
