"""Kernels that wait for memory: run on a processor that plays the GPU, and compiled for the boards' GPUs."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import tvm
from backends.tvm.cuda_tools import compiler_says, library_of, run_library
from tvm import te, tirx, topi

from edgekit.backends.tvm.cuda import device, elementwise
from edgekit.backends.tvm.cuda.convolution import Epilogue
from edgekit.backends.tvm.cuda.memory import Window, joined, lanes_of, sliding, softmax
from edgekit.backends.tvm.cuda.normalization import Normalisation
from edgekit.hosts.build import Platform

PLANE = {"image": (1, 9, 11), "out": (1, 5, 6), "size": (1, 3, 3), "stride": (1, 2, 2), "pad": (0, 1, 1)}
SPACE = {"image": (4, 5, 6), "out": (4, 5, 6), "size": (3, 3, 3), "stride": (1, 1, 1), "pad": (1, 1, 1)}
WINDOWS = {
    "max": Window(2, 24, **PLANE, axes=2),
    "max_of_5": Window(1, 5, **PLANE, axes=2),
    "mean": Window(2, 24, **PLANE, kind="mean", axes=2),
    "padded_mean": Window(2, 20, **PLANE, kind="padded mean", axes=2),
    "depthwise": Window(1, 12, **SPACE, kind="depthwise", dtype="float32"),
    "depthwise_half": Window(1, 8, **{**SPACE, "pad": (2, 2, 2), "dilation": (2, 2, 2)}, kind="depthwise"),
}
# Instances and groups, one part and several, channels that fill no vector, and more than a block's columns.
NORMALISATIONS = {
    "instance": Normalisation((2, 3, 10, 40, 24), 24),
    "group": Normalisation((1, 9, 11, 24), 4),
    "odd": Normalisation((1, 200, 7), 7),
    "layer": Normalisation((1, 5, 40), 1),
    "wide": Normalisation((1, 6, 6, 264), 264),
    "long": Normalisation((1, 17000, 16), 16),
}
JOINED = {"join": (8, 24, 16), "join_odd": (3, 5)}
rng = np.random.default_rng(3)


def slid(
    window: Window, image: np.ndarray, weights: np.ndarray | None, bias: np.ndarray | None
) -> np.ndarray:
    """The definition, in float64."""
    x = image.reshape(window.batch, *window.image, -1).astype("float64")
    out = np.full((window.batch, *window.out, window.channels), -np.inf if window.kind == "max" else 0.0)
    count = np.zeros((*window.out, 1))
    for number, tap in enumerate(itertools.product(*map(range, window.size))):
        to, at = [], []
        for axis in range(3):
            place = np.arange(window.out[axis])
            index = place * window.stride[axis] - window.pad[axis] + tap[axis] * window.dilation[axis]
            inside = (index >= 0) & (index < window.image[axis])
            to.append(place[inside])
            at.append(index[inside])
        batch = range(window.batch)
        part = x[np.ix_(batch, *at)]
        if window.kind == "max":
            out[np.ix_(batch, *to)] = np.maximum(out[np.ix_(batch, *to)], part)
        else:
            out[np.ix_(batch, *to)] += part if weights is None else part * weights[number]
        count[np.ix_(*to)] += 1
    if window.kind == "mean":
        out /= count
    if window.kind == "padded mean":
        out /= np.prod(window.size)
    return out if bias is None else out + bias


def window_arrays(window: Window) -> list[np.ndarray]:
    shapes = [
        (window.batch, *each[3 - window.axes :], window.channels) for each in (window.image, window.out)
    ]
    arrays = [rng.standard_normal(shapes[0]).astype(window.dtype)]
    if window.kind == "depthwise":
        arrays.append(rng.standard_normal((int(np.prod(window.size)), window.channels)).astype("float32"))
        arrays.append(rng.standard_normal(window.channels).astype("float32"))
    return [*arrays, np.zeros(shapes[1], window.dtype)]


def company(number, scale, offset, skip):
    return tirx.max(number * scale + offset, 0.0) + skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    functions = {name: sliding(window, name) for name, window in WINDOWS.items()}
    for name, problem in NORMALISATIONS.items():
        functions[f"{name}_parts"] = problem.partial(f"{name}_parts")
        functions[f"{name}_final"] = problem.final(f"{name}_final")
        epilogue = Epilogue(("scale", "offset"), ("skip",), company)
        functions[f"{name}_normalised"] = problem.normalised(1e-3, epilogue, f"{name}_normalised")
    functions |= {name: joined((5, 7), channels, "float16", name) for name, channels in JOINED.items()}
    functions["softmax"] = softmax((3, 100), 5, "float16")
    functions["chain"] = elementwise.scheduled(chain(32))
    functions["chain_odd"] = elementwise.scheduled(chain(7))
    return library_of(tmp_path_factory.mktemp("memory"), functions)


def chain(channels: int):
    """An element-wise chain in half precision, with a vector and a constant."""
    x, y = (te.placeholder((1, 3, 5, channels), "float16") for _ in range(2))
    vector = te.placeholder((1, 1, 1, channels), "float32")
    wide = topi.maximum(
        topi.add(topi.subtract(topi.cast(x, "float32"), vector), topi.cast(y, "float32")), 0.5
    )
    return te.create_prim_func([x, y, vector, topi.cast(topi.sigmoid(wide), "float16")])


def test_windows_are_what_they_are_by_definition(driver, library):
    arrays = {name: window_arrays(window) for name, window in WINDOWS.items()}
    for (name, window), (got,) in zip(
        WINDOWS.items(), run_library(driver, library, list(arrays.items())), strict=True
    ):
        image, *more, _ = arrays[name]
        expected = slid(window, image, *(more or (None, None)))
        limit = {"float16": 4e-3 * max(1, np.abs(expected).max() / 8), "float32": 1e-5}[window.dtype]
        got = got.reshape(expected.shape).astype("float64")
        np.testing.assert_allclose(got, expected, atol=limit, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def normalised(driver, library):
    """Of each problem: variance and result by definition, and by the kernels, threads in another order."""
    problems, first, second = {}, [], []
    for name, problem in NORMALISATIONS.items():
        # A mean far from 0 shows whether the variance's digits survive.
        tensor = (rng.standard_normal(problem.shape) * 0.3 + 20).astype("float16")
        vectors = [rng.standard_normal(problem.channels).astype("float32") for _ in range(2)]
        skip = rng.standard_normal(problem.shape).astype("float16")
        grouped = tensor.astype("float64").reshape(problem.batch, problem.positions, problem.groups, -1)
        mean, variance = grouped.mean((1, 3)), grouped.var((1, 3))
        expected = (grouped - mean[:, None, :, None]) / np.sqrt(variance + 1e-3)[:, None, :, None]
        expected = np.maximum(expected.reshape(problem.shape) * vectors[0] + vectors[1], 0) + skip
        problems[name] = variance.reshape(problem.statistics_shape), expected
        first.append((f"{name}_parts", [tensor, np.zeros(problem.parts_shape, "float32")]))
        shape = problem.statistics_shape
        both = [each.astype("float32").reshape(shape) for each in (mean, variance)]
        empty = np.zeros(shape, "float32")
        second.append((f"{name}_final", [tensor, None, empty, empty]))
        second.append((f"{name}_normalised", [tensor, *both, *vectors, skip, np.zeros_like(tensor)]))
    parts = run_library(driver, library, first)
    for number, [each] in enumerate(parts):
        second[2 * number][1][1] = each
    results = run_library(driver, library, second, seed=1)
    return {
        name: (problems[name], results[2 * number][0], results[2 * number + 1][0])
        for number, name in enumerate(problems)
    }


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_tensors_are_normalised(name, normalised):
    (variance, expected), got_variance, got = normalised[name]
    np.testing.assert_allclose(got_variance, variance, rtol=1e-5)
    np.testing.assert_allclose(got.astype("float64"), expected, atol=8e-3)


def test_positions_are_shared_out_by_the_shape_alone():
    assert NORMALISATIONS["instance"].parts == 1 and NORMALISATIONS["long"].parts == 8
    assert Normalisation((1, 160, 160, 160, 16), 16).parts == 128


def test_tensors_are_joined(driver, library):
    parts = {
        name: [rng.standard_normal((5, 7, count)).astype("float16") for count in channels]
        for name, channels in JOINED.items()
    }
    calls = [
        (name, [*arrays, np.zeros((5, 7, sum(JOINED[name])), "float16")]) for name, arrays in parts.items()
    ]
    for name, (got,) in zip(parts, run_library(driver, library, calls), strict=True):
        np.testing.assert_array_equal(got, np.concatenate(parts[name], -1))


def test_softmax_is_over_channels(driver, library):
    x = (rng.standard_normal((3, 100, 5)) * 9).astype("float16")
    [[got]] = run_library(driver, library, [("softmax", [x, np.zeros(x.shape, "float32")])])
    shares = np.exp(x.astype("float64") - x.max(-1, keepdims=True))
    np.testing.assert_allclose(got, shares / shares.sum(-1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(("name", "channels"), [("chain", 32), ("chain_odd", 7)])
def test_element_wise_chains_are_one_kernel(name, channels, driver, library):
    x, y = (rng.standard_normal((1, 3, 5, channels)).astype("float16") for _ in range(2))
    vector = rng.standard_normal((1, 1, 1, channels)).astype("float32")
    [[got]] = run_library(driver, library, [(name, [x, y, vector, np.zeros_like(x)])])
    expected = 1 / (1 + np.exp(-np.maximum(x.astype("float64") - vector + y, 0.5)))
    np.testing.assert_allclose(got.astype("float64"), expected, atol=5e-4)


def test_vectors_divide_the_channels():
    assert [lanes_of(n, "float16") for n in (1, 2, 12, 24)] == [1, 2, 4, 8]
    assert [lanes_of(n, "float32") for n in (3, 6, 64)] == [1, 2, 4]
    assert elementwise.lanes_of(chain(32), 32) == 8 and elementwise.lanes_of(chain(7), 7) == 1


def test_reductions_are_left_to_others():
    x = te.placeholder((8, 8), "float32")
    assert elementwise.scheduled(te.create_prim_func([x, topi.sum(x, 1)])) is None


@pytest.mark.parametrize("arch", ["sm_87", "sm_110"])
def test_the_boards_code_moves_16_bytes_at_once(nvcc, tmp_path, arch):
    normalisation = NORMALISATIONS["instance"]
    functions = {
        "pool": sliding(WINDOWS["max"], "pool"),
        "join": joined((5, 7), (8, 24), "float16"),
        "normalised": normalisation.normalised(1e-3, Epilogue()),
        "partial": normalisation.partial("partial"),
        "chain": elementwise.scheduled(chain(32)),
    }
    module = tvm.IRModule({name: each.with_attr("global_symbol", name) for name, each in functions.items()})
    ptx, said = compiler_says(
        tmp_path, device.source(device.compiled(module, device.target(arch, Platform.here()))), arch
    )
    assert said.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == len(functions)
    for name in functions:
        kernel = re.search(rf"\.entry {name}_kernel.*?\n}}", ptx, re.DOTALL)[0]
        assert re.search(r"ld\.global(\.nc)?\.v4", kernel), name
        assert name == "partial" or "st.global.v4" in kernel, name
        assert not re.search(r"(ld|st)\.global(\.nc)?\.(u16|b16|f16)", kernel), name
