"""Models and what to feed them, carried into the emulated machine of ``arm64.py``, and their results back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hosts import arm64
from hosts.cases import HostCase

Array = np.ndarray[Any, Any]
RUNNER = Path(__file__).with_name("arm64_runner.py")


@dataclass(frozen=True)
class Model:
    """A model, and the feeds that one session runs it on.

    Attributes:
        name: Of its file, without suffix.
        proto: The model.
        feeds: One mapping for each run, in the order of the model's inputs.
    """

    name: str
    proto: onnx.ModelProto
    feeds: tuple[dict[str, Array], ...]


def compile_for_tvm(model: onnx.ModelProto, path: Path) -> None:
    """Compile a network of plain operators to a library for the machine."""
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    target = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": arm64.PROCESSOR})
    with target:
        executable = tvm.compile(from_onnx(model), target)
    executable.export_library(str(path), cc="aarch64-linux-gnu-g++")


def run(
    runtime: str,
    models: Sequence[Model],
    folder: Path,
    *,
    libraries: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    compile_model: Any = compile_for_tvm,
) -> dict[str, list[list[Array]]]:
    """Run models in one process of the machine.

    Args:
        runtime: A function of ``arm64_runner.py``.
        models: What to run.
        folder: For the files that the process reads and writes.
        libraries: Of edgekit's operators.
        options: For the runtime.
        environment: For the process.
        compile_model: Makes a library of a model, for TVM.

    Returns:
        For each model the outputs of each run, in the model's order.
    """
    shutil.copy2(RUNNER, folder)
    for library in libraries:
        shutil.copy2(library, folder)
    told = []
    for model in models:
        file = f"{model.name}.so" if runtime == "tvm" else f"{model.name}.onnx"
        if runtime == "tvm":
            compile_model(model.proto, folder / file)
        else:
            onnx.save(model.proto, folder / file)
        for turn, feed in enumerate(model.feeds):
            np.savez(folder / f"{model.name}.{turn}.in.npz", **feed)
        told.append({"name": model.name, "model": file, "runs": len(model.feeds)})
    job = {
        "runtime": runtime,
        "libraries": [f"{arm64.WORK}/{library.name}" for library in libraries],
        "options": dict(options or {}),
        "models": told,
    }
    (folder / "job.json").write_text(json.dumps(job))
    done = arm64.run(
        f"{arm64.WORK}/{RUNNER.name}", arm64.WORK, work=folder, environment=environment, timeout_s=1800
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-8000:]}"
    return {
        model.name: [_arrays(folder / f"{model.name}.{turn}.out.npz") for turn in range(len(model.feeds))]
        for model in models
    }


def _arrays(path: Path) -> list[Array]:
    with np.load(path) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]


def separate(case: HostCase, name: str) -> Model:
    """The model of one case."""
    proto = onnx.load_from_string(case.model())
    names = [value.name for value in proto.graph.input]
    return Model(name, proto, tuple(dict(zip(names, feed, strict=True)) for feed in case.feeds))


def together(cases: Sequence[HostCase], name: str) -> Model:
    """One model of the nodes of many cases side by side: to compile each by itself would take minutes."""
    feed: dict[str, Array] = {}
    nodes, inputs, outputs = [], [], []
    for index, case in enumerate(cases):
        assert len(case.feeds) == 1, case.label
        proto = onnx.compose.add_prefix(onnx.load_from_string(case.model()), f"case{index}_")
        nodes.extend(proto.graph.node)
        inputs.extend(proto.graph.input)
        (output,) = proto.graph.output
        (expected,) = case.expected()
        kind = output.type.tensor_type.elem_type
        outputs.append(onnx.helper.make_tensor_value_info(output.name, kind, expected.shape))
        feed |= dict(zip([value.name for value in proto.graph.input], case.feeds[0], strict=True))
    graph = onnx.helper.make_graph(nodes, "cases", inputs, outputs)
    imports = proto.opset_import
    return Model(name, onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), (feed,))
