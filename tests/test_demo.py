"""The demo from end to end: the figures that it promises, on the real images, with the real backends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit import demo, runtime
from edgekit.demo import DemoReport


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoReport]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo.run(folder)


def test_registration_recovers_the_known_field(shown: tuple[Path, DemoReport]) -> None:
    figures = shown[1].registration
    assert figures.field_error_after_mm <= figures.field_error_before_mm / 2
    for tissue, before in figures.dice_before.items():
        assert figures.dice_after[tissue] > before + 0.1
    assert figures.folding <= 0.001


def test_denoising_gains_and_is_ahead_of_non_local_means(shown: tuple[Path, DemoReport]) -> None:
    for figures in shown[1].denoising:
        assert figures.psnr_db["edgekit"] >= figures.psnr_db["noisy"] + 4
        assert figures.psnr_db["edgekit"] > figures.psnr_db["non-local means"]


def test_every_backend_agrees_with_pytorch(shown: tuple[Path, DemoReport]) -> None:
    for bundle in shown[1].bundles:
        assert {c.backend for c in bundle.candidates} == {"openvino", "onnxruntime", "tvm"}
        for candidate in bundle.candidates:
            assert candidate.verdict in ("chosen", "slower"), candidate
            assert candidate.worst_snr_db > 80  # 1e-4 relative
        with runtime.open(bundle.file) as session:
            accuracy = session.manifest.accuracy
        assert accuracy is not None
        assert accuracy.reference == "pytorch"
        assert all(t.max_rel_error < 1e-4 and t.informative for t in accuracy.tensors)


def test_the_warp_runs_as_a_step_and_the_bundle_says_so(shown: tuple[Path, DemoReport]) -> None:
    with runtime.open(shown[0] / "register3d.ekb") as session:
        assert [step.op for step in session.manifest.after] == ["integrate_velocity", "warp"]
        assert any("steps after the network" in note for note in session.manifest.notes)


def test_everything_it_names_is_there(shown: tuple[Path, DemoReport]) -> None:
    folder, report = shown
    assert all(Path(file).stat().st_size > 0 for file in report.files)
    assert {p.name for p in folder.iterdir()} == {Path(file).name for file in report.files}
    written = json.loads((folder / "demo.json").read_text())
    assert written["registration"]["field_error_after_mm"] == report.registration.field_error_after_mm
