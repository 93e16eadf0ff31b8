"""The onnx package's own examples of GridSample: what the standard says, for every host."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.backend.test.case import node as cases

from edgekit.graph import opset


@dataclass(frozen=True)
class Vector:
    """A model of one GridSample, what it is fed, and what comes out, which is rounded to four digits."""

    name: str
    model: onnx.ModelProto
    feeds: tuple[np.ndarray, ...]
    expected: np.ndarray
    rtol: float
    atol: float

    @property
    def volumetric(self) -> bool:
        return self.feeds[0].ndim == 5

    def check(self, got: np.ndarray) -> None:
        np.testing.assert_allclose(got, self.expected, rtol=self.rtol, atol=self.atol)

    def as_ours(self) -> onnx.ModelProto:
        """The model with GridSample3d in the node's place."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        (node,) = model.graph.node
        node.op_type, node.domain = "GridSample3d", opset.DOMAIN
        model.opset_import.append(onnx.helper.make_opsetid(opset.DOMAIN, opset.VERSION))
        return model


def vectors() -> Iterator[Vector]:
    """All of them, of images and of volumes."""
    # Importing it collects them. The public way would collect those of all operators, for 12 seconds.
    importlib.import_module("onnx.backend.test.case.node.gridsample")
    for test in cases._NodeTestCases:
        if test.name.startswith("test_gridsample"):
            ((feeds, (expected,)),) = test.data_sets
            yield Vector(test.name, test.model, tuple(feeds), expected, test.rtol, test.atol)
