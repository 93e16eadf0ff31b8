"""What there is of CUDA: a GPU here, and compilers that make machine code for the GPU of a device.

A driver takes machine code of its own major version of CUDA and of none other. So what is for CUDA 13 is made
by nvcc 13, and what is for CUDA 12 by NVRTC 12, where nvcc is of another version.
"""

from __future__ import annotations

import ctypes
import functools
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import CompileError, UnavailableError
from edgekit.hosts import flags
from edgekit.hosts.nvrtc import nvrtc_for

_MAJOR, _MINOR = 75, 76  # attributes of a device, as the driver numbers them
_EM_CUDA = 190
_ELF_HEADER = 64
# CUDA 13 writes another ABI into a cubin's header than those before, and the architecture into other bits.
_NEW_ABI = 65

# What NVRTC lacks of CUDA's C++ library, and the texts that TVM writes include.
_HEADERS = {
    "cuda/std/cstdint": """
namespace cuda { namespace std {
using int8_t = signed char; using int16_t = short; using int32_t = int; using int64_t = long long;
using uint8_t = unsigned char; using uint16_t = unsigned short; using uint32_t = unsigned;
using uint64_t = unsigned long long;
} }
""",
    "cuda/std/type_traits": """
namespace cuda { namespace std {
template <class A, class B> struct is_same { static constexpr bool value = false; };
template <class A> struct is_same<A, A> { static constexpr bool value = true; };
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
template <class T> struct is_integral;
template <class T> struct is_signed;
template <class T> struct is_unsigned;
template <class T> struct is_floating_point;
template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { using type = T; };
template <bool, class T, class> struct conditional { using type = T; };
template <class T, class F> struct conditional<false, T, F> { using type = F; };
} }
""",
}


@functools.cache
def compute_capability() -> str:
    """That of the first GPU here, such as ``"8.7"``; empty where there is none, or no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    done = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        done = done or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return "" if done else f"{major.value}.{minor.value}"


def architecture(capability: str) -> str:
    """``"sm_87"`` for ``"8.7"``."""
    return f"sm_{capability.replace('.', '')}"


def missing(cuda: str) -> UnavailableError | None:
    """What compiling for a driver of this version of CUDA lacks; ``None`` where nothing is missing."""
    try:
        _compiler(cuda)
    except UnavailableError as error:
        return error
    return None


def assemble(source: str, arch: str, cuda: str = "") -> bytes:
    """Machine code of a text for one architecture.

    Args:
        source: CUDA C++; it may include ``cuda_fp16.h``.
        arch: Such as ``"sm_87"``.
        cuda: Version of the driver that is to take it; empty for that of nvcc.

    Raises:
        UnavailableError: There is no compiler of that version.
        CompileError: It does not know the architecture, or fails.
    """
    compiler = _compiler(cuda)
    if compiler is not None:
        return _by_nvcc(compiler, source, arch)
    nvrtc = nvrtc_for(cuda)
    options = [f"-arch={arch}", f"-std=c++{flags.CXX_STANDARD}", "-w", f"-I{_headers()}"]
    return nvrtc.compile(source, options, _HEADERS)


def architectures(library: bytes) -> tuple[str, ...]:
    """What the machine code for GPUs in a library is for, such as ``("sm_87",)``."""
    return tuple(sorted({f"sm_{number}" for number in _cubins(library)}))


def _cubins(library: bytes) -> Iterator[int]:
    begin = library.find(b"\x7fELF", 1)
    while begin >= 0:
        header = library[begin : begin + _ELF_HEADER]
        if len(header) == _ELF_HEADER and struct.unpack_from("<H", header, 18) == (_EM_CUDA,):
            (bits,) = struct.unpack_from("<I", header, 48)
            yield (bits >> 8 if header[7] == _NEW_ABI else bits) & 0xFF
        begin = library.find(b"\x7fELF", begin + 1)


def _compiler(cuda: str) -> str | None:
    """Nvcc where it is of the version's major version, else ``None`` for NVRTC, which is there."""
    compiler = flags.nvcc()
    if compiler is not None and (not cuda or _version(compiler) == _major(cuda)):
        return compiler
    if not cuda or _major(cuda) >= 13:
        raise UnavailableError(
            f"device code{f' for CUDA {cuda}' if cuda else ''} needs nvcc: want CUDA's toolkit, got none",
            hint=f"apt-get install cuda-nvcc-{_major(cuda) if cuda else 13}-0",
        )
    nvrtc_for(cuda)
    _headers()
    return None


def _headers() -> Path:
    """The folder of ``cuda_fp16.h``."""
    from edgekit.hosts.tensorrt import find_cuda_headers

    return find_cuda_headers()


@functools.cache
def _version(compiler: str) -> int:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"release (\d+)\.", done.stdout)
    return int(found[1]) if found else 0


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _by_nvcc(compiler: str, source: str, arch: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        text, code = Path(folder, "kernels.cu"), Path(folder, "kernels.cubin")
        text.write_text(source, encoding="utf-8")
        # The texts that TVM writes have functions and variables that not every kernel uses.
        command = [compiler, "-O3", "-std=c++17", "-w", "-cubin", f"-arch={arch}", str(text), "-o", str(code)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise CompileError(f"nvcc fails for {arch}: {said[-2000:]}", where="TVM")
        return code.read_bytes()
