"""What `Session.run` costs over the vendor's own call, and what each call of an operator of edgekit's costs.

    python benchmarks/bench_overhead.py [--json FILE] [--runs N] [--threads N] [--backend NAME ...]

Both are measured on opened networks, in turns of 20 runs. The vendor's own call is the documented one with
its fastest options: NumPy arrays in, NumPy arrays out, nothing copied or looked at that need not be.
(Sessions of OpenVINO bypass its `infer`, whose conversions cost tens of microseconds, so they can come out
below it.) The demand: at p50 at most 50 µs or 2 % more.

A call of an operator is what a network of 33 warps in a row takes longer than one of a single warp, by 32, on
2 × 2 × 2 voxels, where the kernel has nothing to do. The demand: at p50 at most 30 µs. Exit code 1 where one
is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import helper, numpy_helper

from edgekit import atomic, machine, runtime, schema, target
from edgekit.backends import BACKENDS
from edgekit.bundle import Bundle
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.spec import TensorSpec

LIMIT_S, LIMIT_SHARE = 50e-6, 0.02
CALL_LIMIT_S = 30e-6
CHAIN = 33
# Runs of one way before the other has its turn, as in use, where one call follows the other; the first run
# of a turn, which finds the caches as the other way left them, is not counted. The first turns warm up.
TURN = 20

# name: (length of the two image axes, channels inside, layers)
NETWORKS = {"tiny": (16, 2, 1), "small": (128, 16, 3)}


def convolutions(length: int, channels: int, layers: int) -> Graph:
    """Convolutions of 3 × 3 with ReLU between them, 1 × 1 × length × length to the same shape."""
    rng = np.random.default_rng(0)
    widths = [1, *[channels] * (layers - 1), 1]
    nodes, weights, name = [], [], "image"
    for layer, (ins, outs) in enumerate(itertools.pairwise(widths)):
        weight = rng.standard_normal((outs, ins, 3, 3)).astype(np.float32) / np.float32(3 * ins**0.5)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        result = "result" if layer == layers - 1 else f"c{layer}"
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [result], pads=[1, 1, 1, 1]))
        name = result
        if layer < layers - 1:
            nodes.append(helper.make_node("Relu", [name], [f"r{layer}"]))
            name = f"r{layer}"
    shape = [1, 1, length, length]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("image", "result")]
    graph = helper.make_graph(nodes, "convolutions", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inputs, outputs = (TensorSpec(n, "float32", tuple(shape), "NCHW") for n in ("image", "result"))
    return Graph(onnx_ir.serde.deserialize_model(model), (inputs,), (outputs,))


def raw_onnxruntime(network: Any) -> Callable[[np.ndarray], object]:
    return lambda image: network._session.run(["result"], {"image": image})


def raw_openvino(network: Any) -> Callable[[np.ndarray], object]:
    return lambda image: network._request.infer([image], share_inputs=True, share_outputs=True)


def raw_tvm(network: Any) -> Callable[[np.ndarray], object]:
    def run(image: np.ndarray) -> object:
        buffer, tensor = network._feeds["image"]
        np.copyto(buffer, image)
        return np.from_dlpack(network._main(tensor))

    return run


RAW = {"onnxruntime": raw_onnxruntime, "openvino": raw_openvino, "tvm": raw_tvm}


def in_turns(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of every run of each way."""
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(-1, -(-runs // TURN)):
        for way in ways if turn % 2 else reversed(ways):
            for run in range(-1, TURN):
                started = time.perf_counter_ns()
                ways[way]()
                elapsed_s = (time.perf_counter_ns() - started) * 1e-9
                if turn >= 0 and run >= 0:
                    samples[way].append(elapsed_s)
    return samples


def measure(backend: str, name: str, runs: int, threads: int) -> dict[str, Any]:
    """Both ways on one opened network; every sample."""
    graph, device = convolutions(*NETWORKS[name]), target.find("cpu")
    feeds = {"image": np.random.default_rng(1).standard_normal(graph.inputs[0].largest_shape, np.float32)}
    compiled = BACKENDS[backend].compile(graph, device, sample=feeds, threads=threads)
    bundle = Bundle.of(
        compiled.artifact, name=name, target=device, inputs=graph.inputs, results=graph.results
    )
    with runtime.open(bundle, threads=threads) as session:
        session.run(feeds)
        raw = RAW[backend](session._network)
        samples = in_turns(
            {"raw": lambda: raw(feeds["image"]), "session": lambda: session.run(feeds)},
            runs,
        )
    raw_s, session_s = statistics.median(samples["raw"]), statistics.median(samples["session"])
    return {
        "backend": backend,
        "versions": compiled.artifact.info.built_with,
        "network": name,
        "threads": threads,
        "raw_p50_s": raw_s,
        "session_p50_s": session_s,
        "overhead_s": session_s - raw_s,
        "overhead_share": session_s / raw_s - 1,
        "met": session_s - raw_s <= LIMIT_S or session_s / raw_s - 1 <= LIMIT_SHARE,
        "samples_s": samples,
    }


def warps(count: int) -> Graph:
    """So many warps in a row, of 2 × 2 × 2 voxels."""
    image, flow = (TensorSpec(n, "float32", (1, c, 2, 2, 2)) for n, c in (("image", 1), ("flow_vox", 3)))
    names = ["image", *(f"w{i}" for i in range(count - 1)), "result"]
    nodes = [
        helper.make_node("Warp", [before, "flow_vox"], [after], domain=opset.DOMAIN)
        for before, after in itertools.pairwise(names)
    ]
    result = TensorSpec("result", "float32", image.dims)
    values = [
        helper.make_tensor_value_info(spec.name, onnx.TensorProto.FLOAT, spec.dims)
        for spec in (image, flow, result)
    ]
    graph = helper.make_graph(nodes, "warps", values[:2], values[2:])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(opset.DOMAIN, opset.VERSION)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return Graph(onnx_ir.serde.deserialize_model(model), (image, flow), (result,))


def measure_calls(backend: str, runs: int, threads: int) -> dict[str, Any]:
    """A call of an operator in a backend's runtime; every sample."""
    ways: dict[str, Callable[[], object]] = {}
    files: tuple[str, ...] = ()
    with contextlib.ExitStack() as opened:
        for count in (1, CHAIN):
            graph = warps(count)
            feeds = {spec.name: np.zeros(spec.largest_shape, np.float32) for spec in graph.inputs}
            artifact = BACKENDS[backend].compile(graph, target.find("cpu"), sample=feeds).artifact
            network = BACKENDS[backend].open(artifact, threads=threads)
            opened.callback(network.close)
            ways[str(count)] = functools.partial(network.run, feeds)
            files = artifact.info.files
        samples = in_turns(ways, runs)
    one_s, all_s = (statistics.median(samples[way]) for way in ways)
    call_s = (all_s - one_s) / (CHAIN - 1)
    return {
        "backend": backend,
        "files": files,
        "threads": threads,
        "one_p50_s": one_s,
        "all_p50_s": all_s,
        "call_s": call_s,
        "met": call_s <= CALL_LIMIT_S,
        "samples_s": samples,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--runs", type=int, default=2000, help="measured runs of each way (default 2000)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument(
        "--backend", nargs="*", default=list(RAW), choices=list(RAW), help="which (default all)"
    )
    options = parser.parse_args()
    record, cases = machine.record(["numpy"]), []
    print(f"{record.cpu}, {record.cores} cores, load {record.load:.1f}, {options.threads} thread(s)")
    print(f"{'backend':<12} {'network':<8} {'raw µs':>9} {'session µs':>11} {'more µs':>9} {'more':>7}")
    for backend in options.backend:
        for name in NETWORKS:
            case = measure(backend, name, options.runs, options.threads)
            cases.append(case)
            print(
                f"{backend:<12} {name:<8} {case['raw_p50_s'] * 1e6:9.1f} {case['session_p50_s'] * 1e6:11.1f} "
                f"{case['overhead_s'] * 1e6:9.1f} {case['overhead_share']:7.1%}"
                f"{'' if case['met'] else '  TOO MUCH'}"
            )
    print(f"\n{'backend':<12} {'1 warp µs':>10} {f'{CHAIN} warps µs':>12} {'a call µs':>10}")
    calls = []
    for backend in options.backend:
        if opset.DOMAIN not in BACKENDS[backend].domains:
            continue
        case = measure_calls(backend, options.runs, options.threads)
        calls.append(case)
        print(
            f"{backend:<12} {case['one_p50_s'] * 1e6:10.1f} {case['all_p50_s'] * 1e6:12.1f} "
            f"{case['call_s'] * 1e6:10.1f}{'' if case['met'] else '  TOO MUCH'}"
        )
    if options.json:
        report = {
            "machine": schema.encode(record),
            "limit_s": LIMIT_S,
            "limit_share": LIMIT_SHARE,
            "cases": cases,
            "call_limit_s": CALL_LIMIT_S,
            "calls": calls,
        }
        atomic.write(options.json, json.dumps(report, indent=1).encode(), force=True)
    return 0 if all(case["met"] for case in (*cases, *calls)) else 1


if __name__ == "__main__":
    sys.exit(main())
