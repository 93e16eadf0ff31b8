"""The inner values of a network: how large they are, and a network that returns them beside its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import GraphError, did_you_mean
from edgekit.graph import shapes
from edgekit.graph.graph import Graph, own_tensors
from edgekit.graph.intake import IntakeLimits
from edgekit.spec import DTYPES, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

# Weights of more elements say nothing about shapes.
_SMALL = 1024


def with_outputs(graph: Graph, tensors: Sequence[str], *, alone: bool = False) -> Graph:
    """The graph with inner values as further outputs; the contracts stay those of the graph.

    Args:
        graph: It stays as it is.
        tensors: Names of nodes' outputs in its main graph. Those that are outputs already stay in place.
        alone: These values and nothing more become outputs, and what only others need is dropped.

    Raises:
        GraphError: No node of the main graph makes a value of that name.
    """
    from onnx_ir.passes import common

    model = graph.edit()
    network = model.graph
    made = {str(value.name): value for node in network for value in node.outputs if value.name}
    for name in tensors:
        if name not in made:
            near = did_you_mean(name, made)
            raise GraphError(
                f"no node of the graph makes a value {name!r}",
                where=f"value {name!r}",
                hint=f"did you mean {near!r}?" if near else None,
            )
    wanted = [made[name] for name in tensors]
    kept = [] if alone else list(network.outputs)
    network.outputs[:] = [*kept, *(value for value in wanted if value not in kept)]
    if alone:
        common.RemoveUnusedNodesPass()(model)
    return graph.with_model(model, f"{len(wanted)} inner values became outputs")


def with_half_kept(graph: Graph) -> Graph:
    """The graph with two Identities behind every node that makes float16.

    ONNX Runtime computes most operators of float16 in float32 on a CPU, and hands the float32 on where the
    next one is of that kind too: nothing overflows that ought to. An Identity takes float16 as it is, where
    it has a neighbour that does, too.
    """
    import onnx_ir as ir

    if not computes_in_half(graph):
        return graph
    halves = {name for name, size in sizes(graph).items() if size.dtype == "float16"}
    model = graph.edit()
    made = [(node, value) for node in model.graph for value in node.outputs if value.name in halves]
    if not made:
        return graph
    for node, value in made:
        kind, name = ir.TensorType(ir.DataType.FLOAT16), value.name
        passed, kept = ir.Value(name=f"{name}/passed", type=kind), ir.Value(name=name, type=kind)
        kept.shape, value.name = value.shape, f"{name}/computed"
        value.replace_all_uses_with(kept, replace_graph_outputs=True)
        first = ir.Node("", "Identity", [value], outputs=[passed])
        model.graph.insert_after(node, [first, ir.Node("", "Identity", [passed], outputs=[kept])])
    return graph.with_model(model, f"{len(made)} values of float16 are kept as such")


def computes_in_half(graph: Graph) -> bool:
    """Whether an input, a weight or a cast of the network is of float16 or bfloat16."""
    import onnx_ir as ir

    halves = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    network = graph.model.graph
    if any(value.dtype in halves for value in (*network.inputs, *network.initializers.values())):
        return True
    for node in network.all_nodes():
        for attribute in node.attributes.values():
            if node.op_type == "Cast" and attribute.name == "to" and attribute.value in halves:
                return True
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in halves:
                return True
    return False


@dataclass(frozen=True)
class Size:
    """Type and shape of a value.

    Attributes:
        dtype: One of :data:`edgekit.spec.DTYPES`, or empty for another type.
        shape: Its lengths.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the array; of a type without a name, as of float64."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype or "float64").itemsize


def sizes(graph: Graph, lengths: Mapping[str, Sequence[int]] | None = None) -> dict[str, Size]:
    """Type and shape of the values of a graph's main graph, as far as they do not depend on numbers.

    Args:
        graph: The network.
        lengths: Shape of each input; the largest that the contract allows by default.

    Raises:
        GraphError: A node does not fit its inputs, or a value is larger than any machine's memory.
    """
    import onnx_ir as ir

    given = lengths or {spec.name: spec.largest_shape for spec in graph.inputs}
    proto = ir.serde.serialize_model(_without_weights(graph))
    found = shapes.infer_all(proto, {name: tuple(s) for name, s in given.items()}, IntakeLimits(), "network")
    return {name: Size(_dtype(kind), shape) for name, (kind, shape) in found.items()}


def _dtype(kind: int) -> str:
    """Our name of an ONNX element type; empty for one that has none."""
    import onnx_ir as ir

    name = ir.DataType(kind).name.lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    return name if name in DTYPES else ""


def _without_weights(graph: Graph) -> ir.Model:
    """The network with its large weights as inputs: shapes then cost no memory for them."""
    model = graph.edit()
    initializers = model.graph.initializers
    for name, value in list(initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.size > _SMALL and not value.is_graph_input():
            value.shape, value.dtype = tensor.shape, tensor.dtype  # type: ignore[assignment]
            del initializers[name]
            value.const_value = None
            model.graph.inputs.append(value)
    return model


def part(graph: Graph, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Graph:
    """The part of a graph's network between some of its values, as a graph of its own.

    Args:
        graph: It stays as it is.
        inputs: Contracts of the values that the part reads; their shapes are written into it.
        outputs: Contracts of the values that it makes.

    Raises:
        GraphError: The outputs depend on more than these inputs, or there is no such value.
    """
    import onnx_ir as ir

    model = graph.edit()
    try:
        network = ir.convenience.extract(
            model.graph, [spec.name for spec in inputs], [spec.name for spec in outputs]
        )
    except ValueError as error:
        raise GraphError(f"no part of the network: {error}") from None
    for value, spec in zip((*network.inputs, *network.outputs), (*inputs, *outputs), strict=True):
        value.dtype = ir.DataType.from_numpy(spec.numpy_dtype)
        value.shape = ir.Shape([length if isinstance(length, int) else None for length in spec.dims])
    cut = ir.Model(network, ir_version=model.ir_version)
    own_tensors(cut)
    note = f"the part that makes {', '.join(spec.name for spec in outputs)}"
    return Graph(cut, tuple(inputs), tuple(outputs), history=(*graph.history, note))
