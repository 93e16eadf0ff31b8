"""Inner values of a network as a backend computes them, a few at a time, beside what they should be.

A backend's compiler keeps no inner value that nobody asked for. To see one, the network is compiled again
with the value as a further output. That takes apart what the backend would fuse around it, so few values are
asked for at a time, and whether the network's own outputs still diverge is looked at each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekit import probe
from edgekit.backends.base import Backend, Options
from edgekit.errors import CompileError, UnsupportedError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.graph.values import Size
from edgekit.isolation import Limits
from edgekit.spec import LAYOUTS, Array, TensorSpec
from edgekit.target import Target

_FLOATS = ("float32", "float16", "float64")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Setup:
    """How a network is compiled and fed.

    Attributes:
        backend: What compiles.
        target: What for.
        options: Options of the backend.
        feeds: The network's inputs by name.
        limits: Of each compilation.
        threads: Threads to use; 0 for all.
    """

    backend: Backend
    target: Target
    options: Options
    feeds: Mapping[str, Array]
    limits: Limits
    threads: int = 0

    def run(self, graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a graph that was compiled just now."""
        compiled = self.backend.compile(
            graph,
            self.target,
            sample=feeds,
            options=self.options,
            threads=self.threads,
            limits=self.limits,
        )
        return compiled.outputs


@dataclass(frozen=True)
class Reading:
    """What one compilation showed.

    Attributes:
        snr_db: Signal-to-noise ratio of each value that was asked for, as far as the backend gives them.
        outputs: The same of the network's outputs in this compilation.
    """

    snr_db: dict[str, float]
    outputs: dict[str, float]


@dataclass
class Lab:
    """A network under the lens.

    Attributes:
        reference: The graph whose literal values are right.
        compiled: The graph that the backend compiles. Values of one name are one value in both.
        setup: How.
        values: Names of the values that can be compared, in order.
        sources: For each of them, the values it is made of: such values again, or inputs of the network.
        nodes: For each of them, the nodes that make it of these, the last one first.
        snr_db: What was measured so far.
        compilations: How often the backend compiled.
    """

    reference: Graph
    compiled: Graph
    setup: Setup
    values: list[str] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)
    nodes: dict[str, list[Any]] = field(default_factory=dict)
    snr_db: dict[str, float] = field(default_factory=dict)
    compilations: int = 0

    def __post_init__(self) -> None:
        shapes = {name: array.shape for name, array in self.setup.feeds.items()}
        self.sizes = values.sizes(self.compiled, shapes)
        right = values.sizes(self.reference, shapes)
        network = self.compiled.model.graph
        inputs = {spec.name for spec in self.compiled.inputs}
        depends = set(inputs)
        for node in network:
            if depends & set(_names(node.inputs)):
                depends.update(_names(node.outputs))
        for node in network:
            for name in _names(node.outputs):
                if name in depends and _comparable(self.sizes.get(name), right.get(name)):
                    self.values.append(name)
        known = {*self.values, *inputs}
        producers = {name: node for node in network for name in _names(node.outputs)}
        for name in self.values:
            self.nodes[name], self.sources[name] = _made_of(producers[name], producers, known)

    def ancestors(self, name: str) -> set[str]:
        """All comparable values that a value is made of, itself left out."""
        found: set[str] = set()
        pending = [name]
        while pending:
            new = [s for s in self.sources.get(pending.pop(), ()) if s in self.sources and s not in found]
            found.update(new)
            pending += new
        return found

    def made_of(self, name: str) -> list[str]:
        """An output, or where it is no comparable value (a label map, say) those that it is made of."""
        if name in self.sources:
            return [name]
        network = self.compiled.model.graph
        producers = {made: node for node in network for made in _names(node.outputs)}
        if name not in producers:
            return []
        return [s for s in _made_of(producers[name], producers, {*self.values})[1] if s in self.sources]

    def expected(self, names: Iterable[str]) -> dict[str, Array]:
        """What values should be, literally computed."""
        with probe.opened(self.reference, names, threads=self.setup.threads, alone=True) as opened:
            return opened.run(self.setup.feeds)

    def measure(self, names: Sequence[str]) -> Reading:
        """Compile with these values as further outputs, and compare."""
        outputs = [spec.name for spec in self.compiled.outputs]
        right = self.expected([*dict.fromkeys([*outputs, *names])])
        try:
            got = self._run(names)
        except (CompileError, UnsupportedError):
            if len(names) <= 1:
                return Reading({}, {})
            readings = [self.measure([name]) for name in names]
            found = {name: snr for reading in readings for name, snr in reading.snr_db.items()}
            return Reading(found, next((r.outputs for r in readings if r.outputs), {}))
        reading = Reading(
            {name: snr(right[name], got[name]) for name in names},
            {name: snr(right[name], got[name]) for name in outputs},
        )
        self.snr_db.update(reading.snr_db)
        return reading

    def _run(self, names: Sequence[str]) -> dict[str, Array]:
        self.compilations += 1
        return self.setup.run(self.marked(names), self.setup.feeds)

    def marked(self, names: Sequence[str]) -> Graph:
        """The compiled graph with inner values as further outputs, their contracts too."""
        made = {spec.name for spec in self.compiled.outputs}
        new = [name for name in names if name not in made]
        if not new:
            return self.compiled
        marked = values.with_outputs(self.compiled, new)
        return replace(marked, outputs=(*self.compiled.outputs, *map(self.spec, new)))

    def spec(self, name: str) -> TensorSpec:
        """The contract of a value: its type and shape."""
        size = self.sizes[name]
        return TensorSpec(name, size.dtype, size.shape, LAYOUTS.get(len(size.shape), ""))

    def title(self, name: str) -> str:
        """``Conv name``: the node that makes a value."""
        return title(self.nodes[name][0])


def title(node: Any) -> str:
    """``Conv name``."""
    return f"{node.op_type} {node.name}".strip()


def snr(right: Array, got: Array) -> float:
    """Signal-to-noise ratio in dB; infinite where they agree, minus infinity where one is not finite."""
    if right.shape != got.shape:
        return -math.inf
    signal = noise = 0.0
    one, other = right.reshape(-1), got.reshape(-1)
    for start in range(0, one.size, _CHUNK):
        a = one[start : start + _CHUNK].astype(np.float64)
        b = other[start : start + _CHUNK].astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
            return -math.inf
        noise += float(np.square(a[~same] - b[~same]).sum())
        signal += float(np.square(a[np.isfinite(a)]).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _comparable(here: Size | None, there: Size | None) -> bool:
    """Whether two values of one name are of floating point and have one shape."""
    if here is None or there is None or here.shape != there.shape or 0 in here.shape:
        return False
    return here.dtype in _FLOATS and there.dtype in _FLOATS


def _made_of(node: Any, producers: Mapping[str, Any], known: set[str]) -> tuple[list[Any], list[str]]:
    """The nodes that make a value of known ones, the last first, and these."""
    nodes, sources, pending = [node], dict[str, None](), [node]
    while pending:
        for name in _names(pending.pop(0).inputs):
            if name in known:
                sources[name] = None
            elif name in producers and producers[name] not in nodes:
                nodes.append(producers[name])
                pending.append(producers[name])
    return nodes, list(sources)


def _names(found: Iterable[Any]) -> list[str]:
    return [str(value.name) for value in found if value is not None and value.name]
