"""The plug-ins of TensorRT, of every version whose headers are given, without a GPU.

``TENSORRT_INCLUDE`` names folders of headers, separated as in PATH; ``TENSORRT_LIBRARIES`` names libraries of
TensorRT, whose registries take the plug-ins. The driver is a library of ours: kernels run on the processor.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
from hosts.tensorrt_tools import (
    CASES,
    FLAGS,
    HERE,
    ZEROS,
    Problem,
    call,
    compile_all,
    problem_of,
    run_case,
    said,
)

from edgekit.errors import MismatchError
from edgekit.graph import opset
from edgekit.hosts import elf, tensorrt
from edgekit.hosts.compilers import FLOOR, ZIG, Platform, number

INCLUDES = [Path(path) for path in os.environ.get(tensorrt.VARIABLE, "").split(os.pathsep) if path]
NO_HEADERS = f"no TensorRT headers: set {tensorrt.VARIABLE}"
LIBRARIES = [path for path in os.environ.get("TENSORRT_LIBRARIES", "").split(os.pathsep) if path]
NO_LIBRARY = "no TensorRT library of such a version: set TENSORRT_LIBRARIES to files like libnvinfer.so.8"
NEEDED = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"}
NEEDED |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plugins")


@pytest.fixture(scope="session")
def driver(folder: Path) -> ctypes.CDLL:
    """A driver that runs kernels on the processor: loaded before a plug-in asks for the real one."""
    objects = compile_all(folder, [HERE / "entry_table.cpp", HERE / "fake_driver.cpp"])
    path = folder / "libcuda.so.1"
    call(["g++", "-shared", *objects, "-Wl,-soname,libcuda.so.1", "-o", str(path)])
    library = ctypes.CDLL(str(path))
    library.fake_stream.restype = ctypes.c_void_p
    return library


class Plugin:
    """A library of the plug-ins, and the harness for it."""

    def __init__(self, include: Path, folder: Path) -> None:
        self.headers = tensorrt.find_headers(include)
        fake, foreign = folder / "fake.bin", folder / "foreign.bin"
        fake.write_bytes(b"fake")
        foreign.write_bytes(b"for another GPU")
        board = tensorrt.Board(Platform.here(), self.headers.version, "13.0", ("87",))
        self.path = folder / self.headers.version / tensorrt.FILE
        objects = folder / "objects"
        objects.mkdir(exist_ok=True)
        tensorrt.build_library(board, self.headers, self.path, images=[foreign, fake], objects=objects)
        harness = self.path.with_name("harness.so")
        includes = [f"-isystem{self.headers.folder}", f"-isystem{tensorrt.find_cuda_headers()}"]
        more = [*includes, "-fvisibility=default", "-Wno-deprecated-declarations", "-Werror"]
        call(["g++", *FLAGS, *more, "-shared", str(HERE / "harness.cpp"), "-ldl", "-o", str(harness)])
        self.harness = ctypes.CDLL(str(harness))

    def run(self, problem: Problem, name_space: str = "", wide: bool = False) -> tuple[int, str]:
        arguments = (str(self.path).encode(), ctypes.byref(problem), name_space.encode(), int(wide))
        return said(self.harness.run_plugin, *arguments)


@pytest.fixture(
    scope="session", params=INCLUDES or [None], ids=lambda path: path.name if path else "no headers"
)
def plugin(request: pytest.FixtureRequest, folder: Path, driver: ctypes.CDLL) -> Plugin:
    if request.param is None:
        pytest.skip(NO_HEADERS)
    return Plugin(request.param, folder)


def test_plugins_run_the_table_of_cases(plugin, driver):
    for turn, case in enumerate(CASES):
        name_space = ("", "edgekit")[turn % 2]
        before = driver.fake_launches()
        run_case(
            case,
            lambda problem, space=name_space, wide=turn % 3 == 0: plugin.run(problem, space, wide),
        )
        assert driver.fake_launches() > before or case.attributes.get("steps") == 0
        assert driver.fake_stream() == 0x5EED


def test_creators_have_the_names_and_fields_of_the_table(plugin):
    types = {int: 5, float: 1, str: 6}  # kINT32, kFLOAT32, kCHAR
    good, text = said(plugin.harness.list_creators, str(plugin.path).encode())
    assert good, text
    wanted = []
    for name_space in ("", "edgekit"):
        for operator in opset.OPERATORS.values():
            fields = [
                f" {name}:{types[value if isinstance(value, type) else type(value)]}"
                for name, value in operator.attributes.items()
            ]
            wanted.append(f"'{name_space}' {operator.name} {opset.VERSION}{''.join(fields)}")
    assert text.splitlines() == wanted


@pytest.mark.parametrize(
    ("operator", "attributes", "message"),
    [
        ("Warp", {"order": 2}, "Warp: order must be 0, 1 or 3"),
        ("Warp", {"order": 1.0}, "Warp: order must be an integer"),
        ("Warp", {"boundary": 1}, "Warp: boundary must be a text"),
        ("Warp", {"border": 1}, "Warp: there is no attribute 'border'"),
        ("NonLocalMeans", {}, "NonLocalMeans: the attribute 'sigma' is missing"),
        ("NonLocalMeans", {"sigma": "1"}, "NonLocalMeans: sigma must be float32 or float64"),
    ],
)
def test_plugins_refuse_attributes(plugin, operator, attributes, message, capfd):
    feed = (ZEROS,) * len(opset.OPERATORS[operator].inputs)
    good, text = plugin.run(problem_of(operator, feed, np.empty_like(ZEROS), attributes))
    # 8.5 does not tell a library where its log is.
    assert not good and message in text + capfd.readouterr().err


def test_plugins_refuse_arrays(plugin, capfd):
    feed = (ZEROS, np.zeros((1, 2, 4, 5, 64), np.float32))
    good, text = plugin.run(problem_of("Warp", feed, np.empty_like(ZEROS), {}))
    assert not good and "flow_vox must have 3 components" in text + capfd.readouterr().err


def test_device_code_is_loaded_once_for_each_context(plugin, driver, capfd):
    problem = problem_of("Warp", (ZEROS, ZEROS), np.empty_like(ZEROS), {})
    try:
        driver.fake_context(ctypes.c_ulonglong(1))
        assert plugin.run(problem)[0]
        before = driver.fake_modules()
        assert plugin.run(problem)[0] and driver.fake_modules() == before
        # Another context, where a destroyed one was in memory.
        driver.fake_context(ctypes.c_ulonglong(2))
        assert plugin.run(problem)[0] and driver.fake_modules() == before + 1
        driver.fake_context(ctypes.c_ulonglong(0))
        good, text = plugin.run(problem)
        assert not good and "has no CUDA context" in text + capfd.readouterr().err
    finally:
        driver.fake_context(ctypes.c_ulonglong(1))


def test_the_library_needs_the_c_library_alone(plugin):
    library = elf.read(plugin.path)
    assert set(library.needed) <= NEEDED
    wanted = {"getCreators"} if plugin.headers.api == "v3" else {"edgekit_trt_register"}
    wanted |= {"getPluginCreators"} if plugin.headers.version == "8.6" else set()
    wanted |= set() if plugin.headers.version == "8.5" else {"setLoggerFinder"}
    assert set(library.exported) == wanted


# Cross-compiled, for the systems of Jetsons.


# One of each interface: what loads on the older system of them loads on any.
@pytest.mark.parametrize("board", ["jetpack-5", "jetpack-6"])
def test_a_jetson_can_load_the_library(board, folder, tmp_path):
    known = tensorrt.BOARDS[board]
    found = {tensorrt.find_headers(path).api: path for path in INCLUDES}
    api = tensorrt.plugin_api(known.tensorrt)
    if api not in found:
        pytest.skip(NO_HEADERS)
    image = tmp_path / "image.bin"
    image.write_bytes(b"none")
    objects, headers = folder / "aarch64", tensorrt.find_headers(found[api])
    objects.mkdir(exist_ok=True)
    try:
        tensorrt.build_library(known, headers, tmp_path / "x.so", images=[image], objects=objects)
    except MismatchError as error:
        # What a compiler without the symbols of older systems can do about it.
        assert ZIG.missing() and "edgekit[cross]" in error.hint
        return
    library = elf.read(tmp_path / "x.so")
    assert library.arch == "aarch64" and set(library.needed) <= NEEDED
    limit = known.platform.glibc if ZIG.missing() else FLOOR
    assert number(library.newest()) <= number(limit)


# Registries of TensorRT itself.


def test_a_real_registry_takes_the_plugins(plugin):
    """The program has headers of the library's own version: registries of two versions are two interfaces."""
    ran = False
    for include in INCLUDES:
        header = tensorrt.find_headers(include)
        if header.api != plugin.headers.api:
            continue
        program = plugin.path.with_name(f"registry-{header.version}")
        includes = [f"-isystem{header.folder}", f"-isystem{tensorrt.find_cuda_headers()}"]
        more = ["-Wno-deprecated-declarations", "-ldl", "-o", str(program)]
        call(["g++", *FLAGS, *includes, str(HERE / "registry.cpp"), *more])
        for library in LIBRARIES:
            lines = call([str(program), library, str(plugin.path)]).splitlines()
            if lines == ["other headers"]:
                continue
            wanted = [
                f"'{space}' {name} {'unknown' if space == 'elsewhere' else 'made'}"
                for space in ("", "edgekit", "elsewhere")
                for name in opset.OPERATORS
            ]
            if plugin.headers.api == "v2":
                wanted.insert(0, f"{0 if header.version == '8.6' else 2 * len(opset.OPERATORS)} taken")
            assert lines == wanted
            ran = True
    if not ran:
        pytest.skip(NO_LIBRARY)
