"""``segment3d``: labels brain, ventricles and small lesions in a volume of a head.

The residual U-Net of Kerfoot et al. (2019) that MONAI's users know as ``UNet(num_res_units=2)``: strided
convolutions down, transposed ones up, skips that are concatenated, instance norm without parameters and a
rectifier whose slope is one learned number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LABELS = ("background", "brain", "ventricle", "lesion")


class ConvUnit(nn.Sequential):
    """3x3x3 convolution, instance norm, rectifier."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1),
            nn.InstanceNorm3d(channels_out),
            nn.PReLU(),
        )


class ResidualUnit(nn.Module):
    """Two convolution units, and around them a convolution that changes channels and size alike."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvUnit(channels_in, channels_out, stride), ConvUnit(channels_out, channels_out)
        )
        size = 1 if stride == 1 else 3
        self.around = nn.Conv3d(channels_in, channels_out, size, stride=stride, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, D, H, W] to [N, channels_out, D / stride, H / stride, W / stride]."""
        return self.body(x) + self.around(x)  # type: ignore[no-any-return]


class UpUnit(nn.Module):
    """Transposed convolution to twice the size, then x + convolution unit (x); the last one has no norm."""

    def __init__(self, channels_in: int, channels_out: int, last: bool = False) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.ConvTranspose3d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1),
            nn.InstanceNorm3d(channels_out),
            nn.PReLU(),
        )
        self.refine = (
            nn.Conv3d(channels_out, channels_out, 3, padding=1)
            if last
            else ConvUnit(channels_out, channels_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, D, H, W] to [N, channels_out, 2 D, 2 H, 2 W]."""
        x = self.enlarge(x)
        return x + self.refine(x)  # type: ignore[no-any-return]


class Segment3d(nn.Module):
    """Labels ``image`` [N, 1, D, H, W] of any intensity scale, D, H, W multiples of 16.

    Returns ``logits`` [N, 4, D, H, W]; the largest along axis 1 is the label, an index into :data:`LABELS`. A
    number in a layer's name is the factor of the resolution it makes.
    """

    output_names = ("logits",)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.InstanceNorm3d(1)
        self.encode2 = ResidualUnit(1, 16, stride=2)
        self.encode4 = ResidualUnit(16, 32, stride=2)
        self.encode8 = ResidualUnit(32, 64, stride=2)
        self.middle8 = ResidualUnit(64, 128, stride=1)
        self.up4 = UpUnit(64 + 128, 32)
        self.up2 = UpUnit(32 + 32, 16)
        self.up1 = UpUnit(16 + 16, len(LABELS), last=True)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the labels [N, 4, D, H, W]."""
        half = self.encode2(self.scale(image))
        quarter = self.encode4(half)
        eighth = self.encode8(quarter)
        eighth = torch.cat([eighth, self.middle8(eighth)], dim=1)
        quarter = torch.cat([quarter, self.up4(eighth)], dim=1)
        half = torch.cat([half, self.up2(quarter)], dim=1)
        return self.up1(half)  # type: ignore[no-any-return]


def build() -> Segment3d:
    """The model without its weights."""
    return Segment3d().eval()
