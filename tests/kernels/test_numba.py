"""The variants compiled by Numba as a whole: when they run, threads, where machine code is kept, float16."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.kernels.base import OPERATORS, numba_missing
from edgekit.kernels.numba.jit import compiled, each_row
from edgekit.kernels.numba.mathematics import from_half, to_half

WITHOUT = """
import sys, warnings
import numpy as np
sys.modules["edgekit._C"] = None
from edgekit import kernels
from edgekit.kernels.warp import reference
rng = np.random.default_rng(0)
image, flow = rng.random((1, 1, 4, 6), np.float32), rng.random((1, 2, 4, 6), np.float32)
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_numba_is_installed():
    assert numba_missing() == ""


def test_every_operator_has_a_numba_variant():
    assert all("numba" in [v.name for v in OPERATORS[name].variants] for name in OPERATORS)


def test_without_the_extension_numba_runs_and_says_so():
    code = f"""{WITHOUT}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        moved = kernels.warp(image, flow)
        kernels.integrate_velocity(flow)
assert [w.category for w in caught] == [RuntimeWarning], caught
assert "edgekit._C cannot be imported" in str(caught[0].message) and "Numba" in str(caught[0].message)
assert caught[0].filename == "<string>", caught[0].filename
assert "numba" in sys.modules
np.testing.assert_allclose(moved, reference(image, flow)[0], atol=1e-6)
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_asking_for_numba_takes_it_and_warns_of_nothing():
    code = """
import sys, warnings
import numpy as np
from edgekit import kernels
warnings.simplefilter("error")
kernels.warp(np.ones((1, 1, 4, 6), np.float32), np.zeros((1, 2, 4, 6), np.float32))
assert "numba" in sys.modules
status = kernels.native_status()
assert status.isa == "" and "scalar" in status.isas and "numba" in status.missing, status
"""
    result = python(code, EDGEKIT_ISA="numba")
    assert result.returncode == 0, result.stderr


def test_asking_for_numba_without_having_it_is_a_clear_error():
    code = f"""{WITHOUT}
sys.modules["numba"] = None
kernels.warp(image, flow)
"""
    result = python(code, EDGEKIT_ISA="numba")
    assert result.returncode != 0
    assert "KernelError: EDGEKIT_ISA: package 'numba' is not installed" in result.stderr


def test_a_numba_that_does_not_import_is_named(tmp_path):
    (tmp_path / "numba.py").write_text("raise RuntimeError('needs another NumPy')")
    code = f"""{WITHOUT}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kernels.warp(image, flow)
assert "needs another NumPy" in str(caught[0].message), caught
assert "slow NumPy reference" in str(caught[0].message), caught
"""
    result = python(code, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr


THREADS = """
import os, sys, threading
import numpy as np
from edgekit.kernels import warp
image = np.ones((1, 1, 30, 80, 100), np.float32)
flow = np.zeros((1, 3, 30, 80, 100), np.float32)
warp(image, flow, threads=3)
"""


def test_a_forked_child_has_threads_of_its_own():
    code = f"""{THREADS}
child = os.fork()
if child == 0:
    os._exit(0 if (warp(image, flow, threads=3) == 1).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = python(code, EDGEKIT_ISA="numba")
    assert result.returncode == 0, result.stderr


def test_calls_from_many_threads_at_once():
    code = f"""{THREADS}
results = []
def work():
    results.extend((warp(image, flow, threads=3) == 1).all() for _ in range(5))
workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert len(results) == 20 and all(results)
"""
    result = python(code, EDGEKIT_ISA="numba")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 1), (7, 30000), (3, 1 << 17)])
def test_every_row_is_done_once(rows, width, threads):
    done: list[int] = []
    each_row(lambda begin, end: done.extend(range(begin, end)), rows, width, threads)
    assert sorted(done) == list(range(rows))


def test_an_error_in_a_thread_is_raised():
    def fail(begin: int, end: int) -> None:
        raise KeyError(begin)

    with pytest.raises(KeyError):
        each_row(fail, 10, 1 << 16, 2)


def test_machine_code_is_kept_apart_from_the_package_and_by_its_sources(tmp_path):
    code = f"""{WITHOUT}
warnings.simplefilter("ignore")
kernels.warp(image, flow)
import numba
assert numba.config.CACHE_DIR == {str(tmp_path)!r}  # as it was
"""
    result = python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("numba-") and list(folder.rglob("*.nbc"))
    package = Path(sys.modules["edgekit.kernels.numba"].__path__[0])
    assert not list(package.rglob("*.nb[ci]"))


def test_without_a_place_for_machine_code_it_is_compiled_all_the_same(tmp_path, monkeypatch):
    import numba

    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    assert compiled(lambda x: x + 1)(2) == 3
    assert not list(Path(__file__).parent.rglob("*.nb[ci]"))  # where Numba by itself would have put it


def test_every_float16_is_read_exactly():
    bits = np.arange(1 << 16, dtype=np.uint16)
    want = bits.view(np.float16).astype(np.float32)
    got = np.array([from_half(half) for half in bits], np.float32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), bits >= 1 << 15)


def test_float16_is_rounded_like_numpy_rounds():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.sort(every[np.isfinite(every)].astype(np.float32))
    halves = (finite[1:] + finite[:-1]) / 2
    beside = [np.nextafter(halves, np.float32(to)) for to in (-np.inf, np.inf)]
    special = np.float32([np.nan, np.inf, -np.inf, 65519.99, 65520, 65536, 3e38, 1e-45, -1e-45])
    values = np.concatenate([finite, halves, *beside, special])
    got = np.array([to_half(value) for value in values], np.uint16).view(np.float16)
    with np.errstate(over="ignore"):
        want = values.astype(np.float16)
    np.testing.assert_array_equal(got, want)
    known = ~np.isnan(values)
    np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(want[known]))
