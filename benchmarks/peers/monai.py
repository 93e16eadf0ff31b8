"""MONAI's registration blocks, on PyTorch."""

from __future__ import annotations

import warnings
from typing import Any

from peers import Peer, Run, Task, cubic
from peers.torch import PADDING, tensors, view

MODES = {0: "nearest", 1: "bilinear", 3: "bicubic"}


def _block(name: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # it says that its own extension is not built, which wheels never have
        from monai.networks import blocks

        return getattr(blocks, name)(**options)


def warp(task: Task) -> Run | None:
    image, flow = tensors(task)
    order, boundary = task.options["order"], task.options["boundary"]
    if boundary not in PADDING or (order == 3 and flow.ndim == 5):
        return None
    block = _block("Warp", mode=MODES[order], padding_mode=PADDING[boundary])
    return Run(lambda: block(image.float(), flow), view, cubic(task))


def integrate(task: Task) -> Run | None:
    (velocity,) = tensors(task)
    if task.options["boundary"] not in PADDING:
        return None
    block = _block("DVF2DDF", num_steps=task.options["steps"], padding_mode=PADDING[task.options["boundary"]])
    return Run(lambda: block(velocity), view)


PEERS = (
    Peer(
        "MONAI Warp, DVF2DDF",
        {"monai": "monai", "torch": "torch"},
        {"warp": warp, "integrate_velocity": integrate},
    ),
)
