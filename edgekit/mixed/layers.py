"""What an assignment did to each group of layers, for the report: precision, range, saturation, noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from edgekit import probe
from edgekit.graph import groups as grouping
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.mixed.assignment import SINGLE, Assignment, Choice
from edgekit.mixed.sensitivity import LITERAL, decibels, noise_share
from edgekit.passes.ranges import Ranges
from edgekit.reports import LayerReport
from edgekit.spec import Array

# Values that are kept at once while they are compared, of each of the two networks.
_MOST_BYTES = 256 << 20


def layer_reports(
    graph: Graph,
    assignment: Assignment,
    ranges: Ranges,
    samples: Sequence[Mapping[str, Array]],
    *,
    threads: int = 0,
) -> tuple[LayerReport, ...]:
    """One row for each group, in order.

    Args:
        graph: The float32 network.
        assignment: From :func:`edgekit.mixed.fastest.search`.
        ranges: Of the network's values on the calibration data.
        samples: A few inputs of the network, on which both networks are computed literally.
        threads: Threads to use; 0 for all.

    Raises:
        SessionError: A network cannot be computed.
    """
    outputs = {one.group: _output(graph, one) for one in assignment.choices}
    noise = {}
    if {one.precision for one in assignment.choices} <= {SINGLE, *LITERAL} and not assignment.reason:
        noise = _noise(graph, assignment.graph, list(outputs.values()), samples, threads)
    held = grouping.held(assignment.graph)
    operators = {str(node.name): node.op_type for node in graph.model.graph}
    rows = []
    for one in assignment.choices:
        name = outputs[one.group]
        known = ranges.tensors.get(name)
        share = math.nan
        if known is not None and name in held:
            share = known.clipped_share(held[name])
        rows.append(
            LayerReport(
                name=one.group,
                operator=operators[one.nodes[0]],
                precision=one.precision,
                minimum=known.minimum if known else math.nan,
                maximum=known.maximum if known else math.nan,
                saturation=share,
                snr_db=decibels(noise.get(name, math.nan)),
                reason=one.why,
            )
        )
    return tuple(rows)


def _output(graph: Graph, choice: Choice) -> str:
    """The value that a group makes for others; the first one, where there are several."""
    return grouping.borders(graph, choice.nodes)[1][0]


def _noise(
    graph: Graph, other: Graph, names: Sequence[str], samples: Sequence[Mapping[str, Array]], threads: int
) -> dict[str, float]:
    """The noise of each value in the other network, as a share of the signal's power."""
    found = {}
    sizes = values.sizes(graph, {name: array.shape for name, array in samples[0].items()})
    for some in _batches(names, {name: size.nbytes for name, size in sizes.items()}, len(samples)):
        runs = []
        for one in (graph, other):
            with probe.opened(one, some, threads=threads, alone=True) as opened:
                runs.append([opened.run(feeds) for feeds in samples])
        for name in some:
            wanted, got = ([{name: sample[name]} for sample in run] for run in runs)
            found[name] = noise_share(wanted, got)
    return found


def _batches(names: Sequence[str], nbytes: Mapping[str, int], count: int) -> Iterator[list[str]]:
    """Names in order, as many at once as fit."""
    batch: list[str] = []
    for name in dict.fromkeys(names):
        if batch and sum(nbytes.get(one, 0) for one in [*batch, name]) * count > _MOST_BYTES:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch
