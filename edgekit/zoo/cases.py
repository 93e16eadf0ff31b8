"""Labelled cases for the models of the zoo: inputs with what the model should make of them.

    python -m edgekit.zoo.cases segment2d --count 20 --out cases

writes one file per image and ``cases.csv``, whose paths are relative to it. Its columns are ``case``,
``group`` (which scanner, probe, noise …), one for each input, and one for each output that has a truth. Case
number k depends on the name, the seed, k and the shape alone, and on no seed that a model was trained with.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Generator, Tensor

from edgekit import atomic, volumes
from edgekit.errors import EdgekitError, UsageError, did_you_mean
from edgekit.spec import Array, format_dims, parse_dims
from edgekit.torch.definitions import integrate_plain, warp_plain
from edgekit.volumes import Volume
from edgekit.zoo import MODELS, anatomy, classify2d, register3d, synthetic, ultrasound

ENDINGS = (".npy", ".nii.gz")


@dataclass(frozen=True, eq=False)
class Case:
    """One case.

    Attributes:
        name: ``segment2d-0003``.
        group: What it shares with half of the cases, such as the scanner.
        inputs: What the model reads, by input, in the shape it reads: [1, 1, ...] float32.
        references: What its outputs should be, by output. Of ``logits`` it is the right label, int64: the
            arg-max along axis 1, so [1, ...] without an axis of labels. Others have the output's shape.
    """

    name: str
    group: str
    inputs: Mapping[str, Array]
    references: Mapping[str, Array]


@dataclass(frozen=True)
class _Source:
    """How the cases of one model are made: group, image shape, and ``draw(rng, shape, group, index)``."""

    shape: tuple[int, ...]
    groups: tuple[str, str]
    draw: Callable[[Generator, Sequence[int], str, int], tuple[dict[str, Tensor], dict[str, Tensor]]]


_Drawn = tuple[dict[str, Tensor], dict[str, Tensor]]


def _segment2d(rng: Generator, shape: Sequence[int], group: str, index: int) -> _Drawn:
    image, labels = anatomy.abdomen_slice(rng, shape, group)
    return {"image": image}, {"logits": labels}


def _segment3d(rng: Generator, shape: Sequence[int], group: str, index: int) -> _Drawn:
    image, labels = anatomy.head_volume(rng, shape, group)
    return {"image": image}, {"logits": labels}


def _classify2d(rng: Generator, shape: Sequence[int], group: str, index: int) -> _Drawn:
    # Each group gets each finding as often as the others.
    finding = index // 2 % len(classify2d.CLASSES)
    image = ultrasound.breast_image(rng, shape, finding, group)
    return {"image": image}, {"logits": torch.tensor(finding)}


def _denoise2d(rng: Generator, shape: Sequence[int], group: str, index: int) -> _Drawn:
    clean = synthetic.clean_picture(rng, shape)
    noisy = synthetic.add_noise(rng, clean, synthetic.uniform(rng, 0.03, 0.15), group == "rician")
    return {"image": noisy}, {"denoised": clean}


def _register3d(rng: Generator, shape: Sequence[int], group: str, index: int) -> _Drawn:
    moving, fixed, velocity, _ = synthetic.registration_case(
        rng, shape, 1.0, other_contrast=group == "other-contrast"
    )
    flow_vox = integrate_plain(velocity[None], register3d.INTEGRATION_STEPS, "edge")
    moved = warp_plain(moving[None], flow_vox, 1, "edge")[0]
    return {"moving": moving, "fixed": fixed}, {"moved": moved, "flow_vox": flow_vox[0]}


_SOURCES: Mapping[str, _Source] = MappingProxyType(
    {
        "register3d": _Source((96, 96, 96), ("same-contrast", "other-contrast"), _register3d),
        "denoise2d": _Source((256, 256), ("gaussian", "rician"), _denoise2d),
        "segment2d": _Source((256, 256), anatomy.SLICE_SCANNERS, _segment2d),
        "segment3d": _Source((96, 96, 96), anatomy.HEAD_SCANNERS, _segment3d),
        "classify2d": _Source((192, 192), ultrasound.PROBES, _classify2d),
    }
)


def generate(name: str, count: int, seed: int = 0, *, shape: Sequence[int] | None = None) -> Iterator[Case]:
    """Cases for a model of the zoo, one at a time; the two groups take turns.

    Args:
        name: A key of :data:`~edgekit.zoo.MODELS`.
        count: How many.
        seed: Another one gives other cases.
        shape: [H, W] or [D, H, W] of the images; what the model was trained for by default.

    Raises:
        UsageError: No such model, no case, or a shape that the model does not take.
    """
    if name not in _SOURCES:
        near = did_you_mean(name, _SOURCES)
        raise UsageError(
            f"unknown model {name!r}: want one of {', '.join(_SOURCES)}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    if count < 1:
        raise UsageError(f"want one case or more, got {count}", hint="--count 20")
    source = _SOURCES[name]
    _check_shape(name, shape := tuple(shape or source.shape))
    return (_case(name, index, seed, source, shape) for index in range(count))


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    wanted = parse_dims(next(iter(MODELS[name].inputs.values())))[2:]
    fits = len(shape) == len(wanted) and all(
        length == want if isinstance(want, int) else length in want
        for length, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{name} takes images {format_dims(wanted)}, got {format_dims(shape)}",
            hint=f"--shape {format_dims(_SOURCES[name].shape)}",
        )


def _case(name: str, index: int, seed: int, source: _Source, shape: tuple[int, ...]) -> Case:
    digest = hashlib.sha256(f"case {index} of {name}, seed {seed}".encode()).digest()
    # Neither the seeds that training starts from nor those it draws are larger than 31 bits.
    rng = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1 | 1 << 40)
    group = source.groups[index % 2]
    inputs, references = (
        {key: value[None].numpy() for key, value in part.items()}
        for part in source.draw(rng, shape, group, index)
    )
    return Case(f"{name}-{index:04d}", group, MappingProxyType(inputs), MappingProxyType(references))


def write(cases: Iterator[Case], folder: Path, *, ending: str = ".npy", force: bool = False) -> Path:
    """Write cases into a folder, which is made, and return its ``cases.csv``, written last.

    Batch and channel axes of length 1 are left out, as in other people's files. Fields, which NIfTI does not
    hold, are ``.npy`` whatever the ending. The class of an image is a number in the list.

    Args:
        cases: At least one.
        folder: Where.
        ending: ``.npy`` or ``.nii.gz``: of images and label maps.
        force: Replace files of an earlier call.

    Raises:
        UsageError: A file exists and ``force`` is not set, another ending, or no case.
        UnavailableError: nibabel is missing, which writes ``.nii.gz``.
        LimitError: The disk is full.
    """
    if ending not in ENDINGS:
        raise UsageError(f"want {' or '.join(ENDINGS)}, got {ending!r}")
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "cases.csv"
    atomic.check_writable(table, force=force)
    rows: list[dict[str, str]] = []
    for case in cases:
        row = {"case": case.name, "group": case.group}
        for key, array in (*case.inputs.items(), *case.references.items()):
            if array.size == 1:
                row[key] = str(array.item())
                continue
            image = _squeezed(array)
            file = f"{case.name}-{key}{ending if image.ndim in (2, 3) else '.npy'}"
            volumes.write(folder / file, Volume(image), force=force)
            row[key] = file
        rows.append(row)
    if not rows:
        raise UsageError("want one case or more, got none")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write(table, text.getvalue().encode(), force=force)
    return table


def _squeezed(array: Array) -> Array:
    """Without the batch axis, and without a channel axis of length 1."""
    array = array[0]
    return array[0] if array.dtype.kind == "f" and array.shape[0] == 1 else array.astype(_small(array.dtype))


def _small(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """A label fits into a byte, and every reader of NIfTI takes one."""
    return np.dtype(np.uint8) if dtype.kind == "i" else dtype


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(prog="python -m edgekit.zoo.cases", description=__doc__)
    parser.add_argument("model", choices=list(_SOURCES))
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="another one gives other cases")
    parser.add_argument("--shape", type=_lengths, help="of the images, like 64x64x64")
    parser.add_argument("--ending", choices=ENDINGS, default=".npy", help="of images and label maps")
    parser.add_argument("--force", action="store_true", help="replace files")
    options = parser.parse_args(arguments)
    try:
        cases = generate(options.model, options.count, options.seed, shape=options.shape)
        print(write(cases, options.out, ending=options.ending, force=options.force))
    except EdgekitError as error:
        parser.exit(error.exit_code, f"error: {error}\n")


if __name__ == "__main__":
    main()
