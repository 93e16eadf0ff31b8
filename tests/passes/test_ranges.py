"""Observed ranges: the same whatever the order, and clipping values that can be told by hand."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.errors import PassError, UsageError
from edgekit.passes.ranges import BINS, METHODS, Method, Observer, Ranges, TensorRange

Floats = npt.NDArray[np.float32]


def observed(*arrays: npt.NDArray[Any], name: str = "t") -> TensorRange:
    observer = Observer(name)
    for array in arrays:
        observer.add(array)
    return observer.range()


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_equal(one: TensorRange, other: TensorRange) -> None:
    assert (one.minimum, one.maximum, one.limit) == (other.minimum, other.maximum, other.limit)
    assert np.array_equal(one.counts, other.counts)


def test_the_histogram_is_numpys() -> None:
    values = 3 * normal(2, 5, 7, 11)
    found = observed(values)
    assert found.limit in (8, 16)
    wanted, _ = np.histogram(np.abs(values.astype(np.float64)), BINS, (0, found.limit))
    assert np.array_equal(found.counts, wanted)
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.count == values.size


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)])
def test_neither_order_nor_cutting_matters(order: tuple[int, ...]) -> None:
    # From below every bin to far above, zeros first or last.
    samples = [normal(1, 4, 300, seed=i) * 10.0 ** (3 * i - 6) for i in range(4)]
    samples.append(np.zeros((1, 4, 10), np.float32))
    whole = observed(np.concatenate(samples, axis=2))
    assert_equal(observed(*(samples[i] for i in order)), whole)
    merged = observed(samples[order[0]])
    for i in order[1:]:
        merged = merged.merged(observed(samples[i]))
    assert_equal(merged, whole)


@pytest.mark.parametrize("value", [1.0, 2.0, 0.75, 2.0**-120, 3.4e38, 1e-45])
def test_extreme_values_have_a_bin(value: float) -> None:
    found = observed(np.array([value, -value], np.float32))
    assert found.counts.sum() == 2
    assert found.largest < found.limit
    assert found.magnitude("minmax") == np.float32(value)


def test_channels_are_told_apart() -> None:
    values = normal(2, 3, 40, 50) * np.array([1, 10, 0.1], np.float32)[:, None, None] + 2
    found = observed(values[:1], values[1:])
    assert found.channel_max is not None and found.channel_mean is not None
    assert np.array_equal(found.channel_max, np.abs(values).max(axis=(0, 2, 3)))
    np.testing.assert_allclose(found.channel_mean, values.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)


def test_a_varying_axis_is_no_channel() -> None:
    arrays = [normal(1, 3, 4), normal(1, 5, 4), normal(1, 3, 4)]
    assert observed(*arrays).channel_max is None
    assert observed(arrays[0]).merged(observed(arrays[1])).channel_mean is None
    assert observed(normal(7)).channel_max is None


def test_long_rows_and_many_rows_are_cut_alike() -> None:
    for shape in ((1, 2, 150_001), (2, 70_001, 3), (1, 1, 65_536), (3, 257, 257)):
        values = normal(*shape)
        found = observed(values)
        assert np.array_equal(
            found.counts, np.histogram(np.abs(values.astype(float)), BINS, (0, found.limit))[0]
        )
        assert found.channel_max is not None
        assert np.array_equal(found.channel_max, np.abs(values).max(axis=(0, 2)))


def test_observing_takes_little_memory() -> None:
    values = normal(1, 4, 100, 100, 100)
    observer = Observer("t")
    observer.add(values[:, :, :2])
    tracemalloc.start()
    observer.add(values)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 3 << 20


def test_other_floating_types() -> None:
    values = normal(2, 3, 4)
    half = values.astype(np.float16)
    assert_equal(observed(half), observed(half.astype(np.float32)))
    assert_equal(observed(values.astype(np.float64)), observed(values))
    assert_equal(observed(values[:, :, ::2]), observed(values[:, :, ::2].copy()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = normal(1, 2, 3)
    values[0, 1, 1] = bad
    with pytest.raises(PassError, match="not all finite"):
        observed(values)


def test_nothing_and_integers_are_refused() -> None:
    with pytest.raises(PassError, match="no value"):
        observed(np.zeros((0, 3), np.float32))
    with pytest.raises(PassError, match="int64"):
        observed(np.arange(3))


def test_minmax_and_percentile() -> None:
    values = np.linspace(-50, 100, 10_001, dtype=np.float32)
    found = observed(values)
    assert found.magnitude("minmax") == 100
    for percentile in (50.0, 90.0, 99.0):
        wanted = np.percentile(np.abs(values), percentile)
        assert found.magnitude("percentile", percentile=percentile) == pytest.approx(wanted, abs=0.05)
    assert found.magnitude("percentile", percentile=100) == 100
    assert not found.non_negative
    assert observed(np.abs(values)).non_negative


def test_mse_finds_the_least_error() -> None:
    rng = np.random.default_rng(1)
    values = rng.laplace(size=200_000).astype(np.float32)
    values[:20] *= 30
    found = observed(values)

    def error(clip: float) -> float:
        step = clip / 127
        return float(np.mean((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2))

    best = min(error(clip) for clip in np.linspace(1, found.largest, 400))
    clip = found.magnitude("mse")
    assert error(clip) <= 1.02 * best
    assert error(clip) < 0.7 * error(found.largest)
    # With fewer steps it pays to clip more.
    assert found.magnitude("mse", bits=4) < clip


def test_entropy_clips_outliers_and_keeps_even_distributions() -> None:
    rng = np.random.default_rng(2)
    even = rng.uniform(-1, 1, 400_000).astype(np.float32)
    assert observed(even).magnitude("entropy") > 0.97
    spiky = rng.standard_normal(400_000).astype(np.float32)
    assert 3 < observed(spiky).magnitude("entropy") < 5.5
    spiky[:3] = 100
    assert observed(spiky).magnitude("entropy") < 8


@pytest.mark.parametrize("method", METHODS)
def test_zeros_do_not_decide(method: Method) -> None:
    """Behind a ReLU half of the values are zero; where the others lie stays what counts."""
    values = np.abs(normal(1, 1, 100_000))
    many_zeros = np.concatenate([values, np.zeros((1, 1, 100_000), np.float32)], axis=2)
    dense, sparse = (observed(v).magnitude(method) for v in (values, many_zeros))
    assert sparse == pytest.approx(dense, rel=0.06)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 1024.0, 2.0**-60])
def test_the_scale_of_the_values_is_that_of_the_magnitude(method: Method, scale: float) -> None:
    values = normal(1, 2, 5000)
    one, other = observed(values), observed(values * np.float32(scale))
    assert other.magnitude(method) == one.magnitude(method) * scale
    assert 0 < one.magnitude(method) <= one.largest


@pytest.mark.parametrize("method", METHODS)
def test_constants_and_zeros(method: Method) -> None:
    assert observed(np.zeros((1, 2), np.float32)).magnitude(method) == 0
    assert observed(np.full((1, 2), 3, np.float32)).magnitude(method) == 3
    assert observed(np.full((1, 2), -0.7, np.float32)).magnitude(method) == np.float32(0.7)
    assert observed(np.array([[0, 0, 0, 5.0]], np.float32)).magnitude(method) == 5


def test_wrong_arguments_are_refused() -> None:
    found = observed(normal(3, 3))
    with pytest.raises(UsageError, match="minmax, percentile"):
        found.magnitude("entopy")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="percentile"):
        found.magnitude("percentile", percentile=0)
    with pytest.raises(UsageError, match="bits"):
        found.magnitude("mse", bits=1)


def test_the_clipped_share() -> None:
    found = observed(np.arange(1000, dtype=np.float32))
    assert found.clipped_share(found.largest) == 0
    assert found.clipped_share(500) == pytest.approx(0.5, abs=0.002)
    assert found.clipped_share(0) == 1


def test_ranges_travel_as_json_and_arrays() -> None:
    ranges = Ranges.of(
        [observed(normal(2, 3, 4), name="a"), observed(normal(5), name="b"), observed(normal(1, 2), name="c")]
    )
    value, arrays = ranges.pack()
    back = Ranges.unpack(json.loads(json.dumps(value)), arrays)
    assert list(back) == ["a", "b", "c"]
    assert back.digest() == ranges.digest()
    for name in ranges:
        assert_equal(back[name], ranges[name])
    assert back["b"].channel_max is None
    assert np.array_equal(back["c"].channel_max, ranges["c"].channel_max)  # type: ignore[arg-type]
    empty, nothing = Ranges.of([]).pack()
    assert len(Ranges.unpack(empty, nothing)) == 0


def test_ranges_merge_and_name_what_is_missing() -> None:
    first = Ranges.of([observed(normal(1, 2, 3), name="conv1"), observed(normal(4), name="x")])
    second = Ranges.of([observed(2 * normal(1, 2, 3, seed=1), name="conv1")])
    both = first.merged(second)
    assert_equal(both["conv1"], observed(normal(1, 2, 3), 2 * normal(1, 2, 3, seed=1)))
    assert both.digest() == second.merged(first).digest() != first.digest()
    assert "x" in both and len(both) == 2
    with pytest.raises(PassError, match="'conv2'") as refused:
        both["conv2"]
    assert refused.value.hint == "did you mean 'conv1'?"
    with pytest.raises(PassError, match="two tensors"):
        first["x"].merged(first["conv1"])
