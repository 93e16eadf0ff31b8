"""The original and its cuts on the target's backends, timed side by side on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgekit import compare, profiling, runtime
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, Compiled, NetworkSession
from edgekit.errors import (
    BackendError,
    CompileError,
    EdgekitError,
    LimitError,
    ModelError,
    UnsupportedError,
)
from edgekit.graph.graph import Graph
from edgekit.graph.load import Golden, Loaded
from edgekit.isolation import Limits
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.reports import AccuracyLimits
from edgekit.spec import Array
from edgekit.target import Target

_MEASURE_S, _MIN_RUNS = 2.0, 7
# A backend that takes this much longer than the best on the original takes part no more.
_HOPELESS = 2.0
# A compiled network that is further from the framework's own outputs is another network.
_LIMITS = AccuracyLimits(min_snr_db=40.0)


@dataclass(frozen=True)
class Race:
    """A cut beside the original.

    Attributes:
        original_s: Median of the original on its best backend.
        pruned_s: Median of the cut on its best one.
        backend: Which that is.
    """

    original_s: float
    pruned_s: float
    backend: str

    @property
    def speedup(self) -> float:
        """How many times faster the cut is."""
        return self.original_s / self.pruned_s


class Bench:
    """Compiles networks for a target and times them against the first one.

    Args:
        original: The network that others are compared with.
        device: The target.
        backends: Names of the backends to try.
        threads: Threads to measure with; 0 for the target's own number.
        child: Limits of each child that compiles.
        on_event: Called with one line at the beginning of each phase.

    Attributes:
        backend: The backend that is best for the original.

    Raises:
        EdgekitError: No backend compiles it, or none does right.
    """

    def __init__(
        self,
        original: Loaded,
        device: Target,
        backends: Sequence[str],
        *,
        threads: int,
        child: Limits,
        on_event: Callable[[str], None],
    ) -> None:
        self._device, self._threads, self._child = device, threads or device.threads, child
        self._on_event = on_event
        artifacts, feeds = self._compile(original, backends)
        times = self._time(artifacts, feeds)
        self.backend = min(times, key=times.__getitem__)
        self._original = artifacts[self.backend]
        self._backends = [name for name in times if times[name] <= _HOPELESS * times[self.backend]]

    def race(self, pruned: Loaded) -> Race:
        """Compile a cut with every backend that is worth it and time it beside the original.

        Raises:
            EdgekitError: No backend compiles it, or none does right.
        """
        artifacts, feeds = self._compile(pruned, self._backends)
        times = self._time({"": self._original, **artifacts}, feeds)
        original_s = times.pop("")
        backend = min(times, key=times.__getitem__)
        return Race(original_s, times[backend], backend)

    def _compile(
        self, loaded: Loaded, backends: Sequence[str]
    ) -> tuple[dict[str, Artifact], dict[str, Array]]:
        """What each backend makes of a network that computes what the network does, and its inputs."""
        golden = loaded.golden
        if golden is None:
            raise ModelError("a network to prune comes from PyTorch", where="model")
        graph = run_all(default_passes(self._device), loaded.graph, self._device).graph
        feeds = {spec.name: golden.inputs[spec.name] for spec in graph.inputs}
        artifacts: dict[str, Artifact] = {}
        errors: list[EdgekitError] = []
        for name in backends:
            backend = BACKENDS[name]
            self._on_event(f"compile with {backend.title}")
            try:
                backend.require_here(self._device)
                compiled = backend.compile(
                    graph, self._device, sample=feeds, threads=self._threads, limits=self._child
                )
                _check(graph, compiled, golden, backend.title)
                assert compiled.here is not None
                artifacts[name] = compiled.here
            except (BackendError, LimitError, UnsupportedError) as error:
                errors.append(error)
        if not artifacts:
            lines = [f"  {error.message.splitlines()[0]}" for error in errors]
            raise CompileError("\n".join(["no backend can run this network:", *lines]), hint=errors[0].hint)
        return artifacts, feeds

    def _time(self, artifacts: Mapping[str, Artifact], feeds: dict[str, Array]) -> dict[str, float]:
        """Medians, side by side."""
        self._on_event("measure")
        with contextlib.ExitStack() as stack:
            sessions = {name: stack.enter_context(self._opened(a)) for name, a in artifacts.items()}
            # What other processes take of the machine must not decide what is cut. With more threads their
            # CPU time says nothing about how well they share the work.
            clock = time.process_time_ns if self._threads == 1 else time.perf_counter_ns
            reports = profiling.measure_interleaved(
                sessions,
                feeds,
                seconds=_MEASURE_S * len(sessions),
                min_runs=_MIN_RUNS,
                stages=False,
                clock=clock,
            )
        return {name: report.p50_s for name, report in reports.items()}

    @contextlib.contextmanager
    def _opened(self, artifact: Artifact) -> Iterator[NetworkSession]:
        session = BACKENDS[artifact.info.backend].open(artifact, threads=self._threads)
        try:
            yield session
        finally:
            session.close()


def _check(graph: Graph, compiled: Compiled, golden: Golden, title: str) -> None:
    """Refuse a compiled network that computes something else than the network."""
    tensors = runtime.run_steps(graph.after, {**golden.inputs, **compiled.outputs})
    got = {spec.name: tensors[spec.name] for spec in graph.results}
    report = compare.compare(golden.outputs, got, reference="pytorch", inputs="calibration", limits=_LIMITS)
    if report.failures:
        raise CompileError(f"{title} computes something else: {'; '.join(report.failures)}")
