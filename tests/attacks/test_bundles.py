"""Damaged and hostile bundles: each is refused with the documented class, and no backend is reached."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import textwrap
import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_bundles import IMAGE, StubBackend, artifact, full, small, stub  # noqa: F401

from edgekit import archive, bundle, manifest, runtime
from edgekit.errors import BundleError, CorruptError, EdgekitError, SignatureError, UsageError, VersionError

MANIFEST = "manifest.json"


def raw_of(made: bundle.Bundle) -> bytes:
    contents = {MANIFEST: manifest.encode(made.manifest), **dict(sorted(made.files.items()))}
    return b"".join(archive.pieces(contents))


GOOD = raw_of(small())
HEAD = 30 + len(MANIFEST)
MANIFEST_END = GOOD.index(b"PK\3\4", 4)


def read(raw: bytes) -> bundle.Bundle:
    return bundle._read(archive.Reader(io.BytesIO(raw), Path("memory.ekb")))


def with_manifest(text: str | bytes, files: dict[str, bytes] | None = None) -> bytes:
    """A well-framed file with any manifest."""
    raw = text.encode() if isinstance(text, str) else text
    return b"".join(archive.pieces({MANIFEST: raw, **dict(sorted((files or small().files).items()))}))


def changed(**keys: object) -> bytes:
    """A well-framed file whose manifest has other values; ``None`` takes a key away."""
    data = json.loads(manifest.encode(small().manifest))
    data.update(keys)
    return with_manifest(manifest.canonical({k: v for k, v in data.items() if v is not None}))


@pytest.fixture
def refuses(tmp_path, stub: StubBackend):  # noqa: F811
    """Write the bytes to a file that ``read`` and ``open`` have to refuse alike."""
    path = tmp_path / "a.ekb"

    def check(raw: bytes, error: type[EdgekitError] = CorruptError, match: str | None = None) -> None:
        path.write_bytes(raw)
        with pytest.raises(error, match=match) as caught:
            runtime.open(path)
        assert type(caught.value) is error or error is BundleError
        assert str(path) in caught.value.where
        with pytest.raises(error):
            bundle.read(path)
        assert not stub.opened

    return check


def test_the_good_one_is_accepted(tmp_path, stub):  # noqa: F811
    (tmp_path / "a.ekb").write_bytes(GOOD)
    runtime.open(tmp_path / "a.ekb").close()
    assert len(stub.opened) == 1


def test_every_flipped_bit_is_found(refuses):
    for position in range(len(GOOD)):
        for bit in range(8):
            raw = bytearray(GOOD)
            raw[position] ^= 1 << bit
            with pytest.raises(BundleError):
                read(bytes(raw))
    for position in range(0, len(GOOD), 29):
        raw = bytearray(GOOD)
        raw[position] ^= 1 << position % 8
        refuses(bytes(raw), BundleError)


def test_verify_finds_every_damaged_byte(tmp_path):
    path = tmp_path / "a.ekb"
    for position in range(0, len(GOOD), 7):
        path.write_bytes(GOOD[:position] + bytes([GOOD[position] ^ 0xFF]) + GOOD[position + 1 :])
        with contextlib.suppress(BundleError):
            assert not bundle.verify(path).passed, position


def test_every_truncation_is_found(refuses, tmp_path):
    for length in range(len(GOOD)):
        with pytest.raises(CorruptError):
            read(GOOD[:length])
    for length in range(0, len(GOOD), 37):
        refuses(GOOD[:length])
        for look in (bundle.verify, bundle.read_manifest):
            with pytest.raises(CorruptError):
                look(tmp_path / "a.ekb")


def test_bytes_before_and_after(refuses):
    for extra in (b"\0", b"#!/bin/sh\n", GOOD):
        refuses(GOOD + extra, match="longer than its members")
        refuses(extra + GOOD)


def test_a_file_that_grows_while_it_is_read():
    file = io.BytesIO(GOOD)
    reader = archive.Reader(file, Path("memory.ekb"))
    file.seek(0, 2)
    file.write(b"more")
    file.seek(0)
    with pytest.raises(CorruptError, match="goes on after its end"):
        bundle._read(reader)


def test_other_files(refuses):
    for raw in (b"", b"PK\3\4", b"PK\5\6" + bytes(18), b"\x89PNG", b"\x7fELF" * 50, os.urandom(4096)):
        refuses(raw)


def rezipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The members as an ordinary zip library writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            file.writestr(info, content, compression)
    return buffer.getvalue()


def entries_of(made: bundle.Bundle) -> list[tuple[str, bytes]]:
    return [(MANIFEST, manifest.encode(made.manifest)), *sorted(made.files.items())]


def test_a_zip_library_writes_the_same_bytes(refuses, tmp_path):
    # So the attacks below differ from a bundle in nothing but what they are about.
    assert rezipped(entries_of(small())) == GOOD


def test_compressed_members(refuses):
    refuses(rezipped(entries_of(small()), zipfile.ZIP_DEFLATED), match="compression")
    mixed = io.BytesIO()
    with zipfile.ZipFile(mixed, "w") as file:
        for index, (name, content) in enumerate(entries_of(small())):
            kind = zipfile.ZIP_DEFLATED if index else zipfile.ZIP_STORED
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            file.writestr(info, content, kind)
    refuses(mixed.getvalue())


def test_a_zip_bomb_costs_no_memory(tmp_path):
    bomb = rezipped([(MANIFEST, bytes(200 << 20)), ("network/stub/model.bin", b"")], zipfile.ZIP_DEFLATED)
    (tmp_path / "bomb.ekb").write_bytes(bomb)
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from edgekit import bundle
        from edgekit.errors import CorruptError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            bundle.read(Path(sys.argv[1]))
        except CorruptError:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    arguments = [sys.executable, "-c", script, str(tmp_path / "bomb.ekb")]
    grown_kib = int(subprocess.run(arguments, capture_output=True, timeout=60, check=True).stdout)
    assert grown_kib < 8 << 10


def test_huge_sizes_cost_no_memory(refuses, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), hard))
    try:
        for size in (5 << 20, 1 << 31, (1 << 32) - 1):
            raw = bytearray(GOOD)
            raw[18:26] = struct.pack("<2L", size, size)
            refuses(bytes(raw), match="too large")
        for size in (1 << 31, (1 << 32) - 1, 1 << 40, 10**18):
            members = {n: {"sha256": "0" * 64, "size_bytes": size} for n in small().files}
            refuses(changed(members=members), match="cut off")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/cron.d/evil", "network/../../evil", "network/stub/a/b", "C:\\evil", "..", ""]
)
def test_names_that_leave_the_bundle(refuses, name):
    entries = entries_of(small())
    refuses(rezipped([*entries, (name or "x", b"")]))
    refuses(rezipped([entries[0], (name or "x", entries[1][1]), entries[2]]))
    files = {**small().files, f"network/stub/{name}": b""}
    data = json.loads(manifest.encode(small().manifest))
    data["members"] = {
        n: {"sha256": bundle.Member.of(c).sha256, "size_bytes": len(c)} for n, c in files.items()
    }
    data["networks"][0]["files"].append(name)
    refuses(with_manifest(manifest.canonical(data), files))


def test_extra_missing_renamed_repeated_and_reordered_members(refuses):
    first, second, third = entries_of(small())
    for entries in (
        [first, second],
        [first, third],
        [first],
        [second, third],
        [second, first, third],
        [first, third, second],
        [first, second, third, ("network/stub/extra", b"")],
        [first, second, third, third],
        [first, first, second, third],
        [first, (second[0].upper(), second[1]), third],
        [first, (second[0], third[1]), (third[0], second[1])],
        [first, ("network/", b""), second, third],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a name that is there twice
            raw = rezipped(entries)
        refuses(raw)


def test_members_of_another_valid_bundle(refuses):
    other = small({"model.bin": bytes(48), "model.xml": b"<met/>"})
    mine, theirs = entries_of(small()), entries_of(other)
    for take in range(1, 7):
        mix = [theirs[i] if take >> i & 1 else mine[i] for i in range(3)]
        refuses(rezipped(mix), match="not the one that the manifest describes")


def test_directory_that_disagrees_with_the_local_headers(refuses):
    # A reader that trusts the directory would see another member than one that goes from front to back.
    start = GOOD.index(b"PK\1\2")
    for offset in range(start, len(GOOD)):
        raw = bytearray(GOOD)
        raw[offset] = (raw[offset] + 1) % 256
        refuses(bytes(raw))


def test_overlapping_members(refuses):
    start = GOOD.rindex(b"PK\1\2")
    raw = bytearray(GOOD)
    raw[start + 42 : start + 46] = struct.pack("<L", 0)
    refuses(bytes(raw), match="offset")


def test_encrypted_commented_and_linked_members(refuses):
    for position, value in ((6, 1), (6, 8), (28, 4)):
        raw = bytearray(GOOD)
        raw[position] = value
        refuses(bytes(raw))
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as file:
        for name, content in entries_of(small()):
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name.endswith("xml") else 0o100644) << 16
            file.writestr(info, content)
    refuses(link.getvalue(), match="attributes")
    commented = io.BytesIO(GOOD)
    with zipfile.ZipFile(commented, "a") as file:
        file.comment = b"hello"
    refuses(commented.getvalue())


# ── the manifest ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [2, 3, 10**9])
def test_a_newer_format(refuses, version):
    refuses(changed(format=version), VersionError, "format")
    refuses(with_manifest(json.dumps({"format": version, "new": [1, 2]}, indent=1)), VersionError)


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None, [1]])
def test_no_format(refuses, version):
    refuses(changed(format=version), match="format")


def test_a_signature_that_cannot_be_checked(refuses):
    refuses(changed(signature="ed25519:AAAA"), SignatureError)
    refuses(changed(signature=["x"]), SignatureError)


@pytest.mark.parametrize(
    "keys",
    [
        {"unknown": 1},
        {"name": None},
        {"name": 1},
        {"members": []},
        {"networks": {}},
        {"networks": []},
        {"networks": [{}]},
        {"inputs": [{"name": "image", "dtype": "float32", "dims": [-1]}]},
        {"inputs": [{"name": "image", "dtype": "complex64", "dims": [1]}]},
        {"inputs": [{"name": "image", "dtype": "float32", "dims": [1], "script": "x"}]},
        {"after": [{"op": "exec", "inputs": ["image"], "outputs": ["x"], "options": {}}]},
        {"after": [{"op": "os:system", "inputs": ["image"], "outputs": ["x"], "options": {}}]},
        {"latency": {"samples_s": []}},
        {"candidates": [{"backend": "x", "verdict": "best"}]},
    ],
)
def test_keys_and_values_that_do_not_belong(refuses, keys):
    refuses(changed(**keys))


STEP = {"op": "integrate_velocity", "inputs": ["image"], "outputs": ["image"], "options": {"steps": 3}}


def with_before(*before: object) -> bytes:
    """A well-framed file with these steps before a network that takes displacements."""
    flow = replace(IMAGE, dims=(1, 2, *IMAGE.dims[2:]))
    made = small(inputs=(flow,))
    data = json.loads(manifest.encode(made.manifest)) | {"before": list(before)}
    return with_manifest(manifest.canonical(data), dict(made.files))


def test_the_good_step_is_accepted(tmp_path, stub):  # noqa: F811
    (tmp_path / "a.ekb").write_bytes(with_before(STEP, STEP))
    runtime.open(tmp_path / "a.ekb").close()
    assert len(stub.opened) == 1


@pytest.mark.parametrize(
    "before",
    [
        {"op": "exec"},
        {"op": "os:system"},
        {"op": "edgekit.steps.registration:INTEGRATE_VELOCITY"},
        {"op": "zoo.denoise2d", "options": {}},
        {"op": "warp", "options": {}},
        {"op": ["integrate_velocity"]},
        {"op": None},
        {"inputs": "image"},
        {"inputs": []},
        {"inputs": ["image", "image"]},
        {"inputs": ["doubled"]},
        {"inputs": [["image"]]},
        {"outputs": []},
        {"outputs": ["doubled"]},
        {"outputs": ["image", "image"]},
        {"outputs": [1]},
        {"options": {"steps": 10**6}},
        {"options": {"steps": -1}},
        {"options": {"steps": 1.0}},
        {"options": {"steps": True}},
        {"options": {"steps": "3"}},
        {"options": {"steps": [1]}},
        {"options": {"steps": None}},
        {"options": {"boundary": "nowhere"}},
        {"options": {"__class__": "x"}},
        {"options": []},
        {"code": "x"},
    ],
    ids=str,
)
def test_steps_before_that_do_not_belong(refuses, before):
    refuses(with_before(STEP | before))
    refuses(with_before(STEP, STEP | before))


@pytest.mark.parametrize("before", [{}, "median", [], ["median"], [None], [[STEP]], STEP], ids=str)
def test_something_else_in_place_of_steps(refuses, before):
    refuses(changed(before=before))


def test_steps_and_texts_without_end_are_refused(refuses):
    refuses(with_before(*[STEP] * 257), match="at most 256 steps, got 257")
    refuses(changed(intended_use="x" * (5 << 20)), match="too large")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "1",
        "{",
        '{"format":1}',
        '{"format":NaN}',
        '{"format":1,"name":Infinity}',
        '{"format":1e999}',
        '{"format":1,"format":1}',
        '{"format":1,"name":"\\ud800"}',
        "\ufeff{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 31 + "1" * 400_000,
        '{"format":' + "9" * 20 + "}",
        '{"format":' + "9" * 100_000 + "}",
        b"\xff\xfe{}",
        b'{"format":1,"name":"\xed\xa0\x80"}',
        b"\0" * 100,
    ],
)
def test_texts_that_are_no_manifest(refuses, text):
    refuses(with_manifest(text))


def test_other_spellings_of_the_same_manifest(refuses):
    good = manifest.encode(full().manifest).decode()
    data = json.loads(good)
    for text in (
        json.dumps(data),
        json.dumps(data, indent=2, sort_keys=True),
        good + "\n",
        good.replace("研", "\\u7814"),
        good.replace('"load":0.1', '"load":1e-1'),
        good.replace('"format":1', '"format":1,"format":1'),
        good.replace('"format":1', '"format":-0'),
        good.replace('"cosine":1.0', '"cosine":1'),
        good.replace('"settled":true', '"settled":true,"signature":""'),
    ):
        assert text != good
        refuses(with_manifest(text))


def test_a_deep_manifest_is_refused_whatever_the_recursion_limit(tmp_path):
    (tmp_path / "a.ekb").write_bytes(with_manifest("[" * 1_000_000))
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from edgekit import bundle
        sys.setrecursionlimit(10**8)
        try:
            bundle.read(Path(sys.argv[1]))
        except bundle.CorruptError:
            sys.exit(5)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.ekb")], timeout=60)
    assert done.returncode == 5


# ── at random ─────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_changes(data):
    raw = bytearray(raw_of(full()) if data.draw(st.booleans()) else GOOD)
    good = bytes(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "copy"]))
        if kind == "set":
            raw[position] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            raw[position:position] = data.draw(st.binary(min_size=1, max_size=20))
        elif kind == "delete":
            del raw[position : position + data.draw(st.integers(1, 40))]
        else:
            other = data.draw(st.integers(0, len(raw) - 1))
            raw[position : position + 30] = raw[other : other + 30]
        if not raw:
            break
    _accepts_only(good, bytes(raw))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30))
def test_random_changes_with_right_checksums(seed):
    # A forger mends the checksums: then the manifest's text alone is judged.
    rng = random.Random(seed)
    text = bytearray(manifest.encode(full().manifest))
    good = bytes(text)
    for _ in range(rng.randint(1, 3)):
        text[rng.randrange(len(text))] = rng.choice(b'{}[]",:0123456789eE.-+aNn \\u\x00\xff')
    try:
        found = read(with_manifest(bytes(text))).manifest
    except BundleError:
        return
    # It may describe something else, but only in the one spelling, and never other bytes.
    assert manifest.encode(found) == bytes(text) or bytes(text) == good
    assert found.members == small().manifest.members


def _accepts_only(good: bytes, raw: bytes) -> None:
    try:
        read(raw)
    except BundleError:
        assert raw != good
    else:
        assert raw == good


def test_a_file_that_changes_after_the_check_does_not_matter(tmp_path, stub):  # noqa: F811
    path = tmp_path / "a.ekb"
    path.write_bytes(GOOD)
    made = bundle.read(path)
    path.write_bytes(bytes(len(GOOD)))
    runtime.open(made).close()
    assert stub.opened[0].files == artifact().files


def test_pipes_and_devices_are_not_opened(tmp_path, stub):  # noqa: F811
    os.mkfifo(tmp_path / "pipe.ekb")
    for path in (tmp_path / "pipe.ekb", Path("/dev/zero"), tmp_path):
        with pytest.raises(UsageError):
            runtime.open(path)


def test_checksums_alone_do_not_convince(refuses):
    # CRC-32 can be forged; the digest in the manifest cannot.
    files = {**small().files, "network/stub/model.xml": b"<nut/>"}
    assert zlib.crc32(b"<nut/>") != zlib.crc32(b"<net/>")
    refuses(with_manifest(manifest.encode(small().manifest), files), match="not the one")


def test_the_digest_covers_empty_members(refuses):
    good = small({"empty": b""})
    wrong = replace(good.manifest, members={"network/stub/empty": bundle.Member("0" * 64, 0)})
    refuses(with_manifest(manifest.encode(wrong), dict(good.files)), match="not the one")
