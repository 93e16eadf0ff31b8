"""What runs on a GPU beside the contract of operators, and what is said where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit import _C
from edgekit.kernels.base import OPERATORS, gpu_missing

ROOT = Path(__file__).resolve().parents[2]
# Pushed values are summed in another way on a device: the same in every run, and more exact than here.
ALIKE = [name for name in OPERATORS if name != "warp_adjoint"]


def run(operator, variant, case):
    outputs = operator.allocate(*case.inputs, **case.options)
    variant.run(*case.inputs, outputs=outputs, threads=1, **case.options)
    return outputs


def variants_of(operator):
    found = {variant.name: variant for variant in operator.variants}
    return found["scalar"], found["cuda"]


@pytest.fixture
def gpu() -> None:
    if gpu_missing():
        pytest.skip(f"no GPU to test on: {gpu_missing()}")


@pytest.mark.parametrize("name", ALIKE)
def test_a_gpu_gives_the_bits_of_the_processor(name, gpu):
    operator = OPERATORS[name]
    scalar, cuda = variants_of(operator)
    for case in operator.cases(np.random.default_rng(0)):
        for got, want in zip(run(operator, cuda, case), run(operator, scalar, case), strict=True):
            np.testing.assert_array_equal(got, want, err_msg=case.label)


def test_pushed_values_do_not_depend_on_the_order_of_threads(gpu):
    operator = OPERATORS["warp_adjoint"]
    cuda = variants_of(operator)[1]
    for case in list(operator.cases(np.random.default_rng(0)))[-40:]:
        first = [output.tobytes() for output in run(operator, cuda, case)]
        for _ in range(3):
            assert [output.tobytes() for output in run(operator, cuda, case)] == first, case.label


def test_arguments_are_refused_there_as_here(gpu):
    image, flow = np.zeros((1, 1, 2, 3, 4), np.float32), np.zeros((1, 3, 2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="overlaps"):
        _C.warp(image, flow, image, isa="cuda")


@pytest.mark.parametrize("name", OPERATORS)
def test_without_a_gpu_it_is_said_why(name):
    operator = OPERATORS[name]
    _, cuda = variants_of(operator)
    assert cuda.missing() == gpu_missing()
    if gpu_missing():
        case = list(operator.cases(np.random.default_rng(0)))[-1]  # the first may have nothing to compute
        with pytest.raises(ValueError, match=r"CUDA|GPU"):
            run(operator, cuda, case)


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"EDGEKIT_CUDA": "0"}, "False"),
        ({"EDGEKIT_CUDA": "yes"}, "ValueError: EDGEKIT_CUDA: want 0 or 1, got 'yes'"),
        ({"EDGEKIT_CUDA": "1", "CUDA_HOME": "/nowhere"}, "FileNotFoundError: EDGEKIT_CUDA=1: want nvcc"),
        ({"CUDA_HOME": "/nowhere"}, "False"),
    ],
)
def test_when_the_extension_is_built_with_cuda(environment, want):
    code = """
from edgekit.hosts import flags
try:
    print(flags.wants_cuda())
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith(want)
