"""What values a tensor takes: observed once, in little memory, and how far a quantized type should reach.

Of each tensor a histogram of ``|x|`` is kept, on ``[0, limit)`` with ``limit`` a power of two. A value that
does not fit doubles ``limit`` and merges pairs of bins. Dividing by a power of two is exact in floating
point, and halving bin numbers commutes with it, so the histogram is the one that the final limit would have
given from the beginning: it depends neither on the order of the samples nor on how they were cut into chunks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from edgekit.errors import PassError, UsageError, did_you_mean
from edgekit.spec import Array

BINS = 4096
DEFAULT_PERCENTILE = 99.99

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

# Everything below 2**-100 counts as zero: the factor from values to bins then stays a normal float32.
_LEAST_EXPONENT = -100
# Elements that are looked at together: their temporary arrays stay in the processor's cache.
_CHUNK = 1 << 16
# Clipping values that the searches try, between the smallest useful one and the largest value.
_CANDIDATES = 256

_Counts = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TensorRange:
    """The values that one tensor took.

    Attributes:
        name: Name of the value in the graph.
        minimum: Smallest value.
        maximum: Largest value.
        limit: A power of two above every ``|x|``, end of the histogram.
        counts: int64[BINS], how many ``|x|`` lie in each of the equal bins of ``[0, limit)``.
        channel_max: float32[C], largest ``|x|`` of each channel (axis 1), or ``None`` where the tensor has no
            axis 1 or its length varied.
        channel_sum: float64[C], sum of each channel, or ``None`` likewise. The last bits depend on the order
            of the samples.
    """

    name: str
    minimum: float
    maximum: float
    limit: float
    counts: _Counts
    channel_max: npt.NDArray[np.float32] | None = None
    channel_sum: _Floats | None = None

    @property
    def count(self) -> int:
        """How many values were seen."""
        return int(self.counts.sum())

    @property
    def channel_mean(self) -> _Floats | None:
        """float64[C], mean of each channel, or ``None`` where channels were not told apart."""
        if self.channel_sum is None:
            return None
        return np.asarray(self.channel_sum * (len(self.channel_sum) / self.count))

    @property
    def non_negative(self) -> bool:
        """Whether no value was below zero."""
        return self.minimum >= 0

    @property
    def largest(self) -> float:
        """The largest ``|x|``."""
        return max(-self.minimum, self.maximum)

    def magnitude(
        self, method: Method = "minmax", *, bits: int = 8, percentile: float = DEFAULT_PERCENTILE
    ) -> float:
        """The clipping value ``m`` of a symmetric quantized type: what lies outside ``[-m, m]`` saturates.

        ``"minmax"`` clips nothing; ``"percentile"`` clips what lies above a percentile of ``|x|``;
        ``"entropy"`` takes the least Kullback-Leibler divergence between the values' distribution and its
        quantized form (as TensorRT's calibration does: Migacz, "8-bit inference with TensorRT", GTC 2017);
        ``"mse"`` the least mean squared error of rounding and clipping together.

        Args:
            method: One of :data:`METHODS`.
            bits: Width of the signed type, which leaves ``2**(bits - 1) - 1`` steps for ``|x|``. An unsigned
                type that holds a non-negative tensor has as many as a signed one of one bit more.
            percentile: For that method, above 0 and at most 100.

        Returns:
            At most :attr:`largest`; 0 where all values were 0.

        Raises:
            UsageError: An unknown method, or a number out of range.
        """
        _check_arguments(method, bits, percentile)
        used = int(np.flatnonzero(self.counts)[-1]) + 1
        if method == "minmax" or used == 1:
            return self.largest
        if method == "percentile":
            edge = _percentile_edge(self.counts, percentile)
        elif method == "entropy":
            edge = _entropy_edge(self.counts[:used], 1 << (bits - 1))
        else:
            edge = _mse_edge(self.counts[:used], (1 << (bits - 1)) - 1)
        return min(edge * self.limit / BINS, self.largest)

    def clipped_share(self, magnitude: float) -> float:
        """The share of values whose ``|x|`` lies above a clipping value, told to a bin's width."""
        if magnitude >= self.largest:
            return 0.0
        first = math.ceil(magnitude * BINS / self.limit)
        return float(self.counts[first:].sum() / self.count)

    def merged(self, other: TensorRange) -> TensorRange:
        """The range of all values of both.

        Raises:
            PassError: They are of two tensors.
        """
        if self.name != other.name:
            raise PassError(f"ranges of two tensors do not merge: {self.name!r} and {other.name!r}")
        limit = max(self.limit, other.limit)
        channel_max = channel_sum = None
        if (
            self.channel_max is not None
            and other.channel_max is not None
            and self.channel_max.shape == other.channel_max.shape
        ):
            assert self.channel_sum is not None and other.channel_sum is not None
            channel_max = np.maximum(self.channel_max, other.channel_max)
            channel_sum = self.channel_sum + other.channel_sum
        return TensorRange(
            self.name,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            limit,
            _coarser(self.counts, self.limit, limit) + _coarser(other.counts, other.limit, limit),
            channel_max,
            channel_sum,
        )


@dataclass(frozen=True, eq=False)
class Ranges:
    """The ranges of a graph's tensors, by name.

    Attributes:
        tensors: A range for each name.
    """

    tensors: Mapping[str, TensorRange]

    @staticmethod
    def of(ranges: Sequence[TensorRange]) -> Ranges:
        """Ranges by their tensors' names; those of one tensor are merged."""
        tensors: dict[str, TensorRange] = {}
        for one in ranges:
            tensors[one.name] = tensors[one.name].merged(one) if one.name in tensors else one
        return Ranges(MappingProxyType(tensors))

    def __getitem__(self, name: str) -> TensorRange:
        if name not in self.tensors:
            near = did_you_mean(name, self.tensors)
            raise PassError(
                f"no range was observed for the tensor {name!r}",
                where="calibration",
                hint=f"did you mean {near!r}?" if near else "calibrate the graph that is quantized",
            )
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def merged(self, other: Ranges) -> Ranges:
        """The ranges of both; a tensor that is in both gets the range of all its values."""
        return Ranges.of([*self.tensors.values(), *other.tensors.values()])

    def digest(self) -> str:
        """SHA-256 of all that was observed, in hexadecimal; the order of the names does not matter."""
        value, arrays = Ranges({name: self.tensors[name] for name in sorted(self.tensors)}).pack()
        digest = hashlib.sha256(json.dumps(value).encode())
        for name in sorted(arrays):
            digest.update(arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def pack(self) -> tuple[Any, dict[str, Array]]:
        """The ranges as a JSON value and a few arrays, for a file or another process; see :meth:`unpack`."""
        rows = list(self.tensors.values())
        value = [
            {
                "name": row.name,
                "minimum": row.minimum,
                "maximum": row.maximum,
                "limit": row.limit,
                "channels": None if row.channel_max is None else len(row.channel_max),
            }
            for row in rows
        ]
        maxima = [row.channel_max for row in rows if row.channel_max is not None]
        sums = [row.channel_sum for row in rows if row.channel_sum is not None]
        return value, {
            "counts": np.array([row.counts for row in rows], np.int64).reshape(-1, BINS),
            "channel_max": np.concatenate([np.zeros(0, np.float32), *maxima]),
            "channel_sum": np.concatenate([np.zeros(0, np.float64), *sums]),
        }

    @staticmethod
    def unpack(value: Any, arrays: Mapping[str, Array]) -> Ranges:
        """The ranges that :meth:`pack` took apart."""
        maxima = cast("npt.NDArray[np.float32]", arrays["channel_max"])
        sums = cast("_Floats", arrays["channel_sum"])
        tensors, first = {}, 0
        for row, counts in zip(value, cast("_Counts", arrays["counts"]), strict=True):
            last = first + (row["channels"] or 0)
            has_channels = row["channels"] is not None
            tensors[row["name"]] = TensorRange(
                row["name"],
                float(row["minimum"]),
                float(row["maximum"]),
                float(row["limit"]),
                counts,
                maxima[first:last] if has_channels else None,
                sums[first:last] if has_channels else None,
            )
            first = last
        return Ranges(MappingProxyType(tensors))


class Observer:
    """Sees the arrays of one tensor, one after the other, and keeps none of them.

    Its own memory is 32 KiB and 12 bytes a channel; while it looks at an array, about a MiB more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._minimum, self._maximum = math.inf, -math.inf
        self._exponent = _LEAST_EXPONENT
        self._counts = np.zeros(BINS, np.int64)
        self._channel_max: npt.NDArray[np.float32] | None = None
        self._channel_sum: _Floats | None = None
        self._has_channels = True

    def add(self, array: Array) -> None:
        """Look at the values of one array of floating-point numbers.

        Raises:
            PassError: It holds NaN or infinity, or no numbers of floating point.
        """
        if array.dtype.kind != "f":
            raise PassError(f"want floating-point values, got {array.dtype}", where=f"tensor {self.name!r}")
        if array.size == 0:
            return
        channels = array.shape[1] if array.ndim > 1 else 1
        # Items × channels × values. Copies only what is not contiguous.
        blocks = np.ascontiguousarray(array).reshape(len(array) if array.ndim > 1 else 1, channels, -1)
        maximum, minimum = np.full(channels, -np.inf, np.float32), np.full(channels, np.inf, np.float32)
        total = np.zeros(channels)
        for item, rows, values in _chunks(blocks.shape):
            block = blocks[item, rows, values].astype(np.float32, copy=False)
            np.maximum(maximum[rows], block.max(axis=1), out=maximum[rows])
            np.minimum(minimum[rows], block.min(axis=1), out=minimum[rows])
            total[rows] += np.add.reduce(block, axis=1, dtype=np.float64)
        largest = np.maximum(maximum, -minimum)
        if not np.isfinite(largest).all():
            raise PassError(
                "the values of an activation are not all finite numbers",
                where=f"tensor {self.name!r}",
                hint="run the float32 model on this sample: edgekit run",
            )
        self._minimum = min(self._minimum, float(minimum.min()))
        self._maximum = max(self._maximum, float(maximum.max()))
        self._add_channels(largest if array.ndim > 1 else None, total)
        self._add_counts(blocks, float(largest.max()))

    def range(self) -> TensorRange:
        """What was seen so far.

        Raises:
            PassError: Nothing was.
        """
        if not self._counts.any():
            raise PassError("no value was observed", where=f"tensor {self.name!r}")
        return TensorRange(
            self.name,
            self._minimum,
            self._maximum,
            math.ldexp(1.0, self._exponent),
            self._counts.copy(),
            None if self._channel_max is None else self._channel_max.copy(),
            None if self._channel_sum is None else self._channel_sum.copy(),
        )

    def _add_channels(self, largest: npt.NDArray[np.float32] | None, total: _Floats) -> None:
        if self._channel_max is not None and largest is not None and len(largest) == len(self._channel_max):
            assert self._channel_sum is not None
            np.maximum(self._channel_max, largest, out=self._channel_max)
            self._channel_sum += total
        elif self._channel_max is None and largest is not None and self._has_channels:
            self._channel_max, self._channel_sum = largest.copy(), total
        else:
            # Once the axis is not the same in all samples, its entries have no meaning of their own.
            self._channel_max = self._channel_sum = None
            self._has_channels = False

    def _add_counts(self, blocks: Array, largest: float) -> None:
        # frexp: largest = f · 2**exponent with f below 1.
        exponent = max(self._exponent, math.frexp(largest)[1])
        if exponent > self._exponent:
            old, new = math.ldexp(1.0, self._exponent), math.ldexp(1.0, exponent)
            self._counts, self._exponent = _coarser(self._counts, old, new), exponent
        factor = np.float32(math.ldexp(BINS, -self._exponent))
        for item, rows, values in _chunks(blocks.shape):
            block = np.abs(blocks[item, rows, values], dtype=np.float32)
            block *= factor
            # The cast cuts off, which is floor here.
            self._counts += np.bincount(block.astype(np.int32).reshape(-1), minlength=BINS)


def _chunks(shape: tuple[int, ...]) -> Iterator[tuple[int, slice, slice]]:
    """Index of item, channels and values of pieces of at most ``_CHUNK`` elements."""
    items, channels, size = shape
    width = min(size, _CHUNK)
    height = max(1, _CHUNK // width)
    for item in range(items):
        for row in range(0, channels, height):
            for value in range(0, size, width):
                yield item, slice(row, min(row + height, channels)), slice(value, value + width)


def _coarser(counts: _Counts, limit: float, wanted: float) -> _Counts:
    """The histogram on a limit that is a power of two as large or larger."""
    shift = math.frexp(wanted)[1] - math.frexp(limit)[1]
    if shift == 0:
        return counts
    width = min(1 << min(shift, BINS.bit_length()), BINS)
    merged = np.zeros_like(counts)
    merged[: BINS // width] = counts.reshape(-1, width).sum(axis=1)
    return merged


def _check_arguments(method: str, bits: int, percentile: float) -> None:
    if method not in METHODS:
        near = did_you_mean(method, METHODS)
        raise UsageError(
            f"unknown range method {method!r}: want one of {', '.join(METHODS)}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    if not 2 <= bits <= 9:
        raise UsageError(f"want a quantized type of 2 to 9 bits, got {bits}")
    if not 0 < percentile <= 100:
        raise UsageError(f"want a percentile above 0 and at most 100, got {percentile:g}")


def _percentile_edge(counts: _Counts, percentile: float) -> float:
    """In bins: where the share of values below first reaches the percentile; linear inside its bin."""
    below = np.cumsum(counts)
    wanted = below[-1] * (percentile / 100)
    index = int(np.searchsorted(below, wanted))
    before = int(below[index - 1]) if index else 0
    return index + float(wanted - before) / int(counts[index])


def _edges(used: int, levels: int) -> list[int]:
    """Ends of the histogram to try, in bins, the longest last."""
    # With fewer bins than levels, the histogram is coarser than the type.
    first = min(levels, used)
    return sorted({int(edge) for edge in np.linspace(first, used, _CANDIDATES)})


def _entropy_edge(counts: _Counts, levels: int) -> float:
    """The end, in bins, whose clipped and quantized distribution diverges least from the clipped one."""
    counts = counts.copy()
    # Zeros are exact whatever the scale is, and after a ReLU they would outweigh everything else.
    counts[0] = counts[1]
    beyond = np.concatenate([np.cumsum(counts[::-1])[::-1], [0]])
    best, edge_of_best = math.inf, len(counts)
    for edge in _edges(len(counts), levels):
        wanted = counts[:edge].astype(np.float64)
        wanted[-1] += beyond[edge]
        divergence = _divergence(wanted, _quantized(counts[:edge], levels))
        # Of equally good ends the longest clips least.
        if divergence <= best:
            best, edge_of_best = divergence, edge
    return float(edge_of_best)


def _quantized(counts: npt.NDArray[Any], levels: int) -> _Floats:
    """The distribution of merged bins: the count of each level is spread over its filled bins."""
    level = np.arange(len(counts)) * levels // len(counts)
    filled = (counts > 0).astype(np.float64)
    sums = np.bincount(level, counts, minlength=levels)
    shares = sums / np.maximum(np.bincount(level, filled, minlength=levels), 1)
    return np.asarray(shares[level] * filled)


def _divergence(wanted: _Floats, got: _Floats) -> float:
    """Kullback-Leibler divergence, where a little weight is moved to bins that only one of both has."""
    if not wanted.any() or not got.any():
        return math.inf
    parts = []
    for counts in (wanted, got):
        share = counts / counts.sum()
        empty = share == 0
        floor = 1e-4 / len(share)
        share = np.where(empty, floor, share * (1 - floor * np.count_nonzero(empty)))
        parts.append(share)
    return float(np.sum(parts[0] * np.log(parts[0] / parts[1])))


def _mse_edge(counts: _Counts, steps: int) -> float:
    """The end, in bins, with the least squared error of rounding to ``steps`` steps and clipping."""
    values = np.arange(len(counts)) + 0.5
    # Nearly all of the first bin is zeros, which are exact.
    values[0] = 0
    best, edge_of_best = math.inf, len(counts)
    for edge in _edges(len(counts), steps + 1):
        step = edge / steps
        rounded = np.minimum(np.rint(values / step), steps) * step
        error = float(np.dot(counts, np.square(rounded - values)))
        if error <= best:
            best, edge_of_best = error, edge
    return float(edge_of_best)
