"""Training data made of nothing but random numbers: shapes, contrasts, deformations and noise.

Every generator takes a :class:`torch.Generator`; the same seed and arguments give the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from edgekit.torch.definitions import integrate_plain, warp_plain


def uniform(rng: Generator, low: float, high: float) -> float:
    """One number from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def choice(rng: Generator, low: int, high: int) -> int:
    """One integer from [low, high)."""
    return int(torch.randint(low, high, (), generator=rng))


def spline_noise(rng: Generator, channels: int, shape: Sequence[int], spacing: float) -> Tensor:
    """Smooth random fields [channels, *shape]: cubic B-splines over normal coefficients ``spacing`` apart.

    Each channel has about unit variance. The knots lie at a random phase, so no position is special.
    """
    knots = [math.ceil(size / spacing) + 4 for size in shape]
    field = torch.randn([channels, *knots], generator=rng)
    for axis, size in enumerate(shape):
        position = torch.arange(size) / spacing + 1 + torch.rand((), generator=rng)
        weights = _cubic_bspline(position[:, None] - torch.arange(knots[axis])[None, :])
        weights = weights / weights.square().sum(1, keepdim=True).sqrt()
        field = torch.movedim(torch.tensordot(field, weights, dims=([axis + 1], [1])), -1, axis + 1)
    return field


def _cubic_bspline(t: Tensor) -> Tensor:
    t = t.abs()
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = (2 - t).clamp(min=0) ** 3 / 6
    return torch.where(t < 1, inner, outer)


def gaussian_blur(field: Tensor, *sigma_vox: float) -> Tensor:
    """Separable Gaussian of ``field`` [channels, *shape], one sigma for all axes or one each.

    The weights are renormalised at the border.
    """
    axes = range(1, field.dim())
    for axis, sigma in zip(axes, sigma_vox if len(sigma_vox) > 1 else sigma_vox * len(axes), strict=True):
        if sigma < 0.2:
            continue
        index = torch.arange(field.shape[axis], dtype=field.dtype)
        weights = torch.exp(-0.5 * ((index[:, None] - index[None, :]) / sigma) ** 2)
        weights = weights / weights.sum(1, keepdim=True)
        field = torch.movedim(torch.tensordot(field, weights, dims=([axis], [1])), -1, axis)
    return field


# --- volumes for registration ---------------------------------------------------------------------------


def label_map(rng: Generator, shape: Sequence[int]) -> Tensor:
    """Random anatomy, int64 [D, H, W]: a body of regions with folded layers in it; label 0 is background."""
    regions = choice(rng, 2, 7)
    labels = spline_noise(rng, regions, shape, uniform(rng, 8, 24)).argmax(0)
    # Level sets of one smooth field make nested, folded sheets, as the cortex and its white matter do.
    layers = choice(rng, 3, 6)
    fold = spline_noise(rng, 1, shape, uniform(rng, 3.5, 8))[0]
    sheet = torch.bucketize(fold, torch.linspace(-0.8, 0.8, layers - 1))
    folded = torch.rand(regions, generator=rng)[labels] < 0.9
    labels = labels * layers + torch.where(folded, sheet, 0)
    if choice(rng, 0, 2):
        small = spline_noise(rng, 1, shape, uniform(rng, 3, 6))[0]
        labels = torch.where(small > uniform(rng, 1.0, 2.0), regions * layers, labels)
    inside = _body(rng, shape)
    return torch.where(inside, labels + 1, 0)


def _body(rng: Generator, shape: Sequence[int]) -> Tensor:
    if uniform(rng, 0, 1) < 0.25:
        return torch.ones(tuple(shape), dtype=torch.bool)
    radius2 = torch.zeros(tuple(shape))
    for axis, size in enumerate(shape):
        centre, radius = size * uniform(rng, 0.42, 0.58), size * uniform(rng, 0.38, 0.6)
        line = ((torch.arange(size) - centre) / radius) ** 2
        radius2 = radius2 + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    wobble = spline_noise(rng, 1, shape, uniform(rng, 8, 20))[0] * uniform(rng, 0.05, 0.25)
    return radius2 + wobble < 1


def smooth_velocity(rng: Generator, shape: Sequence[int]) -> Tensor:
    """A smooth stationary velocity [3, D, H, W] in voxels, of mean length 0.2 to 3 and without folds."""
    spacing = uniform(rng, 8, 24)
    velocity = spline_noise(rng, 3, shape, spacing)
    if choice(rng, 0, 2):
        velocity = velocity + spline_noise(rng, 3, shape, spacing / 2) * uniform(rng, 0, 0.3)
    # Steeper fields than this fold once they are sampled on voxels.
    mean_length = uniform(rng, 0.2, min(3.0, 0.22 * spacing))
    return velocity * mean_length / velocity.square().sum(0).sqrt().mean()


def contrast(rng: Generator, labels: Tensor) -> Tensor:
    """A noise-free image [D, H, W] of ``labels``: a random grey value per label, a smooth texture, a blur."""
    count = int(labels.max()) + 1
    grey = torch.rand(count, generator=rng)
    if choice(rng, 0, 2):
        # Soft tissues differ little from each other and much from the background.
        span = uniform(rng, 0.1, 0.5)
        grey = uniform(rng, 0, 1 - span) + span * grey
    if uniform(rng, 0, 1) < 0.7:
        grey[0] = 0
    image = grey[labels]
    if uniform(rng, 0, 1) < 0.7:
        strength = torch.rand(count, generator=rng)[labels] * uniform(rng, 0, 0.25) * (labels > 0)
        image = image + strength * spline_noise(rng, 1, image.shape, uniform(rng, 2, 6))[0]
    return gaussian_blur(image[None], uniform(rng, 0, 1.2))[0]


def acquire(rng: Generator, image: Tensor, difficulty: float) -> Tensor:
    """One acquisition of a clean image: blur, bias field, gamma and noise, from none (0) to strong (1)."""
    if uniform(rng, 0, 1) < 0.3:
        image = gaussian_blur(image[None], difficulty * uniform(rng, 0, 1.2))[0]
    if choice(rng, 0, 2):
        bias = spline_noise(rng, 1, image.shape, uniform(rng, 24, 64))[0]
        image = image * torch.exp(bias * difficulty * uniform(rng, 0, 0.25))
    low, high = image.amin(), image.amax()
    gamma = math.exp(difficulty * uniform(rng, -1, 1) ** 3 * 0.5)
    image = ((image - low) / (high - low).clamp(min=1e-6)) ** gamma
    noise = torch.randn(image.shape, generator=rng) * difficulty * uniform(rng, 0, 1) ** 3 * 0.08
    return image + noise * (1 if choice(rng, 0, 2) else image)


def registration_case(
    rng: Generator, shape: Sequence[int], difficulty: float, other_contrast: bool | None = None
) -> tuple[Tensor, ...]:
    """Moving and fixed image [1, D, H, W], the velocity between them [3, D, H, W], the body [1, D, H, W].

    ``fixed`` shows the anatomy of ``moving`` pulled by the integrated velocity; in another contrast where
    ``other_contrast`` says so, or, where it says nothing, one time of four at difficulty 1.
    """
    labels = label_map(rng, shape)
    velocity = smooth_velocity(rng, shape)
    flow = integrate_plain(velocity[None], 5, "edge")
    image = contrast(rng, labels)
    pulled = warp_plain(labels[None, None].float(), flow, 0, "edge")[0, 0].long()
    drawn = uniform(rng, 0, 1) < 0.25 * difficulty
    if drawn if other_contrast is None else other_contrast:
        other = contrast(rng, pulled)
    else:
        other = warp_plain(image[None, None], flow, 1, "edge")[0, 0]
    moving, fixed = (acquire(rng, clean, difficulty)[None] for clean in (image, other))
    return moving, fixed, velocity, (pulled > 0)[None]


def random_pose(rng: Generator, *volumes: Tensor) -> list[Tensor]:
    """The same case after a random permutation and mirroring of its axes; fields [3, ...] turn with them."""
    order = torch.randperm(3, generator=rng).tolist()
    mirrored = [axis for axis in range(3) if choice(rng, 0, 2)]
    sign = torch.tensor([-1.0 if axis in mirrored else 1.0 for axis in range(3)]).reshape(3, 1, 1, 1)
    turned = []
    for volume in volumes:
        vectors = len(volume) == 3
        posed = (volume[order] if vectors else volume).permute(0, *(axis + 1 for axis in order))
        posed = posed.flip([axis + 1 for axis in mirrored])
        turned.append(posed * sign if vectors else posed)
    return turned


# --- images for denoising -------------------------------------------------------------------------------


def clean_picture(rng: Generator, shape: Sequence[int]) -> Tensor:
    """A noise-free image [1, H, W] in [0, 1] with what CT, MR and ultrasound show: see the parts it calls."""
    image = _leaves(rng, shape) if choice(rng, 0, 2) else _regions(rng, shape)
    if uniform(rng, 0, 1) < 0.7:
        shading = spline_noise(rng, 1, shape, uniform(rng, 12, 50))
        image = image + uniform(rng, 0, 0.25) * _patch(rng, shape) * shading
    for _ in range(choice(rng, 0, 4)):
        image = image + _curves(rng, shape) * uniform(rng, -0.8, 0.8)
    if choice(rng, 0, 2):
        texture = spline_noise(rng, 1, shape, uniform(rng, 1.5, 6))
        image = image + uniform(rng, 0, 0.08) * _patch(rng, shape) * texture
    image = gaussian_blur(_stretch(rng, image), uniform(rng, 0, 1.4))
    if uniform(rng, 0, 1) < 0.2:
        image = _speckle(rng, image)
    if uniform(rng, 0, 1) < 0.3:
        image = image ** uniform(rng, 0.6, 3)
    if uniform(rng, 0, 1) < 0.4:
        image = image * gaussian_blur((_body(rng, shape)[None]).float(), uniform(rng, 0, 1.5))
    if uniform(rng, 0, 1) < 0.15:
        image = torch.maximum(image, _glyphs(rng, shape) * uniform(rng, 0.4, 1))
    return _stretch(rng, image)


def _stretch(rng: Generator, image: Tensor) -> Tensor:
    """Scales to [0, 1] after cutting off up to 3 % at either end, so flat saturated areas occur."""
    cuts = torch.tensor([uniform(rng, 0, 0.03) ** 1.5, 1 - uniform(rng, 0, 0.03) ** 1.5])
    low, high = torch.quantile(image.flatten(), cuts).unbind()
    return ((image - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)


def _palette(rng: Generator, count: int) -> Tensor:
    """Grey values in a few clusters, as tissues are: air, soft tissues close together, bone."""
    centres = torch.rand(choice(rng, 2, 6), generator=rng)
    spread = uniform(rng, 0, 0.08)
    picks = torch.randint(0, len(centres), (count,), generator=rng)
    return (centres[picks] + spread * torch.randn(count, generator=rng)).clamp(0, 1)


def _regions(rng: Generator, shape: Sequence[int]) -> Tensor:
    labels = spline_noise(rng, choice(rng, 2, 9), shape, uniform(rng, 10, 50)).argmax(0)
    if choice(rng, 0, 2):
        fold = spline_noise(rng, 1, shape, uniform(rng, 5, 25))[0]
        labels = labels * 6 + torch.bucketize(fold, torch.linspace(-1, 1, choice(rng, 1, 6)))
    return _palette(rng, int(labels.max()) + 1)[labels][None]


def _leaves(rng: Generator, shape: Sequence[int]) -> Tensor:
    """Dead leaves (Matheron 1968): overlapping ellipses and boxes whose radii follow a power law."""
    height, width = shape
    count = choice(rng, 20, 160)
    grey = _palette(rng, count + 1)
    image = torch.full((height, width), float(grey[-1]))
    draws = torch.rand((count, 6), generator=rng).tolist()
    smallest, largest = uniform(rng, 2, 8), uniform(rng, 25, 80)
    for value, (u, row, column, ratio, turn, kind) in zip(grey.tolist(), draws, strict=False):
        radius = (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5
        y0, x0 = row * height, column * width
        top, bottom = max(0, int(y0 - radius)), min(height, int(y0 + radius) + 2)
        left, right = max(0, int(x0 - radius)), min(width, int(x0 + radius) + 2)
        y = torch.arange(top, bottom)[:, None] - y0
        x = torch.arange(left, right)[None, :] - x0
        cos, sin = math.cos(math.pi * turn), math.sin(math.pi * turn)
        a, b = (cos * y + sin * x) / radius, (cos * x - sin * y) / (radius * (0.25 + 0.75 * ratio))
        inside = a.square() + b.square() < 1 if kind < 0.8 else torch.maximum(a.abs(), b.abs()) < 0.7
        image[top:bottom, left:right][inside] = value
    return image[None]


def _patch(rng: Generator, shape: Sequence[int]) -> Tensor:
    """A random smooth area of ones on zeros [1, H, W]."""
    return (spline_noise(rng, 1, shape, uniform(rng, 15, 60)) > uniform(rng, -1, 1)).float()


def _curves(rng: Generator, shape: Sequence[int]) -> Tensor:
    """Thin curved lines [1, H, W]: the zero set of a smooth field, drawn some width wide, inside a patch."""
    field = spline_noise(rng, 1, shape, uniform(rng, 8, 50))
    slope = torch.linalg.vector_norm(torch.stack(torch.gradient(field, dim=(1, 2))), dim=0).clamp(min=1e-3)
    return torch.lt(field.abs() / slope, uniform(rng, 0.4, 2.5)).float() * _patch(rng, shape)


def _speckle(rng: Generator, image: Tensor) -> Tensor:
    """Ultrasound: Rayleigh amplitude of correlated scatter times the reflectivity, log-compressed."""
    along, across = uniform(rng, 0.4, 1.2), uniform(rng, 0.8, 2.5)
    scatter = torch.randn((2, *image.shape[1:]), generator=rng)
    amplitude = gaussian_blur(scatter, along, across).norm(dim=0, keepdim=True)
    amplitude = (amplitude / amplitude.mean()) ** uniform(rng, 0.3, 1)
    fade = torch.exp(0.6 * spline_noise(rng, 1, image.shape[1:], uniform(rng, 30, 90)))
    gain = 10 ** uniform(rng, 0, 1.5)
    return torch.log1p(gain * image.square() * amplitude * fade) / math.log1p(gain)


def _glyphs(rng: Generator, shape: Sequence[int]) -> Tensor:
    """Rows of small bit patterns [1, H, W], standing in for burnt-in text and rulers."""
    page = torch.zeros(1, *shape)
    for _ in range(choice(rng, 1, 12)):
        scale, length = choice(rng, 1, 3), choice(rng, 1, 8)
        word = (torch.rand((7, 6 * length), generator=rng) < 0.5).float()
        word[:, 5::6] = 0
        word = word.repeat_interleave(scale, 0).repeat_interleave(scale, 1)[:, : shape[1] // 2]
        top = choice(rng, 0, shape[0] - word.shape[0])
        left = choice(rng, 0, shape[1] - word.shape[1])
        page[0, top : top + word.shape[0], left : left + word.shape[1]] = word
    return page


def add_noise(rng: Generator, image: Tensor, sigma: float, rician: bool) -> Tensor:
    """``image`` with Gaussian noise, or the magnitude of a complex signal with it in both parts."""
    real = image + sigma * torch.randn(image.shape, generator=rng)
    if not rician:
        return real
    return torch.hypot(real, sigma * torch.randn(image.shape, generator=rng))
