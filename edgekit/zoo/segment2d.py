"""``segment2d``: labels liver, kidneys and small liver lesions in a slice of an abdomen.

The U-Net of Ronneberger et al. (2015) with batch norm: pooling down, transposed convolutions up, skips that
are concatenated. It is the network most 2-D segmenters are, small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LABELS = ("background", "liver", "kidney", "lesion")


class ConvPair(nn.Sequential):
    """Twice: 3x3 convolution, batch norm, rectifier."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class Segment2d(nn.Module):
    """Labels ``image`` [N, 1, H, W], H and W multiples of 16, grey values from 0 to 1.

    Returns ``logits`` [N, 4, H, W]; the largest along axis 1 is the label, an index into :data:`LABELS`. A
    number in a layer's name is the factor of the resolution.
    """

    output_names = ("logits",)

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.encode1 = ConvPair(1, 16)
        self.encode2 = ConvPair(16, 32)
        self.encode4 = ConvPair(32, 64)
        self.middle8 = ConvPair(64, 128)
        self.up4 = nn.ConvTranspose2d(128, 64, 2, stride=2)
        self.decode4 = ConvPair(128, 64)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.decode2 = ConvPair(64, 32)
        self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.decode1 = ConvPair(32, 16)
        self.head = nn.Conv2d(16, len(LABELS), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the labels [N, 4, H, W]."""
        full = self.encode1(image)
        half = self.encode2(self.pool(full))
        quarter = self.encode4(self.pool(half))
        eighth = self.middle8(self.pool(quarter))
        quarter = self.decode4(torch.cat([quarter, self.up4(eighth)], dim=1))
        half = self.decode2(torch.cat([half, self.up2(quarter)], dim=1))
        full = self.decode1(torch.cat([full, self.up1(half)], dim=1))
        return self.head(full)  # type: ignore[no-any-return]


def build() -> Segment2d:
    """The model without its weights."""
    return Segment2d().eval()
