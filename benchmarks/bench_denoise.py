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


def plot(rows: Sequence[Row], path: Path) -> None:
    """PSNR against time, a panel for each kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row.kind for row in rows))
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 4.8), squeeze=False)
    names = sorted({row.method for row in rows}, key=lambda name: (not name.startswith("edgekit"), name))
    colours = dict(zip(names, pyplot.get_cmap("tab20")(np.linspace(0, 1, len(names))), strict=True))
    for panel, kind in zip(panels[0], kinds, strict=True):
        for name in names:
            line = front(row for row in rows if (row.kind, row.method) == (kind, name))
            ours = name.startswith("edgekit")
            panel.plot(
                [row.time_s * 1e3 for row in line],
                [row.psnr_db for row in line],
                "o-" if ours else "x--",
                color=colours[name],
                label=name,
                linewidth=2 if ours else 1,
            )
        panel.set(title=kind, xscale="log", xlabel="CPU time, ms")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("PSNR, dB")
    figure.legend(*_legend(panels[0]), loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.22, 1, 1))
    figure.savefig(path, dpi=110)


def _legend(panels: Iterable) -> tuple[list, list[str]]:
    found = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            if len(handle.get_xdata()):
                found.setdefault(label, handle)
    return list(found.values()), list(found)


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
    parser.add_argument("--plot", type=Path, help="where to write PSNR against time")
    parser.add_argument("--json", type=Path, help="where to write every row")
    return parser.parse_args()


def main() -> int:
    settings = parsed()
    kinds = {kind.name: kind for kind in KINDS}
    given: dict[str, list[str]] = {name: [] for name in kinds}
    for text in settings.image:
        name, _, path = text.partition("=")
        if name not in kinds or not path:
            sys.exit(f"error: --image {text}: want KIND=FILE with KIND one of {', '.join(kinds)}")
        given[name].append(path)
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
    best, others = unanswered(rows)
    for text, missing in (("NOT ANSWERED, the best", best), ("not answered", others)):
        for row in missing:
            print(f"{text}: {row.method} on {row.kind}, {row.psnr_db:.2f} dB in {row.time_s * 1e3:.2f} ms")
    return 1 if best else 0


if __name__ == "__main__":
    sys.exit(main())
