"""A machine proves a bundle: on the golden case, and where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sample_bundles
from sample_bundles import StubBackend, stub

from edgekit import bundle as bundles
from edgekit.bundle import Bundle
from edgekit.cli import main
from edgekit.errors import MismatchError, UsageError
from edgekit.golden import Golden, GoldenRecord
from edgekit.proof import prove
from edgekit.reports import AccuracyLimits
from edgekit.samples import generate_inputs

__all__ = ["stub"]


def bundle(*, golden: bool = True, limits: AccuracyLimits = AccuracyLimits(max_abs_error=1e-5)) -> Bundle:
    """Two networks, the first of a backend that is nowhere; with a golden case or without."""
    missing = sample_bundles.artifact(backend="nowhere", name="fast")
    inputs = generate_inputs([sample_bundles.IMAGE])
    record = GoldenRecord("pytorch", "generated: seed 0", limits)
    return Bundle.of(
        missing,
        sample_bundles.artifact(),
        name="double",
        target=sample_bundles.TARGET,
        inputs=(sample_bundles.IMAGE,),
        results=(sample_bundles.DOUBLED,),
        golden=Golden(record, inputs, {"doubled": inputs["image"] * 2}) if golden else None,
    )


def test_the_golden_case(stub: StubBackend) -> None:
    proof = prove(bundle())
    assert proof.passed and proof.network == "stub" and list(proof.passed_over) == ["fast"]
    assert proof.accuracy and proof.accuracy.tensors[0].max_abs_error == 0
    assert proof.accuracy.reference == "pytorch" and proof.accuracy.limits.max_abs_error == 1e-5
    assert proof.run_s > 0 and proof.load_s > 0 and proof.machine
    assert [session.closed_times for session in stub.sessions] == [1]


def test_results_that_are_others(stub: StubBackend) -> None:
    stub.function = lambda feeds: {"doubled": feeds["image"] * np.float32(2.1)}
    proof = prove(bundle())
    assert not proof.passed and proof.accuracy and "'doubled'" in proof.accuracy.failures[0]


@pytest.mark.parametrize(("factor", "passed"), [(2.001, True), (2.1, False)])
def test_a_golden_case_that_demands_nothing_wants_agreement(
    factor: float, passed: bool, stub: StubBackend
) -> None:
    stub.function = lambda feeds: {"doubled": feeds["image"] * np.float32(factor)}
    assert prove(bundle(limits=AccuracyLimits())).passed is passed


def test_no_golden_case(stub: StubBackend) -> None:
    proof = prove(bundle(golden=False))
    assert proof.passed and proof.accuracy is None


def test_a_network_that_does_not_run_here(stub: StubBackend) -> None:
    with pytest.raises(MismatchError, match="nowhere"):
        prove(bundle(), network="fast")
    with pytest.raises(UsageError):
        prove(bundle(), network="fats")


def test_the_command(stub: StubBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "double.ekb"
    bundles.write(bundle(), path)
    assert main(["verify", str(path)]) == 0
    assert "golden case" not in capsys.readouterr().out and not stub.sessions
    assert main(["verify", str(path), "--run"]) == 0
    out = capsys.readouterr().out
    assert "fast does not run here: " in out and "stub keeps the golden case's limits here" in out
    assert main(["verify", str(path), "--run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proved"] is True and told["proof"]["network"] == "stub"
    stub.function = lambda feeds: {"doubled": feeds["image"]}
    assert main(["verify", str(path), "--run"]) == 1
    assert "failed: " in capsys.readouterr().out
    assert main(["verify", str(path), "--run", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["proved"] is False
    assert main(["verify", str(path), "--network", "stub"]) == 2
    assert "--run" in capsys.readouterr().err


def test_the_command_without_a_golden_case(
    stub: StubBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles.write(bundle(golden=False), tmp_path / "double.ekb")
    assert main(["verify", str(tmp_path / "double.ekb"), "--run"]) == 0
    assert "no golden case to compare with" in capsys.readouterr().out
