"""Frames of a clip without their noise, and without anything else being lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import KernelError
from edgekit.kernels import TemporalDenoiser, estimate_noise, median, temporal_denoise, warp
from edgekit.kernels.denoise.motion import Motion
from edgekit.kernels.denoise.parts import FILTER, Best, doubling, halving, smoothing
from edgekit.kernels.denoise.temporal import moving_clip

SIGMA = 12.0


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(image.astype(np.float64) - clean).mean()))


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return moving_clip(np.random.default_rng(0), (14, 96, 112))


@pytest.fixture(scope="module")
def noisy(clean: np.ndarray) -> np.ndarray:
    return (clean + SIGMA * np.random.default_rng(1).standard_normal(clean.shape)).astype(np.float32)


def test_noise_goes_and_motion_stays(clean, noisy):
    """By 8 frames' mean noise would lose 11.8 dB where it stands still."""
    found = temporal_denoise(noisy, sigma=SIGMA)
    still = temporal_denoise(noisy, sigma=SIGMA, motion=False)
    before, after, without = (psnr(a[8:], clean[8:]) for a in (noisy, found, still))
    assert after > before + 7, (before, after)
    assert after > without + 4, (without, after)
    assert without > before - 0.2  # what moved is not blended


def test_a_standing_clip_is_averaged_as_far_as_memory_goes():
    rng = np.random.default_rng(2)
    clip = (100 + SIGMA * rng.standard_normal((40, 64, 64))).astype(np.float32)
    for memory in (4.0, 8.0):
        left = temporal_denoise(clip, sigma=SIGMA, memory=memory, motion=False)[-1].std() / SIGMA
        assert abs(left / np.sqrt(1 / (2 * memory - 1)) - 1) < 0.2, (memory, left)
    np.testing.assert_allclose(temporal_denoise(clip, sigma=SIGMA, memory=1), clip, atol=1e-3)


def test_nothing_shows_of_what_was_before_a_cut(clean, noisy):
    other = 255 - clean[::-1] * 0.8
    cut = np.concatenate([noisy[:8], (other[:4] + noisy[:4] - clean[:4]).astype(np.float32)])
    found = temporal_denoise(cut, sigma=SIGMA)
    assert psnr(found[8], other[0]) > psnr(cut[8], other[0]) - 0.1
    assert psnr(found[11], other[3]) > psnr(cut[11], other[3]) + 2
    # In the mean the frame before leaves less than a hundredth of itself.
    ghost = (found[8] - other[0]) - (cut[8] - other[0])
    assert abs((ghost * (clean[7] - other[0])).sum() / np.square(clean[7] - other[0]).sum()) < 0.01


def test_something_that_flies_through_leaves_no_trail():
    rng = np.random.default_rng(3)
    y, x = np.indices((64, 160))
    clean = np.full((12, 64, 160), 80.0)
    for t in range(12):
        clean[t][np.hypot(y - 32, x - 10 - 12 * t) < 5] = 250
    noisy = (clean + 8 * rng.standard_normal(clean.shape)).astype(np.float32)
    found = temporal_denoise(noisy, sigma=8.0)
    trail = (abs(y - 32) < 4) & (x > 10 + 12 * 7) & (x < 10 + 12 * 11 - 8)
    assert abs((found[11] - clean[11])[trail].mean()) < 3
    ball = np.hypot(y - 32, x - 10 - 12 * 11) < 4
    assert abs((found[11] - clean[11])[ball].mean()) < 6


def test_an_ultrasound_clip_keeps_what_it_shows():
    """Noise is added to the clip that comes with pydicom; its own speckle is what is to be kept."""
    from edgekit.demo import _read_example

    clip = _read_example("examples_ybr_color.dcm")
    gray = clip.mean(axis=-1) if clip.ndim == 4 else clip
    gray = np.ascontiguousarray(gray[:10, 40:360, 100:420:1])[:, :240].astype(np.float64)
    noisy = (gray + 10 * np.random.default_rng(4).standard_normal(gray.shape)).astype(np.float32)
    found = temporal_denoise(noisy, sigma=10.0)
    assert psnr(found[5:], gray[5:]) > psnr(noisy[5:], gray[5:]) + 3


def test_the_displacement_is_the_one_that_was_made():
    rng = np.random.default_rng(5)
    image = moving_clip(rng, (1, 120, 144)).astype(np.float32) / 5
    y, x = np.indices((120, 144)).astype(np.float32)
    made = np.stack([3 + 2 * np.sin(x / 30), -4 + 1.5 * np.cos(y / 25)])[None].astype(np.float32)
    moved = warp(image[None], made, order=3)[0, 0] + 0.5 * rng.standard_normal((120, 144)).astype(np.float32)
    flow = np.empty_like(made)
    Motion(120, 144).find(Best(1), np.ascontiguousarray(moved), image[0], flow)
    inside = np.s_[0, :, 16:-16, 16:-16]
    error = np.linalg.norm(flow[inside] - made[inside], axis=0)
    assert np.median(error) < 0.15 and np.percentile(error, 95) < 0.6


def test_frames_give_what_the_clip_gives(noisy):
    want = temporal_denoise(noisy)
    denoise = TemporalDenoiser(noisy.shape[1:])
    for _ in range(2):
        for frame, wanted in zip(noisy[:4], want, strict=False):
            np.testing.assert_array_equal(denoise(frame), wanted)
        denoise.reset()
    out = np.empty_like(noisy[0])
    np.testing.assert_array_equal(denoise(noisy[0]), noisy[0])
    first = denoise(noisy[1])
    assert denoise(noisy[2], out=out) is out and first is denoise(noisy[3])
    assert denoise.flow_vox.shape == (2, *noisy.shape[1:]) and np.abs(denoise.flow_vox).max() > 0.5
    assert denoise.gain.min() >= 0.125 and denoise.gain.max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16"])
def test_other_types_are_their_values_in_float32(dtype, noisy):
    clip = np.clip(np.rint(noisy[:5]), 0, 255).astype(dtype)
    got = temporal_denoise(clip, sigma=SIGMA)
    want = temporal_denoise(clip.astype(np.float32), sigma=SIGMA)
    want = want.astype(dtype) if dtype == "float16" else np.clip(np.rint(want), 0, 255).astype(dtype)
    assert got.dtype == clip.dtype
    np.testing.assert_array_equal(got, want)


def test_tensors_come_back_as_tensors(noisy):
    import torch

    denoise = TemporalDenoiser(noisy.shape[1:])
    for frame in noisy[:2]:
        found = denoise(torch.from_numpy(frame))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), temporal_denoise(noisy[:2])[1])


def test_frames_without_noise_are_left_as_they_are():
    clip = np.zeros((3, 20, 24), np.uint8)
    np.testing.assert_array_equal(temporal_denoise(clip), clip)
    tiny = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    np.testing.assert_array_equal(temporal_denoise(tiny), tiny)


@pytest.mark.parametrize("value", [9e29, -9e29, 1e20])
def test_huge_numbers_stay_finite(value, noisy):
    clip = noisy[:4].copy()
    clip[1, 30:60, 20:70] = value
    clip[2] *= -1e20
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(temporal_denoise(clip, sigma=1e-6)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e30])
def test_a_bad_frame_is_refused_and_forgotten(value, noisy):
    denoise = TemporalDenoiser(noisy.shape[1:])
    want = temporal_denoise(noisy[:3])
    denoise(noisy[0])
    bad = noisy[1].copy()
    bad[3, 4] = value
    with pytest.raises(KernelError, match="finite"):
        denoise(bad)
    denoise(noisy[1])
    np.testing.assert_array_equal(denoise(noisy[2]), want[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4,)}, "shape"),
        ({"shape": (4, 0)}, "shape"),
        ({"shape": (4.0, 4.0)}, "shape"),
        ({"dtype": "float64"}, "dtype"),
        ({"sigma": 0}, "sigma"),
        ({"sigma": np.nan}, "sigma"),
        ({"memory": 0.5}, "memory"),
        ({"motion": 1}, "motion"),
        ({"threads": 0}, "threads"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(KernelError, match=message):
        TemporalDenoiser(**{"shape": (20, 20), **arguments})


def test_bad_frames_are_refused():
    denoise = TemporalDenoiser((20, 24), dtype="uint8")
    for frame, message in (
        (np.zeros((20, 24), np.float32), "uint8"),
        (np.zeros((24, 20), np.uint8), "shape"),
        (np.zeros((1, 20, 24), np.uint8), "axes"),
        (np.zeros((24, 20), np.uint8).T, "C-contiguous"),
    ):
        with pytest.raises(KernelError, match=message):
            denoise(frame)
    frame = np.zeros((20, 24), np.uint8)
    with pytest.raises(KernelError, match="overlaps"):
        denoise(frame, out=frame)
    with pytest.raises(KernelError, match="last result"):
        denoise(denoise(frame))


@pytest.mark.parametrize("motion", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16"])
def test_python_allocates_no_array_after_the_first_frame(motion, dtype, noisy):
    """NumPy tells tracemalloc of its arrays; what is left are Python's own small objects."""
    clip = np.clip(noisy[:8], 0, 255).astype(dtype)
    denoise = TemporalDenoiser(clip.shape[1:], dtype=dtype, motion=motion)
    for frame in clip[:2]:
        denoise(frame)
    tracemalloc.start()
    try:
        denoise(clip[2])
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for frame in clip[3:]:
            denoise(frame)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 8192 < clip[0].nbytes
    assert after - before < 2048


COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static volatile int on, large;
void count_from_now(int yes) { on = yes; large = 0; }
int large_ones(void) { return large; }
static void see(size_t size) { if (on && size >= 4096) __sync_fetch_and_add(&large, 1); }
extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { see(n); return __libc_malloc(n); }
void* calloc(size_t n, size_t m) { see(n * m); return __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { see(n); return __libc_realloc(p, n); }
void* memalign(size_t a, size_t n) { see(n); return __libc_memalign(a, n); }
void* aligned_alloc(size_t a, size_t n) { see(n); return __libc_memalign(a, n); }
int posix_memalign(void** p, size_t a, size_t n) { see(n); *p = __libc_memalign(a, n); return *p ? 0 : 12; }
"""


def test_nothing_allocates_after_the_first_frame(tmp_path):
    """Counted below Python and C++: no block of a page or more is asked for, by whatever thread."""
    compiler = shutil.which("cc")
    assert compiler and sys.platform.startswith("linux"), "want a C compiler on Linux: apt-get install gcc"
    (tmp_path / "counter.c").write_text(COUNTER)
    library = tmp_path / "counter.so"
    command = [compiler, "-shared", "-fPIC", "-O1", str(tmp_path / "counter.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    code = """
import ctypes
import numpy as np
from edgekit.kernels import TemporalDenoiser
count = ctypes.CDLL(None)
clip = np.random.default_rng(0).integers(0, 255, (8, 120, 144)).astype(np.uint8)
denoise = TemporalDenoiser(clip.shape[1:], dtype="uint8", threads=2)
for frame in clip[:2]:
    denoise(frame)
count.count_from_now(1)
np.empty(5000, np.uint8)
assert count.large_ones() > 0, "the counter counts nothing"
count.count_from_now(1)
for frame in clip[2:]:
    denoise(frame)
print(count.large_ones())
"""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_PRELOAD": str(library), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["0"]


@pytest.mark.parametrize("left", ["numba", "numpy"])
def test_without_the_extension_it_is_the_same_within_rounding(left, noisy, tmp_path):
    clip = np.ascontiguousarray(noisy[:4, :40, :48])
    np.save(tmp_path / "clip.npy", clip)
    code = f"""
import sys, warnings
sys.modules["edgekit._C"] = None
if {left == "numpy"}:
    sys.modules["numba"] = None
import numpy as np
from edgekit.kernels import TemporalDenoiser, estimate_noise, median
warnings.simplefilter("ignore")
clip = np.load("clip.npy")
denoise = TemporalDenoiser(clip.shape[1:], sigma={SIGMA})
np.save("found.npy", np.stack([denoise(frame).copy() for frame in clip]))
np.save("median.npy", median(clip, radius=1))
np.save("noise.npy", estimate_noise(clip[0]))
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "found.npy"), temporal_denoise(clip, sigma=SIGMA), atol=3e-3
    )
    np.testing.assert_array_equal(np.load(tmp_path / "median.npy"), median(clip))
    np.testing.assert_allclose(np.load(tmp_path / "noise.npy"), estimate_noise(clip[0]), rtol=1e-5)


def test_the_filters_of_axes_without_the_extension():
    """The tables in NumPy give what the best variant gives."""
    rng = np.random.default_rng(6)
    image = rng.standard_normal((2, 21, 34)).astype(np.float32)

    class Plain(Best):
        def filter_axis(self, image, out, axis, change):
            out[...] = FILTER.reference(image, axis=axis, change=change)[0]

    for make, size in (
        (lambda: smoothing((2,), 21, 34, 1.7), (2, 21, 34)),
        (lambda: halving(21, 34, 0.6), (10, 17)),
        (lambda: doubling((2,), 42, 69), (2, 42, 69)),
        (lambda: smoothing((2,), 21, 34, 0.0), (2, 21, 34)),
    ):
        source = image if len(size) == 3 else np.ascontiguousarray(image[0])
        results = []
        for kernels in (Best(1), Plain(1)):
            out = np.empty(size, np.float32)
            make()(kernels, source, out)
            results.append(out)
        np.testing.assert_allclose(results[0], results[1], atol=2e-6)
