"""What else computes the same as edgekit's operators: one file per package.

A file ends in ``PEERS``; its name is in :data:`FAMILIES`. A package that is not installed is left out and
named, so its file imports it inside functions only.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray

FAMILIES = (
    "edgekit",
    "numpy",
    "scipy",
    "numba",
    "torch",
    "monai",
    "onnxruntime",
    "openvino",
    "opencv",
    "simpleitk",
    "dipy",
)


@dataclass(frozen=True)
class Task:
    """What is to be computed.

    Attributes:
        kernel: Name of an operator of edgekit.
        inputs: Its positional arguments.
        options: Its keyword arguments.
        threads: How many threads may be used.
    """

    kernel: str
    inputs: tuple[Array, ...]
    options: Mapping[str, Any]
    threads: int


@dataclass(frozen=True)
class Run:
    """A task made ready: everything that need not be done in every call is done.

    Attributes:
        call: What is timed.
        view: The array of edgekit's shape and meaning in what ``call`` returns; not timed.
        differs: How the definition differs, if it does; the results are then compared but need not agree.
    """

    call: Callable[[], Any]
    view: Callable[[Any], Array] = np.asarray
    differs: str = ""


# None where the peer has no such thing for this task.
Prepare = Callable[[Task], Run | None]


@dataclass(frozen=True)
class Peer:
    """Something to compare with.

    Attributes:
        name: As the tables show it.
        packages: What must be installed: module by distribution.
        kernels: What it can do, by operator.
        threads: Whether it can use more than one thread.
    """

    name: str
    packages: Mapping[str, str]
    kernels: Mapping[str, Prepare]
    threads: bool = True
    needs: Callable[[], str] = field(default=str)

    def missing(self) -> str:
        """What is not there, or an empty string."""
        absent = [d for d, module in self.packages.items() if importlib.util.find_spec(module) is None]
        return f"not installed: {', '.join(absent)}" if absent else self.needs()

    def prepare(self, task: Task) -> Run | None:
        prepare = self.kernels.get(task.kernel)
        if prepare is None or (task.threads > 1 and not self.threads):
            return None
        return prepare(task)


def every_peer() -> tuple[Peer, ...]:
    families = (importlib.import_module(f"peers.{name}") for name in FAMILIES)
    return tuple(peer for family in families for peer in family.PEERS)


def places(flow_vox: Array) -> Array:
    """Where each voxel samples, [N, dims, ...], in voxels."""
    return np.indices(flow_vox.shape[2:], dtype=np.float32) + flow_vox


def normalised(flow_vox: Array) -> Array:
    """The same as a grid of ``grid_sample`` with ``align_corners``, [N, ..., dims] in (x, y, z)."""
    at = places(flow_vox)
    for axis, size in enumerate(flow_vox.shape[2:]):
        at[:, axis] = 2 * at[:, axis] / (size - 1) - 1
    return np.ascontiguousarray(np.moveaxis(at, 1, -1)[..., ::-1])


def cubic(task: Task) -> str:
    """How those differ whose cubic interpolation is the one of image editors."""
    return "cubic convolution with a = -0.75" if task.options.get("order") == 3 else ""
