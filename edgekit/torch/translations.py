"""Our torch operators as nodes of the ONNX domain ``edgekit``, for both of torch's exporters.

The table is :data:`edgekit.graph.opset.OPERATORS`: an operator has the name of its kernel in
``torch.ops.edgekit`` and the names of the kernel's inputs and options there, and so in the node.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from edgekit.errors import UnsupportedError
from edgekit.graph import opset
from edgekit.kernels.denoise.bilateral import default_radius
from edgekit.torch import denoising, library  # noqa: F401 - they register the operators with torch

Node = tuple[list[Any], dict[str, opset.Attribute]]


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export(dynamo=True)`` wants to know: each operator as one node of domain ``edgekit``.

        torch.onnx.export(module, inputs, "model.onnx", dynamo=True,
                          custom_translation_table=edgekit.torch.onnx_translations())

    It also makes the operators known to onnx, as :func:`edgekit.graph.opset.register` does.
    """
    from onnxscript import values

    opset.register()
    own = values.Opset(opset.DOMAIN, opset.VERSION)

    def translation(operator: opset.Operator) -> Callable[..., Any]:
        def translate(*arguments: Any, **options: Any) -> Any:
            inputs, attributes = _node(operator, arguments, options)
            return getattr(own, operator.name)(*inputs, **attributes)

        return translate

    return {_target(operator): translation(operator) for operator in opset.OPERATORS.values()}


@contextlib.contextmanager
def legacy_onnx_symbols(version: int) -> Iterator[None]:
    """The same for ``torch.onnx.export(dynamo=False)``, while in this context.

    The exporter also wants to be told ``custom_opsets={"edgekit": 1}``.

    Args:
        version: Its ``opset_version``.
    """
    opset.register()
    symbolics: Any = torch.onnx
    names = {f"{opset.DOMAIN}::{operator.kernel}": operator for operator in opset.OPERATORS.values()}
    for name, operator in names.items():
        symbolics.register_custom_op_symbolic(name, _symbol(operator), version)
    try:
        yield
    finally:
        for name in names:
            symbolics.unregister_custom_op_symbolic(name, version)


def _target(operator: opset.Operator) -> Any:
    return getattr(torch.ops.edgekit, operator.kernel).default


def _node(operator: opset.Operator, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Node:
    """Inputs and attributes of the node for a call, which may leave out what has a default.

    Raises:
        UnsupportedError: The node has no attribute for an option.
    """
    parameters = _target(operator)._schema.arguments
    defaults = {p.name: p.default_value for p in parameters if p.has_default_value()}
    given = {p.name: value for p, value in zip(parameters, arguments, strict=False)}
    values = {**defaults, **given, **options}
    inputs = [values.pop(name) for name in operator.inputs]
    if operator.name == "Bilateral" and values["radius"] is None:
        values["radius"] = default_radius(values["sigma_space"])
    attributes = {name: values.pop(name) for name in operator.attributes}
    for name, value in values.items():
        if value != defaults[name]:
            raise UnsupportedError(
                f"the ONNX operator {operator.name} has no {name}: want {defaults[name]!r}, got {value!r}",
                where=f"{opset.DOMAIN}::{operator.kernel}",
                hint=f"leave {name} out",
            )
    # ONNX has no truth values.
    return inputs, {n: int(value) if isinstance(value, bool) else value for n, value in attributes.items()}


_SUFFIXES = {int: "i", float: "f", str: "s"}


def _symbol(operator: opset.Operator) -> Callable[..., Any]:
    from torch.onnx.symbolic_helper import parse_args

    parameters = _target(operator)._schema.arguments

    def symbol(g: Any, *arguments: Any) -> Any:
        inputs, attributes = _node(operator, arguments, {})
        types = {name: d if isinstance(d, type) else type(d) for name, d in operator.attributes.items()}
        named = {f"{name}_{_SUFFIXES[types[name]]}": value for name, value in attributes.items()}
        node = g.op(f"{opset.DOMAIN}::{operator.name}", *inputs, **named)
        sizes = [value.type().sizes() for value in inputs]
        if None in sizes:
            return node.setType(inputs[0].type().with_sizes(None))
        return node.setType(inputs[0].type().with_sizes(list(operator.shape(*sizes))))

    # By these parse_args tells apart what the exporter hands over.
    names = ("g", *(parameter.name for parameter in parameters))
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    symbol.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return parse_args(*map(_descriptor, parameters))(symbol)


def _descriptor(parameter: Any) -> Any:
    """The letter for a parameter's type, optional or not."""
    kind = str(parameter.type).removeprefix("Optional[").removesuffix("]")
    return {"Tensor": "v", "int": "i", "float": "f", "bool": "b", "str": "s"}[kind]
