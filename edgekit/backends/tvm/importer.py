"""edgekit's operators in TVM's ONNX importer: calls of functions that the network is linked with.

The importer (``tvm.relax.frontend.onnx``) has no place for operators of others. It asks a private function of
its module, ``_get_convert_map``, for the table of its converters, so for the time of one import that function
returns a longer table. The importer looks at ``op_type`` alone: the backend refuses other domains before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from edgekit.errors import CompileError
from edgekit.graph import opset

_TABLE = "_get_convert_map"
# A function of the network's is called so; csrc/hosts/tvm.cpp exports it.
_PREFIX = "edgekit_"
# What the kernels compute on.
_DTYPES = ("float32", "float16")


@contextlib.contextmanager
def importable() -> Iterator[set[str]]:
    """Let the importer know edgekit's operators, and 5-D GridSample as one of them, until the block ends.

    Not for several threads at once.

    Yields:
        The names of the operators that imported networks call: filled while they are imported.

    Raises:
        CompileError: This release of TVM keeps its table elsewhere.
    """
    from tvm.relax.frontend.onnx import onnx_frontend as importer

    own: Callable[[], dict[str, Any]] | None = getattr(importer, _TABLE, None)
    if not callable(own):
        raise CompileError(
            f"TVM's ONNX importer takes no operators of edgekit: want its function {_TABLE}, got none",
            where=importer.__name__,
            hint="pip install 'apache-tvm==0.27.*'",
        )
    used: set[str] = set()
    table = dict(own())
    for operator in opset.OPERATORS.values():
        table[operator.name] = _converter(importer, functools.partial(_call, used, operator))
    sample = opset.OPERATORS["GridSample3d"]
    table["GridSample"] = _grid_sample(table["GridSample"], functools.partial(_call, used, sample))
    table["Pad"] = _pad(table["Pad"])
    setattr(importer, _TABLE, lambda: table)
    try:
        yield used
    finally:
        setattr(importer, _TABLE, own)


def _converter(importer: Any, convert: Callable[..., Any]) -> type:
    """A converter as the importer wants it: a class with a method for each version that changed it."""

    class Converter(importer.OnnxOpConverter):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, builder: Any, inputs: Any, attributes: Any, params: Any) -> Any:
            return convert(builder, list(inputs), attributes)

    return Converter


def _call(
    used: set[str], operator: opset.Operator, builder: Any, inputs: list[Any], attributes: dict[str, Any]
) -> Any:
    from tvm import relax

    inputs = [_with_known_axes(builder, operator, tensor) for tensor in inputs]
    lengths = operator.shape(*(list(tensor.ty.shape.values) for tensor in inputs))
    used.add(operator.name)
    values = [_constant(operator, name, attributes) for name in operator.attributes]
    out = relax.TensorType(lengths, inputs[0].ty.dtype)
    return relax.call_dps_packed(_PREFIX + operator.name, (*inputs, *values), out_ty=out)


def _with_known_axes(builder: Any, operator: opset.Operator, tensor: Any) -> Any:
    """The tensor, with a variable for each length that TVM lost sight of."""
    from tvm import relax, tirx

    if isinstance(tensor.ty.shape, relax.ShapeExpr):
        return tensor
    if tensor.ty.ndim < 0:
        raise CompileError(f"{operator.name}: want inputs of a known number of axes, got one of unknown")
    lengths = [tirx.Var(f"length_{axis}", "int64") for axis in range(tensor.ty.ndim)]
    return builder.match_cast(tensor, relax.TensorType(lengths, tensor.ty.dtype))


def _constant(operator: opset.Operator, name: str, attributes: dict[str, Any]) -> Any:
    """An attribute's value, or its default, as an argument of the function."""
    from tvm import ir, relax

    value = attributes.get(name, operator.attributes[name])
    if isinstance(value, type):
        raise CompileError(f"{operator.name}: attribute {name} is missing")
    if isinstance(value, bytes):
        value = value.decode()
    return ir.StringImm(value) if isinstance(value, str) else relax.prim_value(value)


def _grid_sample(own: Any, call: Callable[..., Any]) -> type:
    """A converter of GridSample: volumes are ours, images TVM's, which does them as ONNX says."""

    class GridSample(own):  # type: ignore[misc]
        @classmethod
        def get_converter(cls, version: int) -> Callable[..., Any]:
            theirs = super().get_converter(version)

            def convert(builder: Any, inputs: Any, attributes: Any, params: Any) -> Any:
                if inputs[0].ty.ndim != 5 or any(str(tensor.ty.dtype) not in _DTYPES for tensor in inputs):
                    return theirs(builder, inputs, attributes, params)
                return _of_one_type(builder, functools.partial(call, builder, attributes=attributes), inputs)

            return convert

    return GridSample


def _pad(own: Any) -> type:
    """A converter of Pad that gives an operation, where TVM's gives a loop nest that nobody recognises."""

    class Pad(own):  # type: ignore[misc]
        @classmethod
        def get_converter(cls, version: int) -> Callable[..., Any]:
            theirs = super().get_converter(version)

            def convert(builder: Any, inputs: Any, attributes: Any, params: Any) -> Any:
                return theirs(_Padding(builder), inputs, attributes, params)

            return convert

    return Pad


class _Padding:
    """TVM's builder, as the converter of Pad sees it."""

    _MODES: ClassVar[dict[str, str]] = {
        "pad": "constant",
        "mirror_pad": "reflect",
        "replicate_pad": "replicate",
        "circular_pad": "circular",
    }

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def emit_te(self, function: Any, data: Any, before: Any, after: Any, *value: Any) -> Any:
        """The call as an operation, where all lengths are known."""
        from tvm import relax, tirx

        mode, shape = self._MODES.get(function.__name__), getattr(data.ty.shape, "values", ())
        known = all(isinstance(length, tirx.IntImm) for length in shape)
        if mode is None or not known or len(shape) < 3 or str(data.ty.dtype) != "float32":
            return self._builder.emit_te(function, data, before, after, *value)
        widths = [int(width) for pair in zip(before, after, strict=True) for width in pair]
        fill = float(value[0]) if mode == "constant" and value else 0.0
        return self._builder.normalize(relax.op.nn.pad(data, widths, mode, fill))


def _of_one_type(builder: Any, call: Callable[..., Any], inputs: Any) -> Any:
    """The operator in float32 where its inputs differ in type: ONNX allows that of GridSample."""
    from tvm import relax

    first, second = (str(tensor.ty.dtype) for tensor in inputs)
    if first == second:
        return call(inputs=list(inputs))
    wide = [builder.normalize(relax.op.astype(tensor, "float32")) for tensor in inputs]
    return relax.op.astype(builder.normalize(call(inputs=wide)), first)
