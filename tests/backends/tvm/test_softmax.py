"""Softmax against NumPy's in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runs import AVX2, each_processor, placed, run
from scipy import special
from tvm import relax

from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.softmax import Softmax, softmax, softmax_problem
from edgekit.backends.tvm.tensor import Layout, Tensor

CASES = {
    "window": ((2, 3, 49, 49), 3, Layout()),
    "long rows": ((3, 197), 1, Layout()),
    "one row": ((5,), 0, Layout()),
    "one number": ((3, 1), 1, Layout()),
    "classes": ((2, 3, 7, 45), 1, Layout()),
    "classes, with a halo": ((1, 2, 5, 9), 1, Layout(1, ((1, 1), (0, 2)))),
    "classes in blocks": ((1, 12, 5, 9), 1, Layout(8)),
    "first axis": ((6, 33), 0, Layout()),
}


@each_processor
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_softmax(case: tuple, processor: Processor) -> None:
    shape, axis, layout = case
    x = 10 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    source, result = Tensor(shape, layout=layout), Tensor(shape)
    output = Output(result, (Step("relax.multiply", (0, 2.0)),))
    function = softmax("main", Softmax(axis), source, output, processor)
    got = run(function, processor, [placed(source, x)], result)
    np.testing.assert_allclose(got, 2 * special.softmax(x.astype(np.float64), axis), rtol=3e-6, atol=1e-9)


def test_numbers_that_are_none() -> None:
    x = np.zeros((5, 40), np.float32)
    x[0, 3] = np.nan
    x[1, 39] = np.inf
    x[2] = -np.inf
    x[3, :39] = -np.inf
    x[4, 7] = 1e38
    tensor = Tensor(x.shape)
    got = run(softmax("main", Softmax(1), tensor, Output(tensor), AVX2), AVX2, [x], tensor)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, special.softmax(x, 1))


def test_problem_of_a_call() -> None:
    builder = relax.BlockBuilder()
    single = relax.Var("x", relax.TensorType((2, 3, 4), "float32"))
    half = relax.Var("x", relax.TensorType((2, 3, 4), "float16"))
    assert softmax_problem(builder.normalize(relax.op.nn.softmax(single, axis=-2))) == Softmax(1)
    assert softmax_problem(builder.normalize(relax.op.nn.softmax(half, axis=1))) is None
