"""Convolutions on blocks of channels against PyTorch's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from kernel_runs import AVX2, each_processor, placed, run
from torch.nn import functional

from edgekit.backends.tvm.convolution import Tiling, convolution, packed, tiling, tilings
from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution

# inputs, outputs, groups, input lengths, taps, strides, dilations, pads, transposed
CASES = {
    "1-D": (64, 64, 1, (30,), (9,), (1,), (1,), (4,), False),
    "first layer, 1 channel": (1, 32, 1, (20, 22), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "first layer, 3 channels, stride 2": (3, 16, 1, (21, 22), (7, 7), (2, 2), (1, 1), (3, 3), False),
    "blocks not full": (20, 24, 1, (15, 16), (5, 5), (1, 1), (2, 2), (4, 4), False),
    "22 channels": (22, 16, 1, (9, 10), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "4 and 12 channels": (4, 12, 1, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "1 × 1": (40, 16, 1, (7, 7), (1, 1), (1, 1), (1, 1), (0, 0), False),
    "1 × 1, stride 2": (16, 32, 1, (9, 9), (1, 1), (2, 2), (1, 1), (0, 0), False),
    "uneven taps": (16, 16, 1, (9, 13), (3, 5), (1, 2), (2, 1), (2, 0), False),
    "groups": (32, 64, 2, (9, 10), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "one place": (16, 16, 1, (3, 3), (3, 3), (1, 1), (1, 1), (0, 0), False),
    "a single column": (16, 16, 1, (7, 1), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "3-D": (16, 32, 1, (6, 7, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), False),
    "3-D, stride 2": (8, 16, 1, (6, 7, 9), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), False),
    "3-D, dilated": (16, 8, 1, (6, 9, 9), (3, 3, 3), (1, 1, 1), (2, 2, 2), (2, 2, 2), False),
    "transposed, no overlap": (16, 16, 1, (7, 6), (2, 2), (2, 2), (1, 1), (0, 0), True),
    "transposed, 4 taps": (16, 16, 1, (7, 6), (4, 4), (2, 2), (1, 1), (1, 1), True),
    "transposed, 3 taps, stride 3": (16, 16, 1, (5, 6), (3, 3), (3, 3), (1, 1), (0, 0), True),
    "transposed, fewer taps than phases": (16, 16, 1, (5, 6), (2, 2), (3, 3), (1, 1), (0, 0), True),
    "transposed, dilated": (16, 16, 1, (5, 6), (3, 3), (2, 2), (2, 2), (1, 1), True),
    "transposed 3-D, odd length": (16, 24, 1, (4, 5, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), True),
    "transposed, groups": (32, 32, 2, (5, 6), (4, 4), (2, 2), (1, 1), (1, 1), True),
}


def example(case: tuple) -> tuple[Convolution, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The problem, an input, weights and PyTorch's result."""
    inputs, outputs, groups, lengths, taps, strides, dilations, pads, transposed = case
    rank = len(lengths)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, inputs, *lengths, generator=generator)
    shape = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    weights = torch.randn(*shape, *taps, generator=generator)
    if transposed:
        op = getattr(functional, f"conv_transpose{rank}d")
        result = op(x, weights, None, strides, pads, groups=groups, dilation=dilations)
    else:
        result = getattr(functional, f"conv{rank}d")(x, weights, None, strides, pads, dilations, groups)
    return Convolution(taps, strides, dilations, pads, groups, transposed), x, weights, result


def tensors(
    problem: Convolution, x: torch.Tensor, result: torch.Tensor, processor: Processor, more: int = 0
) -> tuple[Tensor, Tensor]:
    """Input and result; ``more`` widens the input's halo beyond what is needed."""
    halo = problem.halo(x.shape[2:], result.shape[2:])
    halo = tuple((before + more, after + more) for before, after in halo)
    source = Tensor(tuple(x.shape), layout=Layout(processor.block_for(x.shape[1]), halo))
    block = processor.block_for(result.shape[1])
    return source, Tensor(tuple(result.shape), layout=Layout(block, ((1, 2),) * (x.ndim - 2)))


@each_processor
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolution(case: tuple, processor: Processor) -> None:
    problem, x, weights, want = example(case)
    for more in (0, 1):
        source, result = tensors(problem, x, want, processor, more)
        plan = tiling(problem, source, result, processor)
        function = convolution("conv", problem, source, Output(result), plan)
        arrays = [placed(source, x.numpy()), packed(problem, weights.numpy(), source, result, plan.vectors)]
        got = run(function, processor, arrays, result)
        np.testing.assert_allclose(got, want, atol=1e-5 * float(want.abs().max()))


def test_what_follows_is_computed_on_the_way() -> None:
    problem, x, weights, want = example(CASES["blocks not full"])
    source, result = tensors(problem, x, want, AVX2)
    skip = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    bias = torch.randn(1, want.shape[1], 1, 1, generator=torch.Generator().manual_seed(2))
    channels = Tensor(tuple(bias.shape), layout=Layout(result.layout.block))
    other = dataclasses.replace(result, layout=Layout(result.layout.block, ((0, 1), (3, 0))))
    chain = (
        Step("relax.add", (0, 1)),
        Step("relax.nn.leakyrelu", (3,), (0.1,)),
        Step("relax.add", (4, 2)),
        Step("relax.multiply", (5, 0.5)),
    )
    plan = tiling(problem, source, result, AVX2)
    function = convolution("conv", problem, source, Output(result, chain, (channels, other)), plan)
    arrays = [
        placed(source, x.numpy()),
        packed(problem, weights.numpy(), source, result, plan.vectors),
        placed(channels, bias.numpy()),
        placed(other, skip.numpy()),
    ]
    want = 0.5 * (functional.leaky_relu(want + bias, 0.1) + skip)
    np.testing.assert_allclose(run(function, AVX2, arrays, result), want, atol=1e-3)


def test_every_tile_gives_the_same_numbers() -> None:
    problem, x, weights, want = example(CASES["3-D, stride 2"])
    source, result = tensors(problem, x, want, AVX2)
    plans = sorted({plan for _, plan in tilings(problem, source, result, AVX2)}, key=repr)
    plans += [dataclasses.replace(plans[-1], channels_first=not plans[-1].channels_first)]
    results = []
    for plan in plans[:: max(len(plans) // 6, 1)]:
        function = convolution("conv", problem, source, Output(result), plan)
        arrays = [placed(source, x.numpy()), packed(problem, weights.numpy(), source, result, plan.vectors)]
        results.append(run(function, AVX2, arrays, result))
    # Each sum is formed in one order, whatever the tile.
    assert len(results) >= 4 and all((other == results[0]).all() for other in results)


@pytest.mark.parametrize("name", ["22 channels", "4 and 12 channels", "groups", "transposed 3-D, odd length"])
def test_channels_loaded_together_give_the_same_numbers(name: str) -> None:
    """As on Arm: LLVM repeats the elements where the processor cannot multiply by them."""
    problem, x, weights, want = example(CASES[name])
    source, result = tensors(problem, x, want, AVX2)
    rule = tiling(problem, source, result, AVX2)
    arrays = [placed(source, x.numpy()), packed(problem, weights.numpy(), source, result, rule.vectors)]
    functions = [
        convolution("conv", problem, source, Output(result), dataclasses.replace(rule, depth=depth))
        for depth in (1, 4)
    ]
    one, four = [run(function, AVX2, arrays, result) for function in functions]
    assert np.array_equal(one, four)


def test_tiles_fit_into_the_registers() -> None:
    problem, x, _, want = example(CASES["3-D"])
    for processor in (AVX2, Processor("x86_64", 16, 32), Processor("aarch64", 4, 32)):
        source, result = tensors(problem, x, want, processor)
        for _, plan in tilings(problem, source, result, processor):
            each = result.layout.block // processor.lanes
            assert (plan.rows * plan.columns + plan.depth) * plan.vectors * each + 1 <= processor.registers
            assert plan.depth == 1 or processor.arch == "aarch64"


def test_the_rule_takes_the_whole_width_where_it_fits() -> None:
    problem = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    x = Tensor((1, 64, 14, 14), layout=Layout(16, ((1, 1), (1, 1))))
    plan = tiling(problem, x, x, Processor("x86_64", 16, 32))
    assert plan == Tiling(2, 1, 14, channels_first=False) or plan.columns * plan.rows * plan.vectors >= 24


def test_halo_is_what_the_taps_reach() -> None:
    assert Convolution((3,), (1,), (1,), (1,)).halo((10,), (10,)) == ((1, 1),)
    assert Convolution((3,), (2,), (1,), (1,)).halo((10,), (5,)) == ((1, 0),)
    assert Convolution((3,), (1,), (2,), (0,)).halo((10,), (6,)) == ((0, 0),)
    # Outputs 0 and 1 of a transposed convolution with 4 taps read inputs -1, 0 and 0, 1.
    assert Convolution((4,), (2,), (1,), (1,), transposed=True).halo((5,), (10,)) == ((1, 1),)
    assert Convolution((2,), (2,), (1,), (0,), transposed=True).halo((5,), (10,)) == ((0, 0),)


@each_processor
def test_a_tile_is_no_higher_than_the_shortest_phase(processor: Processor) -> None:
    """The odd outputs of a transposed convolution are one fewer than the even ones."""
    case = (16, 16, 1, (3, 1), (3, 1), (2, 1), (1, 1), (1, 0), True)
    problem, x, weights, want = example(case)
    assert want.shape[2:] == (5, 1)
    source, result = tensors(problem, x, want, processor)
    plans = [plan for _, plan in tilings(problem, source, result, processor)]
    assert max(plan.rows for plan in plans) == 2
    for plan in (plan for plan in plans if plan.rows == 2 and plan.channels_first):
        arrays = [placed(source, x.numpy()), packed(problem, weights.numpy(), source, result, plan.vectors)]
        got = run(convolution("conv", problem, source, Output(result), plan), processor, arrays, result)
        np.testing.assert_allclose(got, want, atol=1e-4)
