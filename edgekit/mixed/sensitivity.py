"""How much each group of layers harms the results when it alone has a smaller precision.

Alone, and not all groups but one: errors are small then, so that they add up; a group that ruins everything
is seen as such; and nothing is the small difference of two large numbers, the noise of all the others.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from edgekit import probe
from edgekit.graph import groups as grouping
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.mixed.forms import Build
from edgekit.passes.ranges import BINS, TensorRange
from edgekit.spec import Array

# What a set of groups does to the results when it has the smaller precision: noise in shares of the signal's
# power, or loss of the task's metric. Not finite where the results are useless.
Measure = Callable[[frozenset[str]], float]
# The outputs of a network for all samples.
Outputs = Callable[[Graph], list[dict[str, Array]]]
# Precisions that the runtime behind :mod:`edgekit.probe` computes.
LITERAL = frozenset(("int8", "float16"))


def harms(measure: Measure, estimates: Mapping[str, float], most: int) -> dict[str, float]:
    """The harm of each group, from at most ``most`` measurements, two at least.

    Where there are not more groups, each is measured alone. Otherwise sets of them are, and the set that does
    most harm is split again and again; the harm of a set that stays whole is spread over it as the estimates
    say. Sets are split in the order of the estimates, so that groups that do much harm come apart first.

    Args:
        measure: Asked for a set of groups.
        estimates: What each would do, in any unit; see :func:`noise_of`.
        most: How often to ask.
    """
    names = sorted(estimates, key=lambda name: (-estimates[name], name))
    if len(names) <= most:
        return {name: measure(frozenset((name,))) for name in names}
    asked = 1
    # A heap gives the smallest, so harm is negative; the number only breaks ties.
    sets = [(-measure(frozenset(names)), 0, names)]
    whole: list[tuple[float, int, list[str]]] = []
    while sets and asked + 2 <= most:
        harm, _, members = heapq.heappop(sets)
        if len(members) == 1:
            whole.append((harm, 0, members))
            continue
        middle = _middle([estimates[name] for name in members])
        for part in (members[:middle], members[middle:]):
            asked += 1
            heapq.heappush(sets, (-measure(frozenset(part)), asked, part))
    found: dict[str, float] = {}
    for harm, _, members in (*whole, *sets):
        total = sum(estimates[name] for name in members)
        for name in members:
            share = estimates[name] / total if total > 0 else 1 / len(members)
            found[name] = -harm * share if math.isfinite(harm) else -harm
    return {name: found[name] for name in estimates}


def _middle(estimates: Sequence[float]) -> int:
    """Where to split a descending list, so that both parts have about the same sum and none is empty."""
    sums = np.cumsum(estimates)
    return int(np.clip(np.searchsorted(sums, sums[-1] / 2) + 1, 1, len(estimates) - 1))


def noise_of(ranges: Sequence[TensorRange], bits: int = 8) -> float:
    """An estimate of a group's harm: the noise of rounding what it reads, as a share of the signal's power.

    That of a uniform quantizer, a twelfth of its step squared, over the mean square of the histogram.

    Args:
        ranges: Of the values that the group reads.
        bits: Of the type.
    """
    shares = [0.0]
    for one in ranges:
        step = one.largest / ((1 << (bits - 1)) - 1)
        middles = (np.arange(BINS) + 0.5) * (one.limit / BINS)
        power = float(np.dot(one.counts, np.square(middles))) / max(1, one.count)
        shares.append(step * step / 12 / power if power > 0 else 0.0)
    return max(shares)


def noise_share(wanted: Sequence[Mapping[str, Array]], got: Sequence[Mapping[str, Array]]) -> float:
    """Noise over signal, in power, over all samples: of the worst output; infinite where one is not finite.

    Args:
        wanted: Outputs by name, for each sample.
        got: The same of another network.
    """
    worst = 0.0
    for name in wanted[0]:
        noise = signal = 0.0
        for one, other in zip(wanted, got, strict=True):
            a, b = one[name].astype(np.float64), other[name].astype(np.float64)
            if not np.isfinite(b).all():
                return math.inf
            noise += float(np.square(a - b).sum())
            signal += float(np.square(a).sum())
        share = noise / signal if signal > 0 else (0.0 if noise == 0 else math.inf)
        worst = max(worst, share)
    return worst


def decibels(share: float) -> float:
    """A signal-to-noise ratio from the share of noise in the signal's power."""
    if math.isnan(share):
        return math.nan
    if share == math.inf:
        return -math.inf
    return math.inf if share <= 0 else -10 * math.log10(share)


class Sensitivity:
    """What groups do to a network's results, on a few samples; asked by the searches of several backends.

    Where it can be, a smaller precision is computed literally, as ONNX says (see :mod:`edgekit.probe`): it is
    a matter of the numbers, not of the backend. Of labels the values count that they are made of.
    """

    def __init__(
        self,
        graph: Graph,
        build: Build,
        samples: Sequence[Mapping[str, Array]],
        *,
        estimates: Mapping[str, float] | None = None,
        most: int = 48,
        threads: int = 0,
        loss: Callable[[Graph], float] | None = None,
    ) -> None:
        """Choose how to measure; nothing runs before :meth:`harms` is called.

        Args:
            graph: The float32 network.
            build: Makes the others; see :func:`edgekit.mixed.forms.builder`.
            samples: A few inputs of the network (what the steps before it make), at least one.
            estimates: What each group is expected to do, in any unit, where there are more groups than may be
                measured; see :func:`noise_of`.
            most: How often to run the samples at most, for each precision.
            threads: Threads to use; 0 for all.
            loss: The task metric's loss of a network, instead of noise.
        """
        self._graph, self._build, self._samples = graph, build, samples
        self._estimates, self._most, self._threads = estimates or {}, most, threads
        self._loss = loss
        self._wanted: dict[str, list[dict[str, Array]]] = {}
        self._known: dict[tuple[str, str], float] = {}

    def harms(
        self, groups: Sequence[str], precision: str, compiled: Outputs | None = None
    ) -> dict[str, float]:
        """What each group would add to the noise, in shares of the signal's power, or to the loss.

        Args:
            groups: Their names.
            precision: The smaller one.
            compiled: Outputs of a graph for all samples, where the precision is not one of :data:`LITERAL`.

        Raises:
            EdgekitError: A network cannot be computed.
        """
        new = {
            name: self._estimates.get(name, 1.0) for name in groups if (precision, name) not in self._known
        }
        if new:
            measure = partial(self._measure, precision, compiled or self._literally)
            measured = harms(measure, new, self._most)
            self._known.update({(precision, name): harm for name, harm in measured.items()})
        return {name: self._known[precision, name] for name in groups}

    def in_decibels(self, harm: float) -> float:
        """The signal-to-noise ratio that a harm stands for; NaN where it is a loss."""
        return math.nan if self._loss else decibels(harm)

    def _measure(self, precision: str, outputs: Outputs, groups: frozenset[str]) -> float:
        made = self._build(dict.fromkeys(groups, precision))
        if self._loss is not None:
            return self._loss(made)
        if precision not in self._wanted:
            self._wanted[precision] = outputs(self._graph)
        return noise_share(self._wanted[precision], outputs(made))

    def _literally(self, graph: Graph) -> list[dict[str, Array]]:
        watched = grouping.floats_behind(self._graph, values.sizes(self._graph))
        with probe.opened(graph, watched, threads=self._threads, alone=True) as opened:
            return [opened.run(feeds) for feeds in self._samples]
