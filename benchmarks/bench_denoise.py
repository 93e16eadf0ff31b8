"""How much noise each method takes away, and how long it takes: edgekit against its peers on real images.

    python benchmarks/bench_denoise.py [--kind TEXT] [--image KIND=FILE ...] [--plot FILE] [--json FILE]

Noise of known strength is added to real images. Every method chooses the parameters that are best on the
first image of a kind, at each of several efforts (search radii, iterations); the others of the kind are
reported: the mean of their PSNR and SSIM, and the least CPU time on one thread, all taking turns. A
peer's row is answered if edgekit has one that is at least as good (within 0.1 dB) and faster. Exit code 1
where the best row of all peers on a kind is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# One thread for everybody.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _harness import interleave
from denoise_images import KINDS, Array, Kind, Noisy, images
from denoise_methods import OURS, PEERS, Method, Options

from edgekit import atomic, machine
from edgekit.kernels import native_status

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "denoising.json"
PAGE, PICTURE = ROOT / "docs" / "denoising.md", ROOT / "docs" / "denoising.png"
BEGIN, END = "<!-- figures of denoising: benchmarks/bench_denoise.py -->", "<!-- end -->"

# Of PSNR: nobody sees less.
EQUAL_DB = 0.1


@dataclass(frozen=True)
class Row:
    """A method at one effort.

    Attributes:
        kind: The kind of images.
        method: Its name.
        options: The parameters that were the best on the first image.
        psnr_db: Mean over the other images.
        ssim: Likewise.
        time_s: Least CPU time for the first of these.
    """

    kind: str
    method: str
    options: Options
    psnr_db: float
    ssim: float
    time_s: float

    @property
    def ours(self) -> bool:
        return self.method.startswith("edgekit")


def psnr_db(noisy: Noisy, result: Array) -> float:
    error = float(np.mean((result.astype(np.float64) - noisy.clean) ** 2))
    return float(20 * np.log10(np.ptp(noisy.clean)) - 10 * np.log10(error))


def ssim(noisy: Noisy, result: Array) -> float:
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(noisy.clean, result.astype(np.float32), data_range=float(np.ptp(noisy.clean)))
    )


def tuned(method: Method, effort: Options, image: Noisy) -> Options:
    """The parameters that give the smallest error."""
    candidates = [{**effort, **choice} for choice in method.choices()]
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda options: psnr_db(image, method.run(image, **options)))


def measure(kind: Kind, given: Sequence[str], methods: Iterable[Method], repeats: int) -> list[Row]:
    """All methods at all their efforts on one kind of image."""
    first, *others = images(kind, given)
    found: list[tuple[Method, Options]] = []
    for method in methods:
        if method.suits(first):
            found += [(method, tuned(method, effort, first)) for effort in method.efforts]
    calls = {
        f"{number}": lambda method=method, options=options: method.run(others[0], **options)
        for number, (method, options) in enumerate(found)
    }
    times = interleave(calls, repeats=repeats, limit_s=3.0)
    rows = []
    for number, (method, options) in enumerate(found):
        results = [method.run(image, **options) for image in others]
        pairs = list(zip(others, results, strict=True))
        rows.append(
            Row(
                kind.name,
                method.name,
                options,
                float(np.mean([psnr_db(*pair) for pair in pairs])),
                float(np.mean([ssim(*pair) for pair in pairs])),
                times[f"{number}"].least_cpu_s,
            )
        )
    return rows


def front(rows: Iterable[Row]) -> list[Row]:
    """Those that no other of their method beats in both time and PSNR, the fastest first."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.time_s, -row.psnr_db)):
        if not kept or row.psnr_db > kept[-1].psnr_db:
            kept.append(row)
    return kept


def answer(peer: Row, ours: Iterable[Row]) -> Row | None:
    """The fastest of ours that is as good as a peer's, if it is faster than that."""
    good = [row for row in ours if row.psnr_db >= peer.psnr_db - EQUAL_DB]
    best = min(good, key=lambda row: row.time_s, default=None)
    return best if best and best.time_s < peer.time_s else None


def best_within(time_s: float, rows: Iterable[Row]) -> Row | None:
    """The best that takes no longer."""
    return max((row for row in rows if row.time_s <= time_s), key=lambda row: row.psnr_db, default=None)


def shown(rows: Sequence[Row]) -> Iterator[str]:
    """A table of a kind: the fronts of all methods, and what answers each peer."""
    ours = [row for row in rows if row.ours]
    yield f"{'':38}{'PSNR dB':>9}{'SSIM':>8}{'ms':>9}  parameters"
    for method in dict.fromkeys(row.method for row in rows):
        for row in front(row for row in rows if row.method == method):
            options = " ".join(f"{name}={value}" for name, value in row.options.items())
            line = f"{row.method:38}{row.psnr_db:9.2f}{row.ssim:8.3f}{row.time_s * 1e3:9.2f}  {options}"
            yield line if row.ours else line + answered(row, ours)


def answered(peer: Row, ours: Sequence[Row]) -> str:
    found, within = answer(peer, ours), best_within(peer.time_s, ours)
    if found is None:
        return "  | not answered"
    gain = f"{within.psnr_db - peer.psnr_db:+.2f} dB in its time" if within else "no time for ours"
    name = found.method.removeprefix("edgekit ")
    return f"  | {peer.time_s / found.time_s:.1f}x as fast: {name}, {gain}"


def unanswered(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows on the front of all peers that edgekit does not answer: the best of a kind, and others."""
    best: list[Row] = []
    others: list[Row] = []
    for kind in dict.fromkeys(row.kind for row in rows):
        here = [row for row in rows if row.kind == kind]
        ours = [row for row in here if row.ours]
        peers = front(row for row in here if not row.ours)
        for number, row in enumerate(peers, 1):
            if answer(row, ours) is None:
                (best if number == len(peers) else others).append(row)
    return best, others


def markdown(rows: Sequence[Row]) -> str:
    """What docs/denoising.md says: the best of all peers on each kind, and what answers it."""
    lines = [
        "| images | best of all peers | edgekit, as good | times as fast | edgekit's best | in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in dict.fromkeys(row.kind for row in rows):
        here = [row for row in rows if row.kind == kind]
        ours = [row for row in here if row.ours]
        peer, best = (
            max(part, key=lambda row: row.psnr_db) for part in ([r for r in here if not r.ours], ours)
        )
        found = answer(peer, ours)
        cells = [
            kind,
            described(peer),
            *(("none", "–") if found is None else (described(found), speed(peer, found))),
        ]
        lines.append(f"| {' | '.join(cells)} | {best.psnr_db:.2f} dB | {best.time_s * 1e3:.3g} ms |")
    return "\n".join(lines)


def described(row: Row) -> str:
    name = row.method.removeprefix("edgekit ").removesuffix(", volume")
    return f"{name}, {row.psnr_db:.2f} dB in {row.time_s * 1e3:.3g} ms"


def speed(peer: Row, ours: Row) -> str:
    return f"{peer.time_s / ours.time_s:.0f}×"


def keep(rows: Sequence[Row], cpu: str) -> None:
    """Writes the figures, and the page's table and picture."""
    lines = ",\n".join(json.dumps(dataclasses.asdict(row)) for row in rows)
    KEPT.write_text(f'{{"cpu": {json.dumps(cpu)}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(f"{BEGIN}\n")
    PAGE.write_text(
        f"{before}{BEGIN}\n{page_section(rows, cpu)}\n{END}{rest.partition(END)[2]}", encoding="utf-8"
    )
    plot(rows, PICTURE)


def page_section(rows: Sequence[Row], cpu: str) -> str:
    return f"{markdown(rows)}\n\nOne thread of an {cpu}."


def plot(rows: Sequence[Row], path: Path) -> None:
    """PSNR against time, a panel for each kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row.kind for row in rows))
    columns = (len(kinds) + 2) // 2
    figure, grid = pyplot.subplots(2, columns, figsize=(5.2 * columns, 9), squeeze=False)
    panels = grid.ravel()
    names = sorted({row.method for row in rows}, key=lambda name: (not name.startswith("edgekit"), name))
    ours = [name for name in names if name.startswith("edgekit")]
    lines = {}
    for panel, kind in zip(panels, kinds, strict=False):
        for name in names:
            line = front(row for row in rows if (row.kind, row.method) == (kind, name))
            if not line:
                continue
            number = ours.index(name) if name in ours else names.index(name) - len(ours)
            times, psnr = [row.time_s * 1e3 for row in line], [row.psnr_db for row in line]
            style = {"color": f"C{number % 10}", "linewidth": 2.2} if name in ours else {"color": "0.45"}
            marker = "osD^vPX"[number // 10 % 7] if name in ours else "x+12348|_.,<>"[number % 13]
            (lines[name],) = panel.plot(
                times, psnr, "-" if name in ours else ":", marker=marker, label=name, zorder=2, **style
            )
        panel.set(title=kind, xscale="log", xlabel="CPU time, ms", ylabel="PSNR, dB")
        panel.grid(alpha=0.3)
    for panel in panels[len(kinds) :]:
        panel.axis("off")
    panels[-1].legend(
        [lines[name] for name in names], names, loc="center", ncols=2, fontsize=8, frameon=False
    )
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", default="", help="kinds whose name holds this text")
    parser.add_argument("--method", default="", help="methods whose name holds this text")
    parser.add_argument(
        "--image", action="append", default=[], metavar="KIND=FILE", help="instead of the images that ship"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each (default 5)")
    parser.add_argument("--update", action="store_true", help="write docs/denoising.md's table and picture")
    parser.add_argument("--plot", type=Path, help="where to write PSNR against time")
    parser.add_argument("--json", type=Path, help="where to write every row")
    return parser.parse_args()


def given_images(texts: Sequence[str]) -> dict[str, list[str]]:
    """Paths by kind."""
    given: dict[str, list[str]] = {kind.name: [] for kind in KINDS}
    for text in texts:
        name, _, path = text.partition("=")
        if name not in given or not path:
            sys.exit(f"error: --image {text}: want KIND=FILE with KIND one of {', '.join(given)}")
        given[name].append(path)
    return given


def main() -> int:
    settings = parsed()
    kinds = {kind.name: kind for kind in KINDS}
    given = given_images(settings.image)
    record = machine.record({"numpy": None})
    print(f"{record.cpu}, {record.cores} cores, load {record.load:.1f}, native: {native_status().isa}")
    methods = [method for method in (*OURS, *PEERS) if settings.method in method.name]
    absent = sorted({method.package for method in methods if method.missing()})
    if absent:
        print(f"left out: {', '.join(absent)} (not installed)")
    rows: list[Row] = []
    for name, kind in kinds.items():
        if settings.kind not in name:
            continue
        found = measure(kind, given[name], [m for m in methods if not m.missing()], settings.repeats)
        print(f"\n{name}", *shown(found), sep="\n", flush=True)
        rows += found
        report = {"machine": dataclasses.asdict(record), "rows": [dataclasses.asdict(row) for row in rows]}
        if settings.json:
            atomic.write(settings.json, json.dumps(report, indent=1).encode(), force=True)
    if settings.plot:
        plot(rows, settings.plot)
    if settings.update:
        keep(rows, record.cpu)
    best, others = unanswered(rows)
    for text, missing in (("NOT ANSWERED, the best", best), ("not answered", others)):
        for row in missing:
            print(f"{text}: {row.method} on {row.kind}, {row.psnr_db:.2f} dB in {row.time_s * 1e3:.2f} ms")
    return 1 if best else 0


if __name__ == "__main__":
    sys.exit(main())
