"""What stands in front of a model: what is asked for is read, and only what fits is attached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser
from sample_steps import add  # noqa: F401

from edgekit import zoo
from edgekit.errors import SpecError, UsageError
from edgekit.front import Front
from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.spec import Dim, Step
from edgekit.torch.source import load_weights
from edgekit.zoo.denoise2d import build

ONE = "(float[1, 1, H, W] image) => (float[1, 1, H, W] out) { out = Relu (image) }"
TWO = (
    "(float[1, 1, H, W] image, float[1, 1, H, W] mask) => (float[1, 1, H, W] out) { out = Add (image, mask) }"
)
FLOW = "(float[1, 2, H, W] flow, int64[1, 2, H, W] seed) => (float[1, 2, H, W] out) { out = Relu (flow) }"


def graph_of(text: str, folder: Path, **shapes: str) -> Graph:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> net {text}')
    onnx.save(model, folder / "m.onnx")
    names = [value.name for value in model.graph.input]
    channels = 2 if "flow" in names else 1
    wanted = {name: shapes.get(name, f"1x{channels}x16x24") for name in names}
    return build_graph(model, check_file(folder / "m.onnx", wanted)[1], "test")


def test_steps_and_texts_are_one_thing() -> None:
    step = Step("integrate_velocity", ("flow",), ("flow",), {"steps": 3})
    text = "integrate_velocity flow steps=3"
    for wanted in (step, [step], text, (text,)):
        assert Front.of(wanted) == Front((step,))
    assert Front.of([text, step, "zoo.denoise2d flow"]) == Front(
        (step, step), (Step("zoo.denoise2d", ("flow",), ("flow",)),)
    )
    assert Front.of("zoo.denoise2d") and not Front.of(())


@pytest.mark.parametrize(
    ("wanted", "what", "hint"),
    [
        (
            "denoise2d x",
            "unknown step 'denoise2d': want one of warp, integrate_velocity, .*, zoo.denoise2d",
            "zoo.",
        ),
        ("zoo.denois2d x", "unknown step 'zoo.denois2d'", "did you mean 'zoo.denoise2d'?"),
        (Step("wrap", ("x",), ("x",)), "unknown step 'wrap'", "did you mean 'warp'?"),
        (Step("zoo.x", ("x",), ("x",)), "unknown step 'zoo.x'", None),
        ("zoo.register3d x", "zoo.register3d reads moving, fixed: .* wants one input", None),
        ("zoo.segment2d x", "zoo.segment2d makes no image like the one it reads", "compile it by itself"),
        ("zoo.denoise2d x sigma=1", "zoo.denoise2d has no option 'sigma'", None),
        ("warp x y ordr=1", "no option 'ordr'", "did you mean 'order'?"),
        ("warp x y order=x", "want int, got 'x'", "order=1"),
        (
            ["zoo.denoise2d x", "integrate_velocity x"],
            "would run behind zoo.denoise2d",
            "give integrate_velocity",
        ),
    ],
)
def test_what_is_not_there_is_refused(wanted: object, what: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        Front.of(wanted)  # type: ignore[arg-type]
    assert caught.value.where
    assert hint is None or (caught.value.hint and hint in caught.value.hint)


def test_options_of_a_step_are_looked_at_before_any_work() -> None:
    with pytest.raises(SpecError, match=r"want int, got 1\.0"):
        Front.of(Step("integrate_velocity", ("x",), ("x",), {"steps": 1.0}))


def test_steps_take_the_place_of_inputs(tmp_path: Path, add: object) -> None:  # noqa: F811
    graph = graph_of(ONE, tmp_path, image="1x1x[16:64:8]x24")
    steps = ("add value=2", "add image")
    attached, notes = Front.of(steps).attach(graph)
    assert attached.before == (
        Step("add", ("image",), ("image",), {"value": 2.0}),
        Step("add", ("image",), ("image",)),
    )
    assert attached.given == attached.inputs == graph.inputs
    assert attached.digest() == graph.digest() and notes == ()
    feeds = {"image": np.ones((1, 1, 16, 24), np.float32)}
    np.testing.assert_array_equal(Front.of(steps).run(feeds)["image"], feeds["image"] + 3)


def test_an_input_that_a_step_makes_is_not_given(tmp_path: Path, add: object) -> None:  # noqa: F811
    graph = graph_of(TWO, tmp_path)
    front = Front.of([Step("add", ("image",), ("mask",)), "add mask"])
    attached, _ = front.attach(graph)
    assert [spec.name for spec in attached.given] == ["image"]
    assert [spec.name for spec in attached.inputs] == ["image", "mask"]
    made = front.run({"image": np.zeros((1, 1, 16, 24), np.float32)})
    assert made.keys() == {"image", "mask"} and made["mask"].max() == 2


@pytest.mark.parametrize(
    ("model", "wanted", "error", "what"),
    [
        (ONE, "integrate_velocity image", SpecError, "a displacement wants float32"),
        (ONE, "warp image", SpecError, "wants 2 inputs, got 1"),
        (ONE, "add imgae", SpecError, "reads 'imgae', which nothing has made"),
        (TWO, "add", UsageError, r"which input is it\? want one of image, mask"),
        (TWO, "zoo.denoise2d", UsageError, r"which input is it\?"),
        (TWO, "zoo.denoise2d maks", SpecError, "'maks' is no input of the model"),
        (ONE, Step("add", ("image",), ("noise",)), SpecError, "makes 'noise', which is no input of it"),
        (ONE, Step("add", ("image",), ()), SpecError, "makes 1 tensors, got 0 names"),
        (
            FLOW,
            Step("add", ("flow",), ("seed",)),
            SpecError,
            "network wants seed: int64.* makes seed: float32",
        ),
        (ONE, Step("zoo.denoise2d", ("image",), ("x",)), SpecError, "takes its place"),
        (FLOW, "zoo.denoise2d flow", SpecError, "wants float32 NxCxHxW, C = 1, H a multiple of 8"),
        (FLOW, "zoo.denoise2d seed", SpecError, "got seed: int64"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: str,
    wanted: str,
    error: type[Exception],
    what: str,
    tmp_path: Path,
    add: object,  # noqa: F811
) -> None:
    with pytest.raises(error, match=what):
        Front.of(wanted).attach(graph_of(model, tmp_path))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ("1x1x60x64", "--shape image=1x1x64x64"),
        ("3x1x64x[62:200:3]", "--shape image=3x1x64x[64:200:8]"),
        ("1x1x[64:512:4]x8", "--shape image=1x1x[64:512:8]x8"),
        ("1x3x64x64", "--shape image=1x1x64x64"),
    ],
)
def test_lengths_that_a_network_does_not_take(shape: str, hint: str, tmp_path: Path) -> None:
    text = ONE.replace("float[1, 1,", "float[N, C,")
    with pytest.raises(SpecError, match="multiple of 8") as caught:
        Front.of("zoo.denoise2d").attach(graph_of(text, tmp_path, image=shape))
    assert caught.value.hint == hint


def test_arrays_that_do_not_fit_are_refused(add: object) -> None:  # noqa: F811
    with pytest.raises(SpecError, match="want a NumPy array"):
        Front.of("add").run({"image": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(SpecError, match="NaN"):
        Front.of("add").run({"image": np.full((1, 1), np.nan, np.float32)})
    with pytest.raises(SpecError, match="reads 'x'"):
        Front.of("add x").run({"image": np.ones((1, 1), np.float32)})


def denoise(image: np.ndarray) -> np.ndarray:
    module = build()
    load_weights(module, zoo.MODELS["denoise2d"].weights)
    with torch.no_grad():
        return module(torch.from_numpy(image)).numpy()  # type: ignore[no-any-return]


def test_a_network_runs_in_pytorch_where_golden_outputs_are_wanted(add: object) -> None:  # noqa: F811
    image = np.random.default_rng(0).standard_normal((1, 1, 16, 24)).astype(np.float32)
    made = Front.of(["add value=5", "zoo.denoise2d"]).run({"image": image})
    np.testing.assert_allclose(made["image"], denoise(image + np.float32(5)), rtol=1e-5, atol=1e-5)


def test_a_network_becomes_part_of_the_graph(tmp_path: Path, add: object) -> None:  # noqa: F811
    import onnxruntime

    graph = graph_of(ONE, tmp_path, image="1x1x[16:64:8]x24")
    attached, notes = Front.of(["add", "zoo.denoise2d"]).attach(graph)
    assert notes == ("zoo.denoise2d: exported from PyTorch by torch.export",)
    assert [step.op for step in attached.before] == ["add"]
    assert attached.inputs == graph.inputs and attached.inputs[0].dims == (1, 1, Dim(16, 64, 8), 24)
    assert attached.history == ("test", "zoo.denoise2d runs in front of the network, on image")
    session = onnxruntime.InferenceSession(attached.to_bytes(), providers=["CPUExecutionProvider"])
    for height in (16, 40):
        image = np.random.default_rng(0).standard_normal((1, 1, height, 24)).astype(np.float32)
        (out,) = session.run(None, {"image": image})
        np.testing.assert_allclose(out, np.maximum(denoise(image), 0), rtol=1e-4, atol=1e-5)
