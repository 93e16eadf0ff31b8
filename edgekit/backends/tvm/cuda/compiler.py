"""From a network in ONNX to a library for a processor and a GPU beside it, on a machine that has neither."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import tvm
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from tvm.relax import transform
from tvm.relax.frontend.onnx import from_onnx

from edgekit.backends.tvm.cuda import device, elementwise
from edgekit.backends.tvm.cuda.network import rewritten
from edgekit.backends.tvm.importer import importable
from edgekit.hosts import tvm as kernels
from edgekit.hosts.build import Platform


def export(
    network: Any,
    out: Path,
    arch: str,
    host: Platform,
    assembler: device.Assembler | None = None,
    *,
    version: str = "",
    mcpu: str = "",
) -> None:
    """Compile a network to a shared library whose kernels run on a GPU.

    Inputs and outputs are float32 on the GPU; in between, images are in half precision. The library wants
    TVM's runtime for CUDA.

    Args:
        network: The onnx_ir model, of fixed lengths; its constants become initializers.
        out: The library's file.
        arch: The GPU's, such as ``sm_87``.
        host: What the library runs on.
        assembler: From the kernels' text to machine code; by default a compiler of CUDA's.
        version: Of the CUDA whose driver is there; empty for that of nvcc.
        mcpu: LLVM's name of the host; empty for the lowest common one.

    Raises:
        CompileError: The network has lengths that vary, or weights too large for half precision; a compiler
            fails.
        UnavailableError: There is no compiler of that CUDA, or no C++ compiler for the host.
        Exception: As TVM raises it.
    """
    wanted = device.target(arch, host, mcpu)
    with importable() as used:
        module = lowered(network, wanted)
    executable = device.compiled(module, wanted)
    addons = kernels.gpu_addons(host, arch, version) if used else []
    assembler = assembler or partial(device.assemble, version=version)
    device.write_library(executable, out, wanted, host, assembler, addons)


def lowered(network: Any, wanted: Any) -> Any:
    """The network as calls of kernels, of which those with a rule of ours are scheduled."""
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(network)
    module = from_onnx(ir.to_proto(network))
    with wanted:
        prepare = [
            transform.DecomposeOpsForInference(),
            transform.CanonicalizeBindings(),
            transform.FoldConstant(),
        ]
        module = rewritten(tvm.transform.Sequential(prepare)(module))
        lower = [
            transform.DeadCodeElimination(["main"]),
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
        ]
        module = tvm.transform.Sequential(lower)(module)
    for name, function in module.functions_items():
        if isinstance(function, tvm.tirx.PrimFunc) and "tirx.is_scheduled" not in function.attrs:
            module[name] = elementwise.scheduled(function) or function
    return module
