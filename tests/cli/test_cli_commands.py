"""Each command on small bundles and models."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sample_bundles
from sample_bundles import StubBackend, stub  # noqa: F401 - a fixture

from edgekit import bundle as bundles
from edgekit import demo, kernels, target, volumes
from edgekit.cli import args, main
from edgekit.reports import Candidate
from edgekit.spec import Step, TensorSpec
from edgekit.volumes import Volume

MODEL = """
<ir_version: 9, opset_import: ["" : 20]>
smooth (float[1, 1, 6, 8] image) => (float[1, 1, 6, 8] smoothed)
<float[1, 1, 3, 3] weight = {0.1, 0.2, 0.1, 0.2, 0.4, 0.2, 0.1, 0.2, 0.1}>
{
    smoothed = Conv <pads = [1, 1, 1, 1]> (image, weight)
}
"""


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def document(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """The JSON document, which is all that stands on stdout."""
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 0, err
    data: dict[str, Any] = json.loads(out)
    assert (data["schema"], data["command"]) == (1, arguments[0])
    return data


@pytest.fixture
def bundle(tmp_path: Path, stub: StubBackend) -> Path:  # noqa: F811
    """``image`` 1x1x4x[4:12:4] in, ``doubled`` out."""
    path = tmp_path / "double.ekb"
    bundles.write(sample_bundles.small(), path)
    return path


@pytest.fixture
def two_inputs(tmp_path: Path, stub: StubBackend) -> Path:  # noqa: F811
    """``moving`` and ``fixed`` 1x1x3x4x5 in, ``moved`` and ``flow_vox`` 1x3x3x4x5 out."""
    moving = TensorSpec("moving", "float32", (1, 1, 3, 4, 5), "NCDHW", "intensity")
    inputs = (moving, replace(moving, name="fixed"))
    results = (
        replace(moving, name="moved"),
        TensorSpec("flow_vox", "float32", (1, 3, 3, 4, 5), "NCDHW", "flow_vox"),
    )
    stub.function = lambda feeds: {
        "moved": feeds["moving"] + feeds["fixed"],
        "flow_vox": np.repeat(feeds["moving"], 3, axis=1),
    }
    path = tmp_path / "register.ekb"
    bundles.write(sample_bundles.small(inputs=inputs, outputs=results), path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(32, dtype=np.float64).reshape(4, 8))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "smooth.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    return path


# --- targets ---


def test_targets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "targets")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert set(target.known()) <= set(lines)
    assert "jetson-orin-nano-8gb = jetson" in out and "20.5 T" in lines["jetson-orin-nano-8gb"]
    assert "tvm" in lines["jetson-orin-nano-8gb"]
    assert "openvino" in lines["x86-avx2"] and "8 GiB ?" in lines["x86-avx2"]
    assert max(map(len, out.splitlines())) < 180


def test_targets_json(capsys: pytest.CaptureFixture[str]) -> None:
    names = [item["name"] for item in document(capsys, "targets")["targets"]]
    assert names == list(target.known())
    assert document(capsys, "targets", "jetson")["target"]["gpu"]["multiprocessors"] == 8


def test_one_target_marks_what_is_unverified(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "targets", "jetson-agx-xavier")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["peak_ops_per_s.int8"].endswith("22.6 T ?")
    assert lines["peak_ops_per_s.float32"].endswith("1.41 T")
    assert "source: " in out


def test_one_target_shows_its_power_modes_and_jetpacks(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "targets", "jetson-agx-orin-64gb", "--jetpack", "5.1.4")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["30W"][1:6] == ["30", "8", "612", "MHz", "3199"]
    assert lines["5.1"][-5:] == ["20.04", "2.31", "3.8", "compiled", "for"]
    assert lines["software.tensorrt"] == ["software.tensorrt", "8.5.2"]
    assert document(capsys, "targets", "jetson", "--jetpack", "7.2")["target"]["software"]["cuda"] == "13.2.1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("targets", "jetson-agx-xavier", "--jetpack", "6.2"),
        ("targets", "--jetpack", "6.2"),
        ("compile", "m.onnx", "--target", "jetson-agx-xavier", "--jetpack", "6.2"),
        ("compile", "m.onnx", "--jetpack", "6.2"),
    ],
)
def test_a_jetpack_that_is_not_to_be_had(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2 and not out and "--jetpack" in err and "hint: " in err


def test_a_target_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("name = 3\n")
    code, _, err = call(capsys, "targets", path)
    assert code == 2 and "want str, got int 3" in err and f"where: {path}: name" in err


# --- inspect and verify ---


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str], stub: StubBackend) -> None:  # noqa: F811
    path = tmp_path / "full.ekb"
    bundles.write(sample_bundles.full(), path)
    code, out, _ = call(capsys, "inspect", path)
    assert code == 0
    for text in (
        "double: for bench, with stub (engine)",
        "image: float32 1x1x4x[4:12:4]",
        "a note",
        "chosen",
        "(engine), in mixed",
        "image: scans: 9 samples from 1 files, digest ",
        "layers: 1 in int8, 1 in float32",
        "int8 is no faster",
        "task on 3 labelled cases of cases.csv, against float32 pytorch:",
        "dice    group 'site A'  1      0.85",
        "class 2: 0.8 to 0.5",
        "<p03>        dice    0.7       -          -     the candidate crashed: ZeroDivisionError",
        "note: dice: scores of 'doubled' are taken as logits",
        "failed: dice falls from 0.875 to 0.75, by 0.125 over all cases; allowed are 0.01",
        "backend  precision  p50     p90     runs  worst SNR  dice",
    ):
        assert text in out
    assert "\x1b" not in out and "\\x1b" in out
    data = document(capsys, "inspect", path)
    assert data["manifest"]["candidates"][1]["reason"] == "it said no"
    assert data["identity"] == sample_bundles.full().manifest.identity
    assert stub.opened == []


def test_inspect_shows_the_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = replace(sample_bundles.IMAGE, name="flow", dims=(1, 2, 4, 8))
    made = sample_bundles.small(inputs=(flow,))
    step = Step("integrate_velocity", ("flow",), ("flow",), {"steps": 3})
    bundles.write(replace(made, manifest=replace(made.manifest, before=(step,))), tmp_path / "a.ekb")
    _, out, _ = call(capsys, "inspect", tmp_path / "a.ekb")
    assert "steps before the network:\n  flow = integrate_velocity(flow, steps=3)\n" in out
    (shown,) = document(capsys, "inspect", tmp_path / "a.ekb")["manifest"]["before"]
    assert shown["op"] == "integrate_velocity" and shown["options"] == {"steps": 3}


def test_verify(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "verify", bundle)
    assert code == 0 and "intact; identity" in out
    data = document(capsys, "verify", bundle)
    assert data["intact"] and [m["name"] for m in data["members"]] == [
        "network/stub/model.bin",
        "network/stub/model.xml",
    ]


def test_verify_finds_damage(bundle: Path, capsys: pytest.CaptureFixture[str], stub: StubBackend) -> None:  # noqa: F811
    content = bundle.read_bytes()
    damaged = content.replace(b"<net/>", b"<not/>")
    assert damaged != content
    bundle.write_bytes(damaged)
    code, out, err = call(capsys, "verify", bundle, "--json")
    assert code == 5 and json.loads(out)["error"]["class"] == "CorruptError"
    assert "network/stub/model.xml" in err
    image = bundle.with_name("x.npy")
    np.save(image, np.zeros((4, 8), np.float32))
    assert call(capsys, "run", bundle, "--input", image)[0] == 5
    assert stub.opened == []


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_no_bundle(command: str, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, command, tmp_path / "duoble.ekb")
    assert code == 2 and "double.ekb" in err
    (tmp_path / "text.ekb").write_text("no bundle at all")
    assert call(capsys, command, tmp_path / "text.ekb")[0] == 5


# --- run ---


def test_run(bundle: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_file = tmp_path / "y.npy"
    code, out, err = call(capsys, "run", bundle, "--input", image, "--output", out_file)
    assert code == 0, err
    np.testing.assert_array_equal(np.load(out_file), np.load(image)[None, None].astype(np.float32) * 2)
    assert "float64 taken as float32" in err and "doubled" in out
    assert out_file.name in out


def test_run_json(bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = document(capsys, "run", bundle, "--input", f"image={image}")
    (result,) = data["results"]
    assert (result["name"], result["shape"], result["min"], result["max"]) == ("doubled", [1, 1, 4, 8], 0, 62)
    assert result["file"] is None and data["run_s"] > 0 and data["notes"]


def test_run_refuses_before_the_work(
    bundle: Path,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stub: StubBackend,  # noqa: F811
) -> None:
    existing = tmp_path / "y.npy"
    existing.write_text("mine")
    for arguments, code, text in (
        (("--input", image, "-o", existing), 2, "exists already"),
        (("--input", image, "-o", tmp_path / "no" / "y.npy"), 2, "mkdir -p"),
        (("--input", image, "-o", tmp_path / "y.png"), 2, "want a name that ends in"),
        (("--input", image, "-o", f"duobled={tmp_path}/z.npy"), 2, "did you mean 'doubled'?"),
        (("--input", image, "-o", tmp_path / "a.npy", "-o", tmp_path / "b.npy"), 2, "given twice"),
        (("--input", f"imgae={image}"), 2, "did you mean 'image'?"),
        ((), 2, "no file for image"),
        (("--input", tmp_path / "none.npy"), 3, "no such file"),
        (("--input", bundle), 3, "cannot tell what kind"),
    ):
        got, out, err = call(capsys, "run", bundle, *arguments)
        assert (got, out) == (code, "") and text in err, err
    assert stub.opened == [] and existing.read_text() == "mine"


def test_run_force(bundle: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    existing = tmp_path / "y.npy"
    existing.write_text("mine")
    assert call(capsys, "run", bundle, "--input", image, "-o", existing, "--force")[0] == 0
    assert np.load(existing).shape == (1, 1, 4, 8)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.full((4, 8), np.nan), "NaN"),
        (np.zeros((4, 9)), "wrong shape"),
        (np.zeros((2, 4, 8)), "one picture"),
        (np.array([["a"]]), ""),
    ],
)
def test_run_refuses_wrong_images(
    array: np.ndarray[Any, Any], text: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, array)
    code, _, err = call(capsys, "run", bundle, "--input", path, "-o", tmp_path / "y.npy")
    assert code == 3 and text in err and str(path) in err
    assert not (tmp_path / "y.npy").exists()


def nifti(path: Path, shift_mm: float = 0.0) -> Path:
    affine = np.diag([1.5, 2.0, 2.5, 1.0])
    affine[0, 3] = shift_mm
    rng = np.random.default_rng(3)
    volumes.write(path, Volume(rng.standard_normal((3, 4, 5)).astype(np.float32), affine=affine))
    return path


def test_images_keep_their_grid(two_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving, fixed = nifti(tmp_path / "m.nii.gz"), nifti(tmp_path / "f.nii.gz")
    files = ("--input", f"moving={moving}", "--input", f"fixed={fixed}")
    code, _, err = call(capsys, "run", two_inputs, *files, "-o", f"moved={tmp_path}/out.nii.gz")
    assert code == 0, err
    result = volumes.read(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(result.array, 2 * volumes.read(moving).array, rtol=1e-6)
    assert result.spacing_mm_zyx == (2.5, 2.0, 1.5)


def test_which_grid(two_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving, fixed = nifti(tmp_path / "m.nii"), nifti(tmp_path / "f.nii", shift_mm=7.0)
    arguments = (
        "--input",
        f"moving={moving}",
        "--input",
        f"fixed={fixed}",
        "-o",
        f"moved={tmp_path}/out.nii",
    )
    code, _, err = call(capsys, "run", two_inputs, *arguments)
    assert code == 2 and "--grid-of fixed" in err
    assert call(capsys, "run", two_inputs, *arguments, "--grid-of", "fxed")[0] == 2
    assert call(capsys, "run", two_inputs, *arguments, "--grid-of", "fixed")[0] == 0
    affine = volumes.read(tmp_path / "out.nii").affine
    assert affine is not None and affine[0, 3] == pytest.approx(7.0)


def test_a_field_is_no_image(two_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = nifti(tmp_path / "m.nii")
    files = ("--input", f"moving={path}", "--input", f"fixed={path}")
    code, _, err = call(capsys, "run", two_inputs, *files, "-o", f"flow_vox={tmp_path}/flow.nii")
    assert code == 2 and "flow_vox=flow_vox.npy" in err


def test_a_folder_takes_all_results(
    two_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nifti(tmp_path / "m.nii")
    files = ("--input", f"moving={path}", "--input", f"fixed={path}")
    folder = tmp_path / "all"
    folder.mkdir()
    assert call(capsys, "run", two_inputs, *files, "-o", folder)[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == ["flow_vox.npy", "moved.npy"]
    code, _, err = call(capsys, "run", two_inputs, *files, "-o", tmp_path / "one.npy")
    assert code == 2 and "which result is it?" in err


# --- profile ---


def test_profile(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "profile", bundle, "--runs", 20, "--shape", "1x1x4x12", "--threads", 1)
    assert code == 0
    for text in ("p50", "p99.9", "jitter", "first run", "load", "peak memory", "threads 1", "cores"):
        assert text in out
    assert "generated: seed 0 (image 1x1x4x12)" in out


def test_profile_json_keeps_every_sample(
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = document(capsys, "profile", bundle, "--runs", 7, "--input", image)
    assert len(data["report"]["samples_s"]) == data["summary"]["runs"] == 7
    assert data["inputs"] == "given: image x.npy" and data["report"]["shapes"] == {"image": [1, 1, 4, 8]}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--shape", "image=1x1x4x13"), 3, "does not fit"),
        (("--shape", "image=1x1x4x[4:8]"), 2, "one length an axis"),
        (("--shape", "imgae=1x1x4x8"), 2, "did you mean 'image'?"),
        (("--shape", "1x1x4x8", "--input", "x.npy"), 2, "generated inputs"),
    ],
)
def test_profile_refuses(
    arguments: tuple[str, ...], code: int, text: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got, out, err = call(capsys, "profile", bundle, *arguments)
    assert (got, out) == (code, "") and text in err


# --- compile ---


def test_plan(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "compile", model, "--plan", "--min-snr-db", 40)
    assert code == 0 and "would compile" in out and "limits: --min-snr-db 40" in out
    data = document(capsys, "compile", model, "--plan")["plan"]
    assert data["output"] == "smooth.ekb" and [b["backend"] for b in data["backends"]]
    assert list(tmp_path.iterdir()) == []


def test_options_of_backends(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("compile", model, "--backend", "tvm", "--plan")
    given = ("tvm.tune_s=20", "tvm.rpc=board:9090")
    assert args.backend_options("--option", given) == {"tvm": {"tune_s": 20, "rpc": "board:9090"}}
    code, _, err = call(capsys, *arguments, *(text for option in given for text in ("--option", option)))
    assert code == 0, err
    for wrong, message in (
        ("tvm.tune=1", "did you mean 'tune_s'?"),
        ("tvm.tune_s=soon", "want an integer, got 'soon'"),
        ("tvn.tune_s=1", "tvn"),
        ("tune_s", "want NAME=VALUE"),
        ("onnxruntime.=1", "unknown option of onnxruntime ''"),
    ):
        code, _, err = call(capsys, *arguments, "--option", wrong)
        assert code == 2 and message in err, err


def test_compile_then_everything(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(48, dtype=np.float32).reshape(6, 8))
    data = document(
        capsys,
        *("compile", model, "--backend", "onnxruntime", "--shape", "1x1x6x8", "--input", "image=x.npy"),
        *("--intended-use", "a test", "--max-abs-error", "1e-3", "--threads", 1),
    )
    assert data["bundle"] == "smooth.ekb" and data["size_bytes"] == Path("smooth.ekb").stat().st_size
    manifest = data["manifest"]
    assert manifest["intended_use"] == "a test" and manifest["accuracy"]["limits"]["max_abs_error"] == 1e-3
    assert [c["verdict"] for c in manifest["candidates"]] == ["chosen"]
    code, _, err = call(capsys, "compile", model)
    assert code == 2 and "exists already" in err
    assert call(capsys, "verify", "smooth.ekb")[0] == 0
    assert call(capsys, "run", "smooth.ekb", "--input", "x.npy", "-o", "y.npy")[0] == 0
    assert np.load("y.npy").shape == (1, 1, 6, 8)


FLOW_MODEL = """
<ir_version: 9, opset_import: ["" : 20]>
mix (float[1, 2, H, W] flow) => (float[1, 2, H, W] mixed)
<float[2, 2, 1, 1] weight = {0.6, 0.2, 0.1, 0.2}> { mixed = Conv (flow, weight) }
"""


def test_steps_before_from_compiling_to_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(FLOW_MODEL), "mix.onnx")
    steps = ("--before", "integrate_velocity flow steps=3", "--before", "integrate_velocity boundary=zero")
    arguments = ("compile", "mix.onnx", "--shape", "1x2x6x8", *steps)
    _, out, _ = call(capsys, *arguments, "--plan")
    lines = (
        "steps before the network:",
        "  flow = integrate_velocity(flow, steps=3)",
        "  flow = integrate_velocity(flow, boundary='zero')",
    )
    assert "\n".join(lines) in out
    assert len(document(capsys, *arguments, "--plan")["plan"]["before"]) == 2
    code, _, err = call(capsys, *arguments, "--backend", "onnxruntime")
    assert code == 0, err
    assert "\n".join(lines) in call(capsys, "inspect", "mix.ekb")[1]
    flow = np.random.default_rng(0).standard_normal((1, 2, 6, 8)).astype(np.float32)
    np.save("flow.npy", flow)
    data = document(capsys, "run", "mix.ekb", "--input", "flow=flow.npy", "-o", "mixed.npy")
    stages = ["check", "integrate_velocity", "integrate_velocity 2", "network", "results"]
    assert list(data["stages_s"]) == stages
    ahead = kernels.integrate_velocity(kernels.integrate_velocity(flow, steps=3), boundary="zero")
    weight = np.array([[0.6, 0.2], [0.1, 0.2]], np.float32)
    np.testing.assert_allclose(np.load("mixed.npy"), np.einsum("oi,nihw->nohw", weight, ahead), atol=1e-6)
    _, out, _ = call(capsys, "profile", "mix.ekb", "--runs", 5)
    assert all(stage in out for stage in stages)


def test_a_gate_that_fails(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "compile", model, "--backend", "onnxruntime", "--min-snr-db", 1e6, "--json")
    assert code == 1 and json.loads(out)["error"]["class"] == "GateError"
    assert "no bundle was written" in err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--target", "jetson", "--backend", "openvino"), 3, "does not list the backend openvino"),
        (("--time-limit-s", "0.01"), 6, "--time-limit-s"),
        (("--shape", "imgae=1x1x6x8"), 2, "--shape image=1x1x6x8"),
        (("--backend", "nonsense"), 2, "unknown backend"),
        (("--before", "nonsense image"), 2, "unknown step 'nonsense': want one of warp"),
        (("--before", "integrate_velocity imgae"), 3, "did you mean 'image'?"),
        (("--before", "integrate_velocity image"), 3, "want"),
        (("--before", "zoo.denoise2d"), 3, "--shape image=1x1x8x8"),
        (("--input", "image=none.npy"), 3, "no such file"),
        (("-o", "no/such/folder/x.ekb"), 2, "mkdir -p"),
    ],
)
def test_compile_refuses(
    arguments: tuple[str, ...],
    code: int,
    text: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, "compile", model, *arguments)
    assert (got, out) == (code, "") and text in err, err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(bundle: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The largest size of a file that the process may write stands for the disk."""
    before = sorted(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        code, out, err = call(capsys, "run", bundle, "--input", image, "-o", tmp_path / "y.npy", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 6 and json.loads(out)["error"]["class"] == "LimitError" and "df -h" in err
    assert sorted(tmp_path.iterdir()) == before


# --- demo ---


def test_demo_shows_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = demo.DemoReport(
        registration=demo.RegistrationFigures(3.5, 1.25, {"grey matter": 0.5}, {"grey matter": 0.75}, 0.0004),
        denoising=(
            demo.DenoisingFigures(
                "CT slice", 12.0, {"noisy": 20.0, "edgekit": 26.5}, {"noisy": 0.25, "edgekit": 0.875}
            ),
        ),
        bundles=(
            demo.Compiled(
                str(tmp_path / "denoise2d.ekb"),
                (
                    Candidate("openvino", "chosen", "", 0.0125, 0.02, 9, 120.0, 1.0, 10),
                    Candidate("tvm", "refused", "no such operator"),
                ),
                None,
            ),
        ),
        files=("demo-output/ct.png",),
    )
    monkeypatch.setattr(demo, "run", lambda folder, on_event: (on_event("register"), report)[1])
    code, out, err = call(capsys, "demo", "-o", tmp_path)
    assert code == 0 and err == "register …\n"
    for text in ("3.50", "1.25", "0.500", "0.750", "0.040 %", "26.50 dB", "0.875", "12.5 ms", "120 dB"):
        assert text in out
    assert "refused: no such operator" in out and "wrote demo-output/ct.png" in out
    data = document(capsys, "demo", "-o", tmp_path)["report"]
    assert data["registration"]["field_error_after_mm"] == 1.25
