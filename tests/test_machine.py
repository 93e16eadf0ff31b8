from __future__ import annotations

import json

import numpy as np
import pytest

from edgekit import machine, schema
from edgekit.errors import CorruptError
from edgekit.machine import Machine

X86 = """processor : 0
vendor_id : GenuineIntel
model name : Intel(R) N100
flags : fpu sse4_2 avx2 f16c fma avx_vnni
processor : 1
model name : Intel(R) N100
flags : fpu sse4_2 avx2 f16c fma avx_vnni
"""
PI = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes fphp asimdhp cpuid asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

Revision\t: d04170
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_an_intel_processor_is_named_once_with_its_features() -> None:
    assert machine.cpu_name(X86) == "Intel(R) N100"
    assert machine.cpu_features(X86) == ("sse4_2", "avx2", "fma", "f16c", "avx_vnni")


def test_an_arm_board_is_named_with_its_cores() -> None:
    assert machine.cpu_name(PI, "Raspberry Pi 5 Model B Rev 1.0\0") == (
        "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"
    )
    assert machine.cpu_features(PI) == ("asimd", "asimddp", "asimdhp")


def test_cores_of_two_kinds_and_unknown_ones_are_all_told() -> None:
    text = "".join(
        f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd05", "0xd0b", "0xd05", "0xfff")
    )
    assert machine.cpu_name(text) == "Cortex-A55 + Cortex-A76 + Arm implementer 0x41 part 0xfff"


@pytest.mark.parametrize("text", ["", "model name", ":\n::\n", "\0\0", "flags :\n"])
def test_any_text_gives_a_name(text: str) -> None:
    assert machine.cpu_name(text)
    assert machine.cpu_features(text) == ()


@pytest.mark.parametrize(
    ("text", "processors"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("-1 100000", None), ("", None), ("1 0", None)],
)
def test_quota_of_a_container(text: str, processors: float | None) -> None:
    assert machine.cpu_quota(text) == processors


def test_a_quota_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    free = machine.usable_cores()
    monkeypatch.setattr(machine, "_read", lambda path: "50000 100000" if path.name == "cpu.max" else "")
    assert machine.usable_cores() == 1
    old = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
    monkeypatch.setattr(machine, "_read", lambda path: old.get(path.name, ""))
    assert machine.usable_cores() == min(2, free)


def test_the_record_of_this_machine_is_complete_and_survives_json() -> None:
    record = machine.record(["numpy", "no-such-distribution"])
    assert record.cpu and record.system and record.cores >= 1 and record.memory_bytes > 1 << 26
    assert record.packages == {"numpy": np.__version__}
    text = json.dumps(schema.encode(record))
    assert schema.decode(Machine, json.loads(text), error=CorruptError, where="machine") == record


def test_nothing_to_read_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: "")
    record = machine.record()
    assert record.cores >= 1 and record.cpu
    assert machine.peak_memory_bytes() > 0


def test_peak_memory_grows_with_what_is_used() -> None:
    before = machine.peak_memory_bytes()
    block = np.ones(before // 8 + (64 << 20) // 8)
    assert machine.peak_memory_bytes() >= before + (32 << 20)
    del block
    assert machine.peak_memory_bytes() >= before + (32 << 20), "a peak does not fall"
