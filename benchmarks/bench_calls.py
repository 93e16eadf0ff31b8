"""What a call of a torch operator costs over the kernel it runs, on 2 x 2 x 2 voxels, in turns of 50 calls.

    python benchmarks/bench_calls.py [--json FILE] [--calls N]

The kernel alone is the compiled extension on the same memory, with the result already allocated. Three ways
to call: in ``torch.inference_mode``, as usual, and on tensors whose gradients autograd records. The demand is
at most 30 µs more than the kernel unless autograd records. Exit code 1 where it is not met.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgekit import atomic, machine, schema
from edgekit.errors import UnavailableError
from edgekit.graph import opset
from edgekit.kernels import base
from edgekit.torch import denoising, operators

LIMIT_S = 30e-6
TURN = 50

# Small, so that the calls count.
OPTIONS: dict[str, dict[str, Any]] = {
    "Warp": {"order": 1, "boundary": "edge"},
    "Compose": {"boundary": "edge"},
    "IntegrateVelocity": {"steps": 1, "boundary": "edge"},
    "GridSample3d": {"mode": "linear", "padding_mode": "zeros", "align_corners": False},
    "JacobianDeterminant": {},
    "NonLocalMeans": {"sigma": 0.1, "patch_radius": 1, "search_radius": 1},
    "Bilateral": {"sigma_space": 1.0, "sigma_range": 0.5, "radius": 1, "boundary": "mirror"},
}


def inputs(operator: opset.Operator) -> list[torch.Tensor]:
    shapes = {"image": (1, 1, 2, 2, 2), "grid": (1, 2, 2, 2, 3)}
    return [torch.rand(shapes.get(name, (1, 3, 2, 2, 2))) for name in operator.inputs]


def ways(operator: opset.Operator) -> dict[str, Callable[[], object]]:
    """Each way to call it."""
    options, tensors = OPTIONS[operator.name], inputs(operator)
    call = getattr(operators, operator.kernel, None) or getattr(denoising, operator.kernel)
    kernel, module = base.OPERATORS[operator.kernel], _extension()
    arrays = [tensor.numpy() for tensor in tensors]
    outputs = kernel.allocate(*arrays, **options)
    recorded = [tensor.clone().requires_grad_() for tensor in tensors]

    def inference() -> object:
        with torch.inference_mode():
            return call(*tensors, **options)

    return {
        "kernel": lambda: kernel.native(module, *arrays, outputs=outputs, threads=1, isa="", **options),
        "inference": inference,
        "usual": lambda: call(*tensors, **options),
        "recorded": lambda: call(*recorded, **options),
    }


def _extension() -> Any:
    status = base.native_status()
    if status.missing:
        raise UnavailableError(status.missing, hint="pip install --no-build-isolation -e .")
    from edgekit import _C

    return _C


def measure(operator: opset.Operator, calls: int) -> dict[str, Any]:
    """Every way in turns; every sample."""
    found = ways(operator)
    samples: dict[str, list[float]] = {way: [] for way in found}
    for turn in range(-1, -(-calls // TURN)):  # the first turn warms up
        for way in found if turn % 2 else reversed(found):
            for _ in range(TURN):
                started = time.perf_counter_ns()
                found[way]()
                elapsed_s = (time.perf_counter_ns() - started) * 1e-9
                if turn >= 0:
                    samples[way].append(elapsed_s)
    p50_s = {way: statistics.median(times) for way, times in samples.items()}
    more_s = {way: p50_s[way] - p50_s["kernel"] for way in found if way != "kernel"}
    return {
        "operator": operator.name,
        "p50_s": p50_s,
        "more_s": more_s,
        "met": more_s["inference"] <= LIMIT_S and more_s["usual"] <= LIMIT_S,
        "samples_s": samples,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--calls", type=int, default=2000, help="measured calls of each way (default 2000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record, cases = machine.record(["numpy", "torch"]), []
    print(f"{record.cpu}, {record.cores} cores, load {record.load:.1f}, torch {torch.__version__}")
    print(f"{'operator':<20} {'kernel µs':>10} {'inference':>10} {'usual':>10} {'recorded':>10}  µs more")
    for operator in opset.OPERATORS.values():
        case = measure(operator, options.calls)
        cases.append(case)
        more = " ".join(f"{case['more_s'][way] * 1e6:10.1f}" for way in ("inference", "usual", "recorded"))
        flag = "" if case["met"] else "  TOO MUCH"
        print(f"{operator.name:<20} {case['p50_s']['kernel'] * 1e6:10.1f} {more}{flag}")
    if options.json:
        report = {"machine": schema.encode(record), "limit_s": LIMIT_S, "cases": cases}
        atomic.write(options.json, json.dumps(report, indent=1).encode(), force=True)
    return 0 if all(case["met"] for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
