"""Gates on labelled cases: what has to fail fails, and says why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekit import gates
from edgekit.cases import Cases
from edgekit.errors import (
    CompileError,
    GateError,
    InputError,
    InternalError,
    SpecError,
    UnavailableError,
    UsageError,
)
from edgekit.gates import Judge, judge
from edgekit.registry import Requirement
from edgekit.reports import MetricReport, TaskReport
from edgekit.spec import Array, TensorSpec

SHAPE = (24, 32)
IMAGE = TensorSpec("image", "float32", (1, 1, *SHAPE), "NCHW", "intensity")
LOGITS = TensorSpec("logits", "float32", (1, 3, *SHAPE), "NCHW")
COUNT = 12

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def picture(index: int) -> Array:
    """Labels as grey values: a large disc (1) and, in every case but the last two, a small square (2)."""
    y, x = np.indices(SHAPE)
    labels = np.where((y - 12) ** 2 + (x - 10 - index % 3) ** 2 < 64, 1, 0)
    if index < COUNT - 2:
        labels[3:7, 24:28] = 2
    return labels.astype(np.float32)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Twelve cases with references; a third of them is of group ``child``."""
    lines = ["case,group,image,logits"]
    for index in range(COUNT):
        np.save(tmp_path / f"{index}.npy", picture(index))
        group = "child" if index % 3 == 0 else "adult"
        lines.append(f"p{index:02},{group},{index}.npy,{index}.npy")
    path = tmp_path / "cases.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def logits_of(labels: Array) -> Array:
    return np.stack([np.where(labels == c, 4.0, -4.0) for c in range(3)])[None].astype(np.float32)


def network(change: Callable[[Array, int], Array] = lambda labels, index: labels) -> Run:
    """A segmenter that is right up to one column, and then changes its labels; ``index`` counts the runs."""
    seen = [0]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        labels = feeds["image"][0, 0].copy()
        labels[:, 9] = 0
        index, seen[0] = seen[0], seen[0] + 1
        return {"logits": logits_of(change(labels, index))}

    return run


def wider(labels: Array, columns: int) -> Array:
    """The same with this many more columns missing."""
    labels = labels.copy()
    labels[:, 10 : 10 + columns] = 0
    return labels


def judged(
    listed: Path, candidate: Run, metric: str | Sequence[str] = "dice", **limits: object
) -> TaskReport:
    metrics = [metric] if isinstance(metric, str) else metric
    wanted = gates.parse(metrics, **limits)  # type: ignore[arg-type]
    cases = Cases.open(listed, (IMAGE,), (LOGITS,), minimum=1)
    return judge(wanted, cases, (LOGITS,), network(), candidate)


def only(report: TaskReport) -> MetricReport:
    (metric,) = report.metrics
    return metric


# --- what passes ---


def test_the_same_network_passes_with_nothing_lost(listed: Path) -> None:
    report = judged(
        listed,
        network(),
        max_drop=["0"],
        max_case_drop=["0"],
        max_group_drop=["0"],
        margin=["0.001"],
        worst_value=["0.8"],
    )
    assert report.passed and report.all_failures == ()
    dice = only(report)
    assert dice.overall.drop == 0 and (dice.overall.low, dice.overall.high) == (0, 0)
    assert 0.9 < dice.overall.baseline < 1 and dice.overall.cases == COUNT
    assert [(g.kind, g.name, g.cases) for g in dice.groups] == [
        ("all", "", 12),
        ("class", "1", 12),
        ("class", "2", 10),
        ("group", "adult", 8),
        ("group", "child", 4),
    ]
    assert [c.case for c in dice.cases] == [f"p{i:02}" for i in range(COUNT)]
    assert dice.cases[0].classes[1].baseline == 1.0 and len(dice.cases[-1].classes) == 1
    assert dice.notes[0] == "dice: scores of 'logits' are taken as logits"
    assert dice.notes[1] == (
        "none of 12 cases drops by more than 0; as far as so few can tell, up to 22 % of others may "
        "(95 % confidence)"
    )
    assert report.source == "cases.csv" and len(report.sha256) == 64
    assert report.values[0].metric == "dice" and report.values[0].value == dice.overall.candidate


def test_figures_are_those_of_a_mean_over_cases_of_a_mean_over_classes(listed: Path) -> None:
    report = only(
        judged(listed, network(lambda labels, index: wider(labels, 1 + index % 2)), max_drop=["0.5"])
    )
    per_case = []
    for index in range(COUNT):
        truth = picture(index)
        found = truth.copy()
        found[:, 9 : 11 + index % 2] = 0
        dices = []
        for label in np.unique(truth)[1:]:
            a, b = found == label, truth == label
            dices.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        per_case.append(np.mean(dices))
        assert report.cases[index].candidate == pytest.approx(per_case[-1])
    assert report.overall.candidate == pytest.approx(np.mean(per_case))
    children = [per_case[i] for i in range(0, COUNT, 3)]
    assert report.groups[-1].candidate == pytest.approx(np.mean(children))
    assert 0 < report.overall.low < report.overall.drop < report.overall.high


def test_several_metrics_share_one_run(listed: Path) -> None:
    runs = []

    def counted(feeds: Mapping[str, Array]) -> dict[str, Array]:
        runs.append(1)
        return network()(feeds)

    report = judged(listed, counted, ["dice", "hd95", "accuracy"], max_drop=["1%", "hd95=2"][:1])
    assert report.passed and len(runs) == COUNT
    assert [(m.metric, m.better, m.unit) for m in report.metrics] == [
        ("dice", "higher", ""),
        ("hd95", "lower", "voxels"),
        ("accuracy", "higher", ""),
    ]
    assert [v.metric for v in report.values] == ["dice", "hd95", "accuracy"]


# --- what fails ---


def test_a_drop_of_the_mean(listed: Path) -> None:
    report = judged(listed, network(lambda labels, _: wider(labels, 3)), max_drop=["0.01"])
    assert not report.passed
    overall, disc = report.all_failures
    assert overall == "dice falls from 0.9764 to 0.8926, by 0.0838 over all cases; allowed are 0.01"
    assert " over class 1; allowed are 0.01" in disc
    assert judged(listed, network(lambda labels, _: wider(labels, 3)), max_drop=["0.3"]).passed


def test_a_relative_drop(listed: Path) -> None:
    change = network(lambda labels, _: wider(labels, 1))
    drop = only(judged(listed, change)).groups[1]
    share = drop.drop / drop.baseline
    assert judged(listed, change, max_drop=[f"{share * 101}%"]).passed
    failed = judged(listed, change, max_drop=[f"{share * 99:.3f}%"])
    assert "over class 1; allowed are " in failed.all_failures[-1] and " % (0.0" in failed.all_failures[-1]


def test_a_metric_that_rises_when_it_gets_worse(listed: Path) -> None:
    change = network(lambda labels, _: np.roll(labels, 4, axis=1))
    report = judged(listed, change, "hd95", max_drop=["1"], worst_value=["3"])
    assert report.all_failures == (
        "hd95 is 4.495 voxels over all cases; wanted are 3 voxels or less",
        "hd95 rises from 2.807 voxels to 4.495 voxels, by 1.69 over all cases; allowed are 1",
        "hd95 rises from 0 voxels to 4 voxels, by 4 over class 2; allowed are 1",
    )
    assert only(report).overall.drop > 0


def test_a_network_whose_half_precision_overflows(listed: Path) -> None:
    def overflowing(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(over="ignore", invalid="ignore"):
            half = (feeds["image"] * 200).astype(
                np.float16
            )  # labels 0 … 2, as a wide range of Hounsfield has
            squares = half * half * np.float16(4)
            logits = logits_of(feeds["image"][0, 0])
            # 65504 is the largest: inf where the square is, NaN where two of them are subtracted.
            logits[:, 1] = (squares - squares * (feeds["image"] > 1))[0]
        return {"logits": logits.astype(np.float32)}

    report = judged(listed, overflowing, max_drop=["0.5"])
    assert not report.passed
    assert report.failures[0] == "case 'p00': result 'logits' has 209 NaN or infinite of 2304 values"
    assert len(report.failures) == COUNT and report.values[0].value != report.values[0].value
    assert report.all_failures[COUNT:] == (
        "dice was measured in 0 cases (12 cases failed); wanted are 10 or more",
    )


def test_one_small_structure_that_is_lost_in_one_case(listed: Path) -> None:
    def lose(labels: Array, index: int) -> Array:
        return np.where((labels == 2) & (index == 4), 0, labels)

    report = judged(listed, network(lose), max_drop=["0.15"])
    overall = only(report).overall
    assert 0 < overall.drop < 0.05, "the mean is far within its limit"
    assert report.all_failures == ("case 'p04': class 2 is lost: dice 1 before, 0 now",)
    worst = only(report).worst(1)[0]
    assert (worst.case, worst.worst_drop) == ("p04", 1.0)
    assert [(c.name, c.candidate) for c in worst.classes] == [("1", worst.classes[0].baseline), ("2", 0.0)]


def test_the_worst_class_of_a_case_counts(listed: Path) -> None:
    def shave(labels: Array, index: int) -> Array:
        labels = labels.copy()
        if index == 7:
            labels[3:5, 24:28] = 0  # half of the small square
        return labels

    report = judged(listed, network(shave), max_drop=["0.05"], max_case_drop=["0.2"])
    assert report.all_failures == (
        "case 'p07': dice falls from 1 to 0.6667, by 0.333 in class 2; allowed are 0.2 in one case",
    )
    assert only(report).cases[7].drop == pytest.approx(1 / 6), "the mean of the classes would have passed"
    assert only(report).overall.drop < 0.05
    assert judged(listed, network(shave), max_drop=["0.05"], max_case_drop=["0.4"]).passed


def test_something_found_where_nothing_is(listed: Path) -> None:
    def invent(labels: Array, index: int) -> Array:
        labels = labels.copy()
        if index == COUNT - 1:
            labels[20:22, 2:4] = 2
        return labels

    report = judged(listed, network(invent), max_case_drop=["0.1"])
    assert report.all_failures == (
        "case 'p11': dice falls from 1 to 0, by 1 in class 2; allowed are 0.1 in one case",
        "case 'p11': class 2 is lost: dice 1 before, 0 now",
    )


def test_a_group_that_gets_worse_while_the_mean_gets_better(listed: Path) -> None:
    def uneven(labels: Array, index: int) -> Array:
        if index % 3 == 0:
            return wider(labels, 2)
        labels = labels.copy()
        labels[:, 9] = picture(index)[:, 9]
        return labels

    limits = {"max_drop": ["0.01"], "max_group_drop": ["0.02"]}
    report = judged(listed, network(uneven), "dice scores=logits", **limits)
    assert only(report).overall.drop < 0, "better over all cases"
    assert [s for s in report.all_failures if "class" not in s] == list(report.all_failures)
    (sentence,) = report.all_failures
    assert sentence.startswith("dice falls from 0.9") and "over group 'child'; allowed are 0.02" in sentence
    assert judged(listed, network(uneven), max_drop=["0.01"]).passed


def test_cases_in_which_there_is_nothing_to_measure(listed: Path, tmp_path: Path) -> None:
    for index in range(COUNT):
        np.save(tmp_path / f"{index}.npy", np.zeros(SHAPE, np.float32))
    report = judged(listed, network(), max_drop=["0.1"], max_case_drop=["0.1"], max_group_drop=["0.1"])
    assert report.all_failures == (
        "dice was measured in no case: there is nothing in them that it looks at",
        "group 'adult': dice was measured in 0 cases; a group wants 3 or more to be judged",
        "group 'child': dice was measured in 0 cases; a group wants 3 or more to be judged",
    )


def test_a_missing_package_is_told_before_anything_runs(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Requirement, "missing", lambda self: f"package {self.distribution!r} is not installed"
    )
    cases = Cases.open(listed, (IMAGE,), (LOGITS,))
    runs: list[int] = []
    with pytest.raises(UnavailableError, match="'scipy' is not installed") as caught:
        Judge(gates.parse(["dice"]), cases, (LOGITS,), lambda feeds: runs.append(1))  # type: ignore[arg-type]
    assert caught.value.hint == "pip install 'edgekit[metrics]'" and runs == []


def test_a_group_too_small_to_be_judged(listed: Path) -> None:
    report = judged(listed, network(), max_group_drop=["0.02"], min_group_cases=5)
    assert report.all_failures == (
        "group 'child': dice was measured in 4 cases; a group wants 5 or more to be judged",
    )


def test_too_few_cases(listed: Path) -> None:
    report = judged(listed, network(), "dice", min_cases=13)
    assert report.all_failures == ("dice was measured in 12 cases; wanted are 13 or more",)
    with pytest.raises(GateError, match="want at least 13 labelled cases, got 12"):
        Cases.open(listed, (IMAGE,), (LOGITS,), minimum=13)


def test_an_interval_that_reaches_the_margin(listed: Path) -> None:
    def noisy(labels: Array, index: int) -> Array:
        return wider(labels, 3) if index in (1, 5) else labels

    report = judged(listed, network(noisy), max_drop=["0.05"], margin=["0.03"])
    overall = only(report).overall
    assert overall.drop < 0.03 < overall.high
    sentence = report.all_failures[0]
    assert sentence.startswith("dice over all cases may be worse by 0.0")
    assert "(95 % interval of the drop 0" in sentence and sentence.endswith("not below the margin, 0.03")
    assert judged(listed, network(noisy), max_drop=["0.05"], margin=["20%"]).passed


def test_an_interval_from_one_case_shows_nothing(listed: Path) -> None:
    listed.write_text("\n".join(listed.read_text().splitlines()[:2]))
    report = judged(listed, network(), margin=["0.03"], min_cases=1)
    assert report.all_failures == tuple(
        f"dice over {what} has no 95 % interval, as 1 case cannot show one, so non-inferiority is not shown"
        for what in ("all cases", "class 1", "class 2")
    )


@pytest.mark.parametrize(
    "error, want",
    [
        (CompileError("the driver went away"), "the candidate failed: the driver went away"),
        (ZeroDivisionError("by zero"), "the candidate crashed: ZeroDivisionError: by zero"),
        (MemoryError(), "the candidate crashed: MemoryError: "),
    ],
)
def test_a_crash_in_one_case(listed: Path, error: Exception, want: str) -> None:
    healthy, runs = network(), []

    def fragile(feeds: Mapping[str, Array]) -> dict[str, Array]:
        runs.append(1)
        if len(runs) == 3:
            raise error
        return healthy(feeds)

    report = judged(listed, fragile, max_drop=["0.5"])
    assert report.failures == (f"case 'p02': {want}",)
    assert len(runs) == COUNT, "the others are still shown"
    dice = only(report)
    assert dice.cases[2].error == want and math.isnan(dice.cases[2].candidate)
    assert not math.isnan(dice.cases[2].baseline)
    assert dice.worst(1)[0].case == "p02"
    assert dice.overall.cases == COUNT - 1 and dice.overall.drop == 0
    assert not any("confidence" in note for note in dice.notes), "nothing is promised about unseen cases"


def test_a_bug_of_ours_is_not_taken_for_a_failed_case(listed: Path) -> None:
    def broken(feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise InternalError("impossible")

    with pytest.raises(InternalError):
        judged(listed, broken)


@pytest.mark.parametrize(
    "results, want",
    [
        ({}, "there is no result 'logits'"),
        ({"logits": np.zeros((1, 3, 2, 2), np.float32)}, "another shape: want 1x3x24x32, got 1x3x2x2"),
        ({"logits": np.full((1, 3, *SHAPE), np.nan, np.float32)}, "has 2304 NaN or infinite of 2304 values"),
    ],
)
def test_results_that_are_missing_or_no_numbers(listed: Path, results: dict[str, Array], want: str) -> None:
    report = judged(listed, lambda feeds: results)
    assert len(report.failures) == COUNT and want in report.failures[0]


def test_a_value_that_cannot_be_measured_any_more(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.metrics.overlap import DICE

    monkeypatch.setattr(type(DICE), "absence_is_perfect", False)
    monkeypatch.setattr(
        type(DICE), "values", lambda self, pair: {"": math.nan if pair.result[0, 0, 0, 0] == 9 else 0.9}
    )

    def odd(feeds: Mapping[str, Array]) -> dict[str, Array]:
        logits = logits_of(feeds["image"][0, 0])
        logits[0, 0, 0, 0] = 9
        return {"logits": logits}

    report = judged(listed, odd, max_case_drop=["0.5"], max_drop=["0.5"])
    assert "case 'p00': dice is 0.9 before and cannot be measured now" in report.all_failures
    assert "dice: 9 more like these, which cannot be measured now" in report.all_failures
    assert (
        "dice cannot be compared over all cases: it is 0.9 before and not measured now" in report.all_failures
    )


def test_many_sentences_are_cut_to_the_worst(listed: Path) -> None:
    report = judged(
        listed, network(lambda labels, index: wider(labels, 1 + (index > 8))), max_case_drop=["0.01"]
    )
    assert len(report.all_failures) == 4
    assert {s.partition(":")[0] for s in report.all_failures[:3]} == {
        "case 'p09'",
        "case 'p10'",
        "case 'p11'",
    }
    assert report.all_failures[3] == "dice: 9 more like these, which fall too far"


# --- baselines ---


def test_a_baseline_that_does_not_do_the_task(listed: Path, tmp_path: Path) -> None:
    for index in range(COUNT):
        np.save(tmp_path / f"swapped{index}.npy", np.choose(picture(index).astype(int), [1, 2, 0]))
    text = listed.read_text().splitlines()
    lines = [text[0]] + [line.rpartition(",")[0] + f",swapped{i}.npy" for i, line in enumerate(text[1:])]
    listed.write_text("\n".join(lines))
    report = judged(listed, network(), max_drop=["0.01"])
    assert report.all_failures == (
        "the baseline's own dice is 0: its results and the references do not belong together, so no drop "
        "means anything",
    )


def test_a_baseline_without_results_is_no_baseline(listed: Path) -> None:
    cases = Cases.open(listed, (IMAGE,), (LOGITS,))
    broken = lambda feeds: {"logits": np.full((1, 3, *SHAPE), np.inf, np.float32)}  # noqa: E731
    with pytest.raises(GateError, match="no usable result for case 'p00': result 'logits' has 2304 NaN"):
        Judge(gates.parse(["dice"]), cases, (LOGITS,), broken)


def test_references_that_the_metric_does_not_take_are_the_users_to_mend(listed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", picture(1) + 5)
    with pytest.raises(SpecError, match="case 'p01': the reference holds the labels 5, 6, 7") as caught:
        judged(listed, network())
    assert caught.value.where == "metric dice, result 'logits'"


def test_the_baseline_runs_once_and_candidates_many_times(listed: Path) -> None:
    runs, events = [], []

    def baseline(feeds: Mapping[str, Array]) -> dict[str, Array]:
        runs.append(1)
        return network()(feeds)

    cases = Cases.open(listed, (IMAGE,), (LOGITS,))
    with Judge(
        gates.parse(["dice"], max_drop=["0.01"]), cases, (LOGITS,), baseline, on_event=events.append
    ) as several:
        assert len(runs) == COUNT
        assert several.judge(network()).passed
        assert not several.judge(network(lambda labels, _: wider(labels, 4))).passed
        assert several.judge(network()) == several.judge(network())
        assert several.values(network()) == {"dice": 0.0}
        assert several.values(network(lambda labels, _: wider(labels, 4)))["dice"] > 0.05
        assert math.isnan(several.values(lambda feeds: {})["dice"])
    assert len(runs) == COUNT
    assert events[:2] == ["baseline: case 1 of 12", "baseline: case 2 of 12"]
    assert events[-1] == "candidate: case 12 of 12"


def test_files_that_change_meanwhile_are_noticed(listed: Path, tmp_path: Path) -> None:
    cases = Cases.open(listed, (IMAGE,), (LOGITS,))
    with Judge(gates.parse(["dice"]), cases, (LOGITS,), network()) as several:
        np.save(tmp_path / "3.npy", picture(4))
        with pytest.raises(InputError, match="files of case 'p03' changed"):
            several.judge(network())


# --- without references ---


def without_references(listed: Path) -> Path:
    lines = [line.rpartition(",")[0] for line in listed.read_text().splitlines()]
    listed.write_text("\n".join(lines) + "\n")
    return listed


def test_without_references_the_baseline_is_the_reference(listed: Path) -> None:
    report = judged(without_references(listed), network(), max_drop=["0"])
    dice = only(report)
    assert report.passed and dice.reference == "baseline" and dice.overall.baseline == 1.0
    assert "compared with the baseline's own" in dice.notes[1]
    failed = judged(listed, network(lambda labels, _: wider(labels, 1)), max_drop=["0.01"])
    assert "dice falls from 1 to 0.9" in failed.all_failures[0]


def test_what_the_baseline_leaves_on_disk_goes(listed: Path) -> None:
    cases = Cases.open(without_references(listed), (IMAGE,), (LOGITS,))
    with Judge(gates.parse(["dice"]), cases, (LOGITS,), network()) as several:
        assert several._kept is not None
        folder = Path(several._kept.name)
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert len(sizes) == COUNT and max(sizes) < 1000, "a byte a label"
    assert not folder.exists()


@pytest.mark.parametrize(
    "metric, limits, want, hint",
    [
        (
            "auroc",
            {},
            "metric auroc wants labels: the list of cases has no column 'logits'",
            "add a column 'logits'",
        ),
        (
            "psnr",
            {"max_drop": ["1"]},
            "its psnr is infinite",
            "--worst-value psnr=40, or add a column 'logits'",
        ),
    ],
)
def test_metrics_that_want_references(
    listed: Path, metric: str, limits: dict[str, list[str]], want: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=want) as caught:
        judged(without_references(listed), network(), metric, **limits)
    assert str(caught.value.hint).startswith(hint)


def test_likeness_to_the_baseline_has_a_floor(listed: Path) -> None:
    def noisy(feeds: Mapping[str, Array]) -> dict[str, Array]:
        logits = logits_of(feeds["image"][0, 0])
        return {
            "logits": logits
            + np.float32(0.04) * np.sign(np.sin(np.arange(logits.size))).reshape(logits.shape)
        }

    exact = lambda feeds: {"logits": logits_of(feeds["image"][0, 0])}  # noqa: E731
    cases = Cases.open(without_references(listed), (IMAGE,), (LOGITS,))
    with Judge(gates.parse(["snr"], worst_value=["30"]), cases, (LOGITS,), exact) as several:
        report = several.judge(noisy)
        assert report.passed and only(report).overall.candidate == pytest.approx(40, abs=0.1)
        assert only(report).overall.baseline == math.inf and only(report).overall.drop == math.inf
    with Judge(gates.parse(["snr"], worst_value=["50"]), cases, (LOGITS,), exact) as several:
        assert several.judge(noisy).all_failures == ("snr is 40 dB over all cases; wanted are 50 dB or more",)
        assert several.judge(exact).passed


# --- which result, which unit ---


FLOW = TensorSpec("flow", "float32", (1, 2, *SHAPE), "NCHW", "flow_vox")
MOVED = TensorSpec("moved", "float32", (1, 1, *SHAPE), "NCHW")


def chosen(listed: Path, metric: str, results: Sequence[TensorSpec] = (LOGITS, FLOW, MOVED)) -> str:
    cases = Cases.open(listed, (IMAGE,), results)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        flow = np.zeros((1, 2, *SHAPE), np.float32)
        return {"logits": logits_of(feeds["image"][0, 0]), "flow": flow, "moved": feeds["image"]}

    with Judge(gates.parse([metric]), cases, results, run) as several:
        return several.tasks[0].spec.name


def test_a_metric_finds_the_result_that_it_looks_at(listed: Path) -> None:
    assert chosen(listed, "dice") == "logits", "the one with a reference"
    assert chosen(listed, "folding") == "flow"
    assert chosen(listed, "tre") == "flow"
    assert chosen(listed, "psnr moved") == "moved"
    without_references(listed)
    with pytest.raises(UsageError, match="which result does psnr look at") as caught:
        chosen(listed, "psnr")
    assert caught.value.hint == "--metric 'psnr logits'"
    with pytest.raises(UsageError, match="no result 'mask': want one of logits, flow, moved"):
        chosen(listed, "dice mask")


def test_folding_needs_no_reference(listed: Path) -> None:
    def run(strength: float) -> Run:
        ramp = np.zeros((1, 2, *SHAPE), np.float32)
        ramp[0, 1] = -strength * np.maximum(0, np.arange(SHAPE[1]) - 16)
        return lambda feeds: {"flow": ramp}

    cases = Cases.open(without_references(listed), (IMAGE,), (FLOW,))
    report = judge(gates.parse(["folding"], max_drop=["0.01"]), cases, (FLOW,), run(0.5), run(1.5))
    assert only(report).reference == "nothing" and only(report).overall.baseline == 0
    assert report.all_failures[0].startswith("folding rises from 0 to 0.")


def test_groups_that_are_not_there_cannot_be_limited(listed: Path) -> None:
    listed.write_text("\n".join(",".join(line.split(",")[::2]) for line in listed.read_text().splitlines()))
    with pytest.raises(UsageError, match="has no column 'group'"):
        judged(listed, network(), "dice logits", max_group_drop=["0.1"])
    with pytest.raises(UsageError, match="want a metric"):
        judged(listed, network(), [])


def test_millimetres_and_voxels_do_not_mix(listed: Path, tmp_path: Path) -> None:
    from edgekit import volumes
    from edgekit.volumes import Volume

    assert only(judged(listed, network(), "hd95")).unit == "voxels"
    volumes.write(tmp_path / "placed.nii.gz", Volume(picture(1), (3.0, 0.5, 0.5), "RAS"))
    text = listed.read_text()
    listed.write_text(text.replace("1.npy,1.npy", "placed.nii.gz,1.npy", 1))
    with pytest.raises(InputError, match="case 'p01' has a spacing, those before it have none"):
        judged(listed, network(), "hd95")
    assert judged(listed, network(), "dice").passed
    listed.write_text("\n".join([text.splitlines()[0], "a,,placed.nii.gz,1.npy", "b,,placed.nii.gz,1.npy"]))
    in_mm = only(judged(listed, network(lambda labels, _: np.roll(labels, 4, axis=1)), "hd95"))
    assert (in_mm.unit, in_mm.overall.candidate) == ("mm", 2.25)


# --- classification ---


def test_a_classifier_is_judged_over_all_cases(tmp_path: Path) -> None:
    scores = TensorSpec("grade", "float32", (1, 2), "NC")
    lines, truth = ["case,group,image,grade"], []
    for index in range(20):
        image = np.zeros(SHAPE, np.float32)
        image[0, 0] = index / 10 - 1
        np.save(tmp_path / f"{index}.npy", image)
        truth.append(int(index >= 10) if index not in (9, 10) else int(index == 9))
        lines.append(f"p{index},{'low' if index % 2 else 'high'},{index}.npy,{truth[-1]}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    cases = Cases.open(tmp_path / "cases.csv", (IMAGE,), (scores,))

    def classifier(worse: float) -> Run:
        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            value = float(feeds["image"][0, 0, 0, 0])
            value = value - worse * (value > 0.5)
            return {"grade": np.array([[-value, value + 1e-3]], np.float32) * 4}

        return run

    wanted = gates.parse(["auroc", "accuracy", "sensitivity", "ece"], max_drop=["auroc=0.02", "accuracy=2%"])
    with Judge(wanted, cases, (scores,), classifier(0)) as several:
        same = several.judge(classifier(0))
        assert same.passed
        auroc, accuracy, sensitivity, _ = same.metrics
        assert auroc.overall.baseline == 0.99 and accuracy.overall.baseline == 0.9
        assert sensitivity.overall.baseline == 0.9 and accuracy.cases[9].baseline == 0
        assert all(math.isnan(case.baseline) for case in auroc.cases)
        worse = several.judge(classifier(1))
    assert not worse.passed and any("auroc falls from 0.99" in s for s in worse.all_failures)
    assert [c.case for c in worse.metrics[1].worst(4)] == ["p16", "p17", "p18", "p19"]
    low = next(g for g in worse.metrics[0].groups if g.name == "low")
    assert low.cases == 10 and low.low <= low.drop <= low.high
