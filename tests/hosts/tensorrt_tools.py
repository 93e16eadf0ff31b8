"""What the tests of TensorRT have in common: cases, problems for the harnesses, what compiles these."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hosts.cases import HostCase, cases

from edgekit.hosts import flags

HERE = Path(__file__).resolve().parent / "tensorrt_native"
FLAGS = ["-std=c++17", "-O1", *flags.COMMON_FLAGS[1:], "-fPIC", f"-I{flags.CSRC}", f"-I{HERE}"]
TEXT = 4096
ZEROS = np.zeros((1, 3, 4, 5, 64), np.float32)  # 15 lines of the cache in a component, 45 in all


def images() -> Iterator[HostCase]:
    """Every order on images, which the table of all hosts leaves to chance: each is a kernel of its own."""
    rng = np.random.default_rng(7)
    for order, dtype in itertools.product((0, 1, 3), ("float32", "float16")):
        image, flow = rng.standard_normal((1, 2, 9, 40)), rng.integers(-9, 9, (1, 2, 9, 40)) / 4 + 1 / 8
        feed = (image.astype(dtype), flow.astype(dtype))
        yield HostCase(f"Warp of an image, {dtype}, order {order}", "Warp", (feed,), {"order": order})


CASES = [*cases(), *images()]


class ProblemArray(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int32),
    )


class Problem(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("attributes", ctypes.c_char_p),
        ("half", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("inputs", ProblemArray * 2),
        ("output", ProblemArray),
    )


def call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
    return done.stdout


def compile_all(folder: Path, sources: list[Path], *more: str) -> list[str]:
    def compile_one(source: Path) -> str:
        result = folder / ("_".join(source.parts[-2:]) + ".o")
        # What tests export is to be found, what kernels have in common with others' need not be.
        shown = ["-fvisibility=default"] if HERE in source.parents else []
        if not result.exists():
            call(["g++", *FLAGS, *shown, *more, "-c", str(source), "-o", str(result)])
        return str(result)

    with ThreadPoolExecutor(2) as workers:
        return list(workers.map(compile_one, sources))


def problem_of(
    operator: str, feed: tuple[np.ndarray, ...], output: np.ndarray, attributes: dict[str, object]
) -> Problem:
    kinds = {int: "int", float: "float", str: "string"}
    lines = [f"{name} {kinds[type(value)]} {value}" for name, value in attributes.items()]
    problem = Problem(operator.encode(), "\n".join(lines).encode(), output.dtype == np.float16, len(feed))
    arrays = [view(array) for array in feed]
    problem.inputs = (ProblemArray * 2)(*arrays)
    problem.output = view(output)
    problem.kept = feed, output  # or their memory is gone when the problem is run
    return problem


def view(array: np.ndarray) -> ProblemArray:
    assert array.flags.c_contiguous
    return ProblemArray(array.ctypes.data, (ctypes.c_int64 * array.ndim)(*array.shape), array.ndim)


def said(function: Callable[..., int], *arguments: object) -> tuple[int, str]:
    text = ctypes.create_string_buffer(TEXT)
    code = function(*arguments, text, TEXT)
    return code, text.value.decode(errors="replace")


def run_case(case: HostCase, run: Callable[[Problem], tuple[int, str]]) -> list[str]:
    """Compare every feed's result; what each run said."""
    texts = []
    for feed, expected in zip(case.feeds, case.expected(), strict=True):
        feed = tuple(np.ascontiguousarray(array) for array in feed)
        got = np.full_like(expected, 77)
        good, text = run(problem_of(case.operator, feed, got, case.attributes))
        assert good, text
        case.check(got, expected)
        texts.append(text)
    return texts
