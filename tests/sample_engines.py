"""A builder of engines that needs no TensorRT: ONNX Runtime computes, and a file says what device it is.

It keeps to the protocol of :class:`edgekit.backends.tensorrt.builder.Builder`, in child processes as well.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit import target as targets
from edgekit.backends.base import ArtifactInfo, NetworkSession
from edgekit.backends.onnxruntime import literal
from edgekit.backends.tensorrt import builder as builders
from edgekit.backends.tensorrt.builder import Built, Report
from edgekit.backends.tensorrt.cuda import Device
from edgekit.backends.tensorrt.plan import BuildPlan
from edgekit.errors import CompileError
from edgekit.spec import Array
from edgekit.target import Target

VARIABLE = "EDGEKIT_TEST_BENCH"
MAGIC = b"an engine of the tests\n"
BENCH: dict[str, Any] = {
    "tensorrt": "10.3.0",
    "gpu": "Orin",
    "compute_capability": "8.7",
    "multiprocessors": 8,
    "memory_bytes": 8 << 30,
    "free_bytes": 6 << 30,
    "offset": 0.0,  # added to every output
    "sleep_s": 0.0,  # before the engine is there
    "fails": "",  # what TensorRT says where it builds none
    "dies": False,  # takes its process with it
    "restless": False,  # other tactics in every build
}


class TestBench:
    """A device as the file says that ``EDGEKIT_TEST_BENCH`` names."""

    __test__ = False

    def __init__(self) -> None:
        self.bench = json.loads(Path(os.environ[VARIABLE]).read_text())

    @property
    def version(self) -> str:
        return str(self.bench["tensorrt"])

    def device(self) -> Device:
        names = ("compute_capability", "multiprocessors", "memory_bytes", "free_bytes")
        return Device(self.bench["gpu"], *(self.bench[name] for name in names))

    def build(self, plan: BuildPlan, folder: Path, timing_cache: bytes, report: Report) -> Built:
        model = onnx.load(folder / plan.model)
        onnx.checker.check_model(model)
        for step in range(3):
            report("Building engine", step, 3)
        time.sleep(self.bench["sleep_s"])
        if self.bench["dies"]:
            os.abort()
        if self.bench["fails"]:
            raise CompileError(f"TensorRT builds no engine: {self.bench['fails']}", where="tensorrt")
        tactics = {node.name: f"{node.op_type}_kernel" for node in model.graph.node}
        if self.bench["restless"]:
            tactics[model.graph.node[0].name] += str(time.monotonic_ns())
        head = json.dumps({"tactics": tactics, "offset": self.bench["offset"]}).encode()
        # As TensorRT does, it takes what was timed before, and tells of it to the next build.
        return Built(MAGIC + head + b"\n" + model.SerializeToString(), timing_cache + b"timed ")

    def layers(self, engine: bytes, plugins: Path | None) -> str:
        tactics = read(engine)[0]["tactics"]
        return json.dumps({"Layers": [{"Name": n, "TacticName": t} for n, t in tactics.items()]})

    def open(self, engine: bytes, info: ArtifactInfo, plugins: Path | None) -> NetworkSession:
        return BenchSession(info, *read(engine))


def read(engine: bytes) -> tuple[dict[str, Any], bytes]:
    assert engine.startswith(MAGIC)
    head, _, model = engine[len(MAGIC) :].partition(b"\n")
    return json.loads(head), model


class BenchSession(NetworkSession):
    """Runs what an engine of the tests holds."""

    def __init__(self, info: ArtifactInfo, head: dict[str, Any], model: bytes) -> None:
        super().__init__(info)
        self._offset = head["offset"]
        self._network = literal(model, own_operators=False, threads=1)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        made = self._network.run(feeds)
        return {n: a + np.asarray(self._offset, a.dtype) if self._offset else a for n, a in made.items()}

    def close(self) -> None:
        self._network.close()


class Bench:
    """The file that says what the device is; changes hold for whatever is opened or built next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set()

    def set(self, **changes: Any) -> None:
        assert changes.keys() <= BENCH.keys()
        known = json.loads(self.path.read_text()) if self.path.exists() else BENCH
        self.path.write_text(json.dumps({**known, **changes}))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A device of the tests in place of TensorRT, with a home of its own for the secret."""
    monkeypatch.setattr(builders, "BUILDER", f"{__name__}:TestBench")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "bench.json"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path / "bench.json")


def orin(tensorrt: str = "10.3", **changes: Any) -> Target:
    """An Orin Nano with a version of TensorRT."""
    from dataclasses import replace

    found = targets.find("jetson")
    return replace(found, software={**found.software, "tensorrt": tensorrt}, **changes)
