"""The operators in OpenVINO: the table of cases, whose threads, what is copied, refused and kept."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import openvino
import pytest
from hosts import openvino_child
from hosts.cases import HostCase, cases
from hosts.openvino_child import CONFIG, grid_sample
from hosts.probes import warp_feeds, workers
from hosts.vectors import Vector, vectors
from onnx import TensorProto, helper, numpy_helper

from edgekit import bundle, runtime, target
from edgekit.backends import BACKENDS
from edgekit.backends import openvino as backend
from edgekit.backends.base import Artifact, ArtifactInfo, Compiled, essential
from edgekit.errors import CompileError, MismatchError, SessionError, UnavailableError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.hosts import build
from edgekit.hosts import openvino as host
from edgekit.spec import TensorSpec

CASES = list(cases())
LABELS = {case.label: case for case in CASES}
DEVICE = target.find("cpu")


@pytest.fixture(scope="module")
def core() -> openvino.Core:
    """The process's Core, with the library of this machine."""
    backend._register(build.library(host.adapter()).read_bytes())
    return backend._core()


def graph_of(case: HostCase) -> Graph:
    operator = opset.OPERATORS[case.operator]
    names = [*operator.inputs, "out"]
    arrays = [*case.feeds[0], case.expected()[0]]
    specs = [TensorSpec(n, a.dtype.name, a.shape) for n, a in zip(names, arrays, strict=True)]
    model = onnx_ir.from_proto(helper.onnx.load_from_string(case.model()))
    return Graph(model, tuple(specs[:-1]), tuple(specs[-1:]))


def feeds_of(case: HostCase) -> dict[str, np.ndarray]:
    return dict(zip(opset.OPERATORS[case.operator].inputs, case.feeds[0], strict=True))


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    case = LABELS["Warp with the defaults"]
    return BACKENDS["openvino"].compile(graph_of(case), DEVICE, sample=feeds_of(case), threads=1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cases(core: openvino.Core, case: HostCase) -> None:
    compiled = core.compile_model(core.read_model(case.model()), "CPU", CONFIG)
    request = compiled.create_infer_request()
    for feed, expected in zip(case.feeds, case.expected(), strict=True):
        case.check(request.infer(list(feed))[0], expected)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.dtype == "float16"], ids=lambda case: case.label
)
def test_float16_where_nothing_widens_it_first(core: openvino.Core, case: HostCase) -> None:
    openvino_child.evaluate(core.read_model(case.model()), case)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs a part of openvino_child.py in a process of its own, which ends with 0 if all holds."""
    folder = tmp_path_factory.mktemp("openvino")

    def run(part: str) -> Path:
        done = subprocess.run(
            [sys.executable, openvino_child.__file__, part, str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return run


@pytest.fixture(scope="module")
def without_us(child: Callable[[str], Path]) -> dict[str, np.ndarray]:
    with np.load(child("stock") / "stock.npz") as results:
        return dict(results)


def test_images_are_sampled_as_without_us(core: openvino.Core, without_us: dict[str, np.ndarray]) -> None:
    jobs = openvino_child.images()
    assert jobs.keys() == without_us.keys() and len(jobs) > 50
    for name, job in jobs.items():
        np.testing.assert_array_equal(openvino_child.run(core, *job), without_us[name], name)


def test_volumes_of_plain_onnx(core: openvino.Core) -> None:
    openvino_child.sample_volumes(core)


def test_the_library_alone_and_every_form_that_openvino_keeps_a_network_in(
    child: Callable[[str], Path],
) -> None:
    child("library")


def test_the_operators_in_python(child: Callable[[str], Path], without_us: dict[str, np.ndarray]) -> None:
    child("in_python")


@pytest.mark.parametrize("vector", list(vectors()), ids=lambda vector: vector.name)
def test_the_examples_of_onnx(core: openvino.Core, vector: Vector) -> None:
    vector.check(openvino_child.run(core, vector.model.SerializeToString(), list(vector.feeds)))
    if vector.volumetric:
        vector.check(openvino_child.run(core, vector.as_ours().SerializeToString(), list(vector.feeds)))


def test_nothing_is_copied(child: Callable[[str], Path]) -> None:
    child("pointers")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_of_the_model(core: openvino.Core, threads: int) -> None:
    case = HostCase("large", "Warp", (warp_feeds((64, 64, 64)),), {"order": 3})
    config = {**CONFIG, "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(core.read_model(case.model()), "CPU", config).create_infer_request()
    assert workers(lambda: request.infer(list(case.feeds[0]))) == threads


def test_constants_are_computed_when_the_model_is_compiled(core: openvino.Core) -> None:
    for dtype in ("float32", "float16"):
        case = next(c for c in CASES if c.operator == "GridSample3d" and c.dtype == dtype)
        model = helper.onnx.load_from_string(case.model())
        for value, array in zip(model.graph.input, case.feeds[0], strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        del model.graph.input[:]
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", CONFIG)
        assert "GridSample3d" not in {op.get_type_name() for op in compiled.get_runtime_model().get_ops()}
        case.check(compiled([])[0], case.expected()[0])


@pytest.mark.parametrize("hint", ["f32", "bf16", "f16"])
def test_operators_run_in_float32_whatever_the_precision_of_their_neighbours(
    core: openvino.Core, hint: str
) -> None:
    """The CPU plugin hands bfloat16 to no operator that it does not know: it converts before and after."""
    case = LABELS["Warp with the defaults"]
    compiled = core.compile_model(core.read_model(case.model()), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    (node,) = (
        op for op in compiled.get_runtime_model().get_ops() if op.get_rt_info()["layerType"] == "Reference"
    )
    assert node.get_rt_info()["runtimePrecision"] == "f32"
    case.check(compiled(list(case.feeds[0]))[0], case.expected()[0])


def test_sessions_compute_in_float32_unasked(compiled: Compiled) -> None:
    session = BACKENDS["openvino"].open(compiled.artifact, threads=1)
    model = session._request.get_compiled_model()
    assert model.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    case = LABELS["Warp with the defaults"]
    case.check(session.run(feeds_of(case))["out"], case.expected()[0])


def test_lengths_that_are_not_known_stay_open(core: openvino.Core) -> None:
    case = next(case for case in CASES if case.operator == "Warp" and case.dynamic)
    model = core.read_model(case.model())
    (channels,) = (case.feeds[0][0].shape[1],)
    assert model.output().get_partial_shape() == openvino.PartialShape([-1, channels, -1, -1, -1])
    model.reshape({1: [2, 3, 4, -1, 6]})
    assert model.output().get_partial_shape() == openvino.PartialShape([2, channels, 4, -1, 6])
    nothing = openvino.PartialShape.dynamic()
    model.reshape({0: nothing, 1: nothing})
    assert model.output().get_partial_shape().rank.is_dynamic


def test_what_is_wrong_is_said_in_one_sentence(core: openvino.Core) -> None:
    case = LABELS["Warp with the defaults"]

    def message(model: HostCase) -> str:
        with pytest.raises(RuntimeError) as caught:
            core.read_model(model.model())
        return essential(caught.value)

    image, flow = case.feeds[0]
    assert "Warp: order must be 0, 1 or 3, got 2" in message(replace(case, attributes={"order": 2}))
    wrong = replace(case, attributes={"boundary": "round"})
    assert "boundary must be 'zero', 'edge', 'mirror', 'reflect' or 'wrap', got 'round'" in message(wrong)
    assert "Warp: flow_vox must have 3 components, got 2" in message(
        HostCase("", "Warp", ((image, flow[:, :2].copy()),), {})
    )
    assert "Bilateral: attribute sigma_space is missing" in message(
        HostCase("", "Bilateral", ((image,),), {})
    )
    # Where only the run knows the lengths.
    varying = core.compile_model(core.read_model(replace(case, dynamic=True).model()), "CPU", CONFIG)
    with pytest.raises(RuntimeError) as caught:
        varying([image, flow[:, :, :2].copy()])
    assert "Warp: image and flow_vox differ in batch or grid" in str(caught.value)
    whole = grid_sample((1, 1, 4, 4, 4), (1, 4, 4, 4, 3), 20, kinds=(TensorProto.INT32, TensorProto.FLOAT))
    with pytest.raises(RuntimeError, match="want floating-point numbers, got i32 and f32"):
        core.read_model(whole)


def test_an_artifact_holds_the_library_and_opens_with_nothing_but_the_runtime(
    compiled: Compiled, tmp_path: Path
) -> None:
    case, info = LABELS["Warp with the defaults"], compiled.artifact.info
    assert info.library == "libedgekit_openvino.so" and info.library in info.files
    assert b'type="Warp" version="edgekit"' in compiled.artifact.files["model.xml"]
    graph = graph_of(case)
    made = bundle.Bundle.of(
        compiled.artifact, name="warp", target=DEVICE, inputs=graph.inputs, results=graph.results
    )
    bundle.write(made, tmp_path / "warp.ekb")
    script = (
        "import sys, numpy; from edgekit import runtime\n"
        "feeds = dict(numpy.load(sys.argv[2]))\n"
        "numpy.save(sys.argv[3], runtime.open(sys.argv[1]).run(feeds)['out'])\n"
        "assert not {'onnx', 'onnx_ir', 'torch', 'edgekit._C'} & sys.modules.keys(), sys.modules.keys()\n"
    )
    np.savez(tmp_path / "feeds.npz", **feeds_of(case))
    arguments = [str(tmp_path / name) for name in ("warp.ekb", "feeds.npz", "out.npy")]
    # Without a compiler and a cache: the library comes from the bundle.
    environment = {**os.environ, "CXX": "no-compiler", "XDG_CACHE_HOME": str(tmp_path / "none")}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment)
    case.check(np.load(tmp_path / "out.npy"), case.expected()[0])


def test_networks_without_such_operators_get_no_library() -> None:
    model = grid_sample((1, 1, 4, 5), (1, 4, 5, 2), 20)
    specs = (TensorSpec("image", "float32", (1, 1, 4, 5)), TensorSpec("grid", "float32", (1, 4, 5, 2)))
    network = onnx_ir.from_proto(helper.onnx.load_from_string(model))
    graph = Graph(network, specs, (TensorSpec("out", "float32", (1, 1, 4, 5)),))
    sample = {spec.name: np.zeros(spec.largest_shape, np.float32) for spec in specs}
    artifact = BACKENDS["openvino"].compile(graph, DEVICE, sample=sample, threads=1).artifact
    assert artifact.info.files == ("model.bin", "model.xml") and not artifact.info.library


def other_library(artifact: Artifact, change: Callable[[bytes], bytes]) -> Artifact:
    name = artifact.info.library
    return replace(artifact, files={**artifact.files, name: change(artifact.files[name])})


def test_two_bundles_with_two_libraries_run_each_its_own(compiled: Compiled, core: openvino.Core) -> None:
    """Their operators are in opsets of their own: OpenVINO would make both networks' of the first library."""
    case = LABELS["Warp with the defaults"]
    # Bytes after the end of a library change nothing but its digest.
    other = other_library(compiled.artifact, lambda content: content + b"another")
    for artifact in (compiled.artifact, other, compiled.artifact):
        session = BACKENDS["openvino"].open(artifact, threads=1)
        case.check(session.run(feeds_of(case))["out"], case.expected()[0])
    names = {backend._register(a.files[a.info.library]) for a in (compiled.artifact, other)}
    assert len(names) == 2
    weights = openvino.Tensor(np.frombuffer(compiled.artifact.files["model.bin"], np.uint8))
    for name in names:
        structure = compiled.artifact.files["model.xml"].replace(b'version="edgekit"', name)
        operators = core.read_model(structure, weights).get_ops()
        assert name.decode() in {f'version="{op.get_type_info().version_id}"' for op in operators}
    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert len([path for path in paths if path.endswith("/libedgekit_openvino.so")]) >= 2


INTERRUPTED = """
import os, pickle, signal, sys
from edgekit.backends import BACKENDS
artifacts, feeds = pickle.loads(sys.stdin.buffer.read())
sessions = [BACKENDS["openvino"].open(artifact, threads=2) for artifact in artifacts]
first = [session.run(feeds)["out"].tobytes() for session in sessions]
sessions.pop().close()
for _ in range(3):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        assert sessions[0].run(feeds)["out"].tobytes() == first[0] == first[1]
print("alive")
"""


def test_sessions_of_several_libraries_outlive_an_interrupt(compiled: Compiled) -> None:
    other = other_library(compiled.artifact, lambda content: content + b"another")
    work = pickle.dumps(([compiled.artifact, other], feeds_of(LABELS["Warp with the defaults"])))
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], input=work, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"alive\n"), done.stderr


def test_another_release_is_named_with_what_to_type(compiled: Compiled) -> None:
    installed = BACKENDS["openvino"].requirements[0].version()

    def refused(artifact: Artifact, built: str) -> None:
        with pytest.raises(MismatchError) as caught:
            BACKENDS["openvino"].open(artifact)
        assert caught.value.message == (
            f"the library of operators is built for OpenVINO {built}, installed is {installed}"
        )
        assert caught.value.hint == f"pip install 'openvino=={built}', or compile the model again"

    older = replace(compiled.artifact.info, built_with={"openvino": "2026.3.0"})
    refused(replace(compiled.artifact, info=older), "2026.3.0")
    # What the library itself asks for, if the artifact says something else.
    names = [f"libopenvino.so.{number}".encode() for number in (soname_number(), "2530")]
    refused(other_library(compiled.artifact, lambda content: content.replace(*names)), "2025.3.0")
    graph = graph_of(LABELS["Warp with the defaults"])
    made = bundle.Bundle.of(
        replace(compiled.artifact, info=older),
        name="warp",
        target=DEVICE,
        inputs=graph.inputs,
        results=graph.results,
    )
    with pytest.raises(MismatchError, match=rf"compiled with openvino 2026\.3\.0, here is {installed}"):
        runtime.open(made)


def soname_number() -> str:
    return host.adapter().version.rpartition(".")[2]


def test_a_file_that_is_no_library_or_of_another_machine_is_refused(compiled: Compiled) -> None:
    arm = other_library(compiled.artifact, lambda content: content[:18] + b"\xb7\x00" + content[20:])
    with pytest.raises(SessionError, match="machine code for aarch64"):
        BACKENDS["openvino"].open(arm)
    with pytest.raises(SessionError, match="the library of operators does not load"):
        BACKENDS["openvino"].open(other_library(compiled.artifact, lambda c: c[:16] + b"\1" + c[17:]))
    lost = replace(compiled.artifact.info, library="", files=("model.bin", "model.xml"))
    with pytest.raises(SessionError, match="Cannot create Warp layer"):
        BACKENDS["openvino"].open(replace(compiled.artifact, info=lost))


def test_without_a_compiler_operators_run_in_python_and_the_artifact_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    case = LABELS["Warp with the defaults"]
    made = BACKENDS["openvino"].compile(graph_of(case), DEVICE, sample=feeds_of(case), threads=1)
    note = made.artifact.files["operators-in-python.txt"].decode()
    assert "run in Python" in note and "there is no no-compiler" in note and "apt-get install g++" in note
    assert note.strip() in made.log and not made.artifact.info.library
    case.check(made.outputs["out"], case.expected()[0])
    session = BACKENDS["openvino"].open(made.artifact, threads=1)
    case.check(session.run(feeds_of(case))["out"], case.expected()[0])


def test_the_release_is_read_from_the_name_of_its_library(tmp_path: Path) -> None:
    assert host.release("libopenvino.so.2641: cannot open shared object file") == "2026.4.1"
    assert host.release("libonnx.so.1") == ""
    adapter = host.adapter()
    installed = BACKENDS["openvino"].requirements[0].version()
    assert host.release(adapter.version) == ".".join(str(installed).split(".")[:3])
    with pytest.raises(UnavailableError, match="headers and libraries") as caught:
        host.adapter(tmp_path)
    assert caught.value.hint == "pip install --force-reinstall openvino"


def test_building_takes_seconds_and_is_done_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    began = os.times()
    path = build.library(host.adapter())
    ended = os.times()
    # Of the compiler, whatever else the machine does.
    assert ended.children_user - began.children_user < 30
    began_s = time.perf_counter()
    assert build.library(host.adapter()) == path
    assert time.perf_counter() - began_s < 0.1


def test_a_compiler_that_fails_is_no_reason_to_run_in_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    case = LABELS["Warp with the defaults"]
    with pytest.raises(CompileError, match="false failed"):
        BACKENDS["openvino"].compile(graph_of(case), DEVICE, sample=feeds_of(case))


def test_a_bundle_says_that_operators_run_in_python() -> None:
    found = BACKENDS["openvino"]
    info = ArtifactInfo("openvino", "portable", ("operators-in-python.txt",), (), (), "cpu", {}, "")
    assert found.notes(Artifact(info, {"operators-in-python.txt": b"no g++\n"})) == (
        "OpenVINO runs edgekit's operators in Python: no g++",
    )
    assert found.notes(Artifact(info, {})) == ()
