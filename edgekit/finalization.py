"""Finish a bundle on its device: build the engine there, prove it, keep it beside the bundle.

Building runs in a child process with a budget. What is kept was run on the bundle's golden case and passed
its limits; what is interrupted, fails or runs out of anything leaves nothing. See :mod:`edgekit.engines` for
which engine is loaded later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import compare, engines, isolation, jetson, runtime, samples, schema
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.backends.tensorrt import backend as tensorrt
from edgekit.backends.tensorrt import builder as builders
from edgekit.backends.tensorrt.cuda import Device
from edgekit.bundle import Bundle, read
from edgekit.engines import EngineKey, EngineRecord, Spread
from edgekit.errors import (
    CompileError,
    CorruptError,
    GateError,
    LimitError,
    MismatchError,
    UnavailableError,
    UsageError,
)
from edgekit.isolation import Limits
from edgekit.registry import resolve
from edgekit.reports import AccuracyReport
from edgekit.spec import Array

Observer = Callable[[str], None]

TIME_LIMIT_S = 3600.0
_LOOK_S = 120.0
# Of the network's file, what a build holds at once: the file, its weights in the network, in the engine.
_COPIES = 3


@dataclass(frozen=True)
class Finalized:
    """What :func:`finalize` did.

    Attributes:
        engine: The engine's file.
        network: Name of the network in the bundle.
        record: What is known of the engine.
        built: Whether it was built now; it was there otherwise.
        notes: What a user wants to know.
    """

    engine: Path
    network: str
    record: EngineRecord
    built: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Build:
    """One build: the engine, what is kept with it, the results of the bundle's case, seconds."""

    engine: bytes
    timing_cache: bytes
    layers: str
    results: dict[str, Array]
    build_s: float


def finalize(
    bundle: str | Path,
    *,
    network: str = "",
    plugins: Path | None = None,
    reproduce: int = 1,
    force: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_bytes: int = 16 << 30,
    on_event: Observer = lambda event: None,
) -> Finalized:
    """Build the engine of a bundle on this device, verify it, and keep it beside the bundle.

    Args:
        bundle: The bundle's file.
        network: Name of the network to finish; the first that wants it otherwise.
        plugins: A library of plug-ins made on this device, where the bundle holds none. It is run as machine
            code.
        reproduce: Build so often, each time without what the others have timed, and record how far the builds
            differ; the first one is kept.
        force: Build also where an engine is there that fits.
        time_limit_s: For each build.
        memory_limit_bytes: Likewise, resident memory.
        on_event: Called with one line at the beginning of each phase.

    Raises:
        BundleError: The bundle is damaged, or for another device or software; or others can write where
            engines lie.
        UnavailableError: TensorRT, the GPU, or the library of plug-ins is missing.
        UnsupportedError, CompileError: TensorRT refuses the network, or builds no engine.
        LimitError: Time, memory or disk ran out.
        GateError: The engine exceeds a limit on the golden case.
    """
    path = Path(bundle)
    if reproduce < 1:
        raise UsageError(f"reproduce: want 1 build or more, got {reproduce}", where="--reproduce")
    on_event(f"read {path}")
    content = read(path)
    artifact = _artifact(content, network, plugins, path)
    key, device = _look(artifact)
    _check_memory(artifact, device)
    on_event(f"{device.name}, TensorRT {key.tensorrt}, {device.multiprocessors} multiprocessors{_mode(key)}")
    notes: list[str] = []
    if not force and reproduce == 1:
        present = _present(path, key, notes)
        if present is not None:
            return Finalized(engines.engine_file(path, key), artifact.info.name, present, built=False)
    tensorrt.plugin_file(artifact)  # refuses a missing one before the work
    limits = Limits(time_limit_s, memory_limit_bytes)
    timing = engines.timing_cache(path, key) if reproduce == 1 else b""
    builds = []
    for number in range(reproduce):
        on_event(f"build {number + 1} of {reproduce}" if reproduce > 1 else "build the engine")
        builds.append(_build(content, artifact, timing, limits, on_event))
    first = builds[0]
    accuracy = _verify(content, first.results, notes)
    record = EngineRecord(
        format=engines.FORMAT,
        key=key,
        engine_sha256="",
        timing_sha256="",
        edgekit="",
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_s=first.build_s,
        accuracy=accuracy,
        spread=_spread(builds) if reproduce > 1 else None,
    )
    on_event(f"write {engines.engine_file(path, key)}")
    more = {"layers": first.layers.encode(), engines.TIMING: first.timing_cache}
    name = tensorrt.plan_of(artifact).plugins
    if name and name not in content.artifact(content.manifest.named(artifact.info.name)).files:
        more[name] = artifact.files[name]
    record = engines.save(path, record, first.engine, more)
    return Finalized(engines.engine_file(path, key), artifact.info.name, record, True, tuple(notes))


def open(
    bundle: str | Path,
    *,
    network: str = "",
    threads: int = 0,
    time_limit_s: float = TIME_LIMIT_S,
    on_event: Observer = lambda event: None,
) -> runtime.Session:
    """Open a bundle for running; where its engine is not there yet, finish it first.

    Args:
        bundle: The bundle's file.
        network: Name of the network to open; the first that runs here otherwise.
        threads: Threads to use; 0 for all that the process may use.
        time_limit_s: For building the engine.
        on_event: Called with one line at the beginning of each phase.

    Raises:
        EdgekitError: As :func:`finalize` and :func:`edgekit.runtime.open`.
    """
    names = {info.name for info in read(Path(bundle)).manifest.networks if wants_finalizing(info)}
    if names and (not network or network in names):
        finalize(bundle, network=network, time_limit_s=time_limit_s, on_event=on_event)
    return runtime.open(bundle, network=network, threads=threads)


def wants_finalizing(info: ArtifactInfo) -> bool:
    """Whether a network is finished on its device."""
    return info.form == "portable" and info.backend == tensorrt.BACKEND.name


def _artifact(content: Bundle, network: str, plugins: Path | None, path: Path) -> Artifact:
    """The network to finish, with the plug-ins that the user made for it."""
    manifest = content.manifest
    wanted = (manifest.named(network),) if network else manifest.networks
    info = next((one for one in wanted if wants_finalizing(one)), None)
    if info is None:
        raise UsageError(
            f"nothing to finalize: {', '.join(one.name for one in wanted)} run as they are",
            where=str(path),
            hint=f"edgekit run {path}",
        )
    artifact = content.artifact(info)
    if plugins is None:
        return engines.with_kept_plugins(path, artifact)
    try:
        return engines.with_plugins(artifact, plugins.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the plug-ins: {error.strerror}", where=str(plugins)) from None


def _look(artifact: Artifact) -> tuple[EngineKey, Device]:
    """What the engine would be built for, as TensorRT and the driver tell it in a child process."""
    outcome = isolation.run(
        "edgekit.finalization:_look_job",
        {"builder": builders.BUILDER},
        limits=Limits(_LOOK_S),
        what="looking at TensorRT and the GPU",
        error=CompileError,
    )
    device = schema.decode(Device, outcome.value["device"], error=CorruptError, where="device")
    key = engines.key_of(artifact, outcome.value["tensorrt"], device, engines.power_mode())
    return key, device


def _check_memory(artifact: Artifact, device: Device) -> None:
    plan, board = tensorrt.plan_of(artifact), jetson.detect()
    wanted = plan.workspace_bytes + _COPIES * len(artifact.files[plan.model])
    # CUDA counts the system's file cache as taken, which a Jetson's GPU can have.
    free_bytes = max(device.free_bytes, (board and board.free_memory_bytes) or 0)
    if free_bytes < wanted:
        raise LimitError(
            f"too little memory to build the engine: want {wanted >> 20} MiB free, "
            f"got {free_bytes >> 20} of {device.memory_bytes >> 20} MiB",
            where=device.name,
            hint="close other programs and the desktop: sudo systemctl isolate multi-user.target",
        )


def _present(path: Path, key: EngineKey, notes: list[str]) -> EngineRecord | None:
    """The record of an engine that is there and ours; what is not is built anew."""
    try:
        return engines.load(path, key)[1]
    except CorruptError as error:
        notes.append(f"{error.message} ({error.where}): built anew")
    except MismatchError as error:
        notes.append(f"{error.message}: built anew")
    except UnavailableError:
        pass
    return None


def _build(content: Bundle, artifact: Artifact, timing: bytes, limits: Limits, on_event: Observer) -> _Build:
    """Build and run once in a child process; the results of the whole bundle."""
    golden, manifest = content.golden, content.manifest
    given = golden.inputs if golden else samples.generate_inputs(manifest.inputs)
    tensors = runtime.run_steps(manifest.before, given)
    info = artifact.info
    outcome = isolation.run(
        "edgekit.finalization:_build_job",
        {"builder": builders.BUILDER, "info": schema.encode(info)},
        arrays={spec.name: tensors[spec.name] for spec in info.inputs},
        files={**artifact.files, engines.TIMING: timing},
        limits=limits,
        what="building the engine",
        error=CompileError,
        on_report=_teller(on_event),
    )
    made = runtime.run_steps(manifest.after, {**tensors, **outcome.arrays})
    return _Build(
        engine=outcome.files["engine"],
        timing_cache=outcome.files[engines.TIMING],
        layers=outcome.files["layers"].decode(),
        results={spec.name: made[spec.name] for spec in manifest.results},
        build_s=outcome.value["build_s"],
    )


def _teller(on_event: Observer) -> Callable[[Any], None]:
    """Tells of each phase when it begins, and of each tenth of it."""
    told = ""

    def tell(report: Any) -> None:
        nonlocal told
        phase, done, total = report["phase"], report["done"], report["total"]
        text = f"  {phase}: {10 * (10 * done // total)} %" if total else f"  {phase}"
        if text != told:
            told = text
            on_event(text)

    return tell


def _verify(content: Bundle, results: Mapping[str, Array], notes: list[str]) -> AccuracyReport | None:
    golden = content.golden
    if golden is None:
        notes.append("the bundle holds no golden case: the engine ran, and nobody compared what it gives")
        return None
    record = golden.record
    report = compare.compare(
        golden.results, results, reference=record.reference, inputs=record.inputs, limits=record.limits
    )
    if report.failures:
        raise GateError(
            "the engine is not the model: " + "; ".join(report.failures),
            where=content.manifest.name,
            hint="compile with --precision float32, or with other limits; nothing was written",
        )
    return report


def _spread(builds: list[_Build]) -> Spread:
    first, *others = builds
    tactics = tactics_of(first.layers)
    return Spread(
        builds=len(builds),
        engines=len({build.engine for build in builds}),
        layers=len(tactics),
        other_tactics=tuple(_count_other(tactics, tactics_of(build.layers)) for build in others),
        max_abs_difference=max(
            float(np.max(np.abs(np.subtract(array, build.results[name], dtype=np.float64)), initial=0.0))
            for build in others
            for name, array in first.results.items()
        ),
        build_s=tuple(build.build_s for build in builds),
    )


def tactics_of(layers: str) -> dict[str, str]:
    """The tactic of each layer, out of what TensorRT's inspector tells; empty where it tells none.

    An engine that was not built with detailed verbosity tells names of layers alone.
    """
    try:
        told = json.loads(layers)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    return dict(_tactics(told))


def _tactics(told: list[Any]) -> Iterator[tuple[str, str]]:
    for layer in told:
        if isinstance(layer, dict):
            tactic = layer.get("TacticName") or layer.get("TacticValue") or layer.get("LayerType")
            yield str(layer.get("Name")), str(tactic)
        else:
            yield str(layer), ""


def _count_other(first: Mapping[str, str], other: Mapping[str, str]) -> int:
    return sum(first.get(name) != tactic for name, tactic in other.items())


def _mode(key: EngineKey) -> str:
    return f", power mode {key.power_mode}" if key.power_mode else ""


def _look_job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: which TensorRT and which GPU there are."""
    builder: builders.Builder = resolve(request.arguments["builder"])()
    return {"tensorrt": builder.version, "device": schema.encode(builder.device())}, {}


def _build_job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: build, look into the engine, run it once."""
    import time

    builder: builders.Builder = resolve(request.arguments["builder"])()
    info = schema.decode(ArtifactInfo, request.arguments["info"], error=CorruptError, where="artifact")
    artifact = Artifact(info, {name: request.files[name].read_bytes() for name in info.files})
    began = time.perf_counter()
    built = tensorrt.build_here(
        builder,
        artifact,
        timing_cache=request.files[engines.TIMING].read_bytes(),
        report=lambda phase, done, total: request.report({"phase": phase, "done": done, "total": total}),
    )
    build_s = time.perf_counter() - began
    library_file = tensorrt.plugin_file(artifact)
    layers = builder.layers(built.engine, library_file)
    session = builder.open(built.engine, info, library_file)
    outputs = session.run(request.arrays)
    session.close()
    for name, content in (
        ("engine", built.engine),
        (engines.TIMING, built.timing_cache),
        ("layers", layers.encode()),
    ):
        (request.out / name).write_bytes(content)
    return {"build_s": build_s}, outputs
