"""Convolutions to few channels against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_runs import each_processor, placed, run
from torch.nn import functional

from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.narrow import narrow, takes, weights
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution

# inputs, outputs, groups, input lengths, taps, strides, dilations, pads, transposed
CASES = {
    "1-D": (32, 1, 1, (37,), (5,), (1,), (1,), (2,), False),
    "2-D to 1": (64, 1, 1, (9, 21), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D to 2": (20, 2, 1, (9, 21), (3, 3), (1, 1), (2, 2), (2, 2), False),
    "2-D to 3, last block short": (13, 3, 1, (7, 10), (1, 1), (1, 1), (1, 1), (0, 0), False),
    "2-D, stride 2": (16, 3, 1, (9, 20), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "3-D to 3": (24, 3, 1, (4, 5, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), False),
    "one place": (10, 3, 1, (3, 3), (3, 3), (1, 1), (1, 1), (0, 0), False),
    "transposed": (12, 2, 1, (5, 9), (3, 4), (2, 2), (1, 1), (1, 1), True),
    "transposed 3-D": (8, 1, 1, (3, 4, 5), (2, 2, 2), (2, 2, 2), (1, 1, 1), (0, 0, 0), True),
    "1 to 1": (1, 1, 1, (9, 75), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "1 to 2": (1, 2, 1, (9, 5), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "3 to 3, stride 2": (3, 3, 1, (9, 75), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "3 to 3, depthwise": (3, 3, 3, (9, 41), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2 to 3, 1-D": (2, 3, 1, (41,), (3,), (1,), (1,), (1,), False),
    "1 to 1, 3-D": (1, 1, 1, (4, 5, 33), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), False),
    "3 to 2, transposed": (3, 2, 1, (5, 20), (3, 4), (2, 2), (1, 1), (1, 1), True),
}


@each_processor
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_narrow(case: tuple, processor: Processor) -> None:
    inputs, outputs, groups, lengths, taps, strides, dilations, pads, transposed = case
    rank = len(lengths)
    problem = Convolution(taps, strides, dilations, pads, groups, transposed)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, inputs, *lengths, generator=generator)
    if transposed:
        w = torch.randn(inputs, outputs // groups, *taps, generator=generator)
        op = getattr(functional, f"conv_transpose{rank}d")
        want = op(x, w, None, strides, pads, groups=groups, dilation=dilations)
    else:
        w = torch.randn(outputs, inputs // groups, *taps, generator=generator)
        want = getattr(functional, f"conv{rank}d")(x, w, None, strides, pads, dilations, groups)
    bias = torch.randn(1, outputs, *(1 for _ in lengths), generator=generator)
    want = torch.sigmoid(want + bias)

    halo = problem.halo(lengths, want.shape[2:])
    source = Tensor(tuple(x.shape), layout=Layout(processor.block_for(inputs), halo))
    shift = Tensor(tuple(bias.shape))
    chain = (Step("relax.add", (0, 1)), Step("relax.sigmoid", (2,)))
    for layout in (Layout(), Layout(1, ((1, 2),) * rank)):
        result = Tensor(tuple(want.shape), layout=layout)
        assert takes(problem, source, result)
        function = narrow("main", problem, source, Output(result, chain, (shift,)), processor)
        arguments = [placed(source, x.numpy()), weights(problem, w.numpy(), source, result), bias.numpy()]
        got = run(function, processor, arguments, result)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_not_taken() -> None:
    problem = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    blocked = Tensor((1, 16, 8, 8), layout=Layout(8))
    assert not takes(problem, blocked, blocked)
    assert not takes(Convolution((1, 1), (1, 1), (1, 1), (0, 0), 2), blocked, Tensor((1, 2, 8, 8)))
