"""Join warped fields into compositions, and repeated compositions into the integral of a velocity."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from edgekit.graph import opset
from edgekit.kernels.integrate import MAX_STEPS
from edgekit.passes.nativize.affine import attribute
from edgekit.passes.nativize.maps import Map, Writer, history

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.passes.nativize.network import Network


def is_operator(node: ir.Node | None, name: str) -> bool:
    """Whether a node is that operator of domain ``edgekit``."""
    return node is not None and node.domain == opset.DOMAIN and node.op_type == name


def compose(writer: Writer) -> None:
    """``f + Warp(g, m(f))`` becomes ``Compose``, where ``m`` reorders and scales components.

    ``m`` of a warped field is the warped field of ``m``, so ``m(f + Warp(g, m(f)))`` is
    ``Compose(m(f), m(g))``.
    """
    for node in list(writer.network.graph):
        if node.op_type == "Add" and not node.domain:
            _compose(writer, node)


def _compose(writer: Writer, node: ir.Node) -> None:
    for field, warped in itertools.permutations(node.inputs):
        warp = None if warped is None else warped.producer()
        if field is None or warp is None or not is_operator(warp, "Warp") or attribute(warp, "order", 1) != 1:
            continue
        assert warped is not None
        if len(warped.uses()) != 1 or warped.is_graph_output():
            continue
        moving, flow = warp.inputs
        assert moving is not None and flow is not None
        sizes = writer.network.shapes(flow)
        if not sizes or any(sizes != writer.network.shapes(one) for one in (moving, field)):
            continue
        between = _between(writer.network, field, flow, sizes[0][1])
        back = None if between is None else between.inverse()
        if between is None or back is None:
            continue
        name = str(node.outputs[0].name)
        first = writer.shortest(node, flow, Map.identity(sizes[0][1]), f"{name}_first")
        second = writer.shortest(node, moving, between, f"{name}_second")
        output = node.outputs[0]
        made = writer.node(
            node,
            "Compose",
            [first, second],
            f"{name}_composed",
            writer.type_of(flow),
            domain=opset.DOMAIN,
            boundary=attribute(warp, "boundary", "edge"),
        )
        writer.take_over(output, writer.mapped(node, made, back, name))
        return


def _between(network: Network, field: ir.Value, flow: ir.Value, channels: int) -> Map | None:
    """The map that makes ``flow`` of ``field``, where both come from one tensor."""
    behind = dict(history(network, field, channels))
    for value, onward in history(network, flow, channels):
        back = behind[value].inverse() if value in behind else None
        if back is not None:
            return onward.after(back)
    return None


def integrate(writer: Writer) -> None:
    """Chains of ``Compose(f, f)`` become ``IntegrateVelocity``."""
    done: set[ir.Node] = set()
    for node in list(writer.network.graph):
        if node not in done and _squares(node):
            chain = _chain(node)
            done.update(chain)
            _integrate(writer, chain)


def _squares(node: ir.Node) -> bool:
    return is_operator(node, "Compose") and node.inputs[0] is node.inputs[1]


def _chain(node: ir.Node) -> list[ir.Node]:
    """Compositions of a field with itself that follow each other, nothing else reading what is between."""
    chain = [node]
    boundary = attribute(node, "boundary", "edge")
    while len(chain) < MAX_STEPS:
        output = chain[-1].outputs[0]
        readers = list(dict.fromkeys(output.consumers()))
        if output.is_graph_output() or len(readers) != 1 or not _squares(readers[0]):
            break
        if attribute(readers[0], "boundary", "edge") != boundary:
            break
        chain.append(readers[0])
    return chain


def _integrate(writer: Writer, chain: list[ir.Node]) -> None:
    start, output = chain[0].inputs[0], chain[-1].outputs[0]
    assert start is not None
    steps = len(chain)
    (channels,) = {shape[1] for shape in writer.network.shapes(start)}
    halves = any(not total.times(2.0).is_scaled for _, total in history(writer.network, start, channels))
    if steps == 1 and not halves:
        return
    name = str(output.name)
    velocity = writer.shortest(chain[-1], start, Map.identity(channels).times(2.0**steps), f"{name}_velocity")
    made = writer.node(
        chain[-1],
        "IntegrateVelocity",
        [velocity],
        f"{name}_integrated",
        writer.type_of(output),
        domain=opset.DOMAIN,
        steps=steps,
        boundary=attribute(chain[0], "boundary", "edge"),
    )
    writer.take_over(output, made)
