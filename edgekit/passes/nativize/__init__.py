"""Put operators of domain ``edgekit`` in the place of what registration networks are exported to.

A warp leaves an exporter as some 25 nodes that make a normalised grid of a displacement field, and a 5-D
GridSample that most runtimes refuse. This pass finds the field again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.passes.nativize import samples, squaring
from edgekit.passes.nativize.maps import Writer
from edgekit.passes.nativize.network import Network
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir


class NativizePass(Pass):
    """5-D GridSample becomes ``Warp``, ``Compose``, ``IntegrateVelocity``, or else ``GridSample3d``.

    A grid is replaced where it is proved to be an identity grid plus a displacement field, for the shapes of
    the inputs; how it is written does not matter. 4-D GridSample stays.
    """

    name = "nativize"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common

        opset.register()
        if not any(_concerns(node) for node in graph.model.graph.all_nodes()):
            return PassResult(graph, False)
        model = graph.edit()
        before = sum(1 for _ in model.graph.all_nodes())
        network = Network(graph, model)
        network.annotate()
        writer = Writer(network)
        left = [one for node in list(network.graph.all_nodes()) if (one := samples.replace(writer, node))]
        # A chain of compositions shows once nothing reads what was between any more.
        clean = common.RemoveUnusedNodesPass()
        clean(model)
        squaring.compose(writer)
        samples.shorten_flows(writer)
        clean(model)
        squaring.integrate(writer)
        if not writer.wrote:
            return PassResult(graph, False, tuple(left))
        clean(model)
        model.opset_imports[opset.DOMAIN] = opset.VERSION
        common.RemoveUnusedOpsetsPass()(model)
        common.NameFixPass()(model)
        after = sum(1 for _ in model.graph.all_nodes())
        made = f"{before} nodes became {after}: {_list_operators(model.graph)}"
        return PassResult(graph.with_model(model, f"nativize: {made}"), True, (made, *left))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Inputs and outputs keep their names and order."""
        network = graph.model.graph
        names = ([v.name for v in network.inputs], [v.name for v in network.outputs])
        wanted = ([s.name for s in graph.inputs], [s.name for s in graph.outputs])
        return None if names == wanted else f"inputs and outputs were {wanted}, are {names}"


def _concerns(node: ir.Node) -> bool:
    if node.domain == opset.DOMAIN:
        return node.op_type in ("Warp", "Compose")
    return node.domain == "" and node.op_type == "GridSample"


def _list_operators(graph: ir.Graph) -> str:
    nodes = [node for node in graph.all_nodes() if node.domain == opset.DOMAIN]
    return ", ".join(f"{node.op_type} {node.name}" for node in nodes)
