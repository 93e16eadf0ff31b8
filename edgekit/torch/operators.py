"""Warps, their siblings and their gradients on torch tensors.

    moved = warp(image, flow_vox)                               # image[p + flow_vox[p]]
    flow_vox = integrate_velocity(velocity_vox)                 # scaling and squaring
    pushed = warp_adjoint(values, flow_vox)                     # the transpose of warp: forwards
    flow_vox = compose(first_vox, second_vox)                   # one displacement after another
    det = jacobian_determinant(flow_vox)                        # of p -> p + flow_vox[p]
    sampled = grid_sample(image, grid)                          # torch's own convention, faster

Displacements are relative, in voxels, components in axis order ((z, y, x) or (y, x)); voxel centres lie on
whole coordinates. :mod:`edgekit.kernels` defines what the operators compute. On the CPU they run its kernels
in float32 and its reference in float64, on other devices :mod:`edgekit.torch.definitions`; float16 and
bfloat16 are computed in float32 and rounded once. Tensors of any strides are taken. Gradients are those of
the definitions and run in kernels too; autograd, ``torch.compile``, ``torch.export``, ``torch.func.vmap`` and
``torch.func.grad`` see each operator as one node. A second derivative by a displacement is refused.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd import forward_ad

from edgekit.errors import KernelError
from edgekit.kernels.checks import check_choice, check_flag, check_integer
from edgekit.kernels.grid_sample import PADDING_MODES
from edgekit.kernels.integrate import MAX_STEPS
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS
from edgekit.torch import library

__all__ = ["compose", "grid_sample", "integrate_velocity", "jacobian_determinant", "warp", "warp_adjoint"]


def warp(image: Tensor, flow_vox: Tensor, *, order: int = 1, boundary: str = "edge") -> Tensor:
    """Pull an image by a displacement: ``out[p] = image[p + flow_vox[p]]``.

    Args:
        image: [N, C, D, H, W] or [N, C, H, W], floating point.
        flow_vox: [N, 3, D, H, W] or [N, 2, H, W] of the same type, device and grid.
        order: 0 samples the nearest voxel (the higher index halfway between two), 1 interpolates linearly, 3
            by cubic convolution.
        boundary: How the image goes on outside: ``"zero"``, ``"edge"``, ``"mirror"``, ``"reflect"`` or
            ``"wrap"``; see :func:`edgekit.kernels.warp`.

    Returns:
        The warped image, of the image's shape. Differentiable in both arguments.

    Raises:
        KernelError: Shapes, types, order or boundary do not fit, or there is no such order or boundary on the
            tensors' device.
    """
    _check_backward_mode("warp", image, flow_vox)
    _check_flow(flow_vox, "flow_vox", "warp")
    _check_same_grid(image, "image", flow_vox, "flow_vox", "warp")
    check_choice(order, "order", ORDERS, where="warp")
    check_choice(boundary, "boundary", BOUNDARIES, where="warp")
    return library.warp(image, flow_vox, order, boundary)  # type: ignore[no-any-return]


@overload
def warp_adjoint(values: Tensor, flow_vox: Tensor, *, order: int = 1, boundary: str = "edge") -> Tensor: ...


@overload
def warp_adjoint(
    values: Tensor, flow_vox: Tensor, *, order: int = 1, boundary: str = "edge", return_count: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def warp_adjoint(
    values: Tensor,
    flow_vox: Tensor,
    *,
    order: int = 1,
    boundary: str = "edge",
    return_count: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Push values along a displacement: the transpose of :func:`warp` as a linear map of the image.

    Args:
        values: [N, C, D, H, W] or [N, C, H, W], floating point.
        flow_vox: [N, 3, D, H, W] or [N, 2, H, W] of the same type, device and grid.
        order: As in :func:`warp`.
        boundary: As in :func:`warp`.
        return_count: Also return what arrives where every value is 1, to divide by.

    Returns:
        What arrives at each voxel, of the shape of ``values``; with ``return_count`` a pair of that and the
        count [N, 1, D, H, W] or [N, 1, H, W]. Differentiable in both arguments.

    Raises:
        KernelError: As in :func:`warp`.
    """
    _check_backward_mode("warp_adjoint", values, flow_vox)
    _check_flow(flow_vox, "flow_vox", "warp_adjoint")
    _check_same_grid(values, "values", flow_vox, "flow_vox", "warp_adjoint")
    check_choice(order, "order", ORDERS, where="warp_adjoint")
    check_choice(boundary, "boundary", BOUNDARIES, where="warp_adjoint")
    pushed = library.warp_adjoint(values, flow_vox, order, boundary)
    if not return_count:
        return pushed  # type: ignore[no-any-return]
    ones = values.new_ones(values.shape[0], 1, *values.shape[2:])
    return pushed, library.warp_adjoint(ones, flow_vox, order, boundary)


def compose(first_vox: Tensor, second_vox: Tensor, *, boundary: str = "edge") -> Tensor:
    """The displacement of moving by ``first_vox``, then by ``second_vox``.

    ``first_vox[p] + second_vox(p + first_vox[p])``, which warps an image like
    ``warp(warp(image, second_vox), first_vox)``.

    Args:
        first_vox: [N, 3, D, H, W] or [N, 2, H, W], voxels.
        second_vox: Of the same shape, type and device.
        boundary: How ``second_vox`` goes on outside, as an image in :func:`warp`.

    Returns:
        The displacement in voxels, of the same shape. Differentiable in both arguments.

    Raises:
        KernelError: As in :func:`warp`.
    """
    _check_backward_mode("compose", first_vox, second_vox)
    _check_flow(first_vox, "first_vox", "compose")
    _check_flow(second_vox, "second_vox", "compose")
    _check_same_grid(second_vox, "second_vox", first_vox, "first_vox", "compose")
    check_choice(boundary, "boundary", BOUNDARIES, where="compose")
    return library.compose(first_vox, second_vox, boundary)  # type: ignore[no-any-return]


def integrate_velocity(velocity_vox: Tensor, *, steps: int = 7, boundary: str = "edge") -> Tensor:
    """Displacement that a stationary velocity causes in unit time, by scaling and squaring.

    Arsigny et al. 2006: start with ``velocity / 2**steps``, then compose the displacement with itself
    ``steps`` times, ``u = u + warp(u, u)``. The backward pass makes the fields between again, so that the
    forward pass keeps nothing but the velocity.

    Args:
        velocity_vox: [N, 3, D, H, W] or [N, 2, H, W], voxels per unit time.
        steps: Number of compositions, 0 to 32.
        boundary: As in :func:`compose`.

    Returns:
        The displacement in voxels, of the velocity's shape. Differentiable.

    Raises:
        KernelError: The shape, type, steps or boundary do not fit, or the device lacks the boundary.
    """
    _check_backward_mode("integrate_velocity", velocity_vox)
    _check_flow(velocity_vox, "velocity_vox", "integrate_velocity")
    steps = check_integer(steps, "steps", 0, MAX_STEPS, where="integrate_velocity")
    check_choice(boundary, "boundary", BOUNDARIES, where="integrate_velocity")
    return library.integrate_velocity(velocity_vox, steps, boundary)  # type: ignore[no-any-return]


def jacobian_determinant(flow_vox: Tensor) -> Tensor:
    """Determinant of the Jacobian of ``p -> p + flow_vox[p]``: 1 keeps volume, 0 or less folds.

    Derivatives are central differences inside and one-sided at the borders; see
    :func:`edgekit.kernels.jacobian_determinant`.

    Args:
        flow_vox: [N, 3, D, H, W] or [N, 2, H, W], voxels.

    Returns:
        The determinant [N, D, H, W] or [N, H, W]. Differentiable, as often as you like.

    Raises:
        KernelError: The shape or type does not fit.
    """
    _check_backward_mode("jacobian_determinant", flow_vox)
    _check_flow(flow_vox, "flow_vox", "jacobian_determinant")
    return library.jacobian_determinant(flow_vox)  # type: ignore[no-any-return]


def grid_sample(
    image: Tensor,
    grid: Tensor,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Sample an image on a normalised grid: ``torch.nn.functional.grid_sample``, of volumes on our kernel.

    An image [N, C, H, W] goes to torch's function itself, which exporters write as the standard GridSample.

    Args:
        image: [N, C, D, H, W] or [N, C, H, W], floating point.
        grid: [N, D', H', W', 3] with components (x, y, z), or [N, H', W', 2] with (x, y); of the image's type
            and device; -1 to 1 is the image.
        mode: ``"bilinear"`` (or ``"linear"``) interpolates, ``"nearest"`` takes the nearest voxel; of images
            [N, C, H, W] also ``"bicubic"``; of volumes on the CPU also ``"cubic"``, which has no gradients.
        padding_mode: ``"zeros"``, ``"border"`` or ``"reflection"``.
        align_corners: Whether -1 and 1 are the centres of the first and the last voxel, or their outer faces.

    Returns:
        The samples, [N, C, D', H', W'] or [N, C, H', W']. Differentiable in both arguments; a NaN in a grid
        of a volume makes the sample NaN.

    Raises:
        KernelError: Shapes, types or options do not fit.
    """
    where = "grid_sample"
    _check_backward_mode(where, image, grid)
    shape, places, dtype = image.shape, grid.shape, image.dtype
    axes = len(shape) - 2
    same = dtype in _DTYPES and grid.dtype == dtype and image.device == grid.device
    if axes not in _SAMPLING_MODES or len(places) != axes + 2 or places[-1] != axes or not same:
        raise KernelError(
            "want an image [N, C, D, H, W] and a grid [N, D, H, W, 3], or [N, C, H, W] and [N, H, W, 2], of "
            f"one device and floating-point type, got {tuple(shape)} of {dtype} on {image.device} and "
            f"{tuple(places)} of {grid.dtype} on {grid.device}",
            where=where,
        )
    if shape[0] != places[0]:
        raise KernelError(f"grid: want the batch of image, {shape[0]}, got {places[0]}", where=where)
    words = _SAMPLING_MODES[axes]
    check_choice(mode, "mode", [*words], where=where)
    check_choice(padding_mode, "padding_mode", PADDING_MODES, where=where)
    check_flag(align_corners, "align_corners", where=where)
    if axes == 2:
        sample = torch.nn.functional.grid_sample
        return sample(image, grid, words[mode], padding_mode=padding_mode, align_corners=align_corners)
    return library.grid_sample(image, grid, words[mode], padding_mode, align_corners)  # type: ignore[no-any-return]


# By the number of axes: the modes, and how torch's function or our operator calls them.
_SAMPLING_MODES: dict[int, dict[str, str]] = {
    2: {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic"},
    3: {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "cubic": "cubic"},
}


def _check_backward_mode(where: str, *tensors: Tensor) -> None:
    """Refuse what torch would silently lose: it gives operators of others tangents of 0."""
    if torch.compiler.is_compiling():
        return
    unpack: Any = forward_ad.unpack_dual
    if any(unpack(tensor).tangent is not None for tensor in tensors):
        raise KernelError(
            "want tensors without tangents, got forward-mode differentiation",
            where=where,
            hint="torch.autograd.grad or torch.autograd.functional.jvp",
        )


_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _check_flow(flow: Tensor, name: str, where: str) -> None:
    shape = flow.shape
    axes = len(shape) - 2
    if axes not in (2, 3) or shape[1] != axes or flow.dtype not in _DTYPES:
        raise KernelError(
            f"{name}: want [N, 3, D, H, W] or [N, 2, H, W] of a floating-point type of 16 to 64 bits, "
            f"got {tuple(shape)} of {flow.dtype}",
            where=where,
        )


def _check_same_grid(image: Tensor, name: str, flow: Tensor, flow_name: str, where: str) -> None:
    shape, wanted = image.shape, flow.shape
    same = len(shape) == len(wanted) and image.dtype == flow.dtype and image.device == flow.device
    if not same or shape[0] != wanted[0] or shape[2:] != wanted[2:]:
        raise KernelError(
            f"{name}: want batch, grid, type and device of {flow_name}, "
            f"{tuple(wanted)} of {flow.dtype} on {flow.device}, "
            f"got {tuple(shape)} of {image.dtype} on {image.device}",
            where=where,
        )
