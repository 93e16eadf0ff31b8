"""The operators of the ONNX domain ``edgekit``, version 1, as ONNX sees them.

What they compute is defined in :mod:`edgekit.kernels`; this is their interface: inputs, attributes, shapes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

DOMAIN = "edgekit"
VERSION = 1


@dataclass(frozen=True)
class Operator:
    """One operator with one output.

    Attributes:
        name: ``op_type`` of its nodes.
        inputs: Names of its inputs, all of one type.
        output: Name of its output. Its type and first two axes (N, C) are those of the first input, its other
            axes those of the last: a warped image lies on the grid of the displacement.
        attributes: Every attribute with its default.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, int | str]

    @property
    def step(self) -> str:
        """Name of the step that does the same outside the network: ``integrate_velocity``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()


OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("Warp", ("image", "flow_vox"), "moved", {"order": 1, "boundary": "edge"}),
        Operator("IntegrateVelocity", ("velocity_vox",), "flow_vox", {"steps": 7, "boundary": "edge"}),
    )
}


@functools.cache
def register() -> None:
    """Make the operators known to onnx: its checker, its shape inference and the exporters ask there."""
    from onnx import defs, helper

    schema = defs.OpSchema
    for operator in OPERATORS.values():
        entry = schema(
            operator.name,
            DOMAIN,
            VERSION,
            inputs=[schema.FormalParameter(name, "T") for name in operator.inputs],
            outputs=[schema.FormalParameter(operator.output, "T")],
            type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
            attributes=[
                schema.Attribute(name, helper.make_attribute(name, value))
                for name, value in operator.attributes.items()
            ],
        )
        entry.set_type_and_shape_inference_function(_infer)
        defs.register_schema(entry)


def _infer(context: Any) -> None:
    first = context.get_input_type(0)
    last = context.get_input_type(context.get_num_inputs() - 1)
    if first is None or last is None:
        return
    output = type(first)()
    output.tensor_type.elem_type = first.tensor_type.elem_type
    shapes = [t.tensor_type.shape.dim for t in (first, last) if t.tensor_type.HasField("shape")]
    if len(shapes) == 2 and len(shapes[0]) == len(shapes[1]):
        output.tensor_type.shape.dim.extend([*shapes[0][:2], *shapes[1][2:]])
    context.set_output_type(0, output)
