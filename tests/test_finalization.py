"""Finishing a bundle on its device, with a builder of the tests in place of TensorRT."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from backends.backend_models import graph
from sample_engines import MAGIC, VARIABLE, Bench, bench, orin

import edgekit._C
from edgekit import engines, finalization, runtime
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.backends.tensorrt import backend as tensorrt
from edgekit.backends.tensorrt import builder as builders
from edgekit.backends.tensorrt import plan as plans
from edgekit.backends.tensorrt import plugins
from edgekit.bundle import Bundle, read, write
from edgekit.cli import main
from edgekit.errors import (
    CompileError,
    CorruptError,
    EdgekitError,
    GateError,
    LimitError,
    MismatchError,
    UnavailableError,
    UsageError,
)
from edgekit.finalization import finalize
from edgekit.golden import Golden, GoldenRecord
from edgekit.reports import AccuracyLimits
from edgekit.target import Target

__all__ = ["bench"]
NETWORK = graph(
    "net (float[1,1,6,6] image) => (float[1,2,6,6] scores) { scores = Conv <pads=[1,1,1,1]> (image, w) }",
    w=np.random.default_rng(1).standard_normal((2, 1, 3, 3)).astype(np.float32),
)
for index, node in enumerate(NETWORK.model.graph):
    node.name = f"conv{index}"
IMAGE = np.random.default_rng(2).standard_normal((1, 1, 6, 6)).astype(np.float32)


def artifact(target: Target, folder: Path, **options: int) -> Artifact:
    backend = BACKENDS["tensorrt"]
    info = ArtifactInfo(
        backend="tensorrt",
        form="portable",
        files=(),
        inputs=NETWORK.inputs,
        outputs=NETWORK.outputs,
        target=target.name,
        built_with={},
        source_digest=NETWORK.digest(),
        options={**backend.options, **options},
        device="cuda",
        proven=False,
    )
    (folder / "out").mkdir()
    NETWORK.save(folder / "model.onnx")
    return backend.build(folder / "model.onnx", info, target, folder / "out")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle for an Orin Nano with TensorRT 10.3."""
    return make(tmp_path)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that was finalized, and the state of the account that did it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        made = make(folder)
        patch.setattr(builders, "BUILDER", "sample_engines:TestBench")
        patch.setenv(VARIABLE, str(folder / "bench.json"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        Bench(folder / "bench.json")
        finalize(made)
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path, bench: Bench) -> Path:
    """A finalized bundle of one's own."""
    shutil.copytree(finished_once / "place", tmp_path / "place")
    shutil.copytree(finished_once / "state", tmp_path / "state")
    return tmp_path / "place" / "net.ekb"


def make(tmp_path: Path, *, golden: bool = True, **options: int) -> Path:
    made = artifact(orin(), tmp_path, **options)
    expected = session_result(made)
    case = Golden(GoldenRecord("reference", "drawn", AccuracyLimits(1e-3)), {"image": IMAGE}, expected)
    content = Bundle.of(
        made,
        name="net",
        target=replace(orin(), arch="x86_64"),
        inputs=NETWORK.given,
        results=NETWORK.results,
        golden=case if golden else None,
    )
    path = tmp_path / "place" / "net.ekb"
    path.parent.mkdir()
    write(content, path)
    return path


def session_result(made: Artifact) -> dict[str, np.ndarray]:
    from edgekit.backends.onnxruntime import literal

    return literal(made.files[plans.MODEL], own_operators=False).run({"image": IMAGE})


def kept(path: Path) -> set[str]:
    folder = engines.folder_of(path)
    return {file.name.partition(".")[2] for file in folder.iterdir()} if folder.exists() else set()


def result(path: Path) -> np.ndarray:
    with runtime.open(path) as session:
        return session.run({"image": IMAGE})["scores"]


def test_an_engine_is_built_proven_and_kept(bundle, bench):
    events: list[str] = []
    done = finalize(bundle, on_event=events.append)
    assert done.built and done.network == "tensorrt" and done.notes == ()
    assert kept(bundle) == {"engine", "json", "layers", "timing"}
    assert done.engine.read_bytes().startswith(MAGIC)
    assert done.record.accuracy.failures == () and done.record.accuracy.limits.max_abs_error == 1e-3
    key = done.record.key
    assert (key.tensorrt, key.compute_capability, key.multiprocessors, key.dla_core) == (
        "10.3.0",
        "8.7",
        8,
        -1,
    )
    assert key.flags == ("TF32",) and len(key.network_sha256) == 64
    assert "build the engine" in events and any("Building engine" in event for event in events)
    np.testing.assert_allclose(result(bundle), read(bundle).golden.results["scores"], atol=1e-6)


def test_nothing_is_built_twice_unless_asked(finished):
    again = finalize(finished)
    assert not again.built and again.record.accuracy
    assert finalize(finished, force=True).built
    (timed,) = engines.folder_of(finished).glob("*.timing")
    assert timed.read_bytes() == b"timed timed "  # the same tactics are taken again
    timed.write_bytes(b"another's ")
    assert finalize(finished, force=True).built and timed.read_bytes() == b"timed "


def test_before_that_the_network_is_passed_over_with_what_to_type(bundle, bench):
    with pytest.raises(UnavailableError, match="not been finalized on this device") as caught:
        runtime.open(bundle)
    assert caught.value.hint == f"edgekit finalize {bundle}"
    with runtime.open(read(bundle)) as session:  # in memory: built when it is opened, and kept nowhere
        assert session.run({"image": IMAGE})["scores"].shape == (1, 2, 6, 6)
    assert kept(bundle) == set()
    with finalization.open(bundle) as session:
        assert session.run({"image": IMAGE})["scores"].shape == (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensorrt": "10.3.1"}, "tensorrt: want 10.3.1, got 10.3.0"),
        ({"multiprocessors": 4}, "multiprocessors: want 4, got 8"),
        ({"gpu": "Orin (another)"}, "gpu: want Orin"),
    ],
)
def test_another_state_of_the_device_is_refused(finished, bench, changes, message):
    bench.set(**changes)
    with pytest.raises(MismatchError, match="it was finalized otherwise") as caught:
        runtime.open(finished)
    assert message in caught.value.message and caught.value.exit_code == 4


def test_and_built_anew(finished, bench):
    bench.set(multiprocessors=4)
    done = finalize(finished)
    assert done.built and any("built anew" in note for note in done.notes)
    assert result(finished).shape == (1, 2, 6, 6)


def test_another_power_mode_is_another_engine(finished, monkeypatch):
    monkeypatch.setattr(engines, "power_mode", lambda: "15W")
    with pytest.raises(MismatchError, match="power mode: want 15W, got "):
        runtime.open(finished)
    assert finalize(finished).record.key.power_mode == "15W"
    assert result(finished).shape == (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tensorrt": "8.5.2"}, MismatchError, "prepared for TensorRT 10.3, here is 8.5.2"),
        ({"compute_capability": "11.0", "gpu": "Thor"}, MismatchError, r"here is Thor \(11.0\)"),
        (
            {"free_bytes": 1 << 28},
            LimitError,
            "too little memory to build the engine: want 1024 MiB free, got 256",
        ),
        ({"fails": "no tactics"}, CompileError, "builds no engine: no tactics"),
        ({"dies": True}, CompileError, "ended abnormally"),
        ({"offset": 0.5}, GateError, "the engine is not the model"),
        ({"offset": float("nan")}, GateError, "NaN"),
    ],
)
def test_what_fails_leaves_nothing(bundle, bench, changes, error, message):
    bench.set(**changes)
    with pytest.raises(error, match=message) as caught:
        finalize(bundle)
    assert caught.value.exit_code == error.exit_code and (caught.value.hint or error is CompileError)
    assert kept(bundle) == set()


def test_a_build_has_a_budget(bundle, bench):
    bench.set(sleep_s=60)
    with pytest.raises(LimitError, match="took more than 3 s"):
        finalize(bundle, time_limit_s=3)
    assert kept(bundle) == set()


def test_a_full_disk_leaves_nothing_that_counts(bundle, bench, monkeypatch):
    write_file = engines.atomic.write

    def full(path: Path, data: bytes, *, force: bool = False) -> None:
        if path.suffix == ".engine":
            raise LimitError("no space to write the file", where=str(path), hint="df -h")
        write_file(path, data, force=force)

    monkeypatch.setattr(engines.atomic, "write", full)
    with pytest.raises(LimitError, match="no space"):
        finalize(bundle)
    assert "json" not in kept(bundle) and "engine" not in kept(bundle)
    with pytest.raises(UnavailableError, match="not been finalized"):
        runtime.open(bundle)


def test_an_interrupted_build_leaves_nothing(bundle, bench):
    bench.set(sleep_s=60)
    script = (
        f"import sys; sys.path[:] = {sys.path}\n"
        "from edgekit import finalization\nfrom edgekit.backends.tensorrt import builder\n"
        "builder.BUILDER = 'sample_engines:TestBench'\n"
        f"finalization.finalize({str(bundle)!r}, on_event=lambda event: print(event, flush=True))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in child.stdout:
        if b"Building engine" in line:
            break
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode != 0 and kept(bundle) == set()


def test_several_builds_are_compared(bundle, bench):
    spread = finalize(bundle, reproduce=3).record.spread
    assert (spread.builds, spread.engines, spread.layers) == (3, 1, 1)
    assert spread.other_tactics == (0, 0) and spread.max_abs_difference == 0 and len(spread.build_s) == 3
    bench.set(restless=True)
    spread = finalize(bundle, reproduce=2).record.spread
    assert spread.engines == 2 and spread.other_tactics == (1,)
    with pytest.raises(UsageError, match="want 1 build or more"):
        finalize(bundle, reproduce=0)


def test_without_a_golden_case_it_says_that_nobody_compared(tmp_path, bench):
    done = finalize(make(tmp_path, golden=False))
    assert done.record.accuracy is None and "nobody compared" in done.notes[0]


# What is not ours.


def _other_bytes(path: Path) -> None:
    (engine,) = engines.folder_of(path).glob("*.engine")
    engine.write_bytes(MAGIC + engine.read_bytes()[len(MAGIC) :].replace(b"0.0", b"9.0"))


def _other_record(path: Path) -> None:
    """A forged engine with a record that says its digest."""
    _other_bytes(path)
    (engine,), (record,) = (engines.folder_of(path).glob("*" + end) for end in (".engine", ".json"))
    plain = json.loads(record.read_text())
    plain["engine_sha256"] = engines._sha256(engine.read_bytes())
    record.write_text(json.dumps(plain))


def _writable_file(path: Path) -> None:
    (engine,) = engines.folder_of(path).glob("*.engine")
    engine.chmod(0o666)


def _writable_folder(path: Path) -> None:
    engines.folder_of(path).chmod(0o777)


def _a_link(path: Path) -> None:
    (engine,) = engines.folder_of(path).glob("*.engine")
    engine.rename(path.with_name("elsewhere"))
    engine.symlink_to(path.with_name("elsewhere"))


def _another_account(path: Path) -> None:
    for file in (engines.folder_of(path), *engines.folder_of(path).iterdir()):
        os.chown(file, 12345, 12345)


def _another_machine(path: Path) -> None:
    """The folder came with a download: everything in it is right, and the secret is another's."""
    (Path(os.environ["XDG_STATE_HOME"]) / "edgekit" / "engines.key").unlink()


TAMPERED = {
    _other_bytes: "bytes are not those that were built",
    _other_record: "does not bear the stamp",
    _writable_file: "others can write to it",
    _writable_folder: "others can write to it",
    _a_link: "not loaded",
    _another_account: "belongs to user 12345",
    _another_machine: "does not bear the stamp",
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda function: function.__name__)
def test_an_engine_that_is_not_ours_is_not_loaded(finished, tamper):
    if tamper is _another_account and os.geteuid() != 0:
        pytest.skip("only root gives files away: no TensorRT is concerned")
    tamper(finished)
    with pytest.raises(CorruptError, match=TAMPERED[tamper]) as caught:
        runtime.open(finished)
    assert caught.value.exit_code == 5 and caught.value.hint == f"edgekit finalize {finished}"


def test_an_engine_of_another_bundle_is_not_loaded(tmp_path, finished):
    bundle = finished
    other = tmp_path / "other.ekb"
    content = read(bundle)
    info = content.network.info
    files = {**content.network.files, plans.MODEL: _other_weights(content.network.files[plans.MODEL])}
    changed = Bundle.of(
        Artifact(info, files), name="other", target=replace(orin(), arch="x86_64"),
        inputs=NETWORK.given, results=NETWORK.results,
    )  # fmt: skip
    write(changed, other)
    engines.folder_of(bundle).rename(engines.folder_of(other))
    with pytest.raises(UnavailableError, match="not been finalized"):
        runtime.open(other)


def _other_weights(model: bytes) -> bytes:
    network = ir.from_proto(onnx.load_from_string(model))
    (weights,) = network.graph.initializers.values()
    weights.const_value = ir.tensor(weights.const_value.numpy() * 2, name=weights.name)
    return ir.to_proto(network).SerializeToString()


@pytest.mark.parametrize("tamper", [_other_record, _another_machine], ids=lambda f: f.__name__)
def test_finalizing_again_replaces_what_is_not_ours(finished, tamper):
    tamper(finished)
    done = finalize(finished)
    assert done.built and "not loaded" in done.notes[0]
    assert np.abs(result(finished)).max() < 9


def test_a_folder_that_others_can_write_to_is_not_used(bundle, bench):
    engines.folder_of(bundle).mkdir(mode=0o777)
    engines.folder_of(bundle).chmod(0o777)
    with pytest.raises(CorruptError, match="others can write") as caught:
        finalize(bundle)
    assert "rm -r" in caught.value.hint


def test_plug_ins_of_a_bundle_are_checked_with_it(bundle, bench):
    data = bytearray(bundle.read_bytes())
    position = data.find(b"nvinfer1::IBuilder")  # in build.cpp, a member like any other
    data[position] ^= 1
    bundle.write_bytes(bytes(data))
    with pytest.raises(CorruptError) as caught:
        finalize(bundle)
    assert caught.value.exit_code == 5 and kept(bundle) == set()


def test_a_network_that_needs_no_finishing_is_said_so(tmp_path, bundle, bench):
    content = read(bundle)
    info = replace(content.network.info, form="engine")
    ready = Bundle.of(
        Artifact(info, content.network.files), name="ready", target=replace(orin(), arch="x86_64"),
        inputs=NETWORK.given, results=NETWORK.results,
    )  # fmt: skip
    write(ready, tmp_path / "ready.ekb")
    with pytest.raises(UsageError, match="nothing to finalize"):
        finalize(tmp_path / "ready.ekb")


def test_without_tensorrt_the_hint_says_what_to_type(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UnavailableError) as caught:
        runtime.open(bundle)
    assert caught.value.exit_code == 4 and caught.value.hint
    assert isinstance(caught.value, EdgekitError)


def test_tactics_are_read_out_of_what_the_inspector_tells():
    layers = '{"Layers": [{"Name": "a", "TacticName": "t"}, {"Name": "b", "LayerType": "Shuffle"}]}'
    assert finalization.tactics_of(layers) == {"a": "t", "b": "Shuffle"}
    assert finalization.tactics_of('{"Layers": ["a", "b"]}') == {"a": "", "b": ""}
    assert finalization.tactics_of("") == {}


def test_the_command_says_what_was_done(finished, capsys):
    assert main(["finalize", str(finished), "--reproduce", "2"]) == 0
    printed = capsys.readouterr()
    assert "10.3.0" in printed.out and "golden case: within its limits" in printed.out
    assert "2 builds: 1 different files, other tactics in up to 0 of 1 layers" in printed.out
    assert "build 2 of 2" in printed.err
    assert main(["finalize", str(finished), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["built"] and told["record"]["key"]["gpu"] == "Orin" and told["network"] == "tensorrt"


def test_the_command_ends_with_the_errors_exit_code(bundle, bench, capsys):
    bench.set(tensorrt="8.5.2")
    assert main(["finalize", str(bundle)]) == 4
    assert capsys.readouterr().err.splitlines()[-1].strip().startswith("hint: ")


def test_plugins_made_on_the_device_stay_with_the_engine(tmp_path: Path, bench: Bench) -> None:
    content = read(make(tmp_path))
    network = content.artifact(content.manifest.networks[0])
    plan = replace(tensorrt.plan_of(network), plugins=plugins.FILE)
    wanting = Artifact(network.info, {**network.files, plans.FILE: plan.to_json()})
    path = tmp_path / "wanting.ekb"
    write(
        Bundle.of(
            wanting,
            name="net",
            target=replace(orin(), arch="x86_64"),
            inputs=NETWORK.given,
            results=NETWORK.results,
            golden=content.golden,
        ),
        path,
    )
    with pytest.raises(UnavailableError, match="needs plug-ins"):
        finalize(path)
    library = Path(edgekit._C.__file__)  # any that is for this machine
    assert finalize(path, plugins=library).built
    with runtime.open(path) as session:
        assert session.network_name == "tensorrt"
    assert not finalize(path).built
    (kept,) = engines.folder_of(path).glob(f"*.{plugins.FILE}")
    kept.write_bytes(kept.read_bytes() + b"x")
    with pytest.raises(CorruptError, match="the plug-ins are not those"):
        runtime.open(path)
