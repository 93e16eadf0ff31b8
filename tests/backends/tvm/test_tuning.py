"""Tiles that were measured: where, what is kept of it, and what becomes of it when a network is compiled."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hosts import arm64
from kernel_runs import AVX2

from edgekit import pipeline
from edgekit.backends.tvm import compiler, convolution, measuring, tuned, tuning
from edgekit.backends.tvm.measuring import Call, Runner
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tuned import Record, Tuned
from edgekit.errors import CompileError, UnavailableError, UsageError
from edgekit.hosts.build import Platform

MODEL = """<ir_version: 10, opset_import: ["" : 20]>
network (float[1, 16, 12, 12] x, float[16, 16, 3, 3] w, float[1, 16, 24, 24] u, float[8, 20] a,
         float[16, 8, 2, 2] t, float[20, 12] d) => (float[1, 8, 24, 24] y, float[8, 12] z) {
    h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
    r = Relu (h)
    g = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, w)
    y = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (g, t)
    z = MatMul (a, d)
}"""
CORTEX = Processor("aarch64", 4, 32, mcpu=arm64.PROCESSOR)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's records are others here; the cross compiler keeps what it has built."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if "ZIG_GLOBAL_CACHE_DIR" not in os.environ:
        monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(usual / "zig"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tuned, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "cache"


def network() -> ir.Model:
    proto = onnx.parser.parse_model(MODEL)
    draws = np.random.default_rng(0)
    shapes = {"w": (16, 16, 3, 3), "t": (16, 8, 2, 2), "d": (20, 12)}
    kept = [value for value in proto.graph.input if value.name in ("x", "a")]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    for name, shape in shapes.items():
        array = draws.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def module():
    return compiler.imported(network())[0]


def record(**changed) -> Record:
    (task, *_) = tuning.tasks(module(), AVX2)
    values = {
        "kernels": tuned.KERNELS,
        "tvm": tuned.tvm_version(),
        "family": task.what.family,
        "problem": tuned.fields(task.what.problem),
        "tensors": tuple(map(tuned.described, task.what.tensors)),
        "plan": tuned.fields(task.shortlist(3)[2]),
        "time_s": 1e-5,
        "rule_s": 2e-5,
        "tried": 3,
        "device": "a test",
    }
    return Record(**{**values, **changed})


def line(value: Record) -> bytes:
    return json.dumps(vars(value)).encode()


# What is asked


def test_equal_problems_are_one_task() -> None:
    found = tuning.tasks(module(), AVX2)
    # Two convolutions that differ in nothing, a transposed one, a dense layer.
    assert [task.what.family for task in found] == ["convolution", "convolution", "dense"]
    for task in found:
        plans = task.shortlist(8)
        assert len(plans) == len(set(plans)) == 8
        assert plans[0] == task.rule and any(plan == task.rule for _, plan in task.candidates)


def test_the_largest_problem_is_the_first() -> None:
    same, up, dense = (task.what for task in tuning.tasks(module(), AVX2))
    assert same.products == 16 * 12 * 12 * 9 * 16
    assert up.products == 16 * 12 * 12 * 4 * 8
    assert dense.products == 8 * 20 * 12
    seen: list[measuring.Problem] = []

    class Refusing(Runner):
        def measure(self, what, plans, processor):
            seen.append(what)
            raise CompileError("no")

    tuning.tune(module(), AVX2, 600, Refusing())
    assert seen == [same, up, dense]


def test_a_record_decides_among_the_rule_s_candidates_only() -> None:
    (task, *_) = tuning.tasks(module(), AVX2)
    what = (task.what.problem, *task.what.tensors)
    rule = convolution.tiling(*what, AVX2)
    known = Tuned([record()])
    chosen = convolution.tiling(*what, replace(AVX2, tuned=known))
    assert chosen == task.shortlist(3)[2] != rule
    assert len(known.used) == 1 and not known.missed
    huge = {**tuned.fields(rule), "rows": 1 << 40}
    strange = Tuned([record(plan=huge)])
    assert convolution.tiling(*what, replace(AVX2, tuned=strange)) == rule
    assert len(strange.missed) == 1 and not strange.used


def test_zeros_around_a_tensor_are_not_in_the_key() -> None:
    (task, *_) = tuning.tasks(module(), AVX2)
    x, result = task.what.tensors
    wider = replace(x, layout=replace(x.layout, halo=((3, 3), (3, 3))))
    other = replace(x, layout=replace(x.layout, block=1))
    assert tuned.key("f", task.what.problem, (x, result)) == tuned.key(
        "f", task.what.problem, (wider, result)
    )
    assert tuned.key("f", task.what.problem, (x, result)) != tuned.key(
        "f", task.what.problem, (other, result)
    )


def test_a_network_gives_the_same_bits_with_other_tiles(tmp_path: Path) -> None:
    results = []
    feeds = {"x": (1, 16, 12, 12), "a": (8, 20)}
    draws = np.random.default_rng(1)
    arrays = [draws.standard_normal(shape).astype(np.float32) for shape in feeds.values()]
    others = [
        record(
            family=task.what.family,
            problem=tuned.fields(task.what.problem),
            tensors=tuple(map(tuned.described, task.what.tensors)),
            plan=tuned.fields(task.shortlist(6)[5]),
        )
        for task in tuning.tasks(module(), AVX2)
    ]
    for known in (Tuned(), Tuned(others)):
        path = tmp_path / f"{len(results)}.so"
        compiler.export(network(), path, {}, Platform.here(), replace(AVX2, tuned=known))
        assert len(known.used) == (3 if results else 0) and len(known.missed) == (0 if results else 3)
        results.append(run(path, arrays))
    assert results[0] == results[1]


def run(path: Path, arrays: list[np.ndarray]) -> list[bytes]:
    import tvm
    from tvm.runtime.vm import VirtualMachine

    machine = VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    return [out.numpy().tobytes() for out in machine["main"](*map(tvm.runtime.tensor, arrays))]


# Where it is measured


def test_here_every_task_gets_a_record_and_the_second_time_there_is_nothing_to_do(cache: Path) -> None:
    first = tuning.tune(module(), AVX2, 600)
    assert (first.tasks, first.known, first.measured, first.notes) == (3, 0, 3, ())
    file = tuned.user_file(AVX2.name)
    assert file == cache / "edgekit" / "tvm" / "x86-64-v3.jsonl"
    records, notes = tuned.read(file)
    assert len(records) == 3 and not notes
    for value in records:
        assert value.tried == 12 and value.time_s <= value.rule_s and "this machine" in value.device
    again = tuning.tune(module(), AVX2, 600)
    assert (again.known, again.measured) == (3, 0)
    known = tuned.load(AVX2.name)
    tuning.planned(module(), replace(AVX2, tuned=known))
    assert len(known.used) == 3 and not known.missed


def test_without_time_all_is_left_to_the_rule_and_that_is_said() -> None:
    report = tuning.tune(module(), AVX2, 0)
    assert report.measured == 0
    assert report.notes == ("3 of 3 problems have no measurement and are left to the rule",)


@pytest.fixture
def server() -> Iterator[str]:
    """TVM's RPC server as a user starts it."""
    port = free_port()
    command = ["-m", "tvm.exec.rpc_server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--port-end", str(port + 1)]
    process = subprocess.Popen([sys.executable, *command], start_new_session=True)
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Until somebody listens there: read from Linux's table, since a connection would be a session."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        if wanted in Path("/proc/net/tcp").read_text():
            return
        time.sleep(0.2)
    raise AssertionError("the server does not listen")


def test_a_device_is_measured_through_rpc(server: str) -> None:
    (task, *_) = tuning.tasks(module(), AVX2)
    value = tuning.measure(task, AVX2, Runner(server), count=3)
    assert value.tried == 3 and value.device == f"RPC server {server}"
    assert 1e-7 < value.time_s <= value.rule_s < 10


# A session is a process of its own; no program can be started there, so TVM's command cannot start it.
SERVER = """
import sys
from tvm.rpc import server
port = int(sys.argv[1])
server.PopenRPCServerState("127.0.0.1", port, port + 1).thread.join()
"""


@pytest.mark.skipif(bool(arm64.missing()), reason=arm64.missing() or "there is an emulated machine")
def test_an_arm_device_is_measured_through_rpc(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "server.py").write_text(SERVER)
    run = [
        "from pathlib import Path",
        "from hosts import arm64",
        f"arm64.run('/mnt/server.py', '{port}', work=Path({str(tmp_path)!r}))",
    ]
    arm64.root()
    # The user's cache, where the emulated machine is, is another one in these tests.
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    path = os.pathsep.join([str(Path(arm64.__file__).parents[1]), str(arm64.CONSTRAINTS.parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(run)],
        env={**environment, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        wait_for(port, process)
        tasks = tuning.tasks(module(), CORTEX)
        runner = Runner(f"127.0.0.1:{port}", Platform("aarch64", "2.31"), time_s=600)
        for task in (tasks[0], tasks[-1]):
            value = tuning.measure(task, CORTEX, runner, count=3)
            assert value.tried == 3, "candidates of the rule that give other bits"
            assert 1e-7 < value.time_s <= value.rule_s < 60
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_device_that_does_not_answer_is_named() -> None:
    runner = Runner(f"127.0.0.1:{free_port()}")
    (task, *_) = tuning.tasks(module(), AVX2)
    with pytest.raises(UnavailableError, match="no RPC server of TVM answers") as caught:
        tuning.measure(task, AVX2, runner, count=1)
    assert caught.value.where == runner.address
    assert "tvm.exec.rpc_server" in str(caught.value.hint)


def test_nothing_is_compiled_where_the_device_does_not_answer(tmp_path: Path) -> None:
    options = {"tune_s": 1, "rpc": f"127.0.0.1:{free_port()}"}
    with pytest.raises(UnavailableError, match="no RPC server of TVM answers"):
        compiler.export(network(), tmp_path / "a.so", options, Platform.here(), AVX2)
    assert not list(tmp_path.iterdir())


def test_a_device_without_time_to_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got none") as caught:
        compiler.export(network(), tmp_path / "a.so", {"rpc": "board:9090"}, Platform.here(), AVX2)
    assert "tvm.tune_s" in str(caught.value.hint)


@pytest.mark.parametrize("address", ["jetson", "jetson:", ":9090", "jetson:port", "jetson:0", "jetson:65536"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Runner(address)


def test_a_candidate_that_gives_other_bits_is_refused() -> None:
    def call(result: bytes, second: float) -> Call:
        return Call(lambda: result, lambda calls: second * calls)

    times = measuring.race([call(b"12", 3.0), call(b"13", 1.0), call(b"12", 2.0), call(b"12", 9.0)])
    assert times == [3.0, None, 2.0, 9.0]


def test_the_rule_stays_where_little_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    (task, *_) = tuning.tasks(module(), AVX2)
    for first, again, winner in ((0.97, 0.5, 0), (0.9, 0.97, 0), (0.9, 0.8, 1)):
        turns = iter([[1.0, first, None], [1.0, again]])
        monkeypatch.setattr(Runner, "measure", lambda *_, turns=turns: next(turns))
        value = tuning.measure(task, AVX2, count=3)
        assert value.plan == tuned.fields(task.shortlist(3)[winner])
        assert (value.time_s, value.rule_s, value.tried) == (again if winner else 1.0, 1.0, 2)


# What is kept

TUNE = """
import sys
from test_tuning import AVX2, module
from edgekit.backends.tvm import tuning
print("ready", flush=True)
tuning.tune(module(), AVX2, 600, on_event=lambda line: print(line, flush=True))
"""


def test_a_search_that_is_killed_goes_on_where_it_was() -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", TUNE],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    for text in process.stdout:
        if "problem 2" in text:
            break
    process.kill()
    process.wait()
    assert len(tuned.read(tuned.user_file(AVX2.name))[0]) == 1
    report = tuning.tune(module(), AVX2, 600)
    assert (report.known, report.measured) == (1, 2)


def test_a_torn_line_is_said_and_the_next_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes(line(record()) + b"\n" + line(record())[:100])
    records, notes = tuned.read(file)
    assert records == [record()]
    assert notes == [f"{file}:2: ignored: a line that was not written to its end"]
    tuned.append(file, record(time_s=5e-6))
    records, notes = tuned.read(file)
    assert records == [record(), record(time_s=5e-6)] and len(notes) == 1
    assert file.read_bytes().endswith(b"\n")


def test_records_of_other_versions_are_left_alone_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    for value in (record(kernels=0), record(tvm="0.26"), record()):
        tuned.append(file, value)
    records, (note,) = tuned.read(file)
    assert records == [record()]
    assert (
        note
        == f"{file}: ignored: 2 of other versions than version {tuned.KERNELS} of the kernels and "
        + (f"TVM {tuned.tvm_version()}")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "want a table, got"),
        (b"hello", "want a JSON object"),
        (b"\xff\xfe", "want a JSON object"),
        (b"[" * 100_000, "want a JSON object"),
        (b'{"kernels": NaN}', "want a JSON object"),
        (b'{"family": "convolution"}', "is missing"),
        (line(Record(1, "0.27", "f", {}, (), {}, -1.0, 1.0, 1, "d")), "want times in seconds"),
        (line(Record(1, "0.27", "f", {}, (), [], 1.0, 1.0, 1, "d")), "want tables"),  # type: ignore[arg-type]
        (line(Record(1, "0.27", "f", {}, (1,), {}, 1.0, 1.0, 1, "d")), "want tables"),  # type: ignore[arg-type]
        (line(Record("1", "0.27", "f", {}, (), {}, 1.0, 1.0, 1, "d")), "want int, got str"),  # type: ignore[arg-type]
        (b'{"__class__": "os.system", "args": ["true"]}', "unknown key '__class__'"),
    ],
    ids=range(11),
)
def test_what_is_no_record_is_ignored_with_its_place(text: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes(text + b"\n" + line(record()) + b"\n")
    records, (note,) = tuned.read(file)
    assert records == [record()]
    assert note.startswith(f"{file}:1") and message in note


def test_the_user_s_records_come_before_those_that_are_shipped() -> None:
    (task, *_) = tuning.tasks(module(), AVX2)
    plans = task.shortlist(3)
    for file, plan in ((tuned.SHIPPED / "x86-64-v3.jsonl", plans[1]), (tuned.user_file(AVX2.name), plans[2])):
        tuned.append(file, record(plan=tuned.fields(plan)))
        known = replace(AVX2, tuned=tuned.load(AVX2.name))
        assert convolution.tiling(task.what.problem, *task.what.tensors, known) == plan


def test_what_is_shipped_fits_this_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    files = list(tuned.SHIPPED.glob("*.jsonl"))
    assert files
    for file in files:
        records, notes = tuned.read(file)
        assert records and not notes
        assert all(value.time_s < value.rule_s for value in records)


# How a user starts it


def test_the_option_of_the_backend_tunes_before_it_compiles(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compiler.export(network(), tmp_path / "a.so", {"tune_s": 600}, Platform.here(), AVX2)
    said = capfd.readouterr().err
    assert "measure problem 3 of 3" in said and "3 problems, 0 known, 3 measured" in said
    compiler.export(network(), tmp_path / "b.so", {}, Platform.here(), AVX2)
    assert "measure" not in capfd.readouterr().err
    assert (tmp_path / "a.so").stat().st_size == (tmp_path / "b.so").stat().st_size


def test_options_of_backends_are_checked_before_anything_is_done(tmp_path: Path) -> None:
    for options, message in (
        ({"tvm": {"tune": 3}}, "has no option 'tune'"),
        ({"tvm": {"tune_s": "3"}}, "want int, got '3'"),
        ({"tvn": {}}, "tvn"),
    ):
        with pytest.raises(UsageError, match=message):
            pipeline.plan(tmp_path / "none.onnx", options=options)  # type: ignore[arg-type]
