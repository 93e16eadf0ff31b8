"""Builds single kernels for this machine and runs them, by one thread and by two."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tvm

from edgekit.backends.tvm.loops import Function
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout, Tensor


def cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


AVX2 = Processor("x86_64", 8, 16, mcpu="x86-64-v3")
PROCESSORS = [AVX2]
if "avx512f" in cpu_flags():
    PROCESSORS.append(Processor("x86_64", 16, 32, mcpu="x86-64-v4"))
each_processor = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.mcpu)


def tensor(shape: Sequence[int], block: int = 1, halo: int = 0) -> Tensor:
    """A value with as wide a halo on both sides of every axis."""
    return Tensor(tuple(shape), layout=Layout(block, ((halo, halo),) * (len(shape) - 2) if halo else ()))


def built(function: Function, processor: Processor) -> tvm.runtime.Module:
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    # What is written for another architecture may still be built for this one, where its model is.
    arch = "x86_64" if processor.mcpu.startswith("x86") else processor.arch
    system = {} if arch == platform.machine() else {"mtriple": f"{arch}-linux-gnu"}
    return tvm.compile(module, tvm.target.Target(processor.llvm(system)))


def assembly(function: Function, processor: Processor) -> str:
    library = built(function, processor)
    return next(m for m in [library.mod, *library.mod.imports] if m.kind == "llvm").inspect_source("asm")


def use(threads: int) -> None:
    """Have TVM's kernels run by so many threads from now on."""
    # Without a list TVM takes half of the processors that share a core: often one.
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]
    tvm.get_global_func("runtime.config_threadpool")(-3, threads, cpus)
    assert tvm.get_global_func("runtime.NumThreads")() == min(threads, len(cpus))


def run(function: Function, processor: Processor, inputs: list[np.ndarray], result: Tensor) -> np.ndarray:
    """The result as the network sees it, checked: its halo is full, and two threads give the same bits."""
    library = built(function, processor)
    memories = []
    for threads in (1, 2):
        use(threads)
        memory = tvm.runtime.tensor(np.full(result.memory, _anything(result.dtype), result.dtype))
        library["main"](*(tvm.runtime.tensor(array) for array in inputs), memory)
        memories.append(memory.numpy())
    assert memories[0].tobytes() == memories[1].tobytes()
    return unpacked(result, memories[0])


def _anything(dtype: str) -> float:
    """What no kernel may leave behind, or rely on."""
    return np.nan if dtype.startswith("float") else 77


def unpacked(tensor: Tensor, memory: np.ndarray) -> np.ndarray:
    """A value in the order of ONNX; its halo has to hold what it says."""
    if tensor.layout.block > 1:
        memory = np.moveaxis(memory, -1, 2)
        memory = memory.reshape(memory.shape[0], -1, *memory.shape[3:])[:, : tensor.shape[1]]
    if not tensor.layout.halo:
        return memory
    pairs = list(zip(tensor.halo, tensor.shape[2:], strict=True))
    inside = (slice(None), slice(None), *(slice(low, low + length) for (low, _), length in pairs))
    outside = np.ones(memory.shape, bool)
    outside[inside] = False
    assert (memory[outside] == tensor.layout.fill).all()
    return memory[inside]


def placed(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """A value in its memory, with NaN in the lanes beyond the last channel."""
    memory = tensor.packed(values)
    rest = tensor.shape[1] % tensor.layout.block if tensor.layout.block > 1 else 0
    if rest:
        memory[:, -1, ..., rest:] = np.nan
    return memory
