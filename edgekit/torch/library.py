"""The operators as torch knows them: ``torch.ops.edgekit.warp`` and its siblings, with their derivatives.

An operator runs edgekit's kernels on float32 of the CPU, their float64 reference on float64 of the CPU, and
the definitions in plain torch on anything else, and where no kernel is compiled. Narrower types are computed
in float32 and rounded once.
What users call is in :mod:`edgekit.torch.operators`; arguments were checked there.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import KernelError
from edgekit.kernels.base import OPERATORS, Operator
from edgekit.torch.definitions import PLAIN, grid_sample_gradients, has_plain, jacobian_gradient
from edgekit.torch.registration import define, like_the_first

_NARROW = (torch.float16, torch.bfloat16)


# The kernels that read and write float16 themselves.
_HALF = ("warp",)


@functools.cache
def _operator(name: str) -> Operator:
    return OPERATORS[name]


@functools.cache
def _is_compiled(name: str) -> bool:
    """Whether an operator has more than its NumPy reference here, natively or by Numba."""
    return any(not variant.missing() for variant in OPERATORS[name].variants)


def _compute(name: str, *tensors: Tensor, **options: Any) -> Tensor:
    """The result of an operator, by what there is for the device and type of its first argument."""
    first = tensors[0]
    dtype = first.dtype
    on_kernels = first.is_cpu and (_is_compiled(name) or not has_plain(**options))
    if dtype in _NARROW and not (on_kernels and dtype == torch.float16 and name in _HALF):
        return _compute(name, *(tensor.float() for tensor in tensors), **options).to(dtype)
    if first.is_cpu and (on_kernels or dtype == torch.float64):
        operator = _operator(name)
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        if dtype == torch.float64:
            return torch.from_numpy(np.ascontiguousarray(operator.reference(*arrays, **options)[0]))
        return torch.from_numpy(operator.function(*arrays, threads=torch.get_num_threads(), **options))
    return PLAIN[name](*tensors, *options.values()).contiguous()


def _warp(image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    return _compute("warp", image, flow_vox, order=order, boundary=boundary)


def _warp_adjoint(values: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    return _compute("warp_adjoint", values, flow_vox, order=order, boundary=boundary)


def _warp_gradient(cotangent: Tensor, image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    return _compute("warp_gradient", cotangent, image, flow_vox, order=order, boundary=boundary)


def _compose(first_vox: Tensor, second_vox: Tensor, boundary: str) -> Tensor:
    return _compute("compose", first_vox, second_vox, boundary=boundary)


def _integrate_velocity(velocity_vox: Tensor, steps: int, boundary: str) -> Tensor:
    return _compute("integrate_velocity", velocity_vox, steps=steps, boundary=boundary)


def _grid_sample(image: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    return _compute("grid_sample", image, grid, **options)


def _jacobian_determinant(flow_vox: Tensor) -> Tensor:
    return _compute("jacobian_determinant", flow_vox)


def _backward_of_warp(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    image, flow = ctx.saved_tensors
    to_image, to_flow, *_ = ctx.needs_input_grad
    return (
        warp_adjoint(cotangent, flow, *ctx.options) if to_image else None,
        warp_gradient(cotangent, image, flow, *ctx.options) if to_flow else None,
        None,
        None,
    )


def _backward_of_adjoint(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    # <cotangent, adjoint(values)> is <warp(cotangent), values>.
    values, flow = ctx.saved_tensors
    to_values, to_flow, *_ = ctx.needs_input_grad
    return (
        warp(cotangent, flow, *ctx.options) if to_values else None,
        warp_gradient(values, cotangent, flow, *ctx.options) if to_flow else None,
        None,
        None,
    )


def _backward_of_gradient(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    raise KernelError(
        "the gradient of a warp by its displacement cannot be differentiated again: want at most one "
        "derivative by a displacement",
        where="warp_gradient",
        hint="edgekit.torch.definitions.warp_plain differentiates as often as torch's grid_sample does",
    )


def _backward_of_compose(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    first, second = ctx.saved_tensors
    (boundary,) = ctx.options
    to_first, to_second, *_ = ctx.needs_input_grad
    return (
        warp_gradient(cotangent, second, first, 1, boundary).add_(cotangent) if to_first else None,
        warp_adjoint(cotangent, first, 1, boundary) if to_second else None,
        None,
    )


def _backward_of_integration(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """Back through the compositions, whose fields are made again: the forward pass keeps none of them."""
    (velocity,) = ctx.saved_tensors
    steps, boundary = ctx.options
    wide = torch.float32 if velocity.dtype in _NARROW else velocity.dtype
    fields = [velocity.to(wide) * 2.0**-steps]
    for _ in range(steps - 1):
        fields.append(compose(fields[-1], fields[-1], boundary))
    gradient = cotangent.to(wide)
    for _ in range(steps):
        field = fields.pop()
        pushed = warp_adjoint(gradient, field, 1, boundary)
        # In place: fresh memory costs as much as the sums.
        gradient = pushed.add_(gradient).add_(warp_gradient(gradient, field, field, 1, boundary))
    return (gradient * 2.0**-steps).to(velocity.dtype), None, None


def _backward_of_sampling(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    image, grid = ctx.saved_tensors
    wanted = (bool(ctx.needs_input_grad[0]), bool(ctx.needs_input_grad[1]))
    wide = torch.float32 if image.dtype in _NARROW else image.dtype
    cotangent, wide_image, grid = (tensor.to(wide) for tensor in (cotangent, image, grid))
    mode, padding_mode, align_corners = ctx.options
    gradients = grid_sample_gradients(cotangent, wide_image, grid, mode, padding_mode, align_corners, wanted)
    kept = [g.to(image.dtype) if w else None for g, w in zip(gradients, wanted, strict=True)]
    return (*kept, None, None, None)


def _backward_of_determinant(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (flow,) = ctx.saved_tensors
    wide = torch.float32 if flow.dtype in _NARROW else flow.dtype
    return (jacobian_gradient(cotangent.to(wide), flow.to(wide)).to(flow.dtype),)


def _like_the_flow(cotangent: Tensor, image: Tensor, flow_vox: Tensor, *options: Any) -> Tensor:
    return like_the_first(flow_vox)


def _on_the_grid(image: Tensor, grid: Tensor, *options: Any) -> Tensor:
    return image.new_empty(*image.shape[:2], *grid.shape[1:-1])


def _without_components(flow_vox: Tensor) -> Tensor:
    return flow_vox.new_empty(flow_vox.shape[0], *flow_vox.shape[2:])


# Each is the function of its name in edgekit.torch.operators with every option said; warp_gradient is that of
# edgekit.kernels.
warp = define("warp", _warp, _backward_of_warp)
warp_adjoint = define("warp_adjoint", _warp_adjoint, _backward_of_adjoint)
warp_gradient = define("warp_gradient", _warp_gradient, _backward_of_gradient, shape=_like_the_flow)
compose = define("compose", _compose, _backward_of_compose)
integrate_velocity = define("integrate_velocity", _integrate_velocity, _backward_of_integration)
grid_sample = define("grid_sample", _grid_sample, _backward_of_sampling, shape=_on_the_grid)
jacobian_determinant = define(
    "jacobian_determinant", _jacobian_determinant, _backward_of_determinant, shape=_without_components
)
