"""The page about the task: complete, harmless, and the same every time."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import sample_bundles

from edgekit.bundle import Manifest
from edgekit.report import Exhibit, Panel, task_page
from edgekit.report.plots import Scale, interval, pair
from edgekit.reports import CaseResult, Tolerance

VOID = {"meta", "img", "line", "circle", "path", "!doctype"}


class Reader(HTMLParser):
    """Checks that every element is closed in order, and keeps texts, images and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


@pytest.fixture
def manifest() -> Manifest:
    return sample_bundles.full().manifest


def texts(page: str) -> str:
    return "\n".join(Reader(page).texts)


def test_it_shows_what_was_measured_and_why_it_failed(manifest: Manifest) -> None:
    shown = texts(task_page(manifest))
    for text in (
        "✗ failed",
        "case '<p03>': the candidate crashed: ZeroDivisionError",
        "dice falls from 0.875 to 0.75, by 0.125 over all cases; allowed are 0.01",
        "median latency 200 ms, allowed 250 ms",
        "group 'site A'",
        "−0.01 … 0.26",
        "90 % interval",
        "2: 0.8 → 0.5",
        "dice: scores of 'doubled' are taken as logits",
        "int8 is no faster",
        "0.1 %",
        "calibrated on 9 samples from 1 files (image: scans)",
        "3 labelled cases of cases.csv, SHA-256 2222222222222222…",
        "mixed for bench, with stub",
    ):
        assert text in shown, text


def test_it_passes_in_other_words(manifest: Manifest) -> None:
    task = sample_bundles.task_report()
    metric = replace(task.metrics[0], failures=(), limits=replace(task.metrics[0].limits, max_drop=None))
    task = replace(task, failures=(), metrics=(metric,))
    page = task_page(replace(manifest, task=task))
    assert "✓ passed" in texts(page) and "✗ failed" not in texts(page)
    nothing = texts(task_page(replace(manifest, task=replace(task, metrics=()))))
    assert "✗ failed" in nothing and "nothing was measured" in nothing


def test_it_needs_nothing_and_runs_nothing(manifest: Manifest) -> None:
    case = manifest.task.metrics[0].cases[0]  # type: ignore[union-attr]
    page = task_page(manifest, [Exhibit("dice", case, "slice 1 of 2", (Panel("input", b"\x89PNG"),))])
    read = Reader(page)
    sources = {value for _, name, value in read.attributes if name in ("src", "href", "srcset", "action")}
    assert sources == {"data:image/png;base64,iVBORw=="}
    policy = [v for tag, name, v in read.attributes if tag == "meta" and name == "content" and "src" in v]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "<script" not in page and not re.search(r"url\(|@import|https?:", page)
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert page == task_page(manifest, [Exhibit("dice", case, "slice 1 of 2", (Panel("input", b"\x89PNG"),))])
    assert page.isascii() or page.encode().decode() == page


EVIL = '"><script>alert(1)</script><p title="'


def test_texts_from_files_stay_texts(manifest: Manifest) -> None:
    task = sample_bundles.task_report()
    metric = task.metrics[0]
    evil = replace(metric.cases[0], case=EVIL, error=EVIL)
    metric = replace(
        metric, metric=EVIL, result=EVIL, unit=EVIL, notes=(EVIL,), failures=(EVIL,), cases=(evil,)
    )
    records = tuple(replace(record, name=EVIL, groups=(EVIL,)) for record in task.cases)
    groups = tuple(replace(group, name=EVIL) for group in metric.groups)
    task = replace(task, metrics=(replace(metric, groups=groups),), cases=records, source=EVIL, baseline=EVIL)
    layers = tuple(replace(layer, name=EVIL, reason=EVIL) for layer in manifest.layers)
    page = task_page(
        replace(manifest, name=EVIL, task=task, layers=layers, precision=EVIL),
        [Exhibit(EVIL, evil, EVIL, (Panel(EVIL, b""),))],
    )
    read = Reader(page)
    assert "<script>" not in page
    assert {tag for tag, name, value in read.attributes if "script" in value} == {"img"}, "its alt text"


def test_a_failure_is_told_by_shape_and_word_not_by_colour_alone(manifest: Manifest) -> None:
    page = task_page(manifest)
    rows = re.findall(r"<tr class=fails>.*?</tr>", page)
    assert len(rows) == 5, "all cases, classes 2 of two groups' rows, and the cases beyond their limit"
    for row in rows:
        assert 'class="bad" d="M' in row or "crashed" in row
    assert 'content: "✗ "' in page


def test_every_case_is_there_with_the_worst_first(manifest: Manifest) -> None:
    task = sample_bundles.task_report()
    cases = tuple(CaseResult(f"scan{i:04}", 0.9, 0.9 - i / 1e4, i / 1e4) for i in range(600))
    metric = replace(task.metrics[0], cases=cases)
    page = task_page(replace(manifest, task=replace(task, metrics=(metric,))))
    found = re.findall(r"scan\d{4}", page)
    assert len(found) == 500 and found[0] == "scan0599" and found == sorted(found, reverse=True)
    assert "The 500 worst of 600." in page


def test_a_metric_without_values_of_cases_says_so(manifest: Manifest) -> None:
    task = sample_bundles.task_report()
    nan = float("nan")
    metric = replace(
        task.metrics[0], cases=tuple(CaseResult(c.case, nan, nan, nan) for c in task.metrics[0].cases)
    )
    assert "none for one" in texts(task_page(replace(manifest, task=replace(task, metrics=(metric,)))))


def test_a_manifest_without_a_task_has_a_page(manifest: Manifest) -> None:
    page = task_page(sample_bundles.small().manifest)
    assert "double" in texts(page) and "failed" not in texts(page)
    assert "int8 is no faster" in texts(task_page(replace(manifest, task=None)))


def test_a_margin_that_is_reached_marks_the_row(manifest: Manifest) -> None:
    task = sample_bundles.task_report()
    limits = replace(task.metrics[0].limits, max_drop=None, margin=Tolerance(0.2))
    page = task_page(
        replace(manifest, task=replace(task, metrics=(replace(task.metrics[0], limits=limits),)))
    )
    first = page[page.index("all cases</td>") - 40 :]
    assert first.index("class=fails") < 40


def test_a_scale_holds_zero_and_what_is_finite() -> None:
    scale = Scale.of([0.2, float("nan"), float("inf"), -0.1])
    assert scale.low < -0.1 and 0.2 < scale.high < 0.3
    assert scale.at(-1) < scale.at(-0.1) < scale.at(0) < scale.at(0.2) < scale.at(9)
    assert Scale.of([]).at(0) == 130.0
    assert "circle" in interval(scale, 0.1, 0.0, 0.2, 0.15, failed=False)
    assert "limit" not in interval(scale, 0.1, 0.0, 0.2, None, failed=False)
    drawn = interval(scale, float("nan"), float("nan"), float("nan"), None, failed=True)
    assert "path" not in drawn and 'class="bar"' not in drawn
    assert "ring" in pair(scale, 0.1, float("nan"), failed=True)
