"""The whole flow on small models: what is chosen, what is refused, what is written."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from sample_steps import add  # noqa: F401

import edgekit
from edgekit import kernels, runtime, target
from edgekit.backends.base import Backend
from edgekit.compression import Compression
from edgekit.errors import GateError, SpecError, TargetError, UnavailableError, UnsupportedError, UsageError
from edgekit.gates import Budget
from edgekit.graph.graph import Graph
from edgekit.graph.load import Loaded, load
from edgekit.passes.base import Pass, PassResult
from edgekit.pipeline import compile, plan
from edgekit.reports import AccuracyLimits
from edgekit.spec import Array
from edgekit.target import Target

SMOOTH = """
<ir_version: 9, opset_import: ["" : 20]>
smooth (float[1, 1, H, W] image) => (float[1, 2, H, W] features)
<float[2, 1, 3, 3] weight = {0.1, 0.2, 0.1, 0.2, 0.4, 0.2, 0.1, 0.2, 0.1, -1, 0, 1, -2, 0, 2, -1, 0, 1}>
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
}
"""

DETERMINANT = """
<ir_version: 9, opset_import: ["" : 20]>
determinant (float[1, 2, 4, 4] image) => (float[1, 2] value) { value = Det (image) }
"""

SHAPE = {"image": "1x1x24x32"}


def save(folder: Path, text: str) -> Path:
    model = onnx.parser.parse_model(text)
    path = folder / f"{model.graph.name}.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"), SMOOTH)


@pytest.fixture(scope="module")
def compiled(smooth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "smooth.ekb"
    compile(smooth, shapes=SHAPE, output=path)
    return path


def tree(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_auto_compiles_every_backend_and_keeps_the_fastest_one_that_passes(compiled: Path) -> None:
    with runtime.open(compiled) as session:
        manifest = session.manifest
    candidates = {c.backend: c for c in manifest.candidates}
    assert set(candidates) == {"openvino", "onnxruntime", "tvm"}
    ran = [c for c in candidates.values() if c.verdict in ("chosen", "slower")]
    assert len(ran) == 3, [(c.backend, c.verdict, c.reason) for c in candidates.values()]
    chosen = next(c for c in ran if c.verdict == "chosen")
    assert chosen.p50_s == min(c.p50_s for c in ran)
    assert manifest.network.backend == chosen.backend
    assert all(c.worst_snr_db > 100 for c in ran)
    assert manifest.accuracy is not None
    assert manifest.accuracy.reference == "reference"


def test_the_bundle_computes_the_model(compiled: Path) -> None:
    image = np.random.default_rng(3).standard_normal((1, 1, 24, 32)).astype(np.float32)
    weight = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 10
    padded = np.pad(image[0, 0], 1)
    expected = sum(weight[i, j] * padded[i : i + 24, j : j + 32] for i in range(3) for j in range(3))
    with runtime.open(compiled) as session:
        features = session.run({"image": image})["features"]
    np.testing.assert_allclose(features[0, 0], expected, atol=1e-5)


def test_three_lines_of_python_say_the_same(smooth: Path, tmp_path: Path) -> None:
    edgekit.compile(smooth, target="cpu", shapes=SHAPE, backend="onnxruntime", output=tmp_path / "x.ekb")
    with edgekit.open(tmp_path / "x.ekb") as session:
        assert session.run({"image": np.ones((1, 1, 24, 32), np.float32)})["features"].shape == (1, 2, 24, 32)
        assert edgekit.profile(session, runs=5).p50_s > 0


def test_a_torch_module_is_compared_with_pytorch() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3))
    bundle = compile(net, shapes={"input": "1x1x16x16"}, backend="onnxruntime")
    accuracy = bundle.manifest.accuracy
    assert accuracy is not None
    assert accuracy.reference == "pytorch"
    assert accuracy.tensors[0].max_rel_error < 1e-4


# --- before the network ---


def smoothed(image: Array) -> Array:
    weight = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 10
    padded = np.pad(image[0, 0], 1)
    return sum(weight[i, j] * padded[i : i + 24, j : j + 32] for i in range(3) for j in range(3))  # type: ignore[no-any-return]


def test_every_backend_runs_the_steps_before_it(smooth: Path, tmp_path: Path, add: object) -> None:  # noqa: F811
    bundle = compile(smooth, shapes=SHAPE, before=["add value=4", "add image"], output=tmp_path / "x.ekb")
    manifest = bundle.manifest
    assert [str(step) for step in manifest.before] == ["image = add(image, value=4.0)", "image = add(image)"]
    ran = [c for c in manifest.candidates if c.verdict in ("chosen", "slower")]
    assert {c.backend for c in ran} == {"openvino", "onnxruntime", "tvm"}
    assert all(c.worst_snr_db > 100 for c in ran)
    image = np.random.default_rng(3).standard_normal((1, 1, 24, 32)).astype(np.float32)
    with runtime.open(tmp_path / "x.ekb") as session:
        features = session.run({"image": image})["features"]
        stages = edgekit.profile(session, runs=3).stages_s
    np.testing.assert_allclose(features[0, 0], smoothed(image + np.float32(5)), atol=1e-5)
    assert list(stages) == ["check", "add", "add 2", "network", "results"]


def test_the_reference_runs_them_too(smooth: Path, add: object) -> None:  # noqa: F811
    given = {"image": np.random.default_rng(1).random((1, 1, 24, 32), dtype=np.float32)}
    bundle = compile(smooth, shapes=SHAPE, before="add value=4", inputs=given, backend="reference")
    accuracy = bundle.manifest.accuracy
    assert accuracy is not None and accuracy.inputs == "given: image"
    assert accuracy.tensors[0].max_abs_error == 0


@pytest.mark.parametrize("given", [False, True])
def test_pytorch_sees_what_the_steps_made(given: bool, add: object) -> None:  # noqa: F811
    torch.manual_seed(0)
    # Without the step on both sides the results would lie far apart.
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(2, 1, 1))
    inputs = {"input": np.random.default_rng(1).random((1, 1, 16, 16), dtype=np.float32)}
    bundle = compile(
        net,
        shapes={"input": "1x1x16x16"},
        before="add value=3",
        inputs=inputs if given else None,
        backend="onnxruntime",
    )
    accuracy = bundle.manifest.accuracy
    assert accuracy is not None and accuracy.reference == "pytorch"
    assert accuracy.worst_snr_db > 100
    with runtime.open(bundle) as session, torch.no_grad():
        wanted = net(torch.from_numpy(inputs["input"] + np.float32(3))).numpy()
        np.testing.assert_allclose(session.run(inputs)["output"], wanted, atol=1e-5)


def test_steps_after_the_network_read_what_the_step_before_made(tmp_path: Path, add: object) -> None:  # noqa: F811
    text = """
    <ir_version: 9, opset_import: ["" : 20, "edgekit" : 1]>
    move (float[1, 2, 8, 9] image) => (moved) { flow = Neg (image)  moved = edgekit.Warp (image, flow) }
    """
    bundle = compile(save(tmp_path, text), before="add value=2", backend="onnxruntime")
    manifest = bundle.manifest
    assert [step.op for step in (*manifest.before, *manifest.after)] == ["add", "warp"]
    image = np.random.default_rng(0).random((1, 2, 8, 9), dtype=np.float32)
    with runtime.open(bundle) as session:
        moved = session.run({"image": image})["moved"]
    ahead = image + np.float32(2)
    np.testing.assert_allclose(moved, kernels.warp(ahead, -ahead), atol=1e-5)


def test_a_network_in_front_is_compiled_with_the_model(
    smooth: Path,
    tmp_path: Path,
    add: object,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Stands for the network of the zoo, whose export takes seconds and is tested elsewhere.
    double = "double (float[1, 1, H, W] x) => (float[1, 1, H, W] y) { y = Add (x, x) }"
    path = save(tmp_path, f'<ir_version: 9, opset_import: ["" : 18]> {double}')
    asked = []

    def export(source: str, *, shapes: dict[str, str], **options: object) -> Loaded:
        asked.append((source, shapes))
        return load(path, shapes={"x": shapes["image"]})

    monkeypatch.setattr("edgekit.front.load", export)
    bundle = compile(smooth, shapes=SHAPE, before=["add value=4", "zoo.denoise2d"], backend="onnxruntime")
    assert asked == [("edgekit.zoo.denoise2d:build", {"image": "1x1x24x32"})]
    manifest = bundle.manifest
    assert [step.op for step in manifest.before] == ["add"]
    assert "zoo.denoise2d runs in front of the network, on image" in manifest.history
    image = np.random.default_rng(3).standard_normal((1, 1, 24, 32)).astype(np.float32)
    with runtime.open(bundle) as session:
        features = session.run({"image": image})["features"]
    np.testing.assert_allclose(features[0, 0], smoothed(2 * image + np.float32(8)), atol=1e-5)


def test_a_plan_shows_the_steps(smooth: Path, add: object) -> None:  # noqa: F811
    planned = plan(smooth, shapes=SHAPE, before="add value=4")
    assert [str(step) for step in planned.before] == ["image = add(image, value=4.0)"]
    assert planned.as_dict()["before"]
    assert [spec.name for spec in planned.inputs] == ["image"]


def test_a_step_that_is_not_there_is_refused_before_any_work() -> None:
    for run in (compile, plan):
        with pytest.raises(UsageError, match="unknown step 'wrap'") as refused:
            run("no-such-model.onnx", before="wrap image")
        assert refused.value.where == "--before 'wrap image'"


def test_a_step_that_does_not_fit_is_refused(smooth: Path) -> None:
    with pytest.raises(SpecError, match="displacement") as refused:
        plan(smooth, shapes=SHAPE, before="integrate_velocity image")
    assert refused.value.where == "image = integrate_velocity(image)"
    with pytest.raises(SpecError, match="wrong shape"):
        compile(
            smooth,
            shapes=SHAPE,
            before="zoo.denoise2d",
            inputs={"image": np.zeros((1, 1, 9, 9), np.float32)},
        )


def test_a_failed_gate_writes_no_bundle(smooth: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError) as refused:
        compile(
            smooth,
            shapes=SHAPE,
            backend="openvino",
            limits=AccuracyLimits(max_abs_error=0.0, min_snr_db=1e6),
            output=tmp_path / "x.ekb",
        )
    assert "openvino" in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_agreement_with_a_constant_is_no_evidence(tmp_path: Path) -> None:
    nothing = """
    <ir_version: 9, opset_import: ["" : 20]>
    nothing (float[1, 1, 8, 8] image) => (float[1, 1, 8, 8] zero) { zero = Sub (image, image) }
    """
    with pytest.raises(GateError, match="constant proves nothing") as refused:
        compile(save(tmp_path, nothing), backend="onnxruntime", output=tmp_path / "x.ekb")
    assert "--input" in (refused.value.hint or "")
    assert not (tmp_path / "x.ekb").exists()


def test_a_plan_compiles_nothing_and_writes_nothing(
    smooth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Backend, "compile", lambda *_, **__: pytest.fail("a plan compiled"))
    before = tree(smooth.parent)
    result = plan(smooth, shapes=SHAPE, output=tmp_path / "x.ekb")
    assert [b.verdict for b in result.backends] == ["compile"] * 3
    assert tree(smooth.parent) == before
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told_in_the_plan_and_in_the_bundle(tmp_path: Path) -> None:
    path = save(tmp_path, DETERMINANT)
    planned = {b.backend: b for b in plan(path).backends}
    assert planned["openvino"].verdict == "refused"
    assert "Det" in planned["openvino"].reason
    bundle = compile(path)
    candidates = {c.backend: c for c in bundle.manifest.candidates}
    assert candidates["openvino"].verdict == "refused"
    assert bundle.manifest.network.backend in ("onnxruntime", "tvm")
    with pytest.raises(UnsupportedError, match="Det"):
        compile(path, backend="openvino")


def test_a_pass_is_not_judged_by_what_it_made(smooth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoil(Pass):
        name = "spoil"

        def _run(self, graph: Graph, target: Target) -> PassResult:
            network = graph.edit()
            (weight,) = network.graph.initializers.values()
            assert weight.const_value is not None
            weight.const_value = ir.Tensor(2 * weight.const_value.numpy(), name=weight.name)
            return PassResult(graph.with_model(network, "spoiled"), True)

    monkeypatch.setattr("edgekit.pipeline.default_passes", lambda target: [Spoil()])
    with pytest.raises(GateError):
        compile(smooth, shapes=SHAPE, backend="reference", limits=AccuracyLimits(min_snr_db=40))


def test_a_target_whose_backends_are_not_there_says_so(smooth: Path) -> None:
    device = dataclasses.replace(target.find("jetson"), backends=("magic",))
    with pytest.raises(UnavailableError, match=r"cannot compile for .*Orin Nano.* yet") as refused:
        compile(smooth, target=device, shapes=SHAPE)
    assert refused.value.exit_code == 4


def test_a_latency_is_refused_where_nothing_can_be_timed(smooth: Path) -> None:
    wanted = Compression(budget=Budget(max_latency_s=0.1))
    with pytest.raises(UsageError, match="nothing can be timed on this machine for Jetson") as refused:
        compile(smooth, target="jetson", shapes=SHAPE, backend="tvm", compression=wanted)
    assert refused.value.where == "--max-latency-ms"


def test_an_existing_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "x.ekb").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        compile(tmp_path / "no-such-model.onnx", output=tmp_path / "x.ekb")
    assert (tmp_path / "x.ekb").read_text() == "mine"


def test_an_unknown_target_names_the_nearest(smooth: Path) -> None:
    with pytest.raises(TargetError) as refused:
        compile(smooth, target="jetson-orin-nano-8g", shapes=SHAPE)
    assert "jetson-orin-nano-8gb" in (refused.value.hint or "")


def test_inputs_outside_the_contract_are_refused(smooth: Path) -> None:
    with pytest.raises(SpecError, match="wrong shape"):
        compile(smooth, shapes=SHAPE, inputs={"image": np.zeros((1, 1, 9, 9), np.float32)})


def test_kill_during_compile_leaves_nothing(smooth: Path, tmp_path: Path) -> None:
    """Killed at several moments: no bundle, no temporary file, no child that goes on."""
    command = [sys.executable, "-m", "edgekit.cli", "compile", str(smooth), "--shape", "image=1x1x24x32"]
    for delay_s in (0.5, 1.5, 3.0):
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / "x.ekb")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay_s)
        children = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(pid) for pid in children)
        left = [p.name for p in tmp_path.iterdir()]
        assert left in ([], ["x.ekb"])
        if left:  # it was faster than the delay: then it is whole
            runtime.open(tmp_path / "x.ekb").close()
            (tmp_path / "x.ekb").unlink()


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_environment_of_the_caller_is_left_alone(smooth: Path) -> None:
    before = dict(os.environ)
    plan(smooth, shapes=SHAPE)
    assert dict(os.environ) == before
