"""Which values become bytes, of what type, and who reads them."""

from __future__ import annotations

import numpy as np
import pytest
from quantize_samples import CHAIN, PAD, RESIDUAL, UNET, UNET3, graph_of, quantized, reads, rounded, type_of

from edgekit.passes.quantize import Recipe

S8, U8 = np.dtype(np.int8), np.dtype(np.uint8)


def test_images_of_layers_are_rounded_and_results_are_not() -> None:
    graph = quantized(graph_of(CHAIN))
    assert rounded(graph) == {"x", "b", "d"}
    assert reads(graph, "a")[:2] == ["x/rounded", "w0/rounded"]
    assert reads(graph, "b") == ["a"]


def test_what_cannot_be_negative_is_unsigned_on_processors() -> None:
    graph = graph_of(CHAIN)
    here, jetson = quantized(graph), quantized(graph, Recipe(activation="int8"))
    assert [type_of(here, name)[::2] for name in ("x", "b", "d")] == [(S8, 0), (U8, 0), (S8, 0)]
    assert [type_of(jetson, name)[::2] for name in ("x", "b", "d")] == [(S8, 0)] * 3
    # Twice the steps for the same range.
    assert type_of(here, "b")[1] == pytest.approx(type_of(jetson, "b")[1] * 127 / 255, rel=0.1)


def test_pools_pass_bytes_on() -> None:
    graph = quantized(graph_of(UNET))
    assert reads(graph, "p") == ["r0/rounded"]
    assert type_of(graph, "p") == type_of(graph, "r0")


@pytest.mark.parametrize("text", [UNET, UNET3], ids=["image", "volume"])
def test_a_concatenation_has_one_scale(text: str) -> None:
    graph = graph_of(text)
    here = quantized(graph, Recipe(method="minmax"))
    assert reads(here, "c") == ["r0/rounded", "u/rounded"]
    kinds = {type_of(here, name) for name in ("r0", "u", "c")}
    assert len(kinds) == 1 and kinds.pop()[::2] == (U8, 128)
    jetson = quantized(graph, Recipe(method="minmax", activation="int8"))
    kinds = {type_of(jetson, name) for name in ("r0", "u", "c")}
    assert len(kinds) == 1 and kinds.pop()[::2] == (S8, 0)


def test_a_bypass_that_would_lose_too_much_keeps_its_scale() -> None:
    here = quantized(graph_of(UNET, factors={"w2": 20}), Recipe(method="minmax"))
    assert type_of(here, "r0")[::2] == type_of(here, "p")[::2] == (U8, 0)
    assert type_of(here, "u") == type_of(here, "c") != type_of(here, "r0")
    assert type_of(here, "c")[2] == 128


def test_a_residual_sum_reads_its_bypass_in_bytes_and_the_layer_as_it_is() -> None:
    graph = quantized(graph_of(RESIDUAL))
    assert reads(graph, "s") == ["c2", "r0/rounded"]
    assert "c2" not in rounded(graph) and "s" not in rounded(graph)


def test_what_leads_to_outputs_only_reads_numbers() -> None:
    graph = quantized(graph_of(RESIDUAL))
    assert reads(graph, "y") == ["x", "n"]


def test_a_kept_layer_has_its_weights_and_reads_numbers() -> None:
    graph = graph_of(CHAIN)
    second = [str(node.name) for node in graph.model.graph][2]
    kept = quantized(graph, Recipe(keep=frozenset([second])))
    assert reads(kept, "c")[:2] == ["b", "w1"]
    assert rounded(kept) == {"x", "d"}


def test_a_scaled_concatenation_counts_as_one() -> None:
    """OpenVINO moves quantization through it, up to the concatenation."""
    text = f"""(float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
        <float k = {{1.5}}, float[4, 2, 3, 3] v, float[4, 2, 3, 3] w, float[2, 8, 3, 3] z> {{
        a = Conv <{PAD}> (x, v)  b = Conv <{PAD}> (x, w)  c = Concat <axis = 1> (a, b)  m = Mul (c, k)
        y = Conv <{PAD}> (m, z) }}"""
    assert type_of(quantized(graph_of(text)), "m")[::2] == (U8, 128)
    assert type_of(quantized(graph_of(text), Recipe(activation="int8")), "m")[::2] == (S8, 0)


NON_NEGATIVE = {
    "Relu": "b = Relu (a)",
    "Sigmoid": "b = Sigmoid (a)",
    "Clip": "b = Clip (a, zero)",
    "a pool of a rectified image": "r = Relu (a)  b = AveragePool <kernel_shape = [1, 1]> (r)",
    "PRelu that turns the sign": "b = PRelu (a, minus)",
    "PRelu of a rectified image": "r = Relu (a)  b = PRelu (r, half)",
    "a sum of two": "r = Relu (a)  s = Sigmoid (a)  b = Add (r, s)",
    "a linear resize": 'r = Relu (a)  b = Resize <mode = "linear"> (r, , ones)',
}
SIGNED = {
    "LeakyRelu": "b = LeakyRelu (a)",
    "PRelu": "b = PRelu (a, half)",
    "Clip below zero": "b = Clip (a, minus)",
    "a sum with something signed": "r = Relu (a)  b = Add (r, a)",
    "a cubic resize, which overshoots": 'r = Relu (a)  b = Resize <mode = "cubic"> (r, , ones)',
}


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [(nodes, U8) for nodes in NON_NEGATIVE.values()] + [(nodes, S8) for nodes in SIGNED.values()],
    ids=[*NON_NEGATIVE, *SIGNED],
)
def test_the_sign_follows_from_the_operators(nodes: str, kind: np.dtype) -> None:
    text = f"""(float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
        <float zero = {{0}}, float minus = {{-1}}, float half = {{0.5}},
         float[4] ones = {{1, 1, 1, 1}}, float[4, 2, 3, 3] v, float[2, 4, 3, 3] w> {{
        a = Conv <{PAD}> (x, v)  {nodes}  y = Conv <{PAD}> (b, w) }}"""
    assert type_of(quantized(graph_of(text)), "b")[0] == kind


def test_a_gate_reads_bytes_that_are_there() -> None:
    """An attention gate: what it weighs is an image of a layer, and its result becomes bytes."""
    text = f"""(float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
        <float[4, 2, 3, 3] u, float[1, 4, 1, 1] v, float[2, 4, 3, 3] w> {{
        a = Conv <{PAD}> (x, u)  r = Relu (a)  p = Conv (r, v)  g = Sigmoid (p)  m = Mul (r, g)
        y = Conv <{PAD}> (m, w) }}"""
    graph = quantized(graph_of(text))
    assert reads(graph, "m") == ["r/rounded", "g"]
    assert rounded(graph) == {"x", "r", "m"}


def test_differences_of_images_read_numbers() -> None:
    """Differences of near-equal numbers want all of float32: a cost volume, say."""
    text = f"""(float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
        <float[4, 2, 3, 3] u, float[4, 4, 3, 3] v, float[2, 4, 3, 3] w> {{
        a = Conv <{PAD}> (x, u)  b = Conv <{PAD}> (a, v)  d = Sub (a, b)  y = Conv <{PAD}> (d, w) }}"""
    assert reads(quantized(graph_of(text)), "d") == ["a", "b"]


def test_a_branch_reads_numbers() -> None:
    text = f"""(float[1, 2, 8, 8] x, bool z) => (float[1, 2, 8, 8] y, float[1, 4, 8, 8] t)
        <float[4, 2, 3, 3] u, float[2, 4, 3, 3] w> {{
        a = Conv <{PAD}> (x, u)  r = Relu (a)  y = Conv <{PAD}> (r, w)
        t = If (z) <then_branch = one () => (float[1, 4, 8, 8] o) {{ o = Neg (r) }},
                    else_branch = two () => (float[1, 4, 8, 8] q) {{ q = Abs (r) }}> }}"""
    graph = quantized(graph_of(text))
    branches = [node for node in graph.model.graph.all_nodes() if node.op_type in ("Neg", "Abs")]
    assert [node.inputs[0].name for node in branches if node.inputs[0]] == ["r", "r"]
