"""Outputs against their reference: the figures that decide whether a compiled model is the same model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgekit.reports import AccuracyLimits, AccuracyReport, TensorAccuracy
from edgekit.spec import Array, format_dims

# A reference whose values spread less than this share of its largest one counts as constant: it is rounding.
_CONSTANT = 1e-6
# What two runtimes that mean the same have between them at least, where quantization is finer than that.
AGREEMENT_DB = 40.0
_HALF_DB = 3.0

_Floats = npt.NDArray[np.float64]


def compare(
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    *,
    reference: str,
    inputs: str,
    limits: AccuracyLimits = AccuracyLimits(),
) -> AccuracyReport:
    """Compare every output in float64.

    Failures whatever the limits are: an output that is missing or that nobody expects, another shape or
    dtype, NaN on either side, and nothing but constant references, since agreement with a constant proves
    nothing. Infinities of one sign at one place agree.

    Args:
        expected: Outputs of the reference, by name.
        got: Outputs of the compiled model, by name.
        reference: What made ``expected``, for the report.
        inputs: What both were fed with, for the report.
        limits: What every output has to keep.
    """
    tensors, failures = [], []
    for name, want in expected.items():
        obstacle = _obstacle(want, got.get(name))
        if obstacle:
            tensors.append(_incomparable(name))
            failures.append(f"output {name!r} {obstacle}")
            continue
        if want.dtype != got[name].dtype:
            failures.append(f"output {name!r} has another dtype: want {want.dtype}, got {got[name].dtype}")
        difference = _difference(want, got[name])
        accuracy = _measure(name, want, got[name], difference)
        tensors.append(accuracy)
        failures += _excesses(accuracy, want, got[name], difference, limits)
    failures += [f"output {name!r} is not in the reference" for name in got if name not in expected]
    if not any(t.informative for t in tensors):
        failures.append(
            "every output of the reference is constant, and agreement with a constant proves nothing: "
            "compare on real inputs"
        )
    return AccuracyReport(reference, inputs, tuple(tensors), limits, tuple(failures))


def check_meaning(
    unquantized: Mapping[str, Array],
    literal: Mapping[str, Array],
    got: Mapping[str, Array],
    *,
    min_snr_db: float = AGREEMENT_DB,
) -> tuple[str, ...]:
    """What a runtime makes of a quantized network, against what the network says.

    Rounding that two runtimes do in another order moves a number by one step, and later layers amplify that:
    so an output that quantization itself changes by more than ``min_snr_db`` may differ by half as much as
    that (3 dB less). A runtime that reads the network otherwise differs by far more.

    Args:
        unquantized: Outputs of the network before it was quantized, by name.
        literal: Outputs of the quantized network as ONNX defines them (see :mod:`edgekit.probe`).
        got: Outputs of the quantized network in the runtime.
        min_snr_db: Signal-to-noise ratio of ``got`` against ``literal`` that is enough whatever quantization
            changes. Of integers, labels that is, the share of others has to be as small.

    Returns:
        One sentence for each output that means something else; empty where all mean the same.
    """
    failures = []
    for name, want in literal.items():
        obstacle = _obstacle(want, got.get(name)) or _obstacle(want, unquantized.get(name))
        if obstacle:
            failures.append(f"output {name!r} {obstacle}")
            continue
        apart, changed = _apart_db(want, got[name]), _apart_db(unquantized[name], want)
        wanted = min(min_snr_db, changed + _HALF_DB)
        if not apart >= wanted:
            failures.append(
                f"output {name!r} means something else: want {wanted:.1f} dB between the runtime and the "
                f"network as it is written, got {apart:.1f} dB"
            )
    return tuple(failures)


def agreement(snr_db: float) -> float:
    """The signal-to-noise ratio that another runtime has to keep where this one has so much."""
    return min(AGREEMENT_DB, snr_db - _HALF_DB)


def _apart_db(want: Array, got: Array) -> float:
    """How far two arrays are apart in decibels; more is nearer."""
    difference = _difference(want, got)
    if want.dtype.kind in "iub":
        return _decibels(math.sqrt(np.count_nonzero(difference) / difference.size))
    return _measure("", want, got, difference).snr_db


def _obstacle(want: Array, got: Array | None) -> str:
    """Why the two cannot be compared, or ''."""
    if got is None:
        return "is missing"
    if want.shape != got.shape:
        return f"has another shape: want {format_dims(want.shape)}, got {format_dims(got.shape)}"
    if want.size == 0:
        return "is empty"
    for side, array in (("the reference", want), ("the result", got)):
        missing = int(np.count_nonzero(np.isnan(array)))
        if missing:
            return f"has {missing} NaN of {array.size} values in {side}"
    return ""


def _difference(want: Array, got: Array) -> _Floats:
    """Absolute differences. Two integers that differ differ by at least one, however large they are."""
    unequal = np.asarray(want != got)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, where they are equal
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    difference[~unequal] = 0.0
    if want.dtype.kind in "iub" and got.dtype.kind in "iub":
        np.maximum(difference, unequal, out=difference)
    return difference


def _measure(name: str, want: Array, got: Array, difference: _Floats) -> TensorAccuracy:
    a, b = _finite(want), _finite(got)
    max_abs_error = float(difference.max())
    largest = float(np.abs(a).max())
    # Divided by the largest value, so that no square overflows or vanishes.
    scale = max(largest, float(np.abs(b).max()))
    if scale > 0:
        a, b = a / scale, b / scale
    error = float(np.linalg.norm(difference / scale)) if scale > 0 else max_abs_error
    signal, result = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    cosine = float(np.vdot(a, b)) / (signal * result) if signal and result else float(signal == result)
    return TensorAccuracy(
        name=name,
        max_abs_error=max_abs_error,
        max_rel_error=_ratio(max_abs_error, largest),
        snr_db=_decibels(_ratio(error, signal)),
        cosine=min(1.0, max(-1.0, cosine)),
        informative=_varies(want),
    )


def _ratio(part: float, whole: float) -> float:
    """``part / whole``; nothing of nothing is 0, something of nothing infinite."""
    if part == 0:
        return 0.0
    return part / whole if whole > 0 else math.inf


def _decibels(noise_to_signal: float) -> float:
    """The signal-to-noise ratio in decibels from the ratio of the two norms."""
    if noise_to_signal == 0:
        return math.inf
    return -20 * math.log10(noise_to_signal)  # infinite noise: -inf


def _varies(reference: Array) -> bool:
    """Whether agreement proves something. A single value does unless it is 0, what a dead network gives."""
    values = _finite(reference)
    if values.size == 1:
        return bool(values.flat[0] != 0)
    return float(np.ptp(values)) > _CONSTANT * float(np.abs(values).max())


def _finite(array: Array) -> _Floats:
    """In float64, infinities as 0."""
    values = array.astype(np.float64)
    values[~np.isfinite(values)] = 0.0
    return values


def _incomparable(name: str) -> TensorAccuracy:
    return TensorAccuracy(name, math.inf, math.inf, -math.inf, 0.0, informative=False)


def _excesses(
    accuracy: TensorAccuracy, want: Array, got: Array, difference: _Floats, limits: AccuracyLimits
) -> list[str]:
    """One sentence for each limit that this output exceeds."""
    sentences = []
    if limits.max_abs_error is not None and not accuracy.max_abs_error <= limits.max_abs_error:
        at = np.unravel_index(int(difference.argmax()), difference.shape)
        place = f" at [{', '.join(map(str, at))}]" if at else ""
        sentences.append(
            f"output {accuracy.name!r} differs by {accuracy.max_abs_error:.3g}{place} "
            f"(want {want[at]:.6g}, got {got[at]:.6g}); allowed are {limits.max_abs_error:g}"
        )
    if limits.min_snr_db is not None and not accuracy.snr_db >= limits.min_snr_db:
        sentences.append(
            f"output {accuracy.name!r} has a signal-to-noise ratio of {accuracy.snr_db:.1f} dB; "
            f"wanted are {limits.min_snr_db:g} dB"
        )
    return sentences
