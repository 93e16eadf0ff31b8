"""From a network and a speed-up to pruned weights, with times that are computed and not measured."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edgekit[prune]'")

from edgekit import slimming
from edgekit import target as targets
from edgekit.errors import GateError, ModelError, UsageError
from edgekit.graph.load import Loaded, load
from edgekit.isolation import Limits, Request
from edgekit.slimming import flow
from edgekit.slimming.bench import Bench, Race
from edgekit.slimming.sources import METADATA_KEY, cut_job
from edgekit.torch import prune as torch_prune
from edgekit.torch.source import call_factory, load_weights

NET = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return Net().eval()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, image):
        return self.head(self.body(image))
"""


def network() -> nn.Module:
    scope: dict[str, Any] = {}
    exec(compile(NET, "net", "exec"), scope)
    return scope["build"]()  # type: ignore[no-any-return]


class FakeBench:
    """Takes networks to be as fast as their weights are few."""

    seen: list[Loaded]
    backend = "fake"

    def __init__(self, original: Loaded, device: object, backends: Sequence[str], **options: object) -> None:
        self.seen = [original]

    def race(self, pruned: Loaded) -> Race:
        self.seen.append(pruned)
        return Race(float(_numbers(self.seen[0])), float(_numbers(pruned)), "fake")


def _numbers(loaded: Loaded) -> int:
    return sum(value.const_value.size for value in loaded.graph.model.graph.initializers.values())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "Bench", FakeBench)


IMAGES = [torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(k)) for k in range(3)]


@pytest.mark.usefixtures("fake")
def test_a_module_becomes_as_much_faster_as_wanted(tmp_path: Path) -> None:
    net, events = network(), list[str]()
    file = tmp_path / "pruned.safetensors"
    made = slimming.prune(net, IMAGES, speedup=2.0, output=file, on_event=events.append)
    assert made.chosen.speedup >= 2.0 and made.wanted == 2.0 and made.original_backend == "fake"
    assert made.chosen in made.trials
    assert made.kept == {"head": "it is what the network gives"}
    parameters = sum(p.numel() for p in net.parameters())
    assert made.chosen.sizes.parameters == (parameters, sum(p.numel() for p in made.module.parameters()))
    assert torch_prune.read_plan(file) == made.plan
    assert events[0] == "rank the channels" and events[-1] == f"write {file}"
    smaller = [trial for trial in made.trials if trial.share < made.chosen.share]
    assert all(trial.speedup < 2.0 for trial in smaller)


@pytest.mark.usefixtures("fake")
def test_a_factory_is_pruned_in_children_and_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("slim_net.py").write_text(textwrap.dedent(NET))
    torch_prune.save(network(), torch_prune.Plan(), "whole.safetensors")
    Path("images").mkdir()
    for index in range(8):
        np.save(f"images/{index}.npy", np.random.default_rng(index).random((12, 12), np.float32))
    common: dict[str, Any] = {"shapes": {"image": "1x1x12x12"}, "weights": "whole.safetensors"}
    made = slimming.prune(
        "slim_net:build", ["images"], speedup=1.5, attempts=1, output="first.safetensors", **common
    )
    assert made.module is None and made.chosen.speedup >= 1.5

    again = call_factory("slim_net:build")
    assert load_weights(again, Path("first.safetensors"))[0].startswith("cut 3 layers to the pruning plan")
    assert sum(p.numel() for p in again.parameters()) == made.chosen.sizes.parameters[1]
    with safe_open("first.safetensors", "np") as opened:
        story = json.loads(opened.metadata()[METADATA_KEY])
    assert story["rules"]["importance"] == "taylor" and story["samples"]["samples"] == 8
    assert story["share"] == pytest.approx(made.chosen.share, abs=1e-3)

    # What was pruned can be pruned again; the plans are one then.
    ranking = torch_prune.analyse(again, IMAGES, importance="l2", multiple=4)
    task = {
        "source": "slim_net:build",
        "weights": "first.safetensors",
        "shapes": common["shapes"],
        "plan": ranking.plan(1).encode(),
    }
    (tmp_path / "out").mkdir()
    cut_job(Request(task, {"image": IMAGES[0].numpy()}, {}, tmp_path / "out"))
    twice = torch_prune.read_plan(tmp_path / "out" / "pruned.safetensors")
    assert twice == made.plan.then(ranking.plan(1))


@pytest.mark.usefixtures("fake")
def test_where_no_cut_is_fast_enough(tmp_path: Path) -> None:
    file = tmp_path / "pruned.safetensors"
    with pytest.raises(GateError, match="no cut is 500 times faster: the best is") as refusal:
        slimming.prune(network(), IMAGES, speedup=500, output=file)
    assert "head: it is what the network gives" in refusal.value.message
    assert str(refusal.value.hint).startswith("--speedup") and not file.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speedup": 1.0}, "larger than 1"),
        ({"speedup": float("nan")}, "larger than 1"),
        ({"importance": "random"}, "unknown importance 'random'"),
        ({"attempts": 0}, "one attempt or more"),
        ({"backend": "openvin"}, "unknown backend"),
        ({"output": "pruned.pt"}, r"ends with \.safetensors"),
        ({"output": "no/such/folder/pruned.safetensors"}, "does not exist"),
        ({"weights": "w.safetensors"}, "weights goes with a factory"),
        ({"before": "median image radius=2"}, "before goes with a factory"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        slimming.prune(network(), IMAGES, **options)


def test_what_cannot_be_asked_for_a_factory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no weights yet"):
        slimming.prune("net:build", ["images"])
    with pytest.raises(UsageError, match="calibrated on files"):
        slimming.prune("net:build", IMAGES, weights="w.safetensors")
    with pytest.raises(UsageError, match="would stand before the network"):
        slimming.prune("net:build", ["images"], weights="w.safetensors", before="zoo.denoise2d image")
    with pytest.raises(ModelError, match="cannot read the weights"):
        slimming.prune("net:build", ["images"], weights=tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="has 2 inputs, the module 1"):
        slimming.prune(network(), [(IMAGES[0], IMAGES[0])])


def test_the_bench_races_on_a_backend() -> None:
    net = network()
    pruned = torch_prune.prune(net, IMAGES, share=0.5)
    shapes = {"image": "1x1x12x12"}
    events: list[str] = []
    bench = Bench(
        load(net, shapes=shapes),
        targets.find("cpu"),
        ["onnxruntime"],
        threads=1,
        child=Limits(),
        on_event=events.append,
    )
    race = bench.race(load(pruned.module, shapes=shapes))
    assert bench.backend == race.backend == "onnxruntime"
    assert race.original_s > 0 and race.pruned_s > 0
    assert race.speedup == race.original_s / race.pruned_s
    assert events == ["compile with ONNX Runtime", "measure"] * 2
