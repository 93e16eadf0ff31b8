"""How an operator becomes one of torch's: ``torch.ops.edgekit.…`` with its shape, derivative and batches.

``torch.library.custom_op`` would do the same, but costs some 15 µs more at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What is registered lasts as long as this does.
_LIBRARY: Any = torch.library.Library("edgekit", "FRAGMENT")  # type: ignore[no-untyped-call]


def like_the_first(first: Tensor, *others: Any, **options: Any) -> Tensor:
    """A contiguous tensor of the shape, type and device of the first."""
    return torch.empty_like(first, memory_format=torch.contiguous_format)


def define(
    name: str,
    compute: Callable[..., Tensor],
    backward: Callable[..., Any],
    *,
    schema: str = "",
    shape: Callable[..., Tensor] = like_the_first,
) -> Any:
    """Register an operator.

    Args:
        name: In ``torch.ops.edgekit``.
        compute: Takes tensors [N, ...] and then options, and gives a new tensor [N, ...].
        backward: The derivative, of the tensors and options in ``ctx.saved_tensors`` and ``ctx.options``.
        schema: As torch writes signatures, ``(Tensor image, …) -> Tensor``; by default that of the
            annotations of ``compute``.
        shape: An empty result for these arguments; like the first one by default.

    Returns:
        The operator, to be called.
    """
    schema = schema or torch.library.infer_schema(compute, mutates_args=())
    tensors = schema.count("Tensor ")
    full_name = f"edgekit::{name}"
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
    operator = getattr(torch.ops.edgekit, name).default

    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: Tensor, keyword_only_inputs: Any = None
    ) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def over_batch(
        info: Any, in_dims: tuple[int | None, ...], *arguments: Any, **options: Any
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        merged = [
            (tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)).flatten(0, 1)
            for tensor, axis in zip(arguments[:tensors], in_dims[:tensors], strict=True)
        ]
        return operator(*merged, *arguments[tensors:], **options).unflatten(0, (size, -1)), 0

    torch.library.register_fake(full_name, shape, lib=_LIBRARY)
    torch.library.register_autograd(full_name, backward, setup_context=setup_context, lib=_LIBRARY)
    torch.library.register_vmap(full_name, over_batch, lib=_LIBRARY)
    return operator
