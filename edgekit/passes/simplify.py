"""Fold constants, drop what does nothing: the same function in fewer nodes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.passes.base import Pass, PassResult
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

# A folded constant is stored in the file, so folding stops where it costs more than it saves.
_LARGEST_INPUT = 8192
_LARGEST_OUTPUT = 65_536
_ROUNDS = 3
# The optimizer writes nodes as later operator sets have them, whatever the model's own is.
_OLDEST_OPSET = 18


class SimplifyPass(Pass):
    """onnxscript's optimizer and onnx-ir's common passes; names of inputs and outputs stay."""

    name = "simplify"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        from onnx_ir.passes import common
        from onnxscript import optimizer

        opset.register()
        before = _count(graph.model)
        model = graph.edit()
        notes = []
        version = model.opset_imports.get("", _OLDEST_OPSET)
        if version >= _OLDEST_OPSET:
            optimizer.optimize_ir(
                model,
                num_iterations=_ROUNDS,
                input_size_limit=_LARGEST_INPUT,
                output_size_limit=_LARGEST_OUTPUT,
                should_fold=_should_fold,
            )
        else:
            notes.append(
                f"constants are not folded: the model has opset {version}, it takes {_OLDEST_OPSET} or later"
            )
        for clean in (
            common.IdentityEliminationPass(),
            common.CommonSubexpressionEliminationPass(),
            common.DeduplicateInitializersPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedOpsetsPass(),
            common.ClearMetadataAndDocStringPass(),
            # Two outputs that turned out to be one tensor, or an input, get a node of their own again.
            common.OutputFixPass(),
        ):
            clean(model)
        for value, spec in zip(model.graph.outputs, graph.outputs, strict=True):
            value.name = spec.name
            maker = value.producer()
            if maker is not None and maker.op_type == "Identity":
                maker.name = f"{spec.name}/Identity"
        common.NameFixPass()(model)
        after = _count(model)
        simpler = graph.with_model(model, f"simplify: {before} nodes became {after}")
        if simpler.digest() == graph.digest():
            return PassResult(graph, False, tuple(notes))
        # Where no node went, shapes or names of tensors were filled in: nothing that a user wants to know.
        if after != before:
            notes.insert(0, f"{before} nodes became {after}")
        return PassResult(simpler, True, tuple(notes))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Inputs and outputs keep their names and order."""
        network = graph.model.graph
        names = ([v.name for v in network.inputs], [v.name for v in network.outputs])
        wanted = ([s.name for s in graph.inputs], [s.name for s in graph.outputs])
        return None if names == wanted else f"inputs and outputs were {wanted}, are {names}"


def _count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())


def _should_fold(node: ir.Node) -> bool | None:
    """Refuse to compute a tensor whose size is not known to be small; the optimizer looks only afterwards."""
    for output in node.outputs:
        if output.shape is None or not output.shape.is_static():
            return False
        if math.prod(output.shape.numpy()) > _LARGEST_OUTPUT:
            return False
    return None
