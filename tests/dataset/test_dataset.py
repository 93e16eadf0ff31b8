"""Folders become samples: which, in which order, with which bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_sets import body, spec, write_set

from edgekit import schema, volumes
from edgekit.dataset import Dataset, DatasetRecord, Sample
from edgekit.errors import EdgekitError, InputError, SpecError, UsageError
from edgekit.spec import Dim
from edgekit.volumes import Volume

PICTURE = spec(1, 1, 8, 8)


def digest(dataset: Dataset) -> str:
    found = hashlib.sha256()
    for sample in dataset:
        found.update(sample.name.encode())
        for name, array in sample.feeds.items():
            found.update(name.encode() + array.tobytes())
    return found.hexdigest()


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_set(tmp_path / "b", count=3)
    write_set(tmp_path / "a", count=5, low=0.1)
    shutil.move(tmp_path / "a" / "case04.npy", tmp_path / "z.npy")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.npy").write_text("")
    dataset = Dataset.open([str(tmp_path)], [PICTURE])
    samples = list(dataset)
    wanted = [*(f"a/case{i:02}.npy" for i in range(4)), *(f"b/case{i:02}.npy" for i in range(3)), "z.npy"]
    assert [sample.name for sample in samples] == wanted
    assert len(dataset) == 8
    for sample in samples:
        array = sample.feeds["x"]
        assert array.shape == (1, 1, 8, 8) and array.dtype == np.float32
        assert np.array_equal(array[0, 0], np.load(tmp_path / sample.name))
        (file,) = sample.files
        content = (tmp_path / sample.name).read_bytes()
        assert (file.name, file.size_bytes, file.input) == (sample.name, len(content), "x")
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert dataset.record.notes == (
        f"x={tmp_path.name}: 1 files are no images and were passed over: notes.txt",
    )


def test_iterating_again_and_opening_again_give_the_same_bytes(tmp_path: Path) -> None:
    write_set(tmp_path, (20, 20), 4)
    dataset = Dataset.open([str(tmp_path)], [PICTURE], patches=3)
    assert len(dataset) == 12
    first = digest(dataset)
    assert digest(dataset) == first == digest(Dataset.open([f"x={tmp_path}"], [PICTURE], patches=3))
    other = Dataset.open([str(tmp_path)], [PICTURE], patches=3, seed=1)
    assert digest(other) != first
    assert other.record.digest() != dataset.record.digest()


def test_the_record_says_which_data_it_was(tmp_path: Path) -> None:
    write_set(tmp_path / "scans", count=9)
    dataset = Dataset.open([str(tmp_path / "scans")], [PICTURE], limit=8, seed=3)
    record = dataset.record
    assert record.sources == ("x=scans",)
    assert (record.samples, record.patches, record.seed, record.limit) == (8, 1, 3, 8)
    assert len(record.files) == 8
    (facts,) = record.inputs
    arrays = [sample.feeds["x"] for sample in dataset]
    assert (facts.images, facts.copies) == (8, 0)
    assert (facts.minimum, facts.maximum) == (min(map(np.min, arrays)), max(map(np.max, arrays)))
    quantiles = np.median([np.quantile(a, (0.01, 0.5, 0.99)) for a in arrays], axis=0)
    np.testing.assert_allclose(facts.quantiles, quantiles, atol=0.1)
    text = json.dumps(schema.encode(record))
    assert schema.decode(DatasetRecord, json.loads(text), error=EdgekitError, where="record") == record


def test_a_limit_is_spread_over_all_images(tmp_path: Path) -> None:
    write_set(tmp_path, count=20)
    dataset = Dataset.open([str(tmp_path)], [PICTURE], limit=10)
    assert [s.name for s in dataset] == [f"case{i:02}.npy" for i in range(0, 20, 2)]
    assert len(Dataset.open([str(tmp_path)], [PICTURE], limit=50)) == 20


@pytest.mark.parametrize("ending", [".npy", ".nii", ".nii.gz"])
def test_volumes_of_every_kind(tmp_path: Path, ending: str) -> None:
    write_set(tmp_path, (4, 6, 5), ending=ending)
    samples = list(Dataset.open([str(tmp_path / f"case*{ending}")], [spec(1, 1, 4, 6, 5)]))
    assert len(samples) == 8
    assert np.array_equal(samples[3].feeds["x"][0, 0], body((4, 6, 5), 3))


def test_files_and_patterns(tmp_path: Path) -> None:
    write_set(tmp_path / "a", count=8)
    write_set(tmp_path / "b", count=2, low=0.2)
    for text in (f"{tmp_path}/a/*.npy", f"{tmp_path}/[a]", f"x={tmp_path}/a/case0?.npy"):
        assert len(Dataset.open([text], [PICTURE])) == 8
    assert len(Dataset.open([f"{tmp_path}/**/*.npy"], [PICTURE])) == 10
    files = [str(path) for path in sorted((tmp_path / "a").iterdir())]
    assert [s.name for s in Dataset.open(files, [PICTURE])] == [f"case{i:02}.npy" for i in range(8)]


def test_inputs_go_together_in_order(tmp_path: Path) -> None:
    specs = [spec(1, 1, 8, 8, name="moving"), spec(1, 1, 8, 8, name="fixed")]
    texts = [f"fixed={write_set(tmp_path / 'f', high=2.0)}", f"moving={write_set(tmp_path / 'm')}"]
    dataset = Dataset.open(texts, specs)
    for index, sample in enumerate(dataset):
        assert list(sample.feeds) == ["moving", "fixed"]
        assert np.array_equal(sample.feeds["fixed"][0, 0], body((8, 8), index, high=2.0))
        assert [file.input for file in sample.files] == ["moving", "fixed"]
    assert [facts.name for facts in dataset.record.inputs] == ["moving", "fixed"]
    assert dataset.record.sources == ("moving=m", "fixed=f")


def test_inputs_of_different_number_or_out_of_step_are_refused(tmp_path: Path) -> None:
    specs = [spec(1, 1, 8, 8, name="a"), spec(1, 1, 8, 8, name="b")]
    texts = [f"a={write_set(tmp_path / 'a', count=9)}", f"b={write_set(tmp_path / 'b', count=10)}"]
    with pytest.raises(InputError, match="a 9, b 10"):
        Dataset.open(texts, specs)
    (tmp_path / "b" / "case03.npy").unlink()
    with pytest.raises(InputError, match=r"case04.npy' would go with 'case05.npy'") as refused:
        Dataset.open(texts, specs)
    assert refused.value.hint == "give both folders the same file names"


def test_names_are_checked(tmp_path: Path) -> None:
    specs = [spec(1, 1, 8, 8, name="moving"), spec(1, 1, 8, 8, name="fixed")]
    write_set(tmp_path)
    with pytest.raises(UsageError, match="which input"):
        Dataset.open([str(tmp_path)], specs)
    with pytest.raises(UsageError, match="unknown input 'mov'") as refused:
        Dataset.open([f"mov={tmp_path}"], specs)
    assert refused.value.hint == "did you mean 'moving'?"
    with pytest.raises(UsageError, match="no data for fixed"):
        Dataset.open([f"moving={tmp_path}"], specs)
    with pytest.raises(UsageError, match="patches >= 1"):
        Dataset.open([str(tmp_path)], [PICTURE], patches=0)


def test_no_data_and_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        Dataset.open([str(tmp_path / "nowhere")], [PICTURE])
    (tmp_path / "empty").mkdir()
    for text in (tmp_path / "empty", tmp_path / "*.npy"):
        with pytest.raises(InputError, match="no images were found"):
            Dataset.open([str(text)], [PICTURE])
    with pytest.raises(UsageError, match="no data for x"):
        Dataset.open([], [PICTURE])
    write_set(tmp_path / "few", count=7)
    with pytest.raises(InputError, match="want at least 8 that differ, got 7"):
        Dataset.open([str(tmp_path / "few")], [PICTURE])


def test_copies_do_not_count(tmp_path: Path) -> None:
    write_set(tmp_path, count=7)
    shutil.copy(tmp_path / "case00.npy", tmp_path / "case07.npy")
    dataset = Dataset.open([str(tmp_path)], [PICTURE])
    with pytest.raises(InputError, match="want at least 8 that differ, got 7"):
        list(dataset)
    np.save(tmp_path / "case08.npy", body((8, 8), 99))
    assert Dataset.open([str(tmp_path)], [PICTURE]).record.notes == ("1 of 9 cases are copies of others",)


def test_a_larger_volume_gives_patches_and_a_smaller_one_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, (12, 16, 20), 2)
    dataset = Dataset.open([str(tmp_path)], [spec(1, 1, 8, 8, 8)], patches=4)
    samples = list(dataset)
    assert len(samples) == len(dataset) == 8
    whole = {name: np.load(tmp_path / name) for name in ("case00.npy", "case01.npy")}
    for sample in samples:
        name, _, place = sample.name.partition("[")
        z, y, x = map(int, place.rstrip("]").split(","))
        wanted = whole[name][z : z + 8, y : y + 8, x : x + 8]
        assert np.array_equal(sample.feeds["x"][0, 0], wanted)
    write_set(tmp_path, (12, 16, 7))
    with pytest.raises(SpecError, match="wrong shape") as refused:
        list(Dataset.open([str(tmp_path)], [spec(1, 1, 8, 8, 8)]))
    assert "case00.npy" in str(refused.value.where)


def test_a_volume_of_the_contracts_size_is_one_sample(tmp_path: Path) -> None:
    write_set(tmp_path, (8, 8, 8))
    dataset = Dataset.open([str(tmp_path)], [spec(1, 1, 8, 8, 8)], patches=5)
    assert len(dataset) == 8 and next(iter(dataset)).name == "case00.npy"


def test_ranges_of_lengths_take_as_much_as_they_may(tmp_path: Path) -> None:
    write_set(tmp_path, (15, 40))
    length = Dim(8, 24, 4)
    for sample in Dataset.open([str(tmp_path)], [spec(1, 1, length, length)]):
        assert sample.feeds["x"].shape == (1, 1, 12, 24)


def test_a_model_of_pictures_gets_slices_of_volumes(tmp_path: Path) -> None:
    write_set(tmp_path, (6, 8, 8), 2)
    samples = list(Dataset.open([str(tmp_path)], [PICTURE], patches=6))
    assert len(samples) == 12
    assert len({sample.name for sample in samples}) > 6
    assert all(sample.feeds["x"].shape == (1, 1, 8, 8) for sample in samples)


def test_several_inputs_are_cut_at_one_place(tmp_path: Path) -> None:
    specs = [spec(1, 1, 8, 8, name="a"), spec(1, 1, 8, 8, name="b")]
    texts = [f"a={write_set(tmp_path / 'a', (20, 20))}", f"b={write_set(tmp_path / 'b', (20, 20), high=3.0)}"]
    for index, sample in enumerate(Dataset.open(texts, specs)):
        y, x = map(int, sample.name.partition("[")[2].rstrip("]").split(","))
        wanted = body((20, 20), index, high=3.0)[y : y + 8, x : x + 8]
        assert np.array_equal(sample.feeds["b"][0, 0], wanted)
    write_set(tmp_path / "b", (20, 21))
    with pytest.raises(InputError, match="want one grid"):
        Dataset.open(texts, specs)


def test_inputs_without_space_are_taken_whole(tmp_path: Path) -> None:
    for index in range(8):
        (tmp_path / "age").mkdir(exist_ok=True)
        np.save(tmp_path / "age" / f"case{index:02}.npy", np.array([[index, 40.0 + index]], np.float32))
    texts = [f"x={write_set(tmp_path / 'x', (20, 20))}", f"age={tmp_path / 'age'}"]
    samples = list(Dataset.open(texts, [PICTURE, spec(1, 2, name="age")]))
    assert [s.feeds["age"].tolist() for s in samples][3] == [[3.0, 43.0]]


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    dataset = Dataset.open([str(tmp_path)], [PICTURE])
    list(dataset)
    np.save(tmp_path / "case05.npy", body((8, 8), 77))
    os.utime(tmp_path / "case05.npy", ns=(1, 1))
    with pytest.raises(InputError, match="has changed") as refused:
        list(dataset)
    assert "case05" in str(refused.value.where)


def test_wrong_spacing_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, (4, 4, 4), ending=".nii")
    with pytest.raises(SpecError, match="wrong spacing"):
        list(Dataset.open([str(tmp_path)], [spec(1, 1, 4, 4, 4, spacing_mm_zyx=(3.0, 1.0, 1.0))]))


def test_a_plan_travels_to_another_process(tmp_path: Path) -> None:
    write_set(tmp_path, (20, 20), 4)
    dataset = Dataset.open([str(tmp_path)], [PICTURE], patches=2)
    there = Dataset.of_plan(json.loads(json.dumps(dataset.plan())))
    wanted = digest(there)
    dataset.learn(json.loads(json.dumps(there.plan())))
    assert dataset.record == there.record
    assert digest(dataset) == wanted


def test_one_case_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    write_set(tmp_path, (30, 30))
    read, alive = volumes.read, list[weakref.ref[Volume]]()

    def tracked(path: Path, **options: int) -> Volume:
        assert sum(ref() is not None for ref in alive) == 0
        alive.append(weakref.ref(volume := read(path, **options)))
        return volume

    monkeypatch.setattr(volumes, "read", tracked)
    samples: list[Sample] = list(Dataset.open([str(tmp_path)], [PICTURE], patches=2))
    assert len(samples) == 16 and len(alive) == 8
