"""An image with its meaning, and how it becomes a tensor and comes back."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit.errors import InputError, SpecError
from edgekit.spec import Array, TensorSpec, format_dims

Affine = npt.NDArray[np.float64]

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_SPACING_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Volume:
    """An image.

    Its geometry comes in two forms: ``affine`` says it exactly, ``spacing_mm_zyx`` and ``orientation`` say it
    readably. Give either; the other follows (with the first voxel at the origin). Unknown is none of them.

    Attributes:
        array: ``[z, y, x]``, or ``[y, x]`` for a picture, C-contiguous; a clip's frames lie along z. A
            ``.npy`` file may also hold a whole tensor with more axes.
        spacing_mm_zyx: Distance of neighbouring voxels in mm, or ``None`` where it is unknown. Of a picture,
            z is the slice's thickness.
        orientation: Where the axes x, y, z point to as their index grows: ``"RAS"`` is right, anterior,
            superior; ``"LPS"`` what a DICOM scan usually has. The nearest letters of an oblique one, empty
            where it is unknown.
        modality: DICOM's word, ``"CT"``, ``"MR"``, ``"US"``, …, or empty.
        frame_of_reference: DICOM's UID of the coordinate system, or empty.
        affine: 4 × 4, read-only: maps (x, y, z, 1) in voxels to mm in the patient, whose axes point right,
            anterior and superior.
        notes: What reading changed or left out, one sentence each.

    Raises:
        InputError: The geometry is impossible, or its two forms contradict each other.
    """

    array: Array
    spacing_mm_zyx: tuple[float, float, float] | None = None
    orientation: str = ""
    modality: str = ""
    frame_of_reference: str = ""
    affine: Affine | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        spacing_mm, affine = self.spacing_mm_zyx, self.affine
        if spacing_mm and not all(0 < s < math.inf for s in spacing_mm):
            raise InputError(f"want spacings above 0 mm, got {spacing_mm}")
        if affine is None and spacing_mm and self.orientation:
            affine = affine_of(spacing_mm, self.orientation)
        elif affine is not None:
            affine = np.array(affine, np.float64)
            exact_mm = spacing_of(affine)
            if spacing_mm and not np.allclose(spacing_mm, exact_mm):
                raise InputError(f"the affine says a spacing of {_mm(exact_mm)}, not {_mm(spacing_mm)}")
            object.__setattr__(self, "spacing_mm_zyx", exact_mm)
            object.__setattr__(self, "orientation", orientation_of(affine))
        if affine is not None:
            affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "array", np.ascontiguousarray(self.array))


def affine_of(spacing_mm_zyx: tuple[float, float, float], orientation: str) -> Affine:
    """The affine of an upright image whose first voxel is at the origin.

    Raises:
        InputError: ``orientation`` is not three letters, one of each pair L/R, P/A, I/S.
    """
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (letter, spacing) in enumerate(zip(orientation, reversed(spacing_mm_zyx), strict=False)):
        for row, (negative, positive) in enumerate(_LETTERS):
            if letter in (negative, positive):
                affine[row, column] = spacing if letter == positive else -spacing
    if len(orientation) != 3 or np.linalg.matrix_rank(affine) != 4:
        raise InputError(
            f"want an orientation of three letters, one of each pair L/R, P/A, I/S, got {orientation!r}",
            hint="RAS",
        )
    return affine


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Distances of neighbouring voxels (z, y, x) in mm.

    Raises:
        InputError: The affine is not an invertible 4 × 4 matrix of finite numbers.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise InputError("the matrix that places the image in the patient cannot be inverted")
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def orientation_of(affine: Affine) -> str:
    """The letters of the axes x, y, z: each patient axis once, the choice with the largest sum of cosines."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    rows = max(
        itertools.permutations(range(3)),
        key=lambda rows: sum(abs(cosines[row, column]) for column, row in enumerate(rows)),
    )
    return "".join(_LETTERS[row][int(cosines[row, column] > 0)] for column, row in enumerate(rows))


def as_tensor(volume: Volume, spec: TensorSpec) -> Array:
    """The image as the array that a model wants: axes added, and cast where the model takes floating point.

    Never resampled, cropped or rescaled.

    Raises:
        SpecError: The rank, shape, spacing, unit or type does not fit, with what would make it fit.
    """
    where = f"tensor {spec.name!r}"
    if spec.spacing_mm_zyx and volume.spacing_mm_zyx:
        pairs = zip(spec.spacing_mm_zyx, volume.spacing_mm_zyx, strict=True)
        if any(abs(got - want) > _SPACING_TOLERANCE * want for want, got in pairs):
            raise SpecError(
                f"wrong spacing: want {_mm(spec.spacing_mm_zyx)}, got {_mm(volume.spacing_mm_zyx)} (z, y, x)",
                where=where,
                hint=f"resample the image to {_mm(spec.spacing_mm_zyx)} first",
            )
    if spec.quantity == "hounsfield" and volume.modality not in ("", "CT"):
        raise SpecError(
            f"want a CT image in Hounsfield units, got modality {volume.modality}",
            where=where,
            hint="choose the CT series of the study",
        )
    array = _with_axes(volume.array, spec)
    if spec.dtype.startswith("float") and array.dtype.kind in "fiub":
        with np.errstate(over="ignore"):  # too large for the type: infinite, which the check refuses
            array = array.astype(spec.dtype, copy=False)
    return spec.check(array)


def from_tensor(array: Array, spec: TensorSpec, like: Volume | None = None) -> Volume:
    """A model's result as an image: batch and channel axes of length 1 are removed.

    Args:
        array: The result.
        spec: Its contract.
        like: Image whose geometry it has, where both have one grid.
    """
    single = [axis for axis, letter in enumerate(spec.layout) if letter in "NC" and array.shape[axis] == 1]
    image = array.squeeze(tuple(single))
    if like is not None and _grid(image) == _grid(like.array):
        return replace(like, array=image.reshape(like.array.shape), modality="", notes=())
    return Volume(image)


def _grid(array: Array) -> tuple[int, ...]:
    """The shape, one slice being the same as a picture."""
    return array.shape[1:] if array.ndim == 3 and array.shape[0] == 1 else array.shape


def _with_axes(array: Array, spec: TensorSpec) -> Array:
    spatial = sum(letter in "DHW" for letter in spec.layout)
    if array.ndim == len(spec.dims) or not spatial:
        return array
    if array.ndim == 3 and spatial == 2:
        if array.shape[0] != 1:
            raise SpecError(
                f"want one picture (y, x), got {array.shape[0]} of them: {format_dims(array.shape)}",
                where=f"tensor {spec.name!r}",
                hint="run them one by one: numpy.save('slice.npy', array[0])",
            )
        array = array[0]
    if array.ndim == 2 and spatial == 3:
        array = array[None]
    missing = len(spec.dims) - array.ndim
    is_leading = spec.layout[:missing].strip("NC") == ""
    return array.reshape((1,) * missing + array.shape) if missing > 0 and is_leading else array


def _mm(spacing_mm_zyx: tuple[float, float, float]) -> str:
    return " × ".join(f"{s:.4g}" for s in spacing_mm_zyx) + " mm"
