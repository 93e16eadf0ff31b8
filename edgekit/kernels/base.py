"""What an operator is, how it is registered, and what all operators check.

A new operator is one file that ends in ``OPERATOR = Operator(...)`` and one line in :data:`OPERATORS`.
The contract tests then run every variant on every case against the reference, with several numbers of
threads, with a given output and with bad arguments.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import KernelError
from edgekit.machine import usable_cores
from edgekit.registry import Registry
from edgekit.spec import Array

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# What the native kernels count with: float32 coordinates and int32 offsets. The limits hold for every
# variant, so that no argument is accepted here and refused there.
MAX_AXIS = 2**24
MAX_ELEMENTS = 2**31 - 1

# Every instruction set there is a native variant for, from the plainest to the best.
ISAS = ("scalar", "avx2", "avx512", "neon")

OPERATORS: Registry[Operator] = Registry(
    "operator",
    {
        "warp": "edgekit.kernels.warp:OPERATOR",
        "integrate_velocity": "edgekit.kernels.integrate:OPERATOR",
        "jacobian_determinant": "edgekit.kernels.jacobian:OPERATOR",
    },
)


@dataclass(frozen=True)
class Case:
    """Arguments an operator is tested with.

    Attributes:
        label: Names the case in a failure.
        inputs: The positional arguments.
        options: The keyword arguments that have a meaning (not ``out`` and ``threads``).
    """

    label: str
    inputs: tuple[Floats, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One implementation of an operator.

    Attributes:
        name: Such as ``"avx2"``.
        run: ``run(*inputs, out=, threads=, **options)``; fills ``out``. Arguments were checked before.
        tolerance: Largest error against the reference, as a share of the largest value (at least 1).
        missing: Why it cannot run here, or an empty string.
    """

    name: str
    run: Callable[..., None]
    tolerance: float
    missing: Callable[[], str]


@dataclass(frozen=True)
class Operator:
    """An operator: what it means, and everything that computes it.

    Attributes:
        name: As in :data:`OPERATORS`.
        function: The public function; its docstring is the meaning.
        reference: ``reference(*inputs, **options)`` in float64, straight from the definition.
        cases: Yields the cases for a random generator.
        variants: Every implementation, whether it can run here or not.
    """

    name: str
    function: Callable[..., Floats]
    reference: Callable[..., Doubles]
    cases: Callable[[np.random.Generator], Iterator[Case]]
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class NativeStatus:
    """Whether the compiled extension can be used.

    Attributes:
        isa: The instruction set in use; empty if the extension cannot be used.
        isas: Those that could be used on this machine.
        missing: Why the extension cannot be used; empty if it can.
    """

    isa: str
    isas: tuple[str, ...]
    missing: str


@functools.cache
def _load_native() -> tuple[ModuleType | None, str]:
    try:
        from edgekit import _C
    except ImportError as error:  # not built, built for another Python, or a missing system library
        return None, f"edgekit._C cannot be imported: {error}"
    return _C, ""


def native_status() -> NativeStatus:
    """Say whether the compiled extension can be used, and why not."""
    module, missing = _load_native()
    if module is None:
        return NativeStatus("", (), missing)
    isas = tuple(module.isas())
    try:
        return NativeStatus(module.isa(), isas, "")
    except ValueError as error:
        return NativeStatus("", isas, str(error))


def native_variants(run: Callable[..., None], tolerance: float) -> tuple[Variant, ...]:
    """One variant per instruction set of ``run(module, *inputs, out=, threads=, isa=, **options)``."""

    def variant(isa: str) -> Variant:
        def run_isa(*inputs: Floats, **options: Any) -> None:
            run(_load_native()[0], *inputs, isa=isa, **options)

        def missing() -> str:
            status = native_status()
            if isa in status.isas:
                return ""
            return status.missing or f"this processor or build has no {isa}"

        return Variant(isa, run_isa, tolerance, missing)

    return tuple(variant(isa) for isa in ISAS)


def execute(
    where: str,
    native: Callable[..., None],
    reference: Callable[..., Doubles],
    inputs: tuple[Floats, ...],
    *,
    out: Floats,
    threads: int,
    **options: Any,
) -> Floats:
    """Fill ``out`` with the process's native variant, or with the reference where there is no extension.

    Raises:
        KernelError: The native code refuses: ``EDGEKIT_ISA`` names an instruction set that is not there.
    """
    module, missing = _load_native()
    if module is None:
        _warn_of_reference(missing)
        out[...] = reference(*inputs, **options)
        return out
    try:
        native(module, *inputs, out=out, threads=threads, isa="", **options)
    except ValueError as error:
        raise KernelError(str(error), where=where, hint="unset EDGEKIT_ISA") from error
    return out


@functools.cache
def _warn_of_reference(missing: str) -> None:
    warnings.warn(f"{missing}; operators run as their slow NumPy references", RuntimeWarning, stacklevel=4)


def check_input(array: object, name: str, *, where: str, ranks: Sequence[int]) -> Floats:
    """Refuse anything but a C-contiguous float32 array of a given rank, without empty or oversized axes.

    Raises:
        KernelError: It is something else.
    """
    if not isinstance(array, np.ndarray):
        raise KernelError(
            f"{name}: want a NumPy array, got {type(array).__name__}", where=where, hint=f"np.asarray({name})"
        )
    if array.dtype != np.float32:
        raise KernelError(
            f"{name}: want float32, got {array.dtype}", where=where, hint=f"{name}.astype(np.float32)"
        )
    if array.ndim not in ranks:
        raise KernelError(
            f"{name}: want {' or '.join(map(str, ranks))} axes, got shape {array.shape}",
            where=where,
            hint=f"{name}[None, None] adds the axes N and C",
        )
    if array.size == 0:
        raise KernelError(f"{name}: want at least one element, got shape {array.shape}", where=where)
    if array.size > MAX_ELEMENTS or max(array.shape) > MAX_AXIS:
        raise KernelError(
            f"{name}: want at most 2^31 - 1 elements and 2^24 per axis, got shape {array.shape}",
            where=where,
            hint="work in tiles",
        )
    if not array.flags.c_contiguous:
        raise KernelError(
            f"{name}: want C-contiguous memory, got strides {array.strides}",
            where=where,
            hint=f"np.ascontiguousarray({name})",
        )
    return array


def check_flow(array: object, name: str, *, where: str) -> Floats:
    """Refuse anything but a displacement [N, 3, D, H, W] or [N, 2, H, W], as :func:`check_input` does."""
    flow = check_input(array, name, where=where, ranks=(4, 5))
    if flow.shape[1] != flow.ndim - 2:
        raise KernelError(
            f"{name}: want shape [N, 3, D, H, W] or [N, 2, H, W], got {flow.shape}", where=where
        )
    return flow


def check_choice(value: object, name: str, choices: Sequence[object], *, where: str) -> None:
    """Refuse a value that is none of the choices; ``True`` is not ``1``."""
    if isinstance(value, bool) or value not in choices:
        raise KernelError(f"{name}: want one of {', '.join(map(repr, choices))}, got {value!r}", where=where)


def check_output(out: object, shape: tuple[int, ...], inputs: Sequence[Floats], *, where: str) -> Floats:
    """The array to write to: ``out`` if given and fit for it, else a new one.

    Raises:
        KernelError: ``out`` has another shape or dtype, is not C-contiguous or not writeable, or overlaps an
            input.
    """
    if out is None:
        return np.empty(shape, np.float32)
    given = check_input(out, "out", where=where, ranks=(len(shape),))
    if given.shape != shape:
        raise KernelError(f"out: want shape {shape}, got {given.shape}", where=where)
    if not given.flags.writeable:
        raise KernelError("out: want a writeable array, got a read-only one", where=where)
    if any(np.may_share_memory(given, array) for array in inputs):  # exact, as all are contiguous
        raise KernelError("out: want memory of its own, got an array that overlaps an input", where=where)
    return given


def check_threads(threads: object, *, where: str) -> int:
    """The number of threads to use: as given, or as many as this process may run on.

    Raises:
        KernelError: It is not an integer of at least 1.
    """
    if threads is None:
        return _usable_cores()
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise KernelError(f"threads: want an integer of at least 1, got {threads!r}", where=where)
    return min(int(threads), 1024)


@functools.cache
def _usable_cores() -> int:
    return usable_cores()  # reads files: too slow for every call


def as_doubles(array: Array) -> Doubles:
    """A float64 copy for a reference."""
    return array.astype(np.float64)
