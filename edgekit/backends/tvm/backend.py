"""Apache TVM on the CPU: the network becomes machine code of its own, in one shared library.

The route is ONNX → Relax → fused loop nests → LLVM. The artifact (``model.so``) is native code for one
architecture and needs only TVM's runtime; where the network has operators of edgekit, it holds their kernels.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgekit.backends.base import (
    Artifact,
    ArtifactInfo,
    Backend,
    NetworkSession,
    Refusal,
    check_machine,
    kept_out,
    node_names,
)
from edgekit.errors import UnavailableError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.hosts import compilers
from edgekit.hosts import tvm as kernels
from edgekit.hosts.build import Platform
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target

_FILE = "model.so"
_ALIGNMENT = 64  # bytes; TVM's code loads whole vectors
_SHARE_ALL_CORES = -3  # TVM's other modes pin threads, the caller's among them, to one core each
_LINKERS = ("c++", "g++", "clang++")

# Their outputs' lengths are quotients and products of the inputs': TVM cannot prove that two branches of a
# network with varying lengths meet again.
_RESIZING = frozenset(
    {
        "AveragePool",
        "ConvTranspose",
        "DepthToSpace",
        "LpPool",
        "MaxPool",
        "Resize",
        "SpaceToDepth",
        "Upsample",
    }
)
# Its importer lets sums be of the type of what is summed.
_SUMMING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class Tvm(Backend):
    """TVM's Relax compiler with a small schedule of our own: outer loops parallel, inner ones contiguous."""

    name: ClassVar[str] = "tvm"
    title: ClassVar[str] = "TVM"
    domains = frozenset({"", opset.DOMAIN})
    requirements = (Requirement("tvm", "apache-tvm", "tvm", "0.27"),)
    options: ClassVar[Mapping[str, int | float | str | bool]] = {
        # LLVM's name of the processor; empty for the lowest common one of the architecture.
        "mcpu": "",
        # LLVM's name of the system; empty for the one at hand.
        "mtriple": "",
        # Seconds to measure tiles of kernels that have not been measured yet; 0 for none.
        "tune_s": 0,
        # Where they are measured: HOST:PORT of TVM's RPC server on a device; empty for this machine.
        "rpc": "",
    }
    native = True
    # tvm_ffi has no switch for it.
    unwanted = ("torch",)

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        reasons = []
        here = platform.machine()
        if target.arch != here:
            reasons.append(
                Refusal(
                    f"machine code for {target.arch} is made on such a machine only, and this is {here}",
                    hint=f"compile on the device, or --backend {_another(target)}",
                )
            )
        elif lacking := _lacking_features(target):
            reasons.append(
                Refusal(
                    f"machine code for {target.title} is checked by running it, and this machine lacks "
                    f"{', '.join(lacking)}",
                    hint=f"compile on the device, or --backend {_another(target)}",
                )
            )
        if not any(map(shutil.which, _LINKERS)):
            reasons.append(
                Refusal(
                    f"linking needs a C++ compiler: want one of {', '.join(_LINKERS)}",
                    hint="apt-get install g++",
                )
            )
        return reasons + _operator_refusals(graph, target)

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        import onnx_ir as ir

        with kept_out(*self.unwanted):
            from edgekit.backends.tvm.compiler import export
            from edgekit.backends.tvm.processor import Processor

            export(ir.load(model), out / _FILE, info.options, Platform.of(target), Processor.of(target))

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        import tvm
        from tvm.runtime.vm import VirtualMachine

        check_machine(_FILE, artifact.files[_FILE])
        # A fresh name in a private folder: the loader knows libraries by name, and nobody else may write it.
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path = Path(folder) / _FILE
            path.write_bytes(artifact.files[_FILE])
            library = tvm.runtime.load_module(str(path))
        return _Session(artifact.info, VirtualMachine(library, tvm.cpu()), threads)


class _Session(NetworkSession):
    """TVM keeps one pool of threads for each thread that calls it; its size is set when it is wrong."""

    _pool = threading.local()

    def __init__(self, info: ArtifactInfo, machine: Any, threads: int) -> None:
        import tvm
        import tvm_ffi

        super().__init__(info)
        self._machine = machine
        self._main = machine["main"]
        self._threads = threads
        self._configure = tvm.get_global_func("runtime.config_threadpool")
        self._to_tvm = tvm_ffi.from_dlpack
        self._feeds: dict[str, tuple[Array, Any]] = {}
        self._inputs = [spec.name for spec in info.inputs]
        self._outputs = [spec.name for spec in info.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._main is None:
            raise self.closed()
        if getattr(self._pool, "threads", 0) != self._threads:
            cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]
            self._configure(_SHARE_ALL_CORES, self._threads, cpus)
            self._pool.threads = self._threads
        try:
            results = self._main(*[self._feed(name, feeds[name]) for name in self._inputs])
            if len(self._outputs) == 1 and not isinstance(results, (list, tuple)):
                results = [results]
            # A copy, because an output may be an input or a constant.
            return {
                name: np.from_dlpack(result).copy()
                for name, result in zip(self._outputs, results, strict=True)
            }
        except Exception as error:
            raise self.failed(error) from error

    def _feed(self, name: str, array: Array) -> Any:
        """The array's content as an aligned tensor of TVM's; the memory is kept from run to run."""
        kept = self._feeds.get(name)
        if kept is None or kept[0].shape != array.shape or kept[0].dtype != array.dtype:
            buffer = _aligned_like(array)
            kept = self._feeds[name] = (buffer, self._to_tvm(buffer))
        np.copyto(kept[0], array)
        return kept[1]

    def close(self) -> None:
        self._main = self._machine = None
        self._feeds.clear()


def _operator_refusals(graph: Graph, target: Target) -> list[Refusal]:
    nodes = list(graph.model.graph.all_nodes())
    way_out = f"--backend {_another(target)}"
    reasons = []
    known = _importable()
    own = [n for n in nodes if _is_ours(n)]
    unknown = [n for n in nodes if known and n.op_type not in known and n not in own]
    if unknown:
        reasons.append(Refusal("operators that its importer does not know", node_names(unknown), way_out))
    if own and (missing := _missing_for_kernels()):
        reasons.append(Refusal(missing.message, node_names(own), missing.hint or ""))
    indexed = [n for n in nodes if n.op_type == "MaxPool" and len(n.outputs) > 1]
    if indexed:
        reasons.append(Refusal("MaxPool with indices", node_names(indexed), way_out))
    padded = [n for n in nodes if n.op_type == "Pad" and _computed(n, 1)]
    if padded:
        reasons.append(
            Refusal("Pad with widths that are computed while running", node_names(padded), way_out)
        )
    half = [n for n in nodes if n.op_type in _SUMMING and _has_16_bits(n)]
    if half:
        reasons.append(
            Refusal(
                "layers in 16 bits, which it would sum up in 16 bits, several times slower than in float32",
                node_names(half),
                f"take another precision, or {way_out}",
            )
        )
    varying = any(not isinstance(length, int) for spec in graph.inputs for length in spec.dims[2:])
    resizing = [n for n in nodes if n.op_type in _RESIZING or _strided(n)]
    if varying and resizing:
        reasons.append(
            Refusal(
                "lengths that vary, in a network that changes them on the way",
                node_names(resizing),
                f"fix the lengths with --shape, or {way_out}",
            )
        )
    return reasons


def _is_ours(node: Any) -> bool:
    """Whether the network calls edgekit's kernels for a node: one of the domain, or 5-D GridSample."""
    if node.domain == opset.DOMAIN:
        return node.op_type in opset.OPERATORS
    image = node.inputs[0] if node.op_type == "GridSample" else None
    return image is not None and image.shape is not None and len(image.shape) == 5


def _missing_for_kernels() -> UnavailableError | None:
    """What a network is linked with that is not here."""
    try:
        compilers.compiler(Platform.here())
        kernels.adapter()
    except UnavailableError as error:
        return error
    return None


@functools.cache
def _importable() -> frozenset[str]:
    """Operators in the table of TVM's ONNX importer; empty where it cannot be read.

    It is read from the source text: importing the compiler would take a second and hundreds of megabytes.
    """
    found = importlib.util.find_spec("tvm")
    if found is None or found.origin is None:
        return frozenset()
    source = Path(found.origin).parent / "relax" / "frontend" / "onnx" / "onnx_frontend.py"
    if not source.is_file():
        return frozenset()
    _, _, table = source.read_text(encoding="utf-8").partition("def _get_convert_map(")
    return frozenset(re.findall(r'^ {8}"(\w+)": ', table.partition("\nclass ")[0], re.MULTILINE))


def _lacking_features(target: Target) -> list[str]:
    """Instruction set extensions of the target that this machine does not have."""
    try:
        here = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # Linux only
        return []
    return [feature for feature in target.cpu_features if feature not in here]


def _computed(node: Any, index: int) -> bool:
    """Whether an input is neither a weight nor a Constant."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None or value.const_value is not None:
        return False
    producer = value.producer()
    return producer is None or producer.op_type != "Constant"


def _strided(node: Any) -> bool:
    strides = node.attributes.get("strides") if node.op_type == "Conv" else None
    return strides is not None and any(stride > 1 for stride in strides.as_ints())


def _has_16_bits(node: Any) -> bool:
    kinds = [value.dtype for value in (*node.inputs, *node.outputs) if value is not None]
    return any(kind is not None and kind.name in ("FLOAT16", "BFLOAT16") for kind in kinds)


def _another(target: Target) -> str:
    return next((name for name in target.backends if name != "tvm"), "reference")


def _aligned_like(array: Array) -> Array:
    room = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % _ALIGNMENT
    return room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)


BACKEND = Tvm()
