"""Files and shapes from the command line as a model's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit import samples, volumes
from edgekit.cli import args
from edgekit.errors import SpecError, UsageError
from edgekit.spec import LAYOUTS, Array, Dim, TensorSpec, parse_dims
from edgekit.volumes import Volume

_SHAPE_EXAMPLE = "ct=1x1x96x96x96"


@dataclass(frozen=True)
class Feeds:
    """Inputs of a run.

    Attributes:
        arrays: One for each input, by name.
        described: Where they come from, for reports.
        notes: What reading them changed.
        images: The images that were read, by name of the input.
    """

    arrays: dict[str, Array]
    described: str
    notes: tuple[str, ...] = ()
    images: Mapping[str, Volume] = field(default_factory=dict)


def shapes(texts: Iterable[str]) -> dict[str, str]:
    """Read ``--shape [NAME=]SHAPE``; the name of the only input may be left out and is then ``""``."""
    named = [text for text in texts if "=" in text]
    unnamed = [text for text in texts if "=" not in text]
    if len(unnamed) > 1 or (unnamed and named):
        raise UsageError(
            f"which input is it? want NAME=SHAPE, got {unnamed[0]!r}",
            where="--shape",
            hint=f"--shape {_SHAPE_EXAMPLE}",
        )
    found = {"": unnamed[0]} if unnamed else args.named_values("--shape", named, example=_SHAPE_EXAMPLE)
    for name, text in found.items():
        try:
            parse_dims(text)
        except SpecError as error:
            raise UsageError(error.message, where=f"--shape {name}={text}", hint=error.hint) from None
    return found


def for_compiling(texts: Sequence[str], shape_of: Mapping[str, str]) -> dict[str, Array]:
    """Inputs for a model whose contract is not known yet; ``--shape`` says what they are to look like.

    Without one, an image gets a batch and a channel axis and a ``.npy`` file is taken as it is. Images become
    float32; a ``.npy`` file keeps its type.
    """
    arrays: dict[str, Array] = {}
    for name, path in args.named_values("--input", texts, example="ct=scan.nii.gz").items():
        image = volumes.read(Path(path))
        dtype = str(image.array.dtype) if is_plain(path) else "float32"
        shape = shape_of.get(name) or shape_of.get("")
        if shape:
            dims = parse_dims(shape)
            spec = TensorSpec(name, dtype, dims, LAYOUTS.get(len(dims), ""))
            arrays[name] = _fit(image, spec, path)
        else:
            array = image.array.astype(dtype)
            arrays[name] = array if is_plain(path) else array[None, None]
    return arrays


def given(specs: Sequence[TensorSpec], texts: Sequence[str]) -> Feeds:
    """The files of ``--input [NAME=]FILE`` as arrays that keep the contracts.

    Raises:
        UsageError: An unknown or missing name.
        InputError: A file that cannot be read.
        SpecError: An image that does not fit.
    """
    names = [spec.name for spec in specs]
    paths = args.files_by_name("--input", texts, names, kind="input")
    missing = [name for name in names if name not in paths]
    if missing:
        raise UsageError(
            f"no file for {', '.join(missing)}: want one for each of {', '.join(names)}",
            where="--input",
            hint=f"--input {missing[0]}=scan.nii.gz",
        )
    images = {name: volumes.read(path) for name, path in paths.items()}
    arrays, notes = {}, []
    for spec in specs:
        image, path = images[spec.name], paths[spec.name]
        arrays[spec.name] = _fit(image, spec, path)
        notes += [f"{path}: {note}" for note in image.notes]
        if image.array.dtype != spec.dtype:
            notes.append(f"{path}: {image.array.dtype} taken as {spec.dtype}")
    described = "given: " + ", ".join(f"{name} {paths[name].name}" for name in names)
    return Feeds(arrays, described, tuple(notes), images)


def given_or_generated(
    specs: Sequence[TensorSpec], texts: Sequence[str], shape_texts: Sequence[str]
) -> Feeds:
    """The given files, or seeded generated inputs of the given shapes where there are none."""
    if texts and shape_texts:
        raise UsageError(
            "a shape is for generated inputs, and files are given",
            where="--shape",
            hint="leave one of the two out",
        )
    if texts:
        return given(specs, texts)
    wanted: dict[str, tuple[int, ...]] = {}
    for name, text in shapes(shape_texts).items():
        dims = parse_dims(text)
        if any(isinstance(length, Dim) for length in dims):
            raise UsageError(f"want one length an axis, got {text!r}", where="--shape")
        if not name and len(specs) > 1:
            raise UsageError(f"which input has it? want NAME={text}", where=f"--shape {text}")
        known = args.known_name("--shape", name or specs[0].name, [spec.name for spec in specs], kind="input")
        wanted[known] = tuple(length for length in dims if isinstance(length, int))
    return Feeds(samples.generate_inputs(specs, shapes=wanted), "generated: seed 0")


def is_plain(path: str | Path) -> bool:
    """Whether the file holds a bare array rather than an image."""
    return Path(path).suffix.lower() == ".npy"


def _fit(image: Volume, spec: TensorSpec, path: str | Path) -> Array:
    try:
        return volumes.as_tensor(image, spec)
    except SpecError as error:
        raise SpecError(error.message, where=f"{path}, {error.where}", hint=error.hint) from None
