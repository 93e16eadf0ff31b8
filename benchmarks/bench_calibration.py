"""Calibration of a 3-D U-Net on volumes that no memory would hold: the peak under a cap, twice.

    python benchmarks/bench_calibration.py [--volumes 200] [--size 256] [--patch 96] [--cap-mib 1024] [--keep]

The volumes are generated into a temporary folder, each one different, as float32 in ``.npy`` files; 200 of
256³ take 12.8 GB of disk. Exit code 1 where the process that calibrates goes beyond the cap, or where a scale
of the second run differs from the first in any bit. ``--keep`` writes the figures into the repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import atomic, calibration, machine
from edgekit import target as targets
from edgekit.dataset import Dataset
from edgekit.graph.graph import Graph
from edgekit.graph.load import load
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.passes.ranges import METHODS, Ranges

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "calibration.json"
STEPS = 127  # of int8


def generate(folder: Path, count: int, size: int) -> int:
    """Bodies of random place, size and contrast in noise, each volume another one; the bytes of all."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    noise = np.random.default_rng(0).random((size, size, size), dtype=np.float32)
    for index in range(count):
        rng = np.random.default_rng(index)
        volume = np.roll(noise, rng.integers(size, size=3), axis=(0, 1, 2))
        volume *= np.float32(rng.uniform(0.05, 0.15))
        for contrast in rng.uniform(0.2, 0.5, 3):
            centre, radius = rng.uniform(-0.3, 0.3, 3), rng.uniform(0.3, 0.6)
            z, y, x = ((axis - np.float32(c)) ** 2 for c in centre)
            inside = (z[:, None, None] + y[:, None]) + x < radius**2
            np.add(volume, np.float32(contrast), out=volume, where=inside)
        np.save(folder / f"volume{index:03}.npy", volume)
    return sum(path.stat().st_size for path in folder.iterdir())


def network(patch: int) -> Graph:
    """MONAI's residual U-Net with random weights, as edgekit prepares it."""
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    module = UNet(3, 1, 2, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2).eval()
    graph = load(module, shapes={"x": f"1x1x{patch}x{patch}x{patch}"}).graph
    device = targets.find("cpu")
    return run_all(default_passes(device), graph, device).graph


def scales(ranges: Ranges) -> dict[str, dict[str, float]]:
    return {
        name: {method: ranges[name].magnitude(method) / STEPS for method in METHODS}
        for name in sorted(ranges)
    }


def measure(graph: Graph, folder: Path, cap_mib: int, threads: int) -> tuple[dict[str, Any], Ranges]:
    dataset = Dataset.open([str(folder)], graph.given)
    started = time.perf_counter()
    found = calibration.observe(
        graph,
        dataset,
        calibration.activations(graph),
        memory_limit_bytes=cap_mib << 20,
        time_limit_s=4 * 3600,
        threads=threads,
        on_event=lambda event: print(f"  {event}", flush=True),
    )
    figures = {
        "groups": found.groups,
        "peak_bytes": found.peak_bytes,
        "elapsed_s": time.perf_counter() - started,
        "samples": dataset.record.samples,
        "dataset_digest": dataset.record.digest(),
        "ranges_digest": found.ranges.digest(),
    }
    peak_mib = found.peak_bytes / (1 << 20)
    print(f"  {sum(found.groups)} values, peak {peak_mib:.0f} MiB, {figures['elapsed_s']:.0f} s", flush=True)
    return figures, found.ranges


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--cap-mib", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="write the figures into the repository")
    options = parser.parse_args()

    needed = 4 * options.volumes * options.size**3
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.1 * needed:
        print(f"want {needed >> 20} MiB in {tempfile.gettempdir()}, {free >> 20} are free", file=sys.stderr)
        return 2
    graph = network(options.patch)
    with tempfile.TemporaryDirectory(prefix="edgekit-volumes-") as name:
        written = generate(Path(name), options.volumes, options.size)
        print(f"{options.volumes} volumes of {options.size}³, {written / 1e9:.1f} GB", flush=True)
        runs, found = zip(
            *(measure(graph, Path(name), options.cap_mib, options.threads) for _ in range(2)), strict=True
        )
    first, second = map(scales, found)
    identical = first == second
    below = all(run["peak_bytes"] < options.cap_mib << 20 for run in runs)
    print(f"{len(first)} values × {len(METHODS)} methods: scales {'identical' if identical else 'DIFFER'}")
    figures = {
        "volumes": options.volumes,
        "size": options.size,
        "patch": options.patch,
        "bytes": written,
        "cap_bytes": options.cap_mib << 20,
        "values": len(first),
        "methods": METHODS,
        "scales_identical": identical,
        "runs": runs,
        "machine": dataclasses.asdict(machine.record(("onnxruntime", "numpy", "monai", "torch"))),
    }
    if options.keep:
        atomic.write(KEPT, (json.dumps(figures, indent=1) + "\n").encode(), force=True)
    return 0 if identical and below else 1


if __name__ == "__main__":
    sys.exit(main())
