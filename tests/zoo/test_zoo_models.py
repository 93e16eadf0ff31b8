from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekit.zoo import MODELS, ZooModel
from edgekit.zoo.register3d import match_costs

LARGEST_BYTES = 3_000_000


def build(model: ZooModel) -> nn.Module:
    module, _, function = model.factory.partition(":")
    return getattr(import_module(module), function)()


def trained(name: str) -> nn.Module:
    module = build(MODELS[name])
    module.load_state_dict(load_file(MODELS[name].weights))
    return module


def image(*shape: int, seed: int = 0) -> Tensor:
    coarse = torch.randn(
        *shape[:2], *(s // 8 for s in shape[2:]), generator=torch.Generator().manual_seed(seed)
    )
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    return nn.functional.interpolate(coarse, size=shape[2:], mode=mode)


def test_listing_the_models_loads_no_framework() -> None:
    code = "import sys, edgekit.zoo as z; print(*z.MODELS, 'torch' in sys.modules, 'numpy' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [*MODELS, "False", "False"]


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_weights_belong_to_the_factory(model: ZooModel) -> None:
    assert model.weights.stat().st_size < LARGEST_BYTES
    module = build(model)
    assert not module.training
    module.load_state_dict(load_file(model.weights), strict=True)
    with safe_open(model.weights, "pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == model.name
    assert {"recipe", "seed", "minutes"} <= metadata.keys()


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_a_seed_decides_the_untrained_weights(model: ZooModel) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build(model).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (2, 1, 40, 72), (1, 1, 8, 8)])
def test_denoise2d_keeps_the_shape(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert build(MODELS["denoise2d"])(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("shape", [(1, 1, 32, 48, 16), (2, 1, 16, 16, 16)])
def test_register3d_gives_an_image_and_a_field(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        moved, flow_vox = build(MODELS["register3d"])(torch.randn(shape), torch.randn(shape))
    assert moved.shape == shape
    assert flow_vox.shape == (shape[0], 3, *shape[2:])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("segment2d", (1, 1, 64, 96)),
        ("segment2d", (2, 1, 16, 32)),
        ("segment3d", (1, 1, 32, 48, 16)),
        ("segment3d", (2, 1, 16, 16, 16)),
    ],
)
def test_segmenters_give_logits_of_every_pixel(name: str, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        logits = build(MODELS[name])(torch.randn(shape))
    assert logits.shape == (shape[0], 4, *shape[2:])


@pytest.mark.parametrize("shape", [(1, 1, 128, 224), (3, 1, 64, 32)])
def test_classify2d_gives_logits_of_every_image(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert build(MODELS["classify2d"])(torch.randn(shape)).shape == (shape[0], 4)


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0.0), (1.0, -1024.0), (3e4, 1e4)])
def test_segment3d_does_not_depend_on_units(scale: float, offset: float) -> None:
    # The norm in front adds 1e-5 to the variance, which an image much fainter than the first one would show.
    module, volume = trained("segment3d"), 100 * image(1, 1, 32, 32, 32)
    with torch.no_grad():
        wanted, found = module(volume), module(volume * scale + offset)
    assert wanted.argmax(1).unique().numel() > 1
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.99


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1.0, -1024.0), (3e4, 1e4)])
def test_denoise2d_keeps_the_unit_of_its_input(scale: float, offset: float) -> None:
    module, noisy = trained("denoise2d"), image(1, 1, 64, 64) + 0.3 * image(1, 1, 64, 64, seed=1)
    with torch.no_grad():
        wanted, found = module(noisy), module(noisy * scale + offset)
    torch.testing.assert_close((found - offset) / scale, wanted, rtol=0, atol=5e-3)


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1.0, -1024.0), (3e4, 1e4)])
def test_register3d_does_not_depend_on_units(scale: float, offset: float) -> None:
    module, moving, fixed = trained("register3d"), image(1, 1, 32, 32, 32), image(1, 1, 32, 32, 32, seed=1)
    with torch.no_grad():
        _, wanted = module(moving, fixed)
        moved, found = module(moving * scale + offset, fixed * 7 - 3)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2)
    assert moved.min() >= moving.min() * scale + offset - abs(offset) * 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_constant_images_stay_finite(name: str) -> None:
    module = trained(name)
    with torch.no_grad():
        if name in ("segment2d", "segment3d", "classify2d"):
            spatial = (16, 16, 16) if name == "segment3d" else (128, 128)
            assert module(torch.full((1, 1, *spatial), 7.0)).isfinite().all()
        elif name == "denoise2d":
            torch.testing.assert_close(
                module(torch.full((1, 1, 16, 16), 7.0)), torch.full((1, 1, 16, 16), 7.0)
            )
        else:
            flat = torch.full((1, 1, 16, 16, 16), 7.0)
            moved, flow_vox = module(flat, flat)
            torch.testing.assert_close(moved, flat)
            assert flow_vox.isfinite().all()


def test_match_cost_is_lowest_where_the_images_agree() -> None:
    fixed = torch.randn(1, 8, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    offsets = ((0, 0, 0), (0, 0, 1), (-1, 0, 0))
    moving = torch.roll(fixed, shifts=1, dims=4)
    best = match_costs(fixed, moving, offsets).argmin(1)[..., 1:-1]
    assert (best == 1).all()
