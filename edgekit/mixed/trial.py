"""A network compiled as a whole on one backend, run on the samples, and judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgekit import runtime
from edgekit.backends import BACKENDS
from edgekit.backends.base import NetworkSession
from edgekit.errors import UsageError
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.mixed.latency import Time, side_by_side
from edgekit.mixed.sensitivity import decibels, noise_share
from edgekit.spec import Array
from edgekit.target import Target

_MEASURE_S = 2.0

Feeds = Mapping[str, Array]
# What a caller gives, to what a caller gets.
Run = Callable[[Feeds], dict[str, Array]]
# Why a network is not good enough; empty where it is.
Gate = Callable[[Run], str]


@dataclass(frozen=True)
class Bench:
    """Where a network is tried: one backend on this machine.

    Attributes:
        backend: Its name.
        device: The target that is compiled for.
        samples: Inputs of the network (what the steps before it make), at least one; the first is timed.
        gate: Why a network is not good enough, judged by what a caller would give and get; ``None`` where
            only the noise counts.
        min_snr_db: Smallest signal-to-noise ratio of the network's outputs against float32's; ``None``
            where only the gate counts.
        threads: Threads to use; 0 for all.
        limits: Time and memory of each child.
    """

    backend: str
    device: Target
    samples: tuple[Feeds, ...]
    gate: Gate | None = None
    min_snr_db: float | None = None
    threads: int = 0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.gate is None and self.min_snr_db is None:
            raise UsageError(
                "nothing says what is good enough: want cases with a metric, or a signal-to-noise ratio",
                hint="--cases FILE.csv --metric NAME, or --min-snr-db 35",
            )
        if not self.samples:
            raise UsageError("want at least one sample to try a network on", hint="--calibrate FOLDER")


class Trial:
    """A network that was compiled as a whole, and what came of it.

    Attributes:
        graph: The network.
        outputs: Its outputs, for each sample.
        snr_db: Of these against float32's.
        failure: Why it is not good enough; empty where it is.
    """

    def __init__(self, graph: Graph, bench: Bench, session: NetworkSession) -> None:
        self.graph, self._bench, self.session = graph, bench, session
        self.outputs = [session.run(feeds) for feeds in bench.samples]
        self.snr_db, self.failure = math.inf, ""

    @staticmethod
    def of(graph: Graph, bench: Bench) -> Trial:
        """Compile in a child, open here, run the samples.

        Raises:
            EdgekitError: As :meth:`edgekit.backends.base.Backend.compile` and ``open``.
        """
        backend = BACKENDS[bench.backend]
        backend.require_here(bench.device)
        compiled = backend.compile(
            graph, bench.device, sample=bench.samples[0], threads=bench.threads, limits=bench.limits
        )
        assert compiled.here is not None
        return Trial(graph, bench, backend.open(compiled.here, threads=bench.threads))

    def judge(self, wanted: Sequence[Mapping[str, Array]]) -> None:
        """Compare with the outputs of float32, and ask the gate."""
        bench = self._bench
        self.snr_db = decibels(noise_share(wanted, self.outputs))
        if bench.min_snr_db is not None and not self.snr_db >= bench.min_snr_db:
            self.failure = f"{self.snr_db:.1f} dB against float32, wanted are {bench.min_snr_db:g} dB"
        elif bench.gate is not None:
            self.failure = bench.gate(self.run)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """What a caller gives to what a caller gets: with the steps around the network."""
        graph, threads = self.graph, self._bench.threads
        tensors = runtime.run_steps(graph.before, feeds, threads=threads)
        tensors.update(self.session.run({spec.name: tensors[spec.name] for spec in graph.inputs}))
        tensors = runtime.run_steps(graph.after, tensors, threads=threads)
        return {spec.name: tensors[spec.name] for spec in graph.results}

    def close(self) -> None:
        """Give back what the vendor's library holds."""
        self.session.close()


def timed(trials: Mapping[str, Trial], feeds: Feeds, share: float) -> dict[str, Time]:
    """The networks of some trials, without the steps around them: those are the same in all.

    Args:
        trials: By name; the first is the one that others are compared with.
        feeds: Inputs of the network.
        share: Of the first one's time, the gain that matters.
    """
    return side_by_side({name: trial.session for name, trial in trials.items()}, feeds, _MEASURE_S, share)
