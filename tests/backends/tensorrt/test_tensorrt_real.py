"""TensorRT itself, where it is installed: TensorRT for RTX builds without a GPU (tensorrt-rtx-cu12)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from backends.backend_models import parse
from backends.tensorrt.test_tensorrt_portable import mixed, quantized
from sample_engines import orin

from edgekit.backends.tensorrt import plan, portable
from edgekit.backends.tensorrt.builder import Built, TensorrtBuilder
from edgekit.errors import UnsupportedError
from edgekit.spec import Dim, TensorSpec

PACKAGE = next((name for name in ("tensorrt_rtx", "tensorrt") if importlib.util.find_spec(name)), "")
pytestmark = [
    pytest.mark.skipif(not PACKAGE, reason="no TensorRT: pip install tensorrt-rtx-cu12"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the one for RTX keeps no timing cache
]
FIXED = TensorSpec("x", "float32", (1, 2, 8, 8), "NCHW")


def build(model: onnx.ModelProto, spec: TensorSpec, folder: Path) -> tuple[Built, list[tuple[str, int, int]]]:
    made = portable.write(ir.serde.deserialize_model(model), "10.16.2")
    (folder / plan.MODEL).write_bytes(made.model)
    wanted = plan.make(orin("10.16.2"), (spec,), strongly_typed=True)
    told: list[tuple[str, int, int]] = []
    return TensorrtBuilder(PACKAGE).build(wanted, folder, b"", lambda *report: told.append(report)), told


@pytest.mark.parametrize("model", [mixed, quantized])
def test_it_builds_what_the_passes_write(model, tmp_path):
    built, told = build(model(), FIXED, tmp_path)
    assert len(built.engine) > 10_000 and built.timing_cache
    assert told[0] == ("parse", 0, 0) and told[-1][1] == told[-1][2] > 0


def test_it_takes_the_shapes_of_a_plan(tmp_path):
    text = "net (float[1,1,d,8,8] x) => (float[1,1,d,8,8] y) { y = Softplus (x) }"
    spec = TensorSpec("x", "float32", (1, 1, Dim(4, 16, 4), 8, 8), "NCDHW")
    assert build(parse(text), spec, tmp_path)[0].engine


def test_what_its_parser_refuses_is_told(tmp_path):
    text = "net (float[1,2,8,8] x) => (float[1,2,8,8] y) { y = NoSuchThing (x) }"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    (tmp_path / plan.MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match=r"parser does not take the network: .*NoSuchThing"):
        TensorrtBuilder(PACKAGE).build(
            plan.make(orin("10.16.2"), (FIXED,), strongly_typed=True), tmp_path, b"", lambda *report: None
        )
