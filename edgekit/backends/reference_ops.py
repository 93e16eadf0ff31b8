"""Operators in NumPy, for the reference backend: ours, and ONNX's that onnx's own evaluator is too slow at.

Every function accumulates in float64 and rounds once to the input's type, so that it can judge the others.
Semantics: the ONNX operator specification, with the largest opset of each operator. Arrays are
(N, C, spatial axes …) of any rank; attributes carry their ONNX names and meaning.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_grid_sample import GridSample as OnnxGridSample

from edgekit.graph import opset

Array = npt.NDArray[Any]
Ints = Sequence[int]

_BLOCK = 2048  # positions that are summed at once, so that the sum stays in the cache
_PLACES = 1 << 14  # places that are sampled at once, likewise


class Conv(OpRun):
    """Convolution: for every kernel element, the weights times the shifted image, summed."""

    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        *,
        auto_pad: str = "NOTSET",
        dilations: Ints | None = None,
        group: int = 1,
        kernel_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        kernel = w.shape[2:]
        rank = len(kernel)
        strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
        padding, out = window_geometry(x.shape[2:], kernel, strides, dilations, pads, auto_pad)
        y = np.empty((x.shape[0], w.shape[0], *out))
        weights = w.astype(np.float64).reshape(group, -1, *w.shape[1:])
        images = x.astype(np.float64).reshape(x.shape[0], group, -1, *x.shape[2:])
        filters = weights.shape[1]
        for n, g in itertools.product(range(x.shape[0]), range(group)):
            image = np.pad(images[n, g], [(0, 0), *padding])
            y[n, g * filters : (g + 1) * filters] = _correlate(image, weights[g], strides, dilations, out)
        return (_with_bias(y, b).astype(x.dtype),)


class ConvTranspose(OpRun):
    """Transposed convolution: every kernel element scatters one matrix product."""

    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        *,
        auto_pad: str = "NOTSET",
        dilations: Ints | None = None,
        group: int = 1,
        kernel_shape: Ints | None = None,
        output_padding: Ints | None = None,
        output_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        kernel, size = w.shape[2:], x.shape[2:]
        rank = len(kernel)
        strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
        reached = [
            s * (n - 1) + (k - 1) * d + 1 for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)
        ]
        extra = output_padding or (0,) * rank
        full = [r + e for r, e in zip(reached, extra, strict=True)]
        before, out = _transposed_geometry(size, full, strides, pads, auto_pad, output_shape)
        y = np.zeros((x.shape[0], group, w.shape[1], *full))
        inputs = x.astype(np.float64).reshape(x.shape[0], group, x.shape[1] // group, -1)
        weights = w.astype(np.float64).reshape(group, x.shape[1] // group, w.shape[1], -1)
        for index, target in enumerate(shifted_views(y, kernel, strides, dilations, size)):
            product = weights[..., index].transpose(0, 2, 1) @ inputs
            np.add(target, product.reshape(target.shape), out=target)
        y = _crop(y.reshape(x.shape[0], -1, *full), before, out)
        return (_with_bias(y, b).astype(x.dtype),)


class MaxPool(OpRun):
    """Largest element of each window, with its position where it is asked for."""

    def _run(
        self,
        x: Array,
        *,
        auto_pad: str = "NOTSET",
        ceil_mode: int = 0,
        dilations: Ints | None = None,
        kernel_shape: Ints = (),
        pads: Ints | None = None,
        storage_order: int = 0,
        strides: Ints | None = None,
    ) -> tuple[Array, ...]:
        rank = len(kernel_shape)
        strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
        padding, out = window_geometry(
            x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode)
        )
        lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
        widths = [(0, 0), (0, 0), *padding]
        views = shifted_views(
            np.pad(x, widths, constant_values=lowest), kernel_shape, strides, dilations, out
        )
        if len(self.onnx_node.output) < 2:
            y = next(views).copy()
            for view in views:
                np.maximum(y, view, out=y)
            return (y,)
        spatial = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:], order="F" if storage_order else "C")
        offsets = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * rank) * spatial.size
        places = shifted_views(np.pad(offsets + spatial, widths), kernel_shape, strides, dilations, out)
        y, indices = next(views).copy(), next(places).copy()
        for view, place in zip(views, places, strict=True):
            larger = view > y
            y[larger], indices[larger] = view[larger], place[larger]
        return y, indices


class AveragePool(OpRun):
    """Mean of each window."""

    def _run(
        self,
        x: Array,
        *,
        auto_pad: str = "NOTSET",
        ceil_mode: int = 0,
        count_include_pad: int = 0,
        dilations: Ints | None = None,
        kernel_shape: Ints = (),
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        rank = len(kernel_shape)
        strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
        geometry = (x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
        declared, _ = window_geometry(*geometry)
        padding, out = window_geometry(*geometry, ceil=bool(ceil_mode))
        widths = [(0, 0), (0, 0), *padding]
        padded = np.pad(x.astype(np.float64), widths)
        total = sum(shifted_views(padded, kernel_shape, strides, dilations, out))
        # What a ceiling adds at the end is never counted, declared padding only on request.
        counted = np.pad(np.ones(x.shape[2:]), declared, constant_values=float(bool(count_include_pad)))
        grown = [(0, after - known) for (_, after), (_, known) in zip(padding, declared, strict=True)]
        count = sum(shifted_views(np.pad(counted, grown), kernel_shape, strides, dilations, out))
        return (np.asarray(total / count).astype(x.dtype),)


class GridSample(OnnxGridSample):
    """Sampling at given places, any number of axes; onnx's own code does the cubic mode."""

    def _run(  # type: ignore[override]
        self,
        x: Array,
        grid: Array,
        *,
        align_corners: int = 0,
        mode: str = "linear",
        padding_mode: str = "zeros",
    ) -> tuple[Array]:
        if "cubic" in mode:
            cubic: tuple[Array] = super()._run(  # type: ignore[no-untyped-call]
                x, grid, mode=mode, padding_mode=padding_mode, align_corners=align_corners
            )
            return cubic
        rule = (bool(align_corners), mode == "nearest", padding_mode)
        places = grid.reshape(len(grid), -1, grid.shape[-1])
        y = np.empty((*x.shape[:2], places.shape[1]), x.dtype)
        images = np.moveaxis(x, 1, -1)
        for start in range(0, places.shape[1], _PLACES):
            block = slice(start, start + _PLACES)
            y[..., block] = np.moveaxis(_sampled(images, places[:, block], *rule), -1, 1)
        return (y.reshape(*x.shape[:2], *grid.shape[1:-1]),)


OVERRIDES: list[type[OpRun]] = [Conv, ConvTranspose, MaxPool, AveragePool, GridSample]


def _own(operator: opset.Operator) -> type[OpRun]:
    """An operator of domain ``edgekit`` as onnx's evaluator wants it."""

    def run(self: OpRun, *inputs: Array, **attributes: Any) -> tuple[Array]:
        # The evaluator has numbers of NumPy's.
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in attributes.items()
            if value is not None
        }
        return (operator.reference(*inputs, **given),)

    return type(operator.name, (OpRun,), {"op_domain": opset.DOMAIN, "_run": run})


# What onnx's evaluator is to use beside its own operators.
NEW_OPERATORS = [*OVERRIDES, *map(_own, opset.OPERATORS.values())]


def window_geometry(
    size: Ints,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: Ints | None,
    auto_pad: str,
    ceil: bool = False,
) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """Padding (before, after) and number of windows along each axis.

    With ``ceil`` a last window that begins inside the padded image counts even where it ends outside; the
    padding returned then covers it.
    """
    rank = len(size)
    pads = pads or (0,) * (2 * rank)
    padding, out = [], []
    for axis in range(rank):
        length, stride = size[axis], strides[axis]
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        before, after = pads[axis], pads[axis + rank]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max((math.ceil(length / stride) - 1) * stride + extent - length, 0)
            smaller = total // 2
            before, after = (
                (smaller, total - smaller) if auto_pad == "SAME_UPPER" else (total - smaller, smaller)
            )
        elif auto_pad == "VALID":
            before = after = 0
        room = length + before + after - extent
        count = (math.ceil(room / stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= length + before:
            count -= 1
        after += max(0, (count - 1) * stride - room)
        padding.append((before, after))
        out.append(count)
    return padding, tuple(out)


def shifted_views(padded: Array, kernel: Ints, strides: Ints, dilations: Ints, out: Ints) -> Iterator[Array]:
    """For each kernel element in row-major order, the view of what it touches in all windows."""
    for offset in itertools.product(*map(range, kernel)):
        axes = zip(offset, dilations, out, strides, strict=True)
        window = [slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in axes]
        index: tuple[Any, ...] = (..., *window)
        yield padded[index]


def _correlate(image: Array, weights: Array, strides: Ints, dilations: Ints, out: Ints) -> Array:
    """Correlate a padded image (C, axes …) with weights (K, C, kernel …): (K, out …).

    The image is split into one part for each remainder of a position by the stride. In a part's flat memory
    a kernel element is then one constant shift, and the product needs no copy of the shifted image.
    """
    channels, axes = image.shape[0], range(len(strides))
    grid = [-(-length // s) for length, s in zip(image.shape[1:], strides, strict=True)]
    steps = [math.prod(grid[axis + 1 :]) for axis in axes]
    size = math.prod(grid)
    reach = [(k - 1) * d // s for k, d, s in zip(weights.shape[2:], dilations, strides, strict=True)]
    tail = sum(r * step for r, step in zip(reach, steps, strict=True))
    parts = np.zeros((*strides, channels, size + tail))
    for remainder in itertools.product(*map(range, strides)):
        index = (slice(None), *(slice(r, None, s) for r, s in zip(remainder, strides, strict=True)))
        part = image[index]
        _crop(parts[remainder][:, :size].reshape(channels, *grid), (0,) * len(grid), part.shape[1:])[:] = part
    taps: list[tuple[Array, Array, int]] = []
    matrices = np.ascontiguousarray(weights.reshape(*weights.shape[:2], -1).transpose(2, 0, 1))
    for element in itertools.product(*map(range, weights.shape[2:])):
        at = [e * d for e, d in zip(element, dilations, strict=True)]
        shift = sum(a // s * step for a, s, step in zip(at, strides, steps, strict=True))
        remainder = tuple(a % s for a, s in zip(at, strides, strict=True))
        taps.append((matrices[len(taps)], parts[remainder], shift))
    y = np.zeros((weights.shape[0], size))
    for begin in range(0, size, _BLOCK):
        block = y[:, begin : begin + _BLOCK]
        for matrix, part, shift in taps:
            block += matrix @ part[:, begin + shift : begin + shift + block.shape[1]]
    return _crop(y.reshape(-1, *grid), (0,) * len(grid), out)


def _crop(array: Array, before: Ints, lengths: Ints) -> Array:
    """The view that begins at ``before`` and has ``lengths`` along the last axes."""
    index: tuple[Any, ...] = (..., *(slice(b, b + n) for b, n in zip(before, lengths, strict=True)))
    view: Array = array[index]
    return view


def _transposed_geometry(
    size: Ints, full: Ints, strides: Ints, pads: Ints | None, auto_pad: str, output_shape: Ints | None
) -> tuple[list[int], list[int]]:
    """What is cut off before, and the length that is left, along each axis."""
    rank = len(size)
    pads = pads or (0,) * (2 * rank)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and not output_shape:
        output_shape = [n * s for n, s in zip(size, strides, strict=True)]
    if not output_shape:
        if auto_pad == "VALID":
            pads = (0,) * (2 * rank)
        return list(pads[:rank]), [full[i] - pads[i] - pads[i + rank] for i in range(rank)]
    totals = [max(0, f - n) for f, n in zip(full, output_shape[-rank:], strict=True)]
    before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in totals]
    return before, list(output_shape[-rank:])


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.astype(np.float64).reshape(-1, *(1,) * (y.ndim - 2))


def _sampled(images: Array, places: Array, align_corners: bool, nearest: bool, padding_mode: str) -> Array:
    """Images (N, axes …, C) at places (N, P, axes): (N, P, C), NaN where a place is."""
    size = images.shape[1:-1]
    # A place's components count the image's axes from the last one.
    at = [
        _to_index(places[..., -1 - axis].astype(np.float64), length, align_corners, padding_mode)
        for axis, length in enumerate(size)
    ]
    unknown = np.logical_or.reduce([np.isnan(one) for one in at])
    at = [np.where(unknown, 0, one) for one in at]
    corners = [([np.rint(a) for a in at], np.ones(unknown.shape))] if nearest else _linear_corners(at)
    y = np.zeros((*unknown.shape, images.shape[-1]))
    batch = np.arange(len(images))[:, None]
    for corner, weight in corners:
        inside = np.logical_and.reduce([(c >= 0) & (c < n) for c, n in zip(corner, size, strict=True)])
        index = [np.clip(c, 0, n - 1).astype(np.intp) for c, n in zip(corner, size, strict=True)]
        place = (batch, *index)
        y += images[place] * (weight * inside)[..., None]
    y[unknown] = np.nan
    return y


def _to_index(place: Array, length: int, align_corners: bool, padding_mode: str) -> Array:
    """Places in -1 … 1 along one axis to positions in 0 … length - 1."""
    with np.errstate(
        invalid="ignore"
    ):  # an infinity is nowhere on an axis of one voxel, and has no reflection
        at = (place + 1) / 2 * (length - 1) if align_corners else ((place + 1) * length - 1) / 2
        if padding_mode == "border":
            return np.clip(at, 0, length - 1)
        if padding_mode == "reflection":
            low, span = (0.0, length - 1.0) if align_corners else (-0.5, float(length))
            if span == 0:
                return np.zeros_like(at)
            folded = np.abs(at - low) % (2 * span)
            return np.clip(low + np.minimum(folded, 2 * span - folded), 0, length - 1)
    # Anything further out reads zeros as well, and stays an integer that can be cast.
    return np.clip(at, -2, length + 1)


def _linear_corners(at: list[Array]) -> Iterator[tuple[list[Array], Array]]:
    """The 2ⁿ neighbours of each position, and their weights."""
    floors = [np.floor(a) for a in at]
    fractions = [a - f for a, f in zip(at, floors, strict=True)]
    for corner in itertools.product((0, 1), repeat=len(at)):
        weight = np.ones_like(at[0])
        for fraction, bit in zip(fractions, corner, strict=True):
            weight = weight * (fraction if bit else 1 - fraction)
        yield [f + bit for f, bit in zip(floors, corner, strict=True)], weight
