"""A node of a network as a rule sees it: its types, shapes, attributes and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.graph.values import Size
from edgekit.hosts.tensorrt_parser import Version
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Site:
    """One node and what is known around it.

    Attributes:
        node: The node.
        version: TensorRT's version.
        opset: Operator set of the model.
        sizes: Type and shape of values of the main graph, for the largest inputs.
    """

    node: ir.Node
    version: Version
    opset: int
    sizes: Mapping[str, Size]

    def get(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def has(self, index: int) -> bool:
        """Whether the node has this input."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def value(self, index: int = 0) -> ir.Value | None:
        """An input, if it is there."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def shape(self, index: int = 0) -> tuple[int, ...] | None:
        """Lengths of an input, if they are known."""
        return shape_of(self.value(index), self.sizes)

    def made_shape(self) -> tuple[int, ...] | None:
        """Lengths of the first output, if they are known."""
        return shape_of(self.node.outputs[0], self.sizes)

    def rank(self, index: int = 0) -> int | None:
        """Number of axes of an input, if it is known."""
        value, shape = self.value(index), self.shape(index)
        if shape is None:
            return None if value is None or value.shape is None else len(value.shape)
        return len(shape)

    def dtype(self, index: int = 0) -> str:
        """Element type of an input such as ``"float32"``; empty if it is not known."""
        return dtype_of(self.value(index), self.sizes)

    def constant(self, index: int) -> Array | None:
        """Numbers of an input that is a weight or a Constant."""
        import onnx_ir as ir

        value = self.value(index)
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()

    def computed(self, index: int) -> bool:
        """Whether an input is there and known only while the network runs."""
        return self.has(index) and self.constant(index) is None

    def quantized(self) -> bool:
        """Whether the node works on quantized numbers: an input comes from DequantizeLinear."""
        makers = [value.producer() for value in self.node.inputs if value is not None]
        return any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)

    def kernel(self) -> tuple[int, ...]:
        """Lengths of a convolution's or pooling's window, if attribute or weights say it; else empty."""
        given, weights = self.get("kernel_shape"), self.shape(1)
        if given:
            return tuple(given)
        return weights[2:] if weights else ()


def shape_of(value: ir.Value | None, sizes: Mapping[str, Size]) -> tuple[int, ...] | None:
    """Lengths of a value, if they are known."""
    if value is None:
        return None
    if value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    if str(value.name) in sizes:
        return sizes[str(value.name)].shape
    if value.shape is None or not value.shape.is_static():
        return None
    return tuple(value.shape.numpy())


def dtype_of(value: ir.Value | None, sizes: Mapping[str, Size]) -> str:
    """Element type of a value as NumPy writes it, such as ``"float32"``; empty if it is not known."""
    if value is None:
        return ""
    kind = value.dtype or (value.const_value.dtype if value.const_value is not None else None)
    if kind is not None:
        return {"float": "float32", "double": "float64"}.get(kind.name.lower(), kind.name.lower())
    known = sizes.get(str(value.name))
    return known.dtype if known else ""
