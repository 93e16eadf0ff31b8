"""What the operators of edgekit are timed on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.kernels import coords
from edgekit.kernels.denoise.temporal import moving_clip

Array = np.ndarray
Grid = tuple[int, ...]
Options = Mapping[str, Any]

FULL, HALF, CT = (160, 192, 160), (80, 96, 80), (128, 256, 256)
CUBE, SMALL_CUBE = (128, 128, 128), (64, 64, 64)
SIGMA_VOX, LARGEST_VOX = 8, 5
CLASSES = 16


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        kernel: Name of the operator.
        note: What sets the case apart from others of its grid.
        grid: Lengths of the axes.
        make: The arguments for a grid.
        options: The keyword arguments, or what makes them for a grid; all that have a meaning, as native
            variants are called with them.
    """

    kernel: str
    note: str
    grid: Grid
    make: Callable[[Grid], tuple[Array, ...]]
    options: Options | Callable[[Grid], Options]

    @property
    def label(self) -> str:
        return f"{'x'.join(map(str, self.grid))} {self.note}".strip()

    def arguments(self, shrink: int = 1) -> tuple[tuple[Array, ...], Options]:
        """The arguments, every axis of the grid divided by ``shrink``."""
        grid = tuple(size // shrink for size in self.grid)
        return self.make(grid), self.options(grid) if callable(self.options) else self.options


def smoothed(shape: tuple[int, ...], seed: int) -> Array:
    """Gaussian noise [N, C, ...], smoothed by a Gaussian of 8 voxels."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    for component in noise.reshape(-1, *shape[2:]):
        ndimage.gaussian_filter(component, SIGMA_VOX, mode="wrap", output=component)
    return noise


@functools.lru_cache(maxsize=4)
def smooth_field(grid: Grid, seed: int = 0) -> Array:
    """A displacement whose largest component is 5 voxels."""
    noise = smoothed((1, len(grid), *grid), seed)
    return noise * np.float32(LARGEST_VOX / np.abs(noise).max())


def noise_image(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def image_and_field(
    channels: int = 1, dtype: str = "float32", last: bool = False
) -> Callable[[Grid], tuple[Array, ...]]:
    """An image of noise, planar or with the channels last in memory, and a smooth field."""

    def make(grid: Grid) -> tuple[Array, ...]:
        image = noise_image((1, channels, *grid))
        if np.dtype(dtype).kind in "iu":
            image = np.clip(100 + 30 * image, 0, 255)
        image = image.astype(dtype)
        if last:
            image = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1)
        return image, smooth_field(grid)

    return make


def only_image(dtype: str = "float32") -> Callable[[Grid], tuple[Array, ...]]:
    return lambda grid: image_and_field(dtype=dtype)(grid)[:1]


def same_field(spacing: float, antialias: bool) -> Callable[[Grid], Options]:
    """The same field of view on a grid of another spacing, that of the image being 1."""

    def options(grid: Grid) -> Options:
        shape = tuple(round(size / spacing) for size in grid)
        matrix = coords.same_field_matrix(grid, shape)
        return {"shape": shape, "matrix_vox": matrix, **LINEAR, "antialias": antialias}

    return options


def cotangent_image_and_field(grid: Grid) -> tuple[Array, ...]:
    cotangent, image = noise_image((2, 1, 1, *grid))
    return cotangent, image, smooth_field(grid)


def one_field(grid: Grid) -> tuple[Array, ...]:
    return (smooth_field(grid),)


def two_fields(grid: Grid) -> tuple[Array, ...]:
    return smooth_field(grid), smooth_field(grid, seed=2)


def points_and_field(count: int) -> Callable[[Grid], tuple[Array, ...]]:
    """Points anywhere in the grid, and a smooth field."""

    def make(grid: Grid) -> tuple[Array, ...]:
        at = np.random.default_rng(4).random((1, count, len(grid)), np.float32)
        return at * (np.array(grid, np.float32) - 1), smooth_field(grid)

    return make


def image_and_grid(grid: Grid) -> tuple[Array, ...]:
    """An image of noise, and the grid of a smooth field in normalised coordinates."""
    image, flow = image_and_field()(grid)
    at = np.indices(grid, dtype=np.float32) + flow
    scale = 2 / np.array(grid, np.float32)
    return image, np.ascontiguousarray((((np.moveaxis(at, 1, -1) + 0.5) * scale) - 1)[..., ::-1])


def labels_and_field(dtype: str) -> Callable[[Grid], tuple[Array, ...]]:
    """Regions a few voxels wide, of equal volume each, and a smooth field."""

    def make(grid: Grid) -> tuple[Array, ...]:
        noise = smoothed((1, 1, *grid), seed=3)
        borders = np.quantile(noise[..., ::3], np.arange(1, CLASSES) / CLASSES)
        return np.digitize(noise, borders).astype(dtype), smooth_field(grid)

    return make


def bands(dtype: str = "float32") -> Callable[[Grid], tuple[Array, ...]]:
    """Bands of three grey levels from 40 to 160, with Gaussian noise of 20."""

    def make(grid: Grid) -> tuple[Array, ...]:
        levels = 40 + 60 * (np.indices(grid).sum(0) // 25 % 3)
        image = levels + 20 * np.random.default_rng(5).standard_normal(grid)
        return (np.clip(image, 0, 255).astype(dtype)[None, None],)

    return make


def denoised_image(dtype: str = "float32") -> Callable[[Grid], tuple[Array, ...]]:
    """Regions a few voxels wide, of 100 and 200, with noise."""

    def make(grid: Grid) -> tuple[Array, ...]:
        regions = np.where(smoothed((1, 1, *grid), seed=3) > 0, 200, 100)
        return (np.clip(regions + 20 * noise_image((1, 1, *grid)), 0, 255).astype(dtype),)

    return make


def neighbours(patch: int, search: int, dims: int, **others: Any) -> Options:
    """Of the noise in :func:`bands`."""
    return {"sigma": 20.0, "patch_radius": patch, "search_radius": search, "spatial_ndim": dims, **others}


def variation(dims: int, iterations: int, method: str = "chambolle") -> Options:
    return {
        "weight": 20.0,
        "iterations": iterations,
        "method": method,
        "tolerance": None,
        "return_gap": False,
        "spatial_ndim": dims,
    }


def diffusion(dims: int, form: str, interval: int = 1) -> Options:
    return {
        "iterations": 5,
        "time_step": 0.5 ** (dims + 1),
        "conductance": 1.0,
        "form": form,
        "conductance_scaling_update_interval": interval,
        "spatial_ndim": dims,
    }


def speckle(dims: int) -> Options:
    known = {"q0": 0.2, "decay": 1 / 6, "region": None}
    return {"iterations": 20, "time_step": 0.5, **known, "spatial_ndim": dims}


def moving_frames(grid: Grid) -> tuple[Array, ...]:
    """A clip of what moves, with noise of 10."""
    frames, height, width = (max(size, 2) for size in grid)
    rng = np.random.default_rng(5)
    clip = moving_clip(rng, (frames, height, width)) + 10 * rng.standard_normal((frames, height, width))
    return (np.clip(clip, 0, 255).astype(np.uint8),)


def median_window(radius: int) -> Callable[[Grid], Options]:
    return lambda grid: {"radius": radius, "boundary": "edge", "spatial_ndim": len(grid)}


EDGE = {"boundary": "edge"}
CUBE, SQUARE = (128, 128, 128), (512, 512)
GRID_SAMPLE = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": False}
LINEAR = {"order": 1, "boundary": "edge"}


def mirrored(**options: Any) -> Callable[[Grid], Options]:
    """Of a filter, for a batch of images on a grid."""
    return lambda grid: {**options, "boundary": "mirror", "spatial_ndim": len(grid)}


def window(sigma_space: float, sigma_range: float, radius: int) -> Callable[[Grid], Options]:
    """Of a bilateral filter."""
    return mirrored(sigma_space=sigma_space, sigma_range=sigma_range, radius=radius)


def grid_of(sigma_space: float, sigma_range: float) -> Callable[[Grid], Options]:
    """Of its approximation."""
    sigmas = {"sigma_space": sigma_space, "sigma_range": sigma_range}
    return mirrored(**sigmas, radius=None, method="grid")


def image_and_guide(grid: Grid) -> tuple[Array, ...]:
    image, guide = noise_image((2, 1, 1, *grid))
    return image, guide


GAUSS = mirrored(sigma=2.0, truncate=4.0)
GUIDED = mirrored(radius=4, epsilon=1.0)

CASES = (
    Case("warp", "", FULL, image_and_field(), LINEAR),
    Case("warp", "zero", FULL, image_and_field(), {**LINEAR, "boundary": "zero"}),
    Case("warp", "order 0", FULL, image_and_field(), {**LINEAR, "order": 0}),
    Case("warp", "order 3", FULL, image_and_field(), {**LINEAR, "order": 3}),
    Case("warp", "C=4", FULL, image_and_field(4), LINEAR),
    Case("warp", "C=4 channels-last", FULL, image_and_field(4, last=True), LINEAR),
    Case("warp", "float16", FULL, image_and_field(dtype="float16"), LINEAR),
    Case("warp", "C=4 float16", FULL, image_and_field(4, "float16"), LINEAR),
    Case("warp", "", (1024, 1024), image_and_field(), LINEAR),
    Case("warp", "order 3", (1024, 1024), image_and_field(), {**LINEAR, "order": 3}),
    Case("warp", "", (512, 512), image_and_field(), LINEAR),
    Case("warp", "uint8", (1024, 1024), image_and_field(dtype="uint8"), LINEAR),
    Case("warp_adjoint", "", FULL, image_and_field(), {**LINEAR, "return_count": False}),
    Case("warp_gradient", "", FULL, cotangent_image_and_field, LINEAR),
    Case("compose", "", FULL, two_fields, EDGE),
    Case("integrate_velocity", "", HALF, one_field, {"steps": 7, "boundary": "edge"}),
    Case("integrate_velocity", "", FULL, one_field, {"steps": 7, "boundary": "edge"}),
    Case("invert", "", HALF, one_field, {"iterations": 20, "tolerance_vox": 1e-3, "boundary": "edge"}),
    Case("jacobian_determinant", "", FULL, one_field, {"return_folding": False}),
    Case("resample", "to 1.5 voxels", CT, only_image(), same_field(1.5, antialias=True)),
    Case("resample", "to 1.5 voxels, plain", CT, only_image(), same_field(1.5, antialias=False)),
    Case("resample", "to 1.5 voxels, plain int16", CT, only_image("int16"), same_field(1.5, antialias=False)),
    Case("resample", "to 0.75 voxels", CT, only_image(), same_field(0.75, antialias=True)),
    Case("warp_points", "a million points", FULL, points_and_field(10**6), EDGE),
    Case("grid_sample", "", FULL, image_and_grid, GRID_SAMPLE),
    Case("grid_sample", "", (1024, 1024), image_and_grid, GRID_SAMPLE),
    Case("grid_sample", "cubic", (1024, 1024), image_and_grid, {**GRID_SAMPLE, "mode": "bicubic"}),
    Case("warp_labels", "uint8 nearest", FULL, labels_and_field("uint8"), {"method": "nearest", **EDGE}),
    Case("warp_labels", "uint8 linear", FULL, labels_and_field("uint8"), {"method": "linear", **EDGE}),
    Case("warp_labels", "int32 nearest", FULL, labels_and_field("int32"), {"method": "nearest", **EDGE}),
    Case("warp_labels", "int32 linear", FULL, labels_and_field("int32"), {"method": "linear", **EDGE}),
    Case("non_local_means", "5x5 in 11x11", (512, 512), bands(), neighbours(2, 5, 2)),
    Case("non_local_means", "5x5 in 11x11 uint8", (512, 512), bands("uint8"), neighbours(2, 5, 2)),
    Case("non_local_means", "7x7 in 21x21", (512, 512), bands(), neighbours(3, 10, 2)),
    Case("non_local_means", "7x7 in 21x21 uint8", (512, 512), bands("uint8"), neighbours(3, 10, 2)),
    Case("non_local_means", "3^3 in 5^3", (128, 128, 128), bands(), neighbours(1, 2, 3)),
    Case("non_local_means", "3^3 in 11^3", (64, 64, 64), bands(), neighbours(1, 5, 3)),
    Case(
        "non_local_means", "3^3 in 5^3 blocks", (128,) * 3, bands(), neighbours(1, 2, 3, method="blockwise")
    ),
    Case("non_local_means", "3^3 in 5^3 Rician", (128,) * 3, bands(), neighbours(1, 2, 3, noise="rician")),
    Case("obnlm", "5x5 in 11x11 uint8", (512, 512), bands("uint8"), {**neighbours(2, 5, 2), "sigma": 2.0}),
    Case("total_variation", "50 iterations", SQUARE, denoised_image(), variation(2, 50)),
    Case("total_variation", "20 iterations", CUBE, denoised_image(), variation(3, 20)),
    Case("total_variation", "20, primal-dual", CUBE, denoised_image(), variation(3, 20, "primal_dual")),
    Case("anisotropic_diffusion", "gradient", CUBE, denoised_image(), diffusion(3, "gradient")),
    Case(
        "anisotropic_diffusion", "gradient, interval 5", CUBE, denoised_image(), diffusion(3, "gradient", 5)
    ),
    Case("anisotropic_diffusion", "curvature", CUBE, denoised_image(), diffusion(3, "curvature")),
    Case("anisotropic_diffusion", "gradient", SQUARE, denoised_image(), diffusion(2, "gradient")),
    Case("srad", "", SQUARE, denoised_image(), speckle(2)),
    Case("srad", "", CUBE, denoised_image(), speckle(3)),
    Case("bilateral", "radius 4", (512, 512), only_image(), window(3.0, 1.0, 4)),
    Case("bilateral", "radius 4 uint8", (512, 512), only_image("uint8"), window(3.0, 30.0, 4)),
    Case("bilateral", "radius 5", (64, 64, 64), only_image(), window(2.0, 1.0, 5)),
    Case("bilateral", "sigma 16 grid", (512, 512), only_image(), grid_of(16.0, 1.0)),
    Case("joint_bilateral", "radius 4", (512, 512), image_and_guide, window(3.0, 1.0, 4)),
    Case("gaussian", "sigma 2", (512, 512), only_image(), GAUSS),
    Case("gaussian", "sigma 2", (128, 128, 128), only_image(), GAUSS),
    Case("guided_filter", "radius 4", (512, 512), only_image(), GUIDED),
    Case("guided_filter", "radius 4", (128, 128, 128), only_image(), GUIDED),
    # bench_temporal.py has its peers and what each frame takes.
    Case(
        "temporal_denoise", "", (10, 240, 320), moving_frames, {"sigma": 10.0, "memory": 8.0, "motion": True}
    ),
    Case("median", "3x3x3", CUBE, only_image(), median_window(1)),
    Case("median", "3x3x3 int16", CUBE, only_image("int16"), median_window(1)),
    Case("median", "5x5x5", CUBE, only_image(), median_window(2)),
    Case("median", "7x7x7", SMALL_CUBE, only_image(), median_window(3)),
    Case("median", "3x3", (512, 512), only_image(), median_window(1)),
    Case("median", "3x3 uint8", (512, 512), only_image("uint8"), median_window(1)),
    Case("median", "5x5", (512, 512), only_image(), median_window(2)),
    Case("median", "5x5 uint8", (512, 512), only_image("uint8"), median_window(2)),
    Case("median", "7x7 uint8", (512, 512), only_image("uint8"), median_window(3)),
)
