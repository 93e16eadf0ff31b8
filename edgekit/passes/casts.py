"""Tensors of 16 bits in a graph: which ONNX allows, and a Cast wherever a tensor is read as another type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.errors import PassError
from edgekit.graph.graph import own_tensors
from edgekit.graph.intake import first_line
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx_ir as ir

# They read a tensor whatever its type is.
OF_ANY_TYPE = frozenset(("Cast", "Shape", "Size"))
# ONNX lets these inputs differ from the first in type, and OpenVINO does not.
_LETTERS_OF_ONE_TYPE = {"BatchNormalization": ("T1", "T2", "U")}
# The operator set from which convolutions and pools know bfloat16.
_BFLOAT16_OPSET = 22

# A node, and the number of one of its inputs.
_Place = tuple["ir.Node", int]


@dataclass(frozen=True)
class Format:
    """A number format of 16 bits.

    Attributes:
        name: As the precision of a target.
        largest: The largest finite number.
        smallest: The smallest one that is not subnormal.
        bits: Of the fraction.
    """

    name: str
    largest: float
    smallest: float
    bits: int

    @property
    def reaches_as_far(self) -> bool:
        """Whether its exponent is that of float32, so that nothing overflows."""
        return self.smallest == 2.0**-126

    @property
    def kind(self) -> ir.DataType:
        """Its type in a graph."""
        import onnx_ir as ir

        return ir.DataType[self.name.upper()]


FORMATS = {
    "float16": Format("float16", 65504.0, 2.0**-14, 10),
    "bfloat16": Format("bfloat16", 3.3895e38, 2.0**-126, 7),
}


@dataclass(frozen=True)
class Typing:
    """What an operator set lets be of 16 bits.

    Attributes:
        version: Of the operator set.
        single: The type of float32.
        half: That of 16 bits.
    """

    version: int
    single: ir.DataType
    half: ir.DataType

    @staticmethod
    def of(model: ir.Model, wanted: Format) -> Typing:
        """That of a network."""
        import onnx_ir as ir

        return Typing(_version(model), ir.DataType.FLOAT, wanted.kind)

    def is_float(self, node: ir.Node) -> bool:
        """Whether a node reads or makes float32, and is no constant."""
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        return node.op_type != "Constant" and any(map(self.is_single, values))

    def is_single(self, value: ir.Value) -> bool:
        """Whether a tensor is float32."""
        return value.dtype == self.single

    def places(self, node: ir.Node) -> tuple[list[int], list[int]]:
        """Which inputs and outputs, all of them float32, change their type with the first output.

        Both are empty where the schema does not allow 16 bits there.
        """
        from onnx import defs

        schema = defs.get_schema(node.op_type, self.version, "")
        letter = schema.outputs[0].type_str
        constraint = next((one for one in schema.type_constraints if one.type_param_str == letter), None)
        if constraint is None or f"tensor({self.half.name.lower()})" not in constraint.allowed_type_strs:
            return [], []
        letters = {letter, *_LETTERS_OF_ONE_TYPE.get(node.op_type, ())}

        def of_letter(values: Sequence[ir.Value | None], formal: Sequence[Any]) -> list[int]:
            # The last of the formal ones may be repeated.
            said = [formal[min(index, len(formal) - 1)].type_str for index in range(len(values))]
            return [
                index
                for index, value in enumerate(values)
                if value is not None and said[index] in letters and self.is_single(value)
            ]

        return of_letter(node.inputs, schema.inputs), of_letter(node.outputs, schema.outputs)


def constant(value: ir.Value | None) -> Array | None:
    """A weight's numbers, or those of a Constant."""
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def with_bfloat16(model: ir.Model) -> ir.Model:
    """The network in an operator set that knows bfloat16 in convolutions.

    Raises:
        PassError: onnx cannot convert it.
    """
    import onnx_ir as ir
    from onnx import version_converter

    if _version(model) >= _BFLOAT16_OPSET:
        return model
    try:
        proto = version_converter.convert_version(ir.serde.serialize_model(model), _BFLOAT16_OPSET)
    except Exception as error:  # noqa: BLE001 - RuntimeError, ConvertError and whatever its C++ throws
        raise PassError(
            f"bfloat16 needs operator set {_BFLOAT16_OPSET}, and the network, which has {_version(model)}, "
            f"cannot be written in it: {first_line(error)}",
            hint="export the model with a later operator set",
        ) from None
    converted = ir.serde.deserialize_model(proto)
    own_tensors(converted)
    return converted


def retype(model: ir.Model, nodes: Iterable[ir.Node], wanted: Format) -> int:
    """Let nodes compute in 16 bits, with the constants that they read stored so.

    A tensor that is read as both types has one Cast; a Cast whose input has become of its output's type goes.

    Args:
        model: Changed in place.
        nodes: Of its main graph, each with a place where its schema allows 16 bits.
        wanted: The format.

    Returns:
        The number of Casts between the two types that there are now.
    """
    import onnx_ir as ir

    graph, typing = model.graph, Typing.of(model, wanted)
    reads: dict[ir.Value, list[_Place]] = {}
    made: list[ir.Value] = []
    for node in nodes:
        inputs, outputs = typing.places(node)
        for index in inputs:
            value = node.inputs[index]
            assert value is not None
            reads.setdefault(value, []).append((node, index))
        made += [node.outputs[index] for index in outputs]
    for value in made:
        value.type = ir.TensorType(typing.half)  # a new one: clones of a graph share their types
    for value, places in reads.items():
        if (array := constant(value)) is not None:
            _read(_rounded(graph, value, array, typing.half), places)
        elif value.dtype != typing.half:
            _read(_as(graph, value, typing.half), places)
    for value in made:
        others = [
            (use.node, use.idx)
            for use in value.uses()
            if use.node.op_type not in OF_ANY_TYPE and (use.node, use.idx) not in reads.get(value, ())
        ]
        if value.is_graph_output():
            _read(_hand_over(graph, value, typing.single), others)
        elif others:
            _read(_as(graph, value, typing.single), others)
    _drop_idle_casts(graph)
    both = {typing.single, typing.half}
    casts = [node for node in graph if node.op_type == "Cast"]
    return sum({value.dtype for value in (*node.inputs, *node.outputs) if value} == both for node in casts)


def _version(model: ir.Model) -> int:
    return model.opset_imports.get("") or model.opset_imports.get("ai.onnx", 1)


def _read(value: ir.Value, places: Iterable[_Place]) -> None:
    for node, index in places:
        node.replace_input_with(index, value)


def _as(graph: ir.Graph, value: ir.Value, kind: ir.DataType) -> ir.Value:
    """A tensor as another type."""
    import onnx_ir as ir

    maker, source = value.producer(), value
    if maker is not None and maker.op_type == "Cast" and maker.inputs[0] is not None:
        source = maker.inputs[0]  # one Cast instead of two
        if source.dtype == kind:
            return source
    cast = ir.node("Cast", [source], attributes={"to": int(kind)}, name=f"{value.name}/Cast")
    made = cast.outputs[0]
    made.name, made.type = f"{value.name}/{_name(kind)}", ir.TensorType(kind)
    made.shape = value.shape.copy() if value.shape is not None else None
    if maker is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(maker, cast)
    return made


def _hand_over(graph: ir.Graph, value: ir.Value, kind: ir.DataType) -> ir.Value:
    """An output of the network as another type, which takes its name and place."""
    made = _as(graph, value, kind)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = made
    name, value.name = value.name, f"{value.name}/{_name(value.dtype)}"
    made.name = name
    return made


def _name(kind: ir.DataType | None) -> str:
    """``float32``, ``float16``, ``bfloat16``."""
    assert kind is not None
    return str(kind.numpy().name)


def _rounded(graph: ir.Graph, value: ir.Value, array: Array, kind: ir.DataType) -> ir.Value:
    """A weight in 16 bits; whoever reads it as float32 keeps the old one."""
    import onnx_ir as ir

    tensor = ir.tensor(array.astype(kind.numpy()), dtype=kind, name=f"{value.name}/{_name(kind)}")
    made = ir.Value(
        name=tensor.name, const_value=tensor, type=ir.TensorType(kind), shape=ir.Shape(array.shape)
    )
    graph.register_initializer(made)
    return made


def _drop_idle_casts(graph: ir.Graph) -> None:
    """Remove each Cast whose input has become of its output's type."""
    import onnx_ir as ir

    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        made = node.outputs[0]
        if source is not None and source.dtype == made.dtype and not made.is_graph_output():
            ir.convenience.replace_all_uses_with(made, source)
            graph.remove(node, safe=True)
