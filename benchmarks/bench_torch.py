"""The drop-in modules against what they replace, forwards and with the gradients of all inputs.

    python benchmarks/bench_torch.py [--size 160x192x160] [--threads 1,2] [--repeats N] [--json FILE]

A ratio is the peer's time over that of edgekit's module at the same number of threads, everything taking
turns: medians of wall time, and the least CPU time of each, which a busy machine disturbs less. Peers are
VoxelMorph's layers as published, MONAI's blocks and edgekit's own definition in plain torch. The fields are
smooth; outputs and gradients are compared first. Exit code 1 where they do not agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
from _harness import interleave
from peers.torch import Layer
from torch import Tensor

from edgekit import atomic, machine
from edgekit.kernels import native_status
from edgekit.torch.definitions import integrate_plain, warp_plain
from edgekit.torch.modules import DVF2DDF, SpatialTransformer, VecInt, Warp

Function = Callable[..., Tensor]
STEPS = 7
# Of the largest value; a gradient jumps where rounding moves a coordinate across a voxel.
TOLERANCE, SHARE_THAT_JUMPS = 1e-4, 1e-3


def smooth(size: tuple[int, ...], amplitude_vox: float) -> Tensor:
    """A displacement whose knots are 12 voxels apart."""
    knots = [max(2, length // 12) for length in size]
    coarse = amplitude_vox * torch.randn(1, 3, *knots)
    return F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)


def candidates(size: tuple[int, ...]) -> dict[str, dict[str, Function]]:
    """By operation, edgekit's module first."""
    layer = Layer(size, "zero")

    def published_integration(velocity: Tensor) -> Tensor:
        field = velocity / 2**STEPS
        for _ in range(STEPS):
            field = field + layer(field, field)
        return field

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that MONAI's own extension is not built
        from monai.networks import blocks

        monai_warp, monai_integration = blocks.Warp(padding_mode="zeros"), blocks.DVF2DDF(STEPS)
    return {
        "SpatialTransformer": {
            "edgekit": SpatialTransformer(size),
            "VoxelMorph": layer,
            "torch definition": lambda image, flow: warp_plain(image, flow, 1, "zero"),
        },
        "Warp": {"edgekit": Warp(padding_mode="zeros"), "MONAI": monai_warp},
        "VecInt": {
            "edgekit": VecInt(size, STEPS),
            "VoxelMorph": published_integration,
            "torch definition": lambda velocity: integrate_plain(velocity, STEPS, "zero"),
        },
        "DVF2DDF": {"edgekit": DVF2DDF(STEPS), "MONAI": monai_integration},
    }


def forward(function: Function, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        return [function(*inputs)]


def forward_and_backward(function: Function, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    result = function(*inputs)
    return [result.detach(), *torch.autograd.grad(result, inputs, torch.ones_like(result))]


def agree(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(
        float(((f - w).abs() > TOLERANCE * w.abs().max()).float().mean()) <= SHARE_THAT_JUMPS
        for f, w in zip(found, wanted, strict=True)
    )


def measure(size: tuple[int, ...], threads: int, repeats: int, limit_s: float) -> list[dict[str, Any]]:
    """One row per operation, direction and peer, printed as it is found."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    image, flow = torch.rand(1, 1, *size), smooth(size, 2.0)
    rows = []
    for operation, functions in candidates(size).items():
        inputs = (image, flow) if operation in ("SpatialTransformer", "Warp") else (flow,)
        for direction in (forward, forward_and_backward):
            wanted = direction(functions["edgekit"], inputs)
            agreed = {name: agree(direction(f, inputs), wanted) for name, f in functions.items()}
            calls = {name: functools.partial(direction, f, inputs) for name, f in functions.items()}
            samples = interleave(calls, repeats=repeats, limit_s=limit_s)
            ours = samples["edgekit"]
            for name, found in samples.items():
                row = {
                    "operation": operation,
                    "direction": direction.__name__,
                    "peer": name,
                    "threads": threads,
                    "wall_ratio": found.wall_s / ours.wall_s,
                    "cpu_ratio": found.least_cpu_s / ours.least_cpu_s,
                    "agrees": agreed[name],
                    "wall_ns": found.wall_ns,
                    "cpu_ns": found.cpu_ns,
                }
                rows.append(row)
                print(
                    f"{operation:20}{direction.__name__:22}{name:18}{threads} thread(s)  "
                    f"{found.wall_s * 1e3:9.1f} ms  {row['wall_ratio']:6.1f}x wall  "
                    f"{row['cpu_ratio']:6.1f}x CPU{'' if agreed[name] else '  DIFFERS'}",
                    flush=True,
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="160x192x160")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit-s", type=float, default=20.0, help="for each candidate")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = tuple(int(length) for length in options.size.split("x"))
    rows = []
    for threads in options.threads.split(","):
        rows += measure(size, int(threads), options.repeats, options.limit_s)
    if options.json:
        document = {
            "size": size,
            "isa": native_status().isa,
            "machine": dataclasses.asdict(machine.record(("numpy", "torch", "monai"))),
            "rows": rows,
        }
        atomic.write(options.json, json.dumps(document, indent=1).encode(), force=True)
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
