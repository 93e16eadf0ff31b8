"""How a displacement field changes volume, and where it folds."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.kernels.base import Case, Operator, as_doubles
from edgekit.kernels.checks import FLOATS, check_flag, check_flow, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.warp import displacements
from edgekit.spec import Array


def jacobian_determinant(
    flow_vox: Array, *, return_folding: bool = False, out: Array | None = None, threads: int | None = None
) -> Any:
    """Determinant of the Jacobian of ``p -> p + flow_vox[p]`` at every voxel.

    It is the local change of volume: 1 keeps it, 0 or less folds. Derivatives are central differences over
    two voxels inside and one-sided over one voxel at the borders; along an axis of one voxel they are 0. All
    is float32, so that sums and products beyond its range are infinite or not a number. The result depends
    neither on the number of threads nor on the instruction set.

    Args:
        flow_vox: Displacement in voxels, float32 or float16 [N, 3, D, H, W] with components (z, y, x), or
            [N, 2, H, W] with (y, x). C-contiguous: channels-last fields are refused.
        return_folding: Whether to count, in the same pass, the voxels of each sample that fold: those whose
            determinant is not positive, or not a number.
        out: Where to write, float32 [N, D, H, W] or [N, H, W], C-contiguous, apart from ``flow_vox``.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new float32 array [N, D, H, W] or [N, H, W]. With ``return_folding`` a pair: that, and
        the counts, int64 [N].

    Raises:
        KernelError: An argument is not as described.
    """
    where = "jacobian_determinant"
    flow = check_flow(flow_vox, "flow_vox", where=where, dtypes=FLOATS)
    counted = check_flag(return_folding, "return_folding", where=where)
    workers = check_threads(threads, where=where)
    target = check_output(out, (_grid_of(flow), np.float32), (flow,), where=where)
    counts = np.empty(len(flow), np.int64)
    results = (target, counts) if counted else (target,)
    OPERATOR.execute((flow,), results, threads=workers, return_folding=counted)
    determinant = like(target, flow_vox) if out is None else out
    return (determinant, like(counts, flow_vox)) if counted else determinant


def folding_fraction(flow_vox: Array, *, threads: int | None = None) -> float:
    """Share of voxels where ``p -> p + flow_vox[p]`` folds: the determinant is not positive, or not a number.

    No volume of determinants is ever in memory.

    Args:
        flow_vox: As for :func:`jacobian_determinant`.
        threads: As there.

    Returns:
        Between 0 and 1, over the whole batch.

    Raises:
        KernelError: An argument is not as described there.
    """
    where = "folding_fraction"
    flow = check_flow(flow_vox, "flow_vox", where=where, dtypes=FLOATS)
    workers = check_threads(threads, where=where)
    counts = np.empty(len(flow), np.int64)
    OPERATOR.execute((flow,), (counts,), threads=workers, return_folding=True, return_determinant=False)
    return float(counts.sum() / (flow.size // flow.shape[1]))


# The options below have one more, which folding_fraction() needs: whether the determinant is a result.


def _native(
    module: ModuleType,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    return_folding: bool = False,
    return_determinant: bool = True,
) -> None:
    determinant = outputs[0][:, None] if return_determinant else None
    folding = outputs[-1] if return_folding else None
    module.jacobian_determinant(flow, determinant, folding, threads=threads, isa=isa)


def reference(
    flow_vox: Array, *, return_folding: bool = False, return_determinant: bool = True
) -> tuple[Array, ...]:
    """The definition in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        determinant = np.stack([_determinant(_jacobian(sample)) for sample in as_doubles(flow_vox)])
    folding = np.count_nonzero(~(determinant > 0), axis=tuple(range(1, determinant.ndim)))
    results = ((return_determinant, determinant), (return_folding, folding.astype(np.int64)))
    return tuple(result for wanted, result in results if wanted)


def allocate(flow_vox: Array, *, return_folding: bool = False) -> tuple[Array, ...]:
    """A new array for each result."""
    determinant = np.empty(_grid_of(flow_vox), np.float32)
    return (determinant, np.empty(len(flow_vox), np.int64)) if return_folding else (determinant,)


def _grid_of(flow: Array) -> tuple[int, ...]:
    return (flow.shape[0], *flow.shape[2:])


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


# Widths around 4, 8 and 16 lanes, one-voxel and two-voxel axes, odd primes; the last of each rank is large
# enough for several tasks along y, those of volumes also along z.
_GRIDS = (
    *((1, 1, w) for w in (1, 2, 8)),
    *((2, 3, w) for w in (1, 2, 3, 4, 5, 7, 8, 9)),
    *((3, 2, w) for w in (15, 16, 17, 31, 32, 33)),
    *((1, 7, 9), (7, 1, 9), (9, 7, 1), (7, 9, 61), (19, 37, 257)),
    *((1, w) for w in (1, 5, 33)),
    *((5, 1), (11, 13), (2, 67), (257, 521)),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every grid with every displacement; batches, types and the count of folds vary along.

    Folds of fields with infinities are not counted here: what overflows in float32 need not in float64.
    """
    for number, grid in enumerate(_GRIDS):
        n, dtype = (1, 2)[number % 2], (np.float32, np.float32, np.float16)[number % 3]
        for turn, (label, flow) in enumerate(displacements(rng, (n, len(grid), *grid))):
            counted = (number + turn) % 2 == 1 and label != "special"
            with np.errstate(over="ignore"):
                stored = flow.astype(dtype)
            name = f"{label} {stored.shape} {stored.dtype} {'counted' if counted else ''}"
            yield Case(name, (stored,), {"return_folding": counted})


OPERATOR = Operator(
    name="jacobian_determinant",
    function=jacobian_determinant,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-6,
    cases=cases,
    numba="edgekit.kernels.numba.jacobian:determinant",
    numba_cuda="edgekit.kernels.numba.gpu:determinant",
)
