"""Move points through a displacement field."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_flow, check_input, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, FAR_VOX, sample
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def warp_points(
    points_vox: Array,
    flow_vox: Array,
    *,
    boundary: str = "edge",
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Displace points: ``point + flow_vox[point]``, the flow interpolated linearly.

    ``warp(image, flow_vox)`` shows at ``p`` what the image has at ``warp_points(p)``: landmarks of the fixed
    image go to where they are in the moving one.

    Args:
        points_vox: float32 [N, P, 3] with components (z, y, x) in voxels of the flow's grid, or [N, P, 2]
            with (y, x). A NaN in any component makes the whole point NaN.
        flow_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or
            [N, 2, H, W].
        boundary: How the flow goes on outside its grid: ``"edge"``, ``"zero"``, ``"mirror"``,
            ``"reflect"`` or ``"wrap"``. Under the last three, components beyond 2^20
            voxels find the flow there.
        out: Where to write, float32 and shaped like ``points_vox``, C-contiguous, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array of the shape of ``points_vox``.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "warp_points"
    points = check_input(points_vox, "points_vox", where=where, ranks=(3,))
    flow = check_flow(flow_vox, "flow_vox", where=where)
    if points.shape[0] != flow.shape[0] or points.shape[2] != flow.shape[1]:
        raise KernelError(
            f"points_vox: want shape [{flow.shape[0]}, P, {flow.shape[1]}] for flow_vox {flow.shape}, got"
            f" {points.shape}",
            where=where,
        )
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, points, (points, flow), where=where)
    count = check_threads(threads, where=where)
    OPERATOR.execute((points, flow), (target,), threads=count, boundary=boundary)
    return like(target, points_vox) if out is None else out


def _native(
    module: ModuleType,
    points: Array,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    boundary: str,
) -> None:
    module.warp_points(points, flow, outputs[0], boundary=boundary, threads=threads, isa=isa)


def reference(points_vox: Array, flow_vox: Array, *, boundary: str = "edge") -> tuple[Doubles]:
    """The definition in float64."""
    points = as_doubles(np.moveaxis(points_vox, -1, 1))
    # Nothing changes far outside a flow that is extended by zeros or its edge.
    limit = FAR_VOX if boundary not in ("zero", "edge") else max(flow_vox.shape[2:]) + 4.0
    flow = sample(flow_vox, np.clip(points, -limit, limit), 1, boundary)
    return (np.moveaxis(points + flow, 1, -1),)


def allocate(points_vox: Array, flow_vox: Array, **options: object) -> tuple[Floats]:
    """A new array for the result."""
    del flow_vox, options
    return (np.empty(points_vox.shape, np.float32),)


# Numbers of points around the vectors and the block; one-voxel axes.
_CASES = (
    (1, (3, 4, 5)),
    (7, (1, 1, 1)),
    (17, (4, 1, 6)),
    (300, (5, 7, 1)),
    (5000, (11, 13, 17)),
    (8, (7, 9)),
    (257, (1, 5)),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Points inside, around, on voxels, far away and unknown, with two flows and every boundary."""
    for number, (count, grid) in enumerate(_CASES):
        shape = (1 + number % 2, count, len(grid))
        inside = rng.uniform(0, np.array(grid) - 0.99, shape)
        far = rng.choice([np.nan, np.inf, -np.inf, 0.5], shape)
        for flow_label, flow in displacements(rng, (shape[0], len(grid), *grid)):
            if flow_label not in ("smooth", "halves"):
                continue
            for label, points in (
                ("inside", inside),
                ("around", 4 * inside - np.array(grid)),
                ("voxels", np.rint(inside)),
                ("far", far),
            ):
                for boundary in BOUNDARIES:
                    name = f"{label} {shape} {flow_label} {grid} {boundary}"
                    yield Case(name, (points.astype(np.float32), flow), {"boundary": boundary})


OPERATOR = Operator(
    name="warp_points",
    function=warp_points,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=6e-7,
    cases=cases,
    numba="edgekit.kernels.numba.points:run",
)
