"""edgekit.reports: what the values say of themselves, and that they survive JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import sample_bundles

from edgekit import schema
from edgekit.errors import CorruptError, SpecError
from edgekit.reports import Candidate, CaseResult, ClassResult, LayerReport, TaskLimits, TaskReport

NAN = math.nan


def read_back(value: object) -> object:
    text = json.dumps(schema.encode(value), allow_nan=False)
    return schema.decode(type(value), json.loads(text), error=CorruptError, where="report")


def test_a_report_survives_json() -> None:
    report = sample_bundles.task_report()
    assert repr(read_back(report)) == repr(report)


def test_fields_that_came_later_are_left_out_where_they_say_nothing_new() -> None:
    plain = Candidate("tvm", "slower")
    assert "precision" not in schema.encode(plain) and "values" not in schema.encode(plain)
    assert schema.encode(replace(plain, precision="int8"))["precision"] == "int8"
    for value in (plain, replace(plain, precision="int8")):
        assert repr(read_back(value)) == repr(value)
    assert schema.encode(LayerReport("a", "Conv", "int8"))["snr_db"] == "nan"


def test_a_report_passes_where_nothing_failed_and_something_was_measured() -> None:
    report = sample_bundles.task_report()
    assert not report.passed
    assert report.all_failures == (*report.failures, *report.metrics[0].failures)
    without = replace(report, failures=())
    assert not without.passed, "the metric failed"
    assert replace(without, metrics=(replace(report.metrics[0], failures=()),)).passed
    assert not TaskReport("c", "0" * 64, "b", (), ()).passed


def test_the_worst_cases_come_first_and_those_that_failed_before_them() -> None:
    metric = sample_bundles.task_report().metrics[0]
    cases = (
        CaseResult("better", 0.5, 0.6, -0.1),
        CaseResult("nothing", NAN, NAN, NAN),
        CaseResult("failed", 0.5, NAN, NAN, error="crashed"),
        CaseResult(
            "class", 0.8, 0.7, 0.1, (ClassResult("1", 1.0, 0.3, 0.7), ClassResult("2", 0.6, 1.1, -0.5))
        ),
        CaseResult("worse", 0.9, 0.5, 0.4),
    )
    metric = replace(metric, cases=cases)
    assert [case.case for case in metric.worst(5)] == ["failed", "class", "worse", "nothing", "better"]
    assert [case.case for case in metric.worst(2)] == ["failed", "class"]
    assert cases[3].worst_class == cases[3].classes[0] and cases[0].worst_class is None
    assert cases[3].worst_drop == 0.7 and cases[4].worst_drop == 0.4 and math.isnan(cases[1].worst_drop)


@pytest.mark.parametrize(
    "limits",
    [{"confidence": 1.0}, {"confidence": 0.2}, {"confidence": NAN}, {"min_cases": 0}, {"min_group_cases": 0}],
)
def test_limits_that_decide_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        TaskLimits(**limits)  # type: ignore[arg-type]
