"""What a backend is, and everything that all of them share.

A backend file holds one subclass of :class:`Backend` with three methods that do the work (``_refusals``,
``_compile``, ``_open``); the base checks, isolates, measures and translates. Adding one is one file plus one
line in :mod:`edgekit.backends`; the contract tests then cover it.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import functools
import hashlib
import importlib
import math
import platform
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgekit import isolation, machine, schema
from edgekit.errors import (
    BackendError,
    CompileError,
    EdgekitError,
    InternalError,
    LimitError,
    SessionError,
    SpecError,
    UnavailableError,
    UnsupportedError,
    UsageError,
    did_you_mean,
)
from edgekit.graph.graph import Graph
from edgekit.graph.opset import DOMAIN
from edgekit.hosts import elf
from edgekit.isolation import Limits
from edgekit.registry import Requirement
from edgekit.spec import Array, TensorSpec
from edgekit.target import DeviceKind, Target

Option = int | float | str | bool
Options = Mapping[str, Option]

_LOAD_LIMITS = Limits(time_s=20.0)
_DEVICES = {"cpu": "processors", "cuda": "graphics processors"}


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
        options: The options that were used, the backend's defaults included.
        native: Whether the network itself is machine code, which is loaded from a verified bundle only.
        library: Name of the file, if any, that holds edgekit's operators as machine code for the backend's
            runtime. It is loaded from a verified bundle only, too.
        name: What it is called among the networks of a bundle; the backend's name where nothing else is said.
        device: What it runs on.
        proven: Whether it was run and compared where it was compiled.
    """

    backend: str
    form: Literal["engine", "portable"]
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: str
    built_with: dict[str, str]
    source_digest: str
    options: dict[str, Option] = field(default_factory=dict)
    native: bool = False
    library: str = ""
    name: str = ""
    device: DeviceKind = "cpu"
    proven: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.backend)

    def member(self, file: str) -> str:
        """The name that one of its files has in a bundle."""
        return f"network/{self.name}/{file}"


@dataclass(frozen=True)
class Artifact:
    """A compiled network: what it is, and its files' bytes by name."""

    info: ArtifactInfo
    files: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(map(len, self.files.values()))


@dataclass(frozen=True)
class Build:
    """One way to compile a network for a target.

    Attributes:
        name: What a network that is compiled so is called in a bundle.
        backend: Name of the backend.
        target: The target; its ``device`` is what the network runs on.
    """

    name: str
    backend: str
    target: Target


@dataclass(frozen=True)
class Compiled:
    """What compiling gave.

    Attributes:
        artifact: The compiled network.
        here: The same network as this machine can run it: with operators of this machine's, or compiled for
            this machine in the place of one that cannot be run here; ``None`` where there is no such thing.
        outputs: Outputs of its first run in the child process, by name; empty where it was not run.
        compile_s: Seconds that compiling took in the child.
        first_run_s: Seconds that opening and the first run took in the child; NaN where it was not run.
        peak_bytes: Largest resident memory of the child.
        log: What the vendor's library printed.
    """

    artifact: Artifact
    here: Artifact | None
    outputs: dict[str, Array]
    compile_s: float
    first_run_s: float
    peak_bytes: int
    log: str


class NetworkSession(abc.ABC):
    """An opened network, for one thread at a time.

    Attributes:
        info: What it was compiled from and for.
    """

    def __init__(self, info: ArtifactInfo) -> None:
        self.info = info

    @abc.abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once.

        Args:
            feeds: One array for each input, by name: of the contract's dtype, of an allowed shape, and
                C-contiguous. The caller has checked that; nothing is checked here.

        Returns:
            The outputs by name, in the contract's order, in arrays that belong to the caller.

        Raises:
            SessionError: The vendor's library failed, or the session is closed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what the vendor's library holds. May be called twice."""

    def closed(self) -> SessionError:
        """The error to raise when the session is used after :meth:`close`."""
        return SessionError("the session is closed", where=self.info.backend, hint="open it again")

    def failed(self, error: Exception) -> SessionError:
        """The error to raise for an exception of the vendor's library."""
        return SessionError(
            f"{self.info.backend} failed while running: {essential(error)}",
            where=", ".join(map(str, self.info.inputs)),
        )


class Backend(abc.ABC):
    """One way to compile and run a network. Stateless; one instance serves everybody.

    Attributes:
        name: Name in the registry.
        title: Name that people use.
        requirements: Packages it needs to open and run, the runtime first.
        options: Its options with their defaults; a default's type is the option's type.
        domains: Operator domains it knows; ``""`` is that of ONNX itself.
        devices: What it compiles for, in order of preference.
        any_target: Whether it runs wherever its packages do, listed by the target or not.
        form: What it compiles to: ``"portable"`` is finished on the device.
        native: Whether its networks are machine code.
        library: Name of the file with edgekit's operators for its runtime, where an artifact holds it.
        library_fits_one_version: Whether that file fits the very version of the runtime it was built for.
        unwanted: Packages that its own ones would import unasked, and that are kept out.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    requirements: ClassVar[tuple[Requirement, ...]] = ()
    options: ClassVar[Options] = {}
    domains: ClassVar[frozenset[str]] = frozenset({""})
    devices: ClassVar[tuple[DeviceKind, ...]] = ("cpu",)
    any_target: ClassVar[bool] = False
    form: ClassVar[Literal["engine", "portable"]] = "engine"
    native: ClassVar[bool] = False
    library: ClassVar[str] = ""
    library_fits_one_version: ClassVar[bool] = False
    unwanted: ClassVar[tuple[str, ...]] = ()

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
        if load and self.requirements:
            try:
                isolation.run(
                    "edgekit.backends.base:_load_job",
                    self._path,
                    limits=_LOAD_LIMITS,
                    what=f"loading {self.title}",
                    error=BackendError,
                )
            except (EdgekitError, InternalError) as error:
                names = " ".join(r.distribution for r in self.requirements)
                # The first line alone: this goes into a table.
                reason = str(getattr(error, "message", error)).splitlines()[0]
                return Availability("broken", versions, reason, f"pip install --force-reinstall {names}")
        return Availability("found", versions)

    def load(self) -> None:
        """Import its packages into this process.

        Raises:
            UnavailableError: One is missing, too old, or broken.
        """
        with kept_out(*self.unwanted):
            for requirement in self.requirements:
                requirement.load()

    def compiler(self) -> Availability:
        """Whether it can compile here; where that takes less than running does, a backend says so."""
        return self.available()

    def load_compiler(self) -> None:
        """Import what compiling takes into this process.

        Raises:
            UnavailableError: It is missing, too old, or broken.
        """
        self.load()

    def builds(self, target: Target) -> tuple[Build, ...]:
        """The ways in which it compiles for a target, in order of preference.

        A device with a graphics processor has another processor beside it, which runs networks too.
        """
        devices = [device for device in self.devices if device in ("cpu", target.device)]
        return tuple(
            Build(
                f"{self.name}-{device}" if len(devices) > 1 else self.name,
                self.name,
                target if device == target.device else _processor_of(target),
            )
            for device in devices
        )

    def foreign(self, target: Target) -> str:
        """Why what it compiles for a target cannot be run on this machine; empty where it can."""
        return ""

    def graph_precision(self, precision: str, build: Build) -> str:
        """The precision of the graph that it takes, where a user asks for one."""
        return precision

    def require_here(self, target: Target) -> None:
        """Refuse a target whose networks cannot be run on this machine, for those who have to run them.

        Raises:
            UnsupportedError: They cannot.
        """
        if reason := self.foreign(target):
            raise UnsupportedError(f"{self.title} for {target.name}: {reason}", where=self.name)

    def stand_in(self, target: Target) -> Target | None:
        """This machine, as the target whose network can be run in the place of a foreign one."""
        return None

    def refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        """Why it would not take the graph for the target; empty when it would. Compiles nothing."""
        if target.device not in self.devices:
            return [
                Refusal(
                    f"{self.title} compiles for {' and '.join(map(_DEVICES.__getitem__, self.devices))}, "
                    f"not for {_DEVICES[target.device]}",
                    hint="--backend auto",
                )
            ]
        reasons = []
        if self.name not in target.backends and not self.any_target:
            reasons.append(
                Refusal(
                    f"target {target.name} does not list the backend {self.name}",
                    hint=f"--backend {target.backends[0]}" if target.backends else "choose another target",
                )
            )
        known = self.domains | {domain for domain, _, _ in graph.model.functions}
        foreign = [node for node in graph.model.graph.all_nodes() if node.domain not in known]
        if foreign:
            domains = ", ".join(sorted({node.domain for node in foreign}))
            reasons.append(
                Refusal(
                    f"operators of a domain it does not know: {domains}",
                    node_names(foreign),
                    "end the network before them: operators of edgekit at its end become steps",
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
        name: str = "",
    ) -> Compiled:
        """Compile in a child process, and run once there if this machine can.

        Args:
            graph: The network.
            target: The device.
            sample: One array for each input of the network, for the first run.
            options: Options that replace the target's own ones.
            threads: Threads of the first run; 0 for all.
            limits: Time and memory of the child.
            name: What it is called in a bundle; the backend's name by default.

        Raises:
            UnsupportedError: It refuses the graph; the message lists all reasons.
            UsageError: An option that the backend does not have, or a value of the wrong type.
            SpecError: The sample does not fit the network's inputs.
            UnavailableError: A package is missing.
            CompileError: The vendor's compiler refused or crashed.
            LimitError: Time, memory or disk ran out.
        """
        chosen = self.choose_options(target, options or {})
        feeds = _check_sample(graph.inputs, sample)
        refusals = self.refusals(graph, target)
        if refusals:
            raise UnsupportedError(
                f"{self.title} does not take this model for {target.name}: " + "; ".join(map(str, refusals)),
                where=", ".join(n for r in refusals for n in r.nodes[:3]) or None,
                hint=refusals[0].hint or None,
            )
        missing = self.compiler()
        if missing.state != "found":
            raise UnavailableError(f"{self.title}: {missing.reason}", where=self.name, hint=missing.hint)
        model = graph.to_bytes()
        foreign = self.foreign(target)
        info = ArtifactInfo(
            backend=self.name,
            form=self.form,
            files=(),
            inputs=graph.inputs,
            outputs=graph.outputs,
            target=target.name,
            built_with=missing.versions,
            source_digest=hashlib.sha256(model).hexdigest(),
            options=chosen,
            native=self.native,
            name=name,
            device=target.device,
            proven=not foreign,
        )
        outcome = isolation.run(
            "edgekit.backends.base:_compile_job",
            {
                "backend": self._path,
                "target": schema.encode(target),
                "info": schema.encode(info),
                "threads": threads,
                "run": not foreign,
            },
            arrays=feeds,
            files={"model.onnx": model},
            limits=limits,
            what=f"compiling with {self.title}",
            error=CompileError,
        )
        artifact, standing = self._artifact(info, outcome.files), None
        if foreign and (stand_in := self.stand_in(target)):
            standing = self.compile(
                graph, stand_in, sample=feeds, threads=threads, limits=limits, name=info.name
            )
        return Compiled(
            artifact=artifact,
            here=standing.here if standing else None if foreign else self.runnable_here(artifact),
            outputs=standing.outputs if standing else outcome.arrays,
            compile_s=outcome.value["compile_s"],
            first_run_s=outcome.value["first_run_s"],
            peak_bytes=outcome.peak_bytes,
            log=outcome.log,
        )

    def build(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> Artifact:
        """Compile in this process, with the packages loaded: what :meth:`compile` does in a child.

        Args:
            model: An ONNX file of a network that the backend does not refuse.
            info: What it is; the names of its files are filled in.
            target: The device.
            out: An empty folder for the artifact's files.

        Raises:
            CompileError: The vendor's compiler refused. It may also take the process with it.
        """
        with translated(
            CompileError, f"{self.title} could not compile the model", hint="try another --backend"
        ):
            try:
                self._compile(model, info, target, out)
            except Exception:
                traceback.print_exc()
                raise
        return self._artifact(info, {path.name: path.read_bytes() for path in sorted(out.iterdir())})

    def _artifact(self, info: ArtifactInfo, files: Mapping[str, bytes]) -> Artifact:
        """What compiling left in its folder."""
        library = self.library if self.library in files else ""
        return Artifact(replace(info, files=tuple(files), library=library), files)

    def notes(self, artifact: Artifact) -> tuple[str, ...]:
        """What a user wants to know of an artifact; it ends up in the bundle's notes."""
        return ()

    def runnable_here(self, artifact: Artifact) -> Artifact:
        """The artifact as the machine that compiles can run it: with its own library of operators.

        The network is the same, and so are the kernels' results.
        """
        name = artifact.info.library
        if not name or elf.arch_of(artifact.files[name][:20]) == platform.machine():
            return artifact
        return replace(artifact, files={**artifact.files, name: self._library_for_here()})

    def _library_for_here(self) -> bytes:
        """This machine's library of operators, for backends that compile for other machines."""
        raise UnavailableError(
            f"{self.title} checks what it compiles for this machine alone", where=self.name
        )

    def open(self, artifact: Artifact, *, threads: int = 0) -> NetworkSession:
        """Load a compiled network into this process.

        Args:
            artifact: From :meth:`compile` or from a verified bundle; its bytes are used as they are, and
                where :attr:`native` is true they are run as machine code.
            threads: Threads to use; 0 for all that the process may use.

        Raises:
            UnavailableError: A package is missing.
            SessionError: The vendor's runtime refuses it.
        """
        self.load()
        missing = [name for name in artifact.info.files if name not in artifact.files]
        if missing:
            raise SessionError(f"the artifact lacks {', '.join(missing)}", where=self.name)
        with translated(SessionError, f"{self.title} could not open the artifact"):
            return self._open(artifact, threads or machine.usable_cores())

    def choose_options(self, target: Target, options: Options) -> dict[str, Option]:
        """The backend's options: its defaults, replaced by the target's, replaced by the given ones.

        Raises:
            UsageError: An option that the backend does not have, or a value of another type.
        """
        chosen = dict(self.options)
        sources = {f"target {target.name}": target.options_for(self.name), "options": options}
        for source, values in sources.items():
            for name, value in values.items():
                if name not in chosen:
                    near = did_you_mean(name, chosen)
                    raise UsageError(
                        f"{self.title} has no option {name!r}: want {', '.join(chosen) or 'none'}",
                        where=source,
                        hint=f"did you mean {near!r}?" if near else None,
                    )
                kind = type(self.options[name])
                if type(value) is not kind:
                    raise UsageError(
                        f"option {name!r} of {self.title}: want {kind.__name__}, got {value!r}", where=source
                    )
                chosen[name] = value
        return chosen

    @property
    def _path(self) -> str:
        """Where a child process finds the class."""
        return f"{type(self).__module__}:{type(self).__qualname__}"

    @abc.abstractmethod
    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        """The backend's own reasons."""

    @abc.abstractmethod
    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        """Write the artifact's files into ``out``.

        Runs in a child process, with the packages loaded. An exception of the vendor may leave it: the
        base makes a CompileError of it.
        """

    @abc.abstractmethod
    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        """Open it with so many threads, from its bytes. The base makes a SessionError of any exception."""


@contextlib.contextmanager
def kept_out(*packages: str) -> Iterator[None]:
    """Make packages look missing while others are imported; what is already loaded stays."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# Sessions may be opened by several threads at once.
_WRITING = threading.Lock()


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Goes with the process."""
    return tempfile.TemporaryDirectory(prefix="edgekit-")


def check_machine(name: str, content: bytes) -> None:
    """Refuse machine code that is not for this machine.

    Raises:
        SessionError: The library is for another architecture.
    """
    arch = elf.arch_of(content[:20])
    if arch != platform.machine():
        raise SessionError(
            f"{name} is machine code for {arch or 'no known system'}, this machine is {platform.machine()}",
            where=name,
            hint="compile the model again with a --target of this architecture",
        )


def as_file(name: str, content: bytes) -> Path:
    """A library's bytes as a file, for loaders that take no bytes; the same bytes are the same file.

    The folder is private: nobody else can put another file there.

    Raises:
        SessionError: The library is for another architecture.
    """
    check_machine(name, content)
    with _WRITING:
        path = Path(_folder().name) / hashlib.sha256(content).hexdigest() / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)  # the same bytes may be there by another name
            path.write_bytes(content)
    return path


def has_own_operators(model: Path) -> bool:
    """Whether an ONNX file has operators of edgekit's."""
    import onnx

    network = onnx.load(model, load_external_data=False)
    return any(entry.domain == DOMAIN for entry in network.opset_import)


def node_names(nodes: Iterable[Any]) -> tuple[str, ...]:
    """What a refusal calls nodes: operator and name."""
    return tuple(f"{node.op_type} {node.name}" for node in nodes)


def essential(error: BaseException) -> str:
    """One line that says what went wrong, out of a vendor's exception.

    A vendor's message is often a stack of C++ frames around one sentence: the first line that is not
    a frame, a path or a banner is taken.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not _NOISE.match(line)]
    text = telling[-1] if telling and lines[0].startswith("Traceback") else next(iter(telling), "")
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__


_NOISE = re.compile(
    r"""Traceback | File\s" | \d+:\s | [~^\s]*$ | \[bt\] | Stack\ trace | -+$
    | Exception\ from\ \S+:\d+:?$ | While\ validating.*:$ | Check\ '.*'\ failed\ at\ \S+$
    | FrontEnd\ API\ failed | Model\ wasn't\ fully\ converted | --\ .*\ with\ a\ message:$
    | Node\ .*\ of\ type\ \S+$""",
    re.VERBOSE,
)


@contextlib.contextmanager
def translated(error: type[EdgekitError], what: str, hint: str | None = None) -> Iterator[None]:
    """Make one of edgekit's errors of any exception that is none."""
    try:
        yield
    except EdgekitError:
        raise
    except MemoryError:
        raise LimitError(f"{what}: out of memory") from None
    except Exception as unknown:
        if isinstance(unknown, OSError) and unknown.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LimitError(f"{what}: {unknown.strerror}") from None
        raise error(f"{what}: {essential(unknown)}", hint=hint) from unknown


def _processor_of(target: Target) -> Target:
    """The device without its graphics processor."""
    return replace(
        target,
        device="cpu",
        compute_capability="",
        gpu=None,
        dla=None,
        power_modes=(),
        peak_ops_per_s={},
        unverified=(),
    )


def _check_sample(inputs: tuple[TensorSpec, ...], sample: Mapping[str, Array]) -> dict[str, Array]:
    if set(sample) != {spec.name for spec in inputs}:
        raise SpecError(
            f"want a sample for {', '.join(spec.name for spec in inputs)}, got {', '.join(sample) or 'none'}",
            where="sample",
        )
    return {spec.name: spec.check(sample[spec.name]) for spec in inputs}


def _backend_at(path: str) -> Backend:
    module, _, name = path.partition(":")
    backend: Backend = getattr(importlib.import_module(module), name)()
    return backend


def _load_job(request: isolation.Request) -> tuple[None, dict[str, Array]]:
    """In the child: import packages."""
    _backend_at(request.arguments).load()
    return None, {}


def _compile_job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: compile, and where that is possible open and run once."""
    arguments = request.arguments
    backend = _backend_at(arguments["backend"])
    target = schema.decode(Target, arguments["target"], error=CompileError, where="target")
    info = schema.decode(ArtifactInfo, arguments["info"], error=CompileError, where="artifact")
    backend.load_compiler()
    started = time.perf_counter()
    artifact = backend.build(request.files["model.onnx"], info, target, request.out)
    compiled = time.perf_counter()
    if not arguments["run"]:
        return {"compile_s": compiled - started, "first_run_s": math.nan}, {}
    artifact = backend.runnable_here(artifact)
    session = backend.open(artifact, threads=arguments["threads"])
    outputs = session.run(request.arrays)
    first_run_s = time.perf_counter() - compiled
    return {"compile_s": compiled - started, "first_run_s": first_run_s}, outputs
