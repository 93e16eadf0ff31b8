"""Will it build, on which JetPack, and where will each layer run? Told from rules; nothing is compiled.

TensorRT is judged by :mod:`edgekit.backends.tensorrt.rules`, every other backend by its own refusals. Memory
is a plain count of weights and of what lives at once; how long it takes is not told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit import pipeline
from edgekit import target as targets
from edgekit.backends import base
from edgekit.backends.tensorrt import rules
from edgekit.backends.tensorrt.rules import Finding
from edgekit.errors import UsageError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.target import Target

if TYPE_CHECKING:
    import torch

TENSORRT = "tensorrt"
# The accelerator of Orin: the rules are for that one.
_DLA_CAPABILITY = "8.7"
# Of a module's memory, TensorRT takes no more for what it builds with (TensorRT's NvInfer.h: kTACTIC_DRAM).
_SHARE = 0.75

Verdict = Literal["builds", "refused", "unavailable"]


@dataclass(frozen=True)
class Memory:
    """A plain count of memory, for the largest inputs and the types that the network stands in.

    Attributes:
        weights_bytes: All weights together.
        activations_bytes: Most of what lives at once between the layers, when they run in order.
        available_bytes: What the device can give a network.
    """

    weights_bytes: int
    activations_bytes: int
    available_bytes: int

    @property
    def fits(self) -> bool:
        """Whether both go into what is available."""
        return self.weights_bytes + self.activations_bytes <= self.available_bytes


@dataclass(frozen=True)
class Build:
    """What becomes of one backend.

    Attributes:
        backend: Its name.
        verdict: ``"builds"``, ``"refused"``, or ``"unavailable"`` where this machine lacks it.
        reason: Why not, in one line.
        hint: What to do then.
        places: Where layers run, and how many each: ``{"GPU": 112, "plug-in": 2}``.
        dla: The same where the deep-learning accelerator is used, too; empty where it cannot be.
        dla_parts: Stretches of layers on the accelerator; each change of engine costs a copy.
        rewritten: Findings that edgekit's passes take care of by themselves.
        left: Findings that stay.
        dla_left: What keeps nodes off the accelerator: how many nodes by rule.
    """

    backend: str
    verdict: Verdict
    reason: str = ""
    hint: str = ""
    places: Mapping[str, int] | None = None
    dla: Mapping[str, int] | None = None
    dla_parts: int = 0
    rewritten: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    dla_left: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Software:
    """What becomes of a network on a device with one system software.

    Attributes:
        jetpack: Its JetPack; empty for a device without one.
        tensorrt: Its TensorRT; empty likewise.
        memory: What the network needs there.
        builds: One entry for each backend, in the target's order.
    """

    jetpack: str
    tensorrt: str
    memory: Memory
    builds: tuple[Build, ...]

    @property
    def builds_something(self) -> bool:
        """Whether any backend takes the network, and it fits."""
        return self.memory.fits and any(build.verdict == "builds" for build in self.builds)


@dataclass(frozen=True)
class Check:
    """The answer.

    Attributes:
        model: Where the model comes from.
        target: Name of the device.
        title: Name that people use for it.
        software: One entry for each JetPack that was asked for; the device's own one first.
    """

    model: str
    target: str
    title: str
    software: tuple[Software, ...]

    @property
    def builds(self) -> bool:
        """Whether the network builds with the device's own software, or the one that was asked for."""
        return self.software[0].builds_something


def check(
    source: str | Path | torch.nn.Module,
    *,
    target: str | Target,
    jetpack: str | None = None,
    backend: str = "auto",
    shapes: Mapping[str, str] | None = None,
    weights: Path | None = None,
    trust: bool = False,
    time_limit_s: float = 900.0,
    memory_limit_bytes: int = 16 << 30,
    on_event: Callable[[str], None] = lambda event: None,
) -> Check:
    """Say whether a model will build for a target, and where its layers will run.

    Args:
        source: As of :func:`edgekit.pipeline.compile`.
        target: Name or alias of a target, path of a target file, or a target.
        jetpack: The JetPack to ask about; all that the device runs otherwise.
        backend: ``"auto"`` asks all that the target lists.
        shapes: Shape of each input, where the model does not say.
        weights: ``.safetensors`` or ``.pt`` file for a factory.
        trust: Allow inputs that can execute code when they are read (``.pt2``).
        time_limit_s: For the child process that exports the model.
        memory_limit_bytes: Likewise.
        on_event: Called with one line at the beginning of each phase.

    Raises:
        EdgekitError: The model, the target or the JetPack is refused as such.
    """
    device = target if isinstance(target, Target) else targets.find(target)
    if jetpack is not None:
        device = targets.with_jetpack(device, jetpack)
    on_event(f"load {source if isinstance(source, (str, Path)) else type(source).__name__}")
    original = pipeline.take_in(
        source,
        shapes=shapes,
        weights=weights,
        trust=trust,
        time_limit_s=time_limit_s,
        memory_limit_bytes=memory_limit_bytes,
    )
    asked = [device]
    if jetpack is None:
        own = device.software.get("jetpack")
        asked += [targets.with_jetpack(device, one) for one in device.jetpacks if one != own]
    found = []
    for one in asked:
        on_event(f"check {one.title} with JetPack {one.software['jetpack']}" if device.jetpacks else "check")
        found.append(_software(original, one, backend))
    text = str(source) if isinstance(source, (str, Path)) else type(source).__name__
    return Check(text, device.name, device.title, tuple(found))


def check_graph(graph: Graph, device: Target, backend: str = "auto") -> Software:
    """What becomes of a graph, before passes, on a device with the software that the target names."""
    return _software(graph, device, backend)


def _software(original: Graph, device: Target, backend: str) -> Software:
    graph = run_all(default_passes(device), original, device).graph
    builds = tuple(
        _tensorrt(original, graph, device) if way is None else _other(way, graph)
        for way in _ways(device, backend)
    )
    software = device.software
    return Software(
        software.get("jetpack", ""), software.get("tensorrt", ""), memory_of(graph, device), builds
    )


def _ways(device: Target, backend: str) -> list[base.Build | None]:
    """The ways to compile, in the target's order; ``None`` is TensorRT, which is asked by its rules."""
    if backend == TENSORRT:
        if TENSORRT not in device.backends:
            raise UsageError(
                f"{device.title} has no TensorRT", where="--backend", hint=f"--backend {device.backends[0]}"
            )
        return [None]
    if backend != "auto":
        return [*pipeline.builds(device, backend)]
    here = tuple(name for name in device.backends if name != TENSORRT)
    others = pipeline.builds(replace(device, backends=here), "auto") if here else []
    ways: list[base.Build | None] = []
    for name in device.backends:
        ways += [None] if name == TENSORRT else [way for way in others if way.backend == name]
    return ways


def _other(way: base.Build, graph: Graph) -> Build:
    """A backend that says by itself what it refuses."""
    plan = pipeline.plan_build(way, graph)
    if plan.verdict != "compile":
        return Build(
            way.name, "refused" if plan.verdict == "refused" else "unavailable", plan.reason, plan.hint
        )
    nodes = sum(1 for node in graph.model.graph if node.op_type not in ("Constant", "Identity"))
    return Build(way.name, "builds", places={way.target.device.upper(): nodes})


def _tensorrt(original: Graph, graph: Graph, device: Target) -> Build:
    """TensorRT, by the rules of its version."""
    version = device.software[TENSORRT]
    asked, left = rules.verdict(original, version), rules.verdict(graph, version)
    stay = {finding.rule for finding in left}
    rewritten = tuple(finding for finding in asked if finding.rule not in stay)
    refused = [finding for finding in left if finding.severity == "refused"]
    where = rules.places(graph, version)
    with_dla = None
    if device.dla is not None and device.compute_capability == _DLA_CAPABILITY and not refused:
        with_dla = rules.places(graph, version, dla=True)
    return Build(
        TENSORRT,
        "refused" if refused else "builds",
        f"{len(refused)} refused: {', '.join(sorted({one.rule for one in refused}))}" if refused else "",
        refused[0].rewrite if refused else "",
        places=Counter(place.where for place in where),
        dla=Counter(place.where for place in with_dla) if with_dla else None,
        dla_parts=rules.dla_parts(with_dla) if with_dla else 0,
        rewritten=rewritten,
        left=left,
        dla_left=_kept_off(graph, version) if with_dla else None,
    )


def _kept_off(graph: Graph, version: str) -> Mapping[str, int]:
    found = rules.verdict(graph, version, dla=True)
    return Counter(finding.rule for finding in found if finding.rule.startswith("dla."))


def memory_of(graph: Graph, device: Target) -> Memory:
    """The plain count of memory for a graph on a device.

    Raises:
        GraphError: A node does not fit its inputs.
    """
    network = graph.model.graph
    weights = sum(
        value.const_value.nbytes for value in network.initializers.values() if value.const_value is not None
    )
    sizes = values.sizes(graph)
    last: dict[str, int] = {}
    for place, node in enumerate(network):
        for value in node.inputs:
            if value is not None:
                last[str(value.name)] = place
    kept = {str(value.name) for value in network.outputs}
    alive = {str(value.name): _bytes(sizes, str(value.name)) for value in network.inputs}
    most = sum(alive.values())
    for place, node in enumerate(network):
        for value in node.outputs:
            alive[str(value.name)] = _bytes(sizes, str(value.name))
        most = max(most, sum(alive.values()))
        for name in [name for name in alive if name not in kept and last.get(name, -1) <= place]:
            del alive[name]
    return Memory(weights, most, int(device.memory_bytes * _SHARE))


def _bytes(sizes: Mapping[str, values.Size], name: str) -> int:
    return sizes[name].nbytes if name in sizes else 0


def by_rule(software: tuple[Software, ...]) -> dict[tuple[str, bool], list[tuple[Software, Finding]]]:
    """All findings of TensorRT, by rule and whether edgekit's passes take care of it, in order."""
    found: dict[tuple[str, bool], list[tuple[Software, Finding]]] = {}
    for one in software:
        for build in one.builds:
            for mine, findings in ((True, build.rewritten), (False, build.left)):
                for finding in findings:
                    found.setdefault((finding.rule, mine), []).append((one, finding))
    return found
