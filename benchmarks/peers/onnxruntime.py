"""The GridSample of ONNX, on ONNX Runtime's CPU provider."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers import Array, Peer, Run, Task, cubic, normalised

PADDING = {"edge": "border", "zero": "zeros"}
MODES = {0: "nearest", 1: "linear", 3: "cubic"}


def model(image: Array, grid: Array, mode: str, padding: str, align_corners: bool) -> bytes:
    """A model of that one node."""
    from onnx import TensorProto, helper

    node = helper.make_node(
        "GridSample",
        ["image", "grid"],
        ["result"],
        mode=mode,
        padding_mode=padding,
        align_corners=int(align_corners),
    )
    shapes = {"image": image.shape, "grid": grid.shape, "result": (*image.shape[:2], *grid.shape[1:-1])}
    image_value, grid_value, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    graph = helper.make_graph([node], "grid_sample", [image_value, grid_value], [result])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def run(model_bytes: bytes, feeds: dict[str, Array], threads: int, differs: str = "") -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A thread that spins after its share of the work would be charged to whoever comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: Any = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    return Run(lambda: session.run(["result"], feeds), lambda results: results[0], differs)


def warp(task: Task) -> Run | None:
    image, flow = task.inputs
    order, boundary = task.options["order"], task.options["boundary"]
    if boundary not in PADDING or image.dtype != np.float32 or not image.flags.c_contiguous:
        return None
    if order == 3 and image.ndim == 5:
        return None
    grid = normalised(flow)
    made = model(image, grid, MODES[order], PADDING[boundary], align_corners=True)
    return run(made, {"image": image, "grid": grid}, task.threads, cubic(task))


PEERS = (Peer("ONNX Runtime GridSample", {"onnxruntime": "onnxruntime", "onnx": "onnx"}, {"warp": warp}),)
