"""Products of matrices against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runs import PROCESSORS, each_processor, run
from tvm import relax

from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.matmul import (
    Matmul,
    Tiling,
    dense,
    matmul,
    matmul_problem,
    tiling,
    tilings,
    weights,
)
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor

# Shape of the input, columns.
DENSE = {
    "one row": ((1, 50), 37),
    "one row, many columns": ((1, 20), 200),
    "one column": ((7, 9), 1),
    "three columns": ((7, 9), 3),
    "odd": ((13, 31), 29),
    "tokens": ((2, 49, 24), 72),
    "windows": ((3, 2, 17, 16), 10),
    "many rows": ((300, 8), 16),
    "one number": ((1, 1), 1),
}
# Shapes of both inputs, axes of both.
MATMULS = {
    "square": ((33, 33), (33, 33), (0, 1), (0, 1)),
    "batch": ((4, 9, 20), (4, 20, 35), (0, 1, 2), (0, 1, 2)),
    "heads, second transposed": ((2, 3, 49, 32), (2, 3, 49, 32), (0, 1, 2, 3), (0, 1, 3, 2)),
    "heads behind the rows": ((2, 49, 3, 16), (2, 49, 3, 16), (0, 2, 1, 3), (0, 2, 3, 1)),
    "short depth, second transposed": ((2, 40, 3), (2, 40, 3), (0, 1, 2), (0, 2, 1)),
    "narrow, second transposed": ((2, 70, 20), (2, 5, 20), (0, 1, 2), (0, 2, 1)),
    "first transposed": ((3, 20, 11), (3, 20, 40), (0, 2, 1), (0, 1, 2)),
    "second the same for all": ((4, 9, 20), (20, 35), (0, 1, 2), (0, 1)),
    "second the same for all, axes kept": ((4, 9, 20), (1, 20, 35), (0, 1, 2), (0, 1, 2)),
    "first the same for all": ((9, 20), (4, 20, 35), (0, 1), (0, 1, 2)),
    "batches broadcast": ((2, 1, 9, 20), (3, 20, 35), (0, 1, 2, 3), (0, 1, 2)),
    "depth before batch": ((4, 30, 8), (8, 4, 17), (0, 1, 2), (1, 0, 2)),
    "depth last, behind a turn": ((1, 60, 12), (17, 12, 5), (0, 1, 2), (2, 1, 0)),
    "one row": ((3, 1, 40), (3, 40, 50), (0, 1, 2), (0, 1, 2)),
    "many rows": ((1, 200, 12), (1, 12, 60), (0, 1, 2), (0, 1, 2)),
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@each_processor
@pytest.mark.parametrize("case", DENSE.values(), ids=DENSE)
def test_dense(case: tuple, processor: Processor) -> None:
    shape, columns = case
    x, w, bias = normal(*shape), normal(shape[-1], columns, seed=1), normal(columns, seed=2)
    residual = normal(*shape[:-1], columns, seed=3)
    problem = Matmul(tuple(range(len(shape))), (0, 1))
    a, b = Tensor(shape), Tensor(w.shape)
    result = Tensor(residual.shape)
    chain = (Step("relax.add", (0, 1)), Step("relax.nn.relu", (3,)), Step("relax.add", (4, 2)))
    output = Output(result, chain, (Tensor(bias.shape), result))
    plan = tiling(problem, a, b, processor)
    function = dense("main", problem, a, b, output, plan)
    got = run(function, processor, [x, weights(w, plan), bias, residual], result)
    want = np.maximum(x.astype(np.float64) @ w + bias, 0) + residual
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@each_processor
@pytest.mark.parametrize("case", MATMULS.values(), ids=MATMULS)
def test_matmul(case: tuple, processor: Processor) -> None:
    first, second, a_axes, b_axes = case
    x, y = normal(*first), normal(*second, seed=1)
    want = x.transpose(a_axes).astype(np.float64) @ y.transpose(b_axes)
    problem = Matmul(a_axes, b_axes)
    a, b, result = Tensor(first), Tensor(second), Tensor(want.shape)
    plan = tiling(problem, a, b, processor)
    function = matmul("main", problem, a, b, Output(result), plan)
    np.testing.assert_allclose(run(function, processor, [x, y], result), want, rtol=1e-5, atol=1e-5)


def test_every_tile_gives_the_same_bits() -> None:
    processor = PROCESSORS[0]
    problem, a, b, result = Matmul((0, 1), (0, 1)), Tensor((21, 10)), Tensor((10, 43)), Tensor((21, 43))
    x, w = normal(21, 10), normal(10, 43, seed=1)
    plans = [plan for _, plan in tilings(problem, a, b, processor)][::9]
    # A depth of 10 is twice four numbers loaded together, and two.
    plans += [Tiling(3, (8, 8), 6), Tiling(3, (8, 8), 6, depth=4)]
    results = []
    for plan in plans:
        function = dense("main", problem, a, b, Output(result), plan)
        results.append(run(function, processor, [x, weights(w, plan)], result))
    assert len(results) > 3
    assert all(np.array_equal(other, results[0]) for other in results)


def test_tiles_fit_into_registers() -> None:
    arm = Processor.least("aarch64")
    for processor in (*PROCESSORS, arm):
        for _, plan in tilings(Matmul((0, 1), (0, 1)), Tensor((500, 70)), Tensor((70, 500)), processor):
            # Of the panel's vectors and the rows' numbers one is a single register.
            operands = plan.rows + 1 if processor is arm else len(plan.pieces)
            assert plan.rows * len(plan.pieces) + operands < processor.registers
            assert plan.depth == (4 if processor is arm else 1)
            assert plan.task % plan.rows == 0


def variable(name: str, shape: tuple, dtype: str = "float32") -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, dtype))


def call(a: relax.Var, b: relax.Var) -> relax.Call:
    return relax.BlockBuilder().normalize(relax.op.matmul(a, b))


def test_problem_of_a_call() -> None:
    found = matmul_problem(call(variable("a", (2, 5, 6)), variable("b", (6, 7))))
    assert found == Matmul((0, 1, 2), (0, 1))
    assert found.lengths((2, 5, 6), (6, 7)) == ((2,), 5, 6, 7)
    turned = Matmul(found.a_axes, (1, 0))
    assert turned.lengths((2, 5, 6), (7, 6)) == ((2,), 5, 6, 7)


def test_problems_that_no_kernel_computes() -> None:
    assert matmul_problem(call(variable("a", (2, 5, 6), "float16"), variable("b", (6, 7), "float16"))) is None
    assert matmul_problem(call(variable("a", (6,)), variable("b", (6, 7)))) is None
