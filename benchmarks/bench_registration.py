"""Whole registration networks: their untouched ONNX through ``edgekit compile``, beside what else runs them.

    python benchmarks/bench_registration.py [--size 160x192x160] [--threads N] [--keep]

Peers are PyTorch eager, torch.compile, and ONNX Runtime on the very file that edgekit compiles. Everything
takes turns in one process with the same number of threads. A ratio is the peer's median time over edgekit's,
end to end: images in, moved image and displacement out. Results are compared first: exit code 1 where
they differ. ``--keep`` writes the figures into the repository and the table into docs/runtimes.md.

edgekit is given the module and exports the same ONNX itself, so that PyTorch is its reference. For a file
NumPy is, which takes minutes for volumes of this size and gives the same bundles.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import registration_networks as networks
import torch
from _harness import interleave

import edgekit
from edgekit import atomic, machine
from edgekit.errors import EdgekitError

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGE = ROOT / "benchmarks" / "results" / "registration.json", ROOT / "docs" / "runtimes.md"
BEGIN, END = "<!-- figures of registration: benchmarks/bench_registration.py -->", "<!-- end -->"

BACKENDS = ("openvino", "onnxruntime", "tvm")
PEERS = ("PyTorch eager", "torch.compile", "ONNX Runtime")
OURS = "edgekit, "
OPSET = 20
# Of the largest value, of the moved image and the displacement.
TOLERANCE = 1e-4

Results = list[np.ndarray[Any, Any]]
Call = Callable[[], Results]


def export(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    """The network as its author would export it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            inputs,
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["moving", "fixed"],
            output_names=["moved", "flow"],
            external_data=False,
            verbose=False,
        )


def eager(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Call:
    def call() -> Results:
        with torch.no_grad():
            return [tensor.numpy() for tensor in network(*inputs)]

    return call


def stock_onnxruntime(path: Path, feeds: dict[str, Any], threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["moved", "flow"], feeds)


def compiled(network: torch.nn.Module, feeds: dict[str, Any], backend: str, threads: int) -> Call:
    shapes = {name: "x".join(map(str, array.shape)) for name, array in feeds.items()}
    network.output_names = ("moved", "flow")
    bundle = edgekit.compile(network, shapes=shapes, backend=backend, inputs=feeds, threads=threads)
    session = edgekit.open(bundle, threads=threads)

    def call() -> Results:
        results = session.run(feeds)
        return [results["moved"], results["flow"]]

    return call


def candidates(
    name: str, size: tuple[int, ...], threads: int, folder: Path, backends: tuple[str, ...], peers: set[str]
) -> dict[str, Call]:
    """By name, edgekit's first."""
    network, inputs = networks.build(name, size), networks.pair(size)
    feeds = {"moving": inputs[0].numpy(), "fixed": inputs[1].numpy()}
    path = folder / "network.onnx"
    export(network, inputs, path)
    found: dict[str, Call] = {}
    for backend in backends:
        started = time.perf_counter()
        try:
            found[OURS + backend] = compiled(network, feeds, backend, threads)
        except EdgekitError as error:
            print(f"{name}: {backend}: {error.message}", file=sys.stderr)
            continue
        print(f"{name}: compiled with {backend} in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if "eager" in peers:
        found["PyTorch eager"] = eager(network, inputs)
    if "compile" in peers:
        found["torch.compile"] = eager(torch.compile(network), inputs)
    if "onnxruntime" in peers:
        found["ONNX Runtime"] = stock_onnxruntime(path, feeds, threads)
    return found


def difference(found: Results, wanted: Results) -> float:
    """Largest difference as a share of the largest value."""
    return max(float(np.abs(f - w).max() / np.abs(w).max()) for f, w in zip(found, wanted, strict=True))


def measure(
    name: str, calls: dict[str, Call], wanted: Results, repeats: int, limit_s: float
) -> list[dict[str, Any]]:
    """One row for each candidate."""
    differences = {label: difference(call(), wanted) for label, call in calls.items()}
    samples = interleave(calls, repeats=repeats, limit_s=limit_s)
    rows = [
        {
            "network": name,
            "candidate": label,
            "wall_s": found.wall_s,
            "least_cpu_s": found.least_cpu_s,
            "difference": differences[label],
            "wall_ns": found.wall_ns,
        }
        for label, found in samples.items()
    ]
    for row in rows:
        print(
            f"{name:22}{row['candidate']:22}{row['wall_s']:9.3f} s wall{row['least_cpu_s']:9.3f} s CPU"
            f"  differs by {row['difference']:.1e}",
            flush=True,
        )
    return rows


def keep(document: dict[str, Any]) -> None:
    """Write the figures, and the page's table."""
    atomic.write(KEPT, (json.dumps(document, indent=1) + "\n").encode(), force=True)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(f"{BEGIN}\n")
    PAGE.write_text(
        f"{before}{BEGIN}\n{page_section(document)}\n{END}{rest.partition(END)[2]}", encoding="utf-8"
    )


def page_section(document: dict[str, Any]) -> str:
    """The table of a page: edgekit's time with each backend, and how many times that the others take."""
    lines = [f"| network | compiled with | time | {' | '.join(PEERS)} |", f"|{' --- |' * (3 + len(PEERS))}"]
    rows = document["rows"]
    for name in dict.fromkeys(row["network"] for row in rows):
        of = {row["candidate"]: row["wall_s"] for row in rows if row["network"] == name}
        ours = sorted((time_s, label) for label, time_s in of.items() if label.startswith(OURS))
        for time_s, label in ours:
            ratios = [f"{of[peer] / time_s:.1f}x" if peer in of else "–" for peer in PEERS]
            backend = label.removeprefix(OURS)
            shown = f"**{backend}**" if (time_s, label) == ours[0] else backend
            lines.append(f"| {name} | {shown} | {time_s:.2f} s | {' | '.join(ratios)} |")
    size, cpu = "x".join(map(str, document["size"])), document["machine"]["cpu"]
    return "\n".join([*lines, "", f"Medians, {size} voxels, {document['threads']} threads of an {cpu}."])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="160x192x160")
    parser.add_argument("--threads", type=int, default=0, help="0 for all")
    parser.add_argument("--networks", default=",".join(networks.NETWORKS))
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--peers", default="eager,compile,onnxruntime")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=120.0, help="for each candidate")
    parser.add_argument("--keep", action="store_true", help="write the figures into the repository")
    options = parser.parse_args()
    size = tuple(int(length) for length in options.size.split("x"))
    threads = options.threads or machine.usable_cores()
    torch.set_num_threads(threads)
    rows = []
    for name in options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            calls = candidates(
                name,
                size,
                threads,
                Path(folder),
                tuple(options.backends.split(",")),
                set(options.peers.split(",")),
            )
            wanted = eager(networks.build(name, size), networks.pair(size))()
            rows += measure(name, calls, wanted, options.repeats, options.limit_s)
    if options.keep:
        packages = ("torch", "monai", "onnxruntime", "openvino", "apache-tvm")
        here = dataclasses.asdict(machine.record(packages))
        keep({"size": size, "threads": threads, "machine": here, "rows": rows})
    return 0 if all(row["difference"] <= TOLERANCE for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
