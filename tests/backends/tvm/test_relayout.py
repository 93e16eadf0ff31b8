"""Values from one order in memory to another."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runs import AVX2, each_processor, placed, run

from edgekit.backends.tvm.elementwise import Output, Step, elementwise
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.relayout import relayout, takes
from edgekit.backends.tvm.tensor import PLAIN, Layout, Tensor

SHAPES = [(2, 16, 3, 16), (1, 8, 8), (1, 13, 4, 17), (2, 5, 2, 3, 9), (1, 20, 2, 8)]


def pair(shape: tuple[int, ...], block: int, forth: bool) -> tuple[Tensor, Tensor]:
    """The order of ONNX and blocks, either way, both with a halo."""
    halo = ((1, 2),) * (len(shape) - 2)
    plain, blocked = Tensor(shape, layout=Layout(1, halo)), Tensor(shape, layout=Layout(block, halo))
    return (plain, blocked) if forth else (blocked, plain)


@each_processor
@pytest.mark.parametrize("forth", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_squares_are_transposed(shape: tuple[int, ...], forth: bool, processor: Processor) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for block in (4, 8):
        source, result = pair(shape, block, forth)
        assert takes(source, result)
        output = Output(result, (Step("relax.multiply", (0, 2.0)),))
        got = run(relayout("copy", source, output), processor, [placed(source, values)], result)
        np.testing.assert_array_equal(got, 2 * values)


@pytest.mark.parametrize("forth", [True, False])
def test_short_rows_go_number_by_number(forth: bool) -> None:
    values = np.random.default_rng(0).standard_normal((1, 16, 5, 3)).astype(np.float32)
    source, result = pair((1, 16, 5, 3), 8, forth)
    assert not takes(source, result)
    got = run(elementwise("copy", source, Output(result), AVX2), AVX2, [placed(source, values)], result)
    np.testing.assert_array_equal(got, values)


def test_only_between_blocks_and_none() -> None:
    plain, blocked = pair((1, 16, 5, 16), 8, True)
    assert not takes(plain, plain) and not takes(blocked, blocked)
    assert not takes(Tensor((1, 16, 1, 1), layout=PLAIN), blocked)
