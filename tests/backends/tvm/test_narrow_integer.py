"""Convolutions of bytes to few channels against exact sums of integers."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runs import run
from test_integer_convolution import PROCESSORS, exact, placed

from edgekit.backends.tvm.dot import byte_type
from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.integer_convolution import IntegerConvolution
from edgekit.backends.tvm.narrow_integer import arranged, in_blocks, narrow_integer, takes, way_of
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import PLAIN, Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution

# What multiplies each number by itself leaves few channels to the other kernel.
VECTORS = {name: processor for name, processor in PROCESSORS.items() if processor.arch == "x86_64"}
each_processor = pytest.mark.parametrize("processor", VECTORS.values(), ids=VECTORS)

# inputs, outputs, input lengths, taps, strides, dilations, pads, transposed
CASES = {
    "1-D": (16, 1, (37,), (5,), (1,), (1,), (2,), False),
    "2-D": (32, 3, (7, 21), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D, last block short": (20, 2, (7, 30), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D, dilated": (16, 3, (9, 33), (3, 3), (1, 1), (2, 2), (2, 2), False),
    "2-D, one tap": (16, 1, (5, 64), (1, 1), (1, 1), (1, 1), (0, 0), False),
    "2-D from 3": (3, 3, (6, 37), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "3-D from 2": (2, 3, (3, 5, 17), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), False),
    "transposed": (12, 3, (5, 20), (3, 4), (2, 2), (1, 1), (1, 1), True),
    "transposed 3-D": (32, 3, (3, 4, 19), (4, 4, 4), (2, 2, 2), (1, 1, 1), (1, 1, 1), True),
    "transposed, more strides than taps": (16, 2, (4, 18), (2, 2), (3, 2), (1, 1), (0, 0), True),
}


def asked(case: tuple, processor: Processor) -> tuple[Convolution, Tensor, tuple[int, ...]]:
    """The geometry, the input without its halo, and the output's shape."""
    inputs, outputs, lengths, taps, strides, dilations, pads, transposed = case
    problem = Convolution(taps, strides, dilations, pads, 1, transposed)
    weights = np.zeros((inputs, outputs, *taps) if transposed else (outputs, inputs, *taps), np.int8)
    shape = exact(problem, np.zeros((2, inputs, *lengths), np.uint8), weights, 0).shape
    plain = Tensor((2, inputs, *lengths), byte_type(processor), Layout(processor.block_for(inputs)))
    return problem, in_blocks(plain), shape


@each_processor
@pytest.mark.parametrize("most", [20, 127], ids=["small weights", "large weights"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_sums_are_exact(case: tuple, most: int, processor: Processor) -> None:
    problem, x, shape = asked(case, processor)
    random = np.random.default_rng(0)
    data = random.integers(0, 256, x.shape).astype(np.uint8)
    pair = (x.shape[1], shape[1]) if problem.transposed else (shape[1], x.shape[1])
    weights = random.integers(-most, most + 1, (*pair, *problem.kernel)).astype(np.int8)
    result = Tensor(shape, layout=Layout(1, ((1, 2),) * len(problem.kernel)))
    assert takes(problem, x, result, processor)
    way = way_of(weights, problem, x, result, processor)
    assert not way.rest
    whole = IntegerConvolution(problem, 93, way, x.layout.block)
    halo = whole.halo(x.shape[2:], shape[2:])
    x = Tensor(x.shape, x.dtype, Layout(x.layout.block, halo, 93))
    scales = np.linspace(0.5, 2, shape[1], dtype=np.float32)
    constants = arranged(whole, weights, x, result, processor)
    step = Step("relax.negative", (0,))
    function = narrow_integer("main", whole, x, Output(result, (step,)), processor)
    got = run(function, processor, [placed(x, data), *constants, scales], result)
    want = exact(problem, data, weights, 93).astype(np.float32)
    np.testing.assert_array_equal(got, -want * scales.reshape(-1, *(1 for _ in problem.kernel)))


@each_processor
@pytest.mark.parametrize("weight", [-128, -64, 64, 127])
def test_extremes_do_not_saturate(weight: int, processor: Processor) -> None:
    problem, x, shape = asked((64, 1, (4, 40), (3, 3), (1, 1), (1, 1), (1, 1), False), processor)
    data, result = np.full(x.shape, 255, np.uint8), Tensor(shape)
    weights = np.full((1, 64, 3, 3), weight, np.int8)
    way = way_of(weights, problem, x, result, processor)
    whole = IntegerConvolution(problem, 0, way, x.layout.block)
    x = Tensor(x.shape, x.dtype, Layout(x.layout.block, whole.halo(x.shape[2:], shape[2:]), 0))
    constants = arranged(whole, weights, x, result, processor)
    function = narrow_integer("main", whole, x, Output(result), processor)
    got = run(function, processor, [placed(x, data), *constants, np.ones(1, np.float32)], result)
    np.testing.assert_array_equal(got, exact(problem, data, weights, 0))


def test_other_convolutions_are_not_taken() -> None:
    processor = VECTORS["AVX2"]
    same = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    x, few = Tensor((1, 16, 8, 8), "uint8", Layout(8)), Tensor((1, 3, 8, 8))
    assert takes(same, x, few, processor)
    assert not takes(same, x, Tensor((1, 4, 8, 8), layout=Layout(4)), processor)
    assert not takes(same, Tensor((1, 1, 8, 8), "uint8", PLAIN), few, processor)
    assert not takes(same, Tensor((1, 16, 8, 1), "uint8", Layout(8)), Tensor((1, 3, 8, 1)), processor)
    assert not takes(Convolution((3, 3), (2, 2), (1, 1), (1, 1)), x, Tensor((1, 3, 4, 4)), processor)
    # Phases of unlike lengths.
    up = Convolution((3, 3), (2, 2), (1, 1), (1, 1), 1, True)
    assert not takes(up, x, Tensor((1, 3, 15, 15)), processor)
    assert not takes(same, x, few, Processor.least("aarch64"))
