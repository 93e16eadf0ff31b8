"""Depthwise convolutions against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_runs import each_processor, placed, run
from torch.nn import functional

from edgekit.backends.tvm.depthwise import depthwise, takes, weights
from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution

# channels, multiplier, input lengths, taps, strides, dilations, pads, transposed
CASES = {
    "1-D": (12, 1, (37,), (5,), (1,), (1,), (2,), False),
    "2-D": (20, 1, (13, 19), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D, stride 2": (16, 1, (13, 18), (3, 5), (2, 2), (1, 1), (1, 2), False),
    "2-D, dilated": (8, 1, (13, 18), (3, 3), (1, 1), (2, 3), (2, 3), False),
    "2-D, one row": (9, 1, (1, 5), (1, 3), (1, 1), (1, 1), (0, 1), False),
    "3-D": (24, 1, (5, 6, 9), (3, 3, 3), (1, 2, 1), (1, 1, 1), (1, 1, 0), False),
    "multiplier": (8, 2, (7, 11), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "multiplier, last block short": (10, 2, (7, 11), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "transposed": (12, 1, (6, 9), (3, 4), (2, 2), (1, 1), (1, 1), True),
    "transposed 3-D": (8, 1, (3, 4, 5), (2, 2, 2), (2, 2, 2), (1, 1, 1), (0, 0, 0), True),
}


@each_processor
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_depthwise(case: tuple, processor: Processor) -> None:
    channels, multiplier, lengths, taps, strides, dilations, pads, transposed = case
    rank = len(lengths)
    problem = Convolution(taps, strides, dilations, pads, channels, transposed)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *lengths, generator=generator)
    if transposed:
        w = torch.randn(channels, multiplier, *taps, generator=generator)
        op = getattr(functional, f"conv_transpose{rank}d")
        want = op(x, w, None, strides, pads, groups=channels, dilation=dilations)
    else:
        w = torch.randn(channels * multiplier, 1, *taps, generator=generator)
        want = getattr(functional, f"conv{rank}d")(x, w, None, strides, pads, dilations, channels)
    bias = torch.randn(1, want.shape[1], *(1 for _ in lengths), generator=generator)
    want = torch.relu(want + bias)

    halo = problem.halo(lengths, want.shape[2:])
    source = Tensor(tuple(x.shape), layout=Layout(processor.block_for(channels), halo))
    block = processor.block_for(want.shape[1])
    result = Tensor(tuple(want.shape), layout=Layout(block, ((1, 2),) * rank))
    shift = Tensor(tuple(bias.shape), layout=Layout(block))
    chain = (Step("relax.add", (0, 1)), Step("relax.nn.relu", (2,)))
    assert takes(problem, source, result)
    function = depthwise("main", problem, source, Output(result, chain, (shift,)), processor)
    inputs = [
        placed(source, x.numpy()),
        weights(problem, w.numpy(), source, result),
        shift.packed(bias.numpy()),
    ]
    got = run(function, processor, inputs, result)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_not_taken() -> None:
    plain = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    blocked = Tensor((1, 16, 8, 8), layout=Layout(8))
    assert not takes(plain, blocked, blocked)
    few = Tensor((1, 3, 8, 8))
    assert not takes(Convolution((3, 3), (1, 1), (1, 1), (1, 1), 3), few, few)
