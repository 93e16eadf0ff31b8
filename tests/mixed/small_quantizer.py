"""A quantizer for the tests of mixed precision: bytes per tensor, largest value, for convolutions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from edgekit.graph.graph import Graph, own_tensors

LAYERS = ("Conv", "ConvTranspose")
FOLLOWERS = ("Relu", "LeakyRelu")


@dataclass(frozen=True)
class LayerGroup:
    name: str
    nodes: tuple[str, ...]


def groups(graph: Graph) -> tuple[LayerGroup, ...]:
    """Each convolution, with the activation behind it."""
    found = []
    for node in graph.model.graph:
        if node.op_type in LAYERS:
            readers = list(node.outputs[0].consumers())
            fused = [str(r.name) for r in readers if len(readers) == 1 and r.op_type in FOLLOWERS]
            found.append(LayerGroup(str(node.name), (str(node.name), *fused)))
    return tuple(found)


def quantize(graph: Graph, keep: frozenset[str], largest: Mapping[str, float]) -> Graph:
    """Q/DQ before each convolution whose name is not kept; ``largest`` is ``|x|`` by name of the value."""
    proto = ir.serde.serialize_model(graph.model)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    for node in proto.graph.node:
        if node.op_type in LAYERS and node.name not in keep:
            image, weight = node.input[0], numpy_helper.to_array(weights[node.input[1]])
            if image not in rounded:
                rounded.add(image)
                scale = np.float32(max(largest[image], 1e-6) / 127)
                nodes += _rounding(proto, image, scale)
            scale = np.float32(np.abs(weight).max() / 127)
            codes = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
            nodes.append(_reading(proto, f"{node.name}/w", scale, codes))
            node.input[0], node.input[1] = f"{image}/rounded", f"{node.name}/w/rounded"
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    own_tensors(model)
    return graph.with_model(model, f"{len(rounded)} values are rounded")


def _constant(proto: onnx.ModelProto, name: str, array: np.ndarray | np.generic) -> str:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def _rounding(proto: onnx.ModelProto, image: str, scale: np.float32) -> Sequence[onnx.NodeProto]:
    scaled = [_constant(proto, f"{image}/scale", scale), _constant(proto, f"{image}/zero", np.int8(0))]
    return [
        helper.make_node("QuantizeLinear", [image, *scaled], [f"{image}/bytes"], f"{image}/Q"),
        helper.make_node(
            "DequantizeLinear", [f"{image}/bytes", *scaled], [f"{image}/rounded"], f"{image}/DQ"
        ),
    ]


def _reading(proto: onnx.ModelProto, name: str, scale: np.float32, codes: np.ndarray) -> onnx.NodeProto:
    inputs = [
        _constant(proto, f"{name}/bytes", codes),
        _constant(proto, f"{name}/scale", scale),
        _constant(proto, f"{name}/zero", np.int8(0)),
    ]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}/rounded"], f"{name}/DQ")
