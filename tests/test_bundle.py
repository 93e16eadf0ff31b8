"""edgekit.bundle: what is written is read back, the same bundle gives the same bytes."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_bundles import DOUBLED, IMAGE, TARGET, artifact, first, full, several, small

from edgekit import archive, bundle, manifest
from edgekit.backends.base import ArtifactInfo
from edgekit.bundle import Bundle, Manifest, Member
from edgekit.errors import CorruptError, LimitError, SpecError, UsageError
from edgekit.golden import GoldenRecord
from edgekit.spec import Dim, Step

PAGE = Path(__file__).parent.parent / "docs" / "bundle.md"


@pytest.mark.parametrize("make", [small, first, full])
def test_what_is_written_is_read_back(tmp_path, make):
    path = tmp_path / "a.ekb"
    bundle.write(make(), path)
    back = bundle.read(path)
    assert repr(back.manifest) == repr(make().manifest)  # NaN differs from itself
    assert back.files == make().files
    assert repr(bundle.read_manifest(path)) == repr(back.manifest)
    assert back.network.files == artifact().files


def test_steps_before_and_after_are_read_back(tmp_path):
    flow = replace(IMAGE, name="flow", dims=(1, 2, 4, Dim(4, 12, 4)))
    made = small(inputs=(flow,), outputs=(replace(flow, name="out"),))
    before = (
        Step("integrate_velocity", ("flow",), ("slow",), {"steps": 3}),
        Step("warp", ("flow", "slow"), ("flow",), {"boundary": "zero"}),
    )
    after = (Step("warp", ("out", "flow"), ("moved",)),)
    results = (replace(flow, name="moved"),)
    made = replace(made, manifest=replace(made.manifest, before=before, after=after, results=results))
    bundle.write(made, tmp_path / "a.ekb")
    back = bundle.read(tmp_path / "a.ekb")
    assert (back.manifest.before, back.manifest.after) == (before, after)
    assert bundle.verify(tmp_path / "a.ekb").passed


def test_a_bundle_without_steps_does_not_mention_them():
    text = manifest.encode(small().manifest)
    assert b"before" not in text and b"after" not in text


def test_the_same_bundle_gives_the_same_bytes(tmp_path):
    bundle.write(full(), tmp_path / "a.ekb")
    bundle.write(bundle.read(tmp_path / "a.ekb"), tmp_path / "b.ekb")
    other_order = small(dict(reversed(artifact().files.items())))
    bundle.write(replace(other_order, manifest=full().manifest), tmp_path / "c.ekb")
    contents = {(tmp_path / name).read_bytes() for name in ("a.ekb", "b.ekb", "c.ekb")}
    assert len(contents) == 1


def test_numbers_are_written_as_they_are_declared(tmp_path):
    # A caller may give integers where floats are declared; what is read back gives the same bytes.
    made = small(inputs=(replace(IMAGE, value_range=(0, 1)),))
    bundle.write(made, tmp_path / "a.ekb")
    back = bundle.read(tmp_path / "a.ekb")
    assert back == made and back.manifest.identity == made.manifest.identity
    bundle.write(back, tmp_path / "b.ekb")
    assert (tmp_path / "a.ekb").read_bytes() == (tmp_path / "b.ekb").read_bytes()


def test_a_text_that_is_no_unicode_is_refused(tmp_path):
    made = small()
    made = replace(made, manifest=replace(made.manifest, history=("loaded /data/\udcff.onnx",)))
    with pytest.raises(UsageError, match="no Unicode") as caught:
        bundle.write(made, tmp_path / "a.ekb")
    str(caught.value).encode()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make, digest",
    [
        (first, "87e1ec1e5858e0adbae061db510a097bf04c6413e0d372636d5dd07391e5baff"),
        (full, "28ad1e8082b57607b1d2ea5d29c87f344f7251354e34faa3a362e02107e59768"),
    ],
)
def test_the_bytes_of_format_1(tmp_path, make, digest):
    # A bundle from the field has to stay readable: when this fails, the format has changed.
    bundle.write(make(), tmp_path / "a.ekb")
    assert hashlib.sha256((tmp_path / "a.ekb").read_bytes()).hexdigest() == digest


def test_full_sets_every_field():
    made = full().manifest
    left = [f.name for f in dataclasses.fields(Manifest) if getattr(made, f.name) == f.default]
    assert left == ["before", "after", "golden", "signature"], "have tests of their own"


def test_any_unzip_tool_opens_it(tmp_path):
    bundle.write(full(), tmp_path / "a.ekb")
    with zipfile.ZipFile(tmp_path / "a.ekb") as file:
        assert file.testzip() is None
        assert file.namelist() == ["manifest.json", "network/stub/model.bin", "network/stub/model.xml"]
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        assert file.read("network/stub/model.xml") == b"<net/>"
        assert file.getinfo("manifest.json").date_time == (1980, 1, 1, 0, 0, 0)


@given(
    st.dictionaries(st.from_regex(r"[a-z0-9_-]{1,8}(\.[a-z]{1,3})?", fullmatch=True), st.binary(), max_size=5)
)
def test_any_members(files):
    made = small(files)
    contents = {"manifest.json": b"{}", **made.files}
    raw = b"".join(archive.pieces(contents))
    assert len(raw) == archive.file_bytes({name: len(content) for name, content in contents.items()})
    assert made.network.files == files


def test_identity_is_the_digest_of_the_manifest(tmp_path):
    path = tmp_path / "a.ekb"
    bundle.write(full(), path)
    with zipfile.ZipFile(path) as file:
        digest = hashlib.sha256(file.read("manifest.json")).hexdigest()
    assert bundle.read_manifest(path).identity == bundle.verify(path).identity == digest
    assert small().manifest.identity != digest


def test_verify_names_the_damaged_member(tmp_path):
    path = tmp_path / "a.ekb"
    bundle.write(small(), path)
    assert bundle.verify(path).passed
    raw = path.read_bytes().replace(b"<net/>", b"<nut/>")
    path.write_bytes(raw)
    checked = bundle.verify(path)
    assert not checked.passed
    assert {m.name: m.intact for m in checked.members} == {
        "network/stub/model.bin": True,
        "network/stub/model.xml": False,
    }
    with pytest.raises(CorruptError, match="checksum") as caught:
        bundle.read(path)
    assert caught.value.exit_code == 5 and "network/stub/model.xml" in caught.value.where
    bundle.read_manifest(path)  # looks at the manifest alone


def test_write_keeps_an_existing_file(tmp_path):
    path = tmp_path / "a.ekb"
    bundle.write(small(), path)
    with pytest.raises(UsageError, match="exists"):
        bundle.write(full(), path)
    bundle.write(full(), path, force=True)
    assert bundle.read(path).manifest.history == ("loaded",)


def test_a_missing_bundle_names_a_near_one(tmp_path):
    bundle.write(small(), tmp_path / "lung.ekb")
    with pytest.raises(UsageError, match="no such bundle") as caught:
        bundle.read(tmp_path / "lungs.ekb")
    assert "lung.ekb" in caught.value.hint
    for path in (
        tmp_path,
        tmp_path / "no" / "such.ekb",
        Path("/dev/null"),
        tmp_path / "a\0b",
        Path("x" * 5000),
    ):
        with pytest.raises(UsageError):
            bundle.read(path)


def test_an_unreadable_file_is_a_usage_error(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    bundle.write(small(), tmp_path / "a.ekb")
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UsageError, match="Permission denied"):
        bundle.read(tmp_path / "a.ekb")


@pytest.mark.parametrize(
    "change, what",
    [
        ({"format": 2}, "format"),
        ({"target": "other"}, "for 'bench'"),
        ({"members": {}}, "members"),
        ({"results": ()}, "results"),
        ({"inputs": ()}, "inputs want"),
        ({"inputs": (IMAGE, IMAGE)}, "different names"),
        ({"inputs": (replace(IMAGE, dims=(1, 1, 4, 4)),)}, "not among"),
        ({"inputs": (replace(IMAGE, dtype="float64"),)}, "not among"),
        ({"inputs": (IMAGE, DOUBLED)}, "different names"),
        ({"results": (replace(DOUBLED, dims=(1, 1, 4, 4)),)}, "described"),
        ({"results": (replace(DOUBLED, dtype="int8"),)}, "described"),
        ({"results": (IMAGE,)}, "makes the result"),
        ({"results": (replace(DOUBLED, name="x"),)}, "makes the result"),
        ({"before": (Step("no_such_step", ("image",), ("image",)),)}, "unknown step"),
        ({"before": (Step("warp", ("image", "x"), ("image",)),)}, "reads 'x'"),
        ({"before": (Step("warp", ("image", "doubled"), ("image",)),)}, "reads 'doubled'"),
        ({"before": (Step("warp", ("image",), ("image",)),)}, "2 inputs"),
        ({"before": (Step("integrate_velocity", ("image",), ("image",)),)}, "displacement"),
        ({"before": (Step("integrate_velocity", ("image",), ("image",), {"stepz": 1}),)}, "no option"),
        ({"after": (Step("no_such_step", ("doubled",), ("x",)),)}, "unknown step"),
        ({"after": (Step("warp", ("x", "y"), ("z",)),)}, "reads 'x'"),
        ({"after": (Step("warp", ("image",), ("z",)),)}, "2 inputs"),
        ({"after": (Step("warp", ("image", "doubled"), ("z",)),)}, "displacement"),
        ({"after": (Step("integrate_velocity", ("doubled",), ("z",), {"stepz": 1}),)}, "no option"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change, what):
    good = small()
    with pytest.raises(CorruptError, match=what):
        replace(good, manifest=replace(good.manifest, **change))


FLOW = replace(IMAGE, name="flow", dims=(1, 2, 4, 8))
INTEGRATE = Step("integrate_velocity", ("flow",), ("image",))


@pytest.mark.parametrize(
    "inputs, before, what",
    [
        ((FLOW,), INTEGRATE, "described as image: float32 1x1x4x.*the steps make image: float32 1x2x4x8"),
        ((FLOW, IMAGE), replace(INTEGRATE, outputs=("doubled",)), "different names"),
        ((FLOW,), replace(INTEGRATE, outputs=("x",)), "not among"),
        ((FLOW,), replace(INTEGRATE, inputs=("image",)), "reads 'image'"),
        ((FLOW, IMAGE), replace(INTEGRATE, outputs=("image", "x")), "got 2 names"),
    ],
)
def test_steps_before_that_do_not_lead_to_the_network_are_refused(inputs, before, what):
    good = small()
    with pytest.raises(CorruptError, match=what):
        replace(good, manifest=replace(good.manifest, inputs=inputs, before=(before,)))


def test_a_tensor_before_the_network_is_no_result():
    good = small()
    keep = Step("integrate_velocity", ("flow",), ("kept",))
    results = (replace(FLOW, name="kept"),)
    with pytest.raises(CorruptError, match="makes the result 'kept'"):
        replace(
            good,
            manifest=replace(good.manifest, inputs=(FLOW, IMAGE), before=(keep,), results=results),
        )


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "/a",
        "a/b",
        "a\\b",
        ".a",
        "a.",
        "a..b",
        "a b",
        "ä",
        "a\n",
        "a\0",
        "c:a",
        "x" * 101,
    ],
)
def test_member_names_follow_the_grammar(name):
    with pytest.raises(CorruptError):
        small({name: b""})


def test_member_names_differ_in_more_than_case():
    with pytest.raises(CorruptError, match="case"):
        small({"a": b"", "A": b""})


def test_bytes_have_to_be_the_described_ones():
    good = small()
    with pytest.raises(CorruptError, match="not the one"):
        replace(good, files={**good.files, "network/stub/model.xml": b"other!"})
    with pytest.raises(CorruptError, match="want the members"):
        replace(good, files={**good.files, "network/stub/extra": b""})
    with pytest.raises(TypeError):
        good.files["network/stub/model.xml"] = b""  # type: ignore[index]
    with pytest.raises(CorruptError):
        Member("0" * 63, 1)


def test_a_range_of_values_has_an_order():
    with pytest.raises(SpecError):
        replace(IMAGE, value_range=(1.0, np.nan))


def test_a_manifest_beyond_the_limit_is_not_written(tmp_path):
    big = small()
    big = replace(big, manifest=replace(big.manifest, intended_use="x" * (4 << 20)))
    with pytest.raises(LimitError, match="manifest is too large"):
        bundle.write(big, tmp_path / "a.ekb")
    assert not list(tmp_path.iterdir())


def test_a_file_beyond_the_limit_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 100)
    with pytest.raises(LimitError, match="bundle is too large"):
        bundle.write(small(), tmp_path / "a.ekb")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(LimitError) as caught:
        bundle.write(small(), tmp_path / "a.ekb")
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("writes", [0, 1, 2, 4, 6])
@pytest.mark.parametrize("old", [False, True])
def test_a_killed_process_leaves_the_old_bundle_or_nothing(tmp_path, writes, old):
    path = tmp_path / "a.ekb"
    if old:
        bundle.write(small(), path)
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from sample_bundles import full
        from edgekit import bundle
        real, left = os.write, [int(sys.argv[2])]
        def write(descriptor, data):
            if left[0] == 0:
                real(descriptor, bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(descriptor, data)
        os.write = write
        bundle.write(full(), Path(sys.argv[1]), force=True)
    """)
    arguments = [sys.executable, "-c", script, str(path), str(writes), str(Path(__file__).parent)]
    done = subprocess.run(arguments, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == (["a.ekb"] if old else [])
    if old:
        assert bundle.read(path) == small()


def test_the_page_names_every_key():
    text = PAGE.read_text()
    for cls in (Manifest, ArtifactInfo, Member, GoldenRecord):
        for field in dataclasses.fields(cls):
            assert f"`{field.name}`" in text, f"{cls.__name__}.{field.name} is missing in {PAGE.name}"
    described = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    known = {
        field.name
        for cls in (Manifest, ArtifactInfo, Member, GoldenRecord)
        for field in dataclasses.fields(cls)
    }
    assert described <= known, f"{PAGE.name} describes {described - known}, which there is not"


# ── several networks, and the golden case ─────────────────────────────────────────────────────────────


def test_several_networks_and_the_golden_case_are_read_back(tmp_path):
    bundle.write(several(), tmp_path / "a.ekb")
    back = bundle.read(tmp_path / "a.ekb")
    assert back.manifest == several().manifest and back.files == several().files
    assert list(back.files) == [
        "golden/inputs/0.npy",
        "golden/results/0.npy",
        "network/first/engine.bin",
        "network/second/engine.bin",
    ]
    assert [network.name for network in back.manifest.networks] == ["first", "second"]
    assert back.manifest.network.name == "first" and back.network.files == {"engine.bin": b"first"}
    assert back.artifact(back.manifest.named("second")).files == {"engine.bin": b"second"}
    assert back.golden is not None and back.golden.record.limits.min_snr_db == 40
    np.testing.assert_array_equal(back.golden.results["doubled"], 2 * back.golden.inputs["image"])
    assert bundle.verify(tmp_path / "a.ekb").passed
    bundle.write(back, tmp_path / "b.ekb")
    assert (tmp_path / "a.ekb").read_bytes() == (tmp_path / "b.ekb").read_bytes()
    assert small().golden is None


def test_a_network_goes_by_its_backend_s_name():
    assert small().manifest.network.name == "stub" and small().manifest.network.proven
    with pytest.raises(UsageError, match="no network 'frist'") as caught:
        several().manifest.named("frist")
    assert caught.value.hint == "did you mean 'first'?"


OTHER = replace(DOUBLED, dtype="float64")


@pytest.mark.parametrize(
    "second, what",
    [
        ({"name": "first"}, "different names"),
        ({"name": "Second"}, "no name for a network"),
        ({"name": "a/b"}, "no name for a network"),
        ({"name": ".."}, "no name for a network"),
        ({"name": "x" * 41}, "no name for a network"),
        ({"target": "other"}, "for 'other'"),
        ({"outputs": (OTHER,)}, "same inputs and outputs"),
        ({"inputs": (replace(IMAGE, name="x"),)}, "same inputs and outputs"),
    ],
)
def test_networks_that_do_not_go_together_are_refused(second, what):
    with pytest.raises(CorruptError, match=what):
        several(**second)


def test_no_networks_and_too_many_are_refused():
    good = small()
    for networks in ((), tuple(replace(good.manifest.network, name=f"n{i}") for i in range(9))):
        with pytest.raises(CorruptError, match="want 1 to 8 networks"):
            replace(good, manifest=replace(good.manifest, networks=networks))


def npy(array, version=(1, 0)):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=version)
    return stream.getvalue()


GOLDEN = np.zeros((1, 1, 4, 8), np.float32)


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "want an array"),
        (b"PK", "want an array"),
        (npy(GOLDEN, (2, 0)), "version 1.0"),
        (npy(GOLDEN.astype(np.float64)), "got float64"),
        (npy(GOLDEN[:, :, :, :7]), "in C order"),
        (npy(GOLDEN[0]), "in C order"),
        (npy(np.asfortranarray(np.zeros((1, 1, 4, 8), np.float32))), "in C order"),
        (npy(GOLDEN)[:-1], "want 128 bytes of numbers, got 127"),
        (npy(GOLDEN) + b"x", "want 128 bytes of numbers, got 129"),
        (npy(GOLDEN).replace(b"4, 8", b"4, 9"), "in C order"),
        (npy(GOLDEN).replace(b"'<f4'", b"'|O' "), "got object"),
    ],
)
def test_a_golden_case_that_is_no_array_of_its_contract_is_refused(tmp_path, content, what):
    good = several()
    name = "golden/inputs/0.npy"
    files = {**good.files, name: content}
    members = {**good.manifest.members, name: Member.of(content)}
    described = replace(good.manifest, members=members)
    with pytest.raises(CorruptError, match=what):
        Bundle(described, files)
    # A file is refused alike, and verify does not call it intact.
    contents = {"manifest.json": manifest.encode(described), **dict(sorted(files.items()))}
    (tmp_path / "a.ekb").write_bytes(b"".join(archive.pieces(contents)))
    for look in (bundle.read, bundle.verify):
        with pytest.raises(CorruptError, match=what):
            look(tmp_path / "a.ekb")


def test_the_golden_case_s_files_are_members():
    good = several()
    with pytest.raises(CorruptError, match="want to be the members"):
        replace(good, manifest=replace(good.manifest, golden=None))


def test_of_takes_what_belongs_to_the_target():
    made = Bundle.of(
        artifact(),
        name="x",
        target=replace(TARGET, cpu_features=("avx2",)),
        inputs=(IMAGE,),
        results=(DOUBLED,),
    )
    assert (made.manifest.arch, made.manifest.cpu_features) == ("x86_64", ("avx2",))
