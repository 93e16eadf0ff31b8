"""Which channels go together: one small network for each thing that a network does to its channels."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import ModelError
from edgekit.torch.prune.groups import Groups
from edgekit.torch.prune.trace import trace

Place = tuple[str, str, int]


class Net(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._do = forward

    def forward(self, image: Tensor) -> Tensor:
        return self._do(self, image)


def groups_of(net: nn.Module, *shape: int) -> Groups:
    image = torch.rand(shape or (1, 3, 8, 8))
    return Groups(net.eval(), trace(net, lambda: net(image)))


def mates(groups: Groups, layer: str, index: int, side: str = "out") -> set[Place]:
    """All that goes with one channel."""
    root = groups.columns[layer, side][index]
    return {(name, at, i) for (name, at), i in groups.places[root]}


def why(groups: Groups, layer: str, index: int = 0, side: str = "out") -> str:
    """Why a channel stays; empty where it may go."""
    return str(groups.reasons.get(groups.columns[layer, side][index], ""))


def conv(into: int, out: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, size, padding=size // 2, **options)


def test_a_channel_goes_with_its_norm_and_with_what_reads_it() -> None:
    net = Net(lambda n, x: n.b(F.relu(n.norm(n.a(x)))), a=conv(3, 4), norm=nn.BatchNorm2d(4), b=conv(4, 2))
    groups = groups_of(net)
    assert mates(groups, "a", 2) == {("a", "out", 2), ("norm", "out", 2), ("b", "into", 2)}
    assert why(groups, "a", 2) == ""
    assert why(groups, "b") == "it is what the network gives"
    assert why(groups, "a", 0, "into") == "convolution meets a tensor that keeps its size (a)"


def test_channels_that_are_added_go_together() -> None:
    net = Net(lambda n, x: n.c(n.a(x) + n.b(x)), a=conv(3, 4), b=conv(3, 4), c=conv(4, 1))
    assert mates(groups_of(net), "a", 1) == {("a", "out", 1), ("b", "out", 1), ("c", "into", 1)}


def test_concatenated_channels_are_found_behind_each_other() -> None:
    net = Net(lambda n, x: n.c(torch.cat([n.a(x), x, n.b(x)], 1)), a=conv(3, 4), b=conv(3, 4), c=conv(11, 1))
    groups = groups_of(net)
    assert mates(groups, "b", 1) == {("b", "out", 1), ("c", "into", 8)}
    assert "convolution" in why(groups, "c", 5, "into")


def test_a_gate_of_one_channel_couples_nothing_and_one_of_many_all() -> None:
    one = Net(lambda n, x: n.c(n.a(x) * n.b(x).sigmoid()), a=conv(3, 4), b=conv(3, 1), c=conv(4, 1))
    assert mates(groups_of(one), "a", 1) == {("a", "out", 1), ("c", "into", 1)}
    many = Net(
        lambda n, x: n.c(n.a(x) * n.b(x.mean((2, 3), keepdim=True)).sigmoid()),
        a=conv(3, 4),
        b=conv(3, 4, 1),
        c=conv(4, 1),
    )
    assert ("b", "out", 1) in mates(groups_of(many), "a", 1)


def test_flattened_channels_take_all_their_pixels() -> None:
    net = Net(lambda n, x: n.b(n.a(x).flatten(1)), a=conv(3, 4), b=nn.Linear(4 * 64, 2))
    assert mates(groups_of(net), "a", 1) == {("a", "out", 1)} | {("b", "into", i) for i in range(64, 128)}


@pytest.mark.parametrize("plain", [True, False])
def test_channels_that_become_pixels_go_together(plain: bool) -> None:
    def shuffle(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, c // 4, 2 * h, 2 * w)

    net = Net(
        lambda n, x: n.b((F.pixel_shuffle(n.a(x), 2)) if plain else shuffle(n.a(x))),
        a=conv(3, 16),
        b=conv(4, 1),
    )
    assert mates(groups_of(net), "a", 5) == {("a", "out", i) for i in range(4, 8)} | {("b", "into", 1)}


def test_groups_of_a_group_norm_go_as_a_whole() -> None:
    net = Net(lambda n, x: n.b(n.norm(n.a(x))), a=conv(3, 8), norm=nn.GroupNorm(4, 8), b=conv(8, 1))
    groups = groups_of(net)
    assert {i for name, _, i in mates(groups, "a", 5) if name == "a"} == {4, 5}
    assert not groups.inexact
    single = Net(lambda n, x: n.b(n.norm(n.a(x))), a=conv(3, 8), norm=nn.GroupNorm(1, 8), b=conv(8, 1))
    groups = groups_of(single)
    assert {i for name, _, i in mates(groups, "a", 5) if name == "a"} == {5}
    assert groups.columns["a", "out"][5] in groups.inexact


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.PReLU(4)])
def test_norms_count_their_channels(norm: nn.Module) -> None:
    net = Net(lambda n, x: n.b(n.norm(n.a(x))), a=conv(3, 4), norm=norm, b=conv(4, 1))
    assert mates(groups_of(net), "a", 3) == {("a", "out", 3), ("norm", "out", 3), ("b", "into", 3)}


def test_one_slope_for_all_channels_is_no_channel() -> None:
    net = Net(lambda n, x: n.b(n.act(n.a(x))), a=conv(3, 4), act=nn.PReLU(), b=conv(4, 1))
    assert mates(groups_of(net), "a", 3) == {("a", "out", 3), ("b", "into", 3)}


def test_grouped_convolutions() -> None:
    depthwise = Net(lambda n, x: n.c(n.b(n.a(x))), a=conv(3, 4), b=conv(4, 8, groups=4), c=conv(8, 1, 1))
    groups = groups_of(depthwise)
    wanted = {("a", "out", 1), ("b", "out", 2), ("b", "out", 3), ("c", "into", 2), ("c", "into", 3)}
    assert mates(groups, "a", 1) == wanted
    assert groups.sides("b").group == 2
    grouped = Net(lambda n, x: n.c(n.b(n.a(x))), a=conv(3, 8), b=conv(8, 4, groups=2), c=conv(4, 1, 1))
    groups = groups_of(grouped)
    assert mates(groups, "a", 1) == {("a", "out", 1), ("a", "out", 5), ("b", "into", 1)}
    assert mates(groups, "b", 1) == {("b", "out", 1), ("b", "out", 3), ("c", "into", 1), ("c", "into", 3)}


def test_transposed_convolutions() -> None:
    plain = Net(lambda n, x: n.b(n.up(n.a(x))), a=conv(3, 4), up=nn.ConvTranspose2d(4, 6, 2, 2), b=conv(6, 1))
    groups = groups_of(plain)
    assert mates(groups, "a", 1) == {("a", "out", 1), ("up", "into", 1)}
    assert mates(groups, "up", 5) == {("up", "out", 5), ("b", "into", 5)}
    up = nn.ConvTranspose2d(4, 4, 2, 2, groups=4)
    groups = groups_of(Net(lambda n, x: n.b(n.up(n.a(x))), a=conv(3, 4), up=up, b=conv(4, 1)))
    assert mates(groups, "a", 1) == {("a", "out", 1), ("up", "into", 1), ("b", "into", 1)}
    assert groups.sides("up").group == 1


def test_attention_keeps_its_heads_and_shares_the_places_in_them() -> None:
    def attend(n: Net, x: Tensor) -> Tensor:
        x = n.stem(x).flatten(2).transpose(1, 2)
        q, k, v = n.qkv(x).reshape(1, 64, 3, 2, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 64, -1)
        return n.out(x)

    net = Net(attend, stem=conv(3, 8), qkv=nn.Linear(8, 24), out=nn.Linear(8, 2))
    groups = groups_of(net)
    places = {index for name, side, index in mates(groups, "qkv", 1) if (name, side) == ("qkv", "out")}
    assert places == {1, 5, 9, 13, 17, 21}, "of queries, keys and values in both heads"
    assert why(groups, "qkv", 1) == ""
    assert mates(groups, "stem", 3) == {("stem", "out", 3), ("qkv", "into", 3)}


def test_padded_channels_follow_and_tiled_ones_stay() -> None:
    padded = Net(
        lambda n, x: n.c(F.pad(n.a(x), (0, 0, 0, 0, 2, 2)) + n.b(x)), a=conv(3, 4), b=conv(3, 8), c=conv(8, 1)
    )
    groups = groups_of(padded)
    assert mates(groups, "a", 1) == {("a", "out", 1), ("b", "out", 3), ("c", "into", 3)}
    assert why(groups, "b", 0) == "add meets a tensor that keeps its size"
    tiled = Net(lambda n, x: n.b(n.a(x) + x[:, :1].repeat(1, 4, 1, 1)), a=conv(3, 4), b=conv(4, 1))
    assert "keeps its size" in why(groups_of(tiled), "a")


def test_halves_shrink_alike_and_slices_do_not() -> None:
    def glu(n: Net, x: Tensor) -> Tensor:
        left, right = n.a(x).chunk(2, 1)
        return n.b(left * right.sigmoid())

    groups = groups_of(Net(glu, a=conv(3, 8), b=conv(4, 1)))
    assert mates(groups, "a", 1) == {("a", "out", 1), ("a", "out", 5), ("b", "into", 1)}
    sliced = Net(lambda n, x: n.b(n.a(x)[:, 2:6]), a=conv(3, 8), b=conv(4, 1))
    assert "numbers of its own" in why(groups_of(sliced), "a", 3)


def test_what_is_not_understood_is_not_cut_and_named() -> None:
    net = Net(lambda n, x: n.b(torch.cumsum(n.a(x), 1)), a=conv(3, 4), b=conv(4, 1))
    assert why(groups_of(net), "a") == "cumsum is an operator that is not understood"
    inner = nn.Sequential(conv(3, 4), nn.Softmax(1), conv(4, 1))
    assert why(groups_of(nn.Sequential(inner)), "0.0") == "_softmax spans the channels (0.1)"


def test_what_nothing_depends_on_stays() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        n.unused(n.a(x))
        return n.b(n.a(x))

    groups = groups_of(Net(forward, a=conv(3, 4), unused=conv(4, 4), b=conv(4, 1)))
    assert why(groups, "unused") == "nothing that the network gives depends on it"


def test_parameters_of_their_own_follow_their_channels() -> None:
    net = Net(
        lambda n, x: n.b(n.a(x) * n.gain + n.grid),
        a=conv(3, 4),
        gain=nn.Parameter(torch.rand(4, 1, 1)),
        grid=nn.Parameter(torch.rand(1, 4, 8, 8)),
        b=conv(4, 1),
    )
    wanted = {("a", "out", 1), ("gain", "0", 1), ("grid", "1", 1), ("b", "into", 1)}
    assert mates(groups_of(net), "a", 1) == wanted


def test_work_is_counted() -> None:
    net = Net(
        lambda n, x: n.c(n.b(n.a(x)).flatten(1)),
        a=conv(3, 4),
        b=nn.ConvTranspose2d(4, 5, 2, 2),
        c=nn.Linear(5 * 256, 7),
    )
    works = groups_of(net).works
    macs = [64 * 9 * 3 * 4, 64 * 4 * 4 * 5, 5 * 256 * 7]
    assert [work.macs for work in works] == macs
    assert [math.prod(length for _, length in work.factors) for work in works] == [12, 20, 5 * 256 * 7]


def test_a_network_that_fails_is_refused() -> None:
    with pytest.raises(ModelError, match="the module fails on the samples") as refusal:
        groups_of(Net(lambda n, x: n.a(x), a=conv(5, 4)))
    assert refusal.value.where == "Net"


def test_the_network_is_left_without_hooks() -> None:
    net = Net(lambda n, x: n.b(n.a(x)), a=conv(3, 4), b=conv(4, 1))
    groups_of(net)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
