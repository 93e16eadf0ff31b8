"""Biases that take up what quantization shifts, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.quantize import layers, weights, writer
from edgekit.target import Target

Means = Mapping[str, npt.NDArray[Any]]


class CorrectBiasPass(Pass):
    """The bias of each quantized layer moves by what the mean of its result differs from the float network's.

    The means are measured in the network as it is, so a layer also corrects what the layers before it shift:
    measured again after the correction, another run has less to do (empirical bias correction, Nagel et al.
    2019, section 4.2). Biases stay on the grid of the sums of products.

    Args:
        expected: float[outputs], mean of each channel of each layer's result in the float network, by the
            value's name.
        measured: Likewise, of the network that is corrected.
        layer_names: The layers to correct; all of them where ``None``.
    """

    name = "correct_bias"

    def __init__(self, expected: Means, measured: Means, layer_names: frozenset[str] | None = None) -> None:
        self.expected, self.measured, self.layer_names = expected, measured, layer_names

    def requires(self, graph: Graph, target: Target) -> str | None:
        """A quantized network."""
        if any(node.op_type == "DequantizeLinear" for node in graph.model.graph):
            return None
        return "the network is not quantized"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        model = graph.edit()
        corrected, skipped = 0, []
        for node in list(model.graph):
            if node.op_type not in (*layers.CONVOLUTIONS, "Gemm") or node.domain:
                continue
            quantized = writer.read_codes(node)
            if quantized is None or (self.layer_names is not None and node.name not in self.layer_names):
                continue
            codes, input_scale = quantized
            value = node.inputs[2] if len(node.inputs) > 2 else None
            bias, shift = layers.constant(value), self._shift(str(node.outputs[0].name))
            count = len(codes.scales) * layers.groups_of_outputs(node)
            if shift is None or len(shift) != count or (value is not None and bias is None):
                skipped.append(str(node.name))
                continue
            moved = shift if bias is None else bias.astype(np.float64) + shift
            rounded = weights.on_grid(moved, input_scale, codes.scales)
            if bias is None or not np.array_equal(rounded, bias):
                writer.write_bias(model.graph, node, rounded)
                corrected += 1
        missing = f"; no means of {', '.join(skipped)}" if skipped else ""
        if not corrected:
            return PassResult(graph, False, (f"no bias moves{missing}",))
        common.RemoveUnusedNodesPass()(model)
        note = f"{corrected} biases moved{missing}"
        return PassResult(graph.with_model(model, f"correct_bias: {note}"), True, (note,))

    def _shift(self, name: str) -> npt.NDArray[np.float64] | None:
        if name not in self.expected or name not in self.measured:
            return None
        expected, measured = (np.asarray(means[name], np.float64) for means in (self.expected, self.measured))
        return expected - measured if expected.shape == measured.shape else None
