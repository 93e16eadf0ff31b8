"""Every target file, and what a bad one is refused with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgekit import jetpack
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.errors import TargetError
from edgekit.machine import cpu_features
from edgekit.target import Target, find, known, read, with_jetpack

# GB/s, GiB, dense 1e12 operations per second in float32, tf32, float16, int8; multiprocessors, MHz;
# dense int8 of the accelerators; the vendor's headline figure.
JETSON = {
    "jetson-orin-nano-4gb": (34, 4, 0.64, 2.56, 5.12, 10.2, 4, 625, 0, 20),
    "jetson-orin-nano-4gb-super": (51, 4, 1.04, 4.2, 8.4, 16.7, 4, 1020, 0, 34),
    "jetson-orin-nano-8gb": (68, 8, 1.28, 5.12, 10.2, 20.5, 8, 625, 0, 40),
    "jetson-orin-nano-8gb-super": (102, 8, 2.09, 8.4, 16.7, 33.4, 8, 1020, 0, 67),
    "jetson-orin-nx-8gb": (102.4, 8, 1.57, 6.3, 12.5, 25.1, 8, 765, 10, 70),
    "jetson-orin-nx-8gb-super": (102.4, 8, 2.40, 9.6, 19.2, 38.4, 8, 1173, 20, 117),
    "jetson-orin-nx-16gb": (102.4, 16, 1.88, 7.5, 15.0, 30.1, 8, 918, 20, 100),
    "jetson-orin-nx-16gb-super": (102.4, 16, 2.40, 9.6, 19.2, 38.4, 8, 1173, 40, 157),
    "jetson-agx-orin-32gb": (204.8, 32, 3.33, 13.3, 26.7, 53.3, 14, 930, 46, 200),
    "jetson-agx-orin-64gb": (204.8, 64, 5.33, 21.3, 42.6, 85.3, 16, 1301, 52.5, 275),
    "jetson-thor-t4000": (273, 64, 4.7, 75, 150, 300, 12, 1530, 0, 1200),
    "jetson-thor-t5000": (273, 128, 8.06, 129, 258, 517, 20, 1575, 0, 2070),
    "jetson-agx-xavier": (136.5, 32, 1.41, None, 11.3, 22.6, 8, 1377, 11.4, 32),
    "jetson-xavier-nx-8gb": (59.7, 8, 0.84, None, 6.8, 13.5, 6, 1100, 7, 21),
    "jetson-xavier-nx-16gb": (59.7, 16, 0.84, None, 6.8, 13.5, 6, 1100, 7, 21),
}
# GB/s, 1e9 operations per second in float32 and int8, cores.
CPU = {
    "intel-n100": (38.4, 218, 870, 4),
    "intel-core-ultra-7-155h": (89.6, 1408, 5632, 16),
    "xeon-amx": (307, 7168, 229_376, 56),
    "raspberry-pi-5": (17, 154, 614, 4),
}
# Operations per clock and multiprocessor: float32, tf32, float16, int8.
RATES = {"8.7": (256, 1024, 2048, 4096), "11.0": (256, 4096, 8192, 16384)}


def test_the_folder_is_the_list() -> None:
    assert set(known()) == {*JETSON, *CPU, "x86-avx2", "x86-avx512"}
    assert find("cpu").name == "x86-avx2"
    assert find("jetson").name == "jetson-orin-nano-8gb"


@pytest.mark.parametrize("name", JETSON)
def test_jetson_figures(name: str) -> None:
    bandwidth, memory, float32, tf32, float16, int8, multiprocessors, clock, dla, headline = JETSON[name]
    target = known()[name]
    peak = {key: value / 1e12 for key, value in target.peak_ops_per_s.items()}
    assert target.gpu is not None
    assert target.bandwidth_bytes_per_s / 1e9 == bandwidth
    assert target.memory_bytes >> 30 == memory
    assert peak["float32"] == pytest.approx(float32, rel=0.01)
    assert peak.get("tf32") == (None if tf32 is None else pytest.approx(tf32, rel=0.01))
    assert peak["float16"] == pytest.approx(float16, rel=0.01)
    assert peak["int8"] == pytest.approx(int8, rel=0.01)
    assert (target.gpu.multiprocessors, target.gpu.clock_hz / 1e6) == (multiprocessors, clock)
    assert (target.dla.int8_ops_per_s / 1e12 if target.dla else 0) == dla
    assert target.advertised_ops_per_s == headline * 1e12


@pytest.mark.parametrize("name", [n for n in JETSON if known()[n].compute_capability in RATES])
def test_jetson_peaks_follow_from_clock_and_multiprocessors(name: str) -> None:
    target = known()[name]
    assert target.gpu is not None
    for precision, rate in zip(
        ("float32", "tf32", "float16", "int8"), RATES[target.compute_capability], strict=True
    ):
        derived = target.gpu.multiprocessors * target.gpu.clock_hz * rate
        assert target.peak_ops_per_s[precision] == pytest.approx(derived, rel=0.005), precision


@pytest.mark.parametrize("name", [n for n in JETSON if "orin" in n])
def test_orin_headline_is_the_sparse_sum(name: str) -> None:
    target = known()[name]
    total = target.peak_ops_per_s["int8"] + (target.dla.int8_ops_per_s if target.dla else 0)
    assert 2 * total == pytest.approx(target.advertised_ops_per_s, rel=0.03)  # rounded down to tens


def test_agx_orin_power_modes() -> None:
    modes = {m.name: m for m in known()["jetson-agx-orin-64gb"].power_modes}
    sparse = {
        name: (2 * (m.int8_ops_per_s or 0) / 1e12, 2 * (m.dla_int8_ops_per_s or 0) / 1e12)
        for name, m in modes.items()
    }
    assert sparse["15W"] == (14, 40) and sparse["30W"] == (41, 90) and sparse["50W"] == (109, 92)
    assert sparse["MAXN"] == (pytest.approx(171, rel=0.01), 105)


@pytest.mark.parametrize("name", CPU)
def test_cpu_figures(name: str) -> None:
    bandwidth, float32, int8, cores = CPU[name]
    target = known()[name]
    assert target.cpu is not None and target.cpu.cores == cores
    assert target.bandwidth_bytes_per_s / 1e9 == pytest.approx(bandwidth, rel=0.005)
    assert target.peak_ops_per_s["float32"] / 1e9 == pytest.approx(float32, rel=0.005)
    assert target.peak_ops_per_s["int8"] / 1e9 == pytest.approx(int8, rel=0.005)


@pytest.mark.parametrize("name", known())
def test_every_target_is_complete(name: str) -> None:
    target = known()[name]
    assert target.sources, "a figure without a source"
    # Compiling for a Jetson comes with its backend; the other names are all registered.
    assert set(target.backends) <= {*BACKENDS, "tensorrt"}
    # Only extensions that a machine's record states can be compared with one.
    assert set(target.cpu_features) == set(cpu_features(f"flags : {' '.join(target.cpu_features)}"))
    budgets = [m.watts for m in target.power_modes if m.watts is not None]
    assert budgets == sorted(budgets)
    for backend in target.options:
        assert backend in target.backends


# SM, MHz of the GPU and of the memory, in the mode that a device of each kind starts in or people choose.
MODES = {
    ("jetson-orin-nano-8gb", "7W"): (4, 408, 2133),
    ("jetson-orin-nano-8gb-super", "25W"): (8, 918, 3199),
    ("jetson-orin-nx-16gb", "15W"): (4, 612, 3199),
    ("jetson-orin-nx-16gb-super", "40W"): (8, 1173, 3199),
    ("jetson-agx-orin-64gb", "30W"): (8, 612, 3199),
    ("jetson-agx-orin-32gb", "40W"): (14, 816, 3199),
    ("jetson-agx-xavier", "10W"): (4, 520, 1065.6),
    ("jetson-xavier-nx-8gb", "20W_6CORE"): (6, 1109.25, 1866),
    ("jetson-thor-t5000", "120W"): (None, 1049, None),
}


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_power_modes(name: str, mode: str) -> None:
    found = next(m for m in known()[name].power_modes if m.name == mode)
    clocks = [hz and hz / 1e6 for hz in (found.gpu_clock_hz, found.memory_clock_hz)]
    assert (found.multiprocessors, *clocks) == MODES[name, mode]


@pytest.mark.parametrize("name", JETSON)
def test_no_power_mode_exceeds_its_module(name: str) -> None:
    target = known()[name]
    assert target.gpu is not None
    for mode in target.power_modes:
        assert (mode.multiprocessors or 0) <= target.gpu.multiprocessors
        assert (mode.gpu_clock_hz or 0) <= target.gpu.clock_hz * 1.01
        assert (mode.bandwidth_bytes_per_s or 0) <= target.bandwidth_bytes_per_s * 1.01


def test_bandwidths_follow_from_the_memory_s_clock_and_bus() -> None:
    widths = {"jetson-orin-nano-4gb": 64, "jetson-agx": 256, "jetson": 128}
    for target in known().values():
        bits = next((bits for name, bits in widths.items() if target.name.startswith(name)), None)
        for mode in target.power_modes:
            if mode.memory_clock_hz and bits:
                derived = mode.memory_clock_hz * 2 * bits / 8
                assert mode.bandwidth_bytes_per_s == pytest.approx(derived, rel=0.005), target.name


@pytest.mark.parametrize("name", JETSON)
def test_each_jetpack_of_a_module(name: str) -> None:
    device = known()[name]
    assert device.jetpacks == tuple(sorted(device.jetpacks))
    for version in device.jetpacks:
        chosen = with_jetpack(device, version)
        assert chosen.software == jetpack.JETPACKS[version].software
        for key in ("tensorrt", "cuda", "glibc", "python", "ubuntu", "l4t"):
            assert chosen.software[key]
        assert dataclasses.replace(chosen, software=device.software, unverified=device.unverified) == device
    assert with_jetpack(device, device.software["jetpack"]) == device


def test_what_is_unverified_goes_with_the_jetpack() -> None:
    device = find("jetson")
    assert not any(key.startswith("software") for key in device.unverified)
    six = with_jetpack(device, "6.0")
    assert six.is_unverified("software.cuda") and not six.is_unverified("software.tensorrt")
    assert with_jetpack(six, "6.2") == device


@pytest.mark.parametrize(
    ("name", "version", "complaint", "hint"),
    [
        ("jetson-agx-xavier", "6.2", "does not run JetPack 6.2: want 5.1", "--jetpack 5.1"),
        (
            "jetson-orin-nano-8gb-super",
            "5.1.2",
            "does not run JetPack 5.1.2: want 6.2, 7.2",
            "--target jetson-orin-nano-8gb --jetpack 5.1",
        ),
        ("jetson", "4.6", "unknown JetPack '4.6': want one of 5.1, 6.0", "edgekit targets NAME"),
        ("cpu", "6.2", "has no JetPack", "edgekit targets"),
    ],
)
def test_a_jetpack_that_a_module_does_not_run(name: str, version: str, complaint: str, hint: str) -> None:
    with pytest.raises(TargetError, match=complaint) as refused:
        with_jetpack(find(name), version)
    assert refused.value.where == "--jetpack" and hint in (refused.value.hint or "")


def test_unverified_names_a_figure_or_its_table() -> None:
    target = known()["jetson-agx-xavier"]
    assert target.is_unverified("peak_ops_per_s.int8") and not target.is_unverified("peak_ops_per_s.float32")
    assert known()["jetson-thor-t5000"].is_unverified("power_modes.MAXN.watts")
    for key in ("peak_ops_per_s.fp4", "no_such_key", "power_modes.99W"):
        with pytest.raises(TargetError, match="does not state"):
            dataclasses.replace(target, unverified=(key,))


@pytest.mark.parametrize("name", ["jetsn", "jetson-orin-nano", "rasberry-pi-5", "CPU"])
def test_unknown_name_has_a_near_miss(name: str) -> None:
    with pytest.raises(TargetError) as caught:
        find(name)
    assert caught.value.where == "--target"
    assert "did you mean" in (caught.value.hint or "")


MINIMAL = """
name = "mine"
title = "Mine"
arch = "x86_64"
device = "cpu"
memory_bytes = 1_000_000
bandwidth_bytes_per_s = 1e9
threads = 2
backends = ["reference"]
precisions = ["float32"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[options.tvm]\nmcpu = "znver3"\n')
    target = find(str(path))
    assert isinstance(target, Target)
    assert target.options_for("tvm") == {"mcpu": "znver3"} and target.options_for("openvino") == {}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("threads = 2", ""), "'threads' is missing"),
        (lambda text: text.replace("threads = 2", 'threads = "2"'), "want int"),
        (lambda text: text.replace("threads = 2", "threads = -1"), "threads 0 or more"),
        (lambda text: text.replace('"reference"', ""), "at least one name"),
        (lambda text: text.replace('"cpu"', '"cuda"'), "every CUDA device has both"),
        (lambda text: text.replace('"cpu"', '"gpu"'), "want one of 'cpu', 'cuda'"),
        (lambda text: text.replace("1e9", "0.0"), "positive"),
        (lambda text: text + "tirheads = 3\n", "unknown key 'tirheads'"),
        (lambda text: text + "[peak_ops_per_s]\nfloat23 = 1e9\n", "no precision 'float23'"),
        (lambda text: text + 'jetpacks = ["6.3"]\n', "jetpacks names '6.3'"),
        (lambda text: text + 'jetpacks = ["6.2"]\n', "belong together"),
        (lambda text: text + '[software]\njetpack = "6.2"\n', "belong together"),
        (
            lambda text: text + 'jetpacks = ["6.2"]\n[software]\njetpack = "6.1"\n',
            "does not run JetPack 6.1: want 6.2",
        ),
        (lambda text: text + "x = [\n", "not a TOML file"),
        (lambda text: text + "#" * (65 << 10), "at most"),
        (lambda text: text.replace('"mine"', '"yours"'), "yours.toml"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, change: object, complaint: str) -> None:
    path = write(tmp_path, change(MINIMAL))  # type: ignore[operator]
    with pytest.raises(TargetError, match=complaint) as caught:
        read(path)
    assert str(path) in (caught.value.where or "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot read"):
        find(str(tmp_path / "none.toml"))


def test_a_name_that_two_targets_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MINIMAL)
    (tmp_path / "other.toml").write_text(MINIMAL.replace('"mine"', '"other"') + 'aliases = ["mine"]\n')
    monkeypatch.setattr(targets, "folder", lambda: tmp_path)
    known.cache_clear()
    try:
        with pytest.raises(TargetError, match="names both"):
            known()
    finally:
        known.cache_clear()
