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
    "skimage",
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
        packages: What must be installed: the module that each distribution brings.
        kernels: What it can do, by operator.
        threads: Whether it can use more than one thread.
        needs: Says what else is missing, or nothing.
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


def normalised(at: Array, grid: tuple[int, ...]) -> Array:
    """Places [N, dims, ...] in voxels as PyTorch and ONNX have them, [N, ..., dims] in (x, y, z).

    The corners are aligned.
    """
    scale = 2 / (np.array(grid, np.float32) - 1)
    return np.ascontiguousarray((np.moveaxis(at, 1, -1) * scale - 1)[..., ::-1])


def cubic(task: Task) -> str:
    """How those differ whose cubic interpolation is the one of image editors."""
    same = task.kernel == "grid_sample" or task.options.get("order") != 3
    return "" if same else "cubic convolution with a = -0.75"


@dataclass(frozen=True)
class GridSample:
    """A task for those whose operator is PyTorch's and ONNX's."""

    image: Array
    grid: Array
    order: int
    padding: str
    align_corners: bool


def as_grid_sample(task: Task) -> GridSample | None:
    """A warp, or a grid_sample itself, as the operator of PyTorch and ONNX; ``None`` where it cannot be.

    The grid of a warp is computed here, which is work that this operator leaves to others.
    """
    image, last = task.inputs[:2]
    if task.kernel == "grid_sample":
        order = {"nearest": 0, "bilinear": 1, "bicubic": 3}[task.options["mode"]]
        return GridSample(image, last, order, task.options["padding_mode"], task.options["align_corners"])
    padding = {"edge": "border", "zero": "zeros"}.get(task.options["boundary"])
    if padding is None or (task.options["order"] == 3 and image.ndim == 5):
        return None
    grid = normalised(places(last), last.shape[2:])
    return GridSample(image, grid, task.options["order"], padding, align_corners=True)
