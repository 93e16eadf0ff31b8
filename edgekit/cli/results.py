"""Where the results of a run go, and how a tensor becomes a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import atomic, volumes
from edgekit.bundle import Manifest
from edgekit.cli import args
from edgekit.cli.feeds import is_plain
from edgekit.errors import UsageError
from edgekit.spec import Array, TensorSpec
from edgekit.volumes import Volume

if TYPE_CHECKING:
    from edgekit.runtime import Session

_ENDINGS = (".npy", ".nii.gz", ".nii")
_GRID_TOLERANCE_MM = 1e-3


def places(manifest: Manifest, texts: Sequence[str], *, force: bool) -> dict[str, Path]:
    """The file of each result that is to be written, by name; each is refused now if it could not be written.

    Args:
        manifest: The bundle's.
        texts: ``[NAME=]FILE`` as typed; one folder stands for ``NAME.npy`` of every result.
        force: Replace existing files.

    Raises:
        UsageError: An unknown name, a file that exists, a folder that does not.
    """
    names = [spec.name for spec in manifest.results]
    if len(texts) == 1 and Path(texts[0]).is_dir():
        found = {name: Path(texts[0]) / f"{name}.npy" for name in names}
    else:
        found = args.files_by_name("--output", texts, names, kind="result")
    specs = {spec.name: spec for spec in manifest.results}
    for name, path in found.items():
        if not path.name.lower().endswith(_ENDINGS):
            raise UsageError(
                f"cannot write {path.name!r}: want a name that ends in {', '.join(_ENDINGS)}",
                where="--output",
                hint=f"--output {name}={path.with_suffix('')}{_ENDINGS[0]}",
            )
        if not is_plain(path):
            _check_is_image(specs[name], path)
        atomic.check_writable(path, force=force)
    if len(set(found.values())) != len(found):
        raise UsageError("two results want the same file", where="--output")
    return found


def grid(
    manifest: Manifest, files: Mapping[str, Path], images: Mapping[str, Volume], grid_of: str | None
) -> Volume | None:
    """The image whose grid the results lie on, or ``None`` where only ``.npy`` files are written.

    Raises:
        UsageError: It is not clear which of several images it is.
    """
    if grid_of is not None:
        return images[args.known_name("--grid-of", grid_of, list(images), kind="input")]
    if all(is_plain(path) for path in files.values()):
        return None
    first, *others = images.values()
    if any(not _same_grid(first, other) for other in others):
        raise UsageError(
            f"the inputs lie on different grids: whose do the results have? want one of {', '.join(images)}",
            where="--output",
            hint=f"--grid-of {list(images)[-1]}",
        )
    return first


def write(array: Array, spec: TensorSpec, path: Path, image: Volume | None, *, force: bool) -> str:
    """Write one result, as an image on the grid of ``image``; returns what a user wants to know of it.

    Raises:
        EdgekitError: The file cannot be written, or its format cannot hold the result.
    """
    if is_plain(path):
        volumes.write(path, Volume(array), force=force)
        return ""
    volume = volumes.from_tensor(array, spec, image)
    volumes.write(path, volume, force=force)
    return "" if volume.affine is not None else f"{path}: its place in the patient is not known"


def which(session: Session) -> list[str]:
    """What a user wants to know of the network that runs: and why not one that the bundle prefers."""
    passed_over = [
        f"network {name} was passed over: {reason}" for name, reason in session.passed_over.items()
    ]
    return [*passed_over, f"network {session.network_name} runs"] if passed_over else []


def _check_is_image(spec: TensorSpec, path: Path) -> None:
    lengths = dict(zip(spec.layout, spec.dims, strict=False))
    if not lengths or lengths.get("N", 1) != 1 or lengths.get("C", 1) != 1:
        raise UsageError(
            f"result {spec} is not one image, and only images go into {path.name!r}",
            where="--output",
            hint=f"--output {spec.name}={spec.name}.npy",
        )


def _same_grid(first: Volume, second: Volume) -> bool:
    if first.array.shape != second.array.shape:
        return False
    if first.affine is None or second.affine is None:
        return first.affine is second.affine and first.spacing_mm_zyx == second.spacing_mm_zyx
    return bool(np.allclose(first.affine, second.affine, atol=_GRID_TOLERANCE_MM))
