"""Build plans as data: every Jetson with every JetPack, and what each version of TensorRT has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_engines import orin

from edgekit import target as targets
from edgekit.backends.tensorrt import plan, versions
from edgekit.backends.tensorrt.plan import BuildPlan, Dla, Profile
from edgekit.errors import CorruptError, MismatchError, UsageError
from edgekit.jetpack import JETPACKS
from edgekit.spec import Dim, TensorSpec
from edgekit.target import Target

VOLUME = TensorSpec("ct", "float32", (1, 1, Dim(32, 96, 16), Dim(64, 100, 8), 96), "NCDHW")
FIXED = TensorSpec("ct", "float32", (1, 1, 64, 64), "NCHW")


def every_device() -> list[Target]:
    jetsons = [device for device in targets.known().values() if device.device == "cuda"]
    return [targets.with_jetpack(device, version) for device in jetsons for version in device.jetpacks]


def test_every_jetpack_of_every_module_has_a_plan():
    devices = every_device()
    assert {device.software["jetpack"] for device in devices} == set(JETPACKS)
    for device in devices:
        version = versions.parse(device.software["tensorrt"])
        strongly = versions.abilities(version).strong_typing
        made = plan.make(device, (VOLUME,), strongly_typed=strongly)
        assert BuildPlan.from_json(made.to_json()) == made
        assert made.compute_capability == device.compute_capability
        assert made.workspace_bytes * 8 == device.memory_bytes == made.tactic_dram_bytes * 2
        assert ("EDITABLE_TIMING_CACHE" in made.flags) == (version >= (10, 8))
        assert ("DISTRIBUTIVE_INDEPENDENCE" in made.flags) == (version >= (10, 13))


def test_shapes_lie_on_the_steps_of_their_ranges():
    (found,) = plan.profiles((VOLUME, FIXED))
    assert found == Profile("ct", (1, 1, 32, 64, 96), (1, 1, 64, 80, 96), (1, 1, 96, 96, 96))
    assert plan.profiles((FIXED,)) == ()


def test_a_weakly_typed_plan_says_what_layers_may_compute_in():
    made = plan.make(
        orin("8.5.2"),
        (FIXED,),
        strongly_typed=False,
        precisions=frozenset({"float16", "int8"}),
        calibration=plan.CALIBRATION,
        layer_precisions={"norm": "fp32"},
    )
    assert made.flags == ("FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS")
    assert plan.make(orin("8.5.2"), (FIXED,), strongly_typed=False, tf32=False).flags == ()


@pytest.mark.parametrize(
    ("version", "changes", "message"),
    [
        ("8.5.2", {"strongly_typed": True}, "no strongly typed"),
        ("11.1", {"strongly_typed": False}, "strongly typed networks alone"),
        ("10.3", {"strongly_typed": True, "precisions": frozenset({"int8"})}, "none in the plan"),
        ("10.3", {"strongly_typed": True, "calibration": "c"}, "none in the plan"),
        ("10.3", {"strongly_typed": True, "optimization_level": 6}, "0 to 5, got 6"),
        ("10.3", {"strongly_typed": False, "dla_core": 0}, "has no accelerators"),
        ("9.3", {"strongly_typed": True}, "want 8.5, 8.6, or 10.0"),
        ("", {"strongly_typed": True}, "got none"),
    ],
)
def test_what_a_version_has_not_is_refused(version, changes, message):
    with pytest.raises(UsageError, match=message):
        plan.make(orin(version), (FIXED,), **changes)


def test_accelerators_are_those_of_the_module_and_of_the_version():
    device = targets.with_jetpack(targets.find("jetson-agx-orin-64gb"), "6.2")
    made = plan.make(device, (FIXED,), strongly_typed=False, dla_core=1, precisions=frozenset({"int8"}))
    assert made.dla == Dla(1, sram_bytes=device.dla.sram_bytes or 1 << 20)
    assert "GPU_FALLBACK" in made.flags
    with pytest.raises(UsageError, match="has 2 accelerators"):
        plan.make(device, (FIXED,), strongly_typed=False, dla_core=2)
    later = replace(device, software={**device.software, "tensorrt": "10.16.2"})
    with pytest.raises(UsageError, match="does not compile for accelerators"):
        plan.make(later, (FIXED,), strongly_typed=False, dla_core=0)


def test_tactics_can_be_pinned_from_10_on():
    made = plan.make(orin("10.16.2"), (FIXED,), strongly_typed=True)
    assert replace(made, pinned=True).pinned
    with pytest.raises(UsageError, match="cannot be held"):
        replace(plan.make(orin("8.6.2"), (FIXED,), strongly_typed=False), pinned=True)


@pytest.mark.parametrize("found", ["10.3.0", "10.16.2.10", "11.1.0.106"])
def test_a_strongly_typed_network_is_for_later_versions_too(found):
    made = plan.make(orin("10.3"), (FIXED,), strongly_typed=True).on(found)
    assert made.tensorrt == found and "INT8" not in made.flags


@pytest.mark.parametrize(
    ("made_for", "found"), [("10.16.2", "10.3.0"), ("8.5.2", "10.3.0"), ("8.6.2", "8.5.2"), ("10.3", "8.6.2")]
)
def test_another_version_is_refused(made_for, found):
    made = plan.make(orin(made_for), (FIXED,), strongly_typed=not made_for.startswith("8"))
    with pytest.raises(MismatchError, match=f"prepared for TensorRT {made_for}, here is {found}") as caught:
        made.on(found)
    assert caught.value.exit_code == 4 and "--jetpack" in caught.value.hint


def test_what_is_no_plan_is_refused():
    made = plan.make(orin(), (FIXED,), strongly_typed=True)
    for damaged in (b"{", b"[]", made.to_json().replace(b'"flags"', b'"flag"'), b"\xff"):
        with pytest.raises(CorruptError):
            BuildPlan.from_json(damaged)
    with pytest.raises(CorruptError, match="no strongly typed"):
        BuildPlan.from_json(made.to_json().replace(b'"10.3"', b'"8.5"'))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("8.5.2", 8502), ("8.5", 8502), ("8.6.2", 8602), ("10.3", 100300), ("10.16.2", 101602)],
)
def test_a_version_is_one_number_in_files(text, wanted):
    assert versions.number(text) == wanted
