"""Networks with their weights and pruning plans, from files and back."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from edgekit.cuts import Kept, Layer, Plan
from edgekit.errors import ModelError
from edgekit.torch import prune
from edgekit.torch.distil_files import Loaded, save

FACTORY = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
"""


def plan(*kept: int) -> Plan:
    """What is left of the first layer's eight channels."""
    return Plan(
        {
            "0": Layer("convolution", out=Kept(8, kept)),
            "2": Layer("convolution", into=Kept(8, kept)),
        }
    )


def test_a_plan_says_which_of_the_originals_channels_are_left() -> None:
    module = nn.Identity()
    whole, once = Loaded(module, None, {}, ()), Loaded(module, plan(1, 2, 5, 6), {}, ())
    assert once.kept_of(whole) == {"0": (1, 2, 5, 6)}
    assert whole.kept_of(whole) == whole.kept_of(once) == {}
    # A teacher that was pruned itself counts what it has.
    assert Loaded(module, plan(2, 6), {}, ()).kept_of(once) == {"0": (1, 3)}
    assert Loaded(module, plan(0, 6), {}, ()).kept_of(once) == {}


def test_a_pruned_network_keeps_its_plan_through_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pruned_factory.py").write_text(textwrap.dedent(FACTORY))
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    prune.save(module, plan(0, 3, 4, 7), "pruned.safetensors", metadata={"who": "a test"})
    loaded = Loaded.of("pruned_factory:build", Path("pruned.safetensors"))
    assert loaded.plan == plan(0, 3, 4, 7)
    assert any("cut 2 layers" in note for note in loaded.notes)
    with torch.no_grad():
        loaded.module[0].weight += 1
    save(loaded, tmp_path / "better.safetensors", {"what": "more"})
    again = Loaded.of("pruned_factory:build", tmp_path / "better.safetensors")
    assert again.plan == loaded.plan
    assert torch.equal(again.module[0].weight, module[0].weight + 1)
    with safe_open(tmp_path / "better.safetensors", "pt") as file:
        assert {key: file.metadata()[key] for key in ("who", "what")} == {"who": "a test", "what": "more"}


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other_factory.py").write_text(textwrap.dedent(FACTORY))
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        Loaded.of("other_factory:build", tmp_path / "other.safetensors")
