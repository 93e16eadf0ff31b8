"""The backends, by name. One file and one line here add one."""

from __future__ import annotations

from edgekit.backends.base import Backend
from edgekit.registry import Registry

BACKENDS: Registry[Backend] = Registry(
    "backend",
    {
        "reference": "edgekit.backends.reference:BACKEND",
        "onnxruntime": "edgekit.backends.onnxruntime:BACKEND",
        "openvino": "edgekit.backends.openvino:BACKEND",
        "tvm": "edgekit.backends.tvm:BACKEND",
        "tensorrt": "edgekit.backends.tensorrt:BACKEND",
    },
)
