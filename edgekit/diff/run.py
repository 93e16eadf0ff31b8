"""From a model and a bundle to the first layer that they do not agree on."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgekit import runtime, samples
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact
from edgekit.bundle import Bundle
from edgekit.diff import part as parts
from edgekit.diff import search
from edgekit.diff.lab import Lab, Setup, snr
from edgekit.diff.report import DiffReport, Probed
from edgekit.errors import MismatchError, SpecError, UsageError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.isolation import Limits
from edgekit.spec import Array, format_dims
from edgekit.target import Target

Observer = Callable[[str], None]

# What a graph of this kind keeps when its backend computes it right: rounding is all that is lost.
_THRESHOLDS_DB = {"float32": 60.0, "float16": 40.0, "int8": 20.0}
# Two compilations of one graph round alike.
_SAME_DB = 60.0


@dataclass(frozen=True)
class Found:
    """What :func:`diff` found.

    Attributes:
        report: All of it.
        files: The smallest part that diverges, as files by name: ``part.onnx``, its inputs and what it should
            make of them as ``.npy``, and the report as ``report.json``.
    """

    report: DiffReport
    files: Mapping[str, bytes] = field(default_factory=dict)


def diff(
    reference: Graph,
    bundle: Bundle,
    *,
    feeds: Mapping[str, Array] | None = None,
    described: str = "generated: seed 0",
    graph: Path | None = None,
    target: Target | None = None,
    min_snr_db: float | None = None,
    marks: int = 2,
    network: str = "",
    threads: int = 0,
    limits: Limits = Limits(),
    on_event: Observer = lambda event: None,
) -> Found:
    """Find the first value that the bundle's network computes otherwise than the reference.

    The reference is computed literally (:mod:`edgekit.probe`). First the bundle's own network runs; then the
    graph that it was compiled from is compiled again with a few inner values as further outputs, in
    bisection. That graph is the file ``graph`` where one is given; else the ONNX file in the bundle, where
    its backend keeps one; else the reference, where the bundle was compiled from it.

    Args:
        reference: The model after the passes of compiling; its values are right.
        bundle: The bundle.
        feeds: The bundle's inputs by name; seeded generated ones of the smallest shapes otherwise.
        described: Where they come from, for the report.
        graph: The ONNX file that the bundle was compiled from.
        target: What the bundle was compiled for, where its name does not say.
        min_snr_db: Values below this signal-to-noise ratio diverge; by default 60 dB, 40 where the graph
            computes in float16, 20 where it is quantized.
        marks: Values asked for in one compilation.
        network: Which of the bundle's networks; the one that it prefers by default.
        threads: Threads to use; 0 for all.
        limits: Of each compilation.
        on_event: Called with one line before each compilation.

    Raises:
        MismatchError: The graph that the bundle was compiled from is not known.
        UsageError: The bundle has no network of that name.
        SpecError: Inputs that do not fit, or a model with other inputs or outputs than the bundle's network.
        UnsupportedError: The network cannot be run on this machine.
        EdgekitError: As compiling and opening.
    """
    if marks < 1:
        raise UsageError(f"want at least one value in a compilation, got {marks}")
    manifest = bundle.manifest
    artifact = bundle.artifact(manifest.named(network)) if network else bundle.network
    backend = BACKENDS[artifact.info.backend]
    notes: list[str] = []
    compiled = _compiled_graph(reference, artifact, graph, notes)
    _require_same_interface(reference, compiled)
    given = samples.generate_inputs(manifest.inputs) if feeds is None else feeds
    tensors = runtime.run_steps(
        manifest.before, samples.check_inputs(manifest.inputs, given), threads=threads
    )
    network_feeds = {spec.name: spec.check(tensors[spec.name]) for spec in artifact.info.inputs}
    device = replace(target or targets.find(manifest.target), device=artifact.info.device)
    backend.require_here(device)
    setup = Setup(backend, device, artifact.info.options, network_feeds, limits, threads)
    lab = Lab(reference, compiled, setup)
    threshold_db = _threshold_db(compiled) if min_snr_db is None else min_snr_db

    on_event("run the bundle's network")
    right = lab.expected([spec.name for spec in compiled.outputs])
    own = _run_artifact(artifact, network_feeds, threads)
    theirs = {name: snr(right[name], own[name]) for name in right}
    on_event(f"compile with {backend.title}")
    fresh = lab.setup.run(compiled, network_feeds)
    lab.compilations += 1
    outputs = {name: snr(right[name], fresh[name]) for name in right}
    for name in right:
        same_db = snr(fresh[name], own[name])
        if not same_db >= _SAME_DB:
            notes.append(
                f"output {name!r} of the bundle's network agrees with a fresh compilation to {same_db:.4g} "
                "dB only: the bundle was damaged, or made with another version"
            )
    report = DiffReport(
        artifact.info.backend, device.name, described, threshold_db, theirs, outputs, notes=tuple(notes)
    )
    wrong = [name for name, snr_db in outputs.items() if not snr_db >= threshold_db]
    if not wrong:
        return Found(replace(report, compilations=lab.compilations))
    return _locate(lab, min(wrong, key=lambda n: len(_all_before(lab, n))), report, marks, on_event)


def _locate(lab: Lab, output: str, report: DiffReport, marks: int, on_event: Observer) -> Found:
    """The report with what makes an output wrong."""
    first, remarks = search.first(lab, output, report.threshold_db, marks=marks, on_event=on_event)
    report = replace(report, first=first, notes=(*report.notes, *remarks))
    files: dict[str, bytes] = {}
    if first is not None:
        worst = first
        if first.loss_db < search.GRADUAL_DB:
            steepest = search.steepest(lab, output, on_event=on_event)
            report, worst = replace(report, steepest=steepest), steepest or first
        found, graph, feeds = parts.smallest(lab, first.value, report.threshold_db, on_event=on_event)
        report = replace(report, part=found)
        files = _as_files(graph, feeds, found.output, lab.expected([found.output])[found.output])
        if not found.reproduces and worst is not first:
            note = f"the loss adds up: the steepest, {worst.loss_db:.3g} dB, is at {worst.value!r}"
            report = replace(report, notes=(*report.notes, note))
    probed = tuple(Probed(n, lab.title(n), lab.snr_db[n]) for n in lab.values if n in lab.snr_db)
    report = replace(report, probed=probed, compilations=lab.compilations)
    files["report.json"] = (json.dumps(report.as_dict(), indent=1) + "\n").encode()
    return Found(report, files)


def _compiled_graph(reference: Graph, artifact: Artifact, file: Path | None, notes: list[str]) -> Graph:
    """The graph that the artifact was compiled from."""
    digest = artifact.info.source_digest
    shapes = {spec.name: format_dims(spec.dims) for spec in artifact.info.inputs}
    own = next((name for name in artifact.files if name.endswith(".onnx")), None)
    if file is not None:
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise MismatchError(
                "the bundle was not compiled from this graph: its SHA-256 is another one", where=str(file)
            )
        return load(file, shapes=shapes).graph
    if own is not None:
        content = artifact.files[own]
        if reference.digest() == hashlib.sha256(content).hexdigest():
            return reference
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(content)
            found = load(path, shapes=shapes).graph
        notes.append(
            "the bundle's network is another graph than the model gives; values of one name are compared"
        )
        return found
    if reference.digest() != digest:
        raise MismatchError(
            "the model does not give the graph that the bundle was compiled from, nor is it in the bundle",
            where=artifact.info.backend,
            hint="give the same --weights and --before as when compiling, or the graph itself: --graph FILE",
        )
    return reference


def _require_same_interface(reference: Graph, compiled: Graph) -> None:
    for kind in ("inputs", "outputs"):
        want, got = ([spec.name for spec in getattr(graph, kind)] for graph in (compiled, reference))
        if sorted(want) != sorted(got):
            raise SpecError(
                f"the model's network has other {kind} than the bundle's: want {', '.join(want)}, got "
                f"{', '.join(got)}",
                where="model",
                hint="give the model that the bundle was compiled from",
            )


def _threshold_db(graph: Graph) -> float:
    """What the kind of the graph promises."""
    operators = {node.op_type for node in graph.model.graph.all_nodes()}
    if operators & {"QuantizeLinear", "QLinearConv"}:
        return _THRESHOLDS_DB["int8"]
    return _THRESHOLDS_DB["float16" if values.computes_in_half(graph) else "float32"]


def _run_artifact(artifact: Artifact, feeds: Mapping[str, Array], threads: int) -> dict[str, Array]:
    backend = BACKENDS[artifact.info.backend]
    session = backend.open(backend.runnable_here(artifact), threads=threads)
    try:
        return session.run(feeds)
    finally:
        session.close()


def _all_before(lab: Lab, output: str) -> set[str]:
    return {name for near in lab.made_of(output) for name in lab.ancestors(near)}


def _as_files(graph: Graph, feeds: Mapping[str, Array], output: str, right: Array) -> dict[str, bytes]:
    files = {"part.onnx": graph.to_bytes()}
    for name, array in feeds.items():
        files[f"input-{_plain(name)}.npy"] = _npy(array)
    files[f"expected-{_plain(output)}.npy"] = _npy(right)
    return files


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name)[:80] or "value"


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
