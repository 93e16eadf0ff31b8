"""What a backend is, and everything that all of them share.

A backend file holds one subclass of :class:`Backend` with three methods that do the work (``_refusals``,
``_compile``, ``_open``); the base checks, isolates, measures and translates. Adding one is one file plus one
line in :mod:`edgekit.backends`; the contract tests then cover it.
"""

from __future__ import annotations

import abc
import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgekit import isolation, schema
from edgekit.errors import (
    BackendError,
    CompileError,
    EdgekitError,
    InternalError,
    UnavailableError,
    UnsupportedError,
)
from edgekit.graph.graph import Graph
from edgekit.isolation import Limits
from edgekit.registry import Requirement
from edgekit.spec import Array, TensorSpec
from edgekit.target import Target

Options = Mapping[str, "int | float | str | bool"]


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here.

    Attributes:
        state: ``"found"``, ``"missing"`` or ``"broken"`` (installed, but it does not load).
        versions: Installed version of each of its packages.
        reason: Why not, when not found.
        hint: What to type then.
    """

    state: Literal["found", "missing", "broken"]
    versions: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Refusal:
    """One reason why a backend does not take a graph for a target.

    Attributes:
        reason: What it cannot do.
        nodes: Names of the nodes concerned, empty where it is about the whole.
        hint: The way out.
    """

    reason: str
    nodes: tuple[str, ...] = ()
    hint: str = ""

    def __str__(self) -> str:
        at = f" ({', '.join(self.nodes[:5])}{', …' if len(self.nodes) > 5 else ''})" if self.nodes else ""
        return self.reason + at


@dataclass(frozen=True)
class ArtifactInfo:
    """Everything about a compiled network but its bytes; stands in a bundle's manifest.

    Attributes:
        backend: Name of the backend that made it and opens it.
        form: ``"engine"`` is ready to run; ``"portable"`` is finished on the device.
        files: Names of its files.
        inputs: Contracts of the network's inputs, in order.
        outputs: Contracts of the network's outputs, in order.
        target: Name of the target.
        built_with: Version of each package that took part.
        source_digest: SHA-256 of the graph it was compiled from.
        options: The options that were used.
        native: Whether it holds machine code, which is loaded from a verified bundle only.
    """

    backend: str
    form: Literal["engine", "portable"]
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: str
    built_with: dict[str, str]
    source_digest: str
    options: dict[str, int | float | str | bool] = field(default_factory=dict)
    native: bool = False


@dataclass(frozen=True)
class Artifact:
    """A compiled network: what it is, and its files' bytes by name."""

    info: ArtifactInfo
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Compiled:
    """What compiling gave.

    Attributes:
        artifact: The compiled network.
        outputs: Outputs of its first run in the child process, by name.
        compile_s: Seconds that compiling took in the child.
        first_run_s: Seconds that opening and the first run took in the child.
        peak_bytes: Largest resident memory of the child.
        log: What the vendor's library printed.
    """

    artifact: Artifact
    outputs: dict[str, Array]
    compile_s: float
    first_run_s: float
    peak_bytes: int
    log: str


class NetworkSession(abc.ABC):
    """An opened network. Arrays come checked and contiguous, in the order and types of the contract."""

    def __init__(self, info: ArtifactInfo) -> None:
        self.info = info

    @abc.abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, in arrays that the caller owns."""

    def close(self) -> None:
        """Give back what the vendor's library holds. May be called twice."""


class Backend(abc.ABC):
    """One way to compile and run a network. Stateless; one instance serves everybody.

    Attributes:
        name: Name in the registry.
        title: Name that people use.
        requirements: Packages it needs, the one with the runtime first.
        native: Whether its artifacts hold machine code.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    requirements: ClassVar[tuple[Requirement, ...]] = ()
    native: ClassVar[bool] = False

    def available(self, *, load: bool = False) -> Availability:
        """Whether it can be used here. Never raises.

        Args:
            load: Also import the packages, in a child process, to tell a broken one.
        """
        versions = {r.distribution: v for r in self.requirements if (v := r.version())}
        for requirement in self.requirements:
            reason = requirement.missing()
            if reason:
                return Availability("missing", versions, reason, requirement.install_line)
        if load:
            try:
                modules = [r.module for r in self.requirements]
                isolation.run(
                    "edgekit.backends.base:_import_job",
                    modules,
                    limits=Limits(time_s=20.0),
                    what=f"loading {self.title}",
                    error=BackendError,
                )
            except (EdgekitError, InternalError) as error:
                names = " ".join(r.distribution for r in self.requirements)
                reason = str(error).splitlines()[0]
                return Availability("broken", versions, reason, f"pip install --force-reinstall {names}")
        return Availability("found", versions)

    def refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        """Why it would not take the graph for the target; empty when it would. Compiles nothing."""
        reasons = []
        if self.name not in target.backends:
            reasons.append(
                Refusal(
                    f"target {target.name} does not list the backend {self.name}",
                    hint=f"--backend {target.backends[0]}" if target.backends else "choose another target",
                )
            )
        foreign = [node for node in graph.model.graph.all_nodes() if node.domain == "edgekit"]
        if foreign:
            reasons.append(
                Refusal(
                    "operators of domain 'edgekit' inside the network; only at its end they become steps",
                    tuple(f"{node.op_type} {node.name}" for node in foreign),
                    "end the network where the first of them begins",
                )
            )
        return reasons + self._refusals(graph, target)

    def compile(
        self,
        graph: Graph,
        target: Target,
        *,
        sample: Mapping[str, Array],
        options: Options | None = None,
        threads: int = 0,
        limits: Limits = Limits(),
    ) -> Compiled:
        """Compile in a child process and run once there.

        Args:
            graph: The network.
            target: The device.
            sample: One array for each input of the network, for the first run.
            options: Options that replace the target's own ones.
            threads: Threads of the first run; 0 for all.
            limits: Time and memory of the child.

        Raises:
            UnsupportedError: It refuses the graph; the message lists all reasons.
            UnavailableError: A package is missing.
            CompileError: The vendor's compiler refused or crashed.
            LimitError: Time or memory ran out.
        """
        refusals = self.refusals(graph, target)
        if refusals:
            raise UnsupportedError(
                f"{self.title} does not take this model for {target.name}: " + "; ".join(map(str, refusals)),
                where=", ".join(n for r in refusals for n in r.nodes[:3]) or None,
                hint=refusals[0].hint or None,
            )
        missing = self.available()
        if missing.state != "found":
            raise UnavailableError(f"{self.title}: {missing.reason}", where=self.name, hint=missing.hint)
        info = ArtifactInfo(
            backend=self.name,
            form="engine",
            files=(),
            inputs=graph.inputs,
            outputs=graph.outputs,
            target=target.name,
            built_with=missing.versions,
            source_digest=graph.digest(),
            options={**target.options_for(self.name), **(options or {})},
            native=self.native,
        )
        outcome = isolation.run(
            "edgekit.backends.base:_compile_job",
            {
                "backend": f"{type(self).__module__}:{type(self).__qualname__}",
                "target": schema.encode(target),
                "info": schema.encode(info),
                "threads": threads,
            },
            arrays=sample,
            files={"model.onnx": graph.to_bytes()},
            limits=limits,
            what=f"compiling with {self.title}",
            error=CompileError,
        )
        return Compiled(
            artifact=Artifact(replace(info, files=tuple(outcome.files)), outcome.files),
            outputs=outcome.arrays,
            compile_s=outcome.value["compile_s"],
            first_run_s=outcome.value["first_run_s"],
            peak_bytes=outcome.peak_bytes,
            log=outcome.log,
        )

    def open(self, artifact: Artifact, *, threads: int = 0) -> NetworkSession:
        """Load a compiled network into this process.

        Args:
            artifact: From :meth:`compile` or from a verified bundle.
            threads: Threads to use; 0 for all that the process may use.

        Raises:
            UnavailableError: A package is missing.
            SessionError: The vendor's runtime refuses it.
        """
        for requirement in self.requirements:
            requirement.load()
        return self._open(artifact, threads)

    @abc.abstractmethod
    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        """The backend's own reasons."""

    @abc.abstractmethod
    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        """Write the artifact's files into ``out``. Runs in the child; a vendor's exception becomes CompileError."""

    @abc.abstractmethod
    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        """Open it. A vendor's exception becomes SessionError."""


def _import_job(request: isolation.Request) -> tuple[None, dict[str, Array]]:
    """In the child: import packages."""
    for module in request.arguments:
        importlib.import_module(module)
    return None, {}


def _compile_job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: compile, open, run once."""
    arguments = request.arguments
    module, _, name = arguments["backend"].partition(":")
    backend: Backend = getattr(importlib.import_module(module), name)()
    target = schema.decode(Target, arguments["target"], error=CompileError, where="target")
    info = schema.decode(ArtifactInfo, arguments["info"], error=CompileError, where="artifact")
    started = time.perf_counter()
    backend._compile(request.files["model.onnx"], info, target, request.out)
    compiled = time.perf_counter()
    files = {path.name: path.read_bytes() for path in request.out.iterdir()}
    session = backend.open(Artifact(info, files), threads=arguments["threads"])
    outputs = session.run(request.arrays)
    return {"compile_s": compiled - started, "first_run_s": time.perf_counter() - compiled}, outputs
