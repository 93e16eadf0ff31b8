"""Put a bundle on a device, with all that it needs to run there, and have it prove itself.

Through ssh to whatever Python is there. A transfer that was cut off goes on where it ended; nothing has its
name before all of it is there and its digest is right.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import bundle as bundles
from edgekit import errors, jetpack, jetson
from edgekit import target as targets
from edgekit.bundle import Manifest
from edgekit.deploy import payload
from edgekit.deploy.payload import Kind
from edgekit.deploy.remote import Address, Remote, check_name
from edgekit.errors import EdgekitError, GateError, MismatchError, SessionError, UnavailableError, UsageError
from edgekit.hosts.compilers import Platform, number
from edgekit.jetson import Jetson

_RUNTIMES = "runtime"  # as in edgekit/deploy/device.py
_OLDEST_PYTHON = (3, 10)
_OLDEST_GLIBC = "2.28"
# Of these the device says which Jetson it is; see edgekit.jetson, which reads more when it runs there itself.
_FILES = (
    *("etc/nv_tegra_release", "etc/nv_boot_control.conf", "etc/nvpmodel.conf", "var/lib/nvpmodel/status"),
    *("proc/device-tree/compatible", "proc/device-tree/model", "proc/meminfo"),
)
_LAUNCHER = """#!{python}
# Runs edgekit as it was deployed with the bundle beside this file.
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "runtime" / {runtime!r}))
from edgekit.cli import main

sys.exit(main())
"""


@dataclass(frozen=True)
class Device:
    """What is at the other end.

    Attributes:
        python: Version of its Python.
        executable: Path of it.
        platform: Architecture and C library.
        folder: Where things are put, absolute.
        free_bytes: Space there.
        jetson: What is known of it, where it is a Jetson.
    """

    python: tuple[int, int, int]
    executable: str
    platform: Platform
    folder: str
    free_bytes: int
    jetson: Jetson | None


@dataclass(frozen=True)
class Deployment:
    """What was done.

    Attributes:
        device: What is there.
        bundle: Path of the bundle there.
        launcher: Path of what runs edgekit there.
        runtime: Name of the runtime's folder.
        sent_bytes: What went over the line.
        finalized: What ``edgekit finalize`` printed there; empty where the bundle is ready to run.
        proof: What ``edgekit verify --run`` printed there; empty where that was not wanted.
        notes: What a user wants to know.
    """

    device: Device
    bundle: str
    launcher: str
    runtime: str
    sent_bytes: int
    finalized: Mapping[str, Any]
    proof: Mapping[str, Any]
    notes: tuple[str, ...]


def deploy(
    bundle: Path,
    address: Address | str,
    *,
    python: str = "python3",
    wheels: Path | None = None,
    test: bool = True,
    ssh_config: Path | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    on_bytes: Callable[[str, int, int], None] = lambda name, there, size: None,
) -> Deployment:
    """Copy a bundle and a runtime to a device, finalize the bundle there if it wants that, and test it.

    Args:
        bundle: The ``.ekb`` file.
        address: ``ssh://user@host[:port][/folder]``.
        python: The device's interpreter: 3.10 or newer.
        wheels: Folder to take wheels from, and no index.
        test: Whether to run the bundle's self-test there.
        ssh_config: File of ssh's configuration; the user's own by default.
        on_step: Called with what begins.
        on_bytes: Called with a file's name, how much of it is there, and its size.

    Raises:
        UsageError: An address, a name or a Python that cannot be used.
        BundleError: The bundle is damaged, or not for this device.
        UnavailableError: No ssh, no such host, no Python or too old a one, no wheel.
        LimitError: No space there.
        SessionError: The device refuses, or the connection ended.
        EdgekitError: What finalizing or the test on the device ended with.
    """
    address = Address.of(address) if isinstance(address, str) else address
    name = _place(bundle)
    manifest = bundles.read(bundle).manifest
    with Remote(address, python, ssh_config, on_bytes) as remote:
        on_step(f"look at {address}")
        device = probe(remote)
        notes = list(check(manifest, device))
        on_step(f"gather what runs it on {Kind(device.python[:2], device.platform)}")
        archive = _runtime(manifest, device, wheels)
        on_step("copy")
        sent = _install_runtime(remote, archive)
        sent += remote.send(name, bundle)
        launcher = _LAUNCHER.format(python=device.executable, runtime=archive.stem)
        sent += remote.send(f"{Path(name).parent}/edgekit", launcher.encode(), program=True)
        remote.ask("tidy")
        finalized = _finalize(remote, archive.stem, name, manifest, notes, on_step)
        proof: Mapping[str, Any] = {}
        if test:
            on_step("test on the device")
            proof = _command(remote, archive.stem, "verify", name, "--run", "--json")
    return Deployment(
        device=device,
        bundle=f"{device.folder}/{name}",
        launcher=f"{device.folder}/{Path(name).parent}/edgekit",
        runtime=archive.stem,
        sent_bytes=sent,
        finalized=finalized,
        proof=proof,
        notes=tuple(notes),
    )


def _place(bundle: Path) -> str:
    """Where a bundle goes: lung.ekb into a folder lung, beside what runs it.

    Raises:
        UsageError: Its name is none for a device.
    """
    name = check_name(bundle.name)
    folder = check_name(bundle.stem)
    if folder in (name, _RUNTIMES):
        raise UsageError(f"want a bundle with a name such as lung.ekb, got {name}", where=str(bundle))
    return f"{folder}/{name}"


def probe(remote: Remote) -> Device:
    """What a device is.

    Raises:
        UnavailableError: It cannot be reached, its system is not Linux with GNU's C library, or its Python is
            missing or too old.
    """
    told = remote.ask("probe", files=[f"/{file}" for file in _FILES])
    version = tuple(told["python"])
    board = _jetson({path.lstrip("/"): text for path, text in told["files"].items()})
    if told["system"] != "Linux" or not told["glibc"] or number(told["glibc"]) < number(_OLDEST_GLIBC):
        raise UnavailableError(
            f"want Linux with glibc {_OLDEST_GLIBC} or newer, got {told['system']} with "
            f"{told['glibc'] or 'another C library'}",
            where=str(remote.address),
        )
    if version < _OLDEST_PYTHON or told["implementation"] != "CPython":
        raise UnavailableError(
            f"want CPython {'.'.join(map(str, _OLDEST_PYTHON))} or newer on the device, got "
            f"{told['implementation']} {'.'.join(map(str, version))}",
            where=f"{remote.address}: {told['executable']}",
            hint=_newer_python(board),
        )
    arch = {"arm64": "aarch64", "AMD64": "x86_64"}.get(told["arch"], told["arch"])
    return Device(
        python=(version[0], version[1], version[2]),
        executable=told["executable"],
        platform=Platform(arch, told["glibc"]),
        folder=told["folder"],
        free_bytes=told["free_bytes"],
        jetson=board,
    )


def _newer_python(board: Jetson | None) -> str:
    ways = "install python3.10 there beside it (deadsnakes' packages, or conda), then --python python3.10"
    return f"JetPack 5 has Python 3.8: {ways}" if board and board.l4t.startswith("35.") else ways


def _jetson(files: Mapping[str, str]) -> Jetson | None:
    """The Jetson whose files these are, by paths below its root."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            place = Path(root, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        return jetson.detect(Path(root))


def check(manifest: Manifest, device: Device) -> list[str]:
    """Refuse a bundle that is not for a device; say what differs otherwise.

    Raises:
        MismatchError: Another architecture, another GPU, or a JetPack with another TensorRT and no network in
            the bundle but TensorRT's.
    """
    if manifest.arch != device.platform.arch:
        raise MismatchError(
            f"the bundle is for {manifest.arch}, the device is {device.platform.arch}",
            where=f"target {manifest.target}",
            hint="compile it again with the device's --target",
        )
    wanted = targets.known().get(manifest.target)
    if not device.jetson or not wanted:
        return []
    match = targets.matching(device.jetson)
    if match.target and match.target.compute_capability != wanted.compute_capability:
        raise MismatchError(
            f"the bundle is for {wanted.title}, the device is {match.target.title}",
            where=f"target {manifest.target}",
            hint=f"compile it again with --target {match.target.name}",
        )
    notes = list(match.mismatches)
    if match.target and match.target.name != wanted.name:
        notes.insert(0, f"the bundle is for {wanted.title}, the device is {match.target.title}")
    return [*notes, *_other_tensorrt(manifest, device.jetson)]


def _other_tensorrt(manifest: Manifest, board: Jetson) -> list[str]:
    """What to say where the device's TensorRT is not the one that networks are for."""
    installed = jetpack.of_l4t(board.l4t)
    wanted = {n.name: n.built_with["tensorrt"] for n in manifest.networks if "tensorrt" in n.built_with}
    if not installed or not wanted:
        return []
    there = installed[1].tensorrt
    others = [name for name, version in wanted.items() if version.split(".")[:2] != there.split(".")[:2]]
    if not others:
        return []
    message = (
        f"JetPack {installed[0]} has TensorRT {there}, and {', '.join(others)} is for {wanted[others[0]]}"
    )
    if len(others) == len(manifest.networks):
        raise MismatchError(message, hint=f"compile it again with --jetpack {installed[1].version}")
    return [message]


def _runtime(manifest: Manifest, device: Device, wheels: Path | None) -> Path:
    kind = Kind((device.python[0], device.python[1]), device.platform)
    built_with = {name: version for n in manifest.networks for name, version in n.built_with.items()}
    wanted = payload.wheels_for(dict.fromkeys(n.backend for n in manifest.networks), built_with, kind)
    steps = bool(manifest.before or manifest.after)
    return payload.make(kind, wanted, kernels=steps, folder=wheels)


def _install_runtime(remote: Remote, archive: Path) -> int:
    """Send and unpack a runtime, unless it is there; others make room for it."""
    if remote.ask("installed", runtime=archive.stem)["installed"]:
        return 0
    name = f"{_RUNTIMES}/{archive.name}"
    sent = remote.send(name, archive, room=payload.unpacked_bytes(archive))
    remote.ask("unpack", name=name, sha256="")
    return sent


def _finalize(
    remote: Remote,
    runtime: str,
    name: str,
    manifest: Manifest,
    notes: list[str],
    on_step: Callable[[str], None],
) -> Mapping[str, Any]:
    """Have the device finish what only it can; where it cannot, the bundle's other networks have to do."""
    portable = [network.name for network in manifest.networks if network.form == "portable"]
    if not portable:
        return {}
    on_step("finalize on the device")
    try:
        return _command(remote, runtime, "finalize", name, "--json")
    except (UnavailableError, MismatchError) as error:
        if len(portable) == len(manifest.networks):
            raise
        notes.append(f"{', '.join(portable)} is not finalized: {error.message}")
        return {}


def _command(remote: Remote, runtime: str, *arguments: str) -> Mapping[str, Any]:
    """Run a command of edgekit there, and read the document that it prints.

    Raises:
        EdgekitError: What it ended with.
    """
    answer = remote.ask("run", show=True, runtime=runtime, arguments=list(arguments))
    try:
        document: Mapping[str, Any] = json.loads(answer["output"])
    except json.JSONDecodeError:
        document = {}
    if answer["code"] == 0 and document:
        return document
    raise _failure(document, f"edgekit {arguments[0]} on {remote.address}", answer["code"])


def _failure(document: Mapping[str, Any], where: str, code: int) -> EdgekitError:
    """The error that a command on the device ended with."""
    if "proof" in document:
        proof = document["proof"]
        failures = "\n".join(proof["accuracy"]["failures"])
        verdict = f"{proof['network']} does not keep the golden case's limits on the device"
        return GateError(f"{verdict}\n{failures}", where=where)
    told = document.get("error", {})
    kind = getattr(errors, str(told.get("class", "")), None)
    if not (isinstance(kind, type) and issubclass(kind, EdgekitError)):
        said = told.get("error", f"it ended with exit status {code}")
        return SessionError(str(said), where=where)
    return kind(str(told["error"]), where=f"{where}: {told['where']}", hint=told["hint"])
