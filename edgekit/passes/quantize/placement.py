"""Where quantization stands: which values become bytes, of what type and scale, and who reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgekit.passes.quantize import layers
from edgekit.passes.quantize.layers import Layer, Signs
from edgekit.passes.quantize.recipe import Recipe
from edgekit.passes.ranges import Ranges

if TYPE_CHECKING:
    import onnx_ir as ir

# A concatenation has one scale. An image that others read too keeps its own where it would lose more than
# this.
_COARSEST = 2.0


@dataclass(eq=False)
class Placement:
    """A value that is quantized.

    Attributes:
        value: Which.
        readers: Nodes, and numbers of their inputs, that read the rounded numbers; others read the value.
        scale: Of its bytes.
        zero_point: Of its bytes; its type is theirs.
    """

    value: ir.Value
    readers: list[tuple[ir.Node, int]] = field(default_factory=list)
    scale: float = 1.0
    zero_point: np.int8 | np.uint8 = field(default_factory=np.int8)


def place(
    network: ir.Graph, signs: Signs, chosen: Iterable[Layer], ranges: Ranges, recipe: Recipe
) -> list[Placement]:
    """Decide for a network whose layers in ``chosen`` are to compute in bytes.

    Their images become bytes, and so does what these are made of without arithmetic: pools, concatenations
    and the like read and write bytes of one scale. Sums and products read bytes that are there anyway where
    their own result becomes bytes: a residual sum reads its bypass so, and the layer's result as the sums of
    products that it is. What only leads to outputs reads numbers.

    Returns:
        In the order of the network: graph inputs, then results of nodes.

    Raises:
        PassError: The range of a value is not known.
    """
    found: dict[ir.Value, Placement] = {}
    links: list[tuple[ir.Value, ir.Value]] = []
    for layer in chosen:
        value = layer.node.inputs[0]
        assert value is not None
        _want(found, value, layer.node, 0, links)
    _share_with_sums(network, found)
    order = {value: index for index, value in enumerate(_values(network))}
    placements = sorted(found.values(), key=lambda one: order[one.value])
    _choose_types(signs, placements, links, ranges, recipe)
    return placements


def _want(
    found: dict[ir.Value, Placement],
    value: ir.Value,
    reader: ir.Node,
    index: int,
    links: list[tuple[ir.Value, ir.Value]],
) -> None:
    """Let a reader have a value in bytes, and whatever it is made of without arithmetic."""
    pending = [(value, reader, index)]
    while pending:
        value, reader, index = pending.pop()
        known = value in found
        place = found.setdefault(value, Placement(value))
        if (reader, index) not in place.readers:
            place.readers.append((reader, index))
        node = value.producer()
        if known or node is None:
            continue
        sources = [(node.inputs[number], number) for number in layers.passes_on(node)]
        # A constant, or a value that only a branch of the network sees, stays what it is.
        if any(source is None or layers.constant(source) is not None for source, _ in sources):
            continue
        for source, number in sources:
            assert source is not None
            links.append((value, source))
            pending.append((source, node, number))


def _share_with_sums(network: ir.Graph, found: dict[ir.Value, Placement]) -> None:
    """Let other nodes read the bytes that are there, where they make what becomes bytes again."""
    leads: dict[ir.Value, bool] = {}

    def leads_to_bytes(value: ir.Value) -> bool:
        if value not in leads:
            leads[value] = value in found or any(
                leads_to_bytes(result)
                for node in value.consumers()
                if node.graph is network and not node.domain
                if node.op_type in layers.ACTIVATIONS or layers.takes_bytes(node)
                for result in node.outputs
            )
        return leads[value]

    for value in reversed(list(_values(network))):  # from the end: no deep recursion
        leads_to_bytes(value)
    for place in found.values():
        for node, index in place.value.uses():
            if (node, index) in place.readers or node.graph is not network or not layers.takes_bytes(node):
                continue
            if index in (0, 1) and any(leads[result] for result in node.outputs):
                place.readers.append((node, index))


def _values(network: ir.Graph) -> Iterable[ir.Value]:
    yield from network.inputs
    for node in network:
        yield from node.outputs


def _choose_types(
    signs: Signs,
    placements: list[Placement],
    links: list[tuple[ir.Value, ir.Value]],
    ranges: Ranges,
    recipe: Recipe,
) -> None:
    """One type and scale for all values that are the same bytes."""
    unsigned = {one.value for one in placements if signs.non_negative(one.value)}
    if recipe.activation == "int8":
        unsigned = set()
    by_value = {one.value: one for one in placements}

    def reach(value: ir.Value) -> float:
        # An unsigned byte has as many steps for |x| as a signed type of 9 bits.
        return ranges[str(value.name)].magnitude(recipe.method, bits=9 if value in unsigned else 8)

    largest = {one.value: reach(one.value) for one in placements}
    for family in _families(placements, links, largest):
        joined = any(layers.is_concatenated(value) for value in family)
        positive = all(value in unsigned for value in family)
        magnitude = max(largest[value] for value in family)
        zero_point: np.int8 | np.uint8 = np.uint8(0) if positive else np.int8(0)
        if joined and not positive and recipe.activation != "int8":
            zero_point = np.uint8(128)
        scale = np.float32(magnitude / (255 if positive else 127))
        for value in family:
            by_value[value].scale = float(scale) if scale > 0 else 1.0
            by_value[value].zero_point = zero_point


def _families(
    placements: list[Placement], links: list[tuple[ir.Value, ir.Value]], largest: dict[ir.Value, float]
) -> Iterable[list[ir.Value]]:
    """Values with one scale: those that are linked, but for bypasses that would lose too much."""
    parent = {one.value: one.value for one in placements}
    readers = {one.value: len({node for node, _ in one.readers}) for one in placements}

    def root(value: ir.Value) -> ir.Value:
        while parent[value] is not value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    for result, source in links:
        maker = result.producer()
        coarser = _COARSEST * largest[source] < largest[result]
        if maker is not None and maker.op_type == "Concat" and readers[source] > 1 and coarser:
            continue
        parent[root(source)] = root(result)
    families: dict[ir.Value, list[ir.Value]] = {}
    for one in placements:
        families.setdefault(root(one.value), []).append(one.value)
    return families.values()
