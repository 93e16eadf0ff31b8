"""What a pass is: Graph -> Graph, with a contract that the base checks."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgekit.errors import EdgekitError, InternalError, PassError
from edgekit.graph.graph import Graph
from edgekit.target import Target


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    Attributes:
        graph: The graph after it; the very one it got where nothing changed.
        changed: Whether it changed anything.
        notes: What a user wants to know of it; they end up in the report.
    """

    graph: Graph
    changed: bool
    notes: tuple[str, ...] = ()


class Pass(abc.ABC):
    """One transformation. ``requires`` → ``_run`` → ``ensures``; the base verifies what is declared."""

    name: ClassVar[str]

    def requires(self, graph: Graph, target: Target) -> str | None:
        """Why the pass cannot run on this graph, or ``None``."""
        return None

    @abc.abstractmethod
    def _run(self, graph: Graph, target: Target) -> PassResult:
        """Do it. The graph that came in stays as it was."""

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """What the result breaks of the promise, or ``None``."""
        return None

    def run(self, graph: Graph, target: Target) -> PassResult:
        """Run with all checks.

        Raises:
            PassError: ``requires`` or the transformation refused.
            InternalError: The pass broke its own promise.
        """
        before = graph.digest()
        reason = self.requires(graph, target)
        if reason:
            raise PassError(f"pass {self.name} cannot run: {reason}", where=f"after {_list(graph.history)}")
        try:
            result = self._run(graph, target)
        except EdgekitError:
            raise
        except Exception as error:
            raise PassError(
                f"pass {self.name} failed: {type(error).__name__}: {error}",
                where=f"after {_list(graph.history)}",
            ) from error
        if graph.digest() != before:
            raise InternalError(f"pass {self.name} changed the graph it was given")
        if result.changed == (result.graph is graph):
            raise InternalError(
                f"pass {self.name} says changed={result.changed}, which its graph contradicts"
            )
        broken = self.ensures(result.graph, target)
        if broken:
            raise InternalError(f"pass {self.name} broke its promise: {broken}")
        return result


def run_all(passes: Sequence[Pass], graph: Graph, target: Target) -> PassResult:
    """Run passes in order; notes are collected, each with the name of its pass."""
    changed, notes = False, []
    for one in passes:
        result = one.run(graph, target)
        graph, changed = result.graph, changed or result.changed
        notes += [f"{one.name}: {note}" for note in result.notes]
    return PassResult(graph, changed, tuple(notes))


def _list(history: Sequence[str]) -> str:
    return " → ".join(history) or "loading"
