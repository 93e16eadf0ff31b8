"""Fake quantization against what ONNX says QuantizeLinear and DequantizeLinear are."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from edgekit import probe
from edgekit.calibration import activations
from edgekit.errors import ModelError, UsageError
from edgekit.graph.load import load
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.passes.quantize import QuantizePass, Recipe
from edgekit.passes.ranges import Observer, Ranges
from edgekit.recovery import QuantizationRecipe
from edgekit.target import find
from edgekit.torch.fake_quantize import FakeQuantization
from edgekit.torch.rounding import rounded, rounded_weight


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def quantized(
    module: nn.Module, x: Tensor, recipe: QuantizationRecipe = QuantizationRecipe()
) -> FakeQuantization:
    quantization = FakeQuantization(module, recipe)
    with torch.no_grad(), quantization.observed():
        module(x)
    quantization.settle()
    return quantization


def applied(quantization: FakeQuantization, x: Tensor) -> Tensor:
    with torch.no_grad(), quantization.applied():
        return quantization.module(x)  # type: ignore[no-any-return]


def literal(
    x: Tensor, scale: float, weight: Tensor, scales: Tensor, axis: int, operator: str, **attributes
) -> Tensor:
    """One layer between Q and DQ nodes, computed by ONNX's own reference."""
    quantized_weight = np.clip(np.rint(weight.numpy() / _along(scales, axis, weight.dim())), -127, 127)
    constants = {
        "s": np.float32(scale),
        "z": np.int8(0),
        "w": quantized_weight.astype(np.int8),
        "ws": scales.numpy(),
        "wz": np.zeros(len(scales), np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=axis),
        helper.make_node(operator, ["d", "v"], ["y"], **attributes),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layer",
        [value("x", onnx.TensorProto.FLOAT, list(x.shape))],
        [value("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    (y,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    return torch.from_numpy(np.asarray(y))


def _along(scales: Tensor, axis: int, rank: int) -> np.ndarray:
    return scales.numpy().reshape([-1 if a == axis else 1 for a in range(rank)])


@pytest.mark.parametrize(
    ("layer", "shape", "operator", "axis"),
    [
        (nn.Conv2d(3, 5, 3, padding=1, bias=False), (2, 3, 7, 9), "Conv", 0),
        (nn.Conv3d(2, 3, 3, padding=1, bias=False), (1, 2, 5, 4, 6), "Conv", 0),
        (nn.ConvTranspose2d(4, 3, 2, stride=2, bias=False), (1, 4, 5, 6), "ConvTranspose", 1),
    ],
)
def test_a_layer_is_what_onnx_makes_of_it_between_q_and_dq(
    layer: nn.Module, shape: tuple[int, ...], operator: str, axis: int
) -> None:
    x = 3 * torch.randn(shape)
    quantization = quantized(layer, x, QuantizationRecipe(method="minmax"))
    weight = layer.weight.detach()
    scales = weight.abs().amax([a for a in range(weight.dim()) if a != axis]) / 127
    scale = float(quantization.log_scales[type(layer).__name__].exp())
    assert scale == pytest.approx(float(x.abs().max()) / 127, rel=1e-6)
    attributes = {"pads": [1] * (2 * (len(shape) - 2))} if operator == "Conv" else {"strides": [2, 2]}
    want = literal(x, scale, weight, scales, axis, operator, **attributes)
    torch.testing.assert_close(applied(quantization, x), want, rtol=1e-5, atol=1e-5)
    assert (applied(quantization, x) - layer(x)).abs().max() > 1e-3


class Block(nn.Module):
    """Two layers on one tensor, a residual addition and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        stem = F.relu(self.first(x))
        added = self.left(stem) + stem
        return self.last(torch.cat([added, self.right(stem)], 1))


def test_one_tensor_has_one_range_however_many_read_it() -> None:
    module, x = Block(), torch.randn(1, 2, 8, 8)
    quantization = quantized(module, x)
    assert quantization.layers == ["first", "left", "right", "last"]
    # The image, the stem, the concatenation; of the addition the stem is rounded, and not what a layer gives.
    assert list(quantization.log_scales) == ["first", "left", "last"]
    magnitudes = quantization.magnitudes()
    assert list(magnitudes) == quantization.layers
    assert magnitudes["left"] == magnitudes["right"] != magnitudes["last"]


def test_a_block_is_what_its_parts_are_and_chosen_layers_stay_float() -> None:
    module, x = Block(), torch.randn(1, 2, 8, 8)
    quantization = quantized(module, x, QuantizationRecipe(keep=("first", "last")))
    assert quantization.layers == ["left", "right"]
    assert list(quantization.log_scales) == ["left"]
    by_hand = copy.deepcopy(module)
    for layer in (by_hand.left, by_hand.right):
        layer.weight.data = rounded_weight(layer.weight.data, 0)
    with torch.no_grad():
        back = rounded(F.relu(module.first(x)), quantization.log_scales["left"], 0, 255)
        want = module.last(torch.cat([by_hand.left(back) + back, by_hand.right(back)], 1))
    torch.testing.assert_close(applied(quantization, x), want)
    with pytest.raises(ModelError, match="no layer 'frist'"):
        FakeQuantization(module, QuantizationRecipe(keep=("frist",)))


def test_what_is_changed_in_place_is_rounded_anew() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x + 0
            y = self.first(x)
            x.relu_()
            x += y
            return self.second(x)  # type: ignore[no-any-return]

    class Plain(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.relu(x) + self.first(x))  # type: ignore[no-any-return]

    module, x = InPlace(), torch.randn(1, 2, 8, 8)
    plain = Plain()
    plain.load_state_dict(module.state_dict())
    torch.testing.assert_close(applied(quantized(module, x), x), applied(quantized(plain, x), x))


def test_what_a_caller_gives_is_signed_even_where_no_sample_was_negative() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
    image = torch.rand(1, 1, 16, 16)
    quantization, negative = quantized(module, image, QuantizationRecipe(method="minmax")), -image
    torch.testing.assert_close(applied(quantization, negative), module(negative).detach(), rtol=0, atol=0.02)
    assert module(negative).std() > 0.04


def test_behind_a_relu_unsigned_values_are_twice_as_fine() -> None:
    module, x = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 3, 1)), torch.randn(1, 2, 16, 16)
    errors = {}
    for activation in ("int8", "uint8-where-non-negative"):
        quantization = quantized(module, x, QuantizationRecipe(activation=activation, method="minmax"))
        assert quantization.magnitudes()["1"] == pytest.approx(float(x.max()), rel=1e-5)
        back = rounded(
            F.relu(x), quantization.log_scales["1"], *((-128, 127) if activation == "int8" else (0, 255))
        )
        errors[activation] = float((back - F.relu(x)).square().mean())
    assert errors["int8"] / errors["uint8-where-non-negative"] == pytest.approx(4, rel=0.2)


def test_an_outlier_is_clipped_where_that_costs_less() -> None:
    module = nn.Conv2d(1, 1, 1)
    x = torch.rand(1, 1, 64, 64)
    x[0, 0, 0, 0] = 40.0
    assert quantized(module, x, QuantizationRecipe(method="minmax")).magnitudes()["Conv2d"] == pytest.approx(
        40
    )
    clipped = quantized(module, x[..., 1:].contiguous()).magnitudes()["Conv2d"]
    assert clipped < 1.05
    assert quantized(module, x).magnitudes()["Conv2d"] <= 40


def test_a_module_that_changes_its_mind_is_refused() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bright, self.dark = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.bright(x) if x.mean() > 0 else self.dark(x)  # type: ignore[no-any-return]

    quantization = quantized(Moody(), torch.ones(1, 1, 4, 4))
    with pytest.raises(ModelError, match="same operations on every input"):
        applied(quantization, -torch.ones(1, 1, 4, 4))


def test_nothing_to_quantize_nothing_observed_and_nan_are_refused() -> None:
    idle = FakeQuantization(nn.Identity())
    with idle.observed():
        idle.module(torch.ones(1))
    with pytest.raises(ModelError, match="nothing to quantize"):
        idle.settle()
    fresh = FakeQuantization(nn.Conv2d(1, 1, 1))
    with pytest.raises(ModelError, match="observed and settled first"):
        applied(fresh, torch.ones(1, 1, 2, 2))
    with pytest.raises(ModelError, match="finite activations"), fresh.observed():
        fresh.module(torch.full((1, 1, 2, 2), math.nan))


def test_weights_of_other_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="7 or 8 bits"):
        QuantizationRecipe(weight_bits=4)


def test_the_module_is_given_back_as_it_was() -> None:
    module, x = Block(), torch.randn(1, 2, 8, 8)
    before, state = module(x), copy.deepcopy(module.state_dict())
    quantization = quantized(module, x)
    applied(quantization, x)
    assert torch.equal(module(x), before)
    assert not module._forward_pre_hooks
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


class Everything(nn.Module):
    """What networks are made of: norms, pools, skips that are concatenated or added, transposed layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.down = nn.Conv2d(8, 12, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 1))
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.mix = nn.Conv2d(16, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        full = self.stem(image)
        half = F.relu(self.down(self.pool(full)))
        half = F.leaky_relu(self.block(half) + half)
        return self.head(F.relu(self.mix(torch.cat([full, self.up(half)], 1))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("bits", "activation"), [(8, "int8"), (7, "uint8-where-non-negative")])
def test_a_network_is_what_the_quantize_pass_makes_of_it(bits: int, activation: Any) -> None:
    """Both judged by how far they are from the float network: they are far nearer to each other."""
    module = Everything()
    with torch.no_grad():
        module.stem[1].momentum = None
        images = [F.avg_pool2d(torch.randn(1, 1, 32, 32), 3, 1, 1) for _ in range(6)]
        module.stem(torch.cat(images))
        nn.init.uniform_(module.stem[1].weight, 0.3, 3)
    module.eval()
    target = replace(find("cpu"), cpu_features=("avx512_vnni",))
    loaded = load(module, shapes={"image": "1x1x32x32"})
    graph = run_all(default_passes(target), loaded.graph, target).graph
    observers = {name: Observer(name) for name in activations(graph)}
    with probe.opened(graph, observers, threads=1) as network:
        for image in images:
            for name, array in network.run({"image": image.numpy()}).items():
                if name in observers:
                    observers[name].add(array)
    ranges = Ranges.of([observer.range() for observer in observers.values()])
    recipe = Recipe(method="minmax", activation=activation, weight_bits=bits, correct_bias=False)
    quantized_graph = QuantizePass(ranges, recipe).run(graph, target).graph

    quantization = FakeQuantization(
        module, QuantizationRecipe(method="minmax", activation=activation, weight_bits=bits)
    )
    with torch.no_grad(), quantization.observed():
        for image in images:
            module(image)
    quantization.settle()
    with probe.opened(quantized_graph, threads=1) as network:
        (theirs,) = (torch.from_numpy(a) for a in network.run({"image": images[0].numpy()}).values())
    with torch.no_grad():
        mine, exact = applied(quantization, images[0]), module(images[0])
    lost = (theirs - exact).square().mean()
    assert lost > 1e-5 * exact.var()
    assert (mine - theirs).square().mean() < 0.1 * lost
