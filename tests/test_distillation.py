"""Distillation from files to files, through a child process."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import edgekit
from edgekit import distillation, schema
from edgekit.cli import main
from edgekit.distillation import Distilled, Labels, checkpoint_of, distil, quantization_for
from edgekit.errors import EdgekitError, InputError, ModelError, UsageError
from edgekit.recovery import Augmentation, Progress, QuantizationRecipe, Recipe, Recovery
from edgekit.target import find

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    output_names = ("mask",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, image):
        return self.head(self.second(self.first(image)))

def build():
    return Net()
"""

MODEL = "small_factory:build"
SHAPES = {"image": "1x1x[16:32:8]x[16:32:8]"}
QUICK = Recipe(learning_rate=3e-3, batch=2, averaging=0.9, augmentation=Augmentation(crop=16))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is typed: a factory, weights of a teacher and a damaged student, images, masks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small_factory.py").write_text(textwrap.dedent(FACTORY))
    names: dict[str, Any] = {}
    exec(compile(FACTORY, "small_factory.py", "exec"), names)
    net, rng = names["build"](), torch.Generator().manual_seed(1)
    state = net.state_dict()
    save_file(state, "teacher.safetensors")
    damaged = {n: t + 0.2 * t.std() * torch.randn(t.shape, generator=rng) for n, t in state.items()}
    save_file(damaged, "student.safetensors", {"made by": "a test"})
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    random = np.random.default_rng(0)
    for index in range(8):
        image = random.standard_normal((24, 24)).cumsum(0).astype(np.float32)
        np.save(tmp_path / "images" / f"{index}.npy", image)
        np.save(tmp_path / "masks" / f"{index}.npy", (image > 0).astype(np.uint8))
    return tmp_path


def run(**options: Any) -> Distilled:
    given = {
        "weights": "student.safetensors",
        "teacher_weights": "teacher.safetensors",
        "calibrate": ["images"],
        "output": "better.safetensors",
        "shapes": SHAPES,
        "steps": 40,
        "recipe": QUICK,
        "threads": 1,
    }
    return distil(MODEL, **{**given, **options})


def test_better_weights_are_written_with_their_story(folder: Path) -> None:
    events: list[str] = []
    seen: list[Progress] = []
    made = run(on_event=events.append, on_progress=seen.append)
    assert made.recovery.after < 0.5 * made.recovery.before
    assert (made.weights, made.samples, made.recovery.steps) == ("better.safetensors", 8, 40)
    assert made.recovery.kinds == {"mask": "logits"}
    assert any("taken for logits" in note for note in made.notes)
    teacher, came, better = (load_file(f"{name}.safetensors") for name in ("teacher", "student", "better"))
    assert list(better) == list(came)
    assert any(not torch.equal(better[name], came[name]) for name in came)
    assert {name: tensor.shape for name, tensor in better.items()} == {n: t.shape for n, t in teacher.items()}
    with safe_open("better.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["made by"] == "a test"
    story = json.loads(metadata[distillation.METADATA_KEY])
    assert (story["teacher"], story["samples"], story["seed"]) == ("teacher.safetensors", 8, 0)
    assert (
        schema.decode(Recovery, story["recovery"], error=ModelError, where="story").after
        == made.recovery.after
    )
    assert schema.decode(Recipe, story["recipe"], error=ModelError, where="story") == QUICK
    assert events[-1] == "write better.safetensors"
    assert seen and seen[-1].share == 1
    assert not checkpoint_of(Path("better.safetensors")).exists()


def test_an_interrupted_run_is_resumed_to_the_same_weights(folder: Path) -> None:
    checkpoint = checkpoint_of(Path("better.safetensors"))

    def interrupt(progress: Progress) -> None:
        if progress.share > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(steps=400, on_progress=interrupt)
    assert checkpoint.is_file() and not Path("better.safetensors").exists()
    with pytest.raises(UsageError, match="left its state") as caught:
        run(steps=400)
    assert "--resume" in str(caught.value.hint)
    resumed = run(steps=400, resume=True)
    assert not checkpoint.exists()
    whole = run(steps=400, output="whole.safetensors")
    assert resumed.recovery.held_out == whole.recovery.held_out
    one, other = load_file("better.safetensors"), load_file("whole.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_int8_needs_no_teacher_and_steps_come_before(folder: Path) -> None:
    made = run(
        weights="teacher.safetensors",
        teacher_weights=None,
        quantization=QuantizationRecipe(weight_bits=7, activation="int8", keep=("head",)),
        before="median radius=1",
    )
    assert list(made.recovery.magnitudes) == ["first.0", "second.0"]
    assert made.recovery.after <= made.recovery.before


def test_the_command_line_trains_with_labels_and_tells_of_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *("distil", MODEL, "--weights", "teacher.safetensors"),
        *("--calibrate", "images", "--label", "mask=masks"),
        *("--shape", "image=1x1x[16:32:8]x[16:32:8]", "--steps", "80", "--learning-rate", "0.003"),
        *("--feature", "none", "-o", "better.safetensors", "--threads", "1", "--json"),
    ]
    assert main(words) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    recovery = document["distilled"]["recovery"]
    assert document["command"] == "distil" and document["size_bytes"] > 0
    assert recovery["after"] < recovery["before"] and recovery["features"] == []
    assert "read the calibration data …" in printed.err and "train: " in printed.err

    assert main([*words[:-1], "--precision", "int8", "--keep", "head", "--force"]) == 0
    printed = capsys.readouterr()
    assert "8 samples of image=images" in printed.out and "wrote better.safetensors" in printed.out
    assert "mask (logits)" in printed.out


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"teacher_weights": None}, UsageError, "nothing to learn"),
        ({"steps": None}, UsageError, "one budget"),
        ({"minutes": 1.0}, UsageError, "one budget"),
        ({"output": "better.pt"}, UsageError, "ends with .safetensors"),
        ({"output": "nowhere/better.safetensors"}, UsageError, "does not exist"),
        ({"output": "teacher.safetensors"}, UsageError, "exists already"),
        ({"resume": True}, UsageError, "no interrupted run"),
        ({"weights": "missing.safetensors"}, ModelError, "cannot read the weights"),
        ({"before": "zoo.denoise2d image"}, UsageError, "stand before the network"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    folder: Path, options: dict[str, Any], error: type[EdgekitError], text: str
) -> None:
    with pytest.raises(error, match=text):
        run(**options)
    with pytest.raises(UsageError, match="only what PyTorch can train"):
        distil(
            "model.onnx", weights="student.safetensors", calibrate=["images"], output="b.safetensors", steps=1
        )
    with pytest.raises(UsageError, match="unknown loss"):
        Labels("masks", "dise")


def test_too_few_images_are_refused_and_leave_nothing(folder: Path) -> None:
    for path in sorted((folder / "images").iterdir())[2:]:
        path.unlink()
    with pytest.raises(InputError, match="too few samples"):
        run()
    assert not Path("better.safetensors").exists()
    assert not checkpoint_of(Path("better.safetensors")).exists()


def test_the_target_decides_how_int8_rounds() -> None:
    assert quantization_for(find("cpu")).activation == "uint8-where-non-negative"
    assert quantization_for(find("jetson")) == QuantizationRecipe(activation="int8")


def test_the_command_line_refuses_what_does_not_go_together(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "distil",
        MODEL,
        "--weights",
        "student.safetensors",
        "--calibrate",
        "images",
        "-o",
        "b.safetensors",
    ]
    for more, text in (
        (["--keep", "head"], "only with --precision int8"),
        (["--loss", "mask=l1"], "labelled output"),
        (["--kind", "mask=picture"], "kind of output"),
        (["--batch", "0"], "--batch"),
    ):
        assert main([*words, *more]) == 2
        assert text in capsys.readouterr().err


def test_the_package_offers_it() -> None:
    assert edgekit.distil is distil
