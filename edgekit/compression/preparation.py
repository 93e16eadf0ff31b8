"""A float32 network made ready for smaller precisions: scaled, calibrated, its range method chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice

import numpy as np

from edgekit import calibration, probe, runtime
from edgekit.dataset import Dataset
from edgekit.graph.graph import Graph
from edgekit.graph.groups import borders
from edgekit.mixed import Assignment, Choice, builder, decibels, layer_reports, noise_of
from edgekit.mixed.sensitivity import noise_share
from edgekit.passes.equalize import EqualizePass
from edgekit.passes.half import HalfPass
from edgekit.passes.quantize import LayerGroup, QuantizePass, Recipe, choose_method, groups
from edgekit.passes.ranges import Ranges
from edgekit.reports import LayerReport
from edgekit.spec import Array
from edgekit.target import Target

# Precisions that a network can have besides float32, the smallest first.
SMALLER = ("int8", "float16", "bfloat16")
# Samples that range methods and layers are compared on; each is a run of the literal network.
_FEW = 4
# Ways to quantize that labelled cases are asked about; each is a run of the literal network on all of them.
_MOST_TRIED = 4

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Preparation:
    """A network and all that is needed to lower its precision.

    Attributes:
        graph: The same function as the float32 network, with scales that suit bytes.
        ranges: Of its values.
        recipe: How it is quantized.
        samples: A few inputs of the network (what the steps before it make).
        device: The target.
        threads: Threads to use; 0 for all.
        snr_db: Signal-to-noise ratio of the results with all groups in bytes, in decibels.
    """

    graph: Graph
    ranges: Ranges
    recipe: Recipe
    samples: tuple[Feeds, ...]
    device: Target
    threads: int
    snr_db: float

    @cached_property
    def groups(self) -> tuple[LayerGroup, ...]:
        """The units in which precision is chosen."""
        return groups(self.graph)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those of the target besides float32, the smallest first."""
        return tuple(name for name in SMALLER if name in self.device.precisions)

    @cached_property
    def estimates(self) -> dict[str, float]:
        """What each group is expected to add to the noise in bytes; see :func:`edgekit.mixed.noise_of`."""
        found = {}
        for group in self.groups:
            read = borders(self.graph, group.nodes)[0]
            found[group.name] = noise_of([self.ranges[name] for name in read if name in self.ranges])
        return found

    def lower(self, precisions: Mapping[str, str]) -> Graph:
        """The network with some groups in smaller precisions, by name of the group."""
        return self._build(precisions)

    @cached_property
    def _build(self) -> Callable[[Mapping[str, str]], Graph]:
        return builder(self.graph, self.groups, {name: partial(self._lowered, name) for name in SMALLER})

    def _lowered(self, precision: str, graph: Graph, keep: frozenset[str]) -> Graph:
        if precision == "int8":
            one = QuantizePass(self.ranges, replace(self.recipe, keep=keep))
            return one.run(graph, self.device).graph
        return HalfPass(precision, self.ranges, keep).run(graph, self.device).graph

    def layers(self, found: Assignment) -> tuple[LayerReport, ...]:
        """What became of each group in a network that was made of this one."""
        return layer_reports(self.graph, found, self.ranges, self.samples[:1], threads=self.threads)

    def everywhere(self, precision: str) -> Assignment:
        """All groups in one precision, without asking whether that is faster."""
        choices = tuple(Choice(group.name, group.nodes, precision) for group in self.groups)
        graph = self.lower({group.name: precision for group in self.groups})
        return Assignment("", graph, choices, np.nan, np.nan, self.snr_db)


def prepare(
    graph: Graph,
    data: Dataset,
    device: Target,
    *,
    memory_bytes: int,
    time_limit_s: float,
    threads: int,
    on_event: Callable[[str], None],
    keeps: Callable[[Graph], bool] | None = None,
) -> Preparation:
    """Scale, calibrate, and choose how far types reach.

    What gives the least noise of the results is best; where labelled cases can be asked, the best that keeps
    what is wanted of them with all layers in bytes. A range that clips the few bright voxels of a small
    structure gives little noise, and loses the structure.

    Args:
        graph: The float32 network.
        data: The calibration data.
        device: The target.
        memory_bytes: Cap on the memory of calibration.
        time_limit_s: Cap on the time of each calibration.
        threads: Threads to use; 0 for all.
        on_event: Called with one line at the beginning of each phase.
        keeps: Whether a quantized network keeps what is wanted.

    Raises:
        EdgekitError: As :func:`edgekit.calibration.calibrate`; PassError where nothing can be quantized.
    """
    samples = tuple(_network_feeds(graph, sample.feeds) for sample in islice(data, _FEW))
    with probe.opened(graph, threads=threads) as run:
        wanted = [run.run(feeds) for feeds in samples]

    def score(quantized: Graph) -> float:
        with probe.opened(quantized, threads=threads) as made:
            return decibels(noise_share(wanted, [made.run(feeds) for feeds in samples]))

    found: list[Preparation] = []
    equalized = EqualizePass().run(graph, device)
    for candidate in (graph, equalized.graph) if equalized.changed else (graph,):
        ranges = calibration.calibrate(
            candidate,
            data,
            memory_limit_bytes=memory_bytes,
            time_limit_s=time_limit_s,
            threads=threads,
            on_event=on_event,
        )
        on_event("choose how far the types reach")
        best, scores = choose_method(candidate, ranges, device, Recipe.for_target(device), score)
        for method, snr_db in scores.items():
            recipe = replace(best, method=method)
            found.append(Preparation(candidate, ranges, recipe, samples, device, threads, snr_db))
    found.sort(key=lambda one: (np.isnan(one.snr_db), -one.snr_db))
    return _first_that(keeps, found, on_event) if keeps is not None else found[0]


def _first_that(
    keeps: Callable[[Graph], bool], found: Sequence[Preparation], on_event: Callable[[str], None]
) -> Preparation:
    """The best preparation whose network keeps what is wanted in bytes; the best of all where none does."""
    different: dict[str, Preparation] = {}
    for one in found:
        different.setdefault(one.everywhere("int8").graph.digest(), one)
    for number, one in enumerate(islice(different.values(), _MOST_TRIED), 1):
        on_event(f"look at the cases in int8, {number} of up to {min(len(different), _MOST_TRIED)} ways")
        if keeps(one.everywhere("int8").graph):
            return one
    return found[0]


def _network_feeds(graph: Graph, given: Feeds) -> dict[str, Array]:
    """What the steps before the network make of a caller's inputs."""
    tensors = runtime.run_steps(graph.before, given)
    return {spec.name: tensors[spec.name] for spec in graph.inputs}
