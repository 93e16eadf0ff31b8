"""CUDA's driver by ctypes: what an opened engine needs of it, and what a device says of itself.

The driver comes with the device; no package of CUDA is wanted.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from edgekit.errors import LimitError, SessionError, UnavailableError
from edgekit.spec import Array

LIBRARY = "libcuda.so.1"
_OUT_OF_MEMORY = 2
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True)
class Device:
    """What a GPU says of itself.

    Attributes:
        name: As the driver tells it.
        compute_capability: ``"8.7"``.
        multiprocessors: Active ones: a power mode may switch some off.
        memory_bytes: All of its memory.
        free_bytes: What is free of that now.
    """

    name: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int
    free_bytes: int


class Driver:
    """The first GPU, its primary context, which TensorRT uses too, and one stream.

    Args:
        library: The driver's file.

    Raises:
        UnavailableError: There is no driver, or no GPU.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError:
            raise UnavailableError(
                "no CUDA driver: an engine is built and run where its GPU is",
                where=library,
                hint="copy the bundle to the device, and there: edgekit finalize BUNDLE",
            ) from None
        self._device, self._context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._buffers: dict[str, tuple[ctypes.c_uint64, int]] = {}
        if self._library.cuInit(0) or self._library.cuDeviceGet(ctypes.byref(self._device), 0):
            raise UnavailableError("the CUDA driver finds no GPU", where=library, hint="nvidia-smi")
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.use()
        self._call("cuStreamCreate", ctypes.byref(self.stream), 0)

    def use(self) -> None:
        """Make its context that of the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def describe(self) -> Device:
        """What the GPU says of itself."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuDeviceGetName", name, _NAME_BYTES, self._device)
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        major, minor, count = (self._attribute(number) for number in (_MAJOR, _MINOR, _MULTIPROCESSORS))
        return Device(name.value.decode(errors="replace"), f"{major}.{minor}", count, total.value, free.value)

    def buffer(self, name: str, size: int) -> int:
        """The address of a buffer on the device of at least so many bytes; the same until it has to grow."""
        address, held = self._buffers.get(name, (ctypes.c_uint64(), 0))
        if held < size or not held:
            if held:
                del self._buffers[name]
                self._call("cuMemFree_v2", address)
            address, held = ctypes.c_uint64(), max(size, 1)
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(held))
            self._buffers[name] = (address, held)
        return int(address.value)

    def upload(self, name: str, array: Array) -> int:
        """Begin to copy an array to its buffer; the address of that. The array lives until :meth:`wait`."""
        address = self.buffer(name, array.nbytes)
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync_v2", *_transfer(address, array, to_device=True), self.stream)
        return address

    def download(self, name: str, array: Array) -> None:
        """Begin to copy a buffer to an array, which is filled after :meth:`wait`."""
        if array.nbytes:
            address = int(self._buffers[name][0].value)
            self._call("cuMemcpyDtoHAsync_v2", *_transfer(address, array, to_device=False), self.stream)

    def wait(self) -> None:
        """Wait until all that was begun is done."""
        self._call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        """Give everything back. May be called twice."""
        if not self._context:
            return
        self.use()
        for address, _ in self._buffers.values():
            self._library.cuMemFree_v2(address)
        self._buffers = {}
        self._library.cuStreamDestroy_v2(self.stream)
        self._library.cuDevicePrimaryCtxRelease_v2(self._device)
        self._context = ctypes.c_void_p()

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == _OUT_OF_MEMORY:
            raise LimitError(
                f"{name}: the device is out of memory", where=LIBRARY, hint="close other programs"
            )
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise SessionError(f"{name} failed: {(text.value or b'?').decode()} ({code})", where=LIBRARY)


def _transfer(address: int, array: Array, *, to_device: bool) -> tuple[Any, Any, Any]:
    device, host = ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data)
    ends = (device, host) if to_device else (host, device)
    return (*ends, ctypes.c_size_t(array.nbytes))


def device_here(library: str = LIBRARY) -> Device:
    """What this machine's GPU says of itself.

    Raises:
        UnavailableError: There is none.
    """
    driver = Driver(library)
    try:
        return driver.describe()
    finally:
        driver.close()
