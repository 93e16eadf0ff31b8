"""The operators in OpenVINO, written in Python: for where no C++ compiler builds their library.

They call the kernels on OpenVINO's own memory. A call costs one or two tenths of a millisecond more than in
the library, most of it in OpenVINO's way to Python. OpenVINO's form of a network is the same with either.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from edgekit.graph import opset
from edgekit.kernels import base
from edgekit.spec import Array

# Of the nodes that are being made: OpenVINO lends its own to C++ alone. 0 for all that the process may use.
_THREADS = ContextVar("threads", default=0)
_VOLUME = 5


@contextlib.contextmanager
def running_on(threads: int) -> Iterator[None]:
    """Nodes that are made meanwhile run on so many threads."""
    token = _THREADS.set(threads)
    try:
        yield
    finally:
        _THREADS.reset(token)


@functools.cache
def extensions() -> tuple[Any, ...]:
    """All operators, and how they come from ONNX, for ``Core.add_extension``."""
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    classes = {name: _node_class(operator) for name, operator in opset.OPERATORS.items()}
    return (
        ConversionExtension("GridSample", functools.partial(_convert_grid_sample, classes["GridSample3d"])),
        *(
            ConversionExtension(name, opset.DOMAIN, functools.partial(_convert, operator, classes[name]))
            for name, operator in opset.OPERATORS.items()
        ),
        *(openvino.OpExtension(each) for each in classes.values()),
    )


def compute(
    operator: opset.Operator, inputs: Sequence[Array], out: Array, options: dict[str, Any], threads: int
) -> None:
    """Run the kernel of an operator into ``out``. It computes in float32, whatever the arrays hold."""
    function, takes_ndim = _function(operator.kernel)
    if takes_ndim:
        options = {**options, "spatial_ndim": out.ndim - 2}
    wide = [array.astype(np.float32, copy=False) for array in inputs]
    if out.dtype == np.float32:
        function(*wide, out=out, threads=threads or None, **options)
    else:
        out[...] = base.rounded(function(*wide, threads=threads or None, **options), out.dtype)


@functools.cache
def _function(kernel: str) -> tuple[Callable[..., Any], bool]:
    """The public function of a kernel, and whether it wants to know images from volumes, as filters do."""
    function = base.OPERATORS[kernel].function
    return function, "spatial_ndim" in inspect.signature(function).parameters


def _node_class(operator: opset.Operator) -> Any:
    import openvino

    info = openvino.DiscreteTypeInfo(operator.name, opset.DOMAIN)

    class Node(openvino.Op):  # type: ignore[misc]
        @staticmethod
        def get_type_info() -> Any:
            return info

        def __init__(self, inputs: Any = None, **values: opset.Attribute) -> None:
            # Before the base looks at the inputs. A node that is read from a file gets its values later.
            self.values = {
                name: values.get(name, default() if isinstance(default, type) else default)
                for name, default in operator.attributes.items()
            }
            self.threads = _THREADS.get()
            super().__init__(self, inputs)

        def validate_and_infer_types(self) -> None:
            operator.options(self.values, self.get_friendly_name())
            shapes = [self.get_input_partial_shape(index) for index in range(self.get_input_size())]
            self.set_output_type(0, self.get_input_element_type(0), _shape(operator, shapes))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            with running_on(self.threads):
                return Node(inputs, **self.values)

        def visit_attributes(self, visitor: Any) -> bool:
            values = dict(self.values)
            visitor.on_attributes(values)
            self.values = values
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            arrays = [tensor.data for tensor in inputs]
            outputs[0].shape = tuple(operator.shape(*(array.shape for array in arrays)))
            compute(operator, arrays, outputs[0].data, operator.options(self.values), self.threads)
            return True

    return Node


def _shape(operator: opset.Operator, shapes: Sequence[Any]) -> Any:
    import openvino

    if any(shape.rank.is_dynamic for shape in shapes):
        return openvino.PartialShape.dynamic()
    if len(shapes) != len(operator.inputs) or len(shapes[0]) not in operator.ranks:
        wanted = " or ".join(map(str, operator.ranks))
        raise ValueError(
            f"{operator.name}: want {len(operator.inputs)} inputs, the first of {wanted} axes, "
            f"got {len(shapes)}, of {len(shapes[0])}"
        )
    return openvino.PartialShape(list(operator.shape(*map(list, shapes))))


def _convert(operator: opset.Operator, node_class: Any, context: Any) -> Any:
    inputs = [context.get_input(index) for index in range(context.get_input_size())]
    return node_class(inputs, **_values(operator, context)).outputs()


def _values(operator: opset.Operator, context: Any) -> dict[str, Any]:
    values = {}
    for name, default in operator.attributes.items():
        if isinstance(default, type):
            values[name] = context.get_attribute(name, dtype=default)
        else:
            values[name] = context.get_attribute(name, default)
    return values


def _convert_grid_sample(node_class: Any, context: Any) -> Any:
    """The standard GridSample: ours where it samples a volume, else as OpenVINO itself converts it."""
    from openvino import opset9

    image, grid = context.get_input(0), context.get_input(1)
    ranks = [value.get_partial_shape().rank for value in (image, grid)]
    if any(rank.is_static and rank.get_length() == _VOLUME for rank in ranks):
        return _convert_volume(node_class, context, image, grid)
    mode = context.get_attribute("mode", "linear")
    attributes = {
        "mode": {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        "padding_mode": context.get_attribute("padding_mode", "zeros"),
        "align_corners": bool(context.get_attribute("align_corners", 0)),
    }
    return opset9.grid_sample(image, grid, attributes).outputs()


def _convert_volume(node_class: Any, context: Any, image: Any, grid: Any) -> Any:
    from openvino import Type, opset9

    kinds = [value.get_element_type() for value in (image, grid)]
    if not all(kind.is_real() for kind in kinds):
        raise ValueError(
            f"GridSample of a volume: want floating-point numbers, got {kinds[0]} and {kinds[1]}"
        )
    values = _values(opset.OPERATORS["GridSample3d"], context)
    if values["mode"] == "bicubic":
        values["mode"] = "cubic"
    if kinds[0] == kinds[1] and kinds[0] in (Type.f32, Type.f16):
        return node_class([image, grid], **values).outputs()
    # In float32 where types differ or the kernel has none; the result gets the type of the image.
    wide = [opset9.convert(value, "f32").output(0) for value in (image, grid)]
    result = node_class(wide, **values).output(0)
    return opset9.convert(result, kinds[0].get_type_name()).outputs()
