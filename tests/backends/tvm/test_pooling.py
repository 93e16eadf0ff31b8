from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from kernel_runs import AVX2, each_processor, placed, run, tensor
from torch.nn import functional
from tvm import relax

from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.pooling import Adaptive, GlobalPooling, Pooling, pooling, pooling_problem
from edgekit.errors import CompileError

MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def sample(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def check(problem, shape, want, *, block=1, halo=0, processor=AVX2, steps=()):
    x = tensor(shape, block, halo)
    output = Output(tensor(want.shape, block, 1 if halo else 0), steps)
    got = run(
        pooling("pool", problem, x, output, processor), processor, [placed(x, sample(*shape))], output.tensor
    )
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@each_processor
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pad", "dilation", "ceil"),
    [
        ((2, 5, 13), 3, 2, 1, 1, False),
        ((1, 12, 9, 11), 2, 2, 0, 1, False),
        ((1, 3, 9, 40), 3, 2, 1, 1, False),
        ((1, 20, 10, 9), 3, 1, 1, 2, False),
        ((1, 5, 7, 7), 3, 2, 1, 1, True),
        ((1, 9, 6, 5, 7), 2, 2, 0, 1, False),
        ((1, 2, 6, 5, 19), 3, 1, 1, 1, False),
        ((1, 1, 30, 30), 12, 1, 5, 1, False),
    ],
)
def test_max(processor, shape, kernel, stride, pad, dilation, ceil):
    axes = len(shape) - 2
    want = MAX[axes](torch.tensor(sample(*shape)), kernel, stride, pad, dilation, ceil).numpy()
    after = [pad] * axes
    problem = Pooling(
        "max", (kernel,) * axes, (stride,) * axes, (dilation,) * axes, tuple((pad, a) for a in after)
    )
    for block, halo in itertools.product((1, processor.block), (0, 2)):
        check(problem, shape, want, block=block, halo=halo, processor=processor)


@pytest.mark.parametrize("count_pads", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pad", "ceil"),
    [
        ((2, 5, 13), 3, 2, 1, False),
        ((1, 12, 9, 11), 3, 2, 1, True),
        ((1, 3, 9, 40), 3, 1, 1, False),
        ((1, 9, 6, 5, 7), 3, 2, 1, True),
        ((1, 9, 8, 8), 2, 2, 0, False),
    ],
)
def test_average(shape, kernel, stride, pad, ceil, count_pads):
    axes = len(shape) - 2
    want = AVERAGE[axes](torch.tensor(sample(*shape)), kernel, stride, pad, ceil, count_pads).numpy()
    problem = Pooling(
        "average", (kernel,) * axes, (stride,) * axes, (1,) * axes, ((pad, pad),) * axes, count_pads
    )
    for block, halo in itertools.product((1, 8), (0, 1)):
        check(problem, shape, want, block=block, halo=halo)


def test_uneven_pads_and_dilated_average():
    x = torch.tensor(sample(1, 8, 9, 10))
    ones, padded = torch.ones(1, 8, 9, 10), functional.pad(x, (2, 1, 0, 3))
    weight = torch.ones(8, 1, 2, 3)

    def total(value):
        return functional.conv2d(value, weight, stride=(2, 1), dilation=(3, 2), groups=8)

    want = (total(padded) / total(functional.pad(ones, (2, 1, 0, 3)))).numpy()
    problem = Pooling("average", (2, 3), (2, 1), (3, 2), ((0, 3), (2, 1)))
    for block in (1, 8):
        check(problem, (1, 8, 9, 10), want, block=block)


@pytest.mark.parametrize(("shape", "bins"), [((1, 9, 12, 14), (4, 7)), ((2, 3, 11, 10), (4, 7))])
def test_adaptive(shape, bins):
    x = torch.tensor(sample(*shape))
    for block in (1, 8):
        check(Adaptive("average"), shape, functional.adaptive_avg_pool2d(x, bins).numpy(), block=block)
        check(Adaptive("max"), shape, functional.adaptive_max_pool2d(x, bins).numpy(), block=block)


@pytest.mark.parametrize(
    "shape", [(2, 5, 23), (1, 20, 7, 7), (1, 3, 5, 33), (1, 8, 3, 4, 5), (1, 9, 30, 40, 50)]
)
def test_global(shape):
    x, axes = sample(*shape), tuple(range(2, len(shape)))
    for block, halo in itertools.product((1, 8), (0, 1)):
        mean = x.astype(np.float64).mean(axes, keepdims=True)
        check(GlobalPooling("average"), shape, mean, block=block, halo=halo)
        check(GlobalPooling("max"), shape, x.max(axes, keepdims=True), block=block, halo=halo)


def test_what_is_fused():
    want = functional.max_pool2d(torch.tensor(sample(1, 9, 8, 8)), 2).relu().numpy()
    problem = Pooling("max", (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))
    check(problem, (1, 9, 8, 8), want, block=8, steps=(Step("relax.nn.relu", (0,)),))


def test_nan_stays():
    array = sample(1, 8, 6, 6)
    array[0, 1, 2, 2] = np.nan
    x, output = tensor(array.shape, 8), Output(tensor((1, 8, 3, 3), 8))
    problem = Pooling("max", (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))
    got = run(pooling("pool", problem, x, output, AVX2), AVX2, [placed(x, array)], output.tensor)
    assert np.isnan(got[0, 1, 1, 1]) and np.isnan(got).sum() == 1


def test_blocks_that_differ_are_refused():
    with pytest.raises(CompileError, match="want blocks of 8, got 1"):
        pooling("pool", GlobalPooling("max"), tensor((1, 8, 4), 8), Output(tensor((1, 8, 1))), AVX2)


def test_calls():
    x = relax.Var("x", relax.TensorType((1, 8, 9, 9), "float32"))
    halves = relax.Var("x", relax.TensorType((1, 8, 9, 9), "float16"))
    pool = relax.op.nn.max_pool2d(x, [3, 3], [2, 2], [1, 1, 0, 2], [1, 2])
    assert pooling_problem(pool) == Pooling("max", (3, 3), (2, 2), (1, 2), ((1, 0), (1, 2)))
    pool = relax.op.nn.avg_pool2d(x, [2, 2], [2, 2], count_include_pad=True)
    assert pooling_problem(pool) == Pooling("average", (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)), True)
    assert pooling_problem(relax.op.nn.adaptive_avg_pool2d(x, (1, 1))) == GlobalPooling("average")
    assert pooling_problem(relax.op.nn.adaptive_avg_pool2d(x, (3, 2))) == Adaptive("average")
    assert pooling_problem(relax.op.mean(x, [2, -1], True)) == GlobalPooling("average")
    assert pooling_problem(relax.op.max(x, [3, 2], True)) == GlobalPooling("max")
    assert pooling_problem(relax.op.mean(x, [2, 3], False)) is None
    assert pooling_problem(relax.op.mean(x, [1], True)) is None
    assert pooling_problem(relax.op.nn.max_pool2d(halves, [2, 2])) is None
    assert pooling_problem(relax.op.nn.max_pool2d(x, [2, 2], layout="NHWC")) is None
    assert pooling_problem(relax.op.nn.relu(x)) is None
