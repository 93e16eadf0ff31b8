"""What sampling is told, and where the voxels of a row are sampled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgekit.kernels.checks import is_channels_last
from edgekit.kernels.interpolation import BOUNDARIES
from edgekit.kernels.numba.jit import inlined, part
from edgekit.kernels.numba.mathematics import Span, from_half, place, span_of
from edgekit.spec import Array

# Voxels of a row that are located at once.
BLOCK = 256
# In place of a float16 flow where there is a float32 one.
NO_HALVES = np.empty(0, np.uint16)
FLOW, GRID, AFFINE = range(3)

Triple = tuple[int, int, int]
Row = tuple[float, float, float, float]
_NO_ROW = (0.0, 0.0, 0.0, 0.0)


class Layout(NamedTuple):
    """Where the elements of an array [N, C, D, H, W] are; a plane has D = 1.

    Attributes:
        size: Of the grid.
        batch: Elements from one sample to the next.
        channel: From one channel to the next.
        step: From one voxel to the next along each axis.
        channels: How many there are.
    """

    size: Triple
    batch: int
    channel: int
    step: Triple
    channels: int


class Plan(NamedTuple):
    """What sampling is told, apart from the arrays.

    Attributes:
        dims: 3, or 2 for planes.
        order: 0, 1 or 3.
        boundary: Position in :data:`BOUNDARIES`.
        cubic: The parameter of cubic convolution.
        spans: See :func:`span_of`.
        image: What is sampled.
        out: What is written.
        source: What says where to sample: :data:`FLOW`, :data:`GRID` or :data:`AFFINE`.
        add: Whether the displacement is added to the sample.
        aligned: Of a grid: -1 and 1 are voxel centres.
        folded: Of a grid: coordinates are mirrored into the image.
        matrix: Of an affine map: rows z, y, x, columns z, y, x, 1.
    """

    dims: int
    order: int
    boundary: int
    cubic: float
    spans: tuple[Span, Span, Span]
    image: Layout
    out: Layout
    source: int
    add: bool
    aligned: bool
    folded: bool
    matrix: tuple[Row, Row, Row]


class Block(NamedTuple):
    """Where up to :data:`BLOCK` voxels of a row are sampled: lines per axis z, y, x, except the last.

    Attributes:
        shift: float32; the coordinate is whole + shift.
        whole: int32.
        first: int32, the first voxel that takes part.
        weight: float32, the coordinate's distance from it; NaN if it is NaN.
        values: float32, workspace: what is fetched.
    """

    shift: Any
    whole: Any
    first: Any
    weight: Any
    values: Any


def layout_of(array: Array) -> Layout:
    """The layout of a C-contiguous or channels-last array."""
    channels, voxels = array.shape[1], int(np.prod(array.shape[2:]))
    unit, channel = (channels, 1) if is_channels_last(array) else (1, voxels)
    depth, height, width = (1, *array.shape[2:])[-3:]
    step = (height * width * unit, width * unit, unit)
    return Layout((depth, height, width), channels * voxels, channel, step, channels)


def plan_of(
    image: Array,
    out: Array,
    order: int,
    boundary: str,
    *,
    cubic: float = -0.5,
    source: int = FLOW,
    add: bool = False,
    aligned: bool = False,
    folded: bool = False,
    matrix: tuple[Row, Row, Row] = (_NO_ROW, _NO_ROW, _NO_ROW),
) -> Plan:
    """The plan for sampling ``image`` into ``out``."""
    layout = layout_of(image)
    z, y, x = (span_of(size, order, boundary) for size in layout.size)
    return Plan(
        dims=image.ndim - 2,
        order=order,
        boundary=BOUNDARIES.index(boundary),
        cubic=cubic,
        spans=(z, y, x),
        image=layout,
        out=layout_of(out),
        source=source,
        add=add,
        aligned=aligned,
        folded=folded,
        matrix=matrix,
    )


@inlined
def row_of(row: int, plan: Plan) -> tuple[int, int, int]:
    """Sample, z and y of a row of the result."""
    depth, height, _ = plan.out.size
    return row // (depth * height), row // height % depth, row % height


@part
def new_block() -> Block:
    """Memory for a block; a plane leaves what belongs to z at 0."""
    return Block(
        np.zeros((3, BLOCK), np.float32),
        np.zeros((3, BLOCK), np.int32),
        np.zeros((3, BLOCK), np.int32),
        np.zeros((3, BLOCK), np.float32),
        np.zeros(BLOCK, np.float32),
    )


@part
def displace(
    flow: Any, halves: Any, n: int, z: int, y: int, x: int, count: int, plan: Plan, block: Block
) -> None:
    """Locate the block that begins at voxel (z, y, x) of sample ``n``. Of the two flows one is empty."""
    depth, height, width = plan.out.size
    for axis in range(3 - plan.dims, 3):
        component = n * plan.dims + axis - (3 - plan.dims)
        at = ((component * depth + z) * height + y) * width + x
        if len(halves) == 0:
            block.shift[axis, :count] = flow[at : at + count]
        else:
            for k in range(count):
                block.shift[axis, k] = from_half(halves[at + k])
        start = z if axis == 0 else y if axis == 1 else x
        for k in range(count):
            block.whole[axis, k] = start + k if axis == 2 else start
    locate(count, plan, block)


@part
def locate(count: int, plan: Plan, block: Block) -> None:
    """Place all coordinates of a block."""
    for axis in range(3 - plan.dims, 3):
        place(
            block.shift[axis],
            block.whole[axis],
            count,
            plan.spans[axis],
            block.first[axis],
            block.weight[axis],
        )
