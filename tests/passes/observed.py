"""Ranges of a network's tensors, observed with onnx's own evaluator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edgekit.backends.reference_ops import NEW_OPERATORS
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.passes.ranges import Observer, Ranges
from edgekit.spec import Array


def inner_values(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every float tensor of the main graph by name, the inputs included."""
    opset.register()
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph.to_bytes()))
    outputs = {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    known = [v for v in model.graph.value_info if v.name in made - outputs]
    model.graph.output.extend(known)
    names = [value.name for value in model.graph.output]
    arrays = ReferenceEvaluator(model, new_ops=NEW_OPERATORS).run(names, dict(feeds))
    found = {**feeds, **dict(zip(names, map(np.asarray, arrays), strict=True))}  # type: ignore[arg-type]
    return {name: array for name, array in found.items() if array.dtype == np.float32}


def observed(graph: Graph, *feeds: Mapping[str, Array]) -> Ranges:
    """The ranges over some samples."""
    ranges = []
    for one in feeds:
        for name, array in inner_values(graph, one).items():
            observer = Observer(name)
            observer.add(array)
            ranges.append(observer.range())
    return Ranges.of(ranges)
