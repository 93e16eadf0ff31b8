from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit import volumes
from edgekit.errors import UsageError
from edgekit.kernels import warp
from edgekit.torch.source import call_factory
from edgekit.zoo import MODELS, cases

SMALL = {
    "register3d": (64, 64, 64),
    "denoise2d": (64, 72),
    "segment2d": (192, 208),
    "segment3d": (32, 48, 32),
    "classify2d": (128, 160),
}


def some(name: str, count: int = 2, seed: int = 0) -> list[cases.Case]:
    return list(cases.generate(name, count, seed, shape=SMALL[name]))


def test_there_are_cases_of_every_model() -> None:
    assert SMALL.keys() == MODELS.keys()


@pytest.mark.parametrize("name", SMALL)
def test_seed_and_number_decide_a_case(name: str) -> None:
    first, again, (other,) = some(name), some(name), some(name, 1, seed=1)
    for a, b in zip(first, again, strict=True):
        assert (a.name, a.group) == (b.name, b.group)
        assert all(np.array_equal(a.inputs[key], b.inputs[key]) for key in MODELS[name].inputs)
        assert all(np.array_equal(a.references[key], b.references[key]) for key in a.references)
    key = next(iter(MODELS[name].inputs))
    assert not np.array_equal(first[0].inputs[key], other.inputs[key])
    assert not np.array_equal(first[0].inputs[key], first[1].inputs[key])
    assert first[0].group != first[1].group


@pytest.mark.parametrize("name", SMALL)
def test_cases_fit_the_model(name: str) -> None:
    module = call_factory(MODELS[name].factory)
    (case,) = some(name, 1)
    assert list(case.inputs) == list(MODELS[name].inputs)
    assert all(array.dtype == np.float32 for array in case.inputs.values())
    with torch.no_grad():
        made = module(*(torch.from_numpy(array) for array in case.inputs.values()))
    outputs = dict(zip(module.output_names, made if isinstance(made, tuple) else (made,), strict=True))
    for key, reference in case.references.items():
        found = outputs[key].numpy()
        assert reference.shape == (found.argmax(1) if key == "logits" else found).shape
        assert reference.dtype == (np.int64 if key == "logits" else np.float32)


def test_the_known_displacement_makes_the_moving_image_look_like_the_fixed_one() -> None:
    (case,) = some("register3d", 1)
    assert case.group == "same-contrast"
    moving, fixed = case.inputs["moving"], case.inputs["fixed"]
    moved = warp(moving, case.references["flow_vox"], boundary="edge")
    np.testing.assert_allclose(case.references["moved"], moved, atol=1e-4)
    before, after = (np.corrcoef(image.ravel(), fixed.ravel())[0, 1] for image in (moving, moved))
    assert after > before


def test_every_group_has_every_finding() -> None:
    seen = {(case.group, int(case.references["logits"][0])) for case in some("classify2d", 8)}
    assert len(seen) == 8


@pytest.mark.parametrize("name", ["register3d", "segment2d"])
def test_files_hold_what_was_drawn(name: str, tmp_path: Path) -> None:
    table = cases.write(iter(some(name)), tmp_path / "cases")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["case"] for row in rows] == [f"{name}-0000", f"{name}-0001"]
    assert len({row["group"] for row in rows}) == 2
    for row, case in zip(rows, some(name), strict=True):
        assert row.keys() == {"case", "group", *case.inputs, *case.references}
        for key, array in {**case.inputs, **case.references}.items():
            found = volumes.read(table.parent / row[key]).array
            assert found.dtype.kind == array.dtype.kind or found.dtype == np.uint8
            np.testing.assert_array_equal(found.reshape(array.shape), array)


def test_a_class_is_a_number_in_the_list(tmp_path: Path) -> None:
    table = cases.write(iter(some("classify2d", 4)), tmp_path)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["logits"] for row in rows] == ["0", "0", "1", "1"]
    assert len(list(tmp_path.glob("*.npy"))) == 4


def test_nifti_files_hold_the_same(tmp_path: Path) -> None:
    (case,) = some("segment3d", 1)
    cases.write(iter([case]), tmp_path, ending=".nii.gz")
    found = volumes.read(tmp_path / "segment3d-0000-image.nii.gz").array
    np.testing.assert_array_equal(found, case.inputs["image"][0, 0])
    labels = volumes.read(tmp_path / "segment3d-0000-logits.nii.gz").array
    np.testing.assert_array_equal(labels, case.references["logits"][0])


def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    cases.write(iter(some("denoise2d", 1)), tmp_path)
    with pytest.raises(UsageError, match="exists"):
        cases.write(iter(some("denoise2d", 1)), tmp_path)
    cases.write(iter(some("denoise2d", 1)), tmp_path, force=True)


@pytest.mark.parametrize(
    ("name", "count", "shape", "message"),
    [
        ("segment4d", 1, None, "unknown model 'segment4d'.*\n.*segment3d"),
        ("segment2d", 0, None, "one case or more, got 0"),
        ("segment2d", 1, (192, 200), "segment2d takes images .* got 192x200"),
        ("segment3d", 1, (64, 64), "segment3d takes images .* got 64x64"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, count: int, shape: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        cases.generate(name, count, shape=shape)
    assert re.search(message, str(caught.value))


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit.zoo.cases", "segment2d", "--out", str(tmp_path)]
    command += ["--count", "1", "--shape", "192x192"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "cases.csv")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.startswith("error: the file exists already")
