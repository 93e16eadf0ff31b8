"""Libraries that register edgekit's operators in a runtime: which there are, and how they are made.

    path = library("onnxruntime")           # for SessionOptions.register_custom_ops_library
    path = library("openvino")              # for Core.add_extension
    path = library("tvm")                   # for tvm_ffi.load_module

A library is the kernels, the table of operators and one thin file for its runtime, all under ``csrc/``.
:mod:`edgekit.hosts.build` makes it once for each machine it is for, and keeps it. ``edgekit compile`` puts
them into bundles by itself. That for TensorRT has a command of its own, :mod:`edgekit.hosts.tensorrt`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import UnavailableError
from edgekit.registry import Registry

if TYPE_CHECKING:
    from edgekit.hosts.build import Adapter

# What each runtime's library is built with.
ADAPTERS: Registry[Callable[[], Adapter]] = Registry(
    "runtime",
    {
        "onnxruntime": "edgekit.hosts.build:onnxruntime",
        "openvino": "edgekit.hosts.openvino:adapter",
        "tvm": "edgekit.hosts.tvm:adapter",
    },
)


def library(runtime: str, *, arch: str = "", glibc: str = "") -> Path:
    """The library for a runtime, built now if it was not yet.

    Args:
        runtime: ``"onnxruntime"``, ``"openvino"`` or ``"tvm"``: the release that is installed.
        arch: What it runs on, as ``uname -m`` says it; this machine by default. That for OpenVINO is for this
            machine alone, as it is linked with OpenVINO.
        glibc: The oldest C library it has to load with, such as ``"2.31"``.

    Raises:
        UsageError: There is no such runtime.
        UnavailableError: It has to be built, and something is missing for that; the hint says what to type.
        CompileError: The compiler fails.
        MismatchError: What the compiler built does not load there.
    """
    from edgekit.hosts import build

    here = build.Platform.here()
    wanted = build.Platform(arch or here.arch, glibc)
    adapter = ADAPTERS[runtime]()
    if adapter.gnu and wanted.arch != here.arch:
        raise UnavailableError(
            f"the library for {runtime} is linked with {runtime} itself: want it built on {wanted.arch}, "
            f"this machine is {here.arch}",
            where=runtime,
            hint="build it on the device, or cross-compile with edgekit.hosts.build.library",
        )
    return build.library(adapter, wanted)
