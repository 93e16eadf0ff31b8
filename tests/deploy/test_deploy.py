"""A bundle onto a device by a real ssh, and its proof there; this machine is the device."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sample_jetsons
from deploy.conftest import Board
from deploy.samples import bundle_for

from edgekit import bundle as bundles
from edgekit import deploy
from edgekit.cli import main
from edgekit.deploy import payload
from edgekit.errors import (
    CorruptError,
    EdgekitError,
    GateError,
    MismatchError,
    UnavailableError,
    UsageError,
)
from edgekit.target import find

HERE = "x86-avx2" if platform.machine() == "x86_64" else "raspberry-pi-5"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """A runtime without wheels: the device's Python is this one, which has them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(payload, "wheels_for", lambda *arguments: [])
    monkeypatch.setattr(payload, "_download", lambda kind, wheels, out, folder: None)
    monkeypatch.setattr(payload, "_extension", lambda kind: (None, "this is a test"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "double.ekb"
    bundles.write(bundle_for(find(HERE)), path)
    return path


def put(bundle: Path, board: Board, **options: object) -> deploy.Deployment:
    options = {"python": sys.executable, "ssh_config": board.server.config, **options}
    return deploy.deploy(bundle, board.server.address, **options)  # type: ignore[arg-type]


def test_a_bundle_proves_itself_there(light: None, bundle: Path, board: Board, tmp_path: Path) -> None:
    done = put(bundle, board)
    assert done.device.python == sys.version_info[:3] and done.device.jetson is None
    assert done.proof["proved"] is True and done.proof["proof"]["network"] == "onnxruntime"
    assert done.proof["proof"]["accuracy"]["tensors"][0]["max_abs_error"] < 1e-5
    assert done.bundle == str(board.home / "edgekit/double/double.ekb") and done.notes == ()
    # What stays there runs without us, and from the runtime that was put there.
    np.save(tmp_path / "x.npy", np.ones((1, 3, 4, 4), np.float32))
    command = [
        done.launcher,
        "run",
        done.bundle,
        "-i",
        str(tmp_path / "x.npy"),
        "-o",
        str(tmp_path / "y.npy"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert np.allclose(np.load(tmp_path / "y.npy"), 2)
    # Again: nothing has to be sent.
    again = put(bundle, board)
    assert again.sent_bytes == 0 and again.proof["proved"] is True


def test_runtimes_that_nobody_uses_go(light: None, bundle: Path, board: Board, tmp_path: Path) -> None:
    done = put(bundle, board, test=False)
    runtimes = board.home / "edgekit/runtime"
    (runtimes / "0123456789abcdef").mkdir()
    (runtimes / ".0123.part").write_text("")
    other = board.home / "edgekit/other"
    other.mkdir()
    (runtimes / "feedfeedfeedfeed").mkdir()
    (other / "edgekit").write_text("of feedfeedfeedfeed")
    assert done.proof == {}
    put(bundle, board, test=False)
    assert {path.name for path in runtimes.iterdir()} == {done.runtime, "feedfeedfeedfeed"}


def test_a_device_whose_results_are_others(light: None, board: Board, tmp_path: Path) -> None:
    bundles.write(bundle_for(find(HERE), wrong=True), tmp_path / "double.ekb")
    with pytest.raises(GateError, match="does not keep the golden case's limits") as failed:
        put(tmp_path / "double.ekb", board)
    assert "max_abs_error" in failed.value.message or "differs" in failed.value.message
    # It is there all the same, to be looked at.
    assert (board.home / "edgekit/double/double.ekb").is_file()


def test_an_error_there_is_an_error_here(light: None, bundle: Path, board: Board) -> None:
    put(bundle, board, test=False)
    with deploy.Remote(deploy.Address.of(board.server.address), sys.executable, board.server.config) as there:
        (runtime,) = (path.name for path in (board.home / "edgekit/runtime").iterdir())
        with pytest.raises(UsageError, match="unknown command 'finalise'") as refused:
            deploy._command(there, runtime, "finalise", "x", "--json")
        assert "edgekit finalise on " in (refused.value.where or "")
        content = bytearray(bundle.read_bytes())
        content[-2000] ^= 1
        (board.home / "edgekit/double/double.ekb").write_bytes(content)
        with pytest.raises(CorruptError):
            deploy._command(there, runtime, "verify", "double/double.ekb", "--run", "--json")


def test_the_command(light: None, bundle: Path, board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["deploy", str(bundle), f"{board.server.address}/~/here", "--python", sys.executable]
    arguments += ["--ssh-config", str(board.server.config)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"device: Python {platform.python_version()} on {platform.machine()}" in out
    assert "tested there: onnxruntime keeps the golden case's limits" in out
    assert f"on the device: {board.home}/here/double/edgekit run {board.home}/here/double/double.ekb" in out
    assert main([*arguments, "--json", "--no-test"]) == 0
    told = json.loads(capsys.readouterr().out)["deployment"]
    assert told["device"]["folder"] == str(board.home / "here") and told["sent_bytes"] == 0


def jetson(name: str, folder: Path) -> deploy.Device:
    """A device with the files of a Jetson."""
    tree = sample_jetsons.TREES[name]
    board = deploy._jetson({path: tree[path] for path in deploy._FILES if path in tree})
    return deploy.Device((3, 10, 12), "/usr/bin/python3", payload.Platform("aarch64", "2.35"), "/x", 1, board)


def tensorrt_for(target: str, version: str, *, alone: bool) -> bundles.Manifest:
    """What a bundle for a Jetson says, with a network for TensorRT and maybe another one."""
    manifest = bundle_for(find(target)).manifest
    (network,) = manifest.networks
    engine = dataclasses.replace(network, name="tensorrt", built_with={"tensorrt": version})
    networks = (engine,) if alone else (engine, network)
    members = {n.member(f): manifest.members[network.member(f)] for n in networks for f in n.files}
    members |= {name: m for name, m in manifest.members.items() if name.startswith("golden")}
    return dataclasses.replace(manifest, networks=networks, members=members)


def test_a_jetson_is_recognized(tmp_path: Path) -> None:
    there = jetson("orin-nano-super-jetpack-6", tmp_path)
    assert there.jetson and there.jetson.module == "p3767-0005" and there.jetson.l4t == "36.4.3"
    manifest = tensorrt_for("jetson-orin-nano-8gb-super", "10.3", alone=True)
    assert deploy.check(manifest, there) == ["power mode 25W allows the GPU 918 of 1020 MHz"]


@pytest.mark.parametrize(
    ("target", "version", "alone", "complaint"),
    [
        ("jetson-orin-nano-8gb-super", "10.16.2", True, "has TensorRT 10.3, and tensorrt is for 10.16.2"),
        ("jetson-agx-xavier", "8.5.2", False, "for Jetson AGX Xavier 32GB, the device is Jetson Orin Nano"),
        ("x86-avx2", "10.3", False, "for x86_64, the device is aarch64"),
    ],
)
def test_bundles_for_others(target: str, version: str, alone: bool, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=complaint) as refused:
        deploy.check(
            tensorrt_for(target, version, alone=alone), jetson("orin-nano-super-jetpack-6", tmp_path)
        )
    assert refused.value.exit_code == 4 and "compile it again" in (refused.value.hint or "")


def test_what_differs_and_is_no_obstacle(tmp_path: Path) -> None:
    there = jetson("orin-nano-super-jetpack-6", tmp_path)
    notes = deploy.check(tensorrt_for("jetson-orin-nx-16gb", "8.6.2", alone=False), there)
    assert notes == [
        "the bundle is for Jetson Orin NX 16GB, the device is Jetson Orin Nano 8GB Super",
        "power mode 25W allows the GPU 918 of 1020 MHz",
        "JetPack 6.2 has TensorRT 10.3, and tensorrt is for 8.6.2",
    ]


Change = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            {"python": [3, 8, 10]},
            r"want CPython 3\.10 or newer on the device, got CPython 3\.8\.10",
            "--python",
        ),
        ({"implementation": "PyPy"}, "got PyPy", "--python"),
        ({"system": "Darwin"}, "want Linux with glibc 2.28 or newer, got Darwin", ""),
        ({"glibc": ""}, "got Linux with another C library", ""),
        ({"glibc": "2.27"}, "got Linux with 2.27", ""),
    ],
)
def test_devices_that_do_not_do(
    change: dict[str, object], message: str, hint: str, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deploy.Remote.ask
    monkeypatch.setattr(
        deploy.Remote, "ask", lambda self, what, **more: {**real(self, what, **more), **change}
    )
    with deploy.Remote(deploy.Address.of(board.server.address), sys.executable, board.server.config) as there:
        with pytest.raises(UnavailableError, match=message) as refused:
            deploy.probe(there)
        assert hint in (refused.value.hint or "")


def test_jetpack_5_has_too_old_a_python(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"/{name}": text for name, text in sample_jetsons.TREES["agx-orin-jetpack-5"].items()}
    told = {
        "python": [3, 8, 10],
        "implementation": "CPython",
        "executable": "/usr/bin/python3",
        "glibc": "2.31",
    }
    told |= {"arch": "aarch64", "system": "Linux", "folder": "/x", "free_bytes": 1, "files": files}
    monkeypatch.setattr(deploy.Remote, "ask", lambda self, what, **more: told)
    with pytest.raises(UnavailableError) as refused:
        deploy.probe(deploy.Remote(deploy.Address("jetson")))
    assert (refused.value.hint or "").startswith("JetPack 5 has Python 3.8: install python3.10")


def test_what_is_refused_before_anything_is_sent(
    light: None, bundle: Path, board: Board, tmp_path: Path
) -> None:
    cases: list[tuple[str, bytes, type[EdgekitError]]] = [
        ("my bundle.ekb", bundle.read_bytes(), UsageError),
        ("runtime.ekb", bundle.read_bytes(), UsageError),
        ("double", bundle.read_bytes(), UsageError),
        ("broken.ekb", bundle.read_bytes()[:-1], CorruptError),
    ]
    for name, content, kind in cases:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(kind):
            put(tmp_path / name, board)
    assert not (board.home / "edgekit").exists()


def test_what_only_the_device_can_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    outcome: list[EdgekitError] = []

    def command(remote: object, runtime: str, *arguments: str) -> dict[str, bool]:
        asked.append(arguments)
        if outcome:
            raise outcome[0]
        return {"finalized": True}

    def finalize(manifest: bundles.Manifest) -> tuple[object, list[str]]:
        notes: list[str] = []
        done = deploy._finalize(None, "r", "lung/lung.ekb", manifest, notes, asked_steps.append)  # type: ignore[arg-type]
        return done, notes

    def portable(alone: bool) -> bundles.Manifest:
        manifest = tensorrt_for("jetson", "10.3", alone=alone)
        networks = (dataclasses.replace(manifest.networks[0], form="portable"), *manifest.networks[1:])
        return dataclasses.replace(manifest, networks=networks)

    asked_steps: list[str] = []
    monkeypatch.setattr(deploy, "_command", command)
    assert finalize(bundle_for(find("jetson")).manifest) == ({}, []) and not asked and not asked_steps
    assert finalize(portable(True)) == ({"finalized": True}, [])
    assert asked == [("finalize", "lung/lung.ekb", "--json")] and len(asked_steps) == 1
    outcome.append(UnavailableError("there is no TensorRT"))
    assert finalize(portable(False)) == ({}, ["tensorrt is not finalized: there is no TensorRT"])
    with pytest.raises(UnavailableError):
        finalize(portable(True))
    outcome[0] = GateError("the engine's results are others")
    with pytest.raises(GateError):
        finalize(portable(False))
