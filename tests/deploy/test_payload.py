"""What is packed for a device: edgekit without what compiles, the right wheels, the same bytes each time."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgekit.deploy import payload
from edgekit.deploy.payload import Kind, make, wheels_for
from edgekit.errors import UnavailableError
from edgekit.hosts.compilers import Platform

ORIN = Kind((3, 10), Platform("aarch64", "2.35"))
THOR = Kind((3, 12), Platform("aarch64", "2.39"))


def test_the_wheels_of_a_bundle() -> None:
    built_with = {"onnxruntime": "1.32.0", "numpy": "9.9", "tensorrt": "10.3", "onnx": "1.21"}
    here = wheels_for(["onnxruntime", "tensorrt"], {**built_with, "numpy": "2.2"}, THOR)
    assert {"onnxruntime==1.32.0", "numpy==2.2", "click", "protobuf", "flatbuffers"} <= set(here)
    assert not any(name.startswith(("torch", "onnx=", "tensorrt", "tomli", "openvino")) for name in here)
    assert "tomli" in wheels_for(["onnxruntime"], {}, ORIN)
    tvm = wheels_for(["tvm", "tvm"], {"apache-tvm": "0.27"}, ORIN)
    assert "apache-tvm==0.27" in tvm and len(tvm) == len(set(tvm))
    assert any(name.startswith("apache-tvm-ffi==") for name in tvm)
    # What TensorRT needs comes with JetPack.
    assert wheels_for(["tensorrt"], {}, THOR) == wheels_for([], {}, THOR)


def wheel(folder: Path, name: str, files: dict[str, str], tag: str = "py3-none-any") -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as archive:
        for path, text in {**files, **about}.items():
            archive.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(payload, "_headers", lambda kind: None)
    folder = tmp_path / "wheels"
    wheel(
        folder,
        "ek_vendor",
        {
            "ek_vendor/__init__.py": "x = 1\n",
            "ek_vendor-1.0.data/purelib/ek_more.py": "y = 1\n",
            "ek_vendor-1.0.data/scripts/ek-tool": "#!python\n",
            "ek_vendor-1.0.data/headers/ek.h": "\n",
        },
    )
    wheel(folder, "ek_native", {"ek_native.so": "elf"}, "cp310-cp310-manylinux_2_28_aarch64")
    return folder


def test_an_archive(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    for cache in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        made = make(ORIN, ["ek-vendor==1.0", "ek-native"], kernels=False, folder=wheels)
        packed.append(made)
    assert packed[0].name == packed[1].name and packed[0].read_bytes() == packed[1].read_bytes()
    assert [path.name for path in packed[0].parent.iterdir()] == [packed[0].name]  # nothing half-made
    with zipfile.ZipFile(packed[0]) as archive:
        names = archive.namelist()
    assert {"ek_vendor/__init__.py", "ek_more.py", "ek_native.so", "ek_vendor-1.0.dist-info/METADATA"} <= set(
        names
    )
    assert {"edgekit/runtime.py", "edgekit/cli/run.py", "edgekit/deploy/device.py"} <= set(names)
    assert "edgekit/_targets/jetson-thor-t5000.toml" in names
    left_out = ("edgekit/torch/", "edgekit/zoo/weights/", "edgekit/lib/", "edgekit/_C")
    assert not [
        name for name in names if name.startswith(left_out) or "__pycache__" in name or ".data/" in name
    ]
    assert payload.unpacked_bytes(packed[0]) > packed[0].stat().st_size
    # It is made once; another Python gets another one.
    monkeypatch.setattr(payload, "_download", lambda *arguments: pytest.fail("again"))
    assert make(ORIN, ["ek-vendor==1.0", "ek-native"], kernels=False, folder=wheels) == packed[1]


@pytest.mark.parametrize(
    ("kind", "wanted", "missing"),
    [
        (THOR, "ek-native", "ek-native"),
        (ORIN, "ek-vendor==2.0", "ek-vendor==2.0"),
        (ORIN, "ek-none", "ek-none"),
    ],
)
def test_a_wheel_that_is_not_to_be_had(
    kind: Kind, wanted: str, missing: str, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        UnavailableError, match=f"no wheel for Python {kind.version} on aarch64.*{missing}"
    ) as refused:
        make(kind, [wanted], kernels=False, folder=wheels)
    assert refused.value.exit_code == 4 and "--wheels" in (refused.value.hint or "")
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_steps_want_kernels(wheels: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"want compiled kernels for Python 3\.10 on aarch64"
    ) as refused:
        make(ORIN, [], kernels=True, folder=wheels)
    assert "there is no Python.h of 3.10 here" in refused.value.message
    assert (refused.value.hint or "").startswith("EDGEKIT_PYTHON_INCLUDE=FOLDER")


def test_headers_are_those_of_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Python.h").write_text("")
    text = "#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 10\n#define PY_MICRO_VERSION 2\n"
    (tmp_path / "patchlevel.h").write_text(text)
    monkeypatch.setenv(payload.INCLUDE, str(tmp_path))
    assert payload._headers(ORIN) == tmp_path and payload._headers(THOR) is None
    monkeypatch.setenv(payload.INCLUDE, str(tmp_path / "nowhere"))
    assert payload._headers(ORIN) is None
