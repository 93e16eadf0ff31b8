"""The filter for clips: time of each frame, and what it does to noise, beside OpenCV's.

    python benchmarks/bench_temporal.py [--size 240x320] [--frames N] [--threads N] [--json FILE]

A clip of waves and edges that move by a pixel or so a frame is made, and noise added; with pydicom the
ultrasound clip that comes with it is taken too. Frames are given one by one, as they would arrive. The time
of a frame is wall time and CPU time, of which a busy machine disturbs the latter less: the median and the
99th percentile are shown. PSNR is that of all frames after the fifth. OpenCV's non-local means over five
frames (cv2.fastNlMeansDenoisingMulti) are given the noise likewise; their delay is two frames.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import atomic, machine, schema
from edgekit.kernels import TemporalDenoiser, native_status
from edgekit.kernels.denoise.temporal import moving_clip

SKIPPED = 5
SIGMAS = (10.0, 25.0)
# OpenCV's takes a second or so a frame.
FEW = 12

Step = Callable[[np.ndarray], np.ndarray]


def clips(frames: int, size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Clean clips [T, H, W], 0 to 255, with a name."""
    made = moving_clip(np.random.default_rng(0), (frames, *size))
    yield f"moving waves {size[0]}x{size[1]}", np.clip(made, 0, 255)
    try:
        from pydicom import dcmread
        from pydicom.data import get_testdata_file
    except ImportError:
        return
    pixels = dcmread(str(get_testdata_file("examples_ybr_color.dcm", download=False))).pixel_array
    luminance = pixels[..., 0] if pixels.ndim == 4 else pixels
    yield "ultrasound of pydicom", np.ascontiguousarray(luminance[:frames]).astype(np.float64)


def psnr(images: np.ndarray, clean: np.ndarray) -> float:
    error = np.square(images.astype(np.float64) - clean).mean()
    return float(10 * np.log10(255**2 / error))


def through(step: Step, noisy: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """All frames, and how long they took."""
    results, wall_ns, cpu_ns = np.empty_like(noisy), [], []
    for frame, result in zip(noisy, results, strict=True):
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        found = step(frame)
        wall_ns.append(time.perf_counter_ns() - wall)
        cpu_ns.append(time.process_time_ns() - cpu)
        result[...] = found
    late = np.array(wall_ns[1:]) / 1e9  # the first one is copied
    p50, p99 = np.percentile(late, [50, 99])
    cpu_p50, cpu_p99 = np.percentile(np.array(cpu_ns[1:]) / 1e9, [50, 99])
    times = {
        "p50_s": float(p50),
        "p99_s": float(p99),
        "frames_per_s": float(1 / late.mean()),
        "cpu_p50_s": float(cpu_p50),
        "cpu_p99_s": float(cpu_p99),
    }
    return results, times


def opencv(noisy: np.ndarray, clean: np.ndarray, sigma: float) -> dict[str, float] | None:
    """OpenCV's over five frames, of which the third is the one it finds."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)
    clip, found, wall_ns = list(noisy[: SKIPPED + FEW]), [], []
    for at in range(SKIPPED, len(clip) - 2):
        begin = time.perf_counter_ns()
        found.append(cv2.fastNlMeansDenoisingMulti(clip, at, 5, None, h=sigma))
        wall_ns.append(time.perf_counter_ns() - begin)
    seconds = float(np.median(wall_ns)) / 1e9
    return {"psnr_db": psnr(np.array(found), clean[SKIPPED : SKIPPED + len(found)]), "p50_s": seconds}


def measure(clean: np.ndarray, sigma: float, dtype: str, threads: int) -> dict[str, Any]:
    noise = sigma * np.random.default_rng(1).standard_normal(clean.shape)
    noisy = np.clip(np.rint(clean + noise), 0, 255).astype(dtype)
    result: dict[str, Any] = {
        "sigma": sigma,
        "dtype": dtype,
        "noisy_db": psnr(noisy[SKIPPED:], clean[SKIPPED:]),
    }
    for name, motion in (("edgekit", True), ("edgekit, without motion", False)):
        step = TemporalDenoiser(clean.shape[1:], dtype=dtype, sigma=sigma, motion=motion, threads=threads)
        found, times = through(step, noisy)
        result[name] = {"psnr_db": psnr(found[SKIPPED:], clean[SKIPPED:]), **times}
    if dtype == "uint8" and (peer := opencv(noisy, clean, sigma)):
        result["cv2.fastNlMeansDenoisingMulti"] = peer
    return result


def line(name: str, run: dict[str, float]) -> str:
    text = f"    {name:32}{run['psnr_db']:7.2f} dB   p50 {1e3 * run['p50_s']:8.2f} ms"
    if "p99_s" in run:
        text += f"   p99 {1e3 * run['p99_s']:7.2f} ms   {run['frames_per_s']:6.1f} frames/s"
        text += f"   CPU {1e3 * run['cpu_p50_s']:6.2f} and {1e3 * run['cpu_p99_s']:6.2f} ms"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="240x320")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    height, width = map(int, settings.size.split("x"))
    results = []
    for name, clean in clips(settings.frames, (height, width)):
        for sigma, dtype in ((SIGMAS[0], "uint8"), (SIGMAS[1], "uint8"), (SIGMAS[0], "float32")):
            result = {"clip": name, "shape": clean.shape, **measure(clean, sigma, dtype, settings.threads)}
            results.append(result)
            print(
                f"{name} {clean.shape} {dtype}, sigma {sigma:g}: noisy {result['noisy_db']:.2f} dB",
                flush=True,
            )
            for run, values in result.items():
                if isinstance(values, dict):
                    print(line(run, values), flush=True)
    if settings.json:
        report = {
            "machine": schema.encode(machine.record(["numpy"])),
            "isa": native_status().isa,
            "threads": settings.threads,
            "results": results,
        }
        atomic.write(settings.json, json.dumps(report, indent=2).encode(), force=True)


if __name__ == "__main__":
    main()
