"""From torch to a graph, by both exporters, with torch's own outputs as evidence."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgekit.errors import LimitError, ModelError, SpecError, UsageError
from edgekit.graph import load as loading
from edgekit.graph.graph import Graph
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import Loaded, load, run_torch
from edgekit.spec import Array, Dim

FACTORIES = """
from collections import namedtuple

import torch
from torch import nn
from torch.nn import functional as F

from edgekit.torch.operators import integrate_velocity, warp


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image):
        return self.head(F.interpolate(self.pool(self.encoder(image)), scale_factor=2.0))


def net():
    return Net()


class Register(nn.Module):
    output_names = ("moved", "flow")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(2, 3, 3, padding=1, stride=2)

    def forward(self, moving, fixed):
        half = self.conv(torch.cat([moving, fixed], 1))
        velocity = F.interpolate(half, scale_factor=2.0, mode="trilinear")
        flow = integrate_velocity(velocity, steps=3, boundary="zero")
        return warp(moving, flow, order=0), flow


def register():
    return Register()


class Sample(nn.Module):
    def forward(self, image, grid):
        return F.grid_sample(image, grid, align_corners=False)


def sample():
    return Sample()


class Spectrum(nn.Module):
    def forward(self, image):
        return torch.fft.rfft(image).abs()


def spectrum():
    return Spectrum()


class Branch(nn.Module):
    # torch.export cannot follow a branch on data; tracing takes the one that ran.
    def forward(self, image):
        if image.sum() > 1e9:
            return image * 2
        return image + 1


def branch():
    return Branch()


class Neither(nn.Module):
    def forward(self, image):
        if image.sum() > 1e9:
            return image
        return torch.linalg.svd(image)[1]


def neither():
    return Neither()


class Dictionary(nn.Module):
    def forward(self, image):
        return {"mask": image.sigmoid(), "score": image.mean((1, 2, 3))}


def dictionary():
    return Dictionary()


Pair = namedtuple("Pair", "low high")


class Tuple(nn.Module):
    def forward(self, image):
        return Pair(image - 1, image + 1)


def named_tuple():
    return Tuple()


class Fixes(nn.Module):
    # A length that becomes a plain number is fixed for ever.
    def forward(self, image):
        return image + torch.arange(int(image.shape[-1]))


def fixes():
    return Fixes()


class Slow(nn.Module):
    def forward(self, image):
        if torch.compiler.is_compiling():
            import time
            time.sleep(60)
        return image + 1


def slow():
    return Slow()


class Types(nn.Module):
    def forward(self, image, labels, scale=2.0, mask=None):
        out = image * scale + labels.to(image.dtype)
        return out if mask is None else out * mask


def types():
    return Types()


class Text(nn.Module):
    def forward(self, image):
        return image, "text"


def text():
    return Text()


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)

    def forward(self, image):
        return self.drop(self.norm(image))


def training():
    return Norm().train()


def broken():
    raise FileNotFoundError("weights are not here")


def number():
    return 3
"""


@pytest.fixture(autouse=True)
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's module in the folder where the command is typed."""
    (tmp_path / "mynets.py").write_text(textwrap.dedent(FACTORIES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mynets", None)


def module(name: str) -> torch.nn.Module:
    import mynets  # type: ignore[import-not-found]

    return getattr(mynets, name)()


def run(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in graph.outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_golden(loaded: Loaded) -> None:
    assert loaded.golden is not None
    found = run(loaded.graph, loaded.golden.inputs)
    assert list(found) == list(loaded.golden.outputs)
    for name, wanted in loaded.golden.outputs.items():
        assert np.ptp(wanted) > 0
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)


def only(exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the other exporter fail."""
    import edgekit.torch.export as export

    def fail(*arguments: object) -> bytes:
        raise export._ExportFailed("not asked")

    for name in export._EXPORTERS:
        if name != exporter:
            monkeypatch.setitem(export._EXPORTERS, name, fail)


def test_a_factory_is_exported_in_a_child(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load("mynets:net", shapes={"image": "1x1x16x24"})
    assert loaded.notes == ("exported from PyTorch by torch.export",)
    assert loaded.graph.history == ("mynets:net, exported from PyTorch by torch.export",)
    assert [str(spec) for spec in loaded.graph.inputs] == ["image: float32 1x1x16x24"]
    assert [str(spec) for spec in loaded.graph.outputs] == ["output: float32 1x2x16x24"]
    assert loaded.graph.model.opset_imports[""] == 20
    assert_golden(loaded)
    golden = loaded.golden
    assert golden is not None
    with torch.no_grad():
        wanted = module("net")(torch.from_numpy(golden.inputs["image"]))
    np.testing.assert_allclose(golden.outputs["output"], wanted.numpy(), rtol=1e-5, atol=1e-6)
    # The exporters' chatter stays in the child.
    assert capfd.readouterr() == ("", "")


def test_exporting_twice_gives_the_same_bytes() -> None:
    first, second = (load(module("net"), shapes={"": "1x1x16x16"}).graph for _ in range(2))
    assert first.digest() == second.digest()
    assert b"mynets" not in first.to_bytes() and b".py" not in first.to_bytes()


def test_nodes_are_named_after_their_layers() -> None:
    graph = load(module("net"), shapes={"": "1x1x16x16"}).graph
    assert {"encoder.0/Conv", "head/Conv"} <= {node.name for node in graph.model.graph}


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("shape", ["1x1x8x8x8", "1x1x[8:32:4]x8x[6:12:2]"])
def test_both_exporters_emit_our_operators(
    exporter: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(exporter, monkeypatch)
    loaded = load(module("register"), shapes={"moving": shape, "fixed": shape})
    own = [node for node in loaded.graph.model.graph if node.domain == "edgekit"]
    assert [node.op_type for node in own] == ["IntegrateVelocity", "Warp"]
    integrate, warp = ({name: a.value for name, a in node.attributes.items()} for node in own)
    assert integrate == {"steps": 3, "boundary": "zero"}
    assert warp == {"order": 0, "boundary": "edge"}
    assert loaded.graph.model.opset_imports["edgekit"] == 1
    assert [spec.name for spec in loaded.graph.outputs] == ["moved", "flow"]
    assert loaded.graph.outputs[0].dims == loaded.graph.inputs[0].dims
    # moving and fixed have one size.
    first, second = (value.shape for value in loaded.graph.model.graph.inputs)
    assert str(first) == str(second)


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_lengths_that_vary_really_do(exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(exporter, monkeypatch)
    loaded = load(module("net"), shapes={"image": "[1:3]x1x[8:64:8]x16"})
    (output,) = loaded.graph.outputs
    assert output.dims == (Dim(1, 3), 2, Dim(8, 64, 8), 16)
    for batch, height in ((1, 8), (3, 64), (2, 24)):
        image = np.random.default_rng(0).random((batch, 1, height, 16), np.float32)
        with torch.no_grad():
            wanted = module("net")(torch.from_numpy(image)).numpy()
        found = run(loaded.graph, {"image": image})["output"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_length_that_an_exporter_fixed_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    only("legacy", monkeypatch)
    with pytest.raises(ModelError, match="tracing failed: the exported graph is refused"):
        load(module("fixes"), shapes={"": "1x[8:16:4]"})


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_volumes_are_sampled(exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(exporter, monkeypatch)
    loaded = load(module("sample"), shapes={"image": "1x1x4x5x6", "grid": "1x4x5x6x3"})
    assert "GridSample" in [node.op_type for node in loaded.graph.model.graph]
    assert_golden(loaded)


def test_what_only_torch_export_can_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_golden(load(module("spectrum"), shapes={"": "1x1x8x8"}))
    only("legacy", monkeypatch)
    with pytest.raises(ModelError, match="tracing failed: UnsupportedOperatorError"):
        load(module("spectrum"), shapes={"": "1x1x8x8"})


def test_where_torch_export_fails_tracing_is_used_and_said() -> None:
    loaded = load("mynets:branch", shapes={"image": "1x1x4x4"})
    (note,) = loaded.notes
    assert note.startswith("exported from PyTorch by tracing; torch.export failed: ")
    assert "by tracing" in loaded.graph.history[0]
    assert_golden(loaded)


def test_where_both_fail_both_reasons_are_given() -> None:
    with pytest.raises(ModelError, match=r"(?s)torch\.export failed: .*tracing failed: ") as caught:
        load(module("neither"), shapes={"image": "4x4"})
    assert caught.value.hint


def test_a_slow_exporter_loses_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_FIRST_SHARE", 0.08)
    loaded = load("mynets:slow", shapes={"image": "1x1x4x4"}, time_limit_s=100.0)
    assert "took more than 8 s" in loaded.notes[0]
    assert "by tracing" in loaded.notes[0]


def test_the_time_limit_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitError, match="took more than 1 s"):
        load("mynets:net", shapes={"image": "1x1x4x4"}, time_limit_s=1.0)


def test_outputs_are_named_by_the_module() -> None:
    assert list(load(module("dictionary"), shapes={"": "1x1x4x4"}).golden.outputs) == ["mask", "score"]  # type: ignore[union-attr]
    assert list(load(module("named_tuple"), shapes={"": "1x1x4x4"}).golden.outputs) == ["low", "high"]  # type: ignore[union-attr]


def test_types_come_from_the_samples_and_optional_inputs_from_the_shapes() -> None:
    shapes = {"image": "1x1x4x4", "labels": "1x1x4x4"}
    samples: dict[str, Array] = {
        "image": np.random.default_rng(0).random((1, 1, 4, 4), np.float32),
        "labels": np.arange(16, dtype=np.int32).reshape(1, 1, 4, 4),
    }
    loaded = load(module("types"), shapes=shapes, samples=samples)
    assert [spec.dtype for spec in loaded.graph.inputs] == ["float32", "int32"]
    assert_golden(loaded)
    np.testing.assert_array_equal(loaded.golden.inputs["labels"], samples["labels"])  # type: ignore[union-attr]
    with_mask = load(module("types"), shapes={**shapes, "mask": "1x1x4x4"})
    assert [spec.name for spec in with_mask.graph.inputs] == ["image", "labels", "mask"]
    assert_golden(with_mask)


def test_a_sample_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="wrong shape"):
        load(module("net"), shapes={"": "1x1x8x8"}, samples={"image": np.zeros((1, 1, 4, 4), np.float32)})
    with pytest.raises(SpecError, match="one sample for each input"):
        load(module("net"), shapes={"": "1x1x8x8"}, samples={"imag": np.zeros((1, 1, 8, 8), np.float32)})


def test_a_module_in_training_is_exported_for_inference_and_given_back_as_it_was() -> None:
    net = module("training")
    loaded = load(net, shapes={"": "1x1x4x4"})
    assert net.training and net.norm.training
    assert "Dropout" not in [node.op_type for node in loaded.graph.model.graph]
    assert_golden(loaded)


def test_shapes_are_asked_for_by_name() -> None:
    with pytest.raises(SpecError, match="none given for fixed") as caught:
        load(module("register"), shapes={"moving": "1x1x8x8x8"})
    assert caught.value.hint == "--shape fixed=1x1x96x96x96"
    with pytest.raises(UsageError, match="no input is called 'fixd'"):
        load(module("register"), shapes={"moving": "1x1x8x8x8", "fixd": "1x1x8x8x8"})


def test_a_module_that_fails_is_the_users_error() -> None:
    with pytest.raises(ModelError, match=r"image: 1x3x8x8") as caught:
        load(module("net"), shapes={"": "1x3x8x8"})
    assert caught.value.where == "Net"


def test_outputs_want_to_be_tensors() -> None:
    with pytest.raises(ModelError, match="output_1: str"):
        load(module("text"), shapes={"": "1x1x4x4"})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("mynets:broken", "FileNotFoundError: weights are not here"),
        ("mynets:number", "got int"),
        ("mynets:nothing", "has no attribute 'nothing'"),
        ("nomodule:build", "No module named 'nomodule'"),
    ],
)
def test_a_factory_that_fails_is_the_users_error(source: str, text: str) -> None:
    from edgekit.torch.source import call_factory

    with pytest.raises(ModelError, match=text) as caught:
        call_factory(source)
    assert caught.value.where == source


def test_limits_hold_for_torch_too() -> None:
    with pytest.raises(ModelError, match="would take"):
        load(module("net"), shapes={"": "1x1x64x64"}, limits=IntakeLimits(tensor_bytes=32 << 10))


def state(path: Path, **changes: torch.Tensor | None) -> Path:
    """The state of ``net``, its last bias raised by one; ``None`` leaves an entry out."""
    wanted = {**module("net").state_dict(), **changes}
    made = {name: tensor for name, tensor in wanted.items() if tensor is not None}
    made["head.bias"] = made["head.bias"] + 1
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(made, path)
    else:
        torch.save(made, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_are_loaded(suffix: str, tmp_path: Path) -> None:
    loaded = load("mynets:net", shapes={"": "1x1x8x8"}, weights=state(tmp_path / f"w{suffix}"))
    assert loaded.golden is not None
    assert f"with weights w{suffix}" in loaded.graph.history[0]
    with torch.no_grad():
        plain = module("net")(torch.from_numpy(loaded.golden.inputs["image"])).numpy()
    np.testing.assert_allclose(loaded.golden.outputs["output"], plain + 1, rtol=1e-5, atol=1e-5)


def test_weights_in_a_checkpoint_are_found_and_said(tmp_path: Path) -> None:
    from edgekit.torch.source import load_weights

    net = module("net")
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "w.pt")
    assert load_weights(net, tmp_path / "w.pt") == ["took the entry 'state_dict' of w.pt"]


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    from edgekit.torch.source import load_weights

    path = state(
        tmp_path / "w.pt",
        **{"head.weight": None, "tail.weight": torch.zeros(1), "encoder.0.bias": torch.zeros(5)},
    )
    with pytest.raises(ModelError) as caught:
        load_weights(module("net"), path)
    assert caught.value.message.splitlines()[1:] == [
        "  1 missing: head.weight",
        "  1 unknown: tail.weight",
        "  1 of another shape: encoder.0.bias (want 4, got 5)",
    ]


def test_weights_are_a_state_dictionary(tmp_path: Path) -> None:
    from edgekit.torch.source import load_weights

    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(ModelError, match="state dictionary"):
        load_weights(module("net"), tmp_path / "w.pt")


def test_weights_go_with_a_factory_not_a_module(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="go with a factory"):
        load(module("net"), weights=tmp_path / "w.pt")


def test_pt2_files_load_with_trust(tmp_path: Path) -> None:
    program = torch.export.export(module("net"), (torch.zeros(1, 1, 8, 8),))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = load(tmp_path / "net.pt2", trust=True)
    assert [str(spec) for spec in loaded.graph.inputs] == ["image: float32 1x1x8x8"]
    assert loaded.graph.history[0].startswith("net.pt2, exported")
    assert_golden(loaded)


def test_the_child_that_crashes_is_no_crash_of_ours(tmp_path: Path) -> None:
    (tmp_path / "mynets.py").write_text("import os\ndef build():\n    os.abort()\n")
    with pytest.raises(ModelError, match=r"(?s)ended abnormally.*ended abnormally"):
        load("mynets:build", shapes={"": "1x1"})


def test_a_model_can_be_run_without_exporting_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 1, 8, 12)).astype(np.float32)
    net = module("net")
    with torch.no_grad():
        wanted = net(torch.from_numpy(image)).numpy()
    here = run_torch(net, {"image": image})
    assert here.inputs.keys() == {"image"}
    np.testing.assert_array_equal(here.outputs["output"], wanted)
    weights = state(tmp_path / "w.pt")
    there = run_torch("mynets:net", {"image": image}, weights=weights)
    np.testing.assert_allclose(there.outputs["output"], wanted + 1, rtol=1e-5, atol=1e-5)


def test_inputs_are_taken_by_name() -> None:
    rng = np.random.default_rng(0)
    volumes = {name: rng.random((1, 1, 4, 6, 8), dtype=np.float32) for name in ("fixed", "moving")}
    register = module("register")
    with torch.no_grad():
        moved, flow = register(*(torch.from_numpy(volumes[name]) for name in ("moving", "fixed")))
    found = run_torch(register, volumes).outputs
    np.testing.assert_array_equal(found["moved"], moved.numpy())
    np.testing.assert_array_equal(found["flow"], flow.numpy())


def test_what_is_no_model_is_not_run(tmp_path: Path) -> None:
    image = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    with pytest.raises(UsageError, match="what kind of model"):
        run_torch("model.onnx", image)
    with pytest.raises(ModelError, match="can run code when it is read"):
        run_torch("model.pt2", image)
    with pytest.raises(ModelError, match="cannot read the weights"):
        run_torch("mynets:net", image, weights=tmp_path / "none.pt")
    with pytest.raises(SpecError, match="none given for image"):
        run_torch(module("net"), {})
    with pytest.raises(ModelError, match="fails on inputs of these shapes"):
        run_torch(module("net"), {"image": np.zeros((1, 2, 8, 8), np.float32)})


def test_torch_is_not_loaded_by_the_caller() -> None:
    import subprocess

    code = (
        "import sys; from edgekit.graph.load import load\n"
        "graph = load('mynets:net', shapes={'': '1x1x8x8'}).graph\n"
        "assert 'torch' not in sys.modules; print(len(graph.outputs))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_every_exporter_has_a_title() -> None:
    import edgekit.torch.export as export

    assert set(loading._TITLES) == set(export._EXPORTERS)
