"""The whole flow in one readable function, and the same flow dry.

model → graph → passes → forms of smaller precision → every backend of the target → compared with the
reference → measured side by side → the fastest one that passes, on labelled cases too → bundle. Nothing is
chosen by belief, and nothing that fails a limit is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import atomic, runtime, samples, schema
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.base import Build
from edgekit.bundle import Bundle, write
from edgekit.compression import Compression, Forms
from edgekit.contest import Contest, Draft, Evidence, Variant
from edgekit.dataset import Dataset
from edgekit.errors import UnavailableError, UsageError
from edgekit.front import Front
from edgekit.graph.graph import Graph
from edgekit.graph.load import Golden, is_onnx, load, run_torch
from edgekit.isolation import Limits
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.reports import AccuracyLimits
from edgekit.spec import Array, Step, TensorSpec
from edgekit.target import Target

if TYPE_CHECKING:
    import torch

Observer = Callable[[str], None]
Before = Step | str | Sequence[Step | str]
Options = Mapping[str, Mapping[str, int | float | str | bool]]


@dataclass(frozen=True)
class BackendPlan:
    """What would become of one way to compile: ``"compile"``, ``"refused"`` or ``"unavailable"``."""

    backend: str
    verdict: str
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Plan:
    """What :func:`compile` would do.

    Attributes:
        model: Where the model comes from.
        target: The device.
        inputs: Contracts of what a caller gives.
        results: Contracts of what a caller gets.
        history: What was done to the model to prepare it.
        notes: What a user wants to know of that.
        before: Steps that would run before the network.
        after: Steps that would run after it.
        backends: What would be tried, in order.
        limits: Limits on accuracy that would decide.
        compression: Precisions, calibration data, cases and what has to be kept on them, a line each.
        reference: What the outputs would be compared with, on which inputs.
        output: The file that would be written, if any.
    """

    model: str
    target: str
    inputs: tuple[TensorSpec, ...]
    results: tuple[TensorSpec, ...]
    history: tuple[str, ...]
    notes: tuple[str, ...]
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    backends: tuple[BackendPlan, ...]
    limits: AccuracyLimits
    compression: tuple[str, ...]
    reference: str
    output: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return schema.encode(self)  # type: ignore[no-any-return]


def compile(
    source: str | Path | torch.nn.Module,
    *,
    target: str | Target = "cpu",
    shapes: Mapping[str, str] | None = None,
    weights: Path | None = None,
    trust: bool = False,
    before: Before = (),
    backend: str = "auto",
    options: Options | None = None,
    inputs: Mapping[str, Array] | None = None,
    limits: AccuracyLimits = AccuracyLimits(),
    compression: Compression = Compression(),
    output: str | Path | None = None,
    report: str | Path | None = None,
    force: bool = False,
    threads: int = 0,
    name: str | None = None,
    intended_use: str = "",
    time_limit_s: float = 900.0,
    memory_limit_bytes: int = 16 << 30,
    on_event: Observer = lambda event: None,
) -> Bundle:
    """Compile a model for a target and prove what came out.

    Args:
        source: An ``.onnx`` file, ``"package.module:function"`` that returns a ``torch.nn.Module``, such a
            module, or a ``.pt2`` file (with ``trust``).
        target: Name or alias of a target, path of a target file, or a target.
        shapes: Shape of each input, as ``{"ct": "1x1x[32:128:16]x96"}``; needed where the model does not say.
        weights: ``.safetensors`` or ``.pt`` file for a factory.
        trust: Allow inputs that can execute code when they are read (``.pt2``).
        before: What to do before the network, in order: steps, also as texts like ``median image radius=2``,
            then models of the zoo, like ``zoo.denoise2d image``, which are compiled together with the
            network. What a step makes of an input takes that input's place.
        backend: ``"auto"`` tries all that the target lists and keeps the fastest one that passes.
        options: Options of backends that replace the target's, as ``{"tvm": {"tune_s": 60}}``.
        inputs: Arrays to verify and measure with; seeded generated ones otherwise.
        limits: Limits on the difference from the reference.
        compression: Which precisions to try, on which data, and what they have to keep on labelled cases.
        output: Where to write the bundle; nothing is written without.
        report: Where to write an HTML page on cases and layers; also where no candidate passes.
        force: Replace existing files.
        threads: Threads to measure with; 0 for the target's own number.
        name: Name of the bundle; from the source otherwise.
        intended_use: Free text for the manifest.
        time_limit_s: For each child process that exports or compiles.
        memory_limit_bytes: Likewise.
        on_event: Called with one line at the beginning of each phase.

    Returns:
        The bundle. Its manifest holds the table of candidates, and the chosen one's accuracy and latency.

    Raises:
        EdgekitError: See :mod:`edgekit.errors`; GateError where every candidate exceeded a limit.
    """
    device = _find_target(target, options)
    wanted = builds(device, backend)
    compression.check(limits)
    _check_budget(device, wanted, compression)
    model = _Model(source, shapes, weights, trust, Front.of(before), inputs)
    for file in (output, report):
        if file is not None:
            atomic.check_writable(Path(file), force=force)
    child, threads = Limits(time_limit_s, memory_limit_bytes), threads or device.threads

    on_event(f"load {_describe(source)}")
    original, graph, golden, notes = _prepare(model, device, child)
    data = compression.data_for(graph.given)
    on_event("compute the reference outputs")
    evidence = _evidence(model, original, golden, data, device, child)

    def draft(form: Variant) -> Draft:
        return partial(
            Bundle.of,
            name=name or name_of(source),
            target=device,
            inputs=graph.given,
            results=graph.results,
            before=graph.before,
            after=graph.after,
            intended_use=intended_use,
            history=form.graph.history,
            notes=notes + form.notes,
        )

    with compression.judge(original, data, threads, on_event) as judge:
        forms = Forms(graph, compression, data, evidence, device, limits, judge, threads, child, on_event)
        contest = Contest(
            device, evidence, limits, threads, child, judge, compression.budget, page=report is not None
        )
        for build in wanted:
            for form in forms.of(build):
                on_event(f"compile with {_title(build)}{form.suffix}")
                contest.enter(build, form, draft(form))
        on_event(f"{'judge' if _all_foreign(wanted) else 'measure'} {contest.titles()}")
        try:
            bundle = contest.winner()
        finally:
            if report is not None and (page := contest.page()):
                atomic.write(Path(report), page.encode(), force=force)
    if output is not None:
        on_event(f"write {output}")
        write(bundle, Path(output), force=force)
    return bundle


def plan(
    source: str | Path | torch.nn.Module,
    *,
    target: str | Target = "cpu",
    shapes: Mapping[str, str] | None = None,
    weights: Path | None = None,
    trust: bool = False,
    before: Before = (),
    backend: str = "auto",
    options: Options | None = None,
    inputs: Mapping[str, Array] | None = None,
    limits: AccuracyLimits = AccuracyLimits(),
    compression: Compression = Compression(),
    output: str | Path | None = None,
    force: bool = False,
    time_limit_s: float = 900.0,
    memory_limit_bytes: int = 16 << 30,
    on_event: Observer = lambda event: None,
) -> Plan:
    """What :func:`compile` would do with the same arguments.

    Loads the model and runs the passes; compiles nothing and writes nothing.

    Raises:
        EdgekitError: As :func:`compile`, for everything that can be told before compiling.
    """
    device = _find_target(target, options)
    wanted = builds(device, backend)
    compression.check(limits)
    _check_budget(device, wanted, compression)
    model = _Model(source, shapes, weights, trust, Front.of(before), inputs)
    if output is not None:
        atomic.check_writable(Path(output), force=force)
    on_event(f"load {_describe(source)}")
    child = Limits(time_limit_s, memory_limit_bytes)
    original, graph, golden, notes = _prepare(model, device, child)
    reference = "pytorch" if golden else "reference"
    return Plan(
        model=_describe(source),
        target=device.name,
        inputs=graph.given,
        results=graph.results,
        history=graph.history,
        notes=notes,
        before=graph.before,
        after=graph.after,
        backends=tuple(plan_build(build, graph) for build in wanted),
        limits=limits,
        compression=compression.described(original),
        reference=f"{reference} on {_describe_inputs(inputs)}",
        output=str(output or ""),
    )


def prepare(
    source: str | Path | torch.nn.Module,
    *,
    target: str | Target = "cpu",
    shapes: Mapping[str, str] | None = None,
    weights: Path | None = None,
    trust: bool = False,
    before: Before = (),
    time_limit_s: float = 900.0,
    memory_limit_bytes: int = 16 << 30,
) -> Graph:
    """The graph that :func:`compile` hands to the backends: the model after the passes that every one gets.

    Raises:
        EdgekitError: As :func:`compile`, for everything that can be told before compiling.
    """
    device = target if isinstance(target, Target) else targets.find(target)
    model = _Model(source, shapes, weights, trust, Front.of(before), None)
    return _prepare(model, device, Limits(time_limit_s, memory_limit_bytes))[1]


def take_in(
    source: str | Path | torch.nn.Module,
    *,
    shapes: Mapping[str, str] | None = None,
    weights: Path | None = None,
    trust: bool = False,
    time_limit_s: float = 900.0,
    memory_limit_bytes: int = 16 << 30,
) -> Graph:
    """The graph of a model before all passes, for questions that several targets are asked.

    Raises:
        EdgekitError: As :func:`compile`, for everything that can be told before the passes.
    """
    model = _Model(source, shapes, weights, trust, Front.of(()), None)
    return _take_in(model, Limits(time_limit_s, memory_limit_bytes))[0]


def _find_target(target: str | Target, options: Options | None) -> Target:
    """The target, with options of backends in place of its own."""
    device = target if isinstance(target, Target) else targets.find(target)
    for name, values in (options or {}).items():
        changed = {**device.options_for(name), **values}
        device = replace(device, options={**device.options, name: changed})
        BACKENDS[name].choose_options(device, {})  # refuses what it does not have
    return device


def builds(device: Target, backend: str) -> list[Build]:
    """The ways to compile, those of the chosen backend alone where the user named it.

    What can be run here is timed, and the fastest wins: then nothing is compiled that cannot.

    Raises:
        UnavailableError: This release has none of the backends that the target lists.
    """
    if backend != "auto":
        # Refuses an unknown name, with the nearest.
        return list(BACKENDS[backend].builds(device)) or [Build(backend, backend, device)]
    # The reference is the judge; it takes part only where the user asks for it.
    names = [name for name in device.backends if name in BACKENDS and name != "reference"]
    if not names:
        raise UnavailableError(
            f"this release cannot compile for {device.title} yet: it needs {', '.join(device.backends)}",
            where=f"target {device.name}",
            hint="--target cpu compiles and verifies the same model on this machine",
        )
    found = [build for name in names for build in BACKENDS[name].builds(device)]
    return [build for build in found if not _foreign(build)] or found


def _foreign(build: Build) -> str:
    """Why what is compiled so cannot be run on this machine; empty where it can."""
    return BACKENDS[build.backend].foreign(build.target)


def _all_foreign(wanted: Sequence[Build]) -> bool:
    return all(map(_foreign, wanted))


def _title(build: Build) -> str:
    title = BACKENDS[build.backend].title
    return title if build.name == build.backend else f"{title} for {build.target.device.upper()}"


def _check_budget(device: Target, wanted: Sequence[Build], compression: Compression) -> None:
    """Refuse a limit on latency where nothing can be timed.

    Raises:
        UsageError: It is one.
    """
    if compression.budget.max_latency_s is not None and _all_foreign(wanted):
        raise UsageError(
            f"nothing can be timed on this machine for {device.title}: {_foreign(wanted[0])}",
            where="--max-latency-ms",
            hint="edgekit profile BUNDLE on the device",
        )


@dataclass(frozen=True)
class _Model:
    """A model as the user gives it, with what is to stand in front of it and the inputs to judge it on."""

    source: str | Path | torch.nn.Module
    shapes: Mapping[str, str] | None
    weights: Path | None
    trust: bool
    front: Front
    inputs: Mapping[str, Array] | None


def _prepare(
    model: _Model, device: Target, child: Limits
) -> tuple[Graph, Graph, Golden | None, tuple[str, ...]]:
    """The model as a graph before and after all passes, and the source framework's own outputs, if any."""
    original, golden, notes = _take_in(model, child)
    result = run_all(default_passes(device), original, device)
    return original, result.graph, golden, notes + result.notes


def _take_in(model: _Model, child: Limits) -> tuple[Graph, Golden | None, tuple[str, ...]]:
    """The model with what stands in front of it, and the source framework's own outputs, if any."""
    feeds = model.inputs
    if feeds is not None and model.front and not is_onnx(model.source):
        feeds = model.front.run(feeds, time_limit_s=child.time_s)
    loaded = load(
        model.source,
        shapes=model.shapes,
        weights=model.weights,
        trust=model.trust,
        samples=feeds,
        time_limit_s=child.time_s,
    )
    original, notes = model.front.attach(loaded.graph, feeds=model.inputs, time_limit_s=child.time_s)
    return original, loaded.golden, loaded.notes + notes


def _evidence(
    model: _Model, graph: Graph, golden: Golden | None, data: Dataset | None, device: Target, child: Limits
) -> Evidence:
    """Inputs, and what a trusted implementation makes of them. Steps before the network are on both sides.

    ``graph`` is the one before all passes: a pass must not be judged by what it made.
    """
    described = _describe_inputs(model.inputs)
    if model.inputs is not None:
        feeds = samples.check_inputs(graph.given, model.inputs)
    elif data is not None:
        # Numbers that calibration never saw would say little about a quantized network.
        sample = next(iter(data))
        feeds, described = sample.feeds, f"calibration data: {sample.name}"
    elif golden is not None and not model.front:
        feeds = golden.inputs
    else:
        feeds = samples.generate_inputs(graph.given)
    tensors = runtime.run_steps(graph.before, feeds)
    network_feeds = {spec.name: tensors[spec.name] for spec in graph.inputs}
    if golden is not None:
        if model.inputs is None and feeds is not golden.inputs:
            golden = run_torch(
                model.source,
                model.front.run(feeds, time_limit_s=child.time_s) if model.front else feeds,
                weights=model.weights,
                trust=model.trust,
                time_limit_s=child.time_s,
            )
        return Evidence(feeds, golden.outputs, "pytorch", described, network_feeds)
    backend = BACKENDS["reference"]
    (build,) = backend.builds(replace(device, backends=(*device.backends, "reference")))
    compiled = backend.compile(graph, build.target, sample=network_feeds, limits=child)
    made = runtime.run_steps(graph.after, {**tensors, **compiled.outputs})
    expected = {spec.name: made[spec.name] for spec in graph.results}
    return Evidence(feeds, expected, "reference", described, network_feeds)


def plan_build(build: Build, graph: Graph) -> BackendPlan:
    """What would become of a graph that :func:`prepare` gave, in one way; compiles nothing."""
    backend = BACKENDS[build.backend]
    availability = backend.compiler()
    if availability.state != "found":
        return BackendPlan(build.name, "unavailable", availability.reason, availability.hint)
    refusals = backend.refusals(graph, build.target)
    if refusals:
        return BackendPlan(build.name, "refused", "; ".join(map(str, refusals)), refusals[0].hint)
    reason = _foreign(build)
    return BackendPlan(build.name, "compile", f"would not be run here: {reason}" if reason else "")


def _describe(source: str | Path | torch.nn.Module) -> str:
    return str(source) if isinstance(source, (str, Path)) else type(source).__name__


def _describe_inputs(inputs: Mapping[str, Array] | None) -> str:
    return f"given: {', '.join(inputs)}" if inputs else "generated: seed 0"


def name_of(source: str | Path | torch.nn.Module) -> str:
    """``lung`` for ``models/lung.onnx``, ``register3d`` for ``edgekit.zoo.register3d:build``."""
    if isinstance(source, (str, Path)):
        text = str(source)
        return text.partition(":")[0].rpartition(".")[2] if ":" in text else Path(text).stem
    return type(source).__name__.lower()
