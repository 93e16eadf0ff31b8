"""edgekit against itself: what another type or layout of the same image costs."""

from __future__ import annotations

import numpy as np

from edgekit.kernels.base import OPERATORS
from peers import Peer, Run, Task


def _again(task: Task, image: np.ndarray) -> Run:
    function, out = OPERATORS[task.kernel].function, np.empty_like(image)
    inputs = (image, *task.inputs[1:])
    return Run(lambda: function(*inputs, **task.options, out=out, threads=task.threads))


def float32(task: Task) -> Run | None:
    image = task.inputs[0]
    if image.dtype != np.float16:
        return None
    return _again(task, image.astype(np.float32))


def planar(task: Task) -> Run | None:
    image = task.inputs[0]
    if image.flags.c_contiguous:
        return None
    return _again(task, np.ascontiguousarray(image))


PEERS = (
    Peer("edgekit, float32 image", {}, {"warp": float32}),
    Peer("edgekit, planar image", {}, {"warp": planar}),
)
