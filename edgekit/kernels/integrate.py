"""Integrate a stationary velocity field."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_flow, check_integer, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, displaced, sample
from edgekit.spec import Array

MAX_STEPS = 32


def integrate_velocity(
    velocity_vox: Array,
    *,
    steps: int = 7,
    boundary: str = "edge",
    out: Array | None = None,
    workspace: Array | None = None,
    threads: int | None = None,
) -> Any:
    """Displacement after following a stationary velocity for one unit of time, by scaling and squaring.

    Starting from ``u = velocity_vox / 2**steps``, ``steps`` times ``u[p] <- u[p] + u(p + u[p])``: the field
    composed with itself (Arsigny et al., 2006), each time as by :func:`edgekit.kernels.compose`.

    Args:
        velocity_vox: Velocity in voxels per unit of time, float32 [N, 3, D, H, W] with components (z, y, x),
            or [N, 2, H, W] with (y, x).
        steps: How often the field is composed with itself, 0 to 32.
        boundary: What ``u`` is outside the grid, as for an image: see :func:`edgekit.kernels.warp`.
        out: Where to write, float32 and shaped like ``velocity_vox``, C-contiguous, apart from it.
        workspace: Memory for one more field, as described for ``out`` and apart from it, for callers that
            integrate again and again. Without it a field is allocated while it runs, if there are 2 or more
            steps.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        The displacement in voxels: ``out``, or a new array.

    Raises:
        KernelError: An argument is not as described, or too large for :func:`edgekit.kernels.warp`.
    """
    where = "integrate_velocity"
    velocity = check_flow(velocity_vox, "velocity_vox", where=where)
    count = check_integer(steps, "steps", 0, MAX_STEPS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, velocity, (velocity,), where=where)
    spare = None
    if workspace is not None:
        spare = check_output(workspace, velocity, (velocity, target), where=where, name="workspace")
    workers = check_threads(threads, where=where)
    options = {"steps": count, "boundary": boundary, "workspace": spare}
    OPERATOR.execute((velocity,), (target,), threads=workers, **options)
    return like(target, velocity_vox) if out is None else out


def _native(
    module: ModuleType,
    velocity: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    steps: int,
    boundary: str,
    workspace: Array | None = None,
) -> None:
    (out,) = outputs
    if isa == "cuda":
        module.gpu_integrate_velocity(velocity, out, steps=steps, boundary=boundary)
        return
    if steps == 0:
        out[...] = velocity
        return
    spare = workspace
    if spare is None:
        spare = np.empty_like(out) if steps > 1 else out
    # Two buffers take turns, beginning so that the last composition lands in `out`. The first one scales.
    field, scale = velocity, 2.0**-steps
    for step in range(steps):
        following = spare if (steps - step) % 2 == 0 else out
        module.warp(
            field,
            field,
            following,
            boundary=boundary,
            add_flow=True,
            scale=scale,
            threads=threads,
            isa=isa,
        )
        field, scale = following, 1.0


def reference(
    velocity_vox: Array, *, steps: int = 7, boundary: str = "edge", workspace: object = None
) -> tuple[Doubles]:
    """The definition in float64."""
    del workspace
    field: Doubles = as_doubles(velocity_vox) / 2**steps
    for _ in range(steps):
        field = field + sample(field, displaced(field, boundary), 1, boundary)
    return (field,)


def allocate(velocity_vox: Array, **options: object) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (np.empty_like(velocity_vox),)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], amplitude: float) -> Floats:
    """Three random plane waves per component, none shorter than 12 voxels."""
    grid = np.indices(shape[2:])
    field = np.zeros(shape)
    for n, component in np.ndindex(*shape[:2]):
        for _ in range(3):
            direction = rng.uniform(-1, 1, len(grid)) / (2 * np.sqrt(len(grid)))
            wave = np.tensordot(direction, grid, 1) + rng.uniform(0, 2 * np.pi)
            field[n, component] += amplitude / 3 * np.sin(wave)
    return field.astype(np.float32)


_STEPS = (
    (0, "edge"),
    (1, "zero"),
    (4, "edge"),
    (7, "edge"),
    (7, "zero"),
    (6, "mirror"),
    (5, "reflect"),
    (7, "wrap"),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Smooth velocities, as rough ones make any two precisions part ways; and one with a NaN."""
    shapes = (
        (1, 3, 5, 6, 7),
        (2, 3, 4, 1, 9),
        (1, 3, 17, 23, 61),
        (1, 2, 9, 17),
        (2, 2, 1, 8),
        (1, 2, 150, 131),
    )
    for shape in shapes:
        for steps, boundary in _STEPS:
            field = smooth_field(rng, shape, amplitude=3)
            yield Case(
                f"smooth {shape} steps {steps} {boundary}", (field,), {"steps": steps, "boundary": boundary}
            )
    field = smooth_field(rng, (1, 3, 6, 7, 9), amplitude=1)
    field[0, 1, 2, 3, 4] = np.nan
    yield Case("one NaN", (field,), {"steps": 2, "boundary": "edge"})


# Each composition stretches the error of the one before by the field's own stretching.
OPERATOR = Operator(
    name="integrate_velocity",
    function=integrate_velocity,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=2e-6,
    cases=cases,
    numba="edgekit.kernels.numba.sample:integrate",
    numba_cuda="edgekit.kernels.numba.gpu:integrate",
)
