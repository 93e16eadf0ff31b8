"""How a displacement field changes volume, and where it folds."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import check_flow, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def jacobian_determinant(flow_vox: Array, *, out: Array | None = None, threads: int | None = None) -> Any:
    """Determinant of the Jacobian of ``p -> p + flow_vox[p]`` at every voxel.

    It is the local change of volume: 1 keeps it, 0 or less folds. Derivatives are central differences over
    two voxels inside and one-sided over one voxel at the borders; along an axis of one voxel they are 0.

    Args:
        flow_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or
            [N, 2, H, W] with (y, x).
        out: Where to write, float32 [N, D, H, W] or [N, H, W], C-contiguous, apart from ``flow_vox``.
        threads: How many threads may be used; as many as the process may run on by default.

    Returns:
        The determinant, dimensionless: ``out``, or a new array [N, D, H, W] or [N, H, W].

    Raises:
        KernelError: An argument is not as described.
    """
    where = "jacobian_determinant"
    flow = check_flow(flow_vox, "flow_vox", where=where)
    target = check_output(out, allocate(flow)[0], (flow,), where=where)
    OPERATOR.execute((flow,), (target,), threads=check_threads(threads, where=where))
    return like(target, flow_vox) if out is None else out


def folding_fraction(flow_vox: Array) -> float:
    """Share of voxels where ``p -> p + flow_vox[p]`` folds: the determinant is not positive, or not a number.

    Args:
        flow_vox: As for :func:`jacobian_determinant`.

    Returns:
        Between 0 and 1, over the whole batch.

    Raises:
        KernelError: ``flow_vox`` is not as described there.
    """
    return float(np.mean(~(jacobian_determinant(flow_vox) > 0)))


def _native(module: ModuleType, flow: Array, *, outputs: tuple[Array, ...], threads: int, isa: str) -> None:
    del module, threads, isa
    with np.errstate(invalid="ignore", over="ignore"):
        for sample, determinant in zip(flow, outputs[0], strict=True):
            determinant[...] = _determinant(_jacobian(sample))


def reference(flow_vox: Array) -> tuple[Doubles]:
    """The definition in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        return (np.stack([_determinant(_jacobian(sample)) for sample in as_doubles(flow_vox)]),)


def allocate(flow_vox: Array) -> tuple[Floats]:
    """A new array for the result."""
    return (np.empty((flow_vox.shape[0], *flow_vox.shape[2:]), np.float32),)


_Matrix = list[list[npt.NDArray[np.floating]]]


def _jacobian(flow: npt.NDArray[np.floating]) -> _Matrix:
    """Rows are components, columns are axes."""
    identity = np.eye(len(flow), dtype=flow.dtype)
    return [
        [_derivative(component, axis) + identity[row, axis] for axis in range(len(flow))]
        for row, component in enumerate(flow)
    ]


def _derivative(values: npt.NDArray[np.floating], axis: int) -> npt.NDArray[np.floating]:
    if values.shape[axis] == 1:
        return np.zeros_like(values)
    return np.gradient(values, axis=axis)  # type: ignore[no-any-return]


def _determinant(m: _Matrix) -> npt.NDArray[np.floating]:
    if len(m) == 2:
        return m[0][0] * m[1][1] - m[0][1] * m[1][0]
    minors = [m[1][(i + 1) % 3] * m[2][(i + 2) % 3] - m[1][(i + 2) % 3] * m[2][(i + 1) % 3] for i in range(3)]
    return m[0][0] * minors[0] + m[0][1] * minors[1] + m[0][2] * minors[2]


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """One-voxel and two-voxel axes and odd sizes, with every displacement."""
    shapes = (
        (1, 3, 1, 1, 1),
        (2, 3, 2, 3, 5),
        (1, 3, 1, 7, 9),
        (1, 3, 7, 9, 17),
        (1, 2, 1, 5),
        (2, 2, 11, 13),
    )
    for shape in shapes:
        for label, flow in displacements(rng, shape):
            yield Case(f"{label} {shape}", (flow,))


OPERATOR = Operator(
    name="jacobian_determinant",
    function=jacobian_determinant,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-6,
    cases=cases,
)
