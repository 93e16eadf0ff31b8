"""What the files of a Jetson tell, and what is made of files that make no sense.

The trees are written after published layouts; none was recorded on a device of ours.
"""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path

import pytest
from sample_jetsons import TREES, meminfo, nvpmodel, packages, tree, write

from edgekit import jetson
from edgekit.jetson import Clock, Jetson, Mode, detect
from edgekit.target import Match, find, matching, with_jetpack


def found(root: Path, name: str) -> Jetson:
    board = detect(tree(root, name))
    assert board
    return board


def test_an_orin_nano_with_jetpack_6(tmp_path: Path) -> None:
    board = found(tmp_path, "orin-nano-super-jetpack-6")
    free = board.free_disk_bytes
    assert free and free > 0
    assert dataclasses.replace(board, free_disk_bytes=None, modes=board.modes[1:3]) == Jetson(
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        module="p3767-0005",
        chip="tegra234",
        super_clocks=True,
        l4t="36.4.3",
        jetpack="6.2",
        tensorrt="10.3.0.30",
        cuda="12.6.68",
        cudnn="9.3.0.75",
        mode=Mode(1, "25W", 6, 240, 918e6, 3199e6),
        modes=(Mode(1, "25W", 6, 240, 918e6, 3199e6), Mode(2, "MAXN_SUPER", 6, 240)),
        gpu_clock=Clock(306e6, 306e6, 918e6),
        memory_clock=Clock(highest_hz=3199e6),
        multiprocessors=8,
        memory_bytes=7_802_384 << 10,
        free_memory_bytes=5_123_456 << 10,
    )
    assert [mode.name for mode in board.modes] == ["15W", "25W", "MAXN_SUPER", "7W"]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("orin-nx-jetpack-6", ("p3767-0000", "36.3.0", "6.0", "8.6.2.3", "12.2.140", "15W", 612, 4)),
        ("agx-orin-jetpack-5", ("p3701-0005", "35.4.1", "5.1.2", "8.5.2", "11.4.298", "30W", 612, 8)),
        ("agx-xavier-jetpack-5", ("p2888-0004", "35.3.1", "5.1.1", "", "", "10W", 520, 4)),
        ("thor-jetpack-7", ("p3834-0008", "38.2.1", "7.0", "10.13.3.9", "13.0.48", "MAXN", 1575, None)),
    ],
)
def test_other_layouts(name: str, facts: tuple[object, ...], tmp_path: Path) -> None:
    board = found(tmp_path, name)
    assert board.mode and board.gpu_clock.highest_hz
    highest = round(board.gpu_clock.highest_hz / 1e6)
    software = (board.l4t, board.jetpack, board.tensorrt, board.cuda)
    assert (board.module, *software, board.mode.name, highest, board.multiprocessors) == facts
    assert not board.super_clocks


def test_what_the_kernel_has_switched_off_counts_before_what_comes_with_the_next_start(
    tmp_path: Path,
) -> None:
    name = "orin-nano-super-jetpack-6"
    write(tree(tmp_path, name), {"sys/devices/platform/gpu.0/tpc_pg_mask": "0xfc\n"})
    assert detect(tmp_path).multiprocessors == 4  # type: ignore[union-attr]
    write(tmp_path, {"sys/devices/platform/gpu.0/tpc_pg_mask": "0\n"})
    assert detect(tmp_path).multiprocessors == 8  # type: ignore[union-attr]
    write(tmp_path, {"sys/devices/platform/gpu.0/tpc_pg_mask": "255\n"})
    assert detect(tmp_path).multiprocessors is None  # type: ignore[union-attr]


def test_the_memory_s_clock_is_for_root_and_its_limit_for_all(tmp_path: Path) -> None:
    assert found(tmp_path, "agx-orin-jetpack-5").memory_clock == Clock(now_hz=2133e6)


def test_this_machine_is_no_jetson(tmp_path: Path) -> None:
    assert detect(tmp_path) is None
    assert detect(tmp_path / "nowhere") is None
    write(tmp_path, {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"})
    assert detect(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "target", "version"),
    [
        ("orin-nano-super-jetpack-6", "jetson-orin-nano-8gb-super", "6.2"),
        ("orin-nx-jetpack-6", "jetson-orin-nx-16gb", "6.0"),
        ("agx-orin-jetpack-5", "jetson-agx-orin-64gb", "5.1"),
        ("agx-xavier-jetpack-5", "jetson-agx-xavier", "5.1"),
        ("thor-jetpack-7", "jetson-thor-t5000", "7.0"),
    ],
)
def test_its_target(name: str, target: str, version: str, tmp_path: Path) -> None:
    board = found(tmp_path, name)
    assert matching(board).target == with_jetpack(find(target), version)
    # Without any number of a module: by chip, memory and name.
    assert matching(dataclasses.replace(board, module="")).target == with_jetpack(find(target), version)


def test_in_what_it_differs(tmp_path: Path) -> None:
    board = found(tmp_path, "orin-nano-super-jetpack-6")
    slow = "power mode 25W allows the GPU 918 of 1020 MHz"
    assert matching(board).mismatches == (slow,)
    for change, mismatch in (
        ({"tensorrt": "10.7.0"}, "TensorRT 10.7.0 is installed, JetPack 6.2 has 10.3"),
        ({"cuda": "12.2.140"}, "CUDA 12.2.140 is installed, JetPack 6.2 has 12.6"),
        ({"multiprocessors": 4}, "power mode 25W leaves 4 of 8 multiprocessors on"),
        ({"memory_bytes": 4 << 30}, "4.0 GiB of memory, Jetson Orin Nano 8GB Super has 8"),
        ({"l4t": "35.4.1"}, "JetPack 5.1.2 is none that Jetson Orin Nano 8GB Super runs: 6.2, 7.2"),
        ({"l4t": ""}, "Jetson Linux of an unknown version belongs to no JetPack that is known here"),
    ):
        mismatches = matching(dataclasses.replace(board, **change)).mismatches  # type: ignore[arg-type]
        assert mismatch in mismatches and slow in mismatches, change
    fast = dataclasses.replace(board, gpu_clock=Clock(306e6, 306e6, 1020e6))
    assert matching(fast).mismatches == ()


def test_a_module_that_is_none_of_the_known_ones() -> None:
    assert matching(Jetson(module="p9999-0001")) == Match(
        None, ("p9999-0001 is no module that is known here",)
    )
    assert matching(Jetson()).target is None
    # 8 GB of an Orin: a Nano or an NX.
    unclear = matching(Jetson(chip="tegra234", memory_bytes=7 << 30))
    assert unclear.target is None and "jetson-orin-nx-8gb" in unclear.mismatches[0]


GARBAGE = {
    "empty": b"",
    "binary": random.Random(7).randbytes(4096),
    "zeros": bytes(4096),
    "lines": b"\n" * 100_000,
    "spaces": b" " * 100_000,
    "digits": b"9" * 100_000,
    "brackets": b"<" * 100_000,
    "words": b"A" * 100_000,
    "a mode without an end": b"< POWER_MODEL ID=0 NAME=" + b"M" * 100_000,
    "another's file": TREES["orin-nano-super-jetpack-6"]["etc/nvpmodel.conf"].encode(),
    "negative": b"-5\n",
    "not UTF-8": "pmode:0001".encode("utf-16"),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("name", TREES)
def test_a_file_that_makes_no_sense_is_a_fact_less(kind: str, name: str, tmp_path: Path) -> None:
    """One file after the other is spoiled, then all: nothing raises, and the other facts are still there."""
    whole = found(tmp_path, name)
    for path, content in TREES[name].items():
        write(tmp_path, {path: GARBAGE[kind]})
        board = detect(tmp_path)
        if path != "proc/device-tree/compatible":
            assert board and board.chip == whole.chip
        if board:
            assert isinstance(matching(board).mismatches, tuple)
        write(tmp_path, {path: content})
    write(tmp_path, dict.fromkeys(TREES[name], GARBAGE[kind]))
    write(tmp_path, {"proc/device-tree/compatible": "nvidia,tegra234"})
    board = detect(tmp_path)
    assert board and not board.jetpack and not board.module and not board.tensorrt
    assert matching(board).target is None


@pytest.mark.parametrize("seed", range(5))
def test_files_cut_off_anywhere(seed: int, tmp_path: Path) -> None:
    draws = random.Random(seed)
    for name in TREES:
        cut = {path: text[: draws.randrange(len(text))] for path, text in TREES[name].items()}
        board = detect(write(tmp_path / name, cut))
        if board:
            matching(board)


def test_what_is_no_file_and_what_may_not_be_read(tmp_path: Path) -> None:
    root = tree(tmp_path, "orin-nano-super-jetpack-6")
    for path, spoil in (
        ("etc/nvpmodel.conf", lambda p: p.mkdir()),
        ("var/lib/nvpmodel/status", lambda p: os.mkfifo(p)),  # opening it would wait for a writer
        ("proc/meminfo", lambda p: p.symlink_to(p)),
        ("etc/nv_boot_control.conf", lambda p: p.symlink_to("/dev/zero")),
    ):
        (root / path).unlink()
        spoil(root / path)
    board = detect(root)
    assert board and board.jetpack == "6.2" and board.module == "p3767-0005"
    assert board.mode is None and board.memory_bytes is None


def test_a_huge_file_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson, "_MAX_PACKAGES_BYTES", 10_000)
    many = packages(*(f"package{number} 1.0" for number in range(10_000)), "libnvinfer10 10.3.0-1")
    root = write(tree(tmp_path, "thor-jetpack-7"), {"var/lib/dpkg/status": many})
    board = detect(root)
    assert board and board.tensorrt == "" and board.jetpack == "7.0"


def test_modes_of_an_unusual_file(tmp_path: Path) -> None:
    text = nvpmodel(5, "3 MODE_20W 4 1 -1 0", "3 TWICE 4 1 -1 0").replace("CPU_ONLINE", "OTHER")
    root = write(tree(tmp_path, "orin-nx-jetpack-6"), {"etc/nvpmodel.conf": text})
    board = detect(root)
    assert board and board.modes == (Mode(3, "TWICE", None, 1),) and board.mode is None
    assert jetson._memory(meminfo(1, 2))["MemAvailable"] == 2048
