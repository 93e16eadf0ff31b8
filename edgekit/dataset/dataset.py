"""The data set itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit import schema, volumes
from edgekit.dataset import checks, sources
from edgekit.dataset.patches import Chooser, Cut, cut_for
from edgekit.dataset.record import (
    DatasetRecord,
    FileDigest,
    ImageFacts,
    InputFacts,
    digest_file,
    look_at,
)
from edgekit.dataset.sources import Image
from edgekit.errors import EdgekitError, InputError, InternalError, UsageError
from edgekit.spec import Array, TensorSpec, format_dims
from edgekit.volumes import Volume


@dataclass(frozen=True)
class Sample:
    """One set of inputs.

    Attributes:
        name: Name of the first input's image, with the place of the part that was cut out, if any.
        feeds: One array for each input, by name, as its contract wants it.
        files: The files that they were read from.
    """

    name: str
    feeds: dict[str, Array]
    files: tuple[FileDigest, ...]


@dataclass(frozen=True)
class _Settings:
    """What, besides the files, decides which samples there are."""

    specs: tuple[TensorSpec, ...]
    sources: tuple[str, ...]
    patches: int
    seed: int
    limit: int
    max_bytes: int
    largest_case_bytes: int = 0
    notes: tuple[str, ...] = ()


class Dataset:
    """Images of a user's own as inputs of a model, in a fixed order; iterating again gives the same bytes.

    The images of one sample are in memory at a time, besides the sample itself. What each file holds is
    looked at when it is first read; a file that changed since then is refused.

    Attributes:
        specs: Contracts of the inputs.
        patches: Most samples of one image.
        seed: Which parts are cut out of images that are larger than the contract.
        largest_case_bytes: Memory of the largest case's images in float32.
    """

    def __init__(
        self, settings: _Settings, cases: Sequence[tuple[Image, ...]], counts: Sequence[int]
    ) -> None:
        self.specs, self.patches, self.seed = settings.specs, settings.patches, settings.seed
        self.largest_case_bytes = settings.largest_case_bytes
        self._settings, self._cases, self._counts = settings, list(cases), list(counts)
        self._facts: list[list[ImageFacts | None]] = [[None] * len(settings.specs) for _ in cases]

    @staticmethod
    def open(
        texts: Sequence[str],
        specs: Sequence[TensorSpec],
        *,
        limit: int = 0,
        patches: int = 1,
        seed: int = 0,
        max_bytes: int = volumes.MAX_BYTES,
    ) -> Dataset:
        """List the images and read their headers.

        A folder is searched with its subfolders. For a model of volumes the DICOM files of one folder are the
        slices of one image, for a model of pictures each is one. Images of several inputs go together in the
        order of their names. An image that is larger than its contract gives ``patches`` samples, at one
        place in all inputs; one that is smaller is refused as :func:`edgekit.volumes.as_tensor` does.

        Args:
            texts: ``"[NAME=]FOLDER"``, ``FILE`` or ``GLOB``; the name of the only input may be left out.
            specs: Contracts of what a caller gives the model (``Graph.given``).
            limit: Most images of each input, spread evenly over all; 0 for every one.
            patches: Samples to take of an image that is larger than the contract.
            seed: Another one takes other patches.
            max_bytes: Largest memory of one image.

        Raises:
            UsageError: An unknown or missing input, or a number out of range.
            InputError: There are no images, too few, or not as many of each input.
        """
        if limit < 0 or patches < 1 or seed < 0:
            raise UsageError(f"want limit >= 0, patches >= 1 and seed >= 0, got {limit}, {patches}, {seed}")
        found = sources.find(texts, specs)
        cases = sources.pair(found, specs)
        if limit and limit < len(cases):
            cases = [cases[i * len(cases) // limit] for i in range(limit)]
        shapes = [[volumes.shape_of(image.path, max_bytes=max_bytes) for image in case] for case in cases]
        settings = _Settings(
            tuple(specs),
            tuple(source.title for source in found),
            patches,
            seed,
            limit,
            max_bytes,
            max((4 * sum(map(math.prod, case)) for case in shapes), default=0),
            tuple(f"{source.title}: {note}" for source in found for note in source.notes),
        )
        counts = []
        for case, grids in zip(cases, shapes, strict=True):
            cuts = _cuts(case, grids, settings.specs)
            counts.append(patches if any(cut is not None and cut.is_needed for cut in cuts) else 1)
        dataset = Dataset(settings, cases, counts)
        checks.check_count(len(dataset), ", ".join(texts))
        return dataset

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[Sample]:
        """The samples, in order.

        Raises:
            InputError: An image cannot be read, is constant or has changed; or, after the last one, all
                together are not what the contracts mean.
            SpecError: An image does not fit its contract.
        """
        for index in range(len(self._cases)):
            yield from self._samples(index)
        self._judge()

    @property
    def record(self) -> DatasetRecord:
        """Which data this is; reads what has not been read yet.

        Raises:
            InputError: As iterating does.
        """
        for index, place in itertools.product(range(len(self._cases)), range(len(self.specs))):
            if self._facts[index][place] is None:
                self._read(index, place)
        return self._judge()

    def plan(self) -> Any:
        """All that :meth:`of_plan` needs in another process, as a JSON value; what is known goes along."""
        return {
            "settings": schema.encode(self._settings),
            "counts": self._counts,
            "cases": [[_encode_image(image) for image in case] for case in self._cases],
            "facts": [[f and schema.encode(f) for f in case] for case in self._facts],
        }

    @staticmethod
    def of_plan(plan: Any) -> Dataset:
        """The data set that :meth:`plan` described."""
        settings = schema.decode(_Settings, plan["settings"], error=InputError, where="data set")
        cases = [tuple(_decode_image(image) for image in case) for case in plan["cases"]]
        dataset = Dataset(settings, cases, plan["counts"])
        dataset.learn(plan)
        return dataset

    def learn(self, plan: Any) -> None:
        """Take over what another process, which read the same images, found."""
        for index, place in itertools.product(range(len(self._cases)), range(len(self.specs))):
            facts = plan["facts"][index][place]
            if facts is not None:
                self._facts[index][place] = schema.decode(
                    ImageFacts, facts, error=InputError, where=self._cases[index][place].name
                )

    def _samples(self, index: int) -> Iterator[Sample]:
        case = self._cases[index]
        images = [self._read(index, place) for place in range(len(self.specs))]
        facts = [known for known in self._facts[index] if known is not None]
        files = tuple(file for known in facts for file in known.files)
        cuts = _cuts(case, [image.array.shape for image in images], self.specs)
        needed = [place for place, cut in enumerate(cuts) if cut is not None]
        if not any(cut.is_needed for cut in cuts if cut is not None):
            feeds = {
                spec.name: _tensor(image, spec, file)
                for image, spec, file in zip(images, self.specs, case, strict=True)
            }
            yield Sample(case[0].name, feeds, files)
            return
        first = needed[0]
        cut = cuts[first]
        assert cut is not None
        key = ":".join([*(known.digest for known in facts), str(self.seed)])
        chooser = Chooser(images[first].array, cut, facts[first].threshold, key)
        for number in range(self._counts[index]):
            origin = chooser.origin(number)
            feeds = {}
            for image, spec, file, one in zip(images, self.specs, case, cuts, strict=True):
                part = image if one is None else replace(image, array=one.of(image.array, origin))
                feeds[spec.name] = _tensor(part, spec, file)
            yield Sample(f"{case[0].name}[{','.join(map(str, origin))}]", feeds, files)

    def _read(self, index: int, place: int) -> Volume:
        """The image, looked at where this is the first time."""
        image, name = self._cases[index][place], self.specs[place].name
        stamps = tuple(_stamp(path) for path, _ in image.files)
        known = self._facts[index][place]
        if known is not None and known.stamps != stamps:
            raise InputError(
                "the image has changed since it was first read",
                where=str(image.path),
                hint="begin again, and leave the data alone meanwhile",
            )
        if known is None:
            files = tuple(digest_file(path, relative, name) for path, relative in image.files)
            volume = volumes.read(image.path, max_bytes=self._settings.max_bytes)
            known = look_at(volume, files, stamps, str(image.path))
            checks.check_image(self.specs[place], known, str(image.path))
            self._facts[index][place] = known
            return volume
        return volumes.read(image.path, max_bytes=self._settings.max_bytes)

    def _judge(self) -> DatasetRecord:
        """All images together, or why they are refused."""
        rows = [[known for known in case if known is not None] for case in self._facts]
        if any(len(row) != len(self.specs) for row in rows):
            raise InternalError("a data set is judged before all of it was read")
        columns = list(zip(*rows, strict=True))
        for spec, column in zip(self.specs, columns, strict=True):
            checks.check_input(spec, column)
        distinct = {
            tuple(known.digest for known in row): count for row, count in zip(rows, self._counts, strict=True)
        }
        title = ", ".join(self._settings.sources)
        checks.check_count(sum(distinct.values()), title)
        notes = list(self._settings.notes)
        if len(distinct) < len(rows):
            notes.append(f"{len(rows) - len(distinct)} of {len(rows)} cases are copies of others")
        for spec, column in zip(self.specs, columns, strict=True):
            notes += checks.remarks(spec, column, len(self))
        notes += dict.fromkeys(note for column in columns for known in column for note in known.notes)
        return DatasetRecord(
            self._settings.sources,
            len(self),
            self.patches,
            self.seed,
            self._settings.limit,
            tuple(file for row in rows for known in row for file in known.files),
            tuple(InputFacts.of(s.name, column) for s, column in zip(self.specs, columns, strict=True)),
            tuple(notes),
        )


def _cuts(
    case: Sequence[Image], shapes: Sequence[tuple[int, ...]], specs: Sequence[TensorSpec]
) -> list[Cut | None]:
    """How each image is cut; images that are cut together lie on one grid."""
    cuts = [cut_for(shape, spec) for shape, spec in zip(shapes, specs, strict=True)]
    grids = {(cut.lengths, cut.sizes) for cut in cuts if cut is not None}
    if len(grids) > 1 and any(cut.is_needed for cut in cuts if cut is not None):
        named = ", ".join(f"{i.name} {format_dims(s)}" for i, s in zip(case, shapes, strict=True))
        raise InputError(
            f"images of several inputs are cut at one place and want one grid, got {named}",
            where=case[0].name,
            hint="resample the images of each case to one grid first",
        )
    return cuts


def _tensor(image: Volume, spec: TensorSpec, file: Image) -> Array:
    try:
        return volumes.as_tensor(image, spec)
    except EdgekitError as error:
        raise type(error)(error.message, where=f"{file.path}, {error.where}", hint=error.hint) from None


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None


def _encode_image(image: Image) -> Any:
    files = [[str(path.resolve()), name] for path, name in image.files]
    return {"path": str(image.path.resolve()), "name": image.name, "files": files}


def _decode_image(data: Mapping[str, Any]) -> Image:
    files = tuple((Path(path), name) for path, name in data["files"])
    return Image(Path(data["path"]), data["name"], files)
