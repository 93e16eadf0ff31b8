"""Models in smaller precisions, from files to a bundle: what is kept, what is refused, what is written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgekit import calibration, gates, mixed, probe, runtime
from edgekit import target as targets
from edgekit.bundle import Bundle, read
from edgekit.cases import Cases
from edgekit.cli import compile as command
from edgekit.compression import PRECISIONS, Compression, forms, preparation
from edgekit.dataset import Dataset
from edgekit.errors import GateError, InputError, UsageError
from edgekit.gates import Budget
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.passes.half import HalfPass
from edgekit.pipeline import compile, plan
from edgekit.zoo import MODELS, synthetic

SIDE, IMAGES = 64, 10
ZOO = MODELS["denoise2d"]

# Squares what it reads, so that 16 bits hold the squares of small numbers alone.
SQUARES = """
<ir_version: 9, opset_import: ["" : 20]>
squares (float[1, 1, 16, 16] image) => (float[1, 1, 16, 16] result)
<float[1, 1, 1, 1] first = {100.0}, float[1, 1, 1, 1] second = {0.01}>
{
    large = Conv (image, first)
    product = Mul (large, image)
    result = Conv (product, second)
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures, the clean ones, and the list of both."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = torch.Generator().manual_seed(5)
    rows = []
    for index in range(IMAGES):
        clean = synthetic.clean_picture(rng, (SIDE, SIDE))
        noisy = synthetic.add_noise(rng, clean, 0.05, rician=False)
        for kind, image in (("noisy", noisy), ("clean", clean)):
            (folder / kind).mkdir(exist_ok=True)
            np.save(folder / kind / f"{index}.npy", image[0].numpy())
        rows.append((f"noisy/{index}.npy", f"clean/{index}.npy", "even" if index % 2 else "odd"))
    write_list(folder / "cases.csv", ("image", "denoised", "group"), rows)
    return folder


def write_list(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def wanted(folder: Path, precision: str = "int8", **changes: object) -> Compression:
    whole = Compression(
        precision=precision,  # type: ignore[arg-type]
        calibrate=(str(folder / "noisy"),),
        cases=folder / "cases.csv",
        gates=gates.parse(["psnr denoised"], max_drop=["0.5"], max_case_drop=["1"], max_group_drop=["0.5"]),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def make(compression: Compression, **options: object) -> Bundle:
    return compile(
        ZOO.factory,
        weights=ZOO.weights,
        shapes={"image": f"1x1x{SIDE}x{SIDE}"},
        backend="onnxruntime",
        compression=compression,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def single() -> Bundle:
    return make(Compression())


@pytest.fixture(scope="module")
def quantized(folder: Path) -> Bundle:
    return make(wanted(folder), output=folder / "int8.ekb", report=folder / "int8.html")


def test_a_quantized_bundle_keeps_the_task_and_says_how(quantized: Bundle, single: Bundle, folder: Path):
    manifest = read(folder / "int8.ekb").manifest
    # By their texts: what was not measured is NaN, which equals nothing.
    assert repr(manifest) == repr(quantized.manifest) and manifest.precision == "int8"
    assert manifest.task and manifest.task.passed and len(manifest.task.cases) == IMAGES
    assert {group.name for group in manifest.task.metrics[0].groups} == {"", "even", "odd"}
    assert manifest.calibration and len(manifest.calibration.files) == IMAGES
    assert all(len(file.sha256) == 64 for file in manifest.calibration.files)
    assert {layer.precision for layer in manifest.layers} == {"int8"}
    assert all(layer.snr_db > 20 and not layer.saturation > 0.05 for layer in manifest.layers)
    assert any(layer.saturation >= 0 for layer in manifest.layers)
    assert quantized.network.size_bytes < 0.3 * single.network.size_bytes
    assert single.manifest.precision == "float32" and not single.manifest.layers
    page = (folder / "int8.html").read_text()
    assert "psnr" in page and "data:image/png;base64" in page and manifest.layers[0].name in page


def test_what_it_computes_is_near_to_float32(quantized: Bundle, single: Bundle, folder: Path):
    feeds = {"image": np.load(folder / "noisy" / "3.npy")[None, None]}
    with runtime.open(quantized) as ours, runtime.open(single) as theirs:
        difference = ours.run(feeds)["denoised"] - theirs.run(feeds)["denoised"]
    assert 1e-6 < np.abs(difference).max() < 0.05


CHAIN = """
<ir_version: 9, opset_import: ["" : 20]>
chain (float[1, 1, 16, 16] image) => (float[1, 1, 16, 16] result)
<float[1, 1, 1, 1] first = {3.0}, float[1, 1, 1, 1] second = {0.7}>
{
    a = Conv (image, first)
    b = Relu (a)
    result = Conv (b, second)
}
"""


def prepared(tmp_path: Path, keeps: Callable[[Graph], bool] | None) -> preparation.Preparation:
    onnx.save(onnx.parser.parse_model(CHAIN), tmp_path / "chain.onnx")
    graph, rng = load(tmp_path / "chain.onnx").graph, np.random.default_rng(0)
    for index in range(8):
        # Few are large: how far types reach is a matter of opinion.
        np.save(tmp_path / f"{index}.npy", rng.standard_normal((16, 16), np.float32) ** 3)
    data = Dataset.open((str(tmp_path / "*.npy"),), graph.given)
    return preparation.prepare(
        graph,
        data,
        targets.find("cpu"),
        memory_bytes=1 << 30,
        time_limit_s=100,
        threads=1,
        on_event=lambda event: None,
        keeps=keeps,
    )


def test_labelled_cases_choose_how_a_network_is_quantized(tmp_path: Path):
    asked: list[Graph] = []

    def second(graph: Graph) -> bool:
        asked.append(graph)
        return len(asked) == 2

    best, other = prepared(tmp_path, None), prepared(tmp_path, second)
    made = [one.everywhere("int8").graph.digest() for one in (best, other)]
    assert [graph.digest() for graph in asked] == made and made[0] != made[1]
    assert best.snr_db >= other.snr_db
    # Where nothing keeps them, the least noise is best.
    assert prepared(tmp_path, lambda graph: False).recipe == best.recipe


def test_a_limit_that_nothing_keeps_writes_no_bundle_but_the_page(folder: Path):
    strict = gates.parse(["psnr denoised"], worst_value=["90"])
    with pytest.raises(GateError, match="psnr"):
        make(wanted(folder, gates=strict), output=folder / "no.ekb", report=folder / "no.html")
    assert not (folder / "no.ekb").exists()
    assert "psnr" in (folder / "no.html").read_text()


def test_latency_and_size_are_limits_without_cases(folder: Path):
    with pytest.raises(GateError, match=r"artifact's size is .* allowed are"):
        make(Compression(budget=Budget(max_size_bytes=1000)))
    with pytest.raises(GateError, match="median latency is"):
        make(Compression(budget=Budget(max_latency_s=1e-9)))


def test_a_network_whose_16_bits_overflow_fails_on_the_case_that_shows_it(tmp_path: Path):
    model = onnx.parser.parse_model(SQUARES)
    onnx.save(model, tmp_path / "squares.onnx")
    rng = np.random.default_rng(0)
    (tmp_path / "dim").mkdir()
    rows = []
    for index in range(10):
        image = rng.random((16, 16), np.float32)
        np.save(tmp_path / "dim" / f"{index}.npy", image)
        # One image goes further than any that was calibrated on, as one bright vessel does.
        image[3, 4] = 1.0 if index else 200.0
        np.save(tmp_path / f"{index}.npy", image)
        rows.append((f"{index}.npy",))
    device = targets.find("cpu")
    graph = load(tmp_path / "squares.onnx").graph
    ranges = calibration.calibrate(graph, Dataset.open([str(tmp_path / "dim")], graph.given))
    half = HalfPass("float16", ranges).run(graph, device).graph
    assert any(value.dtype == ir.DataType.FLOAT16 for node in half.model.graph for value in node.outputs)
    gate = gates.parse(["snr"], worst_value=["20"])
    listed = Cases.open(write_list(tmp_path / "cases.csv", ("image",), rows), graph.given, graph.results)
    # Processors compute 16 bits in 32; what ONNX says is what a graphics processor would do.
    with probe.opened_whole(graph) as single, probe.opened_whole(half) as candidate:
        report = gates.judge(gate, listed, graph.results, single, candidate)
    assert not report.passed
    assert any("case '0'" in failure and "NaN or infinite" in failure for failure in report.all_failures)


def test_calibration_data_of_another_kind_than_the_cases_are_refused(folder: Path, tmp_path: Path):
    other = tmp_path / "hounsfield"
    other.mkdir()
    for file in sorted((folder / "noisy").iterdir()):
        np.save(other / file.name, 1500 * np.load(file) - 1000)
    with pytest.raises(InputError, match="of another kind than the cases") as caught:
        make(wanted(folder, calibrate=(str(other),)))
    assert "same scanner" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("compression", "says"),
    [
        (lambda: Compression(precision="int8"), "int8 wants calibration data"),
        (lambda: Compression(precision="auto"), "auto wants calibration data"),
        (lambda: Compression(precision="int4"), "unknown precision 'int4'"),  # type: ignore[arg-type]
        (lambda: Compression(gates=gates.parse(["dice"])), "a metric wants labelled cases"),
        (lambda: Compression(cases=Path("cases.csv")), "labelled cases want a metric"),
        (lambda: make(Compression(precision="auto", calibrate=("x",))), "auto wants to know what"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(compression: Callable[[], object], says: str):
    with pytest.raises(UsageError, match=says) as caught:
        compression()
    assert caught.value.hint


def test_float32_is_the_answer_where_nothing_smaller_is_faster(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def search(graph, groups, build, bench, *rest, **options):  # type: ignore[no-untyped-def]
        assert bench.backend == "onnxruntime" and "int8" in options["precisions"]
        assert bench.gate(lambda feeds: {"denoised": feeds["image"]})
        note = "all layers stay float32: no group of layers would be faster"
        return mixed.Assignment(bench.backend, graph, (), 1.0, 1.0, np.inf, "no group", (note,))

    monkeypatch.setattr(forms.mixed, "search", search)
    manifest = make(wanted(folder, "auto")).manifest
    assert manifest.precision == "float32" and manifest.task and manifest.task.passed
    assert any("no group of layers would be faster" in note for note in manifest.notes)
    assert [row.verdict for row in manifest.candidates] == ["chosen"]


def test_the_plan_says_what_would_be_done(folder: Path):
    shown = plan(
        ZOO.factory,
        weights=ZOO.weights,
        shapes={"image": f"1x1x{SIDE}x{SIDE}"},
        compression=wanted(folder),
    )
    assert shown.compression[0] == "precision: int8"
    assert f"{IMAGES} samples" in shown.compression[1] and f"cases: {IMAGES}" in shown.compression[2]


def test_the_command_line_knows_every_precision():
    assert command._PRECISIONS == PRECISIONS
