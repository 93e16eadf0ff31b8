"""An opened engine: what is copied, asked for and given back, on a driver and an engine of the tests."""

from __future__ import annotations

import ctypes
import subprocess
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from edgekit.backends.base import ArtifactInfo
from edgekit.backends.tensorrt import cuda
from edgekit.backends.tensorrt.session import Session
from edgekit.errors import LimitError, MismatchError, SessionError, UnavailableError
from edgekit.spec import Dim, TensorSpec

# The driver's memory is the processor's; it counts what is held.
DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
int held = 0, contexts = 0, streams = 0;
size_t most = 1 << 20;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int number) { return *device = 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { ++contexts; *context = &contexts; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { --contexts; return 0; }
int cuCtxSetCurrent(void *context) { return context == &contexts ? 0 : 201; }
int cuStreamCreate(void **stream, unsigned flags) { ++streams; *stream = &streams; return 0; }
int cuStreamDestroy_v2(void *stream) { --streams; return 0; }
int cuStreamSynchronize(void *stream) { return stream == &streams ? 0 : 400; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int *value, int number, int device) {
  *value = number == 75 ? 8 : number == 76 ? 7 : number == 16 ? 8 : -1;
  return 0;
}
int cuMemGetInfo_v2(size_t *free_, size_t *total) { *free_ = most; *total = 2 * most; return 0; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
  if (size > most) return 2;
  *address = (uint64_t)malloc(size);
  ++held;
  return 0;
}
int cuMemFree_v2(uint64_t address) { free((void *)address); --held; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
  memcpy((void *)to, from, size);
  return stream == &streams ? 0 : 400;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
  memcpy(to, (void *)from, size);
  return stream == &streams ? 0 : 400;
}
int cuGetErrorString(int code, const char **text) { *text = "some error"; return 0; }
"""
DType = Enum("DType", "FLOAT HALF INT32 INT64 BF16")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    path = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", str(folder / "driver.c"), "-o", str(path)], check=True)
    return path


class Engine:
    """Doubles ``x``, and adds up its numbers; in the form of TensorRT's engine and context in one."""

    def __init__(self, dtypes: dict[str, DType] | None = None) -> None:
        self.dtypes = dtypes or {"x": DType.FLOAT, "twice": DType.FLOAT, "sum": DType.INT32}
        self.num_io_tensors = len(self.dtypes)
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.starts = self.known_sizes = True

    def get_tensor_name(self, index: int) -> str:
        return list(self.dtypes)[index]

    def get_tensor_dtype(self, name: str) -> DType:
        return self.dtypes[name]

    def create_execution_context(self) -> Engine:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[1] <= 8

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape if name == "twice" else (1,)) if self.known_sizes else (-1,)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(self.shape))
        x = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses["x"]))
        np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses["twice"]))[:] = 2 * x
        (ctypes.c_int32 * 1).from_address(self.addresses["sum"])[0] = int(x.sum())
        return self.starts


INFO = ArtifactInfo(
    backend="tensorrt",
    form="engine",
    files=(),
    inputs=(TensorSpec("x", "float32", (1, Dim(1, 8))),),
    outputs=(TensorSpec("twice", "float32", (1, Dim(1, 8))), TensorSpec("sum", "int64", (1,))),
    target="jetson",
    built_with={},
    source_digest="",
)


def count(library: Path, name: str) -> int:
    return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), name).value


def test_a_session_runs_with_shapes_that_vary_and_gives_everything_back(library):
    session = Session(INFO, Engine(), cuda.Driver(str(library)), [])
    for length in (3, 8, 2):
        x = np.arange(length, dtype=np.float32)[None]
        made = session.run({"x": x})
        np.testing.assert_array_equal(made["twice"], 2 * x)
        # TensorRT 8 gives int32 where the contract says int64.
        assert made["sum"].dtype == np.int64 and made["sum"] == x.sum()
        assert made["twice"].flags.owndata and count(library, "held") == 3
    kept = made["twice"].copy()
    session.run({"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(made["twice"], kept)
    session.close()
    session.close()
    assert [count(library, name) for name in ("held", "contexts", "streams")] == [0, 0, 0]
    with pytest.raises(SessionError, match="closed"):
        session.run({"x": x})


def test_what_tensorrt_refuses_is_told_in_its_words(library):
    engine, errors = Engine(), ["the shape is outside of the profile"]
    session = Session(INFO, engine, cuda.Driver(str(library)), errors)
    with pytest.raises(SessionError, match=r"refuses x: the shape \(1, 9\): the shape is outside"):
        session.run({"x": np.ones((1, 9), np.float32)})
    engine.starts = False
    with pytest.raises(SessionError, match="does not start"):
        session.run({"x": np.ones((1, 2), np.float32)})
    engine.known_sizes = False
    with pytest.raises(SessionError, match="depends on the input's values"):
        session.run({"x": np.ones((1, 2), np.float32)})
    session.close()


def test_an_engine_with_other_tensors_is_refused(library):
    driver = cuda.Driver(str(library))
    with pytest.raises(MismatchError, match="tensors are x, y, want sum, twice, x"):
        Session(INFO, Engine({"x": DType.FLOAT, "y": DType.FLOAT}), driver, [])
    with pytest.raises(SessionError, match="no type like TensorRT's BF16"):
        Session(INFO, Engine({"x": DType.BF16, "twice": DType.FLOAT, "sum": DType.INT32}), driver, [])
    driver.close()


def test_a_device_says_what_it_is(library):
    assert cuda.device_here(str(library)) == cuda.Device("Orin", "8.7", 8, 2 << 20, 1 << 20)
    assert count(library, "contexts") == 0


def test_too_little_memory_is_a_limit(library):
    driver = cuda.Driver(str(library))
    with pytest.raises(LimitError, match="out of memory") as caught:
        driver.buffer("x", 2 << 20)
    assert caught.value.exit_code == 6
    driver.close()


def test_without_a_driver_the_hint_says_where_to_go(tmp_path):
    with pytest.raises(UnavailableError, match="no CUDA driver") as caught:
        cuda.Driver(str(tmp_path / "libcuda.so.1"))
    assert "edgekit finalize" in caught.value.hint
