"""The extension as a whole: instruction sets, threads, life without it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from edgekit import _C
from edgekit.kernels import native_status, warp
from edgekit.kernels.base import ISAS
from edgekit.kernels.integrate import smooth_field

HASH = """
import hashlib, numpy as np
from edgekit.kernels import integrate_velocity, native_status
from edgekit.kernels.integrate import smooth_field
field = integrate_velocity(smooth_field(np.random.default_rng(0), (1, 3, 11, 13, 37), 3), threads=2)
print(native_status().isa, hashlib.sha256(field.tobytes()).hexdigest())
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_forced_instruction_set_is_used_and_gives_the_same_bits():
    hashes = set()
    for isa in native_status().isas:
        result = python(HASH, EDGEKIT_ISA=isa)
        assert result.returncode == 0, result.stderr
        used, digest = result.stdout.split()
        assert used == isa
        hashes.add(digest)
    assert len(hashes) == 1


@pytest.mark.parametrize("isa", ["avx1024", "AVX2", "neon2", " "])
def test_unknown_instruction_set_is_a_clear_error(isa):
    code = """
import numpy as np
from edgekit.kernels import warp
warp(*[np.zeros((1, 2, 3, 4), np.float32)] * 2)
"""
    result = python(code, EDGEKIT_ISA=isa)
    assert result.returncode != 0
    assert f"KernelError: EDGEKIT_ISA: instruction set '{isa}' is unknown or missing" in result.stderr
    assert "want one of scalar" in result.stderr


def test_unknown_instruction_set_is_what_the_status_says():
    result = python("from edgekit.kernels import native_status; print(native_status())", EDGEKIT_ISA="fast")
    assert "isa=''" in result.stdout and "EDGEKIT_ISA: instruction set 'fast'" in result.stdout


def test_empty_variable_means_the_best_one():
    result = python("from edgekit import _C; print(_C.isa(), _C.isas()[-1])", EDGEKIT_ISA="")
    assert len(set(result.stdout.split())) == 1


def test_without_the_extension_and_numba_the_reference_runs_and_says_so():
    code = """
import sys, warnings
import numpy as np
sys.modules["edgekit._C"] = sys.modules["numba"] = None
from edgekit import kernels
assert "cannot be imported" in kernels.native_status().missing and not kernels.native_status().isas
image = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        moved = kernels.warp(image, np.zeros((1, 2, 4, 6), np.float32))
        flow = kernels.integrate_velocity(np.ones((1, 2, 4, 6), np.float32))
assert len(caught) == 1 and "slow NumPy reference" in str(caught[0].message), caught
assert "pip install 'edgekit[numba]'" in str(caught[0].message), caught
assert moved.dtype == np.float32 and (moved == image).all() and (flow == 1).all()
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_importing_the_kernels_loads_numpy_and_nothing_heavy():
    code = """
import sys, edgekit.kernels
heavy = {"torch", "onnx", "scipy", "numba", "edgekit._C"} & set(sys.modules)
assert not heavy, heavy
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 2, 20, 40, 50)).astype(np.float32)
    return image, smooth_field(rng, (1, 3, 20, 40, 50), amplitude=4)


def test_calls_from_many_threads_at_once(problem):
    want = warp(*problem, threads=1)
    results: list[np.ndarray] = []

    def work():
        results.extend(warp(*problem, threads=3) for _ in range(10))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 40
    for result in results:
        np.testing.assert_array_equal(result, want)


def test_a_forked_child_has_threads_of_its_own():
    code = """
import os, sys, numpy as np
from edgekit.kernels import warp
image = np.ones((1, 1, 30, 40, 50), np.float32)
flow = np.zeros((1, 3, 30, 40, 50), np.float32)
warp(image, flow, threads=3)
child = os.fork()
if child == 0:
    os._exit(0 if (warp(image, flow, threads=3) == 1).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(code).returncode == 0


ARGUMENTS = {
    "float64": (
        np.zeros((1, 1, 4, 5)),
        np.zeros((1, 2, 4, 5), np.float32),
        np.zeros((1, 1, 4, 5), np.float32),
    ),
    "strided": (
        np.zeros((1, 1, 4, 10), np.float32)[..., ::2],
        np.zeros((1, 2, 4, 5), np.float32),
        np.zeros((1, 1, 4, 5), np.float32),
    ),
    "empty": tuple(np.zeros((1, c, 0, 5), np.float32) for c in (1, 2, 1)),
    "rank": tuple(np.zeros((1, c, 5), np.float32) for c in (1, 2, 1)),
    "ranks": tuple(np.zeros(shape, np.float32) for shape in ((1, 1, 1, 4, 5), (1, 2, 4, 5), (1, 1, 1, 4, 5))),
    "components": tuple(np.zeros((1, c, 4, 5), np.float32) for c in (1, 3, 1)),
    "out": tuple(np.zeros((1, c, 4, 5), np.float32) for c in (1, 2, 2)),
}


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_the_extension_checks_for_itself(name):
    with pytest.raises(ValueError, match=r"must|differ|axis"):
        _C.warp(*ARGUMENTS[name])


def test_the_extension_refuses_overlap_read_only_memory_and_unknown_words():
    field = np.zeros((1, 2, 4, 5), np.float32)
    out = np.zeros_like(field)
    for image, flow in ((field, out), (out, field)):
        with pytest.raises(ValueError, match="overlaps"):
            _C.warp(image, flow, field)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        _C.warp(field, field, frozen)
    for options in ({"boundary": "border"}, {"order": 2}, {"threads": 0}, {"isa": "neon2"}):
        with pytest.raises(ValueError, match=r"must|unknown"):
            _C.warp(field, field, out, **options)
    with pytest.raises(TypeError):
        _C.warp(field.tolist(), field, out)


def test_add_flow_composes():
    field = smooth_field(np.random.default_rng(0), (1, 3, 7, 9, 19), amplitude=2)
    out = np.empty_like(field)
    for isa in ISAS:
        if isa in native_status().isas:
            _C.warp(field, field, out, add_flow=True, isa=isa)
            np.testing.assert_array_equal(out, field + warp(field, field))
