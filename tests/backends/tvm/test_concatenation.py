from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_runs import AVX2, each_processor, placed, run, tensor
from tvm import relax

from edgekit.backends.tvm.concatenation import concatenation, copy, copy_problem, padding, slices
from edgekit.backends.tvm.elementwise import Output, Step


def sample(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check(problem, arrays, want, blocks, block, halo=0, processor=AVX2, steps=()):
    xs = [tensor(a.shape, b, halo) for a, b in zip(arrays, blocks, strict=True)]
    output = Output(tensor(want.shape, block, 2 * halo), steps)
    inputs = [placed(x, array) for x, array in zip(xs, arrays, strict=True)]
    got = run(copy("copy", problem, xs, output, processor), processor, inputs, output.tensor)
    np.testing.assert_array_equal(got, want)


@each_processor
@pytest.mark.parametrize(
    ("channels", "blocks", "block"),
    [
        ((16, 32), (16, 16), 16),
        ((12, 20, 8), (4, 4, 8), 8),
        ((3, 13, 16), (1, 8, 16), 16),
        ((5, 3, 6), (8, 1, 8), 8),
        ((16, 8), (16, 8), 8),
        ((30, 34), (8, 16), 16),
        ((2, 1), (1, 1), 1),
        ((8, 1), (8, 1), 1),
    ],
)
def test_channels(channels, blocks, block, processor):
    for shape, halo in itertools.product([(1, 5, 7), (2, 11), (1, 3, 4, 5)], (0, 1)):
        batch, *spatial = shape
        arrays = [sample(batch, c, *spatial, seed=c) for c in channels]
        problem = concatenation([a.shape for a in arrays], 1)
        check(problem, arrays, np.concatenate(arrays, 1), blocks, block, halo, processor)


@pytest.mark.parametrize("axis", [0, 2, 3])
@pytest.mark.parametrize("block", [1, 8])
def test_other_axes(axis, block):
    shapes = [[2, 9, 3, 4], [2, 9, 3, 4]]
    shapes[1][axis] = 5
    arrays = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
    problem = concatenation([a.shape for a in arrays], axis)
    check(problem, arrays, np.concatenate(arrays, axis), (block, block), block, 1)


@pytest.mark.parametrize("shapes", [((5,), (70,)), ((3, 5), (3, 40)), ((2, 3, 4, 5, 2), (2, 3, 4, 5, 33))])
def test_any_number_of_axes(shapes):
    arrays = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
    problem = concatenation([a.shape for a in arrays], len(shapes[0]) - 1)
    check(problem, arrays, np.concatenate(arrays, -1), (1, 1), 1)


def test_many_inputs_are_few_loops():
    arrays = [sample(1, 32, 4, 4, seed=i) for i in range(12)]
    problem = concatenation([a.shape for a in arrays], 1)
    check(problem, arrays, np.concatenate(arrays, 1), (16,) * 12, 16)


def test_what_is_fused():
    arrays, scale = [sample(1, 8, 3, 5), sample(1, 4, 3, 5)], sample(12, 1, 1)
    xs, extra = [tensor(a.shape, b) for a, b in zip(arrays, (8, 4), strict=True)], tensor((1, 12, 1, 1), 4)
    steps = (Step("relax.multiply", (0, 1)), Step("relax.add", (2, 0.5)), Step("relax.nn.relu", (3,)))
    output = Output(tensor((1, 12, 3, 5), 4), steps, (extra,))
    problem = concatenation([a.shape for a in arrays], 1)
    inputs = [placed(x, a) for x, a in zip([*xs, extra], [*arrays, scale[None]], strict=True)]
    got = run(copy("copy", problem, xs, output, AVX2), AVX2, inputs, output.tensor)
    want = np.maximum(np.concatenate(arrays, 1) * scale + np.float32(0.5), 0)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("place", "blocks"),
    [
        (np.s_[:, 8:], (16, 8)),
        (np.s_[:, 3:20], (8, 4)),
        (np.s_[:, 1::2], (8, 8)),
        (np.s_[:, :2], (8, 1)),
        (np.s_[:, :, 1:4, 2:], (8, 8)),
        (np.s_[1:, 16:24, ::2, 1::3], (16, 8)),
        (np.s_[:, ::-1, ::-1, ::-1], (8, 8)),
        (np.s_[:, :, 1:4, 1::3], (1, 1)),
    ],
)
def test_slices(place, blocks):
    array = sample(2, 24, 5, 11)
    place = (*place, *(slice(None) for _ in array.shape[len(place) :]))
    ranges = [range(*part.indices(n)) for part, n in zip(place, array.shape, strict=True)]
    problem = slices(
        array.shape, [r.start for r in ranges], [r.step for r in ranges], [len(r) for r in ranges]
    )
    check(problem, [array], array[place], blocks[:1], blocks[1], 1)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize(
    ("shape", "pads", "blocks"),
    [
        ((2, 9, 5, 6), ((0, 0), (0, 0), (2, 3), (1, 4)), (8, 8)),
        ((1, 9, 5, 6), ((0, 0), (1, 2), (0, 0), (1, 0)), (8, 4)),
        ((1, 3, 5, 40), ((0, 0), (0, 0), (2, 3), (4, 4)), (1, 1)),
        ((1, 8, 4, 5, 6), ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)), (8, 8)),
        ((3, 7), ((1, 2), (3, 2)), (1, 1)),
    ],
)
def test_padding(shape, pads, blocks, mode):
    array = sample(*shape)
    if mode == "constant":
        want = np.pad(array, pads, mode, constant_values=0.25)
    else:
        want = np.pad(array, pads, mode)
    check(padding(shape, pads, mode, 0.25), [array], want, blocks[:1], blocks[1])


def test_negative_pads_cut():
    array = sample(1, 8, 6, 7)
    problem = padding(array.shape, ((0, 0), (0, 0), (-1, 2), (-2, -1)), "constant", 3)
    want = np.pad(array[:, :, 1:, 2:-1], ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=3)
    for block in (1, 8):
        check(problem, [array], want, (block,), block)


def test_the_constant_goes_through_the_chain():
    array = sample(1, 8, 3, 3)
    problem = padding(array.shape, ((0, 0), (0, 0), (1, 1), (1, 1)), "constant", -2)
    want = np.maximum(np.pad(array, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-2) + 3, 0)
    steps = (Step("relax.add", (0, 3.0)), Step("relax.nn.relu", (1,)))
    check(problem, [array], want.astype(np.float32), (8,), 8, steps=steps)


def test_calls():
    shape = (2, 8, 9, 5)
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    assert copy_problem(relax.op.concat([x, x], -3)) == concatenation([shape, shape], 1)
    halves = relax.op.split(x, 2, 1)
    assert copy_problem(halves, 1) == slices(shape, [0, 4, 0, 0], [1] * 4, [2, 4, 9, 5])
    parts = relax.op.split(x, [2, 5], 2)
    assert copy_problem(parts, 1) == slices(shape, [0, 0, 2, 0], [1] * 4, [2, 8, 3, 5])
    part = relax.op.strided_slice(x, [1, 2], [1, -3], [100, -1], [3, 1])
    assert copy_problem(part) == slices(shape, [0, 1, 6, 0], [1, 3, 1, 1], [2, 3, 2, 5])
    pad = relax.op.nn.pad(x, [0, 0, 0, 0, 1, 2, 3, 4], "constant", 2.0)
    assert copy_problem(pad) == padding(shape, [(0, 0), (0, 0), (1, 2), (3, 4)], "constant", 2.0)
    pad = relax.op.nn.pad(x, [0, 0, 0, 0, 1, 2, 3, 4], "replicate")
    assert copy_problem(pad) == padding(shape, [(0, 0), (0, 0), (1, 2), (3, 4)], "edge")
    assert copy_problem(relax.op.nn.relu(x)) is None
