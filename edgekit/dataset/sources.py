"""From what a user typed to a list of images: which files there are, which belong together, in what order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import volumes
from edgekit.errors import InputError, UsageError, did_you_mean
from edgekit.spec import TensorSpec
from edgekit.volumes import dicom

_WILD = "*?["
_DEEPEST = 32
_NAMED = 5


@dataclass(frozen=True)
class Image:
    """Where one image lies.

    Attributes:
        path: Its file, or the folder with the slices of its series.
        name: Its path relative to the folder that was given.
        files: All its files with their names relative to that folder.
    """

    path: Path
    name: str
    files: tuple[tuple[Path, str], ...]

    @property
    def stem(self) -> str:
        """Its name without endings, which the images of several inputs may share."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.partition('.')[0]}"


@dataclass(frozen=True)
class Source:
    """Images of one input.

    Attributes:
        input: Name of the input.
        title: What the record calls them.
        images: The images, sorted by name.
        notes: What was passed over.
    """

    input: str
    title: str
    images: tuple[Image, ...]
    notes: tuple[str, ...] = ()


def find(texts: Sequence[str], specs: Sequence[TensorSpec]) -> list[Source]:
    """One source for each text ``[NAME=]FOLDER|FILE|GLOB``, in the order of the inputs.

    Raises:
        UsageError: An unknown or missing name.
        InputError: There is no such file, or no image in it.
    """
    names = [spec.name for spec in specs]
    contracts = {spec.name: spec for spec in specs}
    found = [_find(*_split(text, names), contracts) for text in texts]
    missing = [name for name in names if name not in {source.input for source in found}]
    if missing:
        raise UsageError(
            f"no data for {', '.join(missing)}: want a folder for each of {', '.join(names)}",
            where="calibration data",
            hint=f"{missing[0]}=FOLDER" if len(names) > 1 else "name a folder with images",
        )
    return sorted(found, key=lambda source: names.index(source.input))


def _split(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Name of the input and path."""
    name, separator, path = text.partition("=")
    if not separator or (name not in names and Path(text).exists()):
        if len(names) != 1:
            raise UsageError(
                f"which input is it? want one of {', '.join(names)}",
                where=text,
                hint=f"{names[0]}={text}" if names else None,
            )
        return names[0], text
    if name not in names:
        near = did_you_mean(name, names)
        raise UsageError(
            f"unknown input {name!r}: want one of {', '.join(names)}",
            where=text,
            hint=f"did you mean {near!r}?" if near else None,
        )
    if not path:
        raise UsageError("want NAME=FOLDER, got no folder", where=text)
    return name, path


def _find(name: str, text: str, contracts: Mapping[str, TensorSpec]) -> Source:
    # A series is one image for a model of volumes, and as many as it has slices for one of pictures.
    single_slices = sum(letter in "DHW" for letter in contracts[name].layout) == 2
    path = Path(text)
    passed_over: list[str] = []
    if path.is_dir():
        root, images = path, list(_walk(path, path, single_slices, passed_over, 0))
    elif path.exists():
        root, images = path.parent, [Image(path, path.name, ((path, path.name),))]
    elif any(letter in text for letter in _WILD):
        root, images = _glob(path, single_slices, passed_over)
    else:
        raise InputError("no such file or folder", where=text, hint=f"ls {path.parent}")
    if not images:
        raise InputError(
            f"no images were found: want {', '.join(volumes.ENDINGS)} or folders of DICOM slices",
            where=text,
            hint=f"ls {root}",
        )
    notes: tuple[str, ...] = ()
    if passed_over:
        listed = ", ".join(passed_over[:_NAMED]) + (", …" if len(passed_over) > _NAMED else "")
        notes = (f"{len(passed_over)} files are no images and were passed over: {listed}",)
    title = f"{name}={path.name or path.resolve().name}"
    return Source(name, title, tuple(sorted(images, key=lambda image: Path(image.name).parts)), notes)


def _glob(pattern: Path, single_slices: bool, passed_over: list[str]) -> tuple[Path, list[Image]]:
    fixed = list(pattern.parts)
    while any(letter in part for part in fixed for letter in _WILD):
        fixed.pop()
    root = Path(*fixed)
    images: list[Image] = []
    for path in sorted(root.glob(str(pattern.relative_to(root)))):
        if path.is_dir():
            images += _walk(path, root, single_slices, passed_over, 0)
        elif volumes.is_image(path):
            images.append(_single(path, root))
        else:
            passed_over.append(path.relative_to(root).as_posix())
    # A pattern may match a folder and what lies in it.
    return root, list({image.path: image for image in images}.values())


def _walk(
    folder: Path, root: Path, single_slices: bool, passed_over: list[str], depth: int
) -> Iterator[Image]:
    if depth > _DEEPEST:
        raise InputError(f"folders lie more than {_DEEPEST} deep", where=str(folder))
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder: {error.strerror or error}", where=str(folder)) from None
    slices = []
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry, root, single_slices, passed_over, depth + 1)
        elif not volumes.is_image(entry):
            passed_over.append(entry.relative_to(root).as_posix())
        elif dicom.is_dicom(entry) and not single_slices:
            slices.append(entry)
        else:
            yield _single(entry, root)
    if slices:
        files = tuple((path, _relative(path, root)) for path in slices)
        yield Image(folder, _relative(folder, root) if folder != root else folder.resolve().name, files)


def _single(path: Path, root: Path) -> Image:
    name = _relative(path, root)
    return Image(path, name, ((path, name),))


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def pair(sources: Sequence[Source], specs: Sequence[TensorSpec]) -> list[tuple[Image, ...]]:
    """The images of all inputs case by case, in sorted order.

    Raises:
        InputError: The inputs have different numbers of images, or the names say that others belong together.
    """
    by_input = {spec.name: [i for s in sources if s.input == spec.name for i in s.images] for spec in specs}
    counts = {name: len(images) for name, images in by_input.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(
            f"the inputs have different numbers of images: {listed}",
            where="calibration data",
            hint="give one image of each input for every case, with the same names in each folder",
        )
    (first, images), *others = by_input.items()
    for other, theirs in others:
        place = {image.stem: index for index, image in enumerate(theirs)}
        if len(place) != len(theirs):
            continue  # names that occur twice say nothing
        for index, image in enumerate(images):
            if place.get(image.stem, index) != index:
                raise InputError(
                    f"the images of {first} and {other} are out of step: {image.name!r} would go with "
                    f"{theirs[index].name!r}, though there is {theirs[place[image.stem]].name!r}",
                    where="calibration data",
                    hint="give both folders the same file names",
                )
    return list(zip(*by_input.values(), strict=True))
