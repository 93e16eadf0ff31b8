"""ONNX Runtime on the CPU.

The artifact is the network as ONNX; the runtime optimises it for the machine at hand when it opens it, so one
file serves every CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgekit.backends.base import Artifact, ArtifactInfo, Backend, NetworkSession, Refusal, node_names
from edgekit.errors import SessionError
from edgekit.graph.graph import Graph
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target

_FILE = "model.onnx"
_PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS = 3


# Operators of image networks that its CPU provider has in float32 and not in float64 (tried on 1.32).
_NO_FLOAT64 = frozenset(
    {
        "AveragePool",
        "Conv",
        "ConvTranspose",
        "Elu",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "InstanceNormalization",
        "LRN",
        "Mish",
        "Resize",
        "Selu",
        "Softplus",
    }
)


class OnnxRuntime(Backend):
    """ONNX Runtime with its CPU provider and no other."""

    name: ClassVar[str] = "onnxruntime"
    title: ClassVar[str] = "ONNX Runtime"
    requirements = (Requirement("onnxruntime", "onnxruntime", "onnxruntime", "1.23"),)
    domains = frozenset({"", "ai.onnx.ml", "com.microsoft"})

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        import onnx_ir as ir

        double = [
            node
            for node in graph.model.graph.all_nodes()
            if node.op_type in _NO_FLOAT64
            and node.inputs[0] is not None
            and node.inputs[0].dtype == ir.DataType.DOUBLE
        ]
        if not double:
            return []
        return [Refusal("operators in float64", node_names(double), "export the model in float32")]

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        (out / _FILE).write_bytes(model.read_bytes())

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _LOG_ERRORS
        session = onnxruntime.InferenceSession(artifact.files[_FILE], options, providers=[_PROVIDER])
        session.disable_fallback()
        if session.get_providers() != [_PROVIDER]:
            raise SessionError(f"want {_PROVIDER} alone, got {', '.join(session.get_providers())}")
        return _Session(artifact.info, session)


class _Session(NetworkSession):
    def __init__(self, info: ArtifactInfo, session: Any) -> None:
        super().__init__(info)
        self._session = session
        self._names = [spec.name for spec in info.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._session is None:
            raise self.closed()
        try:
            arrays = self._session.run(self._names, feeds)
        except Exception as error:
            raise self.failed(error) from error
        return dict(zip(self._names, arrays, strict=True))

    def close(self) -> None:
        self._session = None


BACKEND = OnnxRuntime()
