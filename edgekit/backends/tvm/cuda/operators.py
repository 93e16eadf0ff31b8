"""What a network for a GPU asks of the importer's operators: shapes, axes and constants, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import ir, relax, tirx

from edgekit.backends.tvm.cuda.convolution import Convolution
from edgekit.backends.tvm.cuda.memory import Window
from edgekit.errors import CompileError
from edgekit.spec import Array

# Relax's expressions; TVM has no types that a checker knows.
Expr = Any

_UNARY = "abs ceil cos erf exp floor log negative rsqrt sigmoid sign sin sqrt square tanh trunc"
_BINARY = "add divide maximum minimum multiply power subtract"
_ACTIVATIONS = "gelu gelu_tanh leakyrelu relu relu6 selu silu softplus"
_ELEMENT_WISE = frozenset(
    [f"relax.{name}" for name in f"{_UNARY} {_BINARY}".split()]
    + [f"relax.nn.{name}" for name in _ACTIVATIONS.split()]
)
# What the importer makes of Clip: functions of TVM's library, of the same name.
_WRITTEN_OUT = {"maximum": "relax.maximum", "minimum": "relax.minimum"}
_FLOATS = frozenset({"float32", "float16", "float64", "bfloat16"})


def key(var: Expr) -> int:
    """What tells variables apart; TVM's own comparison makes an expression."""
    return hash(var)


def constant(expr: Expr) -> Array | None:
    """The numbers of a constant."""
    return np.asarray(expr.value.numpy()) if isinstance(expr, ir.GenericConst) else None


def name_of(expr: Expr) -> str:
    """The operator's name, also where the importer wrote it as a function; empty for what is none."""
    if not isinstance(expr, relax.Call) or not isinstance(expr.op, ir.Op):
        return ""
    name = str(expr.op.name)
    if name == "relax.call_tir":
        function = str(expr.args[0].name_hint).rstrip("0123456789")
        return _WRITTEN_OUT.get(function, name)
    return name


def arguments_of(expr: Expr) -> list[Expr]:
    """An operator's operands."""
    if str(expr.op.name) == "relax.call_tir":
        return list(expr.args[1].fields) if isinstance(expr.args[1], relax.Tuple) else [expr.args[1]]
    return list(expr.args)


def is_element_wise(name: str) -> bool:
    """Whether each number of the result comes of one number of each input, where that is broadcast."""
    return name in _ELEMENT_WISE


def is_tensor(expr: Expr) -> bool:
    """Whether it is one tensor."""
    return isinstance(expr.ty, relax.TensorType)


def is_float(expr: Expr) -> bool:
    """Whether it is one tensor, of floats."""
    return is_tensor(expr) and str(expr.ty.dtype) in _FLOATS


def dtype_of(expr: Expr) -> str:
    """Of a tensor's numbers."""
    return str(expr.ty.dtype)


def shape_of(expr: Expr) -> tuple[int, ...]:
    """A tensor's lengths.

    Raises:
        CompileError: They vary.
    """
    lengths: list[Any] = list(expr.ty.shape) if isinstance(expr.ty.shape, relax.ShapeExpr) else [None]
    if not all(isinstance(length, (int, tirx.IntImm)) for length in lengths):
        raise CompileError(
            f"a network for a GPU: want fixed lengths, got {expr.ty}",
            where="TVM",
            hint="fix them with --shape",
        )
    return tuple(int(length) for length in lengths)


def moved(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape with the channels last."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) > 2 else tuple(shape)


def to_last(rank: int) -> list[int]:
    """The axes that come one behind the other when the second goes to the end."""
    return [0, *range(2, rank), 1] if rank > 2 else list(range(rank))


def to_first(rank: int) -> list[int]:
    """The way back."""
    return [0, rank - 1, *range(1, rank - 1)] if rank > 2 else list(range(rank))


def uses(bindings: Sequence[Any], result: Expr) -> dict[int, list[Any]]:
    """Where each variable is used: by :func:`key`, bindings, or None for the result, once for each use."""
    found: dict[int, list[Any]] = {}

    def look(expr: Expr, where: Any) -> None:
        if isinstance(expr, relax.Var):
            found.setdefault(key(expr), []).append(where)
        elif isinstance(expr, relax.Tuple):
            for field in expr.fields:
                look(field, where)
        elif isinstance(expr, relax.Call):
            for argument in expr.args:
                look(argument, where)
        elif isinstance(expr, relax.TupleGetItem):
            look(expr.tuple_value, where)

    for binding in bindings:
        look(binding.value, binding)
    look(result, None)
    return found


def channel_vector(expr: Expr, like: Sequence[int]) -> Array | None:
    """A constant that is one number, or one for each channel of a tensor with the channels second."""
    numbers = constant(expr)
    if numbers is None or numbers.ndim > len(like):
        return None
    if numbers.size == 1:
        return np.full(like[1], numbers.reshape(()))
    shape = (1,) * (len(like) - numbers.ndim) + numbers.shape
    alone = all(length == 1 for axis, length in enumerate(shape) if axis != 1)
    return numbers.reshape(-1) if alone and shape[1] == like[1] else None


# Convolutions.


def weights_of(expr: Expr, depthwise: bool = False) -> Array | None:
    """A convolution's weights, if there is a kernel for it: constants, of one group or of one a channel."""
    name = name_of(expr)
    if not name.startswith("relax.nn.conv") or dtype_of(expr) != "float32":
        return None
    weights = constant(expr.args[1])
    attributes = expr.attrs
    if weights is None or not str(attributes.data_layout).startswith("NC"):
        return None
    if name.endswith("transpose") and any(int(step) != 1 for step in attributes.dilation):
        return None
    groups = int(attributes.groups)
    if depthwise:
        one = groups == weights.shape[0] == shape_of(expr.args[0])[1] and not name.endswith("transpose")
        return weights if one and groups > 1 else None
    return weights if groups == 1 else None


def problem_of(call: Expr, weights: Array, out: Sequence[int]) -> Convolution:
    """A convolution as its kernel sees it, in half precision."""
    image = shape_of(call.args[0])
    axes = len(image) - 2
    return Convolution(
        batch=image[0],
        channels=(image[1], out[1]),
        image=_three(image[2:]),
        out=_three(out[2:]),
        kernel=_three(weights.shape[2:]),
        stride=_three(call.attrs.strides),
        pad=_three(list(call.attrs.padding)[:axes], 0),
        dilation=_three(call.attrs.dilation),
        transposed=name_of(call).endswith("transpose"),
        axes=axes,
    )


def window_of(call: Expr) -> Window | None:
    """A pooling as its kernel sees it, in half precision; None for one of another layout."""
    attributes, name = call.attrs, name_of(call)
    image, out = shape_of(call.args[0]), shape_of(call)
    axes = len(image) - 2
    if not str(attributes.layout).startswith("NC"):
        return None
    padded = "avg" in name and bool(attributes.count_include_pad)
    return Window(
        batch=image[0],
        channels=image[1],
        image=_three(image[2:]),
        out=_three(out[2:]),
        size=_three(attributes.pool_size),
        stride=_three(attributes.strides),
        pad=_three(list(attributes.padding)[:axes], 0),
        dilation=_three(attributes.dilation),
        kind="max" if "max" in name else "padded mean" if padded else "mean",
        axes=axes,
    )


def depthwise_of(call: Expr, weights: Array) -> Window:
    """A depthwise convolution as its kernel sees it."""
    image, out = shape_of(call.args[0]), shape_of(call)
    axes = len(image) - 2
    return Window(
        batch=image[0],
        channels=image[1],
        image=_three(image[2:]),
        out=_three(out[2:]),
        size=_three(weights.shape[2:]),
        stride=_three(call.attrs.strides),
        pad=_three(list(call.attrs.padding)[:axes], 0),
        dilation=_three(call.attrs.dilation),
        kind="depthwise",
        axes=axes,
    )


def _three(lengths: Sequence[Any], fill: int = 1) -> tuple[int, int, int]:
    d, h, w = (*(fill for _ in range(3 - len(lengths))), *(int(length) for length in lengths))
    return d, h, w
