"""The networks of bench_tvm.py in plain PyTorch and MONAI, in float32, and inputs for them.

The sizes are those of medical use: images of 256², volumes of 96³. Time does not depend on the weights, but
evidence does: convolutions keep the size of what passes through them, batch norms have the statistics of the
input they are measured on, and nothing is zero. The two reference networks have their trained weights.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import registration_networks
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekit.zoo import MODELS

# Of the largest value: less than that is a constant output, which proves nothing.
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        make: Gives the module, for the lengths of its spatial axes.
        size: Those lengths, as measured.
        quick: Smaller ones, for tests.
        pair: Whether it takes ``moving`` and ``fixed`` instead of one ``image``.
        channels: Of the image.
        trained: Whether the module comes with its weights.
    """

    make: Callable[[tuple[int, ...]], nn.Module]
    size: tuple[int, ...]
    quick: tuple[int, ...]
    pair: bool = False
    channels: int = 1
    trained: bool = False

    def inputs(self, *, quick: bool = False) -> dict[str, Tensor]:
        """Seeded inputs by name, [1, C, (D,) H, W]."""
        size = self.quick if quick else self.size
        if self.pair:
            return dict(zip(("moving", "fixed"), registration_networks.pair(size), strict=True))
        generator = torch.Generator().manual_seed(1)
        knots = [max(2, length // 8) for length in size]
        smooth = F.interpolate(
            torch.randn(1, self.channels, *knots, generator=generator),
            size=size,
            mode="bilinear" if len(size) == 2 else "trilinear",
        )
        return {"image": smooth + 0.2 * torch.randn(smooth.shape, generator=generator)}

    def build(self, *, quick: bool = False) -> nn.Module:
        """The module with its weights, ready for inference.

        Raises:
            ValueError: Its output is constant.
        """
        torch.manual_seed(0)
        module = self.make(self.quick if quick else self.size)
        inputs = self.inputs(quick=quick)
        if not self.trained:
            _randomise(module, inputs)
        module.eval()
        for output in run(module, inputs):
            if not output.std() > LEAST_SPREAD * output.abs().max():
                raise ValueError(f"want an output that varies, got {output.std()} around {output.mean()}")
        return module


def run(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs, in order."""
    with torch.inference_mode():
        results = module(*inputs.values())
    return [results] if isinstance(results, Tensor) else list(results)


def _randomise(module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Weights as of a trained network: no value is zero or one, and nothing grows or vanishes on its way."""
    norms = (nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)
    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, norms) and part.weight is not None:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.2)
            elif isinstance(part, convolutions):
                nn.init.kaiming_normal_(part.weight)
                if part.bias is not None:
                    nn.init.normal_(part.bias, std=0.1)
        batch_norms = [
            part for part in module.modules() if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d))
        ]
        for part in batch_norms:
            part.momentum = 1.0
        if batch_norms:
            module.train()(*inputs.values())


class ResidualBlock(nn.Module):
    """EDSR's: two convolutions, a tenth of which is added."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.second(F.relu(self.first(x)))


class Edsr(nn.Module):
    """Twice the resolution, as EDSR's baseline (Lim et al. 2017): 16 blocks of 64 features."""

    def __init__(self, features: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, features, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualBlock(features) for _ in range(blocks)), nn.Conv2d(features, features, 3, padding=1)
        )
        self.tail = nn.Sequential(
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(features, 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        return self.tail(x + self.body(x))


class DnCnn(nn.Module):
    """The noise of an image (Zhang et al. 2017): 17 layers of 64 features, batch norms between them."""

    def __init__(self, layers: int = 17, features: int = 64) -> None:
        super().__init__()
        inner = [
            part
            for _ in range(layers - 2)
            for part in (
                nn.Conv2d(features, features, 3, padding=1, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
            )
        ]
        self.layers = nn.Sequential(
            nn.Conv2d(1, features, 3, padding=1),
            nn.ReLU(inplace=True),
            *inner,
            nn.Conv2d(features, 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return image - self.layers(image)


class OneImage(nn.Module):
    """A network of MONAI's whose argument has no name that is the same everywhere."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.network = getattr(importlib.import_module("monai.networks.nets"), name)(**options)

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


def monai(name: str, dimensions: int, **options: Any) -> Callable[[tuple[int, ...]], nn.Module]:
    return lambda size: OneImage(name, spatial_dims=dimensions, in_channels=1, **options)


def zoo(name: str) -> Callable[[tuple[int, ...]], nn.Module]:
    def make(size: tuple[int, ...]) -> nn.Module:
        model = MODELS[name]
        module, _, function = model.factory.partition(":")
        network: nn.Module = getattr(importlib.import_module(module), function)()
        network.load_state_dict(load_file(model.weights))
        return network

    return make


_UNET: dict[str, Any] = {
    "out_channels": 3,
    "channels": (32, 64, 128, 256, 512),
    "strides": (2, 2, 2, 2),
    "num_res_units": 2,
}

NETWORKS: dict[str, Network] = {
    "register3d": Network(zoo("register3d"), (96, 96, 96), (64, 64, 64), pair=True, trained=True),
    "denoise2d": Network(zoo("denoise2d"), (256, 256), (64, 64), trained=True),
    "unet2d_batch": Network(monai("UNet", 2, norm="BATCH", **_UNET), (256, 256), (32, 32)),
    "unet2d_instance": Network(monai("UNet", 2, norm="INSTANCE", **_UNET), (256, 256), (32, 32)),
    "attention_unet": Network(
        monai("AttentionUnet", 2, out_channels=3, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2)),
        (256, 256),
        (32, 32),
    ),
    "densenet121": Network(monai("DenseNet121", 2, out_channels=4), (224, 224), (64, 64)),
    "edsr": Network(lambda size: Edsr(), (128, 128), (16, 16)),
    "dncnn": Network(lambda size: DnCnn(), (256, 256), (16, 16)),
    "unet3d": Network(
        monai(
            "UNet",
            3,
            out_channels=3,
            channels=(16, 32, 64, 128, 256),
            strides=(2, 2, 2, 2),
            num_res_units=2,
            norm="BATCH",
        ),
        (96, 96, 96),
        (32, 32, 32),
    ),
    "segresnet3d": Network(monai("SegResNet", 3, init_filters=8, out_channels=3), (96, 96, 96), (16, 16, 16)),
}

EXTRA: dict[str, Network] = {
    "swin_unetr3d": Network(
        monai("SwinUNETR", 3, out_channels=3, feature_size=12), (64, 64, 64), (64, 64, 64)
    ),
    "voxelmorph3d": Network(
        lambda size: registration_networks.build("VoxelMorph", size),
        (96, 96, 96),
        (32, 32, 32),
        pair=True,
        trained=True,
    ),
}
