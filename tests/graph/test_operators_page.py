"""The page of the operators says what the table says, and its references compute what the operators mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sample_operators as cases
from onnx import TensorProto, helper

from edgekit.graph import opset

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
# What is common, then one section for each operator.
HEAD, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
BY_NAME = {section.partition("\n")[0]: section for section in SECTIONS}
NAMES = list(opset.OPERATORS)


def part(name: str, title: str) -> str:
    """The text under one heading of an operator's section."""
    parts = re.split(r"^### ", BY_NAME[name], flags=re.MULTILINE)[1:]
    titled = {text.partition("\n")[0]: text.partition("\n")[2].strip() for text in parts}
    return titled[title]


def entries(name: str, title: str) -> dict[str, str]:
    """Names and what is said of them, in a list."""
    found = re.findall(r"^- `(\w+)` : (.+?)(?=^- |\Z)", part(name, title), re.MULTILINE | re.DOTALL)
    return dict(found)


def code(text: str) -> str:
    return "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page's code defines, the references among it."""
    found: dict[str, Any] = {}
    exec(compile(code(HEAD), "operators.md", "exec"), found)
    for name in NAMES:
        exec(compile(code(part(name, "Reference")), f"operators.md, {name}", "exec"), found)
    return found


def test_sections_are_the_operators_in_order() -> None:
    assert list(BY_NAME) == NAMES
    assert re.findall(r"^\| \[(\w+)\]\(#(\w+)\)", HEAD, re.MULTILINE) == [(n, n.lower()) for n in NAMES]
    assert f"Domain `{opset.DOMAIN}`, version {opset.VERSION}." in HEAD


@pytest.mark.parametrize("name", NAMES)
def test_interface_is_the_tables(name: str) -> None:
    operator = opset.OPERATORS[name]
    assert part(name, "Version") == str(opset.VERSION)
    assert len(part(name, "Summary")) > 100
    assert list(entries(name, "Inputs")) == list(operator.inputs)
    assert list(entries(name, "Outputs")) == [operator.output]
    for text in (*entries(name, "Inputs").values(), *entries(name, "Outputs").values()):
        assert text.startswith("T. ")
    assert part(name, "Type constraints") == "- `T` : tensor(float), tensor(float16)."
    ranks = " or ".join(map(str, operator.ranks))
    assert re.match(rf"(The input has|Inputs have) {ranks} axes", part(name, "Shape"))


@pytest.mark.parametrize("name", NAMES)
def test_attributes_are_the_tables(name: str) -> None:
    attributes = opset.OPERATORS[name].attributes
    if not attributes:
        assert part(name, "Attributes") == "None."
    words = {int: "int", float: "float", str: "string"}
    said = entries(name, "Attributes")
    assert list(said) == list(attributes)
    for key, default in attributes.items():
        if isinstance(default, type):
            wanted = f"{words[default]} (required). "
        else:
            shown = f'"{default}"' if isinstance(default, str) else repr(default)
            wanted = f"{words[type(default)]} (default is {shown}). "
        assert said[key].startswith(wanted), key


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_an_attribute_is_named(name: str) -> None:
    for key, text in entries(name, "Attributes").items():
        if key in opset.SPANS:
            low, high = opset.SPANS[key]
            assert f"{low:g}" in text and (f"{high:g}" in text or high == float("inf")), key
        elif isinstance(opset.CHOICES[key], range):
            choices = opset.CHOICES[key]
            assert f"{choices[0]} to {choices[-1]}" in text, key
        elif key == "boundary":
            assert all(f'`"{choice}"`' in HEAD for choice in opset.CHOICES[key])
        else:
            for choice in opset.CHOICES[key]:
                shown = f'`"{choice}"`' if isinstance(choice, str) else str(choice)
                assert shown in text, (key, choice)


@pytest.mark.parametrize("grid", cases.GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_references_compute_what_the_operators_mean(
    name: str, grid: tuple[int, ...], names: dict[str, Any]
) -> None:
    operator = opset.OPERATORS[name]
    reference = names[operator.kernel]
    if len(grid) + 2 not in operator.ranks:
        grid = (3, *grid)
    rng = np.random.default_rng(7)
    for turn in range(8):
        arrays = cases.inputs(operator, grid, rng)
        if turn == 1:
            arrays = [array.astype(np.float16) for array in arrays]
        options = cases.attributes(operator, rng) if turn else cases.defaults(operator)
        if name == "NonLocalMeans":
            options["search_radius"] = min(options.get("search_radius", 1), 2 if turn else 1)
        before = [array.copy() for array in arrays]
        found, meant = reference(*arrays, **options), operator.reference(*arrays, **options)
        assert found.dtype == meant.dtype == arrays[0].dtype
        assert found.shape == meant.shape == tuple(operator.shape(*(array.shape for array in arrays)))
        step = 2e-3 if found.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(found, meant, rtol=step, atol=step, err_msg=str(options))
        for array, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("name", ["Warp", "GridSample3d"])
def test_references_take_what_is_not_finite(name: str, names: dict[str, Any]) -> None:
    operator = opset.OPERATORS[name]
    rng = np.random.default_rng(3)
    for turn in range(10):
        image, places = cases.inputs(operator, (4, 5, 6), rng)
        places = rng.choice([np.nan, np.inf, -np.inf, 1e30, 0.25, -1.0], places.shape).astype(np.float32)
        options = cases.attributes(operator, rng)
        if turn < len(opset.CHOICES.get("boundary", ())) and name == "Warp":
            options["boundary"] = opset.CHOICES["boundary"][turn]
        if options.get("padding_mode") == "reflection":
            places[np.abs(places) > 1e20] = np.nan  # no reflection in float32
        with np.errstate(invalid="ignore", over="ignore"):
            found = names[operator.kernel](image, places, **options)
        np.testing.assert_allclose(
            found, operator.reference(image, places, **options), rtol=1e-5, atol=1e-5, err_msg=str(options)
        )


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_nodes_that_onnx_takes(name: str) -> None:
    opset.register()
    found: dict[str, Any] = {"helper": helper}
    exec(code(part(name, "Example")), found)
    node, operator = found["node"], opset.OPERATORS[name]
    assert (node.op_type, node.domain) == (name, opset.DOMAIN)
    assert (list(node.input), list(node.output)) == (list(operator.inputs), [operator.output])
    shapes = [array.shape for array in cases.inputs(operator, (4, 5, 6), np.random.default_rng(0))]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(operator.inputs, shapes, strict=True)
    ]
    output = helper.make_tensor_value_info(operator.output, TensorProto.FLOAT, None)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(opset.DOMAIN, opset.VERSION)]
    model = helper.make_model(
        helper.make_graph([node], "example", values, [output]), opset_imports=imports, ir_version=10
    )
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    found_shape = [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim]
    assert found_shape == list(operator.shape(*shapes))
