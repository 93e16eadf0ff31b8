"""Convolutions on tensor cores: run on a processor that plays the GPU, and compiled for the boards' GPUs."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
import tvm
from backends.tvm.cuda_tools import compiler_says, library_of, run_library
from tvm import tirx

from edgekit.backends.tvm.cuda import device
from edgekit.backends.tvm.cuda.convolution import TILES, Convolution, Epilogue, pack, tile_of
from edgekit.backends.tvm.cuda.gemm import convolution
from edgekit.backends.tvm.loops import product
from edgekit.errors import CompileError
from edgekit.hosts.build import Platform

WIDE = {"dtype": "float32", "out_dtype": "float32"}
SAME = {"kernel": (3, 3, 3), "pad": (1, 1, 1)}
C = Convolution
# What each is there for; the small sizes cross the borders of tiles, and leave some of them empty.
CASES = {
    "volume": C(1, (64, 64), (4, 6, 8), (4, 6, 8), **SAME),
    "batch_stride": C(2, (16, 24), (1, 9, 11), (1, 5, 6), (1, 3, 3), (1, 2, 2), (0, 1, 1), axes=2),
    "image_of_3": C(2, (3, 20), (1, 9, 11), (1, 9, 11), (1, 3, 3), pad=(0, 1, 1), axes=2),
    "volume_of_1": C(1, (1, 8), (4, 5, 6), (4, 5, 6), **SAME),
    "pointwise": C(1, (40, 6), (1, 7, 9), (1, 7, 9), (1, 1, 1), axes=2),
    "chunks_over_taps": C(1, (56, 16), (1, 5, 7), (1, 5, 7), (1, 3, 3), pad=(0, 1, 1), axes=2),
    "chunks_of_volume": C(1, (40, 16), (3, 5, 4), (2, 4, 3), (2, 2, 2)),
    "dilation": C(1, (8, 16), (5, 5, 6), (5, 5, 6), (3, 3, 3), pad=(2, 2, 2), dilation=(2, 2, 2)),
    "signal": C(1, (16, 8), (1, 1, 50), (1, 1, 23), (1, 1, 5), (1, 1, 2), axes=1),
    "doubling": C(1, (32, 10), (3, 4, 5), (6, 8, 10), (2, 2, 2), (2, 2, 2), transposed=True),
    "transposed_even": C(1, (16, 16), (3, 4, 5), (6, 8, 10), **SAME, stride=(2, 2, 2), transposed=True),
    "transposed_odd": C(1, (16, 16), (3, 4, 5), (5, 7, 9), **SAME, stride=(2, 2, 2), transposed=True),
    "transposed_by_3": C(
        1, (3, 8), (1, 4, 5), (1, 11, 14), (1, 4, 4), (1, 3, 3), (0, 1, 1), transposed=True, axes=2
    ),
    "int8": C(1, (32, 32), (3, 6, 5), (3, 6, 5), dtype="int8", **SAME),
    "int8_dilation": C(1, (16, 8), (1, 9, 9), (1, 5, 5), (1, 3, 3), dilation=(1, 2, 2), dtype="int8", axes=2),
    "int8_to_int8": C(1, (32, 32), (3, 6, 5), (3, 6, 5), dtype="int8", out_dtype="int8", **SAME),
    "float32": C(1, (8, 32), (3, 6, 5), (3, 6, 5), **SAME, **WIDE),
    "tf32": C(1, (8, 32), (3, 6, 5), (3, 6, 5), **SAME, **WIDE, tf32=True),
    **{
        f"tile_{tile.rows}_{tile.columns}_{dtype}": C(
            1, (16, tile.columns + 8), (1, 13, 15), (1, 13, 15), (1, 3, 3), pad=(0, 1, 1), axes=2,
            dtype=dtype, out_dtype=dtype, tile=tile,
        )
        for tile, dtype in [*((tile, "float16") for tile in TILES), (TILES[0], "float32")]
    },
}  # fmt: skip
# Half a unit of the last place of what comes out, at a magnitude below 8, or of what comes in.
TOLERANCE = {"float16": 4e-3, "float32": 1e-5, "int8": 0.5001}


def scale_of(problem: Convolution) -> float:
    return 1e-4 / np.sqrt(problem.depth) if problem.dtype == "int8" else 1.0


def epilogue_of(problem: Convolution) -> Epilogue:
    scale = scale_of(problem)
    return Epilogue(
        ("bias",), ("skip",), lambda value, bias, skip: tirx.max(value * scale + bias, 0.0) + skip
    )


@dataclasses.dataclass
class Numbers:
    arguments: list[np.ndarray]
    expected: np.ndarray


def numbers_of(problem: Convolution) -> Numbers:
    rng = np.random.default_rng(0)
    shapes = (problem.image_shape, (*problem.channels[::-1], *problem.kernel))
    if problem.dtype == "int8":
        image, weights = (rng.integers(-127, 128, shape).astype("int8") for shape in shapes)
    else:
        image, weights = (rng.standard_normal(shape).astype(problem.dtype) for shape in shapes)
        weights = (weights / np.sqrt(problem.depth)).astype(problem.dtype)
    bias = rng.standard_normal(problem.channels[1]).astype("float32")
    skip = rng.standard_normal(problem.out_shape).astype(problem.out_dtype)
    sums = direct(problem, image, weights) * scale_of(problem)
    expected = np.maximum(sums + bias, 0) + skip
    kept = np.ascontiguousarray(weights.swapaxes(0, 1)) if problem.transposed else weights
    return Numbers([image, pack(problem, kept), bias, skip, np.zeros_like(skip)], expected)


def direct(problem: Convolution, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The definition, in float64: each tap's product, added where it belongs."""
    x = image.reshape(problem.batch, *problem.image, -1).astype("float64")
    taps = np.moveaxis(weights.astype("float64"), (0, 1), (-1, -2))
    out = np.zeros((problem.batch, *problem.out, problem.channels[1]))
    for tap in itertools.product(*map(range, problem.kernel)):
        near, far = (problem.out, problem.image) if problem.transposed else (problem.image, problem.out)
        pairs = []  # per axis: positions of the smaller grid, and where they fall in the finer
        for axis in range(3):
            coarse = np.arange(far[axis])
            fine = coarse * problem.stride[axis] - problem.pad[axis] + tap[axis] * problem.dilation[axis]
            inside = (fine >= 0) & (fine < near[axis])
            pairs.append((coarse[inside], fine[inside]))
        coarse, fine = (np.ix_(range(problem.batch), *each) for each in zip(*pairs, strict=True))
        if problem.transposed:
            out[fine] += x[coarse] @ taps[tap]
        else:
            out[coarse] += x[fine] @ taps[tap]
    return out.reshape(problem.out_shape)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    functions = {name: convolution(case, epilogue_of(case), name) for name, case in CASES.items()}
    return library_of(tmp_path_factory.mktemp("gemm"), functions)


@pytest.fixture(scope="module")
def results(driver, library):
    """Of all cases, with copies that come late and threads in one order, and the other way round."""
    calls = [(name, numbers_of(case).arguments) for name, case in CASES.items()]
    runs = [run_library(driver, library, calls, seed=seed, early=bool(seed)) for seed in (0, 1)]
    return {name: [run[i][0] for run in runs] for i, name in enumerate(CASES)}


@pytest.mark.parametrize("name", CASES)
def test_convolutions_are_what_they_are_by_definition(name, results):
    problem, expected = CASES[name], numbers_of(CASES[name]).expected
    tolerance = 1e-2 if problem.tf32 else TOLERANCE[problem.out_dtype]
    for got in results[name]:
        np.testing.assert_allclose(got.astype("float64"), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_results_do_not_depend_on_the_order_of_threads(name, results):
    first, second = results[name]
    np.testing.assert_array_equal(first, second)


def test_float32_is_more_than_tf32(results):
    whole, short = (np.abs(results[n][0] - numbers_of(CASES[n]).expected).max() for n in ("float32", "tf32"))
    assert whole < 1e-5 and short > 30 * whole


@pytest.mark.parametrize("arch", ["sm_87", "sm_110"])
@pytest.mark.parametrize(
    ("dtype", "form"),
    [
        ("float16", "m16n8k16.row.col.f32.f16.f16.f32"),
        ("int8", "m16n8k32.row.col.s32.s8.s8.s32"),
        ("float32", "m16n8k8.row.col.f32.tf32.tf32.f32"),
    ],
)
def test_the_boards_code_is_of_tensor_cores_and_spills_nothing(nvcc, tmp_path, arch, dtype, form):
    out = "float32" if dtype == "float32" else "float16"
    shape = (32, 32, 32)
    problems = [C(1, (64, each), shape, shape, **SAME, dtype=dtype, out_dtype=out) for each in (32, 64, 128)]
    wanted = device.target(arch, Platform.here())
    functions = {}
    for problem in problems:
        name = f"to_{problem.channels[1]}"
        functions[name] = convolution(problem, epilogue_of(problem), name).with_attr("global_symbol", name)
    ptx, said = compiler_says(tmp_path, device.source(device.compiled(tvm.IRModule(functions), wanted)), arch)
    assert said.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == len(problems)
    assert max(map(int, re.findall(r"Used (\d+) registers", said))) <= 168
    for name, problem in zip(functions, problems, strict=True):
        kernel = re.search(rf"\.entry {name}_kernel.*?\n}}", ptx, re.DOTALL)[0]
        rows, columns = tile_of(problem).warp
        each = 3 if dtype == "float32" else 1
        assert kernel.count(f"mma.sync.aligned.{form}") == rows // 16 * (columns // 8) * 2 * each
        # Three stages are asked for: two before the loop and one in it; all loads are of 16 bytes.
        assert "cp.async.cg.shared.global" in kernel and "ldmatrix.sync.aligned.m8n8.x4" in kernel
        assert re.search(r"st\.global\.v4", kernel) and not re.search(r"st\.global\.(u16|b16|f32)", kernel)


def test_images_beyond_an_index_are_refused():
    side = (1024, 1024, 1024)
    with pytest.raises(CompileError, match=r"want fewer than 2\^31 numbers, got the shape \(1, 1024, "):
        convolution(C(1, (8, 8), side, side, **SAME))


def test_the_rule_wastes_no_columns_and_fills_the_gpu():
    large, small = (32, 64, 64), (1, 16, 16)
    tile = {n: tile_of(C(1, (64, n), large, large, **SAME)) for n in (8, 16, 24, 32, 64, 96, 128, 256)}
    assert {n: t.columns for n, t in tile.items()} == {
        8: 16, 16: 16, 24: 32, 32: 32, 64: 64, 96: 32, 128: 128, 256: 128
    }  # fmt: skip
    assert all(t.rows == 128 for t in tile.values())
    assert (
        tile_of(C(1, (64, 64), small, small, (1, 3, 3))).rows
        * tile_of(C(1, (64, 64), small, small, (1, 3, 3))).columns
        < 128 * 64
    )
    assert all(product(t.across) * 32 == t.threads and t.shared_bytes <= 48 * 1024 for t in TILES)
