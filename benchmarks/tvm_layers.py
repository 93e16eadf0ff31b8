"""The layers of bench_tvm.py: convolutions as they stand in medical networks, each a network of one layer.

What a runtime does to its own layout and back at the edges of such a network is in its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d


class OneLayer(nn.Module):
    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image)


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        make: Gives it, with random weights.
        size: Spatial lengths of its input.
    """

    make: Callable[[], Convolution]
    size: tuple[int, ...]

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return OneLayer(self.make()).eval()

    def inputs(self) -> dict[str, Tensor]:
        """The seeded input [1, C, (D,) H, W]."""
        shape = (1, self.make().in_channels, *self.size)
        return {"image": torch.randn(shape, generator=torch.Generator().manual_seed(1))}

    @property
    def fmas(self) -> int:
        """Multiply-adds, the ones with padding too."""
        layer, image = self.make(), self.inputs()["image"]
        of_one = math.prod(layer.kernel_size) * layer.in_channels * layer.out_channels // layer.groups
        transposed = isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        with torch.inference_mode():
            places = image.shape[2:] if transposed else layer.to("meta")(image.to("meta")).shape[2:]
        return of_one * math.prod(places)


def convolution(
    kind: Callable[..., Convolution], inputs: int, outputs: int, kernel: int, *size: int, **options: Any
) -> Layer:
    return Layer(lambda: kind(inputs, outputs, kernel, **options), size)


LAYERS: dict[str, Layer] = {
    "2d 3x3 64-64 64²": convolution(nn.Conv2d, 64, 64, 3, 64, 64, padding=1),
    "2d 3x3 32-32 256²": convolution(nn.Conv2d, 32, 32, 3, 256, 256, padding=1),
    "2d 3x3 128-128 32²": convolution(nn.Conv2d, 128, 128, 3, 32, 32, padding=1),
    "2d 3x3 256-256 16²": convolution(nn.Conv2d, 256, 256, 3, 16, 16, padding=1),
    "2d 3x3 128-32 28²": convolution(nn.Conv2d, 128, 32, 3, 28, 28, padding=1, bias=False),
    "2d 3x3 first 1-64 256²": convolution(nn.Conv2d, 1, 64, 3, 256, 256, padding=1),
    "2d 3x3 last 64-1 256²": convolution(nn.Conv2d, 64, 1, 3, 256, 256, padding=1),
    "2d 3x3 last 32-3 256²": convolution(nn.Conv2d, 32, 3, 3, 256, 256, padding=1),
    "2d 7x7 stride 2 first 1-64 224²": convolution(nn.Conv2d, 1, 64, 7, 224, 224, stride=2, padding=3),
    "2d 3x3 stride 2 32-64 128²": convolution(nn.Conv2d, 32, 64, 3, 128, 128, stride=2, padding=1),
    "2d 2x2 stride 2 32-64 128²": convolution(nn.Conv2d, 32, 64, 2, 128, 128, stride=2),
    "2d 3x3 dilated 2 64-64 64²": convolution(nn.Conv2d, 64, 64, 3, 64, 64, padding=2, dilation=2),
    "2d 1x1 64-64 128²": convolution(nn.Conv2d, 64, 64, 1, 128, 128),
    "2d 1x1 512-128 28²": convolution(nn.Conv2d, 512, 128, 1, 28, 28, bias=False),
    "2d depthwise 3x3 128 64²": convolution(nn.Conv2d, 128, 128, 3, 64, 64, padding=1, groups=128),
    "2d transposed 2x2 stride 2 128-64 64²": convolution(nn.ConvTranspose2d, 128, 64, 2, 64, 64, stride=2),
    "2d transposed 3x3 stride 2 128-32 64²": convolution(
        nn.ConvTranspose2d, 128, 32, 3, 64, 64, stride=2, padding=1, output_padding=1
    ),
    "2d transposed 4x4 stride 2 64-64 64²": convolution(
        nn.ConvTranspose2d, 64, 64, 4, 64, 64, stride=2, padding=1
    ),
    "3d 3x3x3 32-32 48³": convolution(nn.Conv3d, 32, 32, 3, 48, 48, 48, padding=1),
    "3d 3x3x3 16-16 48³": convolution(nn.Conv3d, 16, 16, 3, 48, 48, 48, padding=1),
    "3d 3x3x3 8-8 96³": convolution(nn.Conv3d, 8, 8, 3, 96, 96, 96, padding=1),
    "3d 3x3x3 64-64 12³": convolution(nn.Conv3d, 64, 64, 3, 12, 12, 12, padding=1),
    "3d 3x3x3 256-256 6³": convolution(nn.Conv3d, 256, 256, 3, 6, 6, 6, padding=1),
    "3d 3x3x3 first 1-16 96³": convolution(nn.Conv3d, 1, 16, 3, 96, 96, 96, stride=2, padding=1),
    "3d 3x3x3 last 16-3 96³": convolution(nn.Conv3d, 16, 3, 3, 96, 96, 96, padding=1),
    "3d 3x3x3 stride 2 32-64 48³": convolution(nn.Conv3d, 32, 64, 3, 48, 48, 48, stride=2, padding=1),
    "3d 1x1x1 64-32 24³": convolution(nn.Conv3d, 64, 32, 1, 24, 24, 24),
    "3d depthwise 3x3x3 32 48³": convolution(nn.Conv3d, 32, 32, 3, 48, 48, 48, padding=1, groups=32),
    "3d transposed 2x2x2 stride 2 64-32 24³": convolution(
        nn.ConvTranspose3d, 64, 32, 2, 24, 24, 24, stride=2
    ),
    "3d transposed 3x3x3 stride 2 64-16 24³": convolution(
        nn.ConvTranspose3d, 64, 16, 3, 24, 24, 24, stride=2, padding=1, output_padding=1
    ),
    "3d transposed 4x4x4 stride 2 32-16 24³": convolution(
        nn.ConvTranspose3d, 32, 16, 4, 24, 24, 24, stride=2, padding=1
    ),
}
