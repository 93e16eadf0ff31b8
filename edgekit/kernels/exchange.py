"""Arrays of other libraries as NumPy views, and results back as what came in."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.spec import Array


def as_numpy(value: object, name: str, *, where: str) -> Array:
    """A NumPy array as it is, or a view of anything on the CPU that speaks DLPack (torch, JAX, ...).

    Raises:
        KernelError: ``value`` is neither, lives on another device, needs gradients, or has a type that NumPy
            lacks.
    """
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "__dlpack__"):
        raise KernelError(
            f"{name}: want a NumPy array or an array that speaks DLPack, got {type(value).__name__}",
            where=where,
            hint=f"np.asarray({name}, np.float32)",
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise KernelError(
            f"{name}: want memory that NumPy can see, got {type(value).__name__} that says: {error}",
            where=where,
            hint=f"{name}.detach().cpu(), or the same operator of edgekit.torch",
        ) from error


def like(result: Array, given: object) -> Any:
    """``result`` as the kind of array ``given`` is, sharing its memory.

    The library of ``given`` is found by the name of its class, as it is already loaded: nothing is imported.
    """
    if isinstance(given, np.ndarray):
        return result
    for ancestor in type(given).__mro__:
        library = sys.modules.get(ancestor.__module__.partition(".")[0])
        for namespace in (library, getattr(library, "numpy", None)):
            if from_dlpack := getattr(namespace, "from_dlpack", None):
                return from_dlpack(result)
    return result
