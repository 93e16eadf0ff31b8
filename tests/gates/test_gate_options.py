"""Gates as people type them."""

from __future__ import annotations

import math

import pytest

from edgekit.errors import SpecError, UsageError
from edgekit.gates import Budget, Gate, parse
from edgekit.reports import TaskLimits, TaskReport, Tolerance

MIB = 1 << 20


def test_a_metric_a_result_and_options_in_any_order() -> None:
    gate = Gate.of("surface_dice mask tolerance=2 scores=logits")
    assert (gate.metric, gate.result) == ("surface_dice", "mask")
    assert gate.options == {"tolerance": 2.0, "scores": "logits"}
    assert Gate.of("ece bins=10").options == {"bins": 10}
    assert Gate.of("dice").limits == TaskLimits()


@pytest.mark.parametrize(
    "text, want, hint",
    [
        (
            "",
            "want a metric, the result that it looks at and options, got ''",
            "--metric 'dice mask scores=logits'",
        ),
        ("scores=logits dice", "want a metric", None),
        ("dice a b", "want a metric", None),
        ("dise", "unknown metric 'dise': want one of dice, hd95", "did you mean 'dice'?"),
        ("dice scores=", "want OPTION=VALUE once, got 'scores='", None),
        ("dice scores=logits scores=labels", "want OPTION=VALUE once", None),
        (
            "dice score=logits",
            "metric dice has no option 'score': want scores, channels",
            "did you mean 'scores'?",
        ),
        ("dice scores=logit", "want one of auto, logits, probabilities, labels", "did you mean 'logits'?"),
        ("ece bins=many", "option 'bins' of metric ece: want int, got 'many'", "bins=15, the default"),
        ("hd95 tolerance=1", "metric hd95 has no option 'tolerance'", None),
    ],
)
def test_texts_that_cannot_be_meant(text: str, want: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        Gate.of(text)
    assert want in caught.value.message and str(caught.value.where).startswith("--metric")
    if hint:
        assert caught.value.hint == hint


def test_limits_belong_to_a_metric() -> None:
    dice, hd95 = parse(
        ["dice", "hd95 mask"],
        max_drop=["dice=0.01", "hd95=0.5"],
        max_case_drop=["10%"],
        margin=["dice=2%"],
        worst_value=["dice=0.8"],
        min_cases=20,
        confidence=0.9,
    )
    assert dice.limits == TaskLimits(
        max_drop=Tolerance(0.01),
        max_case_drop=Tolerance(0.1, relative=True),
        margin=Tolerance(0.02, relative=True),
        worst_value=0.8,
        min_cases=20,
        confidence=0.9,
    )
    assert hd95.limits.max_drop == Tolerance(0.5) and hd95.limits.margin is None
    assert hd95.limits.max_case_drop == Tolerance(0.1, relative=True)
    (alone,) = parse(["psnr"], max_drop=["0.5"])
    assert alone.limits.max_drop == Tolerance(0.5)


@pytest.mark.parametrize(
    "metrics, limits, want, hint",
    [
        ([], {"max_drop": ["0.01"]}, "a limit wants a metric, got '0.01' alone", "--metric dice"),
        (["dice", "hd95"], {"max_drop": ["1"]}, "which metric has it? want METRIC=1", "--max-drop dice=1"),
        (["dice"], {"margin": ["dise=1"]}, "no --metric is called 'dise': want dice", "did you mean 'dice'?"),
        (["dice"], {"max_drop": ["1", "dice=2"]}, "'dice' has two limits", "leave one of them out"),
        (
            ["dice"],
            {"max_drop": ["a bit"]},
            "want a number, or a percentage",
            "--max-drop 0.01 or --max-drop 1%",
        ),
        (["dice"], {"max_drop": ["nan"]}, "want a number", None),
        (["dice"], {"max_drop": ["-0.1"]}, "a finite number >= 0, got -0.1", "--max-drop 0.01"),
        (["dice"], {"margin": ["0"]}, "no interval lies below a margin of 0", "--margin 0.01"),
        (["dice"], {"min_cases": 0}, "want at least 1 case, got 0", None),
        (["dice"], {"confidence": 95}, "a confidence wants to lie in 0.5 … 1, got 95", None),
    ],
)
def test_limits_that_cannot_be_meant(
    metrics: list[str], limits: dict[str, object], want: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(metrics, **limits)  # type: ignore[arg-type]
    assert want in caught.value.message and caught.value.where
    if hint:
        assert caught.value.hint == hint


def test_a_value_for_many_cases_is_none_for_one() -> None:
    with pytest.raises(UsageError, match="auroc has a value for many cases together, not for one"):
        Gate("auroc", limits=TaskLimits(max_case_drop=Tolerance(0.1)))


def test_a_tolerance_is_absolute_or_a_share() -> None:
    assert Tolerance(0.01).allowed(0.5) == 0.01 and str(Tolerance(0.01)) == "0.01"
    assert Tolerance(0.01, relative=True).allowed(-30) == pytest.approx(0.3)
    assert str(Tolerance(0.01, relative=True)) == "1 %" and str(Tolerance(0.075, relative=True)) == "7.5 %"
    for amount in (-1, math.inf, math.nan):
        with pytest.raises(SpecError):
            Tolerance(amount)


def test_latency_and_size_are_limits_too() -> None:
    both = Budget(max_latency_s=0.01, max_size_bytes=MIB)
    assert both.exceeded(0.01, MIB) == ()
    assert Budget().exceeded(5.0, 5 << 30) == Budget().exceeded() == ()
    assert both.exceeded(0.0125, MIB) == ("the median latency is 12.5 ms; allowed are 10 ms",)
    assert both.exceeded(0.01, 3 * MIB // 2) == ("the artifact's size is 1.5 MiB; allowed are 1 MiB",)
    unmeasured = (
        "the median latency was not measured; allowed are 10 ms",
        "the artifact's size was not measured; allowed are 1 MiB",
    )
    assert both.exceeded() == unmeasured
    report = TaskReport("cases.csv", "0" * 64, "float32", (), (), failures=("before",))
    assert both.applied(report).failures == ("before", *unmeasured)
    assert both.applied(report, 0.02, 7).latency_s == 0.02 and both.applied(report, 0.02, 7).size_bytes == 7


def test_a_report_without_a_metric_passes_nothing() -> None:
    assert not TaskReport("cases.csv", "0" * 64, "float32", (), ()).passed
