"""A model as data: an ONNX graph, the contracts of its tensors, the steps around it, and its history."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.spec import Step, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Graph:
    """An immutable model. A pass returns a new one; weights are shared between them.

    Attributes:
        model: The network. Treated as frozen: change the copy that :meth:`edit` returns.
        inputs: Contracts of the network's inputs, in order.
        outputs: Contracts of the network's outputs, in order.
        before: Steps that the runtime does before the network, in order.
        given: Contracts of what a caller gives: the network's inputs where there are no steps before it.
        after: Steps that the runtime does after the network, in order.
        results: Contracts of what a caller gets: the network's outputs where there are no steps.
        history: One line for each thing that was done, beginning with where the model came from.
    """

    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    before: tuple[Step, ...] = ()
    given: tuple[TensorSpec, ...] = field(default=())
    after: tuple[Step, ...] = ()
    results: tuple[TensorSpec, ...] = field(default=())
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.given:
            object.__setattr__(self, "given", self.inputs)
        if not self.results:
            object.__setattr__(self, "results", self.outputs)

    @property
    def is_static(self) -> bool:
        """Whether every input has one fixed shape."""
        return all(spec.is_static for spec in self.inputs)

    def edit(self) -> ir.Model:
        """A copy of the network to change; only the arrays of weights are shared with this graph."""
        model = self.model.clone()
        # ``clone`` shares tensor objects, and their names change when values are renamed or serialized.
        own_tensors(model)
        return model

    def with_model(self, model: ir.Model, note: str, **changes: object) -> Graph:
        """This graph with another network (and other fields in ``changes``) and one more line of history."""
        return replace(self, model=model, history=(*self.history, note), **changes)  # type: ignore[arg-type]

    def to_bytes(self) -> bytes:
        """The network as one ONNX file, weights included. The same graph gives the same bytes."""
        import onnx_ir as ir

        proto = ir.serde.serialize_model(self.model)
        return proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    def save(self, path: Path) -> None:
        """Write the network as one ONNX file."""
        path.write_bytes(self.to_bytes())

    def digest(self) -> str:
        """SHA-256 of the network's bytes, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def own_tensors(model: ir.Model) -> None:
    """Give the model tensor objects of its own, all of one kind, on the same arrays."""
    import onnx_ir as ir

    def own(tensor: ir.TensorProtocol) -> ir.Tensor[Any]:
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)  # type: ignore[arg-type]

    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = own(value.const_value)
    for node in model.graph.all_nodes():
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.TENSOR:
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, own(attribute.as_tensor()))
