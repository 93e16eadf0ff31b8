"""The definition of :class:`edgekit.kernels.TemporalDenoiser` in float64, on whole arrays."""

from __future__ import annotations

import functools

import numpy as np

from edgekit.kernels.base import Doubles
from edgekit.kernels.denoise import motion as m
from edgekit.kernels.denoise.noise import reference as estimate_noise
from edgekit.kernels.interpolation import displaced, extend, sample
from edgekit.kernels.resample import gaussian

# The mean square of a residual counts from this many times what noise makes of it, and this much.
RESIDUAL_SIGMA, CONSISTENT, SEVERITY = 2.0, 1.5, 4.0


def denoised(clip: Doubles, sigma: float | None, memory: float, motion: bool) -> Doubles:
    """All frames of a clip [T, H, W]."""
    result: Doubles = clip.copy()
    known = gain = None
    for frame, out in zip(clip, result, strict=True):
        if sigma is None and max(frame.shape) >= 4:
            sigma = float(estimate_noise(frame[None, None], spatial_ndim=2)[0][0, 0]) or None
        if sigma is None:
            continue
        now = frame / sigma
        if known is None or gain is None:
            known, gain = now, np.ones_like(now)
            continue
        if motion:
            known, gain = _warped(np.stack([known, gain]), displacement(now, known), 3)
        gain = np.clip(gain, 1 / memory, 1)
        residual = now - known
        mean = _smoothed(np.square(np.clip(residual, -m.LIMIT, m.LIMIT)), RESIDUAL_SIGMA)
        uncertainty = gain + SEVERITY * np.maximum(mean - CONSISTENT * (1 + gain), 0)
        gain = np.maximum(uncertainty / (uncertainty + 1), 1 / memory)
        known = known + gain * residual
        out[...] = sigma * known
    return result


def displacement(now: Doubles, before: Doubles) -> Doubles:
    """[2, H, W] so that ``before[p + flow[p]]`` is like ``now[p]``."""
    frames = [(now, before)]
    while len(frames) <= len(m.STEPS) and min(frames[-1][0].shape) >= m.SMALLEST:
        halved = [_halved(image) for image in frames[-1]]
        frames.append((halved[0], halved[1]))
    flow = np.zeros((2, *frames[-1][0].shape))
    for number in range(len(frames) - 1, 0, -1):
        now, before = frames[number]
        damping = m.NOISE_LEFT ** (2 * number)
        slope = np.zeros((2, *now.shape))
        slope[0, 1:-1] = (now[2:] - now[:-2]) / 2
        slope[1, :, 1:-1] = (now[:, 2:] - now[:, :-2]) / 2
        slope = np.clip(slope, -m.LIMIT, m.LIMIT)
        tensor = _smoothed(slope[:, None] * slope[None], m.WINDOW_SIGMA)
        tensor += damping * np.eye(2)[:, :, None, None]
        inverse = np.linalg.inv(tensor.transpose(2, 3, 0, 1))
        for _ in range(m.STEPS[number - 1]):
            error = np.clip(_warped(before[None], flow, 1)[0] - now, -m.LIMIT, m.LIMIT)
            right = _smoothed(slope * error, m.WINDOW_SIGMA)
            step = np.einsum("yxij,jyx->iyx", inverse, right)
            flow = flow - np.clip(step, -m.LONGEST_STEP, m.LONGEST_STEP)
        flow = 2 * _doubled(flow, frames[number - 1][0].shape)
    return flow


def _warped(images: Doubles, flow: Doubles, order: int) -> Doubles:
    moved: Doubles = sample(images[None], displaced(flow[None], "edge"), order, "edge")[0]
    return moved


@functools.cache
def _gaussian_matrix(size: int, boundary: str, sigma: float) -> Doubles:
    weights = gaussian(sigma)
    reach = len(weights) // 2
    matrix = np.zeros((size, size))
    for shift, weight in zip(range(-reach, reach + 1), weights, strict=True):
        np.add.at(matrix, (np.arange(size), extend(np.arange(size) + shift, size, boundary)), weight)
    return matrix


@functools.cache
def _linear_matrix(count: int, size: int, first: float, step: float) -> Doubles:
    """Linear interpolation of a line at ``first + step * p``, clamped to it."""
    at = np.clip(first + step * np.arange(count), 0, size - 1)
    return np.stack([np.interp(at, np.arange(size), unit) for unit in np.eye(size)], axis=1)


def _apply(along_y: Doubles, along_x: Doubles, image: Doubles) -> Doubles:
    return np.asarray(along_y @ image @ along_x.T)


def _smoothed(image: Doubles, sigma: float) -> Doubles:
    along_y, along_x = (_gaussian_matrix(size, "mirror", sigma) for size in image.shape[-2:])
    return _apply(along_y, along_x, image)


def _halved(image: Doubles) -> Doubles:
    along = [
        _linear_matrix(size // 2, size, 0.5, 2.0) @ _gaussian_matrix(size, "edge", m.HALVING_SIGMA)
        for size in image.shape
    ]
    return _apply(along[0], along[1], image)


def _doubled(image: Doubles, shape: tuple[int, ...]) -> Doubles:
    along = [_linear_matrix(size, old, -0.25, 0.5) for size, old in zip(shape, image.shape[-2:], strict=True)]
    return _apply(along[0], along[1], image)
