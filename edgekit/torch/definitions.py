"""The operators in plain torch: what runs where edgekit's own kernels do not, such as on a GPU.

They stand on torch's ``grid_sampler``, which has no cubic interpolation of volumes and no periodic boundary:
:data:`ORDERS` and :data:`BOUNDARIES` are what there is. Gradients are functions of their own, because an
operator that is registered with torch cannot differentiate what it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import KernelError

# grid_sampler's numbers: the interpolation; the padding, and whether coordinates run from the centre of the
# first voxel to that of the last, which is also where they are reflected.
_MODES = {0: 1, 1: 0}
_PADDINGS = {"zero": (0, False), "edge": (1, False), "reflect": (2, False), "mirror": (2, True)}
# Of volumes: mode and padding by ONNX's names.
SAMPLING_MODES = {"linear": 0, "nearest": 1}
_SAMPLING_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}
ORDERS = tuple(_MODES)
BOUNDARIES = tuple(_PADDINGS)


def has_plain(*, order: int = 1, boundary: str = "edge", mode: str = "linear", **options: object) -> bool:
    """Whether the definitions take these options."""
    return order in ORDERS and boundary in BOUNDARIES and mode in SAMPLING_MODES


def warp_plain(image: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    """The image at ``p + flow_vox[p]``; see :func:`edgekit.torch.operators.warp`."""
    grid, settings = _sampler(flow_vox, order, boundary)
    return torch.grid_sampler(image, grid, *settings)


def warp_adjoint_plain(values: Tensor, flow_vox: Tensor, order: int, boundary: str) -> Tensor:
    """The transpose of :func:`warp_plain` as a linear map of the image."""
    grid, settings = _sampler(flow_vox, order, boundary)
    # Of the image only the shape counts here.
    image, _ = _sampler_backward(values, values, grid, settings, (True, False))
    return image


def warp_gradient_plain(
    cotangent: Tensor, image: Tensor, flow_vox: Tensor, order: int, boundary: str
) -> Tensor:
    """The derivative of ``(cotangent * warp_plain(image, flow_vox)).sum()`` by ``flow_vox``."""
    grid, settings = _sampler(flow_vox, order, boundary)
    _, gradient = _sampler_backward(cotangent, image, grid, settings, (False, True))
    # The sampler's coordinates run from -1 to 1, and their components x, y, z.
    scale = [2 / _extent(size, settings[2]) for size in flow_vox.shape[2:]]
    return torch.movedim(gradient.flip(-1) * gradient.new_tensor(scale), -1, 1)


def compose_plain(first_vox: Tensor, second_vox: Tensor, boundary: str) -> Tensor:
    """The displacement of moving by ``first_vox``, then by ``second_vox``."""
    return first_vox + warp_plain(second_vox, first_vox, 1, boundary)


def integrate_plain(velocity_vox: Tensor, steps: int, boundary: str) -> Tensor:
    """Scaling and squaring; see :func:`edgekit.torch.operators.integrate_velocity`."""
    flow = velocity_vox / 2.0**steps
    for _ in range(steps):
        flow = compose_plain(flow, flow, boundary)
    return flow


def grid_sample_plain(
    image: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool
) -> Tensor:
    """The image where the grid says; see :func:`edgekit.torch.operators.grid_sample`."""
    return torch.grid_sampler(image, grid, *_sampling(grid, mode, padding_mode, align_corners))


def grid_sample_gradients(
    cotangent: Tensor,
    image: Tensor,
    grid: Tensor,
    mode: str,
    padding_mode: str,
    align_corners: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """The derivatives of ``(cotangent * grid_sample_plain(image, grid)).sum()`` that are wanted."""
    settings = _sampling(grid, mode, padding_mode, align_corners)
    return _sampler_backward(cotangent, image, grid, settings, wanted)


def jacobian_plain(flow_vox: Tensor) -> Tensor:
    """Determinant of the Jacobian of ``p -> p + flow_vox[p]``: [N, D, H, W] or [N, H, W]."""
    matrix = jacobian_matrix(flow_vox)
    first = cofactors(matrix)[0]
    return torch.stack([m * c for m, c in zip(matrix[0], first, strict=True)]).sum(0)


def jacobian_gradient(cotangent: Tensor, flow_vox: Tensor) -> Tensor:
    """The derivative of ``(cotangent * jacobian_plain(flow_vox)).sum()``, by Jacobi's formula."""
    rows = cofactors(jacobian_matrix(flow_vox))
    return torch.stack(
        [
            torch.stack([_difference_adjoint(cotangent * c, axis + 1) for axis, c in enumerate(row)]).sum(0)
            for row in rows
        ],
        dim=1,
    )


def jacobian_matrix(flow_vox: Tensor) -> list[list[Tensor]]:
    """Derivatives of ``p + flow_vox[p]``, each [N, ...]: rows are components, columns are axes."""
    dims = flow_vox.shape[1]
    return [
        [_difference(flow_vox[:, row], axis + 1) + float(row == axis) for axis in range(dims)]
        for row in range(dims)
    ]


def cofactors(m: list[list[Tensor]]) -> list[list[Tensor]]:
    """The derivative of a determinant by each entry of its matrix."""
    if len(m) == 2:
        return [[m[1][1], -m[1][0]], [-m[0][1], m[0][0]]]

    def minor(row: int, column: int) -> Tensor:
        a, b = m[(row + 1) % 3], m[(row + 2) % 3]
        left, right = (column + 1) % 3, (column + 2) % 3
        return a[left] * b[right] - a[right] * b[left]

    return [[minor(row, column) for column in range(3)] for row in range(3)]


def _difference(values: Tensor, axis: int) -> Tensor:
    """Central differences, one-sided at the borders, 0 along an axis of one voxel."""
    if values.shape[axis] == 1:
        return torch.zeros_like(values)
    return torch.gradient(values, dim=axis)[0]


def _difference_adjoint(values: Tensor, axis: int) -> Tensor:
    """The transpose of :func:`_difference`."""
    size = values.shape[axis]
    if size == 1:
        return torch.zeros_like(values)
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, size - 1, 1)
    weighted = torch.cat([first, values.narrow(axis, 1, size - 2) / 2, last], axis)
    from_left = torch.cat([-first, weighted.narrow(axis, 0, size - 1)], axis)
    from_right = torch.cat([weighted.narrow(axis, 1, size - 1), -last], axis)
    return from_left - from_right


def _sampler(flow_vox: Tensor, order: int, boundary: str) -> tuple[Tensor, tuple[int, int, bool]]:
    """grid_sampler's coordinates and settings."""
    if not has_plain(order=order, boundary=boundary):
        raise KernelError(
            f"on {flow_vox.device.type} there is no order {order} with boundary {boundary!r}: want order "
            f"{' or '.join(map(str, ORDERS))} and boundary {', '.join(map(repr, BOUNDARIES))}",
            where="warp",
            hint="move the tensors to the CPU: tensor.cpu()",
        )
    padding, centred = _PADDINGS[boundary]
    coordinates = []
    for axis, size in enumerate(flow_vox.shape[2:]):
        shape = [1] * (flow_vox.dim() - 1)
        shape[axis + 1] = size
        position = torch.arange(size, dtype=flow_vox.dtype, device=flow_vox.device).reshape(shape)
        at = position + flow_vox[:, axis]
        if order == 0:
            at = torch.floor(at + 0.5)
        coordinates.append((2 * at + (0 if centred else 1)) / _extent(size, centred) - 1)
    return torch.stack(coordinates[::-1], dim=-1), (_MODES[order], padding, centred)


def _sampling(grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> tuple[int, int, bool]:
    """grid_sampler's settings for its own convention."""
    if mode not in SAMPLING_MODES:
        raise KernelError(
            f"on {grid.device.type} torch has no mode {mode!r} for volumes, nor gradients of it: want "
            f"{' or '.join(map(repr, SAMPLING_MODES))}",
            where="grid_sample",
            hint="grid_sample(image.detach().cpu(), grid.detach().cpu(), mode='cubic')",
        )
    return SAMPLING_MODES[mode], _SAMPLING_PADDINGS[padding_mode], align_corners


def _extent(size: int, centred: bool) -> int:
    """Voxels between grid_sampler's -1 and 1; an axis of one voxel mirrors to itself at any scale."""
    return max(size - 1, 1) if centred else size


def _sampler_backward(
    cotangent: Tensor,
    image: Tensor,
    grid: Tensor,
    settings: tuple[int, int, bool],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    aten: Any = torch.ops.aten
    backward = aten.grid_sampler_3d_backward if image.dim() == 5 else aten.grid_sampler_2d_backward
    return backward(cotangent, image, grid, *settings, wanted)  # type: ignore[no-any-return]


# By the names of edgekit.kernels.
PLAIN: Mapping[str, Callable[..., Tensor]] = {
    "warp": warp_plain,
    "warp_adjoint": warp_adjoint_plain,
    "warp_gradient": warp_gradient_plain,
    "compose": compose_plain,
    "integrate_velocity": integrate_plain,
    "grid_sample": grid_sample_plain,
    "jacobian_determinant": jacobian_plain,
}
