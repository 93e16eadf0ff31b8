"""2:4 weights: the larger two of every four along the input channels, where TensorRT has kernels for them."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ModelError, UnsupportedError
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import Exported
from edgekit.torch.export import export_module
from edgekit.torch.sparsity import enforce, mask_of, sparsify, violations


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(8, 12, 3, padding=1),
        nn.ConvTranspose3d(12, 8, 2, 2),
        nn.Conv3d(8, 8, 3, padding=1, groups=2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.Linear(6, 2),
    )


@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 3, 3), (2, 12, 1, 2, 3)])
def test_the_mask_keeps_the_most_that_two_of_four_can(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    masked = weight * mask_of(weight)
    rows = weight.movedim(1, -1).reshape(-1, 4)
    pairs = [rows[:, list(pair)].square().sum(1) for pair in itertools.combinations(range(4), 2)]
    torch.testing.assert_close(masked.square().sum(), torch.stack(pairs).amax(0).sum())
    assert violations(masked) == 0 < violations(weight)
    # Every group holds two, at each place of the kernel.
    assert bool((mask_of(weight).movedim(1, -1).reshape(-1, 4).sum(1) == 2).all())


def test_of_equal_weights_the_first_stay() -> None:
    assert mask_of(torch.ones(1, 8)).tolist() == [[True, True, False, False] * 2]
    assert mask_of(torch.zeros(1, 4)).sum() == 2


def test_layers_that_qualify_and_why_others_do_not() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    sparse = sparsify(net)
    assert list(sparse.masks) == list(sparse.kept) == ["2", "7"]
    assert sparse.refused == {
        "0": "its 1 incoming channels are no multiple of 4",
        "3": "transposed convolutions have no sparse kernels",
        "4": "its 2 groups do not run on tensor cores as one product",
        "8": "its 6 incoming channels are no multiple of 4",
    }
    assert all(0.5 < share < 1 for share in sparse.kept.values())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(violations(sparse.module.get_submodule(path).weight) == 0 for path in sparse.masks)
    assert sparsify(net, keep=["2"]).refused["2"] == "you keep it"


def test_zeros_stay_zero_in_a_training() -> None:
    sparse = sparsify(network())
    optimiser = torch.optim.SGD(sparse.module.parameters(), 0.1)
    sparse.module(torch.rand(1, 1, 4, 4, 4)).square().sum().backward()
    optimiser.step()
    assert violations(sparse.module.get_submodule("2").weight) > 0
    enforce(sparse.module, sparse.masks)
    assert violations(sparse.module.get_submodule("2").weight) == 0


def test_the_exported_weights_are_sparse() -> None:
    sparse = sparsify(network())
    exported = export_module(sparse.module, {"": "1x1x4x4x4"}, IntakeLimits(), None, "legacy")
    assert isinstance(exported, Exported)
    weights = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(exported.data).graph.initializer
    }
    assert violations(torch.from_numpy(np.array(weights["module.2.weight"]))) == 0
    assert violations(torch.from_numpy(np.array(weights["module.7.weight"]))) == 0


def test_what_cannot_be_sparse_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="0: its 1 incoming channels") as refusal:
        sparsify(nn.Sequential(nn.Conv2d(1, 4, 3)))
    assert refusal.value.where == "0"
    broken = network()
    with torch.no_grad():
        broken[2].weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match="not finite") as failure:
        sparsify(broken)
    assert failure.value.where == "2"


@pytest.mark.parametrize("weight", [torch.zeros(4), torch.zeros(2, 6)])
def test_a_weight_without_groups_of_four_is_refused(weight: Tensor) -> None:
    with pytest.raises(ModelError, match="multiple of 4 along axis 1"):
        violations(weight)
