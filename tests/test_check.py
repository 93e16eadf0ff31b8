"""Whether a model builds for a device: over JetPacks and backends, with rewrites, memory and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit import check
from edgekit import target as targets
from edgekit.backends.base import Backend
from edgekit.cli import main
from edgekit.errors import TargetError, UsageError

NX, NANO, XAVIER = "jetson-orin-nx-16gb", "jetson-orin-nano-8gb", "jetson-agx-xavier"
DECODER = """<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 8, 16, 16] image) => (float[1, 8, 16, 16] result) <float[8] w = {1, 1, 1, 1, 1, 1, 1, 1}> {
    a = Relu (image)
    n = InstanceNormalization (a, w, w)
    result = Sigmoid (n)
}"""
NORMS = """<ir_version: 9, opset_import: ["" : 20]>
net (float[1, 4, 16, 16] image, float[1, 8, 8, 2] grid) => (float[1, 4, 8, 8] result) {
    g = Gelu (image)
    result = GridSample (g, grid)
}"""
REFUSED = """<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 4, 8, 8] image) => (float[1, 4, 4, 4] result, int64[1, 4, 4, 4] places) {
    result, places = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (image)
}"""


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "compile", lambda *_, **__: pytest.fail("a check compiled"))


def save(text: str, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def tensorrt(software: check.Software) -> check.Build:
    (build,) = (one for one in software.builds if one.backend == "tensorrt")
    return build


def test_every_jetpack_of_the_device_is_asked(tmp_path: Path) -> None:
    answer = check.check(save(NORMS, tmp_path), target=NX)
    device = targets.find(NX)
    assert answer.software[0].jetpack == device.software["jetpack"]
    assert {one.jetpack for one in answer.software} == set(device.jetpacks)
    assert answer.builds
    found = {one.jetpack: {f.rule for f in tensorrt(one).rewritten} for one in answer.software}
    assert found["5.1"] == {"opset.newest", "missing.Gelu", "grid_sample.mode"}
    # Gelu itself is known there, but not in the operator set that the grid's mode asks for.
    assert found["6.2"] == {"grid_sample.mode"}
    assert not any(tensorrt(one).left for one in answer.software)


def test_one_jetpack(tmp_path: Path) -> None:
    (software,) = check.check(save(DECODER, tmp_path), target=NX, jetpack="7.2").software
    assert (software.jetpack, software.tensorrt) == ("7.2", "10.16.2")
    with pytest.raises(TargetError, match="does not run JetPack"):
        check.check(save(DECODER, tmp_path), target=XAVIER, jetpack="7.2")


def test_what_stays_is_told(tmp_path: Path) -> None:
    answer = check.check(save(REFUSED, tmp_path), target=NX, jetpack="6.2", backend="tensorrt")
    build = tensorrt(answer.software[0])
    assert (answer.builds, build.verdict) == (False, "refused")
    assert build.reason == "1 refused: max_pool.indices"
    assert [f.rule for f in build.left] == ["max_pool.indices"]
    assert build.places == {"nowhere": 1} and build.dla is None


def test_the_accelerator_of_orin(tmp_path: Path) -> None:
    path = save(DECODER, tmp_path)
    builds = {one.jetpack: tensorrt(one) for one in check.check(path, target=NX, backend="tensorrt").software}
    assert builds["6.2"].dla == {"DLA": 2, "GPU": 1}
    assert builds["6.2"].dla_parts == 2 and builds["6.2"].dla_left == {"dla.operator": 1}
    assert builds["7.2"].dla == {"GPU": 3}  # not in TensorRT 10.16
    for other in (NANO, XAVIER):  # none, and one that the rules are not for
        found = check.check(path, target=other, backend="tensorrt").software
        assert all(tensorrt(one).dla is None for one in found)


def test_memory_is_weights_and_what_lives_at_once(tmp_path: Path) -> None:
    answer = check.check(save(DECODER, tmp_path), target=NX, jetpack="6.2", backend="tensorrt")
    memory = answer.software[0].memory
    assert memory.weights_bytes == 8 * 4
    assert memory.activations_bytes == 2 * 8 * 16 * 16 * 4  # of the input and two results, two at once
    assert memory.available_bytes == targets.find(NX).memory_bytes * 3 // 4
    small = replace(targets.find(NX), memory_bytes=16384)
    answer = check.check(save(DECODER, tmp_path), target=small, jetpack="6.2", backend="tensorrt")
    assert tensorrt(answer.software[0]).verdict == "builds" and not answer.builds


def test_a_processor_is_asked_through_its_backends(tmp_path: Path) -> None:
    answer = check.check(save(REFUSED, tmp_path), target="cpu")
    (software,) = answer.software
    assert (software.jetpack, software.tensorrt) == ("", "")
    verdicts = {build.backend: build.verdict for build in software.builds}
    assert verdicts["onnxruntime"] == "builds" and verdicts["tvm"] == "refused"
    (refused,) = (build for build in software.builds if build.verdict == "refused")
    assert "MaxPool with indices" in refused.reason and refused.hint
    assert answer.builds
    with pytest.raises(UsageError, match="has no TensorRT"):
        check.check(save(REFUSED, tmp_path), target="cpu", backend="tensorrt")


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = call(capsys, "check", save(NORMS, tmp_path), "-t", NX)
    assert code == 0
    assert "for Jetson Orin NX 16GB: builds" in printed
    assert "10.16.2" in printed and "with DLA" in printed
    assert "no estimate of workspace or time" in printed
    before, _, after = printed.partition("rewritten by edgekit itself:")
    assert after and "stays:" not in before
    assert "missing.Gelu [refused]: the parser has Gelu from 10.0 on" in after
    assert "(pass decompose)" in after and "source: github.com/" in after


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(REFUSED, tmp_path)
    code, printed = call(capsys, "check", path, "-t", NX, "--jetpack", "6.2", "-b", "tensorrt")
    assert code == 3
    assert "does not build" in printed and "max_pool.indices" in printed and "instead:" in printed
    code, printed = call(capsys, "check", path, "-t", NX, "--jetpack", "6.2", "-b", "tensorrt", "--json")
    document: dict[str, Any] = json.loads(printed)
    assert (code, document["command"], document["builds"]) == (3, "check", False)
    (software,) = document["check"]["software"]
    assert software["builds"][0]["left"][0]["rule"] == "max_pool.indices"
    assert call(capsys, "check", path, "-t", XAVIER, "--jetpack", "7.2")[0] == 2
