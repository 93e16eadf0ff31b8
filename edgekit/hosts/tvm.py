"""What a network that TVM compiled is linked with, so that it holds edgekit's operators itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from edgekit.errors import UnavailableError
from edgekit.hosts import build, compilers, flags, tensorrt

_HEADER = "tvm/ffi/c_api.h"
_NEWEST = "13.0"
# What launches the kernels on a GPU; the plug-ins for TensorRT have it too.
_ON_GPU = ("hosts/tvm_cuda.cpp", "hosts/tensorrt/driver.cpp", "hosts/tensorrt/routine.cpp")


def adapter() -> build.Adapter:
    """The functions that TVM calls, over the headers of the installed tvm_ffi.

    They use its C interface alone, which its releases keep; the headers are those of any architecture.
    ``tvm_ffi.load_module`` loads them too, as the library that :func:`edgekit.hosts.build.library` makes: a
    function ``edgekit_<operator>`` takes the inputs, the attributes in the operator's order, and the output.

    Raises:
        UnavailableError: tvm_ffi is not installed, or without its headers.
    """
    package = importlib.util.find_spec("tvm_ffi")
    folders = [Path(place, "include") for place in (package and package.submodule_search_locations) or ()]
    includes = tuple(folder for folder in folders if (folder / _HEADER).is_file())
    if not includes:
        raise UnavailableError(
            f"edgekit's operators are compiled with TVM's headers: want tvm_ffi with {_HEADER}, got none",
            hint="pip install 'edgekit[tvm]'",
        )
    # New headers may lie where the old ones did: the version tells what was compiled with which.
    return build.Adapter("tvm", importlib.metadata.version("apache-tvm-ffi"), includes)


def addons(wanted: build.Platform) -> list[str]:
    """The files to link a network with, in this order: the functions, and the archive of the kernels.

    Args:
        wanted: What the network runs on.

    Raises:
        UnavailableError, CompileError: As :func:`edgekit.hosts.build.library`, and as :func:`adapter`.
    """
    return [str(build.adapter_object(adapter(), wanted)), str(build.kernel_objects(wanted))]


def gpu_addons(wanted: build.Platform, arch: str, version: str) -> list[str]:
    """The files to link a network for a GPU with, in this order: functions, device code, archive.

    Args:
        wanted: What the network's library runs on.
        arch: The GPU's, such as ``"sm_87"``.
        version: Of the CUDA whose driver is there, such as ``"12.6"``; empty for that of nvcc.

    Raises:
        UnavailableError: A compiler is missing, or as :func:`adapter`.
        CompileError: A compiler fails.
    """
    compiler = compilers.compiler(wanted)
    own = adapter()
    digests = [build.sources_digest("tvm"), build.sources_digest("tensorrt"), own.version, compiler.identity]
    command = [*compiler.command, *own.compile_flags(), "-ffunction-sections", "-fdata-sections", "-c"]

    def compiled(source: Path) -> Path:
        file = f"{source.stem}_gpu.o"

        def compile_it(folder: Path) -> None:
            build.run([*command, str(source), "-o", str(folder / file)])

        return build.kept(f"{file} for {wanted}", [*digests, str(wanted)], file, compile_it)

    def images(folder: Path) -> None:
        board = tensorrt.Board(wanted, "", version or _NEWEST, (arch.removeprefix("sm_"),))
        source = tensorrt.images_source(tensorrt.device_images(board, folder))
        (folder / "images.cpp").write_text(source, encoding="utf-8")
        # The assembler looks for what the source includes in this folder too.
        more = f"-Wa,-I{folder}"
        build.run([*command, more, str(folder / "images.cpp"), "-o", str(folder / "images_gpu.o")])

    ingredients = [*digests, str(wanted), arch, version]
    held = build.kept(f"device code for {arch} on {wanted}", ingredients, "images_gpu.o", images)
    objects = [compiled(flags.CSRC / name) for name in _ON_GPU]
    return [*map(str, objects), str(held), str(build.kernel_objects(wanted))]
