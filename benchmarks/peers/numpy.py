"""NumPy, as one would write it."""

from __future__ import annotations

import numpy as np

from peers import Peer, Run, Task


def jacobian(task: Task) -> Run:
    (flow,) = task.inputs
    return Run(lambda: np.stack([determinant(sample) for sample in flow]))


def determinant(flow: np.ndarray) -> np.ndarray:
    """By central differences and the rule of Sarrus, in the type of the field."""
    rows = [list(np.gradient(component)) for component in flow]
    for axis, row in enumerate(rows):
        row[axis] = row[axis] + 1
    if len(rows) == 2:
        (a, b), (c, d) = rows
        return a * d - b * c
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


PEERS = (Peer("numpy gradient + det", {}, {"jacobian_determinant": jacobian}, threads=False),)
