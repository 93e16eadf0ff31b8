"""Runs models in one runtime, in the emulated machine of ``arm64.py``. Started there, not imported here.

A folder holds ``job.json``: the runtime, the libraries to load, the options, and the models, each with the
name of its file (for TVM a compiled library) and the number of its runs. Run 0 of a model ``m`` takes inputs
from ``m.0.in.npz``, and leaves its outputs, in order, in ``m.0.out.npz``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Feed = dict[str, Any]
Run = Callable[[Feed], list[Any]]
Open = Callable[[Path], Run]


def onnxruntime(libraries: list[str], options: dict[str, Any]) -> Open:
    import onnxruntime as ort

    def open_model(model: Path) -> Run:
        settings = ort.SessionOptions()
        for key, value in options.items():
            setattr(settings, key, value)
        for library in libraries:
            settings.register_custom_ops_library(library)
        session = ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        return lambda feed: session.run(None, feed)

    return open_model


def openvino(libraries: list[str], options: dict[str, Any]) -> Open:
    import openvino as ov

    core = ov.Core()
    for library in libraries:
        core.add_extension(library)

    def open_model(model: Path) -> Run:
        compiled = core.compile_model(str(model), "CPU", options)
        return lambda feed: [np.array(array) for array in compiled(feed).to_tuple()]

    return open_model


def tvm(libraries: list[str], options: dict[str, Any]) -> Open:
    import tvm as runtime
    import tvm_ffi
    from tvm.runtime.vm import VirtualMachine

    assert not libraries, "a network that TVM compiled holds all it needs"
    assert options.keys() <= {"threads"}
    configure = runtime.get_global_func("runtime.config_threadpool")
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]

    def open_model(model: Path) -> Run:
        machine = VirtualMachine(runtime.runtime.load_module(str(model)), runtime.cpu())
        # Of the first run, the second one and so on.
        threads = iter(options.get("threads", ()))

        def run(feed: Feed) -> list[Any]:
            if count := next(threads, 0):
                configure(-3, count, cpus)  # shares all cores, as edgekit's sessions do
            outputs = machine["main"](*map(tvm_ffi.from_dlpack, feed.values()))
            several = isinstance(outputs, (list, tuple, tvm_ffi.Array))
            return [np.from_dlpack(array).copy() for array in (outputs if several else [outputs])]

        return run

    return open_model


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    prepare = {"onnxruntime": onnxruntime, "openvino": openvino, "tvm": tvm}[job["runtime"]]
    open_model = prepare(job["libraries"], job["options"])
    for model in job["models"]:
        run = open_model(folder / model["model"])
        for turn in range(model["runs"]):
            stem = folder / f"{model['name']}.{turn}"
            with np.load(f"{stem}.in.npz") as inputs:
                feed = {name: np.ascontiguousarray(inputs[name]) for name in inputs}
            np.savez(f"{stem}.out.npz", *run(feed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
