"""The doctor: found, missing, broken, hanging; and that nothing makes it raise."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import sample_jetsons

from edgekit import doctor, isolation, jetson, kernels, machine
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, Availability, Backend, NetworkSession, Refusal
from edgekit.cli import main
from edgekit.doctor import best_target, examine
from edgekit.isolation import Limits
from edgekit.machine import Machine
from edgekit.registry import Registry, Requirement

XEON = ("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


class Fine(Backend):
    """A backend that needs a package which is there."""

    name = "faked"
    title = "Faked"
    requirements = (Requirement("ek_fine", "ek-fine", "faked"),)

    def _refusals(self, graph: object, target: object) -> list[Refusal]:
        return []

    def _compile(self, *arguments: object) -> None:
        raise AssertionError("the doctor compiles nothing")

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        raise AssertionError("the doctor opens nothing")


class Broken(Fine):
    requirements = (Requirement("ek_broken", "ek-broken", "faked"),)


class Crashing(Fine):
    requirements = (Requirement("ek_crashing", "ek-crashing", "faked"),)


class Nowhere(Fine):
    requirements = (Requirement("ek_nowhere", "ek-nowhere", "faked"),)


class Raising(Fine):
    """A backend whose own code fails."""

    def available(self, *, load: bool = False) -> Availability:
        raise RuntimeError("\x1b[31mnobody expected this")


FINE, BROKEN, CRASHING, NOWHERE, RAISING = Fine(), Broken(), Crashing(), Nowhere(), Raising()


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Put backends with these names in place of the real ones; their packages lie in a folder on the path."""
    (tmp_path / "ek_fine.py").write_text("answer = 42\n")
    (tmp_path / "ek_broken.py").write_text(
        "raise ImportError('libvendor.so.7: cannot open shared object file')\n"
    )
    (tmp_path / "ek_crashing.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def replace(*names: str) -> None:
        entries = {name: f"{__name__}:{name.upper()}" for name in names}
        monkeypatch.setattr(doctor, "BACKENDS", Registry("backend", entries))

    return replace


def test_the_real_backends() -> None:
    diagnosis = examine()
    assert [b.name for b in diagnosis.backends] == list(BACKENDS)
    for finding in diagnosis.backends:
        assert finding.state != "found" or finding.versions
    assert diagnosis.usable and diagnosis.python.state == "found"
    assert {p.name for p in diagnosis.packages} >= {"pydicom", "nibabel", "torch", "onnx"}
    assert diagnosis.free_memory_bytes > 0 and diagnosis.free_disk_bytes > 0
    assert diagnosis.target in targets.known()


def test_found_missing_broken_crashing(use: object) -> None:
    use("fine", "broken", "crashing", "nowhere", "raising")  # type: ignore[operator]
    found = {b.name: b for b in examine().backends}
    assert {name: f.state for name, f in found.items()} == {
        "fine": "found",
        "broken": "broken",
        "crashing": "broken",
        "nowhere": "missing",
        "raising": "broken",
    }
    assert found["nowhere"].hint == "pip install 'edgekit[faked]'"
    assert "libvendor.so.7" in found["broken"].reason
    assert found["broken"].hint == "pip install --force-reinstall ek-broken"
    assert "Segmentation fault" in found["crashing"].reason
    assert "nobody expected this" in found["raising"].reason


def test_an_import_that_hangs_is_stopped(
    use: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ek_fine.py").write_text("import time\ntime.sleep(60)\n")
    real = isolation.run
    monkeypatch.setattr(
        isolation, "run", lambda *a, limits, **options: real(*a, limits=Limits(time_s=3.0), **options)
    )
    use("fine")  # type: ignore[operator]
    (finding,) = examine().backends
    assert finding.state == "broken" and "3 s" in finding.reason


def test_nothing_works(use: object, capsys: pytest.CaptureFixture[str]) -> None:
    use("nowhere", "raising")  # type: ignore[operator]
    assert main(["doctor"]) == 4
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert "missing" in lines["nowhere"] and "pip install 'edgekit[faked]'" in lines["nowhere"]
    assert "found but broken" in lines["raising"]
    assert main(["doctor", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["usable"] is False


def test_json(use: object, capsys: pytest.CaptureFixture[str]) -> None:
    use("fine", "nowhere")  # type: ignore[operator]
    assert main(["doctor", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["diagnosis"]
    assert [b["state"] for b in data["backends"]] == ["found", "missing"]
    assert data["machine"]["cores"] >= 1


def test_packages_that_are_missing_or_old(use: object, monkeypatch: pytest.MonkeyPatch) -> None:
    use("fine")  # type: ignore[operator]
    monkeypatch.setattr(
        doctor,
        "_PACKAGES",
        {
            "one": Requirement("ek_nowhere", "ek-nowhere", "dicom"),
            "two": Requirement("numpy", "numpy", "nifti", "999.0"),
            "three": Requirement("numpy", "numpy", "nifti"),
        },
    )
    found = examine().packages
    assert [f.state for f in found] == ["missing", "missing", "found"]
    assert "too old" in found[1].reason and found[0].hint == "pip install 'edgekit[dicom]'"


@pytest.mark.parametrize(
    ("status", "no_numba", "state", "hint"),
    [
        (("avx2", ("scalar", "avx2"), ""), "gone", "found", ""),
        (("", ("scalar", "avx2"), "EDGEKIT_ISA: unknown"), "", "broken", "unset EDGEKIT_ISA"),
        (("", (), "not built"), "gone", "missing", "pip install --force-reinstall edgekit"),
        (("", (), "not built"), "", "found", ""),
    ],
)
def test_kernels(
    status: tuple[str, tuple[str, ...], str],
    no_numba: str,
    state: str,
    hint: str,
    use: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use("fine")  # type: ignore[operator]
    monkeypatch.setattr(kernels, "native_status", lambda: kernels.NativeStatus(*status))
    monkeypatch.setattr(doctor, "numba_missing", lambda: no_numba)
    found = examine().kernels
    assert (found.state, found.hint) == (state, hint)
    if state == "found" and not status[0]:
        assert found.reason == "extension missing: not built"
        assert found.versions == {"kernels": f"numba {importlib.metadata.version('numba')}"}


@pytest.mark.parametrize(("no_numba", "state"), [("", "found"), ("gone", "broken")])
def test_kernels_where_numba_is_asked_for(
    no_numba: str, state: str, use: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("fine")  # type: ignore[operator]
    status = kernels.NativeStatus("", ("scalar",), "EDGEKIT_ISA asks for numba")
    monkeypatch.setattr(kernels, "native_status", lambda: status)
    monkeypatch.setattr(doctor, "numba_is_forced", lambda: True)
    monkeypatch.setattr(doctor, "numba_missing", lambda: no_numba)
    found = examine().kernels
    assert (found.state, found.reason) == (state, no_numba or status.missing)


@pytest.mark.parametrize(("reason", "state"), [("", "found"), ("no GPU: none", "missing")])
def test_gpu(reason: str, state: str, use: object, monkeypatch: pytest.MonkeyPatch) -> None:
    use("fine")  # type: ignore[operator]
    monkeypatch.setattr(doctor, "gpu_missing", lambda: reason)
    found = examine().gpu
    assert (found.state, found.reason) == (state, reason)


def test_a_broken_target_folder_is_survived(
    use: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("fine")  # type: ignore[operator]
    (tmp_path / "bad.toml").write_text("= = =")
    monkeypatch.setattr(targets, "folder", lambda: tmp_path)
    targets.known.cache_clear()
    try:
        diagnosis = examine()
    finally:
        targets.known.cache_clear()
    assert diagnosis.target == "" and diagnosis.other_targets == ()


def test_a_jetson(
    use: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use("fine")  # type: ignore[operator]
    board = jetson.detect(sample_jetsons.tree(tmp_path, "orin-nano-super-jetpack-6"))
    monkeypatch.setattr(jetson, "detect", lambda: board)
    assert main(["doctor"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert lines["module"].endswith("Developer Kit Super (p3767-0005)")
    assert lines["software"] == (
        "JetPack 6.2, Jetson Linux 36.4.3, TensorRT 10.3.0.30, CUDA 12.6.68, cuDNN 9.3.0.75"
    )
    assert lines["power mode"] == "25W (nvpmodel -m 1); also 15W, MAXN_SUPER, 7W"
    assert lines["GPU"].startswith("8 multiprocessors, 306 MHz now, at most 918 MHz; memory")
    assert lines["target"].startswith("jetson-orin-nano-8gb-super")
    assert lines["note"] == "power mode 25W allows the GPU 918 of 1020 MHz"
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["diagnosis"]
    assert told["jetson"]["mode"]["name"] == "25W" and told["target"] == "jetson-orin-nano-8gb-super"


def test_a_jetson_of_which_little_is_known(
    use: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use("fine")  # type: ignore[operator]
    monkeypatch.setattr(jetson, "detect", lambda: jetson.Jetson(chip="tegra234"))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "module: unknown (tegra234)" in out and "power mode: unknown" in out
    assert "GPU: unknown number of multiprocessors, clock unknown; memory: clock unknown" in out


def fitting(here: Machine) -> list[targets.Target]:
    return doctor._fitting_targets(here)


N100 = ("avx2", "fma", "f16c", "avx_vnni")
A76 = ("asimd", "asimddp", "asimdhp")


@pytest.mark.parametrize(
    ("cpu", "arch", "features", "expected"),
    [
        ("Intel(R) Xeon(R) Platinum 8480+", "x86_64", XEON, "xeon-amx"),
        ("Intel(R) Xeon(R) Processor", "x86_64", XEON, "xeon-amx"),
        ("Intel(R) N100", "x86_64", N100, "intel-n100"),
        ("Intel(R) Core(TM) Ultra 7 155H", "x86_64", N100, "intel-core-ultra-7-155h"),
        ("13th Gen Intel(R) Core(TM) i5-1340P", "x86_64", N100, "x86-avx2"),
        ("AMD EPYC 9354", "x86_64", ("avx2", "fma", "f16c", "avx512f", "avx512_vnni"), "x86-avx512"),
        ("Some Atom", "x86_64", ("sse4_2",), ""),
        ("Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)", "aarch64", A76, "raspberry-pi-5"),
        ("Raspberry Pi 4 (Cortex-A72)", "aarch64", ("asimd",), ""),
    ],
)
def test_the_target_that_describes_a_machine(
    cpu: str, arch: str, features: tuple[str, ...], expected: str
) -> None:
    here = dataclasses.replace(machine.record(), cpu=cpu, arch=arch, features=features)
    assert best_target(here, fitting(here)) == expected


def test_packages_are_looked_up_and_not_imported() -> None:
    code = (
        "import sys; from edgekit import doctor; doctor.BACKENDS = {}; doctor.examine(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnx_ir", "onnxscript", "pydicom", "nibabel"} & set(done.stdout.split())


def test_operators_in_runtimes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {finding.name: finding for finding in examine().operators}
    assert found["operators in onnxruntime"].state == "found"
    assert found["operators in openvino"].reason == "built at first use"
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = {finding.name: finding for finding in examine().operators}
    assert found["operators in onnxruntime"].state == "found"  # it was built when edgekit was installed
    assert found["operators in openvino"].state == "missing"
    assert found["operators in openvino"].hint == "apt-get install g++"
