"""An engine, opened: a context of TensorRT's, and buffers on the device for what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.backends.base import ArtifactInfo, NetworkSession
from edgekit.backends.tensorrt.cuda import Driver
from edgekit.errors import MismatchError, SessionError
from edgekit.spec import Array

# TensorRT's names of types that NumPy has too.
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


class Session(NetworkSession):
    """An opened engine.

    Args:
        info: What it was built from.
        engine: TensorRT's engine.
        driver: The GPU; closed with the session.
        errors: What TensorRT logs, the newest last.

    Raises:
        MismatchError: The engine has other inputs or outputs than the artifact.
    """

    def __init__(self, info: ArtifactInfo, engine: Any, driver: Driver, errors: list[str]) -> None:
        super().__init__(info)
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wanted = {spec.name for spec in (*info.inputs, *info.outputs)}
        if names != wanted:
            raise MismatchError(
                f"the engine's tensors are {', '.join(sorted(names))}, want {', '.join(sorted(wanted))}",
                where=info.backend,
                hint="edgekit finalize BUNDLE --force",
            )
        self._engine, self._driver, self._errors = engine, driver, errors
        self._context = engine.create_execution_context()
        if self._context is None:
            raise SessionError(f"TensorRT makes no context: {_last(errors)}", where=info.backend)
        self._dtypes = {name: _dtype(engine.get_tensor_dtype(name)) for name in names}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once; see :meth:`NetworkSession.run`."""
        if self._context is None:
            raise self.closed()
        self._driver.use()
        # Kept until the stream is done with them.
        arrays = [self._feed(spec.name, feeds[spec.name]) for spec in self.info.inputs]
        results = {spec.name: self._result(spec.name) for spec in self.info.outputs}
        self._want(self._context.execute_async_v3(self._driver.stream.value), "it does not start")
        for name, array in results.items():
            self._driver.download(name, array)
        self._driver.wait()
        del arrays
        wanted = {spec.name: spec.numpy_dtype for spec in self.info.outputs}
        # TensorRT 8 has no integers of 64 bits.
        return {name: array.astype(wanted[name], copy=False) for name, array in results.items()}

    def close(self) -> None:
        """Give back what TensorRT and the driver hold."""
        if self._context is not None:
            self._driver.use()
            self._context = self._engine = None
            self._driver.close()

    def _feed(self, name: str, array: Array) -> Array:
        array = np.ascontiguousarray(array, self._dtypes[name])
        self._want(self._context.set_input_shape(name, array.shape), f"{name}: the shape {array.shape}")
        self._want(self._context.set_tensor_address(name, self._driver.upload(name, array)), name)
        return array

    def _result(self, name: str) -> Array:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(length < 0 for length in shape):
            raise SessionError(f"the size of {name!r} depends on the input's values", where=self.info.backend)
        array = np.empty(shape, self._dtypes[name])
        self._want(self._context.set_tensor_address(name, self._driver.buffer(name, array.nbytes)), name)
        return array

    def _want(self, good: bool, what: str) -> None:
        if not good:
            raise SessionError(f"TensorRT refuses {what}: {_last(self._errors)}", where=self.info.backend)


def _dtype(dtype: Any) -> np.dtype[Any]:
    if dtype.name not in _DTYPES:
        raise SessionError(f"NumPy has no type like TensorRT's {dtype.name}")
    return _DTYPES[dtype.name]


def _last(errors: list[str]) -> str:
    return errors[-1] if errors else "it does not say why"
