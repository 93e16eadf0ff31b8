"""Build the library that registers the operators in TensorRT, for this machine or for a Jetson.

The library links with neither TensorRT nor CUDA: TensorRT's public headers say its interface, and device code
for several architectures lies in the library as bytes, which the CUDA driver loads. No GPU is needed to build
it. Which headers and which compiler of CUDA go with a device is the table :data:`BOARDS`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import CompileError, EdgekitError, UnavailableError, UsageError
from edgekit.hosts import compilers, elf, flags
from edgekit.hosts.compilers import Compiler, Platform
from edgekit.hosts.nvrtc import nvrtc_for
from edgekit.jetpack import JETPACKS, find

FILE = "libedgekit_tensorrt.so"
VARIABLE = "TENSORRT_INCLUDE"
FOLDER = flags.CSRC / "hosts" / "tensorrt"
_SITES = ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include")
# Beside the files of hosts/tensorrt: what they call, of which the linker leaves out the processor's kernels.
_SHARED = (
    "common/tensor.cpp",
    "bilateral/bilateral.cpp",
    "jacobian/jacobian.cpp",
    "nlm/nlm.cpp",
    "sample/sample.cpp",
    "hosts/arrays.cpp",
    "hosts/denoising.cpp",
    "hosts/operators.cpp",
    "hosts/registration.cpp",
)


@dataclass(frozen=True)
class Board:
    """What a library is built for.

    Attributes:
        platform: Architecture, and the oldest C library that it has to load with.
        tensorrt: The version whose headers to build with, or a later one with the same interface of plug-ins.
        cuda: Version of its driver.
        archs: Architectures to compile device code for, such as ``"87"``.
        ptx: The architecture to add PTX of, which a driver translates for other GPUs; none if empty.
        jetpacks: The JetPacks that load the library; none for other machines.
    """

    platform: Platform
    tensorrt: str
    cuda: str
    archs: tuple[str, ...]
    ptx: str = ""
    jetpacks: tuple[str, ...] = ()


def _jetson(*jetpacks: str, archs: tuple[str, ...], ptx: str = "") -> Board:
    """One library for several JetPacks, built for the first one, which has the oldest versions."""
    oldest = JETPACKS[jetpacks[0]]
    tensorrt = ".".join(oldest.tensorrt.split(".")[:2])
    return Board(Platform("aarch64", oldest.glibc), tensorrt, oldest.cuda, archs, ptx, jetpacks)


# What of CUDA 12 and 11 is compiled by NVRTC: a driver refuses the PTX of a later CUDA, and machine code of
# another major version.
BOARDS = {
    "jetpack-5": _jetson("5.1", archs=("72", "87")),
    "jetpack-6.0": _jetson("6.0", archs=("87",)),
    "jetpack-6": _jetson("6.1", "6.2", archs=("87",), ptx="87"),
    "jetpack-7": _jetson("7.0", "7.1", "7.2", archs=("87", "110"), ptx="87"),
    "x86_64": Board(Platform("x86_64", "2.31"), "10.3", "13.0", ("75", "87", "90"), "75"),
}


def board_for(jetpack: str) -> Board:
    """The board whose library a JetPack loads, by its version such as ``"6.2"``.

    Raises:
        TargetError: There is no such JetPack.
    """
    version = find(jetpack).version
    return next(board for board in BOARDS.values() if version in board.jetpacks)


@dataclass(frozen=True)
class Headers:
    """TensorRT's public headers.

    Attributes:
        folder: That holds ``NvInfer.h``.
        version: Such as ``"10.3"``.
        api: The interface of plug-ins to use with them, as :func:`plugin_api` says it.
    """

    folder: Path
    version: str
    api: str


def plugin_api(version: str) -> str:
    """The interface of plug-ins for a version of TensorRT: ``"v2"`` IPluginV2DynamicExt, ``"v3"`` IPluginV3.

    Raises:
        UsageError: A version without either, or that no Jetson has.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    if (8, 5) <= number < (9, 0):
        return "v2"
    if number >= (10, 0):
        return "v3"
    raise UsageError(
        f"TensorRT: want 8.5, 8.6, or 10.0 and later, got {version}",
        hint=f"{VARIABLE}=/usr/include/aarch64-linux-gnu on a Jetson",
    )


def find_headers(folder: str | Path | None = None) -> Headers:
    """TensorRT's headers: in a folder, else where ``TENSORRT_INCLUDE`` says, else where packages put them.

    Raises:
        UnavailableError: They are not there.
        UsageError: They are of a version that is not supported.
    """
    named = folder or os.environ.get(VARIABLE)
    for place in [Path(named)] if named else [Path(site) for site in _SITES]:
        versions = place / "NvInferVersion.h"
        if versions.is_file() and (place / "NvInfer.h").is_file():
            text = versions.read_text(errors="replace")
            numbers = {
                part: re.search(rf"#define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)? (\d+)", text)
                for part in ("MAJOR", "MINOR")
            }
            version = ".".join(match[1] for match in numbers.values() if match)
            return Headers(place, version, plugin_api(version))
    raise UnavailableError(
        "no TensorRT headers",
        where=str(named or ", ".join(_SITES)),
        hint=f"{VARIABLE}=FOLDER, where NvInfer.h is: of libnvinfer-dev, or include/ of its sources",
    )


def find_cuda_headers() -> Path:
    """The folder of ``cuda_runtime_api.h``, which TensorRT's headers include.

    Raises:
        UnavailableError: There is none.
    """
    places = [Path(os.environ["CUDA_HOME"], "include")] if "CUDA_HOME" in os.environ else []
    if nvcc := flags.nvcc():
        places.append(Path(nvcc).resolve().parents[1] / "include")
    places.append(Path("/usr/local/cuda/include"))
    for package in ("nvidia.cuda_runtime", "nvidia.cu13"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        places += [Path(folder, "include") for folder in (spec and spec.submodule_search_locations) or ()]
    for place in places:
        if (place / "cuda_runtime_api.h").is_file():
            return place
    raise UnavailableError(
        "TensorRT's headers want cuda_runtime_api.h, and there is none",
        hint="pip install nvidia-cuda-runtime-cu12",
    )


def nvcc_command(compiler: str, board: Board, out: Path) -> list[str]:
    """The command that compiles the device code for all architectures of a board, into one file."""
    kept = [flag for flag in flags.CUDA_FLAGS if not flag.startswith("-Xcompiler")]
    code = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in board.archs]
    if board.ptx:
        code.append(f"-gencode=arch=compute_{board.ptx},code=compute_{board.ptx}")
    source = str(FOLDER / "entries.cu")
    return [compiler, *kept, *code, f"-I{flags.CSRC}", "-fatbin", source, "-o", str(out)]


def nvrtc_options(arch: str) -> list[str]:
    """The options that NVRTC compiles the device code with for an architecture."""
    # Products and sums are not contracted, as in flags.CUDA_FLAGS. All functions are for devices. Warning 549
    # is of a variable that every case of a switch sets.
    kept = [f"-std=c++{flags.CXX_STANDARD}", "-fmad=false", "-default-device", "-diag-suppress=549"]
    return [f"-arch=sm_{arch}", *kept, f"-I{flags.CSRC}"]


def host_sources(api: str) -> list[Path]:
    """The C++ sources of a library with an interface of plug-ins."""
    mine = [path for path in sorted(FOLDER.glob("*.cpp")) if not path.match("plugin_v*")]
    # Plans of version 3 keep fields, not records.
    mine = [path for path in mine if api == "v2" or path.name != "record.cpp"]
    return [*(flags.CSRC / name for name in _SHARED), *mine, FOLDER / f"plugin_{api}.cpp"]


def compile_command(
    command: Sequence[str], headers: Headers, cuda: Path, source: Path, out: Path
) -> list[str]:
    """The command that compiles a source of the library."""
    return [
        *command,
        f"-std=c++{flags.CXX_STANDARD}",
        *flags.COMMON_FLAGS,
        "-fPIC",
        "-ffunction-sections",
        "-fdata-sections",
        "-DEK_PROCESSOR=0",
        "-Wno-deprecated-declarations",  # IPluginV2 is, in all headers that have it
        f"-I{flags.CSRC}",
        f"-isystem{headers.folder}",
        f"-isystem{cuda}",
        "-c",
        str(source),
        "-o",
        str(out),
    ]


# All that a library exports: the rest of it is nobody else's business.
EXPORTS = "{ global: get*Creators; setLoggerFinder*; edgekit_trt_*; local: *; };\n"


def link_command(compiler: Compiler, objects: Sequence[Path], folder: Path, out: Path) -> list[str]:
    """The command that links the library, with the C library alone; what it names goes to a folder."""
    exports = folder / "exports.map"
    exports.write_text(EXPORTS)
    # Nothing may be left to be found when it is loaded: TensorRT and CUDA are not linked with.
    more = ["-Wl,-z,defs", f"-Wl,--version-script={exports}", "-ldl"]
    files = [str(path) for path in objects]
    return [*compiler.command, *files, *compiler.link_flags(folder, more=more), "-o", str(out)]


def device_images(board: Board, folder: Path) -> list[Path]:
    """Compile the device code of a board into files of a folder, in the order in which to try them.

    Raises:
        UnavailableError: There is no compiler of that CUDA.
        CompileError: It fails.
    """
    if int(board.cuda.partition(".")[0]) >= 13:
        nvcc = flags.nvcc()
        if not nvcc:
            raise UnavailableError(
                f"device code for CUDA {board.cuda} wants nvcc, and there is none",
                hint="CUDA_HOME=FOLDER, where bin/nvcc is",
            )
        _run(nvcc_command(nvcc, board, folder / "device.fatbin"))
        return [folder / "device.fatbin"]
    nvrtc = nvrtc_for(board.cuda)
    source = '#include "hosts/tensorrt/nvrtc.h"\n#include "hosts/tensorrt/entries.cu"\n'
    kinds = [(arch, False) for arch in board.archs]
    # PTX of a later CUDA than the board's is refused there.
    if board.ptx and ".".join(map(str, nvrtc.version)) == board.cuda:
        kinds.append((board.ptx, True))
    images = []
    for arch, ptx in kinds:
        code = nvrtc.compile(source, nvrtc_options(arch), {"cstdint": ""}, ptx=ptx)
        images.append(folder / f"device_{arch}.{'ptx' if ptx else 'cubin'}")
        images[-1].write_bytes(code)
    return images


def images_source(images: Sequence[Path]) -> str:
    """The source that puts files, named as the compiler finds them, into the library: see ``images.h``."""
    parts = ['#include "hosts/tensorrt/images.h"\n']
    for number, image in enumerate(images):
        parts.append(
            f'asm(".section .rodata\\n.balign 64\\n'
            f'ek_image_{number}:\\n.incbin \\"{image.name}\\"\\n.previous");\n'
            f'extern "C" __attribute__((visibility("hidden"))) const char ek_image_{number}[];\n'
        )
    names = ", ".join(f"ek_image_{number}" for number in range(len(images)))
    parts.append(
        f"namespace ek {{\nnamespace hosts {{\nconst void* const kImages[] = {{{names}}};\n"
        f"const int kImageCount = {len(images)};\n}}  // namespace hosts\n}}  // namespace ek\n"
    )
    return "\n".join(parts)


def build_library(
    board: Board,
    headers: Headers,
    out: Path,
    *,
    images: Sequence[Path] | None = None,
    objects: Path | None = None,
) -> Path:
    """Build the library for a board.

    Args:
        board: What it is to run on.
        headers: TensorRT's, of the version there or of one with the same interface of plug-ins.
        out: The file to write.
        images: Files of device code, where there are some already; they are compiled by default.
        objects: A folder that keeps what is compiled, for libraries of the same sources and compiler.

    Raises:
        UsageError: The headers are of another interface than the board's TensorRT.
        UnavailableError: A compiler or a header is missing.
        CompileError: A compiler fails.
        MismatchError: What the compiler built does not load on the board.
    """
    if headers.api != plugin_api(board.tensorrt):
        raise UsageError(
            f"headers: want those of TensorRT {board.tensorrt}, got {headers.version}",
            where=str(headers.folder),
            hint=f"{VARIABLE}=FOLDER, where NvInfer.h of {board.tensorrt} is",
        )
    compiler, cuda = compilers.compiler(board.platform), find_cuda_headers()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generated = folder / "images.cpp"
        if images is None:
            images = device_images(board, folder)
        else:
            images = [Path(shutil.copy(image, folder)) for image in images]
        generated.write_text(images_source(images))

        def compile_one(source: Path) -> Path:
            # Those that include TensorRT's headers are others for each version of them.
            version = headers.version if source.match("plugin*") else ""
            result = (objects or folder) / f"{source.parent.name}_{source.stem}{version}.o"
            if not result.exists():
                _run(compile_command(compiler.command, headers, cuda, source, result), cwd=folder)
            return result

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as workers:
            files = list(workers.map(compile_one, host_sources(headers.api)))
        files.append(folder / "images.o")
        _run(compile_command(compiler.command, headers, cuda, generated, files[-1]), cwd=folder)
        _run(link_command(compiler, files, folder, folder / FILE))
        if not board.platform.is_here:
            elf.check(folder / FILE, board.platform.arch, board.platform.glibc)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / FILE, out)
    return out


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", cwd=cwd)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CompileError(
            f"{Path(command[0]).name} failed: {lines[0] if lines else f'exit status {done.returncode}'}",
            where=" ".join(command)[:400],
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m edgekit.hosts.tensorrt``: build the library, and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m edgekit.hosts.tensorrt", description=main.__doc__)
    parser.add_argument("--board", choices=sorted(BOARDS), default=_board_here(), help="what it is to run on")
    parser.add_argument("--include", metavar="FOLDER", help=f"of NvInfer.h; by default as {VARIABLE} says")
    parser.add_argument("-o", "--output", metavar="FILE", default=FILE, type=Path)
    options = parser.parse_args(arguments)
    try:
        print(build_library(BOARDS[options.board], find_headers(options.include), options.output))
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _board_here() -> str:
    return "x86_64" if platform.machine() == "x86_64" else "jetpack-6"


if __name__ == "__main__":
    sys.exit(main())
