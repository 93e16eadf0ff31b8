"""The first divergent layer of networks that were broken on purpose, and the part that shows it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import wrong_backends
from backends.backend_models import graph, weights

from edgekit import bundle as bundles
from edgekit import pipeline, samples
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.base import Backend
from edgekit.bundle import Bundle
from edgekit.cli import main
from edgekit.diff import diff
from edgekit.diff.lab import snr
from edgekit.errors import MismatchError, SpecError, UsageError
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.spec import Array, Step

# Two branches, so that not every value is made of every one before it.
NETWORK = """g (float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y) {
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
    r1 = Relu (c1)
    c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
    s2 = Sigmoid (c2)
    c3 = Conv <pads = [1, 1, 1, 1]> (r1, w3)
    r3 = Relu (c3)
    m = Mul (s2, r3)
    c4 = Conv <pads = [1, 1, 1, 1]> (m, w4)
    y = Add (c4, x)
}"""
SHAPES = {"w1": (4, 2), "w2": (4, 4), "w3": (4, 4), "w4": (2, 4)}
WEIGHTS = {n: weights(*shape, 3, 3, seed=i) for i, (n, shape) in enumerate(SHAPES.items())}


def network(**changed: Array) -> Graph:
    return graph(NETWORK, **{**WEIGHTS, **changed})


def bundle_of(model: Graph, backend: str = "onnxruntime", **fields: Any) -> Bundle:
    device = targets.find("cpu")
    feeds = samples.generate_inputs(model.inputs)
    compiled = BACKENDS[backend].compile(model, device, sample=feeds, threads=1)
    return Bundle.of(
        compiled.artifact, name="net", target=device, inputs=model.given, results=model.results, **fields
    )


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the backends of the module beside."""
    for name in ("SEALED", "FUSING", "SECRETIVE"):
        monkeypatch.setitem(BACKENDS._entries, name.lower(), f"{wrong_backends.__name__}:{name}")


def test_a_right_network_does_not_diverge() -> None:
    found = diff(network(), bundle_of(network()), threads=1)
    report = found.report
    assert not report.diverges and report.first is None and not found.files
    assert report.threshold_db == 60 and report.compilations == 1
    assert report.artifact["y"] > 100 and report.outputs["y"] > 100


@pytest.mark.parametrize(("weight", "value"), [("w1", "c1"), ("w3", "c3")])
def test_a_tampered_weight_is_found(weight: str, value: str) -> None:
    import onnxruntime

    tampered = network(**{weight: WEIGHTS[weight] * np.float32(1.1)})
    events = list[str]()
    found = diff(network(), bundle_of(tampered), threads=1, on_event=events.append)
    report = found.report
    assert report.diverges and report.first is not None and report.part is not None
    assert report.first.value == value
    assert report.first.nodes[0].startswith("Conv")
    assert report.first.snr_db == pytest.approx(20, abs=0.5)
    assert all(snr_db > 60 for snr_db in report.first.inputs.values())
    assert report.part.reproduces and len(report.part.nodes) == 1
    assert report.part.snr_db == pytest.approx(20, abs=0.5)
    assert report.steepest is None
    assert report.compilations <= 7
    assert "another graph" in report.notes[0]
    assert events[0] == "run the bundle's network" and "values are left" in events[2]

    # What is saved shows it by itself.
    files, (source,) = found.files, report.part.inputs
    assert sorted(files) == [f"expected-{value}.npy", f"input-{source}.npy", "part.onnx", "report.json"]
    onnx.checker.check_model(onnx.load_from_string(files["part.onnx"]), full_check=True)
    session = onnxruntime.InferenceSession(files["part.onnx"], providers=["CPUExecutionProvider"])
    array, right = (np.load(io.BytesIO(files[f])) for f in (f"input-{source}.npy", f"expected-{value}.npy"))
    (got,) = session.run(None, {source: array})
    assert snr(right, got) == pytest.approx(20, abs=0.5)
    assert json.loads(files["report.json"])["first"]["value"] == value


HALF = """g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {
    a = Exp (x)
    b = Mul (a, k)
    c = Mul (b, l)
    y = Neg (c)
}"""
CAST = """g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {
    a = Exp (x)
    a16 = Cast <to = 10> (a)
    b16 = Mul (a16, k)
    b = Cast <to = 1> (b16)
    c = Mul (b, l)
    y = Neg (c)
}"""


def test_an_overflow_in_half_precision_is_found() -> None:
    factors = {"k": np.array([50_000], np.float32), "l": np.array([1e-5], np.float32)}
    right = graph(HALF, **factors)
    half = graph(CAST, **{**factors, "k": factors["k"].astype(np.float16)})
    feeds = {"x": np.linspace(-2, 2, 16, dtype=np.float32).reshape(1, 1, 4, 4)}
    # ONNX Runtime computes in float32 between the casts; the reference does what is written.
    bundle = bundle_of(half, "reference")
    report = diff(right, bundle, feeds=feeds, threads=1).report
    assert report.threshold_db == 40
    assert report.first is not None and report.first.value == "b"
    assert report.first.snr_db == -math.inf and report.first.inputs["a"] > 100
    assert [node.split()[0] for node in report.first.nodes] == ["Cast", "Mul", "Cast"]
    assert report.part is not None and report.part.reproduces and len(report.part.nodes) == 3
    # Where nothing overflows, half precision is what was wanted.
    small = {"x": feeds["x"] / 10 - 1}
    assert not diff(right, bundle, feeds=small, threads=1).report.diverges


def test_a_loss_that_adds_up_names_its_steepest_step() -> None:
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(5)]
    text = "g (float[1, 64] x) => (float[1, 64] v4) {" + "".join(
        f"{name} = MatMul ({before}, w{i})\n"
        for i, (before, name) in enumerate(zip(["x", *names], names, strict=False))
    )
    right = {f"w{i}": weights(64, 64, seed=i) for i in range(5)}
    noise = {name: 0.01 * rng.standard_normal((64, 64)) / 8 for name in right}
    noise["w3"] *= 1.6
    wrong = {name: (value + noise[name]).astype(np.float32) for name, value in right.items()}
    feeds = {"x": rng.standard_normal((1, 64)).astype(np.float32)}
    found = diff(
        graph(text + "}", **right),
        bundle_of(graph(text + "}", **wrong)),
        feeds=feeds,
        min_snr_db=34.5,
        threads=1,
    )
    report = found.report
    assert report.first is not None and report.first.loss_db < 6
    assert report.steepest is not None and report.steepest.value == "v0", "it has a right input"
    assert report.part is not None and report.part.reproduces and len(report.part.nodes) > 1


def test_a_wrong_fusion_is_found_though_looking_undoes_it(wrong: None) -> None:
    report = diff(network(), bundle_of(network(), "fusing"), threads=1, marks=1).report
    assert report.first is not None and report.first.value in ("r1", "r3")
    assert report.part is not None and report.part.reproduces
    assert sorted(node.split()[0] for node in report.part.nodes)[:2] == ["Conv", "Relu"]
    assert report.part.snr_db < 60


def test_values_that_a_backend_does_not_give_are_passed_over(wrong: None) -> None:
    report = diff(network(), bundle_of(network(), "secretive"), threads=1).report
    assert report.first is not None and report.first.value == "s2"
    assert any("does not give the values" in note for note in report.notes)


def test_a_damaged_artifact_is_told_from_a_wrong_compiler(wrong: None) -> None:
    bundle = bundle_of(network(), "sealed")
    tampered = network(w4=WEIGHTS["w4"] * 2).to_bytes()
    artifact = replace(bundle.network, files={"network.bin": tampered})
    damaged = Bundle.of(
        artifact,
        name="net",
        target=targets.find("cpu"),
        inputs=bundle.manifest.inputs,
        results=bundle.manifest.results,
    )
    report = diff(network(), damaged, threads=1).report
    assert report.diverges and report.first is None
    assert report.outputs["y"] > 100 > report.artifact["y"]
    assert "the bundle was damaged" in report.notes[0]


def test_a_graph_that_is_not_known_is_refused(wrong: None, tmp_path: Path) -> None:
    other = network(w1=WEIGHTS["w1"] * 2)
    bundle = bundle_of(other, "sealed")
    with pytest.raises(MismatchError, match="nor is it in the bundle"):
        diff(network(), bundle, threads=1)
    other.save(tmp_path / "other.onnx")
    report = diff(network(), bundle, graph=tmp_path / "other.onnx", threads=1).report
    assert report.first is not None and report.first.value == "c1"
    network().save(tmp_path / "network.onnx")
    with pytest.raises(MismatchError, match="not compiled from this graph"):
        diff(network(), bundle, graph=tmp_path / "network.onnx", threads=1)


def test_a_model_with_other_tensors_and_no_marks_are_refused() -> None:
    other = graph(HALF, k=np.ones(1, np.float32), l=np.ones(1, np.float32))
    renamed = graph(HALF.replace("y", "z"), k=np.ones(1, np.float32), l=np.ones(1, np.float32))
    with pytest.raises(SpecError, match="other outputs than the bundle's: want y, got z"):
        diff(renamed, bundle_of(other), threads=1)
    with pytest.raises(UsageError, match="at least one value"):
        diff(other, bundle_of(other), marks=0)


def test_label_maps_and_steps_before_the_network(tmp_path: Path) -> None:
    text = """g (float[1, 2, 8, 8] x) => (int64[1, 1, 8, 8] labels) {
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
        r1 = Relu (c1)
        labels = ArgMax <axis = 1> (r1)
    }"""
    before = (Step("median", ("x",), ("x",), {"radius": 1}),)
    right = replace(graph(text, w1=WEIGHTS["w1"]), before=before)
    tampered = graph(text, w1=WEIGHTS["w1"][::-1].copy())
    report = diff(right, bundle_of(tampered, before=before), threads=1).report
    assert report.first is not None and report.first.value == "c1"
    assert report.part is not None and report.part.inputs == ("x",) and report.part.reproduces


@pytest.mark.parametrize("name", ["openvino"])
def test_a_vendors_compiler_is_looked_into(name: str) -> None:
    backend: Backend = BACKENDS[name]
    assert backend.available().state == "found"
    bundle = bundle_of(network(), name)
    assert not diff(network(), bundle, threads=1).report.diverges
    # A limit that nothing keeps shows that every value can be seen.
    report = diff(network(), bundle, threads=1, min_snr_db=400).report
    assert report.first is not None and report.first.value == "c1"
    assert len(report.probed) >= 3 and all(one.snr_db > 80 for one in report.probed)


def test_snr() -> None:
    one = np.array([1.0, -2.0, 2.0], np.float32)
    assert snr(one, one) == math.inf
    assert snr(one, one * np.float32(1.1)) == pytest.approx(20, abs=1e-3)
    assert snr(one, np.array([1, np.nan, 2], np.float32)) == -math.inf
    assert snr(one, one[:2]) == -math.inf
    both = np.array([np.inf, 1.0])
    assert snr(both, both) == math.inf and snr(both, np.array([np.inf, 1.1])) == pytest.approx(20)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and a bundle of it whose weights were changed afterwards."""
    network().save(tmp_path / "model.onnx")
    prepared = pipeline.prepare(tmp_path / "model.onnx")
    changed = network(w2=WEIGHTS["w2"] * np.float32(1.3))
    changed.save(tmp_path / "changed.onnx")
    bundle = bundle_of(pipeline.prepare(tmp_path / "changed.onnx"))
    assert prepared.digest() != bundle.manifest.network.source_digest
    bundles.write(bundle, tmp_path / "net.ekb")
    return tmp_path / "model.onnx", tmp_path / "net.ekb"


def test_the_command_says_where_and_saves_the_part(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, bundle = map(str, files)
    out = tmp_path / "part"
    out.mkdir()
    (out / "part.onnx").write_text("mine")
    assert main(["diff", model, bundle, "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    arguments = ["diff", model, bundle, "-o", str(out), "--threads", "1"]
    assert main([*arguments, "--json", "--force"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["diverges"] and data["first"]["value"] == "c2"
    assert {Path(name).name for name in data["files"]} == {path.name for path in out.iterdir()}
    assert load(out / "part.onnx").graph.inputs[0].name == "r1"


def test_the_command_in_words(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, bundle = map(str, files)
    np.save(tmp_path / "x.npy", samples.generate_inputs(network().inputs)["x"])
    assert main(["diff", model, bundle, "-i", str(tmp_path / "x.npy"), "--threads", "1"]) == 1
    printed = capsys.readouterr().out
    assert "first divergent value: c2" in printed and "diverges alone as well" in printed
    assert "on inputs given: x x.npy" in printed
    assert main(["diff", str(tmp_path / "changed.onnx"), bundle, "--threads", "1"]) == 0
    assert "no output is below 60 dB" in capsys.readouterr().out
