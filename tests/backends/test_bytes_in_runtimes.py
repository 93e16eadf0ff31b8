"""One meaning: what each runtime makes of a quantized network, against what the network says."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from passes.quantize.quantize_samples import (
    AVX2,
    CHAIN,
    PAD,
    RESIDUAL,
    UNET,
    UNET3,
    VNNI,
    feeds,
    graph_of,
    literal,
    quantized,
    ranges_of,
    snr_db,
    value,
)

from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.base import Compiled
from edgekit.compare import check_meaning
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.isolation import Limits
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.passes.quantize import QuantizePass, Recipe
from edgekit.spec import Array
from edgekit.zoo import MODELS

NETWORKS = {"chain": CHAIN, "U-Net": UNET, "3-D U-Net": UNET3, "residual": RESIDUAL}
RUNTIMES = ("onnxruntime", "openvino", "tvm")
_UNSIGNED = "uint8-where-non-negative"
SHAPES = {
    "denoise2d": {"image": "1x1x64x64"},
    "register3d": {"moving": "1x1x32x32x32", "fixed": "1x1x32x32x32"},
}


def compiled(graph: Graph, backend: str, given: dict[str, Array], target: targets.Target = VNNI) -> Compiled:
    return BACKENDS[backend].compile(graph, target, sample=given, threads=1, limits=Limits(300))


@pytest.mark.parametrize(
    ("name", "activation", "backend"),
    [
        (name, activation, backend)
        for name in NETWORKS
        for activation in ("int8", _UNSIGNED)
        for backend in RUNTIMES
        # TVM compiles for seconds, and takes both kinds of bytes in the same way.
        if backend != "tvm" or (name, activation) in (("U-Net", "int8"), ("3-D U-Net", _UNSIGNED))
    ],
)
def test_every_runtime_means_the_same(name: str, activation: str, backend: str) -> None:
    graph = graph_of(NETWORKS[name])
    here = quantized(graph, Recipe(activation=activation))  # type: ignore[arg-type]
    given = feeds(graph, 4)
    outputs = compiled(here, backend, given).outputs
    assert check_meaning(literal(graph, given), literal(here, given), outputs) == ()
    assert snr_db(literal(here, given), outputs) > 33


@functools.cache
def zoo(name: str) -> tuple[Graph, Graph, dict[str, Array]]:
    """A trained model, the same in bytes, and an input that was not calibrated on."""
    model = MODELS[name]
    loaded = load(model.factory, shapes=SHAPES[name], weights=model.weights).graph
    graph = run_all(default_passes(AVX2), loaded, AVX2).graph
    samples = [_image(graph, seed) for seed in range(5)]
    here = QuantizePass(ranges_of(graph, *samples[:4])).run(graph, AVX2).graph
    return graph, here, samples[4]


def _image(graph: Graph, seed: int) -> dict[str, Array]:
    """Shapes with edges and noise; the second image is the first one, moved."""
    given = feeds(graph, seed)
    first = next(iter(given.values()))
    picture = np.sign(first) + 0.4 * first
    shifts = {name: index for index, name in enumerate(given)}
    return {name: np.roll(picture, shifts[name], axis=-1) for name in given}


@pytest.mark.parametrize("name", SHAPES)
def test_a_trained_network_stays_near(name: str) -> None:
    graph, here, given = zoo(name)
    assert snr_db(literal(graph, given), literal(here, given)) > 25
    assert len(here.to_bytes()) <= 0.30 * len(graph.to_bytes())


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, backend) for name in SHAPES for backend in RUNTIMES if (name, backend) != ("register3d", "tvm")],
)
def test_runtimes_agree_on_trained_networks(name: str, backend: str) -> None:
    _, here, given = zoo(name)
    assert snr_db(literal(here, given), compiled(here, backend, given, AVX2).outputs) >= 40


@pytest.mark.parametrize("backend", RUNTIMES)
def test_artifacts_are_small(backend: str) -> None:
    graph, here, given = zoo("denoise2d")
    plain, small = (compiled(one, backend, given, AVX2).artifact.files for one in (graph, here))
    assert sum(map(len, small.values())) <= 0.30 * sum(map(len, plain.values()))


@pytest.mark.parametrize("name", ["chain", "residual", "3-D U-Net"])
def test_seven_bits_do_not_saturate_without_vnni(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's kernels for AVX2 add two products into 16 bits; its child process takes those."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    graph = graph_of(NETWORKS[name])
    given = feeds(graph, 4)
    here = QuantizePass(ranges_of(graph, given), Recipe(weight_bits=7)).run(graph, AVX2).graph
    assert snr_db(literal(here, given), compiled(here, "openvino", given, AVX2).outputs) > 33


TRANSPOSED = UNET.replace("8, 16, 3, 3] w3", "16, 8, 3, 3] w3").replace("c3 = Conv", "c3 = ConvTranspose")


@pytest.mark.parametrize(
    ("text", "factor", "once"),
    [(UNET, 1.0, {"p", "c"}), (UNET, 20.0, {"p"}), (TRANSPOSED, 1.0, {"p"})],
    ids=["one scale", "two scales", "a transposed convolution reads it"],
)
def test_openvino_rounds_once(text: str, factor: float, once: set[str]) -> None:
    """A pool or concatenation of rounded numbers is rounded, if what it joins has one scale."""
    from edgekit.backends import openvino

    graph = graph_of(text, factors={"w2": factor})
    here = quantized(graph)
    model = here.edit()
    assert openvino._round_once(model) and not openvino._round_once(model)
    left = here.with_model(model, "rounded once")
    assert {one for one in "pc" if "Conv" in {node.op_type for node in value(left, one).consumers()}} == once
    want, got = (literal(one, feeds(graph, 4)) for one in (here, left))
    assert np.array_equal(want["y"], got["y"])


BESIDE = f"""(float[1, 4, 12, 12] x) => (float[1, 4, 12, 12] y)
    <float[8, 4, 3, 3] u, float[8, 8, 3, 3] v, float[8] b, float[8, 8, 3, 3] w, float[8] c,
     float[4, 16, 3, 3] z> {{
    a = Conv <{PAD}> (x, u)  r = Relu (a)  d = Conv <{PAD}> (r, v, b)  e = Conv <{PAD}> (r, w, c)
    p = Relu (d)  q = Relu (e)  s = Concat <axis = 1> (p, q)  y = Conv <{PAD}> (s, z) }}"""


@pytest.mark.parametrize("reads", ["r", "r/rounded"])
def test_a_kept_layer_keeps_its_weights(reads: str) -> None:
    """ONNX Runtime makes bytes of the weights of a layer between rounded values, unless it is stopped."""
    graph = graph_of(BESIDE)
    kept = next(str(node.name) for node in graph.model.graph if node.outputs[0].name == "d")
    here = QuantizePass(ranges_of(graph), Recipe(keep=frozenset([kept]))).run(graph, VNNI).graph
    model = here.edit()
    layer = next(node for node in model.graph if node.name == kept)
    layer.replace_input_with(0, value(here.with_model(model, "edited"), reads))
    other, given = here.with_model(model, "edited"), feeds(graph, 4)
    assert snr_db(literal(other, given), compiled(other, "onnxruntime", given).outputs) > 50


def test_a_network_from_elsewhere_means_the_same() -> None:
    """Signed bytes in a concatenation: read as it is, OpenVINO rounds the numbers to integers."""
    graph = graph_of(UNET)
    given = feeds(graph, 4)
    signed = quantized(graph, Recipe(activation="int8"))
    for backend in ("onnxruntime", "openvino"):
        assert snr_db(literal(signed, given), compiled(signed, backend, given).outputs) > 33
    # So ours have none, and a reader that knows nothing of this is right, too.
    import openvino

    here = quantized(graph)
    core = openvino.Core()
    network = core.compile_model(core.read_model(here.to_bytes()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    plain = dict(zip(["y"], network(given).values(), strict=True))
    assert snr_db(literal(here, given), plain) > 33
