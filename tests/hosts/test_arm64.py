"""The runtimes' aarch64 wheels in an emulated machine, with libraries of ours that were cross-compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hosts import arm64, arm64_jobs
from hosts.cases import HostCase, cases
from onnx.reference import ReferenceEvaluator

import edgekit
from edgekit import bundle, kernels, target
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.backends.tvm.compiler import export
from edgekit.hosts import build, openvino
from edgekit.hosts.compilers import Platform
from edgekit.spec import TensorSpec

RUNTIMES = ("onnxruntime", "openvino", "tvm")
# The oldest of a Jetson's systems, JetPack 5; the emulated one is newer.
JETPACK = Platform("aarch64", "2.31")
F32 = {"INFERENCE_PRECISION_HINT": "f32"}  # without it OpenVINO computes in float16 on Arm

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    if reason := arm64.missing():
        pytest.skip(reason)
    arm64.root()


@pytest.fixture(scope="session")
def onnxruntime_library(machine: None) -> Path:
    return build.library(build.ONNXRUNTIME, JETPACK)


def network() -> arm64_jobs.Model:
    draws = np.random.default_rng(5)
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        network (float[1, 2, 5, 6, 7] x, float[4, 2, 3, 3, 3] w, float[4] b) => (float[1, 4, 5, 6, 7] y) {
            h = Conv <kernel_shape = [3, 3, 3], pads = [1, 1, 1, 1, 1, 1]> (x, w, b)
            y = Sigmoid (h)
        }"""
    )
    shapes = {"x": (1, 2, 5, 6, 7), "w": (4, 2, 3, 3, 3), "b": (4,)}
    feed = {name: draws.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return arm64_jobs.Model("network", proto, (feed,))


def test_the_machine_is_a_jetson_s_nearest(tmp_path):
    """QEMU's own choice has SVE; this has half-precision arithmetic and dot products, and no SVE."""
    code = """
import ctypes, platform
features = ctypes.CDLL(None).getauxval
features.restype = ctypes.c_ulong
print(platform.machine(), [bool(features(16) >> bit & 1) for bit in (1, 10, 20, 22)])
"""
    done = arm64.run("-c", code, work=tmp_path)
    assert done.stdout == "aarch64 [True, True, True, False]\n", done.stderr


def test_edgekit_runs_there_on_numpy_alone(tmp_path):
    done = arm64.run("-c", "import sys, edgekit.runtime; print('onnx' in sys.modules)", work=tmp_path)
    assert done.stdout == "False\n", done.stderr
    done = arm64.run("-c", "import onnx", work=tmp_path)
    assert "No module named 'onnx'" in done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_runs_a_plain_network(runtime, tmp_path):
    model = network()
    options = F32 if runtime == "openvino" else None
    got = arm64_jobs.run(runtime, [model], tmp_path, options=options)
    expected = ReferenceEvaluator(model.proto).run(None, model.feeds[0])
    np.testing.assert_allclose(got["network"][0][0], expected[0], atol=1e-5)


OPEN = """
import sys
import numpy as np
import edgekit.runtime
with edgekit.runtime.open("/mnt/warp.ekb", threads=2) as session, np.load("/mnt/feed.npz") as feed:
    np.save("/mnt/out.npy", session.run(dict(feed))["out"])
print(sorted({"onnx", "onnx_ir", "elftools", "torch"} & set(sys.modules)))
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "tvm"])
def test_a_bundle_opens_there_with_the_runtime_alone(backend, onnxruntime_library, tmp_path):
    case = next(case for case in cases() if case.label == "Warp with the defaults")
    board = target.find("raspberry-pi-5")
    proto = onnx.load_from_string(case.model())
    if backend == "tvm":
        export(ir.from_proto(proto), tmp_path / "model.so", board.options_for("tvm"), Platform.of(board))
        files = {"model.so": (tmp_path / "model.so").read_bytes()}
    else:
        library = onnxruntime_library.read_bytes()
        files = {"model.onnx": proto.SerializeToString(), onnxruntime_library.name: library}
    feed = dict(zip((value.name for value in proto.graph.input), case.feeds[0], strict=True))
    (expected,) = case.expected()
    inputs = tuple(TensorSpec(name, "float32", array.shape, "NCDHW") for name, array in feed.items())
    info = ArtifactInfo(
        backend=backend,
        form="engine",
        files=tuple(files),
        inputs=inputs,
        outputs=(TensorSpec("out", "float32", expected.shape, "NCDHW"),),
        target=board.name,
        built_with={},
        source_digest="0" * 64,
        native=backend == "tvm",
        library=onnxruntime_library.name if backend == "onnxruntime" else "",
    )
    made = bundle.Bundle.of(
        Artifact(info, files), name="warp", target=board, inputs=inputs, results=info.outputs
    )
    bundle.write(made, tmp_path / "warp.ekb")
    np.savez(tmp_path / "feed.npz", **feed)
    done = arm64.run("-c", OPEN, work=tmp_path)
    assert done.stdout == "[]\n", done.stderr[-4000:]
    case.check(np.load(tmp_path / "out.npy"), expected)


MIDDLE = """<ir_version: 10, opset_import: ["" : 20, "edgekit" : 1]>
middle (float[1, 1, 5, 6, 7] image, float[1, 3, 5, 6, 7] flow_vox) => (float[1, 1, 5, 6, 7] out) {
    positive = Relu (image)
    moved = edgekit.Warp (positive, flow_vox)
    out = Neg (moved)
}"""


def test_what_is_compiled_for_a_board_on_another_machine_runs_there(machine, tmp_path):
    board = target.find("raspberry-pi-5")
    board = replace(board, software={**board.software, "glibc": JETPACK.glibc})
    onnx.save(onnx.parser.parse_model(MIDDLE), tmp_path / "middle.onnx")
    made = edgekit.compile(
        tmp_path / "middle.onnx", target=board, backend="onnxruntime", output=tmp_path / "warp.ekb"
    )
    assert made.manifest.network.library == build.ONNXRUNTIME.file
    draws = np.random.default_rng(6)
    shapes = {"image": (1, 1, 5, 6, 7), "flow_vox": (1, 3, 5, 6, 7)}
    feed = {name: draws.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "feed.npz", **feed)
    done = arm64.run("-c", OPEN, work=tmp_path)
    assert done.stdout == "[]\n", done.stderr[-4000:]
    expected = -kernels.warp(np.maximum(feed["image"], 0), feed["flow_vox"])
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


Execute = Callable[[Sequence[arm64_jobs.Model]], dict[str, list[list[Array]]]]


def results(execute: Execute) -> list[tuple[HostCase, list[Array]]]:
    """Every case with a host's results, one for each of its feeds."""
    every = list(cases())
    still = [case for case in every if len(case.feeds) == 1]
    moving = [case for case in every if len(case.feeds) > 1]
    models = [
        arm64_jobs.together(still, "together"),
        *(arm64_jobs.separate(case, f"moving{index}") for index, case in enumerate(moving)),
    ]
    got = execute(models)
    found = [(case, [output]) for case, output in zip(still, got["together"][0], strict=True)]
    for index, case in enumerate(moving):
        found.append((case, [output for (output,) in got[f"moving{index}"]]))
    return found


def check(found: list[tuple[HostCase, list[Array]]]) -> None:
    wrong = []
    for case, outputs in found:
        for output, expected in zip(outputs, case.expected(), strict=True):
            try:
                case.check(output, expected)
            except AssertionError as error:
                wrong.append(f"{case.label}: {error}")
    assert wrong == []


def test_cases_in_onnxruntime(onnxruntime_library, tmp_path):
    """With both instruction sets, which give the same bits."""
    found = []
    for isa in ("neon", "scalar"):
        folder = tmp_path / isa
        folder.mkdir()

        def execute(
            models: Sequence[arm64_jobs.Model], folder=folder, isa=isa
        ) -> dict[str, list[list[Array]]]:
            return arm64_jobs.run(
                "onnxruntime",
                models,
                folder,
                libraries=[onnxruntime_library],
                options={"intra_op_num_threads": 2},
                environment={"EDGEKIT_ISA": isa},
            )

        found.append(results(execute))
    check(found[0])
    for (case, neon), (_, scalar) in zip(*found, strict=True):
        for one, other in zip(neon, scalar, strict=True):
            assert one.tobytes() == other.tobytes(), case.label


@pytest.fixture(scope="session")
def openvino_library(machine: None) -> Path:
    """Built of the headers and libraries of the machine's own wheel, which wants JetPack 6's C library."""
    package = Path(f"{arm64.root()}{arm64.SITE}/openvino")
    return build.library(openvino.adapter(package), Platform("aarch64", "2.35"))


def test_cases_in_openvino(openvino_library, tmp_path):
    def execute(models: Sequence[arm64_jobs.Model]) -> dict[str, list[list[Array]]]:
        return arm64_jobs.run("openvino", models, tmp_path, libraries=[openvino_library], options=F32)

    check(results(execute))


def test_openvino_calls_the_operators_in_float16(openvino_library, tmp_path):
    """As it does on Arm unless told otherwise, for networks in float32 also."""
    warp = next(case for case in cases() if case.label == "Warp with the defaults")
    got = arm64_jobs.run(
        "openvino", [arm64_jobs.separate(warp, "warp")], tmp_path, libraries=[openvino_library]
    )["warp"][0][0]
    (expected,) = warp.expected()
    error = np.abs(got - expected).max()
    assert got.dtype == np.float32 and 1e-5 < error < 5e-3


def test_cases_in_tvm(tmp_path):
    """Each network is one library, which holds the kernels."""

    def compile_model(model: onnx.ModelProto, path: Path) -> None:
        options = {"mtriple": "aarch64-linux-gnu", "mcpu": arm64.PROCESSOR}
        export(ir.from_proto(model), path, options, JETPACK)

    def execute(models: Sequence[arm64_jobs.Model]) -> dict[str, list[list[Array]]]:
        return arm64_jobs.run("tvm", models, tmp_path, compile_model=compile_model)

    check(results(execute))
