"""The GridSample of ONNX, on ONNX Runtime's CPU provider."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers import GridSample, Peer, Run, Task, as_grid_sample, cubic

MODES = {0: "nearest", 1: "linear", 3: "cubic"}


def model(sampling: GridSample) -> bytes:
    """A model of that one node."""
    from onnx import TensorProto, helper

    image, grid = sampling.image.shape, sampling.grid.shape
    shapes = {"image": image, "grid": grid, "result": (*image[:2], *grid[1:-1])}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    node = helper.make_node(
        "GridSample",
        ["image", "grid"],
        ["result"],
        mode=MODES[sampling.order],
        padding_mode=sampling.padding,
        align_corners=int(sampling.align_corners),
    )
    graph = helper.make_graph([node], "grid_sample", values[:2], values[2:])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def grid_sample(task: Task) -> Run | None:
    import onnxruntime

    sampling = as_grid_sample(task)
    if sampling is None or sampling.image.dtype != np.float32 or not sampling.image.flags.c_contiguous:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.log_severity_level = 3
    # A thread that spins after its share of the work would be charged to whoever comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: Any = onnxruntime.InferenceSession(model(sampling), options, providers=["CPUExecutionProvider"])
    feeds = {"image": sampling.image, "grid": sampling.grid}
    return Run(lambda: session.run(["result"], feeds), lambda results: results[0], cubic(task))


PEERS = (
    Peer(
        "ONNX Runtime GridSample",
        {"onnxruntime": "onnxruntime", "onnx": "onnx"},
        {"warp": grid_sample, "grid_sample": grid_sample},
    ),
)
