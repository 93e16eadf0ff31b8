"""A transposed convolution as a convolution whose channels become the voxels between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.builder import Builder, annotate, attribute, constant, static_shape
from edgekit.spec import Array
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir


class SubpixelPass(Pass):
    """ConvTranspose with a stride becomes Conv, and its channels are put between the voxels.

    Voxel ``s n + r`` of the result is made of a few voxels around ``n`` with the weights of phase ``r``: one
    convolution makes all phases as channels. Where the window is as long as the stride, as in most decoders,
    that is a convolution of 1 with the very same products; a longer one is padded with zeros. Results differ
    by rounding. For networks that are quantized afterwards: TensorRT computes a transposed convolution of a
    volume in float16 where its neighbours are in int8, and the accelerator takes none with padding.
    """

    name = "subpixel"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        if not any(node.op_type == "ConvTranspose" for node in graph.model.graph):
            return PassResult(graph, False)
        model = graph.edit()
        annotate(graph, model)
        own = model.opset_imports.get("", 0)
        written = 0
        for node in list(model.graph):
            geometry = _geometry(node)
            if geometry is not None:
                _write(Builder(model.graph, node, own), geometry)
                written += 1
        if not written:
            return PassResult(graph, False)
        common.RemoveUnusedNodesPass()(model)
        common.NameFixPass()(model)
        plural = "transposed convolutions" if written > 1 else "transposed convolution"
        note = f"{written} {plural} as convolutions"
        return PassResult(graph.with_model(model, f"subpixel: {note}"), True, (note,))


@dataclass(frozen=True)
class _Geometry:
    """Weights [C, K, …]; strides, padding before, lengths of image and result along each axis."""

    weights: Array
    strides: tuple[int, ...]
    before: tuple[int, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]


def _geometry(node: ir.Node) -> _Geometry | None:
    if node.op_type != "ConvTranspose" or node.domain:
        return None
    weights, shape, made = constant(node, 1), static_shape(node.inputs[0]), static_shape(node.outputs[0])
    bias_computed = len(node.inputs) > 2 and node.inputs[2] is not None and constant(node, 2) is None
    if weights is None or shape is None or made is None or bias_computed:
        return None
    axes = weights.ndim - 2
    strides = tuple(attribute(node, "strides", [1] * axes))
    pads = attribute(node, "pads", [0] * 2 * axes)
    plain = (
        attribute(node, "group", 1) == 1
        and set(attribute(node, "dilations", [1])) == {1}
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
        and "output_shape" not in node.attributes
    )
    whole = all(length % stride == 0 for length, stride in zip(made[2:], strides, strict=True))
    # A result of rank 5 has 8 axes on its way, and TensorRT has no more.
    if not plain or not whole or max(strides) == 1 or axes > 3:
        return None
    return _Geometry(weights, strides, tuple(pads[:axes]), shape[2:], made[2:])


def _taps(length: int, stride: int, before: int) -> tuple[int, int]:
    """The first and the last voxel, counted from ``n``, that the results from ``stride n`` on are made of."""
    offsets = [
        (phase + before) // stride - tap
        for phase in range(stride)
        for tap in range(math.ceil((length - (phase + before) % stride) / stride))
    ]
    return min(offsets), max(offsets)


def _phases(found: _Geometry) -> tuple[Array, list[tuple[int, int]]]:
    """Weights [phases, K, C, …] of the convolution, and the taps' reach along each axis."""
    kernel = found.weights.shape[2:]
    reach = [_taps(*one) for one in zip(kernel, found.strides, found.before, strict=True)]
    sizes = [last - first + 1 for first, last in reach]
    channels, maps = found.weights.shape[:2]
    made = np.zeros((*found.strides, maps, channels, *sizes), found.weights.dtype)
    for phase in np.ndindex(*found.strides):
        for at in np.ndindex(*kernel):
            shifted = [r + p - k for r, p, k in zip(phase, found.before, at, strict=True)]
            if any(shift % s for shift, s in zip(shifted, found.strides, strict=True)):
                continue
            place = tuple(
                shift // s - first for shift, s, (first, _) in zip(shifted, found.strides, reach, strict=True)
            )
            taken, put = (slice(None), slice(None), *at), (*phase, slice(None), slice(None), *place)
            made[put] = found.weights[taken].T
    return made.reshape(-1, channels, *sizes), reach


def _write(make: Builder, found: _Geometry) -> None:
    node, axes = make.node, len(found.strides)
    weights, reach = _phases(found)
    parts = int(np.prod(found.strides))
    bias = constant(node, 2)
    inputs = [node.inputs[0], weights, *([np.tile(bias, parts)] if bias is not None else [])]
    counts = [new // stride for new, stride in zip(found.new, found.strides, strict=True)]
    before = [-first for first, _ in reach]
    after = [count - old + last for count, old, (_, last) in zip(counts, found.old, reach, strict=True)]
    pads = [*before, *after]
    if min(pads) < 0:  # the result leaves out voxels at an end
        cut = [max(0, -pad) for pad in pads]
        starts, ends = cut[:axes], [old - end for old, end in zip(found.old, cut[axes:], strict=True)]
        window = [np.asarray(v, np.int64) for v in (starts, ends, range(2, 2 + axes))]
        inputs[0] = make.add("Slice", node.inputs[0], *window)
        pads = [max(0, pad) for pad in pads]
    made = make.add("Conv", *inputs, kernel_shape=list(weights.shape[2:]), pads=pads)
    maps = found.weights.shape[1]
    split = make.add("Reshape", made, np.asarray([0, *found.strides, maps, *counts], np.int64))
    order = [0, axes + 1, *(place for axis in range(axes) for place in (axes + 2 + axis, 1 + axis))]
    between = make.add("Transpose", split, perm=order)
    make.replace(make.add("Reshape", between, np.asarray([0, maps, *found.new], np.int64)))
