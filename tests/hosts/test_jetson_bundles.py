"""Bundles for a Jetson, compiled here: what is in them, and the processor's part run in an emulated one.

The GPU's part is run by tests/backends/tvm on a processor that plays the GPU.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from backends.backend_models import weights
from hosts import arm64

from edgekit import bundle, pipeline, runtime, target, zoo
from edgekit.bundle import Bundle
from edgekit.errors import MismatchError
from edgekit.hosts import cuda, elf

# With the CUDA of the compiler that such a machine has; NVRTC compiles for that of JetPack 6.
_ORIN = target.find("jetson")
BOARD = replace(_ORIN, software={**_ORIN.software, "cuda": "13.0"})
ERROR = 1e-3  # of the largest value
_AT = 'ir_version: 10, opset_import: ["": 20, "edgekit": 1]'


@dataclass(frozen=True)
class Subject:
    """A network to compile: of the zoo, or in ONNX's text form with the shapes of its weights."""

    shape: str
    text: str = ""
    weights: tuple[tuple[str, tuple[int, ...]], ...] = ()


SUBJECTS = {
    "planes": Subject(
        "1x3x12x16",
        """(float[1,3,12,16] image) => (float[1,2,12,16] out) {
            a = Conv <pads = [1,1,1,1]> (image, wa)
            b = Relu (a)
            out = Conv <pads = [1,1,1,1]> (b, wb)
        }""",
        (("wa", (8, 3, 3, 3)), ("wb", (2, 8, 3, 3))),
    ),
    # The operators stand inside the network: at its end they would be steps.
    "deformed": Subject(
        "1x2x6x8x12",
        """(float[1,2,6,8,12] image) => (float[1,1,6,8,12] out) {
            a = Conv <pads = [1,1,1,1,1,1]> (image, wa)
            b = LeakyRelu <alpha = 0.2> (a)
            v = Conv <pads = [1,1,1,1,1,1]> (b, wv)
            flow = edgekit.IntegrateVelocity <steps = 3> (v)
            moved = edgekit.Warp (b, flow)
            out = Conv (moved, wo)
        }""",
        (("wa", (8, 2, 3, 3, 3)), ("wv", (3, 8, 3, 3, 3)), ("wo", (1, 8, 1, 1, 1))),
    ),
    "register3d": Subject("1x1x16x16x16"),
    "segment3d": Subject("1x1x16x16x16"),
    "segment2d": Subject("1x1x32x32"),
    "classify2d": Subject("1x1x64x64"),
    "denoise2d": Subject("1x1x32x32"),
}

PROVE = """
import json, sys
from pathlib import Path
from edgekit import bundle, compare, runtime
for path in sorted(Path("/mnt").glob("*.ekb")):
    made = bundle.read(path)
    golden = made.golden
    with runtime.open(made, threads=2) as session:
        got = session.run(golden.inputs)
        told = {"network": session.network_name, "passed_over": session.passed_over}
    report = compare.compare(golden.results, got, reference="", inputs="", limits=golden.record.limits)
    told |= {"error": max(t.max_rel_error for t in report.tensors), "snr_db": report.worst_snr_db}
    print(json.dumps({"name": path.stem, "failures": report.failures, **told}))
"""


def compiled(name: str, folder: Path, **options: Any) -> Bundle:
    subject = SUBJECTS[name]
    if subject.text:
        proto = onnx.parser.parse_model(f"<{_AT}> net {subject.text}")
        for seed, (key, shape) in enumerate(subject.weights):
            array = weights(*shape, seed=seed)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
        onnx.save(proto, folder / f"{name}.onnx")
        source: Any = folder / f"{name}.onnx"
    else:
        model = zoo.MODELS[name]
        source, options = model.factory, {"weights": model.weights, **options}
        options["shapes"] = dict.fromkeys(model.inputs, subject.shape)
    return pipeline.compile(
        source, target=BOARD, backend="tvm", output=folder / f"{name}.ekb", name=name, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def bundles(folder: Path) -> dict[str, Bundle]:
    if cuda.missing(BOARD.software["cuda"]):
        pytest.skip(f"no compiler for CUDA {BOARD.software['cuda']} (GPU toolchain)")
    return {name: compiled(name, folder) for name in SUBJECTS}


@pytest.fixture(scope="module")
def proofs(bundles: dict[str, Bundle], folder: Path) -> dict[str, dict[str, Any]]:
    """What the emulated machine says of each bundle's golden case."""
    if reason := arm64.missing():
        pytest.skip(reason)
    done = arm64.run("-c", PROVE, work=folder, timeout_s=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    return {told["name"]: told for told in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_gpu_comes_first_with_machine_code_of_its_own(name: str, bundles: dict[str, Bundle]) -> None:
    manifest = bundles[name].manifest
    assert [(n.name, n.device, n.proven) for n in manifest.networks] == [
        ("tvm-cuda", "cuda", False),
        ("tvm-cpu", "cpu", False),
    ]
    content = bundles[name].artifact(manifest.named("tvm-cuda")).files["model.so"]
    assert cuda.architectures(content) == ("sm_87",)
    assert b"__global__" not in content  # and no text
    assert [c.verdict for c in manifest.candidates] == ["not run here"] * 2
    assert manifest.latency is None and manifest.accuracy is not None


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_library_loads_there(name: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    for network in bundles[name].manifest.networks:
        library = tmp_path / f"{network.name}.so"
        library.write_bytes(bundles[name].artifact(network).files["model.so"])
        elf.check(library, "aarch64", BOARD.software["glibc"])
        exported = elf.read(library).exported
        assert ("__tvm_ffi_edgekit_Warp" in exported) == (name == "deformed")


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_processor_gives_the_references_results(name: str, proofs: dict[str, Any]) -> None:
    told = proofs[name]
    assert told["network"] == "tvm-cpu" and told["failures"] == []
    assert told["error"] < ERROR and math.isfinite(told["snr_db"])
    assert "wants a GPU and TVM's runtime for it" in told["passed_over"]["tvm-cuda"]


def test_this_machine_opens_none_of_it(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(MismatchError, match="machine code for aarch64, this machine is") as caught:
        runtime.open(bundles["planes"])
    assert {"tvm-cuda", "tvm-cpu"} <= set(caught.value.message.replace(":", " ").split())


def test_the_notes_tell_what_was_not_run(bundles: dict[str, Bundle]) -> None:
    notes = bundles["deformed"].manifest.notes
    assert any(n.startswith("tvm-cpu: was not run") and n.endswith("stands in for it") for n in notes)
    assert any("a case to prove its networks on the device: generated: seed 0" in note for note in notes)


def test_the_plan_tells_the_same_before(folder: Path, bundles: dict[str, Bundle]) -> None:
    plan = pipeline.plan(folder / "planes.onnx", target=BOARD, backend="tvm")
    assert [(item.backend, item.verdict) for item in plan.backends] == [
        ("tvm-cuda", "compile"),
        ("tvm-cpu", "compile"),
    ]
    assert all(item.reason.startswith("would not be run here: ") for item in plan.backends)


def test_a_gpu_without_these_tensor_cores_leaves_the_processor(folder: Path, bundles: Any) -> None:
    xavier = target.find("jetson-agx-xavier")
    gpu, cpu = pipeline.plan(folder / "planes.onnx", target=xavier, backend="tvm").backends
    assert gpu.verdict == "refused" and "compute capability 8.0 or later" in gpu.reason
    assert cpu.verdict == "compile"


def test_a_changed_library_is_found(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    path = tmp_path / "a.ekb"
    bundle.write(bundles["planes"], path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"\x7fELF") + 4096] ^= 1
    path.write_bytes(raw)
    damaged = [member.name for member in bundle.verify(path).members if not member.intact]
    assert len(damaged) == 1 and damaged[0].startswith("network/tvm-c")


def test_jetpack_7_is_for_another_compiler(folder: Path, bundles: Any) -> None:
    thor = target.find("jetson-thor-t5000")
    gpu, _ = pipeline.plan(folder / "planes.onnx", target=thor, backend="tvm").backends
    assert gpu.verdict == "compile", gpu
