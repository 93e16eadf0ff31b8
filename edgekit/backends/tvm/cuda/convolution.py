"""What a convolution on tensor cores computes, how it is cut into tiles, and its weights' order in memory.

:mod:`edgekit.backends.tvm.cuda.gemm` writes the kernels. Tensors are ``N[D][H]WC``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from edgekit.backends.tvm.cuda.kernel import ACCESS_BYTES, WARP
from edgekit.backends.tvm.loops import Expr, ceil_div, product
from edgekit.spec import Array

STEP_BYTES = 64  # of each operand's rows, in a stage
CHUNKS = STEP_BYTES // ACCESS_BYTES  # of 16 bytes, in them
STAGES = 3  # steps that are in shared memory at a time
SIZES = {"float16": 2, "int8": 1, "float32": 4}
# As many blocks as keep the 16 to 20 multiprocessors of the boards at work twice over.
_BLOCKS = 40


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of images of three axes, of which those that an image has not are of length 1.

    Attributes:
        batch: Images.
        channels: Input and output channels.
        image: The input's D, H, W.
        out: The output's D, H, W.
        kernel: Its D, H, W.
        stride: Steps between outputs; of a transposed convolution, between what inputs add to.
        pad: What is cut off (transposed) or added (else) before the first position.
        dilation: Steps between taps; 1 for transposed convolutions.
        transposed: Whether it is one.
        dtype: Of the input and the weights: float16, float32 or int8.
        out_dtype: Of the output.
        tf32: Whether float32 is rounded to TF32.
        axes: How many of D, H, W the tensors have; those before are of length 1.
        tile: What a block computes; None for the rule's, :func:`tile_of`.
    """

    batch: int
    channels: tuple[int, int]
    image: tuple[int, int, int]
    out: tuple[int, int, int]
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int] = (1, 1, 1)
    pad: tuple[int, int, int] = (0, 0, 0)
    dilation: tuple[int, int, int] = (1, 1, 1)
    transposed: bool = False
    dtype: str = "float16"
    out_dtype: str = "float16"
    tf32: bool = False
    axes: int = 3
    tile: Tile | None = None

    @property
    def phases(self) -> tuple[int, int, int]:
        """Into how many convolutions each axis falls apart."""
        return self.stride if self.transposed else (1, 1, 1)

    @property
    def taps(self) -> tuple[int, int, int]:
        """Of each phase."""
        d, h, w = (ceil_div(k, p) for k, p in zip(self.kernel, self.phases, strict=True))
        return d, h, w

    @property
    def positions(self) -> tuple[int, int, int]:
        """Outputs of each phase; the last ones may lie outside."""
        d, h, w = (ceil_div(o, p) for o, p in zip(self.out, self.phases, strict=True))
        return d, h, w

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of the input."""
        return (self.batch, *self.image[3 - self.axes :], self.channels[0])

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Of the output."""
        return (self.batch, *self.out[3 - self.axes :], self.channels[1])

    @property
    def element_bytes(self) -> int:
        """Of the input."""
        return SIZES[self.dtype]

    @property
    def depth(self) -> int:
        """Products summed for an output."""
        return product(self.taps) * self.channels[0]

    @property
    def steps(self) -> int:
        """Stages of 64 bytes that cover the depth."""
        return ceil_div(self.depth * self.element_bytes, STEP_BYTES)

    @property
    def chunked(self) -> bool:
        """Whether the input's channels fill 16 bytes."""
        return self.channels[0] * self.element_bytes % ACCESS_BYTES == 0


@dataclasses.dataclass(frozen=True)
class Tile:
    """A block's work: ``rows`` positions of ``columns`` channels, by ``across[0] * across[1]`` warps."""

    rows: int
    columns: int
    across: tuple[int, int]

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * product(self.across)

    @property
    def warp(self) -> tuple[int, int]:
        """What a warp computes."""
        return self.rows // self.across[0], self.columns // self.across[1]

    @property
    def stage_bytes(self) -> int:
        """Of both operands."""
        return (self.rows + self.columns) * STEP_BYTES

    @property
    def staging(self) -> int:
        """Numbers from row to row of a warp's sums in shared memory: 8 more, and no bank is asked twice."""
        return self.warp[1] + 8

    @property
    def shared_bytes(self) -> int:
        """The stages; when they are done, a warp's 16 rows of sums."""
        return max(STAGES * self.stage_bytes, product(self.across) * 16 * self.staging * 4)


# From large to small: each warp has 64x32, then 32x32, then 32x16 and 16x16 sums.
TILES = (
    Tile(128, 128, (2, 4)),
    Tile(128, 64, (2, 2)),
    Tile(64, 64, (2, 2)),
    Tile(128, 32, (4, 1)),
    Tile(64, 32, (2, 1)),
    Tile(128, 16, (4, 1)),
    Tile(32, 16, (2, 1)),
)


def tile_of(problem: Convolution) -> Tile:
    """The rule: the widest tile that output channels fill, as tall as leaves enough blocks for the GPU.

    Wider than the channels is wasted work; of two that waste nothing, the wider reads the image less often.
    """
    if problem.tile:
        return problem.tile
    rows, columns = problem.batch * product(problem.positions), problem.channels[1]
    least = min(ceil_div(columns, tile.columns) * tile.columns for tile in TILES)
    fitting = [tile for tile in TILES if ceil_div(columns, tile.columns) * tile.columns == least]
    if least > 64:  # a few columns more are cheaper than reading the image again
        fitting = [t for t in TILES if ceil_div(columns, t.columns) * t.columns <= least * 9 // 8]
    for tile in fitting:
        if ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns) * product(problem.phases) >= _BLOCKS:
            return tile
    return fitting[-1]


def packed_shape(problem: Convolution) -> tuple[int, ...]:
    """Of the packed weights: phases, tiles of columns, steps, columns of a tile, numbers of a step."""
    tile = tile_of(problem)
    return (
        product(problem.phases),
        ceil_div(problem.channels[1], tile.columns),
        problem.steps,
        tile.columns,
        STEP_BYTES // problem.element_bytes,
    )


def pack(problem: Convolution, weights: Array) -> Array:
    """Weights in the order blocks copy them, with zeros where tiles or steps end beyond them.

    Args:
        problem: The convolution.
        weights: ``(out, in, D, H, W)``, or ``(in, out, D, H, W)`` of a transposed one, of the problem's type.

    Returns:
        Of :func:`packed_shape`. The four chunks of 16 bytes in a column stand as shared memory wants them
        (:func:`_swizzled`).
    """
    whole = _phases_of(problem, np.swapaxes(weights, 0, 1)) if problem.transposed else weights[None]
    phases, tiles, steps, columns, numbers = packed_shape(problem)
    matrix = np.moveaxis(whole, 2, -1).reshape(phases, problem.channels[1], problem.depth)
    full = np.zeros((phases, tiles * columns, steps * numbers), problem.dtype)
    full[:, : matrix.shape[1], : matrix.shape[2]] = matrix
    chunks = full.reshape(phases, tiles, columns, steps, CHUNKS, numbers // CHUNKS).swapaxes(2, 3)
    column = np.arange(columns)[:, None]
    order = np.arange(CHUNKS)[None] ^ (column >> 1 & 3)
    packed: Array = np.ascontiguousarray(chunks[:, :, :, column, order])
    return packed.reshape(packed_shape(problem))


def _phases_of(problem: Convolution, weights: Array) -> Array:
    """``(phases, out, in, taps)``: the taps that meet an output of each phase, the last input first."""
    out = np.zeros((product(problem.phases), *weights.shape[:2], *problem.taps), weights.dtype)
    for number, phase in enumerate(itertools.product(*map(range, problem.phases))):
        part = weights
        for axis, (first, pad, stride) in enumerate(zip(phase, problem.pad, problem.stride, strict=True)):
            part = np.moveaxis(np.moveaxis(part, axis + 2, 0)[(first + pad) % stride :: stride], 0, axis + 2)
        d, h, w = part.shape[2:]
        out[number, :, :, :d, :h, :w] = part
    return out[:, :, :, ::-1, ::-1, ::-1]


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """What becomes of a sum before it is stored, in float32.

    Attributes:
        channel_inputs: Names of vectors of one number for each output channel: bias, scale, slope.
        tensor_inputs: Names of tensors of the output's shape and type.
        compute: From the sum (float32; int32 for int8) and the inputs' numbers, in order, to the result.
    """

    channel_inputs: tuple[str, ...] = ()
    tensor_inputs: tuple[str, ...] = ()
    compute: Callable[..., Expr] = lambda value: value
