"""Backends that misbehave while they compile, each in its own way. The child imports this module by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgekit.backends.base import Artifact, ArtifactInfo, Backend, NetworkSession, Refusal
from edgekit.errors import CompileError
from edgekit.graph.graph import Graph
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target


class Doubling(Backend):
    """Behaves: gives back twice its input."""

    name = "doubling"
    title = "Doubling"
    options: ClassVar[Mapping[str, int | float | str | bool]] = {"gain": 2.0, "label": "", "fast": False}

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        return []

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        print("compiling", flush=True)
        (out / "gain").write_text(str(info.options["gain"]))

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        return _Doubled(artifact.info, float(artifact.files["gain"]))


class _Doubled(NetworkSession):
    def __init__(self, info: ArtifactInfo, gain: float) -> None:
        super().__init__(info)
        self.gain = gain

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {spec.name: np.multiply(*feeds.values(), self.gain) for spec in self.info.outputs}

    def close(self) -> None:
        pass


class Aborting(Doubling):
    def _compile(self, *_: object) -> None:
        print("the last words", flush=True)
        os.abort()


class Segfaulting(Doubling):
    def _compile(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Exiting(Doubling):
    def _compile(self, *_: object) -> None:
        sys.exit("I do not want to")


class Sleeping(Doubling):
    def _compile(self, *_: object) -> None:
        print("the last words", flush=True)
        time.sleep(60)


class Eating(Doubling):
    def _compile(self, *_: object) -> None:
        hoard = []
        while True:
            hoard.append(np.ones(4 << 20))
            time.sleep(0.01)


class Raising(Doubling):
    def _compile(self, *_: object) -> None:
        raise RuntimeError(
            "Exception from src/core/model.cpp:12:\nCheck 'false' failed at a.cpp:3\nno rule for Foo"
        )


class Refusing(Doubling):
    def _compile(self, *_: object) -> None:
        raise CompileError("said so itself", where="node 7", hint="try this")


class OutOfMemory(Doubling):
    def _compile(self, *_: object) -> None:
        raise MemoryError


class FailingToOpen(Doubling):
    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        raise RuntimeError("not my kind of file")


class NeedsAbsent(Doubling):
    requirements = (Requirement("edgekit_absent", "edgekit-absent", "onnxruntime"),)


class NeedsBroken(Doubling):
    requirements = (Requirement("edgekit_broken", "edgekit-broken", "onnxruntime"),)


class NeedsCrashing(Doubling):
    requirements = (Requirement("edgekit_crashing", "edgekit-crashing", "onnxruntime"),)
