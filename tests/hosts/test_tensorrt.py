"""The operators in TensorRT, without a GPU: what is launched; records, builder, device code."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hosts.cases import HostCase
from hosts.tensorrt_tools import (
    CASES,
    FLAGS,
    HERE,
    TEXT,
    ZEROS,
    call,
    compile_all,
    problem_of,
    run_case,
    said,
)

from edgekit.errors import CompileError, UnavailableError, UsageError
from edgekit.graph import opset
from edgekit.hosts import flags, tensorrt
from edgekit.hosts.compilers import Platform, compiler
from edgekit.hosts.nvrtc import nvrtc_for
from edgekit.jetpack import JETPACKS

FIELD = ZEROS.nbytes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorrt")


@pytest.fixture(scope="session")
def routines(folder: Path) -> ctypes.CDLL:
    """The routines and records, as the library has them, with the processor as their device."""
    shared = ["driver.cpp", "plugin.cpp", "plugin_v2.cpp"]
    sources = [path for path in tensorrt.host_sources("v2") if path.name not in shared]
    sources += [HERE / "entry_table.cpp", HERE / "routines.cpp"]
    sections = ["-ffunction-sections", "-fdata-sections", "-DEK_PROCESSOR=0"]
    objects = compile_all(folder, sources, *sections)
    path = folder / "routines.so"
    call(["g++", "-shared", *objects, "-Wl,--gc-sections", "-Wl,-z,defs", "-o", str(path)])
    return ctypes.CDLL(str(path))


# What an operator launches, and its workspace: nothing that needs a device.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_routines_launch_what_gives_the_results(case: HostCase, routines: ctypes.CDLL) -> None:
    run_case(case, lambda problem: said(routines.run_problem, ctypes.byref(problem)))


@pytest.mark.parametrize(
    ("operator", "inputs", "half", "attributes", "asked", "bytes_wanted"),
    [
        ("Warp", 2, False, {"order": 1}, ["ek_sample_f32_3d_linear"], 0),
        ("Warp", 2, True, {"order": 3}, ["ek_sample_f16_3d_cubic"], 0),
        ("Compose", 2, False, {}, ["ek_compose_3d"], 0),
        ("Compose", 2, True, {}, ["ek_widen", "ek_widen", "ek_compose_3d", "ek_narrow"], 3 * FIELD),
        ("IntegrateVelocity", 1, False, {"steps": 0}, ["copy"], 0),
        ("IntegrateVelocity", 1, True, {"steps": 0}, ["copy"], 0),
        ("IntegrateVelocity", 1, False, {"steps": 1}, ["ek_compose_3d"], 0),
        ("IntegrateVelocity", 1, False, {"steps": 3}, 3 * ["ek_compose_3d"], FIELD),
        (
            "IntegrateVelocity",
            1,
            True,
            {"steps": 2},
            ["ek_widen", "ek_compose_3d", "ek_compose_3d", "ek_narrow"],
            3 * FIELD,
        ),
        ("JacobianDeterminant", 1, True, {}, ["ek_determinant_f16_3d", "ek_narrow"], FIELD // 3),
        ("NonLocalMeans", 1, False, {"sigma": 1.0}, ["fill", "ek_nlm_pointwise"], 64),
        (
            "Bilateral",
            1,
            False,
            {"sigma_space": 1.0, "sigma_range": 1.0, "radius": 1},
            ["upload", "upload", "ek_bilateral"],
            128,
        ),
    ],
)
def test_what_is_launched_and_its_workspace(
    routines, operator, inputs, half, attributes, asked, bytes_wanted
):
    array = ZEROS.astype(np.float16 if half else np.float32)
    shape = opset.OPERATORS[operator].shape(*inputs * [array.shape])
    output = np.empty(shape, array.dtype)
    problem = problem_of(operator, inputs * (array,), output, attributes)
    good, text = said(routines.run_problem, ctypes.byref(problem))
    assert good and text.split() == [*asked, str(bytes_wanted)], text


def test_every_kernel_of_the_device_code_is_some_operators(routines):
    """Each is launched by a case above."""
    launched: set[str] = set()
    for case in CASES:
        for text in run_case(case, lambda problem: said(routines.run_problem, ctypes.byref(problem))):
            launched.update(word for word in text.split() if word.startswith("ek_"))
    assert sorted(launched) == entry_names()


def entry_names() -> list[str]:
    return sorted(re.findall(r"X\((ek_\w+),", (tensorrt.FOLDER / "entries.h").read_text()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": {"order": 2}}, "order must be 0, 1 or 3"),
        ({"attributes": {"boundary": "odd"}}, "boundary must be"),
        ({"output": np.empty((1, 3, 4, 5, 63), np.float32)}, "the output must be"),
        ({"feed": (ZEROS, ZEROS[:, :2].copy())}, "flow_vox must have 3 components"),
    ],
)
def test_routines_refuse(routines, change, message):
    feed = change.get("feed", (ZEROS, ZEROS))
    output = change.get("output", np.empty_like(ZEROS))
    problem = problem_of("Warp", feed, output, change.get("attributes", {}))
    good, text = said(routines.run_problem, ctypes.byref(problem))
    assert not good and text.startswith("Warp: ") and message in text


def test_an_output_may_not_be_an_input(routines):
    array = ZEROS.copy()
    good, text = said(routines.run_problem, ctypes.byref(problem_of("Warp", (array, ZEROS), array, {})))
    assert not good and "overlaps" in text


@pytest.mark.parametrize("operator", opset.OPERATORS.values(), ids=lambda operator: operator.name)
@pytest.mark.parametrize("rank", [3, 4, 5, 6])
def test_axes_of_the_output_are_those_of_the_table(routines, operator, rank):
    ranks = (ctypes.c_int * 2)(rank, rank)
    good, text = said(routines.output_axes_of, operator.name.encode(), ranks)
    assert bool(good) == (rank in operator.ranks), text
    if good:
        axes = [tuple(map(int, axis.split("."))) for axis in text.split()]
        # Lengths that say where they are from, where the operator's rule does not want two of them alike.
        lengths = [[(i, axis) for axis in range(rank)] for i in range(len(operator.inputs))]
        same = {(1, 0): (0, 0)}
        if operator.name in ("Warp", "Compose"):
            same |= {(1, axis): (0, axis) for axis in range(2, rank)}
        wanted = [same.get(axis, axis) for axis in operator.shape(*lengths)]
        assert [same.get(axis, axis) for axis in axes] == wanted


# Records of plans.


def record_of(routines: ctypes.CDLL, operator: str, attributes: dict[str, object]) -> bytes:
    problem = problem_of(operator, (), np.empty(0, np.float32), attributes)
    data = ctypes.create_string_buffer(TEXT)
    size = routines.write_record_of(ctypes.byref(problem), data, TEXT)
    return data.raw[:size]


def read_record(routines: ctypes.CDLL, operator: str, data: bytes) -> tuple[int, str]:
    return said(routines.read_record_of, operator.encode(), data, len(data))


SAID = {
    "Warp": {"order": 3, "boundary": "wrap"},
    "Compose": {"boundary": "zero"},
    "IntegrateVelocity": {"steps": 32, "boundary": "mirror"},
    "GridSample3d": {"mode": "cubic", "padding_mode": "reflection", "align_corners": 1},
    "JacobianDeterminant": {},
    "NonLocalMeans": {"sigma": 0.25, "method": "blockwise", "noise": "rician"},
    "Bilateral": {"sigma_space": 1.5, "sigma_range": 0.5, "radius": 4},
}


@pytest.mark.parametrize("operator", opset.OPERATORS)
def test_a_record_is_read_back_and_any_other_bytes_are_refused(routines, operator):
    record = record_of(routines, operator, SAID[operator])
    assert read_record(routines, operator, record) == (1, "")
    for size in range(len(record)):
        assert not read_record(routines, operator, record[:size])[0]
    assert "too long" in read_record(routines, operator, record + b"\0")[1]
    for other in set(opset.OPERATORS) - {operator}:
        assert "another operator" in read_record(routines, other, record)[1]
    rng = np.random.default_rng(5)
    for _ in range(500):
        changed = bytearray(record)
        changed[rng.integers(len(record))] = rng.integers(256)
        good, text = read_record(routines, operator, bytes(changed))
        assert good or text  # what is taken is another record, and the same when it is written again


def test_a_record_of_a_value_that_there_is_not_is_refused(routines):
    record = record_of(routines, "IntegrateVelocity", {"steps": 33, "boundary": "edge"})
    assert "steps must be 0 to 32" in read_record(routines, "IntegrateVelocity", record)[1]
    record = record_of(routines, "Warp", {"boundary": "edgy"})
    assert "boundary must be" in read_record(routines, "Warp", record)[1]


# The builder's rules, as data.


def test_versions_and_their_interface():
    wanted = {"8.5.3": "v2", "8.6": "v2", "10.0": "v3", "10.3.0": "v3", "10.16": "v3", "11.4": "v3"}
    assert {version: tensorrt.plugin_api(version) for version in wanted} == wanted
    for version in ("8.4", "7.1", "9.3", "", "x"):
        with pytest.raises(UsageError, match=r"want 8\.5, 8\.6, or 10\.0"):
            tensorrt.plugin_api(version)


def test_boards_are_what_jetpacks_ship():
    jetpacks = {
        name: (board.platform.glibc, board.tensorrt, board.cuda, board.archs)
        for name, board in tensorrt.BOARDS.items()
        if name.startswith("jetpack")
    }
    assert jetpacks == {
        "jetpack-5": ("2.31", "8.5", "11.4", ("72", "87")),
        "jetpack-6.0": ("2.35", "8.6", "12.2", ("87",)),
        "jetpack-6": ("2.35", "10.3", "12.6", ("87",)),
        "jetpack-7": ("2.39", "10.13", "13.0", ("87", "110")),
    }
    for version, jetpack in JETPACKS.items():
        board = tensorrt.board_for(version)
        assert board.platform.glibc == jetpack.glibc and jetpack.tensorrt.startswith(
            board.tensorrt.split(".")[0]
        )
        assert board.cuda.split(".")[0] == jetpack.cuda.split(".")[0]
    assert tensorrt.board_for("6.2.1") is tensorrt.BOARDS["jetpack-6"]
    assert all(not board.ptx or board.ptx in board.archs for board in tensorrt.BOARDS.values())


def test_commands_say_what_matters(tmp_path):
    board = tensorrt.BOARDS["jetpack-7"]
    command = tensorrt.nvcc_command("nvcc", board, tmp_path / "x")
    assert "-fmad=false" in command and "-fatbin" in command
    assert [flag for flag in command if flag.startswith("-gencode")] == [
        "-gencode=arch=compute_87,code=sm_87",
        "-gencode=arch=compute_110,code=sm_110",
        "-gencode=arch=compute_87,code=compute_87",
    ]
    assert {"-fmad=false", "-arch=sm_72"} <= set(tensorrt.nvrtc_options("72"))
    headers = tensorrt.Headers(Path("trt"), "10.3", "v3")
    compiled = tensorrt.compile_command(["c++"], headers, Path("cuda"), Path("a.cpp"), Path("a.o"))
    assert {"-DEK_PROCESSOR=0", "-fvisibility=hidden", "-isystemtrt", "-isystemcuda"} <= set(compiled)
    linked = tensorrt.link_command(compiler(Platform.here()), [Path("a.o")], tmp_path, Path("a.so"))
    assert "-Wl,-z,defs" in linked and not [word for word in linked if "nvinfer" in word or "cuda" in word]


def test_each_interface_has_its_sources():
    v2, v3 = ({path.name for path in tensorrt.host_sources(api)} for api in ("v2", "v3"))
    assert v2 - v3 == {"plugin_v2.cpp", "record.cpp"} and v3 - v2 == {"plugin_v3.cpp"}
    assert {"routine.cpp", "driver.cpp", "plugin.cpp", "operators.cpp"} <= v2 & v3


def test_headers_are_found_or_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt, "_SITES", (str(tmp_path / "nowhere"),))
    monkeypatch.delenv(tensorrt.VARIABLE, raising=False)
    with pytest.raises(UnavailableError, match="no TensorRT headers") as caught:
        tensorrt.find_headers()
    assert caught.value.hint.startswith("TENSORRT_INCLUDE=")
    monkeypatch.setenv(tensorrt.VARIABLE, str(tmp_path))
    (tmp_path / "NvInfer.h").touch()
    versions = tmp_path / "NvInferVersion.h"
    versions.write_text("#define NV_TENSORRT_MAJOR 8 //!< x\n#define NV_TENSORRT_MINOR 5 //!< y\n")
    assert tensorrt.find_headers() == tensorrt.Headers(tmp_path, "8.5", "v2")
    versions.write_text(
        "#define TRT_MAJOR_ENTERPRISE 10\n#define TRT_MINOR_ENTERPRISE 13\n"
        "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n"
    )
    assert tensorrt.find_headers() == tensorrt.Headers(tmp_path, "10.13", "v3")
    with pytest.raises(UsageError, match=r"headers: want those of TensorRT 8.5, got 10.13"):
        tensorrt.build_library(tensorrt.BOARDS["jetpack-5"], tensorrt.find_headers(), tmp_path / "x.so")
    assert tensorrt.main(["--board", "jetpack-5"]) == UsageError.exit_code


def test_nvrtc_is_asked_for_with_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_NVRTC", str(tmp_path / "libnvrtc.so.12"))
    with pytest.raises(UnavailableError) as caught:
        nvrtc_for("12.6")
    assert caught.value.hint == "pip install 'nvidia-cuda-nvrtc-cu12==12.6.*'"


# Device code.


@pytest.fixture(scope="session")
def nvcc() -> str:
    found = flags.nvcc()
    if not found:
        pytest.skip("no nvcc (GPU toolchain)")
    return found


def test_nvcc_compiles_the_device_code_with_the_arguments_of_the_host(nvcc, folder, routines):
    command = tensorrt.nvcc_command(nvcc, tensorrt.BOARDS["jetpack-7"], folder / "device.ptx")
    kept = [word for word in command if not word.startswith("-gencode") and word != "-fatbin"]
    call([*kept, "-arch=compute_87", "-ptx"])
    code = (folder / "device.ptx").read_text()
    check_ptx(code, routines)
    assert "fma.rn.f32" not in code and "mad.f32" not in code  # not contracted: the bits of the processor


def check_ptx(code: str, routines: ctypes.CDLL) -> None:
    """Every kernel is there, and takes as many bytes as the host passes, then two words."""
    sizes = dict(re.findall(r"\.param \.align 8 \.b8 (\w+)_param_0\[(\d+)\]", code))
    assert sorted(sizes) == entry_names()
    for name, size in sizes.items():
        assert routines.entry_bytes(name.encode()) == int(size), name
        assert f".param .u32 {name}_param_2" in code and f"{name}_param_3" not in code


def test_nvcc_spills_nothing(nvcc, folder):
    command = tensorrt.nvcc_command(nvcc, tensorrt.BOARDS["jetpack-7"], folder / "device.fatbin")
    done = subprocess.run([*command, "-Xptxas=-v"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count = len(entry_names()) * len(tensorrt.BOARDS["jetpack-7"].archs)
    assert done.stderr.count("0 bytes spill stores, 0 bytes spill loads") == count
    assert max(map(int, re.findall(r"Used (\d+) registers", done.stderr))) <= 128
    assert (folder / "device.fatbin").stat().st_size > 100_000


@pytest.mark.parametrize("board", ["jetpack-5", "jetpack-6"])
def test_nvrtc_compiles_the_device_code(board, folder, routines):
    try:
        compiler = nvrtc_for(tensorrt.BOARDS[board].cuda)
    except UnavailableError as error:
        pytest.skip(f"no NVRTC (GPU toolchain): {error.hint}")
    place = folder / board
    place.mkdir()
    images = tensorrt.device_images(tensorrt.BOARDS[board], place)
    machine_code = [image for image in images if image.suffix == ".cubin"]
    assert [image.stem for image in machine_code] == [f"device_{a}" for a in tensorrt.BOARDS[board].archs]
    for image in machine_code:
        data = image.read_bytes()
        assert data[:4] == b"\x7fELF" and all(name.encode() in data for name in entry_names())
    exact = ".".join(map(str, compiler.version)) == tensorrt.BOARDS[board].cuda
    ptx = [image for image in images if image.suffix == ".ptx"]
    assert len(ptx) == (exact and tensorrt.BOARDS[board].ptx != "")
    for image in ptx:
        assert image.read_bytes().endswith(b"\0")  # the driver has no other way to know its end
        check_ptx(image.read_text(), routines)


def test_nvrtc_says_what_does_not_compile(folder):
    try:
        compiler = nvrtc_for("12.6")
    except UnavailableError as error:
        pytest.skip(f"no NVRTC (GPU toolchain): {error.hint}")
    with pytest.raises(CompileError, match=r"NVRTC 12\.\d+ failed: .*1.: error: "):
        compiler.compile("oops", ["-arch=sm_87"], {})


def test_the_statement_of_the_driver_is_that_of_its_header():
    try:
        header = tensorrt.find_cuda_headers() / "cuda.h"
    except UnavailableError as error:
        pytest.skip(f"no CUDA headers (GPU toolchain): {error.hint}")
    if not header.is_file():
        pytest.skip(f"no cuda.h (GPU toolchain) in {header.parent}")
    call(["g++", *FLAGS, f"-isystem{header.parent}", "-fsyntax-only", str(HERE / "driver_abi.cpp")])
