"""The CUDA kernels on arrays that are on a GPU, against its bandwidth and PyTorch's grid_sample.

    python benchmarks/bench_cuda.py [--size 160x192x160] [--repeats N] [--json FILE]

All take turns; a time is the median of wall times with the GPU idle before and after. It includes
launching and waiting, which the row "one voxel" shows alone. The bound is the fewest bytes a kernel can
move, at the rate of a device-to-device copy measured in the same run. Results are first compared with the
processor's, bit by bit but for the adjoint. Exit code 1 where they differ, 4 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgekit import atomic
from edgekit.kernels.base import gpu_missing

NO_GPU = 4
COPIED_BYTES = 1 << 28
ADJOINT_TOLERANCE = 1e-5


class OnDevice:
    """Memory of a GPU as a NumPy array that nobody may read: what the extension takes the address from."""

    def __init__(self, tensor: torch.Tensor):
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        self.tensor = tensor  # which owns the memory
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": tuple(stride * dtype.itemsize for stride in tensor.stride()),
            "typestr": dtype.str,
            "version": 3,
        }


@dataclass(frozen=True)
class Candidate:
    """Something to time: what runs it, and the fewest bytes that it moves."""

    name: str
    run: Callable[[], object]
    bytes: int


def smooth(size: tuple[int, ...], amplitude_vox: float) -> torch.Tensor:
    """A displacement whose knots are 12 voxels apart."""
    coarse = amplitude_vox * torch.randn(1, 3, *(max(2, length // 12) for length in size))
    return F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)


def kernel(
    name: str, inputs: tuple[torch.Tensor, ...], out: torch.Tensor, note: str = "", **options: Any
) -> Candidate:
    """One of the extension's functions; its results on the GPU and on the processor must agree.

    Raises:
        ArithmeticError: They do not.
    """
    from edgekit import _C

    kind = str(out.dtype).removeprefix("torch.")
    label = " ".join([name, *(f"{k}={v}" for k, v in options.items()), kind, note])
    arrays = [tensor.numpy() for tensor in inputs]
    getattr(_C, name)(*arrays, out.numpy(), **options)
    there = [tensor.cuda() for tensor in (*inputs, torch.empty_like(out))]
    views = [np.asarray(OnDevice(tensor)) for tensor in there]

    def run() -> None:
        getattr(_C, name)(*views, **options, isa="cuda")

    run()
    got, want = there[-1].cpu().numpy(), out.numpy()
    if name == "warp_adjoint":
        agree = np.abs(got - want).max() <= ADJOINT_TOLERANCE * np.abs(want).max()
    else:
        agree = np.array_equal(got, want)
    if not agree:
        raise ArithmeticError(f"{label}: the GPU and the processor differ")
    return Candidate(label, run, sum(tensor.nbytes for tensor in there))


def candidates(size: tuple[int, ...]) -> list[Candidate]:
    """The copy that sets the bound, PyTorch, and the kernels."""
    torch.manual_seed(0)
    image, flow = torch.randn(1, 1, *size), smooth(size, 5.0)
    last = torch.randn(1, 4, *size).contiguous(memory_format=torch.channels_last_3d)
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    identity = F.affine_grid(torch.eye(3, 4)[None], (1, 1, *size), align_corners=True)
    scale = 2 / (torch.tensor(size, dtype=torch.float32) - 1)
    grid = (identity + (flow.movedim(1, -1) * scale).flip(-1)).contiguous().cuda()
    there = image.cuda()

    def grid_sample() -> torch.Tensor:
        return F.grid_sample(there, grid, padding_mode="border", align_corners=True)

    spot = torch.zeros(1, 3, 1, 1, 1)
    return [
        Candidate("copy", lambda: target.copy_(source), 2 * COPIED_BYTES),
        kernel("warp", (spot[:, :1], spot), torch.empty(1, 1, 1, 1, 1), "one voxel"),
        Candidate("torch grid_sample", grid_sample, grid.nbytes + 2 * there.nbytes),
        *(kernel("warp", (image, flow), torch.empty_like(image), order=order) for order in (0, 1, 3)),
        *(
            kernel("warp", (image.to(dtype), flow), torch.empty_like(image, dtype=dtype))
            for dtype in (torch.float16, torch.int16)
        ),
        kernel("warp", (last, flow), torch.empty_like(last), "4 channels, innermost"),
        kernel("warp", (flow, flow), torch.empty_like(flow), add_flow=True),
        kernel("warp_gradient", (image, image, flow), torch.empty_like(flow)),
        kernel("warp_adjoint", (image, flow), torch.empty_like(image)),
        kernel("warp_labels", (image.to(torch.uint8), flow), torch.empty_like(image, dtype=torch.uint8)),
        kernel("jacobian_determinant", (flow,), torch.empty(1, 1, *size)),
    ]


def interleave(runs: list[Candidate], repeats: int) -> list[float]:
    """Median seconds of each; the first of its calls is not counted."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for candidate, seconds in zip(runs, times, strict=True):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            candidate.run()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds[1:]) for seconds in times]


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    name: str
    time_s: float
    share_of_bound: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="160x192x160", help="grid, z x y x x")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", type=Path, help="also write the report here")
    given = parser.parse_args()
    missing = gpu_missing() or ("" if torch.cuda.is_available() else "PyTorch sees no GPU")
    if missing:
        print(f"error: {missing}", file=sys.stderr)
        return NO_GPU
    try:
        runs = candidates(tuple(map(int, given.size.split("x"))))
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    times = interleave(runs, given.repeats)
    rate = runs[0].bytes / times[0]
    rows = [Row(run.name, s, run.bytes / rate / s) for run, s in zip(runs, times, strict=True)]
    print(f"{torch.cuda.get_device_name()}, {given.size}: a copy moves {rate / 1e9:.0f} GB/s")
    for row in rows:
        print(f"{row.name:60}{row.time_s * 1e3:10.3f} ms{row.share_of_bound:8.0%} of the bound")
    if given.json:
        report = {"gpu": torch.cuda.get_device_name(), "size": given.size, "bytes_per_s": rate}
        document = {**report, "rows": [asdict(row) for row in rows]}
        atomic.write(given.json, json.dumps(document, indent=1).encode(), force=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
