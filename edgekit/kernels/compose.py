"""Join two displacement fields into one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import check_choice, check_flow, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, displaced, sample
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def compose(
    first_vox: Array,
    second_vox: Array,
    *,
    boundary: str = "edge",
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """The displacement of moving by ``first_vox``, then by ``second_vox``.

    ``first_vox[p] + second_vox(p + first_vox[p])``, the second field interpolated linearly. Warping an image
    with the result pulls it through ``second_vox`` first: it is, up to interpolation,
    ``warp(warp(image, second_vox), first_vox)``.

    Args:
        first_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]
            with (y, x). A NaN in any component makes the whole displacement NaN there.
        second_vox: Another one of the same shape.
        boundary: What ``second_vox`` is outside the grid, as for an image: see :func:`edgekit.kernels.warp`.
        out: Where to write, float32 and shaped like ``first_vox``, C-contiguous, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        The displacement in voxels: ``out``, or a new array.

    Raises:
        KernelError: An argument is not as described, or too large for a warp.
    """
    where = "compose"
    first = check_flow(first_vox, "first_vox", where=where)
    second = check_flow(second_vox, "second_vox", where=where)
    if second.shape != first.shape:
        raise KernelError(
            f"second_vox: want the shape of first_vox, {first.shape}, got {second.shape}", where=where
        )
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, first, (first, second), where=where)
    workers = check_threads(threads, where=where)
    OPERATOR.execute((first, second), (target,), threads=workers, boundary=boundary)
    return like(target, first_vox) if out is None else out


def _native(
    module: ModuleType,
    first: Array,
    second: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    boundary: str,
) -> None:
    module.warp(second, first, outputs[0], boundary=boundary, add_flow=True, threads=threads, isa=isa)


def reference(first_vox: Array, second_vox: Array, *, boundary: str = "edge") -> tuple[Doubles]:
    """The definition in float64."""
    with np.errstate(invalid="ignore"):  # infinite displacements of opposite signs
        moved = sample(second_vox, displaced(first_vox, boundary), 1, boundary)
        return (as_doubles(first_vox) + moved,)


def allocate(first_vox: Array, second_vox: Array, **options: object) -> tuple[Floats]:
    """A new array for the result."""
    del second_vox, options
    return (np.empty_like(first_vox),)


GRIDS = ((1, 1, 1), (3, 2, 17), (2, 1, 263), (6, 5, 1), (23, 17, 41), (1, 8), (13, 17), (211, 61))


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every displacement before every boundary of a smooth one."""
    for number, grid in enumerate(GRIDS):
        shape = (1 + number % 2, len(grid), *grid)
        second = next(flow for label, flow in displacements(rng, shape) if label == "smooth")
        for (label, first), boundary in itertools.product(displacements(rng, shape), BOUNDARIES):
            yield Case(f"{label} {shape} {boundary}", (first, second), {"boundary": boundary})


# That of a warp and one more rounding.
OPERATOR = Operator(
    name="compose",
    function=compose,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-6,
    cases=cases,
    numba="edgekit.kernels.numba.sample:compose",
    numba_cuda="edgekit.kernels.numba.gpu:compose",
)
