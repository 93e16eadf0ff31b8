"""Networks and single convolutions compiled with TVM, beside ONNX Runtime, OpenVINO and PyTorch.

    python benchmarks/bench_tvm.py [--networks [NAME ...]] [--layers [TEXT ...]] [--extra] [--threads 1 2]
                                   [--repeats N] [--target NAME] [--quick] [--json FILE] [--keep]

Every network is taken in once, as ``edgekit compile`` does it, and compiled by each backend for the same
target. For each number of threads the candidates take turns in one process, in float32. A ratio is TVM's
median over that of the better of ONNX Runtime and OpenVINO: 1.0 is as fast, 2.0 takes twice as long. Steps
that edgekit does after the network (the warp of a registration) are in PyTorch's time alone.

Single convolutions are judged by the multiply-adds that the machine does in registers (fma_peak.py),
measured in the same run; a layer's time includes the change of order of its input and output, which within
a network falls to few layers, so TVM's kernel is also measured alone. On a machine that others use as well,
the least time says more about code than the median does: shares are of the least times, and of the highest
peak of the run. ``--layers`` alone measures them all and no network.

Results are compared with PyTorch's first, and TVM's with those of other numbers of threads: exit code 1 where
they differ, or where TVM compiles nothing. ``--keep`` writes the figures into the repository, without the
single samples, which ``--json`` writes too, and the tables into docs/speed.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import fma_peak
import numpy as np
import torch
import tvm
import tvm_networks
from _harness import Samples, interleave
from tvm_layers import LAYERS, Layer
from tvm_networks import EXTRA, NETWORKS, Network

from edgekit import atomic, machine, runtime
from edgekit import target as targets
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact
from edgekit.errors import EdgekitError
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.isolation import Limits
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.spec import Array
from edgekit.target import Target

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGE = ROOT / "benchmarks" / "results" / "tvm.json", ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- figures of TVM: benchmarks/bench_tvm.py -->", "<!-- end -->"

PYTORCH, OURS, PEERS = "pytorch", "tvm", ("onnxruntime", "openvino")
CANDIDATES = (PYTORCH, *PEERS, OURS)
TITLES = {PYTORCH: "PyTorch eager", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tvm": "TVM"}
# Of the largest value.
TOLERANCE = 1e-3
PAUSE_S = 0.02

Arrays = dict[str, Array]
Row = dict[str, Any]


@dataclass
class Subject:
    """A network, taken in and compiled.

    Attributes:
        name: Its name.
        module: In PyTorch.
        feeds: One array for each input.
        graph: What the backends get, and the steps after it.
        wanted: PyTorch's outputs.
        artifacts: What each backend made of it.
        compile_s: Seconds of the compiler, by backend.
        call_s: Seconds of all that ``Backend.compile`` does, its child process and first run included.
        first: Outputs of the child's run, by backend.
        errors: Why a backend made nothing.
    """

    name: str
    module: torch.nn.Module
    feeds: Arrays
    graph: Graph
    wanted: Arrays
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    compile_s: dict[str, float] = field(default_factory=dict)
    call_s: dict[str, float] = field(default_factory=dict)
    first: dict[str, Arrays] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def results(self, outputs: Arrays) -> Arrays:
        """What PyTorch gives too, of a network's outputs."""
        made = runtime.run_steps(self.graph.after, {**self.feeds, **outputs})
        return {name: made[name] for name in self.wanted}


def take_in(name: str, module: torch.nn.Module, inputs: dict[str, torch.Tensor], device: Target) -> Subject:
    """Export a network, and let edgekit's passes run over it."""
    feeds = {key: tensor.numpy() for key, tensor in inputs.items()}
    shapes = {key: "x".join(map(str, array.shape)) for key, array in feeds.items()}
    loaded = load(module, shapes=shapes, samples=feeds)
    assert loaded.golden is not None
    graph = run_all(default_passes(device), loaded.graph, device).graph
    return Subject(name, module, feeds, graph, loaded.golden.outputs)


def compile_with(backends: Iterable[str], subject: Subject, device: Target, limit_s: float) -> None:
    """Compile a network with each backend, and remember why one could not."""
    for backend in backends:
        started = time.perf_counter()
        try:
            compiled = BACKENDS[backend].compile(
                subject.graph, device, sample=subject.feeds, limits=Limits(limit_s)
            )
        except EdgekitError as error:
            subject.errors[backend] = error.message
            print(f"{subject.name}: {backend}: {error.message}", file=sys.stderr)
            continue
        subject.call_s[backend] = time.perf_counter() - started
        subject.compile_s[backend] = compiled.compile_s
        subject.artifacts[backend], subject.first[backend] = compiled.artifact, compiled.outputs


def measure(
    subject: Subject,
    threads: int,
    repeats: int,
    limit_s: float,
    *,
    eager: bool = True,
) -> list[Row]:
    """One row for each candidate, with that many threads."""
    torch.set_num_threads(threads)
    calls: dict[str, Callable[[], object]] = {}
    found: dict[str, tuple[float, bool]] = {}
    sessions = {name: BACKENDS[name].open(it, threads=threads) for name, it in subject.artifacts.items()}
    for name, session in sessions.items():
        outputs = session.run(subject.feeds)
        same = all(np.array_equal(outputs[key], value) for key, value in subject.first[name].items())
        found[name] = difference(subject.results(outputs), subject.wanted), same
        calls[name] = lambda session=session: session.run(subject.feeds)
    if eager:
        tensors = {key: torch.from_numpy(array) for key, array in subject.feeds.items()}
        calls[PYTORCH] = lambda: tvm_networks.run(subject.module, tensors)
    samples = interleave(calls, repeats=repeats, limit_s=limit_s, pause_s=PAUSE_S)
    for session in sessions.values():
        session.close()
    return [_row(subject, threads, name, it, found.get(name)) for name, it in samples.items()]


def _row(
    subject: Subject, threads: int, candidate: str, samples: Samples, found: tuple[float, bool] | None
) -> Row:
    row: Row = {
        "name": subject.name,
        "threads": threads,
        "candidate": candidate,
        "wall_s": samples.wall_s,
        "least_s": min(samples.wall_ns) / 1e9,
        "wall_ns": samples.wall_ns,
    }
    if found:
        row["difference"], row["same_as_compiled"] = found
        row["compile_s"], row["call_s"] = subject.compile_s[candidate], subject.call_s[candidate]
    return row


def difference(found: Arrays, wanted: Arrays) -> float:
    """Largest difference as a share of the largest value; infinite where one is not a number."""
    worst = 0.0
    for name, values in wanted.items():
        error = float(np.abs(found[name] - values).max() / np.abs(values).max())
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def network_rows(names: Sequence[str], options: argparse.Namespace, device: Target) -> list[Row]:
    rows = []
    for name in names:
        network: Network = {**NETWORKS, **EXTRA}[name]
        module, inputs = network.build(quick=options.quick), network.inputs(quick=options.quick)
        subject = take_in(name, module, inputs, device)
        compile_with(options.backends, subject, device, options.compile_limit_s)
        for threads in options.threads:
            rows += measure(subject, threads, options.repeats, options.limit_s)
        rows += [{"name": name, "candidate": it, "error": text} for it, text in subject.errors.items()]
        print(f"{name}: measured", file=sys.stderr, flush=True)
    return rows


def layer_rows(names: Sequence[str], options: argparse.Namespace, device: Target) -> list[Row]:
    """As those of networks, with the layer's multiply-adds and its share of the peak."""
    rows = []
    peaks = dict.fromkeys(options.threads, 0.0)
    for name in names:
        layer: Layer = LAYERS[name]
        subject = take_in(name, layer.build(), layer.inputs(), device)
        compile_with(options.backends, subject, device, options.compile_limit_s)
        for threads in options.threads:
            peaks[threads] = max(peaks[threads], fma_peak.per_second(threads))
            measured = measure(subject, threads, options.repeats, options.limit_s, eager=False)
            alone = kernels_s(subject, threads, options.repeats)
            rows += [
                {**row, "fmas": layer.fmas, **({"kernel_s": alone} if row["candidate"] == OURS else {})}
                for row in measured
            ]
        rows += [{"name": name, "candidate": it, "error": text} for it, text in subject.errors.items()]
        print(f"{name}: measured", file=sys.stderr, flush=True)
    return with_shares(rows, peaks)


def kernels_s(subject: Subject, threads: int, repeats: int) -> float | None:
    """Least seconds of TVM's convolution alone, without what changes the order of its input and output."""
    if OURS not in subject.artifacts:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.so")
        path.write_bytes(subject.artifacts[OURS].files["model.so"])
        machine = tvm.runtime.vm.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]
    tvm.get_global_func("runtime.config_threadpool")(-3, threads, cpus)
    began, spent = [0.0], [0.0]

    def watch(function: object, name: str, before: bool, result: object, *given: object) -> None:
        if before:
            began[0] = time.perf_counter()
        elif name.startswith("conv"):
            spent[0] += time.perf_counter() - began[0]

    machine.set_instrument(watch)
    feeds = [tvm.runtime.tensor(array) for array in subject.feeds.values()]
    times = []
    for _ in range(max(repeats, 3) + 1):
        spent[0] = 0.0
        machine["main"](*feeds)
        times.append(spent[0])
    return min(times[1:]) or None


def with_shares(rows: list[Row], peaks: Mapping[int, float]) -> list[Row]:
    """Rows of layers, with what each does of the peak of as many threads."""
    for row in rows:
        if "fmas" in row:
            row["fmas_per_s"] = row["fmas"] / row["least_s"]
            row["peak_fmas_per_s"] = peaks[row["threads"]]
            row["share"] = row["fmas_per_s"] / row["peak_fmas_per_s"]
            if row.get("kernel_s"):
                row["kernel_share"] = row["fmas"] / row["kernel_s"] / row["peak_fmas_per_s"]
    return rows


def ratio(of: dict[str, Row], key: str) -> float | None:
    """TVM's time over that of the better peer, out of one network's rows by candidate."""
    peers = [of[name][key] for name in PEERS if name in of]
    return of[OURS][key] / min(peers) if OURS in of and peers else None


def ratios(of: dict[str, Row]) -> str:
    """That of medians, and that of the least times."""
    return " | ".join(_shown(ratio(of, key), ".2f") for key in ("wall_s", "least_s"))


def page_section(document: dict[str, Any]) -> str:
    """All tables, and what they were measured on."""
    lines = []
    for rows, make in ((document["networks"], table), (document["layers"], layer_table)):
        for threads in sorted({row["threads"] for row in rows if "threads" in row}):
            lines += [*make(rows, threads), ""]
    here = document["machine"]
    return "\n".join(
        [
            *lines,
            f"{here['cpu']}, {here['cores']} cores, target {document['target']}; "
            f"load {here['load']:.1f} when the run began.",
        ]
    )


def table(rows: list[Row], threads: int) -> list[str]:
    """Networks at one number of threads, as Markdown; milliseconds."""
    titles = [TITLES[name] for name in CANDIDATES]
    lines = [
        f"| network, {threads} thread{'s' if threads > 1 else ''} | {' | '.join(titles)} | TVM ÷ better "
        "| of the least | compile s | differs by |",
        f"|{' --- |' * (len(titles) + 5)}",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        of = _measured(rows, name, threads)
        times = [f"{1e3 * of[each]['wall_s']:.1f}" if each in of else "–" for each in CANDIDATES]
        ours = of.get(OURS, {})
        lines.append(
            f"| {name} | {' | '.join(times)} | {ratios(of)} "
            f"| {_shown(ours.get('compile_s'), '.0f')} | {_shown(ours.get('difference'), '.0e')} |"
        )
    return lines


def layer_table(rows: list[Row], threads: int) -> list[str]:
    """Layers at one number of threads: 10⁹ multiply-adds a second, and their share of the peak."""
    names = (*PEERS, OURS)
    lines = [
        f"| layer, {threads} thread{'s' if threads > 1 else ''} | MFMA "
        f"| {' | '.join(TITLES[name] for name in names)} | its kernel | TVM ÷ better | of the least "
        "| compile s |",
        f"|{' --- |' * (len(names) + 6)}",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        of = _measured(rows, name, threads)
        speeds = [
            f"{of[each]['fmas_per_s'] / 1e9:.1f} ({of[each]['share']:.0%})" if each in of else "–"
            for each in names
        ]
        work = next((of[each]["fmas"] / 1e6 for each in names if each in of), None)
        lines.append(
            f"| {name} | {_shown(work, '.1f')} | {' | '.join(speeds)} "
            f"| {_shown(of.get(OURS, {}).get('kernel_share'), '.0%')} | {ratios(of)} "
            f"| {_shown(of.get(OURS, {}).get('compile_s'), '.1f')} |"
        )
    return lines


def _measured(rows: list[Row], name: str, threads: int) -> dict[str, Row]:
    return {row["candidate"]: row for row in rows if row["name"] == name and row.get("threads") == threads}


def _shown(value: float | None, format: str) -> str:
    return "–" if value is None else f"{value:{format}}"


def right(rows: Iterable[Row]) -> bool:
    """Whether TVM compiled everything, all agree with PyTorch, and threads change nothing of TVM's."""
    ours = [row for row in rows if row["candidate"] == OURS]
    return all("error" not in row and row["same_as_compiled"] for row in ours) and not any(
        row.get("difference", 0) > TOLERANCE for row in rows
    )


def chosen(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Names of the networks and of the layers to measure."""
    there = {**NETWORKS, **(EXTRA if options.extra else {})}
    layers: list[str] = []
    if options.layers is not None:
        layers = [name for name in LAYERS if all(text in name for text in options.layers)]
        if options.networks is None:
            return [], layers
    unknown = set(options.networks or ()) - {*NETWORKS, *EXTRA}
    if unknown:
        sys.exit(f"want networks of {', '.join((*NETWORKS, *EXTRA))}, got {', '.join(sorted(unknown))}")
    return options.networks or list(there), layers


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", metavar="NAME", help="all of them without names")
    parser.add_argument("--layers", nargs="*", metavar="TEXT", help="those whose names hold all the texts")
    parser.add_argument(
        "--extra", action="store_true", help=f"also {', '.join(EXTRA)}; MONAI needs einops for the first"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--backends", nargs="+", default=[*PEERS, OURS], choices=[*PEERS, OURS])
    parser.add_argument("--target", default="cpu", help="name of a target, or path of a target file")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--limit-s", type=float, default=20.0, help="of runs, for each candidate")
    parser.add_argument("--compile-limit-s", type=float, default=600.0)
    parser.add_argument(
        "--quick", action="store_true", help="small images: shows that it works, not how fast"
    )
    parser.add_argument("--json", type=Path, help="write all samples there")
    parser.add_argument("--keep", action="store_true", help="write the figures into the repository")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    networks, layers = chosen(options)
    device = targets.find(options.target)
    packages = ("torch", "monai", "onnxruntime", "openvino", "apache-tvm")
    document: dict[str, Any] = {
        "target": device.name,
        "machine": dataclasses.asdict(machine.record(packages)),
        "networks": network_rows(networks, options, device),
        "layers": layer_rows(layers, options, device),
    }
    print(page_section(document))
    passed = right(document["networks"] + document["layers"])
    if options.json:
        write(document, options.json)
    if options.keep:
        keep(document)
    return 0 if passed else 1


def keep(document: dict[str, Any]) -> None:
    """Write the figures, and the page's tables."""
    for row in document["networks"] + document["layers"]:
        row.pop("wall_ns", None)
    write(document, KEPT)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    text = f"{before}{BEGIN}\n{page_section(document)}\n{END}{rest.partition(END)[2]}"
    PAGE.write_text(text, encoding="utf-8")


def write(document: dict[str, Any], path: Path) -> None:
    atomic.write(path, (json.dumps(document, indent=1) + "\n").encode(), force=True)


if __name__ == "__main__":
    sys.exit(main())
