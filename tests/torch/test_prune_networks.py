"""MONAI's networks, small: cut to half of their work, run, loaded again from the plan, exported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edgekit[prune]'")

from monai.networks import nets
from monai.networks.blocks import SubpixelUpsample

from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import Exported
from edgekit.torch import prune
from edgekit.torch.calls import input_names
from edgekit.torch.export import export_module
from edgekit.torch.prune.trace import tensors_of
from edgekit.torch.source import load_weights


class Enlarge(nn.Module):
    """EDSR (Lim et al. 2017), small: residual blocks and pixel shuffling, torch's and MONAI's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 16, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
            for _ in range(2)
        )
        self.up = nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.PixelShuffle(2))
        self.again = SubpixelUpsample(2, 16, 16, scale_factor=2)
        self.tail = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = first = self.head(image)
        for block in self.body:
            x = x + block(x)
        return self.tail(self.again(self.up(x + first)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Network:
    """A network, the shape of its inputs, and layers that are to be kept with a part of the reason.

    Attributes:
        rest: Largest share of the work that may be left when half is to go.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    inputs: int = 1
    kept: tuple[tuple[str, str], ...] = ()
    importance: str = "l2"
    rest: float = 0.5


UNET = dict(channels=(8, 16, 32), strides=(2, 2), num_res_units=1)
OUTPUT = "it is what the network gives"
FIXED = "its code does not take fewer channels"

NETWORKS = {
    "unet3d-prelu": Network(
        lambda: nets.UNet(3, 1, 2, **UNET),
        (1, 1, 16, 16, 16),
        importance="taylor",
        kept=(("model.2.1.conv.unit0.conv", OUTPUT),),
    ),
    "unet2d-batch": Network(lambda: nets.UNet(2, 1, 2, norm="batch", **UNET), (2, 1, 16, 16)),
    "basic-unet": Network(lambda: nets.BasicUNet(2, 1, 2, (8, 8, 16, 16, 16, 8)), (1, 1, 32, 32)),
    "basic-unet-plus-plus": Network(
        lambda: nets.BasicUNetPlusPlus(2, 1, 2, (8, 8, 16, 16, 16, 8)),
        (1, 1, 32, 32),
        kept=(("final_conv_0_1", "nothing that the network gives depends on it"),),
    ),
    "segresnet": Network(
        lambda: nets.SegResNet(3, 16, 1, 2, blocks_down=(1, 1), blocks_up=(1,)),
        (1, 1, 8, 8, 8),
        importance="taylor",
    ),
    "segresnet-8": Network(
        lambda: nets.SegResNet(3, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,)), (1, 1, 8, 8, 8)
    ),
    "dynunet": Network(
        lambda: nets.DynUNet(
            3,
            1,
            2,
            [3, 3, 3],
            [1, 2, 2],
            [2, 2],
            filters=[8, 16, 32],
            res_block=True,
            deep_supervision=True,
            deep_supr_num=1,
        ),
        (1, 1, 8, 8, 8),
        kept=(("deep_supervision_heads.0.conv.conv", "nothing that the network gives depends on it"),),
    ),
    "vnet": Network(
        lambda: nets.VNet(2, 1, 2), (1, 1, 32, 32), kept=(("in_tr.conv_block.conv", "keeps its size"),)
    ),
    "highresnet": Network(lambda: nets.HighResNet(2, 1, 2), (1, 1, 16, 16)),
    "attention-unet": Network(lambda: nets.AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2)), (1, 1, 16, 16)),
    "densenet": Network(
        lambda: nets.DenseNet(2, 1, 2, init_features=16, growth_rate=8, block_config=(2, 2)),
        (1, 1, 32, 32),
        kept=(("class_layers.out", OUTPUT),),
        importance="taylor",
    ),
    "resnet3d": Network(
        lambda: nets.ResNet("basic", [1, 1, 1, 1], [8, 16, 16, 16], 3, 1, num_classes=2), (1, 1, 16, 16, 16)
    ),
    "efficientnet": Network(
        lambda: nets.EfficientNet(
            ["r1_k3_s11_e1_i32_o16_se0.25", "r1_k3_s22_e4_i16_o24_se0.25"],
            image_size=32,
            spatial_dims=2,
            in_channels=1,
            num_classes=2,
        ),
        (1, 1, 32, 32),
        kept=(("_fc", OUTPUT),),
    ),
    "voxelmorph": Network(
        lambda: nets.VoxelMorph(nets.VoxelMorphUNet(3, 2, 8, (8, 16), (8, 8)), integration_steps=1),
        (1, 1, 16, 16, 16),
        inputs=2,
        kept=(("backbone.net.1.final_conv_out.conv", "dvf2ddf.warp_layer"),),
    ),
    "autoencoder": Network(lambda: nets.AutoEncoder(2, 1, 1, (8, 16), (2, 2)), (1, 1, 16, 16)),
    "edsr": Network(Enlarge, (1, 1, 8, 8), importance="taylor"),
    "vit": Network(
        lambda: nets.ViT(1, (16, 16), (8, 8), 32, 64, 1, 4, spatial_dims=2, classification=True),
        (1, 1, 16, 16),
        kept=(("patch_embedding.patch_embeddings", OUTPUT),),
    ),
    "unetr": Network(
        lambda: nets.UNETR(1, 2, (16, 16), 8, 32, 64, 4, spatial_dims=2),
        (1, 1, 16, 16),
        kept=(("vit.blocks.0.attn.out_proj", FIXED),),
    ),
    "swin-unetr": Network(
        lambda: nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1)),
        (1, 1, 64, 64),
        kept=(("swinViT.layers1.0.blocks.0.attn.qkv", FIXED),),
    ),
    "autoencoder-kl": Network(
        lambda: nets.AutoencoderKL(
            2,
            1,
            1,
            num_res_blocks=(1, 1),
            channels=(8, 16),
            attention_levels=(False, False),
            latent_channels=4,
            norm_num_groups=4,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        ),
        (1, 1, 16, 16),
    ),
}
WITH_EINOPS = {"vit", "unetr", "swin-unetr"}
# What no exporter takes, pruned or not: a network that draws numbers, and one that gives a list of tensors.
NOT_EXPORTED = {"autoencoder-kl", "vit"}


def build(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name].build().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_work_goes(name: str, tmp_path: Path) -> None:
    if name in WITH_EINOPS and importlib.util.find_spec("einops") is None:
        pytest.skip("einops is not installed, which MONAI's transformers need")
    network, net = NETWORKS[name], build(name, 0)
    rng = torch.Generator().manual_seed(1)
    images = tuple(torch.rand(network.shape, generator=rng) for _ in range(network.inputs))
    pruned = prune.prune(net, [images], share=0.5, multiple=4, importance=network.importance)

    assert 0.25 < pruned.flops[1] / pruned.flops[0] <= network.rest
    assert pruned.parameters[1] < pruned.parameters[0]
    for path, reason in network.kept:
        assert reason in pruned.kept[path]

    file = tmp_path / "pruned.safetensors"
    prune.save(pruned.module, pruned.plan, file)
    again = build(name, 7)
    load_weights(again, file)
    want, got = run(pruned.module, images), run(again, images)
    assert all(torch.equal(one, other) for one, other in zip(want, got, strict=True))
    if name not in NOT_EXPORTED:
        check_export(again, images, want)


def run(net: nn.Module, images: tuple[Tensor, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return list(tensors_of(net(*images)))


def check_export(net: nn.Module, images: tuple[Tensor, ...], want: list[Tensor]) -> None:
    names = input_names(net, [])
    feeds = {name: image.numpy() for name, image in zip(names, images, strict=False)}
    shapes = {name: "x".join(map(str, feed.shape)) for name, feed in feeds.items()}
    failures = []
    for exporter in ("legacy", "dynamo"):
        exported = export_module(net, shapes, IntakeLimits(), feeds, exporter)
        if isinstance(exported, Exported):
            break
        failures.append(exported)
    assert isinstance(exported, Exported), failures
    session = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    for one, other in zip(want, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(other, one.numpy(), rtol=1e-3, atol=1e-4)
