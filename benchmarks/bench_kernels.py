"""edgekit's operators against what else computes the same, one case after the other, everything taking turns.

    python benchmarks/bench_kernels.py [--kernel NAME ...] [--threads 1,2] [--repeats N] [--json FILE]

A ratio is the peer's time over edgekit's at the same number of threads: medians of wall time, and the least
CPU time of each, which a busy machine disturbs less. The bound is the CPU time to move the fewest bytes
(inputs once, output once) at the speed of a large copy with as many threads, measured in the same run. A peer
that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A thread that spins after its share of one candidate's work would be charged to the next candidate.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from _harness import Samples, copy_bandwidth, interleave

from edgekit import machine
from edgekit.kernels import native_status
from edgekit.kernels.base import ISAS, OPERATORS

Function = Callable[[], Any]
FULL, HALF = (160, 192, 160), (80, 96, 80)
SIGMA_VOX, LARGEST_VOX = 8, 5


@dataclass(frozen=True)
class Case:
    """Something to time: edgekit's arguments, and its peers for a number of threads."""

    kernel: str
    label: str
    inputs: tuple[np.ndarray, ...]
    output_shape: tuple[int, ...]
    options: dict[str, Any]
    peers: Callable[[int], dict[str, Function]]

    @property
    def least_bytes(self) -> int:
        return sum(array.nbytes for array in self.inputs) + 4 * int(np.prod(self.output_shape))


def smooth_field(shape: tuple[int, ...]) -> np.ndarray:
    """Gaussian noise smoothed by a Gaussian of 8 voxels, its largest value 5 voxels."""
    from scipy import ndimage

    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for component in noise.reshape(-1, *shape[2:]):
        ndimage.gaussian_filter(component, SIGMA_VOX, mode="wrap", output=component)
    return noise * np.float32(LARGEST_VOX / np.abs(noise).max())


def noise_image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def torch_peers(threads: int) -> Any:
    """torch with that many threads, or None."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


class TorchLayer:
    """The spatial transformer as VoxelMorph and others write it.

    Identity grid in a buffer, add the displacement, normalise each component, move the components last,
    reverse them, ``grid_sample``.
    """

    def __init__(self, torch: Any, grid: tuple[int, ...], boundary: str) -> None:
        self.torch, self.grid = torch, grid
        axes = [torch.arange(0, size) for size in grid]
        self.identity = torch.stack(torch.meshgrid(axes, indexing="ij"))[None].float()
        self.padding = {"edge": "border", "zero": "zeros"}[boundary]

    def locations(self, flow: Any) -> Any:
        places = self.identity + flow
        for axis, size in enumerate(self.grid):
            places[:, axis] = 2 * (places[:, axis] / (size - 1) - 0.5)
        order = list(range(len(self.grid)))
        return places.permute(0, *(axis + 2 for axis in order), 1)[..., order[::-1]]

    def sample(self, image: Any, locations: Any) -> Any:
        return self.torch.nn.functional.grid_sample(
            image, locations, mode="bilinear", padding_mode=self.padding, align_corners=True
        )

    def __call__(self, image: Any, flow: Any) -> Any:
        return self.sample(image, self.locations(flow))


def warp_case(label: str, channels: int, grid: tuple[int, ...], boundary: str = "edge") -> Case:
    image, flow = noise_image((1, channels, *grid)), smooth_field((1, len(grid), *grid))

    def peers(threads: int) -> dict[str, Function]:
        functions: dict[str, Function] = {}
        if torch := torch_peers(threads):
            layer = TorchLayer(torch, grid, boundary)
            tensors = torch.from_numpy(image), torch.from_numpy(flow)
            places = layer.locations(tensors[1]).contiguous()
            functions["torch layer (VoxelMorph)"] = lambda: layer(*tensors).numpy()
            functions["torch grid_sample"] = lambda: layer.sample(tensors[0], places).numpy()
        if threads == 1:
            functions["scipy map_coordinates"] = lambda: scipy_warp(image, flow, boundary)
        return functions

    return Case("warp", label, (image, flow), image.shape, {"order": 1, "boundary": boundary}, peers)


def scipy_warp(image: np.ndarray, flow: np.ndarray, boundary: str) -> np.ndarray:
    from scipy import ndimage

    places = np.indices(image.shape[2:], dtype=np.float32) + flow[0]
    mode = {"edge": "nearest", "zero": "grid-constant"}[boundary]
    out = np.empty_like(image)
    for channel, result in zip(image[0], out[0], strict=True):
        ndimage.map_coordinates(channel, places, output=result, order=1, mode=mode)
    return out


def integrate_case(label: str, grid: tuple[int, ...]) -> Case:
    velocity = smooth_field((1, len(grid), *grid))

    def peers(threads: int) -> dict[str, Function]:
        torch = torch_peers(threads)
        if not torch:
            return {}
        layer, tensor = TorchLayer(torch, grid, "edge"), torch.from_numpy(velocity)

        def integrate() -> Any:
            field = tensor / 2**7
            for _ in range(7):
                field = field + layer(field, field)
            return field.numpy()

        return {"torch layer (VoxelMorph)": integrate}

    options = {"steps": 7, "boundary": "edge"}
    return Case("integrate_velocity", label, (velocity,), velocity.shape, options, peers)


def jacobian_case(label: str, grid: tuple[int, ...]) -> Case:
    flow = smooth_field((1, len(grid), *grid))

    def peers(_: int) -> dict[str, Function]:
        return {"numpy gradient + det": lambda: numpy_jacobian(flow)}

    return Case("jacobian_determinant", label, (flow,), (1, *grid), {}, peers)


def numpy_jacobian(flow: np.ndarray) -> np.ndarray:
    rows = [np.stack(np.gradient(component), axis=-1) for component in flow[0]]
    return np.linalg.det(np.stack(rows, axis=-2) + np.eye(len(rows), dtype=np.float32))[None]


CASES: dict[str, tuple[Callable[..., Case], ...]] = {
    "warp": (
        lambda: warp_case("3-D 160x192x160", 1, FULL),
        lambda: warp_case("3-D 160x192x160 zero", 1, FULL, "zero"),
        lambda: warp_case("3-D 160x192x160 C=4", 4, FULL),
        lambda: warp_case("2-D 1024x1024", 1, (1024, 1024)),
    ),
    "integrate_velocity": (
        lambda: integrate_case("3-D 80x96x80", HALF),
        lambda: integrate_case("3-D 160x192x160", FULL),
    ),
    "jacobian_determinant": (lambda: jacobian_case("3-D 160x192x160", FULL),),
}


def own(case: Case, threads: int) -> dict[str, Function]:
    """edgekit as users call it, then each variant that runs here. All write to memory given to them."""
    operator = OPERATORS[case.kernel]
    out = np.empty(case.output_shape, np.float32)
    functions: dict[str, Function] = {
        "edgekit": lambda: operator.function(*case.inputs, **case.options, out=out, threads=threads)
    }
    for variant in operator.variants:
        if variant.name in ISAS and not variant.missing():
            functions[f"edgekit {variant.name}"] = lambda run=variant.run: run(
                *case.inputs, **case.options, out=out, threads=threads
            )
    return functions


def measure(case: Case, threads: int, repeats: int, bandwidth: float) -> dict[str, Any]:
    peers = case.peers(threads)
    want = OPERATORS[case.kernel].function(*case.inputs, **case.options)
    difference = {name: float(np.abs(np.asarray(peer()) - want).max()) for name, peer in peers.items()}
    samples = interleave({**own(case, threads), **peers}, repeats=repeats)
    return {
        "kernel": case.kernel,
        "case": case.label,
        "threads": threads,
        "bound_s": case.least_bytes / bandwidth,
        "largest_difference": difference,
        "samples": samples,
    }


def rows(result: dict[str, Any]) -> Iterator[str]:
    samples: dict[str, Samples] = result["samples"]
    base = samples["edgekit"]
    title = f"{result['kernel']} {result['case']}, {result['threads']} thread(s)"
    yield f"{title}, bound {result['bound_s'] * 1e3:.1f} ms CPU"
    yield f"  {'':28}{'median ms':>10}{'spread':>8}{'CPU ms':>9}{'ratio':>8}{'CPU ratio':>10}{'of bound':>10}"
    for name, taken in samples.items():
        ratio, cpu = taken.wall_s / base.wall_s, taken.least_cpu_s / base.least_cpu_s
        yield (
            f"  {name:28}{taken.wall_s * 1e3:10.2f}{taken.spread:8.0%}{taken.least_cpu_s * 1e3:9.2f}"
            f"{ratio:8.2f}{cpu:10.2f}{result['bound_s'] / taken.least_cpu_s:10.0%}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", nargs="+", choices=list(OPERATORS), default=list(OPERATORS))
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, help="where to write every sample")
    arguments = parser.parse_args()
    status = native_status()
    print(f"native: {status.isa or status.missing}")
    if torch_peers(1) is None:
        print("not installed, left out: torch")
    results = []
    for threads in map(int, arguments.threads.split(",")):
        bandwidth = copy_bandwidth(threads)
        print(f"copy with {threads} thread(s): {bandwidth / 1e9:.1f} GB/s of CPU time\n")
        for kernel in arguments.kernel:
            for make in CASES[kernel]:
                results.append(measure(make(), threads, arguments.repeats, bandwidth))
                print(*rows(results[-1]), "", sep="\n", flush=True)
    if arguments.json:
        document = {
            "machine": dataclasses.asdict(machine.record(("numpy", "scipy", "torch"))),
            "native": dataclasses.asdict(status),
            "results": [
                {**r, "samples": {n: dataclasses.asdict(s) for n, s in r["samples"].items()}} for r in results
            ],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
