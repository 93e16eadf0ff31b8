"""The plan as programs: lines of trtexec for each version, and C++ that compiles with TensorRT's headers."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from sample_engines import orin

from edgekit import target as targets
from edgekit.backends.tensorrt import plan, programs
from edgekit.backends.tensorrt.plan import BuildPlan
from edgekit.errors import UnavailableError, UnsupportedError
from edgekit.hosts import tensorrt as host
from edgekit.spec import Dim, TensorSpec

VOLUME = TensorSpec("ct", "float32", (1, 1, Dim(32, 96, 16), 96, 96), "NCDHW")
FIXED = TensorSpec("ct", "float32", (1, 1, 64, 64), "NCHW")
INCLUDES = [Path(path) for path in os.environ.get(host.VARIABLE, "").split(os.pathsep) if path]


def strong(version: str, **changes: object) -> BuildPlan:
    return plan.make(orin(version), (VOLUME,), strongly_typed=True, **changes)


def calibrated(version: str, **changes: object) -> BuildPlan:
    return plan.make(
        orin(version),
        (VOLUME,),
        strongly_typed=False,
        precisions=frozenset({"float16", "int8"}),
        calibration=plan.CALIBRATION,
        layer_precisions={'say "aah"/norm': "fp32"},
        **changes,
    )


def words(one: BuildPlan) -> set[str]:
    return set(programs.trtexec(one))


SHAPES = {"--minShapes=ct:1x1x32x96x96", "--optShapes=ct:1x1x64x96x96", "--maxShapes=ct:1x1x96x96x96"}
EVERYWHERE = {
    "--onnx=model.onnx",
    "--saveEngine=model.engine",
    "--memPoolSize=workspace:1024",
    "--avgTiming=8",
    "--timingCacheFile=timing.cache",
    "--profilingVerbosity=detailed",
    "--exportLayerInfo=layers.json",
    "trtexec",
    *SHAPES,
}
LEVEL = {"--builderOptimizationLevel=3", "--maxAuxStreams=0"}
WEAK = {
    "--fp16",
    "--int8",
    "--calib=calibration.cache",
    "--precisionConstraints=obey",
    '--layerPrecisions=say "aah"/norm:fp32',
    "--optShapesCalib=ct:1x1x64x96x96",
}


def test_the_words_of_each_version():
    assert words(calibrated("8.5.2")) == EVERYWHERE | WEAK | {"--buildOnly"}
    assert words(calibrated("8.6.2")) == EVERYWHERE | WEAK | LEVEL | {"--skipInference"}
    known = EVERYWHERE | LEVEL | {"--skipInference"}
    assert words(strong("10.3")) == known | {"--stronglyTyped"}
    assert words(strong("10.16.2")) == known | {"--stronglyTyped", "--distributiveIndependence"}
    assert words(strong("11.1")) == known | {"--distributiveIndependence"}
    assert words(replace(strong("10.3"), pinned=True)) >= {"--errorOnTimingCacheMiss"}
    assert words(strong("10.3", tf32=False)) >= {"--noTF32"}


def test_plug_ins_are_loaded_by_trtexec_or_by_the_program():
    assert words(strong("10.3", plugins=host.FILE)) >= {f"--dynamicPlugins={host.FILE}"}
    with pytest.raises(UnsupportedError, match="does not load libraries of plug-ins"):
        programs.trtexec(calibrated("8.5.2", plugins=host.FILE))
    script = programs.shell(calibrated("8.5.2", plugins=host.FILE))
    assert "trtexec" in script and "\nc++ " in script and "./build model.engine" in script


def test_an_accelerator_has_its_own_memory():
    device = targets.with_jetpack(targets.find("jetson-agx-orin-64gb"), "6.2")
    made = plan.make(device, (FIXED,), strongly_typed=False, dla_core=1)
    assert words(made) >= {"--useDLACore=1", "--allowGPUFallback"}
    (pools,) = [word for word in words(made) if word.startswith("--memPoolSize")]
    assert pools == "--memPoolSize=workspace:8192,dlaSRAM:1,dlaLocalDRAM:1024,dlaGlobalDRAM:512"


@pytest.mark.parametrize(
    "made", [calibrated("8.6.2"), strong("10.3"), calibrated("8.5.2", plugins=host.FILE)]
)
def test_the_script_is_a_script(made, tmp_path):
    (tmp_path / programs.SHELL).write_text(programs.shell(made))
    done = subprocess.run(["sh", "-n", programs.SHELL], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # In place of trtexec and of the compiler: what they are given.
    (tmp_path / "bin").mkdir()
    for name in ("trtexec", "c++"):
        stand_in = tmp_path / "bin" / name
        stand_in.write_text(
            '#!/bin/sh\nfor word; do echo "$word"; done > given\n'
            'printf "#!/bin/sh\\n" > build\nchmod +x build\n'
        )
        stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(tmp_path / programs.SHELL)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    given = (tmp_path / "given").read_text().splitlines()
    assert given == programs.trtexec(made)[1:] if not made.plugins else "build.cpp" in given


@pytest.mark.parametrize("include", INCLUDES or [None], ids=lambda path: path and path.parent.name)
def test_the_program_compiles_with_the_headers(include, tmp_path):
    if include is None:
        pytest.skip(f"no TensorRT headers: set {host.VARIABLE}")
    if not (include / "NvOnnxParser.h").is_file():
        pytest.skip(f"no header of TensorRT's parser (NvOnnxParser.h) in {include}")
    try:
        cuda = host.find_cuda_headers()
    except UnavailableError as error:
        pytest.skip(f"no CUDA headers (GPU toolchain): {error.hint}")
    version = host.find_headers(include).version
    plans = [strong(version, plugins=host.FILE)] if not version.startswith("8") else []
    plans += [calibrated(version, plugins=host.FILE)] if not version.startswith("11") else []
    for number, made in enumerate(plans):
        source = tmp_path / f"build{number}.cpp"
        source.write_text(programs.cpp(made))
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        command = ["g++", *flags, f"-isystem{include}", f"-isystem{cuda}", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]


def test_the_program_says_what_the_plan_says():
    source = programs.cpp(calibrated("8.6.2", plugins=host.FILE))
    for line in (
        'constexpr const char* kPlugins = "libedgekit_tensorrt.so";',
        'constexpr const char* kCalibration = "calibration.cache";',
        "constexpr bool kStronglyTyped = false;",
        "constexpr std::size_t kWorkspaceBytes = 1073741824u, kTacticBytes = 4294967296u;",
        '{{"ct", {1, 1, 32, 96, 96}, {1, 1, 64, 96, 96}, {1, 1, 96, 96, 96}}};',
        '{"say \\"aah\\"/norm"};',
        "config.setFlag(nvinfer1::BuilderFlag::kFP16);",
        "config.setFlag(nvinfer1::BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);",
    ):
        assert line in source, line
