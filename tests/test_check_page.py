"""``docs/check.md`` is what the rules say today; ``python benchmarks/check_networks.py`` writes it anew."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from edgekit.hosts import tensorrt_parser
from edgekit.jetpack import JETPACKS
from edgekit.passes import PASSES
from edgekit.zoo import MODELS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that writes the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("check_networks")


@pytest.fixture
def text() -> str:
    return (ROOT / "docs" / "check.md").read_text()


def test_the_text_of_the_page(page: ModuleType, text: str) -> None:
    assert text.startswith(page.head())
    named = {"decompose", "lower_opset", "subpixel", "nativize"}
    assert named <= set(PASSES) and all(f"`{name}`" in text for name in named)
    assert all(tensorrt_parser.parse(JETPACKS[one].tensorrt) for one in page.JETPACKS)


def test_every_network_has_a_row(page: ModuleType, text: str) -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text[len(page.head()) :].splitlines()]
    monai = [f"{title}, {one.dimensions}-D" for title, networks in page.NETWORKS.items() for one in networks]
    assert rows == [*(f"zoo {name}" for name in MODELS), *monai]
    assert page.ZOO.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_the_rows_of_the_zoo(name: str, page: ModuleType, text: str) -> None:
    ((title, graph),) = page.zoo_graphs([name])
    assert page.row(title, graph) in text
