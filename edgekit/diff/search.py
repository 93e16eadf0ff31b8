"""The first value that diverges, found with few compilations, and the one that loses most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.diff.lab import Lab
from edgekit.diff.report import Divergence

# A value that is worse than the worst of its inputs by less than this is one of many that lose a little.
GRADUAL_DB = 6.0
# Values compared in one compilation where each one is to be seen.
_MANY = 8


def first(
    lab: Lab,
    output: str,
    threshold_db: float,
    *,
    marks: int = 2,
    on_event: Callable[[str], None] = lambda event: None,
) -> tuple[Divergence | None, tuple[str, ...]]:
    """Bisect what an output is made of.

    A value that is right clears all that it is made of; one that diverges is looked for no further down.
    Where the outputs are right as soon as a value is asked for, the divergence lies in what the backend fuses
    across it: that is noted, and the value is passed over.

    Args:
        lab: The network.
        output: Name of a divergent output.
        threshold_db: Values below it diverge.
        marks: Values asked for in one compilation.
        on_event: Called with one line before each compilation.

    Returns:
        The divergence, ``None`` where no value below the output diverges, and notes.
    """
    notes: list[str] = []
    hidden: set[str] = set()
    diverging: str | None = None
    suspects = {name for near in lab.made_of(output) for name in {near, *lab.ancestors(near)}}
    while True:
        while suspects:
            picks = _spread(lab, suspects, marks)
            on_event(f"compare {', '.join(picks)}: {len(suspects)} values are left")
            reading = lab.measure(picks)
            suspects -= set(picks)
            unseen = [name for name in picks if name not in reading.snr_db]
            if unseen:
                notes.append(f"the backend does not give the values {', '.join(unseen)}")
                hidden.update(unseen)
            wrong = [n for n in picks if n in reading.snr_db and not reading.snr_db[n] >= threshold_db]
            if not wrong and reading.outputs and all(s >= threshold_db for s in reading.outputs.values()):
                notes.append(
                    f"the outputs are right where {', '.join(picks)} is an output too: what the backend "
                    "fuses across it makes them wrong"
                )
                hidden.update(picks)
                continue
            if wrong:
                diverging = wrong[0]
                suspects &= lab.ancestors(diverging)
            for name in reading.snr_db:
                if name not in wrong:
                    suspects -= lab.ancestors(name)
        if diverging is None:
            return None, tuple(notes)
        found = divergence(lab, diverging, skip=hidden)
        worse = [name for name, snr_db in found.inputs.items() if not snr_db >= threshold_db]
        if not worse:
            return found, tuple(notes)
        # It had been cleared by a value that is right in spite of it.
        diverging = worse[0]
        suspects = lab.ancestors(diverging) - lab.snr_db.keys() - hidden


def steepest(
    lab: Lab, output: str, *, on_event: Callable[[str], None] = lambda event: None
) -> Divergence | None:
    """Of all values that an output is made of, the one that is worst compared with its own inputs."""
    names = {name for near in lab.made_of(output) for name in {near, *lab.ancestors(near)}}
    pending = [name for name in lab.values if name in names and name not in lab.snr_db]
    for start in range(0, len(pending), _MANY):
        on_event(f"compare every value: {len(pending) - start} are left")
        lab.measure(pending[start : start + _MANY])
    seen = [
        divergence(lab, name)
        for name in lab.values
        if name in names
        and name in lab.snr_db
        and all(s in lab.snr_db or _is_input(lab, s) for s in lab.sources[name])
    ]
    return max(seen, key=lambda one: one.loss_db, default=None)


def divergence(lab: Lab, name: str, *, skip: set[str] = frozenset()) -> Divergence:  # type: ignore[assignment]
    """A value with the signal-to-noise ratios of what it is made of, measured where they were not yet."""
    unknown = [
        s for s in lab.sources[name] if not _is_input(lab, s) and s not in lab.snr_db and s not in skip
    ]
    if unknown:
        lab.measure(unknown)
    inputs = {
        source: float("inf") if _is_input(lab, source) else lab.snr_db[source]
        for source in lab.sources[name]
        if _is_input(lab, source) or source in lab.snr_db
    }
    return Divergence(
        name,
        tuple(f"{node.op_type} {node.name}".strip() for node in lab.nodes[name]),
        lab.snr_db[name],
        inputs,
    )


def _is_input(lab: Lab, name: str) -> bool:
    return name not in lab.sources


def _spread(lab: Lab, suspects: set[str], count: int) -> Sequence[str]:
    """So many of the suspects that they divide them evenly, in the order of the network."""
    ordered = [name for name in lab.values if name in suspects]
    places = {(len(ordered) * (i + 1)) // (count + 1) for i in range(count)}
    return [ordered[min(place, len(ordered) - 1)] for place in sorted(places)]
