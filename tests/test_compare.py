from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import schema
from edgekit.compare import check_meaning, compare
from edgekit.errors import CorruptError
from edgekit.reports import AccuracyLimits, AccuracyReport, TensorAccuracy
from edgekit.spec import Array

RAMP = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)

finite = st.floats(allow_nan=False, allow_infinity=False)
arrays = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda kind: hnp.arrays(
        kind,
        hnp.array_shapes(max_dims=4, max_side=5),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=np.dtype(kind).itemsize * 8),
    )
)


def judge(expected: Array, got: Array, **limits: float) -> tuple[TensorAccuracy, AccuracyReport]:
    report = compare({"y": expected}, {"y": got}, reference="r", inputs="i", limits=AccuracyLimits(**limits))
    return report.tensors[0], report


@given(arrays)
@settings(deadline=None)
def test_an_array_equals_itself_perfectly(array: Array) -> None:
    accuracy, _ = judge(array, array.copy(), max_abs_error=0.0, min_snr_db=400.0)
    assert accuracy.max_abs_error == accuracy.max_rel_error == 0
    assert accuracy.snr_db == math.inf
    assert accuracy.cosine == pytest.approx(1.0)


@given(arrays, st.data())
@settings(deadline=None)
def test_figures_are_never_nan_and_equality_is_the_only_zero(a: Array, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, a.size - 1))
    b = a.copy()
    b.flat[index] = data.draw(st.floats(-100, 100, width=16))
    accuracy, _ = judge(a, b)
    figures = (accuracy.max_abs_error, accuracy.max_rel_error, accuracy.snr_db, accuracy.cosine)
    assert not any(map(math.isnan, figures))
    equal = np.array_equal(a, b)
    assert (accuracy.max_abs_error == 0) == equal
    assert (accuracy.snr_db == math.inf) <= (accuracy.max_rel_error < 1e-150)
    assert -1 <= accuracy.cosine <= 1


@given(
    hnp.arrays(np.float64, 20, elements=st.floats(-1, 1)),
    hnp.arrays(np.float64, 20, elements=st.floats(-1e-3, 1e-3)),
    st.sampled_from([2.0**-300, 0.25, 8.0, 2.0**300]),
)
@settings(deadline=None)
def test_ratios_do_not_depend_on_the_unit(a: Array, noise: Array, unit: float) -> None:
    a = a + np.arange(20)
    plain, _ = judge(a, a + noise)
    scaled, _ = judge(a * unit, (a + noise) * unit)
    assert scaled.snr_db == pytest.approx(plain.snr_db)
    assert scaled.max_rel_error == pytest.approx(plain.max_rel_error)
    assert scaled.max_abs_error == pytest.approx(plain.max_abs_error * unit)


def test_figures_are_what_their_definitions_say() -> None:
    want, got = np.array([3.0, 4.0]), np.array([3.0, 3.5])
    accuracy, report = judge(want, got)
    assert accuracy == TensorAccuracy(
        "y", 0.5, 0.125, pytest.approx(20.0), pytest.approx(23 / (5 * math.hypot(3, 3.5))), True
    )
    assert report.passed and report.worst_snr_db == accuracy.snr_db


def test_each_limit_is_a_sentence_with_place_and_values() -> None:
    got = RAMP.copy()
    got[1, 2, 0] += 0.5
    _, report = judge(RAMP, got, max_abs_error=0.01, min_snr_db=60.0)
    largest, ratio = report.failures
    assert "[1, 2, 0]" in largest and "0.5" in largest and "allowed are 0.01" in largest
    assert "wanted are 60 dB" in ratio
    assert not report.passed
    assert judge(RAMP, got, max_abs_error=0.51, min_snr_db=10.0)[1].passed


@pytest.mark.parametrize("side", ["the reference", "the result"])
def test_nan_fails_by_name_and_count(side: str) -> None:
    bad = RAMP.copy()
    bad[0, 0, :2] = np.nan
    pair = (bad, RAMP) if side == "the reference" else (RAMP, bad)
    accuracy, report = judge(*pair)
    assert f"2 NaN of 24 values in {side}" in report.failures[0]
    assert accuracy.max_abs_error == math.inf and accuracy.snr_db == -math.inf


def test_infinities_agree_with_themselves_only() -> None:
    a = RAMP.copy()
    a[0, 0, 0] = np.inf
    accuracy, report = judge(a, a.copy(), max_abs_error=0.0)
    assert report.passed and accuracy.snr_db == math.inf
    accuracy, report = judge(a, RAMP, max_abs_error=1e9)
    assert accuracy.max_abs_error == math.inf and accuracy.snr_db == -math.inf and not report.passed


def test_missing_surplus_misshapen_and_mistyped_outputs_fail_by_name() -> None:
    want = {"a": RAMP, "b": RAMP, "c": RAMP, "empty": RAMP[:0]}
    got = {"b": RAMP[:1], "c": RAMP.astype(np.float64), "d": RAMP, "empty": RAMP[:0]}
    report = compare(want, got, reference="r", inputs="i")
    failures = "\n".join(report.failures)
    assert "'a' is missing" in failures
    assert "'b' has another shape: want 2x3x4, got 1x3x4" in failures
    assert "'c' has another dtype: want float32, got float64" in failures
    assert "'d' is not in the reference" in failures
    assert "'empty' is empty" in failures
    assert [t.name for t in report.tensors] == ["a", "b", "c", "empty"]
    assert report.worst_snr_db == -math.inf


def test_agreement_with_constants_proves_nothing() -> None:
    for constant in (np.zeros((2, 3)), np.full((2, 3), 7.0), np.full(4, 1.0) + 1e-9 * np.arange(4)):
        accuracy, report = judge(constant, constant)
        assert not accuracy.informative
        assert "proves nothing" in report.failures[0]
    both = {"flat": np.zeros(3), "y": RAMP}
    report = compare(both, both, reference="r", inputs="i")
    assert report.passed and [t.informative for t in report.tensors] == [False, True]
    assert not compare({}, {}, reference="r", inputs="i").passed


def test_a_single_value_proves_something_unless_it_is_zero() -> None:
    assert judge(np.array([0.7]), np.array([0.7]))[1].passed
    assert not judge(np.array([0.0]), np.array([0.0]))[1].passed


def test_labels_are_exact() -> None:
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    wrong = labels.copy()
    wrong[0, 0] = 255
    accuracy, _ = judge(labels, wrong)
    assert accuracy.max_abs_error == 255
    large = np.array([2**60, 2**60 + 4])
    assert judge(large, large + 1)[0].max_abs_error == 1
    assert judge(np.array([True, False]), np.array([True, True]))[0].max_abs_error == 1


def test_the_report_survives_json() -> None:
    _, report = judge(RAMP, np.full_like(RAMP, np.inf), max_abs_error=0.01)
    text = json.dumps(schema.encode(report), allow_nan=False)
    assert schema.decode(AccuracyReport, json.loads(text), error=CorruptError, where="report") == report


def test_a_runtime_that_reads_a_quantized_network_otherwise_is_named() -> None:
    plain = {"y": RAMP}
    literal = {"y": RAMP + np.float32(0.01) * np.sign(RAMP)}
    assert check_meaning(plain, literal, literal) == ()
    # As far off as half of what quantization changes.
    near = {"y": literal["y"] + np.float32(0.005) * np.sign(RAMP)}
    assert check_meaning(plain, literal, near) == ()
    (sentence,) = check_meaning(plain, literal, {"y": literal["y"] + np.float32(0.05)})
    assert sentence.startswith("output 'y' means something else: want")


def test_fine_quantization_wants_no_more_than_the_agreement() -> None:
    literal = {"y": RAMP * np.float32(1 + 1e-6)}
    assert check_meaning({"y": RAMP}, literal, {"y": RAMP * np.float32(1.005)}) == ()
    assert check_meaning({"y": RAMP}, literal, {"y": RAMP * np.float32(1.05)})


def test_labels_mean_the_same_where_few_differ() -> None:
    plain = {"y": np.zeros((100, 100), np.int64)}
    literal = {"y": plain["y"].copy()}
    literal["y"][:10] = 1  # quantization changes a tenth of them
    near = {"y": literal["y"].copy()}
    near["y"][10:14] = 1
    assert check_meaning(plain, literal, near) == ()
    assert check_meaning(plain, literal, {"y": literal["y"] + 1})


def test_a_missing_output_means_something_else() -> None:
    assert check_meaning({"y": RAMP}, {"y": RAMP}, {}) == ("output 'y' is missing",)
    assert "NaN" in check_meaning({"y": RAMP}, {"y": RAMP}, {"y": RAMP * np.float32(np.nan)})[0]
