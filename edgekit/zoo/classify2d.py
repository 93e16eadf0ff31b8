"""``classify2d``: says what an ultrasound image of a breast shows, one of four findings.

A small DenseNet with bottlenecks (Huang et al. 2017): batch norm and rectifier before each convolution, so
that most norms follow a concatenation and fold into nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = ("normal", "cyst", "fibroadenoma", "carcinoma")
GROWTH = 16


class DenseLayer(nn.Sequential):
    """Norm, rectifier, 1x1 convolution, norm, rectifier, 3x3 convolution: ``GROWTH`` new channels."""

    def __init__(self, channels_in: int) -> None:
        narrow = 3 * GROWTH
        super().__init__(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, GROWTH, 3, padding=1, bias=False),
        )


class DenseBlock(nn.Module):
    """Layers that each see the outputs of all before them; ``layers * GROWTH`` channels are added."""

    def __init__(self, channels_in: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(channels_in + GROWTH * index) for index in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] to [N, channels_in + layers * GROWTH, H, W]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Transition(nn.Sequential):
    """Norm, rectifier, 1x1 convolution and a 2x2 mean: half the channels, half the resolution."""

    def __init__(self, channels_in: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_in // 2, 1, bias=False),
            nn.AvgPool2d(2),
        )


class Classify2d(nn.Module):
    """Classifies ``image`` [N, 1, H, W], H and W multiples of 32, grey values from 0 to 1.

    Returns ``logits`` [N, 4]; the largest is the class, an index into :data:`CLASSES`.
    """

    output_names = ("logits",)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        channels, blocks = 32, []
        for layers in (4, 6, 8):
            blocks += [DenseBlock(channels, layers), Transition(channels + GROWTH * layers)]
            channels = (channels + GROWTH * layers) // 2
        blocks.append(DenseBlock(channels, 6))
        channels += GROWTH * 6
        self.features = nn.Sequential(*blocks, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the classes [N, 4]."""
        features = self.features(self.stem(image))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def build() -> Classify2d:
    """The model without its weights."""
    return Classify2d().eval()
