"""CUDA's compiler as a library: device code of another CUDA than the one that is installed."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import CompileError, UnavailableError

# The wheel of each major version, where its library lies in it, and what to install.
_WHEELS = {
    11: ("nvidia.cuda_nvrtc", "libnvrtc.so.11.2", "nvidia-cuda-nvrtc-cu11==11.8.*"),
    12: ("nvidia.cuda_nvrtc", "libnvrtc.so.12", "nvidia-cuda-nvrtc-cu12=={version}.*"),
    13: ("nvidia.cu13", "libnvrtc.so.13", "nvidia-cuda-nvrtc=={version}.*"),
}
VARIABLE = "EDGEKIT_NVRTC"


@dataclass(frozen=True)
class Nvrtc:
    """A library of NVRTC.

    Attributes:
        path: Its file.
        version: Of its CUDA, such as (12, 6).
    """

    path: Path
    version: tuple[int, int]

    def compile(
        self, source: str, options: Sequence[str], headers: Mapping[str, str], *, ptx: bool = False
    ) -> bytes:
        """Compile to machine code, as the options say for which architecture, or to PTX that ends in 0.

        Args:
            source: CUDA C++.
            options: Such as ``-arch=sm_87``, which is a real architecture even where PTX is asked for.
            headers: What the source includes by these names, beside the files in folders of the options.
            ptx: Whether PTX is asked for.

        Raises:
            CompileError: The source does not compile.
        """
        library = ctypes.CDLL(str(self.path))
        program = ctypes.c_void_p()
        names, texts = _strings(headers), _strings(headers.values())
        self._call(
            library,
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.encode(),
            b"edgekit.cu",
            len(headers),
            texts,
            names,
        )
        try:
            done = library.nvrtcCompileProgram(program, len(options), _strings(options))
            if done:
                log = (
                    self._read(library, "nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace")
                )
                lines = [line for line in log.splitlines() if "error" in line]
                raise CompileError(
                    f"NVRTC {self.version[0]}.{self.version[1]} failed: {lines[0] if lines else log[:200]}",
                    where=" ".join(options),
                )
            return self._read(library, "nvrtcGetPTX" if ptx else "nvrtcGetCUBIN", program)
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, library: ctypes.CDLL, function: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(library, f"{function}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self._call(library, function, program, data)
        return data.raw

    @staticmethod
    def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
        code = getattr(library, function)(*arguments)
        if code:
            library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise CompileError(f"{function} failed: {library.nvrtcGetErrorString(code).decode()}")


def nvrtc_for(cuda: str) -> Nvrtc:
    """The NVRTC whose machine code a driver of a CUDA version takes: any of the same major version.

    ``EDGEKIT_NVRTC`` names a library; else it is that of the Python package.

    Args:
        cuda: Version of CUDA on the device, such as ``"12.6"``.

    Raises:
        UnavailableError: There is none.
    """
    major = int(cuda.partition(".")[0])
    package, file, wheel = _WHEELS[major]
    hint = f"pip install '{wheel.format(version=cuda)}'"
    named = os.environ.get(VARIABLE)
    for path in [Path(named)] if named else _in_package(package, file):
        if path.is_file():
            found = _open(path)
            if found.version[0] == major:
                return found
            raise UnavailableError(
                f"device code for CUDA {cuda} wants NVRTC {major}, got {found.version[0]}.{found.version[1]}",
                where=str(path),
                hint=hint,
            )
    raise UnavailableError(f"device code for CUDA {cuda} wants NVRTC {major}, and there is none", hint=hint)


def _open(path: Path) -> Nvrtc:
    major, minor = ctypes.c_int(), ctypes.c_int()
    # It looks for its builtins where the linker looks, which is not its own folder.
    for beside in sorted(path.parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(beside), mode=ctypes.RTLD_GLOBAL)
    try:
        code = ctypes.CDLL(str(path)).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    except OSError as error:
        raise UnavailableError(f"NVRTC cannot be loaded: {error}", where=str(path)) from None
    if code:
        raise UnavailableError(f"NVRTC does not say its version: error {code}", where=str(path))
    return Nvrtc(path, (major.value, minor.value))


def _in_package(package: str, file: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the package above it
        return []
    folders = spec.submodule_search_locations if spec else None
    return [Path(folder, "lib", file) for folder in folders or ()]


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)
