"""Numba, on the loops of :mod:`peers.numba_loops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from peers import Peer, Run, Task


def _loop(name: str, threads: int) -> Callable[..., Any]:
    import numba

    from peers import numba_loops

    numba.set_num_threads(threads)
    return getattr(numba_loops, name)


def warp(task: Task) -> Run | None:
    image, flow = task.inputs
    if task.options["order"] != 1 or task.options["boundary"] != "edge" or image.dtype != np.float32:
        return None
    if not image.flags.c_contiguous:
        return None
    loop, out = _loop(f"warp{flow.shape[1]}d", task.threads), np.empty_like(image)
    return Run(lambda: loop(image[0], flow[0], out[0]), lambda _: out)


def compose(task: Task) -> Run | None:
    first, second = task.inputs
    if task.options["boundary"] != "edge":
        return None
    loop, out = _loop("compose3d", task.threads), np.empty_like(first)
    return Run(lambda: loop(first[0], second[0], out[0]), lambda _: out)


def integrate(task: Task) -> Run | None:
    (velocity,), steps = task.inputs, task.options["steps"]
    if task.options["boundary"] != "edge":
        return None
    loop, buffers = _loop("compose3d", task.threads), [np.empty_like(velocity[0]) for _ in range(2)]

    def call() -> None:
        np.multiply(velocity[0], np.float32(2.0**-steps), out=buffers[steps % 2])
        for step in range(steps, 0, -1):
            field = buffers[step % 2]
            loop(field, field, buffers[(step - 1) % 2])

    return Run(call, lambda _: buffers[0][None])


def jacobian(task: Task) -> Run:
    (flow,) = task.inputs
    loop, out = _loop("jacobian3d", task.threads), np.empty((1, *flow.shape[2:]), np.float32)
    return Run(lambda: loop(flow[0], out[0]), lambda _: out)


def points(task: Task) -> Run | None:
    at, flow = task.inputs
    if task.options["boundary"] != "edge":
        return None
    loop, out = _loop("points3d", task.threads), np.empty_like(at)
    return Run(lambda: loop(at[0], flow[0], out[0]), lambda _: out)


PEERS = (
    Peer(
        "numba fused loop",
        {"numba": "numba"},
        {
            "warp": warp,
            "warp_points": points,
            "compose": compose,
            "integrate_velocity": integrate,
            "jacobian_determinant": jacobian,
        },
    ),
)
