"""Labelled cases: inputs of a model and what it should make of them, listed in a CSV file.

    case,group,ct,mask
    p01,site A,scans/p01.nii.gz,masks/p01.nii.gz
    p02,site B,scans/p02.nii.gz,masks/p02.nii.gz

The columns are the model's inputs, then any of its results (what they should be: the references), then
``case`` (a name) and ``group``, or ``group:NAME`` for several ways to divide the cases. A cell is a file or
folder, relative to the CSV file; a reference may also be a number, or several with spaces between. Nothing in
a cell is ever computed: ``=1+1`` is a text.

The list is checked as a whole when it is opened. Images are read one case at a time.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit import volumes
from edgekit.dataset.record import digest_file
from edgekit.errors import GateError, InputError, SpecError, did_you_mean
from edgekit.reports import CaseRecord
from edgekit.spec import Array, TensorSpec
from edgekit.volumes import Volume

MIN_CASES = 10

_CASE, _GROUP = "case", "group"
_MAX_BYTES = 16 << 20
_NUMBERS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(\s+[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)*")
_GRID_TOLERANCE_MM = 1e-3
# A column whose name is this much like one that means something is taken for a slip; any other is a remark.
_ALIKE = 0.75


@dataclass(frozen=True)
class Loaded:
    """What a case holds, in memory.

    Attributes:
        feeds: The model's inputs by name, within their contracts.
        references: What the results should be, by name, as the files hold them.
        spacing_mm_zyx: Distance of neighbouring voxels, or ``None`` where no file says it.
        record: Name, groups and digest.
        notes: What reading changed.
    """

    feeds: dict[str, Array]
    references: dict[str, Array]
    spacing_mm_zyx: tuple[float, float, float] | None
    record: CaseRecord
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One line of the list.

    Attributes:
        name: Its name, different from all others'.
        groups: The groups that it belongs to.
        where: File and line, for messages.
        inputs: File of each input, by name.
        references: File of each reference, or the numbers that stand in the list.
    """

    name: str
    groups: tuple[str, ...]
    where: str
    inputs: Mapping[str, Path]
    references: Mapping[str, Path | Array]

    def read(self, specs: Sequence[TensorSpec]) -> Loaded:
        """Read every file of the case.

        Args:
            specs: Contracts of the inputs.

        Raises:
            InputError: A file cannot be read, or two of them lie on grids that contradict each other.
            SpecError: An input is outside its contract.
        """
        images = {name: self._image(name, path) for name, path in self.inputs.items()}
        feeds = {}
        for spec in specs:
            try:
                feeds[spec.name] = volumes.as_tensor(images[spec.name], spec)
            except SpecError as error:
                raise SpecError(error.message, where=self._place(spec.name), hint=error.hint) from None
        references, truths = {}, {}
        for name, cell in self.references.items():
            if isinstance(cell, Path):
                truths[name] = self._image(name, cell)
                references[name] = truths[name].array
            else:
                references[name] = cell
        self._check_grids(images, truths)
        spacings = (v.spacing_mm_zyx for v in (*truths.values(), *images.values()))
        notes = [f"{self._place(n)}: {text}" for n, v in {**images, **truths}.items() for text in v.notes]
        return Loaded(
            feeds,
            references,
            next((s for s in spacings if s is not None), None),
            CaseRecord(self.name, self._digest(), self.groups),
            tuple(notes),
        )

    def _image(self, column: str, path: Path) -> Volume:
        try:
            return volumes.read(path)
        except InputError as error:
            where = f"{self._place(column)}: {error.where}"
            raise InputError(error.message, where=where, hint=error.hint) from None

    def _check_grids(self, images: Mapping[str, Volume], truths: Mapping[str, Volume]) -> None:
        """A reference of the same shape as an input has to lie where the input does."""
        for name, truth in truths.items():
            for column, image in images.items():
                if truth.affine is None or image.affine is None or truth.array.shape != image.array.shape:
                    continue
                if not np.allclose(truth.affine, image.affine, atol=_GRID_TOLERANCE_MM):
                    raise InputError(
                        f"the reference {name!r} lies elsewhere in the patient than the input {column!r}: "
                        f"want {image.orientation}, {_mm(image)}, got {truth.orientation}, {_mm(truth)}",
                        where=self._place(name),
                        hint="resample the reference to the grid of the input",
                    )

    def _digest(self) -> str:
        """SHA-256 over the content of all its files, and the numbers in the list."""
        whole = hashlib.sha256()
        for kind, cells in (("input", self.inputs), ("reference", self.references)):
            for name, cell in sorted(cells.items()):
                content = _digest_of(cell) if isinstance(cell, Path) else " ".join(map(str, cell.tolist()))
                whole.update(f"{kind} {name} {content}\n".encode())
        return whole.hexdigest()

    def _place(self, column: str) -> str:
        return f"{self.where}, column {column!r}"


@dataclass(frozen=True)
class Cases:
    """A list of labelled cases.

    Attributes:
        path: The CSV file.
        sha256: Of its bytes, in hexadecimal.
        specs: Contracts of the model's inputs.
        references: The results that have a reference, in the model's order.
        has_groups: Whether the list divides the cases into groups.
        notes: What a user wants to know of the list.
    """

    path: Path
    sha256: str
    specs: tuple[TensorSpec, ...]
    references: tuple[str, ...]
    has_groups: bool
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        path: Path,
        inputs: Sequence[TensorSpec],
        results: Sequence[TensorSpec],
        *,
        minimum: int = MIN_CASES,
    ) -> Cases:
        """Read the list and check all of it but the images.

        Args:
            path: The CSV file; UTF-8, its columns separated by commas, semicolons or tabs.
            inputs: Contracts of what a caller gives the model.
            results: Contracts of what the model gives back.
            minimum: Fewest cases.

        Raises:
            InputError: The file cannot be read, lacks a column or a cell, names a file that does not exist,
            or
                names two cases alike.
            GateError: It has fewer cases than the minimum.
        """
        path = Path(path)
        raw = _bytes(path)
        rows = _rows(raw, path)
        header, first = next(rows, ([], 1))
        known = (*(s.name for s in inputs), *(s.name for s in results), _CASE, _GROUP)
        notes = _check_header(header, [s.name for s in inputs], known, f"{path}, line {first}")
        references = tuple(s.name for s in results if s.name in header)
        names: dict[str, int] = {}
        cases = []
        for cells, line in rows:
            where = f"{path}, line {line}"
            if len(cells) != len(header):
                raise InputError(
                    f"want {len(header)} cells as in the heading, got {len(cells)}",
                    where=where,
                    hint='put a cell with a comma in quotes: "a, b"',
                )
            row = dict(zip(header, cells, strict=True))
            case = _case(row, [s.name for s in inputs], references, path.parent, where)
            if case.name in names:
                raise InputError(
                    f"two cases are called {case.name!r}: in line {names[case.name]} and here",
                    where=where,
                    hint=None if _CASE in header else "a column 'case' names them",
                )
            names[case.name] = line
            cases.append(case)
        if len(cases) < minimum:
            raise GateError(
                f"want at least {minimum} labelled cases, got {len(cases)}: fewer decide nothing",
                where=str(path),
                hint="--min-cases sets the smallest number",
            )
        has_groups = any(_is_group(column) for column in header)
        digest = hashlib.sha256(raw).hexdigest()
        return cls(path, digest, tuple(inputs), references, has_groups, tuple(cases), notes)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Loaded]:
        """Every case, read when its turn comes."""
        return (case.read(self.specs) for case in self.cases)

    def read(self, name: str) -> Loaded:
        """The case of this name."""
        return next(case for case in self.cases if case.name == name).read(self.specs)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), hint=f"ls {path.parent}") from None
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None
    if len(raw) > _MAX_BYTES:
        raise InputError(f"a list of cases has at most {_MAX_BYTES >> 20} MiB", where=str(path))
    return raw


def _rows(raw: bytes, path: Path) -> Iterator[tuple[list[str], int]]:
    """Each line that is not empty: its cells without the space around them, and its number."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the list of cases is no UTF-8 text: byte {error.start}",
            where=str(path),
            hint="save it as CSV UTF-8",
        ) from None
    heading = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in heading), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"not a CSV file: {error}", where=f"{path}, line {reader.line_num}") from None
        if any(cells):
            yield cells, reader.line_num


def _check_header(
    header: Sequence[str], inputs: Sequence[str], known: Sequence[str], where: str
) -> tuple[str, ...]:
    """Refuse a heading that cannot be meant; say which columns are left out."""
    for name in inputs:
        if name not in header:
            near = did_you_mean(name, [column for column in header if column not in known])
            raise InputError(
                f"no column for the input {name!r}: want one for each of {', '.join(inputs)}, "
                f"got {', '.join(header) or 'nothing'}",
                where=where,
                hint=f"is it called {near!r} there? rename it"
                if near
                else f"the first line names the columns: {','.join(known)}",
            )
    ignored = []
    for index, column in enumerate(header):
        if column in header[:index]:
            raise InputError(f"two columns are called {column!r}", where=where)
        if column in known or _is_group(column):
            continue
        absent = [name for name in known if name not in header]
        for near in difflib.get_close_matches(column.lower(), absent, n=1, cutoff=_ALIKE):
            raise InputError(
                f"no input, no result and nothing else is called {column!r}: want {', '.join(known)}",
                where=where,
                hint=f"did you mean {near!r}? Else give the column a name that is less like it",
            )
        ignored.append(column or "(no name)")
    return (f"{where}: columns that mean nothing here: {', '.join(ignored)}",) if ignored else ()


def _case(
    row: Mapping[str, str], inputs: Sequence[str], references: Sequence[str], folder: Path, where: str
) -> Case:
    """One line, its files looked for but not opened."""
    for column in (*inputs, *references):
        if not row[column]:
            raise InputError(f"the cell {column!r} is empty: every case wants one", where=where)
    files = {name: _file(row[name], folder, where, name) for name in inputs}
    wanted: dict[str, Path | Array] = {}
    for name in references:
        if _NUMBERS.fullmatch(row[name]):
            wanted[name] = np.array([float(number) for number in row[name].split()])
        else:
            wanted[name] = _file(row[name], folder, where, name)
    name = row.get(_CASE, "") or _stem(files[inputs[0]].name)
    groups = tuple(
        f"{column.partition(':')[2]}={row[column] or '(none)'}" if ":" in column else row[column] or "(none)"
        for column in row
        if _is_group(column)
    )
    return Case(name, groups, where, files, wanted)


def _file(text: str, folder: Path, where: str, column: str) -> Path:
    path = folder / text
    try:
        is_there = path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        is_there = False
    if not is_there:
        raise InputError(
            f"no such file: {text[:200]!r}",
            where=f"{where}, column {column!r}",
            hint=f"paths are relative to {folder}",
        )
    return path


def _stem(name: str) -> str:
    """A file's name without its ending, that of a folder as it is."""
    endings = [ending for ending in volumes.ENDINGS if name.lower().endswith(ending)]
    return name[: len(name) - max(map(len, endings), default=0)]


def _is_group(column: str) -> bool:
    return column == _GROUP or (column.startswith(f"{_GROUP}:") and len(column) > len(_GROUP) + 1)


def _digest_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names."""
    if path.is_dir():
        whole = hashlib.sha256()
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(f"{inner.relative_to(path).as_posix()} {_digest_of(inner)}\n".encode())
        return whole.hexdigest()
    return digest_file(path, path.name, "").sha256


def _mm(image: Volume) -> str:
    spacing = " × ".join(f"{s:.4g}" for s in image.spacing_mm_zyx or ())
    return f"{spacing} mm (z, y, x)"
