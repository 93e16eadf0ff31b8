"""Apache TVM on processors and on GPUs: the network becomes machine code of its own, in one shared library.

The route is ONNX → Relax → fused loop nests → LLVM. The artifact (``model.so``) is native code for one
architecture and needs only TVM's runtime; where the network has operators of edgekit, it holds their kernels.
"""

from __future__ import annotations

import os
import platform
import tempfile
import threading
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgekit import machine
from edgekit.backends.base import (
    Artifact,
    ArtifactInfo,
    Backend,
    Build,
    NetworkSession,
    Refusal,
    check_machine,
    kept_out,
)
from edgekit.backends.tvm import refusals
from edgekit.errors import MismatchError, UnavailableError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.hosts import cuda
from edgekit.hosts.build import Platform
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Arch, DeviceKind, Target

_FILE = "model.so"
_ALIGNMENT = 64  # bytes; TVM's code loads whole vectors
_SHARE_ALL_CORES = -3  # TVM's other modes pin threads, the caller's among them, to one core each
# Options that are about the device and not about the network.
_OF_THE_DEVICE = ("mcpu", "mtriple", "rpc", "tune_s")


class Tvm(Backend):
    """TVM's Relax compiler with a small schedule of our own: outer loops parallel, inner ones contiguous."""

    name: ClassVar[str] = "tvm"
    title: ClassVar[str] = "TVM"
    devices: ClassVar[tuple[DeviceKind, ...]] = ("cuda", "cpu")
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

    def foreign(self, target: Target) -> str:
        """Why what it compiles for a target cannot be run on this machine; empty where it can."""
        here = platform.machine()
        if target.arch != here:
            return f"it is machine code for {target.arch}, and this machine is {here}"
        if target.device == "cuda":
            found = cuda.compute_capability()
            if found != target.compute_capability:
                got = f"a GPU of {found}" if found else "no GPU"
                return f"it is for a GPU of compute capability {target.compute_capability}, and here is {got}"
            return ""
        if lacking := _lacking_features(target):
            return f"it may use {', '.join(lacking)}, which this processor does not have"
        return ""

    def stand_in(self, target: Target) -> Target | None:
        """This machine's processor in the place of another: the same network, other vectors and threads."""
        if target.device != "cpu":
            return None
        here = machine.record()
        options = {k: v for k, v in target.options_for(self.name).items() if k not in _OF_THE_DEVICE}
        return replace(
            target,
            arch=typing.cast(Arch, here.arch),
            cpu=None,
            cpu_features=here.features,
            software={},
            jetpacks=(),
            options={self.name: options},
        )

    def graph_precision(self, precision: str, build: Build) -> str:
        """The precision of the graph that it takes, where a user asks for one.

        On a GPU it computes in half precision whatever the graph says, and on the processor beside it 16 bits
        are slower than 32.
        """
        if build.target.device == "cuda":
            return "float32"
        return "float32" if precision == "float16" and build.name != self.name else precision

    def notes(self, artifact: Artifact) -> tuple[str, ...]:
        """What a user wants to know of an artifact; it ends up in the bundle's notes."""
        if artifact.info.device != "cuda":
            return ()
        return (
            f"{artifact.info.name}: computes in half precision on tensor cores; wants TVM's runtime for "
            "CUDA, which TVM's packages have for CUDA 13 (JetPack 7) alone: for JetPack 6 it is to be built",
        )

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        on_gpu = target.device == "cuda"
        return refusals.for_gpu(graph, target) if on_gpu else refusals.for_processor(graph, target)

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        import onnx_ir as ir

        network, host = ir.load(model), Platform.of(target)
        with kept_out(*self.unwanted):
            from edgekit.backends.tvm.processor import Processor

            processor = Processor.of(target)
            if target.device == "cuda":
                from edgekit.backends.tvm.cuda import compiler as for_gpu

                arch = cuda.architecture(target.compute_capability)
                version, mcpu = target.software.get("cuda", ""), processor.mcpu
                for_gpu.export(network, out / _FILE, arch, host, version=version, mcpu=mcpu)
            else:
                from edgekit.backends.tvm.compiler import export

                options = dict(info.options)
                if target.arch != platform.machine():
                    options["mtriple"] = options["mtriple"] or f"{target.arch}-linux-gnu"
                export(network, out / _FILE, options, host, processor)

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        import tvm
        from tvm.runtime.vm import VirtualMachine

        content = artifact.files[_FILE]
        check_machine(_FILE, content)
        device = _gpu(tvm, artifact.info.name, content) if artifact.info.device == "cuda" else tvm.cpu()
        # A fresh name in a private folder: the loader knows libraries by name, and nobody else may write it.
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path = Path(folder) / _FILE
            path.write_bytes(content)
            library = tvm.runtime.load_module(str(path))
        return _Session(artifact.info, VirtualMachine(library, device), device, threads)


class _Session(NetworkSession):
    """TVM keeps one pool of threads for each thread that calls it; its size is set when it is wrong."""

    _pool = threading.local()

    def __init__(self, info: ArtifactInfo, machine: Any, device: Any, threads: int) -> None:
        import tvm
        import tvm_ffi

        super().__init__(info)
        self._machine = machine
        self._main = machine["main"]
        self._threads = threads
        self._configure = tvm.get_global_func("runtime.config_threadpool")
        self._to_tvm = tvm_ffi.from_dlpack
        # Of a GPU; memory of the processor is handed over as it is.
        self._gpu = device if info.device == "cuda" else None
        self._on_gpu = tvm.runtime.empty
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
                name: result.numpy() if self._gpu is not None else np.from_dlpack(result).copy()
                for name, result in zip(self._outputs, results, strict=True)
            }
        except Exception as error:
            raise self.failed(error) from error

    def _feed(self, name: str, array: Array) -> Any:
        """The array's content as an aligned tensor of TVM's; the memory is kept from run to run."""
        kept = self._feeds.get(name)
        if self._gpu is not None:
            if kept is None or kept[0].shape != array.shape or kept[0].dtype != array.dtype:
                kept = self._feeds[name] = (array, self._on_gpu(array.shape, str(array.dtype), self._gpu))
            kept[1].copyfrom(array)
            return kept[1]
        if kept is None or kept[0].shape != array.shape or kept[0].dtype != array.dtype:
            buffer = _aligned_like(array)
            kept = self._feeds[name] = (buffer, self._to_tvm(buffer))
        np.copyto(kept[0], array)
        return kept[1]

    def close(self) -> None:
        self._main = self._machine = None
        self._feeds.clear()


def _gpu(tvm: Any, name: str, content: bytes) -> Any:
    """The GPU that a library's machine code is for.

    Raises:
        UnavailableError: There is none, or no runtime for it.
        MismatchError: It is another one.
    """
    device = tvm.cuda(0)
    if not device.exist:
        raise UnavailableError(
            f"{name} wants a GPU and TVM's runtime for it, and TVM finds none",
            where=name,
            hint="TVM's packages bring it for CUDA 13; for others it is built from TVM's sources",
        )
    here, made_for = cuda.architecture(device.compute_version), cuda.architectures(content)
    if here not in made_for:
        raise MismatchError(
            f"{name} holds machine code for {', '.join(made_for) or 'no GPU'}, this GPU is {here}",
            where=name,
            hint="compile it for this device: edgekit targets",
        )
    return device


def _aligned_like(array: Array) -> Array:
    room = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % _ALIGNMENT
    return room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)


def _lacking_features(target: Target) -> list[str]:
    """Instruction set extensions of the target that this machine does not have."""
    try:
        here = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # Linux only
        return []
    return [feature for feature in target.cpu_features if feature not in here]


BACKEND = Tvm()
