"""What an operator is, how it is registered, and what runs it.

A new operator is one file that ends in ``OPERATOR = Operator(...)`` and one line in :data:`OPERATORS`.
The contract tests then run every variant on every case against the reference, with several numbers of
threads, with given outputs and with bad arguments.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import KernelError
from edgekit.registry import Registry, Requirement, resolve
from edgekit.spec import Array

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Every instruction set there is a native variant for, from the plainest to the best.
ISAS = ("scalar", "avx2", "avx512", "neon")

# What compiles operators where the extension is missing; EDGEKIT_ISA=numba asks for it where it is not.
NUMBA = Requirement("numba", "numba", "numba", "0.61")

OPERATORS: Registry[Operator] = Registry(
    "operator",
    {
        "grid_sample": "edgekit.kernels.grid_sample:OPERATOR",
        "resample": "edgekit.kernels.resample:OPERATOR",
        "warp_points": "edgekit.kernels.points:OPERATOR",
        "warp": "edgekit.kernels.warp:OPERATOR",
        "warp_adjoint": "edgekit.kernels.adjoint:OPERATOR",
        "warp_gradient": "edgekit.kernels.gradient:OPERATOR",
        "warp_labels": "edgekit.kernels.labels:OPERATOR",
        "compose": "edgekit.kernels.compose:OPERATOR",
        "invert": "edgekit.kernels.inverse:OPERATOR",
        "integrate_velocity": "edgekit.kernels.integrate:OPERATOR",
        "jacobian_determinant": "edgekit.kernels.jacobian:OPERATOR",
        "median": "edgekit.kernels.denoise.median:OPERATOR",
        "anisotropic_diffusion": "edgekit.kernels.denoise.diffusion:OPERATOR",
        "srad": "edgekit.kernels.denoise.srad:OPERATOR",
        "total_variation": "edgekit.kernels.denoise.total_variation:OPERATOR",
        "non_local_means": "edgekit.kernels.denoise.non_local_means:OPERATOR",
        "obnlm": "edgekit.kernels.denoise.obnlm:OPERATOR",
        "bilateral": "edgekit.kernels.denoise.bilateral:OPERATOR",
        "joint_bilateral": "edgekit.kernels.denoise.joint_bilateral:OPERATOR",
        "gaussian": "edgekit.kernels.denoise.gaussian:OPERATOR",
        "temporal_denoise": "edgekit.kernels.denoise.temporal:OPERATOR",
        "guided_filter": "edgekit.kernels.denoise.guided:OPERATOR",
    },
)


@dataclass(frozen=True)
class Case:
    """Arguments an operator is tested with.

    Attributes:
        label: Names the case in a failure.
        inputs: The positional arguments.
        options: The keyword arguments that have a meaning (not ``out`` and ``threads``).
        slack: How many times a variant's tolerance the options allow.
    """

    label: str
    inputs: tuple[Array, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    slack: float = 1.0


@dataclass(frozen=True)
class Variant:
    """One implementation of an operator.

    Attributes:
        name: Such as ``"avx2"``, ``"numba"``, or ``"cuda"`` and ``"numba-cuda"``, which copy arrays to a
            GPU and back.
        run: ``run(*inputs, outputs=, threads=, **options)`` fills ``outputs``; arguments were checked.
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
        reference: ``reference(*inputs, **options)`` straight from the definition: an array per result, in
            float64 and not yet rounded to the type of the result, or of that type where results are exact.
        allocate: ``allocate(*inputs, **options)``: a new array per result, with its shape, type and layout.
        native: ``native(module, *inputs, outputs=, threads=, isa=, **options)`` calls the extension.
        tolerance: Of every variant; see :class:`Variant`.
        cases: Yields the cases for a random generator.
        numba: Where the Numba variant's ``run`` is, as ``"module:function"``; empty if there is none.
        numba_cuda: Where that for a GPU is, likewise.
    """

    name: str
    function: Callable[..., Any]
    reference: Callable[..., tuple[Array, ...]]
    allocate: Callable[..., tuple[Array, ...]]
    native: Callable[..., None]
    tolerance: float
    cases: Callable[[np.random.Generator], Iterator[Case]]
    numba: str = ""
    numba_cuda: str = ""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every implementation, whether it can run here or not."""
        native = [self._native_variant(isa, functools.partial(_isa_missing, isa)) for isa in ISAS]
        native.append(self._native_variant("cuda", gpu_missing))
        if self.numba:
            native.append(Variant("numba", self._run_numba, self.tolerance, numba_missing))
        if self.numba_cuda:
            native.append(Variant("numba-cuda", self._run_numba_cuda, self.tolerance, numba_cuda_missing))
        return tuple(native)

    def _native_variant(self, isa: str, missing: Callable[[], str]) -> Variant:
        def run(*inputs: Array, **options: Any) -> None:
            self.native(_load_native()[0], *inputs, isa=isa, **options)

        return Variant(isa, run, self.tolerance, missing)

    def _run_numba(self, *inputs: Array, **options: Any) -> None:
        resolve(self.numba)(*inputs, **options)

    def _run_numba_cuda(self, *inputs: Array, **options: Any) -> None:
        resolve(self.numba_cuda)(*inputs, **options)

    def execute(
        self, inputs: tuple[Array, ...], outputs: tuple[Array, ...], *, threads: int, **options: Any
    ) -> None:
        """Fill ``outputs`` with the best there is: the native variant, that of Numba, or the reference.

        Raises:
            KernelError: ``EDGEKIT_ISA`` names something that is not there.
        """
        module, missing = _load_native()
        forced = numba_is_forced()
        if module is not None and not forced:
            try:
                self.native(module, *inputs, outputs=outputs, threads=threads, isa="", **options)
            except ValueError as error:
                raise KernelError(str(error), where=self.name, hint="unset EDGEKIT_ISA") from error
            return
        no_numba = numba_missing() if self.numba else f"{self.name} has no Numba variant"
        if forced and no_numba:
            raise KernelError(f"EDGEKIT_ISA: {no_numba}", where=self.name, hint="unset EDGEKIT_ISA")
        if not no_numba:
            if not forced:
                _warn(f"{missing}; operators run as compiled by Numba, more slowly")
            self._run_numba(*inputs, outputs=outputs, threads=threads, **options)
            return
        _warn(f"{missing}; {no_numba}; operators run as their slow NumPy references")
        for output, result in zip(outputs, self.reference(*inputs, **options), strict=True):
            output[...] = rounded(result, output.dtype)


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
    if numba_is_forced():
        return NativeStatus("", isas, "EDGEKIT_ISA asks for numba")
    try:
        return NativeStatus(module.isa(), isas, "")
    except ValueError as error:
        return NativeStatus("", isas, str(error))


def _isa_missing(isa: str) -> str:
    status = native_status()
    if isa in status.isas:
        return ""
    return status.missing or f"this processor or build has no {isa}"


@functools.cache
def gpu_missing() -> str:
    """Why operators cannot run on a GPU; empty if their ``"cuda"`` variants can."""
    module, missing = _load_native()
    return missing if module is None else str(module.gpu_missing())


@functools.cache
def numba_missing() -> str:
    """Why operators cannot be compiled by Numba; empty if they can."""
    reason = NUMBA.missing()
    if reason:
        return f"{reason}: {NUMBA.install_line}"
    try:
        importlib.import_module("edgekit.kernels.numba.jit")
    except Exception as error:  # noqa: BLE001 - a broken binary package raises anything
        return f"package 'numba' {NUMBA.version()} does not import: {type(error).__name__}: {error}"
    return ""


@functools.cache
def numba_cuda_missing() -> str:
    """Why operators cannot be compiled by Numba for a GPU; empty if they can."""
    reason = numba_missing()
    if reason:
        return reason
    try:
        return str(resolve("edgekit.kernels.numba.gpu:missing")())
    except Exception as error:  # noqa: BLE001 - whatever it finds of drivers and toolkits may be broken
        return f"no GPU that Numba can use: {type(error).__name__}: {error}"


@functools.cache
def numba_is_forced() -> bool:
    """Whether ``EDGEKIT_ISA`` asks for Numba; looked up once, as by the extension."""
    return os.environ.get("EDGEKIT_ISA") == "numba"


@functools.cache
def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def rounded(values: Array, dtype: npt.DTypeLike) -> Array:
    """Values as a result of a type holds them: integers round to nearest (halves to even) and saturate.

    Where an integer has no value for it, a NaN is 0.
    """
    dtype = np.dtype(dtype)
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):  # a float16 becomes infinite, as the definition says
        if dtype.kind == "f":
            return values.astype(dtype)
    limits = np.iinfo(dtype)
    whole: Array = np.clip(np.nan_to_num(np.rint(values), nan=0.0), limits.min, limits.max)
    return whole.astype(dtype)


def as_doubles(array: Array) -> Doubles:
    """A float64 copy for a reference."""
    return array.astype(np.float64)
