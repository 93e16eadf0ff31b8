"""How a displacement field changes volume, and where it folds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgekit.kernels.base import (
    Case,
    Doubles,
    Floats,
    Operator,
    Variant,
    as_doubles,
    check_flow,
    check_output,
    check_threads,
)
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def jacobian_determinant(flow_vox: Array, *, out: Array | None = None, threads: int | None = None) -> Floats:
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
    flow = check_flow(flow_vox, "flow_vox", where="jacobian_determinant")
    shape = (flow.shape[0], *flow.shape[2:])
    target = check_output(out, shape, (flow,), where="jacobian_determinant")
    _numpy(flow, out=target, threads=check_threads(threads, where="jacobian_determinant"))
    return target


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


def _numpy(flow: Floats, *, out: Floats, threads: int) -> None:
    del threads  # NumPy's arithmetic uses one
    with np.errstate(invalid="ignore", over="ignore"):
        for sample, determinant in zip(flow, out, strict=True):
            determinant[...] = _determinant(_jacobian(sample))


def reference(flow_vox: Array) -> Doubles:
    """The definition in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.stack([_determinant(_jacobian(sample)) for sample in as_doubles(flow_vox)])


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
    "jacobian_determinant",
    jacobian_determinant,
    reference,
    cases,
    (Variant("numpy", _numpy, tolerance=1e-6, missing=lambda: ""),),
)
