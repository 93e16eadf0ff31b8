"""The GridSample of OpenVINO's CPU plugin, which has no 5-D one."""

from __future__ import annotations

import numpy as np

from peers import Peer, Run, Task, as_grid_sample, cubic

MODES = {0: "nearest", 1: "bilinear", 3: "bicubic"}


def grid_sample(task: Task) -> Run | None:
    import openvino
    from openvino import opset13

    sampling = as_grid_sample(task)
    if sampling is None or sampling.image.ndim != 4 or sampling.image.dtype != np.float32:
        return None
    attributes = {
        "mode": MODES[sampling.order],
        "padding_mode": sampling.padding,
        "align_corners": sampling.align_corners,
    }
    arrays = (sampling.image, sampling.grid)
    parameters = [opset13.parameter(array.shape, np.float32) for array in arrays]
    model = openvino.Model([opset13.grid_sample(*parameters, attributes)], parameters)
    settings = {"INFERENCE_NUM_THREADS": task.threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return Run(
        lambda: request.infer(arrays, share_inputs=True, share_outputs=True),
        lambda results: np.array(results[0]),
        cubic(task),
    )


PEERS = (
    Peer("OpenVINO GridSample", {"openvino": "openvino"}, {"warp": grid_sample, "grid_sample": grid_sample}),
)
