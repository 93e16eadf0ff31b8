"""Registration networks in plain PyTorch, as their authors write them: nothing of edgekit in them.

Every one takes ``moving`` and ``fixed`` [1, 1, D, H, W] and gives the moved image and the displacement.
Weights are random, with a last layer that bends by a few voxels: time does not depend on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = Sequence[int]
BEND_VOX = 2.0


class SpatialTransformer(nn.Module):
    """A displacement in voxels, (z, y, x), written into a grid of the corners, zeros outside."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        lines = [torch.arange(length) for length in size]
        self.register_buffer("grid", torch.stack(torch.meshgrid(lines, indexing="ij"))[None].float())

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        places = self.grid + flow
        for axis, length in enumerate(flow.shape[2:]):
            places[:, axis, ...] = 2 * (places[:, axis, ...] / (length - 1) - 0.5)
        places = places.permute(0, 2, 3, 4, 1)[..., [2, 1, 0]]
        return F.grid_sample(image, places, align_corners=True, mode="bilinear")


class VecInt(nn.Module):
    """Scaling and squaring."""

    def __init__(self, size: Size, steps: int = 7) -> None:
        super().__init__()
        self.steps, self.transformer = steps, SpatialTransformer(size)

    def forward(self, velocity: Tensor) -> Tensor:
        field = velocity * 2.0**-self.steps
        for _ in range(self.steps):
            field = field + self.transformer(field, field)
        return field


class Block(nn.Sequential):
    """A convolution and its activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(nn.Conv3d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.2))


class UNet(nn.Module):
    """VoxelMorph's default one: 16, 32, 32, 32 features down, 32, 32, 32, 32 up, then 32, 16, 16."""

    def __init__(
        self, down: Size = (16, 32, 32, 32), up: Size = (32, 32, 32, 32), last: Size = (32, 16, 16)
    ) -> None:
        super().__init__()
        features = [2, *down]
        self.down = nn.ModuleList(Block(a, b, 2) for a, b in zip(features, down, strict=False))
        self.up = nn.ModuleList()
        before = down[-1]
        for skipped, count in zip(features[-2::-1], up, strict=True):
            self.up.append(Block(before, count))
            before = count + skipped
        self.last = nn.Sequential(*(Block(a, b) for a, b in zip([before, *last], last, strict=False)))
        self.features = last[-1]

    def forward(self, x: Tensor) -> Tensor:
        kept = [x]
        for layer in self.down:
            kept.append(layer(kept[-1]))
        x = kept.pop()
        for layer in self.up:
            x = F.interpolate(layer(x), scale_factor=2, mode="nearest")
            x = torch.cat([x, kept.pop()], dim=1)
        return self.last(x)


class VoxelMorph(nn.Module):
    """VoxelMorph (Dalca et al. 2019): a velocity at half resolution, squared 7 times."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.unet = UNet()
        self.flow = nn.Conv3d(self.unet.features, 3, 3, padding=1)
        self.integrate = VecInt([length // 2 for length in size])
        self.transformer = SpatialTransformer(size)

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        flow = self.flow(self.unet(torch.cat([moving, fixed], dim=1)))
        flow = 0.5 * F.interpolate(flow, scale_factor=0.5, mode="trilinear", align_corners=True)
        flow = self.integrate(flow)
        flow = F.interpolate(2.0 * flow, scale_factor=2.0, mode="trilinear", align_corners=True)
        return self.transformer(moving, flow), flow


class Monai(nn.Module):
    """MONAI's VoxelMorph with its own warp and integration."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that MONAI's own extension is not built
            from monai.networks.nets import VoxelMorph as Network

            self.network = Network(half_res=True)
        self.flow = self.network.backbone  # where bend() finds the last convolution

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        moved, flow = self.network(moving, fixed)
        return moved, flow


class Normalised(nn.Module):
    """Displacements (x, y, z) in units of the grid, added to ``affine_grid``; edges go on."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.unet = UNet()
        self.flow = nn.Conv3d(self.unet.features, 3, 3, padding=1)
        self.register_buffer("identity", torch.eye(3, 4)[None])
        self.register_buffer(
            "units", 2 / torch.tensor([float(n) for n in size[::-1]])[None, :, None, None, None]
        )

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        flow = self.flow(self.unet(torch.cat([moving, fixed], dim=1))) * self.units
        grid = F.affine_grid(self.identity, list(moving.shape), align_corners=False)
        grid = grid + flow.permute(0, 2, 3, 4, 1)
        return F.grid_sample(moving, grid, padding_mode="border", align_corners=False), flow


NETWORKS: dict[str, Callable[[Size], nn.Module]] = {
    "VoxelMorph": VoxelMorph,
    "MONAI VoxelMorph": Monai,
    "affine_grid xyz": Normalised,
}


def build(name: str, size: Size) -> nn.Module:
    """A network that bends a noise image by about :data:`BEND_VOX` voxels."""
    torch.manual_seed(0)
    network = NETWORKS[name](size).eval()
    last = [
        module for module in network.modules() if isinstance(module, nn.Conv3d) and module.out_channels == 3
    ][-1]
    inputs = pair(size)
    with torch.no_grad():
        last.weight.normal_(0, 1e-3)
        torch.nn.init.zeros_(last.bias)
        seen: list[Tensor] = []
        handle = last.register_forward_hook(lambda module, given, result: seen.append(result))
        network(*inputs)
        handle.remove()
        last.weight.mul_(BEND_VOX / seen[0].std())
    return network


def pair(size: Size) -> tuple[Tensor, Tensor]:
    """Two smooth images."""
    generator = torch.Generator().manual_seed(1)
    knots = [max(2, length // 8) for length in size]
    images = torch.rand(2, 1, *knots, generator=generator)
    moving, fixed = F.interpolate(images, size=tuple(size), mode="trilinear", align_corners=True).split(1)
    return moving.contiguous(), fixed.contiguous()
