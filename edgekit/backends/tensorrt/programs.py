"""The build plan for teams that want no Python on the device: a line of ``trtexec`` and a C++ program."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from edgekit.backends.tensorrt import versions
from edgekit.backends.tensorrt.plan import BuildPlan, Profile
from edgekit.errors import UnsupportedError

CPP = "build.cpp"
SHELL = "build.sh"
ENGINE = "model.engine"
LAYERS = "layers.json"

_SOURCE = Path(__file__).with_name(CPP)
_MIB = 1 << 20


def trtexec(plan: BuildPlan) -> list[str]:
    """The command that builds the engine and stops, in the words of the plan's version.

    ``trtexec`` has no limit for the memory that tactics use while they are timed.

    Raises:
        UnsupportedError: That version's ``trtexec`` cannot do what the plan says.
    """
    version = plan.version
    abilities = versions.abilities(version)
    if plan.plugins and not abilities.loads_libraries:
        raise UnsupportedError(
            f"trtexec of TensorRT {plan.tensorrt} does not load libraries of plug-ins like {plan.plugins}",
            where=SHELL,
            hint=f"build with {CPP}, which does",
        )
    words = ["trtexec", f"--onnx={plan.model}", f"--saveEngine={ENGINE}"]
    words.append("--buildOnly" if version < (8, 6) else "--skipInference")
    if plan.strongly_typed:
        if version < (11, 0):
            words.append("--stronglyTyped")
    else:
        words += _precisions(plan)
    words += _options(plan)
    if abilities.optimization_level:
        words += [
            f"--builderOptimizationLevel={plan.optimization_level}",
            f"--maxAuxStreams={plan.max_aux_streams}",
        ]
    if plan.pinned:
        words.append("--errorOnTimingCacheMiss")
    if "DISTRIBUTIVE_INDEPENDENCE" in plan.flags:
        words.append("--distributiveIndependence")
    if plan.plugins:
        words.append(f"--dynamicPlugins={plan.plugins}")
    words += _shapes(plan)
    return [*words, "--profilingVerbosity=detailed", f"--exportLayerInfo={LAYERS}"]


def _precisions(plan: BuildPlan) -> list[str]:
    """What a weakly typed network may compute in."""
    words = [word for flag, word in (("FP16", "--fp16"), ("INT8", "--int8")) if flag in plan.flags]
    if plan.calibration:
        words.append(f"--calib={plan.calibration}")
    if plan.layer_precisions:
        layers = ",".join(f"{name}:{precision}" for name, precision in plan.layer_precisions.items())
        words += ["--precisionConstraints=obey", f"--layerPrecisions={layers}"]
    return words


def _options(plan: BuildPlan) -> list[str]:
    words = [] if "TF32" in plan.flags else ["--noTF32"]
    pools = {"workspace": plan.workspace_bytes / _MIB}
    if plan.dla:
        words += [f"--useDLACore={plan.dla.core}"]
        if "GPU_FALLBACK" in plan.flags:
            words.append("--allowGPUFallback")
        pools |= {
            "dlaSRAM": plan.dla.sram_bytes / _MIB,
            "dlaLocalDRAM": plan.dla.local_dram_bytes / _MIB,
            "dlaGlobalDRAM": plan.dla.global_dram_bytes / _MIB,
        }
    words.append("--memPoolSize=" + ",".join(f"{name}:{size:g}" for name, size in pools.items()))
    return [*words, f"--avgTiming={plan.avg_timing_iterations}", f"--timingCacheFile={plan.timing_cache}"]


def _shapes(plan: BuildPlan) -> list[str]:
    """Shapes of inputs that vary; scales are applied at those of the first profile."""
    if not plan.profiles:
        return []

    def spelled(shape: Callable[[Profile], Iterable[int]]) -> str:
        return ",".join(f"{one.input}:{'x'.join(map(str, shape(one)))}" for one in plan.profiles)

    kinds: tuple[tuple[str, Callable[[Profile], Iterable[int]]], ...] = (
        ("min", lambda one: one.min),
        ("opt", lambda one: one.opt),
        ("max", lambda one: one.max),
    )
    words = [f"--{kind}Shapes={spelled(shape)}" for kind, shape in kinds]
    if plan.calibration:
        words.append(f"--optShapesCalib={spelled(lambda one: one.opt)}")
    return words


def shell(plan: BuildPlan) -> str:
    """``build.sh``: builds the engine by ``trtexec``, or by the C++ program where ``trtexec`` cannot."""
    head = (
        "#!/bin/sh\n"
        f"# Builds {ENGINE} with TensorRT {plan.tensorrt} on {plan.target} (compute capability "
        f"{plan.compute_capability}).\n# An engine is for the very machine that builds it.\n"
        'set -eu\ncd "$(dirname "$0")"\n'
    )
    try:
        words = " \\\n  ".join(map(shlex.quote, trtexec(plan)))
        # JetPack keeps it outside of the path.
        body = f'PATH="$PATH:/usr/src/tensorrt/bin"\n{words}\n'
    except UnsupportedError as error:
        body = (
            f"# {error.message}.\n"
            'CUDA="${CUDA_HOME:-/usr/local/cuda}"\n'
            f'c++ -O2 -std=c++17 {CPP} -I"$CUDA/include" -L"$CUDA/lib64" '
            f"-lnvinfer -lnvonnxparser -lcudart -ldl -o build\n./build {ENGINE}\n"
        )
    return head + body


def cpp(plan: BuildPlan) -> str:
    """``build.cpp``: a program that builds the engine, with TensorRT 8.5 and later."""
    flags = "".join(f"  config.setFlag(nvinfer1::BuilderFlag::k{flag});\n" for flag in plan.flags)
    dla = plan.dla
    constants = f"""// Made by edgekit for {plan.target}, TensorRT {plan.tensorrt}. On the device:
//   c++ -O2 -std=c++17 {CPP} -I/usr/local/cuda/include -L/usr/local/cuda/lib64
//     -lnvinfer -lnvonnxparser -lcudart -ldl -o build
//   ./build {ENGINE}
#include <NvInfer.h>

#include <array>
#include <cstdint>
#include <vector>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // weak typing, in 10 the last time

namespace plan {{

constexpr int kMajor = {plan.version[0]}, kMinor = {plan.version[1]};
constexpr bool kStronglyTyped = {_bool(plan.strongly_typed)};
constexpr const char* kModel = {_text(plan.model)};
constexpr const char* kPlugins = {_text(plan.plugins)};
constexpr const char* kCalibration = {_text(plan.calibration)};
constexpr const char* kTimingCache = {_text(plan.timing_cache)};
constexpr std::size_t kWorkspaceBytes = {plan.workspace_bytes}u, kTacticBytes = {plan.tactic_dram_bytes}u;
constexpr int kOptimizationLevel = {plan.optimization_level};
constexpr int kAvgTimingIterations = {plan.avg_timing_iterations}, kMaxAuxStreams = {plan.max_aux_streams};
constexpr int kDlaCore = {dla.core if dla else -1};
constexpr std::size_t kDlaSram = {dla.sram_bytes if dla else 0}u;
constexpr std::size_t kDlaLocal = {dla.local_dram_bytes if dla else 0}u;
constexpr std::size_t kDlaGlobal = {dla.global_dram_bytes if dla else 0}u;

struct Profile {{
  const char* input;
  std::vector<std::int64_t> min, opt, max;
}};
inline const std::vector<Profile> kProfiles = {{{", ".join(map(_profile, plan.profiles))}}};

// Layers that must compute in float32 in a weakly typed network.
inline const std::vector<const char*> kSingleLayers = {{{", ".join(map(_text, plan.layer_precisions))}}};

inline void set_flags(nvinfer1::IBuilderConfig& config) {{
  config.clearFlag(nvinfer1::BuilderFlag::kTF32);  // it is on by default
{flags}{"  config.setFlag(nvinfer1::BuilderFlag::kERROR_ON_TIMING_CACHE_MISS);" if plan.pinned else ""}}}

}}  // namespace plan

"""
    return constants + _SOURCE.read_text(encoding="utf-8")


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _text(value: str) -> str:
    """A literal of C++: what JSON escapes, C++ reads in the same way."""
    return json.dumps(value, ensure_ascii=False)


def _profile(one: Profile) -> str:
    shapes = ", ".join("{" + ", ".join(map(str, shape)) + "}" for shape in (one.min, one.opt, one.max))
    return f"{{{_text(one.input)}, {shapes}}}"
