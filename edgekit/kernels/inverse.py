"""Invert a displacement field."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import (
    check_choice,
    check_flow,
    check_integer,
    check_number,
    check_output,
    check_threads,
)
from edgekit.kernels.exchange import like
from edgekit.kernels.integrate import smooth_field
from edgekit.kernels.interpolation import BOUNDARIES, displaced, sample
from edgekit.kernels.warp import displacements
from edgekit.spec import Array

MAX_ITERATIONS = 1000


def invert(
    flow_vox: Array,
    *,
    iterations: int = 20,
    tolerance_vox: float = 1e-3,
    boundary: str = "edge",
    out: Array | None = None,
    threads: int | None = None,
) -> tuple[Any, Any]:
    """The displacement that undoes ``flow_vox``, and how far from doing so it is.

    Each voxel on its own begins with ``v = -flow_vox[p]`` and repeats ``v <- -flow_vox(p + v)`` until its
    residual ``v + flow_vox(p + v)`` is within the tolerance (Chen et al., 2008). Where the displacements of
    any two places differ by at most L < 1 times their distance, every iteration shrinks the residual by the
    factor L at least; elsewhere, as where the field folds, it need not shrink, and the residual says so. No
    memory but the result is used, which does not depend on the number of threads.

    Args:
        flow_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]
            with (y, x). Voxels whose search meets a NaN are NaN in the result.
        iterations: How often a voxel repeats the step at most, 0 to 1000.
        tolerance_vox: Largest residual in any component that is good enough, at least 0.
        boundary: What ``flow_vox`` is outside the grid, as for an image: see :func:`edgekit.kernels.warp`.
        out: Where to write, float32 and shaped like ``flow_vox``, C-contiguous, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        The inverse in voxels, ``out`` or a new array, and its residual: float32 [N], the largest component
        of ``v + flow_vox(p + v)`` in voxels, over all voxels ``p``. It is above ``tolerance_vox`` where some
        voxel had not converged, and NaN where one is NaN.

    Raises:
        KernelError: An argument is not as described, or too large for a warp.
    """
    where = "invert"
    flow = check_flow(flow_vox, "flow_vox", where=where)
    options = {
        "iterations": check_integer(iterations, "iterations", 0, MAX_ITERATIONS, where=where),
        "tolerance_vox": check_number(tolerance_vox, "tolerance_vox", 0.0, where=where),
        "boundary": boundary,
    }
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, flow, (flow,), where=where)
    residual = allocate(flow)[1]
    workers = check_threads(threads, where=where)
    OPERATOR.execute((flow,), (target, residual), threads=workers, **options)
    return like(target, flow_vox) if out is None else out, like(residual, flow_vox)


def _native(
    module: ModuleType,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    iterations: int,
    tolerance_vox: float,
    boundary: str,
) -> None:
    module.invert(
        flow,
        *outputs,
        iterations=iterations,
        tolerance=tolerance_vox,
        boundary=boundary,
        threads=threads,
        isa=isa,
    )


def reference(
    flow_vox: Array, *, iterations: int = 20, tolerance_vox: float = 1e-3, boundary: str = "edge"
) -> tuple[Doubles, Doubles]:
    """The definition in float64."""
    inverse = -as_doubles(flow_vox)

    def evaluate() -> tuple[Doubles, Doubles]:
        there = sample(flow_vox, displaced(inverse, boundary), 1, boundary)
        return there, np.abs(inverse + there).max(axis=1, keepdims=True)

    with np.errstate(invalid="ignore"):  # infinite displacements of opposite signs
        there, residual = evaluate()
        for _ in range(iterations):
            inverse = np.where(residual <= tolerance_vox, inverse, -there)
            there, residual = evaluate()
    return inverse, residual.reshape(len(flow_vox), -1).max(axis=1)


def allocate(flow_vox: Array, **options: object) -> tuple[Floats, Floats]:
    """New arrays for the results."""
    del options
    return np.empty_like(flow_vox), np.empty(len(flow_vox), np.float32)


GRIDS = ((1, 1, 1), (3, 2, 17), (2, 1, 263), (6, 5, 1), (23, 17, 41), (1, 8), (13, 17), (211, 61))


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Smooth fields until nothing changes; others for a step or none, as they make precisions part ways."""
    for number, grid in enumerate(GRIDS):
        shape = (1 + number % 2, len(grid), *grid)
        for boundary in BOUNDARIES:
            options = {"iterations": 12, "tolerance_vox": 0.0, "boundary": boundary}
            yield Case(f"smooth {shape} {boundary}", (smooth_field(rng, shape, amplitude=1.5),), options)
        for (label, flow), boundary in itertools.product(displacements(rng, shape), BOUNDARIES):
            # Whole displacements have whole residuals, which no rounding moves across the tolerance.
            tolerance = 1.5 if label == "whole" else 0.0
            iterations = 0 if label in ("rough", "outside", "special") else 1
            options = {"iterations": iterations, "tolerance_vox": tolerance, "boundary": boundary}
            yield Case(f"{label} {shape} {boundary}", (flow,), options)


# Each iteration stretches the error of the one before by the field's own stretching.
OPERATOR = Operator(
    name="invert",
    function=invert,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=5e-6,
    cases=cases,
    numba="edgekit.kernels.numba.inverse:run",
)
