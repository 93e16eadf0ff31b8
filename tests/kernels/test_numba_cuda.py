"""The variants that Numba compiles for a GPU: interpreted here by its simulator, in a process of its own.

Where there is a GPU that Numba can use, the contract tests run them there.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.kernels.base import OPERATORS, Case, numba_cuda_missing
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS
from edgekit.kernels.warp import displacements

NAME = "numba-cuda"
CORE = ("warp", "compose", "integrate_velocity", "jacobian_determinant")
# Simulated are both the device and the compiler: every function is run as Python.
SIMULATED = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
# More voxels than a block has threads; axes of one and two voxels; planes.
GRIDS = ((3, 7, 9), (1, 1, 1), (2, 1, 5), (4, 2, 3), (5, 6, 1), (7, 5), (1, 3), (4, 1))
STORED = (
    (np.float32, np.float32),
    (np.float16, np.float32),
    (np.uint8, np.float16),
    (np.int16, np.float32),
    (np.float32, np.float16),
)


def warp_cases(rng: np.random.Generator) -> Iterator[Case]:
    grids = itertools.cycle(GRIDS)
    for order, boundary in itertools.product(ORDERS, BOUNDARIES):
        grid = next(grids)
        options = {"order": order, "boundary": boundary}
        for turn, (label, flow) in enumerate(displacements(rng, (2, len(grid), *grid))):
            image = 100 * rng.standard_normal((2, 1 + turn % 2, *grid)).astype(np.float32)
            if turn % 2:  # channels-last
                image = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1)
            dtype, flow_dtype = STORED[turn % len(STORED)]
            with np.errstate(over="ignore", invalid="ignore"):
                inputs = (np.abs(image).astype(dtype), flow.astype(flow_dtype))
            name = f"{label} {image.shape} {options} {inputs[0].dtype} by {inputs[1].dtype}"
            yield Case(name, inputs, options, 4.0 if order == 3 else 1.0)


def compose_cases(rng: np.random.Generator) -> Iterator[Case]:
    for grid, boundary in zip(itertools.cycle(GRIDS), 2 * BOUNDARIES, strict=False):
        fields = dict(displacements(rng, (2, len(grid), *grid)))
        for label, first in fields.items():
            options = {"boundary": boundary}
            yield Case(f"{label} {first.shape} {boundary}", (first, fields["smooth"]), options)


def integrate_velocity_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (grid, boundary), steps in zip(itertools.product(GRIDS[:6:5], BOUNDARIES), range(10), strict=True):
        field = smooth_field(rng, (2, len(grid), *grid), amplitude=2)
        if steps == 2:
            field[0, 1, 2, 3] = np.nan
        yield Case(f"{grid} {boundary} {steps}", (field,), {"steps": steps % 5, "boundary": boundary})


def jacobian_determinant_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, grid in enumerate(GRIDS):
        for label, flow in displacements(rng, (2, len(grid), *grid)):
            counted = label != "special"  # what overflows in float32 need not in float64
            stored = flow.astype(np.float16) if number % 2 and counted else flow
            yield Case(f"{label} {grid} {stored.dtype}", (stored,), {"return_folding": counted})


def check(name: str) -> None:
    """Compare an operator with its reference; called in the process that simulates."""
    from test_contract import assert_close, run, scale_of, variant_of

    operator, variant = variant_of(name, NAME)
    assert variant.missing() == ""
    for case in globals()[f"{name}_cases"](np.random.default_rng(0)):
        wanted = operator.reference(*case.inputs, **case.options)
        for got, want in zip(run(operator, variant, case), wanted, strict=True):
            scale = scale_of(want, case.inputs[0])
            assert_close(got, want, case.slack * variant.tolerance, scale, case.label)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("name", CORE)
def test_agrees_with_the_reference_where_a_gpu_is_simulated(name):
    result = python(f"from test_numba_cuda import check; check({name!r})", **SIMULATED)
    assert result.returncode == 0, result.stderr[-3000:]


def test_folding_is_counted_without_a_volume_of_determinants():
    code = """
import numpy as np
from edgekit.kernels.numba.gpu import determinant
flow = np.zeros((2, 2, 3, 4), np.float32)
flow[1, 0] = -2 * np.indices((3, 4))[0]
counts = np.full(2, -1)
determinant(flow, outputs=(counts,), threads=1, return_folding=True, return_determinant=False)
assert counts.tolist() == [0, 12], counts
"""
    result = python(code, **SIMULATED)
    assert result.returncode == 0, result.stderr


def test_it_is_there_for_the_core_operators():
    assert {name for name in OPERATORS if NAME in [v.name for v in OPERATORS[name].variants]} == set(CORE)


def test_without_a_gpu_it_is_said():
    from numba import cuda

    if cuda.is_available():
        pytest.skip("there is a GPU")
    assert numba_cuda_missing() == "no GPU that Numba can use"


def test_a_target_that_does_not_import_is_named():
    code = """
import sys
sys.modules["numba.cuda"] = None
from edgekit.kernels.base import numba_cuda_missing
print(numba_cuda_missing())
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("no GPU that Numba can use: ") and "numba.cuda" in result.stdout


def test_a_gpu_is_never_chosen_by_itself():
    code = """
import sys
import numpy as np
from edgekit import kernels
kernels.warp(np.ones((1, 1, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32))
assert "edgekit.kernels.numba.sample" in sys.modules
assert "edgekit.kernels.numba.gpu" not in sys.modules
"""
    result = python(code, EDGEKIT_ISA="numba", **SIMULATED)
    assert result.returncode == 0, result.stderr
