"""Plans: applied to modules, refused where they do not fit, read from files that may come from anywhere."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekit.cuts import Kept, Layer, Plan, Ranking, Sides, Step
from edgekit.errors import ModelError
from edgekit.torch.prune.apply import apply
from edgekit.torch.prune.files import KEY, read_plan, save
from edgekit.torch.source import load_weights


def kept(of: int, *indices: int) -> Kept:
    return Kept(of, indices)


class Net(nn.Module):
    """One of each layer that a plan knows, and a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm2d(4)
        self.slope = nn.PReLU(4)
        self.depth = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.updepth = nn.ConvTranspose2d(6, 12, 2, 2, groups=6)
        self.gain = nn.Parameter(torch.rand(1, 12, 1, 1))
        self.table = nn.Embedding(5, 12)
        self.layer = nn.LayerNorm(12)
        self.head = nn.Linear(12, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.slope(self.instance(self.group(self.norm(self.conv(image)))))
        x = self.updepth(self.up(self.depth(x))) * self.gain
        x = x.mean((2, 3)) + self.table(torch.tensor([1]))
        return self.head(self.layer(x))  # type: ignore[no-any-return]


FOUR = kept(4, 2, 3)
PLAN = Plan(
    {
        "conv": Layer("convolution", out=FOUR),
        "norm": Layer("norm", out=FOUR),
        "group": Layer("norm", out=FOUR, groups=1),
        "instance": Layer("norm", out=FOUR),
        "slope": Layer("norm", out=FOUR),
        "depth": Layer("convolution", out=kept(8, 4, 5, 6, 7), groups=2),
        "up": Layer("transposed convolution", out=kept(6, 0, 5), into=kept(8, 4, 5, 6, 7)),
        "updepth": Layer("transposed convolution", into=kept(6, 0, 5), groups=2),
        "table": Layer("embedding", out=kept(12, 0, 1, 10, 11)),
        "layer": Layer("norm", out=kept(12, 0, 1, 10, 11)),
        "head": Layer("linear", into=kept(12, 0, 1, 10, 11)),
    },
    {"gain": {"1": kept(12, 0, 1, 10, 11)}},
)


def test_every_kind_of_layer_is_cut() -> None:
    whole = Net().eval()
    net = copy.deepcopy(whole)
    apply(net, PLAN, where="plan")
    assert (net.conv.out_channels, net.norm.num_features, net.slope.num_parameters) == (2, 2, 2)
    assert (net.group.num_groups, net.group.num_channels, net.instance.num_features) == (1, 2, 2)
    assert (net.depth.groups, net.depth.in_channels, net.depth.out_channels) == (2, 2, 4)
    assert (net.up.in_channels, net.up.out_channels) == (4, 2)
    assert (net.updepth.groups, net.updepth.in_channels, net.updepth.out_channels) == (2, 2, 4)
    assert (net.table.embedding_dim, net.layer.normalized_shape, net.head.in_features) == (4, (4,), 4)
    assert torch.equal(net.conv.weight, whole.conv.weight[2:])
    assert torch.equal(net.updepth.bias, whole.updepth.bias[[0, 1, 10, 11]])
    assert net.gain.shape == (1, 4, 1, 1)
    assert net(torch.rand(1, 1, 8, 8)).isfinite().all()


def test_what_modules_share_stays_shared() -> None:
    net = nn.ModuleDict({"a": nn.Linear(4, 6, bias=False), "b": nn.Linear(4, 6, bias=False)})
    net["b"].weight = net["a"].weight
    layer = Layer("linear", out=kept(6, 1, 2), into=kept(4, 0, 3))
    apply(net, Plan({"a": layer, "b": layer}), where="plan")
    assert net["a"].weight is net["b"].weight
    assert net["a"].weight.shape == (2, 2)


def test_two_plans_one_after_the_other_are_one() -> None:
    first = Plan(
        {"a": Layer("linear", out=kept(6, 1, 2, 5), into=kept(4, 0, 3))}, {"t": {"0": kept(3, 1, 2)}}
    )
    later = Plan(
        {"a": Layer("linear", out=kept(3, 0, 2)), "b": Layer("norm", out=kept(2, 1))},
        {"t": {"0": kept(2, 1)}},
    )
    both = first.then(later)
    assert both.layers["a"] == Layer("linear", out=kept(6, 1, 5), into=kept(4, 0, 3))
    assert both.layers["b"] == later.layers["b"]
    assert both.tensors == {"t": {"0": kept(3, 2)}}
    with pytest.raises(ModelError, match="is for length 3, this one leaves 2") as refusal:
        later.then(later)
    assert refusal.value.where == "a"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"gone": Layer("linear", out=kept(2, 0))}, "the module has no gone"),
        ({"conv": Layer("linear", out=FOUR)}, "want a linear at conv, got Conv2d"),
        ({"conv": Layer("convolution", out=kept(8, 1))}, r"want 8 channels \(out\), got 4"),
        ({"head": Layer("linear", into=kept(13, 1))}, r"want 13 channels \(into\), got 12"),
        ({"norm": Layer("norm", into=kept(4, 1))}, r"want 4 channels \(into\), got 0"),
        ({"group": Layer("norm", out=kept(4, 0, 1, 2))}, "3 channels in 2 groups"),
        ({"group": Layer("norm", out=FOUR, groups=7)}, "2 channels in 7 groups"),
        ({"depth": Layer("convolution", out=kept(8, 0, 1), groups=2)}, "2 channels in 2 groups, of 8 in 4"),
        ({"updepth": Layer("transposed convolution", groups=2)}, "which groups are kept"),
        ({"conv": Layer("convolution", out=FOUR, groups=0)}, "2 channels in 0 groups"),
    ],
)
def test_a_plan_for_another_network_is_refused(layers: dict[str, Layer], message: str) -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ModelError, match=message) as refusal:
        apply(net, Plan(layers), where="pruned.safetensors")
    assert "pruned.safetensors" in str(refusal.value.where)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "nothing is cut"


@pytest.mark.parametrize(
    "axes", [{"7": FOUR}, {"-1": FOUR}, {"x": FOUR}, {"1": kept(4, 0)}, {"0000000000": FOUR}]
)
def test_a_tensor_that_does_not_fit_is_refused(axes: dict[str, Kept]) -> None:
    with pytest.raises(ModelError, match="want a tensor gain with length"):
        apply(Net(), Plan({}, {"gain": axes}), where="plan")
    with pytest.raises(ModelError, match="got none"):
        apply(Net(), Plan({}, {"forward": axes}), where="plan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "of another format: want 1, got 9"),
        ({"layers": []}, "want a table"),
        ({"layers": {"a": {"kind": "pickle"}}}, "want one of"),
        ({"layers": {"a": {"kind": "linear", "out": {"of": 4, "kept": []}}}}, "want some indices"),
        ({"layers": {"a": {"kind": "linear", "out": {"of": 4, "kept": [1, 1]}}}}, "ascending order"),
        ({"layers": {"a": {"kind": "linear", "out": {"of": 4, "kept": [4]}}}}, "from 0 to 3"),
        ({"layers": {"a": {"kind": "linear", "out": {"of": 4, "kept": [-1, 2]}}}}, "from 0 to 3"),
        ({"layers": {"a": {"kind": "linear", "out": {"of": 1 << 40, "kept": [1]}}}}, "want a length from 1"),
        ({"layers": {"a": {"kind": "linear", "out": {"of": 4, "kept": [True]}}}}, "want int"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_a_broken_plan_is_refused(change: dict[str, Any], message: str) -> None:
    text = json.dumps({"format": 1, "layers": {}, "tensors": {}, **change})
    with pytest.raises(ModelError, match=message) as refusal:
        Plan.decode(text, where="pruned.safetensors")
    assert str(refusal.value.where).startswith("pruned.safetensors")


@pytest.mark.parametrize("text", ["", "[", "[1]", "[" * 100_000, "null"])
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="plan"):
        Plan.decode(text, where="pruned.safetensors")
    with pytest.raises(ModelError, match="too large"):
        Plan.decode(" " * (33 << 20), where="pruned.safetensors")


def test_a_plan_comes_back_from_its_text() -> None:
    assert Plan.decode(PLAN.encode(), where="plan") == PLAN


def test_a_file_makes_the_pruned_network_again(tmp_path: Path) -> None:
    net = Net().eval()
    apply(net, PLAN, where="plan")
    file = tmp_path / "pruned.safetensors"
    save(net, PLAN, file, metadata={"made_by": "a test"})
    assert read_plan(file) == PLAN
    again = Net().eval()
    nn.init.zeros_(again.conv.weight)
    assert load_weights(again, file) == ["cut 11 layers to the pruning plan of pruned.safetensors"]
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(again(image), net(image))


def test_a_file_without_a_plan_is_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "whole.safetensors"
    save(Net(), Plan(), file)
    assert read_plan(file) is None
    assert load_weights(Net(), file) == []
    assert read_plan(tmp_path / "weights.pt") is None


@pytest.mark.parametrize("text", ["{}", "x", PLAN.encode().replace('"of":8', '"of":9')])
def test_a_file_whose_plan_was_changed_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pruned.safetensors"
    save_file(Net().state_dict(), file, {KEY: text})
    with pytest.raises(ModelError, match="plan"):
        load_weights(Net(), file)


def test_weights_that_do_not_follow_the_plan_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pruned.safetensors"
    save_file(Net().state_dict(), file, {KEY: PLAN.encode()})
    with pytest.raises(ModelError, match="20 of another shape: gain"):
        load_weights(Net(), file)


def test_a_ranking_gives_plans() -> None:
    ranking = Ranking(
        1000,
        {"a": Sides("convolution", 4, 2), "b": Sides("convolution", 8, 1, group=2)},
        {"t": (1, 4)},
        (
            Step(700, {"a": {"out": (1,)}, "t": {"1": (1,)}, "b": {"out": (2, 3)}}),
            Step(400, {"a": {"out": (0,)}, "t": {"1": (0,)}, "b": {"out": (0, 1)}}),
        ),
    )
    assert [ranking.count(share) for share in (0.1, 0.3, 0.31, 0.9)] == [1, 1, 2, 2]
    assert [ranking.share(count) for count in range(3)] == pytest.approx([0, 0.3, 0.6])
    assert not ranking.plan(0)
    assert ranking.plan(2) == Plan(
        {
            "a": Layer("convolution", out=kept(4, 2, 3)),
            "b": Layer("convolution", out=kept(8, 4, 5, 6, 7), groups=2),
        },
        {"t": {"1": kept(4, 2, 3)}},
    )
