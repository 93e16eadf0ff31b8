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
