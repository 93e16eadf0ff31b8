"""The contracts of a model's inputs and outputs, from the file and from what the user says of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import GraphError, SpecError, UnsupportedError, UsageError, did_you_mean
from edgekit.graph import shapes as shape_walk
from edgekit.graph.intake import IntakeLimits
from edgekit.spec import LAYOUTS, Dim, TensorSpec, format_dims, parse_dims

if TYPE_CHECKING:
    import onnx

Dims = tuple[int | Dim, ...]

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Interface:
    """Contracts of inputs and outputs, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def read_shapes(shapes: Mapping[str, str] | None, names: Iterable[str]) -> dict[str, Dims]:
    """Lengths by input, from texts like ``1x1x[32:128:16]x96``.

    Args:
        shapes: Text by input; a model with one input may have it under the empty name.
        names: The model's inputs.

    Raises:
        UsageError: A name that is no input.
        SpecError: A text that is no shape.
    """
    known = list(names)
    read: dict[str, Dims] = {}
    for key, text in (shapes or {}).items():
        name = known[0] if not key and len(known) == 1 else key
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(
                f"no input is called {name!r}: want {', '.join(known) or 'none'}"
                if name
                else f"a shape without a name suits a model with one input; this has {', '.join(known)}",
                where=f"--shape {name + '=' if name else ''}{text}",
                hint=f"--shape {near or (known[0] if known else 'name')}={text}",
            )
        if name in read:
            raise UsageError(f"two shapes for input {name!r}", where="--shape")
        # A range of one length is that length.
        read[name] = tuple(
            d.min if isinstance(d, Dim) and d.largest == d.min else d for d in parse_dims(text)
        )
    return read


def input_names(graph: onnx.GraphProto) -> list[str]:
    """The inputs that a caller feeds: not those that have weights as their default."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]


def derive(
    model: onnx.ModelProto,
    names: Iterable[str],
    shapes: Mapping[str, str] | None,
    limits: IntakeLimits,
    where: str,
) -> Interface:
    """The contracts of a checked model.

    Args:
        model: The model; whatever else its graph lists as input is taken for weights.
        names: The true inputs, see :func:`input_names`.
        shapes: What the user says, see :func:`read_shapes`.
        limits: The memory budget.
        where: Name of the file, for messages.

    Raises:
        SpecError: A shape is missing, or contradicts the file.
        UsageError: A shape for an input that does not exist.
        GraphError: From :func:`edgekit.graph.shapes.infer`.
        UnsupportedError: An element type that no contract has.
    """
    values = {value.name: value for value in model.graph.input}
    declared = [values[name] for name in names]
    if not declared:
        raise GraphError("the graph has no inputs: there is nothing to compute", where=where)
    given = read_shapes(shapes, [value.name for value in declared])
    inputs = tuple(_input_spec(value, given.get(value.name), where) for value in declared)
    _check_symbols(declared, inputs, where)
    return Interface(inputs, _output_specs(model, inputs, limits, where))


def _input_spec(value: onnx.ValueInfoProto, given: Dims | None, where: str) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise UnsupportedError("want tensors as inputs", where=f"{where}: input {value.name!r}")
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        raise UnsupportedError(
            f"inputs of this element type ({tensor.elem_type}) are not supported",
            where=f"{where}: input {value.name!r}",
        )
    ranked = tensor.HasField("shape")
    stated = _show_declared(tensor, ranked)
    declared = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if any(length is not None and length < 1 for length in declared):
        raise GraphError(f"want lengths >= 1, got {declared}", where=f"{where}: input {value.name!r}")
    if given is None:
        if not ranked or None in declared:
            raise SpecError(
                f"the file leaves lengths of this input open: {stated}",
                where=f"{where}: input {value.name!r}",
                hint=f"--shape {value.name}={_propose(declared, ranked)}, with the lengths of your images",
            )
        given = tuple(length for length in declared if length is not None)
    elif ranked and (
        len(given) != len(declared)
        or any(n is not None and n != got for n, got in zip(declared, given, strict=True))
    ):
        raise SpecError(
            f"the shape contradicts the file: want {stated}, got {format_dims(given)}",
            where=f"--shape {value.name}={format_dims(given)}",
            hint="export the model with open lengths, or leave the option out",
        )
    return TensorSpec(value.name, dtype, given, LAYOUTS.get(len(given), ""))


def _show_declared(tensor: onnx.TypeProto.Tensor, ranked: bool) -> str:
    if not ranked:
        return "any shape"
    return "x".join(
        str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    )


def _propose(declared: list[int | None], ranked: bool) -> str:
    if not ranked:
        return "1x1x96x96x96"
    layout = LAYOUTS.get(len(declared), "")
    spatial = 96 if "D" in layout else 256
    lengths = [
        length if length is not None else 1 if layout[axis : axis + 1] in ("N", "C") else spatial
        for axis, length in enumerate(declared)
    ]
    return "x".join(map(str, lengths))


def _check_symbols(declared: list[onnx.ValueInfoProto], inputs: tuple[TensorSpec, ...], where: str) -> None:
    """Axes that the file calls by one name have one length."""
    first: dict[str, tuple[TensorSpec, int | Dim]] = {}
    for value, spec in zip(declared, inputs, strict=True):
        for dim, length in zip(value.type.tensor_type.shape.dim, spec.dims, strict=False):
            if not dim.dim_param:
                continue
            owner, wanted = first.setdefault(dim.dim_param, (spec, length))
            if wanted != length:
                raise SpecError(
                    f"the file wants one length for every axis {dim.dim_param!r}: "
                    f"got {wanted} in {owner}, {length} in {spec}",
                    where=where,
                    hint=f"--shape {spec.name}=…: use {wanted} there as well",
                )


def symbols(inputs: Iterable[TensorSpec]) -> list[tuple[int, Dim]]:
    """The lengths that vary, as axis and range. Inputs with one range on one axis share it: moving, fixed."""
    return sorted({(axis, d) for s in inputs for axis, d in enumerate(s.dims) if isinstance(d, Dim)}, key=str)


def _output_specs(
    model: onnx.ModelProto, inputs: tuple[TensorSpec, ...], limits: IntakeLimits, where: str
) -> tuple[TensorSpec, ...]:
    """Infer at the largest shapes, where bombs are, at the smallest, and one step along each length."""
    largest = shape_walk.infer(model, {s.name: s.largest_shape for s in inputs}, limits, where)
    varying = symbols(inputs)
    if not varying:
        return tuple(_output_spec(name, kind, shape, where) for name, (kind, shape) in largest.items())
    smallest = shape_walk.infer(model, {s.name: s.smallest_shape for s in inputs}, limits, where)
    stepped = [
        shape_walk.infer(model, {s.name: _one_step(s, symbol) for s in inputs}, limits, where)
        for symbol in varying
    ]
    counts = [(length.largest - length.min) // length.step for _, length in varying]
    specs = []
    for name, (kind, high) in largest.items():
        low, steps = smallest[name][1], [step[name][1] for step in stepped]
        if any(len(shape) != len(high) for shape in (low, *steps)):
            raise GraphError("the number of axes depends on the shapes", where=f"{where}: output {name!r}")
        dims = tuple(
            _length(low[axis], high[axis], [step[axis] - low[axis] for step in steps], counts)
            for axis in range(len(high))
        )
        specs.append(_output_spec(name, kind, dims, where))
    return tuple(specs)


def _one_step(spec: TensorSpec, symbol: tuple[int, Dim]) -> tuple[int, ...]:
    """The smallest shape, one step up along ``symbol``."""
    shape = list(spec.smallest_shape)
    axis, length = symbol
    if axis < len(spec.dims) and spec.dims[axis] == length:
        shape[axis] += length.step
    return tuple(shape)


def _length(low: int, high: int, steps: list[int], counts: list[int]) -> int | Dim:
    """A length that is ``low`` at the smallest inputs and ``high`` at the largest.

    Args:
        low: See above.
        high: See above.
        steps: How much it grows with the first step of each symbol.
        counts: Number of steps of each symbol.
    """
    if low == high and not any(steps):
        return low
    # A pooling with a stride of 3 grows by 1, 2, 2, 1 … for equal steps of its input: then every length
    # between is allowed. Lengths that grow evenly arrive exactly at ``high``.
    even = low + sum(step * count for step, count in zip(steps, counts, strict=True)) == high
    low, high = min(low, high), max(low, high)
    step = math.gcd(*steps) if even else 1
    return Dim(low, high, max(step, 1))


def _output_spec(name: str, kind: int, dims: Dims, where: str) -> TensorSpec:
    if kind not in _DTYPES:
        raise UnsupportedError(
            f"outputs of this element type ({kind}) are not supported", where=f"{where}: output {name!r}"
        )
    if any(isinstance(length, int) and length < 1 for length in dims):
        raise GraphError(f"an empty output: {format_dims(dims)}", where=f"{where}: output {name!r}")
    return TensorSpec(name, _DTYPES[kind], dims, LAYOUTS.get(len(dims), ""))


def apply(model: onnx.ModelProto, interface: Interface) -> None:
    """Write the contracts into the model, and drop what it said of shapes inside.

    Fixed lengths become numbers; lengths that vary keep the name they have, or get one for their axis and
    range, so that equal ranges of several inputs are one symbol.
    """
    specs = {spec.name: spec for spec in (*interface.inputs, *interface.outputs)}
    wanted = {spec.name for spec in interface.inputs}
    named: dict[tuple[int, Dim], str] = {}
    for value in list(model.graph.input):
        if value.name not in wanted:
            model.graph.input.remove(value)
    for value in (*model.graph.input, *model.graph.output):
        spec = specs[value.name]
        tensor = value.type.tensor_type
        tensor.elem_type = _ELEMENT_TYPES[spec.dtype]
        old = [dim.dim_param for dim in tensor.shape.dim] or [""] * len(spec.dims)
        tensor.shape.ClearField("dim")
        for axis, (length, name) in enumerate(zip(spec.dims, old, strict=True)):
            dim = tensor.shape.dim.add()
            if isinstance(length, int):
                dim.dim_value = length
            else:
                dim.dim_param = named.setdefault((axis, length), name or f"{value.name}_{axis}")
    model.graph.ClearField("value_info")


_ELEMENT_TYPES = {dtype: kind for kind, dtype in _DTYPES.items()}
