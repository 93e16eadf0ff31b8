"""The bundle: one file with a compiled model and everything that is known about it.

``docs/bundle.md`` is the specification. What the reader returns are the very bytes that it checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

from edgekit import archive, atomic, schema, steps
from edgekit._version import __version__
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.dataset import DatasetRecord
from edgekit.errors import (
    CorruptError,
    LimitError,
    SignatureError,
    SpecError,
    UsageError,
    VersionError,
    did_you_mean,
)
from edgekit.reports import LATER, AccuracyReport, Candidate, LatencyReport, LayerReport, TaskReport
from edgekit.spec import Step, TensorSpec
from edgekit.target import Target

FORMAT = 1

_MANIFEST = "manifest.json"
_NETWORK = "network/"
_MAX_MANIFEST_BYTES = 4 << 20
_MAX_STEPS = 256
_MAX_MEMBERS = 64
_MAX_NESTING = 32
_MAX_DIGITS = 19
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_NAME = 100


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
        network: The compiled network.
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
        signature: Reserved: this version writes none and accepts none.
    """

    format: int
    name: str
    edgekit: str
    target: str
    arch: str
    inputs: tuple[TensorSpec, ...]
    results: tuple[TensorSpec, ...]
    network: ArtifactInfo
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
    signature: str = ""

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise CorruptError(f"want format {FORMAT}, got {self.format}")
        if self.target != self.network.target:
            raise CorruptError(f"the network is for {self.network.target!r}, the bundle for {self.target!r}")
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

    def _check_members(self) -> None:
        files = [_NETWORK + name for name in self.network.files]
        if sorted(files) != sorted(self.members):
            raise CorruptError(
                f"the network's files want to be the members: want {', '.join(sorted(files)) or 'none'}, "
                f"got {', '.join(sorted(self.members)) or 'none'}"
            )
        if self.network.library and self.network.library not in self.network.files:
            raise CorruptError(f"the library {self.network.library[:120]!r} is none of the network's files")
        if len({name.lower() for name in files}) != len(files) or len(files) > _MAX_MEMBERS:
            raise CorruptError(f"want at most {_MAX_MEMBERS} members whose names differ in more than case")
        for name in self.network.files:
            if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
                raise CorruptError(
                    f"{name[:120]!r} is no name for a member: want letters, digits, '_', '-' and single dots"
                )

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest's bytes, in hexadecimal: it stands for the whole bundle."""
        return hashlib.sha256(_encode(self)).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A manifest and the content of its members. An instance is consistent: that is checked when it is made.

    Attributes:
        manifest: The manifest.
        files: Content of each member, by name.
    """

    manifest: Manifest
    files: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))
        members = self.manifest.members
        if self.files.keys() != members.keys():
            raise CorruptError(f"want the members {', '.join(members)}, got {', '.join(self.files)}")
        for name, content in self.files.items():
            if Member.of(content) != members[name]:
                raise CorruptError("the content is not the one that the manifest describes", where=name)
        _check_steps(self.manifest)

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        *,
        name: str,
        target: Target,
        inputs: tuple[TensorSpec, ...],
        results: tuple[TensorSpec, ...],
        before: tuple[Step, ...] = (),
        after: tuple[Step, ...] = (),
        intended_use: str = "",
        history: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Bundle:
        """The bundle of a compiled network, without reports yet. See :class:`Manifest` for the arguments."""
        files = {_NETWORK + name: content for name, content in artifact.files.items()}
        manifest = Manifest(
            format=FORMAT,
            name=name,
            edgekit=__version__,
            target=target.name,
            arch=target.arch,
            inputs=inputs,
            results=results,
            network=artifact.info,
            members={name: Member.of(content) for name, content in files.items()},
            cpu_features=target.cpu_features,
            intended_use=intended_use,
            before=before,
            after=after,
            history=history,
            notes=notes,
        )
        return cls(manifest, files)

    @property
    def network(self) -> Artifact:
        """The compiled network."""
        files = {name: self.files[_NETWORK + name] for name in self.manifest.network.files}
        return Artifact(self.manifest.network, files)


@dataclass(frozen=True)
class MemberCheck:
    """One member as :func:`verify` found it; ``intact`` when its bytes are the ones described."""

    name: str
    size_bytes: int
    sha256: str
    intact: bool


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found.

    Attributes:
        manifest: The manifest.
        identity: SHA-256 of the manifest's bytes.
        members: Every member.
    """

    manifest: Manifest
    identity: str
    members: tuple[MemberCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every member is intact."""
        return all(member.intact for member in self.members)


def write(bundle: Bundle, path: Path, *, force: bool = False) -> None:
    """Write the file, whole or not at all. The same bundle gives the same bytes.

    Raises:
        UsageError: It exists and ``force`` is not set, or it cannot be written.
        LimitError: The bundle exceeds the limits of the format, or the disk is full.
    """
    contents = {_MANIFEST: _encode(bundle.manifest)}
    contents.update((name, bundle.files[name]) for name in sorted(bundle.files))
    file_bytes = archive.file_bytes({name: len(content) for name, content in contents.items()})
    for what, limit, got in (
        ("manifest", _MAX_MANIFEST_BYTES, len(contents[_MANIFEST])),
        ("bundle", archive.MAX_FILE_BYTES, file_bytes),
    ):
        if got > limit:
            raise LimitError(
                f"the {what} is too large: want at most {limit} bytes, got {got}", where=str(path)
            )
    atomic.write(path, archive.pieces(contents), force=force)


def read(path: Path) -> Bundle:
    """Read and check the whole file.

    Raises:
        UsageError: There is no such file, or it cannot be read.
        CorruptError: It is not a bundle, or not as it was written.
        VersionError: It is a bundle of another format version.
        SignatureError: It is signed, which this version cannot check.
    """
    with _opened(path) as file:
        return _read(archive.Reader(file, path))


def read_manifest(path: Path) -> Manifest:
    """Read the manifest alone: its own bytes and the file's size are checked, the members are not.

    Raises:
        UsageError, CorruptError, VersionError, SignatureError: As :func:`read`.
    """
    with _opened(path) as file:
        return _read_manifest(archive.Reader(file, path))[0]


def verify(path: Path) -> Verification:
    """Check the whole file and say of each member whether it is intact.

    Raises:
        UsageError, VersionError, SignatureError: As :func:`read`.
        CorruptError: Something other than the content of a member is wrong.
    """
    with _opened(path) as file:
        reader = archive.Reader(file, path)
        manifest, identity = _read_manifest(reader)
        checks = []
        for name, member in sorted(manifest.members.items()):
            content, intact = reader.member(name, size=member.size_bytes)
            intact = intact and Member.of(content) == member
            checks.append(MemberCheck(name, member.size_bytes, member.sha256, intact))
        reader.finish()
        try:
            _check_steps(manifest)
        except CorruptError as error:
            reader.refuse(error.message, error.where or _MANIFEST)
        return Verification(manifest, identity, tuple(checks))


def _opened(path: Path) -> BinaryIO:
    try:
        if path.exists() and not path.is_file():
            raise UsageError("want a bundle, got a folder or a device", where=str(path))
        return path.open("rb")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.ekb")] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        raise UsageError(
            "there is no such bundle",
            where=str(path),
            hint=f"did you mean {str(path.parent / near)!r}?" if near else None,
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read the bundle: {reason}", where=str(path)) from None


def _read(reader: archive.Reader) -> Bundle:
    manifest, _ = _read_manifest(reader)
    files = {}
    for name in sorted(manifest.members):
        files[name], intact = reader.member(name, size=manifest.members[name].size_bytes)
        if not intact:
            reader.refuse("the content differs from its checksum", name)
    reader.finish()
    try:
        return Bundle(manifest, files)
    except CorruptError as error:
        reader.refuse(error.message, error.where or _MANIFEST)


def _read_manifest(reader: archive.Reader) -> tuple[Manifest, str]:
    """The manifest and the SHA-256 of its bytes; the file's size is compared with what they tell."""
    raw, intact = reader.member(_MANIFEST, limit=_MAX_MANIFEST_BYTES)
    if not intact:
        reader.refuse("the content differs from its checksum", _MANIFEST)
    manifest = _decode(raw, f"{reader.path}: {_MANIFEST}")
    members = {name: member.size_bytes for name, member in manifest.members.items()}
    reader.expect({_MANIFEST: len(raw), **members})
    return manifest, hashlib.sha256(raw).hexdigest()


def _check_steps(manifest: Manifest) -> None:
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


def _encode(manifest: Manifest) -> bytes:
    """The one text of a manifest. What could not be read back is not written."""
    try:
        data = json.loads(_canonical(schema.encode(manifest)))
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a text of the manifest is no Unicode: {error.object[:100]!a}",
            where=manifest.name.encode(errors="replace").decode(),
            hint="rename the file that it names",
        ) from None
    # Reading gives numbers the declared type: 1 becomes 1.0 where the field is a float.
    return _canonical(schema.encode(schema.decode(Manifest, data, error=CorruptError, where=_MANIFEST)))


def _canonical(data: object) -> bytes:
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


def _decode(raw: bytes, where: str) -> Manifest:
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
        canonical = _canonical(schema.encode(manifest)) == raw
    except ValueError:  # half a surrogate pair
        canonical = False
    if not canonical:
        raise CorruptError(
            "the manifest is not in canonical form: it was not written by edgekit", where=where
        )
    return manifest
