"""Convolutions of bytes against exact sums of integers."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from kernel_runs import AVX2, assembly, cpu_flags, run
from torch.nn import functional

from edgekit.backends.tvm.dot import byte_type
from edgekit.backends.tvm.elementwise import Output, Step
from edgekit.backends.tvm.functions import QUANTIZE
from edgekit.backends.tvm.integer_convolution import (
    Arranged,
    IntegerConvolution,
    integer_convolution,
    takes,
    tiling,
    way_of,
)
from edgekit.backends.tvm.loops import Function
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution

VNNI = Processor("x86_64", 16, 32, "vnni", mcpu="x86-64-v4", mattr=("+avx512vnni",))
SHORT_VNNI = Processor("x86_64", 8, 16, "vnni", mcpu="x86-64-v4", mattr=("+avx512vnni",))
AVX512 = Processor("x86_64", 16, 32, mcpu="x86-64-v4")
DOTPROD = Processor("aarch64", 4, 32, "dotprod", mcpu="cortex-a76")
# Arm's order of bytes and its code without a dot product, built for this machine.
LIKE_ARM = Processor("aarch64", 4, 32, mcpu="x86-64-v3")
PROCESSORS = {"least": Processor.least("x86_64"), "AVX2": AVX2, "like Arm": LIKE_ARM}
if "avx512f" in cpu_flags():
    PROCESSORS["AVX-512"] = AVX512
if "avx512_vnni" in cpu_flags():
    PROCESSORS |= {"VNNI": VNNI, "VNNI, 256 bits": SHORT_VNNI}
each_processor = pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)

# inputs, outputs, groups, input lengths, taps, strides, dilations, pads, transposed
CASES = {
    "1-D": (8, 8, 1, (37,), (5,), (1,), (1,), (2,), False),
    "2-D": (32, 32, 1, (9, 21), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D, last blocks short": (13, 20, 1, (9, 14), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D, stride 2, dilated": (16, 24, 1, (13, 18), (3, 5), (2, 2), (2, 1), (2, 2), False),
    "2-D, groups": (32, 64, 2, (6, 7), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D to 3": (20, 3, 1, (7, 11), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D to 1, one tap": (16, 1, 1, (7, 11), (1, 1), (1, 1), (1, 1), (0, 0), False),
    "3-D": (8, 48, 1, (3, 5, 6), (3, 3, 3), (1, 2, 1), (1, 1, 1), (1, 1, 1), False),
    "one place": (16, 32, 1, (3, 3), (3, 3), (1, 1), (1, 1), (0, 0), False),
    "2-D from 3": (3, 20, 1, (9, 21), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "2-D from 1, stride 2": (1, 16, 1, (14, 27), (7, 7), (2, 2), (1, 1), (3, 3), False),
    "2-D from 2, dilated": (2, 8, 1, (9, 19), (3, 5), (1, 1), (2, 3), (2, 6), False),
    "3-D from 1": (1, 16, 1, (4, 5, 13), (3, 3, 3), (2, 1, 1), (1, 1, 1), (1, 1, 1), False),
    "transposed from 2": (2, 16, 1, (5, 7), (4, 3), (2, 2), (1, 1), (1, 1), True),
    "transposed": (12, 32, 1, (5, 7), (3, 4), (2, 2), (1, 1), (1, 1), True),
    "transposed to 2": (12, 2, 1, (5, 7), (3, 4), (2, 2), (1, 1), (1, 1), True),
    "transposed 3-D": (8, 8, 1, (3, 4, 5), (2, 2, 2), (2, 2, 2), (1, 1, 1), (0, 0, 0), True),
}


def exact(problem: Convolution, x: np.ndarray, weights: np.ndarray, zero_point: int) -> np.ndarray:
    """The sums, in float64: they stay far below its 53 bits."""
    centered = torch.from_numpy(x.astype(np.float64) - zero_point)
    rank, factors = len(problem.kernel), torch.from_numpy(weights.astype(np.float64))
    options = {"groups": problem.groups, "dilation": problem.dilations}
    name = f"conv_transpose{rank}d" if problem.transposed else f"conv{rank}d"
    op = getattr(functional, name)
    return op(centered, factors, None, problem.strides, problem.pads, **options).numpy()


def placed(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """A value in its memory, with the largest byte in the lanes beyond the last channel."""
    memory = tensor.packed(values)
    rest = tensor.shape[1] % tensor.layout.block if tensor.layout.block > 1 else 0
    if rest:
        memory[:, -1, ..., rest:] = np.iinfo(tensor.dtype).max
    return memory


def computed(
    problem: Convolution,
    x: np.ndarray,
    weights: np.ndarray,
    zero_point: int,
    processor: Processor,
    output: Output,
) -> np.ndarray:
    shape = output.tensor.shape
    if byte_type(processor) == "int8":
        x, zero_point = (x.astype(np.int16) - 128).astype(np.int8), zero_point - 128
    source = Tensor(x.shape, str(x.dtype), processor.layout_for(x.shape[1]))
    way = way_of(weights, problem, source, output.tensor, processor, max(int(x.max()), zero_point))
    whole = IntegerConvolution(problem, zero_point, way, source.layout.block)
    halo = whole.halo(x.shape[2:], shape[2:])
    source = Tensor(x.shape, str(x.dtype), Layout(source.layout.block, halo, zero_point))
    assert takes(problem, source, output.tensor)
    plan = tiling(whole, source, output.tensor, processor)
    constants = Arranged.of(whole, weights, source, output.tensor, plan.vectors)
    scales = np.zeros(constants.begin.shape[1:], np.float32)
    scales.reshape(-1)[: shape[1]] = _scales(shape[1])
    function = integer_convolution("main", whole, source, output, plan, processor)
    arrays = [constants.weights, constants.distances, constants.begin, scales, *constants.rest]
    return run(function, processor, [placed(source, x), *arrays], output.tensor)


def _scales(outputs: int) -> np.ndarray:
    return np.linspace(0.5, 2, outputs, dtype=np.float32)


@each_processor
@pytest.mark.parametrize("most", [64, 127], ids=["small weights", "large weights"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_sums_are_exact(case: tuple, most: int, processor: Processor) -> None:
    inputs, outputs, groups, lengths, taps, strides, dilations, pads, transposed = case
    problem = Convolution(taps, strides, dilations, pads, groups, transposed)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (2, inputs, *lengths)).astype(np.uint8)
    pair = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    weights = random.integers(-most, most + 1, (*pair, *taps)).astype(np.int8)
    want = exact(problem, x, weights, 93)
    want = want.astype(np.float32) * _scales(outputs).reshape(-1, *(1 for _ in taps))
    result = Tensor(want.shape, layout=Layout(processor.block_for(outputs), ((1, 2),) * len(taps)))
    got = computed(problem, x, weights, 93, processor, Output(result))
    np.testing.assert_array_equal(got, want)


@each_processor
@pytest.mark.parametrize("byte", [0, 255])
@pytest.mark.parametrize("weight", [-128, -64, 64, 127])
def test_extremes_do_not_saturate(byte: int, weight: int, processor: Processor) -> None:
    problem = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    x = np.full((1, 64, 5, 6), byte, np.uint8)
    weights = np.full((16, 64, 3, 3), weight, np.int8)
    result = Tensor((1, 16, 5, 6), layout=Layout(processor.block_for(16)))
    want = exact(problem, x, weights, 255 - byte).astype(np.float32) * _scales(16).reshape(-1, 1, 1)
    got = computed(problem, x, weights, 255 - byte, processor, Output(result))
    np.testing.assert_array_equal(got, want)


@each_processor
def test_bytes_follow_and_their_halo_is_the_zero_point(processor: Processor) -> None:
    problem = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (1, 16, 9, 10)).astype(np.uint8)
    weights = random.integers(-9, 10, (16, 16, 3, 3)).astype(np.int8)
    result = Tensor((1, 16, 9, 10), "uint8", Layout(processor.block_for(16), ((1, 1), (2, 1)), 7))
    step = Step(QUANTIZE, (0,), (64.0, 7.0, 0.0, 255.0, 0.0))
    got = computed(problem, x, weights, 100, processor, Output(result, (step,)))
    sums = exact(problem, x, weights, 100).astype(np.float32) * _scales(16).reshape(-1, 1, 1)
    np.testing.assert_array_equal(got, np.clip(np.rint(sums / 64) + 7, 0, 255).astype(np.uint8))


def _small(processor: Processor, most: int) -> Function:
    problem = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    weights = np.full((16, 16, 3, 3), most, np.int8)
    source = Tensor((1, 16, 8, 8), byte_type(processor), processor.layout_for(16, ((1, 1), (1, 1)), 3))
    result = Tensor((1, 16, 8, 8), layout=processor.layout_for(16))
    way = way_of(weights, problem, source, result, processor)
    whole = IntegerConvolution(problem, 3, way, source.layout.block)
    plan = tiling(whole, source, result, processor)
    return integer_convolution("main", whole, source, Output(result), plan, processor)


@pytest.mark.parametrize(
    ("processor", "most", "instruction"),
    [
        (VNNI, 127, r"vpdpbusd\s.*%zmm"),
        (SHORT_VNNI, 127, r"vpdpbusd\s.*%ymm"),
        (AVX2, 64, r"vpmaddubsw\s"),
        (AVX2, 65, r"vpmaddwd\s"),
        (Processor.least("x86_64"), 64, r"pmaddwd\s"),
        (DOTPROD, 127, r"sdot\s+v"),
        (Processor.least("aarch64"), 127, r"smlal"),
    ],
)
def test_instructions(processor: Processor, most: int, instruction: str) -> None:
    assert re.search(instruction, assembly(_small(processor, most), processor))


def test_other_convolutions_are_not_taken() -> None:
    wide = Tensor((1, 16, 8, 8), layout=Layout(16))
    one = Convolution((3, 3), (1, 1), (1, 1), (1, 1))
    assert not takes(one, Tensor((1, 3, 8, 8), "uint8"), Tensor((1, 2, 8, 8)))
    assert not takes(Convolution((3, 3), (1, 1), (1, 1), (1, 1), 4), wide, wide)
