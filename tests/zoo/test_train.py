from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from edgekit.zoo import train


def test_pool_draws_each_sample_a_few_times_and_replaces_old_ones() -> None:
    made: list[int] = []

    def generate(rng: torch.Generator) -> tuple[torch.Tensor]:
        made.append(len(made))
        return (torch.tensor(made[-1]),)

    pool = train.Pool(generate, size=4, reuse=3, rng=torch.Generator().manual_seed(0))
    drawn = [int(pool.draw()[0]) for _ in range(60)]
    assert len(made) in (20, 21)  # one is made ahead
    assert max(drawn) > 12
    assert all(value >= index // 3 - 19 for index, value in enumerate(drawn))


def test_weights_file_holds_halves_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for _ in range(2):
        module = nn.Linear(2, 3)
        train.save_weights(module, path, {"seed": "1"})
    loaded = load_file(path)
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float16}
    torch.testing.assert_close(loaded["weight"].float(), module.weight.detach(), rtol=1e-3, atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", train.RECIPES)
def test_a_recipe_gives_a_finite_loss_with_gradients(name: str) -> None:
    torch.manual_seed(0)
    recipe = train.RECIPES[name]
    model = recipe.build().train()
    loss = recipe.losses(torch.Generator().manual_seed(0), False)(model, 0.5)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert loss.isfinite()
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_command_line_writes_weights_with_their_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(train, "REPORT_EVERY", 1)
    path = tmp_path / "w.safetensors"
    train.main(["denoise2d", "--out", str(path), "--minutes", "0.01", "--seed", "7"])
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["model"], metadata["seed"], metadata["minutes"]) == ("denoise2d", "7", "0.01")
    assert "step      1" in capsys.readouterr().out
