"""Have a machine prove a bundle: run it here on its golden case, and compare."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edgekit import machine, runtime
from edgekit.bundle import Bundle
from edgekit.compare import AGREEMENT_DB, compare
from edgekit.machine import Machine
from edgekit.reports import AccuracyLimits, AccuracyReport
from edgekit.samples import generate_inputs

# Where a golden case demands nothing: what two runtimes that mean the same have between them.
_AGREEMENT = AccuracyLimits(min_snr_db=AGREEMENT_DB)


@dataclass(frozen=True)
class Proof:
    """What became of it.

    Attributes:
        network: Name of the network that ran.
        passed_over: Why networks that the bundle prefers do not run here, by name.
        accuracy: How near its results are to the golden case's; ``None`` where the bundle has none: then it
            ran on generated inputs, and gave finite results of the right shapes.
        load_s: Seconds until it could run.
        run_s: Seconds that the run took, the first on this machine.
        machine: This machine.
    """

    network: str
    passed_over: dict[str, str] = field(default_factory=dict)
    accuracy: AccuracyReport | None = None
    load_s: float = 0.0
    run_s: float = 0.0
    machine: Machine | None = None

    @property
    def passed(self) -> bool:
        """Whether the results kept the golden case's limits, or there was no golden case."""
        return self.accuracy is None or self.accuracy.passed


def prove(bundle: Bundle, *, network: str = "", threads: int = 0) -> Proof:
    """Run a bundle once on this machine.

    Args:
        bundle: The bundle.
        network: Name of the network to run; the first that runs here otherwise.
        threads: Threads to use; 0 for all.

    Raises:
        BundleError, UnavailableError, SessionError, UsageError: As :func:`edgekit.runtime.open` and a run.
    """
    golden = bundle.golden
    inputs = golden.inputs if golden else generate_inputs(bundle.manifest.inputs)
    with runtime.open(bundle, network=network, threads=threads) as session:
        started = time.perf_counter()
        results = session.run(inputs)
        run_s = time.perf_counter() - started
        accuracy = None
        if golden:
            record = golden.record
            accuracy = compare(
                golden.results,
                results,
                reference=record.reference,
                inputs=record.inputs,
                limits=_AGREEMENT if record.limits == AccuracyLimits() else record.limits,
            )
        return Proof(
            network=session.network_name,
            passed_over=session.passed_over,
            accuracy=accuracy,
            load_s=session.load_s,
            run_s=run_s,
            machine=machine.record(session.packages),
        )
