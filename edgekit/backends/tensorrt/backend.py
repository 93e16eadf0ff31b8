"""TensorRT: a portable network with a build plan, and the engine that a device makes of them.

Engines cannot be built for another machine. What is compiled is therefore the portable form, and nothing of
TensorRT is needed for it: the network as ONNX, the plan, the same plan as programs, and the plug-ins. Where
the device itself opens it, the engine is built in place; :mod:`edgekit.finalization` keeps it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from edgekit.backends.base import (
    Artifact,
    ArtifactInfo,
    Availability,
    Backend,
    NetworkSession,
    Options,
    Refusal,
    as_file,
    node_names,
)
from edgekit.backends.tensorrt import builder as builders
from edgekit.backends.tensorrt import plan as plans
from edgekit.backends.tensorrt import plugins, portable, programs, rules, versions
from edgekit.backends.tensorrt.plan import BuildPlan
from edgekit.errors import BackendError, UnavailableError, UnsupportedError, UsageError
from edgekit.graph.graph import Graph
from edgekit.graph.opset import DOMAIN
from edgekit.registry import Requirement
from edgekit.target import Target

QUANTIZATIONS = ("cache", "qdq")
NOTES = "notes.txt"
_IMAGE_RANK = 4
_LOOK = "edgekit check MODEL --target jetson says more"


class _OfJetPack(Requirement):
    """A package that comes with the device's system."""

    @property
    def install_line(self) -> str:
        """What to type to get it."""
        return "sudo apt install python3-libnvinfer"


class Tensorrt(Backend):
    """TensorRT 8.5 to 11."""

    name: ClassVar[str] = "tensorrt"
    title: ClassVar[str] = "TensorRT"
    requirements = (_OfJetPack("tensorrt", "tensorrt", "tensorrt"),)
    options: ClassVar[Options] = {
        "dla_core": plans.NO_DLA,
        "workspace_mib": 0,
        "optimization_level": 3,
        "max_aux_streams": 0,
        "tf32": True,
        "quantization": QUANTIZATIONS[0],
    }
    domains = frozenset({"", DOMAIN})
    devices = ("cuda",)
    form = "portable"
    library = plugins.FILE

    def compiler(self) -> Availability:
        """Found: the portable form wants nothing of TensorRT's."""
        return Availability("found", self.available().versions)

    def load_compiler(self) -> None:
        """Nothing is to be imported."""

    def foreign(self, target: Target) -> str:
        """Why the engine cannot be built here."""
        if self.available().state != "found":
            return "engines are built on the device, and there is no TensorRT here"
        try:
            device = builders.make().device()
        except BackendError as error:
            return error.message
        if device.compute_capability != target.compute_capability:
            return (
                f"its engine is for compute capability {target.compute_capability}, "
                f"here is {device.name} ({device.compute_capability})"
            )
        return ""

    def load(self) -> None:
        """See that TensorRT's package loads.

        Raises:
            UnavailableError: It is missing or broken.
        """
        builders.make()

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        if target.device != "cuda":
            return [Refusal("TensorRT runs on NVIDIA GPUs alone", hint="--target jetson")]
        try:
            version = versions.parse(target.software.get("tensorrt", ""))
        except UsageError as error:
            return [Refusal(error.message)]
        reasons = [*_types(graph), *self._dla_refusals(graph, target, version), *_broken_rules(graph, target)]
        if not reasons:
            try:
                portable.write(graph.edit(), target.software["tensorrt"], **self._form(target))
            except UnsupportedError as error:
                reasons.append(Refusal(error.message, hint=error.hint or ""))
        return reasons

    def _dla_refusals(self, graph: Graph, target: Target, version: versions.Version) -> list[Refusal]:
        if self.choose_options(target, {})["dla_core"] == plans.NO_DLA:
            return []
        reasons = []
        if not versions.has_dla(version):
            reasons.append(
                Refusal(f"TensorRT {target.software['tensorrt']} does not compile for accelerators (DLA)")
            )
        if not graph.is_static:
            reasons.append(Refusal("accelerators (DLA) want fixed shapes", hint="--shape"))
        if any(len(spec.dims) > _IMAGE_RANK for spec in graph.inputs):
            reasons.append(Refusal("accelerators (DLA) compute networks of images, not of volumes"))
        return [replace(one, hint=one.hint or "--option tensorrt.dla_core=-1") for one in reasons]

    def _form(self, target: Target) -> dict[str, bool]:
        """How the portable network is written."""
        options = self.choose_options(target, {})
        if options["quantization"] not in QUANTIZATIONS:
            raise UsageError(
                f"quantization: want {' or '.join(QUANTIZATIONS)}, got {options['quantization']!r}",
                where="option tensorrt.quantization",
            )
        on_dla = options["dla_core"] != plans.NO_DLA
        return {"weakly": on_dla, "calibrated": options["quantization"] == "cache"}

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        target = replace(target, options={**target.options, self.name: dict(info.options)})
        made = portable.write(model, target.software["tensorrt"], **self._form(target))
        options = self.choose_options(target, {})
        del options["quantization"]
        plan = plans.make(
            target,
            info.inputs,
            strongly_typed=made.strongly_typed,
            precisions=made.precisions,
            calibration=plans.CALIBRATION if made.calibration else "",
            layer_precisions=made.layers,
            plugins=plugins.FILE if made.operators else "",
            **options,  # type: ignore[arg-type]
        )
        (out / plan.model).write_bytes(made.model)
        (out / plans.FILE).write_bytes(plan.to_json())
        (out / programs.CPP).write_text(programs.cpp(plan), encoding="utf-8")
        (out / programs.SHELL).write_text(programs.shell(plan), encoding="utf-8")
        if made.calibration:
            (out / plan.calibration).write_bytes(made.calibration)
        if plan.plugins and (reason := plugins.build(target, out / plan.plugins)):
            (out / NOTES).write_text(plugins.missing(target, made.operators, reason) + "\n", encoding="utf-8")

    def notes(self, artifact: Artifact) -> tuple[str, ...]:
        """That plug-ins are missing, and how to make them."""
        return tuple(artifact.files[NOTES].decode().splitlines()) if NOTES in artifact.files else ()

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        builder = builders.make()
        if programs.ENGINE not in artifact.files:
            artifact = with_engine(artifact, build_here(builder, artifact).engine)
        return builder.open(artifact.files[programs.ENGINE], artifact.info, plugin_file(artifact))


def plan_of(artifact: Artifact) -> BuildPlan:
    """The build plan of a portable artifact.

    Raises:
        CorruptError: It is damaged.
    """
    return BuildPlan.from_json(artifact.files[plans.FILE])


def plugin_file(artifact: Artifact) -> Path | None:
    """The library with edgekit's operators as a file, if the network needs it.

    Raises:
        UnavailableError: It needs it, and the artifact does not hold it.
        SessionError: It is for another architecture.
    """
    name = plan_of(artifact).plugins
    if not name:
        return None
    if name not in artifact.files:
        raise UnavailableError(
            f"the network needs plug-ins, and {name} is not with it",
            where=artifact.info.backend,
            hint=f"python -m edgekit.hosts.tensorrt -o {name}, then edgekit finalize BUNDLE --plugins {name}",
        )
    return as_file(name, artifact.files[name])


def with_engine(artifact: Artifact, engine: bytes) -> Artifact:
    """The artifact with the engine that was built of it."""
    files = {**artifact.files, programs.ENGINE: engine}
    return Artifact(replace(artifact.info, form="engine", files=tuple(files)), files)


def build_here(
    builder: builders.Builder,
    artifact: Artifact,
    *,
    timing_cache: bytes = b"",
    report: builders.Report = lambda phase, done, total: None,
) -> builders.Built:
    """Build the engine of a portable artifact on this machine.

    Raises:
        EdgekitError: As :meth:`~edgekit.backends.tensorrt.builder.Builder.build`.
    """
    plan = plan_of(artifact).on(builder.version)
    library = plugin_file(artifact)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as place:
        folder = Path(place)
        for name in (plan.model, plan.calibration):
            if name:
                (folder / name).write_bytes(artifact.files[name])
        if library:
            plan = replace(plan, plugins=str(library))
        return builder.build(plan, folder, timing_cache, report)


def _types(graph: Graph) -> list[Refusal]:
    """Types that TensorRT does not compute in, and interfaces that version 8 cannot have."""
    import onnx_ir as ir

    double = [
        node
        for node in graph.model.graph.all_nodes()
        if any(value.dtype == ir.DataType.DOUBLE for value in node.outputs)
    ]
    if double:
        return [Refusal("operators in float64", node_names(double), "export the model in float32")]
    return []


def _broken_rules(graph: Graph, target: Target) -> list[Refusal]:
    """What the rules say that this version does not build, a line for each rule."""
    found: dict[rules.Finding, list[str]] = {}
    for finding in rules.verdict(graph, target.software["tensorrt"]):
        if finding.severity == "refused":
            found.setdefault(replace(finding, node=""), []).append(finding.node)
    return [
        Refusal(rule.reason, tuple(filter(None, nodes)), rule.rewrite or _LOOK)
        for rule, nodes in found.items()
    ]


BACKEND = Tensorrt()
