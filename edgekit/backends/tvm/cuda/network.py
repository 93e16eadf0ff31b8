"""A network for a GPU: channels last, in half precision, with convolutions and their company as our kernels.

The function that the importer made is written anew, from front to back. A value is known by how it lies:
channels last and, where it has an extent in space, in half precision; or as the importer had it. It changes
over only where an operator asks for the other, so conversions stand at the network's ends and around what
has no rule here.

* Convolutions and normalisations take along what follows them alone: bias, scale, activation, a tensor to
  add (:class:`~edgekit.backends.tvm.cuda.chains.Chain`).
* Element-wise operators, pooling, joining, means and variances over space, and softmax over channels stay
  where their inputs are, and compute in float32.
* All else runs as the importer had it, in float32, by TVM's own rules for GPUs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from edgekit.backends.tvm.cuda import operators
from edgekit.backends.tvm.cuda.chains import Chain, chains
from edgekit.backends.tvm.cuda.convolution import pack
from edgekit.backends.tvm.cuda.gemm import convolution
from edgekit.backends.tvm.cuda.memory import joined, sliding, softmax
from edgekit.backends.tvm.cuda.normalization import Normalisation
from edgekit.backends.tvm.cuda.operators import key
from edgekit.backends.tvm.loops import product
from edgekit.errors import CompileError

# Relax's expressions; TVM has no types that a checker knows.
Expr = Any
HALF = "float16"
WIDE = "float32"
_LARGEST = 65504.0  # in half precision
# Channels that one thread can go through: classes, and not features.
_FEW = 128


@dataclasses.dataclass
class Value:
    """A tensor of the new network, in either form or both; each is made when it is first asked for.

    Attributes:
        shape: As the importer had it: channels second.
        first: With the channels second, in float32 (or what is no float).
        last: With the channels last.
    """

    shape: tuple[int, ...]
    first: Expr = None
    last: Expr = None

    @property
    def is_image(self) -> bool:
        """Whether it has an extent in space: those are kept in half precision."""
        return len(self.shape) > 2 and product(self.shape[2:]) > 1


def rewritten(module: Any) -> Any:
    """The module with its main function for channels last, and kernels of ours as functions beside it.

    Raises:
        CompileError: Lengths vary, or weights are too large for half precision.
    """
    main = module["main"]
    writer = _Writer(module)
    writer.write(main)
    return writer.builder.finalize()


class _Writer:
    """The new function, being written."""

    def __init__(self, module: Any) -> None:
        self.builder = relax.BlockBuilder()
        self.module = module
        # By operators.key of the old function's variable: tensors, and what else there is.
        self.values: dict[int, Value] = {}
        self.kept: dict[int, Expr] = {}
        self.functions: dict[str, Any] = {}

    def write(self, main: Any) -> None:
        """All of it."""
        bindings = [binding for block in main.body.blocks for binding in block.bindings]
        for name, function in self.module.functions_items():
            if name.name_hint != "main":
                self.functions[name.name_hint] = self.builder.add_func(function, name.name_hint)
        parameters = [relax.Var(param.name, param.ty) for param in main.params]
        for param, own in zip(main.params, parameters, strict=True):
            self.values[key(param)] = Value(operators.shape_of(param), first=own)
        self.chains = chains(bindings, main.body.body)
        absorbed = {inner for chain in self.chains.values() for inner in chain.inner}
        with self.builder.function("main", parameters, attrs=dict(main.attrs.items())):
            with self.builder.dataflow():
                for binding in bindings:
                    if key(binding.var) not in absorbed:
                        self._bind(binding.var, binding.value)
                result = self.builder.emit_output(self._as_it_was(main.body.body))
            self.builder.emit_func_output(result)

    # Values.

    def value(self, expr: Expr) -> Value:
        """A tensor of the old function."""
        if isinstance(expr, ir.GenericConst):
            return Value(operators.shape_of(expr), first=expr)
        return self.values[key(expr)]

    def first(self, value: Value) -> Expr:
        """With the channels second, in float32."""
        if value.first is None:
            axes = operators.to_first(len(value.shape))
            value.first = self.builder.emit(relax.op.permute_dims(self.wide(value.last), axes))
        return value.first

    def last(self, value: Value) -> Expr:
        """With the channels last; in half precision what has an extent in space."""
        if value.last is None:
            axes = operators.to_last(len(value.shape))
            numbers = operators.constant(value.first)
            if numbers is not None:
                value.last = relax.const(np.ascontiguousarray(np.transpose(numbers, axes)))
            else:
                last = self.builder.emit(relax.op.permute_dims(value.first, axes))
                value.last = self.stored(last, value)
        return value.last

    def wide(self, expr: Expr) -> Expr:
        """In float32."""
        return expr if operators.dtype_of(expr) == WIDE else self.emit(relax.op.astype(expr, WIDE))

    def stored(self, expr: Expr, value: Value) -> Expr:
        """In the type that its kind of tensor is kept in."""
        wanted = HALF if value.is_image else WIDE
        return expr if operators.dtype_of(expr) == wanted else self.emit(relax.op.astype(expr, wanted))

    def half(self, value: Value) -> Expr:
        """With the channels last, in half precision."""
        last = self.last(value)
        return last if operators.dtype_of(last) == HALF else self.emit(relax.op.astype(last, HALF))

    def _stored_as(self, shape: tuple[int, ...], last: Expr) -> Value:
        """A new tensor with the channels last."""
        value = Value(shape)
        value.last = self.stored(last, value)
        return value

    def emit(self, expr: Expr) -> Expr:
        """Bind an expression."""
        return self.builder.emit(expr)

    def call(
        self, function: Any, name: str, arguments: Sequence[Expr], shape: Sequence[int], dtype: str
    ) -> Expr:
        """Call a kernel of ours."""
        variable = self.builder.add_func(_ours(function), name)
        return self.emit(relax.call_tir(variable, list(arguments), relax.TensorType(tuple(shape), dtype)))

    def _as_it_was(self, expr: Expr) -> Expr:
        """What an expression of the old function is in the new, channels second."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._as_it_was(field) for field in expr.fields])
        if isinstance(expr, relax.GlobalVar):
            return self.functions[expr.name_hint]
        if not isinstance(expr, relax.Var):
            return expr
        value = self.values.get(key(expr))
        return self.kept.get(key(expr), expr) if value is None else self.first(value)

    # Bindings.

    def _bind(self, var: Any, expr: Expr) -> None:
        value: Value | None = None
        if key(var) in self.chains:
            chain = self.chains[key(var)]
            value = self._convolution(chain) if chain.weights is not None else self._normalisation(chain)
        elif operators.is_float(var):
            name = operators.name_of(expr)
            rule = self._RULES.get(name)
            if rule:
                value = rule(self, expr)
            elif operators.is_element_wise(name):
                value = self._element_wise(expr)
        if value is None:
            value = self._any(var, expr)
        if value is not None:
            self.values[key(var)] = value

    def _any(self, var: Any, expr: Expr) -> Value | None:
        """As the importer had it."""
        if isinstance(expr, relax.Call):
            arguments = [self._as_it_was(each) for each in expr.args]
            new = relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
        elif isinstance(expr, relax.TupleGetItem):
            new = relax.TupleGetItem(self._as_it_was(expr.tuple_value), expr.index)
        else:
            new = self._as_it_was(expr)
        new = self.emit(new)
        if not operators.is_tensor(var):
            self.kept[key(var)] = new
            return None
        return Value(operators.shape_of(var), first=new)

    # Convolutions.

    def _convolution(self, chain: Chain) -> Value:
        assert chain.weights is not None
        problem = operators.problem_of(chain.call, chain.weights, chain.shape)
        if not np.abs(chain.weights).max() <= _LARGEST:
            raise CompileError(
                f"weights of a convolution are too large for half precision: want at most {_LARGEST:g}, got "
                f"{np.abs(chain.weights).max():g}",
                where="TVM",
                hint="rescale the layer, or compile for a processor",
            )
        weights = chain.weights.astype(HALF)
        spread = (*weights.shape[:2], *(1 for _ in range(5 - weights.ndim)), *weights.shape[2:])
        arguments = [
            self.half(self.value(chain.source)),
            relax.const(pack(problem, weights.reshape(spread))),
            *self._company(chain),
        ]
        function = convolution(problem, chain.epilogue())
        out = self.call(function, "convolution", arguments, problem.out_shape, HALF)
        return self._stored_as(chain.shape, out)

    def _company(self, chain: Chain) -> list[Expr]:
        """The inputs of a chain's epilogue."""
        vectors = [relax.const(vector.astype(WIDE)) for vector in chain.vectors]
        return [*vectors, *(self.half(self.value(tensor)) for tensor in chain.tensors)]

    def _normalisation(self, chain: Chain) -> Value:
        image = self.half(self.value(chain.source))
        problem = Normalisation(operators.moved(chain.shape), chain.groups)
        arguments = [image, *self._statistics(problem, image), *self._company(chain)]
        function = problem.normalised(chain.epsilon, chain.epilogue())
        return self._stored_as(chain.shape, self.call(function, "normalised", arguments, problem.shape, HALF))

    def _statistics(self, problem: Normalisation, image: Expr) -> list[Expr]:
        """Mean and variance."""
        parts = self.call(problem.partial(), "partial_statistics", [image], problem.parts_shape, WIDE)
        final = self.builder.add_func(_ours(problem.final()), "statistics")
        types = [relax.TensorType(problem.statistics_shape, WIDE)] * 2
        both = self.emit(relax.call_tir(final, [image, parts], types))
        return [self.emit(relax.TupleGetItem(both, i)) for i in range(2)]

    def _depthwise(self, call: Expr) -> Value | None:
        weights = operators.weights_of(call, depthwise=True)
        if weights is None:
            return None
        window = operators.depthwise_of(call, weights)
        taps = np.ascontiguousarray(weights.reshape(weights.shape[0], -1).T)
        constants = [relax.const(taps), relax.const(np.zeros(weights.shape[0], WIDE))]
        shape = operators.shape_of(call)
        arguments = [self.half(self.value(call.args[0])), *constants]
        out = self.call(sliding(window, "depthwise"), "depthwise", arguments, operators.moved(shape), HALF)
        return self._stored_as(shape, out)

    # Operators that leave tensors as they lie.

    def _element_wise(self, call: Expr) -> Value | None:
        arguments = operators.arguments_of(call)
        if not all(operators.is_float(each) for each in arguments):
            return None
        values = [self.value(each) for each in arguments]
        shape = operators.shape_of(call)
        if not any(value.last is not None for value in values) or len(shape) < 3:
            return None
        if any(len(value.shape) > len(shape) for value in values):
            return None
        wide = [self.wide(self._aligned(value, len(shape))) for value in values]
        if str(call.op.name) == "relax.call_tir":
            new = getattr(relax.op, operators.name_of(call).rpartition(".")[2])(*wide)
        else:
            new = relax.Call(call.op, wide, call.attrs, call.ty_args)
        return self._stored_as(shape, self.emit(new))

    def _aligned(self, value: Value, rank: int) -> Expr:
        """Channels last, with axes of length 1 before those that it has not: as broadcasting means it."""
        if len(value.shape) == rank:
            return self.last(value)
        if not value.shape:
            return value.first
        shape = (*(1,) * (rank - len(value.shape)), *value.shape)
        numbers = operators.constant(value.first)
        if numbers is not None:
            return self.last(Value(shape, first=relax.const(numbers.reshape(shape))))
        return self.last(Value(shape, first=self.emit(relax.op.reshape(self.first(value), shape))))

    def _prelu(self, call: Expr) -> Value | None:
        image = self.value(call.args[0])
        slope = operators.channel_vector(call.args[1], (1, image.shape[1])) if len(image.shape) > 2 else None
        if slope is None or image.last is None:
            return None
        x, zero = self.wide(self.last(image)), relax.const(0.0, WIDE)
        negative = relax.op.multiply(relax.const(slope.astype(WIDE)), self.emit(relax.op.minimum(x, zero)))
        result = relax.op.add(self.emit(relax.op.maximum(x, zero)), self.emit(negative))
        return self._stored_as(image.shape, self.emit(result))

    def _concat(self, call: Expr) -> Value | None:
        if not isinstance(call.args[0], relax.Tuple):
            return None
        values = [self.value(field) for field in call.args[0].fields]
        shape = operators.shape_of(call)
        if int(call.attrs.axis) % len(shape) != 1 or not all(value.is_image for value in values):
            return None
        if not any(value.last is not None for value in values):
            return None
        space = operators.moved(shape)[:-1]
        function = joined(space, [value.shape[1] for value in values], HALF)
        arguments = [self.half(value) for value in values]
        return Value(shape, last=self.call(function, "join", arguments, operators.moved(shape), HALF))

    def _pool(self, call: Expr) -> Value | None:
        image = self.value(call.args[0])
        window = operators.window_of(call)
        if image.last is None or window is None:
            return None
        shape = operators.shape_of(call)
        out = self.call(sliding(window, "pool"), "pool", [self.half(image)], operators.moved(shape), HALF)
        return self._stored_as(shape, out)

    def _mean(self, call: Expr) -> Value | None:
        """Over all of space; what a global pooling is."""
        image = self.value(call.args[0])
        axes = sorted(int(axis) % len(image.shape) for axis in call.attrs.axis or ())
        if image.last is None or not image.is_image or axes != list(range(2, len(image.shape))):
            return None
        problem = Normalisation(operators.moved(image.shape), image.shape[1])
        mean, _ = self._statistics(problem, self.half(image))
        if bool(call.attrs.keepdims):
            return Value((*image.shape[:2], *(1 for _ in axes)), last=mean)
        return Value(image.shape[:2], first=self.emit(relax.op.reshape(mean, image.shape[:2])))

    def _softmax(self, call: Expr) -> Value | None:
        image = self.value(call.args[0])
        if image.last is None or int(call.attrs.axis) % len(image.shape) != 1:
            return None
        shape = operators.moved(image.shape)
        if shape[-1] > _FEW:
            result = self.emit(relax.op.nn.softmax(self.wide(image.last), axis=-1))
        else:
            function = softmax(shape[:-1], shape[-1], operators.dtype_of(image.last))
            result = self.call(function, "softmax", [image.last], shape, WIDE)
        # Not stored in half precision: probabilities are what a network ends with.
        return Value(image.shape, last=result)

    def _resize(self, call: Expr) -> Value | None:
        image = self.value(call.args[0])
        if image.last is None:
            return None
        two = operators.name_of(call) == "relax.image.resize2d"
        operator = relax.op.image.resize2d if two else relax.op.image.resize3d
        kept = ("method", "coordinate_transformation_mode", "rounding_method", "cubic_alpha", "cubic_exclude")
        attributes = {name: getattr(call.attrs, name) for name in kept}
        if any(float(edge) for edge in call.attrs.roi) or not str(call.attrs.layout).startswith("NC"):
            return None
        layout = "NHWC" if two else "NDHWC"
        resized = operator(self.wide(image.last), call.args[1], layout=layout, **attributes)
        return self._stored_as(operators.shape_of(call), self.emit(resized))

    _RULES: ClassVar[dict[str, Callable[..., Value | None]]] = {
        "relax.nn.conv1d": _depthwise,
        "relax.nn.conv2d": _depthwise,
        "relax.nn.conv3d": _depthwise,
        "relax.nn.prelu": _prelu,
        "relax.concat": _concat,
        "relax.nn.max_pool1d": _pool,
        "relax.nn.max_pool2d": _pool,
        "relax.nn.max_pool3d": _pool,
        "relax.nn.avg_pool1d": _pool,
        "relax.nn.avg_pool2d": _pool,
        "relax.nn.avg_pool3d": _pool,
        "relax.mean": _mean,
        "relax.nn.softmax": _softmax,
        "relax.image.resize2d": _resize,
        "relax.image.resize3d": _resize,
    }


def _ours(function: Any) -> Any:
    """A kernel that TVM leaves as it is: 8 is its number for what is fused with nothing.

    Without a name of its own, so that layers alike are one kernel.
    """
    function = function.without_attr("global_symbol")
    return function.with_attr("tirx.is_scheduled", True).with_attr("op_pattern", 8)
