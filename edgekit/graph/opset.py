"""The operators of the ONNX domain ``edgekit``, version 1, as ONNX sees them.

What they compute is defined in :mod:`edgekit.kernels`; this is their interface: inputs, attributes, shapes.
``csrc/hosts/operators.cpp`` says the same to the runtimes, and ``docs/operators.md`` to people.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.errors import GraphError
from edgekit.kernels import base
from edgekit.kernels.denoise.bilateral import LEAST_SIGMA, MAX_RADIUS
from edgekit.kernels.denoise.patches import MAX_PATCH_RADIUS, MAX_SEARCH_RADIUS, METHODS, NOISES, STRENGTHS
from edgekit.kernels.grid_sample import PADDING_MODES
from edgekit.kernels.integrate import MAX_STEPS
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS
from edgekit.spec import Array

DOMAIN = "edgekit"
VERSION = 1

Attribute = int | float | str
# The lengths of a tensor's axes, in whatever form its shape has them.
Lengths = Sequence[Any]

# What an attribute may be, in every operator that has one of this name: one of these,
CHOICES: dict[str, Sequence[Attribute]] = {
    "order": ORDERS,
    "boundary": BOUNDARIES,
    "steps": range(MAX_STEPS + 1),
    # "bilinear" is how ONNX said "linear" before operator set 20.
    "mode": ("linear", "bilinear", "nearest", "cubic"),
    "padding_mode": PADDING_MODES,
    "align_corners": (0, 1),
    "patch_radius": range(1, MAX_PATCH_RADIUS + 1),
    "search_radius": range(1, MAX_SEARCH_RADIUS + 1),
    "method": METHODS,
    "noise": NOISES,
    "radius": range(1, MAX_RADIUS + 1),
}
# or a finite number from the first to the second.
SPANS: dict[str, tuple[float, float]] = {
    "sigma": (0.0, math.inf),
    "strength": STRENGTHS,
    "sigma_space": (LEAST_SIGMA, math.inf),
    "sigma_range": (LEAST_SIGMA, math.inf),
}


def _like_the_first(first: Lengths, *others: Lengths) -> Lengths:
    return first


def _on_the_grid_of_the_last(image: Lengths, last: Lengths) -> Lengths:
    return [*image[:2], *last[2:]]


def _on_the_sampling_grid(image: Lengths, grid: Lengths) -> Lengths:
    return [*image[:2], *grid[1:4]]


def _without_components(flow: Lengths) -> Lengths:
    return [flow[0], *flow[2:]]


@dataclass(frozen=True)
class Operator:
    """One operator with one output, whose type is that of all its inputs.

    Attributes:
        name: ``op_type`` of its nodes.
        kernel: Name in :data:`edgekit.kernels.base.OPERATORS` of what it computes, with inputs and options in
            its order and of its names.
        inputs: Names of its inputs.
        output: Name of its output.
        attributes: Every attribute with its default; a type where there is none and a node has to say it.
        shape: The output's lengths, of those of the inputs.
        ranks: How many axes the first input may have.
        step: Name of the step that does the same outside the network; empty where there is none.
    """

    name: str
    kernel: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute | type] = field(default_factory=dict)
    shape: Callable[..., Lengths] = _like_the_first
    ranks: tuple[int, ...] = (4, 5)
    step: str = ""

    def options(self, attributes: Mapping[str, Attribute], where: str = "") -> dict[str, Attribute]:
        """The options of the kernel for the attributes of a node, with their defaults.

        Args:
            attributes: Those that the node has.
            where: The node, for messages.

        Raises:
            GraphError: The node lacks an attribute that has no default, or has a value that there is not.
        """
        given: dict[str, Attribute] = {}
        for name, default in self.attributes.items():
            value = attributes.get(name, default)
            wanted = _wanted(name, value)
            if wanted or isinstance(value, type):
                got = "none" if isinstance(value, type) else repr(value)
                raise GraphError(f"{name}: want {wanted}, got {got}", where=where or f"{DOMAIN}.{self.name}")
            # ONNX has no truth values, and its floats are float32: 0.01 is that, and not a bit less.
            given[name] = bool(value) if name == "align_corners" else value
            if isinstance(value, float):
                given[name] = float(str(np.float32(value)))
        return given

    def reference(self, *inputs: Array, **attributes: Attribute) -> Array:
        """What the operator means: the kernel's reference, rounded to the type of the first input.

        float16 stands for the float32 of the same value: coordinates are computed in the latter.
        """
        kernel = base.OPERATORS[self.kernel]
        wide = [array.astype(np.float32) if array.dtype == np.float16 else array for array in inputs]
        (result,) = kernel.reference(*wide, **self.options(attributes))
        return base.rounded(result, inputs[0].dtype)


def _wanted(name: str, value: object) -> str:
    """What an attribute has to be, if this value is not that; else an empty string."""
    if name in CHOICES:
        choices = CHOICES[name]
        if type(value) is type(choices[0]) and value in choices:
            return ""
        if isinstance(choices, range):
            return f"an integer from {choices[0]} to {choices[-1]}"
        return f"one of {', '.join(map(repr, choices))}"
    low, high = SPANS[name]
    number = type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    if number and np.float32(low) <= value <= high:  # type: ignore[operator]
        return ""
    return f"a number from {low:g} to {high:g}" if high < math.inf else f"a finite number of at least {low:g}"


_EDGE: dict[str, Attribute | type] = {"boundary": "edge"}
_MIRROR: dict[str, Attribute | type] = {"boundary": "mirror"}

OPERATORS = {
    operator.name: operator
    for operator in (
        Operator(
            "Warp",
            "warp",
            ("image", "flow_vox"),
            "moved",
            {"order": 1, **_EDGE},
            _on_the_grid_of_the_last,
            step="warp",
        ),
        Operator("Compose", "compose", ("first_vox", "second_vox"), "flow_vox", _EDGE),
        Operator(
            "IntegrateVelocity",
            "integrate_velocity",
            ("velocity_vox",),
            "flow_vox",
            {"steps": 7, **_EDGE},
            step="integrate_velocity",
        ),
        Operator(
            "GridSample3d",
            "grid_sample",
            ("image", "grid"),
            "sampled",
            {"mode": "linear", "padding_mode": "zeros", "align_corners": 0},
            _on_the_sampling_grid,
            (5,),
        ),
        Operator(
            "JacobianDeterminant",
            "jacobian_determinant",
            ("flow_vox",),
            "determinant",
            {},
            _without_components,
        ),
        Operator(
            "NonLocalMeans",
            "non_local_means",
            ("image",),
            "denoised",
            {
                "sigma": float,
                "patch_radius": 1,
                "search_radius": 5,
                "strength": 1.0,
                "method": "pointwise",
                "noise": "gaussian",
                **_MIRROR,
            },
            step="non_local_means",
        ),
        Operator(
            "Bilateral",
            "bilateral",
            ("image",),
            "denoised",
            {"sigma_space": float, "sigma_range": float, "radius": int, **_MIRROR},
            step="bilateral",
        ),
    )
}


@functools.cache
def register() -> None:
    """Make the operators known to onnx: its checker, its shape inference and the exporters ask there."""
    from onnx import defs

    for operator in OPERATORS.values():
        entry = _schema(operator)
        entry.set_type_and_shape_inference_function(functools.partial(_infer, operator))
        defs.register_schema(entry)


def _schema(operator: Operator) -> Any:
    from onnx import defs, helper

    schema = defs.OpSchema
    kinds = {int: schema.AttrType.INT, float: schema.AttrType.FLOAT, str: schema.AttrType.STRING}
    attributes = [
        schema.Attribute(name, kinds[value], required=True)
        if isinstance(value, type)
        else schema.Attribute(name, helper.make_attribute(name, value))
        for name, value in operator.attributes.items()
    ]
    return schema(
        operator.name,
        DOMAIN,
        VERSION,
        doc=(base.OPERATORS[operator.kernel].function.__doc__ or "").partition("\n")[0],
        inputs=[schema.FormalParameter(name, "T") for name in operator.inputs],
        outputs=[schema.FormalParameter(operator.output, "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=attributes,
    )


def _infer(operator: Operator, context: Any) -> None:
    """Type and shape of the output.

    Raises:
        ValueError: The node has an attribute that there is not, or inputs that do not go together.
    """
    said = [context.get_attribute(name) for name in operator.attributes]
    try:
        operator.options(_values(attribute for attribute in said if attribute is not None))
    except GraphError as error:
        raise ValueError(error.message) from None
    types = [context.get_input_type(index) for index in range(len(operator.inputs))]
    shapes = {
        name: list(found.tensor_type.shape.dim)
        for name, found in zip(operator.inputs, types, strict=True)
        if found is not None and found.tensor_type.HasField("shape")
    }
    _unify(operator, shapes)
    if any(found is None for found in types):
        return
    output = type(types[0])()
    output.tensor_type.elem_type = types[0].tensor_type.elem_type
    if len(shapes) == len(types):
        output.tensor_type.shape.dim.extend(operator.shape(*shapes.values()))
    context.set_output_type(0, output)


def check_node(node: Any, where: str) -> None:
    """Refuse a node of a known operator, as onnx has it, with a value that no attribute of this name has.

    Raises:
        GraphError: It has one, or lacks an attribute that has no default.
    """
    OPERATORS[node.op_type].options(_values(node.attribute), where)


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    from onnx import helper

    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in attributes}
    return {n: v.decode(errors="replace") if isinstance(v, bytes) else v for n, v in values.items()}


def _unify(operator: Operator, shapes: Mapping[str, list[Any]]) -> None:
    """Refuse shapes that do not go together, and tell each what is known of the other's lengths."""
    for name, shape in shapes.items():
        if len(shape) not in operator.ranks:
            wanted = " or ".join(map(str, operator.ranks))
            raise ValueError(f"{name}: want {wanted} axes, got {len(shape)}")
        axis = 1 if name.endswith("_vox") else -1 if name == "grid" else None
        if axis is not None and _known(shape[axis]) not in (None, len(shape) - 2):
            raise ValueError(f"{name}: want {len(shape) - 2} components, got {_known(shape[axis])}")
    if len(shapes) < 2:
        return
    (name, first), (other, second) = shapes.items()
    if len(first) != len(second):
        raise ValueError(f"{other}: want the {len(first)} axes of {name}, got {len(second)}")
    for axis in [0] if "grid" in shapes else [0, *range(2, len(first))]:
        a, b = _known(first[axis]), _known(second[axis])
        if a is not None and b is not None and a != b:
            raise ValueError(f"{other}: want length {a} of axis {axis}, as {name} has it, got {b}")
        if a is None:
            first[axis] = second[axis]
        else:
            second[axis] = first[axis]


def _known(dimension: Any) -> int | None:
    return int(dimension.dim_value) if dimension.HasField("dim_value") else None
