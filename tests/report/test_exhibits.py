"""The worst cases as pictures: the right case, the right slice, the right place."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit import gates
from edgekit.cases import Cases
from edgekit.gates import Judge
from edgekit.report import Exhibit, exhibits
from edgekit.report.pictures import BASELINE, CANDIDATE, GAINED, REFERENCE
from edgekit.spec import Array, TensorSpec

SHAPE = (6, 20, 24)
IMAGE = TensorSpec("image", "float32", (1, 1, *SHAPE), "NCDHW")
MASK = TensorSpec("mask", "float32", (1, 3, *SHAPE), "NCDHW")
FLOW = TensorSpec("flow", "float32", (1, 3, *SHAPE), "NCDHW", "flow_vox")
CLEAN = TensorSpec("clean", "float32", (1, 1, *SHAPE), "NCDHW")
GRADE = TensorSpec("grade", "float32", (1, 2), "NC")
COUNT = 4

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def labels(index: int) -> Array:
    """A block in all slices, and a dot of another class in slice 4; the corner tells the case."""
    made = np.zeros(SHAPE, np.float32)
    made[:, 4:16, 4:12] = 1
    made[3, 8:10, 18:20] = 2
    made[0, 0, 0] = index / 100
    return made


def scores(found: Array) -> Array:
    return np.stack([np.where(np.rint(found) == c, 5.0, -5.0) for c in range(3)])[None].astype(np.float32)


def network(change: Callable[[Array, int], Array] = lambda found, index: found) -> Run:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        image = feeds["image"][0, 0]
        index = round(float(image[0, 0, 0]) * 100)
        found = change(image.copy(), index)
        flow = np.zeros((1, 3, *SHAPE), np.float32)
        flow[0, 0] = found
        grade = np.array([[1.0, found.mean()]], np.float32)
        return {"mask": scores(found), "clean": found[None, None], "flow": flow, "grade": grade}

    return run


def spoiled(found: Array, index: int) -> Array:
    """In case 2 the dot is lost, and more voxels than it has move elsewhere, in slice 1."""
    if index == 2:
        found[3, 8:10, 18:20] = 0
        found[0, 4:16, 12] = 1
    return found


@pytest.fixture
def cases(tmp_path: Path) -> Callable[[TensorSpec], Cases]:
    def make(result: TensorSpec) -> Cases:
        rows = [f"image,case,{result.name}"]
        for index in range(COUNT):
            np.save(tmp_path / f"{index}.npy", labels(index))
            truth = {"mask": np.rint(labels(index)), "clean": labels(index)}.get(result.name)
            if truth is None:
                truth = np.zeros((3, *SHAPE), np.float32)
                truth[0] = labels(index)
            np.save(tmp_path / f"t{index}.npy", truth)
            rows.append(f"{index}.npy,case {index},{'1' if result is GRADE else f't{index}.npy'}")
        (tmp_path / "cases.csv").write_text("\n".join(rows))
        return Cases.open(tmp_path / "cases.csv", (IMAGE,), (result,), minimum=1)

    return make


def drawn(
    cases: Cases, result: TensorSpec, metrics: list[str], candidate: Run, count: int = 1
) -> tuple[Exhibit, ...]:
    with Judge(gates.parse(metrics, min_cases=1), cases, (result,), network()) as judge:
        return exhibits(judge, judge.judge(candidate), candidate, count=count)


def pixels(exhibit: Exhibit, caption: str) -> Array:
    (panel,) = [panel for panel in exhibit.panels if panel.caption.startswith(caption)]
    with Image.open(io.BytesIO(panel.png)) as picture:
        return np.asarray(picture)


def places(picture: Array, colour: tuple[int, int, int]) -> set[tuple[int, int]]:
    """Voxels of the slice that have the colour anywhere."""
    zoom = picture.shape[1] // SHAPE[2]
    return {(int(y) // zoom, int(x) // zoom) for y, x in np.argwhere((picture == colour).all(axis=2))}


DOT = {(8, 18), (8, 19), (9, 18), (9, 19)}


def test_the_structure_that_is_lost_is_seen(cases) -> None:
    (exhibit,) = drawn(cases(MASK), MASK, ["dice", "hd95"], network(spoiled))
    assert exhibit.metric == "dice" and exhibit.case.case == "case 2"
    assert exhibit.text == "slice 4 of 6", "where the worst class is, not where the most voxels changed"
    assert [panel.caption for panel in exhibit.panels] == [
        "input and reference",
        "baseline",
        "candidate",
        "lost (orange), gained (light blue)",
    ]
    assert places(pixels(exhibit, "input and reference"), REFERENCE) >= DOT
    assert places(pixels(exhibit, "baseline"), BASELINE) >= DOT
    assert not places(pixels(exhibit, "candidate"), CANDIDATE) & DOT
    assert places(pixels(exhibit, "lost"), CANDIDATE) == DOT
    assert not places(pixels(exhibit, "lost"), GAINED)


def test_what_is_found_where_nothing_is_is_seen(cases) -> None:
    def invent(found: Array, index: int) -> Array:
        found[5, 17:19, 2:5] = 2 * (index == 1)
        return found

    exhibit, *others = drawn(cases(MASK), MASK, ["dice"], network(invent), count=3)
    assert others == [], "the others did not get worse"
    assert (exhibit.case.case, exhibit.text) == ("case 1", "slice 6 of 6")
    assert places(pixels(exhibit, "lost"), GAINED) == {(y, x) for y in (17, 18) for x in (2, 3, 4)}


def test_without_a_worse_case_one_is_shown(cases) -> None:
    (exhibit,) = drawn(cases(MASK), MASK, ["dice"], network())
    assert exhibit.case.case == "case 0" and len(exhibit.panels) == 4


def test_a_candidate_that_crashes_leaves_no_pictures(cases) -> None:
    def fragile(feeds: Mapping[str, Array]) -> dict[str, Array]:
        if feeds["image"][0, 0, 0, 0, 0] > 0.025:
            raise ZeroDivisionError("by zero")
        return network()(feeds)

    (exhibit,) = drawn(cases(MASK), MASK, ["dice"], fragile)
    assert exhibit.panels == () and exhibit.text == "the candidate crashed: ZeroDivisionError: by zero"


def test_images_have_a_difference_with_a_sign(cases) -> None:
    def brighter(found: Array, index: int) -> Array:
        found[2, 6, 7] += 0.5 * (index == 3)
        found[2, 6, 9] -= 0.25 * (index == 3)
        return found

    (exhibit,) = drawn(cases(CLEAN), CLEAN, ["nrmse"], network(brighter))
    assert (exhibit.case.case, exhibit.text) == ("case 3", "slice 3 of 6")
    difference = pixels(exhibit, "difference: orange brighter, blue darker, full at 0.5")
    assert places(difference, CANDIDATE) == {(6, 7)}
    zoom = difference.shape[1] // SHAPE[2]
    red, _, blue = difference[6 * zoom, 9 * zoom]
    assert blue > red, "darker"
    assert (difference[0, 0] == 255).all()


def test_fields_are_shown_by_their_length(cases) -> None:
    def pushed(found: Array, index: int) -> Array:
        found[1, 10, 20] += 3 * (index == 0)
        return found

    (exhibit,) = drawn(cases(FLOW), FLOW, ["tre"], network(pushed))
    assert (exhibit.case.case, exhibit.text) == ("case 0", "slice 2 of 6")
    assert places(pixels(exhibit, "length of the difference, full at 3 voxels"), CANDIDATE) == {(10, 20)}


def test_of_a_classifier_the_scores_and_the_input_are_shown(cases) -> None:
    def doubtful(found: Array, index: int) -> Array:
        return found + 4 * (index != 1)

    with Judge(
        gates.parse(["accuracy"], min_cases=1), cases(GRADE), (GRADE,), network(lambda f, i: f + 4)
    ) as judge:
        (exhibit,) = exhibits(judge, judge.judge(network(doubtful)), network(doubtful), count=1)
    assert exhibit.case.case == "case 1" and exhibit.text == "baseline 1, 4.2, candidate 1, 0.203"
    assert [panel.caption for panel in exhibit.panels] == ["input"]


def test_of_a_large_picture_the_part_that_changed_is_shown(tmp_path: Path) -> None:
    shape = (40, 700)
    image = TensorSpec("image", "float32", (1, 1, *shape), "NCHW")
    mask = TensorSpec("mask", "float32", (1, 1, *shape), "NCHW")
    made = np.zeros(shape, np.float32)
    made[10:20, 600:640] = 1
    np.save(tmp_path / "a.npy", made)
    (tmp_path / "cases.csv").write_text("image,mask\na.npy,a.npy\n")
    cases = Cases.open(tmp_path / "cases.csv", (image,), (mask,), minimum=1)

    def run(columns: int) -> Run:
        def inner(feeds: Mapping[str, Array]) -> dict[str, Array]:
            found = feeds["image"].copy()
            found[..., 600 : 600 + columns] = 0
            return {"mask": found}

        return inner

    with Judge(gates.parse(["dice"], min_cases=1), cases, (mask,), run(0)) as judge:
        (exhibit,) = exhibits(judge, judge.judge(run(10)), run(10), count=1)
    assert exhibit.text == "y 0–39, x 444–699"
    assert pixels(exhibit, "baseline").shape == (80, 512, 3)


def test_channels_of_their_own_are_drawn_too(tmp_path: Path) -> None:
    shape = (16, 18)
    image = TensorSpec("image", "float32", (1, 1, *shape), "NCHW")
    mask = TensorSpec("mask", "float32", (1, 2, *shape), "NCHW")
    truth = np.zeros((2, *shape), np.float32)
    truth[0, 2:12, 2:12], truth[1, 4:8, 4:8] = 1, 1
    np.save(tmp_path / "i.npy", truth[0])
    np.save(tmp_path / "t.npy", truth)
    (tmp_path / "cases.csv").write_text("image,mask\ni.npy,t.npy\n")
    cases = Cases.open(tmp_path / "cases.csv", (image,), (mask,), minimum=1)
    without = truth.copy()
    without[1, 4:6] = 0
    with Judge(
        gates.parse(["dice"], min_cases=1), cases, (mask,), lambda feeds: {"mask": truth[None]}
    ) as judge:
        candidate: Run = lambda feeds: {"mask": without[None]}  # noqa: E731
        report = judge.judge(candidate)
        (exhibit,) = exhibits(judge, report, candidate, count=1)
    assert report.metrics[0].cases[0].worst_class.name == "1"  # type: ignore[union-attr]
    changed = pixels(exhibit, "lost")
    zoom = changed.shape[1] // shape[1]
    lost = {(int(y) // zoom, int(x) // zoom) for y, x in np.argwhere((changed == CANDIDATE).all(axis=2))}
    assert lost == {(y, x) for y in (4, 5) for x in (4, 5, 6, 7)}
