"""Coordinates of other conventions into ours and back: the only place that converts.

Ours: axes (z, y, x), voxel centres at whole numbers, displacements relative and in voxels. Others write
millimetres, absolute positions, components (x, y, z), grids normalised to [-1, 1], ITK's vector images,
or affine maps between worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgekit.errors import KernelError
from edgekit.kernels.base import Doubles
from edgekit.kernels.checks import check_flag
from edgekit.kernels.exchange import as_numpy, like
from edgekit.spec import Array

_Field = npt.NDArray[np.floating[Any]]


def flow_to_mm(flow_vox: Array, spacing_mm_zyx: Sequence[float]) -> Any:
    """A displacement in voxels, in millimetres along the same axes.

    Args:
        flow_vox: [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]; of any floating type.
        spacing_mm_zyx: Distance of neighbouring voxels along each axis, in the order of the components.

    Returns:
        A new array of the same type.

    Raises:
        KernelError: An argument is not as described.
    """
    return _scaled(flow_vox, spacing_mm_zyx, "flow_to_mm", "flow_vox", 1)


def flow_from_mm(flow_mm: Array, spacing_mm_zyx: Sequence[float]) -> Any:
    """A displacement in millimetres along the axes, in voxels: the inverse of :func:`flow_to_mm`."""
    return _scaled(flow_mm, spacing_mm_zyx, "flow_from_mm", "flow_mm", -1)


def _scaled(value: Array, spacing: Sequence[float], where: str, name: str, power: int) -> Any:
    flow = _field(value, name, where)
    factors = _spacing(spacing, flow.ndim - 2, "spacing_mm_zyx", where) ** power
    return like((flow * _along(factors, flow.ndim - 2)).astype(flow.dtype), value)


def reversed_components(flow: Array) -> Any:
    """A displacement [N, 3, D, H, W] or [N, 2, H, W] with components (x, y, z) instead of (z, y, x), or back.

    Raises:
        KernelError: It has another shape, or is not of a floating type.
    """
    return like(np.ascontiguousarray(_field(flow, "flow", "reversed_components")[:, ::-1]), flow)


def flow_to_positions(flow_vox: Array) -> Any:
    """Where each voxel is displaced to, ``p + flow_vox[p]`` in voxels: absolute instead of relative.

    Args:
        flow_vox: [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]; of any floating type.

    Raises:
        KernelError: It has another shape or type.
    """
    flow = _field(flow_vox, "flow_vox", "flow_to_positions")
    return like((flow + np.indices(flow.shape[2:])).astype(flow.dtype), flow_vox)


def flow_from_positions(positions_vox: Array) -> Any:
    """The displacement that leads to absolute positions: the inverse of :func:`flow_to_positions`."""
    positions = _field(positions_vox, "positions_vox", "flow_from_positions")
    return like((positions - np.indices(positions.shape[2:])).astype(positions.dtype), positions_vox)


def flow_to_grid(flow_vox: Array, *, align_corners: bool = False) -> Any:
    """The sampling grid of PyTorch and ONNX that pulls an image through a displacement.

    ``grid_sample(image, flow_to_grid(flow_vox))`` is ``warp(image, flow_vox)`` but for rounding.

    Args:
        flow_vox: [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]; of any floating type.
        align_corners: Whether -1 and 1 are the centres of the first and the last voxel, or their outer faces.
            If True, a grid knows no displacement along an axis of one voxel.

    Returns:
        [N, D, H, W, 3] with components (x, y, z), or [N, H, W, 2] with (x, y), of the same type.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "flow_to_grid"
    flow = _field(flow_vox, "flow_vox", where)
    scale, shift = _normalising(flow.shape[2:], check_flag(align_corners, "align_corners", where=where))
    normal = (flow + np.indices(flow.shape[2:])) * scale + shift
    return like(_components_last(normal[:, ::-1], flow.dtype), flow_vox)


def flow_from_grid(grid: Array, *, align_corners: bool = False) -> Any:
    """The displacement in voxels of a sampling grid of PyTorch or ONNX: the inverse of :func:`flow_to_grid`.

    Args:
        grid: [N, D, H, W, 3] with components (x, y, z), or [N, H, W, 2], for an image of its own size; of
            any floating type.
        align_corners: What the grid was made for.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "flow_from_grid"
    given = as_numpy(grid, "grid", where=where)
    normal = _field(np.moveaxis(given, -1, 1) if given.ndim else given, "grid", where)[:, ::-1]
    scale, shift = _normalising(normal.shape[2:], check_flag(align_corners, "align_corners", where=where))
    flow = (normal - shift) / scale - np.indices(normal.shape[2:])
    return like(np.ascontiguousarray(flow, normal.dtype), grid)


def _normalising(shape: Sequence[int], align_corners: bool) -> tuple[Doubles, Doubles]:
    """Scale and shift from voxels to [-1, 1], broadcast along a displacement."""
    sizes = _along(np.asarray(shape, np.float64), len(shape))
    if align_corners:
        return 2 / np.maximum(sizes - 1, 1), np.full_like(sizes, -1.0)
    return 2 / sizes, 1 / sizes - 1


def flow_to_itk(
    flow_vox: Array, spacing_mm_zyx: Sequence[float], direction: npt.ArrayLike | None = None
) -> Array:
    """ITK's displacement field of one of ours, for ``SimpleITK.GetImageFromArray(..., isVector=True)``.

    Args:
        flow_vox: [1, 3, D, H, W] with components (z, y, x), or [1, 2, H, W]; of any floating type.
        spacing_mm_zyx: Distance of neighbouring voxels along each axis: ITK's, reversed.
        direction: ITK's direction cosines, as ``image.GetDirection()`` gives them; the identity by default.

    Returns:
        Vectors in millimetres of the patient's (x, y, z), float64 [D, H, W, 3] or [H, W, 2].

    Raises:
        KernelError: An argument is not as described, or there is more than one field.
    """
    where = "flow_to_itk"
    flow = _field(flow_vox, "flow_vox", where)
    if len(flow) != 1:
        raise KernelError(
            f"flow_vox: want a single field, got shape {flow.shape}", where=where, hint="flow_vox[:1]"
        )
    axes = flow.ndim - 2
    spacing = _spacing(spacing_mm_zyx, axes, "spacing_mm_zyx", where)[::-1]
    result: Array = np.moveaxis(flow[0, ::-1], 0, -1) * spacing @ _direction(direction, axes, where).T
    return result


def flow_from_itk(
    vectors_mm: Array, spacing_mm_zyx: Sequence[float], direction: npt.ArrayLike | None = None
) -> Array:
    """Our displacement of an ITK displacement field: the inverse of :func:`flow_to_itk`.

    Args:
        vectors_mm: As ``SimpleITK.GetArrayFromImage`` gives them: [D, H, W, 3] or [H, W, 2], of any floating
            type, in millimetres of the patient's (x, y, z).
        spacing_mm_zyx: Distance of neighbouring voxels along each axis: ITK's, reversed.
        direction: ITK's direction cosines, as ``image.GetDirection()`` gives them; the identity by default.

    Returns:
        float32 [1, 3, D, H, W] with components (z, y, x), or [1, 2, H, W], in voxels.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "flow_from_itk"
    given = as_numpy(vectors_mm, "vectors_mm", where=where)
    vectors = np.moveaxis(_field(np.moveaxis(given[None], -1, 1), "vectors_mm", where), 1, -1)[0]
    axes = vectors.ndim - 1
    along = vectors @ np.linalg.inv(_direction(direction, axes, where)).T
    flow = (along / _spacing(spacing_mm_zyx, axes, "spacing_mm_zyx", where)[::-1])[..., ::-1]
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0)[None], np.float32)


def same_field_matrix(shape: Sequence[int], wanted: Sequence[int]) -> Doubles:
    """The map from voxels of a grid to those of another that covers the same field of view.

    The outer faces of both grids meet: voxel ``p`` of ``wanted`` lies at ``(p + 0.5) * s - 0.5`` with
    ``s = shape / wanted``.

    Args:
        shape: Size of the grid that is mapped to.
        wanted: Size of the grid that is mapped from.

    Returns:
        [axes, axes + 1], for :func:`~edgekit.kernels.resample`.
    """
    scale = np.asarray(shape, np.float64) / np.asarray(wanted, np.float64)
    return np.column_stack([np.diag(scale), 0.5 * scale - 0.5])


def respaced(
    shape: Sequence[int], spacing_mm_zyx: Sequence[float], wanted_mm_zyx: Sequence[float]
) -> tuple[tuple[int, ...], Doubles]:
    """The grid of another spacing around the same centre, and the map from its voxels to those of the old.

    It has as many whole voxels as cover the field of view best, and exactly the spacing that is wanted::

        shape, matrix_vox = coords.respaced(image.shape[2:], (5, 0.7, 0.7), (1, 1, 1))
        finer = kernels.resample(image, shape, matrix_vox)

    Args:
        shape: Size of the grid, [D, H, W] or [H, W].
        spacing_mm_zyx: Its spacing.
        wanted_mm_zyx: The spacing to have.

    Returns:
        The new size, and the matrix [axes, axes + 1].

    Raises:
        KernelError: A spacing is not positive, or there is not one per axis.
    """
    where = "respaced"
    sizes = np.asarray(shape, np.float64)
    old = _spacing(spacing_mm_zyx, len(sizes), "spacing_mm_zyx", where)
    new = _spacing(wanted_mm_zyx, len(sizes), "wanted_mm_zyx", where)
    count = np.maximum(np.rint(sizes * old / new), 1)
    scale = new / old
    offset = (sizes - 1) / 2 - scale * (count - 1) / 2
    return tuple(int(size) for size in count), np.column_stack([np.diag(scale), offset])


def affine_between(from_world: npt.ArrayLike, to_world: npt.ArrayLike) -> Doubles:
    """The map from voxels of one grid to those of another, both being placed in one world.

    Args:
        from_world: Homogeneous matrix [4, 4] (or [3, 3]) from voxels of the first grid to the world, such as
            NIfTI's affine. Its columns are in the order of the array's axes.
        to_world: The same of the second grid.

    Returns:
        Homogeneous matrix of the same size, for :func:`~edgekit.kernels.resample`.

    Raises:
        KernelError: They are not homogeneous matrices of one size, or the second cannot be inverted.
    """
    where = "affine_between"
    first, second = np.asarray(from_world, np.float64), np.asarray(to_world, np.float64)
    for name, matrix in (("from_world", first), ("to_world", second)):
        last = [0.0] * (len(matrix) - 1) + [1.0] if matrix.ndim else []
        if matrix.shape not in ((3, 3), (4, 4)) or matrix[-1].tolist() != last:
            raise KernelError(
                f"{name}: want a matrix [4, 4] or [3, 3] with last row (0, ..., 1), got {matrix.tolist()}",
                where=where,
            )
    if first.shape != second.shape:
        raise KernelError(f"want matrices of one size, got {first.shape} and {second.shape}", where=where)
    try:
        between = np.linalg.solve(second, first).astype(np.float64)
    except np.linalg.LinAlgError as error:
        raise KernelError(
            f"to_world: want a matrix that can be inverted, got {second.tolist()}", where=where
        ) from error
    between[-1] = first[-1]
    return between


def _field(value: object, name: str, where: str) -> _Field:
    """A displacement [N, 3, D, H, W] or [N, 2, H, W] of any floating type and memory layout."""
    field = as_numpy(value, name, where=where)
    if field.dtype.kind != "f":
        raise KernelError(
            f"{name}: want a floating type, got {field.dtype}", where=where, hint=f"{name}.astype(np.float32)"
        )
    if field.ndim not in (4, 5) or field.shape[1] != field.ndim - 2 or field.size == 0:
        raise KernelError(
            f"{name}: want one component per axis of a grid of 2 or 3 axes, got shape {field.shape}",
            where=where,
        )
    return cast(_Field, field)


def _spacing(value: Sequence[float], axes: int, name: str, where: str) -> Doubles:
    spacing = np.asarray(value, np.float64)
    if spacing.shape != (axes,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise KernelError(f"{name}: want {axes} positive numbers, got {value!r}", where=where)
    return spacing


def _direction(value: npt.ArrayLike | None, axes: int, where: str) -> Doubles:
    direction = np.eye(axes) if value is None else np.asarray(value, np.float64)
    if direction.size != axes * axes or abs(np.linalg.det(direction.reshape(axes, axes))) < 1e-6:
        raise KernelError(
            f"direction: want {axes} x {axes} direction cosines, got {value!r}",
            where=where,
            hint="image.GetDirection()",
        )
    return direction.reshape(axes, axes)


def _along(values: Doubles, axes: int) -> Doubles:
    """One value per component, broadcast along a displacement [N, components, ...]."""
    return values.reshape(1, -1, *(1 for _ in range(axes)))


def _components_last(field: _Field, dtype: npt.DTypeLike) -> Array:
    return np.ascontiguousarray(np.moveaxis(field, 1, -1), dtype)
