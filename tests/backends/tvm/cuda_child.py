"""A process whose GPU is played: a library, a folder with in0.npz and so on, and the functions to call.

Writes out0.npz and so on. The function "main" is a network's and gives its outputs; another is of TensorIR,
and its last argument the output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine


def main(library: str, folder: str, *functions: str) -> None:
    device = tvm.cuda(0)
    assert device.exist, "no CUDA runtime"
    module = tvm.runtime.load_module(library)
    for number, name in enumerate(functions):
        with np.load(Path(folder, f"in{number}.npz")) as kept:
            tensors = [tvm.runtime.tensor(kept[each], device) for each in kept]
        if name == "main":
            results = VirtualMachine(module, device)["main"](*tensors)
            results = [results] if hasattr(results, "numpy") else list(results)
        else:
            module[name](*tensors)
            results = tensors[-1:]
        np.savez(Path(folder, f"out{number}.npz"), *[result.numpy() for result in results])


if __name__ == "__main__":
    main(*sys.argv[1:])
