"""What is known of images once they were read: of each one, and of all together for the bundle's manifest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.errors import InputError
from edgekit.spec import Array
from edgekit.volumes import Volume

_BLOCK_BYTES = 1 << 20
_BINS = 4096
# Elements that are looked at together, so that their copies in float64 stay small.
_CHUNK = 1 << 18
# Outliers beyond these shares of the values do not decide where the foreground begins.
_LEAST_SHARE, _LARGEST_SHARE = 0.001, 0.999
_QUANTILES = (0.01, 0.5, 0.99)
# So many different values, looked for among so many voxels, are told apart; more are "many".
MANY_VALUES = 17
_LOOKED_AT = 1 << 16


@dataclass(frozen=True)
class FileDigest:
    """A file as it was when it was read.

    Attributes:
        name: Its path relative to the folder that was given.
        size_bytes: Its length.
        sha256: Of its bytes, in hexadecimal.
        input: Name of the input that it is for.
    """

    name: str
    size_bytes: int
    sha256: str
    input: str


@dataclass(frozen=True)
class ImageFacts:
    """What reading one image showed.

    Attributes:
        files: Its files, several for a series of slices.
        stamps: Their times of change in ns, to see that they are still the same.
        shape: Of its array.
        minimum: Smallest value.
        maximum: Largest value.
        quantiles: The values below which 1 %, 50 % and 99 % of its values lie, to 1/4096 of their span.
        threshold: Between background and foreground, by Otsu's method.
        distinct: Number of different values among up to 65 536 of its voxels; 17 stands for more.
        modality: DICOM's word, or empty.
        notes: What reading changed or left out.
    """

    files: tuple[FileDigest, ...]
    stamps: tuple[int, ...]
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    quantiles: tuple[float, float, float]
    threshold: float
    distinct: int
    modality: str = ""
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """One SHA-256 for all its files, which their names have no part in."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()


@dataclass(frozen=True)
class InputFacts:
    """What the images of one input have in common.

    Attributes:
        name: Name of the input.
        images: How many there are.
        copies: How many of them are copies of another one.
        minimum: Smallest value of all.
        maximum: Largest value of all.
        quantiles: Medians, over the images, of the values below which 1 %, 50 % and 99 % of an image lie.
        modalities: DICOM's words that occur; none where no file says one.
    """

    name: str
    images: int
    copies: int
    minimum: float
    maximum: float
    quantiles: tuple[float, float, float]
    modalities: tuple[str, ...] = ()

    @staticmethod
    def of(name: str, images: Sequence[ImageFacts]) -> InputFacts:
        """Put the facts of an input's images together."""
        middle = np.median([image.quantiles for image in images], axis=0)
        return InputFacts(
            name,
            len(images),
            len(images) - len({image.digest for image in images}),
            min(image.minimum for image in images),
            max(image.maximum for image in images),
            (float(middle[0]), float(middle[1]), float(middle[2])),
            tuple(sorted({image.modality for image in images} - {""})),
        )


@dataclass(frozen=True)
class DatasetRecord:
    """Which data something was made from, for the bundle's manifest.

    Attributes:
        sources: The last part of each path that was given, with the name of its input.
        samples: How many samples they gave.
        patches: Most samples of one image.
        seed: Which patches were taken.
        limit: Most images that were wanted of each input; 0 for all.
        files: Every file, in order.
        inputs: What the images of each input have in common.
        notes: What a user wants to know of them.
    """

    sources: tuple[str, ...]
    samples: int
    patches: int
    seed: int
    limit: int
    files: tuple[FileDigest, ...]
    inputs: tuple[InputFacts, ...]
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of what decides the samples' bytes: the files, their order, the patches and the seed."""
        text = f"{self.patches} {self.seed} {[(file.input, file.sha256) for file in self.files]}"
        return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path, name: str, input_name: str) -> FileDigest:
    """Read a file once, a MiB at a time.

    Raises:
        InputError: It cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None
    return FileDigest(name, size, digest.hexdigest(), input_name)


def look_at(volume: Volume, files: tuple[FileDigest, ...], stamps: tuple[int, ...], where: str) -> ImageFacts:
    """The facts of an image, with little memory beside its own.

    Raises:
        InputError: It holds NaN or infinity.
    """
    values = volume.array.reshape(-1)
    minimum, maximum = float(values.min()), float(values.max())
    if not (math.isfinite(minimum) and math.isfinite(maximum)):
        bad = sum(
            int(np.count_nonzero(~np.isfinite(values[i : i + _CHUNK]))) for i in range(0, len(values), _CHUNK)
        )
        raise InputError(
            f"want finite values, got {bad} NaN or infinite of {len(values)}",
            where=where,
            hint="leave the image out, or replace the missing values in it",
        )
    counts = _histogram(values, minimum, maximum)
    width = (maximum - minimum) / _BINS
    low, middle, high = (minimum + width * (_bin_of(counts, share) + 0.5) for share in _QUANTILES)
    step = -(-len(values) // _LOOKED_AT)
    return ImageFacts(
        files,
        stamps,
        tuple(volume.array.shape),
        minimum,
        maximum,
        (low, middle, high),
        minimum + width * _otsu(counts),
        min(len(np.unique(values[::step])), MANY_VALUES),
        volume.modality,
        volume.notes,
    )


def _histogram(values: Array, minimum: float, maximum: float) -> npt.NDArray[np.int64]:
    counts = np.zeros(_BINS, np.int64)
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK].astype(np.float64)
        index = ((chunk - minimum) * (_BINS / ((maximum - minimum) or 1.0))).astype(np.int64)
        counts += np.bincount(np.minimum(index, _BINS - 1), minlength=_BINS)
    return counts


def _bin_of(counts: npt.NDArray[np.int64], share: float) -> int:
    """The bin in which the share of values below first reaches ``share``."""
    below = np.cumsum(counts)
    return int(np.searchsorted(below, share * below[-1]))


def _otsu(counts: npt.NDArray[np.int64]) -> int:
    """The bin that begins the upper class, for the largest variance between the two classes (Otsu 1979)."""
    first, last = _bin_of(counts, _LEAST_SHARE), _bin_of(counts, _LARGEST_SHARE)
    if first == last:
        return min(last + 1, _BINS - 1)
    inner = counts[first : last + 1].astype(np.float64)
    inner[0] += counts[:first].sum()
    inner[-1] += counts[last + 1 :].sum()
    weight = np.cumsum(inner)[:-1]
    moment = np.cumsum(inner * np.arange(len(inner)))
    total, mean = inner.sum(), moment[-1] / inner.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (mean * weight - moment[:-1]) ** 2 / (weight * (total - weight))
    best = np.nan_to_num(between, nan=0.0)
    # Between two separate classes every threshold of the gap is as good: the middle one.
    equal = np.flatnonzero(best >= best.max() * (1 - 1e-12))
    return first + 1 + int(equal[len(equal) // 2])
