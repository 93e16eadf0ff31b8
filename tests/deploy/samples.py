"""A small bundle that a device can prove: ONNX Runtime's, with a golden case."""

from __future__ import annotations

import numpy as np
import onnx

from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.bundle import Bundle
from edgekit.golden import Golden, GoldenRecord
from edgekit.reports import AccuracyLimits
from edgekit.runtime import run_steps
from edgekit.samples import generate_inputs
from edgekit.spec import Step, TensorSpec
from edgekit.target import Target

_NETWORK = """<ir_version: 10, opset_import: ["" : 20]>
double (float[1, 3, 4, 4] image) => (float[1, 3, 4, 4] doubled) {
    doubled = Add (image, image)
}"""
IMAGE = TensorSpec("image", "float32", (1, 3, 4, 4), "NCHW", "intensity")
DOUBLED = TensorSpec("doubled", "float32", (1, 3, 4, 4), "NCHW", "intensity")


def bundle_for(
    target: Target,
    *,
    built_with: dict[str, str] | None = None,
    before: tuple[Step, ...] = (),
    wrong: bool = False,
) -> Bundle:
    """The bundle, for a device; with ``wrong`` its golden case is that of another network."""
    info = ArtifactInfo(
        backend="onnxruntime",
        form="engine",
        files=("model.onnx",),
        inputs=(IMAGE,),
        outputs=(DOUBLED,),
        target=target.name,
        built_with=built_with or {},
        source_digest="0" * 64,
    )
    inputs = generate_inputs([IMAGE])
    result = run_steps(before, inputs)["image"] * np.float32(3 if wrong else 2)
    return Bundle.of(
        Artifact(info, {"model.onnx": onnx.parser.parse_model(_NETWORK).SerializeToString()}),
        name="double",
        target=target,
        inputs=(IMAGE,),
        results=(DOUBLED,),
        before=before,
        golden=Golden(
            GoldenRecord("reference", "generated: seed 0", AccuracyLimits(max_abs_error=1e-5)),
            inputs,
            {"doubled": result},
        ),
    )
