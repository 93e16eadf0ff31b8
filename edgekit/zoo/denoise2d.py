"""``denoise2d``: removes Gaussian or Rician noise of unknown level from a 2-D medical image.

A residual U-Net without batch statistics, in the line of DnCNN (Zhang et al. 2017) and DRUNet (Zhang et al.
2021), but blind: no noise level goes in. The image's own mean and standard deviation set its scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] to the same shape."""
        return x + self.body(x)  # type: ignore[no-any-return]


class NoiseNet(nn.Module):
    """U-Net from a normalised image [N, 1, H, W] to its noise [N, 1, H, W]; H and W multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.down2 = nn.Conv2d(16, 32, 2, stride=2)
        self.encode2 = nn.Sequential(ResidualBlock(32), ResidualBlock(32))
        self.down4 = nn.Conv2d(32, 64, 2, stride=2)
        self.encode4 = nn.Sequential(ResidualBlock(64), ResidualBlock(64))
        self.down8 = nn.Conv2d(64, 96, 2, stride=2)
        self.middle8 = nn.Sequential(ResidualBlock(96), ResidualBlock(96))
        self.up4 = nn.ConvTranspose2d(96, 64, 2, stride=2)
        self.decode4 = nn.Sequential(ResidualBlock(64), ResidualBlock(64))
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.decode2 = nn.Sequential(ResidualBlock(32), ResidualBlock(32))
        self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.tail = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """The noise in a normalised image."""
        full = self.head(x)
        half = self.encode2(self.down2(full))
        quarter = self.encode4(self.down4(half))
        eighth = self.middle8(self.down8(quarter))
        quarter = self.decode4(self.up4(eighth) + quarter)
        half = self.decode2(self.up2(quarter) + half)
        return self.tail(self.up1(half) + full)  # type: ignore[no-any-return]


class Denoise2d(nn.Module):
    """Denoises ``image`` [N, 1, H, W], H and W multiples of 8, in any intensity unit; the unit is kept."""

    output_names = ("denoised",)

    def __init__(self) -> None:
        super().__init__()
        self.network = NoiseNet()

    def forward(self, image: Tensor) -> Tensor:
        """The image [N, 1, H, W] without its noise."""
        mean = torch.mean(image, dim=(1, 2, 3), keepdim=True)
        centred = image - mean
        scale = torch.sqrt(torch.mean(centred * centred, dim=(1, 2, 3), keepdim=True))
        scale = torch.clamp(scale, min=1e-20)
        return image - self.network(centred / scale) * scale  # type: ignore[no-any-return]


def build() -> Denoise2d:
    """The model without its weights."""
    return Denoise2d().eval()
