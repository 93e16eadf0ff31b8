"""The GridSample of OpenVINO's CPU plugin, which has no 5-D one."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers import Array, Peer, Run, Task, cubic, normalised

PADDING = {"edge": "border", "zero": "zeros"}
MODES = {0: "nearest", 1: "bilinear", 3: "bicubic"}


def run(image: Array, grid: Array, attributes: dict[str, Any], threads: int, differs: str = "") -> Run:
    import openvino
    from openvino import opset13

    arrays = (image, grid)
    parameters = [opset13.parameter(array.shape, np.float32) for array in arrays]
    model = openvino.Model([opset13.grid_sample(*parameters, attributes)], parameters)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return Run(
        lambda: request.infer(arrays, share_inputs=True, share_outputs=True),
        lambda results: np.array(results[0]),
        differs,
    )


def warp(task: Task) -> Run | None:
    image, flow = task.inputs
    order, boundary = task.options["order"], task.options["boundary"]
    if image.ndim != 4 or boundary not in PADDING or image.dtype != np.float32:
        return None
    attributes = {"align_corners": True, "mode": MODES[order], "padding_mode": PADDING[boundary]}
    return run(image, normalised(flow), attributes, task.threads, cubic(task))


PEERS = (Peer("OpenVINO GridSample", {"openvino": "openvino"}, {"warp": warp}),)
