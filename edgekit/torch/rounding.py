"""Numbers as integers of a few bits say them, with gradients that pass through the rounding.

The straight-through gradient is that of Bengio et al. (2013); a range is learned by the gradient of LSQ
(Esser et al. 2020).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LARGEST", "UNSIGNED", "rounded", "rounded_weight"]

LARGEST = 127
"""The largest signed byte; the smallest is one further from 0."""
UNSIGNED = 255
"""The largest unsigned byte."""


class _Learned(torch.autograd.Function):
    """Rounding whose range is learned. The gradient for the scale is LSQ's, taken for its logarithm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_scale: Tensor, lowest: int, highest: int) -> Tensor:
        back, inside = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(
            x, float(log_scale.exp()), 0, lowest, highest
        )
        ctx.save_for_backward(x, back, inside)
        return back  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, back, inside = ctx.saved_tensors
        passed = gradient * inside
        # d back / d scale is (back - x) / scale inside and back / scale outside.
        of_scale = (gradient * back).sum() - (passed * x).sum()
        return passed, of_scale, None, None


def rounded(x: Tensor, log_scale: Tensor, lowest: int, highest: int) -> Tensor:
    """``x`` as DequantizeLinear(QuantizeLinear(x)) gives it, of one scale and the zero point 0.

    Args:
        x: Of any shape.
        log_scale: Natural logarithm of the scale, a scalar; learned where it wants a gradient.
        lowest: Smallest integer.
        highest: Largest one.
    """
    if log_scale.requires_grad and torch.is_grad_enabled():
        return _Learned.apply(x, log_scale, lowest, highest)  # type: ignore[no-untyped-call, no-any-return]
    scale = float(log_scale.exp())
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, lowest, highest)


def rounded_weight(weight: Tensor, axis: int, bits: int = 8) -> Tensor:
    """``weight`` rounded symmetrically, each index of ``axis`` with a scale of its own; nothing is clipped.

    With 8 bits the largest absolute value of an output becomes 127; with 7 the largest sum of two neighbours
    of one sign, if that is more.
    """
    rows = weight.detach().movedim(axis, 0).reshape(weight.shape[axis], -1, _taps(weight))
    highest = rows.abs().amax((1, 2))
    if bits == 7:
        highest = torch.maximum(highest, _largest_pair(rows))
    scale = torch.where(highest > 0, highest / LARGEST, torch.ones_like(highest))
    points = torch.zeros(len(scale), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, points, axis, -LARGEST, LARGEST)


def _taps(weight: Tensor) -> int:
    return math.prod(weight.shape[2:])


def _largest_pair(rows: Tensor) -> Tensor:
    """For each output of [outputs, inputs, taps], the largest sum of two neighbours of one sign.

    Processors sum products of bytes in pairs, inputs innermost; an odd number of inputs is filled with zero
    by some, and goes on with the next tap in others.
    """
    taps_first = rows.transpose(1, 2)
    filled = F.pad(taps_first, (0, taps_first.shape[2] % 2)).reshape(len(rows), -1)
    flat = taps_first.reshape(len(rows), -1)
    pairs = torch.cat([filled, F.pad(flat, (0, flat.shape[1] % 2))], 1).reshape(len(rows), -1, 2)
    return torch.maximum(pairs.clamp(min=0).sum(2).amax(1), (-pairs).clamp(min=0).sum(2).amax(1))
