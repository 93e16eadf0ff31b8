"""Which C++ sources a machine compiles, and with which flags: for setup.py, host libraries and native tests.

It imports nothing of edgekit, as setup.py reads it where nothing is installed.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# Where the package is installed, else of the checkout.
CSRC = _PACKAGE / "_csrc" if (_PACKAGE / "_csrc").is_dir() else _PACKAGE.parent / "csrc"
# Every runtime that a library of ours registers the operators in; sources for it alone bear its name.
HOSTS = ("onnxruntime", "openvino", "tensorrt", "tvm")

CXX_STANDARD = 17
# No contraction and no reassociation: every instruction set and machine gives the same bits.
COMMON_FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
# A source named <operator>_<instruction set>.cpp is compiled for it; those of another machine are left out.
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
ISA_FLAGS = {
    "avx2": AVX2_FLAGS,
    # GCC 12 warns inside its own AVX-512 header.
    "avx512": [
        *AVX2_FLAGS,
        *(f"-mavx512{part}" for part in ("f", "vl", "bw", "dq")),
        "-Wno-maybe-uninitialized",
        "-Wno-uninitialized",
    ],
    "neon": [],  # part of every AArch64 processor
}
# The instruction sets of a machine beside the scalar one, by the names systems give it.
X86, ARM = ("avx2", "avx512"), ("neon",)
MACHINE_ISAS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}


def isa_of(source: str | Path) -> str | None:
    """The instruction set a source is for, by its name; None if it runs anywhere."""
    suffix = Path(source).stem.rpartition("_")[2]
    return suffix if suffix in ISA_FLAGS else None


def host_of(source: str | Path) -> str | None:
    """The runtime a source is for, by its name or its folder's under ``hosts``; None if for none or any."""
    parts = Path(source).parts
    if "hosts" not in parts:
        return None
    below = parts[len(parts) - parts[::-1].index("hosts") :]
    return next((host for host in HOSTS if below[0].partition(".")[0].split("_")[0] == host), None)


def sources_for(machine: str, folder: Path = CSRC) -> list[Path]:
    """The C++ sources of a folder that a machine compiles: none of other instruction sets or of a host."""
    isas = (None, *MACHINE_ISAS.get(machine, ()))
    return sorted(p for p in folder.rglob("*.cpp") if isa_of(p) in isas and not host_of(p))


def kernel_sources(machine: str) -> list[Path]:
    """The sources that every host's library is made of: the kernels, and the table of operators."""
    return [path for path in sources_for(machine) if path.relative_to(CSRC).parts[0] != "bind"]


def flags_for(source: str | Path) -> list[str]:
    """The flags of a C++ source, those of its instruction set included."""
    return [f"-std=c++{CXX_STANDARD}", *COMMON_FLAGS, *ISA_FLAGS.get(isa_of(source) or "", []), f"-I{CSRC}"]


# Contraction would give other bits than the processor's, and saves nothing: kernels wait for memory.
CUDA_FLAGS = [
    f"-std=c++{CXX_STANDARD}",
    "-O3",
    "-fmad=false",
    # The host compiles what threads compute too, never runs it, and foresees less of it.
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-maybe-uninitialized",
    "-Werror=all-warnings",
]
# Turing, Orin, Hopper and Thor as machine code. Turing's PTX also, which drivers translate for the rest.
# Xavier is 72, which CUDA 12 was the last to know: EDGEKIT_CUDA_ARCHS=72 there.
CUDA_ARCHS = ("75", "87", "90", "110")
CUDA_PTX = "75"


def cuda_sources(folder: Path = CSRC) -> list[Path]:
    """The CUDA sources of a folder: those that are compiled with CUDA's runtime, for no host of its own."""
    return sorted(path for path in folder.rglob("*.cu") if not host_of(path))


def nvcc() -> str | None:
    """The CUDA compiler: of CUDA_HOME, else the one that is found first."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=str(Path(home, "bin"))) if home else shutil.which("nvcc")


@functools.cache
def cuda_archs(compiler: str) -> tuple[str, ...]:
    """What to compile for: EDGEKIT_CUDA_ARCHS, such as "75,87", or those of ours that the compiler knows."""
    if asked := os.environ.get("EDGEKIT_CUDA_ARCHS"):
        return tuple(asked.replace(";", ",").split(","))
    known = subprocess.run([compiler, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    return tuple(arch for arch in CUDA_ARCHS if f"compute_{arch}" in known.stdout.split())


def cuda_code(compiler: str) -> list[str]:
    """The flags that name the architectures."""
    archs = cuda_archs(compiler)
    code = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    ptx = CUDA_PTX if CUDA_PTX in archs else archs[0]
    return [*code, f"-gencode=arch=compute_{ptx},code=compute_{ptx}"]


def cuda_libraries(compiler: str) -> Path:
    """The folder of the CUDA runtime to link with.

    Raises:
        FileNotFoundError: The compiler's installation has none.
    """
    done = subprocess.run([compiler, "--dryrun", "x.cu"], capture_output=True, text=True, check=True)
    # A line for each of its own variables, such as "#$ TOP=/usr/local/cuda/bin/..".
    top = next(line.partition("=")[2] for line in done.stderr.splitlines() if line.startswith("#$ TOP="))
    for folder in (Path(top, "lib64"), *Path(top).glob("targets/*/lib")):
        if Path(folder, "libcudart_static.a").exists():
            return folder
    raise FileNotFoundError(f"no libcudart_static.a under {top}")


def wants_cuda() -> bool:
    """Whether to compile the CUDA kernels: as EDGEKIT_CUDA (0 or 1) says, else where nvcc and a GPU are.

    Raises:
        FileNotFoundError: EDGEKIT_CUDA asks for them, and there is no nvcc.
        ValueError: EDGEKIT_CUDA is something else.
    """
    asked = os.environ.get("EDGEKIT_CUDA", "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"EDGEKIT_CUDA: want 0 or 1, got {asked!r}")
    if asked == "1" and not nvcc():
        raise FileNotFoundError("EDGEKIT_CUDA=1: want nvcc on the path or in CUDA_HOME/bin")
    devices = ("nvidia0", "nvhost-gpu", "nvgpu")  # the latter two on Jetson
    return asked == "1" or (
        asked == "" and bool(nvcc()) and any(Path("/dev", name).exists() for name in devices)
    )
