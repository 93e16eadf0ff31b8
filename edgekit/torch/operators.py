"""Warp and velocity integration as torch operators, ``edgekit::warp`` and ``edgekit::integrate_velocity``.

House convention: displacements are relative, in voxels, components in axis order ((z, y, x) or (y, x));
output voxel ``p`` samples the image at ``p + flow[p]``; voxel centres lie on integer coordinates.

The ``*_plain`` functions define the operators with ``grid_sample``: that is what runs on other devices and
types than float32 on the CPU, and what gradients are taken from. In float32 on the CPU the operators run
edgekit's own kernels. An exporter sees each operator as one node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit import kernels
from edgekit.errors import KernelError

__all__ = ["integrate_plain", "integrate_velocity", "warp", "warp_plain"]

_PADDING = {"edge": "border", "zero": "zeros"}
_MODE = {0: "nearest", 1: "bilinear"}


def warp(image: Tensor, flow_vox: Tensor, *, order: int = 1, boundary: str = "edge") -> Tensor:
    """Pull an image by a displacement: ``out[p] = image[p + flow_vox[p]]``.

    Args:
        image: [N, C, D, H, W] or [N, C, H, W], floating point.
        flow_vox: [N, 3, D, H, W] or [N, 2, H, W] of the same type and grid.
        order: 0 samples the nearest voxel (the higher index halfway between two), 1 interpolates linearly.
        boundary: ``"edge"`` repeats the border outside the image, ``"zero"`` is zero there.

    Returns:
        The warped image, of the image's shape. Differentiable in both arguments.

    Raises:
        KernelError: Shapes, types, order or boundary do not fit.
    """
    _check_flow("flow_vox", flow_vox, boundary)
    if order not in _MODE:
        raise KernelError(f"unknown interpolation: want order 0 or 1, got {order}", where="order")
    grid = (image.shape[0], *image.shape[2:], image.dtype)
    wanted = (flow_vox.shape[0], *flow_vox.shape[2:], flow_vox.dtype)
    if grid != wanted:
        raise KernelError(
            f"image and flow want one batch, grid and type: got {tuple(image.shape)} of {image.dtype} "
            f"and {tuple(flow_vox.shape)} of {flow_vox.dtype}",
            where="image",
        )
    return _warp(image, flow_vox, order, boundary)  # type: ignore[no-any-return]


def integrate_velocity(velocity_vox: Tensor, *, steps: int = 7, boundary: str = "edge") -> Tensor:
    """Displacement that a stationary velocity causes in unit time, by scaling and squaring.

    Arsigny et al. 2006: start with ``velocity / 2**steps``, then compose the displacement with itself
    ``steps`` times, ``u = u + warp(u, u)``.

    Args:
        velocity_vox: [N, 3, D, H, W] or [N, 2, H, W], voxels per unit time.
        steps: Number of compositions, 0 to 30.
        boundary: As in :func:`warp`.

    Returns:
        The displacement in voxels, of the velocity's shape. Differentiable.

    Raises:
        KernelError: The shape, steps or boundary do not fit.
    """
    _check_flow("velocity_vox", velocity_vox, boundary)
    if not 0 <= steps <= 30:
        raise KernelError(f"want 0 to 30 steps, got {steps}", where="steps")
    return _integrate_velocity(velocity_vox, steps, boundary)  # type: ignore[no-any-return]


def warp_plain(image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    """The definition of :func:`warp`, written with ``grid_sample``."""
    coordinates = []
    for axis, size in enumerate(flow_vox.shape[2:]):
        shape = [1] * (flow_vox.dim() - 1)
        shape[axis + 1] = size
        position = torch.arange(size, dtype=flow_vox.dtype, device=flow_vox.device).reshape(shape)
        # Pixel-edge normalisation (align_corners=False) stays defined on an axis of one voxel.
        sample = position + flow_vox[:, axis]
        if order == 0:
            sample = torch.floor(sample + 0.5)
        coordinates.append((2 * sample + 1) / size - 1)
    grid = torch.stack(coordinates[::-1], dim=-1)
    return F.grid_sample(image, grid, _MODE[order], _PADDING[boundary], align_corners=False)


def integrate_plain(velocity_vox: Tensor, steps: int, boundary: str) -> Tensor:
    """The definition of :func:`integrate_velocity`, written with :func:`warp_plain`."""
    flow = velocity_vox / 2.0**steps
    for _ in range(steps):
        flow = flow + warp_plain(flow, flow, 1, boundary)
    return flow


def _check_flow(name: str, flow: Tensor, boundary: str) -> None:
    axes = flow.dim() - 2
    if axes not in (2, 3) or flow.shape[1] != axes or not flow.is_floating_point():
        raise KernelError(
            "want [N, 3, D, H, W] or [N, 2, H, W] of floating point, "
            f"got {tuple(flow.shape)} of {flow.dtype}",
            where=name,
        )
    if boundary not in _PADDING:
        raise KernelError(
            f"unknown boundary: want one of {', '.join(sorted(_PADDING))}, got {boundary!r}", where="boundary"
        )


def _runs_native(tensor: Tensor) -> bool:
    fits = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return fits and not kernels.native_status().missing


@torch.library.custom_op("edgekit::warp", mutates_args=())
def _warp(image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    if not _runs_native(image):
        return warp_plain(image, flow_vox, order, boundary)
    source, flow = (tensor.detach().contiguous().numpy() for tensor in (image, flow_vox))
    threads = torch.get_num_threads()
    return torch.from_numpy(kernels.warp(source, flow, order=order, boundary=boundary, threads=threads))


@_warp.register_fake
def _(image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    return torch.empty_like(image, memory_format=torch.contiguous_format)


@torch.library.custom_op("edgekit::integrate_velocity", mutates_args=())
def _integrate_velocity(velocity_vox: Tensor, steps: int, boundary: str) -> Tensor:
    if not _runs_native(velocity_vox):
        return integrate_plain(velocity_vox, steps, boundary)
    array, threads = velocity_vox.detach().contiguous().numpy(), torch.get_num_threads()
    return torch.from_numpy(
        kernels.integrate_velocity(array, steps=steps, boundary=boundary, threads=threads)
    )


@_integrate_velocity.register_fake
def _(velocity_vox: Tensor, steps: int, boundary: str) -> Tensor:
    return torch.empty_like(velocity_vox, memory_format=torch.contiguous_format)


def _remember(tensors: int) -> Callable[..., None]:
    """Keeps the first ``tensors`` arguments and the options after them for the backward pass."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    return setup_context


def _gradient_of(plain: Callable[..., Tensor]) -> Callable[..., tuple[Any, ...]]:
    """The backward pass that differentiates the plain definition at the saved arguments."""

    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[: len(ctx.saved_tensors)]
        with torch.enable_grad():
            arguments = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wanted, strict=True)]
            output = plain(*arguments, *ctx.options)
        found = iter(torch.autograd.grad(output, [a for a in arguments if a.requires_grad], gradient))
        return (*(next(found) if w else None for w in wanted), *(None for _ in ctx.options))

    return backward


_warp.register_autograd(_gradient_of(warp_plain), setup_context=_remember(2))
_integrate_velocity.register_autograd(_gradient_of(integrate_plain), setup_context=_remember(1))
