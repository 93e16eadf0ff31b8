"""Ultrasound images of a breast that never was, with one of four findings in it.

Layers of tissue reflect, a random scatter makes them speckle, the beam weakens with depth, and a finding
changes all three. Lengths are shares of the image's sides, axes (y, x), y the depth.
Every generator takes a :class:`torch.Generator`; the same seed and arguments give the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from edgekit.zoo.synthetic import choice, gaussian_blur, spline_noise, uniform

PROBES = ("coarse", "fine")


def breast_image(rng: Generator, shape: Sequence[int], finding: int, probe: str) -> Tensor:
    """An image [1, H, W] in [0, 1].

    Args:
        rng: Decides everything else.
        shape: (H, W).
        finding: 0 nothing; 1 a cyst: dark, smooth, what lies behind it is brighter; 2 a fibroadenoma: grey,
            oval, smooth; 3 a carcinoma: grey, ragged, what lies behind it is darker. Fat lobules and the
            shadows of ligaments look like them and occur in all.
        probe: One of :data:`PROBES`: how long and wide the speckles are.
    """
    height, width = shape
    bent = spline_noise(rng, 2, shape, min(shape) * uniform(rng, 0.25, 0.5)) * 0.025
    y = torch.linspace(0, 1, height)[:, None] + bent[0]
    x = torch.linspace(0, 1, width)[None, :] + bent[1]
    reflects = _layers(rng, y, x)
    gain = torch.zeros(height, width)
    for _ in range(choice(rng, 0, 3)):
        at, wide = uniform(rng, 0, 1), uniform(rng, 0.02, 0.06)
        gain = gain - uniform(rng, 0, 0.9) * torch.exp(-(((x - at) / wide) ** 2)) * (
            y > uniform(rng, 0.2, 0.6)
        )
    if finding:
        reflects, behind = _with_finding(rng, reflects, y, x, finding)
        gain = gain + behind
    return _scan(rng, reflects, gain, probe)


def _layers(rng: Generator, y: Tensor, x: Tensor) -> Tensor:
    """How strongly each place reflects, in nepers: skin, fat with lobules, gland, muscle."""
    shape = y.shape
    skin, fat, gland = uniform(rng, 0.03, 0.07), uniform(rng, 0.18, 0.35), uniform(rng, 0.68, 0.85)
    level = torch.full(shape, uniform(rng, -1.3, -0.9))
    coarse = spline_noise(rng, 1, shape, min(shape) * uniform(rng, 0.06, 0.12))[0]
    level = torch.where(y < gland, uniform(rng, -0.3, 0.1) + uniform(rng, 0.1, 0.35) * coarse, level)
    level = torch.where(y < fat, uniform(rng, -1.2, -0.8) + 0.15 * coarse, level)
    level = torch.where((y - gland).abs() < 0.012, 0.5, level)
    level = torch.where(y < skin, 0.6, level)
    for _ in range(choice(rng, 1, 6)):
        centre = uniform(rng, 0.1, 0.7), uniform(rng, 0, 1)
        lobule = ((y - centre[0]) / uniform(rng, 0.02, 0.065)) ** 2 + (
            (x - centre[1]) / uniform(rng, 0.04, 0.13)
        ) ** 2
        level = torch.where((lobule < 1) & (y > skin), uniform(rng, -1.2, -0.5), level)
        rim = (lobule - 1).abs() < 0.12
        level = torch.where(rim & (y > skin), level + uniform(rng, 0, 0.6), level)
    return level


def _with_finding(rng: Generator, level: Tensor, y: Tensor, x: Tensor, finding: int) -> tuple[Tensor, Tensor]:
    """The reflection with the finding in it, and the gain that it gives to what lies behind it, in nepers."""
    ratio = {1: (0.7, 1.05), 2: (0.45, 0.9), 3: (0.7, 1.3)}[finding]
    wide = uniform(rng, 0.08, 0.19)
    high = wide * uniform(rng, *ratio)
    centre = uniform(rng, 0.3, 0.62), uniform(rng, 0.25, 0.75)
    turn = uniform(rng, -0.35, 0.35)
    down, side = y - centre[0], x - centre[1]
    a = (math.cos(turn) * down + math.sin(turn) * side) / high
    b = (math.cos(turn) * side - math.sin(turn) * down) / wide
    radius = torch.hypot(a, b)
    angle = torch.atan2(a, b)
    wobble = torch.zeros(())
    waves = {1: (2, 4, 0.05), 2: (2, 5, 0.08), 3: (4, 13, 0.14)}[finding]
    for count in range(waves[0], waves[1]):
        phase = uniform(rng, 0, 2 * math.pi)
        wobble = wobble + waves[2] * uniform(rng, 0.2, 1) * torch.sin(count * angle + phase) / count**0.35
    edge = radius * (1 + wobble)
    inside = torch.sigmoid((1 - edge) / uniform(rng, 0.03, 0.12))
    dark = {1: uniform(rng, -3.4, -1.7), 2: uniform(rng, -1.7, -0.8), 3: uniform(rng, -2.0, -0.8)}[finding]
    shape = level.shape
    texture = spline_noise(rng, 1, shape, min(shape) * uniform(rng, 0.03, 0.08))[0]
    rough = {1: uniform(rng, 0, 0.25), 2: uniform(rng, 0, 0.25), 3: uniform(rng, 0.1, 0.45)}[finding]
    level = level * (1 - inside) + inside * (dark + rough * texture)
    if finding == 3:
        halo = torch.exp(-(((edge - 1.15) / 0.15) ** 2))
        level = level + uniform(rng, 0, 0.6) * halo
    else:
        capsule = torch.exp(-(((edge - 1.03) / 0.05) ** 2)) * (a.abs() > b.abs())
        level = level + uniform(rng, 0.1, 0.9) * capsule
    covered = torch.sigmoid((0.9 - side.abs() / wide) / 0.1) * torch.sigmoid((down - 0.8 * high) / 0.03)
    strength = {1: uniform(rng, 0.05, 0.9), 2: uniform(rng, -0.2, 0.4), 3: uniform(rng, -1.1, 0.05)}[finding]
    return level, strength * covered


def _scan(rng: Generator, level: Tensor, gain: Tensor, probe: str) -> Tensor:
    """What the machine shows: amplitude of correlated scatter, weaker with depth, log-compressed."""
    shape = level.shape
    if probe == "coarse":
        along, across = uniform(rng, 0.8, 1.2), uniform(rng, 1.6, 2.4)
    else:
        along, across = uniform(rng, 0.4, 0.7), uniform(rng, 0.8, 1.3)
    scatter = gaussian_blur(torch.randn(2, *shape, generator=rng), along, across)
    scatter = scatter / scatter.std()
    amplitude = scatter * torch.exp(gaussian_blur(level[None], along, across))
    depth = torch.linspace(0, 1, shape[0])[:, None]
    uneven = 0.12 * spline_noise(rng, 1, shape, min(shape) * 0.5)[0]
    signal = amplitude.norm(dim=0) * torch.exp(gain + uneven - uniform(rng, -0.2, 1.0) * depth)
    signal = signal + uniform(rng, 0.01, 0.05) * torch.randn(2, *shape, generator=rng).norm(dim=0)
    contrast = uniform(rng, 6, 30)
    image = torch.log1p(contrast * signal) / math.log1p(contrast * uniform(rng, 2.5, 4))
    return image.clamp(0, 1)[None]
