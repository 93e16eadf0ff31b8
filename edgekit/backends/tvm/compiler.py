"""From a network in ONNX to a shared library: import, plan and schedule, generate code, link."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import tvm
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from tvm.relax import backend, transform
from tvm.relax.frontend.onnx import from_onnx

from edgekit.backends.tvm import fallback, tuned, tuning
from edgekit.backends.tvm.emission import SCHEDULED, planned
from edgekit.backends.tvm.importer import importable
from edgekit.backends.tvm.measuring import Runner
from edgekit.backends.tvm.processor import Processor
from edgekit.errors import UsageError
from edgekit.hosts import build
from edgekit.hosts import tvm as kernels
from edgekit.hosts.build import Platform

# What TVM looks for, and what tests of the kernels do; the C++ library of the kernels is theirs alone.
_EXPORTS = "{{ global: __tvm*; __TVM*; {kernels} local: *; }};\n"
# Each kernel would check its arguments, in more code than it computes with: the network checks its own.
_UNCHECKED = {"tirx.disable_assert": True}
# Names of local functions and what a debugger wants are a fifth of a small network's file.
_STRIPPED = ("-s",)


def export(
    network: Any,
    out: Path,
    options: Mapping[str, Any],
    wanted: Platform,
    processor: Processor | None = None,
) -> None:
    """Compile a network to a shared library.

    Args:
        network: The onnx_ir model; its constants become initializers.
        out: The library's file.
        options: Of the backend.
        wanted: The system that the library runs on.
        processor: What it runs on; by default the least of the architecture. What was measured of it is
            looked up, unless it comes with that.

    Raises:
        CompileError: This release of TVM does not take operators of edgekit, or the C++ compiler fails.
        UnavailableError: The network has operators of edgekit, and there is no C++ compiler for them; or
            the device where tiles are to be measured does not answer.
        UsageError: A device where tiles are to be measured is named, and no time to do it.
        Exception: As TVM raises it.
    """
    module, used = imported(network)
    processor = _measured(module, processor or Processor.least(wanted.arch), options, wanted)
    llvm = tvm.target.Target(processor.llvm({name: options.get(name, "") for name in ("mcpu", "mtriple")}))
    with llvm:
        module = _fused(planned(module, processor))
    with tvm.transform.PassContext(config=_UNCHECKED):
        executable = tvm.compile(module, llvm, relax_pipeline=_lowered())
    if not used and wanted.arch == platform.machine():
        executable.export_library(str(out), options=[*_STRIPPED])
        return

    def link(path: str, objects: list[str], options: Sequence[str] = ()) -> None:
        with tempfile.TemporaryDirectory() as folder:
            exports = Path(folder, "exports.map")
            # A linker may refuse names that there are not.
            exports.write_text(_EXPORTS.format(kernels="edgekit_last_call;" if used else ""), "utf-8")
            # A network that is nothing but calls comes as C, and not as an object.
            flags = ["-fPIC", f"-Wl,--version-script={exports}", *_STRIPPED, *options]
            build.link(objects, Path(path), wanted, flags)

    executable.export_library(str(out), fcompile=link, addons=kernels.addons(wanted) if used else [])


def imported(network: Any) -> tuple[Any, bool]:
    """A network as TVM's importer gives it, and whether it has operators of edgekit.

    Args:
        network: The onnx_ir model; its constants become initializers.
    """
    # The importer reads no Constant that is a plain number or a list of numbers.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(network)
    with importable() as used:
        return from_onnx(ir.to_proto(network)), bool(used)


def _measured(module: Any, processor: Processor, options: Mapping[str, Any], wanted: Platform) -> Processor:
    """The processor with what was measured of it, now if that is wanted."""
    if processor.tuned is not None:
        return processor
    # Records are about the code that LLVM makes.
    processor = replace(processor, mcpu=options.get("mcpu") or processor.mcpu)
    seconds, address = options.get("tune_s"), options.get("rpc", "")
    if address and not seconds:
        raise UsageError(
            f"nothing would be measured at {address}: want tvm.tune_s with tvm.rpc, got none",
            where="tvm.rpc",
            hint="--option tvm.tune_s=120",
        )
    if seconds:
        runner = Runner(address, wanted)
        report = tuning.tune(module, processor, seconds, runner, on_event=_say)
        for line in (str(report), *report.notes):
            _say(line)
    found = tuned.load(processor.name)
    for note in found.notes:
        _say(note)
    return replace(processor, tuned=found)


def _say(line: str) -> None:
    """Into the log of the process that compiles."""
    print(line, file=sys.stderr, flush=True)


def _fused(module: Any) -> Any:
    """The network as calls of fused and scheduled loop nests."""
    passes = [
        backend.DispatchSampling(),
        backend.DispatchSortScan(),
        # A reshape is another view of the same memory.
        transform.LegalizeOps(skip_ops=["relax.reshape"]),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    module = tvm.transform.Sequential(passes)(module)
    for name, function in module.functions_items():
        if isinstance(function, tvm.tirx.PrimFunc) and SCHEDULED not in function.attrs:
            module[name] = fallback.scheduled(function)
    return module


def _lowered() -> Any:
    """TVM's pipeline, less the search for reshapes among functions, which takes none of ours."""
    return tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )
