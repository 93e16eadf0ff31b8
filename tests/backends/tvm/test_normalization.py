from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_runs import AVX2, each_processor, placed, run, tensor
from tvm import relax

from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.normalization import (
    Normalization,
    RowNormalization,
    batch_affine,
    normalization,
    normalization_problem,
)
from edgekit.errors import CompileError

EPSILON = 1e-5


def sample(*shape, mean=0.5, spread=1.0):
    return (np.random.default_rng(0).normal(size=shape) * spread + mean).astype(np.float32)


def normalised(array, groups):
    wide = array.astype(np.float64).reshape(array.shape[0], groups, -1)
    wide = (wide - wide.mean(2, keepdims=True)) / np.sqrt(wide.var(2, keepdims=True) + EPSILON)
    return wide.reshape(array.shape)


def computed(problem, array, block=1, halo=0, processor=AVX2, steps=()):
    x = tensor(array.shape, block, halo)
    output = Output(tensor(array.shape, block, 2 * halo), steps)
    function = normalization("norm", problem, x, output, processor)
    return run(function, processor, [placed(x, array)], output.tensor)


@each_processor
@pytest.mark.parametrize("shape", [(2, 5, 23), (1, 20, 7, 9), (2, 3, 5, 33), (1, 9, 3, 4, 5), (1, 8, 1, 1)])
def test_instance(shape, processor):
    array = sample(*shape)
    for block, halo in itertools.product((1, processor.block), (0, 1)):
        got = computed(Normalization(shape[1], EPSILON), array, block, halo, processor)
        np.testing.assert_allclose(got, normalised(array, shape[1]), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 12, 7, 9), 3), ((1, 24, 5, 6), 1), ((1, 36, 3, 4, 5), 4), ((2, 6, 31), 2)]
)
def test_groups(shape, groups):
    array = sample(*shape)
    for block, halo in itertools.product((1, 8), (0, 1)):
        got = computed(Normalization(groups, EPSILON), array, block, halo)
        np.testing.assert_allclose(got, normalised(array, groups), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("groups", [9, 3])
@pytest.mark.parametrize("block", [1, 8])
def test_large_volumes_are_shared_out(groups, block):
    array = sample(1, 9, 31, 40, 50)
    got = computed(Normalization(groups, EPSILON), array, block)
    np.testing.assert_allclose(got, normalised(array, groups), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("groups", [9, 3])
@pytest.mark.parametrize("block", [1, 8])
def test_a_large_mean_costs_no_digits(groups, block):
    array = sample(1, 9, 32, 40, 48, mean=1000)
    got = computed(Normalization(groups, EPSILON), array, block)
    # Numbers near 1000 are known to 3e-5.
    np.testing.assert_allclose(got, normalised(array, groups), rtol=1e-4, atol=1e-4)


def test_sums_may_begin_at_an_outlier():
    array = sample(1, 8, 32, 40, 48, mean=1000)
    array[:, :, 0, 0, 0] = 0
    got = computed(Normalization(8, EPSILON), array, 8)
    np.testing.assert_allclose(got, normalised(array, 8), rtol=1e-4, atol=3e-4)


def test_constant_channels_become_zero():
    array = np.full((1, 9, 6, 6), 123.456, np.float32)
    for groups, block in itertools.product((9, 3), (1, 8)):
        assert not computed(Normalization(groups, EPSILON), array, block).any()


@pytest.mark.parametrize("shape", [(2, 7, 31), (1, 5, 64), (3, 97), (2, 3, 4, 8), (12,)])
@pytest.mark.parametrize("mean", [0.5, 1000])
def test_rows(shape, mean):
    array = sample(*shape, mean=mean)
    wide = array.astype(np.float64)
    want = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + EPSILON)
    got = computed(RowNormalization(EPSILON), array)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6 * max(mean / 10, 5))


def test_what_is_fused():
    array, scale = sample(1, 9, 6, 7), sample(9, 1, 1)
    x, extra = tensor(array.shape, 8), tensor((1, 9, 1, 1), 8)
    steps = (Step("relax.multiply", (0, 1)), Step("relax.add", (2, 0.25)), Step("relax.nn.relu", (3,)))
    output = Output(x, steps, (extra,))
    function = normalization("norm", Normalization(3, EPSILON), x, output, AVX2)
    got = run(function, AVX2, [placed(x, array), placed(extra, scale[None])], output.tensor)
    want = np.maximum(normalised(array, 3) * scale + 0.25, 0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6)


def test_batch_affine():
    gamma, beta, mean = sample(3, 7)
    variance = np.abs(sample(7, mean=3))
    x = sample(2, 7)
    scale, shift = batch_affine(gamma, beta, mean, variance, EPSILON)
    want = (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    np.testing.assert_allclose(x * scale + shift, want, rtol=1e-5, atol=1e-6)


def test_orders_that_are_refused():
    x = tensor((1, 8, 4), 8)
    with pytest.raises(CompileError, match="want blocks of 8"):
        normalization("norm", Normalization(8, EPSILON), x, Output(tensor((1, 8, 4))), AVX2)
    with pytest.raises(CompileError, match="want the order of ONNX"):
        normalization("norm", RowNormalization(EPSILON), x, Output(x), AVX2)


def test_calls():
    x = relax.Var("x", relax.TensorType((1, 8, 9, 9), "float32"))
    c, w = (relax.Var("c", relax.TensorType((n,), "float32")) for n in (8, 9))
    call = relax.op.nn.group_norm(x, c, c, 4, 1, [2, 3], 1e-3)
    assert normalization_problem(call) == Normalization(4, 1e-3)
    assert normalization_problem(relax.op.nn.instance_norm(x, c, c, 1, [2, 3])) == Normalization(8, 1e-5)
    assert normalization_problem(relax.op.nn.layer_norm(x, w, w, -1)) == RowNormalization(1e-5)
    assert normalization_problem(relax.op.nn.layer_norm(x, c, c, 1)) is None
    assert normalization_problem(relax.op.nn.group_norm(x, c, c, 4, 1, [3], 1e-3)) is None
    assert normalization_problem(relax.op.nn.relu(x)) is None
