"""Run libraries for a GPU on the processor: TVM's own CUDA runtime, over a driver that plays the GPU.

The text that TVM writes for the GPU is compiled by the C++ compiler with ``cuda_native/processor.h`` in
place of CUDA's headers. The library that is packed with it is loaded and run by TVM's runtime for CUDA, in a
process of its own, whose ``libcuda`` and ``libcudart`` are ``cuda_native/fake_driver.cpp``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm

from edgekit.backends.tvm.cuda import device
from edgekit.backends.tvm.cuda.kernel import INSTRUCTIONS
from edgekit.hosts import flags
from edgekit.hosts.build import Platform

Call = tuple[str, Sequence[np.ndarray]]

NATIVE = Path(__file__).resolve().parent / "cuda_native"
ENTRIES = Path(__file__).resolve().parents[2] / "hosts" / "tensorrt_native"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-strict-aliasing"]
_DYNAMIC = re.compile(r"extern __shared__ __align__\(\d+\) uchar (\w+)\[\];")
_STATIC = re.compile(r"__shared__ alignas\((\d+)\)")
_KERNEL = re.compile(r'extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\([^)]*\) \{')


def run_command(command: list[str], **more: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def for_processor(source: str, arch: str) -> tuple[str, bytes]:
    """An assembler (``edgekit.backends.tvm.cuda.device.Assembler``) whose machine is the one at hand."""
    for text in INSTRUCTIONS.values():
        source = source.replace(text, "")
    assert "asm" not in source.partition("TVM_ENABLE_L2_PREFETCH")[2], "an instruction of the GPU's is left"
    source = _STATIC.sub(r"static __attribute__((aligned(\1)))", source)
    source = _DYNAMIC.sub(r"unsigned char* \1 = ek_shared;", source)
    kernels = _KERNEL.findall(source)
    source += "".join(f"EK_LAUNCH({name})\n" for name in kernels)
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        text.write_text('#include "cuda_fp16.h"\n' + source)
        run_command(["g++", *FLAGS, f"-I{NATIVE}", str(text), "-o", str(library)])
        return "cubin", library.read_bytes()


def build_driver(folder: Path) -> Path:
    """The libraries that call themselves CUDA's."""
    version = folder / "version.map"
    version.write_text("libcudart.so.13 { global: *; };\n")
    source = str(NATIVE / "fake_driver.cpp")
    # The kernels of edgekit's operators, compiled for the processor.
    entries = [str(ENTRIES / "entry_table.cpp"), f"-I{ENTRIES}", f"-I{flags.CSRC}"]
    for name, more in (
        ("libcuda.so.1", ["-DEK_DRIVER", *entries]),
        ("libcudart.so.13", [f"-Wl,--version-script={version}"]),
    ):
        run_command(["g++", *FLAGS, source, *more, f"-Wl,-soname,{name}", "-ldl", "-o", str(folder / name)])
    return folder


def run_library(
    driver: Path, library: Path, calls: Sequence[Call], seed: int = 0, early: bool = False
) -> list[list[np.ndarray]]:
    """Call functions of a library, and give their outputs.

    Args:
        driver: From :func:`build_driver`.
        library: The library.
        calls: Names and arrays. "main" is a network, and its arrays are its inputs; of another function the
            last array is the output.
        seed: In which order threads run between barriers.
        early: Whether copies that need not wait come at once, and not as late as they may.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, arrays) in enumerate(calls):
            np.savez(Path(folder, f"in{number}.npz"), *arrays)
        child = [sys.executable, str(Path(__file__).with_name("cuda_child.py")), str(library), folder]
        path = os.pathsep.join([str(driver), os.environ.get("LD_LIBRARY_PATH", "")])
        played = {"LD_LIBRARY_PATH": path, "EK_SEED": str(seed), "EK_EARLY": str(int(early))}
        run_command([*child, *(name for name, _ in calls)], env={**os.environ, **played})
        results = []
        for number in range(len(calls)):
            with np.load(Path(folder, f"out{number}.npz")) as kept:
                results.append([kept[name] for name in kept])
        return results


def library_of(folder: Path, functions: Mapping[str, object], name: str = "library") -> Path:
    """A library for the processor that plays the GPU, of functions of TensorIR."""
    host = Platform.here()
    wanted = device.target("sm_87", host)
    module = tvm.IRModule(
        {key: function.with_attr("global_symbol", key) for key, function in functions.items()}
    )
    path = folder / f"{name}.so"
    device.write_library(device.compiled(module, wanted), path, wanted, host, for_processor)
    return path


def compiler_says(folder: Path, source: str, arch: str) -> tuple[str, str]:
    """The PTX that nvcc makes of a source, and what its assembler says of registers."""
    text = folder / "kernels.cu"
    text.write_text(source)
    nvcc = flags.nvcc()
    assert nvcc is not None
    command = [nvcc, "-O3", "-std=c++17", "-w", f"-arch={arch}", str(text)]
    run_command([*command, "-ptx", "-o", str(folder / "kernels.ptx")])
    said = subprocess.run(
        [*command, "-cubin", "-Xptxas=-v", "-o", str(folder / "kernels.cubin")],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    return (folder / "kernels.ptx").read_text(), said.stderr
