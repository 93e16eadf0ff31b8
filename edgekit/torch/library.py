"""The operators as torch knows them: ``torch.ops.edgekit.warp`` and its siblings, with their derivatives.

An operator runs edgekit's kernels on float32 of the CPU, their float64 reference on float64 of the CPU, and
the definitions in plain torch on anything else, and where no kernel is compiled. Narrower types are computed
in float32 and rounded once.
What users call is in :mod:`edgekit.torch.operators`; arguments were checked there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.library import custom_op

from edgekit.errors import KernelError
from edgekit.kernels.base import OPERATORS
from edgekit.torch.definitions import PLAIN, has_plain, jacobian_gradient

_NARROW = (torch.float16, torch.bfloat16)


@functools.cache
def _is_compiled(name: str) -> bool:
    """Whether an operator has more than its NumPy reference here, natively or by Numba."""
    return any(not variant.missing() for variant in OPERATORS[name].variants)


def _compute(name: str, *tensors: Tensor, **options: Any) -> Tensor:
    """The result of an operator, by what there is for the device and type of its first argument."""
    dtype = tensors[0].dtype
    if dtype in _NARROW:
        return _compute(name, *(tensor.float() for tensor in tensors), **options).to(dtype)
    if tensors[0].device.type == "cpu":
        operator = OPERATORS[name]
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        if dtype == torch.float64:
            return torch.from_numpy(np.ascontiguousarray(operator.reference(*arrays, **options)[0]))
        if _is_compiled(name) or not has_plain(**options):
            return torch.from_numpy(operator.function(*arrays, threads=torch.get_num_threads(), **options))
    return PLAIN[name](*tensors, *options.values()).contiguous()


@custom_op("edgekit::warp", mutates_args=())
def warp(image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    """:func:`edgekit.torch.operators.warp`."""
    return _compute("warp", image, flow_vox, order=order, boundary=boundary)


@custom_op("edgekit::warp_adjoint", mutates_args=())
def warp_adjoint(values: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    """:func:`edgekit.torch.operators.warp_adjoint`."""
    return _compute("warp_adjoint", values, flow_vox, order=order, boundary=boundary)


@custom_op("edgekit::warp_gradient", mutates_args=())
def warp_gradient(cotangent: Tensor, image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    """:func:`edgekit.kernels.warp_gradient`: the derivative of a warp by its displacement."""
    return _compute("warp_gradient", cotangent, image, flow_vox, order=order, boundary=boundary)


@custom_op("edgekit::compose", mutates_args=())
def compose(first_vox: Tensor, second_vox: Tensor, boundary: str) -> Tensor:
    """:func:`edgekit.torch.operators.compose`."""
    return _compute("compose", first_vox, second_vox, boundary=boundary)


@custom_op("edgekit::integrate_velocity", mutates_args=())
def integrate_velocity(velocity_vox: Tensor, steps: int, boundary: str) -> Tensor:
    """:func:`edgekit.torch.operators.integrate_velocity`."""
    return _compute("integrate_velocity", velocity_vox, steps=steps, boundary=boundary)


@custom_op("edgekit::jacobian_determinant", mutates_args=())
def jacobian_determinant(flow_vox: Tensor) -> Tensor:
    """:func:`edgekit.torch.operators.jacobian_determinant`."""
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


def _backward_of_determinant(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (flow,) = ctx.saved_tensors
    wide = torch.float32 if flow.dtype in _NARROW else flow.dtype
    return (jacobian_gradient(cotangent.to(wide), flow.to(wide)).to(flow.dtype),)


def _register(
    operator: Any,
    tensors: int,
    backward: Callable[..., Any],
    shape: Callable[..., Tensor] = lambda *inputs: torch.empty_like(
        inputs[0], memory_format=torch.contiguous_format
    ),
) -> None:
    """Tell torch the rest about an operator.

    Args:
        operator: It takes ``tensors`` tensors [N, ...] and then options; what it gives is [N, ...] too.
        tensors: How many of its arguments are tensors.
        backward: Its derivative, of the tensors and options in ``ctx.saved_tensors`` and ``ctx.options``.
        shape: An empty result for these arguments; like the first one by default.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def over_batch(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        size = info.batch_size
        merged = [
            (tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)).flatten(0, 1)
            for tensor, axis in zip(arguments[:tensors], in_dims[:tensors], strict=True)
        ]
        return operator(*merged, *arguments[tensors:]).unflatten(0, (size, -1)), 0

    operator.register_fake(shape)
    operator.register_autograd(backward, setup_context=setup_context)
    operator.register_vmap(over_batch)


def _like_the_flow(cotangent: Tensor, image: Tensor, flow_vox: Tensor, *options: Any) -> Tensor:
    return torch.empty_like(flow_vox, memory_format=torch.contiguous_format)


def _without_components(flow_vox: Tensor) -> Tensor:
    return flow_vox.new_empty(flow_vox.shape[0], *flow_vox.shape[2:])


_register(warp, 2, _backward_of_warp)
_register(warp_adjoint, 2, _backward_of_adjoint)
_register(warp_gradient, 3, _backward_of_gradient, _like_the_flow)
_register(compose, 2, _backward_of_compose)
_register(integrate_velocity, 1, _backward_of_integration)
_register(jacobian_determinant, 1, _backward_of_determinant, _without_components)
