"""Calibration samples as training data: a held-out part, and endless variations of the rest.

What a step draws depends on the seed and the step's number alone, so that a resumed run draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Generator, Tensor

from edgekit.errors import SpecError
from edgekit.recovery import Augmentation
from edgekit.spec import Array, Dim, TensorSpec

Sample = dict[str, Tensor]

# Beyond this, samples are read again on every pass instead of kept.
MEMORY_BYTES = 1 << 29
HELD_BYTES = 1 << 28
_MOST_HELD = 16
_CROPS = {1: 4096, 2: 128, 3: 64}
# Samples that are judged are cut less: they are to be what the network will see, and still not take long.
_LARGER = {1: 2.0, 2: 2.0, 3: 1.5}
# Quantities whose values have a unit that must not be scaled.
_ABSOLUTE = ("hounsfield", "label", "flow_vox", "velocity_vox")


class Samples:
    """Samples of one network.

    Args:
        source: Samples in a stable order, the same on every pass: tensors or arrays [1, ...] by name, inputs
            and whatever the task's loss wants.
        specs: Contracts of the inputs. Without one, an input is neither cropped nor varied in intensity.
        held_out: Share that is held out.
        augmentation: How the others are varied.
        seed: Of the order and of the variations.

    Raises:
        SpecError: Fewer than two samples, or samples that differ in their names or hold NaN or infinity.
    """

    def __init__(
        self,
        source: Iterable[Mapping[str, Tensor | Array]],
        specs: Sequence[TensorSpec],
        held_out: float,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._source, self._seed, self._augmentation = source, seed, augmentation
        self.specs = {spec.name: spec for spec in specs}
        self.count, total, first = 0, 0, None
        for sample in self._read():
            first = first or sample
            _check(sample, first, self.specs, self.count)
            self.count += 1
            total += _bytes(sample)
        if self.count < 2 or first is None:
            raise SpecError(
                f"want at least two calibration samples, one of them to judge by; got {self.count}",
                where="calibration samples",
                hint="more images, or more patches of each",
            )
        self.names = tuple(first)
        self._crop = self._crop_lengths()
        held = self._held_indices(held_out, total / self.count)
        self._training = [index for index in range(self.count) if index not in held]
        self._kept = list(self._read()) if total <= MEMORY_BYTES else None
        self.held = [self._centred(sample) for index, sample in self._numbered(held) if index in held]
        self._reader: Iterator[tuple[int, Sample]] | None = None
        self._position = -1

    @property
    def are_kept(self) -> bool:
        """Whether all of them are in memory."""
        return self._kept is not None

    def drawn(self, step: int, count: int) -> list[Sample]:
        """The varied samples of one step; those of one shape can be stacked."""
        rng = Generator().manual_seed(self._seed * 1_000_003 + step)
        places = range(step * count, (step + 1) * count)
        return [self._varied(self._training_sample(place), rng) for place in places]

    def plain(self, count: int) -> list[Sample]:
        """Some training samples as they are, spread over all of them, cut to what a held-out one may have."""
        every = max(1, len(self._training) // count)
        wanted = set(self._training[::every][:count])
        return [self._centred(sample) for index, sample in self._numbered(wanted) if index in wanted]

    def _read(self) -> Iterator[Sample]:
        return ({name: torch.as_tensor(value) for name, value in s.items()} for s in self._source)

    def _numbered(self, wanted: set[int]) -> Iterator[tuple[int, Sample]]:
        if self._kept is not None:
            return ((index, self._kept[index]) for index in sorted(wanted))
        return enumerate(self._read())

    def _held_indices(self, share: float, bytes_each: float) -> set[int]:
        """Evenly spread ones: neighbours are often slices of one patient."""
        count = min(round(share * self.count), _MOST_HELD, int(HELD_BYTES / max(bytes_each, 1)))
        count = max(1, min(count, self.count - 1))
        return {(2 * index + 1) * self.count // (2 * count) for index in range(count)}

    def _training_sample(self, place: int) -> Sample:
        """The sample at a place of the endless sequence: shuffled anew on every pass where all are kept."""
        turn, offset = divmod(place, len(self._training))
        if self._kept is not None:
            order = torch.randperm(
                len(self._training), generator=Generator().manual_seed(self._seed * 7919 + turn)
            )
            return self._kept[self._training[int(order[offset])]]
        wanted = self._training[offset]
        if self._reader is None or wanted <= self._position:
            self._reader = enumerate(self._read())
        for index, sample in self._reader:
            self._position = index
            if index == wanted:
                return sample
        raise SpecError(
            f"the samples end at {self._position + 1}, and there were {self.count} before: want the same "
            "on every pass",
            where="calibration samples",
        )

    # --- crops and flips ----------------------------------------------------------------------------------

    def _crop_lengths(self) -> dict[str, Dim]:
        """Lengths that a crop may have, by letter of the axis; all inputs with that axis agree on them."""
        lengths: dict[str, Dim] = {}
        fixed: set[str] = set()
        for spec in self.specs.values():
            for letter, length in zip(spec.layout, spec.dims, strict=False):
                if letter not in "DHW":
                    continue
                if not isinstance(length, Dim) or lengths.setdefault(letter, length) != length:
                    fixed.add(letter)
        return {letter: length for letter, length in lengths.items() if letter not in fixed}

    def _axes(self, sample: Sample) -> dict[str, int]:
        """Spatial axes that all inputs have in common, by letter, with their length."""
        found: dict[str, int] = {}
        for spec in self.specs.values():
            here = {
                letter: length
                for letter, length in zip(spec.layout, sample[spec.name].shape, strict=False)
                if letter in "DHW"
            }
            if found and here != found:
                return {}
            found = here
        return found

    def _windows(self, sample: Sample, rng: Generator | None) -> dict[str, tuple[int, int]]:
        """Start and length of the crop along each axis that is cropped; in the centre without a generator."""
        axes = self._axes(sample)
        side = self._augmentation.crop or _CROPS.get(len(axes), 0)
        side = side if rng is not None else int(side * _LARGER.get(len(axes), 1.0))
        windows = {}
        for letter, length in axes.items():
            if letter not in self._crop or not side or not _follows(sample, axes):
                continue
            allowed = self._crop[letter]
            target = allowed.nearest(min(side, length))
            target = target if target <= length else target - allowed.step
            if allowed.min <= target < length:
                room = length - target + 1
                start = int(torch.randint(room, (), generator=rng)) if rng is not None else room // 2
                windows[letter] = (start, target)
        return windows

    def _cut(self, sample: Sample, rng: Generator | None) -> Sample:
        windows = self._windows(sample, rng)
        if not windows:
            return sample
        letters = list(self._axes(sample))
        cut = dict(sample)
        for axis, letter in enumerate(letters, start=2):
            if letter in windows:
                cut = {name: tensor.narrow(axis, *windows[letter]) for name, tensor in cut.items()}
        return cut

    def _centred(self, sample: Sample) -> Sample:
        return {name: t.contiguous() for name, t in self._cut(sample, None).items()}

    def _varied(self, sample: Sample, rng: Generator) -> Sample:
        axes = self._axes(sample)
        sample = self._cut(sample, rng)
        if self._augmentation.flips and axes and _follows(sample, self._axes(sample)):
            flipped = [axis for axis in range(2, 2 + len(axes)) if torch.rand((), generator=rng) < 0.5]
            sample = {name: t.flip(flipped) if flipped else t for name, t in sample.items()}
        return {
            name: self._shaded(t, self.specs[name], rng) if name in self.specs else t
            for name, t in sample.items()
        }

    def _shaded(self, tensor: Tensor, spec: TensorSpec, rng: Generator) -> Tensor:
        largest = self._augmentation.intensity
        gain, offset = (2 * largest * torch.rand(2, generator=rng) - largest).tolist()
        labelled = self.names != tuple(self.specs)
        if not largest or labelled or spec.quantity in _ABSOLUTE or not tensor.is_floating_point():
            return tensor
        mean = tensor.mean()
        changed: Tensor = mean + (tensor - mean) * math.exp(gain) + offset * tensor.std(unbiased=False)
        return changed.clamp(*spec.value_range) if spec.value_range else changed


def _follows(sample: Sample, axes: Mapping[str, int]) -> bool:
    """Whether everything in the sample lies on the grid of the inputs, so that it can be cut with them."""
    return all(list(tensor.shape[2:]) == list(axes.values()) for tensor in sample.values())


def stacked(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, those of one shape as one batch [N, ...]."""
    groups: dict[tuple[tuple[int, ...], ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(tuple(t.shape) for t in sample.values()), []).append(sample)
    return [{name: torch.cat([s[name] for s in group]) for name in group[0]} for group in groups.values()]


def _bytes(sample: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in sample.values())


def _check(
    sample: Mapping[str, Tensor], first: Mapping[str, Tensor], specs: Mapping[str, TensorSpec], index: int
) -> None:
    where = f"calibration sample {index}"
    if set(sample) != set(first) or not set(specs) <= set(sample):
        wanted = ", ".join({**first, **specs})
        raise SpecError(f"want tensors {wanted}, got {', '.join(sample)}", where=where)
    for name, tensor in sample.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise SpecError("want finite values, got NaN or infinity", where=f"{where}, {name!r}")
        if name in specs and not specs[name].fits(tuple(tensor.shape)):
            raise SpecError(f"want {specs[name]}, got {list(tensor.shape)}", where=f"{where}, {name!r}")
