"""The bundle: one file with a compiled model and everything that is known about it.

``docs/bundle.md`` is the specification. What the reader returns are the very bytes that it checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from edgekit import archive, atomic, manifest
from edgekit._version import __version__
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.errors import CorruptError, LimitError, UsageError, did_you_mean
from edgekit.golden import Golden, contracts, decode
from edgekit.manifest import FORMAT, Manifest, Member
from edgekit.spec import Step, TensorSpec
from edgekit.target import Target

__all__ = [
    "FORMAT",
    "Bundle",
    "Manifest",
    "Member",
    "MemberCheck",
    "Verification",
    "read",
    "read_manifest",
    "verify",
    "write",
]

_MAX_MANIFEST_BYTES = 4 << 20


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
        manifest.check_steps(self.manifest)
        self._golden()  # refuses what is no array of its contract

    @classmethod
    def of(
        cls,
        *artifacts: Artifact,
        name: str,
        target: Target,
        inputs: tuple[TensorSpec, ...],
        results: tuple[TensorSpec, ...],
        before: tuple[Step, ...] = (),
        after: tuple[Step, ...] = (),
        intended_use: str = "",
        history: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        golden: Golden | None = None,
    ) -> Bundle:
        """The bundle of a network, compiled in one or several ways, without reports yet.

        See :class:`Manifest` for the arguments.
        """
        files = {a.info.member(name): content for a in artifacts for name, content in a.files.items()}
        if golden is not None:
            files.update(golden.members(inputs, results))
        described = Manifest(
            format=FORMAT,
            name=name,
            edgekit=__version__,
            target=target.name,
            arch=target.arch,
            inputs=inputs,
            results=results,
            networks=tuple(artifact.info for artifact in artifacts),
            members={name: Member.of(content) for name, content in files.items()},
            cpu_features=target.cpu_features,
            intended_use=intended_use,
            before=before,
            after=after,
            history=history,
            notes=notes,
            golden=golden.record if golden is not None else None,
        )
        return cls(described, files)

    @property
    def network(self) -> Artifact:
        """The compiled network that is preferred."""
        return self.artifact(self.manifest.network)

    def artifact(self, info: ArtifactInfo) -> Artifact:
        """One of the compiled networks, with its files."""
        return Artifact(info, {name: self.files[info.member(name)] for name in info.files})

    @property
    def golden(self) -> Golden | None:
        """The golden case, if the bundle holds one."""
        return self._golden()

    def _golden(self) -> Golden | None:
        described = self.manifest
        if described.golden is None:
            return None
        return Golden.of_members(described.golden, self.files, described.inputs, described.results)


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
    contents = {manifest.FILE: manifest.encode(bundle.manifest)}
    contents.update((name, bundle.files[name]) for name in sorted(bundle.files))
    file_bytes = archive.file_bytes({name: len(content) for name, content in contents.items()})
    for what, limit, got in (
        ("manifest", _MAX_MANIFEST_BYTES, len(contents[manifest.FILE])),
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
        found, identity = _read_manifest(reader)
        specs = dict(contracts(found.inputs, found.results)) if found.golden else {}
        checks = []
        for name, member in sorted(found.members.items()):
            content, intact = reader.member(name, size=member.size_bytes)
            intact = intact and Member.of(content) == member
            if intact and name in specs:
                decode(content, specs[name], f"{path}: {name}")
            checks.append(MemberCheck(name, member.size_bytes, member.sha256, intact))
        reader.finish()
        try:
            manifest.check_steps(found)
        except CorruptError as error:
            reader.refuse(error.message, error.where or manifest.FILE)
        return Verification(found, identity, tuple(checks))


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
    found, _ = _read_manifest(reader)
    files = {}
    for name in sorted(found.members):
        files[name], intact = reader.member(name, size=found.members[name].size_bytes)
        if not intact:
            reader.refuse("the content differs from its checksum", name)
    reader.finish()
    try:
        return Bundle(found, files)
    except CorruptError as error:
        reader.refuse(error.message, error.where or manifest.FILE)


def _read_manifest(reader: archive.Reader) -> tuple[Manifest, str]:
    """The manifest and the SHA-256 of its bytes; the file's size is compared with what they tell."""
    raw, intact = reader.member(manifest.FILE, limit=_MAX_MANIFEST_BYTES)
    if not intact:
        reader.refuse("the content differs from its checksum", manifest.FILE)
    found = manifest.decode(raw, f"{reader.path}: {manifest.FILE}")
    members = {name: member.size_bytes for name, member in found.members.items()}
    reader.expect({manifest.FILE: len(raw), **members})
    return found, hashlib.sha256(raw).hexdigest()
