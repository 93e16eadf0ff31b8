"""Each operator of the ONNX domain comes out of both of torch's exporters as one node of the same meaning."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import edgekit.torch
from edgekit.errors import UnsupportedError
from edgekit.graph import opset
from edgekit.torch import denoising, operators, translations

# How users call each, with options that are not the defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "warp": {"order": 0, "boundary": "mirror"},
    "compose": {"boundary": "wrap"},
    "integrate_velocity": {"steps": 3, "boundary": "zero"},
    "grid_sample": {"mode": "nearest", "padding_mode": "border", "align_corners": True},
    "jacobian_determinant": {},
    "non_local_means": {"sigma": 0.3, "search_radius": 2, "method": "blockwise"},
    "bilateral": {"sigma_space": 2.5, "sigma_range": 0.5},
}


def function(name: str) -> Any:
    return getattr(operators, name, None) or getattr(denoising, name)


class One(torch.nn.Module):
    """One operator, between two others."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.options = name, options

    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        return function(self.name)(first * 0.5, *rest, **self.options) + 1  # type: ignore[no-any-return]


def inputs(operator: opset.Operator, rank: int) -> tuple[Tensor, ...]:
    lengths = {"image": 2, "grid": 3}
    tensors = []
    for number, name in enumerate(operator.inputs):
        generator = torch.Generator().manual_seed(number)
        shape = (2, lengths.get(name, rank - 2), 5, 6, 7)[:rank]
        tensor = torch.randn((2, 4, 5, 6, 3) if name == "grid" else shape, generator=generator)
        tensors.append(tensor)
    return tuple(tensors)


def export(module: One, tensors: tuple[Tensor, ...], exporter: str, dynamic: bool) -> onnx.ModelProto:
    names = ["first", "second"][: len(tensors)]
    axes = {name: {2: "a", 3: "b"} for name in names}
    if module.name == "grid_sample":
        axes["second"] = {1: "c", 2: "d"}
    if exporter == "dynamo":
        shapes = tuple({a: torch.export.Dim.DYNAMIC for a in axes[name]} for name in names)
        program = torch.onnx.export(
            module,
            tensors,
            dynamo=True,
            opset_version=20,
            input_names=names,
            dynamic_shapes=(shapes[0], *(shapes[1:],) * bool(shapes[1:])) if dynamic else None,
            custom_translation_table=edgekit.torch.onnx_translations(),
            verbose=False,
        )
        assert program is not None
        return program.model_proto
    file = io.BytesIO()
    with edgekit.torch.legacy_onnx_symbols(20):
        torch.onnx.export(
            module,
            tensors,
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=20,
            input_names=names,
            dynamic_axes=axes if dynamic else None,
            custom_opsets={opset.DOMAIN: opset.VERSION},
        )
    return onnx.ModelProto.FromString(file.getvalue())


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize(
    ("name", "rank"), [(name, rank) for name, o in opset.OPERATORS.items() for rank in o.ranks]
)
def test_an_operator_is_one_node(name: str, rank: int, exporter: str, dynamic: bool) -> None:
    operator = opset.OPERATORS[name]
    tensors = inputs(operator, rank)
    module = One(operator.kernel, OPTIONS[operator.kernel])
    model = export(module, tensors, exporter, dynamic)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[opset.DOMAIN] == opset.VERSION
    assert not model.functions
    (node,) = (node for node in model.graph.node if node.domain == opset.DOMAIN)
    assert node.op_type == operator.name
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes.keys() == operator.attributes.keys()  # said in full, so that defaults do not matter
    texts = {name: v.decode() if isinstance(v, bytes) else v for name, v in attributes.items()}
    first, *rest = (tensor.numpy() for tensor in tensors)
    meant = operator.reference(first * np.float32(0.5), *rest, **texts) + 1
    np.testing.assert_allclose(module(*tensors).numpy(), meant, rtol=1e-4, atol=1e-4)
    (output,) = model.graph.output
    known = [d.dim_value for d in output.type.tensor_type.shape.dim]
    assert len(known) == meant.ndim
    assert all(length in (0, wanted) for length, wanted in zip(known, meant.shape, strict=True))
    assert dynamic or tuple(known) == meant.shape


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_what_onnx_has_no_attribute_for_is_refused(exporter: str) -> None:
    module = One("bilateral", {"sigma_space": 2.0, "sigma_range": 0.5, "method": "grid"})
    with pytest.raises(Exception, match="Bilateral has no method: want 'exact', got 'grid'") as caught:
        try:
            export(module, (torch.rand(1, 1, 8, 9),), exporter, False)
        except Exception as error:
            raise _root(error) from None
    assert isinstance(caught.value, UnsupportedError)
    assert caught.value.hint == "leave method out"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def test_images_of_two_axes_are_sampled_by_the_standard_operator() -> None:
    tensors = (torch.rand(1, 1, 5, 6), torch.rand(1, 3, 4, 2))
    model = export(One("grid_sample", {}), tensors, "dynamo", False)
    assert [node.op_type for node in model.graph.node if "Sample" in node.op_type] == ["GridSample"]
    assert not [node for node in model.graph.node if node.domain == opset.DOMAIN]


def test_symbols_are_taken_back() -> None:
    from torch.onnx._internal.torchscript_exporter.registration import registry

    with translations.legacy_onnx_symbols(20):
        assert registry.is_registered_op("edgekit::warp", 20)
    assert not registry.is_registered_op("edgekit::warp", 20)
