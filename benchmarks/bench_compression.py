"""Compression beside its peers: metric, size and latency of every candidate, on the networks of the zoo.

    python benchmarks/bench_compression.py [NAME] [--cases N] [--samples N] [--threads 1 2] [--target NAME]
                                           [--pruned FOLDER] [--precisions NAME …] [--repeats N] [--keep]

Every candidate gets the same network, the same calibration samples and the same labelled cases: float32, INT8
and ``auto`` of edgekit, ONNX Runtime's static quantizer and NNCF (compression_peers.py). ``--pruned`` names a
folder with ``NAME.safetensors`` files of ``edgekit prune``; such networks are compiled in float32 and with
``auto``. Latencies are medians of turns in one process, for each number of threads. A candidate counts as
valid where it loses at most 1 % of float32's metric; a ratio is over the fastest float32 candidate.

``--keep`` writes the figures to benchmarks/results/compression.json, the plots and the tables into docs/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import compression_peers as peers
import numpy as np
from _harness import interleave

from edgekit import atomic, gates, machine, pipeline, probe, runtime
from edgekit import target as targets
from edgekit.bundle import Bundle
from edgekit.cases import Cases
from edgekit.compression import Compression
from edgekit.dataset import Dataset
from edgekit.errors import EdgekitError
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.spec import Array
from edgekit.target import Target
from edgekit.zoo import MODELS
from edgekit.zoo import cases as zoo_cases

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGE = ROOT / "benchmarks" / "results" / "compression.json", ROOT / "docs" / "compression.md"
BEGIN, END = "<!-- figures: benchmarks/bench_compression.py -->", "<!-- end -->"

# What each network is judged by, and the shape it is measured with.
TASKS = {
    "segment2d": ("dice logits", "256x256"),
    "segment3d": ("dice logits", "96x96x96"),
    "classify2d": ("balanced_accuracy logits", "192x192"),
    "denoise2d": ("psnr denoised", "256x256"),
    "register3d": ("tre flow_vox", "96x96x96"),
}
# Of float32's metric.
ALLOWED = "1%"
PAUSE_S = 0.02
PRECISIONS = ("float32", "int8", "auto")
CALIBRATION_SEED, CASES_SEED = 7, 3

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Candidate:
    """Something that does a network's job.

    Attributes:
        name: Who made it, and how.
        ours: Whether edgekit did.
        precision: ``"float32"`` or what it was lowered to.
        size_bytes: Of what a device would need.
        open: Loads it for a number of threads.
        detail: Backend, and which layers stayed float32.
    """

    name: str
    ours: bool
    precision: str
    size_bytes: int
    open: Callable[[int, ExitStack], Run]
    detail: str = ""


@dataclass(frozen=True)
class Subject:
    """A network with its data.

    Attributes:
        name: In the zoo.
        graph: After edgekit's passes: what every tool gets.
        original: Before them: the baseline.
        calibration: Folders of calibration images, as ``--calibrate`` takes them.
        samples: The same as arrays.
        cases: CSV file of labelled cases.
        shape: Of each input, as ``--shape`` takes it.
    """

    name: str
    graph: Graph
    original: Graph
    calibration: tuple[str, ...]
    samples: list[dict[str, Array]]
    cases: Path
    shape: dict[str, str]


def subject(name: str, folder: Path, samples: int, count: int, device: Target) -> Subject:
    """Draw the data, take in the network."""
    model = MODELS[name]
    image = TASKS[name][1]
    shape = {key: f"1x1x{image}" for key in model.inputs}
    lengths = tuple(map(int, image.split("x")))
    cases = zoo_cases.write(
        zoo_cases.generate(name, count, CASES_SEED, shape=lengths), folder / f"{name}-cases"
    )
    drawn = list(zoo_cases.generate(name, samples, CALIBRATION_SEED, shape=lengths))
    calibration = []
    for key in model.inputs:
        place = folder / f"{name}-calibration-{key}"
        place.mkdir()
        for case in drawn:
            np.save(place / f"{case.name}.npy", case.inputs[key][0, 0])
        calibration.append(f"{key}={place}")
    loaded = load(model.factory, shapes=shape, weights=model.weights)
    graph = run_all(default_passes(device), loaded.graph, device).graph
    data = Dataset.open(calibration, graph.given)
    return Subject(name, graph, loaded.graph, tuple(calibration), [one.feeds for one in data], cases, shape)


def own_candidates(
    it: Subject, device: Target, pruned: Path | None, precisions: Sequence[str]
) -> tuple[list[Candidate], dict[str, str]]:
    """What edgekit makes: float32, INT8 everywhere, and the fastest mix that keeps the metric."""
    gate = gates.parse([TASKS[it.name][0]], max_drop=[ALLOWED])
    found, failed = [], {}
    weights = {"": MODELS[it.name].weights}
    if pruned is not None and (pruned / f"{it.name}.safetensors").exists():
        weights["pruned "] = pruned / f"{it.name}.safetensors"
    for (prefix, file), precision in itertools.product(weights.items(), precisions):
        wanted = Compression(
            precision=precision,  # type: ignore[arg-type]
            calibrate=it.calibration,
            cases=it.cases if precision != "float32" else None,
            gates=gate if precision != "float32" else (),
        )
        label = f"edgekit {prefix}{precision}"
        try:
            bundle = pipeline.compile(
                MODELS[it.name].factory,
                weights=file,
                shapes=it.shape,
                target=device,
                compression=wanted,
                name=it.name,
                on_event=lambda event, label=label: print(f"  {label}: {event}", file=sys.stderr),
            )
        except EdgekitError as error:
            failed[label] = error.message
            continue
        found.append(of_bundle(label, bundle))
    return found, failed


def of_bundle(label: str, bundle: Bundle) -> Candidate:
    """What edgekit compiled."""
    manifest = bundle.manifest
    single = [layer for layer in manifest.layers if layer.precision == "float32"]
    detail = manifest.network.backend
    if manifest.layers:
        detail += f", {len(single)} of {len(manifest.layers)} layers float32"

    def open_it(threads: int, stack: ExitStack) -> Run:
        return stack.enter_context(runtime.open(bundle, threads=threads)).run

    size = bundle.network.size_bytes
    return Candidate(label, True, manifest.precision, size, open_it, detail)


def peer_candidates(it: Subject) -> tuple[list[Candidate], dict[str, str]]:
    """What the stock tools make of the same network, in the runtimes they are for."""
    tensors = [runtime.run_steps(it.graph.before, feeds) for feeds in it.samples]
    feeds = [{spec.name: found[spec.name] for spec in it.graph.inputs} for found in tensors]
    model = it.graph.to_bytes()
    made, failed = peers.quantized_by_peers(model, feeds)
    plain = [peers.PeerModel("float32", name, (model,)) for name in ("onnxruntime", "openvino")]
    found = []
    for one in (*plain, *made):
        label = f"{one.name} in {one.runtime}"
        if reason := peers.crash_of(one, feeds[0]):
            failed[label] = reason
            continue
        precision = "float32" if one.name == "float32" else "int8"
        found.append(Candidate(label, False, precision, one.size_bytes, opener(it.graph, one)))
    return found, failed


def opener(graph: Graph, model: peers.PeerModel) -> Callable[[int, ExitStack], Run]:
    """Opens a peer's model, which is one for the same graph."""

    def open_it(threads: int, stack: ExitStack) -> Run:
        network = model.open(threads)

        def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            tensors = runtime.run_steps(graph.before, feeds, threads=threads)
            outputs = network({spec.name: tensors[spec.name] for spec in graph.inputs})
            made = runtime.run_steps(graph.after, {**tensors, **outputs}, threads=threads)
            return {spec.name: made[spec.name] for spec in graph.results}

        return run

    return open_it


def measure(it: Subject, found: Sequence[Candidate], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each candidate: metric, drop, size, and median seconds for each number of threads."""
    rows = {one.name: _row(it, one) for one in found}
    gate = gates.parse([TASKS[it.name][0]], max_drop=[ALLOWED], min_cases=1)
    listed = Cases.open(it.cases, it.original.given, it.original.results, minimum=1)
    with (
        probe.opened_whole(it.original) as baseline,
        gates.Judge(gate, listed, it.original.results, baseline) as judge,
        ExitStack() as stack,
    ):
        for one in found:
            report = judge.judge(one.open(0, stack))
            overall = report.metrics[0].overall
            rows[one.name] |= {
                "metric": report.metrics[0].metric,
                "baseline": overall.baseline,
                "value": overall.candidate,
                "drop": overall.drop,
                "valid": report.passed,
                "worst_case_drop": report.metrics[0].worst(1)[0].worst_drop,
            }
    for threads in options.threads:
        with ExitStack() as stack:
            runs = {one.name: one.open(threads, stack) for one in found}
            calls = {name: lambda run=run: run(it.samples[0]) for name, run in runs.items()}
            samples = interleave(calls, repeats=options.repeats, limit_s=options.limit_s, pause_s=PAUSE_S)
        for name, taken in samples.items():
            rows[name][f"threads_{threads}_s"] = taken.wall_s
    return list(rows.values())


def _row(it: Subject, one: Candidate) -> dict[str, Any]:
    return {
        "network": it.name,
        "candidate": one.name,
        "ours": one.ours,
        "precision": one.precision,
        "size_bytes": one.size_bytes,
        "detail": one.detail,
    }


def table(rows: Sequence[Mapping[str, Any]], threads: Sequence[int]) -> str:
    """The rows of one network in Markdown, the fastest first."""
    key = f"threads_{threads[-1]}_s"
    single = [row for row in rows if row["precision"] == "float32" and "pruned" not in row["candidate"]]
    least = {t: min(row[f"threads_{t}_s"] for row in single) for t in threads}
    whole = max(row["size_bytes"] for row in single)
    heads = [f"{t} thread{'s' if t > 1 else ''}, ms (× float32)" for t in threads]
    lines = [
        f"| candidate | {rows[0]['metric']} | valid | size | {' | '.join(heads)} | |",
        "|---|" + "---|" * (len(threads) + 4),
    ]
    for row in sorted(rows, key=lambda row: row[key]):
        times = [
            f"{row[f'threads_{t}_s'] * 1e3:.3g} ({least[t] / row[f'threads_{t}_s']:.2f})" for t in threads
        ]
        name = f"**{row['candidate']}**" if row["ours"] else row["candidate"]
        lines.append(
            f"| {name} | {row['value']:.4g} | {'yes' if row['valid'] else 'no'} | "
            f"{row['size_bytes'] / whole:.2f} | {' | '.join(times)} | {row['detail']} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], threads: int, file: Path) -> None:
    """Loss of the metric over latency: what lies to the lower left is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for ours, marker, colour, label in (
        (True, "o", "#0072b2", "edgekit"),
        (False, "s", "#d55e00", "stock tools"),
    ):
        chosen = [row for row in rows if row["ours"] == ours]
        x = [row[f"threads_{threads}_s"] * 1e3 for row in chosen]
        y = [row["drop"] for row in chosen]
        axes.scatter(x, y, marker=marker, color=colour, label=label, zorder=3)
        for row, left, up in zip(chosen, x, y, strict=True):
            name = (
                row["candidate"]
                .replace("edgekit ", "")
                .replace("onnxruntime", "ORT")
                .replace("openvino", "OV")
            )
            axes.annotate(name, (left, up), textcoords="offset points", xytext=(4, 3), fontsize=6)
    axes.set_xlabel(f"median latency with {threads} threads, ms")
    axes.set_ylabel(f"loss of {rows[0]['metric']}")
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_title(rows[0]["network"])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="networks of the zoo; all of them by default")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--samples", type=int, default=16, help="calibration samples")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--target", default="x86-avx2")
    parser.add_argument("--pruned", type=Path, help="folder with NAME.safetensors of edgekit prune")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, help="edgekit's own candidates")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--limit-s", type=float, default=4.0, help="for each candidate and number of threads")
    parser.add_argument("--no-peers", action="store_true", help="edgekit's own candidates alone")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)
    device = targets.find(options.target)
    for name in options.names or TASKS:
        with tempfile.TemporaryDirectory() as folder:
            it = subject(name, Path(folder), options.samples, options.cases, device)
            found, failed = own_candidates(it, device, options.pruned, options.precisions)
            if not options.no_peers:
                theirs, theirs_failed = peer_candidates(it)
                found, failed = found + theirs, {**failed, **theirs_failed}
            rows = measure(it, found, options)
        print(section(name, rows, failed, options.threads), flush=True)
        if options.keep:
            keep(name, rows, failed, options.threads, device)
    return 0


def section(
    name: str, rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str], threads: Sequence[int]
) -> str:
    """A network's part of the page."""
    reasons = "".join(f"\n\n{label}: {reason}" for label, reason in failed.items())
    return f"### {name}\n\n{table(rows, threads)}{reasons}"


def keep(
    name: str,
    rows: list[dict[str, Any]],
    failed: Mapping[str, str],
    threads: Sequence[int],
    device: Target,
) -> None:
    """Write a network's figures, its plot, and the page anew."""
    earlier = json.loads(KEPT.read_text())["networks"] if KEPT.exists() else {}
    networks = {**earlier, name: {"rows": rows, "failed": dict(failed)}}
    where = {"target": device.name, "threads": list(threads), "machine": asdict(machine.record())}
    text = json.dumps({**where, "networks": networks}, indent=1) + "\n"
    atomic.write(KEPT, text.encode(), force=True)
    plot(rows, threads[-1], PAGE.parent / f"compression-{name}.png")
    parts = [
        f"{section(key, networks[key]['rows'], networks[key]['failed'], threads)}\n\n"
        f"![{key}: loss over latency](compression-{key}.png)"
        for key in TASKS
        if key in networks
    ]
    page = PAGE.read_text()
    head, tail = page.index(BEGIN) + len(BEGIN), page.index(END)
    atomic.write(PAGE, f"{page[:head]}\n{chr(10).join(parts)}\n{page[tail:]}".encode(), force=True)


if __name__ == "__main__":
    raise SystemExit(main())
