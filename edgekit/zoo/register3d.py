"""``register3d``: deformable registration of two volumes by one small 3-D network.

The shape is VoxelMorph's (Balakrishnan et al. 2019, Dalca et al. 2019): a U-Net maps an image pair to a
stationary velocity field, scaling and squaring turns it into a diffeomorphic displacement, and the moving
image is warped by it. Training on random shapes of random contrast follows SynthMorph (Hoffmann et al. 2022).
The two images pass through one shared encoder, and the U-Net also sees how well each voxel matches its
neighbours in the other image, a cost volume as in PWC-Net (Sun et al. 2018); with it training needs minutes
instead of hours.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.torch.operators import integrate_velocity, warp

INTEGRATION_STEPS = 7
_ALL_NEIGHBOURS = tuple(product((-1, 0, 1), repeat=3))
_FACE_NEIGHBOURS = tuple(offset for offset in _ALL_NEIGHBOURS if sum(map(abs, offset)) <= 1)


class ConvBlock(nn.Sequential):
    """3x3x3 convolution and a leaky rectifier."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1), nn.LeakyReLU(0.1))


class VelocityNet(nn.Module):
    """From two images [1, 1, D, H, W] in [0, 1] to a velocity [1, 3, D/2, H/2, W/2].

    The velocity is in half-resolution voxels. Everything runs at half resolution and below; a number in a
    name is the factor of the resolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features2 = ConvBlock(1, 16, stride=2)
        self.features4 = nn.Sequential(ConvBlock(16, 32, stride=2), nn.Conv3d(32, 24, 3, padding=1))
        self.match4 = nn.Sequential(
            nn.Conv3d(len(_ALL_NEIGHBOURS) + 48, 32, 1), nn.LeakyReLU(0.1), ConvBlock(32, 32)
        )
        self.match2 = nn.Conv3d(len(_FACE_NEIGHBOURS) + 32, 16, 1)
        self.encode8 = nn.Sequential(ConvBlock(32, 64, stride=2), ConvBlock(64, 64))
        self.encode16 = nn.Sequential(ConvBlock(64, 64, stride=2), ConvBlock(64, 64))
        self.decode8 = ConvBlock(128, 64)
        self.narrow8 = nn.Conv3d(64, 32, 1)
        self.decode4 = ConvBlock(64, 32)
        self.narrow4 = nn.Conv3d(32, 16, 1)
        self.decode2 = ConvBlock(16, 16)
        self.velocity8 = nn.Conv3d(64, 3, 3, padding=1)
        self.velocity4 = nn.Conv3d(32, 3, 3, padding=1)
        self.velocity2 = nn.Conv3d(16, 3, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for head in (self.velocity8, self.velocity4, self.velocity2):
            nn.init.normal_(head.weight, std=1e-2)

    def pyramid(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity at an eighth, a quarter and half of the resolution, all in half-resolution voxels."""
        moving2, fixed2 = self.features2(moving - 0.5), self.features2(fixed - 0.5)
        moving4, fixed4 = self.features4(moving2), self.features4(fixed2)
        costs4 = match_costs(fixed4, moving4, _ALL_NEIGHBOURS)
        costs2 = match_costs(fixed2, moving2, _FACE_NEIGHBOURS)
        quarter = self.match4(torch.cat([costs4, fixed4, moving4], dim=1))
        eighth = self.encode8(quarter)
        eighth = self.decode8(torch.cat([_double(self.encode16(eighth)), eighth], dim=1))
        quarter = self.decode4(torch.cat([_double(self.narrow8(eighth)), quarter], dim=1))
        half = self.match2(torch.cat([costs2, fixed2, moving2], dim=1))
        half = self.decode2(_double(self.narrow4(quarter)) + half)
        velocity8 = self.velocity8(eighth)
        velocity4 = _double(velocity8) + self.velocity4(quarter)
        return velocity8, velocity4, _double(velocity4) + self.velocity2(half)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The velocity at half of the resolution."""
        return self.pyramid(moving, fixed)[-1]


class Register3d(nn.Module):
    """Registers ``moving`` to ``fixed``, [1, 1, D, H, W] of any intensity scale, D, H, W multiples of 16.

    Returns ``(moved, flow_vox)``: the warped moving image [1, 1, D, H, W] and the displacement
    [1, 3, D, H, W] in voxels, components (z, y, x), such that ``moved[p] = moving[p + flow_vox[p]]``.
    """

    output_names = ("moved", "flow_vox")

    def __init__(self) -> None:
        super().__init__()
        self.network = VelocityNet()

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The warped moving image and the displacement that warps it."""
        velocity2 = self.network(unit_range(moving), unit_range(fixed))
        flow_vox = integrate_velocity(_double(velocity2) * 2.0, steps=INTEGRATION_STEPS)
        return warp(moving, flow_vox), flow_vox


def build() -> Register3d:
    """The model without its weights."""
    return Register3d().eval()


def unit_range(image: Tensor) -> Tensor:
    """Each image of the batch shifted and scaled to [0, 1]; a constant image becomes zero."""
    low = torch.amin(image, dim=(1, 2, 3, 4), keepdim=True)
    span = torch.amax(image, dim=(1, 2, 3, 4), keepdim=True) - low
    return (image - low) / torch.clamp(span, min=1e-20)


def match_costs(fixed: Tensor, moving: Tensor, offsets: tuple[tuple[int, ...], ...]) -> Tensor:
    """How badly each feature vector of ``fixed`` fits those of ``moving`` around it [N, offsets, D, H, W].

    The mean squared difference over the channels, relative to its mean over the offsets: 0 is average, -1 is
    a perfect match. Without this normalisation the costs vanish beside the features and training stalls.
    """
    # Mixed-precision training: differences of near-equal features want all of float32.
    fixed, padded = fixed.float(), F.pad(moving.float(), (1,) * 6)
    costs = []
    for offset in offsets:
        steps = (slice(1 + step, step - 1 if step < 1 else None) for step in offset)
        window = (slice(None), slice(None), *steps)
        difference = fixed - padded[window]
        costs.append((difference * difference).mean(1, keepdim=True))
    cost = torch.cat(costs, dim=1)
    return cost / (cost.mean(1, keepdim=True) + 1e-3) - 1


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
