"""Pruning from end to end on small networks: what goes, how much, what is refused and why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edgekit[prune]'")

from edgekit.cuts import Kept, Layer, Plan
from edgekit.errors import ModelError, UnavailableError, UnsupportedError, UsageError
from edgekit.torch import prune
from edgekit.torch.prune import scores, verify

IMAGE = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def block(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())


def network(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(block(1, width), block(width, 2 * width), nn.Conv2d(2 * width, 3, 1))


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor"])
def test_what_does_nothing_goes_first(importance: str) -> None:
    net = network().eval()
    dead = [0, 3, 4, 7, 8, 11, 12, 15]
    with torch.no_grad():
        net[1][0].weight[:, dead] *= 1e-6
        net[0][0].weight[dead] *= 1e-6
    before = copy.deepcopy(net.state_dict())
    pruned = prune.prune(net, [IMAGE], share=0.3, importance=importance, keep=["1"])
    if importance != "taylor":  # which finds a unit of the others that never fires here
        assert pruned.plan.layers["0.0"].out == Kept(16, tuple(i for i in range(16) if i not in dead))
    with torch.no_grad():
        torch.testing.assert_close(pruned.module(IMAGE), net(IMAGE), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(part.grad is None for part in net.parameters())


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_layers_keep_a_multiple(multiple: int) -> None:
    pruned = prune.prune(network(24), [IMAGE], share=0.6, multiple=multiple, importance="l2")
    kept = [len(layer.out.kept) for layer in pruned.plan.layers.values() if layer.out]
    assert all(count % multiple == 0 and count >= multiple for count in kept)
    assert 0.2 < pruned.flops[1] / pruned.flops[0] <= 0.4
    assert pruned.parameters[1] < pruned.parameters[0]


def test_more_goes_for_a_larger_share() -> None:
    ranking = prune.analyse(network(32), [IMAGE], importance="l2")
    macs = [step.macs for step in ranking.steps]
    assert macs == sorted(macs, reverse=True)
    assert ranking.share(ranking.count(0.5)) >= 0.5 > ranking.share(ranking.count(0.5) - 1)
    made = prune.cut(network(32), ranking.plan(ranking.count(0.5)), IMAGE, exactly=ranking.exact)
    # The work of a ranking is that which torch counts for the network that was cut.
    assert made.flops == (2 * ranking.macs, 2 * ranking.steps[ranking.count(0.5) - 1].macs)


def test_the_same_arguments_give_the_same_ranking() -> None:
    rankings = [prune.analyse(network(), [IMAGE, IMAGE * 2], importance="taylor") for _ in range(2)]
    assert rankings[0] == rankings[1]


def test_what_the_user_keeps_is_kept() -> None:
    pruned = prune.prune(network(), [IMAGE], importance="l2", keep=["0.*"])
    assert "0.0" not in pruned.plan.layers
    assert pruned.kept["0.0"] == "you keep it"
    with pytest.raises(UsageError, match="no module 'head' to keep") as refusal:
        prune.prune(network(), [IMAGE], keep=["head"])
    assert refusal.value.where == "--keep"


def test_a_network_in_training_mode_stays_in_it() -> None:
    net = network().train()
    pruned = prune.prune(net, [IMAGE], importance="l2")
    assert net.training and all(part.training for part in pruned.module.modules())


def test_inputs_by_position_and_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, moving: Tensor, fixed: Tensor) -> dict[str, Tensor]:
            return {"both": self.net(moving) + self.net(fixed), "label": moving.argmax(1)}

    by_position = prune.prune(Two(), [(IMAGE, IMAGE)])
    by_name = prune.prune(Two(), iter([{"fixed": IMAGE, "moving": IMAGE}]))
    assert by_position.plan == by_name.plan


class Constant(nn.Module):
    """Its code counts channels with numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.tail = block(1, 16), block(16, 16), nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        return self.tail(self.body(x.view(x.shape[0], 16, 16, 16)))  # type: ignore[no-any-return]


def test_code_that_wants_its_channels_is_found_and_kept() -> None:
    pruned = prune.prune(Constant(), [IMAGE], importance="l2", share=0.3)
    assert "its code does not take fewer channels: RuntimeError: shape" in pruned.kept["stem.0"]
    assert pruned.plan.layers["body.0"].out is not None


class Counting(nn.Module):
    """Divides by the number of its channels, so that cutting them changes all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tail = nn.Sequential(block(1, 16), block(16, 16)), nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        return self.tail(x / x.shape[1])  # type: ignore[no-any-return]


def test_what_changes_more_than_itself_is_kept() -> None:
    pruned = prune.prune(Counting(), [IMAGE], importance="l2", share=0.3)
    assert pruned.kept["stem.1.0"] == "cutting it changes more than its own contribution"
    assert "stem.0.0" in pruned.plan.layers


def test_torch_attention_keeps_its_width() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = block(1, 16)
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.tail = nn.Linear(16, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.tail(self.layer(self.stem(image).flatten(2).transpose(1, 2)))  # type: ignore[no-any-return]

    pruned = prune.prune(Attention(), [IMAGE], importance="taylor", share=0.1)
    assert pruned.plan.layers["layer.linear1"].out is not None
    assert "its code does not take fewer channels" in pruned.kept["layer.self_attn.out_proj"]


def test_a_network_that_cannot_be_pruned_is_refused_with_its_layers() -> None:
    narrow = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with pytest.raises(UnsupportedError, match="0: its 8 channels leave no smaller multiple of 8") as refusal:
        prune.prune(narrow, [IMAGE], importance="l2")
    assert refusal.value.where == "0" and "2: it is what the network gives" in refusal.value.message
    with pytest.raises(UnsupportedError, match="cumsum is an operator that is not understood"):
        prune.prune(Sum(), [IMAGE], importance="l2")


class Sum(nn.Module):
    """An operator in the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tail = block(1, 16), nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.tail(self.stem(image).cumsum(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "between 0 and 1"),
        ({"share": 1}, "between 0 and 1"),
        ({"multiple": 0}, "want 1 or more"),
    ],
)
def test_arguments_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prune.prune(network(), [IMAGE], **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="wants samples"):
        prune.prune(network(), [])


def test_gradients_that_cannot_be_used_are_refused() -> None:
    class Sign(nn.Sequential):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image).argmax(1)  # type: ignore[no-any-return]

    with pytest.raises(ModelError, match="no output depends on the weights") as refusal:
        prune.prune(Sign(network()), [IMAGE], importance="taylor")
    assert refusal.value.hint == "--importance l2"
    with pytest.raises(ModelError, match="not finite"):
        prune.prune(network(), [IMAGE * torch.inf], importance="taylor")


def test_a_broken_cut_is_seen() -> None:
    net = network()
    half = Plan({"0.0": Layer("convolution", out=Kept(16, tuple(range(8))))})
    with pytest.raises(ModelError, match="the pruned network is broken") as refusal:
        prune.cut(net, half, IMAGE)
    assert refusal.value.where == "0.1"
    # A plan that cuts the wrong index on one side runs, but not as it should.
    shifted = Plan(
        {
            "0.0": Layer("convolution", out=Kept(16, tuple(range(8)))),
            "0.1": Layer("norm", out=Kept(16, tuple(range(8)))),
            "1.0": Layer("convolution", into=Kept(16, tuple(range(8, 16)))),
        }
    )
    assert prune.cut(net, shifted, IMAGE).flops[1] > 0
    with pytest.raises(ModelError, match="differs from the network without these channels"):
        prune.cut(net, shifted, IMAGE, exactly=True)


def test_agreement_of_zeros_proves_nothing() -> None:
    net = nn.Sequential(network(), nn.Conv2d(3, 3, 1))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    assert verify.awake(net)(IMAGE).abs().max() > 0
    assert net(IMAGE).abs().max() == 0


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "LIBRARY", scores.Requirement("no_such_module", "torch-pruning", "prune"))
    with pytest.raises(UnavailableError, match="'torch-pruning' is not installed") as refusal:
        prune.prune(network(), [IMAGE], importance="l2")
    assert refusal.value.hint == "pip install 'edgekit[prune]'"
