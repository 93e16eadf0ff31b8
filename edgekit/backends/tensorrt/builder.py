"""Build an engine as a plan says, through TensorRT's Python interface of 8.5 to 11.

``Builder`` is all that :mod:`edgekit.finalization` wants of whatever builds.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgekit.backends.base import ArtifactInfo, NetworkSession
from edgekit.backends.tensorrt import cuda, versions, weak
from edgekit.backends.tensorrt.plan import BuildPlan
from edgekit.backends.tensorrt.session import Session
from edgekit.errors import CompileError, LimitError, SessionError, UnavailableError, UnsupportedError
from edgekit.registry import resolve

# What builds and opens engines; tests put another one in its place.
BUILDER = "edgekit.backends.tensorrt.builder:TensorrtBuilder"

# What is being done, how many of its steps are done, and how many it has; 0 of 0 where nobody knows.
Report = Callable[[str, int, int], None]
_OUT_OF_MEMORY = ("out of memory", "insufficient memory", "std::bad_alloc", "CUDA_ERROR_OUT_OF_MEMORY")


@dataclass(frozen=True)
class Built:
    """What a build gives: the engine, and the timing cache with all that was timed for it."""

    engine: bytes
    timing_cache: bytes


class Builder(Protocol):
    """What builds engines and opens them, on the device."""

    @property
    def version(self) -> str:
        """Version of TensorRT, in full."""

    def device(self) -> cuda.Device:
        """The GPU that is built for: the one of this machine."""

    def build(self, plan: BuildPlan, folder: Path, timing_cache: bytes, report: Report) -> Built:
        """Build an engine.

        Args:
            plan: How, for the version that is here.
            folder: That holds the files that the plan names.
            timing_cache: From an earlier build on this device, or empty.
            report: Told how far it is.

        Raises:
            UnsupportedError: TensorRT's parser does not take the network.
            CompileError: TensorRT builds no engine.
            LimitError: The device has too little memory.
        """

    def layers(self, engine: bytes, plugins: Path | None) -> str:
        """What became of every layer, as TensorRT's inspector tells it: JSON."""

    def open(self, engine: bytes, info: ArtifactInfo, plugins: Path | None) -> NetworkSession:
        """Open an engine that is trusted: it is run as machine code."""


def make() -> Builder:
    """The builder of this machine.

    Raises:
        UnavailableError: TensorRT is not installed, or does not load.
    """
    found: Builder = resolve(BUILDER)()
    return found


class TensorrtBuilder:
    """TensorRT's Python package.

    Args:
        package: What it is imported as.

    Raises:
        UnavailableError: It is not installed, or does not load.
    """

    def __init__(self, package: str = "tensorrt") -> None:
        try:
            self._trt = importlib.import_module(package)
        except Exception as error:  # noqa: BLE001 - a broken binary package raises anything
            raise UnavailableError(
                f"TensorRT's Python package does not load: {error}",
                where=f"import {package}",
                hint="sudo apt install python3-libnvinfer, or build with the bundle's build.sh",
            ) from None
        self._logger, self.errors = _logger(self._trt)
        self._libraries: set[str] = set()

    @property
    def version(self) -> str:
        """Version of TensorRT, in full."""
        return str(self._trt.__version__)

    def device(self) -> cuda.Device:
        """This machine's GPU."""
        return cuda.device_here()

    def build(self, plan: BuildPlan, folder: Path, timing_cache: bytes, report: Report) -> Built:
        """Build an engine; see :class:`Builder`."""
        trt = self._trt
        self.errors.clear()
        builder = trt.Builder(self._logger)
        if plan.plugins:
            self._load(folder / plan.plugins)
        network = builder.create_network(_network_flags(trt, plan))
        report("parse", 0, 0)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse((folder / plan.model).read_bytes()):
            raise _refused(parser, plan.model)
        config = builder.create_builder_config()
        kept = _configure(trt, config, plan, report)  # TensorRT holds none of them itself
        kept.append(_set_profiles(builder, config, plan))
        if plan.calibration:
            kept.append(_set_scales(trt, config, (folder / plan.calibration).read_bytes(), self.version))
            if kept[-2] is not None:
                config.set_calibration_profile(kept[-2])
        for index in range(network.num_layers if plan.layer_precisions else 0):
            layer = network.get_layer(index)
            if layer.name in plan.layer_precisions:
                layer.precision = trt.float32
        cache = config.create_timing_cache(timing_cache)
        config.set_timing_cache(cache, ignore_mismatch=False)
        report("build", 0, 0)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise self._failed()
        del kept
        return Built(bytes(engine), bytes(config.get_timing_cache().serialize()))

    def layers(self, engine: bytes, plugins: Path | None) -> str:
        """What became of every layer."""
        inspector = self._deserialize(engine, plugins).create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def open(self, engine: bytes, info: ArtifactInfo, plugins: Path | None) -> NetworkSession:
        """Open an engine that is trusted."""
        driver = cuda.Driver()
        try:
            return Session(info, self._deserialize(engine, plugins), driver, self.errors)
        except BaseException:
            driver.close()
            raise

    def _deserialize(self, engine: bytes, plugins: Path | None) -> Any:
        if plugins:
            self._load(plugins)
        self.errors.clear()
        self._runtime = self._trt.Runtime(self._logger)  # it has to outlive its engines
        found = self._runtime.deserialize_cuda_engine(engine)
        if found is None:
            reason = self.errors[-1] if self.errors else "it does not say why"
            raise SessionError(
                f"TensorRT does not take the engine: {reason}",
                where="tensorrt",
                hint="edgekit finalize BUNDLE --force",
            )
        return found

    def _load(self, library: Path) -> None:
        """Load a library of plug-ins, once."""
        if str(library) in self._libraries:
            return
        if versions.abilities(versions.parse(self.version)).loads_libraries:
            registry = self._trt.get_plugin_registry()
            handle = registry.load_library(str(library))
            good = handle is not None
        else:
            good = _register(library)
        if not good:
            raise CompileError(
                f"TensorRT does not take the plug-ins: {self.errors[-1] if self.errors else library.name}",
                where=library.name,
                hint="compile the model again for the --jetpack of this device",
            )
        self._libraries.add(str(library))

    def _failed(self) -> CompileError | LimitError:
        said = "; ".join(self.errors[-3:]) or "it does not say why"
        if any(words in said for words in _OUT_OF_MEMORY):
            return LimitError(
                f"too little memory to build the engine: {said}",
                where="tensorrt",
                hint="close other programs, or compile with a smaller --option tensorrt.workspace_mib",
            )
        return CompileError(f"TensorRT builds no engine: {said}", where="tensorrt")


@functools.cache
def _logger(trt: Any) -> tuple[Any, list[str]]:
    """One for the process, as TensorRT keeps the first; and the errors that it was told, the newest last."""
    errors: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps errors; prints warnings, which end up in the log of the child process."""

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                errors.append(text.strip())
            if severity <= trt.ILogger.Severity.WARNING:
                print(text.strip(), flush=True)

    return Logger(), errors


def _network_flags(trt: Any, plan: BuildPlan) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if plan.version < (9, 0):
        return 1 << int(flags.EXPLICIT_BATCH)
    if plan.version < (11, 0) and plan.strongly_typed:
        return 1 << int(flags.STRONGLY_TYPED)
    return 0


def _configure(trt: Any, config: Any, plan: BuildPlan, report: Report) -> list[Any]:
    """Flags, memory, effort, placement; what has to live as long as the configuration."""
    abilities = versions.abilities(plan.version)
    config.clear_flag(trt.BuilderFlag.TF32)  # it is on by default
    flags = [*plan.flags, *(["ERROR_ON_TIMING_CACHE_MISS"] if plan.pinned else [])]
    for name in flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    pools = trt.MemoryPoolType
    config.set_memory_pool_limit(pools.WORKSPACE, plan.workspace_bytes)
    if abilities.tactic_dram:
        config.set_memory_pool_limit(pools.TACTIC_DRAM, plan.tactic_dram_bytes)
    if abilities.optimization_level:
        config.builder_optimization_level = plan.optimization_level
        config.max_aux_streams = plan.max_aux_streams
    config.avg_timing_iterations = plan.avg_timing_iterations
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if plan.dla:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = plan.dla.core
        config.set_memory_pool_limit(pools.DLA_MANAGED_SRAM, plan.dla.sram_bytes)
        config.set_memory_pool_limit(pools.DLA_LOCAL_DRAM, plan.dla.local_dram_bytes)
        config.set_memory_pool_limit(pools.DLA_GLOBAL_DRAM, plan.dla.global_dram_bytes)
    if not abilities.progress:
        return []
    monitor = _monitor(trt, report)
    config.progress_monitor = monitor
    return [monitor]


def _monitor(trt: Any, report: Report) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells of the outermost phase how far it is."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if not parent:
                self._steps[phase] = steps
                report(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self._steps:
                report(phase, step + 1, self._steps[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            if phase in self._steps:
                report(phase, self._steps[phase], self._steps.pop(phase))

    return Monitor()


def _set_profiles(builder: Any, config: Any, plan: BuildPlan) -> Any:
    if not plan.profiles:
        return None
    profile = builder.create_optimization_profile()
    for one in plan.profiles:
        profile.set_shape(one.input, one.min, one.opt, one.max)
    config.add_optimization_profile(profile)
    return profile


def _set_scales(trt: Any, config: Any, data: bytes, version: str) -> Any:
    """Hand over the scales of a file; nothing is calibrated here."""
    cache = weak.for_version(data, version)

    class Scales(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, data: bytes) -> None:
            return None

    scales = Scales()
    config.int8_calibrator = scales
    return scales


def _register(library: Path) -> bool:
    """Let the library register itself, where TensorRT's registry loads none (8.5)."""
    registry = ctypes.CDLL("libnvinfer.so.8").getPluginRegistry
    registry.restype = ctypes.c_void_p
    register = ctypes.CDLL(str(library)).edgekit_trt_register
    return bool(register(ctypes.c_void_p(registry())) == 0)


def _node(error: Any) -> str:
    """Which node an error of the parser is about: its number in TensorRT 8, operator and name later."""
    if not hasattr(error, "node_operator"):
        return f"node {error.node()}"
    return f"{error.node_operator()} {error.node_name()}".strip() or f"node {error.node()}"


def _refused(parser: Any, model: str) -> UnsupportedError:
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    texts = [f"{_node(error)}: {error.desc()}" for error in found]
    return UnsupportedError(
        f"TensorRT's parser does not take the network: {'; '.join(texts[:3]) or 'it does not say why'}",
        where=model,
        hint="edgekit check MODEL --target TARGET says what each version takes",
    )
