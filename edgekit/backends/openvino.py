"""OpenVINO on the CPU.

The artifact is OpenVINO's own form of the network (``model.xml`` with the structure, ``model.bin`` with the
weights), in float32 and good for every CPU; it is optimised for the machine at hand when it is opened.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgekit.backends.base import Artifact, ArtifactInfo, Backend, NetworkSession, Refusal, node_names
from edgekit.errors import SessionError
from edgekit.graph.graph import Graph
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target

_XML, _BIN = "model.xml", "model.bin"


# Operators of ONNX that its importer does not take (tried on 2026.4).
_MISSING = frozenset(
    {
        "BitCast",
        "CausalConvWithState",
        "CumProd",
        "DeformConv",
        "Det",
        "LinearAttention",
        "MaxUnpool",
        "MelWeightMatrix",
        "STFT",
        "SequenceInsert",
        "SequenceMap",
        "SplitToSequence",
        "TensorScatter",
        "TfIdfVectorizer",
    }
)


class OpenVino(Backend):
    """OpenVINO with its CPU device."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"
    requirements = (Requirement("openvino", "openvino", "openvino", "2026.0"),)
    # Importing OpenVINO reports that to a statistics service on the network; without this package it cannot.
    unwanted = ("openvino_telemetry",)

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        nodes = list(graph.model.graph.all_nodes())
        reasons = []
        missing = [node for node in nodes if node.op_type in _MISSING]
        if missing:
            reasons.append(
                Refusal(
                    "operators that its importer does not know",
                    node_names(missing),
                    "--backend onnxruntime",
                )
            )
        volumetric = [n for n in nodes if n.op_type == "GridSample" and _rank(n.inputs[0]) not in (None, 4)]
        if volumetric:
            reasons.append(
                Refusal(
                    "GridSample works on 4-D tensors only",
                    node_names(volumetric),
                    "end the network before the warp, which then becomes a step, or --backend onnxruntime",
                )
            )
        return reasons

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        import openvino

        network = _core().read_model(model)
        # Half precision is a pass of edgekit's own, so that every backend gets the same numbers.
        openvino.save_model(network, out / _XML, compress_to_fp16=False)

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        import numpy as np
        import openvino

        core = _core()
        weights = openvino.Tensor(np.frombuffer(artifact.files[_BIN], np.uint8))
        network = core.read_model(artifact.files[_XML], weights)
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                # The ARM plugin, and x86 ones with AMX, would compute in 16 bits unasked.
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": 1,
            },
        )
        counts = (len(compiled.inputs), len(compiled.outputs))
        if counts != (len(artifact.info.inputs), len(artifact.info.outputs)):
            raise SessionError(
                f"want {len(artifact.info.inputs)} inputs and {len(artifact.info.outputs)} outputs, "
                f"got {counts[0]} and {counts[1]}"
            )
        return _Session(artifact.info, compiled)


@functools.cache
def _core() -> Any:
    """The process's only Core, which is never freed.

    Its CPU plugin gives the calling thread a stack for signals, and takes it back in the wrong order where
    there are several Cores: the next Ctrl-C would then end the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()


class _Session(NetworkSession):
    def __init__(self, info: ArtifactInfo, compiled: Any) -> None:
        import openvino

        super().__init__(info)
        self._tensor = openvino.Tensor
        self._request: Any = compiled.create_infer_request()
        # The names stand in the contract: those of the vendor's form change with its version.
        self._inputs = list(enumerate(spec.name for spec in info.inputs))
        self._outputs = list(enumerate(spec.name for spec in info.outputs))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        request = self._request
        if request is None:
            raise self.closed()
        try:
            for index, name in self._inputs:
                array = feeds[name]
                # Read in place; a read-only array has to be copied, OpenVINO takes no other.
                tensor = self._tensor(array, shared_memory=array.flags.writeable)
                request.set_input_tensor(index, tensor)
            # `start_async` and `wait` skip the conversions of `infer`.
            request.start_async()
            request.wait()
            return {name: request.get_output_tensor(index).data.copy() for index, name in self._outputs}
        except Exception as error:
            raise self.failed(error) from error

    def close(self) -> None:
        self._request = None


def _rank(value: Any) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


BACKEND = OpenVino()
