"""What every backend gets from the base: checks, isolation, translation of errors."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import backend_crashes as crashes
import numpy as np
import pytest
from backend_models import TARGET, graph, sample

from edgekit import isolation
from edgekit.backends.base import Refusal, essential, translated
from edgekit.errors import (
    CompileError,
    LimitError,
    SessionError,
    SpecError,
    UnavailableError,
    UnsupportedError,
    UsageError,
)
from edgekit.isolation import Limits
from edgekit.target import find

NET = graph("net (float[1,1,4,4] x) => (float[1,1,4,4] y) { y = Relu(x) }")
HERE = dataclasses.replace(TARGET, backends=("doubling",))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A temporary folder of the test's own, which has to be empty in the end."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def compile_with(backend: crashes.Doubling, **options):
    return backend.compile(NET, HERE, sample=options.pop("sample", sample(NET)), **options)


def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "run", lambda *_, **__: pytest.fail("a child was started"))


def test_a_backend_that_behaves() -> None:
    compiled = compile_with(crashes.Doubling())
    info = compiled.artifact.info
    assert (info.backend, info.target, info.files) == ("doubling", "test", ("gain",))
    assert info.source_digest == NET.digest()
    assert info.options == {"gain": 2.0, "label": "", "fast": False}
    assert "compiling" in compiled.log
    assert compiled.compile_s > 0 and compiled.first_run_s > 0 and compiled.peak_bytes > 1 << 20
    np.testing.assert_array_equal(compiled.outputs["y"], 2 * sample(NET)["x"])
    with pytest.raises(SessionError, match="lacks gain"):
        crashes.Doubling().open(dataclasses.replace(compiled.artifact, files={}))


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (crashes.Aborting, r"compiling with Doubling ended abnormally \(Aborted\)[\s\S]*the last words"),
        (crashes.Segfaulting, r"ended abnormally \(Segmentation fault\)"),
        (crashes.Exiting, r"ended abnormally \(exit code 1\)[\s\S]*I do not want to"),
        (crashes.Raising, r"Doubling could not compile the model: RuntimeError: no rule for Foo"),
        (crashes.Refusing, "said so itself"),
    ],
)
def test_what_goes_wrong_in_the_child_is_a_compile_error(backend: type, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_with(backend())


def test_a_backends_own_error_keeps_its_fields() -> None:
    with pytest.raises(CompileError) as caught:
        compile_with(crashes.Refusing())
    assert (caught.value.where, caught.value.hint) == ("node 7", "try this")


@pytest.mark.parametrize(
    ("backend", "limits", "message"),
    [
        (crashes.Sleeping, Limits(time_s=1.5), r"took more than 1.5 s[\s\S]*the last words"),
        (crashes.Eating, Limits(60, 400 << 20), "more than 400 MiB of memory"),
        (crashes.OutOfMemory, Limits(), "out of memory"),
    ],
)
def test_running_out_of_something_is_a_limit_error(backend: type, limits: Limits, message: str) -> None:
    with pytest.raises(LimitError, match=message):
        compile_with(backend(), limits=limits)


def test_an_artifact_that_does_not_open_is_a_session_error() -> None:
    with pytest.raises(SessionError, match="could not open the artifact: RuntimeError: not my kind of file"):
        compile_with(crashes.FailingToOpen())


def test_options_are_checked_by_name_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = crashes.Doubling()
    target = dataclasses.replace(HERE, options={"doubling": {"gain": 3.0, "label": "a"}})
    assert backend.choose_options(target, {"label": "b"}) == {"gain": 3.0, "label": "b", "fast": False}
    no_child(monkeypatch)
    with pytest.raises(UsageError, match=r"no option 'gian': want gain, label, fast") as caught:
        compile_with(backend, options={"gian": 1.0})
    assert caught.value.hint == "did you mean 'gain'?"
    for wrong in ({"gain": 1}, {"gain": "1"}, {"fast": 1}, {"label": True}):
        with pytest.raises(UsageError, match=r"want (float|bool|str), got"):
            compile_with(backend, options=wrong)
    bad_target = dataclasses.replace(HERE, options={"doubling": {"speed": 1}})
    with pytest.raises(UsageError, match="'speed'") as caught:
        backend.choose_options(bad_target, {})
    assert caught.value.where == "target test"


def test_the_sample_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    no_child(monkeypatch)
    x = sample(NET)["x"]
    with pytest.raises(SpecError, match="want a sample for x, got none"):
        compile_with(crashes.Doubling(), sample={})
    with pytest.raises(SpecError, match="want a sample for x, got x, z"):
        compile_with(crashes.Doubling(), sample={"x": x, "z": x})
    with pytest.raises(SpecError, match="wrong dtype"):
        compile_with(crashes.Doubling(), sample={"x": x.astype(np.float64)})


def test_targets_that_no_backend_compiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    no_child(monkeypatch)
    jetson = find("jetson-orin-nano-8gb")
    title = crashes.Doubling().title
    message = f"{title} compiles for processors, not for graphics processors"
    assert crashes.Doubling().refusals(NET, jetson) == [Refusal(message, hint="--backend auto")]
    with pytest.raises(UnsupportedError, match="not for graphics processors"):
        crashes.Doubling().compile(NET, jetson, sample=sample(NET))
    with pytest.raises(UnsupportedError, match="does not list the backend doubling") as caught:
        crashes.Doubling().compile(NET, TARGET, sample=sample(NET))
    assert caught.value.hint == f"--backend {TARGET.backends[0]}"


class Twice(crashes.Doubling):
    """For processors and for GPUs."""

    devices = ("cuda", "cpu")


def test_a_device_with_a_gpu_has_a_processor_too() -> None:
    jetson = find("jetson-orin-nano-8gb")
    (build,) = crashes.Doubling().builds(jetson)
    assert (build.name, build.target.device, build.target.gpu) == ("doubling", "cpu", None)
    assert build.target.name == jetson.name and build.target.cpu == jetson.cpu
    on_gpu, beside = Twice().builds(jetson)
    assert (on_gpu.name, on_gpu.target) == ("doubling-cuda", jetson)
    assert (beside.name, beside.target.device) == ("doubling-cpu", "cpu")
    (only,) = Twice().builds(HERE)
    assert (only.name, only.target) == ("doubling", HERE)


def test_operators_of_a_foreign_domain_are_refused_by_name() -> None:
    model = NET.edit()
    node = model.graph[0]
    node.domain, node.name = "edgekit", "last warp"
    (refusal,) = crashes.Doubling().refusals(NET.with_model(model, "renamed"), HERE)
    assert refusal.nodes == ("Relu last warp",)
    assert str(refusal) == "operators of a domain it does not know: edgekit (Relu last warp)"


def write_module(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = crashes.NeedsAbsent()
    found = backend.available(load=True)
    assert found.state == "missing"
    assert "'edgekit-absent' is not installed" in found.reason
    assert found.hint == "pip install 'edgekit[onnxruntime]'"
    no_child(monkeypatch)
    with pytest.raises(UnavailableError, match="not installed"):
        compile_with(backend)
    with pytest.raises(UnavailableError, match="not installed"):
        backend.load()


@pytest.mark.parametrize(
    ("backend", "source", "reason"),
    [
        (
            crashes.NeedsBroken,
            "raise OSError('libnothing.so: cannot open shared object file')",
            "does not import: OSError: libnothing.so",
        ),
        (crashes.NeedsCrashing, "import os; os.kill(os.getpid(), 11)", "Segmentation fault"),
        (crashes.NeedsCrashing, "import os; os._exit(0)", "exit code 0"),
        (crashes.NeedsCrashing, "import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_a_broken_package(
    backend: type, source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    for name in ("edgekit_broken", "edgekit_crashing"):
        write_module(tmp_path / "modules", name, source)
    found = backend().available(load=True)
    assert found.state == "broken"
    assert reason in found.reason and "\n" not in found.reason
    assert found.hint.startswith("pip install --force-reinstall edgekit-")


def test_availability_survives_a_full_disk(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert crashes.NeedsAbsent().available(load=True).state == "missing"
    monkeypatch.setattr(crashes.NeedsAbsent.requirements[0].__class__, "missing", lambda _: None)
    assert crashes.NeedsAbsent().available(load=True).state == "broken"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("plain", "plain"),
        ("", ""),
        ("Exception from src/a.cpp:12:\nCheck 'x' failed at b.cpp:3\n\nthe reason\nmore", "the reason"),
        (
            'Traceback (most recent call last):\n  File "x", line 1\nTVMError: the reason',
            "TVMError: the reason",
        ),
        ("  0: tvm::runtime::f()\n  1: g\nthe reason", "the reason"),
        ("x" * 1000, "x" * 400),
    ],
)
def test_the_essential_line(message: str, line: str) -> None:
    assert essential(RuntimeError(message)) == (f"RuntimeError: {line}" if line else "RuntimeError")


def test_translation_leaves_our_errors_and_interrupts_alone() -> None:
    with pytest.raises(SpecError), translated(SessionError, "x"):
        raise SpecError("ours")
    with pytest.raises(KeyboardInterrupt), translated(SessionError, "x"):
        raise KeyboardInterrupt
    with pytest.raises(LimitError, match="No space left"), translated(SessionError, "x"):
        raise OSError(28, os.strerror(28))
