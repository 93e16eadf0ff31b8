"""Another grid for an image: through an affine map or another spacing, without aliasing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Operator, as_doubles, rounded
from edgekit.kernels.checks import (
    IMAGES,
    LABELS,
    MAX_AXIS,
    MAX_ELEMENTS,
    check_choice,
    check_flag,
    check_input,
    check_output,
    check_threads,
    empty_image,
    is_channels_last,
)
from edgekit.kernels.coords import same_field_matrix
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS, OUTSIDE, Indices, extend, sample, taps
from edgekit.spec import Array

# Full width at half maximum of a Gaussian, in standard deviations, squared.
_FWHM_SQUARED = 8 * math.log(2)
# Standard deviations after which the Gaussian is cut off.
_CUT = 4.0
# The native kernel reads tables by vectors of up to this many columns.
_COLUMNS = 16
# Of a slab between two axes: it stays in the cache.
_SLAB_BYTES = 1 << 20


def resample(
    image: Array,
    shape: Sequence[int],
    matrix_vox: npt.ArrayLike | None = None,
    *,
    order: int = 1,
    boundary: str = "edge",
    antialias: bool = True,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Sample ``image`` on another grid: voxel ``p`` of the result is the image at ``matrix_vox @ (p, 1)``.

    ::

        half = resample(image, [size // 2 for size in image.shape[2:]])      # the same field of view
        even = resample(image, *coords.respaced(image.shape[2:], (5, 0.7, 0.7), (1, 1, 1)))
        onto = resample(image, fixed.shape[2:], coords.affine_between(fixed_to_world, image_to_world))

    Where the result is coarser, the image is smoothed first. A voxel is taken for a Gaussian as wide at half
    maximum as the spacing, and the filter makes those of the image into those of the result (Cardoso et al.,
    "Scale factor point spread function matching", MICCAI 2015): along an axis of the image on which a step in
    the result is ``s`` voxels long, its variance is ``(s^2 - 1) / (8 ln 2)``, and there is none for
    ``s <= 1``. With an oblique matrix ``s`` is the length of the axis' row. The Gaussian is cut off at four
    standard deviations, and sees the image extended by ``boundary``.

    A constant image is kept exactly under all boundaries but ``"zero"``. A NaN or an infinity reaches the
    voxels that it has a weight in, and perhaps their neighbours. The result depends neither on the number of
    threads nor on the instruction set.

    Args:
        image: [N, C, D, H, W] or [N, C, H, W]; float32, float16, uint8 or int16, and with order 0 any
            integers or booleans; C-contiguous or channels-last.
        shape: Size of the grid to have, (D', H', W') or (H', W').
        matrix_vox: From voxels of the result to voxels of the image, in the order of the axes, voxel centres
            being whole: [axes, axes + 1], or homogeneous [axes + 1, axes + 1]. By default both grids cover
            the same field of view, see :func:`~edgekit.kernels.coords.same_field_matrix`.
        order: 0 takes the nearest voxel, and halfway between two the one of higher index; 1 interpolates
            linearly; 3 convolves with Keys' cubic (1981), a = -0.5.
        boundary: How the image goes on outside: ``"zero"``, ``"edge"``, ``"mirror"``, ``"reflect"`` or
            ``"wrap"``.
        antialias: Whether to smooth. Order 0 never does, as labels have no mean.
        out: Where to write, [N, C, *shape] with the type and the memory layout of ``image``, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array. Integers are rounded to nearest and saturate. Meanwhile a few megabytes are
        needed, or some planes of image and result if these are large. An oblique matrix that smooths needs a
        float32 copy of the image, and one of the result if that is not float32.

    Raises:
        KernelError: An argument is not as described, has an empty axis, one of more than 2^24 or a total of
            2^31 elements or more.
    """
    where = "resample"
    check_choice(order, "order", ORDERS, where=where)
    dtypes = IMAGES if order else (*IMAGES, *LABELS)
    source = check_input(image, "image", where=where, ranks=(4, 5), dtypes=dtypes, channels_last=True)
    wanted = _check_shape(shape, source, where)
    matrix = _check_matrix(matrix_vox, source.shape[2:], wanted, where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    smooth = check_flag(antialias, "antialias", where=where)
    target = check_output(out, empty_image(source, wanted), (source,), where=where)
    OPERATOR.execute(
        (source,),
        (target,),
        threads=check_threads(threads, where=where),
        shape=wanted,
        matrix_vox=matrix,
        order=order,
        boundary=boundary,
        antialias=smooth,
    )
    return like(target, image) if out is None else out


def _check_shape(shape: Sequence[int], image: Array, where: str) -> tuple[int, ...]:
    wanted = np.asarray(shape)
    if wanted.shape != (image.ndim - 2,) or wanted.dtype.kind not in "iu":
        raise KernelError(
            f"shape: want {image.ndim - 2} integers for image {image.shape}, got {shape!r}", where=where
        )
    sizes = tuple(int(size) for size in wanted)
    total = math.prod(sizes) * image.shape[0] * image.shape[1]
    if min(sizes) < 1 or max(sizes) > MAX_AXIS or total > MAX_ELEMENTS:
        raise KernelError(
            f"shape: want axes of 1 to 2^24 voxels and at most 2^31 - 1 elements in all, got {shape!r}",
            where=where,
        )
    return sizes


def _check_matrix(
    value: npt.ArrayLike | None, shape: Sequence[int], wanted: Sequence[int], where: str
) -> Doubles:
    """The matrix [axes, axes + 1]."""
    axes = len(shape)
    if value is None:
        return same_field_matrix(shape, wanted)
    matrix = np.asarray(value, np.float64)
    if matrix.shape == (axes + 1, axes + 1) and matrix[-1].tolist() == [0.0] * axes + [1.0]:
        matrix = matrix[:-1]
    if matrix.shape != (axes, axes + 1) or not (np.abs(matrix) < MAX_AXIS).all():
        raise KernelError(
            f"matrix_vox: want [{axes}, {axes + 1}] finite numbers below 2^24, or these over a row"
            f" (0, ..., 1), got {matrix.tolist()}",
            where=where,
        )
    return np.ascontiguousarray(matrix)


def reference(
    image: Array,
    *,
    shape: Sequence[int],
    matrix_vox: npt.ArrayLike | None = None,
    order: int = 1,
    boundary: str = "edge",
    antialias: bool = True,
) -> tuple[Array]:
    """The definition: smooth, then sample in float64; with order 0 the very voxels."""
    matrix = _check_matrix(matrix_vox, image.shape[2:], shape, "resample")
    if order == 0:
        return (_nearest(image, shape, matrix, boundary),)
    smooth = as_doubles(image)
    for axis, sigma in enumerate(sigmas_vox(matrix, order, antialias)):
        smooth = _smoothed(smooth, axis + 2, sigma, boundary)
    at = _near(_coordinates(shape, matrix), np.asarray(image.shape[2:]), boundary)
    return (sample(smooth, np.broadcast_to(at, (len(image), *at.shape)), order, boundary),)


def _coordinates(shape: Sequence[int], matrix: Doubles) -> Doubles:
    """Where the voxels of the result sample the image: [axes, *shape]."""
    grid = np.indices(tuple(shape)).astype(np.float64)
    return np.stack([sum(m * p for m, p in zip(row[:-1], grid, strict=True)) + row[-1] for row in matrix])


def _nearest(image: Array, shape: Sequence[int], matrix: Doubles, boundary: str) -> Array:
    at = np.floor(_coordinates(shape, matrix) + 0.5)
    index = [
        extend(line.astype(np.intp), size, boundary) for line, size in zip(at, image.shape[2:], strict=True)
    ]
    inside = np.all([line != OUTSIDE for line in index], axis=0)
    flat = np.ravel_multi_index([np.where(inside, line, 0) for line in index], image.shape[2:])
    return np.where(inside, image.reshape(*image.shape[:2], -1)[:, :, flat], image.dtype.type(0))


def _near(at: Doubles, sizes: Indices, boundary: str) -> Doubles:
    """Coordinates [axes, ...] brought near the image, where they find the same."""
    size = sizes.reshape(-1, *(1 for _ in at.shape[1:]))
    if boundary in ("zero", "edge"):
        return np.clip(at, -4.0, size + 3.0)
    period = {"mirror": np.maximum(2 * size - 2, 1), "reflect": 2 * size, "wrap": size}[boundary]
    return np.asarray(at - period * np.floor(at / period))


def sigmas_vox(matrix: Doubles, order: int, antialias: bool) -> list[float]:
    """Standard deviation of the Gaussian along each axis of the image, 0 where there is none."""
    steps = np.square(matrix[:, :-1]).sum(axis=1)
    if order == 0 or not antialias:
        return [0.0] * len(steps)
    return [math.sqrt(max(float(step) - 1 - 1e-9, 0.0) / _FWHM_SQUARED) for step in steps]


def gaussian(sigma: float) -> Doubles:
    """The weights of a Gaussian at whole distances up to four standard deviations; their sum is 1."""
    reach = int(_CUT * sigma + 0.5)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / max(sigma, 1e-3)))
    return np.asarray(weights / weights.sum())


def _smoothed(image: Doubles, axis: int, sigma: float, boundary: str) -> Doubles:
    weights = gaussian(sigma)
    size, reach = image.shape[axis], len(weights) // 2
    total = np.zeros_like(image)
    for shift, weight in zip(range(-reach, reach + 1), weights, strict=True):
        index = extend(np.arange(size) + shift, size, boundary)
        voxels = np.take(image, np.maximum(index, 0), axis=axis)
        inside = np.expand_dims(index != OUTSIDE, [a for a in range(image.ndim) if a != axis])
        total += np.where(inside, weight * voxels, 0.0)
    return total


@dataclass(frozen=True)
class AxisFilter:
    """What becomes of lines along one axis: every new voxel is a weighted sum of old ones.

    New voxel ``p`` is ``scale[p] * v + sum_k weight[k, p] * (old[index[k, p]] - v)`` with ``v`` =
    ``old[base[p]]``: differences keep a constant exactly, as ``scale`` is 1 where no voxel is outside. A
    voxel of weight 0 takes no part. The tables have more columns than new voxels, of index and weight 0.

    Attributes:
        size: How many new voxels there are.
        base: int32 [columns].
        scale: float32 [columns].
        index: int32 [taps, columns].
        weight: float32 [taps, columns].
    """

    size: int
    base: Array
    scale: Array
    index: Array
    weight: Array


def axis_filter(at: Doubles, size: int, order: int, boundary: str, sigma: float) -> AxisFilter | None:
    """Smoothing a line of ``size`` voxels, then sampling it at ``at``, in one; None if nothing changes."""
    index, weight = _merged(*_products(at, size, order, boundary, gaussian(sigma)))
    if len(at) == size and len(weight) == 1 and (index[0] == np.arange(size)).all() and (weight == 1).all():
        return None
    heaviest = np.argmax(weight, axis=0)[None]
    others = np.argsort(np.arange(len(weight))[:, None] == heaviest, axis=0, kind="stable")[:-1]
    padding = (0, -len(at) % _COLUMNS)

    def table(values: Array, rows: Indices, dtype: npt.DTypeLike) -> Array:
        chosen = np.take_along_axis(values, rows, axis=0)
        return np.pad(chosen, ((0, 0), padding)).astype(dtype)

    return AxisFilter(
        size=len(at),
        base=table(index, heaviest, np.int32)[0],
        scale=np.pad(weight.sum(axis=0), padding).astype(np.float32),
        index=table(index, others, np.int32),
        weight=table(weight, others, np.float32),
    )


def _products(at: Doubles, size: int, order: int, boundary: str, smooth: Doubles) -> tuple[Indices, Doubles]:
    """Voxels and weights [taps, new size] of smoothing and sampling; voxel 0 at weight 0 if outside."""
    reach = len(smooth) // 2
    indices, weights = [], []
    for tap in taps(at, size, order, boundary):
        for shift, share in zip(range(-reach, reach + 1), smooth, strict=True):
            index = extend(tap.index + shift, size, boundary)
            inside = (tap.index != OUTSIDE) & (index != OUTSIDE)
            indices.append(np.where(inside, index, 0))
            weights.append(np.where(inside, tap.weight * share, 0.0))
    return np.stack(indices), np.stack(weights)


def _merged(index: Indices, weight: Doubles) -> tuple[Indices, Doubles]:
    """The same with every voxel once per new voxel, in ascending order, and as few taps as that takes."""
    order = np.argsort(index, axis=0, kind="stable")
    index, weight = np.take_along_axis(index, order, axis=0), np.take_along_axis(weight, order, axis=0)
    place = np.zeros_like(index)
    place[1:] = np.cumsum(index[1:] != index[:-1], axis=0)
    columns = np.broadcast_to(np.arange(index.shape[1]), index.shape)
    merged = np.zeros((int(place.max()) + 1, index.shape[1]))
    np.add.at(merged, (place, columns), weight)
    voxels = np.zeros(merged.shape, np.intp)
    voxels[place, columns] = index
    used = (merged != 0).any(axis=1)
    used[0] = True
    return voxels[used], merged[used]


def allocate(image: Array, *, shape: Sequence[int], **options: object) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (empty_image(image, shape),)


def _native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    shape: tuple[int, ...],
    matrix_vox: npt.ArrayLike | None = None,
    order: int = 1,
    boundary: str = "edge",
    antialias: bool = True,
) -> None:
    (out,) = outputs
    sizes = image.shape[2:]
    matrix = _check_matrix(matrix_vox, sizes, shape, "resample")
    sigmas = sigmas_vox(matrix, order, antialias)

    def sample_affine(source: Array, target: Array) -> None:
        module.sample_affine(source, matrix, target, order=order, boundary=boundary, threads=threads, isa=isa)

    if order == 0:
        last = is_channels_last(image)
        sample_affine(_as_words(image, last), _as_words(out, last))
        return
    if not any(sigmas) and not _is_diagonal(matrix):
        sample_affine(image, out)
        return
    filters = {}
    for axis, (size, sigma) in enumerate(zip(sizes, sigmas, strict=True)):
        if _is_diagonal(matrix):
            step, first = matrix[axis, axis], matrix[axis, -1]
            at = _near((step * np.arange(shape[axis]) + first)[None], np.array([size]), boundary)[0]
        else:
            at = np.arange(size, dtype=np.float64)
        if change := axis_filter(at, size, order, boundary, sigma):
            filters[axis] = change
    if _is_diagonal(matrix):
        _filter(module, image, filters, out, threads, isa)
        return
    smooth = np.empty_like(image, np.float32)
    _filter(module, image, filters, smooth, threads, isa)
    exact = out if out.dtype == np.float32 else empty_image(smooth, shape)
    sample_affine(smooth, exact)
    if exact is not out:
        out[...] = rounded(exact, out.dtype)


def _as_words(labels: Array, last: bool) -> Array:
    """Integers of any type as what the native kernel copies: an image whose channels are their parts."""
    if labels.dtype.name in IMAGES:
        return labels
    word = np.uint8 if labels.itemsize == 1 else np.int16
    memory = np.moveaxis(labels, 1, -1) if last else labels.reshape(-1, *labels.shape[2:], 1)
    return np.moveaxis(memory.view(word), -1, 1)


def _is_diagonal(matrix: Doubles) -> bool:
    square = matrix[:, :-1]
    return bool((square == np.diag(np.diag(square))).all())


def _filter(
    module: ModuleType,
    image: Array,
    filters: Mapping[int, AxisFilter],
    out: Array,
    threads: int,
    isa: str,
) -> None:
    """``out`` is ``image`` filtered along axes, 0 being the first one of the grid."""
    turns = _turns(filters, image.shape[2:])
    if not turns:
        out[...] = image
        return
    last = is_channels_last(image)
    views = [_as_lines(array, last) for array in (image, out)]
    stages = [(axis, f.base, f.scale, f.index, f.weight) for axis, f in ((a, filters[a]) for a in turns)]
    module.filter_axes(*views, stages, threads=threads, isa=isa)


def _as_lines(image: Array, last: bool) -> Array:
    """An image as [batch and channels, three axes of the grid, 1], or with its last channels at the end."""
    grid = (*image.shape[2:], 1)[:3]
    if last:
        return np.moveaxis(image, 1, -1).reshape(len(image), *grid, -1)
    return image.reshape(-1, *grid, 1)


def _turns(filters: Mapping[int, AxisFilter], sizes: Sequence[int]) -> list[int]:
    """In which order to change axes: the first one, then what makes planes smaller, then larger."""
    larger = [axis for axis in sorted(filters, reverse=True) if axis and filters[axis].size > sizes[axis]]
    return [axis for axis in sorted(filters) if axis not in larger] + larger


# Image and result: widths around the vectors, one-voxel axes, larger and smaller; the last for several tasks.
_SHAPES = (
    ((3, 4, 5), (3, 4, 5)),
    ((5, 7, 11), (3, 9, 4)),
    ((1, 1, 1), (2, 3, 4)),
    ((4, 1, 17), (1, 3, 16)),
    ((6, 5, 1), (9, 2, 1)),
    ((2, 3, 40), (2, 3, 15)),
    ((7, 9), (9, 7)),
    ((1, 31), (3, 65)),
    ((33, 2), (5, 3)),
    ((19, 40, 33), (23, 31, 37)),
)


def _matrices(
    rng: np.random.Generator, sizes: Sequence[int], wanted: Sequence[int]
) -> Iterator[tuple[str, Doubles]]:
    axes = len(sizes)
    yield "same field", same_field_matrix(sizes, wanted)
    yield "diagonal", np.column_stack([np.diag(rng.uniform(0.3, 3, axes)), rng.uniform(-2, 2, axes)])
    yield "mirrored", np.column_stack([-np.eye(axes), np.asarray(sizes) - 0.5])
    around = np.asarray(sizes)[:, None] * rng.uniform(-0.2, 0.2, (axes, 1))
    yield "oblique", np.hstack([np.eye(axes) + 0.3 * rng.standard_normal((axes, axes)), around])
    coarse = 2.5 * np.linalg.qr(rng.standard_normal((axes, axes)))[0]
    yield "rotated and coarse", np.hstack([coarse, np.asarray(sizes)[:, None] / 2])
    yield "far", np.hstack([np.eye(axes), np.full((axes, 1), 1e6)])


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every pair of sizes with every matrix, order and boundary; types, layouts, batches, channels vary."""
    for number, (sizes, wanted) in enumerate(_SHAPES):
        n, c = (1, 2)[number % 2], (1, 2, 3, 5)[number % 4]
        values = 100 * rng.standard_normal((n, c, *sizes))
        for label, matrix in _matrices(rng, sizes, wanted):
            if math.prod(wanted) > 20000 and label != "same field":  # slow in float64
                continue
            for turn, (order, boundary) in enumerate(itertools.product(ORDERS, BOUNDARIES)):
                types = IMAGES if order else (*IMAGES, *LABELS)
                dtype = types[(turn + number) % len(types)] if number % 3 == 1 else "float32"
                image = (values if dtype[0] != "u" else np.abs(values)).astype(dtype)
                if order == 0 and image.dtype.kind in "iu":  # every bit
                    limits = np.iinfo(image.dtype)
                    image = rng.integers(limits.min, limits.max, image.shape, dtype, endpoint=True)
                last = turn % 4 == 3
                if last:
                    image = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1)
                options = {
                    "shape": wanted,
                    "matrix_vox": matrix,
                    "order": order,
                    "boundary": boundary,
                    "antialias": turn % 7 != 6,
                }
                name = f"{label} {sizes} to {wanted} {order} {boundary} {dtype} {'last' if last else ''}"
                yield Case(name, (image,), options)


# A few roundings per axis; the weights are exact but for their own.
OPERATOR = Operator(
    name="resample",
    function=resample,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=3e-6,
    cases=cases,
    numba="edgekit.kernels.numba.resample:run",
)
