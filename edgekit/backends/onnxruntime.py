"""ONNX Runtime on the CPU.

The artifact is the network as ONNX; the runtime optimises it for the machine at hand when it opens it, so one
file serves every CPU. Where the network has operators of edgekit's, their library for the target's machine
goes with it. A quantized network is stored as it is fused (:mod:`edgekit.backends.onnxruntime_bytes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgekit import machine
from edgekit.backends import onnxruntime_bytes
from edgekit.backends.base import (
    Artifact,
    ArtifactInfo,
    Backend,
    NetworkSession,
    Refusal,
    as_file,
    has_own_operators,
    node_names,
    translated,
)
from edgekit.errors import SessionError
from edgekit.graph.graph import Graph
from edgekit.graph.opset import DOMAIN
from edgekit.hosts import build
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target

_FILE = "model.onnx"
# Says that products of bytes need more than 16 bits, in artifacts of such networks: on x86 without VNNI the
# fast kernels would saturate, and the exact ones are asked for.
_EXACT = "exact-products.txt"
_DOT_PRODUCTS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))
_PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS = 3
# It makes bytes of weights that are to stay float32, with one scale for all of them, wherever a layer reads
# and writes rounded values.
_UNWANTED = ["WeightBiasQuantization"]


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
    domains = frozenset({"", "ai.onnx.ml", "com.microsoft", DOMAIN})
    library = build.ONNXRUNTIME.file

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        import onnx_ir as ir

        nodes = list(graph.model.graph.all_nodes())
        reasons = []
        double = [
            node
            for node in nodes
            if node.op_type in _NO_FLOAT64
            and node.inputs[0] is not None
            and node.inputs[0].dtype == ir.DataType.DOUBLE
        ]
        if double:
            reasons.append(Refusal("operators in float64", node_names(double), "export the model in float32"))
        # Of float16 it computes what it has no kernel for in float32; of bfloat16 it does not.
        brain = [
            node
            for node in nodes
            if node.op_type != "Cast" and any(v.dtype == ir.DataType.BFLOAT16 for v in node.outputs)
        ]
        if brain:
            reasons.append(
                Refusal(
                    "operators in bfloat16",
                    node_names(brain),
                    "take another precision, or --backend openvino",
                )
            )
        return reasons

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        _write_network(model, out)
        if has_own_operators(model):
            library = build.library(build.ONNXRUNTIME, build.Platform.of(target))
            (out / self.library).write_bytes(library.read_bytes())

    def _library_for_here(self) -> bytes:
        return build.library(build.ONNXRUNTIME).read_bytes()

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _LOG_ERRORS
        if artifact.info.library:
            content = artifact.files[artifact.info.library]
            options.register_custom_ops_library(str(as_file(artifact.info.library, content)))
        if _EXACT in artifact.files and not _DOT_PRODUCTS & set(machine.record().features):
            options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(
            artifact.files[_FILE], options, providers=[_PROVIDER], disabled_optimizers=_UNWANTED
        )
        session.disable_fallback()
        if session.get_providers() != [_PROVIDER]:
            raise SessionError(f"want {_PROVIDER} alone, got {', '.join(session.get_providers())}")
        return _Session(artifact.info, session)


def _write_network(model: Path, out: Path) -> None:
    """The network's file, in the form that is fused where it is quantized."""
    import onnx_ir as ir

    network = ir.load(model)
    if not onnxruntime_bytes.is_quantized(network):
        (out / _FILE).write_bytes(model.read_bytes())
        return
    onnxruntime_bytes.rewrite(network)
    if onnxruntime_bytes.may_saturate(network):
        onnxruntime_bytes.separate_weights(network)
        (out / _EXACT).write_text("products of the weights and bytes overflow 16 bits in pairs\n")
    content = ir.serde.serialize_model(network).SerializeToString(deterministic=True)
    (out / _FILE).write_bytes(content)


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


class Literal:
    """A network computed node by node, as it is written; see :func:`literal`.

    Attributes:
        inputs: Names of its inputs, in order.
        outputs: Names of its outputs, in order.
    """

    def __init__(self, session: Any) -> None:
        self.inputs = tuple(value.name for value in session.get_inputs())
        self.outputs = tuple(value.name for value in session.get_outputs())
        self._session = session

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            SessionError: ONNX Runtime failed, or the network is closed.
        """
        if self._session is None:
            raise SessionError("the network is closed", where=OnnxRuntime.name, hint="open it again")
        with translated(SessionError, f"{OnnxRuntime.title} failed while running"):
            arrays = self._session.run(self.outputs, dict(feeds))
        return dict(zip(self.outputs, arrays, strict=True))

    def close(self) -> None:
        """Give back its memory. May be called twice."""
        self._session = None


def literal(model: bytes | Path, *, own_operators: bool, threads: int = 0) -> Literal:
    """Open a network with every optimization off: what each node of the file says is what is computed.

    Memory goes back to the system as soon as a value was used for the last time.

    Args:
        model: An ONNX file or its bytes.
        own_operators: Whether it has operators of edgekit's.
        threads: Threads to use; 0 for all that the process may use.

    Raises:
        UnavailableError: ONNX Runtime, or the library of our operators, is missing.
        SessionError: ONNX Runtime refuses the network.
    """
    BACKEND.load()
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or machine.usable_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = _LOG_ERRORS
    if own_operators:
        options.register_custom_ops_library(str(build.library(build.ONNXRUNTIME)))
    with translated(SessionError, f"{OnnxRuntime.title} could not open the network"):
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=[_PROVIDER])
    session.disable_fallback()
    return Literal(session)


BACKEND = OnnxRuntime()
