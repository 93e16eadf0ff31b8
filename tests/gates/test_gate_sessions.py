"""Gates on real sessions: the reference as the baseline, a vendor's runtime as the candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit import bundle as bundles
from edgekit import gates, pipeline, runtime
from edgekit.cases import Cases
from edgekit.gates import Judge
from edgekit.spec import Array

MODEL = """
<ir_version: 9, opset_import: ["" : 20]>
find (float[1, 1, 12, 16] image) => (float[1, 2, 12, 16] scores)
<float[2, 1, 3, 3] weight = {-0.1, -0.1, -0.1, -0.1, -0.2, -0.1, -0.1, -0.1, -0.1,
                             0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1},
 float[2] bias = {0.45, -0.45}>
{
    scores = Conv <pads = [1, 1, 1, 1]> (image, weight, bias)
}
"""


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    rows = ["image,scores"]
    for index in range(10):
        truth = np.zeros((12, 16), np.float32)
        truth[2 : 6 + index % 3, 3:12] = 1
        np.save(tmp_path / f"{index}.npy", truth)
        rows.append(f"{index}.npy,{index}.npy")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    return tmp_path / "cases.csv"


def test_a_compiled_candidate_is_judged_and_its_bundle_says_so(cases: Path, tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "find.onnx")
    made = {
        backend: pipeline.compile(tmp_path / "find.onnx", backend=backend, threads=1)
        for backend in ("reference", "onnxruntime")
    }
    manifest = made["onnxruntime"].manifest
    listed = Cases.open(cases, manifest.inputs, manifest.results)
    wanted = gates.parse(["dice", "hd95"], max_drop=["0%"], max_case_drop=["dice=0"])
    with (
        runtime.open(made["reference"]) as reference,
        runtime.open(made["onnxruntime"]) as session,
        Judge(wanted, listed, manifest.results, reference.run, described="float32 reference") as judge,
    ):
        report = judge.judge(session.run)

        def broken(feeds: Mapping[str, Array]) -> dict[str, Array]:
            return {name: -array for name, array in session.run(feeds).items()}

        assert not judge.judge(broken).passed
    assert report.passed and report.metrics[0].overall.baseline > 0.8
    report = gates.Budget(max_size_bytes=1 << 20).applied(report, size_bytes=500)
    whole = replace(
        made["onnxruntime"],
        manifest=replace(
            manifest, task=report, candidates=(replace(manifest.candidates[0], values=report.values),)
        ),
    )
    bundles.write(whole, tmp_path / "find.ekb")
    back = bundles.read_manifest(tmp_path / "find.ekb")
    assert repr(back.task) == repr(report) and back.candidates[0].values == report.values
