"""PyTorch: its operator alone, and the layers that registration networks wrap around it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from peers import Array, Peer, Run, Task, as_grid_sample, cubic

PADDING = {"edge": "border", "zero": "zeros"}


class Layer:
    """The spatial transformer as VoxelMorph and others write it.

    Identity grid in a buffer, add the displacement, normalise each component, move the components last,
    reverse them, ``grid_sample``.
    """

    def __init__(self, grid: tuple[int, ...], boundary: str, mode: str = "bilinear") -> None:
        import torch

        self.torch, self.grid, self.mode = torch, grid, mode
        axes = [torch.arange(0, size) for size in grid]
        self.identity = torch.stack(torch.meshgrid(axes, indexing="ij"))[None].float()
        self.padding = PADDING[boundary]

    def locations(self, flow: Any) -> Any:
        places = self.identity + flow
        for axis, size in enumerate(self.grid):
            places[:, axis] = 2 * (places[:, axis] / (size - 1) - 0.5)
        order = list(range(len(self.grid)))
        return places.permute(0, *(axis + 2 for axis in order), 1)[..., order[::-1]]

    def __call__(self, image: Any, flow: Any) -> Any:
        return self.torch.nn.functional.grid_sample(
            image, self.locations(flow), mode=self.mode, padding_mode=self.padding, align_corners=True
        )


def view(tensor: Any) -> Array:
    return tensor.detach().numpy()


def tensors(task: Task) -> tuple[Any, ...]:
    """The inputs, sharing their memory, and torch with the task's number of threads."""
    import torch

    torch.set_num_threads(task.threads)
    return tuple(torch.from_numpy(array) for array in task.inputs)


def layer_of(task: Task, flow: Array) -> Layer | None:
    """The layer for a task, if it has the order and the boundary."""
    modes = {0: "nearest", 1: "bilinear"} | ({3: "bicubic"} if flow.ndim == 4 else {})
    mode = modes.get(task.options.get("order", 1))
    if mode is None or task.options["boundary"] not in PADDING:
        return None
    return Layer(flow.shape[2:], task.options["boundary"], mode)


Function = Callable[..., Any]


def warp(task: Task) -> Function | None:
    layer = layer_of(task, task.inputs[1])
    # Half precision is converted first: `grid_sample` takes one type, and the grid is float32.
    return layer and (lambda image, flow: layer(image.float(), flow))


def integrate(task: Task) -> Function | None:
    layer, steps = layer_of(task, task.inputs[0]), task.options["steps"]

    def function(velocity: Any) -> Any:
        field = velocity / 2**steps
        for _ in range(steps):
            field = field + layer(field, field)
        return field

    return layer and function


def compose(task: Task) -> Function | None:
    layer = layer_of(task, task.inputs[0])
    return layer and (lambda first, second: first + layer(second, first))


def jacobian(_: Task) -> Function:
    import torch

    def function(flow: Any) -> Any:
        axes = tuple(range(1, flow.ndim - 1))
        rows = [list(torch.gradient(flow[:, axis - 1], dim=axes)) for axis in axes]
        for axis, row in enumerate(rows):
            row[axis] = row[axis] + 1
        (a, b, c), (d, e, f), (g, h, i) = rows
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    return function


def eager(make: Callable[[Task], Function | None]) -> Callable[[Task], Run | None]:
    """What ``make`` makes of a task, as torch runs it line by line."""

    def prepare(task: Task) -> Run | None:
        inputs, function = tensors(task), make(task)
        return function and Run(lambda: function(*inputs), view, differs(task))

    return prepare


def compiled(make: Callable[[Task], Function | None]) -> Callable[[Task], Run | None]:
    """The same through ``torch.compile``, which compiles at the first call."""

    def prepare(task: Task) -> Run | None:
        import torch

        inputs, function = tensors(task), make(task)
        if function is None:
            return None
        torch.compiler.reset()
        fast = torch.compile(function, dynamic=False)
        return Run(lambda: fast(*inputs), view, differs(task))

    return prepare


def differs(task: Task) -> str:
    return "every voxel goes on as long as any has to" if task.kernel == "invert" else cubic(task)


def compiler() -> str:
    return "" if shutil.which(os.environ.get("CXX", "g++")) else "no C++ compiler"


def resample(task: Task) -> Run | None:
    """``interpolate``, which does not smooth volumes."""
    import torch

    (image,), options = tensors(task), task.options
    if options["antialias"] and options["shape"] < image.shape[2:]:
        return None
    size, mode = options["shape"], "trilinear"
    return Run(lambda: torch.nn.functional.interpolate(image.float(), size, mode=mode), view)


def invert(task: Task) -> Function | None:
    layer, options = layer_of(task, task.inputs[0]), task.options

    def function(flow: Any) -> Any:
        inverse = -flow
        for _ in range(options["iterations"]):
            there = layer(flow, inverse)
            if (inverse + there).abs().max() <= options["tolerance_vox"]:
                break
            inverse = -there
        return inverse

    return layer and function


def labels(task: Task) -> Function | None:
    """Nearest on labels as numbers; linear on a one-hot volume and arg-max."""
    from torch.nn import functional

    layer = layer_of(task, task.inputs[1])
    if layer is None or task.inputs[0].shape[1] > 1:
        return None
    if task.options["method"] == "nearest":
        layer.mode = "nearest"
        return lambda image, flow: layer(image.float(), flow).to(image.dtype)
    classes = int(task.inputs[0].max()) + 1

    def function(image: Any, flow: Any) -> Any:
        one_hot = functional.one_hot(image[:, 0].long(), classes).movedim(-1, 1).float()
        return layer(one_hot, flow).argmax(1, keepdim=True).to(image.dtype)

    return function


def backward(task: Task) -> Run | None:
    """The backward pass alone of the layer, by image or by displacement; its forward pass is not timed."""
    import torch

    inputs, adjoint = tensors(task), task.kernel == "warp_adjoint"
    cotangent, flow = inputs[0], inputs[-1]
    layer = layer_of(task, task.inputs[-1])
    if layer is None or task.options["order"] == 0:
        return None
    image = (torch.zeros_like(cotangent) if adjoint else inputs[1]).requires_grad_(adjoint)
    flow.requires_grad_(not adjoint)
    result, by = layer(image, flow), image if adjoint else flow
    return Run(lambda: torch.autograd.grad(result, by, cotangent, retain_graph=True)[0], view, cubic(task))


def backward_operator(task: Task) -> Run | None:
    """The same without the layer around ``grid_sample``: its gradient by the grid is of normalised places."""
    import torch

    inputs, adjoint = tensors(task), task.kernel == "warp_adjoint"
    cotangent, flow = inputs[0], inputs[-1]
    layer = layer_of(task, task.inputs[-1])
    if layer is None or task.options["order"] != 1:
        return None
    image = torch.zeros_like(cotangent) if adjoint else inputs[1]
    at, dims = layer.locations(flow).contiguous(), flow.shape[1]
    function = getattr(torch.ops.aten, f"grid_sampler_{dims}d_backward")
    settings = (0, {"zeros": 0, "border": 1}[layer.padding], True, [adjoint, not adjoint])
    scale = 2 / (np.array(flow.shape[2:], np.float32) - 1).reshape(1, dims, *[1] * dims)

    def shown(results: Any) -> Array:
        return view(results[0]) if adjoint else np.moveaxis(view(results[1])[..., ::-1], -1, 1) * scale

    return Run(lambda: function(cotangent, image, at, *settings), shown)


def operator(task: Task) -> Run | None:
    """``grid_sample`` alone, the grid being ready in memory."""
    import torch

    tensors(task)
    sampling = as_grid_sample(task)
    if sampling is None:
        return None
    image, grid = torch.from_numpy(sampling.image), torch.from_numpy(sampling.grid)
    options = {
        "mode": {0: "nearest", 1: "bilinear", 3: "bicubic"}[sampling.order],
        "padding_mode": sampling.padding,
        "align_corners": sampling.align_corners,
    }
    return Run(lambda: torch.nn.functional.grid_sample(image.float(), grid, **options), view, cubic(task))


def points(task: Task) -> Run | None:
    """Reading a displacement at points."""
    import torch

    at, flow = tensors(task)
    if task.options["boundary"] not in PADDING:
        return None
    sizes = torch.tensor(flow.shape[2:])
    options = {"padding_mode": PADDING[task.options["boundary"]], "align_corners": True}

    def call() -> Any:
        grid = (2 * at / (sizes - 1) - 1).flip(-1)
        grid = grid.reshape(len(grid), *[1] * (len(sizes) - 1), -1, len(sizes))
        moved = torch.nn.functional.grid_sample(flow, grid, **options)
        return at + moved.reshape(*flow.shape[:2], -1).movedim(1, -1)

    return Run(call, view)


LAYERS = {
    "warp": warp,
    "integrate_velocity": integrate,
    "compose": compose,
    "invert": invert,
    "jacobian_determinant": jacobian,
    "warp_labels": labels,
}
COMPILED = {
    "warp": warp,
    "integrate_velocity": integrate,
    "compose": compose,
    "jacobian_determinant": jacobian,
}
OPERATOR = {
    "warp": operator,
    "grid_sample": operator,
    "warp_points": points,
    "resample": resample,
    "warp_adjoint": backward_operator,
    "warp_gradient": backward_operator,
}
TORCH = {"torch": "torch"}

PEERS = (
    Peer(
        "torch layer",
        TORCH,
        {name: eager(make) for name, make in LAYERS.items()}
        | {"warp_adjoint": backward, "warp_gradient": backward},
    ),
    Peer(
        "torch layer, compiled",
        TORCH,
        {name: compiled(make) for name, make in COMPILED.items()},
        needs=compiler,
    ),
    Peer("torch operator", TORCH, OPERATOR),
)
