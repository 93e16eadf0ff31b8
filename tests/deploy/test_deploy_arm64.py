"""A bundle by a real ssh onto an emulated arm64 machine: its wheels and its kernels, nothing of this one."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy import ssh_server
from deploy.samples import bundle_for
from hosts import arm64

from edgekit import bundle as bundles
from edgekit import deploy
from edgekit.backends import BACKENDS
from edgekit.spec import Step
from edgekit.target import find

# Runs the emulated machine's Python, whatever Python ssh was asked for: it can start no other program there.
_SHELL = """
import os, shlex
_, *arguments = shlex.split(os.environ["SSH_ORIGINAL_COMMAND"])
os.execvpe({enter[0]!r}, [*{enter!r}, *arguments], {environment!r})
"""


@pytest.fixture(scope="session")
def board() -> Iterator[tuple[ssh_server.Server, Path]]:
    if reason := ssh_server.missing() or arm64.missing():
        pytest.fail(reason)
    with tempfile.TemporaryDirectory() as place:
        home, folder = Path(place, "home"), Path(place, "ssh")
        home.mkdir()
        folder.mkdir()
        enter = [*arm64._unshare(), "sh", "-c", arm64._ENTER, "arm64"]
        enter += [str(arm64.root()), str(home), str(arm64.PACKAGE)]
        # No path to wheels or to a checkout: what was sent there has to do.
        environment = {"HOME": arm64.WORK, "LANG": "C.UTF-8", "QEMU_CPU": arm64.PROCESSOR}
        environment["PATH"] = os.environ["PATH"]
        shell = ssh_server.program(folder / "shell", _SHELL.format(enter=enter, environment=environment))
        server = ssh_server.start(folder, shell)
        try:
            yield server, home
        finally:
            server.stop()


def test_a_bundle_with_steps_proves_itself_there(
    board: tuple[ssh_server.Server, Path], tmp_path: Path
) -> None:
    server, home = board
    target = find("raspberry-pi-5")
    version = BACKENDS["onnxruntime"].requirements[0].version()
    assert version
    # A step that the compiled kernels do, of which the machine has no others.
    steps = (Step("median", ("image",), ("image",), {"radius": 1}),)
    made = bundle_for(target, built_with={"onnxruntime": version}, before=steps)
    bundles.write(made, tmp_path / "double.ekb")
    done = deploy.deploy(tmp_path / "double.ekb", server.address, ssh_config=server.config)
    assert done.device.platform.arch == "aarch64" and done.device.folder == "/mnt/edgekit"
    assert done.proof["proved"] is True
    machine = done.proof["proof"]["machine"]
    assert machine["arch"] == "aarch64" and machine["packages"]["onnxruntime"] == version
    runtime = home / "edgekit/runtime" / done.runtime
    names = {path.name for path in runtime.iterdir()}
    assert {"edgekit", "numpy", "onnxruntime", "click"} <= names
    assert not names & {"torch", "onnx", "onnx_ir", "openvino", "tvm"}
    assert list((runtime / "edgekit").glob("_C.*aarch64*.so"))
    assert not (runtime / "edgekit/torch").exists()
    assert (home / "edgekit/double/edgekit").read_text().startswith("#!/usr/bin/python3\n")
    assert sys.executable not in (home / "edgekit/double/edgekit").read_text()
