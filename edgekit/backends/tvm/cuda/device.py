"""Device code for NVIDIA's GPUs, and libraries that carry it: made without a GPU, and without CUDA's runtime.

Where TVM finds no CUDA runtime, its module for the GPU holds the source text, which the device would have to
compile with the whole toolkit. So the text is compiled here by ``nvcc`` or NVRTC, for the architecture that
was asked for, and the library is packed with the machine code in the text's place: in the form that TVM's
runtime on the device reads. It wants ``libtvm_runtime_cuda`` there, which TVM's package for aarch64 has for
CUDA 13 (JetPack 7).

What is made so was run on a processor that plays the GPU, and not yet on a device.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tvm

from edgekit.errors import CompileError
from edgekit.hosts import build, cuda
from edgekit.hosts.build import Platform

# The tensor cores that these kernels use came with it.
OLDEST = 80
_TRIPLES = {"aarch64": "aarch64-linux-gnu", "x86_64": "x86_64-linux-gnu"}
_EXPORTS = "{ global: __tvm*; __TVM*; local: *; };\n"
# Only a module that holds text can be given machine code.
_KEEP_TEXT = "TVM_COMPILE_FORCE_FALLBACK"

# TVM 0.27 takes this type for 8 floats, and writes a constant as one call of 8 arguments, which CUDA has not.
_EIGHT_FLOATS = """
static __device__ __forceinline__ ulonglong4 make_ulonglong4(float a, float b, float c, float d,
                                                             float e, float f, float g, float h) {
  float4 parts[2] = {make_float4(a, b, c, d), make_float4(e, f, g, h)};
  return *reinterpret_cast<ulonglong4*>(parts);
}
"""

# From the source text and an architecture to the format's name, as TVM's runtime knows it, and the code.
Assembler = Callable[[str, str], tuple[str, bytes]]


def target(arch: str, host: Platform, mcpu: str = "") -> Any:
    """TVM's target: a GPU, and the processor beside it.

    Args:
        arch: Such as ``sm_87``.
        host: The processor and its system.
        mcpu: LLVM's name of the processor; empty for the lowest common one.

    Raises:
        CompileError: The GPU has no such tensor cores, or the processor is none of a board with a GPU.
    """
    known = re.fullmatch(r"sm_(\d+)[af]?", arch)
    if not known or int(known[1]) < OLDEST:
        raise CompileError(
            f"kernels for a GPU: want an architecture from sm_{OLDEST} on, got {arch!r}",
            where="TVM",
            hint="sm_87 for Jetson Orin, sm_110 for Jetson Thor",
        )
    if host.arch not in _TRIPLES:
        raise CompileError(f"a GPU's host: want one of {', '.join(_TRIPLES)}, got {host.arch}", where="TVM")
    processor = {"kind": "llvm", "mtriple": _TRIPLES[host.arch]}
    if mcpu:
        processor["mcpu"] = mcpu
    return tvm.target.Target({"kind": "cuda", "arch": arch, "host": processor})


def assemble(source: str, arch: str, version: str = "") -> tuple[str, bytes]:
    """Machine code for one architecture, for the driver of a version of CUDA; see :mod:`edgekit.hosts.cuda`.

    Raises:
        UnavailableError: There is no compiler of that version.
        CompileError: It does not know the architecture, or fails.
    """
    return "cubin", cuda.assemble(source, arch, version)


def compiled(module: Any, wanted: Any) -> Any:
    """Compile a Relax module, or one of functions of TensorIR, and keep its device code as text.

    Not for several threads at once, as TVM is told so by the environment.
    """
    with _kept_text():
        return tvm.compile(module, wanted)


def source(executable: Any) -> str:
    """The device code's text, as it can be compiled; empty where everything runs on the processor."""
    text = _text(executable)
    return _EIGHT_FLOATS + text if text else ""


def write_library(
    executable: Any,
    out: Path,
    wanted: Any,
    host: Platform,
    assembler: Assembler = assemble,
    addons: Sequence[str] = (),
) -> None:
    """Link what was :func:`compiled` to a library with machine code for the GPU.

    Args:
        executable: From :func:`compiled`.
        out: The library's file.
        wanted: The target that it was compiled for.
        host: What the library runs on.
        assembler: From text to machine code.
        addons: Objects and archives to link with.

    Raises:
        UnavailableError: A compiler is missing.
        CompileError: A compiler fails.
    """

    def pack(module: Any, system: bool, prefix: str, folder: str) -> str:
        form, code = assembler(source(executable), str(wanted.attrs["arch"]))
        blob = _with_code(_packed(module), _text(executable), form, code)
        generate = tvm.get_global_func("codegen.codegen_blob")
        path = Path(folder, "device.o")
        generate(blob, system, str(wanted.host), prefix).write_to_file(str(path))
        return str(path)

    def link(path: str, objects: list[str], options: Sequence[str] = ()) -> None:
        with tempfile.TemporaryDirectory() as folder:
            exports = Path(folder, "exports.map")
            exports.write_text(_EXPORTS, encoding="utf-8")
            build.link(objects, Path(path), host, ["-fPIC", f"-Wl,--version-script={exports}", *options])

    library = getattr(executable, "mod", executable)
    packer = pack if source(executable) else None
    library.export_library(str(out), fcompile=link, fpack_imports=packer, addons=list(addons))


def _text(executable: Any) -> str:
    waiting = [getattr(executable, "mod", executable)]
    while waiting:
        module = waiting.pop()
        if module.kind == "cuda":
            return str(module.inspect_source())
        waiting.extend(module.imports)
    return ""


def _packed(module: Any) -> bytes:
    pack = tvm.get_global_func("runtime.ModulePackImportsToTensor")
    return bytes(pack(module).numpy().tobytes())


def _with_code(blob: bytes, text: str, form: str, code: bytes) -> bytes:
    """The packed modules with machine code in the place of the GPU module's text.

    A string is its length in 8 bytes and its bytes. The blob is one string, and in it follow on another: the
    tree of modules, then for each its kind and its content; the GPU's content is its format, a table, its
    code.
    """
    old = _string(b"cuda") + _table(blob, text) + _string(text.encode())
    new = _string(form.encode()) + _table(blob, text) + _string(code)
    head, found, tail = blob[8:].partition(_string(b"cuda") + _string(old))
    if not found:
        raise CompileError(
            "this release of TVM packs its modules in another way: want the form of 0.27",
            where="TVM",
            hint="pip install 'apache-tvm==0.27.*'",
        )
    return _string(head + _string(b"cuda") + _string(new) + tail)


def _table(blob: bytes, text: str) -> bytes:
    """What lies between the GPU module's format and its code: kernels and their arguments' types."""
    begin = blob.find(_string(b"cuda") + b"")  # the kind
    end = blob.find(_string(text.encode()))
    kind = len(_string(b"cuda"))
    return blob[begin + kind + 8 + kind : end]


def _string(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


@contextlib.contextmanager
def _kept_text() -> Iterator[None]:
    before = os.environ.get(_KEEP_TEXT)
    os.environ[_KEEP_TEXT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_KEEP_TEXT]
        else:
            os.environ[_KEEP_TEXT] = before
