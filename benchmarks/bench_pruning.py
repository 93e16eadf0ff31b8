"""Pruning, recovery and INT8 beside their peers, on the networks of the zoo.

    python benchmarks/bench_pruning.py NAME … --folder FOLDER [--speedup X] [--steps N] [--labels]
                                       [--cases N] [--samples N] [--threads 1 2] [--target NAME] [--keep]

For each network: ``edgekit prune`` until it is ``--speedup`` times faster, ``edgekit distil`` for ``--steps``
steps on the same images, then float32 and INT8 of every backend of the target. The peer is Torch-Pruning with
its own dependency graph, at the same share of work, with the same samples and the same recovery, then ONNX
Runtime's static quantizer (pruning_peers.py). What a step makes stays in the folder, and a later call goes on
from there. ``--labels`` adds the task's loss to the recovery, for both.

The metric is that of labelled cases of another seed; a candidate is valid where it loses at most 1 % of
float32's, in each class too. With one thread, latency is CPU time, which other work on the machine does not
change; with more, it is wall time; medians of turns in one process. Ratios are over the fastest float32 of
the whole network. The stock quantizers are those of bench_compression.py, whose ratios are over float32 of
their own run.

``--keep`` writes the figures to benchmarks/results/pruning.json, the plots and the tables into docs/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import bench_compression as compression
import compression_peers as quantizers
import pareto
from _harness import interleave
from bench_compression import TASKS, Candidate, Subject
from pruning_networks import Place, draw, peer_network, prune, told

from edgekit import atomic, machine, pipeline, runtime
from edgekit import target as targets
from edgekit.compression import Compression
from edgekit.errors import EdgekitError
from edgekit.zoo import MODELS

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGE = ROOT / "benchmarks" / "results" / "pruning.json", ROOT / "docs" / "compression.md"
BEGIN, END = "<!-- figures: benchmarks/bench_pruning.py -->", "<!-- end of bench_pruning.py -->"

PEER = "Torch-Pruning"


def own_candidates(
    place: Place, it: Subject, options: argparse.Namespace
) -> tuple[list[Candidate], dict[str, str]]:
    """The network whole and pruned, float32 and INT8, in each backend."""
    weights = {"": MODELS[place.name].weights, "pruned ": place.folder / "recovered.safetensors"}
    wanted = [("", "float32"), ("pruned ", "float32"), ("pruned ", "int8")]
    found, failed = [], {}
    for (prefix, precision), backend in itertools.product(wanted, options.backends):
        label = f"edgekit {prefix}{precision} in {backend}"
        try:
            bundle = pipeline.compile(
                MODELS[place.name].factory,
                weights=weights[prefix],
                shapes=it.shape,
                target=options.device,
                backend=backend,
                compression=Compression(
                    precision=precision,  # type: ignore[arg-type]
                    calibrate=it.calibration if precision == "int8" else (),
                ),
                name=place.name,
                threads=1,
                on_event=told(label),
            )
        except EdgekitError as error:
            failed[label] = error.message.splitlines()[0]
            continue
        found.append(compression.of_bundle(label, bundle))
    return found, failed


def peer_candidates(
    place: Place, it: Subject, options: argparse.Namespace
) -> tuple[list[Candidate], dict[str, str]]:
    """What Torch-Pruning makes, in float32 and with ONNX Runtime's quantizer, in both stock runtimes."""
    content = peer_network(place, options)
    if content is None:
        return [], {PEER: place.facts()["peer_failure"]}
    tensors = [runtime.run_steps(it.graph.before, feeds) for feeds in it.samples]
    feeds = [{spec.name: found[spec.name] for spec in it.graph.inputs} for found in tensors]
    made = {PEER: content}
    failed: dict[str, str] = {}
    for unsigned in (True, False):
        label = f"{PEER} + ORT MinMax {'u8' if unsigned else 's8'}"
        try:
            made[label] = quantizers.onnxruntime_quantized(content, feeds, method="MinMax", unsigned=unsigned)
        except Exception as error:  # noqa: BLE001 - a peer may raise anything, and the table says what
            failed[label] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    found = []
    for label, network in made.items():
        for name in ("onnxruntime", "openvino"):
            one = quantizers.PeerModel(label, name, (network,))
            if reason := quantizers.crash_of(one, feeds[0]):
                failed[f"{label} in {name}"] = reason
                continue
            precision = "float32" if label == PEER else "int8"
            detail = place.facts().get("peer_detail", "") if label == PEER else ""
            opened = compression.opener(it.graph, one)
            found.append(Candidate(f"{label} in {name}", False, precision, one.size_bytes, opened, detail))
    return found, failed


def measure(it: Subject, found: Sequence[Candidate], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each candidate: what bench_compression.py says of it, and how much faster it is."""
    judged = argparse.Namespace(**{**vars(options), "threads": []})
    rows = {row["candidate"]: row for row in compression.measure(it, found, judged)}
    for threads in options.threads:
        with ExitStack() as stack:
            runs = {one.name: one.open(threads, stack) for one in found}
            calls = {name: lambda run=run: run(it.samples[0]) for name, run in runs.items()}
            pause_s = compression.PAUSE_S
            taken = interleave(calls, repeats=options.repeats, limit_s=options.limit_s, pause_s=pause_s)
        for name, one in taken.items():
            times = one.cpu_ns if threads == 1 else one.wall_ns
            rows[name][f"threads_{threads}_s"] = statistics.median(times) / 1e9
    made = list(rows.values())
    for row in made:
        row["pruned"] = "pruned" in row["candidate"] or PEER in row["candidate"]
    compare(made, options.threads)
    return made


def compare(rows: Sequence[dict[str, Any]], threads: Sequence[int]) -> None:
    """Ratios over the fastest float32 of the whole network, in the rows."""
    whole = [row for row in rows if row["precision"] == "float32" and not row.get("pruned")]
    for count in threads:
        key = f"threads_{count}_s"
        least = min(row[key] for row in whole)
        for row in rows:
            row[f"faster_{count}"] = least / row[key]


def other_rows(name: str, threads: Sequence[int]) -> list[dict[str, Any]]:
    """What bench_compression.py found: INT8 of the whole network, each tool in its faster runtime."""
    kept = json.loads(compression.KEPT.read_text()) if compression.KEPT.exists() else {"networks": {}}
    if name not in kept["networks"] or not set(threads) <= set(kept["threads"]):
        return []
    rows = [dict(row, pruned=False) for row in kept["networks"][name]["rows"]]
    compare(rows, threads)
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        tool = row["candidate"].partition(" in ")[0]
        if tool.endswith("float32"):
            continue
        if tool not in best or row["faster_1"] > best[tool]["faster_1"]:
            best[tool] = row
    return list(best.values())


def table(rows: Sequence[Mapping[str, Any]], threads: Sequence[int]) -> str:
    """The rows of one network in Markdown, the fastest first."""
    heads = [f"× faster, {t} thread{'s' if t > 1 else ''}" for t in threads]
    lines = [
        f"| candidate | {rows[0]['metric']} | loss | valid | size, MiB | {' | '.join(heads)} | |",
        "|---|" + "---|" * (len(threads) + 5),
    ]
    for row in sorted(rows, key=lambda row: -row[f"faster_{threads[0]}"]):
        name = f"**{row['candidate']}**" if row["ours"] else row["candidate"]
        cells = [
            name,
            f"{row['value']:.4g}",
            f"{row['drop'] / abs(row['baseline']):.2%}",
            "yes" if row["valid"] else "no",
            f"{row['size_bytes'] / 2**20:.2f}",
            *(f"{row[f'faster_{t}']:.2f}" for t in threads),
            row["detail"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def section(name: str, kept: Mapping[str, Any], threads: Sequence[int]) -> str:
    """A network's part of the page."""
    facts = kept["facts"]
    labels = "with labels" if facts["labels"] else "without labels"
    told = (
        f"{facts['share']:.0%} of the multiply-adds and {1 - facts['parameters']:.0%} of the parameters are "
        f"cut; {facts['steps']} steps of recovery {labels}."
    )
    reasons = "".join(f"\n\n{label}: {reason}" for label, reason in kept["failed"].items())
    return (
        f"### {name}, pruned\n\n{told}\n\n{table(kept['rows'], threads)}{reasons}\n\n"
        f"![{name}: loss over speed](pruning-{name}.png)"
    )


def keep(
    name: str, rows: list[dict[str, Any]], failed: Mapping[str, str], options: argparse.Namespace
) -> None:
    """Write a network's figures, its plot, and the page anew."""
    earlier = json.loads(KEPT.read_text())["networks"] if KEPT.exists() else {}
    facts = Place(name, options.folder / name).facts()
    networks = {**earlier, name: {"facts": facts, "rows": rows, "failed": dict(failed)}}
    where = {"target": options.device.name, "threads": options.threads, "machine": asdict(machine.record())}
    atomic.write(KEPT, (json.dumps({**where, "networks": networks}, indent=1) + "\n").encode(), force=True)
    pareto.plot(rows, options.threads[0], PAGE.parent / f"pruning-{name}.png", title=name)
    page = PAGE.read_text()
    head, tail = page.index(BEGIN) + len(BEGIN), page.index(END)
    made = page_section(networks, options.threads)
    atomic.write(PAGE, f"{page[:head]}\n{made}\n{page[tail:]}".encode(), force=True)


def page_section(networks: Mapping[str, Any], threads: Sequence[int]) -> str:
    """All networks' parts of the page."""
    return "\n".join(section(name, networks[name], threads) for name in TASKS if name in networks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=list(TASKS))
    parser.add_argument("--folder", type=Path, required=True, help="where the steps' results stay")
    parser.add_argument("--speedup", type=float, default=1.8)
    parser.add_argument("--steps", type=int, default=400, help="of the recovery")
    parser.add_argument("--labels", action="store_true", help="recover with the task's loss, too")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--samples", type=int, default=48, help="images to rank channels and learn on")
    parser.add_argument("--quantization-samples", type=int, default=10, help="of them, for INT8")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--target", default="x86-avx2")
    parser.add_argument("--backends", nargs="+", default=["openvino", "tvm"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--limit-s", type=float, default=4.0, help="for each candidate and number of threads")
    parser.add_argument("--only-make", action="store_true", help="make the networks, measure nothing")
    parser.add_argument("--no-peers", action="store_true", help="without Torch-Pruning")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)
    options.device = targets.find(options.target)
    for name in options.names:
        place = Place(name, options.folder / name)
        it = draw(place, options)
        prune(place, options)
        if options.only_make:
            peer_network(place, options)
            continue
        found, failed = own_candidates(place, it, options)
        theirs, theirs_failed = ([], {}) if options.no_peers else peer_candidates(place, it, options)
        rows = [*measure(it, [*found, *theirs], options), *other_rows(name, options.threads)]
        failed |= theirs_failed
        if options.keep:
            keep(name, rows, failed, options)
        facts = {"facts": place.facts(), "rows": rows, "failed": failed}
        print(section(name, facts, options.threads), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
