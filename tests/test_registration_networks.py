"""Registration networks from their untouched ONNX, through every backend of the CPU, beside PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from passes.registration import AffineSampled, TransMorph, VoxelMorph, Warped
from torch import Tensor, nn

import edgekit

BACKENDS = ("openvino", "onnxruntime", "tvm")
SIZE = (12, 16, 20)
IMAGE, FIELD = (1, 1, *SIZE), (1, 3, *SIZE)
TOLERANCE = 1e-4  # of the largest value


def monai_voxelmorph() -> nn.Module:
    from monai.networks.nets import VoxelMorph as Network
    from monai.networks.nets import VoxelMorphUNet

    unet = VoxelMorphUNet(3, 2, 8, (8, 8), (8, 8))
    return Network(backbone=unet, integration_steps=3, half_res=True)


def monai_regunet() -> nn.Module:
    from monai.networks.blocks import DVF2DDF, Warp
    from monai.networks.nets import RegUNet

    class Registration(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = RegUNet(
                spatial_dims=3, in_channels=2, num_channel_initial=2, depth=1, out_channels=3
            )
            self.integrate, self.warp = DVF2DDF(3), Warp(padding_mode="border")

        def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
            field = self.integrate(self.network(torch.cat([moving, fixed], dim=1)))
            return self.warp(moving, field), field

    return Registration()


class Convolved(nn.Module):
    """A warp in some convention between two convolutions, which no step can stand for."""

    def __init__(self, warp: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.field, self.warp = nn.Conv3d(2, channels, 3, padding=1), warp
        self.after = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        field = 4 * self.field(torch.cat([moving, fixed], dim=1))
        if getattr(self.warp, "last", False):
            field = field.permute(0, 2, 3, 4, 1)
        result: Tensor = self.after(self.warp(moving, field))
        return result


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "VoxelMorph in plain PyTorch": (lambda: VoxelMorph(SIZE), (IMAGE, IMAGE)),
    "MONAI's VoxelMorph": (monai_voxelmorph, (IMAGE, IMAGE)),
    "MONAI's RegUNet": (monai_regunet, (IMAGE, IMAGE)),
    "TransMorph, image and labels": (TransMorph, (IMAGE, IMAGE, FIELD)),
    "corners not aligned, borders": (
        lambda: Convolved(Warped(align=False, padding="border")),
        (IMAGE, IMAGE),
    ),
    "x, y, z, reflected": (lambda: Convolved(Warped(order="xyz", padding="reflection")), (IMAGE, IMAGE)),
    "components last, normalised": (lambda: Convolved(Warped(last=True, units="normalised")), (IMAGE, IMAGE)),
    "another normalisation": (
        lambda: Convolved(Warped(align=False, normalise_align=True)),
        (IMAGE, IMAGE),
    ),
    "affine_grid": (AffineSampled, (IMAGE, (1, 3, 4))),
}


def exported(name: str, path: Path) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Write a network's ONNX as its author would; return inputs by name and what PyTorch makes of them."""
    make, shapes = NETWORKS[name]
    torch.manual_seed(3)
    network = make().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.15)  # some networks begin with zeros
    inputs = tuple(
        torch.rand(shape) if shape[1] != 3 or len(shape) == 3 else 2 * torch.randn(shape) for shape in shapes
    )
    names = [f"input_{index}" for index in range(len(inputs))]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        outputs = network(*inputs)
        torch.onnx.export(
            network,
            inputs,
            path,
            dynamo=True,
            opset_version=20,
            input_names=names,
            external_data=False,
            verbose=False,
        )
    results = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return feeds, [tensor.numpy() for tensor in results]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compile_for_every_backend(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    feeds, wanted = exported(name, path)
    assert all(np.ptp(array) > 0.01 for array in wanted), "a constant shows nothing"
    for backend in BACKENDS:
        bundle = edgekit.compile(path, backend=backend, inputs=feeds)
        with edgekit.open(bundle) as session:
            results = session.run(feeds)
        for got, want in zip(results.values(), wanted, strict=True):
            error = np.abs(got - want).max() / np.abs(want).max()
            assert error <= TOLERANCE, f"{backend}: {error:.2g}"
