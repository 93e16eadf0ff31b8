"""Convolutions and normalisations with their company: what one kernel computes, found by pattern."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from edgekit.backends.tvm.cuda.convolution import Epilogue
from edgekit.backends.tvm.cuda.operators import (
    arguments_of,
    channel_vector,
    constant,
    is_float,
    key,
    name_of,
    shape_of,
    uses,
    weights_of,
)
from edgekit.backends.tvm.loops import product
from edgekit.spec import Array

# Relax's expressions; TVM has no types that a checker knows.
Expr = Any


@dataclasses.dataclass
class Chain:
    """A convolution or a normalisation and what follows it alone, up to a variable that others read.

    Attributes:
        source: The image's variable.
        shape: The result's, channels second.
        var: The last variable.
        call: The convolution.
        weights: Its constant.
        groups: The normalisation's.
        epsilon: What it adds to variances.
        grouped: Its groups, as long as the tensor has these in the channels' place; else 0.
        inner: By :func:`key`, the variables before it.
        vectors: Constants of one number a channel, as the steps need them.
        tensors: Variables of the output's shape, likewise.
        steps: Names, and numbers: an index into vectors or tensors, or a parameter.
    """

    source: Expr
    shape: tuple[int, ...]
    var: Expr
    call: Expr = None
    weights: Array | None = None
    groups: int = 0
    epsilon: float = 0.0
    grouped: int = 0
    inner: list[int] = dataclasses.field(default_factory=list)
    vectors: list[Array] = dataclasses.field(default_factory=list)
    tensors: list[Expr] = dataclasses.field(default_factory=list)
    steps: list[tuple[str, float]] = dataclasses.field(default_factory=list)

    def follow(self, used: dict[int, list[Any]], claimed: set[int]) -> None:
        """Take along what follows, and claim its variables, as two chains may meet in a sum."""
        while True:
            users = used.get(key(self.var), [])
            if len(users) != 1 or users[0] is None or key(users[0].var) in claimed:
                return
            binding = users[0]
            if not is_float(binding.var) or not self._take(binding.value, shape_of(binding.var)):
                return
            self.inner.append(key(self.var))
            self.var = binding.var
            claimed.add(key(self.var))

    def _take(self, call: Expr, shape: tuple[int, ...]) -> bool:
        """Note a step, if it is one."""
        name = name_of(call).rpartition(".")[2]
        if name == "reshape" and self.grouped and shape == self.shape:
            self.grouped = 0
            return True
        if shape != shape_of(self.var):
            return False
        if name in ("relu", "sigmoid", "tanh", "silu", "gelu"):
            self.steps.append((name, 0.0))
        elif name == "leakyrelu":
            self.steps.append((name, float(call.attrs.alpha)))
        elif name == "prelu" and key(call.args[0]) == key(self.var):
            slope = channel_vector(call.args[1], (1, shape[1]))
            if slope is None or self.grouped:
                return False
            self._vector(name, slope)
        elif name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            return self._take_pair(name, call, shape)
        else:
            return False
        return True

    def _take_pair(self, name: str, call: Expr, shape: tuple[int, ...]) -> bool:
        left, right = arguments_of(call)
        other = right if key(left) == key(self.var) else left
        if name in ("subtract", "divide") and other is left:
            return False
        vector = channel_vector(other, shape)
        if vector is not None:
            self._vector(name, np.repeat(vector, self.shape[1] // shape[1]))
            return True
        if self.grouped or name != "add" or not isinstance(other, relax.Var) or not is_float(other):
            return False
        if shape_of(other) != shape or product(shape[2:]) == 1:
            return False
        self.steps.append(("add tensor", float(len(self.tensors))))
        self.tensors.append(other)
        return True

    def _vector(self, name: str, vector: Array) -> None:
        self.steps.append((f"{name} vector", float(len(self.vectors))))
        self.vectors.append(vector)

    def epilogue(self) -> Epilogue:
        """The steps, for the convolution's kernel."""
        count = len(self.vectors)
        return Epilogue(
            tuple(f"vector{i}" for i in range(count)),
            tuple(f"tensor{i}" for i in range(len(self.tensors))),
            self._computed,
        )

    def _computed(self, value: Expr, *inputs: Expr) -> Expr:
        for name, number in self.steps:
            if name == "add tensor":
                value = value + inputs[len(self.vectors) + int(number)]
            elif name.endswith(" vector"):
                value = _with_vector(name.partition(" ")[0], value, inputs[int(number)])
            else:
                value = _activated(name, value, number)
        return value


def _with_vector(name: str, value: Expr, vector: Expr) -> Expr:
    zero = tirx.const(0.0, "float32")
    return {
        "add": lambda: value + vector,
        "subtract": lambda: value - vector,
        "multiply": lambda: value * vector,
        "divide": lambda: value / vector,
        "maximum": lambda: tirx.max(value, vector),
        "minimum": lambda: tirx.min(value, vector),
        "prelu": lambda: tirx.max(value, zero) + vector * tirx.min(value, zero),
    }[name]()


def _activated(name: str, value: Expr, number: float) -> Expr:
    zero, one = tirx.const(0.0, "float32"), tirx.const(1.0, "float32")
    return {
        "relu": lambda: tirx.max(value, zero),
        "leakyrelu": lambda: tirx.max(value, zero) + number * tirx.min(value, zero),
        "sigmoid": lambda: one / (one + tirx.exp(-value)),
        "tanh": lambda: tirx.tanh(value),
        "silu": lambda: value / (one + tirx.exp(-value)),
        "gelu": lambda: value * 0.5 * (one + tirx.erf(value * 0.7071067811865476)),
    }[name]()


def chains(bindings: Sequence[Any], result: Expr) -> dict[int, Chain]:
    """The chains of a network, by :func:`key` of their last variable."""
    used = uses(bindings, result)
    values = {key(binding.var): binding.value for binding in bindings}
    claimed: set[int] = set()
    found = {}
    for binding in bindings:
        chain = _convolution(binding) or _normalisation(binding, values)
        if chain is None or key(binding.var) in claimed:
            continue
        mine = set(claimed)
        chain.follow(used, mine)
        if not chain.grouped:  # else what follows is of groups
            claimed = mine
            found[key(chain.var)] = chain
    return found


def _convolution(binding: Any) -> Chain | None:
    weights = weights_of(binding.value)
    if weights is None:
        return None
    call = binding.value
    return Chain(call.args[0], shape_of(call), binding.var, call=call, weights=weights)


def _normalisation(binding: Any, values: dict[int, Expr]) -> Chain | None:
    """``(x - mean(x)) / sqrt(variance(x) + epsilon)``; x may be an image cut into groups of channels."""

    def inputs(expr: Expr, name: str) -> list[Expr] | None:
        call = values.get(key(expr)) if isinstance(expr, relax.Var) else None
        return arguments_of(call) if name_of(call) == f"relax.{name}" else None

    if name_of(binding.value) != "relax.divide" or not is_float(binding.var):
        return None
    difference, root = (
        inputs(each, name)
        for each, name in zip(arguments_of(binding.value), ("subtract", "sqrt"), strict=True)
    )
    mean = inputs(difference[1], "mean") if difference else None
    total = inputs(root[0], "add") if root else None
    variance = inputs(total[0], "variance") if total else None
    epsilon = constant(total[1]) if total else None
    if not difference or not total or not mean or not variance or epsilon is None or epsilon.size != 1:
        return None
    if len({key(each) for each in (difference[0], mean[0], variance[0])}) > 1:
        return None
    image = difference[0]
    shape = shape_of(image)
    for each in (difference[1], total[0]):
        axes = sorted(int(axis) % len(shape) for axis in values[key(each)].attrs.axis or ())
        if axes != list(range(2, len(shape))) or not bool(values[key(each)].attrs.keepdims):
            return None
    chain = Chain(image, shape, binding.var, groups=shape[1], epsilon=float(epsilon.reshape(())))
    whole = inputs(image, "reshape")
    if whole and len(shape) == 3 and isinstance(whole[0], relax.Var) and is_float(whole[0]):
        chain.source, chain.shape = whole[0], shape_of(whole[0])
        chain.grouped = shape[1]
    fits = len(chain.shape) > 2 and product(chain.shape[2:]) > 1 and chain.shape[0] == shape[0]
    return chain if fits and chain.shape[1] % shape[1] == 0 else None
