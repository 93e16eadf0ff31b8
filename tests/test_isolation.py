from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgekit import isolation
from edgekit.errors import CompileError, InternalError, LimitError, SpecError
from edgekit.isolation import Limits

CHILD_FUNCTIONS = """
    import os, signal, subprocess, sys, time
    import numpy as np
    from edgekit.errors import SpecError

    def echo(request):
        print("on stdout"); print("on stderr", file=sys.stderr)
        for name, path in request.files.items():
            (request.out / name).write_bytes(path.read_bytes()[::-1])
        return request.arguments, {name: 2 * array for name, array in request.arrays.items()}

    def where_am_i(request):
        import tempfile
        return {"path": sys.path, "variable": os.environ.get("EDGEKIT_TEST"), "tmp": tempfile.gettempdir(),
                "modules": sorted(sys.modules)}, {}

    def refuse(request):
        raise SpecError("wrong", where="tensor 'x'", hint="array.astype(…)")

    def fail(request):
        raise ZeroDivisionError("one over nothing")

    def abort(request):
        print("before the crash", flush=True); os.abort()

    def leave(request):
        print("no answer", flush=True); sys.exit(3)

    def kill_itself(request):
        os.kill(os.getpid(), signal.SIGKILL)

    def chatter(request):
        for i in range(200): print("line", i)
        sys.stdout.flush(); os.abort()

    def flood(request):
        print("x" * (4 << 20)); print("the end", flush=True)
        return None, {}

    def sleep(request):
        print("sleeping", flush=True); time.sleep(60)
        return None, {}

    def sleep_with_children(request):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open(request.arguments, "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(60)
        return None, {}

    def eat(request):
        hoard = []
        while True:
            hoard.append(np.ones(4 << 20)); time.sleep(0.01)

    def eat_in_a_child(request):
        subprocess.run([sys.executable, "-c", "import time; x = b'x' * (400 << 20); time.sleep(60)"])
        return None, {}

    def report(request):
        for step in range(5):
            request.report({"step": step})
            time.sleep(0.1)
        for step in range(5, 200):
            request.report({"step": step})
        return None, {}

    def report_and_wait(request):
        request.report("ready"); time.sleep(60)
        return None, {}

    def not_json(request):
        return {1, 2}, {}

    def peak(request):
        np.ones(25 << 20)
        return None, {}
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that only sys.path knows, and a temporary folder of this test's own."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "child_functions.py").write_text(textwrap.dedent(CHILD_FUNCTIONS))
    monkeypatch.syspath_prepend(str(folder))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def leftovers(tmp_path: Path):
    return lambda: sorted((tmp_path / "tmp").iterdir())


def run(name: str, arguments: object = None, **options):
    return isolation.run(f"child_functions:{name}", arguments, what="the test", error=CompileError, **options)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_values_arrays_and_files_come_back(leftovers) -> None:
    arrays = {
        "a/b:c d": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "": np.array(True),
        "large": np.ones((40, 100, 100), np.float32),
    }
    outcome = run("echo", {"x": [1, 2.5, None, "é"]}, arrays=arrays, files={"f.bin": b"\x00ab"})
    assert outcome.value == {"x": [1, 2.5, None, "é"]}
    assert list(outcome.arrays) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(outcome.arrays[name], 2 * array)
        assert outcome.arrays[name].dtype == (2 * array).dtype
    assert outcome.files == {"f.bin": b"ba\x00"}
    assert "on stdout" in outcome.log and "on stderr" in outcome.log
    assert outcome.elapsed_s > 0
    assert leftovers() == []


def test_the_child_imports_what_the_caller_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "numpy.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", str(trap))
    found = run("where_am_i", environment={"EDGEKIT_TEST": "yes"}).value
    assert found["path"] == [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - links stay as they are
    assert found["variable"] == "yes"
    assert found["tmp"].startswith(str(tmp_path / "tmp"))
    assert not {"torch", "onnx", "pydoc"} & set(found["modules"])


def test_the_childs_own_error_arrives_as_it_was() -> None:
    with pytest.raises(SpecError) as caught:
        run("refuse")
    assert (caught.value.message, caught.value.where) == ("wrong", "tensor 'x'")
    assert caught.value.hint == "array.astype(…)"


def test_any_other_exception_is_our_bug(leftovers) -> None:
    with pytest.raises(InternalError, match=r"the test: ZeroDivisionError: one over nothing[\s\S]*in fail"):
        run("fail")
    assert leftovers() == []


def test_arguments_and_values_that_are_not_json_are_our_bug() -> None:
    with pytest.raises(InternalError, match="not JSON"):
        run("echo", {1, 2})
    with pytest.raises(InternalError, match="not JSON serializable"):
        run("not_json")


def test_a_crash_shows_the_end_of_the_log(leftovers) -> None:
    with pytest.raises(CompileError, match=r"ended abnormally \(Aborted\)[\s\S]*before the crash") as caught:
        run("abort")
    assert "in abort" in caught.value.message, "the Python stack of a crash"
    with pytest.raises(CompileError, match=r"exit code 3[\s\S]*no answer"):
        run("leave")
    assert leftovers() == []


def test_the_log_is_cut_to_its_end() -> None:
    with pytest.raises(CompileError) as caught:
        run("chatter")
    assert "line 199" in caught.value.message
    assert "line 100\n" not in caught.value.message
    log = run("flood").log
    assert log.endswith("the end\n") and len(log) < 2 << 20


def test_a_kill_by_the_system_speaks_of_memory() -> None:
    with pytest.raises(LimitError, match="memory ran out"):
        run("kill_itself")


def test_time_limit(leftovers) -> None:
    with pytest.raises(LimitError, match=r"took more than 0.7 s[\s\S]*sleeping"):
        run("sleep", limits=Limits(time_s=0.7))
    assert leftovers() == []


@pytest.mark.parametrize("function", ["eat", "eat_in_a_child"])
def test_memory_limit(function: str, leftovers) -> None:
    with pytest.raises(LimitError, match="more than 300 MiB of memory"):
        run(function, limits=Limits(time_s=60, memory_bytes=300 << 20))
    assert leftovers() == []


def test_peak_memory_is_seen_even_when_it_is_short() -> None:
    assert 200 << 20 < run("peak").peak_bytes < 600 << 20


def test_an_interrupt_ends_the_child_and_its_children(tmp_path: Path, leftovers) -> None:
    note = tmp_path / "pids"

    def interrupt() -> None:
        wait_until(lambda: note.exists() and note.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run("sleep_with_children", str(note))
    thread.join()
    assert wait_until(lambda: not any(running(int(pid)) for pid in note.read_text().split()))
    assert leftovers() == []


def test_kill_of_the_caller_ends_the_child_and_the_next_call_cleans_up(tmp_path: Path, leftovers) -> None:
    note = tmp_path / "pids"
    program = f"""
import json, sys, tempfile
sys.path[:] = json.loads({json.dumps(json.dumps(sys.path))})
tempfile.tempdir = {str(tmp_path / "tmp")!r}
from edgekit import isolation
from edgekit.errors import CompileError
isolation.run("child_functions:sleep_with_children", {str(note)!r}, what="x", error=CompileError)
"""
    caller = subprocess.Popen([sys.executable, "-c", program])
    assert wait_until(lambda: note.exists() and note.read_text())
    child, grandchild = map(int, note.read_text().split())
    assert running(child)
    caller.kill()
    caller.wait()
    assert wait_until(lambda: not running(child))
    os.kill(grandchild, signal.SIGKILL)
    assert len(leftovers()) == 1
    run("echo")
    assert leftovers() == []


def test_folders_of_running_calls_are_left_alone(tmp_path: Path) -> None:
    results: list[object] = []
    threads = [threading.Thread(target=lambda i=i: results.append(run("echo", i).value)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]


def test_a_full_disk_is_a_limit(monkeypatch: pytest.MonkeyPatch, leftovers) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(isolation, "_save_arrays", full)
    with pytest.raises(LimitError, match="No space left"):
        run("echo")
    assert leftovers() == []


def test_reports_are_handed_on_in_order_and_the_last_one_always_is() -> None:
    seen: list[dict[str, int]] = []
    run("report", on_report=seen.append)
    steps = [report["step"] for report in seen]
    assert steps == sorted(set(steps))
    assert set(steps) >= {0, 1, 2, 3, 4, 199}


def test_what_a_listener_raises_ends_the_child(leftovers) -> None:
    def stop(value: object) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run("report_and_wait", on_report=stop)
    assert time.monotonic() - started < 20
    assert not leftovers()
