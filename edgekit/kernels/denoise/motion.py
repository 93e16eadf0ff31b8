"""How far everything has moved between two frames, in a number of steps that is always the same."""

from __future__ import annotations

import numpy as np

from edgekit.kernels.base import Floats
from edgekit.kernels.denoise.parts import Kernels, doubling, halving, smoothing

# Steps at half, quarter and eighth resolution.
STEPS = (3, 2, 2)
# Frames are halved as long as this many pixels are on both sides.
SMALLEST = 16
HALVING_SIGMA, WINDOW_SIGMA = 0.6, 3.0
# What halving leaves of the deviation of white noise; the variance of that noise damps the steps.
NOISE_LEFT = 0.4
# In standard deviations of the noise: nothing steeper counts, and no product overflows.
LIMIT = 1e4
LONGEST_STEP = 1.0


class _Level:
    """Memory of one resolution, and what makes it."""

    def __init__(self, height: int, width: int, number: int) -> None:
        half = (height // 2, width // 2)
        self.steps = STEPS[number]
        self.damping = np.float32(NOISE_LEFT ** (2 * (number + 1)))
        self.halve = halving(height, width, HALVING_SIGMA)
        self.double = doubling((2,), height, width)
        self.smooth_three = smoothing((3,), *half, WINDOW_SIGMA)
        self.smooth_two = smoothing((2,), *half, WINDOW_SIGMA)
        self.current, self.reference, self.spare = np.empty((3, *half), np.float32)
        self.flow = np.zeros((1, 2, *half), np.float32)
        self.warped = np.empty((1, 1, *half), np.float32)
        self.slope = np.zeros((2, *half), np.float32)
        self.products, self.tensor = np.empty((2, 3, *half), np.float32)
        self.right, self.step = np.empty((2, 2, *half), np.float32)
        self.inverse = np.empty(half, np.float32)

    def prepare(self, kernels: Kernels) -> None:
        """Find the slope of the current frame, and its damped structure tensor."""
        slope, products, tensor, now = self.slope, self.products, self.tensor, self.current
        np.subtract(now[2:], now[:-2], out=slope[0, 1:-1])
        # As one line, whose ends of rows are then made 0: for lines apart NumPy takes memory.
        line = now.reshape(-1)
        np.subtract(line[2:], line[:-2], out=slope[1].reshape(-1)[1:-1])
        slope[1, :, 0] = slope[1, :, -1] = 0
        np.multiply(slope, np.float32(0.5), out=slope)
        np.clip(slope, -LIMIT, LIMIT, out=slope)
        np.multiply(slope[0], slope[0], out=products[0])
        np.multiply(slope[0], slope[1], out=products[1])
        np.multiply(slope[1], slope[1], out=products[2])
        self.smooth_three(kernels, products, tensor)
        np.add(tensor[0], self.damping, out=tensor[0])
        np.add(tensor[2], self.damping, out=tensor[2])
        np.multiply(tensor[0], tensor[2], out=self.inverse)
        np.multiply(tensor[1], tensor[1], out=self.spare)
        np.subtract(self.inverse, self.spare, out=self.inverse)
        np.maximum(self.inverse, self.damping * self.damping, out=self.inverse)
        np.reciprocal(self.inverse, out=self.inverse)

    def improve(self, kernels: Kernels) -> None:
        """One step of Lucas and Kanade's at every pixel."""
        tensor, right, step, spare = self.tensor, self.right, self.step, self.spare
        kernels.warp(self.reference[None, None], self.flow, self.warped, 1)
        np.subtract(self.warped[0, 0], self.current, out=spare)
        np.clip(spare, -LIMIT, LIMIT, out=spare)
        for row in (0, 1):  # by itself: to stretch an operand NumPy takes memory
            np.multiply(self.slope[row], spare, out=step[row])
        self.smooth_two(kernels, step, right)
        for row in (0, 1):  # Cramer's rule
            np.multiply(tensor[2 - 2 * row], right[row], out=step[row])
            np.multiply(tensor[1], right[1 - row], out=spare)
            np.subtract(step[row], spare, out=step[row])
            np.multiply(step[row], self.inverse, out=step[row])
        np.clip(step, -LONGEST_STEP, LONGEST_STEP, out=step)
        np.subtract(self.flow[0], step, out=self.flow[0])


class Motion:
    """Dense displacement between frames of one size, by Lucas and Kanade's method at every pixel.

    Iterative and coarse to fine (Lucas & Kanade, IJCAI 1981; Bouguet, 2000; densely as by Le Besnerais &
    Champagnat, ICIP 2005): Gaussian windows of three pixels, 3, 2 and 2 steps at half, quarter and eighth
    resolution, whose length is at most a pixel there. The damping is ours: the variance of the noise, added
    to the diagonal of the structure tensor, so that noise moves nothing.
    """

    def __init__(self, height: int, width: int) -> None:
        self._levels: list[_Level] = []
        while len(self._levels) < len(STEPS) and min(height, width) >= SMALLEST:
            self._levels.append(_Level(height, width, len(self._levels)))
            height, width = height // 2, width // 2

    def find(self, kernels: Kernels, current: Floats, reference: Floats, flow: Floats) -> None:
        """Fill ``flow`` so that ``reference[p + flow[p]]`` is like ``current[p]``.

        Args:
            kernels: What computes.
            current: [H, W], in standard deviations of its noise.
            reference: Likewise.
            flow: [1, 2, H, W] with components (y, x), in pixels; 0 for frames too small to be halved.
        """
        for level in self._levels:
            level.halve(kernels, current, level.current)
            level.halve(kernels, reference, level.reference)
            current, reference = level.current, level.reference
        if not self._levels:
            flow[...] = 0
            return
        self._levels[-1].flow[...] = 0
        for number in range(len(self._levels) - 1, -1, -1):
            level = self._levels[number]
            level.prepare(kernels)
            for _ in range(level.steps):
                level.improve(kernels)
            target = self._levels[number - 1].flow if number else flow
            level.double(kernels, level.flow[0], target[0])
            np.multiply(target, np.float32(2), out=target)
