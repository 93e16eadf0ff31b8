"""Open a bundle and run it: checks, network, steps. This is all that a device needs.

It loads NumPy, edgekit's own kernels where steps use them, and the runtime of one vendor.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit import machine
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo, Backend, NetworkSession
from edgekit.bundle import Bundle, Manifest, read
from edgekit.errors import (
    EdgekitError,
    MismatchError,
    SessionError,
    SpecError,
    UnavailableError,
    did_you_mean,
)
from edgekit.spec import Array, Dim, Step, TensorSpec, all_finite, format_dims
from edgekit.steps import STEPS
from edgekit.steps.base import Option, StepKind

# A name for the profile, and what adds its tensors to those that there are.
_Stage = tuple[str, Callable[[dict[str, Array]], None]]


def open(source: str | os.PathLike[str] | Bundle, *, network: str = "", threads: int = 0) -> Session:
    """Open a bundle for running.

    Of its networks the first one is opened that fits this machine and whose runtime is there. Which one that
    is, and why those before it were not, the session tells.

    Args:
        source: Path of an ``.ekb`` file, or a bundle in memory.
        network: Name of the network to open, and no other.
        threads: Threads to use; 0 for all that the process may use.

    Raises:
        BundleError: The file is damaged, of another version, or for another machine or software.
        UnavailableError: The vendor's runtime is missing.
        SessionError: The vendor's runtime refuses the network.
        UsageError: The bundle has no network of that name.
    """
    started = time.perf_counter()
    path = None if isinstance(source, Bundle) else Path(source)
    bundle = source if isinstance(source, Bundle) else read(Path(source))
    where = str(path or bundle.manifest.name)
    manifest = bundle.manifest
    wanted = (manifest.named(network),) if network else manifest.networks
    steps = _bind((*manifest.before, *manifest.after), threads)
    opened, passed_over = _first(bundle, wanted, where, path, threads)
    return Session(manifest, opened, steps, threads=threads, started=started, passed_over=passed_over)


def _first(
    bundle: Bundle, wanted: Sequence[ArtifactInfo], where: str, path: Path | None, threads: int
) -> tuple[NetworkSession, dict[str, str]]:
    """The first network that runs here, and why those before it do not, by name."""
    reasons: dict[str, str] = {}
    errors: list[EdgekitError] = []
    for info in wanted:
        try:
            backend = _backend(bundle.manifest, info, where)
            artifact = bundle.artifact(info)
            if info.form == backend.form == "portable":
                artifact = _finished(artifact, path)
            return backend.open(artifact, threads=threads), reasons
        except (MismatchError, UnavailableError) as error:
            errors.append(error)
            reasons[info.name] = error.message.splitlines()[0]
    if len(errors) == 1:
        raise errors[0]
    lines = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
    missing = all(isinstance(error, UnavailableError) for error in errors)
    raise (UnavailableError if missing else MismatchError)(
        f"none of the bundle's networks runs here{lines}", where=where, hint=errors[0].hint
    )


def _finished(artifact: Artifact, path: Path | None) -> Artifact:
    """A network that is finished on its device, with what the device made of it.

    A bundle in memory has no place where that is kept: opening finishes the network.
    """
    if path is None:
        return artifact
    from edgekit import engines  # for such networks alone

    return engines.finished(path, artifact)


def run_steps(steps: Sequence[Step], tensors: Mapping[str, Array], *, threads: int = 0) -> dict[str, Array]:
    """All tensors by name when the steps have run: the given ones and those that the steps make."""
    tensors = dict(tensors)
    for _, do_step in _bind(steps, threads):
        do_step(tensors)
    return tensors


class Session:
    """An opened bundle; a context manager. Several threads may share it: their runs follow one another.

    Attributes:
        manifest: The bundle's manifest.
        threads: Threads that it was opened with; 0 for all.
        load_s: Seconds that opening took: reading, verifying, loading into the vendor's runtime.
        passed_over: Why networks that the bundle prefers do not run here, by name.
    """

    def __init__(
        self,
        manifest: Manifest,
        network: NetworkSession,
        steps: list[_Stage],
        *,
        threads: int,
        started: float,
        passed_over: Mapping[str, str],
    ) -> None:
        self.manifest = manifest
        self.threads = threads
        self.passed_over = dict(passed_over)
        self._info = network.info
        self._network: NetworkSession | None = network
        before, after = steps[: len(manifest.before)], steps[len(manifest.before) :]
        self._stages: list[_Stage] = [*_checked(before, manifest), ("network", self._compute), *after]
        self._lock = threading.Lock()
        self._inputs = {spec.name: spec for spec in manifest.inputs}
        self._feeds = [spec.name for spec in manifest.network.inputs]
        self._ties = _ties(manifest.inputs)
        self.load_s = time.perf_counter() - started

    @property
    def network_name(self) -> str:
        """Which of the bundle's networks runs."""
        return self._info.name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Contracts of what :meth:`run` takes, in order."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Contracts of what :meth:`run` returns, in order."""
        return self.manifest.results

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that take part in a run, for the record of a measurement."""
        return tuple(self._info.built_with)

    def run(self, inputs: Mapping[str, Array], *, stages: dict[str, float] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: One array for each input, by name.
            stages: Filled with the seconds of each stage: ``"check"``, ``"network"``, each step by its
                name, and ``"results"``.

        Returns:
            The results by name, in order, in arrays that the caller owns.

        Raises:
            SpecError: A missing or unknown name, or an array that does not fit its contract: a given one, or
                what a step before the network made of it.
            SessionError: The session is closed, the vendor's runtime failed, or a result is not what the
                contract promises (NaN and infinity included).
        """
        with self._lock:
            if self._network is None:
                raise SessionError(
                    "the session is closed", where=self.manifest.name, hint="open the bundle again"
                )
            if stages is not None:
                return self._run_timed(inputs, stages)
            tensors = self._accept(inputs)
            for _, do_stage in self._stages:
                do_stage(tensors)
            return self._deliver(tensors)

    def close(self) -> None:
        """Give back what the vendor's runtime holds. May be called twice."""
        with self._lock:
            if self._network is not None:
                self._network.close()
                self._network = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_timed(self, inputs: Mapping[str, Array], stages: dict[str, float]) -> dict[str, Array]:
        # Apart from `run`, because reading the clock costs a tenth of all that `run` adds to the network.
        began = time.perf_counter()
        tensors = self._accept(inputs)
        stages["check"] = time.perf_counter() - began
        for title, do_stage in self._stages:
            began = time.perf_counter()
            do_stage(tensors)
            stages[title] = time.perf_counter() - began
        began = time.perf_counter()
        results = self._deliver(tensors)
        stages["results"] = time.perf_counter() - began
        return results

    def _accept(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs, checked, in the contract's order."""
        # A dict is told apart at a fraction of the cost of other mappings.
        if not isinstance(inputs, dict) and not isinstance(inputs, Mapping):
            names = ", ".join(f"{name!r}: array" for name in self._inputs)
            raise SpecError(
                f"want a mapping of names to arrays, got {type(inputs).__name__}",
                where=self.manifest.name,
                hint=f"run({{{names}}})",
            )
        if inputs.keys() != self._inputs.keys():
            raise self._wrong_names(inputs)
        arrays = {name: spec.check(inputs[name]) for name, spec in self._inputs.items()}
        for first, *others in self._ties:
            name, axis = first
            for other, other_axis in others:
                if arrays[other].shape[other_axis] != arrays[name].shape[axis]:
                    raise SpecError(
                        f"axis {other_axis} of {other!r} wants the length that axis {axis} of {name!r} has: "
                        f"got {format_dims(arrays[other].shape)} and {format_dims(arrays[name].shape)}",
                        where=f"tensor {other!r}",
                        hint="crop or pad both images to one grid",
                    )
        return arrays

    def _wrong_names(self, inputs: Mapping[str, Array]) -> SpecError:
        missing = [name for name in self._inputs if name not in inputs]
        unknown = [str(name) for name in inputs if name not in self._inputs]
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"unknown {', '.join(unknown)}"] if unknown else []
        near = did_you_mean(unknown[0], missing or self._inputs) if unknown else None
        return SpecError(
            f"wrong inputs: {'; '.join(parts)}: want {', '.join(self._inputs)}",
            where=self.manifest.name,
            hint=f"did you mean {near!r}?" if near else None,
        )

    def _compute(self, tensors: dict[str, Array]) -> None:
        assert self._network is not None
        tensors.update(self._network.run({name: tensors[name] for name in self._feeds}))

    def _deliver(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The results, checked, in the contract's order."""
        results = {}
        for spec in self.manifest.results:
            array = results[spec.name] = tensors[spec.name]
            if array.dtype != spec.numpy_dtype or not spec.fits(array.shape):
                raise SessionError(
                    f"the result is not what the bundle promises: want {spec}, "
                    f"got {array.dtype} {format_dims(array.shape)}",
                    where=f"result {spec.name!r}",
                )
            if not all_finite(array):
                raise SessionError(
                    f"the result of {self._info.backend} holds NaN or infinity, and no input does",
                    where=f"result {spec.name!r}",
                    hint="check the unit and the range of the input's values",
                )
        return results


def _bind(steps: Sequence[Step], threads: int) -> list[_Stage]:
    """Steps as functions, looked up and checked once, so that running them costs their own work."""
    bound: list[_Stage] = []
    repeats = Counter[str]()
    for step in steps:
        kind = STEPS[step.op]
        repeats[step.op] += 1
        title = step.op if repeats[step.op] == 1 else f"{step.op} {repeats[step.op]}"
        bound.append((title, partial(_do_step, step, kind, kind.options(step), threads)))
    return bound


def _do_step(
    step: Step, kind: StepKind, options: Mapping[str, Option], threads: int, tensors: dict[str, Array]
) -> None:
    """Add the tensors that the step makes."""
    arrays = kind.run(tuple(tensors[name] for name in step.inputs), options, threads)
    tensors.update(zip(step.outputs, arrays, strict=True))


def _checked(before: Sequence[_Stage], manifest: Manifest) -> list[_Stage]:
    """The stages before the network, each with a look at what it hands to the network."""
    unseen = {spec.name: spec for spec in manifest.network.inputs}
    stages: list[_Stage] = []
    for (title, do_step), step in reversed(list(zip(before, manifest.before, strict=True))):
        # Of several steps that make a tensor the last one's is the network's.
        specs = tuple(unseen.pop(name) for name in step.outputs if name in unseen)
        stages.append((title, partial(_do_checked, step, do_step, specs)))
    return stages[::-1]


def _do_checked(
    step: Step,
    do_step: Callable[[dict[str, Array]], None],
    specs: tuple[TensorSpec, ...],
    tensors: dict[str, Array],
) -> None:
    do_step(tensors)
    for spec in specs:
        try:
            tensors[spec.name] = spec.check(tensors[spec.name])
        except SpecError as error:
            raise SpecError(
                f"what a step before the network made does not fit the network: {error.message}",
                where=str(step),
                hint="check the unit and the range of the input's values, and the step's options",
            ) from None


def _backend(manifest: Manifest, network: ArtifactInfo, where: str) -> Backend:
    """The backend that opens a network, if this machine and its software are what the network needs.

    A network of machine code wants the architecture, the instruction set extensions and the very version that
    it was compiled with. A library of operators wants the architecture, and may want that version. Everything
    else wants that version or a newer one.
    """
    if network.backend not in BACKENDS:
        raise MismatchError(
            f"the bundle needs the backend {network.backend!r}, which this edgekit does not have",
            where=where,
            hint=f"pip install 'edgekit>={manifest.edgekit}'",
        )
    _check_processor(manifest, network, where)
    backend = BACKENDS[network.backend]
    exact = network.native or bool(network.library and backend.library_fits_one_version)
    for requirement in backend.requirements:
        built = network.built_with.get(requirement.distribution)
        found = requirement.version()
        if built is None or found is None or found == built:
            continue
        older = replace(requirement, minimum=built).missing() is not None
        if exact or older:
            relation = "==" if exact else ">="
            raise MismatchError(
                f"the bundle was compiled with {requirement.distribution} {built}, here is {found}",
                where=where,
                hint=f"pip install '{requirement.distribution}{relation}{built}'",
            )
    return backend


def _check_processor(manifest: Manifest, network: ArtifactInfo, where: str) -> None:
    if not (network.native or network.library):
        return
    here = machine.record()
    if here.arch != manifest.arch:
        raise MismatchError(
            f"the bundle holds machine code for {manifest.arch}, this machine is {here.arch}",
            where=where,
            hint="compile it for a target of this architecture",
        )
    # A library chooses among instruction sets when it runs.
    lacking = [name for name in manifest.cpu_features if network.native and name not in here.features]
    if lacking and here.features:  # a system that tells no features cannot be judged by them
        raise MismatchError(
            f"the bundle's machine code may use {', '.join(lacking)}, which this processor does not have",
            where=where,
            hint="edgekit targets lists targets for other processors",
        )


def _ties(specs: Sequence[TensorSpec]) -> list[list[tuple[str, int]]]:
    """Axes of inputs that have one length in a run: those with the same letter and the same range."""
    groups: dict[tuple[str | int, Dim], list[tuple[str, int]]] = {}
    for spec in specs:
        for axis, length in enumerate(spec.dims):
            if isinstance(length, Dim):
                letter = spec.layout[axis] if spec.layout else axis
                groups.setdefault((letter, length), []).append((spec.name, axis))
    return [group for group in groups.values() if len(group) > 1]
