"""The benchmarks' own arithmetic, and that the README shows what was measured."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.kernels.base import OPERATORS

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The benchmarks' modules, which are scripts and not a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _harness
    import bench_kernels
    import kernel_cases
    import kernel_goals
    import peers
    import report_kernels

    yield SimpleNamespace(
        harness=_harness,
        kernels=bench_kernels,
        cases=kernel_cases,
        goals=kernel_goals,
        peers=peers,
        report=report_kernels,
    )
    for name in [name for name in sys.modules if name.partition(".")[0] in sys_modules_of(BENCHMARKS)]:
        del sys.modules[name]


def sys_modules_of(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def test_pages_show_the_figures_kept(bench: SimpleNamespace) -> None:
    report = json.loads(bench.report.SUMMARY.read_text(encoding="utf-8"))
    for page, content in (
        (bench.report.README, bench.report.headlines(report)),
        (bench.report.PAGE, bench.report.markdown(report)),
    ):
        assert bench.report.section(page.read_text(encoding="utf-8")) == content


def test_denoising_page_shows_the_figures_kept(bench: SimpleNamespace) -> None:
    import bench_denoise as denoise

    kept = json.loads(denoise.KEPT.read_text(encoding="utf-8"))
    rows = [denoise.Row(**row) for row in kept["rows"]]
    page = denoise.PAGE.read_text(encoding="utf-8")
    shown = page.partition(f"{denoise.BEGIN}\n")[2].partition(f"\n{denoise.END}")[0]
    assert shown == denoise.page_section(rows, kept["cpu"])


def test_registration_page_shows_the_figures_kept(bench: SimpleNamespace) -> None:
    import bench_registration as registration

    kept = json.loads(registration.KEPT.read_text(encoding="utf-8"))
    page = registration.PAGE.read_text(encoding="utf-8")
    shown = page.partition(f"{registration.BEGIN}\n")[2].partition(f"\n{registration.END}")[0]
    assert shown == registration.page_section(kept)


def test_page_of_tvm_shows_the_figures_kept(bench: SimpleNamespace) -> None:
    import bench_tvm

    kept = json.loads(bench_tvm.KEPT.read_text(encoding="utf-8"))
    page = bench_tvm.PAGE.read_text(encoding="utf-8")
    shown = page.partition(f"{bench_tvm.BEGIN}\n")[2].partition(f"\n{bench_tvm.END}")[0]
    assert shown == bench_tvm.page_section(kept)


def test_a_peer_is_answered_by_what_is_as_good_and_faster(bench: SimpleNamespace) -> None:
    import bench_denoise as denoise

    def row(method: str, psnr_db: float, time_s: float) -> denoise.Row:
        return denoise.Row("kind", method, {}, psnr_db, 0.5, time_s)

    ours = [row("edgekit a", 30.0, 1.0), row("edgekit b", 32.0, 4.0), row("edgekit c", 31.95, 3.0)]
    assert denoise.answer(row("peer", 32.04, 3.5), ours) == ours[2]
    assert denoise.answer(row("peer", 32.2, 9.0), ours) is None  # none is as good
    assert denoise.answer(row("peer", 29.0, 0.5), ours) is None  # none is as fast
    rows = [*ours, row("peer", 29.0, 0.5), row("peer", 32.0, 9.0), row("slow", 29.0, 99.0)]
    best, others = denoise.unanswered(rows)
    assert best == [] and [each.time_s for each in others] == [0.5]
    assert denoise.front(rows[:3]) == [ours[0], ours[2], ours[1]]


def test_figures_kept_are_few(bench: SimpleNamespace) -> None:
    text = bench.report.SUMMARY.read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert "samples" not in text


def test_cases_and_goals_name_what_there_is(bench: SimpleNamespace) -> None:
    labels = [(case.kernel, case.label) for case in bench.cases.CASES]
    assert len(set(labels)) == len(labels)
    assert {kernel for kernel, _ in labels} == set(OPERATORS)
    names = {peer.name for peer in bench.peers.every_peer()}
    for goal in bench.goals.GOALS:
        assert (goal.kernel, goal.case) in labels
        assert goal.against in names | {bench.goals.BOUND, bench.goals.ONE_THREAD, bench.goals.NUMBA}
    for peer in bench.peers.every_peer():
        assert set(peer.kernels) <= {kernel for kernel, _ in labels}


def test_a_slow_function_has_fewer_turns(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    took_ns = {"slow": 2_000_000_000, "fast": 100_000}
    order: list[str] = []

    def timed(function: Callable[[], str]) -> tuple[int, int]:
        order.append(function())
        return took_ns[order[-1]], 1

    monkeypatch.setattr(bench.harness, "timed", timed)
    functions = {name: partial(str, name) for name in took_ns}
    samples = bench.harness.interleave(functions, repeats=12, limit_s=8)
    assert samples["slow"].wall_ns == [took_ns["slow"]] * 4
    assert samples["fast"].wall_ns == [took_ns["fast"]] * 12 * (bench.harness.TURN_CALLS - 1)
    assert [name for name, _ in itertools.groupby(order)] == ["slow", "fast"] * 5  # the first does not count


def test_only_a_turn_of_one_call_begins_with_a_pause(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    took_ns = {"slow": 2_000_000_000, "fast": 100_000}
    events: list[object] = []

    def timed(function: Callable[[], str]) -> tuple[int, int]:
        events.append(function())
        return took_ns[str(events[-1])], 1

    monkeypatch.setattr(bench.harness, "timed", timed)
    monkeypatch.setattr(bench.harness.time, "sleep", events.append)
    functions = {name: partial(str, name) for name in took_ns}
    bench.harness.interleave(functions, repeats=1, pause_s=0.5)
    assert [event for event, _ in itertools.groupby(events)] == ["slow", "fast", 0.5, "slow", "fast"]


@pytest.mark.parametrize(("share", "agrees"), [(0.0005, True), (0.002, False)])
def test_few_values_may_differ_without_a_reason(bench: SimpleNamespace, share: float, agrees: bool) -> None:
    want = np.linspace(-2, 2, 10_000, dtype=np.float32)
    got = want.copy()
    got[: int(share * want.size)] += 1
    found = bench.kernels.agreement(want, got, exact=False, differs="")
    assert found["agrees"] is agrees
    assert found["share"] == pytest.approx(share)
    assert found["largest"] == pytest.approx(1)
    assert bench.kernels.agreement(want, got, exact=False, differs="a reason")["agrees"]


def test_whole_numbers_may_be_rounded_but_labels_not(bench: SimpleNamespace) -> None:
    want = np.arange(100, dtype=np.uint8)
    assert bench.kernels.agreement(want, want + 1, exact=False, differs="")["agrees"]
    assert not bench.kernels.agreement(want, want + 1, exact=True, differs="")["agrees"]
    assert not bench.kernels.agreement(want, want + 2, exact=False, differs="")["agrees"]


def test_not_a_number_is_a_difference(bench: SimpleNamespace) -> None:
    want = np.ones(4, np.float32)
    assert bench.kernels.agreement(want, want * np.nan, exact=False, differs="")["share"] == 1


def test_ratios_of_goals(bench: SimpleNamespace) -> None:
    runs = {"edgekit": {"least_cpu_s": 2.0}, "torch layer": {"least_cpu_s": 30.0}}
    results = [
        {"kernel": "compose", "case": "c", "threads": 1, "bound_s": 0.5, "runs": runs},
        {"kernel": "compose", "case": "c", "threads": 2, "scaling": {"speedup": 1.8}},
    ]
    for against, want in (("torch layer", 15), ("bound", 0.25), ("one thread", 1.8), ("SimpleITK", None)):
        assert bench.goals.reached(bench.goals.Goal("compose", "c", against, 1), results) == want
    assert bench.goals.reached(bench.goals.Goal("warp", "c", "bound", 1), results) is None


def test_a_goal_is_a_lower_or_an_upper_limit(bench: SimpleNamespace) -> None:
    least, most = (bench.goals.Goal("warp", "c", "bound", 2, at_most) for at_most in (False, True))
    assert [least.met(ratio) for ratio in (1.9, 2, 2.1)] == [False, True, True]
    assert [most.met(ratio) for ratio in (1.9, 2, 2.1)] == [True, True, False]


def test_peers_agree_on_small_cases(bench: SimpleNamespace) -> None:
    """Those that the tests' own dependencies bring along."""
    families = ("numpy", "scipy", "onnxruntime", "openvino")
    there = [peer for peer in bench.peers.every_peer() if set(peer.packages) <= set(families) | {"onnx"}]
    compared = 0
    for case in bench.cases.CASES:
        inputs, options = case.arguments(shrink=8)
        task = bench.peers.Task(case.kernel, inputs, options, 1)
        ours = bench.kernels.edgekit_runs(task)["edgekit"]
        want = ours.view(ours.call()).copy()
        for peer in there:
            if run := peer.prepare(task):
                exact = case.kernel == "warp_labels"
                found = bench.kernels.agreement(want, run.view(run.call()), exact=exact, differs=run.differs)
                assert found["agrees"], (case.kernel, case.label, peer.name, found)
                compared += not run.differs
    assert compared > 10


def test_calls_of_torch_operators_are_measured_over_the_kernel(bench: SimpleNamespace) -> None:
    import bench_calls

    from edgekit.graph import opset

    assert bench_calls.OPTIONS.keys() == opset.OPERATORS.keys()
    case = bench_calls.measure(opset.OPERATORS["Warp"], 60)
    assert {way: len(times) for way, times in case["samples_s"].items()} == dict.fromkeys(
        ("kernel", "inference", "usual", "recorded"), 100
    )
    assert case["more_s"]["usual"] == case["p50_s"]["usual"] - case["p50_s"]["kernel"]
    assert case["met"] == (max(case["more_s"]["usual"], case["more_s"]["inference"]) <= 30e-6)


@pytest.mark.parametrize("name", ["register3d", "denoise2d", "unet2d_batch", "unet2d_instance"])
def test_networks_of_tvm_are_the_same_every_time(bench: SimpleNamespace, name: str) -> None:
    import tvm_networks as networks

    network = networks.NETWORKS[name]
    first, second = (networks.run(network.build(quick=True), network.inputs(quick=True)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.shape[2:] == network.quick
        assert one.isfinite().all() and one.std() > 0
        assert one.equal(other)


def test_a_constant_output_is_no_evidence(bench: SimpleNamespace) -> None:
    import torch
    import tvm_networks as networks

    class Zero(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 0 * image

    with pytest.raises(ValueError, match="want an output that varies"):
        networks.Network(lambda size: Zero(), (8, 8), (8, 8)).build()


def test_multiply_adds_of_layers_are_those_that_torch_counts(bench: SimpleNamespace) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from tvm_layers import LAYERS

    for name, layer in LAYERS.items():
        image = layer.inputs()["image"].to("meta")
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            layer.build().to("meta")(image)
        assert counter.get_total_flops() == 2 * layer.fmas, name


def test_no_matrix_product_is_faster_than_the_peak(bench: SimpleNamespace) -> None:
    import fma_peak
    import torch

    length, before = 512, torch.get_num_threads()
    one, other = torch.rand(length, length), torch.rand(length, length)
    torch.set_num_threads(1)
    try:
        least_ns = min(bench.harness.timed(lambda: one @ other)[0] for _ in range(20))
    finally:
        torch.set_num_threads(before)
    reached = 1e9 * length**3 / least_ns
    assert 0.9 * reached < fma_peak.per_second(1) < 100 * reached


def test_tvm_is_judged_by_the_better_peer(bench: SimpleNamespace) -> None:
    import bench_tvm

    times = {"pytorch": 0.9, "onnxruntime": 0.4, "openvino": 0.2, "tvm": 0.3}
    rows = [
        {"name": "net", "threads": 2, "candidate": name, "wall_s": time_s, "least_s": time_s / 2}
        for name, time_s in times.items()
    ]
    rows[3] |= {"difference": 2e-6, "same_as_compiled": True, "compile_s": 12.0}
    assert bench_tvm.table(rows, 2)[2] == (
        "| net | 900.0 | 400.0 | 200.0 | 300.0 | 1.50 | 1.50 | 12 | 2e-06 |"
    )
    assert bench_tvm.table(rows[:3], 2)[2] == "| net | 900.0 | 400.0 | 200.0 | – | – | – | – | – |"
    assert bench_tvm.right(rows)
    assert not bench_tvm.right([rows[3] | {"difference": 0.01}])
    assert not bench_tvm.right([rows[3] | {"same_as_compiled": False}])
    assert not bench_tvm.right([{"name": "net", "candidate": "tvm", "error": "no"}])
    wrong = {"out": np.array([1.0, np.nan])}
    assert bench_tvm.difference(wrong, {"out": np.array([1.0, 2.0])}) == np.inf
    assert bench_tvm.difference({"out": np.array([1.0, 2.5])}, {"out": np.array([1.0, 2.0])}) == 0.25


def test_the_benchmark_of_tvm_measures_every_candidate(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_tvm

    path = tmp_path / "tvm.json"
    chosen = ["--networks", "denoise2d", "--layers", "2d", "256-256"]
    assert (
        bench_tvm.main([*chosen, "--quick", "--repeats", "3", "--threads", "1", "2", "--json", str(path)])
        == 0
    )
    kept = json.loads(path.read_text(encoding="utf-8"))
    for part, names in (("networks", {"pytorch"}), ("layers", set())):
        found = {(row["candidate"], row["threads"]) for row in kept[part]}
        assert found == set(itertools.product({"onnxruntime", "openvino", "tvm", *names}, (1, 2)))
        assert all(row["difference"] < 1e-4 for row in kept[part] if row["candidate"] != "pytorch")
    assert all(0 < row["share"] < 1.2 for row in kept["layers"])
    assert {row["fmas"] for row in kept["layers"]} == {256 * 256 * 9 * 16 * 16}
    assert capsys.readouterr().out.count("\n| denoise2d |") == 2


def test_calibration_kept_its_cap_and_gave_the_same_scales_twice() -> None:
    kept = json.loads((BENCHMARKS / "results" / "calibration.json").read_text(encoding="utf-8"))
    assert (kept["volumes"], kept["size"], kept["cap_bytes"]) == (200, 256, 1 << 30)
    assert kept["bytes"] > 4 * 200 * 256**3
    assert kept["scales_identical"] and kept["values"] > 50
    first, second = kept["runs"]
    assert first["ranges_digest"] == second["ranges_digest"]
    assert max(first["peak_bytes"], second["peak_bytes"]) < kept["cap_bytes"]


def test_the_best_of_all_are_those_that_none_beats(bench: SimpleNamespace) -> None:
    import pareto

    points = [(1.0, 0.0), (1.5, 0.4), (1.4, 0.5), (2.0, 0.4), (3.0, 2.0), (2.0, 0.6)]
    assert pareto.front(points) == [(1.0, 0.0), (2.0, 0.4), (3.0, 2.0)]


def test_speed_is_that_over_the_fastest_whole_network_in_float32(bench: SimpleNamespace) -> None:
    import bench_pruning

    rows = [
        {"precision": "float32", "pruned": False, "threads_1_s": 0.3},
        {"precision": "float32", "pruned": False, "threads_1_s": 0.2},
        {"precision": "float32", "pruned": True, "threads_1_s": 0.1},
        {"precision": "int8", "pruned": False, "threads_1_s": 0.4},
    ]
    bench_pruning.compare(rows, [1])
    assert [row["faster_1"] for row in rows] == pytest.approx([2 / 3, 1, 2, 0.5])


def test_the_page_shows_what_was_pruned(bench: SimpleNamespace) -> None:
    import bench_pruning

    kept = json.loads(bench_pruning.KEPT.read_text(encoding="utf-8"))
    page = bench_pruning.PAGE.read_text(encoding="utf-8")
    shown = page.partition(f"{bench_pruning.BEGIN}\n")[2].partition(f"\n{bench_pruning.END}")[0]
    assert shown == bench_pruning.page_section(kept["networks"], kept["threads"])
    for name in kept["networks"]:
        assert (bench_pruning.PAGE.parent / f"pruning-{name}.png").exists()


def test_torch_pruning_is_told_which_layers_give_the_outputs(bench: SimpleNamespace) -> None:
    import pruning_peers
    import torch
    from torch import nn

    body = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.ReLU())
    module = nn.Sequential(body, nn.Flatten(), nn.Linear(256, 2)).eval()
    sample = {"input": torch.rand(1, 1, 8, 8)}
    assert pruning_peers.heads(module, sample) == [module[2]]
    made = pruning_peers.cut(module, [sample], 0.5)
    assert made.share == pytest.approx(0.5, abs=0.2)
    assert made.module(**sample).shape == (1, 2)
