from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from edgekit.zoo import MODELS, train


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


def test_weights_file_keeps_integers(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(3)
    norm.num_batches_tracked.fill_(100_001)
    train.save_weights(norm, tmp_path / "w.safetensors", {})
    assert load_file(tmp_path / "w.safetensors")["num_batches_tracked"] == 100_001


def test_batch_statistics_are_averaged_with_the_weights() -> None:
    average, model = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    model.running_mean, model.num_batches_tracked = torch.tensor([4.0, 8.0]), torch.tensor(7)
    train._average_into(average, model, 0.75)
    torch.testing.assert_close(average.running_mean, torch.tensor([1.0, 2.0]))
    assert average.num_batches_tracked == 7


def test_overlap_loss_wants_the_right_labels_and_sees_small_ones() -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[0, :8], labels[0, 10:12, 4:6] = 1, 3
    right = 20 * nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    missed = right.clone()
    missed[:, :, 10:12, 4:6] = torch.tensor([20.0, 0, 0, 0]).reshape(1, 4, 1, 1)
    assert train.overlap_loss(right, labels, 1.0) < 1e-3
    # Label 2 is nowhere and nobody says it is: only label 3 loses its Dice, one of three.
    late, early = (train.overlap_loss(missed, labels, progress) for progress in (1.0, 0.0))
    assert 0.25 < late < 0.3 * early


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


def test_training_goes_on_from_weights_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    path, start = tmp_path / "w.safetensors", MODELS["classify2d"].weights
    # No time for a single step: what is written is what it began with.
    arguments = ["classify2d", "--minutes", "0", "--seed", "7", "--start", str(start)]
    train.main([*arguments, "--out", str(path)])
    with safe_open(path, "pt") as file, safe_open(start, "pt") as before:
        assert file.metadata()["before_seed"] == before.metadata()["seed"]
        assert (file.metadata()["seed"], file.metadata()["steps"]) == ("7", "0")
        assert torch.equal(file.get_tensor("head.weight"), before.get_tensor("head.weight"))
