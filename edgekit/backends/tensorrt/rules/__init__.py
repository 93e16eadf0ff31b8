"""Rules of what TensorRT builds, as data, and what they say of a network. Nothing here needs TensorRT.

To add a rule, add one entry to a table: ``operators.py``, ``quantized.py``, or ``dla.py``. A new operator of
ONNX goes into :data:`edgekit.hosts.tensorrt_parser.OPERATORS` with the version that brought it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.backends.tensorrt.rules import dla as accelerator
from edgekit.backends.tensorrt.rules.operators import (
    GENERAL,
    MISSING,
    NORMALIZATIONS,
    OTHERS,
    SAMPLING,
    WINDOWS,
)
from edgekit.backends.tensorrt.rules.quantized import QUANTIZED
from edgekit.backends.tensorrt.rules.rule import EVERY, SOURCES, Finding, Rule, Severity
from edgekit.backends.tensorrt.rules.site import Site
from edgekit.graph import opset, values
from edgekit.graph.graph import Graph
from edgekit.hosts import tensorrt_parser
from edgekit.hosts.tensorrt_parser import Version

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DLA_RULES", "RULES", "SOURCES", "Finding", "Place", "Rule", "Severity", "places", "verdict"]

OPSET = Rule(
    "opset.newest",
    EVERY,
    "the operator set is newer than the parser's",
    "table",
    rewrite="a model of an older operator set",
    rewrite_pass="lower_opset",
)
RULES = (*MISSING, *GENERAL, *NORMALIZATIONS, *SAMPLING, *WINDOWS, *OTHERS, *QUANTIZED)
DLA_RULES = accelerator.DLA

# So many parts of networks one accelerator has loaded at once. Source: "dla page" of SOURCES.
MOST_DLA_PARTS = 16


def verdict(graph: Graph, version: str, *, dla: bool = False) -> tuple[Finding, ...]:
    """What of a network TensorRT does not build, or not as it stands.

    Types, and pairs of QuantizeLinear and DequantizeLinear, are those of the graph: a network in float16 or
    int8 is judged as such.

    Args:
        graph: The network, before or after passes.
        version: TensorRT's version, such as ``"10.3"``.
        dla: Also say what does not run on the deep-learning accelerator.

    Returns:
        Findings on the whole network, then on nodes in order.

    Raises:
        UsageError: The version cannot be read, or is before 8.5.
        GraphError: A node does not fit its inputs.
    """
    number = tensorrt_parser.parse(version)
    without = _without_dla(graph, number) if dla else ()
    on_dla = dla and not without
    model = _typed(graph)
    broken = list(_broken(graph, model, number, RULES + (DLA_RULES if on_dla else ())))
    newer = _opset(graph) > tensorrt_parser.operator_sets(number).newest
    many = on_dla and dla_parts(_placed(model, broken, dla=True)) > MOST_DLA_PARTS
    whole = (*((OPSET,) if newer else ()), *without, *((accelerator.LOADABLES,) if many else ()))
    return (
        *(Finding.of(rule, "") for rule in whole),
        *(Finding.of(rule, _name(node)) for node, rule in broken),
    )


@dataclass(frozen=True)
class Place:
    """Where a node runs: ``"GPU"``, ``"DLA"``, ``"plug-in"`` or, if it is refused, ``"nowhere"``."""

    node: str
    where: str


def places(graph: Graph, version: str, *, dla: bool = False) -> tuple[Place, ...]:
    """Where each node of the main graph runs, in order; those that become no layer are left out.

    Raises:
        UsageError: As :func:`verdict`.
    """
    number = tensorrt_parser.parse(version)
    on_dla = dla and not _without_dla(graph, number)
    model = _typed(graph)
    rules = RULES + (DLA_RULES if on_dla else ())
    return _placed(model, list(_broken(graph, model, number, rules)), dla=on_dla)


def _placed(model: ir.Model, broken: list[tuple[ir.Node, Rule]], *, dla: bool) -> tuple[Place, ...]:
    kept_off = {node for node, rule in broken if rule in DLA_RULES}
    refused = {node for node, rule in broken if rule.severity == "refused"}
    found = []
    for node in model.graph:
        if node.op_type in accelerator.FREE:
            continue
        where = "DLA" if dla and node not in kept_off else "GPU"
        if node.domain == opset.DOMAIN:
            where = "plug-in"
        found.append(Place(_name(node), "nowhere" if node in refused else where))
    return tuple(found)


def dla_parts(found: tuple[Place, ...]) -> int:
    """How many stretches of nodes run on the accelerator, each between others that do not."""
    before = ("", *(place.where for place in found))
    return sum(1 for last, place in zip(before, found, strict=False) if place.where == "DLA" != last)


def _without_dla(graph: Graph, version: Version) -> tuple[Rule, ...]:
    """Why the accelerator takes no part at all."""
    release = accelerator.RELEASE
    released = version < tensorrt_parser.parse(release.since) or version >= tensorrt_parser.parse(
        release.until
    )
    return (*(() if released else (release,)), *(() if graph.is_static else (accelerator.STATIC,)))


def _typed(graph: Graph) -> ir.Model:
    """A copy of the network that says of every value what type it has."""
    from onnx_ir.passes import common

    opset.register()
    model = graph.edit()
    common.ShapeInferencePass()(model)
    return model


def _broken(
    graph: Graph, model: ir.Model, version: Version, rules: tuple[Rule, ...]
) -> Iterator[tuple[ir.Node, Rule]]:
    """Every node of the typed copy with every rule that it breaks."""
    own, sizes = _opset(graph), values.sizes(graph)
    for node in model.graph.all_nodes():
        site = Site(node, version, own, sizes)
        for rule in rules:
            ours = node.domain in ("", "ai.onnx") or rule.operators == EVERY
            if ours and rule.holds(site):
                yield node, rule


def _opset(graph: Graph) -> int:
    imports = graph.model.opset_imports
    return imports.get("") or imports.get("ai.onnx") or 0


def _name(node: ir.Node) -> str:
    return f"{node.op_type} {node.name}" if node.name else node.op_type
