"""A network in several precisions: which groups of its nodes have which, and the parts that are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edgekit.errors import GraphError
from edgekit.graph import groups as grouping
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.graph.values import Size
from edgekit.mixed.assignment import SINGLE
from edgekit.spec import LAYOUTS, Array, TensorSpec

# The graph with these groups in a smaller precision: precision by name of the group, float32 left out.
Build = Callable[[Mapping[str, str]], Graph]
# The graph in a smaller precision, nodes of these names excepted.
Lower = Callable[[Graph, frozenset[str]], Graph]

# Precisions whose values are kept between layers in a type that backends take as an input, too.
_STORED = frozenset(("int8",))


class Group(Protocol):
    """Nodes that share a precision: a layer and what is computed with it."""

    @property
    def name(self) -> str:
        """Its layer's."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of its nodes, the layer first."""


def builder(graph: Graph, groups: Sequence[Group], lower: Mapping[str, Lower]) -> Build:
    """How to make a graph of several precisions.

    Args:
        graph: The float32 network.
        groups: Its groups.
        lower: By precision, what makes it of all nodes but those that are named. They are called in this
            order, each on the graph that the one before made, where a group wants it.
    """

    def build(precisions: Mapping[str, str]) -> Graph:
        made = graph
        for precision, make in lower.items():
            others = [group for group in groups if precisions.get(group.name, SINGLE) != precision]
            if len(others) < len(groups):
                made = make(made, frozenset(node for group in others for node in group.nodes))
        return made

    return build


def alone(precision: str) -> str:
    """What the form of a group is called whose neighbours are float32."""
    return f"{precision} alone"


class Parts:
    """Groups cut out of a network, in every form that has to be timed.

    In float32; in each precision where all neighbours have it, too (between quantized groups bytes are handed
    on, and nothing is rounded twice); and in each where they are float32.
    """

    def __init__(
        self,
        graph: Graph,
        groups: Sequence[Group],
        build: Build,
        precisions: Sequence[str],
        sample: Mapping[str, Array],
    ) -> None:
        self._graph, self._groups, self._build = graph, groups, build
        self._precisions = precisions
        self._lengths = {name: array.shape for name, array in sample.items()}
        self._sizes = values.sizes(graph, self._lengths)

    def forms(self) -> tuple[dict[str, dict[str, Graph]], dict[str, str]]:
        """By group the graphs of its forms, float32 first; and why some groups cannot be cut out."""
        stored = {
            precision: self._build({group.name: precision for group in self._groups})
            for precision in self._precisions
            if precision in _STORED
        }
        sizes = {precision: values.sizes(graph, self._lengths) for precision, graph in stored.items()}
        found: dict[str, dict[str, Graph]] = {}
        failures: dict[str, str] = {}
        for group in self._groups:
            try:
                forms = {SINGLE: self._part(self._graph, group, self._sizes)}
                for precision in self._precisions:
                    by_itself = self._part(self._build({group.name: precision}), group, self._sizes)
                    if precision in stored:
                        whole = self._part(stored[precision], group, sizes[precision], stored=True)
                        forms |= {precision: whole, alone(precision): by_itself}
                    else:
                        forms[precision] = by_itself
            except GraphError as error:
                failures[group.name] = error.message
                continue
            found[group.name] = forms
        return found, failures

    def _part(self, graph: Graph, group: Group, sizes: Mapping[str, Size], *, stored: bool = False) -> Graph:
        there = {str(node.name) for node in graph.model.graph}
        inputs, outputs = grouping.borders(
            graph, [name for name in group.nodes if name in there], stored=stored
        )
        if not {*inputs, *outputs} <= sizes.keys():
            sizes = values.sizes(graph, self._lengths)  # Casts made new values
        return values.part(
            graph, [_spec(name, sizes) for name in inputs], [_spec(name, sizes) for name in outputs]
        )


def _spec(name: str, sizes: Mapping[str, Size]) -> TensorSpec:
    size = sizes.get(name)
    if size is None or not size.dtype:
        raise GraphError("the type or the shape of a value cannot be told", where=f"value {name!r}")
    return TensorSpec(name, size.dtype, size.shape, LAYOUTS.get(len(size.shape), ""))
