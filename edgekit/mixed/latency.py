"""How long groups of layers take in each precision: cut out of the network, compiled, timed side by side.

In a child process, since vendors' libraries crash on some networks. Groups that are alike but for the numbers
in their weights are timed once.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import isolation, profiling, samples, schema
from edgekit.backends import BACKENDS
from edgekit.backends.base import ArtifactInfo, NetworkSession
from edgekit.errors import CompileError, EdgekitError, LimitError
from edgekit.graph.graph import Graph
from edgekit.graph.groups import likeness
from edgekit.isolation import Limits
from edgekit.reports import nearest_rank
from edgekit.spec import Array
from edgekit.target import Target

# Of each form of a group in a round; a form whose runs are long gets three of them.
_MEASURE_S = 0.25
_WARMUP_S = 0.2
_MOST_ROUNDS = 6


@dataclass(frozen=True)
class Time:
    """How long one form of a group takes.

    Attributes:
        median_s: Of its runs; NaN where it did not run.
        spread_s: Their interquartile range.
        runs: How many there were.
        error: Why it did not run.
    """

    median_s: float = math.nan
    spread_s: float = math.nan
    runs: int = 0
    error: str = ""

    @staticmethod
    def of(samples_s: Sequence[float]) -> Time:
        """What the runs of a form say."""
        spread_s = nearest_rank(samples_s, 75) - nearest_rank(samples_s, 25)
        return Time(nearest_rank(samples_s, 50), spread_s, len(samples_s))

    @property
    def error_s(self) -> float:
        """The standard error of the median: 1.25 standard deviations, which are 0.74 of the spread, by √n."""
        return 1.25 * 0.74 * self.spread_s / math.sqrt(max(1, self.runs))

    def is_faster_than(self, other: Time, share: float) -> bool:
        """Whether it is by more than a share of the other's time, and by more than chance explains."""
        return self._gain_s(other) > max(share * other.median_s, self._chance_s(other))

    def may_be_faster_than(self, other: Time, share: float) -> bool:
        """Whether it seems so, by more than the share, and chance explains it."""
        return share * other.median_s < self._gain_s(other) <= self._chance_s(other)

    def _gain_s(self, other: Time) -> float:
        return other.median_s - self.median_s

    def _chance_s(self, other: Time) -> float:
        return 2 * math.hypot(self.error_s, other.error_s)


def side_by_side(
    sessions: Mapping[str, profiling.Runnable], feeds: Mapping[str, Array], seconds: float, share: float
) -> dict[str, Time]:
    """Time sessions in turns, the first being the one that the others are compared with.

    Where one seems faster than that by more than the share, and the machine is too busy to tell, all are
    timed for longer.

    Args:
        sessions: By name.
        feeds: Inputs by name, the same for all.
        seconds: For each session in a round.
        share: Of the first one's time.
    """
    samples_s: dict[str, list[float]] = {name: [] for name in sessions}
    times: dict[str, Time] = {}
    for _ in range(_MOST_ROUNDS):
        reports = profiling.measure_interleaved(
            sessions, feeds, seconds=seconds * len(sessions), warmup_seconds=_WARMUP_S, stages=False
        )
        for name, report in reports.items():
            samples_s[name] += report.samples_s
        times = {name: Time.of(samples) for name, samples in samples_s.items()}
        first, *others = times.values()
        if not any(time.may_be_faster_than(first, share) for time in others):
            break
    return times


# A group in several forms, by a name for each.
Forms = Mapping[str, Graph]


def measure(
    groups: Mapping[str, Forms],
    backend: str,
    device: Target,
    *,
    share: float,
    threads: int = 0,
    limits: Limits = Limits(),
    on_event: Callable[[str], None] = lambda event: None,
) -> dict[str, dict[str, Time]]:
    """Time all forms of each group with one backend, on this machine.

    A group on which the child crashes, or that takes too long, is told apart from the others by asking for
    fewer and fewer; its forms then have that error.

    Args:
        groups: By name. The first form is the one that others are compared with.
        backend: Name of the backend.
        device: The target that is compiled for.
        share: Of the first form's time, the gain that matters.
        threads: Threads to use; 0 for all.
        limits: Time and memory of each child.
        on_event: Called with one line at the beginning.
    """
    alike: dict[str, list[str]] = {}
    for name, forms in groups.items():
        key = " ".join(f"{form}={likeness(graph)}" for form, graph in forms.items())
        alike.setdefault(key, []).append(name)
    firsts = {names[0]: groups[names[0]] for names in alike.values()}
    on_event(f"time {len(firsts)} different groups of {len(groups)} with {BACKENDS[backend].title}")
    times: dict[str, dict[str, Time]] = {}
    pending = [list(firsts)]
    while pending:
        batch = pending.pop()
        try:
            some = {name: firsts[name] for name in batch}
            times.update(_measure(some, backend, device, share, threads, limits))
        except (CompileError, LimitError) as error:
            if len(batch) == 1:
                reason = error.message.splitlines()[0]
                times[batch[0]] = {form: Time(error=reason) for form in firsts[batch[0]]}
            else:
                pending += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    return {name: times[names[0]] for names in alike.values() for name in names}


def _measure(
    groups: Mapping[str, Forms], backend: str, device: Target, share: float, threads: int, limits: Limits
) -> dict[str, dict[str, Time]]:
    files: dict[str, bytes] = {}
    requests = []
    for name, forms in groups.items():
        infos = {}
        for form, graph in forms.items():
            file = f"{len(files)}.onnx"
            files[file] = graph.to_bytes()
            infos[form] = {"file": file, **_described(graph, backend, device)}
        requests.append({"name": name, "forms": infos})
    outcome = isolation.run(
        "edgekit.mixed.latency:_job",
        {
            "backend": backend,
            "target": schema.encode(device),
            "share": share,
            "threads": threads,
            "groups": requests,
        },
        files=files,
        limits=limits,
        what=f"timing groups of layers with {BACKENDS[backend].title}",
        error=CompileError,
    )
    return {
        name: {
            form: schema.decode(Time, one, error=CompileError, where="times") for form, one in forms.items()
        }
        for name, forms in outcome.value.items()
    }


def _described(graph: Graph, backend: str, device: Target) -> dict[str, Any]:
    """What the child needs to know of a part, or why it need not try."""
    refusals = BACKENDS[backend].refusals(graph, device)
    info = ArtifactInfo(
        backend=backend,
        form="engine",
        files=(),
        inputs=graph.inputs,
        outputs=graph.outputs,
        target=device.name,
        built_with=BACKENDS[backend].available().versions,
        source_digest="",
        options=BACKENDS[backend].choose_options(device, {}),
        native=BACKENDS[backend].native,
    )
    return {"info": schema.encode(info), "refused": "; ".join(map(str, refusals))}


def _job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: compile, open and time all forms of each group."""
    arguments = request.arguments
    backend = BACKENDS[arguments["backend"]]
    target = schema.decode(Target, arguments["target"], error=CompileError, where="target")
    backend.load()
    found = {}
    for group in arguments["groups"]:
        times: dict[str, dict[str, Any]] = {}
        sessions: dict[str, _Fed] = {}
        with contextlib.ExitStack() as stack:
            for form, given in group["forms"].items():
                try:
                    if given["refused"]:
                        raise CompileError(given["refused"])
                    info = schema.decode(ArtifactInfo, given["info"], error=CompileError, where="artifact")
                    with tempfile.TemporaryDirectory() as folder:
                        artifact = backend.build(request.files[given["file"]], info, target, Path(folder))
                    session = backend.open(backend.runnable_here(artifact), threads=arguments["threads"])
                    stack.callback(session.close)
                    sessions[form] = _Fed(session)
                    sessions[form].run({})
                except Exception as error:  # noqa: BLE001 - whatever a vendor throws, the other forms go on
                    sessions.pop(form, None)
                    times[form] = {"error": _reason(error)}
            if sessions:
                measured = side_by_side(sessions, {}, _MEASURE_S, arguments["share"])
                times |= {form: schema.encode(time) for form, time in measured.items()}
        found[group["name"]] = times
    return found, {}


class _Fed:
    """A session with inputs of its own: the forms of a group differ in what they read."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        self._feeds = samples.generate_inputs(session.info.inputs)

    def run(self, feeds: Mapping[str, Array], /) -> Mapping[str, Array]:
        return self._session.run(self._feeds)


def _reason(error: Exception) -> str:
    message = error.message if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
    return (message.splitlines() or [type(error).__name__])[0]
