"""What looking for a divergence found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekit import schema


@dataclass(frozen=True)
class Probed:
    """A value that was compared.

    Attributes:
        value: Its name.
        node: The node that makes it, as ``Conv name``.
        snr_db: Signal-to-noise ratio against the reference; minus infinity where it is not finite.
    """

    value: str
    node: str
    snr_db: float


@dataclass(frozen=True)
class Divergence:
    """A value that is wrong though what it is made of is right.

    Attributes:
        value: Its name.
        nodes: The nodes that make it of its inputs, as ``Conv name``, the last one first.
        snr_db: Its signal-to-noise ratio.
        inputs: Signal-to-noise ratio of each value that the nodes read; infinite for the network's inputs.
    """

    value: str
    nodes: tuple[str, ...]
    snr_db: float
    inputs: dict[str, float]

    @property
    def loss_db(self) -> float:
        """By how much the value is worse than the worst of its inputs."""
        return min(self.inputs.values(), default=float("inf")) - self.snr_db


@dataclass(frozen=True)
class Part:
    """The smallest part of the network that shows the divergence by itself.

    Attributes:
        nodes: Its nodes.
        inputs: Names of the values that it reads.
        output: Name of the value that it makes.
        snr_db: Signal-to-noise ratio when the backend compiles it alone and it is fed with the reference's
            values.
        reproduces: Whether that is below the threshold too. If not, the whole network up to the value was
            tried as well, and the divergence depends on what follows.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    snr_db: float
    reproduces: bool


@dataclass(frozen=True)
class DiffReport:
    """What was found.

    Attributes:
        backend: The backend whose network it is.
        target: What it was compiled for.
        inputs: What both were fed with.
        threshold_db: Values below it diverge.
        artifact: Signal-to-noise ratio of each output of the bundle's own network.
        outputs: The same of a fresh compilation of the same graph.
        first: The first divergent value, if any output diverges.
        steepest: The value that loses most, where the way below the threshold is gradual.
        part: The smallest part that shows it.
        probed: Every value that was compared, in the order of the network.
        compilations: How often the backend compiled.
        notes: What a user wants to know.
    """

    backend: str
    target: str
    inputs: str
    threshold_db: float
    artifact: dict[str, float]
    outputs: dict[str, float]
    first: Divergence | None = None
    steepest: Divergence | None = None
    part: Part | None = None
    probed: tuple[Probed, ...] = ()
    compilations: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def diverges(self) -> bool:
        """Whether an output of the bundle's own network or of a fresh one is below the threshold."""
        ratios = [*self.artifact.values(), *self.outputs.values()]
        return not all(ratio >= self.threshold_db for ratio in ratios)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json`` and the file that is saved."""
        return {"diverges": self.diverges, **schema.encode(self)}
