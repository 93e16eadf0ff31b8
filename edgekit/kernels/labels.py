"""Pull a label map through a displacement field."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.kernels.base import Case, Doubles, Operator
from edgekit.kernels.checks import LABELS, check_choice, check_flow, check_input, check_output, check_threads
from edgekit.kernels.exchange import like
from edgekit.kernels.interpolation import BOUNDARIES, Corner, corners, displaced, known
from edgekit.kernels.warp import displacements
from edgekit.spec import Array

METHODS = ("nearest", "linear")


def warp_labels(
    labels: Array,
    flow_vox: Array,
    *,
    method: str = "nearest",
    boundary: str = "edge",
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """The label at ``p + flow_vox[p]`` for every voxel ``p``: always one of those around, never a mixture.

    Args:
        labels: Any integers or booleans, [N, C, D, H, W], or [N, C, H, W].
        flow_vox: Displacement in voxels, float32 [N, 3, D, H, W] with components (z, y, x), or [N, 2, H, W]
            with (y, x). A NaN in any component gives label 0.
        method: ``"nearest"`` takes the label of the nearest voxel, and halfway between two that of the one of
            higher index. ``"linear"`` takes the label of the largest weight in linear interpolation, which
            has smoother borders: what arg-max makes of the warped one-hot volume, without there being one. Of
            equal weights the smaller label wins; weights are float32, and labels whose weights differ by less
            than 1e-6 may count as equal or change places.
        boundary: As for :func:`edgekit.kernels.warp`; with ``"zero"`` every voxel outside has label 0.
        out: Where to write, shaped and typed like ``labels``, C-contiguous, apart from the inputs.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array of the shape and type of ``labels``.

    Raises:
        KernelError: An argument is not as described, or too large for a warp.
    """
    where = "warp_labels"
    source = check_input(labels, "labels", where=where, ranks=(4, 5), dtypes=LABELS)
    flow = check_flow(flow_vox, "flow_vox", where=where, image=source)
    check_choice(method, "method", METHODS, where=where)
    check_choice(boundary, "boundary", BOUNDARIES, where=where)
    target = check_output(out, source, (source, flow), where=where)
    workers = check_threads(threads, where=where)
    OPERATOR.execute((source, flow), (target,), threads=workers, method=method, boundary=boundary)
    return like(target, labels) if out is None else out


def _native(
    module: ModuleType,
    labels: Array,
    flow: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    method: str,
    boundary: str,
) -> None:
    module.warp_labels(
        labels, flow, outputs[0], linear=method == "linear", boundary=boundary, threads=threads, isa=isa
    )


def reference(
    labels: Array, flow_vox: Array, *, method: str = "nearest", boundary: str = "edge"
) -> tuple[Array]:
    """The definition: exact labels, weights in float64."""
    at, unknown = known(displaced(flow_vox, boundary))
    around = list(corners(at, labels.shape[2:], METHODS.index(method), boundary))
    found = np.stack([_labels_at(labels, corner) for corner in around])
    best, most = np.zeros_like(labels), np.zeros(labels.shape)
    for label in np.unique(found):  # ascending: a later one must have more
        weight: Doubles = np.zeros(labels.shape)
        for there, corner in zip(found, around, strict=True):
            weight += np.where(there == label, corner.weight[:, None], 0.0)
        best = np.where(weight > most, label, best)
        most = np.maximum(weight, most)
    return (np.where(unknown[:, None], labels.dtype.type(0), best),)


def _labels_at(labels: Array, corner: Corner) -> Array:
    places = np.broadcast_to(corner.flat[:, None], labels.shape).reshape(*labels.shape[:2], -1)
    found = np.take_along_axis(labels.reshape(places.shape), places, axis=2).reshape(labels.shape)
    return np.where(corner.outside[:, None], labels.dtype.type(0), found)


def allocate(labels: Array, flow_vox: Array, **options: object) -> tuple[Array]:
    """A new array for the result."""
    del flow_vox, options
    return (np.empty_like(labels),)


GRIDS = ((1, 1, 9), (3, 2, 17), (2, 1, 263), (11, 1, 5), (6, 5, 1), (23, 17, 41), (1, 8), (13, 17), (211, 61))


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Displacements in eighths, whose weights are exact in any precision; types vary along."""
    types = itertools.cycle(map(np.dtype, LABELS))
    for number, grid in enumerate(GRIDS):
        n, c = (1, 2)[number % 2], (1, 2)[number % 3 == 2]
        shifts = displacements(rng, (n, len(grid), *grid))
        for (label, flow), boundary, method in itertools.product(shifts, BOUNDARIES, METHODS):
            dtype = next(types)
            low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            labels = rng.choice(np.array([low, 0, 1, high], dtype), (n, c, *grid))
            with np.errstate(over="ignore"):
                eighths = np.where(np.abs(flow) < 1e6, np.rint(flow * 8) / 8, flow).astype(np.float32)
            options = {"method": method, "boundary": boundary}
            yield Case(f"{label} {dtype} {labels.shape} {options}", (labels, eighths), options)


# Labels are exact.
OPERATOR = Operator(
    name="warp_labels",
    function=warp_labels,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=0.0,
    cases=cases,
    numba="edgekit.kernels.numba.labels:run",
)
