"""Engines that this device built, beside the bundle: which one fits, and whether it is ours.

An engine is machine code that TensorRT runs unseen, and fits the very device and software that built it. It
is loaded only where

- its key is that of this device: network, plan, plug-ins, TensorRT, GPU, multiprocessors, power mode;
- folder and files belong to this account, and nobody else can write to them;
- the engine's bytes have the SHA-256 that its record says, and the record bears the stamp of this account: a
  keyed digest with a secret that is made once and never leaves the machine.

So an engine that came with a download, was put there by another account, belongs to another bundle, or is
damaged, is refused. Whoever can act as this account, or as root, can read the secret: against them this
protects nothing, and neither does it judge the bundle's author.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgekit import atomic, jetson, schema
from edgekit._version import __version__
from edgekit.backends.base import Artifact
from edgekit.backends.tensorrt import builder as builders
from edgekit.backends.tensorrt import plugins
from edgekit.backends.tensorrt.backend import plan_of, with_engine
from edgekit.backends.tensorrt.cuda import Device
from edgekit.errors import CorruptError, MismatchError, UnavailableError, UsageError
from edgekit.reports import AccuracyReport

FORMAT = 1
TIMING = "timing"  # how the file of a timing cache ends
_SECRET_BYTES = 32
_MAX_RECORD_BYTES = 4 << 20
_MAX_ENGINE_BYTES = 8 << 30
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FINALIZE = "edgekit finalize {}"


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built of and for; one that differs in anything is another engine's.

    Attributes:
        network_sha256: Of the network's file and its calibration cache.
        plan_sha256: Of the build plan, for the version of TensorRT that is there.
        plugins_sha256: Of the library of plug-ins; empty where the network needs none.
        tensorrt: Version of TensorRT, in full.
        gpu: The GPU's name.
        compute_capability: ``"8.7"``.
        multiprocessors: Active ones.
        power_mode: Name of the power mode; empty where the device has none.
        dla_core: Accelerator that layers were placed on; -1 for none.
        flags: Builder flags.
    """

    network_sha256: str
    plan_sha256: str
    plugins_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    multiprocessors: int
    power_mode: str
    dla_core: int
    flags: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What its files are called."""
        return hashlib.sha256(_canonical(self)).hexdigest()[:32]

    def difference(self, other: EngineKey) -> str:
        """What ``other`` has otherwise, in words."""
        told = [
            f"{field.name.replace('_', ' ')}: want {mine}, got {theirs}"
            for field in fields(self)
            if (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        ]
        return "; ".join(told)


@dataclass(frozen=True)
class Spread:
    """How far several builds of one engine differ, each timed anew.

    Attributes:
        builds: Number of them.
        engines: How many different files they gave.
        layers: Layers of the first one.
        other_tactics: Layers of each of the others that use another tactic, or that the first one has not.
        max_abs_difference: Largest difference of any result from the first build's.
        build_s: Seconds of each.
    """

    builds: int
    engines: int
    layers: int
    other_tactics: tuple[int, ...]
    max_abs_difference: float
    build_s: tuple[float, ...]


@dataclass(frozen=True)
class EngineRecord:
    """What is known of an engine.

    Attributes:
        format: Version of the record.
        key: What it was built of and for.
        engine_sha256: Of the engine's file.
        timing_sha256: Of the timing cache that the build left.
        edgekit: Version that built it.
        built_at: When, in UTC.
        build_s: Seconds that it took.
        accuracy: The golden case on this device; none where the bundle holds none.
        spread: What several builds gave, where that was asked for.
        stamp: Keyed digest of all this, in hexadecimal.
    """

    format: int
    key: EngineKey
    engine_sha256: str
    timing_sha256: str
    edgekit: str
    built_at: str
    build_s: float
    accuracy: AccuracyReport | None = None
    spread: Spread | None = None
    stamp: str = ""


def folder_of(bundle: Path) -> Path:
    """Where the engines of a bundle lie."""
    return bundle.with_name(bundle.name + ".engines")


def engine_file(bundle: Path, key: EngineKey) -> Path:
    """The engine's file."""
    return folder_of(bundle) / f"{key.digest}.engine"


def key_of(artifact: Artifact, tensorrt: str, device: Device, power_mode: str) -> EngineKey:
    """The key of the engine that a device builds of a portable artifact.

    Raises:
        MismatchError: The network was not made for that TensorRT, or for that GPU.
    """
    plan = plan_of(artifact).on(tensorrt)
    if device.compute_capability != plan.compute_capability:
        raise MismatchError(
            f"the network was prepared for {plan.target} (compute capability {plan.compute_capability}), "
            f"here is {device.name} ({device.compute_capability})",
            where=artifact.info.name,
            hint="edgekit targets lists the modules; compile with the --target of this one",
        )
    return EngineKey(
        network_sha256=_network_sha256(artifact),
        plan_sha256=hashlib.sha256(plan.to_json()).hexdigest(),
        plugins_sha256=_sha256(artifact.files[plan.plugins]) if plan.plugins in artifact.files else "",
        tensorrt=tensorrt,
        gpu=device.name,
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
        power_mode=power_mode,
        dla_core=plan.dla.core if plan.dla else -1,
        flags=plan.flags,
    )


def _network_sha256(artifact: Artifact) -> str:
    plan = plan_of(artifact)
    return _sha256(b"".join(artifact.files[name] for name in (plan.model, plan.calibration) if name))


def power_mode() -> str:
    """Name of the power mode that this device is in; empty where it has none."""
    found = jetson.detect()
    return found.mode.name if found and found.mode else ""


def finished(bundle: Path, artifact: Artifact) -> Artifact:
    """The artifact with the engine that this device built of it earlier.

    Raises:
        UnavailableError: TensorRT or a GPU is missing, or the engine is.
        MismatchError: There is one, and for another state of this device, or other software.
        CorruptError: There is one that is not ours, or damaged.
    """
    builder = builders.make()
    artifact = with_kept_plugins(bundle, artifact)
    key = key_of(artifact, builder.version, builder.device(), power_mode())
    engine, _ = load(bundle, key)
    return with_engine(artifact, engine)


def with_kept_plugins(bundle: Path, artifact: Artifact) -> Artifact:
    """The artifact with the plug-ins that an earlier build of it was given, where it holds none itself.

    Raises:
        CorruptError: There are some that are not ours, or damaged.
    """
    name = plan_of(artifact).plugins
    if not name or name in artifact.files:
        return artifact
    folder, hint = folder_of(bundle), _FINALIZE.format(f"{bundle} --plugins {name}")
    for record in _records(folder):
        if record.key.network_sha256 != _network_sha256(artifact):
            continue
        path = f"{record.key.digest}.{name}"
        content = _read_private(folder, path, _MAX_ENGINE_BYTES, hint)
        if content is None or _sha256(content) != record.key.plugins_sha256:
            raise _not_ours(folder / path, "the plug-ins are not those that it was built with", hint)
        return with_plugins(artifact, content)
    return artifact


def with_plugins(artifact: Artifact, content: bytes) -> Artifact:
    """The artifact with a library of plug-ins in place of its own."""
    name = plan_of(artifact).plugins or plugins.FILE
    files = {**artifact.files, name: content}
    return Artifact(replace(artifact.info, files=tuple(files), library=name), files)


def load(bundle: Path, key: EngineKey) -> tuple[bytes, EngineRecord]:
    """The engine of this key, and its record.

    Raises:
        UnavailableError: There is none.
        MismatchError: There is none, but one with another key.
        CorruptError: It is not ours, or damaged.
    """
    hint = _FINALIZE.format(bundle)
    record = _read_record(folder_of(bundle), f"{key.digest}.json", hint)
    if record is None:
        other = next(iter(_others(bundle, key)), None)
        if other is None:
            raise UnavailableError(
                "it has not been finalized on this device", where=str(folder_of(bundle)), hint=hint
            )
        raise MismatchError(
            f"it was finalized otherwise: {key.difference(other.key)}",
            where=str(folder_of(bundle)),
            hint=hint,
        )
    if record.key != key:
        raise _not_ours(engine_file(bundle, key), "its record is another engine's", hint)
    engine = _read_private(folder_of(bundle), f"{key.digest}.engine", _MAX_ENGINE_BYTES, hint)
    if engine is None or _sha256(engine) != record.engine_sha256:
        raise _not_ours(engine_file(bundle, key), "its bytes are not those that were built", hint)
    return engine, record


def save(bundle: Path, record: EngineRecord, engine: bytes, more: Mapping[str, bytes]) -> EngineRecord:
    """Keep an engine beside its bundle; the record, which makes it count, is written last.

    Args:
        bundle: The bundle's file.
        record: What is known of it; it is stamped here.
        engine: Its bytes.
        more: Contents of files to keep with it, by the end of their names.

    Raises:
        CorruptError: The folder is there, and others can write to it.
        LimitError: The disk is full.
        UsageError: It cannot be written.
    """
    folder = folder_of(bundle)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder for engines: {error.strerror}",
            where=str(folder),
            hint="copy the bundle to a folder of your own",
        ) from None
    os.close(_open_folder(folder, f"rm -r {folder}"))
    stamped = replace(
        record,
        engine_sha256=_sha256(engine),
        timing_sha256=_sha256(more.get(TIMING, b"")),
        edgekit=__version__,
        stamp="",
    )
    stamped = replace(stamped, stamp=_stamp(stamped))
    base = record.key.digest
    (folder / f"{base}.json").unlink(missing_ok=True)  # until the new one is whole, there is none
    for end, content in {**more, "engine": engine, "json": _canonical(stamped)}.items():
        atomic.write(folder / f"{base}.{end}", content, force=True)
    return stamped


def timing_cache(bundle: Path, key: EngineKey) -> bytes:
    """What an earlier build of this key timed, if that is ours: with it the same tactics are taken again."""
    try:
        record = _read_record(folder_of(bundle), f"{key.digest}.json", "")
        content = _read_private(folder_of(bundle), f"{key.digest}.{TIMING}", _MAX_ENGINE_BYTES, "")
    except CorruptError:
        return b""
    ours = record and content and record.key == key and _sha256(content) == record.timing_sha256
    return content if content and ours else b""


def _others(bundle: Path, key: EngineKey) -> list[EngineRecord]:
    """Our records of other engines of the same network."""
    return [r for r in _records(folder_of(bundle)) if r.key.network_sha256 == key.network_sha256]


def _records(folder: Path) -> list[EngineRecord]:
    """All records in a folder, which are ours."""
    found = [_read_record(folder, path.name, "") for path in sorted(folder.glob("*.json"))]
    return [record for record in found if record is not None]


def _read_record(folder: Path, name: str, hint: str) -> EngineRecord | None:
    """A record that bears our stamp; ``None`` where there is none."""
    data = _read_private(folder, name, _MAX_RECORD_BYTES, hint)
    if data is None:
        return None
    try:
        plain = json.loads(data)
    except ValueError:
        raise _not_ours(folder / name, "it is no record", hint) from None
    record = schema.decode(EngineRecord, plain, error=CorruptError, where=str(folder / name))
    if not hmac.compare_digest(record.stamp, _stamp(replace(record, stamp=""))):
        raise _not_ours(folder / name, "it does not bear the stamp of this account on this machine", hint)
    return record


def _read_private(folder: Path, name: str, limit: int, hint: str) -> bytes | None:
    """A file that nobody else can write; ``None`` where there is none.

    Links are not followed, and what is checked is what is read.
    """
    try:
        place = _open_folder(folder, hint)
    except FileNotFoundError:
        return None
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_ours(folder / name, error.strerror or "it cannot be read", hint) from None
    finally:
        os.close(place)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _check_private(folder / name, found, stat.S_ISREG, hint)
        if found.st_size > limit:
            raise _not_ours(folder / name, f"it has more than {limit} bytes", hint)
        return file.read(found.st_size)


def _open_folder(folder: Path, hint: str) -> int:
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _not_ours(folder, error.strerror or "it cannot be read", hint) from None
    try:
        _check_private(folder, os.fstat(place), stat.S_ISDIR, hint)
    except CorruptError:
        os.close(place)
        raise
    return place


def _check_private(path: Path, found: os.stat_result, kind: object, hint: str) -> None:
    if not kind(found.st_mode):  # type: ignore[operator]
        raise _not_ours(path, "it is no ordinary file", hint)
    if found.st_uid != os.geteuid():
        raise _not_ours(path, f"it belongs to user {found.st_uid}, and this is {os.geteuid()}", hint)
    if found.st_mode & _OTHERS_WRITE:
        raise _not_ours(path, f"others can write to it (mode {stat.S_IMODE(found.st_mode):o})", hint)


def _not_ours(path: Path, reason: str, hint: str) -> CorruptError:
    return CorruptError(f"an engine that may not be ours is not loaded: {reason}", where=str(path), hint=hint)


def _stamp(record: EngineRecord) -> str:
    return hmac.new(_secret(), _canonical(record), hashlib.sha256).hexdigest()


def _secret() -> bytes:
    """This account's secret on this machine, made when it is first wanted."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = Path(state) / "edgekit"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hint = f"chmod go-w {folder}"
    found = _read_private(folder, "engines.key", _SECRET_BYTES, hint)
    if found is None:
        atomic.write(folder / "engines.key", secrets.token_bytes(_SECRET_BYTES))
        (folder / "engines.key").chmod(0o600)
        found = _read_private(folder, "engines.key", _SECRET_BYTES, hint)
    if found is None or len(found) != _SECRET_BYTES:
        raise CorruptError(
            "the secret that stamps engines is damaged",
            where=str(folder / "engines.key"),
            hint=f"rm {folder / 'engines.key'}, then finalize the bundles again",
        )
    return found


def _canonical(value: object) -> bytes:
    """The one spelling of a record. Reading gives the same again."""
    return json.dumps(schema.encode(value), sort_keys=True, separators=(",", ":")).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
