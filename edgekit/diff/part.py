"""The smallest part of a network that diverges by itself, cut out and tried alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgekit.diff.lab import Lab, snr, title
from edgekit.diff.report import Part
from edgekit.errors import CompileError, SpecError, UnsupportedError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.spec import Array


def smallest(
    lab: Lab,
    value: str,
    threshold_db: float,
    *,
    on_event: Callable[[str], None] = lambda event: None,
) -> tuple[Part, Graph, dict[str, Array]]:
    """Cut out what makes a value, and take in what comes before until the divergence shows.

    The part is fed with the reference's values, so that what is wrong is made in it. It begins with the nodes
    between the value and those it is made of, then reaches back one value, two, four …, to the network's
    inputs at last: a backend may compute a node in another way when it stands alone.

    Args:
        lab: The network.
        value: Name of the divergent value.
        threshold_db: Values below it diverge.
        on_event: Called with one line before each compilation.

    Returns:
        The part, its graph and its inputs: one that reproduces the divergence, or the first where none does.
    """
    boundary = _needed(lab, value, lab.sources[value])
    tried: list[tuple[Part, Graph, dict[str, Array]]] = []
    steps = 1
    while True:
        on_event(f"compile the part that makes {value} of {', '.join(boundary)}")
        found = _try(lab, value, boundary, threshold_db)
        if found is not None:
            if found[0].reproduces:
                return found
            tried.append(found)
        if all(name not in lab.sources for name in boundary):
            break
        for _ in range(steps):
            further = [source for name in boundary for source in lab.sources.get(name, [name])]
            boundary = _needed(lab, value, further)
        steps *= 2
    if not tried:
        raise CompileError(
            f"the backend compiles no part of the network that makes {value!r}", where=f"value {value!r}"
        )
    return tried[0]


def _try(
    lab: Lab, value: str, boundary: Sequence[str], threshold_db: float
) -> tuple[Part, Graph, dict[str, Array]] | None:
    right = lab.expected([*boundary, value])
    specs = {spec.name: spec for spec in lab.compiled.inputs}
    inputs = [specs[name] if name in specs and specs[name].is_static else lab.spec(name) for name in boundary]
    graph = values.part(lab.compiled, inputs, [lab.spec(value)])
    feeds = {spec.name: np.ascontiguousarray(right[spec.name], dtype=spec.numpy_dtype) for spec in inputs}
    lab.compilations += 1
    try:
        got = lab.setup.run(graph, feeds)
    except (CompileError, UnsupportedError, SpecError):
        return None
    snr_db = snr(right[value], got[value])
    part = Part(
        tuple(title(node) for node in graph.model.graph),
        tuple(boundary),
        value,
        snr_db,
        not snr_db >= threshold_db,
    )
    return part, graph, feeds


def _needed(lab: Lab, value: str, boundary: Sequence[str]) -> list[str]:
    """Of these values and the network's inputs, those that the value is made of by way of no other one."""
    found, seen, pending = dict[str, None](), set[str](), list(lab.sources[value])
    while pending:
        name = pending.pop(0)
        if name in boundary or name not in lab.sources:
            found[name] = None
        elif name not in seen:
            seen.add(name)
            pending += lab.sources[name]
    return list(found)
