"""The operators in ONNX Runtime: the table of cases, whose threads, what is copied, what is refused."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hosts.cases import HostCase, cases
from hosts.probes import last_call, warp_feeds, workers
from hosts.vectors import Vector, vectors

from edgekit.backends.base import as_file
from edgekit.hosts import build, flags

CASES = list(cases())
LIBRARY = build.library(build.ONNXRUNTIME)
HEADERS = os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime")


def open_session(model: bytes, threads: int = 2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(LIBRARY))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def warp(size: tuple[int, int, int], **attributes: object) -> HostCase:
    return HostCase("warp", "Warp", (warp_feeds(size),), attributes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cases(case: HostCase) -> None:
    session = open_session(case.model())
    names = [value.name for value in session.get_inputs()]
    for feed, expected in zip(case.feeds, case.expected(), strict=True):
        (got,) = session.run(None, dict(zip(names, feed, strict=True)))
        case.check(got, expected)


def test_shapes_are_known_before_it_runs() -> None:
    session = open_session(warp((4, 5, 6)).model())
    assert session.get_outputs()[0].shape == [1, 1, 4, 5, 6]


def test_nothing_is_copied() -> None:
    case = warp((5, 6, 7))
    session = open_session(case.model())
    image, flow = case.feeds[0]
    out = np.empty_like(image)
    binding = session.io_binding()
    for name, array in (("image", image), ("flow_vox", flow)):
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    binding.bind_output("out", "cpu", 0, np.float32, out.shape, out.ctypes.data)
    session.run_with_iobinding(binding)
    assert last_call(LIBRARY, 2) == [image.ctypes.data, flow.ctypes.data, out.ctypes.data]
    case.check(out, case.expected()[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_session_lends_its_threads(threads: int) -> None:
    case = warp((64, 64, 64))
    session = open_session(case.model(), threads)
    feeds = dict(zip(("image", "flow_vox"), case.feeds[0], strict=True))
    assert workers(lambda: session.run(None, feeds)) == threads


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"boundary": "foo"},
            "Warp: boundary must be 'zero', 'edge', 'mirror', 'reflect' or 'wrap', got 'foo'",
        ),
        ({"order": 2}, "Warp: order must be 0, 1 or 3, got 2"),
        ({"order": "1"}, "Warp: attribute order: "),
    ],
)
def test_values_that_there_are_not(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(Exception, match=message):
        open_session(warp((4, 5, 6), **attributes).model())


def test_an_attribute_that_is_missing() -> None:
    case = HostCase("x", "NonLocalMeans", ((np.zeros((1, 1, 5, 6), np.float32),),))
    with pytest.raises(Exception, match="NonLocalMeans: attribute sigma is missing"):
        open_session(case.model())


def test_arrays_that_do_not_fit() -> None:
    case = HostCase("x", "Warp", (warp_feeds((4, 5, 6)),), dynamic=True)
    image, flow = case.feeds[0]
    session = open_session(case.model())
    with pytest.raises(Exception, match="Warp: image and flow_vox differ in batch or grid"):
        session.run(None, {"image": image[:, :, :3], "flow_vox": flow})


def test_our_statement_of_the_interface_is_the_header_s() -> None:
    if not Path(HEADERS, "onnxruntime_c_api.h").exists():
        pytest.skip("no header of ONNX Runtime: apt-get install libonnxruntime-dev, ONNXRUNTIME_INCLUDE=DIR")
    source = Path(__file__).with_name("onnxruntime_abi.cpp")
    subprocess.run(
        ["g++", *flags.flags_for(source), "-Werror", f"-isystem{HEADERS}", "-fsyntax-only", str(source)],
        check=True,
    )


@pytest.mark.parametrize(
    "vector", [v for v in vectors() if v.volumetric], ids=lambda vector: vector.name.removeprefix("test_")
)
def test_onnx_s_own_examples(vector: Vector) -> None:
    session = open_session(vector.as_ours().SerializeToString())
    names = [value.name for value in session.get_inputs()]
    (got,) = session.run(None, dict(zip(names, vector.feeds, strict=True)))
    vector.check(got)


def test_threads_that_open_bundles_get_one_file_of_one_library() -> None:
    content = LIBRARY.read_bytes()
    as_file("another.so", content)
    with ThreadPoolExecutor(8) as threads:
        (path,) = set(threads.map(lambda _: as_file("same.so", content), range(32)))
    assert path.read_bytes() == content
