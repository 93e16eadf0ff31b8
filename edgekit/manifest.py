"""The manifest of a bundle: everything about it but its members, and the one text of that."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from edgekit import golden, schema, steps
from edgekit.backends.base import ArtifactInfo
from edgekit.dataset import DatasetRecord
from edgekit.errors import CorruptError, SignatureError, SpecError, UsageError, VersionError, did_you_mean
from edgekit.golden import GoldenRecord
from edgekit.reports import LATER, AccuracyReport, Candidate, LatencyReport, LayerReport, TaskReport
from edgekit.spec import Step, TensorSpec

FORMAT = 1
FILE = "manifest.json"

_MAX_STEPS = 256
_MAX_NETWORKS = 8
_MAX_MEMBERS = 64
_MAX_NESTING = 32
_MAX_DIGITS = 19
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_NAME = 100
_NETWORK_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_NETWORK_NAME = 40


@dataclass(frozen=True)
class Member:
    """A file in the bundle beside the manifest: its SHA-256 in hexadecimal, and its size."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256) or self.size_bytes < 0:
            raise CorruptError("a member wants a SHA-256 of 64 lower-case hexadecimal digits and a size >= 0")

    @classmethod
    def of(cls, content: bytes) -> Member:
        """The member with this content."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle but the bytes of its members; the first file in it.

    Attributes:
        format: Version of the format.
        name: Name of the model.
        edgekit: Version of edgekit that wrote it.
        target: Name of the target.
        arch: Instruction set architecture that machine code in it is for.
        inputs: Contracts of what a caller gives, in order.
        results: Contracts of what a caller gets, in order.
        networks: The compiled networks, in order of preference: a device opens the first one that it can run.
            They are one network, compiled in several ways: inputs and outputs are the same.
        members: Every file beside the manifest, by name.
        cpu_features: Instruction set extensions that machine code in it may use.
        intended_use: The user's own words on what it is for.
        before: Steps before the network, in order.
        after: Steps after the network, in order.
        history: What was done to the model, in order.
        notes: What a user wants to know of that.
        accuracy: How near the results are to the reference's.
        candidates: The backends that were considered.
        latency: How fast it was where it was compiled.
        precision: What its layers compute in: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"`` or
            ``"mixed"``.
        calibration: The data that the ranges of its values come from.
        layers: What compression did to each layer.
        task: What became of the task on labelled cases.
        golden: The case with which a device proves a network that was not run where it was compiled.
        signature: Reserved: this version writes none and accepts none.
    """

    format: int
    name: str
    edgekit: str
    target: str
    arch: str
    inputs: tuple[TensorSpec, ...]
    results: tuple[TensorSpec, ...]
    networks: tuple[ArtifactInfo, ...]
    members: dict[str, Member]
    cpu_features: tuple[str, ...] = ()
    intended_use: str = ""
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    history: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    accuracy: AccuracyReport | None = None
    candidates: tuple[Candidate, ...] = ()
    latency: LatencyReport | None = None
    precision: str = field(default="float32", metadata=LATER)
    calibration: DatasetRecord | None = None
    layers: tuple[LayerReport, ...] = ()
    task: TaskReport | None = None
    golden: GoldenRecord | None = None
    signature: str = ""

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise CorruptError(f"want format {FORMAT}, got {self.format}")
        self._check_networks()
        self._check_members()
        if len(self.before) + len(self.after) > _MAX_STEPS:
            raise CorruptError(f"want at most {_MAX_STEPS} steps, got {len(self.before) + len(self.after)}")
        for kind, specs in (
            ("inputs", self.inputs),
            ("results", self.results),
            ("the network's inputs", self.network.inputs),
            ("the network's outputs", self.network.outputs),
        ):
            if not specs or len({spec.name for spec in specs}) != len(specs):
                raise CorruptError(f"{kind} want one or more different names")
        given = {spec.name: (spec.dtype, spec.dims) for spec in self.inputs}
        # What steps make of them is looked at with the steps: this imports none.
        made = {name for step in self.before for name in step.outputs}
        for spec in self.network.inputs:
            if spec.name not in made and given.get(spec.name) != (spec.dtype, spec.dims):
                raise CorruptError(f"the network's input {spec} is not among the bundle's inputs")

    def _check_networks(self) -> None:
        if not 1 <= len(self.networks) <= _MAX_NETWORKS:
            raise CorruptError(f"want 1 to {_MAX_NETWORKS} networks, got {len(self.networks)}")
        names = [network.name for network in self.networks]
        for name in names:
            if len(name) > _MAX_NETWORK_NAME or not _NETWORK_NAME.fullmatch(name):
                raise CorruptError(
                    f"{name[:120]!r} is no name for a network: want lower-case letters, digits and single '-'"
                )
        if len(set(names)) != len(names):
            raise CorruptError(f"want different names for the networks, got {', '.join(names)}")
        for network in self.networks:
            if self.target != network.target:
                raise CorruptError(f"the network is for {network.target!r}, the bundle for {self.target!r}")
            if (network.inputs, network.outputs) != (self.network.inputs, self.network.outputs):
                raise CorruptError(
                    f"the networks {names[0]} and {network.name} want the same inputs and outputs"
                )

    def _check_members(self) -> None:
        for network in self.networks:
            if network.library and network.library not in network.files:
                raise CorruptError(f"the library {network.library[:120]!r} is none of the network's files")
            for name in network.files:
                if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
                    raise CorruptError(
                        f"{name[:120]!r} is no name for a member: want letters, digits, '_', '-' and dots"
                    )
        files = [network.member(name) for network in self.networks for name in network.files]
        if self.golden is not None:
            files += [name for name, _ in golden.contracts(self.inputs, self.results)]
        if sorted(files) != sorted(self.members):
            raise CorruptError(
                f"the networks' files want to be the members: want {', '.join(sorted(files)) or 'none'}, "
                f"got {', '.join(sorted(self.members)) or 'none'}"
            )
        if len({name.lower() for name in files}) != len(files) or len(files) > _MAX_MEMBERS:
            raise CorruptError(f"want at most {_MAX_MEMBERS} members whose names differ in more than case")

    @property
    def network(self) -> ArtifactInfo:
        """The network that is preferred."""
        return self.networks[0]

    def named(self, name: str) -> ArtifactInfo:
        """One of the networks.

        Raises:
            UsageError: There is none of this name.
        """
        for network in self.networks:
            if network.name == name:
                return network
        names = [network.name for network in self.networks]
        near = did_you_mean(name, names)
        raise UsageError(
            f"the bundle has no network {name!r}: want one of {', '.join(names)}",
            where=self.name,
            hint=f"did you mean {near!r}?" if near else None,
        )

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest's bytes, in hexadecimal: it stands for the whole bundle."""
        return hashlib.sha256(encode(self)).hexdigest()


def check_steps(manifest: Manifest) -> None:
    """Refuse steps that do not lead from the inputs to the network, and from there to the results."""
    network = manifest.network
    try:
        given = steps.infer(manifest.before, {spec.name: spec for spec in manifest.inputs}, in_place=True)
        for want in network.inputs:
            got = given[want.name]
            if (got.dtype, got.dims) != (want.dtype, want.dims):
                raise CorruptError(f"the network's input is described as {want}, the steps make {got}")
        known = {**given, **{spec.name: spec for spec in network.outputs}}
        if len(known) != len(given) + len(network.outputs):
            raise CorruptError("want different names for the inputs and the network's outputs")
        made = steps.infer(manifest.after, known)
    except (SpecError, UsageError) as error:
        raise CorruptError(error.message, where=error.where, hint=error.hint) from None
    for result in manifest.results:
        spec = made.get(result.name)
        if spec is None or result.name in given:
            raise CorruptError(f"neither the network nor a step makes the result {result.name!r}")
        if (spec.dtype, spec.dims) != (result.dtype, result.dims):
            raise CorruptError(f"the result is described as {result}, the steps make {spec}")


# ── the manifest as bytes ─────────────────────────────────────────────────────────────────────────────


def encode(manifest: Manifest) -> bytes:
    """The one text of a manifest. What could not be read back is not written."""
    try:
        data = json.loads(canonical(schema.encode(manifest)))
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a text of the manifest is no Unicode: {error.object[:100]!a}",
            where=manifest.name.encode(errors="replace").decode(),
            hint="rename the file that it names",
        ) from None
    # Reading gives numbers the declared type: 1 becomes 1.0 where the field is a float.
    return canonical(schema.encode(schema.decode(Manifest, data, error=CorruptError, where=FILE)))


def canonical(data: object) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _parse(raw: bytes) -> Any:
    """JSON that is safe to look at, or a ValueError; spelling and content are not judged yet."""
    text = raw.decode()
    depth = 0
    for bracket in re.findall(r"[\[{}\]]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_NESTING:
            raise ValueError(f"nested deeper than {_MAX_NESTING} levels")
    return json.loads(text, parse_int=_integer, parse_constant=_no_constant)


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def decode(raw: bytes, where: str) -> Manifest:
    """The manifest that a text says.

    Raises:
        CorruptError: It is none, or not in its one spelling.
        VersionError: It is of another format version.
        SignatureError: It is signed, which this version cannot check.
    """
    try:
        data = _parse(raw)
    except ValueError as error:
        raise CorruptError(f"the manifest is no JSON text: {error}", where=where) from None
    version = data.get("format") if isinstance(data, dict) else None
    if type(version) is int and version > FORMAT:
        raise VersionError(
            f"this edgekit reads bundles of format {FORMAT}, got format {version}",
            where=where,
            hint="pip install --upgrade edgekit",
        )
    if version != FORMAT:
        raise CorruptError(f"not a bundle: want format {FORMAT}, got {version!r}", where=where)
    if data.get("signature"):
        raise SignatureError(
            "the bundle is signed, and this edgekit cannot check signatures",
            where=where,
            hint="pip install --upgrade edgekit",
        )
    manifest = schema.decode(Manifest, data, error=CorruptError, where=where)
    try:
        is_canonical = canonical(schema.encode(manifest)) == raw
    except ValueError:  # half a surrogate pair
        is_canonical = False
    if not is_canonical:
        raise CorruptError(
            "the manifest is not in canonical form: it was not written by edgekit", where=where
        )
    return manifest
