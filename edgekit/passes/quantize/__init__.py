"""Quantize a network to bytes: QuantizeLinear and DequantizeLinear in ONNX, one meaning for every runtime.

What becomes bytes is decided in :mod:`~edgekit.passes.quantize.placement`, how weights do in
:mod:`~edgekit.passes.quantize.weights`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import did_you_mean
from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.quantize import layers, versions, weights, writer
from edgekit.passes.quantize.bias import CorrectBiasPass
from edgekit.passes.quantize.groups import LayerGroup, groups
from edgekit.passes.quantize.layers import Layer, Signs
from edgekit.passes.quantize.methods import choose_method
from edgekit.passes.quantize.placement import Placement, place
from edgekit.passes.quantize.recipe import Activation, Recipe
from edgekit.passes.ranges import Ranges
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Activation",
    "CorrectBiasPass",
    "LayerGroup",
    "QuantizePass",
    "Recipe",
    "choose_method",
    "groups",
]

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_OTHER_FLOATS = ("float16", "bfloat16", "float64")
_NAMES = 8


class QuantizePass(Pass):
    """Convolutions and products with known weights compute in bytes.

    Weights are signed bytes with a scale for each output; activations bytes with one scale, biases numbers on
    the grid of the sums of products. Values keep their names: of one that is rounded, ``NAME/bytes`` and
    ``NAME/rounded`` are new.

    Args:
        ranges: Of every value that a layer reads, as :func:`edgekit.calibration.calibrate` observes them.
        recipe: The choices; those of the target where none are given.
    """

    name = "quantize"

    def __init__(self, ranges: Ranges, recipe: Recipe | None = None) -> None:
        self.ranges, self.recipe = ranges, recipe

    def requires(self, graph: Graph, target: Target) -> str | None:
        """A float32 network with something to quantize."""
        network = graph.model.graph
        done = [node for node in network.all_nodes() if node.op_type in _QUANTIZED]
        if done:
            return f"the network is quantized already ({done[0].op_type} {done[0].name})"
        for node in network:
            known = layers.constant(node.inputs[1]) if len(node.inputs) > 1 else None
            multiplies = node.op_type in (*layers.CONVOLUTIONS, *layers.PRODUCTS) and not node.domain
            if multiplies and known is not None and known.dtype.name in _OTHER_FLOATS:
                return f"{node.op_type} {node.name} is in {known.dtype}: quantize the float32 network"
        found = layers.find(network)
        if not found:
            return "it has no convolution and no product of matrices with known float32 weights"
        keep = self._recipe(target).keep
        unknown = sorted(keep - {str(node.name) for node in network.all_nodes()})
        if unknown:
            near = did_you_mean(unknown[0], [layer.name for layer in found])
            return f"no node is called {unknown[0]!r}" + (f"; did you mean {near!r}?" if near else "")
        return None

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        recipe = self._recipe(target)
        model = versions.with_scales_per_channel(graph.edit())
        network = model.graph
        found = layers.find(network)
        chosen = [layer for layer in found if layer.name not in recipe.keep]
        if not chosen:
            return PassResult(graph, False, ("every layer is kept in float32",))
        placements = place(network, Signs(graph.inputs), chosen, self.ranges, recipe)
        scales = {one.value: one.scale for one in placements}
        for shared in _by_weights(chosen):
            self._write_layers(network, shared, scales, recipe)
        for one in placements:
            writer.write_placement(network, one)
        common.RemoveUnusedNodesPass()(model)
        common.NameFixPass()(model)
        note = _note(found, chosen, placements, recipe)
        return PassResult(graph.with_model(model, f"quantize: {note}"), True, (note,))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Inputs and outputs keep their names and order; ``"int8"`` means zero points of 0 everywhere."""
        network = graph.model.graph
        names = ([v.name for v in network.inputs], [v.name for v in network.outputs])
        wanted = ([s.name for s in graph.inputs], [s.name for s in graph.outputs])
        if names != wanted:
            return f"inputs and outputs were {wanted}, are {names}"
        for node in network:
            if node.op_type in _QUANTIZED and self._recipe(target).activation == "int8":
                zero = layers.constant(node.inputs[2]) if len(node.inputs) > 2 else np.int8(0)
                if zero is None or zero.dtype != np.int8 or zero.any():
                    return f"{node.name} has another zero point than 0, or other bytes than signed ones"
        return None

    def _recipe(self, target: Target) -> Recipe:
        return self.recipe or Recipe.for_target(target)

    def _write_layers(
        self, network: ir.Graph, shared: list[Layer], scales: dict[ir.Value, float], recipe: Recipe
    ) -> None:
        """Weights that some layers share, and the bias of each."""
        images = [layer.node.inputs[0] for layer in shared]
        input_scales = tuple(scales[image] for image in images if image is not None)
        codes = weights.encode(shared[0], bits=recipe.weight_bits, input_scales=input_scales)
        for layer, image, scale in zip(shared, images, input_scales, strict=True):
            assert image is not None
            bias = None if layer.bias is None else layer.bias.astype(np.float64)
            means = self.ranges[str(image.name)].channel_mean if recipe.correct_bias else None
            shift = None if means is None else weights.shift(layer, codes, means)
            if shift is not None and layer.takes_bias:
                bias = -shift if bias is None else bias - shift
            if bias is not None:
                writer.write_bias(network, layer.node, weights.on_grid(bias, scale, codes.scales))
        writer.write_weights(network, shared, codes)


def _by_weights(chosen: list[Layer]) -> list[list[Layer]]:
    """Layers that multiply by the same weights in the same way, together."""
    shared: dict[tuple[str, int, int], list[Layer]] = {}
    for layer in chosen:
        value = layer.node.inputs[1]
        assert value is not None
        shared.setdefault((str(value.name), layer.axis, layer.group), []).append(layer)
    return list(shared.values())


def _note(found: list[Layer], chosen: list[Layer], placements: list[Placement], recipe: Recipe) -> str:
    kept = [layer.name for layer in found if layer not in chosen]
    names = ", ".join(kept[:_NAMES]) + (", …" if len(kept) > _NAMES else "")
    return (
        f"{len(chosen)} of {len(found)} layers compute in bytes, {len(placements)} values are rounded "
        f"({recipe.method}, weights of {recipe.weight_bits} bits)"
    ) + (f"; in float32: {names}" if kept else "")
