"""Backends that compute something else than they were given. The child imports this module by name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import onnx

from edgekit.backends.base import Artifact, ArtifactInfo, NetworkSession
from edgekit.backends.reference import Reference
from edgekit.target import Target


class Sealed(Reference):
    """Right, but what it keeps is no ONNX file."""

    name: ClassVar[str] = "sealed"
    title: ClassVar[str] = "Sealed"
    any_target = True

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        (out / "network.bin").write_bytes(self.change(onnx.load(model)).SerializeToString())

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        return super()._open(Artifact(artifact.info, {"model.onnx": artifact.files["network.bin"]}), threads)

    def change(self, model: onnx.ModelProto) -> onnx.ModelProto:
        return model


class Fusing(Sealed):
    """Takes the rectifier behind a convolution for a leaky one where nobody sees the value between."""

    name: ClassVar[str] = "fusing"
    title: ClassVar[str] = "Fusing"

    def change(self, model: onnx.ModelProto) -> onnx.ModelProto:
        outputs = {value.name for value in model.graph.output}
        convolved = {node.output[0] for node in model.graph.node if node.op_type == "Conv"} - outputs
        for node in model.graph.node:
            if node.op_type == "Relu" and node.input[0] in convolved:
                node.op_type = "LeakyRelu"
        return model


class Secretive(Sealed):
    """Wrong in every sigmoid, and gives no convolution's value away."""

    name: ClassVar[str] = "secretive"
    title: ClassVar[str] = "Secretive"

    def change(self, model: onnx.ModelProto) -> onnx.ModelProto:
        outputs = {value.name for value in model.graph.output}
        for node in model.graph.node:
            if node.op_type == "Conv" and node.output[0] in outputs and len(outputs) > 1:
                raise RuntimeError("convolutions are mine")
            if node.op_type == "Sigmoid":
                node.op_type = "Tanh"
        return model


SEALED, FUSING, SECRETIVE = Sealed(), Fusing(), Secretive()
