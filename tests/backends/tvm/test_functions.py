"""Element-wise functions against NumPy in double precision, over all of float32."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from kernel_runs import AVX2, PROCESSORS, assembly, each_processor, run
from scipy import special
from tvm import tirx

from edgekit.backends.tvm import functions
from edgekit.backends.tvm.elementwise import Output, Step, elementwise
from edgekit.backends.tvm.loops import Kernel
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor

LEAST_NORMAL = 2.0**-126
SPECIAL = [
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.2e-38, 3.4e38, -3.4e38),
    *(88.72283, 88.7229, -87.0, -87.33, -87.34, -103.9, -104.0, 1.0, -1.0, 0.625, -0.625, 0.5, 1.5, 2.5),
]
# Function, its parameters, and what it should be; all arguments are finite where it is compared.
FUNCTIONS = {
    "relax.abs": ((), np.abs),
    "relax.ceil": ((), np.ceil),
    "relax.clip": ((-1.5, 2.5), lambda x: np.clip(x, -1.5, 2.5)),
    "relax.erf": ((), special.erf),
    "relax.exp": ((), np.exp),
    "relax.floor": ((), np.floor),
    "relax.log": ((), np.log),
    "relax.negative": ((), np.negative),
    "relax.nn.gelu": ((), lambda x: x * special.ndtr(x)),
    "relax.nn.gelu_tanh": (
        (),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "relax.nn.leakyrelu": ((0.1,), lambda x: np.where(x < 0, 0.1 * x, x)),
    "relax.nn.relu": ((), lambda x: np.maximum(x, 0)),
    "relax.nn.silu": ((), lambda x: x * special.expit(x)),
    "relax.nn.softplus": ((), lambda x: np.logaddexp(x, 0)),
    "relax.rsqrt": ((), lambda x: 1 / np.sqrt(x)),
    "relax.sigmoid": ((), special.expit),
    "relax.sqrt": ((), np.sqrt),
    "relax.square": ((), np.square),
    "relax.tanh": ((), np.tanh),
}
BINARY = {
    "relax.add": np.add,
    "relax.divide": np.divide,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.multiply": np.multiply,
    "relax.nn.prelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "relax.subtract": np.subtract,
}
# Largest errors in units of the last place; of the others an absolute one is promised.
LAST_PLACES = {"relax.exp": 2, "relax.log": 2, "relax.tanh": 2, "relax.erf": 4, "relax.rsqrt": 2}
EXACT = ("relax.abs", "relax.ceil", "relax.floor", "relax.maximum", "relax.minimum", "relax.negative")


def arguments() -> np.ndarray:
    draw = np.random.default_rng(0)
    parts = [draw.uniform(-size, size, 4000) for size in (1, 10, 100)]
    parts += [sign * np.exp(draw.uniform(-103, 88, 4000)) for sign in (1, -1)]
    return np.concatenate([*parts, SPECIAL]).astype(np.float32)


def computed(name: str, parameters: tuple, processor: Processor, *values: np.ndarray) -> np.ndarray:
    first, *others = (Tensor(value.shape) for value in values)
    step = Step(name, tuple(range(len(values))), parameters)
    function = elementwise("main", first, Output(first, (step,), tuple(others)), processor)
    return run(function, processor, list(values), first)


def same_kind(got: np.ndarray, want: np.ndarray) -> bool:
    kinds = (np.isnan, np.isposinf, np.isneginf)
    return all(np.array_equal(kind(got), kind(want)) for kind in kinds)


@each_processor
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str, processor: Processor) -> None:
    parameters, meaning = FUNCTIONS[name]
    x = arguments()
    with np.errstate(all="ignore"):
        want = meaning(x.astype(np.float64))
        rounded = want.astype(np.float32)
    got = computed(name, parameters, processor, x)
    assert same_kind(got, rounded)
    finite = np.isfinite(rounded)
    got, want, rounded = got[finite].astype(np.float64), want[finite], rounded[finite]
    if name in EXACT:
        assert np.array_equal(got, want)
    assert (np.abs(got - want) / np.maximum(np.abs(want), 1)).max() < 3e-7
    if name in LAST_PLACES:
        normal = np.abs(want) >= LEAST_NORMAL
        places = np.abs(got - want)[normal] / np.spacing(np.abs(rounded[normal])).astype(np.float64)
        assert places.max() <= LAST_PLACES[name]


@pytest.mark.parametrize("name", BINARY)
def test_function_of_two(name: str) -> None:
    x = arguments()
    y = np.random.default_rng(1).permutation(x)
    with np.errstate(all="ignore"):
        want = BINARY[name](x, y)
    got = computed(name, (), AVX2, x, y)
    assert same_kind(got, want)
    assert np.array_equal(got, want, equal_nan=True)


def test_every_function_is_tested() -> None:
    # Those that change the type have networks of their own to be tested in.
    elsewhere = {functions.QUANTIZE, functions.DEQUANTIZE}
    assert set(functions.FUNCTIONS) - elsewhere == set(FUNCTIONS) | set(BINARY)


CALLS = re.compile(r"\b(expf|tanhf|erff|erfcf|logf|log1pf|powf|floorf|ceilf|sqrtf)\b")


@each_processor
def test_no_function_calls_the_c_library(processor: Processor) -> None:
    shape = Tensor((3, 64))
    chain, value = [], 0
    for name in FUNCTIONS:
        chain.append(Step(name, (value,), FUNCTIONS[name][0]))
        value = len(chain)
    code = assembly(elementwise("main", shape, Output(shape, tuple(chain)), processor), processor)
    assert "main" in code
    assert not CALLS.findall(code)


def test_the_search_for_calls_finds_them() -> None:
    with Kernel("main") as kernel:
        x, y = kernel.argument("x", (8,)), kernel.argument("y", (8,))
        kernel.store(y, (0,), tirx.exp(kernel.load(x, (0,), 8)), 8)
    assert CALLS.findall(assembly(kernel.function, PROCESSORS[0]))
