"""Give channels scales that suit one type for all of them: the same function, easier to quantize."""

from __future__ import annotations

import numpy as np

from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.ranges import Ranges
from edgekit.passes.scaling import Floats, Scaling
from edgekit.target import Target

# Rounds of equalisation: a layer's weights are scaled from both sides, and the second side changes the first.
_ROUNDS = 30
_SETTLED = 1e-3
# Further than this no channel is scaled: a dead one would be scaled without end.
_LARGEST_FACTOR = 256.0


class EqualizePass(Pass):
    """Cross-layer equalisation: what makes a channel and the weights that read it get one range.

    Nagel et al., "Data-free quantization through weight equalization and bias correction" (ICCV 2019),
    through rectifiers, pooling, resizing, sums and concatenations, for images, volumes, transposed
    convolutions and products of matrices. Where a normalisation makes the channel, its scale and bias take
    the part of weights.
    """

    name = "equalize"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        scales = Scaling(graph.edit())
        total = np.ones(scales.channels.count)
        for _ in range(_ROUNDS):
            made, read = scales.largest_made(), scales.largest_read()
            usable = scales.channels.free & (made > 0) & (read > 0)
            wanted = total.copy()
            wanted[usable] *= np.sqrt(read[usable] / made[usable])
            step = np.clip(wanted, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR) / total
            scales.apply(step)
            total *= step
            if np.abs(np.log(step)).max(initial=0) < _SETTLED:
                break
        return _written(graph, scales, total, self.name)


class SmoothPass(Pass):
    """Outliers among a value's channels move into the weights that read it.

    Xiao et al., "SmoothQuant" (ICML 2023): a channel with the largest value ``a``, read by weights of at most
    ``w``, is multiplied by ``w**(1 - strength) / a**strength``, where constants make it. The values change,
    so their ranges have to be observed again.

    Args:
        ranges: Of the graph's values.
        strength: 0 … 1, which share of an outlier moves.
    """

    name = "smooth"

    def __init__(self, ranges: Ranges, strength: float = 0.5) -> None:
        self.ranges, self.strength = ranges, strength

    def requires(self, graph: Graph, target: Target) -> str | None:
        """A strength between 0 and 1."""
        return None if 0 <= self.strength <= 1 else f"want a strength of 0 to 1, got {self.strength:g}"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        scales = Scaling(graph.edit())
        channels = scales.channels
        largest, read = np.zeros(channels.count), scales.largest_read()
        for end in channels.ends:
            value = end.layer.node.inputs[0]
            seen = self.ranges[str(value.name)].channel_max if value is not None else None
            if seen is not None and len(seen) == len(end.inputs):
                np.maximum.at(largest, end.inputs, seen.astype(np.float64))
        usable = channels.free & (largest > 0) & (read > 0)
        factors = np.ones(channels.count)
        weights, values = read[usable], largest[usable]
        factors[usable] = weights ** (1 - self.strength) / values**self.strength
        factors = np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
        scales.apply(factors)
        return _written(graph, scales, factors, self.name)


def _written(graph: Graph, scales: Scaling, factors: Floats, name: str) -> PassResult:
    """The graph with scaled constants; the very one where no factor is far from 1."""
    from onnx_ir.passes import common

    moved = int((np.abs(np.log(factors)) > _SETTLED).sum())
    if not moved:
        return PassResult(graph, False)
    model = scales.model
    scales.write()
    common.RemoveUnusedNodesPass()(model)
    note = f"{moved} channels of {len(scales.channels.ends)} layers were scaled"
    return PassResult(graph.with_model(model, f"{name}: {note}"), True, (note,))
