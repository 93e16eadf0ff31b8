"""edgekit.cases: what a list of labelled cases may be, and what is said where it may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit import volumes
from edgekit.cases import Cases
from edgekit.errors import GateError, InputError, SpecError
from edgekit.spec import TensorSpec
from edgekit.volumes import Volume

CT = TensorSpec("ct", "float32", (1, 1, 3, 4, 5), "NCDHW", "intensity")
MASK = TensorSpec("mask", "float32", (1, 2, 3, 4, 5), "NCDHW")
GRADE = TensorSpec("grade", "float32", (1, 4), "NC")
RESULTS = (MASK, GRADE)
SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three scans and masks."""
    for index in range(3):
        scan = np.random.default_rng(index).standard_normal((3, 4, 5)).astype(np.float32)
        volumes.write(tmp_path / f"p{index}.nii.gz", Volume(scan, SPACING, "RAS"))
        volumes.write(tmp_path / f"m{index}.nii.gz", Volume((scan > 0).astype(np.uint8), SPACING, "RAS"))
        np.save(tmp_path / f"p{index}.npy", scan)
    return tmp_path


def listed(folder: Path, text: str, minimum: int = 1, results: tuple[TensorSpec, ...] = RESULTS) -> Cases:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return Cases.open(path, (CT,), results, minimum=minimum)


def refused(folder: Path, text: str, minimum: int = 1) -> str:
    """The error as a user reads it, without the folder that a test run has."""
    with pytest.raises((InputError, GateError)) as caught:
        list(listed(folder, text, minimum))
    return str(caught.value).replace(f"{folder}/", "").replace(str(folder), ".")


def test_cases_are_read_one_by_one_with_all_that_they_hold(folder: Path) -> None:
    cases = listed(
        folder,
        "case,group,ct,mask,grade\none,site A,p0.nii.gz,m0.nii.gz,2\n\ntwo,,p1.nii.gz,m1.nii.gz,0 1 0 0\n",
    )
    assert len(cases) == 2 and cases.references == ("mask", "grade") and cases.has_groups
    one, two = cases
    assert (one.record.name, one.record.groups) == ("one", ("site A",))
    assert two.record.groups == ("(none)",)
    assert one.feeds["ct"].shape == (1, 1, 3, 4, 5) and one.feeds["ct"].dtype == np.float32
    assert one.references["mask"].shape == (3, 4, 5) and one.references["mask"].dtype == np.uint8
    assert one.references["grade"].tolist() == [2] and two.references["grade"].tolist() == [0, 1, 0, 0]
    assert one.spacing_mm_zyx == pytest.approx(SPACING)
    assert cases.read("two").record == two.record


def test_names_groups_and_columns_may_be_left_out(folder: Path) -> None:
    cases = listed(folder, "ct\np0.nii.gz\np1.npy\n")
    assert [c.record.name for c in cases] == ["p0", "p1"]
    assert cases.references == () and not cases.has_groups and cases.notes == ()
    assert [c.spacing_mm_zyx is None for c in cases] == [False, True]


def test_several_ways_to_divide_the_cases(folder: Path) -> None:
    cases = listed(folder, "ct,group:sex,group:site,group\np0.npy,f,Ulm,x\np1.npy,m,,y\n")
    assert [c.record.groups for c in cases] == [("sex=f", "site=Ulm", "x"), ("sex=m", "site=(none)", "y")]


def test_paths_may_lead_anywhere_that_there_is_a_file(folder: Path) -> None:
    inner = folder / "lists"
    inner.mkdir()
    cases = listed(inner, f"ct,case\n../p0.npy,a\n{folder}/p1.npy,b\n")
    assert len(list(cases)) == 2


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators_a_mark_of_the_coding_and_quotes(folder: Path, mark: str) -> None:
    text = f'\ufeffct{mark} case \r\np0.npy{mark}"a{mark} ""b"""\r\np1.npy{mark}c\r\n'
    (folder / "cases.csv").write_bytes(text.encode())
    cases = Cases.open(folder / "cases.csv", (CT,), RESULTS, minimum=2)
    assert [c.record.name for c in cases] == [f'a{mark} "b"', "c"]


def test_a_formula_is_a_text(folder: Path) -> None:
    cases = listed(folder, "case,ct,grade\n=1+1,p0.npy,3\n@SUM(A1),p1.npy,-1\n")
    assert [c.record.name for c in cases] == ["=1+1", "@SUM(A1)"]
    assert "no such file: '=1+1'" in refused(folder, "ct,grade\np0.npy,=1+1\n")
    assert "no such file: '=HYPERLINK(1)'" in refused(folder, "ct\n=HYPERLINK(1)\n")


def test_digests_follow_the_content_not_the_name(folder: Path) -> None:
    def digests(text: str) -> list[str]:
        return [c.record.sha256 for c in listed(folder, text)]

    first = digests("ct,grade\np0.npy,1\np1.npy,1\n")
    assert first == digests("ct,grade,case\np0.npy,1,x\np1.npy,1,y\n") and len(set(first)) == 2
    assert first != digests("ct,grade\np0.npy,2\np1.npy,1\n")
    (folder / "p0.npy").rename(folder / "q0.npy")
    assert first == digests("ct,grade\nq0.npy,1\np1.npy,1\n")
    np.save(folder / "q0.npy", np.zeros((3, 4, 5), np.float32))
    assert first[0] != digests("ct,grade\nq0.npy,1\np1.npy,1\n")[0]


def test_a_folder_of_slices_has_a_digest(folder: Path) -> None:
    from edgekit.cases import _digest_of

    slices = folder / "series"
    slices.mkdir()
    (slices / "1.dcm").write_bytes(b"a")
    before = _digest_of(slices)
    (slices / "2.dcm").write_bytes(b"b")
    assert _digest_of(slices) != before
    (slices / "2.dcm").rename(slices / "3.dcm")
    assert len({before, _digest_of(slices)}) == 2


def test_columns_that_mean_nothing_are_said(folder: Path) -> None:
    cases = listed(folder, "ct,patient id,,date\np0.npy,7,,x\n")
    assert "columns that mean nothing here: patient id, (no name), date" in cases.notes[0]


@pytest.mark.parametrize(
    "text, want",
    [
        (
            "case,mask\na,m0.nii.gz\n",
            "no column for the input 'ct': want one for each of ct, got case, mask [EK1180]\n"
            "  where: cases.csv, line 1\n  hint: the first line names the columns: ct,mask,grade,case,group",
        ),
        ("", "no column for the input 'ct': want one for each of ct, got nothing"),
        ("cts,mask\np0.npy,m0.nii.gz\n", "hint: is it called 'cts' there? rename it"),
        ("ct,maks\np0.npy,m0.nii.gz\n", "nothing else is called 'maks'"),
        ("ct,maks\np0.npy,m0.nii.gz\n", "hint: did you mean 'mask'?"),
        ("ct,Group\np0.npy,x\n", "did you mean 'group'?"),
        ("ct,ct\np0.npy,p1.npy\n", "two columns are called 'ct'"),
        (
            "ct,mask\np0.npy,m0.nii.gz\np1.npy,m9.nii.gz\n",
            "no such file: 'm9.nii.gz' [EK1180]\n  where: cases.csv, line 3, column 'mask'\n"
            "  hint: paths are relative to .",
        ),
        (
            "ct,mask\np0.npy,\n",
            "the cell 'mask' is empty: every case wants one [EK1180]\n  where: cases.csv, line 2",
        ),
        ("ct,mask\np0.npy\n", "want 2 cells as in the heading, got 1"),
        ("ct,mask\np0.npy,a,b\n", 'hint: put a cell with a comma in quotes: "a, b"'),
        (
            "ct,case\np0.npy,a\n\np1.npy,a\n",
            "two cases are called 'a': in line 2 and here [EK1180]\n  where: cases.csv, line 4",
        ),
        ("ct\np0.npy\np0.nii.gz\n", "hint: a column 'case' names them"),
        ('ct\n"p0.npy\n', "not a CSV file: unexpected end of data"),
        ("ct\np0.npy\0\n", "no such file: 'p0.npy\\x00'"),
        (f"ct\n{'x' * 5000}.npy\n", "no such file: 'xxxxx"),
        ("ct\ncases.csv\n", "cannot tell what kind of image it is"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_by_line(folder: Path, text: str, want: str) -> None:
    assert want in refused(folder, text)


def test_too_few_cases_fail_as_a_gate_does(folder: Path) -> None:
    text = refused(folder, "ct\np0.npy\np1.npy\n", minimum=3)
    assert "want at least 3 labelled cases, got 2" in text and "EK1700" in text and "--min-cases" in text


def test_files_that_are_no_list(folder: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Cases.open(folder / "none.csv", (CT,), RESULTS)
    with pytest.raises(InputError, match="cannot read"):
        Cases.open(folder, (CT,), RESULTS)
    (folder / "latin.csv").write_bytes("ct,case\np0.npy,Köln\n".encode("latin-1"))
    with pytest.raises(InputError, match="no UTF-8 text: byte 16") as caught:
        Cases.open(folder / "latin.csv", (CT,), RESULTS)
    assert caught.value.hint == "save it as CSV UTF-8"
    (folder / "large.csv").write_bytes(b"x" * ((16 << 20) + 1))
    with pytest.raises(InputError, match="at most 16 MiB"):
        Cases.open(folder / "large.csv", (CT,), RESULTS)


def test_an_image_that_does_not_fit_is_named_by_line_and_column(folder: Path) -> None:
    np.save(folder / "small.npy", np.zeros((3, 4, 4), np.float32))
    cases = listed(folder, "ct\np0.npy\nsmall.npy\n")
    read = iter(cases)
    next(read)
    with pytest.raises(SpecError, match="want 1x1x3x4x5") as caught:
        next(read)
    assert "line 3, column 'ct'" in str(caught.value.where)
    (folder / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(InputError, match=r"not a whole \.npy file") as unread:
        list(listed(folder, "ct\ntorn.npy\n"))
    assert "line 2, column 'ct': " in str(unread.value.where) and "torn.npy" in str(unread.value.where)


def test_a_reference_that_lies_elsewhere_is_refused(folder: Path) -> None:
    flipped = volumes.read(folder / "m0.nii.gz")
    volumes.write(folder / "flipped.nii.gz", replace(flipped, affine=None, orientation="LPS"))
    text = refused(folder, "ct,mask\np0.nii.gz,flipped.nii.gz\n")
    assert "the reference 'mask' lies elsewhere in the patient than the input 'ct'" in text
    assert "want RAS, 2 × 1 × 1 mm (z, y, x), got LPS" in text and "line 2, column 'mask'" in text
    assert len(list(listed(folder, "ct,mask\np0.npy,flipped.nii.gz\n"))) == 1, (
        "nothing says where p0.npy lies"
    )
