"""Small networks with drawn weights, their ranges, and what stands around their layers once quantized."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from edgekit import probe
from edgekit import target as targets
from edgekit.compare import compare
from edgekit.graph.graph import Graph
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import build_graph, examine
from edgekit.passes.quantize import QuantizePass, Recipe
from edgekit.passes.quantize.layers import constant
from edgekit.passes.ranges import Observer, Ranges
from edgekit.spec import Array

VNNI = targets.find("x86-avx512")
AVX2 = targets.find("x86-avx2")
JETSON = targets.find("jetson-orin-nano-8gb")

PAD, PAD3 = "pads = [1, 1, 1, 1]", "pads = [1, 1, 1, 1, 1, 1]"

# Decoders as U-Nets have them: what goes up is signed, what comes across is not.
UNET = f"""(float[1, 1, 16, 16] x) => (float[1, 2, 16, 16] y)
    <float[8, 1, 3, 3] w0, float[8] b0, float[16, 8, 3, 3] w1, float[16] b1, float[16, 8, 2, 2] w2,
     float[8] b2, float[8, 16, 3, 3] w3, float[8] b3, float[2, 8, 1, 1] w4, float[2] b4> {{
    c0 = Conv <{PAD}> (x, w0, b0)  r0 = Relu (c0)  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r0)
    c1 = Conv <{PAD}> (p, w1, b1)  r1 = Relu (c1)  u = ConvTranspose <strides = [2, 2]> (r1, w2, b2)
    c = Concat <axis = 1> (r0, u)  c3 = Conv <{PAD}> (c, w3, b3)  r3 = Relu (c3)  y = Conv (r3, w4, b4) }}"""
UNET3 = (
    UNET.replace("16, 16] x", "8, 8, 8] x")
    .replace("2, 16, 16] y", "2, 8, 8, 8] y")
    .replace("3, 3]", "3, 3, 3]")
    .replace("2, 2] w2", "2, 2, 2] w2")
    .replace("1, 1] w4", "1, 1, 1] w4")
    .replace(PAD, PAD3)
    .replace("[2, 2]", "[2, 2, 2]")
)
RESIDUAL = f"""(float[1, 4, 12, 12] x) => (float[1, 4, 12, 12] y)
    <float[8, 4, 3, 3] w0, float[8, 8, 3, 3] w1, float[8] b1, float[8, 8, 3, 3] w2, float[8] b2,
     float[4, 8, 3, 3] w3> {{
    c0 = Conv <{PAD}> (x, w0)  r0 = Relu (c0)  c1 = Conv <{PAD}> (r0, w1, b1)  r1 = Relu (c1)
    c2 = Conv <{PAD}> (r1, w2, b2)  s = Add (c2, r0)  r2 = Relu (s)  n = Conv <{PAD}> (r2, w3)
    y = Sub (x, n) }}"""
CHAIN = f"""(float[1, 3, 8, 8] x) => (float[1, 2, 8, 8] y)
    <float[6, 3, 3, 3] w0, float[6] b0, float[4, 6, 3, 3] w1, float[4] b1, float[2, 4, 3, 3] w2> {{
    a = Conv <{PAD}> (x, w0, b0)  b = Relu (a)  c = Conv <{PAD}> (b, w1, b1)  d = LeakyRelu (c)
    y = Conv <{PAD}> (d, w2) }}"""


def graph_of(text: str, *, opset: int = 20, seed: int = 0, factors: Mapping[str, float] = {}) -> Graph:
    """A model in ONNX's text form; weights without values are drawn so that layers keep the size of numbers.

    Those that ``factors`` names are multiplied by that.
    """
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> net {text}')
    rng = np.random.default_rng(seed)
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        drawn = rng.standard_normal(shape) * (0.3 if len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5)
        drawn *= factors.get(value.name, 1.0)
        model.graph.initializer.append(numpy_helper.from_array(drawn.astype(np.float32), value.name))
    del model.graph.value_info[:]
    found = examine(onnx.ModelProto.FromString(model.SerializeToString()), None, None, IntakeLimits(), "test")  # type: ignore[arg-type]
    return build_graph(model, found, "test")


def feeds(graph: Graph, seed: int = 1) -> dict[str, Array]:
    """Smooth images with a little noise, for each input."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for spec in graph.inputs:
        shape = spec.smallest_shape
        if spec.dtype == "bool":
            found[spec.name] = np.ones(shape, bool)
            continue
        axes = np.meshgrid(*(np.linspace(0, 3, length) for length in shape), indexing="ij")
        wave = sum(np.sin(rng.uniform(1, 3) * axis + rng.uniform(0, 6)) for axis in axes)
        found[spec.name] = (wave + 0.1 * rng.standard_normal(shape)).astype(spec.dtype)
    return found


def literal(graph: Graph, given: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs as ONNX defines them."""
    with probe.opened(graph, threads=1) as network:
        return network.run(given)


def ranges_of(graph: Graph, *given: Mapping[str, Array]) -> Ranges:
    """Ranges of all float32 values over some inputs, drawn ones where none are given."""
    from edgekit.calibration import activations

    observers = {name: Observer(name) for name in activations(graph)}
    with probe.opened(graph, observers, threads=1) as network:
        for one in given or (feeds(graph, 1), feeds(graph, 2)):
            for name, array in network.run(one).items():
                if name in observers:
                    observers[name].add(array)
    return Ranges.of([observer.range() for observer in observers.values()])


def quantized(graph: Graph, recipe: Recipe = Recipe(), target: targets.Target = VNNI) -> Graph:
    """The graph in bytes, by the ranges of drawn inputs."""
    return QuantizePass(ranges_of(graph), recipe).run(graph, target).graph


def snr_db(want: Mapping[str, Array], got: Mapping[str, Array]) -> float:
    """The worst output's."""
    return compare(want, got, reference="want", inputs="test").worst_snr_db


def value(graph: Graph, name: str) -> ir.Value:
    """A value by its name."""
    network = graph.model.graph
    made = [one for node in network for one in node.outputs]
    return next(one for one in (*network.inputs, *made) if one.name == name)


def type_of(graph: Graph, name: str) -> tuple[np.dtype, float, int]:
    """How a value is rounded: type of its bytes, scale, zero point."""
    rounding = next(n for n in value(graph, name).consumers() if n.op_type == "QuantizeLinear")
    scale, zero = (constant(one) for one in rounding.inputs[1:])
    assert scale is not None and zero is not None
    return zero.dtype, float(scale), int(zero)


def rounded(graph: Graph) -> set[str]:
    """Names of the values that are rounded."""
    nodes = graph.model.graph
    return {str(node.inputs[0].name) for node in nodes if node.op_type == "QuantizeLinear"}  # type: ignore[union-attr]


def reads(graph: Graph, output: str) -> list[str]:
    """Names of what the node that makes a value reads."""
    node = value(graph, output).producer()
    assert node is not None
    return [str(one.name) for one in node.inputs if one is not None]
