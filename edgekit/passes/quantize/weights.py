"""Weights as bytes, a scale for each output; biases on the grid of the sums of products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.passes.quantize.layers import Layer, attribute, per_output
from edgekit.spec import Array

_LARGEST = 127
# Two bytes' products with 255 fit 16 bits where the bytes' sum is at most 128; rounding may add 1 to it.
_LARGEST_PAIR = 127
# Sums of products are 32 bits wide, of which the bias may take half.
_LARGEST_BIAS = 1 << 30

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Codes:
    """Weights in bytes: ``codes * scales`` along ``axis`` is what they stand for.

    Attributes:
        codes: int8, as long as the weights.
        scales: float32, one for each entry of the axis.
        axis: Which.
    """

    codes: npt.NDArray[np.int8]
    scales: _Floats
    axis: int

    def decoded(self) -> _Floats:
        """The numbers that the codes stand for, float32 as a runtime computes them."""
        return np.asarray(self.codes.astype(np.float32) * along(self.scales, self.codes.ndim, self.axis))


def encode(layer: Layer, *, bits: int, input_scales: tuple[float, ...] = ()) -> Codes:
    """Quantize symmetrically, one scale for each output.

    Args:
        layer: Whose weights.
        bits: 8, or 7 for those whose products in pairs fit 16 bits.
        input_scales: Scales of the images that the weights meet: a bias that needs more than 30 bits beside
            their products gets a coarser scale.
    """
    rows = per_output(layer.weights, layer.axis)
    largest = np.abs(rows).max((1, 2))
    scales = largest / _LARGEST
    if bits == 7:
        scales = np.maximum(scales, _largest_pair(rows) / _LARGEST_PAIR)
    if layer.bias is not None:
        least = np.abs(layer.bias.astype(np.float64)) / _LARGEST_BIAS
        # With groups one entry of a transposed convolution's axis stands for several outputs.
        least = least.reshape(-1, len(scales)).max(0)
        for scale in input_scales:
            scales = np.maximum(scales, least / scale)
    # A scale that float32 rounds down would put the largest weight just beyond the last byte.
    stored = np.where(scales > 0, scales, 1.0).astype(np.float32)
    exact = layer.weights.astype(np.float32) / along(stored, layer.weights.ndim, layer.axis)
    codes = np.clip(np.rint(exact), -_LARGEST, _LARGEST).astype(np.int8)
    return Codes(codes, stored, layer.axis)


def _largest_pair(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each output, the largest sum of two neighbours of one sign.

    Runtimes walk inputs innermost, in pairs; some pad an odd number of them with zero, some go on to the next
    tap, so both ways count.
    """
    outputs, inputs, _ = rows.shape
    taps_first = rows.transpose(0, 2, 1)
    padded = np.pad(taps_first, ((0, 0), (0, 0), (0, inputs % 2)))
    walked = taps_first.reshape(outputs, -1)
    walked = np.pad(walked, ((0, 0), (0, walked.shape[1] % 2)))
    largest = np.zeros(outputs)
    for ways in (padded.reshape(outputs, -1), walked):
        pairs = ways.reshape(outputs, -1, 2)
        for sign in (1, -1):
            largest = np.maximum(largest, np.maximum(sign * pairs, 0).sum(2).max(1))
    return largest


def shift(layer: Layer, codes: Codes, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """What rounding the weights adds to each output on average (Nagel et al. 2019, section 4.2).

    Args:
        layer: With its float32 weights.
        codes: The same, rounded.
        means: float64[C], the mean of each channel of the image.

    Returns:
        float64[outputs]; ``None`` where the image's channels are not the weights' inputs. What the border
        adds is left out: there some products are with zeros.
    """
    node, group = layer.node, layer.group
    error = codes.decoded().astype(np.float64) - layer.weights.astype(np.float64)
    if node.op_type == "Gemm":
        error = error if layer.axis == 0 else error.T
        return None if error.shape[1] != len(means) else error @ means
    if node.op_type == "MatMul":
        return None
    taps = error.reshape(*error.shape[:2], -1).sum(2)
    if node.op_type == "ConvTranspose":
        # Of a stride's phases each output sees one.
        taps /= np.prod(attribute(node, "strides", [1] * (error.ndim - 2)))
        taps = taps.reshape(group, -1, taps.shape[1]).transpose(0, 2, 1)
    else:
        taps = taps.reshape(group, -1, taps.shape[1])
    if group * taps.shape[2] != len(means):
        return None
    return np.asarray(np.einsum("goc,gc->go", taps, means.reshape(group, -1)).reshape(-1))


def on_grid(bias: Array, input_scale: float, scales: _Floats) -> _Floats:
    """A bias rounded to whole steps of the sums of products: every runtime then adds the very same number.

    Args:
        bias: float[outputs].
        input_scale: Scale of the image.
        scales: Those of the weights, one for each output or for each output of a group.
    """
    # In float32 and in this order, as ONNX Runtime computes it.
    steps = np.float32(input_scale) * np.tile(scales, len(bias) // len(scales))
    return np.asarray(np.rint(bias / steps.astype(np.float64)) * steps, np.float32)


def along(scales: _Floats, ndim: int, axis: int) -> _Floats:
    """Scales in a shape that spreads over a tensor's axis."""
    return scales.reshape([-1 if place == axis else 1 for place in range(ndim)])
