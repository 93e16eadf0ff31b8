"""What a filter made of other kernels runs on, with all memory and all tables made beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from edgekit.kernels.base import Case, Doubles, Floats, Operator
from edgekit.kernels.resample import AxisFilter, axis_filter
from edgekit.kernels.warp import OPERATOR as WARP
from edgekit.spec import Array


class Kernels(Protocol):
    """Some variant of the kernels that are needed."""

    def filter_axis(self, image: Floats, out: Floats, axis: int, change: AxisFilter) -> None:
        """``out`` is ``image`` changed along an axis."""

    def warp(self, image: Floats, flow: Floats, out: Floats, order: int) -> None:
        """As :func:`edgekit.kernels.warp` with the boundary ``"edge"``."""


class Best:
    """The best variant there is: of the extension, of Numba, or NumPy's."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def filter_axis(self, image: Floats, out: Floats, axis: int, change: AxisFilter) -> None:
        """See :class:`Kernels`."""
        FILTER.execute((image,), (out,), threads=self._threads, axis=axis, change=change)

    def warp(self, image: Floats, flow: Floats, out: Floats, order: int) -> None:
        """See :class:`Kernels`."""
        WARP.execute((image, flow), (out,), threads=self._threads, order=order, boundary="edge")


class Native:
    """The extension, or a module with the same functions."""

    def __init__(self, module: ModuleType | Any, threads: int, isa: str) -> None:
        self._module, self._options = module, {"threads": threads, "isa": isa}

    def filter_axis(self, image: Floats, out: Floats, axis: int, change: AxisFilter) -> None:
        """See :class:`Kernels`."""
        tables = change.base, change.scale, change.index, change.weight
        self._module.filter_axis(image, out, axis, *tables, **self._options)

    def warp(self, image: Floats, flow: Floats, out: Floats, order: int) -> None:
        """See :class:`Kernels`."""
        self._module.warp(image, flow, out, order=order, boundary="edge", **self._options)


def _filter_native(
    module: ModuleType,
    image: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    axis: int,
    change: AxisFilter,
) -> None:
    tables = change.base, change.scale, change.index, change.weight
    module.filter_axis(image, outputs[0], axis, *tables, threads=threads, isa=isa)


def _filter_reference(image: Array, *, axis: int, change: AxisFilter) -> tuple[Floats]:
    """As the tables say, in float32: what stands in for the extension."""
    lines = np.moveaxis(image.view(np.float32), axis, 0)
    shape = (-1, *(1 for _ in lines.shape[1:]))
    base, index = (table[..., : change.size].astype(np.intp) for table in (change.base, change.index))
    scale, weight = (table[..., : change.size].view(np.float32) for table in (change.scale, change.weight))
    centre = lines[base]
    total = centre * scale.reshape(shape)
    for voxels, share in zip(index, weight, strict=True):
        total += (lines[voxels] - centre) * share.reshape(shape)
    return (np.moveaxis(total, 0, axis),)


def _filter_allocate(image: Array, *, axis: int, change: AxisFilter) -> tuple[Array]:
    return (np.empty((*image.shape[:axis], change.size, *image.shape[axis + 1 :]), np.float32),)


def _no_cases(rng: np.random.Generator) -> Iterator[Case]:
    del rng
    return iter(())


# Not registered: users have resample() for it.
FILTER = Operator(
    name="filter_axis",
    function=axis_filter,
    reference=_filter_reference,
    allocate=_filter_allocate,
    native=_filter_native,
    tolerance=1e-6,
    cases=_no_cases,
    numba="edgekit.kernels.numba.parts:run_filter",
)


class Separable:
    """A filter of the last two axes of arrays of one shape."""

    def __init__(
        self, leading: tuple[int, ...], along_y: AxisFilter, along_x: AxisFilter, width: int
    ) -> None:
        self._y, self._x = along_y, along_x
        self._between = np.empty((*leading, along_y.size, width), np.float32)

    def __call__(self, kernels: Kernels, image: Floats, out: Floats) -> None:
        """Fill ``out``, which may be ``image`` if no axis changes its length."""
        kernels.filter_axis(image, self._between, image.ndim - 2, self._y)
        kernels.filter_axis(self._between, out, image.ndim - 1, self._x)


def _table(at: Doubles, size: int, boundary: str, sigma: float) -> AxisFilter:
    """Linear samples of a line that a Gaussian has smoothed."""
    change = axis_filter(at, size, 1, boundary, sigma)
    if change is not None:
        return change
    columns = size + -size % 16
    base, scale = np.zeros(columns, np.int32), np.zeros(columns, np.float32)
    base[:size], scale[:size] = np.arange(size), 1
    return AxisFilter(size, base, scale, np.zeros((0, columns), np.int32), np.zeros((0, columns), np.float32))


def smoothing(leading: tuple[int, ...], height: int, width: int, sigma: float) -> Separable:
    """A Gaussian, mirrored at the borders."""
    along_y, along_x = (
        _table(np.arange(size, dtype=np.float64), size, "mirror", sigma) for size in (height, width)
    )
    return Separable(leading, along_y, along_x, width)


def halving(height: int, width: int, sigma: float) -> Separable:
    """Every second pixel of each axis after a Gaussian, between pixels ``2 p`` and ``2 p + 1``."""
    along_y, along_x = (
        _table(2 * np.arange(size // 2, dtype=np.float64) + 0.5, size, "edge", sigma)
        for size in (height, width)
    )
    return Separable((), along_y, along_x, width)


def doubling(leading: tuple[int, ...], height: int, width: int) -> Separable:
    """Linear interpolation from what :func:`halving` has left to ``height`` times ``width``."""
    along_y, along_x = (
        _table((np.arange(size, dtype=np.float64) - 0.5) / 2, size // 2, "edge", 0.0)
        for size in (height, width)
    )
    return Separable(leading, along_y, along_x, width // 2)
