"""The inner values of a network, computed as ONNX says: each operator by itself, nothing fused or skipped.

What a vendor's compiler makes of a network is judged against this, and calibration looks at what passes
through it. ONNX Runtime computes it with all its optimizations off; operators of edgekit run on our own
kernels, and QuantizeLinear and DequantizeLinear are what their definitions say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from edgekit import runtime
from edgekit.backends import onnxruntime
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.graph.opset import DOMAIN
from edgekit.spec import Array


class Probe:
    """A network that also tells inner values; see :func:`opened`.

    Attributes:
        names: Names of what :meth:`run` returns.
    """

    def __init__(self, network: onnxruntime.Literal | None, passed_on: tuple[str, ...]) -> None:
        self.names = (*(network.outputs if network is not None else ()), *passed_on)
        self._network, self._passed_on = network, passed_on

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once.

        Args:
            feeds: One array for each input of the network, by name, as its contract wants it.

        Returns:
            The values by name, in arrays of their own; an input that was asked for is the one that was given.

        Raises:
            SessionError: The runtime failed.
        """
        values = self._network.run(feeds) if self._network is not None else {}
        return {**values, **{name: feeds[name] for name in self._passed_on}}


@contextlib.contextmanager
def opened(
    graph: Graph, tensors: Iterable[str] = (), *, threads: int = 0, alone: bool = False
) -> Iterator[Probe]:
    """Open the network of a graph so that inner values come out of it beside its outputs.

    Args:
        graph: The network; steps before and after it are not run.
        tensors: Names of values of its main graph: of nodes' outputs or of inputs.
        threads: Threads to use; 0 for all that the process may use.
        alone: Compute these values and nothing more: outputs are left out where they were not asked for.

    Raises:
        GraphError: No value of the graph has one of these names.
        UnavailableError: ONNX Runtime is missing.
        SessionError: It refuses the network.
    """
    names = list(dict.fromkeys(tensors))
    inputs = {spec.name for spec in graph.inputs}
    inner = [name for name in names if name not in inputs]
    network = None
    if inner or not alone:
        model = values.with_half_kept(values.with_outputs(graph, inner, alone=alone))
        network = onnxruntime.literal(
            model.to_bytes(), own_operators=DOMAIN in model.model.opset_imports, threads=threads
        )
    try:
        yield Probe(network, tuple(name for name in names if name in inputs))
    finally:
        if network is not None:
            network.close()


@contextlib.contextmanager
def opened_whole(
    graph: Graph, *, threads: int = 0
) -> Iterator[Callable[[Mapping[str, Array]], dict[str, Array]]]:
    """Open a graph with the steps around it: what a caller gives becomes what a caller gets.

    Args:
        graph: Its inputs by name are those of ``graph.given``, its results those of ``graph.results``.
        threads: Threads to use; 0 for all that the process may use.

    Raises:
        UnavailableError, SessionError: As :func:`opened`.
    """
    with opened(graph, threads=threads) as network:

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            tensors = runtime.run_steps(graph.before, feeds, threads=threads)
            outputs = network.run({spec.name: tensors[spec.name] for spec in graph.inputs})
            made = runtime.run_steps(graph.after, {**tensors, **outputs}, threads=threads)
            return {spec.name: made[spec.name] for spec in graph.results}

        yield run
