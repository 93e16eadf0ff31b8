"""edgekit.runtime: a bundle is opened on the right machine, runs what fits, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import DOUBLED, IMAGE, StubBackend, artifact, several, small, stub  # noqa: F401
from sample_steps import add  # noqa: F401

from edgekit import bundle, machine, runtime
from edgekit.errors import MismatchError, SessionError, SpecError, UnavailableError, UsageError
from edgekit.registry import Requirement
from edgekit.spec import Dim, Step

FEED = {"image": np.arange(32, dtype=np.float32).reshape(1, 1, 4, 8)}


@pytest.fixture
def session(stub):  # noqa: F811
    with runtime.open(small()) as opened:
        yield opened


def test_runs_and_tells_its_contracts(session, stub):  # noqa: F811
    results = session.run(FEED)
    np.testing.assert_array_equal(results["doubled"], 2 * FEED["image"])
    assert session.inputs == (IMAGE,) and session.outputs == (DOUBLED,)
    assert session.load_s > 0 and session.threads == 0
    assert stub.opened[0].files == artifact().files


def test_opens_a_path(stub, tmp_path):  # noqa: F811
    bundle.write(small(), tmp_path / "a.ekb")
    for path in (tmp_path / "a.ekb", str(tmp_path / "a.ekb")):
        with runtime.open(path) as opened:
            assert list(opened.run(FEED)) == ["doubled"]
    with pytest.raises(UsageError, match="no such bundle"):
        runtime.open(tmp_path / "b.ekb")


def test_hands_the_threads_to_the_backend(stub, monkeypatch):  # noqa: F811
    seen = []
    original = stub._open
    monkeypatch.setattr(
        stub, "_open", lambda artifact, threads: seen.append(threads) or original(artifact, threads)
    )
    assert runtime.open(small(), threads=3).threads == 3
    assert seen == [3]


def test_a_view_is_accepted_and_arrives_contiguous(stub):  # noqa: F811
    seen = []
    stub.function = lambda feeds: seen.append(feeds["image"]) or {"doubled": feeds["image"] * np.float32(2)}
    turned = np.asfortranarray(FEED["image"])
    with runtime.open(small()) as opened:
        opened.run({"image": turned})
    assert seen[0].flags.c_contiguous and not turned.flags.c_contiguous


@pytest.mark.parametrize(
    "array, what",
    [
        ([[1.0]], "NumPy array"),
        (FEED["image"].astype(np.float64), "dtype"),
        (FEED["image"].astype(">f4"), "dtype"),
        (FEED["image"][0, 0], "shape"),
        (np.zeros((1, 1, 4, 6), np.float32), "shape"),
        (np.zeros((1, 1, 4, 16), np.float32), "shape"),
        (np.full((1, 1, 4, 8), np.nan, np.float32), "32 NaN"),
        (np.full((1, 1, 4, 8), -np.inf, np.float32), "infinite"),
    ],
)
def test_refuses_what_does_not_fit(session, stub, array, what):  # noqa: F811
    def unreachable(feeds):
        raise AssertionError("the network must not run")

    stub.sessions[0].function = unreachable
    with pytest.raises(SpecError, match=what) as caught:
        session.run({"image": array})
    assert "image" in caught.value.where and caught.value.hint


def test_refuses_wrong_names(session):
    for given, what, hint in [
        ({}, "missing image", None),
        ({"imgae": FEED["image"]}, "missing image; unknown imgae", "did you mean 'image'?"),
        ({**FEED, "mask": FEED["image"]}, "unknown mask", None),
        ({1: FEED["image"]}, "unknown 1", None),
    ]:
        with pytest.raises(SpecError, match=what) as caught:
            session.run(given)
        assert caught.value.hint == hint or hint is None
    with pytest.raises(SpecError, match="mapping of names"):
        session.run(FEED["image"])


def test_equal_ranges_of_two_inputs_have_one_length(stub):  # noqa: F811
    moving, fixed = replace(IMAGE, name="moving"), replace(IMAGE, name="fixed")
    stub.function = lambda feeds: {"doubled": feeds["moving"] + feeds["fixed"]}
    with runtime.open(small(inputs=(moving, fixed))) as opened:
        opened.run({"moving": FEED["image"], "fixed": FEED["image"]})
        with pytest.raises(SpecError, match="axis 3 of 'fixed'") as caught:
            opened.run({"moving": FEED["image"], "fixed": np.zeros((1, 1, 4, 12), np.float32)})
        assert caught.value.where == "tensor 'fixed'"
    other = replace(fixed, dims=(1, 1, 4, Dim(4, 16, 4)))
    stub.function = lambda feeds: {"doubled": feeds["moving"]}
    with runtime.open(small(inputs=(moving, other))) as opened:
        opened.run({"moving": FEED["image"], "fixed": np.zeros((1, 1, 4, 12), np.float32)})


@pytest.mark.parametrize(
    "result, what",
    [
        (np.full((1, 1, 4, 8), np.nan, np.float32), "NaN or infinity"),
        (np.full((1, 1, 4, 8), np.inf, np.float32), "NaN or infinity"),
        (np.zeros((1, 1, 4, 7), np.float32), "promises"),
        (np.zeros((1, 1, 4, 8), np.float64), "promises"),
    ],
)
def test_refuses_results_that_break_the_contract(stub, result, what):  # noqa: F811
    stub.function = lambda feeds: {"doubled": result}
    with runtime.open(small()) as opened, pytest.raises(SessionError, match=what) as caught:
        opened.run(FEED)
    assert "doubled" in caught.value.where


def test_a_closed_session_says_so(stub):  # noqa: F811
    opened = runtime.open(small())
    opened.close()
    opened.close()
    assert stub.sessions[0].closed_times == 1
    with pytest.raises(SessionError, match="closed"):
        opened.run(FEED)


def test_close_waits_for_a_run(stub):  # noqa: F811
    inside, go = threading.Event(), threading.Event()

    def slow(feeds):
        inside.set()
        assert go.wait(10)
        return {"doubled": feeds["image"]}

    stub.function = slow
    opened = runtime.open(small())
    runner = threading.Thread(target=opened.run, args=(FEED,))
    closer = threading.Thread(target=opened.close)
    runner.start()
    assert inside.wait(10)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive() and stub.sessions[0].closed_times == 0
    go.set()
    runner.join(10)
    closer.join(10)
    assert stub.sessions[0].closed_times == 1


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────


def with_steps(*steps, results):
    made = small()
    return replace(made, manifest=replace(made.manifest, after=steps, results=results))


def test_steps_run_in_order_and_results_come_in_order(stub, add):  # noqa: F811
    made = with_steps(
        Step("add", ("doubled",), ("a",)),
        Step("add", ("a",), ("b",), {"value": 10.0}),
        Step("add", ("image",), ("c",)),
        results=(replace(DOUBLED, name="c"), replace(DOUBLED, name="b"), DOUBLED),
    )
    with runtime.open(made) as opened:
        stages: dict[str, float] = {}
        results = opened.run(FEED, stages=stages)
    assert list(results) == ["c", "b", "doubled"]
    np.testing.assert_array_equal(results["b"], 2 * FEED["image"] + 11)
    np.testing.assert_array_equal(results["c"], FEED["image"] + 1)
    assert list(stages) == ["check", "network", "add", "add 2", "add 3", "results"]
    assert all(seconds >= 0 for seconds in stages.values())


def with_front(*before, **changes):
    made = small()
    return replace(made, manifest=replace(made.manifest, before=before, **changes))


def test_steps_before_make_what_the_network_reads(stub, add):  # noqa: F811
    made = with_front(
        Step("add", ("image",), ("image",), {"value": 10.0}),
        Step("add", ("image",), ("image",)),
        # After the network a step reads what the network read.
        after=(Step("add", ("image",), ("seen",)),),
        results=(DOUBLED, replace(DOUBLED, name="seen")),
    )
    given = {"image": FEED["image"].copy()}
    with runtime.open(made) as opened:
        stages: dict[str, float] = {}
        results = opened.run(given, stages=stages)
        untimed = opened.run(given)
    np.testing.assert_array_equal(results["doubled"], 2 * (FEED["image"] + 11))
    np.testing.assert_array_equal(results["seen"], FEED["image"] + 12)
    np.testing.assert_array_equal(untimed["doubled"], results["doubled"])
    np.testing.assert_array_equal(given["image"], FEED["image"])
    assert list(stages) == ["check", "add", "add 2", "network", "add 3", "results"]


def test_a_caller_gives_what_steps_read(stub, add):  # noqa: F811
    raw = replace(IMAGE, name="raw", value_range=(0.0, 50.0))
    made = with_front(Step("add", ("raw",), ("image",)), inputs=(raw,))
    with runtime.open(made) as opened:
        assert opened.inputs == (raw,)
        np.testing.assert_array_equal(opened.run({"raw": FEED["image"]})["doubled"], 2 * FEED["image"] + 2)
        with pytest.raises(SpecError, match="missing raw; unknown image"):
            opened.run(FEED)
        with pytest.raises(SpecError, match="out of range"):
            opened.run({"raw": FEED["image"] + 40})


@pytest.mark.parametrize(
    "value, what",
    [(3.4e38, "want finite values, got 1 NaN or infinite of 32"), (100.0, "want 0 … 50, got 100 … 131")],
)
def test_what_steps_make_has_to_fit_the_network(stub, add, value, what):  # noqa: F811
    def unreachable(feeds):
        raise AssertionError("the network must not run")

    stub.function = unreachable
    made = small(inputs=(replace(IMAGE, value_range=(0.0, 50.0) if value == 100 else None),))
    steps = (Step("add", ("image",), ("image",), {"value": value}),)
    made = replace(made, manifest=replace(made.manifest, before=steps))
    image = FEED["image"].copy()
    if value != 100:
        image[0, 0, 0, 0] = 3.4e38
    with (
        runtime.open(made) as opened,
        np.errstate(over="ignore"),
        pytest.raises(SpecError, match=what) as caught,
    ):
        opened.run({"image": image})
    assert caught.value.where == str(steps[0]) and caught.value.hint


def test_only_the_last_step_of_an_input_is_looked_at(stub, add):  # noqa: F811
    made = small(inputs=(replace(IMAGE, value_range=(0.0, 50.0)),))
    far = Step("add", ("image",), ("image",), {"value": 100.0})
    back = replace(far, options={"value": -100.0})
    made = replace(made, manifest=replace(made.manifest, before=(far, back)))
    with runtime.open(made) as opened:
        np.testing.assert_array_equal(opened.run(FEED)["doubled"], 2 * FEED["image"])


def test_run_steps_gives_every_tensor(add):  # noqa: F811
    tensors = runtime.run_steps((Step("add", ("x",), ("y",)),), {"x": np.float32([1])})
    assert {name: float(array[0]) for name, array in tensors.items()} == {"x": 1.0, "y": 2.0}
    with pytest.raises(SpecError, match="no option 'valu'"):
        runtime.run_steps((Step("add", ("x",), ("y",), {"valu": 1.0}),), {})


def test_inputs_for_steps_alone_do_not_reach_the_network(stub, add):  # noqa: F811
    seen = []
    stub.function = lambda feeds: seen.append(list(feeds)) or {"doubled": feeds["image"]}
    made = small()
    label = replace(IMAGE, name="label")
    made = replace(
        made,
        manifest=replace(
            made.manifest,
            inputs=(label, IMAGE),
            after=(Step("add", ("label",), ("moved",)),),
            results=(replace(label, name="moved"),),
        ),
    )
    with runtime.open(made) as opened:
        results = opened.run({**FEED, "label": FEED["image"]})
    assert seen == [["image"]] and list(results) == ["moved"]


# ── machines and versions ─────────────────────────────────────────────────────────────────────────────


def bundle_for(arch="x86_64", cpu_features=(), **changes):
    made = small(**changes)
    return replace(made, manifest=replace(made.manifest, arch=arch, cpu_features=cpu_features))


@pytest.fixture
def here(monkeypatch):
    """This machine is a small x86 one."""
    record = replace(machine.record(), arch="x86_64", features=("avx2", "fma"))
    monkeypatch.setattr(machine, "record", lambda packages=(): record)


def test_machine_code_wants_its_architecture(stub, here):  # noqa: F811
    runtime.open(bundle_for(cpu_features=("avx2",), native=True)).close()
    with pytest.raises(MismatchError, match="aarch64, this machine is x86_64") as caught:
        runtime.open(bundle_for("aarch64", native=True))
    assert caught.value.exit_code == 4 and caught.value.hint
    with pytest.raises(MismatchError, match="avx512f, which"):
        runtime.open(bundle_for(cpu_features=("avx2", "avx512f"), native=True))
    assert len(stub.opened) == 1


def test_what_is_no_machine_code_opens_anywhere(stub, here):  # noqa: F811
    runtime.open(bundle_for("aarch64", ("sve",))).close()


@pytest.mark.parametrize(
    "built, found, native, fits",
    [
        ("1.32.0", "1.32.0", False, True),
        ("1.32.0", "1.33.0", False, True),
        ("1.32.0", "2.0", False, True),
        ("1.32.0", "1.9.0", False, False),
        ("0.27.0", "0.27.0", True, True),
        ("0.27.0", "0.27.1", True, False),
        ("0.27.0", "0.26.0", True, False),
    ],
)
def test_versions_of_the_vendor(stub, here, monkeypatch, built, found, native, fits):  # noqa: F811
    monkeypatch.setattr(Requirement, "version", lambda self: found)
    stub.requirements = (Requirement("json", "vendor", "vendor"),)
    made = bundle_for(built_with={"vendor": built, "compiler": "9"}, native=native)
    if fits:
        runtime.open(made).close()
        return
    with pytest.raises(MismatchError, match=f"compiled with vendor {built}, here is {found}") as caught:
        runtime.open(made)
    assert caught.value.hint == f"pip install 'vendor{'==' if native else '>='}{built}'"
    assert not stub.opened


def test_a_missing_vendor_is_unavailable(stub):  # noqa: F811
    stub.requirements = (Requirement("no_such_vendor", "no-such-vendor", "vendor"),)
    with pytest.raises(UnavailableError, match="not installed") as caught:
        runtime.open(bundle_for(built_with={"no-such-vendor": "1.0"}))
    assert caught.value.hint == "pip install 'edgekit[vendor]'"


def test_an_unknown_backend_is_a_mismatch():
    with pytest.raises(MismatchError, match="'stub', which this edgekit does not have"):
        runtime.open(small())


# ── several networks ─────────────────────────────────────────────────────────────────────────────────


def test_the_first_network_that_runs_here_is_opened(stub, here, monkeypatch):  # noqa: F811
    with runtime.open(several()) as opened:
        assert (opened.network_name, opened.passed_over) == ("first", {})
    monkeypatch.setattr(stub, "_open", refusing("first", stub._open))
    with runtime.open(several()) as opened:
        assert opened.network_name == "second"
        assert opened.passed_over == {"first": "no GPU for first"}
        np.testing.assert_array_equal(opened.run(FEED)["doubled"], 2 * FEED["image"])
    with runtime.open(several(), network="second") as opened:
        assert (opened.network_name, opened.passed_over) == ("second", {})
    with pytest.raises(UnavailableError, match=r"^no GPU for first\n"):
        runtime.open(several(), network="first")


def refusing(name, original):
    """``_open`` of a backend whose runtime is not there for one network."""

    def open_artifact(artifact, threads):
        if artifact.info.name == name:
            raise UnavailableError(f"no GPU for {name}\nand more", hint="buy one")
        return original(artifact, threads)

    return open_artifact


def test_no_network_that_runs_here_tells_of_each(stub, here, monkeypatch):  # noqa: F811
    monkeypatch.setattr(stub, "_open", refusing("first", stub._open))
    made = several(native=True)
    made = replace(made, manifest=replace(made.manifest, arch="aarch64"))
    with pytest.raises(MismatchError, match="none of the bundle's networks") as caught:
        runtime.open(made)
    lines = caught.value.message.splitlines()
    assert lines[1] == "  first: no GPU for first"
    assert lines[2].startswith("  second: the bundle holds machine code for aarch64")
    assert caught.value.hint == "buy one" and not stub.opened


def test_a_runtime_that_fails_is_not_passed_over(stub, monkeypatch):  # noqa: F811
    def broken(artifact, threads):
        raise ValueError("the engine is damaged")

    monkeypatch.setattr(stub, "_open", broken)
    with pytest.raises(SessionError, match="the engine is damaged"):
        runtime.open(several())


def test_an_unknown_network_is_a_usage_error(stub):  # noqa: F811
    with pytest.raises(UsageError, match="no network 'third': want one of first, second"):
        runtime.open(several(), network="third")


# ── a fresh process ───────────────────────────────────────────────────────────────────────────────────

HEAVY = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "tvm", "click", "rich", "scipy")


def fresh(script: str, *arguments: str) -> str:
    code = textwrap.dedent(script).replace("HEAVY", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(runtime.__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_runtime_loads_nothing_heavy():
    loaded = fresh("import sys, edgekit.runtime; print([name for name in HEAVY if name in sys.modules])")
    assert loaded == "[]"


def test_opening_loads_one_vendor_alone(tmp_path):
    from onnx import parser

    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[1,1,4,8] image) => (float[1,1,4,8] doubled)'
        " { doubled = Add(image, image) }"
    )
    made = small(
        {"model.onnx": model.SerializeToString()},
        backend="onnxruntime",
        inputs=(replace(IMAGE, dims=(1, 1, 4, 8)),),
        outputs=(replace(DOUBLED, dims=(1, 1, 4, 8)),),
    )
    bundle.write(made, tmp_path / "a.ekb")
    loaded = fresh(
        """
        import sys
        import numpy as np
        from edgekit import runtime
        with runtime.open(sys.argv[1], threads=1) as session:
            results = session.run({"image": np.ones((1, 1, 4, 8), np.float32)})
        assert results["doubled"].sum() == 64
        print([name for name in HEAVY if name in sys.modules])
        """,
        str(tmp_path / "a.ekb"),
    )
    assert loaded == "['onnxruntime']"
