"""Replace one GridSample: by a warp along the field behind its grid, or by the same in domain ``edgekit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.graph import opset
from edgekit.passes.nativize.affine import Shape, attribute
from edgekit.passes.nativize.field import Convention, Field, find_field
from edgekit.passes.nativize.maps import Map, Type, Writer
from edgekit.passes.nativize.squaring import is_operator

if TYPE_CHECKING:
    import onnx_ir as ir

# ONNX has called two of them differently before operator set 20.
_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_NO_WARP = {
    "nearest": "halfway between two voxels nearest takes the even one, and a Warp the one of higher index",
    "cubic": "its cubic kernel is another one (a = -0.75) than that of a Warp (a = -0.5)",
}
_CHANNELS_FIRST = (0, 4, 1, 2, 3)


def replace(writer: Writer, node: ir.Node) -> str:
    """Replace a node if it is a 5-D GridSample.

    Returns:
        Why it did not become a ``Warp``; empty where it did, or is something else.
    """
    if node.domain or node.op_type != "GridSample":
        return ""
    image, grid = node.inputs
    assert image is not None and grid is not None
    inside = node.graph is not writer.network.graph
    rank = None if image.shape is None else len(image.shape)
    if rank is None or image.dtype is None or grid.dtype is None or (inside and rank == 5):
        where = "inside the body of another operator" if inside else "of unknown shape"
        return f"{node.name} stays GridSample: it is {where}"
    if rank != 5:
        return ""
    kinds = {image.dtype.name, grid.dtype.name}
    if not kinds <= {"FLOAT", "FLOAT16"}:
        return f"{node.name} stays GridSample: it computes in {', '.join(sorted(kinds)).lower()}"
    name = node.name
    mode = str(attribute(node, "mode", "linear"))
    mode = _MODES.get(mode, mode)
    convention = Convention(
        bool(attribute(node, "align_corners", 0)), attribute(node, "padding_mode", "zeros")
    )
    found = _NO_WARP.get(mode) or _field(writer, image, grid, convention)
    if isinstance(found, Field):
        _write(
            writer, node, "Warp", image, _flow(writer, node, found), order=1, boundary=_boundary(convention)
        )
        return ""
    _write(
        writer,
        node,
        "GridSample3d",
        image,
        grid,
        mode=mode,
        padding_mode=convention.padding_mode,
        align_corners=int(convention.align_corners),
    )
    return f"{name} became GridSample3d, not Warp: {found}"


def _field(writer: Writer, image: ir.Value, grid: ir.Value, convention: Convention) -> Field | str:
    shapes = [writer.network.shapes(one) for one in (image, grid)]
    if not all(shapes):
        return "the shape of its grid or image depends on values"
    for of_image, of_grid in zip(*shapes, strict=True):
        if of_image[2:] != of_grid[1:4]:
            return f"it samples an image of {_show(of_image[2:])} at {_show(of_grid[1:4])} places"
    assert grid.dtype is not None
    return find_field(writer.network, grid, convention, float(np.finfo(grid.dtype.numpy()).eps))


def _show(lengths: Shape) -> str:
    return "x".join(map(str, lengths))


def _boundary(convention: Convention) -> str:
    if convention.padding_mode == "reflection":
        return "mirror" if convention.align_corners else "reflect"
    return {"zeros": "zero", "border": "edge"}[convention.padding_mode]


def _flow(writer: Writer, node: ir.Node, field: Field) -> ir.Value:
    """The displacement in voxels, [N, 3, D, H, W]."""
    value, name = field.value, str(field.value.name)
    if field.channels_last:
        like = writer.type_of(value).permuted(_CHANNELS_FIRST)
        value = writer.node(
            node, "Transpose", [value], f"{name}_channels_first", like, perm=list(_CHANNELS_FIRST)
        )
    return writer.mapped(node, value, Map(field.sources, field.scales), name)


def _write(
    writer: Writer, node: ir.Node, operator: str, image: ir.Value, places: ir.Value, **attributes: object
) -> None:
    """Write the operator for a GridSample, in the wider one of two types."""
    import onnx_ir as ir

    assert image.dtype is not None
    output, name = node.outputs[0], str(node.name)
    dtype = image.dtype if image.dtype == places.dtype else ir.DataType.FLOAT
    inputs = [writer.cast(node, one, dtype, f"{name}_{one.name}") for one in (image, places)]
    old = writer.type_of(output)
    made = writer.node(
        node,
        operator,
        inputs,
        f"{name}_native",
        Type(dtype, old.dims, old.sizes),
        domain=opset.DOMAIN,
        **attributes,
    )
    writer.take_over(output, writer.cast(node, made, image.dtype, name))


def shorten_flows(writer: Writer) -> None:
    """Let each Warp read the tensor furthest back that is its displacement."""
    for node in list(writer.network.graph):
        flow = node.inputs[1] if is_operator(node, "Warp") else None
        sizes = [] if flow is None else writer.network.shapes(flow)
        if flow is not None and sizes:
            same = Map.identity(sizes[0][1])
            shorter = writer.shortest(node, flow, same, str(flow.name))
            if shorter is not flow:
                node.replace_input_with(1, shorter)
                writer.wrote = True
