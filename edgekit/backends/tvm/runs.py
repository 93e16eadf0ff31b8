"""A convolution as a list: runs of neighbours in the input's memory, at distances from an output's place.

Where channels lie in blocks, a run is some channels of a block at one tap. Else it is some places of a row,
each of which may belong to a tap along the last axis. An output is a sum over all its phase's runs, so a
kernel needs no loops over channels and taps, but one over the list.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.tvm.tensor import Halo, Tensor
from edgekit.backends.tvm.tiles import Convolution, Line

# Distance, and for each neighbour its channel and tap; no tap is -1.
_Run = tuple[int, list[tuple[int, int]]]


@dataclass(frozen=True)
class Runs:
    """The runs of one phase, in the order of memory.

    Attributes:
        distances: From an output's place in the input's memory, (runs,).
        channels: Of the input within its group, (runs, neighbours).
        taps: By number, (runs, neighbours); -1 where no weight belongs to a neighbour.
    """

    distances: NDArray[np.int32]
    channels: NDArray[np.int64]
    taps: NDArray[np.int64]

    @classmethod
    def of(cls, convolution: Convolution, phase: Sequence[Line], x: Tensor, size: int) -> Runs:
        """The list of a phase.

        Args:
            convolution: What is computed.
            phase: One of its lines along each axis.
            x: The input; a block of its channels, if it has any, is a whole number of runs.
            size: Neighbours of a run.
        """
        make = _in_blocks if x.layout.block > 1 else _in_rows
        found = list(make(convolution, phase, x, size))
        pairs = np.array([pairs for _, pairs in found], np.int64).reshape(-1, size, 2)
        distances = np.array([distance for distance, _ in found], np.int32)
        return cls(distances, pairs[..., 0], pairs[..., 1])

    def weights(self, values: NDArray[np.int8]) -> NDArray[np.int16]:
        """Of each run: (runs, neighbours, outputs).

        Args:
            values: (outputs, inputs of a group, taps).
        """
        there = (self.taps >= 0) & (self.channels < values.shape[1])
        channels, taps = np.where(there, self.channels, 0), np.where(there, self.taps, 0)
        found: NDArray[np.int16] = np.where(there, values[:, channels, taps].astype(np.int16), 0)
        return np.moveaxis(found, 0, -1)


def halo(convolution: Convolution, lengths: Sequence[int], results: Sequence[int], size: int) -> Halo:
    """What is read around an input whose channels do not lie in blocks: with the ends of runs.

    Args:
        convolution: What is computed.
        lengths: Of the input's spatial axes.
        results: Of the output's.
        size: Neighbours of a run.
    """
    *outer, (before, after) = convolution.halo(lengths, results)
    ends = [
        (line.count - 1) * line.step + _span(line, size)[-1] + size
        for line in convolution.lines(results)[-1]
        if line.taps
    ]
    return (*outer, (before, max(after, max(ends) - lengths[-1])))


def _in_blocks(convolution: Convolution, phase: Sequence[Line], x: Tensor, size: int) -> Iterator[_Run]:
    inputs, block = x.shape[1] // convolution.groups, x.layout.block
    for first in range(0, inputs, block):
        for places in itertools.product(*(range(len(line.taps)) for line in phase)):
            start = first // block * x.strides[1] + _distance(phase, places, x)
            tap = _tap(convolution, phase, places)
            for channel in range(first, min(first + block, inputs), size):
                yield start + channel - first, [(channel + i, tap) for i in range(size)]


def _in_rows(convolution: Convolution, phase: Sequence[Line], x: Tensor, size: int) -> Iterator[_Run]:
    *outer, last = phase
    numbers = {last.offset + number * last.tap: number for number in range(len(last.taps))}
    for channel in range(x.shape[1] // convolution.groups):
        for places in itertools.product(*(range(len(line.taps)) for line in outer)):
            start = channel * x.strides[1] + _distance(outer, places, x)
            for first in _span(last, size):
                along = [numbers.get(first + i) for i in range(size)]
                yield (
                    start + first,
                    [(channel, -1 if n is None else _tap(convolution, phase, (*places, n))) for n in along],
                )


def _span(line: Line, size: int) -> range:
    """Where along a row runs begin that cover all taps of a phase."""
    reach = (len(line.taps) - 1) * line.tap
    first, last = line.offset + min(reach, 0), line.offset + max(reach, 0)
    return range(first, last + 1, size) if line.taps else range(0)


def _distance(phase: Sequence[Line], places: Sequence[int], x: Tensor) -> int:
    steps = zip(phase, places, x.strides[2:], strict=False)
    return sum((line.offset + place * line.tap) * stride for line, place, stride in steps)


def _tap(convolution: Convolution, phase: Sequence[Line], places: Sequence[int]) -> int:
    number = 0
    for line, place, length in zip(phase, places, convolution.kernel, strict=True):
        number = number * length + line.taps[place]
    return number
