"""Warps and integrations as the code of registration networks spells them, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def voxel_grid(size: Sequence[int]) -> Tensor:
    """The coordinates of every voxel, [1, 3, D, H, W]."""
    lines = [torch.arange(0, length) for length in size]
    return torch.stack(torch.meshgrid(lines, indexing="ij")).unsqueeze(0).float()


class SpatialTransformer(nn.Module):
    """Written in place into the new locations, as VoxelMorph does it."""

    def __init__(self, size: Sequence[int], mode: str = "bilinear", padding: str = "zeros") -> None:
        super().__init__()
        self.mode, self.padding = mode, padding
        self.register_buffer("grid", voxel_grid(size), persistent=False)

    def forward(self, src: Tensor, flow: Tensor) -> Tensor:
        new_locs = self.grid + flow
        shape = flow.shape[2:]
        for i in range(len(shape)):
            new_locs[:, i, ...] = 2 * (new_locs[:, i, ...] / (shape[i] - 1) - 0.5)
        new_locs = new_locs.permute(0, 2, 3, 4, 1)
        new_locs = new_locs[..., [2, 1, 0]]
        return F.grid_sample(src, new_locs, align_corners=True, mode=self.mode, padding_mode=self.padding)


class VecInt(nn.Module):
    """Scaling and squaring, as VoxelMorph does it."""

    def __init__(self, size: Sequence[int], steps: int) -> None:
        super().__init__()
        self.steps, self.scale = steps, 1.0 / 2**steps
        self.transformer = SpatialTransformer(size)

    def forward(self, vec: Tensor) -> Tensor:
        vec = vec * self.scale
        for _ in range(self.steps):
            vec = vec + self.transformer(vec, vec)
        return vec


class ResizeTransform(nn.Module):
    """Resizes a displacement and its values, as VoxelMorph does it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        if self.factor < 1:
            x = F.interpolate(x, align_corners=True, scale_factor=self.factor, mode="trilinear")
            return self.factor * x
        return F.interpolate(self.factor * x, align_corners=True, scale_factor=self.factor, mode="trilinear")


class VoxelMorph(nn.Module):
    """A network of that shape: velocity at half resolution, integrated, upsampled, warped."""

    def __init__(self, size: Sequence[int], steps: int = 3) -> None:
        super().__init__()
        self.flow = nn.Conv3d(2, 3, 3, padding=1)
        self.resize, self.fullsize = ResizeTransform(0.5), ResizeTransform(2.0)
        self.integrate = VecInt([length // 2 for length in size], steps)
        self.transformer = SpatialTransformer(size)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        flow = self.resize(self.flow(torch.cat([source, target], dim=1)))
        flow = self.fullsize(self.integrate(flow))
        return self.transformer(source, flow), flow


class TransMorph(nn.Module):
    """Warps image and labels with one flow; the grid is made anew and stacked out of place."""

    def forward(self, image: Tensor, labels: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        shape = flow.shape[2:]
        vectors = [torch.arange(0, s, dtype=flow.dtype) for s in shape]
        grid = torch.stack(torch.meshgrid(vectors, indexing="ij"))[None]
        located = grid + flow
        normalised = [2 * (located[:, i] / (s - 1) - 0.5) for i, s in enumerate(shape)]
        places = torch.stack(normalised[::-1], dim=-1)
        moved = F.grid_sample(image, places, align_corners=True, mode="bilinear")
        return moved, F.grid_sample(labels, places, align_corners=True, mode="nearest")


class Warped(nn.Module):
    """A warp in any of the conventions.

    Args:
        order: Of the components, ``"zyx"`` or ``"xyz"``.
        last: Whether components are the last axis.
        units: ``"vox"``, or ``"normalised"`` for the units of the grid.
        align: What GridSample does.
        normalise_align: What the grid is normalised for, the same by default.
        padding: Likewise.
        mode: Likewise.
    """

    def __init__(
        self,
        *,
        order: str = "zyx",
        last: bool = False,
        units: str = "vox",
        align: bool = True,
        normalise_align: bool | None = None,
        padding: str = "zeros",
        mode: str = "bilinear",
    ) -> None:
        super().__init__()
        self.order, self.last, self.units, self.align = order, last, units, align
        self.normalise_align = align if normalise_align is None else normalise_align
        self.padding, self.mode = padding, mode

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        if not self.last:
            flow = flow.permute(0, 2, 3, 4, 1)
        if self.order == "zyx":
            flow = flow.flip(-1)
        sizes = image.shape[2:]
        eye = torch.eye(3, 4)[None].expand(image.shape[0], 3, 4)
        if self.units == "normalised":
            grid = F.affine_grid(eye, list(image.shape), align_corners=self.normalise_align) + flow
        else:
            lines = [torch.arange(length, dtype=torch.float32) for length in sizes]
            z, y, x = torch.meshgrid(lines, indexing="ij")
            at = torch.stack([x, y, z], dim=-1)[None] + flow
            span = torch.tensor([float(length) for length in sizes[::-1]])
            grid = 2 * at / (span - 1) - 1 if self.normalise_align else (2 * at + 1) / span - 1
        return F.grid_sample(image, grid, mode=self.mode, padding_mode=self.padding, align_corners=self.align)


class Squared(nn.Module):
    """Scaling and squaring in any convention that keeps channels first."""

    def __init__(self, steps: int, scale: float, warp: Warped) -> None:
        super().__init__()
        self.steps, self.scale, self.warp = steps, scale, warp

    def forward(self, velocity: Tensor) -> Tensor:
        field = velocity * self.scale
        for _ in range(self.steps):
            field = field + self.warp(field, field)
        return field


class AffineSampled(nn.Module):
    """A grid of an affine matrix, with no field in it."""

    def forward(self, image: Tensor, theta: Tensor) -> Tensor:
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, align_corners=False)


class NormalisedAnySize(nn.Module):
    """A field in units of the grid, at any size."""

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        lines = [torch.arange(0, s, dtype=flow.dtype) for s in image.shape[2:]]
        grid = torch.stack(torch.meshgrid(lines, indexing="ij"))[None]
        places = [2 * grid[:, i] / (s - 1) - 1 + flow[:, i] for i, s in enumerate(image.shape[2:])]
        return F.grid_sample(image, torch.stack(places[::-1], dim=-1), align_corners=True)
